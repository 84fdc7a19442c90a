"""The Hugging Face hub: a model card's folder whose norm and weights are verified after loading, not believed.

`ModelHubMixin` brings `save_pretrained`, `push_to_hub` and `from_pretrained`; a local folder will do.
"""

import importlib.util
import json
import tempfile
from pathlib import Path

if importlib.util.find_spec("huggingface_hub") is None:
    print("skipped: this example needs the hub's client, which pip install huggingface_hub brings")
    raise SystemExit

from huggingface_hub import ModelHubMixin, snapshot_download

import tightlip


class ProvenModel(ModelHubMixin):
    """A frozen network with its constant and the hash of its weights beside it."""

    def __init__(self, network):
        self.network = network

    def _save_pretrained(self, save_directory):
        tightlip.save(self.network, save_directory / "model.safetensors")  # no pickle

    @property
    def claim(self):
        """What is said of it, in config.json."""
        constant = tightlip.lipschitz(self.network, p=2).constant
        return {"constant": constant, "weights_sha256": tightlip.weights_sha256(self.network)}

    @classmethod
    def _from_pretrained(cls, *, model_id, **options):
        known = {name: options[name] for name in ("revision", "cache_dir", "token") if name in options}
        folder = Path(model_id if Path(model_id).is_dir() else snapshot_download(model_id, **known))
        model = cls(tightlip.load(folder / "model.safetensors"))
        claim = json.loads((folder / "config.json").read_bytes())
        same = model.claim["weights_sha256"] == claim["weights_sha256"]
        if not same or model.claim["constant"] > claim["constant"] * (1 + 1e-9):  # other processors round otherwise
            raise ValueError(f"config.json claims K ≤ {claim['constant']}, and these weights are others")
        return model


folder = Path(tempfile.mkdtemp())
model = ProvenModel(tightlip.freeze(tightlip.mlp([8, 32, 3], K=2.0)))
model.save_pretrained(folder, config=model.claim)
loaded = ProvenModel.from_pretrained(folder)
print(f"loaded and proven again: K ≤ {loaded.claim['constant']:.9f}")

loaded.network[0].weight.data *= 1.01  # somebody's fine-tuning, under the old claim
tightlip.save(loaded.network, folder / "model.safetensors")
try:
    ProvenModel.from_pretrained(folder)
    raise SystemExit("a changed model was loaded")
except ValueError as refused:
    print(f"refused: {refused}")

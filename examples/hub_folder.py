"""The Hugging Face hub: a model card's folder whose norm and weights are verified after loading, not believed.

`ModelHubMixin` brings `save_pretrained`, `push_to_hub` and `from_pretrained`; here they use a local folder. What it
claims is compared with the hash of the weights that came, and with a proof that is made again from them.
"""

import importlib.util
import json
import tempfile
from pathlib import Path

if importlib.util.find_spec("huggingface_hub") is None:
    print("skipped: this example needs the hub's client, which pip install huggingface_hub brings")
    raise SystemExit

import torch
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
        bound, weights = tightlip.lipschitz(self.network, p=2), tightlip.weights_sha256(self.network)
        return {"constant": bound.constant, "weights_sha256": weights}

    @classmethod
    def _from_pretrained(cls, *, model_id, **options):
        known = {name: options[name] for name in ("revision", "cache_dir", "token") if name in options}
        folder = Path(model_id if Path(model_id).is_dir() else snapshot_download(model_id, **known))
        model = cls(tightlip.load(folder / "model.safetensors"))
        claim = json.loads((folder / "config.json").read_text())
        if model.claim != claim:  # the same weights, and so the same proof
            raise ValueError(f"config.json claims {claim}, and what came is {model.claim}")
        return model


torch.manual_seed(0)
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

"""Lightning: `hold` in `configure_optimizers` is the only new line; freeze, audit and certify after the fit."""

import importlib.util
import logging
import warnings

if importlib.util.find_spec("lightning") is None:
    print("skipped: this example needs Lightning, which pip install lightning brings")
    raise SystemExit

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

import tightlip

warnings.simplefilter("ignore")  # of what Lightning advises about workers and devices
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Classifier(lightning.LightningModule):
    """An ordinary module around a network whose layers are held."""

    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Flatten(), tightlip.mlp([784, 64, 64, 10]))

    def training_step(self, batch, _):
        """The loss of a batch."""
        x, y = batch
        return tightlip.margin_cross_entropy(self.network(x), y, offset=0.8, temperature=0.25)

    def configure_optimizers(self):
        """The optimizer, which puts the weights back on their sets after every step."""
        optimizer = tightlip.hold(self.network, torch.optim.Adam(self.parameters(), lr=2e-3))
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)]


lightning.seed_everything(0)
parts = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0)
loader = DataLoader(TensorDataset(parts.train.images, parts.train.labels), batch_size=128, shuffle=True)
model = Classifier()
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", gradient_clip_val=1.0, **quiet)
trainer.fit(model, loader)

frozen = tightlip.freeze(model.network)
certificate = tightlip.certify(frozen, parts.test, p=2)
print(f"audited {certificate.bound.constant:.9f}, {certificate.accuracy(0):.1%} correct, ", end="")
print(f"{certificate.accuracy(0.3):.1%} certified at 0.3")
assert certificate.bound.constant <= 1 and certificate.accuracy(0.3) > 0.5

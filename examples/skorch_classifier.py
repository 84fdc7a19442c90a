"""skorch: a held network inside scikit-learn's cross-validation. One method is new, which holds the optimizer."""

import importlib.util

if importlib.util.find_spec("skorch") is None:
    print("skipped: this example needs skorch, which pip install skorch brings with scikit-learn")
    raise SystemExit

import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

import tightlip


class HeldClassifier(NeuralNetClassifier):
    """A NeuralNetClassifier whose weights stay on their sets."""

    def initialize_optimizer(self, triggered_directly=True):
        """The optimizer, held."""
        super().initialize_optimizer(triggered_directly)
        tightlip.hold(self.module_, self.optimizer_)
        return self


class MarginLoss(torch.nn.Module):
    """Cross-entropy that asks for a margin, as a class, which skorch makes itself."""

    def forward(self, logits, labels):
        """Logits (batch, classes), labels (batch,) → a number."""
        return tightlip.margin_cross_entropy(logits, labels, offset=1.0, temperature=0.5)


torch.manual_seed(0)
x, y = load_wine(return_X_y=True)
options = {"optimizer": torch.optim.Adam, "lr": 1e-2, "max_epochs": 20, "train_split": None, "verbose": 0}
classifier = HeldClassifier(tightlip.mlp, module__widths=[13, 32, 32, 3], criterion=MarginLoss, **options)
pipeline = make_pipeline(StandardScaler(), classifier)
guessed = cross_val_predict(pipeline, x.astype("float32"), y, cv=3)
print(f"cross-validated accuracy {(guessed == y).mean():.1%}")

pipeline.fit(x.astype("float32"), y)
frozen = tightlip.freeze(pipeline[-1].module_)
scaled = pipeline[:-1].transform(x.astype("float32"))
certificate = tightlip.certify(frozen, scaled, y, p=2)
print(f"audited {certificate.bound.constant:.9f}; median radius {certificate.radius.median():.2f} standard deviations")
assert (guessed == y).mean() > 0.9 and certificate.bound.constant <= 1

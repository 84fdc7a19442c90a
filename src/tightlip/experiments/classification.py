"""Certified classification: ways to train and activations, certified and attacked alike (paper §7.3, appendix G).

The paper trains for margin under a constant, compares with adversarial training (§7.3), and lists among its classifiers
standard training, dropout, Parseval, spectral and Jacobian regularization (appendix G and the original code). It says
that networks of MaxMin are more accurate and have larger margins than those of ReLU under one constraint. Beside each
accuracy stands here what is proven: networks that nothing constrains are audited, certified and attacked all the same.
In the 2-norm row_l1 stands in the norm of the others; its own is that of `mnist_robustness`.

Each cell is what `tightlip train` does once, and leaves the same files in a folder of its own: the model, its
certificate and its history, which `tightlip report` and `tightlip certify` take.
"""

from dataclasses import asdict
from typing import Any

from ..records import Metric
from . import certified_run
from .classification_options import Config as Options
from .classification_options import Recipe as Config
from .methods import METHODS
from .protocol import Outcome, Preset

GRID = {
    "method": tuple(name for name, method in METHODS.items() if method.own is None),
    "activation": ("relu", "maxmin", "groupsort4", "fullsort"),
}
SMOKE = Preset(
    {"hidden": (32,), "epochs": 1, "batch_size": 256, "attack_images": 10, "attack_steps": 3, "attack_restarts": 1},
    grid={"activation": ("maxmin",)},
)
PAPER = Preset(
    {"data": "mnist", "hidden": (256, 256, 256), "batch_size": 256, "epochs": 15, "attack_images": 200}, seeds=3
)
METRICS = {
    "accuracy": Metric("On the test part, the share of inputs that are classified right.", "down"),
    "certified": Metric("The share that is proven to stay right for every perturbation within eps.", "down"),
    "eps": "The radius, in the norm of the perturbations.",
    "attacked": "The share of the first attack_images inputs that stays right under the attack at eps: no proof.",
    "certified_of_attacked": Metric("The share of those same inputs that is proven: never above attacked.", "down"),
    "constant": Metric("The audited Lipschitz constant of the frozen network.", "up"),
    "cpu_seconds": "Of all processor threads, in training.",
}
CURVES = {
    "eps": "radius of the perturbation",
    "certified": "proven accuracy",
    "attacked": "accuracy under the attack",
}

__all__ = ["CURVES", "GRID", "METRICS", "PAPER", "SMOKE", "Config", "run"]


def run(config: Config, seed: int) -> Outcome:
    """The headline of a run on the test part, its curves, and its files."""
    result = certified_run.prove(Options(**asdict(config), seed=seed))
    row, attack = result.row, result.attacked
    (certified,), (attacked,) = row.test.certified.values(), row.test.attacked.values()
    metrics: dict[str, Any] = {
        "accuracy": row.test.accuracy,
        "certified": certified,
        "eps": config.radius,
        "attacked": attacked,
        "certified_of_attacked": float((result.certificate.radius[: attack.images] > config.radius).double().mean()),
        "constant": result.certificate.bound.constant,
        "cpu_seconds": None if row.cpu_seconds is None else row.cpu_seconds["train"],
    }
    curve = {
        "eps": attack.eps.tolist(),
        "certified": result.certificate.curve(attack.eps.tolist()).tolist(),
        "attacked": attack.accuracy.tolist(),
    }
    return Outcome(metrics, {"curve": curve}, {"name": row.data.name, "sha256": row.data.sha256}, result.write)

"""Losses that ask for margin, by name: what methods with a constraint are trained on, in units of their constant K.

Each takes the margin offset·K. A loss is added by one entry in `LOSSES`, and in `TEMPERED` if it has a temperature.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from ..choices import chosen
from ..emma import emma_cross_entropy
from ..losses import margin_cross_entropy, multiclass_hinge, multiclass_hinge_kantorovich

Settings = Mapping[str, Any]
"""The options of a method, by name, all of them given."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits, labels) → a scalar."""


def _cross_entropy(settings: Settings) -> Loss:
    K = settings["k"]
    return partial(margin_cross_entropy, offset=settings["offset"] * K, temperature=settings["temperature"] * K)


def _emma(settings: Settings) -> Loss:
    K = settings["k"]
    return partial(emma_cross_entropy, offset=settings["offset"] * K, temperature=settings["temperature"] * K)


def _hinge(settings: Settings) -> Loss:
    """Averaged over classes, so that its gradients are of the size of the cross-entropy's."""
    return partial(multiclass_hinge, kappa=settings["offset"] * settings["k"], mean_over_classes=True)


def _hinge_kantorovich(settings: Settings) -> Loss:
    """The margin is asked of each logit on its own side of 0, and so of two logits twice."""
    return partial(multiclass_hinge_kantorovich, margin=settings["offset"] * settings["k"])


LOSSES: dict[str, Callable[[Settings], Loss]] = {
    "cross_entropy": _cross_entropy,
    "hinge": _hinge,
    "hinge_kantorovich": _hinge_kantorovich,
    "emma": _emma,
}
"""Every such loss by its name, of the settings k, offset, and temperature where it takes one."""

TEMPERED = ("cross_entropy", "emma")
"""Those that take a temperature."""


def margin_loss(settings: Settings) -> Loss:
    """The loss of the name that the settings have.

    Raises:
        TightlipError: for a name that is not in the table.
    """
    return chosen("loss", settings["loss"], LOSSES)(settings)

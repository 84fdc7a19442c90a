"""How classifiers are trained: for each method its constraint, loss, optimizer, layers, adversary and penalty.

Methods with a constraint ask for margin, in units of their constant K. The others are what the paper compares with:
they are trained on the cross-entropy, and audited, certified and attacked like the rest. Nothing bounds their
constants, which grow as they are trained. A method is added by one entry in `METHODS`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from ..aggmo import AggMo
from ..constraints import Constraint, Orthonormal, Parseval, RowL1Ball, SpectralBall
from ..linf_training import FadingCrossEntropy, OctaveSchedule
from ..losses import multiclass_hinge
from ..penalties import gradient_penalty, jacobian_spectral_penalty
from ..robustness import pgd
from .margin_losses import Loss, Settings, margin_loss
from .method_layers import as_it_is, distances, with_dropout, with_last_layer

Adversary = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(network, inputs, labels) → inputs to train on instead."""

Box = tuple[float, float] | None
"""What valid inputs lie in, if it is known."""


def _cross_entropy_within(eps: float) -> Settings:
    """Offset and temperature, in units of K, that suit a 2-norm radius, in units of the inputs.

    A straight line through what was best of what was tried on MNIST (784-512³-10, K = 1, orthonormal): offset 1.2 at
    radius 0.3 and 3.2 at 1.58. The temperature is that of the first, measured there alone. Other data want others:
    harder tasks want smaller offsets (on CIFAR-10 0.5 did more than 0.3), so compare a few on validation data.
    """
    return {"offset": float(f"{0.73 + 1.56 * eps:.3g}"), "temperature": 0.2}


def _hinge_within(eps: float) -> Settings:
    """What the hinge asks for, in units of K, that suits an inf-norm radius, in units of the inputs.

    The margin K·a certifies a/2, so a must exceed 2·eps; a third more leaves room for margins that are not reached. Of
    distances a = 0.8 was best at 0.3 on MNIST; data of another kind may want less or more.
    """
    return {"a": float(f"{8 / 3 * eps:.6g}")}


def _cross_entropy(settings: Settings) -> Loss:
    return functional.cross_entropy


def _hinge(settings: Settings) -> Loss:
    return partial(multiclass_hinge, kappa=settings["a"] * settings["k"], mean_over_classes=True)


def _adam(settings: Settings) -> Callable[..., Optimizer]:
    return Adam


def _aggmo(settings: Settings) -> Callable[..., Optimizer]:
    return AggMo


def _decayed(settings: Settings) -> Callable[..., Optimizer]:
    return partial(AdamW, weight_decay=settings["weight_decay"])


def _fading(settings: Settings) -> Loss:
    K = settings["k"]
    return FadingCrossEntropy(settings["a"] * K, 10.0 / K)


def _keen_adam(settings: Settings) -> Callable[..., Optimizer]:
    return partial(Adam, betas=(0.9, 0.99), eps=1e-10)  # gradients of high powers are tiny


def _octaves(network: nn.Module, loss: Any) -> Callable[..., LRScheduler]:
    return partial(OctaveSchedule, network=network, loss=loss)


def _cosine(network: nn.Module, loss: Loss) -> Callable[..., LRScheduler]:
    return CosineAnnealingLR


def _attacked(settings: Settings, p: float, box: Box) -> Adversary:
    """Projected gradient descent from the input itself, in the norm of the run."""
    eps, steps = settings["train_eps"], settings["train_steps"]
    return partial(pgd, eps=eps, p=p, steps=steps, restarts=1, clamp=box, progress=False)


def _input_gradient(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean ‖∂L/∂x‖₂² of the cross-entropy L at the inputs: double backpropagation (Drucker & LeCun 1992)."""

    def loss(z: Tensor) -> Tensor:
        return functional.cross_entropy(network(z), y, reduction="none")

    return gradient_penalty(loss, x, x, target=0.0)


def _jacobian(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The largest singular value of the Jacobian at each input, by one step of power iteration, averaged (paper §5)."""
    return jacobian_spectral_penalty(network, x, iterations=1)


@dataclass(frozen=True)
class Method:
    """What there is to know of a way to train.

    Args:
        defaults: Its options and their defaults; each is a field of `classification_options.Recipe`.
        loss: Of the settings.
        constraint: Makes that of all layers; None leaves the weights free.
        optimizer: What makes the optimizer of parameters and ``lr``.
        rate: The initial learning rate, if none is given.
        layers: Puts layers into the network.
        adversary: Of the settings, the norm and the box of the inputs; None trains on the inputs as they are.
        penalty: (network, inputs, labels) → a scalar that is added to the loss, times the setting "penalty".
        schedule: Makes that of `fit` from the network and its loss.
        within: Of the headline radius, where one is given: settings that take the place of ``defaults``.
        own: Where ``layers`` puts layers of its own in the place of an mlp's, the norm of inputs in which they hold K.
        hidden: Their widths, if none are given.
        center: Whose means are taken off where inputs are images: of "inputs", of "layers" as well, or "no".
    """

    defaults: Settings = field(default_factory=dict)
    loss: Callable[[Settings], Loss] = _cross_entropy
    constraint: Callable[[], Constraint] | None = None
    optimizer: Callable[[Settings], Callable[..., Optimizer]] = _adam
    rate: float = 1e-3
    layers: Callable[[nn.Sequential, Settings], nn.Sequential] = as_it_is
    adversary: Callable[[Settings, float, Box], Adversary] | None = None
    penalty: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None
    schedule: Callable[[nn.Module, Loss], Callable[..., LRScheduler]] = _cosine
    within: Callable[[float], Settings] | None = None
    own: float | None = None
    hidden: tuple[int, ...] | None = None
    center: str = "inputs"

    @property
    def norm(self) -> float | None:
        """That of inputs in which the constant K is held; None where nothing is held."""
        return self.own if self.constraint is None else self.constraint().norms[0]


_ASKED = {"k": 1.0, "offset": 0.8, "temperature": 0.25, "loss": "cross_entropy"}

METHODS = {
    "standard": Method(),
    "dropout": Method({"dropout": 0.5}, layers=with_dropout),
    "weight_decay": Method({"weight_decay": 0.1}, optimizer=_decayed),
    "pgd": Method({"train_eps": 0.3, "train_steps": 10}, adversary=_attacked),
    "gradient_penalty": Method({"penalty": 1.0}, penalty=_input_gradient),
    "jacobian_penalty": Method({"penalty": 0.05}, penalty=_jacobian),
    "spectral": Method(_ASKED, margin_loss, SpectralBall, rate=2e-3, within=_cross_entropy_within),
    "parseval": Method(_ASKED, margin_loss, Parseval, rate=2e-3, within=_cross_entropy_within),
    "orthonormal": Method(
        _ASKED | {"last_layer": "orthonormal"},
        margin_loss,
        Orthonormal,
        rate=2e-3,
        layers=with_last_layer,
        within=_cross_entropy_within,
        center="layers",
    ),
    "row_l1": Method({"k": 1000.0, "a": 0.1}, _hinge, RowL1Ball, _aggmo, 3.3e-3, within=_hinge_within),
    "distances": Method(
        {"k": 1.0, "a": 0.7},
        _fading,
        None,
        _keen_adam,
        0.02,
        distances,
        schedule=_octaves,
        within=_hinge_within,
        own=math.inf,
        hidden=(256, 256),
        center="no",
    ),
    "row_l1_margin": Method(
        _ASKED | {"k": 1000.0, "offset": 0.1, "temperature": 0.001}, margin_loss, RowL1Ball, _aggmo, 3.3e-4
    ),
}
"""Every method by its name."""


def owners(option: str) -> list[str]:
    """The methods that an option belongs to; none for what is no method's."""
    return [name for name, method in METHODS.items() if option in method.defaults]


@dataclass
class Penalized:
    """A loss and a penalty that wants network and inputs beside outputs.

    For `fit`, ``adversary=penalized.remember`` and ``loss=penalized``: the first only remembers what the second needs,
    once. Where nothing was remembered, as on validation data, or so many other inputs, the loss is left alone.

    Args:
        loss: (logits, labels) → a scalar.
        penalty: (network, inputs, labels) → a scalar.
        weight: Of the penalty.
    """

    loss: Loss
    penalty: Callable[[nn.Module, Tensor, Tensor], Tensor]
    weight: float
    seen: tuple[nn.Module, Tensor] | None = None

    def remember(self, network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """The inputs as they are."""
        self.seen = network, inputs
        return inputs

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss, and the penalty for the batch that was remembered."""
        value, seen, self.seen = self.loss(outputs, targets), self.seen, None
        if seen is None or len(seen[1]) != len(outputs):
            return value
        return value + self.weight * self.penalty(*seen, targets)

    def __getstate__(self) -> dict[str, Any]:
        """What tells it from others; what it has seen does not."""
        return vars(self) | {"seen": None}


def fitting(method: Method, network: nn.Module, settings: Settings, rate: float, p: float, box: Box) -> dict[str, Any]:
    """What `fit` is to be given: the loss, the optimizer, the schedule and, where the method has one, the adversary.

    Args:
        method: An entry of `METHODS`.
        network: What is trained.
        settings: All of its options.
        rate: The initial learning rate.
        p: The norm of attacks.
        box: What attacked inputs stay in.
    """
    loss, optimizer = method.loss(settings), partial(method.optimizer(settings), lr=rate)
    given = {"optimizer": optimizer, "schedule": method.schedule(network, loss)}
    if method.penalty is not None:
        penalized = Penalized(loss, method.penalty, settings["penalty"])
        return given | {"loss": penalized, "adversary": penalized.remember}
    adversary = None if method.adversary is None else method.adversary(settings, p, box)
    return given | {"loss": loss, "adversary": adversary}


def box_of(*inputs: Tensor) -> Box:
    """[0, 1], if all inputs lie in it."""
    inside = all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in inputs)
    return (0.0, 1.0) if inside else None


@torch.no_grad()
def standing(network: nn.Module, x: Tensor, y: Tensor, adversary: Adversary) -> float:
    """The share of inputs that are classified right after the adversary has moved them: what to choose an epoch by."""
    return float((network(adversary(network, x, y)).argmax(1) == y).double().mean())

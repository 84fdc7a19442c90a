"""Who runs in `time_to_certificate.py` in the 2-norm: for each way to train its network, its loss, and its recipes.

All are classifiers of images. Networks of peers are turned into plain layers with the weights that they use in eval
mode, and audited by `tightlip.lipschitz` as ours are: nothing is certified on anybody's word.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from step_time import SCHEMES, peers
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

import tightlip
from tightlip.linalg.schedules import bjorck

Recipe = Mapping[str, Any]
"""One value for each name of a contender's space."""

Make = Callable[[Recipe, tuple[int, ...], int], nn.Module]
"""Takes a recipe, the shape of an image and the number of classes."""

TEMPERATURE = 0.25
WIDTHS = {"width": (128, 256, 512)}
STEPS = {"rate": (5e-4, 1e-3, 2e-3, 5e-3, 1e-2), "batch_size": (128, 256)}
MARGINS = {"offset": (0.4, 0.8, 1.2)}
CHANNELS = {"channels": ((32, 64), (64, 128))}


def margin(network: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, used: float) -> Tensor:
    """Of all that bound their slope by construction."""
    return tightlip.margin_cross_entropy(network(x), y, recipe["offset"], TEMPERATURE)


def certified(network: nn.Module, x: Tensor, y: Tensor, eps: float, p: float) -> dict[str, float]:
    """Accuracies, plain and proven."""
    certificate = tightlip.certify(network, x, y, p=p, progress=False)
    return {"clean": certificate.accuracy(0), "certified": certificate.accuracy(eps)}


def adam(parameters: Iterable[nn.Parameter], recipe: Recipe) -> Optimizer:
    """AdamW, with the weight decay of a recipe that has one."""
    return torch.optim.AdamW(parameters, recipe["rate"], weight_decay=recipe.get("weight_decay", 0.0), fused=True)


def cosine(network: nn.Module, optimizer: Optimizer) -> Callable[[float], None]:
    """The rate falls to zero."""
    top = optimizer.param_groups[0]["lr"]

    def fall(used: float) -> None:
        optimizer.param_groups[0]["lr"] = top * (1 + math.cos(math.pi * used)) / 2

    return fall


@dataclass(frozen=True)
class Contender:
    """A way to train a network of which certificates are asked."""

    make: Make
    space: dict[str, tuple[Any, ...]]
    """The values that each option may take; every recipe is one of each."""
    loss: Callable[[nn.Module, Tensor, Tensor, Recipe, float], Tensor] = margin
    """Of a batch, a recipe, and the share of the time that is used up."""
    frozen: Callable[[nn.Module], nn.Module] = tightlip.freeze
    """The plain network that is audited."""
    measured: Callable[[nn.Module, Tensor, Tensor, float, float], dict[str, float]] = certified
    """Accuracies of the plain network at eps in the p-norm, and what else there is to say of them."""
    optimizer: Callable[[Iterable[nn.Parameter], Recipe], Optimizer] = adam
    schedule: Callable[[nn.Module, Optimizer], Callable[[float], None]] = cosine
    """Makes what is told, before each step, the share of the time that is used up."""


def dense(recipe: Recipe, shape: tuple[int, ...], classes: int, **options: Any) -> nn.Module:
    """Ours, of three hidden layers."""
    width = recipe["width"]
    widths = [torch.Size(shape).numel(), width, width, width, classes]
    return nn.Sequential(nn.Flatten(), tightlip.mlp(widths, **options))


def of_images(build: Callable[..., nn.Module], recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Ours, with convolutions."""
    return build(shape, classes, channels=recipe["channels"])


def by_scheme(make: Callable[..., nn.Module], recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network of `step_time.py`, which is made by its width."""
    return nn.Sequential(nn.Flatten(), make(recipe["width"]))


def plain(network: nn.Module) -> nn.Module:
    """The same network of ordinary layers, with the weights that a forward pass in eval mode uses."""
    network = network.eval()

    def copied(module: nn.Module) -> nn.Module:
        if isinstance(module, nn.Sequential):
            return nn.Sequential(*map(copied, module))
        if not isinstance(module, nn.Linear):
            return copy.deepcopy(module)
        layer = nn.Linear(module.in_features, module.out_features)
        with torch.no_grad():
            layer.weight.copy_(module.weight)
            layer.bias.copy_(module.bias)
        return layer

    return copied(network)


class Bounded(nn.Module):
    """A network of ordinary layers that knows a bound on its slope, by a step of power iteration for each layer.

    As of GloRo networks (Leino, Wang and Fredrikson 2021, §3): the loss sees one class more, whose logit is what any
    other class may reach within eps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        self.vectors = [functional.normalize(torch.randn(layer.in_features), dim=0) for layer in self.layers]

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.network(x)

    def slopes(self) -> Tensor:
        """Of each difference of two logits, (classes, classes)."""
        product = torch.ones(())
        for number, layer in enumerate(self.layers[:-1]):
            weight = layer.weight.detach()
            v = functional.normalize(weight.T @ (weight @ self.vectors[number]), dim=0)
            self.vectors[number] = v
            product = product * (layer.weight @ v).norm()
        rows = self.layers[-1].weight
        return product * (rows[:, None] - rows).square().sum(2).clamp(min=1e-12).sqrt()


def beyond(network: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, used: float) -> Tensor:
    """The cross-entropy with the class of all that is within eps."""
    logits = network(x)
    best = logits.argmax(1)
    reach = logits + recipe["eps"] * network.slopes()[best]  # type: ignore[operator]
    other = reach.scatter(1, best[:, None], -torch.inf).amax(1, keepdim=True)
    return functional.cross_entropy(torch.cat([logits, other], 1), y)


def ordinary(network: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, used: float) -> Tensor:
    """Of those that are told nothing of slopes."""
    return functional.cross_entropy(network(x), y)


SIGMA, GUESSES, DRAWS, WRONG = 0.25, 100, 1000, 0.001
"""Of randomized smoothing: the noise, draws for the guess and for its proof, the chance that a radius is wrong."""

SMOOTHED = 500
"""Images that are classified by their noisy copies."""


def noisy(network: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, used: float) -> Tensor:
    """The cross-entropy of images with noise."""
    return functional.cross_entropy(network(x + SIGMA * torch.randn_like(x)), y)


@torch.no_grad()
def smoothed(network: nn.Module, x: Tensor, y: Tensor, eps: float, p: float) -> dict[str, float]:
    """Of the smoothed classifier, each but for a chance `WRONG` (Cohen, Rosenfeld and Kolter 2019, §3.2)."""
    from scipy.stats import beta, norm

    began, right, proven = time.process_time(), 0, 0
    for image, label in zip(x[:SMOOTHED], y[:SMOOTHED], strict=True):
        first, second = (
            network(image + SIGMA * torch.randn(draws, *image.shape)).argmax(1) for draws in (GUESSES, DRAWS)
        )
        guess = int(first.bincount().argmax())
        votes = int((second == guess).sum())
        least = float(beta.ppf(WRONG, votes, DRAWS - votes + 1)) if votes else 0.0
        if guess == int(label) and least > 0.5:
            right += 1
            proven += SIGMA * norm.ppf(least) >= eps
    count = min(len(x), SMOOTHED)
    each = (time.process_time() - began) / count
    return {"clean": right / count, "certified": float(proven / count), "seconds_for_each_certificate": each}


def contenders(eps: float) -> dict[str, Contender]:
    """All, by name; those of packages that cannot be imported are named and left out."""
    lipschitz = {**WIDTHS, **STEPS, **MARGINS}
    found = {
        "tightlip mlp": Contender(dense, lipschitz),
        "tightlip convnet": Contender(partial(of_images, tightlip.convnet), {**CHANNELS, **STEPS, **MARGINS}),
        "tightlip mixer": Contender(partial(of_images, tightlip.mixer), {**CHANNELS, **STEPS, **MARGINS}),
    }
    for count in (3, 15):
        options: dict[str, Any] = {"constraint": tightlip.Orthonormal(bjorck(count)), "hold": "forward"}
        found[f"paper, {count} iterations"] = Contender(partial(dense, **options), lipschitz)
    others = {name: make for name, make in SCHEMES.items() if name.startswith("torch ")} | peers([])
    for name, make in others.items():
        found[name] = Contender(partial(by_scheme, make), lipschitz, frozen=plain)
    bare = SCHEMES["unconstrained"]
    found["GloRo"] = Contender(
        lambda recipe, shape, classes: Bounded(by_scheme(bare, recipe, shape, classes)),
        {**WIDTHS, **STEPS, "eps": tuple(round(share * eps, 6) for share in (1.0, 1.5, 2.0))},
        beyond,
        lambda network: plain(network.network),  # type: ignore[arg-type]
    )
    found["unconstrained, audited"] = Contender(
        partial(by_scheme, bare), {**WIDTHS, **STEPS, "weight_decay": (0.0, 1e-3, 1e-2)}, ordinary, plain
    )
    found["randomized smoothing"] = Contender(
        partial(by_scheme, bare), {**WIDTHS, **STEPS, "weight_decay": (0.0, 1e-3)}, noisy, plain, smoothed
    )
    return found

"""Who runs in `time_to_certificate.py` in the ∞-norm: networks of distances, ours, and training by interval bounds."""

import copy
from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from contenders import STEPS, WIDTHS, Contender, Recipe, plain
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

import tightlip

MARKS = 1000
"""Of a run's time: the octaves and the rate of networks of distances change at these only."""


def distances(recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Ours: two hidden layers, as `tightlip train --method distances` has them."""
    width, layers = recipe["width"], [nn.Flatten()]
    for before in (torch.Size(shape).numel(), width):
        layers += [tightlip.LinfDistance(before, width, bias=False), tightlip.MeanShift(width)]
    return nn.Sequential(*layers, tightlip.LinfDistance(width, classes, negative=True))


def fading(network: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, used: float) -> Tensor:
    """Theirs: a loss of all classes that gives way to a hinge."""
    loss = tightlip.FadingCrossEntropy(recipe["a"])
    loss.progress = used
    return loss(network(x), y)


def keen(parameters: Iterable[nn.Parameter], recipe: Recipe) -> Optimizer:
    """Adam for the tiny gradients of high powers."""
    return torch.optim.Adam(parameters, recipe["rate"], betas=(0.9, 0.99), eps=1e-10)


def octaves(network: nn.Module, optimizer: Optimizer) -> Callable[[float], None]:
    """The rate rises and falls, and the power of distances rises to ∞."""
    schedule = tightlip.OctaveSchedule(optimizer, MARKS, network)

    def advance(used: float) -> None:
        schedule.load_state_dict(schedule.state_dict() | {"last_epoch": int(MARKS * used)})
        optimizer.param_groups[0]["lr"] = schedule.get_lr()[0]

    return advance


def rectified(recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three hidden layers of ReLU, bound by nothing."""
    widths = [torch.Size(shape).numel(), *[recipe["width"]] * 3]
    layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], classes))


def enclosed(network: nn.Sequential, lower: Tensor, upper: Tensor, y: Tensor) -> Tensor:
    """The least that the logit of class y is above each logit, over a box: interval arithmetic (batch, classes).

    The last layer is one with the difference of logits (Gowal et al. 2018, §3).
    """
    centre, reach = ((upper + lower) / 2).flatten(1), ((upper - lower) / 2).flatten(1)
    *hidden, last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    for layer in hidden:
        centre, reach = layer(centre), functional.linear(reach, layer.weight.abs())
        low, high = functional.relu(centre - reach), functional.relu(centre + reach)
        centre, reach = (high + low) / 2, (high - low) / 2
    rows = last.weight[y][:, None] - last.weight
    offsets = last.bias[y][:, None] - last.bias
    return torch.einsum("bcn,bn->bc", rows, centre) + offsets - torch.einsum("bcn,bn->bc", rows.abs(), reach)


def box(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """All images within eps."""
    return (x - eps).clamp(min=0), (x + eps).clamp(max=1)


def worst_case(network: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, used: float) -> Tensor:
    """Cross-entropies of the logits and of the worst ones; eps and the share of the latter rise in half of the time."""
    risen = min(1.0, 2 * used)
    margins = enclosed(network, *box(x, risen * recipe["eps"]), y)  # type: ignore[arg-type]
    worst = functional.cross_entropy(-margins, y)
    return (1 - risen / 2) * functional.cross_entropy(network(x), y) + risen / 2 * worst


@torch.no_grad()
def interval_certified(network: nn.Module, x: Tensor, y: Tensor, eps: float, p: float) -> dict[str, float]:
    """Accuracies, plain and by interval bounds in float64, with 1e-9 of the largest margin to spare for rounding."""
    exact, right, proven = copy.deepcopy(network).double(), 0, 0
    for images, labels in zip(x.split(500), y.split(500), strict=True):
        others = functional.one_hot(labels, exact(images[:1].double()).shape[1]) == 0
        for reach in (0.0, eps):
            margins = enclosed(exact, *box(images.double(), reach), labels)  # type: ignore[arg-type]
            spare = 1e-9 * margins.abs().amax(1) if reach else 0.0
            stands = int((margins[others].view(len(labels), -1).amin(1) > spare).sum())
            right, proven = (right, proven + stands) if reach else (right + stands, proven)
    return {"clean": right / len(x), "certified": proven / len(x)}


def infinity_contenders(eps: float) -> dict[str, Contender]:
    """All, by name."""
    rates = {"rate": (0.005, 0.01, 0.02, 0.05), "batch_size": STEPS["batch_size"]}
    return {
        "tightlip distances": Contender(
            distances, {**WIDTHS, **rates, "a": (0.35, 0.5, 0.7)}, fading, optimizer=keen, schedule=octaves
        ),
        "interval bounds": Contender(
            rectified,
            {**WIDTHS, **STEPS, "eps": tuple(round(share * eps, 6) for share in (1.0, 1.5, 2.0))},
            worst_case,
            plain,
            interval_certified,
        ),
    }

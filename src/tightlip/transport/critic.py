"""Training a critic: the 1-Lipschitz network that separates two distributions as far as it can (paper Eq. 1)."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm import tqdm

from ..arguments import called, flag, integer, number, taking, tensor
from ..constraints import constraint_of
from ..descent import descend
from ..errors import TightlipError
from ..losses import kantorovich
from ..tensors import as_tensor, refuse_non_finite
from .potential import Funnels

Sampler = Callable[[int], tuple[Tensor, Tensor]]
"""How many samples of each distribution → both."""


def train_critic(
    critic: nn.Module,
    sample: Any,
    steps: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    optimizer: Callable[..., Optimizer] = partial(torch.optim.Adam, fused=True),
    decay: bool = True,
    watch: Callable[[int], None] | None = None,
    unconstrained: bool = False,
    seconds: float | None = None,
    progress: bool = True,
) -> nn.Module:
    """Maximize mean f(x) − mean f(x') over the critic's weights, in place; returns the critic, not yet frozen.

    The frozen critic's objective on *other* samples, divided by its audited constant, bounds W1 from below.

    Args:
        critic: A network whose layers are constrained, e.g. ``mlp([d, 256, 256, 1])``, or trainable `Funnels`.
        sample: Gives a fresh batch of each distribution; or two samples, tensors or numpy arrays of shapes (n, …) and
            (m, …), from which batches are drawn with replacement by torch's global generator. Either is brought to the
            type of the critic's weights.
        steps: Of the optimizer.
        batch_size: Samples of each distribution per step.
        learning_rate: At the first step.
        optimizer: Made of the parameters and the rate, e.g. ``torch.optim.SGD``; see `hold` for those that will do.
        decay: Whether the rate falls to zero along a cosine.
        watch: Called with the number of each step before it is taken, and once at the end.
        unconstrained: Whether weights that nothing constrains may be trained. The objective has no upper bound then,
            and says nothing about W1 until it is divided by an audited constant.
        seconds: Take no further step after so many; None for no limit.
        progress: Whether to show a bar on a terminal.

    Raises:
        TightlipError: if there is no step to take or nothing to train, a weight is not constrained, an option is out of
            range, samples are missing, NaN, infinite or do not fit the critic, the critic has several outputs, or the
            loss or a weight becomes NaN or infinite.
    """
    if not isinstance(critic, nn.Module):
        raise TightlipError(f"the critic is a {type(critic).__name__}: give a network first, then what to sample from")
    steps, batch_size = integer("steps", steps), integer("batch_size", batch_size)
    learning_rate, decay = number("learning_rate", learning_rate, least=0), flag("decay", decay)
    taking("optimizer", optimizer, "parameters", "learning rate")
    if watch is not None:
        taking("watch", watch, "step")
    if not flag("unconstrained", unconstrained):
        refuse_free_weights(critic)
    if not any(weight.requires_grad for weight in critic.parameters()):
        raise TightlipError("the critic has no weight to train: make Funnels with trainable=True, or leave it as it is")
    draw = sample if callable(sample) else _resampler(sample)
    like = next((w for w in critic.parameters() if w.is_floating_point()), torch.empty(0))

    def loss(_: int) -> Tensor:
        batch = draw(batch_size)
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TightlipError(f"sample returned a {type(batch).__name__}: return (first, second), one batch of each")
        first, second = (tensor("what sample returned", part).to(like.device, like.dtype) for part in batch)
        return kantorovich(called(critic, first), called(critic, second))

    engine = optimizer(critic.parameters(), learning_rate)
    schedule = CosineAnnealingLR(engine, steps) if decay else None
    end = math.inf if seconds is None else time.perf_counter() + number("seconds", seconds, least=0)
    bar = tqdm(total=steps, unit="step", disable=None if flag("progress", progress) else True, leave=False)
    with bar:
        descend(critic, engine, loss, _until(end, steps, bar), schedule, watch)
    if watch is not None:
        watch(steps)
    return critic


def _until(end: float, steps: int, bar: tqdm) -> Iterator[int]:
    """Numbers of steps, as long as there is time."""
    for step in range(steps):
        if time.perf_counter() > end:
            return
        yield step
        bar.update()


def refuse_free_weights(critic: nn.Module) -> None:
    """A weight that nothing holds makes the objective as large as it likes; biases and `Funnels` need no constraint.

    Raises:
        TightlipError: if a layer has such a weight, and trains it.
    """
    held = [layer for layer in critic.modules() if constraint_of(layer) is not None or type(layer) is Funnels]
    inside = {id(part) for layer in held for part in layer.modules()}
    for name, module in critic.named_modules():
        own = module.named_parameters(recurse=False)
        free = [key for key, w in own if w.requires_grad and (w.dim() >= 2 or key != "bias")]
        if free and id(module) not in inside:
            raise TightlipError(
                f"nothing constrains {name or 'the critic'} ({type(module).__name__}), so the critic has no Lipschitz "
                "constant to rely on: build it with mlp(…) or constrain(layer, Orthonormal()), leave the layer out, or "
                "pass unconstrained=True"
            )


def _resampler(samples: Any) -> Sampler:
    """Draws from two fixed samples."""
    if not isinstance(samples, tuple | list) or len(samples) != 2:
        raise TightlipError(
            f"sample is a {type(samples).__name__}: give a function of the batch size, such as pair.sample, or two "
            "samples (first, second)"
        )
    both = [as_tensor(points, f"the {name} sample") for points, name in zip(samples, ("first", "second"), strict=True)]
    for points, name in zip(both, ("first", "second"), strict=True):
        if points.dim() == 0 or len(points) == 0:
            raise TightlipError(f"the {name} sample has shape {tuple(points.shape)}: give points (n, …), at least one")
        refuse_non_finite(points, f"points of the {name} sample")
    first, second = both

    def draw(count: int) -> tuple[Tensor, Tensor]:
        index = [torch.randint(len(points), (count,)).to(points.device) for points in both]
        return first[index[0]], second[index[1]]

    return draw

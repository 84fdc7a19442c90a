"""Training a critic: the 1-Lipschitz network that separates two distributions as far as it can (paper Eq. 1)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from ..constraints import hold
from ..errors import TightlipError
from ..losses import kantorovich

Sampler = Callable[[int], tuple[Tensor, Tensor]]
"""How many samples of each distribution → both."""


def train_critic(
    critic: nn.Module,
    sample: Sampler,
    steps: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    optimizer: Callable[..., Optimizer] = partial(torch.optim.Adam, fused=True),
    decay: bool = True,
    watch: Callable[[int], None] | None = None,
) -> nn.Module:
    """Maximize mean f(x) − mean f(x') over the critic's weights, in place; returns the critic, not yet frozen.

    The frozen critic's objective on *other* samples, divided by its audited constant, bounds W1 from below.

    Args:
        critic: A network whose layers are constrained, e.g. ``mlp([d, 256, 256, 1])``.
        sample: Gives a fresh batch of each distribution.
        steps: Of the optimizer.
        batch_size: Samples of each distribution per step.
        learning_rate: At the first step.
        optimizer: Made of the parameters and the rate, e.g. ``torch.optim.SGD``; see `hold` for those that will do.
        decay: Whether the rate falls to zero along a cosine.
        watch: Called with the number of each step before it is taken, and once at the end.

    Raises:
        TightlipError: if there is no step to take, or a step leaves NaN or infinity in a weight.
    """
    if steps < 1 or batch_size < 1:
        raise TightlipError(f"{steps} steps of {batch_size} samples train nothing: give at least one of each")
    held = hold(critic, optimizer(critic.parameters(), learning_rate))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(held, steps)
    for step in tqdm(range(steps), unit="step", disable=None, leave=False):
        if watch is not None:
            watch(step)
        held.zero_grad()
        first, second = sample(batch_size)
        kantorovich(critic(first), critic(second)).backward()
        held.step()
        if decay:
            schedule.step()
    if watch is not None:
        watch(steps)
    return critic

"""One optimizer's state for several rounds: entry r of each stacked tensor belongs to round r.

Between steps ``optimizer.state[weight]`` holds them stacked, so that they are saved and loaded as any state is; during
a step the optimizer sees those of one round only, as views.
"""

from typing import Any

import torch
from torch import Tensor

from ..errors import TightlipError

State = dict[str, Any]


def open_round(stacked: State, number: int) -> State:
    """The state of one round."""
    return {key: value[number] for key, value in stacked.items()}


def close_round(stacked: State, number: int, rounds: int, state: State) -> None:
    """Put back what the optimizer has made of it; tensors that it has worked on in place are there already.

    Raises:
        TightlipError: for tensors that change their shape from round to round, or come where there was none.
    """
    for key, value in state.items():
        if not isinstance(value, Tensor):
            stacked.setdefault(key, [None] * rounds)[number] = value
            continue
        if key not in stacked:
            stacked[key] = value.new_zeros(rounds, *value.shape)
        together = stacked[key]
        if not isinstance(together, Tensor) or together.shape[1:] != value.shape or value.layout != torch.strided:
            raise TightlipError(
                f"this optimizer's state {key!r} changes its kind or shape from step to step, so it cannot be kept for "
                "weights that are turned: use Orthonormal(blocks=0)"
            )
        if together.dtype != value.dtype:
            together = stacked[key] = together.to(value.dtype)
        if together[number].data_ptr() != value.data_ptr():
            together[number].copy_(value)


def stack_fresh(state: State, weight: Tensor, rounds: int, shape: tuple[int, int]) -> State | None:
    """What an optimizer has laid out for a weight before its first step, for all rounds: constants, as Adagrad's.

    None if it is the state of steps that moved the weight itself.
    """
    stacked: State = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            stacked[key] = [value] * rounds
        elif value.shape != weight.shape:
            stacked[key] = value.expand(rounds, *value.shape).clone()
        elif torch.equal(value, value.flatten()[:1].expand_as(value)):
            stacked[key] = value.flatten()[0].expand(rounds, *shape).clone()
        else:
            return None
    return stacked

"""One optimizer's state for several rounds: entry r of each stacked tensor belongs to round r.

Between steps ``optimizer.state[weight]`` holds them stacked, so that they are saved and loaded as any state is; during
a step the optimizer sees those of one round only, as views.
"""

from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]


def open_round(stacked: State, number: int) -> State:
    """The state of one round."""
    return {key: value[number] for key, value in stacked.items()}


def close_round(stacked: State, number: int, rounds: int, state: State) -> None:
    """Put back what the optimizer has made of it; tensors that it has worked on in place are there already."""
    for key, value in state.items():
        if not isinstance(value, Tensor):
            stacked.setdefault(key, [None] * rounds)[number] = value
            continue
        if key not in stacked:
            stacked[key] = value.new_zeros(rounds, *value.shape)
        place = stacked[key][number]
        if place.data_ptr() != value.data_ptr():
            place.copy_(value)


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

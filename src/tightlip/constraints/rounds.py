"""One optimizer's state for several rounds: entry r of each stacked tensor belongs to round r.

Between steps ``optimizer.state[weight]`` holds them stacked, so that they are saved and loaded as any state is; during
a step the optimizer sees those of one round only, as views.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

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


def first_momentum(optimizer: Optimizer, weight: Tensor, gradient: Tensor) -> State:
    """The state of a round in its first step: none, but fused SGD wants the buffers of all weights or of none.

    It is the one from which SGD makes ``gradient``, as it does where there is none.
    """
    group = next(group for group in optimizer.param_groups if any(p is weight for p in group["params"]))
    if not isinstance(optimizer, SGD) or not group["fused"] or not group["momentum"]:
        return {}
    if not any("momentum_buffer" in state for state in optimizer.state.values()):
        return {}
    sign = -1.0 if group["maximize"] else 1.0
    return {"momentum_buffer": gradient * (sign * group["dampening"] / group["momentum"])}


def refuse_hidden_state(optimizer: Optimizer, weight: Tensor, shape: tuple[int, ...], name: str) -> None:
    """Raise where an attribute of the optimizer holds, for this weight, a tensor as large as what was handed over.

    The rounds would share it. Looked for in mappings by parameter, in lists and mappings as long as that of all
    parameters, in the parameter's own attributes, and in its group. One buffer for all parameters is not found.
    """
    listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    group = next(group for group in optimizer.param_groups if any(p is weight for p in group["params"]))
    others = {f"param_groups[…][{key!r}]": value for key, value in group.items() if key != "params"}
    place = listed.index(id(weight))
    numbers = (id(weight), place, next(number for number, p in enumerate(group["params"]) if p is weight))
    for where, value in {**vars(optimizer), **others, "parameters": [vars(weight)] * len(listed)}.items():
        entry = None
        if isinstance(value, Mapping) and where != "state":
            entry = next(
                (e for key, e in value.items() if key is weight or (type(key) is int and key in numbers)), None
            )
        if entry is None and where != "state" and isinstance(value, Mapping | list) and len(value) == len(listed):
            entry = list(value.values() if isinstance(value, Mapping) else value)[place]
        if any(tensor.shape == shape for tensor in _tensors(entry, 2)):
            raise TightlipError(
                f"{type(optimizer).__name__} keeps what it knows of {name} in its attribute {where!r}, not in "
                "optimizer.state, so it cannot be kept for weights that are turned: use Orthonormal(blocks=0)"
            )


def _tensors(value: Any, depth: int) -> Iterator[Tensor]:
    """Tensors in mappings, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(entry, depth - 1)


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

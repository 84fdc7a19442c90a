"""Copies of an optimizer that holds, by deepcopy or pickle: they refuse to step until `hold` is called for them.

torch copies neither hooks nor a wrapped step. Such a copy would move weights off their sets, and read the state of
weights that are turned as that of the weights themselves.
"""

import types
from collections import OrderedDict
from typing import Any

from torch.optim import Optimizer

from ..errors import TightlipError

_OURS = -1
"""The number of our hook among those that are called before a step; torch counts its own from 0."""


def refuse_steps_of_copies(optimizer: Optimizer) -> None:
    """Have copies of this optimizer raise where they step; it may be such a copy itself until now."""
    optimizer._optimizer_step_pre_hooks.pop(_OURS, None)  # type: ignore[attr-defined]
    vars(optimizer)["__getstate__"] = types.MethodType(_copied_state, optimizer)


def _copied_state(optimizer: Optimizer) -> dict[str, Any]:
    return {**type(optimizer).__getstate__(optimizer), "_optimizer_step_pre_hooks": OrderedDict({_OURS: _refuse})}


def _refuse(optimizer: Optimizer, *_: Any) -> None:
    raise TightlipError(
        f"this {type(optimizer).__name__} is a copy of one that holds weights on their sets, and does not hold any "
        "itself: call tightlip.hold(network, optimizer) for the copies before they step"
    )

"""Functions that `torch.compile` fuses into loops, where it finds a compiler: no tensor of all products is made.

Where it finds none, a warning says so once for each function, and the caller computes in pieces.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

COMPILED = 64
"""How many variants of a function torch may compile: one for each power of a distance, and few for shapes."""

SMALL = 2**22
"""Products below which nothing is compiled: compiling takes seconds."""

_BROKEN: set[Any] = set()
"""Functions that torch could not compile here."""


def fused(function: Callable[..., Tensor], arguments: Sequence[Any], products: Any) -> Tensor | None:
    """What a function makes of the arguments, compiled; None where there is no compiler, or too little to compute.

    In a graph that is compiled, exported or traced as a whole, where products are a symbol, it is called as it stands:
    pieces would fix the batch.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return function(*arguments)
    if products < SMALL or function in _BROKEN:
        return None
    try:
        with _limits():
            return _compile(function)(*arguments)
    except Exception as problem:  # noqa: BLE001  a compiler has many ways to be absent
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        logger.warning("torch.compile does not work here (%.100s): what it would fuse is computed in pieces", reason)
        _BROKEN.add(function)
        return None


def _limits() -> AbstractContextManager[Any]:
    """More variants than torch compiles by itself; its compiler takes a second to import, and few need it."""
    from torch._dynamo import config

    return config.patch(recompile_limit=COMPILED)  # type: ignore[no-any-return, attr-defined]


@functools.cache
def _compile(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=True)  # type: ignore[no-any-return]

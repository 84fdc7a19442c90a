"""Whether a function compares row with row: outputs (N, 1) minus targets (N,) are N×N differences, and no error.

Torch repeats a vector of one number per row for every other row where ranks differ. So functions are tried on a few
rows, and the operations inside them are watched: none may bring outputs and targets together in such a table. Tables
of outputs alone or of targets alone, as losses of pairs make them, are their business.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

OUTPUTS, TARGETS = 1, 2
BOTH = OUTPUTS | TARGETS

SIZES = "Using a target size"
"""How torch begins its warning that sizes differ."""

SUBTRACTIONS = (torch.ops.aten.sub.Tensor, torch.ops.aten.rsub.Tensor)


class AllPairsError(ValueError):
    """Outputs and targets do not meet row by row."""


def few(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows of both, repeated where there are not enough, and not as many as anything else in their shapes."""
    count = next(n for n in range(5, 1000, 2) if n not in (*outputs.shape[1:], *targets.shape[1:]))
    rows = torch.arange(count, device=outputs.device)
    return outputs.detach()[rows % len(outputs)], targets.detach()[rows % len(targets)]


@contextlib.contextmanager
def row_by_row(outputs: Tensor, targets: Tensor) -> Iterator[None]:
    """While this lasts, `AllPairsError` is raised where outputs and targets meet otherwise."""
    with warnings.catch_warnings(), _RowByRow(outputs, targets):
        warnings.filterwarnings("error", message=SIZES)
        try:
            yield
        except UserWarning as problem:
            if not str(problem).startswith(SIZES):
                raise
            raise AllPairsError("their sizes differ") from problem


class _RowByRow(TorchDispatchMode):
    """Sees every operation, what it was computed from, and whether that is N×N."""

    def __init__(self, outputs: Tensor, targets: Tensor) -> None:
        super().__init__()
        self.rows, self.targets = len(outputs), targets
        self.origin = WeakTensorKeyDictionary()  # of what was computed: OUTPUTS, TARGETS or BOTH
        self.repeated = WeakTensorKeyDictionary()  # vectors that an operation of its own has made N×N
        self.origin[outputs], self.origin[targets] = OUTPUTS, TARGETS

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        origin = 0
        for tensor in given:
            origin |= self.origin.get(tensor, 0)
        if origin == BOTH:
            self._refuse_pairs(func, given)
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor):
                if origin:
                    self.origin[made] = self.origin.get(made, 0) | origin
                if func is torch.ops.aten.expand.default and self._is_table(made.shape, given):
                    self.repeated[made] = True
        return result

    def _refuse_pairs(self, func: Any, given: list[Tensor]) -> None:
        try:  # before it is computed, so that no such table is made
            shape = torch.broadcast_shapes(*(tensor.shape for tensor in given))
        except RuntimeError:
            return
        pointwise = torch.Tag.pointwise in func.tags
        if any(tensor in self.repeated for tensor in given) or (pointwise and self._is_table(shape, given)):
            raise AllPairsError("it would compare every output with every target")
        if func in SUBTRACTIONS and any(tensor is self.targets for tensor in given) and self._spreads_classes(shape):
            raise AllPairsError("it would subtract the number of the class from every output")

    def _is_table(self, shape: torch.Size, given: list[Tensor]) -> bool:
        if self.rows == 1 or shape.count(self.rows) < 2:
            return False
        return any(self.rows in t.shape and t.dim() < len(shape) and t in self.origin for t in given)

    def _spreads_classes(self, shape: torch.Size) -> bool:
        return not self.targets.is_floating_point() and math.prod(shape) != self.targets.numel()

"""The functions min_j(‖x − y_j‖_p + p_j): as a layer whose constant is exactly 1 in the p-norm.

Each piece is 1-Lipschitz in the p-norm, and so is the least of them. Every 1-Lipschitz function f equals such a minimum
on a sample, with p_j = f(y_j) (McShane 1934). In transport p_j is the price of y_j: by Kantorovich duality

    mean_i min_j(‖x_i − y_j‖_p + p_j) − mean_j p_j  ≤  W1(x, y),     with equality for the best prices.

Distances are computed by differences: by matrix products, gradients beside points are far from 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import flag
from ..audit import Gains, Roundoff, rule
from ..errors import TightlipError
from ..linalg.rounding import sqrt_up
from ..norms import NORMS, PAIRS, as_norm, norm_name
from ..options import FLAG, SIZE, Kind, one_of, several
from ..stored import stored_numbers
from ..tensors import as_tensor
from .distances import LOST, is_usual, nearest


class Funnels(nn.Module):
    """x ↦ min_j(‖x − y_j‖_p + p_j), with constant exactly 1 from the p-norm: shape (…, d) → (…, 1), like a critic.

    With the prices of `assign` it is the potential of two samples, and any function that is 1-Lipschitz in the p-norm
    equals it on the points where p_j is its value (McShane extension; Kantorovich duality). The gradient is that of
    the nearest funnel, of dual norm 1, and 0 in its point. Memory is bounded: no array of batch × n × d is made.

    Args:
        points: y, shape (n, d), tensor or numpy array; float32 and float64 are kept, integers become torch's default if
            it has them.
        offsets: p, shape (n,), in units of the distance.
        p: 1, 2 or ∞.
        trainable: Whether points and offsets are parameters; otherwise they are buffers.

    It cannot be minus a cone with few points: every piece grows to all sides. And in high dimension the potential of
    one sample says little about points beyond it.

    Raises:
        TightlipError: for other shapes, kinds or norms, or numbers that are not finite; in the forward for inputs of
            another size or dtype.

    >>> cone = Funnels(torch.tensor([[0.0, 0.0], [10.0, 0.0]]), torch.tensor([1.0, 0.0]))
    >>> cone(torch.tensor([[3.0, 4.0], [10.0, 2.0]])).flatten()
    tensor([6., 2.])
    """

    points: Tensor
    offsets: Tensor

    def __init__(self, points: Any, offsets: Any, p: float | str = 2, trainable: bool = False) -> None:
        super().__init__()
        self.p, trainable = as_norm(p), flag("trainable", trainable)
        self._store(*_checked(points, offsets), trainable)

    def _store(self, points: Tensor, offsets: Tensor, trainable: bool) -> None:
        for name, values in (("points", points), ("offsets", offsets)):
            if trainable:
                self.register_parameter(name, nn.Parameter(values))
            else:
                self.register_buffer(name, values)

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of points and of their coordinates, n and d."""
        return self.points.shape[0], self.points.shape[1]

    @property
    def norm(self) -> str:
        """The norm of inputs by its name, as files hold it."""
        return norm_name(self.p)

    @property
    def trainable(self) -> bool:
        """Whether the points are parameters."""
        return isinstance(self.points, nn.Parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, d) → (…, 1)."""
        d = self.points.shape[1]
        if not isinstance(x, Tensor):
            raise TightlipError(f"Funnels take a tensor, got a {type(x).__name__}: give torch.as_tensor(x)")
        if x.dim() == 0 or x.shape[-1] != d or x.dtype != self.points.dtype:
            dtype = str(self.points.dtype).removeprefix("torch.")
            raise TightlipError(
                f"Funnels take inputs (…, {d}) in {dtype}, got shape {list(x.shape)} in {x.dtype}: give "
                f"x.{'double' if dtype == 'float64' else 'float'}(), flattened to {d} values each"
            )
        rows, points, offsets = x.reshape(-1, d), self.points, self.offsets
        unit = _unit(points, offsets)
        if unit != 1:
            rows, points, offsets = rows * unit, points * unit, offsets * unit
        with torch.no_grad():
            chosen = nearest(rows, points, offsets, self.p)
        away = torch.linalg.vector_norm(rows - points[chosen], self.p, dim=-1)
        values = (away + offsets[chosen]).reshape(*x.shape[:-1], 1)
        return values if unit == 1 else values / unit

    def extra_repr(self) -> str:
        """How many points, their size, and the norm."""
        n, d = self.sizes
        return f"{n} points in {d} dimensions, p={self.norm}" + ", trainable=True" * self.trainable


def _unit(*values: Tensor) -> float:
    """A power of two that brings the largest of numbers near 1, where their squares might over- or underflow; or 1."""
    try:
        largest = max(float(part.detach().abs().max()) for part in values) if is_usual(values[0]) else 1.0
    except RuntimeError:  # in a function of torch.func, which has no numbers
        return 1.0
    exponent = math.frexp(largest)[1] if math.isfinite(largest) else 0
    most = -math.frexp(torch.finfo(values[0].dtype).tiny)[1]  # the exponent that squares may have
    return 1.0 if -most // 4 < exponent < most // 2 else 2.0 ** -max(-most, min(most, exponent))


def _checked(points: Any, offsets: Any) -> tuple[Tensor, Tensor]:
    """Copies of one dtype; raises unless shapes fit and all is finite."""
    points, offsets = as_tensor(points, "points"), as_tensor(offsets, "offsets")
    if points.dim() != 2 or not points.numel() or offsets.shape != points.shape[:1]:
        shapes = f"{tuple(points.shape)} and {tuple(offsets.shape)}"
        raise TightlipError(f"points must have shape (n, d), and offsets (n,), got {shapes}")
    dtype = torch.promote_types(points.dtype, offsets.dtype)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    if dtype not in (torch.float32, torch.float64):
        raise TightlipError(f"Funnels compute in float32 or float64, got {dtype}: convert points and offsets")
    whole = [part for part in (points, offsets) if not part.is_floating_point()]
    if any(not torch.equal(part.to(dtype).to(part.dtype), part) for part in whole):
        raise TightlipError(f"points or offsets are integers that {dtype} has not: give them in float64")
    points, offsets = points.to(dtype, copy=True), offsets.to(points.device, dtype, copy=True)
    if not bool(torch.isfinite(points).all() and torch.isfinite(offsets).all()):
        raise TightlipError("points or offsets are NaN or infinite: leave these funnels out")
    return points, offsets


def _of_sizes(sizes: Sequence[int], norm: str, trainable: bool) -> Funnels:
    """One whose numbers are still to come."""
    made = Funnels.__new__(Funnels)
    nn.Module.__init__(made)
    made.p = as_norm(norm)
    made._store(torch.empty(sizes[0], sizes[1]), torch.empty(sizes[0]), trainable)
    return made


_SIZES = Kind(
    "two integers ≥ 1", lambda value: isinstance(value, list) and len(value) == 2 and several(SIZE, 2).holds(value)
)


@rule(Funnels, options={"sizes": _SIZES, "norm": one_of("1", "2", "inf"), "trainable": FLAG}, build=_of_sizes)
def _funnels(module: Funnels) -> Gains:
    """|min_j a_j − min_j b_j| ≤ max_j |a_j − b_j|, and ‖·‖_p ≤ d^(1/p − 1/r)·‖·‖_r for r > p.

    A distance errs by a share γ_{d+4} of it, where it is found and where it is computed again; it is at most the value
    plus the largest |p_j|. So the value of the funnel that was chosen is within 4γ_{d+8} of that sum.
    """
    n, d = module.sizes
    p, offsets = as_norm(module.p), stored_numbers(module, "offsets", (n,))
    stored_numbers(module, "points", (n, d))
    grown = {r: 1.0 if r <= p else _grown(d, p, r) for r in NORMS}
    return Gains(
        {(r, q): grown[r] for r, q in PAIRS},  # one output has one size, whatever the norm
        Roundoff(4 * (d + 8), output=1.01, entry=2.02 * float(offsets.abs().max()) + LOST * 2.0**53),
    )


def _grown(d: int, p: float, r: float) -> float:
    """d^(1/p − 1/r) from above, for p < r."""
    return float(d) if (p, r) == (1.0, math.inf) else sqrt_up(float(d)) if d > 1 else 1.0

"""The lattice interpolant: through any 1-Lipschitz data passes h(x) = max_i min_{j≠i} f_ij(x), 1-Lipschitz and exact.

f_ij is the affine function through the samples i and j that Lemma 1 asks for (`separating`):

    f_ij(x) = y_i + (y_i − y_j)·⟨u(x_i − x_j), x − x_i⟩,     ⟨u(d), d⟩ = 1,   ‖u(d)‖_{p*} = 1/‖d‖_p.

Row i has f_ij(x_i) = y_i for all j, and every other row k has f_ki(x_i) = y_i, so h(x_i) = y_i. A slope has dual norm
|y_i − y_j|/‖x_i − x_j‖_p: *the constant of h is the constant of its data*. So the audit measures the data.

N samples make N² pieces, which are neither stored nor all evaluated. Since f_ij = f_ji, the pieces through one sample
are a row and a column of the table at once. Their minimum is a lower bound on h(x), and each of them is an upper bound
on the minimum of one other row. `_winners` evaluates in turn the row with the largest upper bound and the column that
attained the last minimum, and ends when no upper bound exceeds the best lower one: after about a dozen samples of
thousands.
Sources: paper §6, Lemma 1 and Theorem 3.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from ..arguments import tensor
from ..audit import Gains, rule
from ..errors import TightlipError
from ..linalg.rounding import FLUSHED, gamma, norm_above, normalize_exactly, scaled_up
from ..norms import NORMS, PAIRS, as_norm, dual, norm_name
from ..options import SIZE, Kind, one_of, several
from ..stored import stored_numbers

SLACK = 2.0**-31
"""Values may be steeper than 1 by this share: the rounding of data that was meant to be 1-Lipschitz."""

CACHED, MOST = (1 << 15) - 1, 1 << 20
"""Most numbers in an array, where it is to stay in the cache of one core, and elsewhere."""

Array = Tensor | np.ndarray
"""What samples are given in."""

NEAREST, FARTHEST = 1e-140, 1e140
"""Distances between whose squares neither over- nor underflow."""


def separating(difference: Float[Tensor, "*batch d"], p: float) -> Float[Tensor, "*batch d"]:
    """The u with ⟨u, d⟩ = 1 and the least dual norm, 1/‖d‖_p; zero for d = 0. Source: the point separation of Lemma 1.

    d/‖d‖₂² for p = 2, sign(d)/‖d‖₁ for p = 1, and for p = ∞ the unit vector e_k/d_k of the (first) largest |d_k|.

    >>> separating(torch.tensor([3.0, -4.0]), 2)
    tensor([ 0.1200, -0.1600])
    """
    size = difference.abs()
    if p == 1:
        u, denominator = difference.sign(), size.sum(-1, keepdim=True)
    elif p == 2:
        u, denominator = difference, difference.square().sum(-1, keepdim=True)
    else:
        largest = size.argmax(-1, keepdim=True)
        u, denominator = torch.zeros_like(difference).scatter(-1, largest, 1.0), difference.gather(-1, largest)
    return torch.where(denominator == 0, 0.0, u / torch.where(denominator == 0, 1.0, denominator))


class LatticeInterpolant(nn.Module):
    """The h above as a layer: shape (…, d) → (…, m). `lattice_interpolant` makes one, or a plain network instead.

    ``points`` and ``values`` are buffers: the state dict is the data. Gradients flow to x through the piece that
    attains the value; it is found in float64, whatever the dtype. After ``.float()`` the function is that of the
    rounded data, which may be a little steeper than 1: the audit says how much.

    Args:
        points: N ≥ 2 samples, not all the same, of shape (N, d).
        values: Shape (N, m), or (N,) for m = 1; the norm of outputs is the ∞-norm.
        p: The norm of inputs.

    Raises:
        TightlipError: for shapes that do not fit, numbers that are not finite, or values that are not 1-Lipschitz.

    >>> h = LatticeInterpolant(torch.tensor([[0.0], [2.0]]), torch.tensor([0.0, 1.0]), p=2)
    >>> h(torch.tensor([[2.0], [1.0]], dtype=torch.float64)).flatten()
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """

    points: Tensor
    values: Tensor

    def __init__(self, points: Float[Array, "n d"], values: Real[Array, "n *m"], p: float) -> None:
        super().__init__()
        self.p = as_norm(p)
        points, values = checked(points, values, self.p)
        if bool((points == points[0]).all()):
            raise TightlipError("all points are the same: use lattice_interpolant, which then gives a constant")
        self.register_buffer("points", points)
        self.register_buffer("values", values)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The number of samples, of their coordinates and of their values: N, d and m."""
        return len(self.points), self.points.shape[1], self.values.shape[1]

    @property
    def norm(self) -> str:
        """The norm of inputs by its name, as files hold it."""
        return norm_name(self.p)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, d) → (…, m)."""
        if x.dim() == 0 or x.shape[-1] != self.points.shape[1]:
            raise TightlipError(f"inputs of shape {tuple(x.shape)} do not fit: give (…, {self.points.shape[1]})")
        queries = x.reshape(-1, x.shape[-1]).repeat_interleave(self.values.shape[1], 0)  # one for each output
        output = torch.arange(len(queries), device=x.device) % self.values.shape[1]
        i, j = self._winners(queries, output)
        at, y = self.points[i], self.values[i, output]
        slope = (y - self.values[j, output])[:, None] * separating(at - self.points[j], self.p)
        return (y + (slope * (queries - at)).sum(-1)).reshape(*x.shape[:-1], self.values.shape[1])

    @torch.no_grad()
    def _winners(self, queries: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """The samples (i, j) of the piece with f_ij(x) = max_i min_j f_ij(x)."""
        points, columns, queries = self.points.double(), self.values.double().mT.contiguous(), queries.double()
        many, few = (max(1, numbers // len(points)) for numbers in (MOST, CACHED))
        nearest = torch.cat([_distances(x, points, self.p).argmin(1) for x in queries.split(many)])
        blocks = zip(queries.split(few), output.split(few), nearest.split(few), strict=True)
        found = torch.cat(
            [_winners(x, columns.index_select(0, which), points, self.p, first) for x, which, first in blocks]
        )
        return found[:, 0], found[:, 1]

    def extra_repr(self) -> str:
        """How many samples, their sizes, and the norm."""
        return f"{len(self.points)} samples, {self.points.shape[1]} → {self.values.shape[1]}, p={norm_name(self.p)}"


def _winners(x: Float[Tensor, "q d"], values: Float[Tensor, "q n"], points: Tensor, p: float, anchor: Tensor) -> Tensor:
    """(i, j) of max_i min_j f_ij for each query; its row of ``values`` is one output, its ``anchor`` the first i."""
    winner = torch.zeros(len(x), 2, dtype=torch.long, device=x.device)
    live = torch.arange(len(x), device=x.device)
    best = x.new_full((len(x),), -math.inf)
    upper = x.new_full((len(x), len(points)), math.inf)  # bounds on min_j f_ij, for each i
    by_column = True
    while len(live):
        pieces = _through(x, anchor, points, values, p)
        partner = pieces.argmin(1)  # and not min, which starts threads for the smallest arrays
        least = pieces.gather(1, partner[:, None])[:, 0]
        better = least > best
        best = torch.where(better, least, best)
        winner[live[better]] = torch.stack((anchor, partner), 1)[better]
        upper = torch.minimum(upper, pieces).scatter_(1, anchor[:, None], least[:, None])
        row = upper.argmax(1)
        going = (upper.gather(1, row[:, None])[:, 0] > best).nonzero()[:, 0]
        anchor = partner if by_column else row
        by_column = not by_column
        if len(going) < len(live):
            state = live, x, values, best, upper, anchor
            live, x, values, best, upper, anchor = (t.index_select(0, going) for t in state)
    return winner


def _through(x: Tensor, anchor: Tensor, points: Tensor, values: Tensor, p: float) -> Float[Tensor, "q n"]:
    """f_ij(x) for i = anchor and all j; ∞, which no minimum takes, where x_j is x_i. Coordinate by coordinate."""
    at = points[anchor]
    shift = x - at
    size = along = torch.zeros_like(values)  # ⟨u(d), shift⟩ = along / size
    for a, v, b in zip(at.mT[..., None], shift.mT[..., None], points.mT, strict=True):
        d = a - b
        if p == 1:
            size, along = size + d.abs(), torch.addcmul(along, d.sign(), v)
        elif p == 2:
            size, along = torch.addcmul(size, d, d), torch.addcmul(along, d, v)
        else:
            farther = d.abs() > size.abs()
            size, along = torch.where(farther, d, size), torch.where(farther, v, along)
    y = values.gather(1, anchor[:, None])
    return torch.addcmul(y, y - values, along / size).masked_fill_(size == 0, math.inf)


def checked(points: Array, values: Array, p: float, K: float = 1.0) -> tuple[Tensor, Tensor]:
    """The samples as `samples` returns them, or a sentence why no K-Lipschitz function passes through."""
    points, values = samples(points, values)
    steepest, i, j = 0.0, 0, 0
    for first, distance, rise in _pairs(points, values, p):
        slope = torch.where(rise == 0, 0.0, rise / distance)
        if float(slope.max()) > steepest:
            steepest, at = float(slope.max()), int(slope.argmax())
            i, j = first + at // len(points), at % len(points)
    if steepest > K * (1.0 + SLACK):
        run = float(torch.linalg.vector_norm(points[i] - points[j], p))
        up = float((values[i] - values[j]).abs().max())
        enough = steepest + 2.0**-50 * float(values.abs().max()) / max(run, NEAREST)  # values / K are rounded
        advice = f"pass K ≥ {enough:.10g}" if run else "a function has one value at each point"
        raise TightlipError(
            f"samples {i} and {j} are {run:.9g} apart in the {norm_name(p)}-norm, and their values {up:.9g}: "
            f"{up - K * run:.3g} more than K = {K:g} allows; {advice}"
        )
    return points, values


def samples(points: Array, values: Array) -> tuple[Tensor, Tensor]:
    """Copies in float64 of shapes (N, d) and (N, m); raises unless shapes fit and every number is finite."""
    points, values = tensor("points", points), tensor("values", values)
    if points.dim() != 2 or values.dim() not in (1, 2) or len(points) != len(values) or not points.numel():
        shapes = f"{tuple(points.shape)} and {tuple(values.shape)}"
        raise TightlipError(f"points must have shape (N, d), and values (N,) or (N, m), got {shapes}")
    points, values = (t.detach().to(torch.float64, copy=True) for t in (points, values))
    if not values.numel() or not (torch.isfinite(points).all() and torch.isfinite(values).all()):
        raise TightlipError("values are missing, or samples NaN or infinite, so nothing passes through: leave them out")
    return points, values.reshape(len(values), -1)


def _pairs(points: Tensor, values: Tensor, p: float) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Block by block: the first sample, how far it and the next are from all others, and how far their values are."""
    size = max(1, MOST // (len(points) * values.shape[1]))
    for first in range(0, len(points), size):
        part = slice(first, first + size)
        distance = _distances(points[part], points, p)
        largest = _distances(points[part], points, math.inf)  # of all coordinates: zero for equal samples only
        if not ((largest == 0) | ((largest > NEAREST) & (largest < FARTHEST))).all():
            raise TightlipError(
                f"samples are nearer than {NEAREST} or farther than {FARTHEST}: change the unit of length"
            )
        yield first, distance, (values[part, None] - values).abs().amax(-1)


def _distances(x: Tensor, points: Tensor, p: float) -> Tensor:
    """By differences: zero exactly where two points are the same."""
    return torch.cdist(x, points, p=p, compute_mode="donot_use_mm_for_euclid_dist")


def _of_sizes(sizes: Sequence[int], norm: str) -> LatticeInterpolant:
    """One whose data are still to come."""
    made = LatticeInterpolant.__new__(LatticeInterpolant)
    nn.Module.__init__(made)
    made.p = as_norm(norm)
    made.register_buffer("points", torch.empty(sizes[0], sizes[1], dtype=torch.float64))
    made.register_buffer("values", torch.empty(sizes[0], sizes[2], dtype=torch.float64))
    return made


_SIZES = Kind(
    "three integers ≥ 1", lambda value: isinstance(value, list) and len(value) == 3 and several(SIZE, 3).holds(value)
)


@rule(LatticeInterpolant, options={"sizes": _SIZES, "norm": one_of("1", "2", "inf")}, build=_of_sizes)
def _lattice_interpolant(module: LatticeInterpolant) -> Gains:
    # r→∞: the largest dual norm of a slope. Its entries err by less than γ_{d+6}, a norm of them by γ_{d+4} more.
    p, (points, values) = as_norm(module.p), samples(stored_numbers(module, "points"), stored_numbers(module, "values"))
    values, exponent = normalize_exactly(values)
    bits = points.view(torch.int64)  # of which no thread takes any for zero
    bits = bits.masked_fill(bits == torch.iinfo(torch.int64).min, 0)  # −0 is 0
    largest = dict.fromkeys(NORMS, 0.0)
    for first, _, rises in _pairs(points, values, p):
        for i, rise in enumerate(rises, first):
            u = separating(points[i] - points, p)
            if p == 1:  # |u| where coordinates differ by a number that may be taken for zero, too
                u = u.abs().amax(-1, keepdim=True) * (bits[i] != bits)
            for r in NORMS:
                largest[r] = max(largest[r], float(((rise + FLUSHED) * norm_above(u, dual(r), -1)).max()))
    if bool((bits == bits[0]).all()):
        raise TightlipError("all samples have become one point, and no piece is left: keep them in float64")
    slack = 1.0 + 2.0 * gamma(2 * points.shape[1] + 20)
    inflated = {r: scaled_up(c * slack + FLUSHED, exponent) for r, c in largest.items()}
    if values.shape[1] == 1:  # one output has one size, whatever the norm
        return Gains({(r, q): inflated[r] for r, q in PAIRS})
    return Gains({(r, math.inf): inflated[r] for r in NORMS})

"""Rotations from skew matrices, with as few products as will do, and a tournament in which all blocks meet.

For skew A with ‖A‖₂ ≤ 1 the matrix R = A + √(I + A²) is orthogonal, since A² is symmetric and commutes with A:

    RᵀR = (√(I + A²) − A)(√(I + A²) + A) = I + A² − A² = I.

With S = A²/2 the root is I + S − S²/2 + S³/2 − 5S⁴/8 + …; where it is cut decides how far R is from orthogonal. Source:
R is the polar factor of I + A + A²/2 + … to third order (Higham 2008, chapter 8); the cuts are derived here.
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from .rounding import full_precision

LONGEST = 0.2
"""Radians that no turn may exceed: up to there the series ends below rounding in float32."""

FURTHEST = 25.0
"""Times the longest angle: a turn estimated to be longer than that is shortened to it, all of it by one factor."""

TILE = 256
"""Rows and columns of a square that fits a core's cache."""

NARROW = 64
"""Rows up to which the Frobenius norm of a random matrix is at most twice what power iterations find of its 2-norm."""

SMALL = 1.0
"""An error of RᵀR that is not worth another product, in units of rounding."""


def rotation(
    angles: Float[Tensor, "*batch n n"], longest: float = LONGEST
) -> tuple[Float[Tensor, "*batch n n"], float]:
    """R − I for skew ``angles`` (overwritten), and about how far RᵀR is from I in the 2-norm, rounding aside.

    Where it is estimated (`largest_eigenvalue`) that an angle exceeds ``longest`` ≤ `LONGEST`, long ones are brought
    down to between half of it and all of it; those up to a third of it keep 97 % or more. The error is a bound if that
    estimate was one. If it was not, that is noticed: ‖R − I‖_F² + 2·tr(R − I) is the sum of all σ² − 1, and becomes
    the error.
    It is infinite where an angle is not finite, or where R is no rotation any more.
    """
    small = SMALL * torch.finfo(angles.dtype).eps
    with full_precision(angles):
        square = _squared(angles)
        found = _longest_angle(angles, square, longest)
        if not found < math.inf:
            return angles, math.inf
        far = found > longest
        if far:
            square, found = _clamped_(angles, square, found, longest), longest
        change, error = _rotation(angles, square.mul_(0.5), found**2 / 2, small)
        return change, max(error, _missed(change, error)) if far else error


def _longest_angle(angles: Tensor, square: Tensor, longest: float) -> float:
    """The bound ‖A‖_F/√2 where it is near enough: angles come in pairs. Else an estimate, from A²."""
    if angles.shape[-1] <= NARROW:
        bound = math.sqrt(0.5) * float(torch.linalg.vector_norm(angles, dim=(-2, -1)).amax())
        if bound <= longest:
            return bound
    return math.sqrt(largest_eigenvalue(square))


def _rotation(angles: Tensor, square: Tensor, size: float, small: float) -> tuple[Tensor, float]:
    total = angles.add_(square)
    if size**2 < small:
        return total, size**2
    fourth = _squared(square)
    if size**3 < small:
        return total.sub_(fourth, alpha=0.5), size**3
    rest = square.mul_(0.5).sub_(fourth, alpha=0.625)
    rest.diagonal(dim1=-2, dim2=-1).sub_(0.5)
    return total.add_(fourth @ rest), 1.8 * size**5


def _clamped_(angles: Tensor, square: Tensor, found: float, longest: float) -> Tensor:
    """Bring angles up to ``found`` down to ``longest``, by odd cubics that leave small ones as they are; their square.

    On [0, s] the cubic x − (4g²/27)·x³/s², 3/2 ≤ g ≤ 9/4, is at most s/g, and at its end at least 9/16 of that. For
    g ≤ 3/2 so is x − (1 − 1/g)·x³/s², which rises. Beyond s, where the estimate was too low, they fall: up to 4/3·s
    a plane turns by less than 4/3·s/g, perhaps backwards; far beyond they grow, which `rotation` notices.
    """
    if found > FURTHEST * longest:
        shorter, found = FURTHEST * longest / found, FURTHEST * longest
        angles.mul_(shorter)
        square.mul_(shorter).mul_(shorter)
    rounds = math.ceil(math.log(found / longest) / math.log(9 / 4))
    gain = (found / longest) ** (1 / rounds)
    weight = 4 * gain**2 / 27 if gain > 1.5 else 1 - 1 / gain
    for _ in range(rounds):
        angles.add_(angles @ square, alpha=weight / found**2)
        angles.copy_((angles - angles.mT).mul_(0.5))  # rounding left them not quite skew
        square, found = _squared(angles), found / gain
    return square


def _missed(change: Tensor, error: float) -> float:
    """The largest |Σ(σ² − 1)| over a batch where it is more than rounding and ``error`` explain, else 0."""
    squares = torch.linalg.vector_norm(change, dim=(-2, -1), dtype=torch.float64) ** 2
    trace = change.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=torch.float64)
    explained = change.shape[-1] * error + 16 * torch.finfo(change.dtype).eps
    missed = (squares + 2 * trace).abs()
    worst = float(torch.where(missed <= explained, 0.0, missed).amax())
    return worst if worst < 0.5 else math.inf  # so is NaN


def _squared(matrix: Tensor) -> Tensor:
    """M² of a skew or symmetric M, which is symmetric: where there is much to do, a quarter is not computed."""
    half = matrix.shape[-1] // 2
    if matrix.numel() < 4 * TILE**2:
        return matrix @ matrix
    result = torch.empty_like(matrix)
    result[..., :half, :half] = matrix[..., :half, :] @ matrix[..., :half]
    result[..., half:, :] = matrix[..., half:, :] @ matrix
    result[..., :half, half:] = result[..., half:, :half].mT
    return result


def largest_eigenvalue(symmetric: Float[Tensor, "*batch n n"]) -> float:
    """1.5 times what four rounds of a block power iteration find of max|λ| over a batch: an estimate, for engines only.

    Nothing is certified by it. Fixed starting vectors make it the same each time.
    """
    probe = _probe(symmetric.shape[-1], symmetric.dtype, symmetric.device)
    low, high = torch.aminmax(symmetric)
    scale = torch.maximum(-low, high).clamp(min=torch.finfo(symmetric.dtype).tiny)
    for _ in range(4):  # rows from the left: twice as fast as columns from the right
        before, probe = probe, (probe @ symmetric) / scale  # or powers overflow
    grown = torch.linalg.vector_norm(probe, dim=-1) / torch.linalg.vector_norm(before, dim=-1)
    found = float(grown.nan_to_num_(nan=0.0, posinf=torch.inf).amax() * scale)
    return 1.5 * found if math.isfinite(found) else math.inf


@cache
def _probe(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    source = torch.Generator("cpu").manual_seed(0)
    probe = torch.randn(8, size, generator=source, dtype=torch.float64, device="cpu")
    return (probe / torch.linalg.vector_norm(probe, dim=1, keepdim=True)).to(device, dtype)


def skew_part_(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """(M − Mᵀ)/2 in place; on a CPU tile by tile, so that what is read across rows stays in the cache."""
    tile = TILE if matrix.is_cpu else len(matrix)
    for i in range(0, len(matrix), tile):
        for j in range(0, i + 1, tile):
            low, high = matrix[i : i + tile, j : j + tile], matrix[j : j + tile, i : i + tile]
            before = low.clone()
            if i > j:
                low.sub_(high.clone().mT).mul_(0.5)
            high.sub_(before.mT).mul_(0.5)
    return matrix


@cache
def tournament(players: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """The players − 1 rounds in which each of an even number of players meets every other once.

    >>> tournament(4)
    (((0, 3), (1, 2)), ((0, 2), (1, 3)), ((0, 1), (2, 3)))
    """
    ring, rounds = list(range(players)), []
    for _ in range(players - 1):
        meeting = ((ring[i], ring[-1 - i]) for i in range(players // 2))
        rounds.append(tuple((min(pair), max(pair)) for pair in meeting))
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return tuple(rounds)

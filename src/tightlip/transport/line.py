"""Points on a line: W1 = ∫ |F − G| dt exactly, and couplings of any points by their order along a line.

With weights a, b of sum A, B and the points of both samples sorted to z_1 ≤ z_2 ≤ …

    W1 = Σ_k |A_k/A − B_k/B|·(z_{k+1} − z_k),     A_k, B_k the weights at z_1, …, z_k.

Every float64 is an integer times a power of two, so the sum is one of integers, and nothing is rounded before its end.
An optimal f falls where A_k/A > B_k/B and rises where it is less, with slope 1. Source: Vallender 1974.
"""

from fractions import Fraction
from itertools import accumulate

import numpy as np
import torch

from .bounds import Flow, of_pieces
from .costs import Clouds


def on_the_line(clouds: Clouds) -> tuple[Fraction, np.ndarray]:
    """W1 of clouds with one coordinate, exactly, and prices (m,) that attain it."""
    n, points = len(clouds.x), torch.cat((clouds.x, clouds.y))[:, 0].numpy()
    order = np.argsort(points, kind="stable")
    (a, _), (b, _), (z, unit) = _integers(clouds.weights_x), _integers(clouds.weights_y), _integers(points[order])
    total_a, total_b = sum(a), sum(b)
    changes = [total_b * weight for weight in a] + [-total_a * weight for weight in b]
    leads = list(accumulate(changes[k] for k in order.tolist()))[:-1]
    cost = sum(abs(lead) * (above - below) for lead, below, above in zip(leads, z, z[1:], strict=False))
    signs = np.array([(lead < 0) - (lead > 0) for lead in leads], dtype=np.float64)
    potential = np.empty(len(points))
    potential[order] = np.concatenate(([0.0], np.cumsum(signs * np.diff(points[order]))))
    return Fraction(cost, total_a * total_b) * unit, potential[n:]


def along_a_line(clouds: Clouds, a: np.ndarray, b: np.ndarray) -> Flow:
    """Masses a (n,) and b (m,) of nearly equal sums, coupled in the order of the points along one direction.

    The direction is that between the means, so a translation is found at once; n + m steps, and no promise otherwise.
    """
    direction = clouds.x.mean(0) - clouds.y.mean(0)
    if not bool(direction.any()):
        direction = clouds.x.var(0, correction=0)
    first, second = (clouds.x @ direction).argsort().numpy(), (clouds.y @ direction).argsort().numpy()
    ends_a, ends_b = np.cumsum(a[first]), np.cumsum(b[second])
    cuts = np.minimum(np.sort(np.concatenate((ends_a, ends_b))), min(ends_a[-1], ends_b[-1]))
    starts = np.concatenate(([0.0], cuts[:-1]))
    some = cuts > starts
    rows = np.searchsorted(ends_a, starts[some], side="right").clip(max=len(a) - 1)
    columns = np.searchsorted(ends_b, starts[some], side="right").clip(max=len(b) - 1)
    return of_pieces(clouds, first[rows], second[columns], (cuts - starts)[some])


def _integers(numbers: np.ndarray) -> tuple[list[int], Fraction]:
    """Integers, and the power of two that makes these numbers of them."""
    mantissas, exponents = np.frexp(numbers)
    least = int(exponents[mantissas != 0].min(initial=0))
    shifts = np.maximum(exponents - least, 0).tolist()
    whole = (mantissas * 2.0**53).astype(np.int64).tolist()
    return [value << shift for value, shift in zip(whole, shifts, strict=True)], Fraction(2) ** (least - 53)

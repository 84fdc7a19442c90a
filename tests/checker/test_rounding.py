"""What the checker computes with rounding is rounded outward: square roots, and lengths of rows."""

from fractions import Fraction

import numpy as np
import pytest
from tightlip_check import root, sizes


@pytest.mark.parametrize(
    "x", [Fraction(2), Fraction(1, 3), Fraction(10**40 + 1), Fraction(7, 2**900), Fraction(2**901)]
)
def test_a_square_root_is_above_by_a_hair(x):
    found = root(x)
    assert x <= found**2 <= x * (1 + Fraction(1, 2**100))


@pytest.mark.parametrize("x", [Fraction(0), Fraction(9, 4), Fraction(2**200)])
def test_a_rational_square_root_is_exact(x):
    assert root(x) ** 2 == x


@pytest.mark.parametrize("scale", [1.0, 1e-170, 1e170, 5e-324])
def test_lengths_of_rows_are_from_above(scale):
    rows = np.random.default_rng(0).standard_normal((200, 7)) * scale
    two, top = sizes(rows)
    for row, length, largest in zip(rows, two.tolist(), top.tolist(), strict=True):
        exact = sum(Fraction(entry) ** 2 for entry in row.tolist())
        assert exact <= Fraction(length) ** 2
        assert scale < 1e-300 or Fraction(length) ** 2 <= exact * (1 + Fraction(1, 10**5))
        assert largest == np.abs(row).max()

"""Bounds on p→∞ norms, for any p: never below the exact norm, which decimals of 60 digits know, and not far above."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tightlip import TightlipError
from tightlip.linalg.powers import power, row_norm_above

P = [1.0, 1 + 1e-12, 1.0001, 1.1, 1.5, 2.0, 2.5, 3.0, 4.0, 7.3, 100.0, 1e6, 1e300, math.inf]


def exact(row, p):
    """‖row‖_{p*} in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        context.Emin, context.Emax = -(10**15), 10**15
        size = [Decimal(value).copy_abs() for value in row if value]
        if not size or p == 1:
            return max(size, default=Decimal(0))
        order = Decimal(1) if p == math.inf else Decimal(p) / (Decimal(p) - 1)
        largest = max(size)
        return largest * sum((value / largest) ** order for value in size) ** (1 / order)


def check(row, p, share=Decimal("1e-8")):
    truth = exact(row, p)
    bound = Decimal(row_norm_above(torch.tensor([row], dtype=torch.float64), p))
    assert truth <= bound <= truth * (1 + share)


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("scale", [1e-300, 1e-8, 1.0, 1e300])
def test_a_row_is_bounded_from_above_and_tightly(p, scale):
    row = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale
    check(row.tolist(), p)
    check((row / row.abs() * scale).tolist(), p)  # all alike
    check([scale], p)


@given(
    st.lists(st.floats(-1e10, 1e10).filter(lambda v: v == 0 or abs(v) > 1e-200), min_size=1, max_size=6),
    st.floats(1, 1e6) | st.sampled_from(P),
)
def test_any_row_in_any_norm(row, p):
    check(row, p)


@pytest.mark.parametrize("p", P)
def test_the_largest_row_counts_and_axes_after_the_first_are_one_row(p):
    weight = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    truth = max(exact(row, p) for row in weight.double().flatten(1).tolist())
    assert truth <= Decimal(row_norm_above(weight, p)) <= truth * Decimal(1 + 1e-8)


@pytest.mark.parametrize("p", [1.5, 3.0, 100.0])
def test_rows_are_bounded_in_every_order_of_summation(p, monkeypatch):
    """One by one, from the largest on, every addend is lost to rounding."""
    monkeypatch.setattr(torch.Tensor, "sum", lambda x, dim: x.cumsum(dim).select(dim, -1))
    small = 2.0 ** (-54 * (1 - 1 / p))
    row = [1.0] + [small] * 4096
    assert exact(row, p) <= Decimal(row_norm_above(torch.tensor([row], dtype=torch.float64), p))


def test_nothing_has_no_norm_and_what_is_not_finite_is_refused():
    assert row_norm_above(torch.zeros(2, 3), 3.0) == 0
    for bad in (math.nan, math.inf):
        with pytest.raises(TightlipError, match="nothing can be proven"):
            row_norm_above(torch.tensor([[1.0, bad]]), 3.0)


@pytest.mark.parametrize(("base", "exponent", "value"), [(4, "3/2", 8), (16, "1/4", 2), (9, "0", 1), (3, "5", 243)])
def test_powers_that_are_whole_are_exact(base, exponent, value):
    assert float(power(torch.tensor([base], dtype=torch.float64), Fraction(exponent))) == value
    assert float(power(torch.zeros(1, dtype=torch.float64), Fraction(1, 2))) == 0

import itertools
import math

import pytest
import torch
from slopes import PAIRS as ALL_PAIRS

from tightlip import TightlipError
from tightlip.norms import NORMS, PAIRS, as_exponent, as_norm, dual, norm_name, operator_norm

INF = math.inf


@pytest.mark.parametrize(("given", "meant"), [(1, 1.0), ("1", 1.0), (2, 2.0), ("2", 2.0), (INF, INF), ("inf", INF)])
def test_a_norm_may_be_a_number_or_its_name(given, meant):
    assert as_norm(given) == meant
    assert as_norm(norm_name(as_norm(given))) == meant


@pytest.mark.parametrize("given", [0, 3, 1.5, -INF, math.nan, "three", ""])
def test_other_norms_are_refused_with_the_choices(given):
    with pytest.raises(TightlipError, match="choose 1, 2 or inf"):
        as_norm(given)


def test_the_dual_of_the_dual_is_the_norm_and_hoelder_holds_with_equality():
    x = torch.tensor([3.0, -4.0, 0.0])
    best = {1.0: torch.tensor([0.0, -1.0, 0.0]), 2.0: x / 5, INF: x.sign()}
    for p in NORMS:
        assert dual(dual(p)) == p
        assert float(best[p].norm(p)) == 1
        assert math.isclose(float(x @ best[p]), float(x.norm(dual(p))))


@pytest.mark.parametrize(
    ("p", "order", "name"), [(3, 1.5, "3"), (1.5, 3, "1.5"), (4, 4 / 3, "4"), (1 + 1e-9, 1e9, None)]
)
def test_other_norms_of_inputs_have_duals_and_names_too(p, order, name):
    assert dual(p) == pytest.approx(order, rel=1e-6)
    assert norm_name(p) == name or (name is None and float(norm_name(p)) == p)
    x = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    best = x.sign() * x.abs() ** (min(order, 100) - 1)  # equality in Hölder's inequality
    if name is not None:
        assert math.isclose(float(x @ best), float(x.norm(dual(p)) * best.norm(float(p))))
        assert float(operator_norm(x[None], p, INF)) == pytest.approx(float(x.norm(order)))


@pytest.mark.parametrize("given", [0, 0.999, -3, -INF, math.nan, "three"])
def test_what_is_below_1_or_no_number_is_no_norm(given):
    with pytest.raises(TightlipError, match="choose a number from 1 to inf"):
        as_exponent(given)


@pytest.mark.parametrize(("p", "q"), [(3, 3), (3, 2), (2, 3), (1, 1.5), (1.5, 2)])
def test_other_norms_are_closed_towards_infinity_only(p, q):
    with pytest.raises(TightlipError, match="choose 1, 2 or inf"):
        operator_norm(torch.eye(2), p, q)


def test_the_pairs_are_the_six_with_p_at_most_q():
    assert sorted(PAIRS) == sorted(ALL_PAIRS)
    assert len(PAIRS) == 6


@pytest.mark.parametrize(
    ("p", "q", "row", "column"),
    [(1, 1, 4, 7), (1, 2, 4, 5), (1, INF, 4, 4), (2, 2, 5, 5), (2, INF, 5, 4), (INF, INF, 7, 4)],
)
def test_operator_norms_of_a_row_and_of_a_column(p, q, row, column):
    weight = torch.tensor([[3.0, -4.0]])
    assert float(operator_norm(weight, p, q)) == pytest.approx(row, rel=1e-6)
    assert float(operator_norm(weight.mT, p, q)) == pytest.approx(column, rel=1e-6)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (1, 2), (1, INF), (INF, INF)])
def test_operator_norms_are_attained_at_a_vertex_of_the_ball(p, q):
    weight = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=5)), dtype=torch.float64)
    vertices = signs if p == INF else torch.eye(5, dtype=torch.float64)
    attained = torch.linalg.vector_norm(vertices @ weight.mT, q, dim=1).max()
    assert float(operator_norm(weight, p, q)) == pytest.approx(float(attained), rel=1e-12)


def test_operator_norm_is_batched_and_defaults_to_one_norm_on_both_sides():
    weight = torch.randn(2, 3, 4, 5)
    for p in NORMS:
        each = torch.stack([torch.stack([operator_norm(w, p, p) for w in row]) for row in weight])
        torch.testing.assert_close(operator_norm(weight, p), each)


@pytest.mark.parametrize(("p", "q"), [(INF, 1), (INF, 2), (2, 1)])
def test_pairs_without_a_closed_form_are_refused(p, q):
    with pytest.raises(TightlipError, match="ask for p ≤ q"):
        operator_norm(torch.eye(2), p, q)

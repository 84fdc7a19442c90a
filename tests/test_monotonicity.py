"""Networks that rise or fall with a feature: no pair of points breaks it, in exact arithmetic, and no altered line."""

import math
from fractions import Fraction

import pytest
import torch
from red_team.exact import run
from torch import nn

from tightlip import (
    GroupSort,
    MaxMin,
    Normalize,
    TightlipError,
    feature_slopes,
    freeze,
    hold,
    lipschitz,
    load,
    mlp,
    monotone,
    monotone_signs,
    save,
)

SIGNS = [1, -1, 0]


@pytest.fixture
def curve():
    """Steep, in float32, with units of its own."""
    torch.manual_seed(0)
    return nn.Sequential(Normalize([0.0] * 3, [1.0, 10.0, 0.1]), nn.Linear(3, 8), MaxMin(), nn.Linear(8, 1)).eval()


def exactly(graph, rows):
    """f of each row in rationals."""
    rows = [[Fraction(a) for a in row] for row in rows.double().tolist()]
    return [run(graph.curve, row)[0] + run(graph.line, row)[0] for row in rows]


def steepest_fall(graph, j, x):
    """The least partial derivative at these points, times the sign."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(graph(x).sum(), x)
    return slope[:, j].detach()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_no_pair_of_points_breaks_a_direction(curve, kind):
    """Not even neighbors in floating point, where a line that is rounded down would be too flat."""
    f = monotone(curve.to(kind), SIGNS)
    assert monotone_signs(f).tolist() == SIGNS and f.line.weight.dtype == kind
    x = torch.randn(30, 3, dtype=kind) * torch.tensor([1.0, 10.0, 0.1], dtype=kind)
    for j, sign in ((0, 1), (1, -1)):
        for far in (torch.nextafter(x[:, j], torch.full_like(x[:, j], torch.inf)), x[:, j] + 1e-3, x[:, j] + 10):
            moved = x.clone()
            moved[:, j] = far
            rises = [sign * (b - a) for a, b in zip(exactly(f, x), exactly(f, moved), strict=True)]
            assert min(rises) >= 0 and max(rises) > 0


def test_the_line_is_as_steep_as_it_must_be_and_no_steeper():
    """−3·|x| + 3·x is flat on the right."""
    g = nn.Sequential(nn.Linear(1, 2, bias=False), GroupSort(2), nn.Linear(2, 1, bias=False)).double()
    g[0].weight.data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    g[2].weight.data = torch.tensor([[0.0, -3.0]], dtype=torch.float64)  # −3·|x|
    f = monotone(g, [1])
    assert float(f.line.weight) == pytest.approx(3.0, rel=1e-12) and float(f.line.weight) >= 3
    x = torch.tensor([[-2.0], [0.0], [5.0]], dtype=torch.float64)
    assert f(x)[:, 0].tolist() == pytest.approx([-12.0, 0.0, 0.0], abs=1e-9)
    assert lipschitz(f, 1, math.inf).constant == pytest.approx(6.0, rel=1e-9)


def test_what_is_altered_afterwards_is_not_believed(curve, tmp_path):
    f = monotone(curve, SIGNS)
    save(f, tmp_path / "f.safetensors")
    assert monotone_signs(load(tmp_path / "f.safetensors")).tolist() == SIGNS
    with torch.no_grad():
        f.line.weight[0, 0] *= 0.999
    assert monotone_signs(f).tolist() == [0, -1, 0]
    with torch.no_grad():
        f.curve[1].weight *= 2
    assert monotone_signs(f).tolist() == [0, 0, 0]
    f.line.forward = lambda x: -x[:, :1]
    with pytest.raises(TightlipError, match="line"):
        monotone_signs(f)
    for other in (curve, nn.Linear(3, 1), freeze(mlp([3, 1]))):
        with pytest.raises(TightlipError, match="not the sum of a network and a line"):
            monotone_signs(other)


def test_it_is_trained_under_a_constraint_and_stays_monotone():
    torch.manual_seed(0)
    f = monotone(mlp([2, 8, 1]), [1, 0], [1.001, 0.0])
    optimizer = torch.optim.Adam(f.parameters(), 1e-2)
    hold(f, optimizer)
    x = torch.randn(64, 2)
    for _ in range(5):
        optimizer.zero_grad()
        (f(x) + x[:, :1]).square().mean().backward()  # wants to fall
        optimizer.step()
    frozen = freeze(f)
    assert monotone_signs(frozen).tolist() == [1, 0]
    assert float(frozen.line.weight[0, 0]) == pytest.approx(1.001)
    assert steepest_fall(frozen, 0, x).min() >= 0


@pytest.mark.parametrize(
    ("signs", "slopes", "problem"),
    [
        ([1, 2, 0], None, "signs must be 1, -1 or 0"),
        ([0, 0, 0], None, "not all 0"),
        ("up", None, "signs must be a list of finite numbers"),
        ([1, 0, 0], [1.0], "1 slopes do not fit 3 signs"),
        ([1, 0, -1], [9.0, 0.0, 1e-3], "of feature 2 is below what is proven"),
        ([1, 0], None, r"do not fit inputs of shape \[1, 2\]"),
    ],
)
def test_what_proves_nothing_is_one_sentence(curve, signs, slopes, problem):
    with pytest.raises(TightlipError, match=problem):
        monotone(curve, signs, slopes)


def test_several_outputs_are_one_sentence():
    with pytest.raises(TightlipError, match="give one with a single output"):
        monotone(freeze(mlp([3, 4, 2])), SIGNS)


def test_slopes_are_each_features_own(curve):
    steep = feature_slopes(curve, 3)
    line = monotone(curve, [1, 1, 1]).line.weight[0].double()
    assert (line >= steep).all() and line.tolist() == pytest.approx(steep.tolist(), rel=1e-6)

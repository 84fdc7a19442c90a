"""Error bands: exact where that is known, never below what they must hold, and no wider than a function that fits."""

import math

import numpy as np
import pytest
import torch

from tightlip import ErrorBand, RowL1Ball, TightlipError, bands, freeze, lipschitz, mlp
from tightlip.constraints import Orthonormal

NORMS = (1, 2, math.inf)


def test_between_two_measurements_it_is_the_lozenge_of_both_slopes():
    band = ErrorBand(np.array([[0.0], [4.0]]), np.array([0.0, 2.0]), K=1.0, noise=0.5)
    found = band(np.array([[0.0], [1.0], [2.0], [9.0]]))
    assert torch.allclose(found.lower, torch.tensor([-0.5, -1.5, -0.5, -3.5]).double())
    assert torch.allclose(found.upper, torch.tensor([0.5, 1.5, 2.5, 7.5]).double())
    assert torch.allclose(found.middle, torch.tensor([0.0, 0.0, 1.0, 2.0]).double())
    assert torch.allclose(found.half_width, torch.tensor([0.5, 1.5, 1.5, 5.5]).double())


@pytest.mark.parametrize(("p", "constraint"), [(2, Orthonormal), (math.inf, RowL1Ball)])
def test_what_was_measured_is_inside_of_it(p, constraint, seed):
    """A network with a proven constant, and values that are off by as much as is declared."""
    f = freeze(mlp([3, 16, 16, 1], constraint(), K=3.0)).double()
    K = lipschitz(f, p).constant
    points, x = torch.randn(150, 3).double(), 2 * torch.randn(300, 3).double()
    off = 0.1 * torch.where(torch.rand(150) < 0.5, -1.0, 1.0).double()
    found = ErrorBand(points, f(points)[:, 0].detach() + off, K, noise=0.1 * (1 + 1e-12), p=p)(x)
    truth = f(x)[:, 0]
    assert bool((found.lower <= truth).all()) and bool((truth <= found.upper).all())


@pytest.mark.parametrize("p", NORMS)
def test_both_ends_are_functions_that_fit_so_nothing_narrower_is_proven(p, seed):
    """They keep the slope between any two points, and are within the noise of all values."""
    points, K, noise = torch.randn(40, 4).double(), 2.0, 0.3
    values = K * torch.cdist(points, torch.zeros(1, 4).double(), p=p)[:, 0]
    band = ErrorBand(points, values, K, noise, p)
    x = torch.randn(200, 4).double()
    away = torch.cdist(x, x, p=p, compute_mode="donot_use_mm_for_euclid_dist")
    for end, at in zip(band(x), band(points), strict=True):
        assert bool(((end[:, None] - end).abs() <= K * away + 1e-9).all())
        assert float((at - values).abs().max()) <= noise + 1e-9


@pytest.mark.parametrize("p", NORMS)
def test_it_holds_for_points_that_lie_far_off_and_at_a_measurement(p):
    """Outward of what exact arithmetic gives, and by little."""
    points = torch.tensor([[1e6, 1e6 + 1.0], [1e6, 1e6]]).double()
    band = ErrorBand(points, torch.tensor([1e3, 1e3]).double(), K=1 / 3, p=p)
    for x, away in ((points[:1], 0.0), (points[1:] - torch.tensor([[0.0, 3.0]]).double(), 3.0)):
        lower, upper = (float(end) for end in band(x))
        assert 1e3 - away / 3 - 1e-9 < lower < 1e3 - away / 3 and 1e3 + away / 3 < upper < 1e3 + away / 3 + 1e-9


def test_pieces_make_no_difference(monkeypatch, seed):
    points, x = torch.randn(30, 2), torch.randn(50, 2)
    whole = ErrorBand(points, points.sum(1), K=2.0)(x)
    monkeypatch.setattr(bands, "PIECE", 70)
    assert all(torch.equal(a, b) for a, b in zip(whole, ErrorBand(points, points.sum(1), K=2.0)(x), strict=True))
    assert [len(end) for end in ErrorBand(points, points.sum(1), K=2.0)(x[:0])] == [0, 0]


def test_data_refute_a_slope_or_a_noise_and_tell_the_least_that_would_do():
    points, values = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [2.0], [2.5]])
    with pytest.raises(TightlipError, match=r"within noise=0.1 of all .* noise ≥ 0.5, or .*\(K ≥ 1.8\)"):
        ErrorBand(points, values, K=1.0, noise=0.1)
    assert ErrorBand(points, values, K=1.0, noise=0.5) and ErrorBand(points, values, K=1.8, noise=0.1)
    with pytest.raises(TightlipError, match=r"noise ≥ 0.25.*no slope suffices, as points repeat"):
        ErrorBand(torch.zeros(2, 1), torch.tensor([0.0, 0.5]), K=1.0)
    assert repr(ErrorBand(points, values, 2, p=1)) == "ErrorBand(3 measurements in 1 dimensions, K=2, noise=0, p=1)"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((torch.zeros(3), torch.zeros(3), 1), r"points must have shape \(n, d\), got \(3,\)"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), 1), r"values must have shape \(n,\)"),
        ((torch.zeros(3, 2), torch.zeros(2), 1), "got 3 points and 2 values"),
        ((torch.zeros(0, 2), torch.zeros(0), 1), "got 0 points and 0 values"),
        ((torch.zeros(1, 2), torch.tensor([math.nan]), 1), "1 of 1 values are NaN or infinite"),
        ((torch.tensor([[math.inf]]), torch.zeros(1), 1), "1 of 1 points are NaN or infinite"),
        ((torch.tensor([[1e70]], dtype=torch.float64), torch.zeros(1), 1), "beyond .*change the unit"),
        ((torch.zeros(1, 2), torch.zeros(1), -1), "K must be a finite number ≥ 0"),
        ((torch.zeros(1, 2), torch.zeros(1), 1, -0.1), "noise must be a finite number ≥ 0"),
        ((torch.zeros(1, 2), torch.zeros(1), 1, 0, 3), "norm|p must"),
    ],
)
def test_what_cannot_be_is_refused(arguments, sentence):
    with pytest.raises(TightlipError, match=sentence):
        ErrorBand(*arguments)


def test_points_of_another_size_are_refused():
    with pytest.raises(TightlipError, match="measurements are in 2 dimensions, and these points in 3"):
        ErrorBand(torch.zeros(1, 2), torch.zeros(1), 1)(torch.zeros(1, 3))

"""What the estimators prove, attacked: in the units of the data, in exact arithmetic, in float32 too."""

from fractions import Fraction

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from red_team.exact import run, squared_norm
from slopes import jacobians, steepest

import tightlip
from tightlip.estimators import LipschitzClassifier, LipschitzOutlier, LipschitzRegressor

UNITS = np.array([0.01, 1.0, 100.0])
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(90, 3)) * UNITS + [5.0, 0.0, -700.0]
Z = (ROWS - ROWS.mean(0)) / UNITS
TARGETS = 40 * np.abs(Z[:, 0]) + 20 * Z[:, 2] + RNG.normal(size=90)
NAMES = np.array(["high", "low", "middle"])[np.digitize(Z[:, 0] + Z[:, 1], [-0.5, 0.5])]
QUICK = {"hidden": (8,), "epochs": 20, "learning_rate": 0.1, "random_state": 0}
NORMS = [1.0, 2.0, np.inf]


def exactly(network, rows):
    """What a network does in rational arithmetic, for rows as they are stored."""
    rows = [[Fraction(float(a)) for a in row] for row in rows]
    if type(network) is tightlip.Graph:
        return [run(network.curve, row)[0] + run(network.line, row)[0] for row in rows]
    return [run(network, row)[0] for row in rows]


def attacked(network, rows, radius, p):
    """For each row a point at this distance at most, as near to another decision as an attack can come."""
    labels = network(torch.from_numpy(rows)).argmax(1)
    found = tightlip.pgd(
        network, rows, labels, torch.from_numpy(radius), p, steps=15, restarts=1, clamp=None, progress=False
    )
    return found.numpy()


@pytest.mark.parametrize(("p", "standardize"), [(1.0, True), (2.0, True), (2.0, False), (np.inf, True)])
def test_an_attack_just_within_the_radius_flips_nothing_and_beyond_it_something(p, standardize):
    fitted = LipschitzClassifier(p=p, standardize=standardize, **QUICK).fit(ROWS, NAMES)
    before, radius = fitted.predict(ROWS), fitted.certified_radius(ROWS)
    assert (radius > 0).all() and len(set(before)) > 1
    assert (fitted.predict(attacked(fitted.network_, ROWS, 0.9999 * radius, p)) == before).all()
    assert (fitted.predict(attacked(fitted.network_, ROWS, 3 * radius, p)) != before).mean() > 0.2  # it can attack


@pytest.mark.parametrize("p", NORMS)
def test_an_attack_just_within_its_score_turns_no_outlier(p):
    fitted = LipschitzOutlier(p=p, standardize=False, **QUICK).fit(ROWS)
    before, decision, radius = fitted.predict(ROWS), fitted.decision_function(ROWS), fitted.certified_radius(ROWS)
    assert fitted.bound_.constant <= 1 and (radius >= 0.999 * np.abs(decision)).all()
    (slope,) = torch.autograd.grad(fitted.network_(rows := torch.from_numpy(ROWS).requires_grad_()).sum(), rows)
    moves = steepest(slope[:, None], p, np.inf).numpy() * -np.sign(decision)[:, None]
    for share, turned in ((0.9999, False), (4.0, True)):
        after = fitted.predict(ROWS + share * radius[:, None] * moves)
        assert (after != before).any() == turned


@pytest.mark.parametrize(
    ("p", "signs", "constraint"),
    [
        (1.0, [0, 0, 1], None),
        (1.0, None, tightlip.ColumnL1Ball()),
        (2.0, None, None),
        (2.0, [0, 0, 1], None),
        (2.0, None, tightlip.SpectralBall()),
        (np.inf, None, None),
    ],
)
def test_a_slope_holds_in_exact_arithmetic_from_neighbors_to_far_points(p, signs, constraint):
    """In the units of rows and targets: also between neighbors in float32 and in float64."""
    K = 50.0
    fitted = LipschitzRegressor(K=K, p=p, monotone=signs, constraint=constraint, **QUICK).fit(ROWS, TARGETS)
    x = torch.from_numpy(ROWS[:6])
    along = steepest(jacobians(fitted.network_, x), p, np.inf)
    near = torch.nextafter(x.float(), x.float() + along.sign().float()).double()
    pairs = [(x, torch.nextafter(x, x + along.sign())), (x.float().double(), near)]
    pairs += [(x, x + size * along) for size in (1e-9, 1e-3, 1.0, 1e4)]
    most = 0.0
    for first, second in pairs:
        values = (exactly(fitted.network_, z) for z in (first, second))
        for a, b, f, g in zip(first.tolist(), second.tolist(), *values, strict=True):
            distance = squared_norm([Fraction(i) - Fraction(j) for i, j in zip(a, b, strict=True)], p)
            assert (f - g) ** 2 <= Fraction(fitted.bound_.constant) ** 2 * distance
            most = max(most, float((f - g) ** 2 / distance) ** 0.5 if distance else 0.0)
    assert 0.1 * K < most <= fitted.bound_.constant <= K


def test_no_pair_of_rows_breaks_a_direction_in_exact_arithmetic():
    signs = [-1, 0, 1]
    fitted = LipschitzRegressor(monotone=signs, **QUICK).fit(ROWS, TARGETS)  # the targets go both ways
    assert tightlip.monotone_signs(fitted.network_).tolist() == signs
    rows = ROWS[:6]
    before = exactly(fitted.network_, rows)
    for j in np.flatnonzero(signs):
        for far in (np.nextafter(rows[:, j], np.inf), rows[:, j] + 1e-3 * UNITS[j], rows[:, j] + 10 * UNITS[j]):
            moved = rows.copy()
            moved[:, j] = far
            assert all(signs[j] * (b - a) >= 0 for a, b in zip(before, exactly(fitted.network_, moved), strict=True))
    steep = tightlip.feature_slopes(fitted.network_.curve, 3)
    assert (fitted.network_.line.weight[0].abs()[np.flatnonzero(signs)] >= steep[np.flatnonzero(signs)]).all()


def test_standardization_is_part_of_what_is_proven():
    """A bound of the network behind it would be another one."""
    fitted = LipschitzRegressor(K=50.0, **QUICK).fit(ROWS, TARGETS)
    behind = tightlip.lipschitz(fitted.network_[1:], 2, np.inf).constant
    assert behind < 1.0 and fitted.bound_.constant > 30.0
    assert tightlip.lipschitz(fitted.network_, 2, np.inf) == fitted.bound_


def test_rows_in_float32_are_certified_as_they_are():
    fitted, rows = LipschitzClassifier(**QUICK).fit(ROWS.astype(np.float32), NAMES), ROWS.astype(np.float32)
    assert np.array_equal(fitted.certified_radius(rows), fitted.certified_radius(rows.astype(np.float64)))
    assert np.array_equal(fitted.certified_radius(rows), fitted.certified_radius(rows.tolist()))
    assert (fitted.certified_radius(ROWS) != fitted.certified_radius(rows)).any()
    assert fitted.network_[0].std.dtype == torch.float64 and fitted.predict_proba(rows).dtype == np.float64


def test_a_row_alone_has_the_values_that_it_has_among_others():
    fitted = LipschitzClassifier(**QUICK).fit(ROWS, NAMES)
    alone = np.concatenate([fitted.predict_proba(row[None]) for row in ROWS])
    assert alone == pytest.approx(fitted.predict_proba(ROWS), abs=1e-12)
    assert fitted.predict_proba(ROWS).sum(1) == pytest.approx(np.ones(len(ROWS)))


def test_radii_near_a_large_mean_allow_for_rounding():
    """A mean of 1e9 deviations costs digits, and radii are not above what is left."""
    far = Z * 1e-3 + 1e6
    fitted = LipschitzClassifier(p=2, **QUICK).fit(far, NAMES)
    radius, before = fitted.certified_radius(far), fitted.predict(far)
    assert (radius > 0).mean() > 0.9
    assert (fitted.predict(attacked(fitted.network_, far, 0.999 * radius, 2)) == before).all()

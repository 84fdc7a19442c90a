import itertools

import pytest
import torch

from tightlip.linalg.rotation import (
    FURTHEST,
    LONGEST,
    TILE,
    _clamped_,
    _probe,
    largest_eigenvalue,
    rotation,
    skew_part_,
    tournament,
)


def skew(size, norm, seed=0, pairs=1):
    matrix = torch.randn(pairs, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    matrix = matrix - matrix.mT
    return matrix * norm / torch.linalg.matrix_norm(matrix, 2).amax()


@pytest.mark.parametrize("norm", [1e-6, 1e-3, 0.02, 0.05, 0.1, 0.16])
@pytest.mark.parametrize(("size", "pairs"), [(2, 1), (5, 3), (40, 2), (2 * TILE + 1, 2)])
def test_a_rotation_is_orthogonal_up_to_the_error_that_it_states(norm, size, pairs):
    angles = skew(size, norm, pairs=pairs)
    change, error = rotation(angles.clone())
    turned = torch.eye(size, dtype=torch.float64) + change
    off = float(torch.linalg.matrix_norm(turned.mT @ turned - torch.eye(size, dtype=torch.float64), 2).amax())
    assert off <= error + 1e-14 and error <= 2e-3
    assert float((change - angles).abs().max()) <= norm**2  # to first order it is the angle itself


@pytest.mark.parametrize("longest", [0.02, LONGEST])
@pytest.mark.parametrize("norm", [0.21, 0.5, 1.0, 5.0, 1e3, 1e100])
def test_no_plane_turns_further_than_it_may(norm, longest):
    angles = skew(6, norm)
    change, error = rotation(angles.clone(), longest)
    turned = torch.eye(6, dtype=torch.float64) + change
    off = float(torch.linalg.matrix_norm(turned.mT @ turned - torch.eye(6, dtype=torch.float64), 2))
    assert off <= error + 1e-14 < 1e-6
    sine = (turned - turned.mT) / 2
    assert 0.5 * longest < float(torch.linalg.matrix_norm(sine, 2)) <= longest
    torch.testing.assert_close(sine @ angles, angles @ sine, rtol=1e-9, atol=1e-9 * norm)  # in the same planes


def planes(angles, basis=None):
    """A skew matrix that turns planes by these angles; in the coordinate planes, or in those of an orthogonal basis."""
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    matrix = torch.kron(torch.diag(torch.tensor(angles, dtype=torch.float64)), quarter)
    return matrix if basis is None else basis @ matrix @ basis.mT


def hidden(angles):
    """The first of these planes is one that the power iteration cannot see."""
    size, generator = 2 * len(angles), torch.Generator().manual_seed(0)
    seen, _ = torch.linalg.qr(_probe(size, torch.float64, torch.device("cpu")).mT)
    plane = torch.randn(size, 2, dtype=torch.float64, generator=generator)
    rest = torch.randn(size, size - 2, dtype=torch.float64, generator=generator)
    basis, _ = torch.linalg.qr(torch.cat((plane - seen @ (seen.mT @ plane), rest), 1))
    return planes(angles, basis)


@pytest.mark.parametrize(
    ("found", "angle", "expected"),
    [  # in units of the longest
        (2.25, 2.25, 9 / 16),
        (2.25, 1.5, 1.0),
        (2.25, 0.3, 0.3 - 0.3**3 / 6.75),  # 4g²/27/s² = 4/27
        (1.5, 1.5, 1.0),
        (1.2, 1.2, 1.0),
        (1.2, 0.6, 0.575),  # 0.6 − (1/6)·0.6³/1.44
        (2.25**2, 2.25 * 1.5, 9 / 16),
        (2.25**2, 2.25**2, 0.5625 * 2.25 - (0.5625 * 2.25) ** 3 / 6.75),
        (2.0 * FURTHEST, 0.02, 0.01),
    ],
)
def test_the_cubics_have_known_values(found, angle, expected):
    matrix = planes([0.1 * angle, 0.1 * found])[None]
    _clamped_(matrix, matrix @ matrix, 0.1 * found, 0.1)
    assert float(matrix[0, 1, 0]) == pytest.approx(0.1 * expected, rel=1e-4 if angle == 0.02 else 1e-12)
    assert torch.equal(matrix, -matrix.mT)


def test_a_plane_that_would_turn_too_far_leaves_the_others_alone():
    basis, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    for angle in torch.logspace(-0.9, 0.3, 23, dtype=torch.float64).tolist():
        change, _ = rotation(planes([0.002, 0.033, 0.1, angle], basis)[None], 0.1)
        sine = planes([1.0] * 4).mT @ (basis.mT @ change[0] @ basis)
        found = sine.diagonal().unflatten(0, (4, 2)).mean(1).tolist()
        assert 0.999 * 0.002 <= found[0] <= 0.002 * (1 + 1e-9) and 0.97 * 0.033 <= found[1] <= 0.033 * (1 + 1e-9)
        assert 0.05 <= found[2] <= 0.1 and 0.05 <= found[3] <= 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [2.11, 2.5, 3.0, 5.0])
def test_a_plane_that_the_estimate_cannot_see_is_noticed(angle, dtype):
    given = hidden([angle] + [1.0] * 31).to(dtype)[None]
    change, error = rotation(given, 0.1)
    turned = torch.eye(64, dtype=torch.float64) + change[0].double()
    off = (turned.mT @ turned).sub_(torch.eye(64, dtype=torch.float64))
    true = float(torch.linalg.matrix_norm(off, 2)) if off.isfinite().all() else float("inf")
    assert true > 1e-4 and error >= 0.99 * true
    assert error < 1 or error == float("inf")


@pytest.mark.parametrize("size", [2, 64, 257])
def test_nothing_is_noticed_where_nothing_was_missed(size):
    for norm in (0.06, 0.3, 4.0):
        assert rotation(skew(size, norm, pairs=3).float(), 0.05)[1] < 2e-8
        assert rotation(skew(size, norm, pairs=3).float(), LONGEST)[1] < 2e-8


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_angles_that_are_not_finite_have_an_infinite_error(bad):
    angles = skew(4, 0.1)
    angles[0, 1, 2] = bad
    assert rotation(angles)[1] == float("inf")


def test_the_estimate_is_above_the_largest_eigenvalue_of_random_matrices():
    for seed in range(20):
        square = skew(60, 0.3, seed)
        square = square @ square
        truth = float(torch.linalg.matrix_norm(square, 2))
        assert truth <= largest_eigenvalue(square) <= 1.5 * truth * (1 + 1e-9)
        batch = torch.cat((square / 7, square, square / 3))
        assert largest_eigenvalue(batch) == pytest.approx(largest_eigenvalue(square), rel=1e-12)


def test_an_estimate_of_enormous_entries_is_no_zero_where_small_numbers_are_flushed():
    torch.set_flush_denormal(True)
    try:
        square = (skew(16, 1e19) @ skew(16, 1e19)).float() / 2
        assert largest_eigenvalue(square) >= float(torch.linalg.matrix_norm(square.double(), 2))
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("size", [1, 3, TILE - 1, TILE, TILE + 1, 2 * TILE + 5])
def test_the_skew_part_tile_by_tile_is_that_of_the_whole(size):
    matrix = torch.randn(size, size, dtype=torch.float64)
    assert torch.equal(skew_part_(matrix.clone()), (matrix - matrix.mT) / 2)


@pytest.mark.parametrize("players", [2, 4, 6, 8, 16])
def test_in_a_tournament_each_meets_each_once_and_plays_in_every_round(players):
    rounds = tournament(players)
    assert all(sorted(player for pair in games for player in pair) == list(range(players)) for games in rounds)
    met = sorted(tuple(sorted(pair)) for games in rounds for pair in games)
    assert met == list(itertools.combinations(range(players), 2))


@pytest.mark.parametrize("size", [2, 32, 64])
def test_a_bound_in_the_place_of_an_estimate_turns_as_well(size, seed):
    """Small blocks whose Frobenius norm shows that nothing is long are turned exactly, whatever their spectrum."""
    for spectrum in (torch.randn(size, size), torch.ones(size, size).triu(1)):
        skew = (spectrum - spectrum.mT).double()
        skew *= 0.1 / torch.linalg.matrix_norm(skew)
        change, error = rotation(skew.clone()[None], 0.1)
        exact = torch.matrix_exp(skew)
        turned = torch.eye(size, dtype=torch.float64) + change[0]
        assert error <= 1e-5 and torch.linalg.matrix_norm(turned.mT @ turned - torch.eye(size)) <= error * size + 1e-14
        assert torch.linalg.matrix_norm(turned - exact) <= 1e-3

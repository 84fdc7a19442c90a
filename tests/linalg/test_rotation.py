import itertools

import pytest
import torch

from tightlip.linalg.rotation import TILE, largest_eigenvalue, rotation, skew_part_, tournament


def skew(size, norm, seed=0, pairs=1):
    matrix = torch.randn(pairs, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    matrix = matrix - matrix.mT
    return matrix * norm / torch.linalg.matrix_norm(matrix, 2).amax()


@pytest.mark.parametrize("norm", [1e-6, 1e-3, 0.02, 0.05, 0.1, 0.2, 0.24])
@pytest.mark.parametrize(("size", "pairs"), [(2, 1), (5, 3), (40, 2), (2 * TILE + 1, 2)])
def test_a_rotation_is_orthogonal_up_to_the_error_that_it_states(norm, size, pairs):
    angles = skew(size, norm, pairs=pairs)
    change, error = rotation(angles.clone())
    turned = torch.eye(size, dtype=torch.float64) + change
    off = float(torch.linalg.matrix_norm(turned.mT @ turned - torch.eye(size, dtype=torch.float64), 2).amax())
    assert off <= error + 1e-14 and error <= 2e-3
    assert float((change - angles).abs().max()) <= norm**2  # to first order it is the angle itself


@pytest.mark.parametrize("longest", [0.02, 0.3])
@pytest.mark.parametrize("norm", [0.31, 0.5, 1.0, 5.0, 1e3, 1e100])
def test_no_plane_turns_further_than_it_may(norm, longest):
    angles = skew(6, norm)
    change, error = rotation(angles.clone(), longest)
    turned = torch.eye(6, dtype=torch.float64) + change
    assert (
        float(torch.linalg.matrix_norm(turned.mT @ turned - torch.eye(6, dtype=torch.float64), 2))
        <= error + 1e-14
        < 1e-6
    )
    sine = (turned - turned.mT) / 2
    assert 0.5 * longest < float(torch.linalg.matrix_norm(sine, 2)) <= longest
    torch.testing.assert_close(sine @ angles, angles @ sine, rtol=1e-9, atol=1e-9 * norm)  # in the same planes


def test_a_plane_that_would_turn_too_far_leaves_the_others_alone():
    far, longest = torch.logspace(-0.9, 0.3, 23, dtype=torch.float64).tolist(), 0.1
    for angle in far:
        given = torch.tensor([0.002, 0.02, 0.1, angle], dtype=torch.float64)
        plane = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
        basis, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
        change, _ = rotation((basis @ torch.kron(torch.diag(given), plane) @ basis.mT)[None], longest)
        sine = torch.kron(torch.eye(4, dtype=torch.float64), plane).mT @ (basis.mT @ change[0] @ basis)
        found = sine.diagonal().unflatten(0, (4, 2)).mean(1)
        assert 0.99 * given[0] <= found[0] <= given[0] * (1 + 1e-9)
        assert 0.9 * given[1] <= found[1] <= given[1] * (1 + 1e-9)
        assert 0.05 <= found[2] <= longest and 0.5 * longest <= found[3] <= longest


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

"""The norm of a training step: never below the truth, whatever the iteration has found, and near it."""

import pytest
import torch

from tightlip import SpectralBall, TightlipError, constrain, hold, lipschitz, mlp
from tightlip.linalg import power_iteration
from tightlip.linalg.power_iteration import spectral_norm


def orthonormal(shape):
    return torch.nn.init.orthogonal_(torch.empty(shape))


KINDS = {
    "gaussian": lambda shape: torch.randn(shape),
    "orthonormal": lambda shape: orthonormal(shape),
    "one stands out": lambda shape: orthonormal(shape) * (1 + 0.3 * (torch.arange(shape[1]) < 1)),
    "rank one": lambda shape: torch.outer(torch.randn(shape[0]), torch.randn(shape[1])),
    "small": lambda shape: 1e-3 * torch.randn(shape),
    "zero": torch.zeros,
    "tiny": lambda shape: 1e-30 * torch.randn(shape),
}


def exact(weight):
    return float(torch.linalg.matrix_norm(weight.double(), 2))


@pytest.mark.parametrize("rounds", [1, 3, 20])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 6), (40, 30), (30, 90)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_is_above_the_norm_and_near_it(kind, shape, rounds, seed):
    torch.manual_seed(0)
    for _ in range(5):
        weight = KINDS[kind](shape)
        norm, found = exact(weight), spectral_norm(weight, None, rounds)
        assert max(norm, 1.0) * (1 - 64 * 1.2e-7 * max(shape) ** 0.5) <= found.bound <= max(norm, 1.0) * 1.0002
        assert found.vector.shape == (min(shape),)


def test_a_start_that_does_not_see_the_largest_singular_value_is_found_out():
    """Power iteration alone says 1.2 here, whatever the number of rounds."""
    weight = torch.diag(torch.tensor([1.2, 3.0, 0.5]))
    blind = torch.tensor([1.0, 0.0, 0.0])
    assert power_iteration._iterated(weight @ weight, blind, 100)[0] == pytest.approx(1.44)
    found = spectral_norm(weight, blind, 100)
    assert found.bound == pytest.approx(3.0) and abs(float(found.vector[1])) == pytest.approx(1.0)
    again = spectral_norm(weight, found.vector, 1)  # and so the next step sees it
    assert again.bound == pytest.approx(3.0, rel=2e-4)


def test_two_singular_values_side_by_side_do_not_let_the_larger_out():
    weight = torch.diag(torch.tensor([2.0, 2.0 * (1 + 5e-4)]))
    assert spectral_norm(weight, torch.tensor([1.0, 1e-6]), 2).bound >= 2.0 * (1 + 5e-4) * (1 - 1e-6)


def test_vectors_of_another_shape_are_not_begun_with():
    weight = 3 * torch.eye(4)
    assert spectral_norm(weight, torch.ones(3), 5).bound == pytest.approx(3, rel=2e-4)


def test_the_solver_is_seldom_asked_in_training(monkeypatch):
    calls = []
    solve = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda gram: calls.append(1) or solve(gram))
    torch.manual_seed(0)
    network = mlp([30, 48, 48, 1], SpectralBall(iterations=20))
    adam = hold(network, torch.optim.Adam(network.parameters(), 5e-3))
    x = torch.randn(64, 30)
    for _ in range(100):
        adam.zero_grad()
        (network(x) - x.norm(dim=1, keepdim=True)).square().mean().backward()
        adam.step()
        norms = [exact(layer.weight.detach()) for layer in network if hasattr(layer, "weight")]
        assert max(norms) <= 1 + 1e-5
    assert max(norms) > 0.999  # and nothing is shrunk away
    assert len(calls) <= 15  # of 300
    assert lipschitz(network, 2).constant <= 1 + 3e-5


def test_members_are_left_as_they_are_and_large_weights_are_pulled_back():
    ball, torch_ball = SpectralBall(iterations=4), SpectralBall()
    member = torch.nn.init.orthogonal_(torch.empty(20, 12))
    before = member.clone()
    ball.map_(member)
    assert torch.equal(member, before)
    for scale in (1e3, 1e14, 1e16, 1e30, 3e38):
        weight = scale * torch.rand(9, 5)
        reference = weight.clone()
        ball.map_(weight)
        torch_ball.map_(reference)
        assert torch.allclose(weight, reference, rtol=3e-4)


def test_what_the_option_is_not_for_is_refused():
    for wrong in (0, -1, True):
        with pytest.raises(TightlipError, match="iterations must be an integer ≥ 1"):
            SpectralBall(iterations=wrong)
    with pytest.raises(
        TightlipError, match=r"SpectralBall\(iterations=3\) cannot be held by 'forward': pass hold='step'"
    ):
        constrain(torch.nn.Linear(3, 2), SpectralBall(iterations=3), "forward")
    with pytest.raises(TightlipError, match=r"is for matrices, .*: use SpectralBall\(\)"):
        constrain(torch.nn.Conv2d(2, 3, 3), SpectralBall(iterations=3))
    assert SpectralBall().holds == ("step", "forward") and repr(SpectralBall()) == "SpectralBall()"


@pytest.mark.parametrize("weight", [torch.tensor([[float("nan")]]), torch.full((2, 2), float("inf"))])
def test_weights_that_are_not_finite_are_refused(weight):
    with pytest.raises(TightlipError, match="NaN or infinity"):
        SpectralBall(iterations=3).map_(weight)

"""Singular values and gradient norms of networks whose Jacobians are known."""

import math

import pytest
import torch
from torch import nn
from truths import gaussian

from tightlip import (
    Abs,
    FullSort,
    GroupSort,
    Householder,
    MaxMin,
    RowL1Ball,
    TightlipError,
    freeze,
    gradient_norm,
    jacobian_singular_values,
    lipschitz,
    mlp,
)


def with_singular_values(values, rows, columns):
    """A linear layer whose weight has these singular values."""
    u, v = (torch.linalg.qr(gaussian(n, n, seed=n)).Q[:, : len(values)] for n in (rows, columns))
    layer = nn.Linear(columns, rows).double()
    layer.weight.data = u @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ v.mT
    return layer


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (5, 3), (3, 3)])
def test_a_linear_network_has_the_singular_values_of_its_matrix(rows, columns):
    found = jacobian_singular_values(with_singular_values([5.0, 2.0, 0.5], rows, columns), gaussian(4, columns))
    torch.testing.assert_close(found, torch.tensor([[5.0, 2.0, 0.5]] * 4, dtype=torch.float64))


@pytest.mark.parametrize("activation", [MaxMin, FullSort, Abs, lambda: GroupSort(4), lambda: Householder(4)])
@pytest.mark.parametrize("way", ["step", "forward"])
def test_an_orthonormal_network_that_never_widens_is_a_dynamical_isometry(activation, way):
    torch.manual_seed(0)
    network = mlp([12, 8, 8, 5], activation=activation, K=3.0, hold=way)
    for held in (network, freeze(network)):
        found = jacobian_singular_values(held, gaussian(6, 12, dtype=torch.float32))
        torch.testing.assert_close(found, torch.full((6, 5), 3.0, dtype=torch.float64), rtol=1e-6, atol=0)


def test_an_orthonormal_relu_network_loses_singular_values():
    torch.manual_seed(0)
    found = jacobian_singular_values(mlp([12, 12, 12, 5], activation=nn.ReLU), gaussian(6, 12, dtype=torch.float32))
    assert float(found.max()) < 1.0 and float(found.min()) < 0.5


def test_nonlinear_networks_agree_with_torchs_own_jacobian():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 6), MaxMin()).double()
    x = gaussian(5, 1, 3, 3)
    expected = [torch.autograd.functional.jacobian(network, row[None]).reshape(6, 9) for row in x]
    torch.testing.assert_close(jacobian_singular_values(network, x), torch.linalg.svdvals(torch.stack(expected)))


def test_pieces_of_a_batch_give_what_the_whole_gives():
    torch.manual_seed(0)
    network, x = mlp([4, 6, 3]), torch.randn(7, 4)
    torch.testing.assert_close(
        jacobian_singular_values(network, x, batch_size=3), jacobian_singular_values(network, x), rtol=1e-12, atol=0
    )
    whole, pieces = (gradient_norm(network, x, output=2, batch_size=size) for size in (7, 2))
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=0)


def test_arithmetic_is_float64_unless_asked_otherwise():
    network, x = nn.Linear(3, 1), torch.randn(2, 3)
    assert jacobian_singular_values(network, x).dtype == gradient_norm(network, x).dtype == torch.float64
    single = jacobian_singular_values(network, x, dtype=torch.float32)
    assert single.dtype == gradient_norm(network, x, dtype=torch.float32).dtype == torch.float32
    torch.testing.assert_close(single.double(), jacobian_singular_values(network, x))


class Two(nn.Module):
    """Does not look at its input."""

    def forward(self, x):
        return torch.full((len(x), 2), 2.0, dtype=x.dtype)


def test_a_network_that_ignores_its_input_has_the_jacobian_zero():
    x = torch.randn(3, 4)
    assert not jacobian_singular_values(Two(), x).any()
    assert not gradient_norm(Two(), x, output=1).any()


def test_no_grad_around_the_call_does_not_matter_and_no_graph_comes_back():
    network, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(2, 3)
    expected = gradient_norm(network, x), jacobian_singular_values(network, x)
    with torch.no_grad():
        assert torch.equal(gradient_norm(network, x), expected[0])
        assert torch.equal(jacobian_singular_values(network, x), expected[1])
    assert not any(value.requires_grad for value in expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("activation", [nn.Identity, nn.ReLU, nn.Tanh, MaxMin])
def test_what_is_not_finite_gives_nan_for_its_own_row_alone(bad, activation):
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 2)), torch.randn(5, 3)
    broken = x.clone()
    broken[2, 1] = bad
    for measure in (jacobian_singular_values, lambda *given: gradient_norm(*given, output=1)):
        found, expected = measure(network, broken), measure(network, x)
        assert found.shape == expected.shape and found[2].isnan().all()
        torch.testing.assert_close(found[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_give_nan_everywhere(bad):
    network = nn.Linear(3, 2)
    network.weight.data[0, 0] = bad
    for measure in (jacobian_singular_values, lambda *given: gradient_norm(*given, output=0)):
        assert measure(network, torch.randn(4, 3)).isnan().all()


def test_a_root_at_zero_has_an_infinite_jacobian_and_nan_for_its_singular_values():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    found = jacobian_singular_values(Root(), torch.tensor([[0.0, 1.0], [1.0, 0.25]]))
    assert found[0].isnan().all() and found[1].tolist() == [1.0, 0.5]


# ------------------------------------------------------------------------------------------------------ gradient_norm


@pytest.mark.parametrize(("p", "norm"), [(1, 4.0), (2, 5.0), (math.inf, 7.0)])
def test_the_gradient_is_measured_in_the_dual_norm(p, norm):
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[3.0, -4.0]])
    assert gradient_norm(layer, torch.randn(3, 2), p).tolist() == [norm] * 3
    assert lipschitz(layer, p).constant == pytest.approx(norm)


@pytest.mark.parametrize("shape", [lambda y: y, lambda y: y.squeeze(1), lambda y: y.reshape(-1, 1, 1)])
def test_scalar_outputs_may_have_any_shape(shape):
    class Norm(nn.Module):
        def forward(self, x):
            return shape(3 * x.norm(dim=1, keepdim=True))

    torch.testing.assert_close(gradient_norm(Norm(), gaussian(4, 5)), torch.full((4,), 3.0, dtype=torch.float64))


def test_an_output_can_be_chosen_among_several():
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[3.0, 4.0], [5.0, 12.0]])
    assert [gradient_norm(layer, torch.zeros(1, 2), output=i).item() for i in (0, 1)] == [5, 13]
    images = nn.Sequential(layer, nn.Unflatten(1, (1, 2)))
    assert gradient_norm(images, torch.zeros(1, 2), output=1).item() == 13


@pytest.mark.parametrize(("p", "constraint"), [(2, None), (math.inf, RowL1Ball())])
def test_no_gradient_is_above_the_proven_constant(p, constraint):
    torch.manual_seed(0)
    network = freeze(mlp([3, 8, 8, 1], constraint, K=2.0))
    norms = gradient_norm(network, gaussian(200, 3, dtype=torch.float32), p)
    assert norms.shape == (200,)
    assert 0.1 < float(norms.max()) <= lipschitz(network, p).constant


def test_an_orthonormal_critic_that_never_widens_has_gradient_norm_k_everywhere():
    torch.manual_seed(0)
    norms = gradient_norm(mlp([8, 8, 8, 1], K=0.1), gaussian(50, 8, dtype=torch.float32))
    torch.testing.assert_close(norms, torch.full((50,), 0.1, dtype=torch.float64), rtol=1e-6, atol=0)


# --------------------------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize("measure", [jacobian_singular_values, gradient_norm])
@pytest.mark.parametrize(
    ("network", "shape", "advice"),
    [
        (nn.Linear(2, 1), (0, 2), "at least one example"),
        (nn.Flatten(0), (3, 2), r"one row for each input, and returned shape \(6,\) for 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(measure, network, shape, advice):
    with pytest.raises(TightlipError, match=advice):
        measure(network, torch.zeros(shape))


@pytest.mark.parametrize(
    ("output", "advice"), [(None, "this network has 3"), (3, "from 0 to 2, got 3"), (-1, "from 0 to 2, got -1")]
)
def test_outputs_that_are_not_there_are_refused(output, advice):
    with pytest.raises(TightlipError, match=advice):
        gradient_norm(nn.Linear(2, 3), torch.zeros(1, 2), output=output)


def test_any_p_norm_of_inputs_is_taken_and_what_is_none_is_refused():
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[1.0, -1.0]])
    assert float(gradient_norm(layer, torch.zeros(1, 2), p=3)) == pytest.approx(2 ** (2 / 3))
    with pytest.raises(TightlipError, match=r"no norm is called 0.5"):
        gradient_norm(layer, torch.zeros(1, 2), p=0.5)

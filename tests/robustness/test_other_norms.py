"""The 1-norm, and networks from the 2-norm to the ∞-norm: no search flips a prediction within its radius."""

import math

import pytest
import torch
from torch import nn

from tightlip import ColumnL1Ball, MaxMin, RowDualBall, RowL1Ball, certify, freeze, lipschitz, mlp, pgd

INF = math.inf


def l1_search(network, x, y, eps, steps=30):
    """Points within ‖δ‖₁ ≤ eps at which some other class leads y by most: Frank–Wolfe for each class, and every corner.

    A step goes toward the corner ±eps·e_j of largest gradient; the first lands on it.
    """
    best, lead = x.clone(), torch.full((len(x),), -INF, dtype=x.dtype)

    def keep(points):
        logits = network(points)
        others = logits.scatter(1, y[:, None], -INF).amax(1) - logits.gather(1, y[:, None])[:, 0]
        best[others > lead] = points[others > lead]
        lead.copy_(torch.maximum(lead, others))

    rows = torch.arange(len(x))
    for other in range(network(x).shape[1]):
        delta = torch.zeros_like(x)
        for step in range(steps):
            point = (x + delta).requires_grad_()
            logits = network(point)
            (gradient,) = torch.autograd.grad((logits[:, other] - logits[rows, y]).sum(), point)
            j = gradient.abs().argmax(1)
            corner = torch.zeros_like(x)
            corner[rows, j] = eps * gradient[rows, j].sign()
            delta = delta + (corner - delta) * 2 / (step + 2)
            keep((x + delta).detach())
    for j in range(x.shape[1]):
        for sign in (-1, 1):
            keep(x + sign * eps[:, None] * nn.functional.one_hot(torch.tensor(j), x.shape[1]))
    return best


def on_the_sphere(network, mean):
    """The network with weights drawn far outside their sets and mapped back, so that constants are used up."""
    for layer in network:
        if isinstance(layer, nn.Linear):
            layer.weight.data = mean + torch.randn_like(layer.weight)
    return freeze(network)


def random_1_net(seed, widths):
    torch.manual_seed(seed)
    network = on_the_sphere(mlp(widths, ColumnL1Ball(), K=3.0), 0.0).double()
    return network, torch.randn(60, widths[0], dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_no_search_flips_a_1_norm_network_within_its_radius(seed):
    network, x = random_1_net(seed, [7, 12, 12, 4])
    assert 2.999 < lipschitz(network, 1, 1).constant <= 3
    certificate = certify(network, x, p=1)
    sure = certificate.radius > 1e-6
    assert sure.double().mean() > 0.9
    found = l1_search(network, x[sure], certificate.prediction[sure], 0.999 * certificate.radius[sure])
    moved = (found - x[sure]).norm(1, dim=1)
    assert (moved <= certificate.radius[sure]).all() and (moved > 0.99 * certificate.radius[sure]).any()
    assert torch.equal(network(found).argmax(1), certificate.prediction[sure])


@pytest.mark.parametrize("seed", range(5))
def test_the_same_search_flips_some_not_far_beyond_the_1_norm_radius(seed):
    network, x = random_1_net(seed, [4, 4, 4])
    certificate = certify(network, x, p=1)
    found = l1_search(network, x, certificate.prediction, 2.0 * certificate.radius)
    assert (network(found).argmax(1) != certificate.prediction).double().mean() > 0.1


@pytest.mark.parametrize("p", [1, 2, INF])
def test_the_radius_of_a_linear_layer_in_a_1_norm_network_is_exact(p, seed):
    layer = freeze(mlp([9, 5], ColumnL1Ball()))
    x = torch.randn(100, 9)
    certificate = certify(layer, x, p=p)
    W, b = layer[0].weight.double(), layer[0].bias.double()
    logits, t = x.double() @ W.T + b, certificate.prediction
    gaps = torch.linalg.vector_norm(W[t][:, None] - W, {1: INF, 2: 2, INF: 1}[p], dim=2)
    truth = ((logits.gather(1, t[:, None]) - logits) / gaps).nan_to_num(nan=INF).amin(1)
    assert (certificate.radius <= truth).all()
    torch.testing.assert_close(certificate.radius, truth, rtol=1e-9, atol=1e-12)
    boundary = l1_search(layer.double(), x.double(), t, 1.0001 * truth, steps=1) if p == 1 else x.double()
    assert p != 1 or (layer(boundary).argmax(1) != t).all()


def random_2_to_inf_net(seed, mean):
    torch.manual_seed(seed)
    sets = [RowDualBall(2), RowL1Ball(), RowL1Ball()]
    return on_the_sphere(mlp([9, 16, 16, 4], sets, K=2.0), mean), torch.randn(100, 9)


@pytest.mark.parametrize("mean", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_no_attack_flips_a_2_to_inf_network_within_its_radius(seed, mean):
    network, x = random_2_to_inf_net(seed, mean)
    bound = lipschitz(network, 2, INF)
    assert bound.constant <= 2
    certificate = certify(network, x)
    assert certificate.bound.sensitivity <= bound.sensitivity
    sure = certificate.radius > 1e-3
    assert sure.double().mean() > 0.9
    found = pgd(
        network, x[sure], certificate.prediction[sure], 0.999 * certificate.radius[sure].float(), 2, 60, 2, None
    )
    assert torch.equal(network(found).argmax(1), certificate.prediction[sure])


@pytest.mark.parametrize("seed", range(3))
def test_a_2_to_inf_network_is_certified_by_its_own_norms_not_by_the_2_norm_throughout(seed):
    """Where rows point the same way, ‖W‖₂ is several times the largest row."""
    network, x = random_2_to_inf_net(seed, 0.5)
    certificate = certify(network, x)
    K = lipschitz(network, 2, INF).constant
    assert (certificate.radius >= certificate.margin / (2 * K) * (1 - 1e-12)).all()
    assert certificate.bound.output_norm == INF
    assert lipschitz(network, 2, 2).sensitivity > 1.2 * certificate.bound.sensitivity


def test_a_2_to_inf_radius_is_reached_where_rows_are_opposite():
    """f(x) = ±⟨w, x⟩ with ‖w‖₂ = 1: the distance to the boundary is |⟨w, x⟩|, whatever ∞→∞ layers follow."""
    first, second = nn.Linear(2, 2, bias=False).double(), nn.Linear(2, 2, bias=False).double()
    first.weight.data = torch.tensor([[0.6, 0.8], [-0.6, -0.8]], dtype=torch.float64)
    second.weight.data = torch.eye(2, dtype=torch.float64)
    network, x = nn.Sequential(first, MaxMin(), second), torch.tensor([[1.0, 2.0], [-0.5, 0.1]], dtype=torch.float64)
    truth = (x @ first.weight[0]).abs().detach()
    certificate = certify(network, x)
    assert (certificate.radius <= truth).all()
    torch.testing.assert_close(certificate.radius, truth, rtol=1e-9, atol=0)

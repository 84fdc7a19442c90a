"""The proofs of docs/theory/universality.md, step by step, in numbers."""

import math

import pytest
import torch
from sweeps import seeds
from torch import nn

from tightlip import MaxMin, Orthonormal, RowL1Ball, SpectralBall, freeze, mlp
from tightlip.activations import Abs

MONOTONE = {"relu": nn.ReLU, "tanh": nn.Tanh, "leaky": nn.LeakyReLU, "hardtanh": nn.Hardtanh}
each_monotone = pytest.mark.parametrize("activation", MONOTONE.values(), ids=MONOTONE)


def network(widths, constraint, activation, seed=0, spread=1.0):
    torch.manual_seed(seed)
    made = freeze(mlp(widths, constraint, activation).double())
    for layer in made:
        if isinstance(layer, nn.Linear):
            layer.bias.data.uniform_(-spread, spread)
    return made


def gradients(f, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def product(f):
    """W_L … W_1."""
    weights = [layer.weight for layer in f if isinstance(layer, nn.Linear)]
    total = weights[0]
    for weight in weights[1:]:
        total = weight @ total
    return total.flatten()


@pytest.mark.parametrize("constraint", [Orthonormal(), SpectralBall()], ids=repr)
@each_monotone
def test_slopes_say_exactly_how_a_network_changes(activation, constraint):
    f = network([3, 6, 5, 1], constraint, activation)
    x, other = torch.randn(2, 50, 3, dtype=torch.float64)
    rise, ends = (x - other).detach(), (x, other)
    for layer in f:
        before, ends = ends, tuple(layer(end) for end in ends)
        if isinstance(layer, nn.Linear):
            rise = rise @ layer.weight.mT
        elif not hasattr(layer, "scale"):
            slope = (ends[0] - ends[1]) / (before[0] - before[1])
            assert float(slope.min()) >= -1e-12 and float(slope.max()) <= 1 + 1e-12
            rise = slope * rise
    assert torch.allclose(rise, f(x) - f(other), atol=1e-12)


@each_monotone
@pytest.mark.parametrize("seed", range(5))
def test_a_gradient_of_norm_1_is_the_product_of_the_weights(activation, seed):
    """Theorem 1: also where only a part of the inputs has one."""
    f = network([3, 3, 3, 1], Orthonormal(), activation, seed, spread=0.3)
    f[0].bias.data += 1.0
    f[2].bias.data += 1.0
    if activation in (nn.Tanh, nn.Hardtanh):  # where these have slope 1 is around 0
        f[0].bias.data.zero_(), f[2].bias.data.zero_()
    found = gradients(f, torch.randn(4000, 3, dtype=torch.float64))
    norms = found.norm(dim=1)
    assert float(norms.max()) <= 1 + 1e-9
    full = norms > 1 - 1e-11  # each norm is stated 5e-13 too large, so each layer is as much less steep
    assert torch.allclose(found[full], product(f).expand(int(full.sum()), 3), atol=1e-5)
    if activation is not nn.Tanh:
        assert 20 < int(full.sum()) < 3980  # it bends somewhere


def test_some_relu_networks_have_such_gradients_and_lose_slope_where_they_bend():
    f = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    f[0].weight.data, f[0].bias.data = torch.eye(2).double(), torch.zeros(2).double()
    f[2].weight.data = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    x = torch.randn(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, inside = gradients(f, x), (x > 0).all(1)
    assert torch.allclose(found[inside], product(f).expand(int(inside.sum()), 2))
    assert 200 < int(inside.sum()) < 300 and float(found[~inside].norm(dim=1).max()) <= 0.8 + 1e-12


@pytest.mark.parametrize("activation", [MaxMin, Abs])
def test_what_is_not_elementwise_or_not_monotone_turns_at_full_slope(activation):
    f = network([2, 2, 2, 1], Orthonormal(), activation, spread=0.1)
    found = gradients(f, torch.randn(1000, 2, dtype=torch.float64))
    assert torch.allclose(found.norm(dim=1), torch.ones(1000, dtype=torch.float64), atol=1e-6)
    assert len(found.round(decimals=6).unique(dim=0)) > 1


def second_difference(f):
    low, middle, high = f(torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)).flatten(0, -1)[:3]
    return float((low + high - 2 * middle).detach())


@each_monotone
def test_every_unit_of_an_infinity_norm_network_stays_in_the_hexagon(activation):
    x = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    for seed in seeds(6, 50):
        f = network([1, 6, 6, 6, 1], RowL1Ball(), activation, seed)
        for layer in f:
            if isinstance(layer, nn.Linear):  # rows on the boundary, mixed signs
                layer.weight.data /= layer.weight.abs().sum(1, keepdim=True)
        values = x
        for layer in f:
            values = layer(values)
            u, v = values[2] - values[1], values[0] - values[1]
            if hasattr(layer, "scale"):
                continue
            assert float(torch.stack([u.abs(), v.abs(), (u + v).abs()]).max()) <= 1 + 1e-12


def test_one_half_is_attained_by_relu_and_one_by_maxmin():
    relu = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    relu[0].weight.data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    relu[2].weight.data = torch.tensor([[-0.5, -0.5]], dtype=torch.float64)
    maxmin = nn.Sequential(relu[0], MaxMin(), nn.Linear(2, 1, bias=False)).double()
    maxmin[2].weight.data = torch.tensor([[0.0, -1.0]], dtype=torch.float64)  # the larger of the pair comes last
    assert second_difference(relu) == -1 and second_difference(maxmin) == -2


def circle(x, y):
    """Arc length on a circle of length 1: a metric space that is no normed one."""
    gap = (x[:, None] - y[None, :]).abs() % 1
    return torch.minimum(gap, 1 - gap)


def through(points, values, z):
    """f_ij(z) for all i and j, shape (i, j, z): 1-Lipschitz, right in x_i and in x_j, and not affine."""
    near, apart = circle(points, z), circle(points, points)
    slope = (values[None, :] - values[:, None]) / apart.masked_fill(apart == 0, math.inf)
    made = values[:, None, None] + slope[:, :, None] * near[:, None, :]
    made[range(len(points)), range(len(points))] = made[range(len(points)), [*range(1, len(points)), 0]]
    return made


def truth(z):
    return 0.3 * (circle(z, torch.tensor([0.2], dtype=z.dtype))[:, 0] - 0.11).abs() + 0.7 * circle(
        z, torch.tensor([0.6], dtype=z.dtype)
    ).amin(1)


@pytest.mark.parametrize("count", [5, 20, 80])
def test_the_lattice_of_lemma_1_comes_within_twice_the_covering_radius(count):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, generator=generator, dtype=torch.float64).sort().values
    z = torch.cat([torch.linspace(0, 1, 1001, dtype=torch.float64), points])
    radius = float(circle(z, points).amin(1).max())
    pieces = through(points, truth(points), z)
    eps = 2 * radius + 1e-12
    # f_ij is right in both, and 1-Lipschitz
    at = pieces[:, :, 1001:]
    for i in range(count):
        assert torch.allclose(at[i, range(count), i], truth(points)[i])
        assert torch.allclose(at[i, range(count), range(count)], truth(points))
    rises = (pieces[..., 1:1001] - pieces[..., :1000]).abs().amax((0, 1))
    assert bool((rises <= 1e-3 * (1 + 1e-6)).all())
    # from above: the neighborhoods of y cover all, and g_x is right in x
    below = pieces.amin(1)
    assert bool((below < truth(z) + eps).all())
    assert torch.allclose(below[range(count), range(1001, 1001 + count)], truth(points))
    # from below: the maximum
    h = below.amax(0)
    assert float((h - truth(z)).abs().max()) <= eps
    assert torch.allclose(h[1001:], truth(points))
    assert float((h - truth(z)).abs().max()) > 1e-4  # there is something to bound


def test_a_dense_set_need_not_be_a_lattice():
    """Bernstein's polynomials of a 1-Lipschitz function are 1-Lipschitz and come near; a maximum of two lines bends."""
    x = torch.linspace(0, 1, 501, dtype=torch.float64)
    f = torch.maximum(x, 1 - x)
    errors = []
    for degree in (10, 40, 160):
        k = torch.arange(degree + 1, dtype=torch.float64)
        choose = torch.lgamma(torch.tensor(degree + 1.0).double()) - torch.lgamma(k + 1) - torch.lgamma(degree - k + 1)
        basis = choose.exp() * x[:, None] ** k * (1 - x[:, None]) ** (degree - k)
        values = basis @ torch.maximum(k / degree, 1 - k / degree)
        assert float(values.diff().abs().max()) <= 1 / 500 + 1e-12
        errors.append(float((values - f).abs().max()))
    assert errors[0] > 1.8 * errors[1] > 3.2 * errors[2] and errors[2] < 0.04

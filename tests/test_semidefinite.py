"""The semidefinite bound: above every slope found, below the product, exact where it must be, and proven or refused."""

import inspect
import itertools
import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from slopes import largest_slope
from sweeps import seeds
from torch import nn

from tightlip import (
    Abs,
    Gains,
    GroupSort,
    MaxMin,
    Maxout,
    Normalize,
    Residual,
    Scale,
    TightlipError,
    lipschitz,
    mlp,
    rule,
    semidefinite_bound,
)
from tightlip.audit import gains
from tightlip.linalg.enclosure import Enclosure
from tightlip.linalg.rounding import round_down, round_up
from tightlip.linalg.semidefinite import Alternation, proves

ACTIVATIONS = [
    *(
        nn.ReLU(),
        nn.LeakyReLU(0.2),
        nn.LeakyReLU(-0.5),
        nn.LeakyReLU(2.0),
        nn.PReLU(init=0.4).double(),
        nn.Tanh(),
        nn.Sigmoid(),
    ),
    *(nn.Softplus(), nn.ELU(), nn.ELU(-0.7), nn.CELU(0.5), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish()),
    *(Abs(), nn.Hardtanh(), nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.Softshrink(), nn.Tanhshrink()),
    *(nn.Softsign(), nn.LogSigmoid(), nn.Threshold(0.5, 0.5), nn.RReLU(0.1, 0.3).eval()),
]


def dense(widths, activation=None, seed=0, gain=1.0):
    """Linear layers of these widths, with an activation between any two."""
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, dtype=torch.float64), activation or nn.ReLU()]
        layers[-2].weight.data *= gain
    return nn.Sequential(*layers[:-1])


def uneven(features):
    """A batch normalization in eval mode that is no multiple of the identity."""
    norm = nn.BatchNorm1d(features).eval()
    norm.running_var.copy_(torch.linspace(0.1, 3.0, features))
    return norm


def linears(network):
    return [layer for layer in network if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("module", [*ACTIVATIONS, nn.CELU(5.0), nn.Softplus(3.0)], ids=repr)
def test_slopes_are_those_that_occur(module):
    """The sign included; least and largest are approached to two digits."""
    x = torch.linspace(-60, 60, 60_001, dtype=torch.float64).add(1e-6).requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x)
    low, high = gains(module).slopes
    least, largest = float(slope.detach().min()), float(slope.detach().max())
    assert low <= least <= low + 5e-3 and high - 5e-3 <= largest <= high * (1 + 1e-7)  # torch has 1/6 in float32


def test_the_reference_network_is_proven_far_below_the_product():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    bound = semidefinite_bound(network)
    assert bound.product == lipschitz(network, 2, 2).constant == pytest.approx(1.538, abs=1e-3)
    assert bound.constant < 0.5580 and bound.holds_for(network) and bound.layers == lipschitz(network, 2, 2).layers
    assert largest_slope(network.double(), (5,), 2, 2, points=100) <= bound.constant
    assert repr(bound).startswith("SemidefiniteBound(2→2")
    assert bound.sensitivity == pytest.approx(2**0.5 * bound.constant)


@pytest.mark.parametrize("seed", seeds(27, 54))
def test_no_slope_is_above_and_the_product_never_below(seed):
    widths = [3, *[4 + seed % 5] * (1 + seed % 3), 1 + seed % 4]
    network = dense(widths, ACTIVATIONS[seed % len(ACTIVATIONS)], seed, gain=3.0)
    bound = semidefinite_bound(network, steps=6)
    assert bound.constant <= bound.product == lipschitz(network, 2, 2).constant
    assert largest_slope(network, (3,), 2, 2, points=300) <= bound.constant * (1 + 1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS[:11:2], ids=repr)
def test_a_single_unit_has_its_constant(activation):
    """An activation before or after all matrices counts by its steepest slope."""
    steepest = lipschitz(activation, 2).constant
    network = dense([3, 1, 4], activation)
    first, last = (layer.weight.detach() for layer in linears(network))
    exact = float(first.norm() * last.norm()) * steepest
    assert semidefinite_bound(network).constant == pytest.approx(exact, rel=1e-8)
    assert semidefinite_bound(nn.Sequential(network, activation)).constant == pytest.approx(exact * steepest, rel=1e-8)
    assert semidefinite_bound(nn.Sequential(activation, network)).constant == pytest.approx(exact * steepest, rel=1e-8)


@pytest.mark.parametrize("between", [nn.Identity(), nn.LeakyReLU(1.0)], ids=repr)
def test_a_linear_network_is_one_matrix(between):
    network = dense([3, 5, 2], between)
    whole = linears(network)[1].weight.detach() @ linears(network)[0].weight.detach()
    bound = semidefinite_bound(network)
    assert bound.constant == pytest.approx(float(torch.linalg.matrix_norm(whole, 2)), rel=1e-8)
    assert bound.multipliers == () and bound.holds_for(network)
    assert not replace(bound, constant=bound.constant * (1 - 1e-8)).holds_for(network)


def test_known_answers():
    """|x| of the turned plane attains 1, and so does |x| = ReLU(x) + ReLU(−x), of which the product says 2."""
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    network = dense([2, 2, 2], Abs())
    for layer in linears(network):
        layer.weight.data = turn
    assert 1 <= semidefinite_bound(network).constant < 1 + 1e-8
    network = dense([1, 2, 1])
    linears(network)[0].weight.data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    linears(network)[1].weight.data = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    bound = semidefinite_bound(network)
    assert bound.product == pytest.approx(2) and 1 <= bound.constant < 1.01
    stretched = dense([2, 2, 2], Abs())
    for layer, sizes in zip(linears(stretched), ([100.0, 1.0], [1.0, 100.0]), strict=True):
        layer.weight.data = torch.diag(torch.tensor(sizes, dtype=torch.float64))
    bound = semidefinite_bound(stretched)
    assert bound.product == pytest.approx(1e4) and 100 <= bound.constant < 101


@pytest.mark.parametrize("scales", [(1e-150, 1e150), (1e150, 1e-150), (1e-150, 1e-100), (1e150, 1e100), (3.0, 7.0)])
def test_scales_go_through_and_biases_do_not_count(scales):
    network, other = dense([3, 6, 2]), dense([3, 6, 2])
    for layer, scale in zip(linears(other), scales, strict=True):
        layer.weight.data *= scale
        layer.bias.data = 1e3 * torch.randn_like(layer.bias)
    bound, scaled = semidefinite_bound(network), semidefinite_bound(other)
    assert scaled.constant / scales[0] / scales[1] == pytest.approx(bound.constant, rel=1e-4)
    assert scaled.constant < 0.9 * scaled.product and scaled.holds_for(other)
    doubled = dense([3, 6, 2])
    doubled[0].weight.data *= 2
    assert replace(bound, constant=2 * bound.constant).holds_for(doubled)  # a power of two is no rounding


def test_units_of_far_scales_are_proven_too():
    """Each unit in units of its own: 1e±8 beside one another."""
    network, far = dense([3, 6, 2]), dense([3, 6, 2])
    sizes = torch.logspace(-8, 8, 6, dtype=torch.float64)
    far[0].weight.data *= sizes[:, None]
    far[2].weight.data /= sizes
    bound = semidefinite_bound(far, steps=200)
    assert bound.product > 1e10 and bound.constant < 1.1 * semidefinite_bound(network).constant


def test_zero_weights_and_dead_units():
    network = dense([3, 6, 5, 2])
    linears(network)[1].weight.data[2] = 0
    linears(network)[1].weight.data[:, 3] = 0
    bound = semidefinite_bound(network)
    assert bound.constant < 0.9 * bound.product and bound.holds_for(network)
    linears(network)[1].weight.data.zero_()
    bound = semidefinite_bound(network)
    assert bound.constant == 0 and bound.multipliers == () and bound.holds_for(network)


def test_affine_layers_beside_one_another_are_one_matrix():
    torch.manual_seed(0)
    network = nn.Sequential(
        *(
            nn.Flatten(),
            Normalize([0.1] * 4, [0.5, 1.0, 2.0, 0.1]),
            nn.Linear(4, 8),
            uneven(8),
            nn.ReLU(),
            nn.Dropout(0.5),
        ),
        *(nn.Linear(8, 6), nn.Identity(), Scale(3.0), nn.GELU(), nn.Linear(6, 5), nn.Linear(5, 2), nn.Tanh()),
    ).eval()
    bound = semidefinite_bound(network)
    assert bound.constant < 0.9 * bound.product and bound.holds_for(network) and len(bound.multipliers) == 2
    assert largest_slope(network.double(), (4,), 2, 2, points=100) <= bound.constant


class Own(nn.Module):
    """A chain with a forward of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def test_a_forward_of_ones_own_is_read():
    bound = semidefinite_bound(Own())
    assert bound.constant < bound.product


def test_a_rule_of_ones_own_states_slopes():
    class Leaky(nn.Module):
        def forward(self, x):
            return torch.where(x > 0, x, 0.1 * x)

    @rule(Leaky)
    def _(module):
        return Gains.elementwise(0.1, 1.0)

    network, known = dense([3, 6, 2], Leaky()), dense([3, 6, 2], nn.LeakyReLU(0.1))
    assert semidefinite_bound(network).constant == semidefinite_bound(known).constant
    assert lipschitz(Leaky(), 1, 2).constant == 1
    with pytest.raises(TightlipError, match="from the least to the largest, got 1.0 and 0.0"):
        Gains.elementwise(1.0, 0.0)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([nn.Linear(4, 4), MaxMin(), nn.Linear(4, 2)], "MaxMin at '1' does not act on each number alone"),
        ([nn.Linear(4, 4), GroupSort(4), nn.Linear(4, 2)], "GroupSort at '1' does not act on each number alone"),
        ([nn.Linear(4, 4), Maxout(2), nn.Linear(2, 2)], "Maxout at '1' does not act on each number alone"),
        ([nn.Linear(4, 4), nn.Softmax(1)], "Softmax at '1' does not act on each number alone"),
        ([nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten()], "Conv2d at '0' is a convolution, whose matrix has the size of"),
        ([Residual(nn.Linear(4, 4))], "takes values of several layers"),
        ([nn.Linear(4, 4), nn.ReLU(), nn.Tanh(), nn.Linear(4, 2)], "no linear layer right before Tanh at '2'"),
        ([nn.ReLU()], "no linear layer right before the end"),
        ([nn.Linear(4, 4), uneven(4), nn.ReLU()], "begin the network with nn.Flatten"),
        (
            [nn.Linear(4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2)],
            "takes 6 numbers, and the one before that makes 3",
        ),
        ([nn.Linear(4999, 2), nn.ReLU(), nn.Linear(2, 2)], "5001 inputs and units are too many"),
        ([nn.Linear(4, 4), nn.LSTM(4, 4)], "no Lipschitz rule is known for LSTM"),
    ],
)
def test_other_networks_are_refused_with_the_reason(layers, words):
    with pytest.raises(TightlipError, match=words):
        semidefinite_bound(nn.Sequential(*layers))


def test_weights_without_a_number_are_refused():
    network = dense([3, 6, 2])
    network[2].weight.data[0, 0] = math.nan
    with pytest.raises(TightlipError, match="NaN"):
        semidefinite_bound(network)


def test_the_network_of_a_constraint_has_nothing_to_gain():
    network = mlp([4, 8, 8, 2], activation=nn.ReLU)
    assert semidefinite_bound(network).constant <= lipschitz(network, 2, 2).constant


def test_multipliers_of_another_solver_are_taken_and_checked():
    network = dense([3, 6, 5, 2])
    bound = semidefinite_bound(network)
    again = semidefinite_bound(network, bound.multipliers)
    assert again.constant == bound.constant and again == bound
    arrays = [m.numpy() for m in bound.multipliers]
    assert inspect.unwrap(semidefinite_bound)(network, arrays).constant == bound.constant
    for wrong, words in (
        (bound.multipliers[:1], "one tensor for each of 2 activations"),
        (bound.multipliers[::-1], r"shapes \(5,\), \(6,\) do not fit"),
        (3, "one tensor for each of 2 activations"),
    ):
        with pytest.raises(TightlipError, match=words):
            inspect.unwrap(semidefinite_bound)(network, wrong)
    with pytest.raises(TightlipError, match="steps must be an integer ≥ 1"):
        semidefinite_bound(network, steps=0)


def test_falsified_proofs_are_refused():
    network = dense([3, 6, 5, 2])
    bound = semidefinite_bound(network)
    for bad in (0.0, -1.0, math.nan, math.inf, 1e300):
        other = [m.clone() for m in bound.multipliers]
        other[0][2] = bad
        assert not replace(bound, multipliers=tuple(other)).holds_for(network)
        assert semidefinite_bound(network, other).constant == bound.product
    for share in (1 - 1e-6, 0.5, 0.0, -1.0, math.nan):
        assert not replace(bound, constant=share * bound.constant).holds_for(network)
    assert replace(bound, constant=bound.constant * 1.01).holds_for(network)
    assert replace(bound, constant=bound.product, multipliers=()).holds_for(network)
    assert not replace(bound, multipliers=()).holds_for(network)
    network[0].weight.data *= 1.001
    assert not bound.holds_for(network)


def exact_matrix(weights, slopes, multipliers, constant):
    """M in rationals, written down again."""
    widths = [weight.shape[1] for weight in weights]
    edges = [0, *itertools.accumulate(widths)]
    M = [[Fraction(0)] * edges[-1] for _ in range(edges[-1])]
    for i in range(edges[-1]):
        M[i][i] = Fraction(1) if i < edges[1] else Fraction([x for m in multipliers for x in m.tolist()][i - edges[1]])
    for k, weight in enumerate(weights):
        W = [[Fraction(x) for x in row] for row in weight.tolist()]
        low, high = map(Fraction, slopes[k]) if k < len(slopes) else (None, None)
        for u, row in enumerate(W):
            factor = -1 / Fraction(constant) ** 2 if low is None else low * high * Fraction(multipliers[k].tolist()[u])
            for i, j in itertools.product(range(len(row)), repeat=2):
                M[edges[k] + i][edges[k] + j] += factor * row[i] * row[j]
            for i, entry in enumerate(row if low is not None else []):
                beside = -(low + high) / 2 * entry * Fraction(multipliers[k].tolist()[u])
                M[edges[k] + i][edges[k + 1] + u] = M[edges[k + 1] + u][edges[k] + i] = beside
    return M


def is_definite(M):
    """Whether all pivots of an exact elimination are above zero."""
    M = [row[:] for row in M]
    for k, row in enumerate(M):
        if row[k] <= 0:
            return False
        for other in M[k + 1 :]:
            share = other[k] / row[k]
            other[k:] = [a - share * b for a, b in zip(other[k:], row[k:], strict=True)]
    return True


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (-1.0, 1.0), (0.25, 1.0), (-0.13, 1.13), (-2.0, -0.5)])
def test_what_is_proven_is_definite_in_rationals(slopes):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(*shape, generator=generator).double() / 2 for shape in ((3, 2), (3, 3), (2, 3))]
    network = Alternation(tuple(map(Enclosure.of, weights)), (slopes, slopes))
    halved = [weight * 2.0**-enclosure.exponent for weight, enclosure in zip(weights, network.weights, strict=True)]
    found = 0
    for _ in range(40):
        multipliers = [torch.rand(3, generator=generator, dtype=torch.float64) * 2 ** -(2.0 * k) for k in (1, 2)]
        constant = Fraction(float(torch.rand(1, generator=generator)) * 20 + 1e-3)
        proven = proves(network, multipliers, constant * network.unit)
        found += proven
        assert proven == is_definite(exact_matrix(halved, (slopes, slopes), multipliers, constant))
    assert 0 < found < 40


def test_what_is_short_by_less_than_a_rounding_is_not_proven():
    """‖w₂·ReLU(w₁x)‖ ≤ K·‖x‖ for K = |w₁w₂| and no less: one unit in the last place below it, M is indefinite.

    A factorization without its error term succeeds for many of these.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        first, last = (torch.rand(1, 1, generator=generator, dtype=torch.float64) / 2 + 0.5 for _ in range(2))
        network = Alternation((Enclosure.of(first), Enclosure.of(last)), ((0.0, 1.0),))
        multipliers = [2.0 / first[0] ** 2]
        exact = Fraction(float(first)) * Fraction(float(last))
        assert not proves(network, multipliers, Fraction(round_down(exact)))
        assert proves(network, multipliers, exact * (1 + Fraction(1, 10**13)))
        assert round_up(exact) >= exact


def test_an_uncertain_weight_is_paid_for():
    """A weight that is known to a millionth proves only what its worst one has."""
    first, last = torch.tensor([[0.75]], dtype=torch.float64), torch.tensor([[0.625]], dtype=torch.float64)
    sure = Enclosure.of(first)
    unsure = Enclosure(sure.center, sure.size, sure.exponent, 1e-6)
    exact = Fraction(0.75) * Fraction(0.625)
    multipliers = [2.0 / first[0] ** 2]
    for weights in ((unsure, Enclosure.of(last)), (Enclosure.of(last), unsure)):
        m = multipliers if weights[0] is unsure else [2.0 / last[0] ** 2]
        assert not proves(Alternation(weights, ((0.0, 1.0),)), m, exact * (1 + Fraction(1, 2 * 10**6)))
        assert proves(Alternation(weights, ((0.0, 1.0),)), m, exact * (1 + Fraction(1, 10**5)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_search_differentiates_in_any_mode(mode):
    network = dense([3, 6, 2])
    with mode():
        bound = semidefinite_bound(network)
    assert bound.constant < bound.product
    assert all(parameter.grad is None for parameter in network.parameters())

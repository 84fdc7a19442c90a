import itertools
import math
import random
from fractions import Fraction

import pytest
import torch
from slopes import PAIRS, largest_slope
from sweeps import seeds
from torch import nn
from truths import exact_norm, linear

from tightlip import (
    Bound,
    FullSort,
    Gains,
    GroupSort,
    MaxMin,
    Normalize,
    RowDualBall,
    RowL1Ball,
    Scale,
    TightlipError,
    certify,
    freeze,
    lipschitz,
    mlp,
)

INF = math.inf
NORMS = (1.0, 2.0, INF)
ELEMENTWISE = {nn.ReLU: 1.0, nn.Tanh: 1.0, nn.Sigmoid: 0.25, nn.Identity: 1.0, FullSort: 1.0, MaxMin: 1.0}


def true_gains(layer):
    """A layer's exact constant for each pair of norms."""
    if isinstance(layer, nn.Linear):
        return {pair: exact_norm(layer.weight.detach(), *pair) for pair in PAIRS}
    constant = {Scale: lambda: float(layer.scale), Normalize: lambda: 1 / float(layer.std.min())}
    constant[nn.LeakyReLU] = lambda: max(1.0, layer.negative_slope)
    value = constant[type(layer)]() if type(layer) in constant else ELEMENTWISE.get(type(layer), 1.0)
    return dict.fromkeys(PAIRS, value)


def multiplied_out(layers):
    """The same layers, linear ones with nothing between them as one, and without identities."""
    found = []
    for layer in layers:
        if isinstance(layer, nn.Linear) and found and isinstance(found[-1], nn.Linear):
            found[-1] = linear((layer.weight @ found[-1].weight).tolist())
        elif not isinstance(layer, nn.Identity):
            found.append(layer)
    return found


def best_path(layers, p, q):
    """The least product over every nondecreasing sequence of norms from p to q, by trying them all."""
    known = [true_gains(layer) for layer in multiplied_out(layers)]
    inner = itertools.product([r for r in NORMS if p <= r <= q], repeat=len(known) - 1)
    paths = [(p, *middle, q) for middle in inner if list(middle) == sorted(middle)]
    return min(math.prod(k[a, b] for k, a, b in zip(known, path, path[1:], strict=False)) for path in paths)


def activation(draw, width):
    choices = [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.LeakyReLU(draw.choice([0.1, 1.7])), nn.Identity(), FullSort()]
    choices += [GroupSort(k, contiguous=draw.random() < 0.5) for k in range(1, width + 1) if width % k == 0]
    if width % 2 == 0:
        choices.append(MaxMin(contiguous=draw.random() < 0.5))
    return draw.choice(choices)


def random_network(seed):
    """Every shape: depth 1 to 4, widths 1 to 12, all rules; returns the network, its leaves and its input size."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    depth = draw.randint(1, 4)
    widths = [draw.randint(1, 12) for _ in range(depth + 1)]
    layers = [Normalize(0.3, draw.choice([0.25, 2.0]))] if draw.random() < 0.3 else []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        linear = nn.Linear(inputs, outputs, bias=draw.random() < 0.7)
        nn.init.normal_(linear.weight, std=draw.choice([0.01, 1.0, 5.0]) / inputs**0.5)
        layers.append(linear)
        if index < depth - 1:
            layers.append(activation(draw, outputs))
    if draw.random() < 0.3:
        layers.append(Scale(draw.choice([0.1, 8.0])))
    cut = draw.randint(0, len(layers))
    nested = nn.Sequential(nn.Flatten(), nn.Sequential(*layers[:cut]), *layers[cut:])
    return nested.double(), layers, widths[0]


@pytest.mark.parametrize("seed", seeds(60, 200))
def test_the_bound_of_a_random_network_is_above_every_slope_found_and_at_the_best_exact_path(seed):
    network, layers, inputs = random_network(seed)
    for p, q in PAIRS:
        bound = lipschitz(network, p, q)
        assert (bound.input_norm, bound.output_norm) == (p, q)
        found = largest_slope(network, (inputs,), p, q, seed=seed, points=8, steps=3)
        assert found <= bound.constant * (1 + 1e-9)
        path = best_path(layers, p, q)
        assert path * (1 - 1e-12) <= bound.constant <= 1.001 * path
        uniform = math.prod(true_gains(layer)[p, p] for layer in layers[:-1]) * true_gains(layers[-1])[p, q]
        assert bound.constant <= 1.001 * uniform


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_the_bound_of_one_linear_layer_is_attained(p, q):
    torch.manual_seed(0)
    layer = nn.Linear(5, 4).double()
    assert largest_slope(layer, (5,), p, q) >= lipschitz(layer, p, q).constant * (1 - 1e-8)


def test_a_two_to_inf_layer_before_inf_to_inf_layers_is_audited_as_what_it_is():
    first, second = nn.Linear(3, 4, dtype=torch.float64), nn.Linear(4, 4, dtype=torch.float64)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.6, 0.8, 0.0]] * 4, dtype=torch.float64))  # 2→∞ norm 1, but 2→2 norm 2
        nn.init.eye_(second.weight)
    network = nn.Sequential(first, MaxMin(), second)
    assert lipschitz(network, 2, INF).constant == pytest.approx(1.0, rel=1e-9)
    assert lipschitz(network, 2, 2).constant == pytest.approx(2.0, rel=1e-9)
    assert lipschitz(network, INF, INF).constant == pytest.approx(1.4, rel=1e-9)
    assert largest_slope(network, (3,), 2, INF) >= 1 - 1e-8


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("seed", range(20))
def test_without_an_output_norm_the_least_sensitive_one_is_picked(p, seed):
    network, _, _ = random_network(seed)
    factor = {1.0: 1.0, 2.0: math.sqrt(2), INF: 2.0}
    every = {q: lipschitz(network, p, q).constant * factor[q] for q in NORMS if p <= q}
    picked = lipschitz(network, p)
    assert picked.sensitivity == pytest.approx(min(every.values()), rel=1e-12)
    assert picked.sensitivity == pytest.approx(every[picked.output_norm], rel=1e-12)


def test_the_picked_norm_depends_on_the_last_layer():
    column, row = nn.Linear(1, 8, bias=False), nn.Linear(8, 8, bias=False)
    nn.init.ones_(column.weight)
    nn.init.eye_(row.weight)
    assert lipschitz(column, 2).output_norm == INF  # √2·√8 against 2·1
    assert lipschitz(row, 2).output_norm == 2


@pytest.mark.parametrize(("q", "factor"), [(1.0, 1.0), (2.0, math.sqrt(2)), (INF, 2.0)])
def test_the_sensitivity_is_the_margin_factor_times_the_constant_rounded_up(q, factor):
    sensitivity = Bound(3.0, 1.0, q).sensitivity
    assert Fraction(sensitivity) ** 2 >= Fraction(factor**2).limit_denominator(4) * 9
    assert sensitivity == pytest.approx(3 * factor, rel=1e-14)


@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
def test_layers_of_norm_one_compose_to_exactly_one_and_a_scale_to_exactly_its_constant(K):
    ones = [nn.Flatten(), nn.ReLU(), nn.Sequential(MaxMin(), nn.Tanh()), FullSort(), nn.Identity(), nn.LeakyReLU(0.1)]
    for p, q in PAIRS:
        assert lipschitz(nn.Sequential(*ones), p, q).constant == 1.0
        constant = lipschitz(nn.Sequential(*ones, Scale(K)), p, q).constant
        assert K * (1 - 1e-7) <= constant <= K


def test_products_are_rounded_up_once():
    constants = [0.1, 0.3, 0.7, 1.1, 1.9]
    layers = [Normalize(0.0, 1.0) for _ in constants]
    for layer, value in zip(layers, constants, strict=True):
        layer.std = torch.tensor(value, dtype=torch.float64)
    exact = 1 / math.prod(Fraction(value) for value in constants)
    constant = Fraction(lipschitz(nn.Sequential(*layers), 2).constant)
    assert exact <= constant <= exact * (1 + Fraction(1, 2**49))


def test_a_module_used_twice_counts_twice():
    shared = Scale(3.0)
    assert lipschitz(nn.Sequential(shared, shared), 2).constant == 9.0
    block = nn.Sequential(shared, nn.ReLU())
    assert lipschitz(nn.Sequential(block, nn.Tanh(), block), 2).constant == 9.0


def test_training_mode_changes_nothing_and_the_network_is_not_touched():
    network, _, _ = random_network(3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert lipschitz(network.train(), 2) == lipschitz(network.eval(), 2)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_weights_written_through_data_are_seen():
    layer = nn.Linear(2, 2)
    lipschitz(layer, 2)
    layer.weight.data = 5 * torch.eye(2)
    assert lipschitz(layer, 2).constant == pytest.approx(5, rel=1e-8)


def test_layers_are_listed_in_order_with_their_names_and_their_bounds():
    bound = lipschitz(nn.Sequential(nn.Flatten(), nn.Sequential(Scale(2.0), nn.ReLU()), Scale(8.0)), 2)
    assert [row[0] for row in bound.layers] == ["0", "1.0", "1.1", "2"]
    assert [row[2].constant for row in bound.layers] == [1.0, 2.0, 1.0, 8.0]
    assert "Scale" in bound.layers[1][1]


@pytest.mark.parametrize(("p", "q"), [(INF, 1), (INF, 2), (2, 1)])
def test_a_pair_that_no_rule_proves_is_refused(p, q):
    with pytest.raises(TightlipError, match="ask for another pair"):
        lipschitz(nn.Linear(2, 2), p, q)


def test_an_unknown_norm_is_refused():
    with pytest.raises(TightlipError, match="choose a number from 1 to inf"):
        lipschitz(nn.ReLU(), 0.5)
    with pytest.raises(TightlipError, match="choose 1, 2 or inf"):
        lipschitz(nn.ReLU(), 2, 3)


def test_a_rule_for_one_pair_holds_for_larger_norms_out_and_smaller_norms_in_only():
    closed = Gains({(2.0, 2.0): Fraction(3)}).table
    assert closed == dict.fromkeys([(1.0, 2.0), (1.0, INF), (2.0, 2.0), (2.0, INF)], Fraction(3))


@pytest.mark.parametrize("value", [-1.0, math.nan, INF])
def test_negative_and_unbounded_constants_are_no_gains(value):
    with pytest.raises(TightlipError, match="give finite numbers"):
        Gains.constant(value)


def test_a_constant_beyond_every_float_is_one_sentence():
    with pytest.raises(TightlipError, match="exceeds the largest float64"):
        lipschitz(nn.Sequential(*[Scale(1e38) for _ in range(10)]), 2)
    layer = nn.Linear(4, 4, dtype=torch.float64)
    nn.init.constant_(layer.weight, 1e308)
    with pytest.raises(TightlipError, match="exceeds the largest float64"):
        lipschitz(layer, 2)


@pytest.mark.parametrize(("layer", "constant"), [(nn.Sigmoid(), 0.25), (nn.Tanh(), 1), (nn.LeakyReLU(-3.0), 3)])
def test_the_constant_of_an_activation_is_attained(layer, constant):
    assert lipschitz(layer, INF).constant == constant
    points = torch.tensor([[0.0], [-1.0]], dtype=torch.float64)
    slope = (layer(points + 1e-5) - layer(points - 1e-5)).abs().max() / 2e-5
    assert float(slope) == pytest.approx(constant, rel=1e-6)


TRUE_SLOPES = {
    nn.GELU(): 1.1290,
    nn.GELU("tanh"): 1.1290,
    nn.SiLU(): 1.0999,
    nn.ELU(): 1.0,
    nn.ELU(2.5): 2.5,
    nn.Softsign(): 1.0,
    nn.LogSigmoid(): 1.0,
    nn.Hardtanh(-2.0, 0.5): 1.0,
    nn.ReLU6(): 1.0,
    nn.Tanh(): 1.0,
    nn.Sigmoid(): 0.25,
    nn.LeakyReLU(0.3): 1.0,
    nn.LeakyReLU(-3.0): 3.0,
}


@pytest.mark.parametrize(("module", "truth"), TRUE_SLOPES.items(), ids=repr)
def test_elementwise_modules_have_their_true_constants(module, truth):
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(module(x).sum(), x)
    steepest = float(slope.abs().max())
    assert steepest == pytest.approx(truth, abs=1e-4)
    for p, q in PAIRS:
        assert steepest <= lipschitz(module, p, q).constant <= 1.002 * steepest


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_dropout_is_random_in_training_and_the_identity_after(kind):
    with pytest.raises(TightlipError, match="eval"):
        lipschitz(kind(), 2)
    x = torch.randn(2, 3, *[2] * (int(kind.__name__[-2]) if kind is not nn.Dropout else 1))
    assert lipschitz(kind().eval(), 2, 2).constant == 1 and torch.equal(kind().eval()(x), x)
    assert lipschitz(kind(p=0.0), 2, 2).constant == 1 and torch.equal(kind(p=0.0)(x), x)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("way", ["step", "forward"])
def test_the_class_of_theorem_3_is_one_call_and_audited_from_p_to_infinity(p, way):
    torch.manual_seed(0)
    constraints = [RowDualBall(p), RowL1Ball(), RowL1Ball()]
    network = freeze(mlp([5, 16, 16, 3], constraint=constraints, K=2.0, hold=way)).double()
    bound = lipschitz(network, p, math.inf)
    assert largest_slope(network, (5,), p, math.inf) <= bound.constant <= 2
    x = torch.randn(20, 5, dtype=torch.float64)
    certificate = certify(network, x, p=p)
    assert certificate.bound.sensitivity <= lipschitz(network, p, math.inf).sensitivity <= 4
    assert (certificate.radius >= certificate.margin / certificate.bound.sensitivity * (1 - 1e-12)).all()

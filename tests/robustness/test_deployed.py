"""`certify(…, arithmetic=)`: radii that machines keep, whose sums run in any order, and not much smaller ones."""

import copy
import math

import numpy as np
import pytest
import torch
from red_team.machines import ORDERS, outputs
from torch import nn

from tightlip import (
    FullSort,
    LinfDistance,
    MaxMin,
    MeanShift,
    Normalize,
    Orthonormal,
    Residual,
    RowL1Ball,
    Scale,
    TightlipError,
    certify,
    freeze,
    mlp,
)
from tightlip.graphs import Bias, Offset
from tightlip.linalg.arithmetic import ARITHMETICS, FLOAT64, Arithmetic, arithmetic_of
from tightlip.transport import Funnels

INF = math.inf
FLOAT32 = ARITHMETICS["float32"]


def offset_identities(size=1e8):
    """Two layers that add and subtract so much: nothing in exact arithmetic, nearly everything in float32."""
    there, back = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        for layer, sign in ((there, 1.0), (back, -1.0)):
            layer.weight.copy_(torch.eye(2))
            layer.bias.fill_(sign * size)
    return nn.Sequential(there, back).requires_grad_(False)


def test_large_biases_that_cancel_certify_nothing_in_float32(seed):
    network, x = offset_identities(), torch.randn(500, 2)
    assert certify(network, x).accuracy(0) == 1.0
    answers = network(x).argmax(1)
    assert 0.2 < float((answers != x.argmax(1)).double().mean()) < 0.8  # float32 answers otherwise
    assert float(certify(network, x, arithmetic="float32").radius.max()) == 0.0
    far = 1e3 * x  # where they are small beside the inputs, radii are what they were but for the rounding
    real, deployed = certify(network, far).radius, certify(network, far, arithmetic="float32").radius
    assert bool((deployed > real - 150).all()) and float(deployed.max()) > 100.0


def pair(weight, bias):
    """A linear layer of one number, with two logits."""
    layer = nn.Linear(1, 2)
    layer.weight.data, layer.bias.data = torch.tensor(weight)[:, None], torch.tensor(bias)
    return layer


def filled(layer, name, value):
    getattr(layer, name).data.fill_(value)
    return layer


UP, BETWEEN = [1.0, -1.0], 1 + 2**-8 * 1.01  # bfloat16 has no number between 1 and 1 + 2⁻⁷
LAST, AT = ([1.0, 0.0], [0.0, 2.18 * 2**-7]), 1 + 3 * 2**-7 + 2**-8 * 0.99
UNHELD = {
    "clip, bfloat16": ([nn.Hardtanh(100.3, 200.0), Normalize(100.0, 1.0), pair(UP, [-0.4, 0.4])], 0.0),
    "clip": ([nn.Hardtanh(1e6 + 0.04, 2e6), Normalize(1e6, 1.0), pair(UP, [-0.05, 0.05])], 0.0),
    "threshold": ([nn.Threshold(0.1, 0.1), Normalize(0.1, 1.0), pair(UP, [5e-10, -5e-10])], 0.0),
    "mean, bfloat16": ([Normalize(BETWEEN, 1.0), pair(*LAST)], AT),
    "running mean, bfloat16": ([filled(MeanShift(1), "mean", BETWEEN), pair(*LAST)], AT),
    "distance, bfloat16": ([filled(LinfDistance(1, 1, bias=False), "weight", BETWEEN), pair(*LAST)], AT),
    "bias, bfloat16": ([filled(Bias(1), "bias", -BETWEEN), pair(*LAST)], AT),
    "offset, bfloat16": ([Offset(-BETWEEN), pair(*LAST)], AT),
    "shrinking": (
        [nn.Softshrink(0.0625 * (1 + 2**-24 * 1.001)), pair([1.0, 0.0], [0.0, 0.0625 * 2.18 * 2**-23])],
        0.0625 * (1 + 3 * 2**-23 + 2**-24 * 0.999),
    ),
}
"""Layers that hold a number which the format has not, so placed that its rounding decides, and an input."""


@pytest.mark.parametrize("name", UNHELD)
def test_what_a_format_makes_of_numbers_it_has_not_is_counted(name):
    layers, at = UNHELD[name]
    network, x = nn.Sequential(*layers).eval().requires_grad_(False), torch.tensor([[at]], dtype=torch.float64)
    narrow = "bfloat16" in name
    dtype, arithmetic = (torch.bfloat16, "bfloat16/float32") if narrow else (torch.float32, "float32")
    answer = int(copy.deepcopy(network).to(dtype)(x.to(dtype)).argmax())
    real, deployed = certify(network, x), certify(network, x, arithmetic=arithmetic)
    assert int(real.prediction) != answer, "the case shows nothing: the machine answers as exact arithmetic does"
    assert float(real.radius) > 0.0 and float(deployed.radius) == 0.0


def test_numbers_that_a_format_has_cost_nothing_and_others_their_rounding():
    x = torch.tensor([[3.0]])

    def lost(value):
        network = nn.Sequential(Offset(value), pair(UP, [0.0, 0.0])).requires_grad_(False)
        return float(certify(network, x).radius - certify(network, x, arithmetic="float32").radius)

    unit = 1000 * 2**-24
    assert 2 * unit < lost(1000.0) < 20 * unit
    assert unit < lost(1000.0 + 1e-5) - lost(1000.0) < 10 * unit


@pytest.mark.parametrize("terms", [2, 3, 8])
def test_sums_of_many_values_are_stored_after_each_term(terms, seed):
    """In bfloat16 each of the sums of x + x/2 + x/4 … is rounded; no input is certified that is answered otherwise."""

    class Terms(nn.Module):
        def forward(self, x):
            return sum(x * 0.7**k for k in range(terms))

    network = nn.Sequential(Terms(), pair(UP, [-0.3, 0.3])).requires_grad_(False)
    x = (0.3 / sum(0.7**k for k in range(terms)) + 0.01 * torch.randn(400, 1)).bfloat16().double()
    certificate = certify(network, x, arithmetic="bfloat16/float32")
    answers = copy.deepcopy(network).bfloat16()(x.bfloat16()).argmax(1)
    held = certificate.radius > 0
    assert bool((answers == certificate.prediction)[held].all())
    assert 0.05 < float(held.double().mean()) < 1


def test_a_switch_of_the_order_of_summation_is_not_trusted():
    """(2^24 + 1) − 2^24 is 1 in exact arithmetic and 0 for a machine that adds from the left."""
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0, -1.0], [0.0, 0.5, 0.0]]))
    x = torch.tensor([[2.0**24, 1.0, 2.0**24]])
    assert certify(layer, x).accuracy(0) == 1.0
    assert outputs(nn.Sequential(layer), x[0], "as stored", np.random.default_rng(0))[0] == 0
    assert float(certify(layer, x, arithmetic="float32").radius) == 0.0
    assert float(certify(layer, x, arithmetic="float64").radius) > 0.3


NETWORKS = {
    "orthonormal": lambda: freeze(mlp([12, 64, 64, 4])),
    "fullsort": lambda: freeze(mlp([12, 32, 32, 3], activation=FullSort, K=7.3)),
    "rows": lambda: freeze(mlp([12, 64, 64, 4], RowL1Ball(), K=1000.0)),
    "normalized": lambda: nn.Sequential(Normalize([0.3] * 12, [0.2] * 12), *freeze(mlp([12, 32, 4]))),
    "biased": lambda: biased(freeze(mlp([12, 64, 64, 4])), 30.0),
    "free": lambda: nn.Sequential(nn.Linear(12, 70), MaxMin(), nn.Linear(70, 3), Scale(0.3)),
}


def biased(network, size):
    for layer in network:
        if isinstance(layer, nn.Linear):
            layer.bias.data.normal_(std=size)
    return network


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("p", [2.0, INF])
def test_no_order_of_float32_answers_otherwise_within_the_radius(name, p, seed):
    """At inputs whose margin is a few roundings or many, and at the worst points within their radius."""
    network, rng = centered(nn.Sequential(*NETWORKS[name]()).requires_grad_(False)), np.random.default_rng(seed)
    wide = copy.deepcopy(network).double()
    near = beside_the_boundary(wide, torch.tensor([1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1]))
    certificate = certify(network, near, p=p, arithmetic="float32")
    radius = certificate.radius
    assert 0.1 < float((radius > 0).double().mean()) < 0.95
    attacked = moved(wide, near, certificate, radius * (1 - 1e-6), p)
    for point, answer, held in zip(attacked, certificate.prediction.tolist(), radius.tolist(), strict=True):
        for order in ORDERS if held > 0 else ():
            assert int(outputs(network, point, order, rng).argmax()) == answer


def centered(network):
    """Logits about zero, so that several classes are answered."""
    last = next(layer for layer in reversed(network) if isinstance(layer, nn.Linear))
    rest = nn.Sequential(*network[: list(network).index(last) + 1])
    last.bias.data.sub_(rest(torch.rand(200, 12) * 2).mean(0))
    return network


def beside_the_boundary(network, shares):
    """Points on segments between two classes, so far from where the answer changes, as shares of the segment."""
    x = torch.rand(400, 12, dtype=torch.float64) * 2
    answers = network(x).argmax(1)
    here, there = (x[answers == c][:6] for c in answers.unique()[:2])
    count = min(len(here), len(there))
    here, there = here[:count], there[:count]
    answer, low, high = network(here).argmax(1), torch.zeros(count, 1).double(), torch.ones(count, 1).double()
    for _ in range(60):
        middle = (low + high) / 2
        same = (network(here + middle * (there - here)).argmax(1) == answer).unsqueeze(1)
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return torch.cat([here + (low - share).clamp(min=0) * (there - here) for share in shares]).float()


def moved(network, x, certificate, radius, p):
    """Inputs moved so far against their margin."""
    points = x.double().requires_grad_(True)
    logits = network(points)
    own = logits.gather(1, certificate.prediction.unsqueeze(1))[:, 0]
    others = logits.scatter(1, certificate.prediction.unsqueeze(1), -INF).amax(1)
    (gradient,) = torch.autograd.grad((own - others).sum(), points)
    direction = gradient / gradient.norm(dim=1, keepdim=True) if p == 2 else gradient.sign()
    return points.detach() - radius.unsqueeze(1) * direction


@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_are_above_what_strays_and_not_far_above_it(name, seed):
    network, rng = nn.Sequential(*NETWORKS[name]()).requires_grad_(False), np.random.default_rng(seed)
    x = torch.rand(20, 12) * 2
    certificate, real = certify(network, x, arithmetic="float32"), certify(network, x)
    exact, stated = copy.deepcopy(network).double()(x.double()), real.margin - certificate.margin
    found = torch.zeros(20, dtype=torch.float64)
    for row, (point, truth) in enumerate(zip(x, exact, strict=True)):
        for order in ORDERS * 3:
            made = outputs(network, point, order, rng).double()
            top = truth.topk(2).indices
            found[row] = max(found[row], abs((made - truth)[top[0]] - (made - truth)[top[1]]))
    assert bool((found <= stated).all())
    assert float((stated / found.clamp(min=1e-12)).median()) < 1000


def test_sums_by_blocks_and_wider_formats_lose_less(seed):
    network, x = freeze(mlp([784, 256, 256, 10])), torch.rand(20, 784)
    real = certify(network, x).radius
    lost = {name: float((real - certify(network, x, arithmetic=name).radius).mean()) for name in ARITHMETICS}
    assert lost["float32-blocks"] < 0.3 * lost["float32"]
    assert 0 < lost["float64"] < 1e-9
    assert lost["float32"] < lost["bfloat16/float32-blocks"] <= lost["bfloat16/float32"]


def test_what_overflows_on_the_way_is_not_certified():
    up, down = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        up.weight.copy_(1e25 * torch.eye(2))
        down.weight.copy_(1e-25 * torch.eye(2))
    network, x = nn.Sequential(up, down), torch.tensor([[1e14, 0.0], [1.0, 0.0]])
    assert bool((certify(network, x).radius > 0.1).all())
    assert not bool(torch.isfinite(network(x)).all())
    radius = certify(network, x, arithmetic="float32").radius
    assert float(radius[0]) == 0.0
    assert float(radius[1]) > 0.5
    flat = nn.Sequential(nn.Linear(2, 2), Scale(1.0))
    with torch.no_grad():
        flat[0].weight.zero_()
        flat[0].bias.copy_(torch.tensor([1.0, 0.0]))
    assert float(certify(flat, x[1:]).radius) == INF
    assert 1e30 < float(certify(flat, x[1:], arithmetic="float32").radius) < 4e38  # larger inputs are infinite


def test_what_underflows_on_the_way_is_not_certified():
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(1e-30 * torch.eye(2))
        second.weight.copy_(1e-20 * torch.eye(2))
    network, x = nn.Sequential(first, second), torch.tensor([[1.0, 0.0]])
    assert float(certify(network, x).radius) > 0.7
    assert float(certify(network, x, arithmetic="float32").radius) == 0.0
    assert float(certify(network, x, arithmetic="float64").radius) > 0.7


def test_weights_that_a_format_rounds_are_counted():
    layer = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0 + 2.0**-26, 0.0], [1.0, 0.0]], dtype=torch.float64))
    x = torch.tensor([[64.0, 0.0]])
    assert certify(layer, x).accuracy(0) == 1.0
    assert certify(layer, x, arithmetic="float64").accuracy(0) == 1.0
    assert certify(layer, x, arithmetic="float32").accuracy(0) == 0.0  # a tie there
    one = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        one.weight.copy_(torch.tensor([[1.0 + 2.0**-12], [1.0]]))
    assert certify(one, torch.tensor([[1.0]]), arithmetic="float32").accuracy(0) == 1.0
    assert certify(one, torch.tensor([[1.0]]), arithmetic="bfloat16/float32").accuracy(0) == 0.0


def test_residuals_concatenations_and_convolutions(seed):
    network = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), MaxMin(dim=1), nn.MaxPool2d(2), nn.Flatten()),
        *(Residual(nn.Linear(64, 64)), MaxMin(), nn.AdaptiveAvgPool1d(8), nn.Linear(8, 3)),
    ).requires_grad_(False)
    x = torch.rand(6, 1, 8, 8)
    real, deployed = certify(network, x), certify(network, x, arithmetic="float32")
    assert bool((deployed.radius > 0).any())
    lost = real.radius - deployed.radius
    assert bool((lost[real.radius > 0] > 0).all())
    assert float(lost.max()) < 1e-3
    assert bool((network(x).argmax(1) == deployed.prediction)[deployed.radius > 0].all())


def test_one_logit_and_labels(seed):
    network, x = freeze(mlp([4, 16, 1])), torch.rand(30, 4)
    real, deployed = certify(network, x), certify(network, x, arithmetic="float32")
    assert deployed.arithmetic == "float32" and real.arithmetic == "real"
    assert bool((deployed.radius <= real.radius).all())
    assert float((real.radius - deployed.radius).max()) < 1e-5
    wrong = certify(network, x, 1 - real.prediction, arithmetic="float32")
    assert float(wrong.radius.max()) == 0.0


def test_real_is_the_default_and_names_are_checked():
    network, x = freeze(mlp([4, 8, 2])), torch.rand(3, 4)
    assert torch.equal(certify(network, x).radius, certify(network, x, arithmetic="real").radius)
    with pytest.raises(TightlipError, match=r"no arithmetic is called 'flota32' \(did you mean float32\?\)"):
        certify(network, x, arithmetic="flota32")
    with pytest.raises(TightlipError, match="arithmetic must be one of float64"):
        arithmetic_of(32)
    given = certify(network, x, arithmetic=FLOAT32).radius
    assert torch.equal(given, certify(network, x, arithmetic="float32").radius)


@pytest.mark.parametrize("std", [1e-30, 1e30])
def test_divisors_that_formats_cannot_hold_are_refused(std):
    network = nn.Sequential(Normalize([0.0], [std]), nn.Linear(2, 2))
    with pytest.raises(TightlipError, match="divides by numbers beyond 2"):
        certify(network, torch.rand(1, 2), arithmetic="float32")


def test_funnels_are_refused():
    network = Funnels(torch.rand(3, 2), torch.rand(3))
    with pytest.raises(TightlipError, match="Funnels at .* find the nearest by other steps"):
        certify(network, torch.rand(1, 2), arithmetic="float32")


def test_formats_are_those_of_torch():
    assert {a.name: (a.unit, a.stored, a.block) for a in ARITHMETICS.values()} == {
        "float64": (2.0**-53, 0.0, None),
        "float32": (2.0**-24, 0.0, None),
        "float32-blocks": (2.0**-24, 0.0, 64),
        "bfloat16/float32": (2.0**-24, 2.0**-8, None),
        "bfloat16/float32-blocks": (2.0**-24, 2.0**-8, 64),
    }
    assert FLOAT64.gamma(2**53) == INF
    assert FLOAT64.gamma(0) == 0.0
    with pytest.raises(TightlipError, match="blocks of at least one term"):
        arithmetic_of(Arithmetic("x", torch.float32, 2.0**-24, 1e-38, 3e38, block=0))


def test_orthonormal_networks_of_512_lose_little_in_float32(seed):
    network, x = freeze(mlp([784, 512, 512, 512, 10], Orthonormal())), torch.rand(8, 784) * 0.3
    real, deployed = certify(network, x).radius, certify(network, x, arithmetic="float32").radius
    assert float((real - deployed).max()) < 0.02

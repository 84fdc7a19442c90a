"""Each constant is above every slope found, and attained; each roundoff covers evaluation, against 60 digits."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from shares import in_float64
from slopes import PAIRS, largest_slope
from sweeps import seeds
from torch import nn

from tightlip import Scale, TightlipError, certify, lipschitz
from tightlip.audit import gains

INF = math.inf


def prelu(*slopes):
    module = nn.PReLU(len(slopes))
    module.weight.data = torch.tensor(slopes)
    return module.double()


SLOPES = {
    nn.Softplus(): 1.0,
    nn.Softplus(beta=3.0, threshold=40): 1.0,
    prelu(0.25): 1.0,
    prelu(-3.0): 3.0,
    nn.CELU(): 1.0,
    nn.CELU(0.3): 1.0,
    nn.CELU(5.0): 1.0,
    nn.SELU(): 1.7580993408473770,
    nn.Mish(): 1.0884981612,
    nn.Hardswish(): 1.5,
    nn.Hardsigmoid(): 1 / 6,
    nn.Softshrink(): 1.0,
    nn.Tanhshrink(): 1.0,
    nn.Threshold(0.5, 0.5): 1.0,
    nn.RReLU(-2.0, -1.0).eval(): 1.5,
    nn.AlphaDropout().eval(): 1.0,
    nn.FeatureAlphaDropout().eval(): 1.0,
}


@pytest.mark.parametrize(("module", "truth"), SLOPES.items(), ids=repr)
def test_elementwise_modules_have_their_true_constants(module, truth):
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64).add(1e-6).requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x)
    steepest = float(slope.detach().abs().max())
    assert steepest == pytest.approx(truth, rel=1e-4)
    for p, q in PAIRS:
        constant = lipschitz(module, p, q).constant
        assert steepest <= constant * (1 + 1e-7) and constant <= truth * (1 + 1e-4)
        assert largest_slope(module, (3, 4), p, q, points=8) <= constant * (1 + 1e-9)


@pytest.mark.parametrize("module", [nn.Softmax(1), nn.Softmax(-1), nn.Softmin(1)], ids=repr)
@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_the_softmax_attains_its_constants_where_two_classes_are_level(module, p, q):
    constant = lipschitz(module, p, q).constant
    level = torch.tensor([[0.0, 0.0, -60.0, -60.0]], dtype=torch.float64) * (-1 if type(module) is nn.Softmin else 1)
    step = {1.0: [1.0, 0.0, 0.0, 0.0], 2.0: [0.5**0.5, -(0.5**0.5), 0.0, 0.0], INF: [1.0, -1.0, 0.0, 0.0]}[p]
    other = level + 1e-4 * torch.tensor([step], dtype=torch.float64)
    found = float(torch.linalg.vector_norm(module(level) - module(other), q)) / 1e-4
    assert constant * (1 - 1e-3) <= found <= constant * (1 + 1e-9)
    for shape in ((5,), (3, 4), (2, 3, 2)):
        assert largest_slope(module, shape, p, q, points=8, steps=20) <= constant * (1 + 1e-9)


def exact_softplus(x, beta):
    z = Decimal(beta) * Decimal(x)
    return (z.exp() + 1).ln() / Decimal(beta)


def exact_mish(x):
    e = (1 + Decimal(x).exp()) ** 2
    return Decimal(x) * (e - 1) / (e + 1)


ALPHA, LAMBDA = 0.7, 0.3
EXACT = {  # by formulas that do not cancel: with 400 digits where they do
    nn.Softplus(): lambda x: exact_softplus(x, 1),
    nn.Softplus(beta=0.37, threshold=15): lambda x: exact_softplus(x, 0.37),
    nn.CELU(ALPHA): lambda x: Decimal(x) if x >= 0 else Decimal(ALPHA) * ((Decimal(x) / Decimal(ALPHA)).exp() - 1),
    nn.SELU(): lambda x: (
        Decimal("1.0507009873554804934193349852946")
        * (Decimal(x) if x >= 0 else Decimal("1.6732632423543772848170429916717") * (Decimal(x).exp() - 1))
    ),
    nn.Mish(): exact_mish,
    nn.Hardswish(): lambda x: Decimal(x) * min(max(Decimal(x) + 3, Decimal(0)), Decimal(6)) / 6,
    nn.Hardsigmoid(): lambda x: min(max(Decimal(x) + 3, Decimal(0)), Decimal(6)) / 6,
    nn.Softshrink(LAMBDA): lambda x: (
        max(Decimal(x) - Decimal(LAMBDA), Decimal(0)) + min(Decimal(x) + Decimal(LAMBDA), Decimal(0))
    ),
    nn.Tanhshrink(): lambda x: Decimal(x) - ((2 * Decimal(x)).exp() - 1) / ((2 * Decimal(x)).exp() + 1),
    nn.RReLU(LAMBDA, ALPHA).eval(): lambda x: Decimal(x) * (1 if x >= 0 else (Decimal(LAMBDA) + Decimal(ALPHA)) / 2),
}


@pytest.mark.parametrize("module", EXACT, ids=repr)
def test_the_roundoff_covers_the_evaluation(module, seed):
    """Alone and in rows of sixteen, which other instructions compute; near 0, at the thresholds and far out."""
    count = len(seeds(160, 640))
    x = torch.randn(count, dtype=torch.float64) * torch.logspace(-12, 2, count, dtype=torch.float64)
    edges = torch.tensor([20.0, 15 / 0.37, 3.0, -3.0, 0.3, 1e-300, -1e-17], dtype=torch.float64)
    x = torch.cat((x, edges, edges * (1 + 1e-15), edges * (1 - 1e-15)))
    share = in_float64(gains(module).roundoff)
    together, alone = module(x), {at: module(x[at : at + 1]) for at in range(0, len(x), 9)}
    found = [*enumerate(together.tolist()), *((at, float(value)) for at, value in alone.items())]
    with localcontext() as context:
        context.prec = 400
        for at, value in found:
            truth, point = EXACT[module](float(x[at])), abs(Decimal(float(x[at])))
            allowed = Decimal(share.input) * point + Decimal(share.output) * abs(truth) + Decimal(2.0**-900)
            assert abs(Decimal(value) - truth) <= allowed, (float(x[at]), value)


@pytest.mark.parametrize(("module", "sign"), [(nn.Softmax(-1), 1), (nn.Softmin(-1), -1)], ids=repr)
def test_the_roundoff_of_the_softmax_covers_its_evaluation(module, sign, seed):
    share = in_float64(gains(module).roundoff, inputs=9)
    for size in (1.0, 30.0, 700.0):
        x = torch.randn(8, 9, dtype=torch.float64) * size
        for row, found in zip(x.tolist(), module(x).tolist(), strict=True):
            with localcontext() as context:
                context.prec = 60
                powers = [(sign * Decimal(v)).exp() for v in row]
                truth = [power / sum(powers) for power in powers]
                error = math.hypot(*(float(Decimal(y) - s) for y, s in zip(found, truth, strict=True)))
                size_in, size_out = math.hypot(*row), math.hypot(*map(float, truth))
            assert error <= share.input * size_in + share.output * size_out


def test_where_the_softplus_is_replaced_by_the_identity_the_difference_is_evaluation():
    """Without the share of the threshold, the roundoff would be five orders too small."""
    above = torch.tensor([20.000001], dtype=torch.float64)
    with localcontext() as context:
        context.prec = 60
        relative = float(abs(Decimal(float(nn.Softplus()(above))) / exact_softplus(20.000001, 1) - 1))
    assert 1e-11 < relative <= in_float64(gains(nn.Softplus()).roundoff).output < 2e-10


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        (nn.Softplus(threshold=3), "jumps.*threshold from 15 to 80"),
        (nn.Softplus(threshold=700), "overflows.*threshold from 15 to 80"),
        (nn.Softplus(threshold=math.nan), "finite number"),
        (nn.Softplus(beta=-1.0), "from 1e-30 to 1e30"),
        (nn.Softplus(beta=0), "from 1e-30 to 1e30"),
        (nn.CELU(-1.0), "from 1e-30 to 1e30"),
        (nn.CELU(math.nan), "finite number"),
        (nn.CELU(1e300), "from 1e-30 to 1e30"),
        (prelu(math.nan), "NaN"),
        (nn.Softmax(), "give dim=1"),
        (nn.Softmax(0), "mix the batch"),
        (nn.Softmax(-2), "mix the batch"),
        (nn.Softmax(1.5), "integer"),
        (nn.Softmin(0), "mix the batch"),
        (nn.Softshrink(-0.5), "≥ 0"),
        (nn.Softshrink(math.nan), "finite number"),
        (nn.Threshold(1.0, 0.0), "jumps"),
        (nn.RReLU(), "eval"),
        (nn.AlphaDropout(), "eval"),
        (nn.AlphaDropout(math.nan), "finite number"),
        (nn.Hardshrink(), "Softshrink"),
        (nn.GLU(), "no Lipschitz constant"),
    ],
    ids=repr,
)
def test_what_has_no_constant_is_refused_with_the_reason(module, advice):
    with pytest.raises(TightlipError, match=advice):
        lipschitz(module, 2)


def test_the_reasons_are_true():
    jump = torch.tensor([3.0 - 1e-12, 3.0 + 1e-12], dtype=torch.float64)
    assert float(nn.Softplus(threshold=3)(jump).diff()) < -0.04
    assert float(nn.CELU(-1.0)(torch.tensor(-20.0))) < -1e8
    assert float(nn.Hardshrink()(torch.tensor([0.5, 0.5001])).diff()) > 0.49


def test_a_network_with_them_is_certified(seed):
    x = torch.randn(40, 5)
    for module in (nn.Softplus(), nn.PReLU(), nn.CELU(), nn.SELU(), nn.Mish(), nn.Hardswish(), nn.Softmax(-1)):
        network = nn.Sequential(nn.Linear(5, 8), module, nn.Linear(8, 3), Scale(2.0))
        certificate = certify(network, x)
        assert (certificate.radius > 0).all()
        logits = network.double()(x.double())
        margin = logits.topk(2).values.diff().abs().flatten()
        assert (certificate.margin <= margin).all() and (certificate.margin >= margin * (1 - 1e-5) - 1e-6).all()

"""Batch normalization has the norms of its diagonal matrix, and an evaluation error that big shifts account for."""

import math
from fractions import Fraction

import pytest
import torch
from shares import in_float64
from slopes import PAIRS, largest_slope
from torch import nn

from tightlip import TightlipError, certify, lipschitz
from tightlip.audit import gains

KINDS = {nn.BatchNorm1d: (4,), nn.BatchNorm2d: (4, 2, 3), nn.BatchNorm3d: (4, 2, 1, 2)}


def trained(kind, seed=0, eps=1e-5, shift=1.0):
    torch.manual_seed(seed)
    module = kind(4, eps=eps).eval()
    with torch.no_grad():
        module.weight.copy_(torch.randn(4))
        module.bias.copy_(shift * torch.randn(4))
        module.running_mean.copy_(shift * torch.randn(4))
        module.running_var.copy_(torch.rand(4) * 2)
    return module


@pytest.mark.parametrize(("kind", "shape"), KINDS.items(), ids=lambda value: getattr(value, "__name__", str(value)))
@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_the_constant_is_the_largest_slope_exactly(kind, shape, p, q):
    module = trained(kind)
    constant = lipschitz(module, p, q).constant
    truth = max(
        Fraction(g) ** 2 / (Fraction(v) + Fraction(1e-5))
        for g, v in zip(module.weight.tolist(), module.running_var.tolist(), strict=True)
    )
    assert truth <= Fraction(constant) ** 2 <= truth * (1 + Fraction(1, 2**48))
    module = module.double()
    assert constant * (1 - 1e-9) <= largest_slope(module, shape, p, q, points=8) <= constant * (1 + 1e-9)


def test_without_learned_slopes_or_shifts():
    module = nn.BatchNorm1d(3, affine=False).eval()
    assert lipschitz(module, 2, 2).constant == pytest.approx((1 + 1e-5) ** -0.5, rel=1e-12)
    module = trained(nn.BatchNorm1d)
    module.bias = None
    assert lipschitz(module, 2, 2).constant == lipschitz(trained(nn.BatchNorm1d), 2, 2).constant


@pytest.mark.parametrize("gamma", [1e-160, 1e-320, 1e160, 0.0])
def test_slopes_whose_squares_no_float_holds(gamma):
    module = trained(nn.BatchNorm1d).double()
    module.weight.data.fill_(gamma)
    truth = Fraction(gamma) ** 2 / (Fraction(float(module.running_var.min())) + Fraction(1e-5))
    found = Fraction(lipschitz(module, 2, 2).constant) ** 2
    assert truth <= found <= truth * (1 + Fraction(1, 2**48)) or (gamma == 1e-320 and found <= truth * 2)


@pytest.mark.parametrize("shift", [1.0, 1e9])
@pytest.mark.parametrize(("kind", "shape"), KINDS.items(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_roundoff_covers_evaluation_where_mean_and_shift_cancel(kind, shape, shift):
    """With μ·a = β up to rounding, inputs and outputs are small and the error is not."""
    module = trained(kind, shift=shift).double()
    slope = module.weight / (module.running_var + module.eps).sqrt()
    with torch.no_grad():
        module.bias.copy_(module.running_mean * slope)
    share, x = in_float64(gains(module).roundoff), torch.randn(6, *shape, dtype=torch.float64)
    for row, found in zip(x, module(x), strict=True):
        errors, size, out = [], math.hypot(*row.flatten().tolist()), math.hypot(*found.flatten().tolist())
        for c in range(4):
            m, g, b, v = (
                Fraction(t[c].item()) for t in (module.running_mean, module.weight, module.bias, module.running_var)
            )
            v += Fraction(module.eps)
            root = Fraction(math.isqrt(v.numerator * v.denominator * 4**200), v.denominator * 2**200)
            for at, y in zip(row[c].flatten().tolist(), found[c].flatten().tolist(), strict=True):
                errors.append(float(Fraction(y) - (g * (Fraction(at) - m) / root + b)))
        assert math.hypot(*errors) <= share.input * size + share.output * out + share.entry * math.sqrt(len(errors))
        if shift > 1:
            assert math.hypot(*errors) > 2.0**-50 * (size + out)  # no multiple of the sizes alone would do


def test_a_certificate_loses_what_a_cancelling_shift_may_have_rounded(seed):
    """1e9 − 1e9 + small: the margin that float64 shows is noise below 1e-7, and no radius may rest on it."""
    module = nn.BatchNorm1d(2, affine=True).double().eval()
    module.running_mean.fill_(1e9)
    module.bias.data.fill_(1e9 * (1 + 1e-5) ** -0.5)
    near = certify(nn.Sequential(module), torch.tensor([[1e-8, 0.0]], dtype=torch.float64))
    far = certify(nn.Sequential(module), torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    assert float(near.radius) == 0 and float(far.radius) == pytest.approx(0.5**0.5, abs=1e-5)


def altered(**changes):
    module = trained(nn.BatchNorm1d)
    for name, value in changes.items():
        if isinstance(value, float) and name != "eps":
            getattr(module, name).data[1] = value
        else:
            setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        (trained(nn.BatchNorm2d).train(), r"network.eval\(\)"),
        (nn.BatchNorm1d(3, track_running_stats=False).eval(), "whole batch"),
        (altered(running_var=-1.0), "variance"),
        (altered(running_var=math.nan), "NaN"),
        (altered(running_mean=math.inf), "NaN or infinity"),
        (altered(weight=math.nan), "NaN"),
        (altered(bias=math.nan), "NaN"),
        (altered(eps=-1), "variance"),
        (altered(eps=math.nan), "finite number"),
        (altered(weight=nn.Parameter(torch.ones(1))), "shape"),
        (nn.LayerNorm(3), "divides each input by its own spread"),
        (nn.GroupNorm(1, 3), "own spread"),
        (nn.InstanceNorm2d(3), "own spread"),
        (nn.InstanceNorm2d(3, track_running_stats=True), "own spread"),
        (nn.InstanceNorm1d(3, track_running_stats=True).eval(), r"nn\.BatchNorm1d with its tensors"),
        (nn.RMSNorm(3), "own spread"),
        (nn.Embedding(3, 3), "takes integers"),
        (nn.EmbeddingBag(3, 3), "takes integers"),
    ],
    ids=repr,
)
def test_what_has_no_constant_is_refused_with_the_reason(module, advice):
    with pytest.raises(TightlipError, match=advice):
        lipschitz(module, 2)


def test_a_layer_norm_stretches_without_a_useful_bound():
    x = torch.tensor([[0.0, 0.0], [1e-6, -1e-6]])
    assert float(nn.LayerNorm(2)(x).detach().diff(dim=0).norm()) / float(x.diff(dim=0).norm()) > 300

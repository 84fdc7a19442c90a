"""Funnels are 1-Lipschitz and no less; least sums are as near the truth as they say."""

import copy
import inspect
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from shares import in_float64
from slopes import largest_slope
from torch import nn
from truths import gaussian

from tightlip import TightlipError, certify, lipschitz, load, save, summary
from tightlip.audit import registered
from tightlip.transport import Funnels
from tightlip.transport.distances import FEW, least_sums, nearest

NORMS = [1.0, 2.0, math.inf]


def funnels(n=30, d=4, p=2, dtype=torch.float64, **options):
    return Funnels(gaussian(n, d, dtype=dtype), 0.3 * gaussian(n, seed=1, dtype=dtype), p, **options)


def exact_sum(a, b, price, p):
    """‖a − b‖_p + price in 60 digits."""
    with mpmath.workdps(60):
        sizes = [abs(mpmath.mpf(s) - mpmath.mpf(t)) for s, t in zip(a, b, strict=True)]
        length = sum(sizes) if p == 1 else max(sizes) if p == math.inf else mpmath.sqrt(sum(s * s for s in sizes))
        return length + mpmath.mpf(price)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_the_least_sum(p, dtype):
    f, x = funnels(p=p, dtype=dtype), gaussian(3, 7, 4, seed=2, dtype=dtype)
    apart = x.double()[..., None, :] - f.points.double()
    sums = torch.linalg.vector_norm(apart, p, dim=-1) + f.offsets.double()
    assert f(x).shape == (3, 7, 1) and f(x).dtype == dtype
    assert (f(x)[..., 0].double() - sums.amin(-1)).abs().max() < (1e-6 if dtype == torch.float32 else 1e-14)
    assert f(x[0, 0]).shape == (1,) and f(x[:0]).shape == (0, 7, 1)


@pytest.mark.parametrize("p", NORMS)
def test_the_constant_is_one_and_is_reached(p):
    f = funnels(p=p)
    assert lipschitz(f, p).constant == 1.0
    found = largest_slope(f, (4,), p, p, points=64)
    assert 0.999 < found <= 1 + 1e-12


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("r", NORMS)
def test_the_constant_from_every_norm_is_that_of_one_cone(p, r):
    cone = Funnels(torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1), p)
    bound = 4.0 ** max(0.0, 1 / p - 1 / r)
    assert lipschitz(cone, r, math.inf).constant == pytest.approx(bound, rel=1e-15)
    corner = torch.ones(1, 4, dtype=torch.float64) if r > p else torch.eye(4, dtype=torch.float64)[:1]
    assert float(cone(corner)) / float(torch.linalg.vector_norm(corner, r)) == pytest.approx(bound)


def test_gradients_beside_points_are_one():
    points = gaussian(20, 16, dtype=torch.float32) + 100
    f = Funnels(points, torch.zeros(20))
    x = (points + 1e-4 * gaussian(20, 16, seed=4, dtype=torch.float32)).requires_grad_()
    (gradient,) = torch.autograd.grad(f(x).sum(), x)
    assert (gradient.norm(dim=1) - 1).abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(f(points.requires_grad_()).sum(), points)
    assert not gradient.any()


def test_points_and_offsets_are_buffers_or_train():
    assert not list(funnels().parameters()) and set(dict(funnels().named_buffers())) == {"points", "offsets"}
    f = funnels(trainable=True)
    f(gaussian(50, 4, seed=5)).sum().backward()
    assert set(dict(f.named_parameters())) == {"points", "offsets"}
    assert f.points.grad.norm(dim=1).max() > 0.5 and f.offsets.grad.sum() == 50


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_saved_and_loaded(trainable, dtype, tmp_path):
    f, x = funnels(p=math.inf, dtype=dtype, trainable=trainable), gaussian(9, 4, seed=6, dtype=dtype)
    save(nn.Sequential(f), tmp_path / "f")
    for twin in (load(tmp_path / "f"), copy.deepcopy(f)):
        assert torch.equal(twin(x), f(x)) and len(list(twin.parameters())) == 2 * trainable


def test_it_is_summarized_and_its_values_are_certified():
    f, x = funnels(dtype=torch.float32), gaussian(50, 4, seed=7, dtype=torch.float32)
    assert "Funnels" in str(summary(nn.Sequential(f)))
    assert torch.allclose(certify(f, x).radius.float(), f(x)[:, 0].abs(), atol=1e-5)


def test_the_stated_rounding_holds():
    """Against 60 digits, far from the origin."""
    f = Funnels(1e6 + gaussian(40, 12), 1e3 * gaussian(40, seed=1))
    x = 1e6 + gaussian(30, 12, seed=2)
    stated = in_float64(registered()[Funnels].rule(f).roundoff)
    for value, row in zip(f(x)[:, 0].tolist(), x.tolist(), strict=True):
        sums = zip(f.points.tolist(), f.offsets.tolist(), strict=True)
        true = min(exact_sum(row, y, price, 2) for y, price in sums)
        assert abs(true - value) <= stated.output * abs(value) + stated.entry


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: Funnels(torch.zeros(3), torch.zeros(3)), r"points must have shape \(n, d\)"),
        (lambda: Funnels(torch.zeros(3, 2), torch.zeros(2)), r"offsets \(n,\)"),
        (lambda: Funnels(torch.zeros(0, 2), torch.zeros(0)), r"points must have shape"),
        (lambda: Funnels([[0.0]], torch.zeros(1)), "points must be a tensor or a numpy array"),
        (lambda: Funnels(torch.full((1, 1), math.nan), torch.zeros(1)), "NaN or infinite"),
        (lambda: Funnels(torch.zeros(1, 1).half(), torch.zeros(1).half()), "float32 or float64"),
        (lambda: Funnels(torch.zeros(1, 1), torch.zeros(1), p=3), "choose 1, 2 or inf"),
        (lambda: funnels()(torch.zeros(2, 3).double()), r"take inputs \(…, 4\)"),
        (lambda: funnels()(torch.zeros(2, 4)), r"give x.double\(\)"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, sentence):
    with pytest.raises(TightlipError, match=sentence):
        wrong()


def test_numpy_and_integers_will_do():
    f = Funnels(np.array([[0, 0], [4, 0]]), np.array([0, 1]))
    assert float(f(torch.tensor([3.0, 0.0]))) == 2.0


def test_only_this_exact_type_has_the_rule():
    class Louder(Funnels):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(TightlipError, match="register one"):
        lipschitz(Louder(torch.zeros(1, 1), torch.zeros(1)), 2)


CLUSTERS = {
    "near zero": lambda x, y: (x, y),
    "far from zero": lambda x, y: (x + 1e6, y + 1e6),
    "in clusters far apart": lambda x, y: (x + 1e6 * (torch.arange(len(x)) % 2)[:, None], y - 1e6 * (y[:, :1] > 0)),
    "twice the same": lambda x, y: (torch.cat((x[:50], x[:50])), torch.cat((x[:50], x[:50], x[:50]))[: len(y)]),
    "almost the same": lambda x, y: (x, torch.cat((x, x))[: len(y)] * (1 + 1e-12)),
}


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("kind", CLUSTERS)
@pytest.mark.parametrize("d", [2, FEW + 4])
def test_least_sums_are_within_their_error(kind, p, d):
    x, y = CLUSTERS[kind](gaussian(100, d), gaussian(130, d, seed=1))
    prices = 0.1 * gaussian(len(y), seed=2)
    values, error = least_sums(x, y, prices, p, block=1000)
    for i in range(0, len(x), 9):
        sums = zip(y.tolist(), prices.tolist(), strict=True)
        near = torch.cdist(x[i : i + 1], y, p=p, compute_mode="donot_use_mm_for_euclid_dist")[0] + prices
        some = set((near <= near.min() + 1e-3).nonzero()[:, 0].tolist())
        true = min(exact_sum(x[i].tolist(), b, price, p) for j, (b, price) in enumerate(sums) if j in some)
        assert abs(true - float(values[i])) <= error
    assert error <= 1e-13 * (1 + float(values.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", CLUSTERS)
@pytest.mark.parametrize("scale", [1.0, 1e-170, 1e30])
def test_the_nearest_by_products_is_the_nearest_by_differences(kind, dtype, scale):
    if dtype == torch.float32 and scale < 1e-30:
        scale = 1e-30
    x, y = (points.to(dtype) for points in CLUSTERS[kind](gaussian(100, FEW + 8), gaussian(130, FEW + 8, seed=1)))
    x, y, prices = scale * x, scale * y, scale * 0.1 * gaussian(len(y), seed=2, dtype=dtype)
    sums = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist") + prices.double()
    chosen = nearest(x, y, prices, 2.0)
    assert chosen.shape == (len(x),) and chosen.dtype == torch.long
    rounding = 1e-14 * (x.double().abs().max() + y.double().abs().max())
    assert (sums.gather(1, chosen[:, None])[:, 0] - sums.amin(1)).max() <= rounding


def test_the_nearest_of_numbers_that_products_cannot_hold():
    x, y, prices = gaussian(5, FEW + 1), gaussian(70, FEW + 1, seed=1), torch.zeros(70, dtype=torch.float64)
    x[0] = 1e308
    x[1] = math.nan
    plain = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert torch.equal(nearest(x, y, prices, 2.0)[2:], plain[2:])
    assert nearest(x[:0], y, prices, 2.0).shape == (0,)
    batched = torch.func.vmap(lambda point: nearest(point[None], y, prices, 2.0))(x[2:])
    assert torch.equal(batched[:, 0], plain[2:])


def test_least_sums_refuse_numbers_that_overflow():
    with pytest.raises(TightlipError, match="scale them"):
        least_sums(
            torch.full((2, 2), 1e200, dtype=torch.float64), torch.zeros(2, 2).double(), torch.zeros(2).double(), 2.0
        )
    assert Fraction(least_sums(*[torch.zeros(1, 1).double()] * 2, torch.ones(1).double(), 2.0)[0].item()) == 1


@pytest.mark.parametrize(("kind", "way"), [(torch.float32, "float"), (torch.float64, "double")])
def test_what_to_give_instead_is_what_a_tensor_has(kind, way):
    funnels = Funnels(torch.ones(2, 3, dtype=kind), torch.zeros(2, dtype=kind))
    wrong = torch.ones(1, 3, dtype=torch.float16)
    with pytest.raises(TightlipError, match=rf"give x\.{way}\(\)"):
        funnels(wrong)
    funnels(getattr(wrong, way)())


def test_inputs_that_are_no_tensor_are_refused():
    with pytest.raises(TightlipError, match="Funnels take a tensor, got a ndarray"):
        inspect.unwrap(Funnels.forward)(Funnels(torch.ones(2, 3), torch.zeros(2)), np.ones((1, 3), np.float32))


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (torch.complex(torch.ones(2, 3), torch.ones(2, 3)), "points must be real numbers"),
        (torch.full((2, 3), 2**24 + 1), "integers that torch.float32 has not: give them in float64"),
    ],
)
def test_points_are_not_changed_without_a_word(points, sentence):
    with pytest.raises(TightlipError, match=sentence):
        Funnels(points, torch.zeros(2))

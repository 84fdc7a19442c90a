"""The guard says what the certificate says, rounded down, and abstains from the rest; nothing is too odd for it."""

import math

import pytest
import torch
from torch import nn
from truths import gaussian, linear

from tightlip import (
    MaxMin,
    Normalize,
    RowL1Ball,
    Scale,
    TightlipError,
    certify,
    freeze,
    guarded,
    lipschitz,
    mlp,
    weights_sha256,
)
from tightlip.audit import audit
from tightlip.robustness.pairs import pair_sensitivity

INF = math.inf


def frozen(p, outputs=4):
    torch.manual_seed(0)
    return freeze(mlp([6, 16, outputs], RowL1Ball() if p == INF else None, MaxMin, K=3.0))


@pytest.mark.parametrize("p", [1, 2, INF])
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_in_float64_it_is_the_certificate_and_never_above(p, outputs):
    network, x = frozen(p, outputs).double(), gaussian(200, 6)
    guard, certificate = guarded(network, x[:3], eps=0.1, p=p), certify(network, x, p=p)
    logits, best, radius, abstain = guard(x)
    assert torch.equal(logits, network(x)) and torch.equal(best, certificate.prediction)
    torch.testing.assert_close(radius, certificate.radius, rtol=1e-9, atol=1e-9)
    assert torch.equal(abstain, ~(radius > 0.1)) and guard.bound == certificate.bound


def test_its_own_roundings_are_covered_in_float32():
    """Of the logits as they come out, in rationals rounded to float64: lead / S ≥ radius, S above the float64 table."""
    network, x = frozen(2), gaussian(3000, 6, dtype=torch.float32)
    guard = guarded(network, x[:3], eps=0.1)
    logits, best, radius, _ = guard(x)
    table = pair_sensitivity(audit(network), 2, lipschitz(network, 2).sensitivity, 4)
    assert (guard.steepness.double() >= table).all()
    leads = logits.double().gather(1, best[:, None]) - logits.double()  # exact: two float32 of like size
    exact = (leads / table[best]).scatter(1, best[:, None], INF).amin(1)
    assert (radius.double() <= exact).all() and (radius.double() >= exact * (1 - 1e-5)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_constants_are_rounded_up_to_the_type_of_the_network(dtype):
    """The rows are 1 + 0.45·eps apart, which is nearer to 1."""
    layer, steep = linear([[1.0], [-0.45 * torch.finfo(dtype).eps]], dtype=dtype), 1 + 0.449 * torch.finfo(dtype).eps
    guard = guarded(layer, torch.ones(2, 1), eps=0.1001)
    assert float(guard.eps) >= 0.1001 and float(guard.steepness[0, 1]) >= steep
    logits, _, radius, _ = guard(torch.linspace(0.1, 1, 50).to(dtype)[:, None])
    lead = logits[:, 0].double() - logits[:, 1].double()
    assert (radius.double() * steep <= lead).all() and (radius.double() >= 0.9 * lead).all()


def test_a_reserve_lowers_every_lead():
    network, x = frozen(2).double(), gaussian(100, 6)
    plain, careful = (guarded(network, x[:2], eps=0.0, reserve=reserve)(x)[2] for reserve in (0.0, 0.25))
    steep = lipschitz(network, 2).sensitivity
    assert (careful <= (plain - 0.25 / steep).clamp(min=0.0) + 1e-12).all() and (careful > 0).any()


def test_units_are_those_of_the_input():
    network, x = nn.Sequential(Normalize(0.5, 0.25), Scale(8.0)).double(), torch.rand(50, 3, dtype=torch.float64)
    radius = guarded(network, x[:2], eps=0.1)(x)[2]
    torch.testing.assert_close(radius, certify(nn.Identity(), x).radius, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("value", [math.nan, INF, -INF])
def test_what_is_not_finite_is_abstained_from(value):
    for network in (nn.Identity(), nn.Sequential(nn.Tanh())):  # of tanh the outputs are finite where inputs are not
        _, _, radius, abstain = guarded(network, torch.rand(2, 2), eps=0.0)(torch.tensor([[value, 0.3], [0.9, 0.3]]))
        assert abstain.tolist() == [True, False] and float(radius[0]) == 0


def test_ties_are_abstained_from_and_constants_never():
    _, _, radius, abstain = guarded(nn.Identity(), torch.rand(2, 3), eps=0.0)(torch.tensor([[0.5, 0.5, 0.1]]))
    assert radius.tolist() == [0.0] and abstain.tolist() == [True]
    constant = linear([[0.0], [0.0]], [1.0, 0.0], torch.float32)
    assert float(guarded(constant, torch.ones(1, 1), eps=1.0)(torch.ones(1, 1))[2]) > 1e30


def test_of_several_outputs_one_is_guarded():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 2)

        def forward(self, x):
            return {"a": self.a(x), "b": self.b(x)}

    network, x = freeze(Two().eval()), torch.randn(5, 6)
    assert torch.equal(guarded(network, x, eps=0.1, output="b")(x)[0], network(x)["b"])
    with pytest.raises(TightlipError, match="several outputs"):
        guarded(network, x, eps=0.1)


def test_differences_beyond_the_largest_number_and_below_the_smallest_are_not_rounded_up():
    def radius(top, weight):
        guard = guarded(linear([[weight], [-weight]], dtype=torch.float32), torch.ones(2, 1), eps=0.0)
        return float(guard(torch.tensor([[top]]))[2][0])

    assert 1.6e38 < radius(3e38, 1.0) <= 3e38 and 0.8e38 < radius(1e38, 2.0) <= 1e38
    assert radius(1e-40, 1.0) == 0 and 0.99e-30 < radius(1e-30, 1.0) <= 1e-30


def test_what_becomes_of_the_network_later_does_not_touch_it():
    network, x = frozen(2), torch.randn(9, 6)
    guard = guarded(network, x, eps=0.1)
    known, trainable = [value.clone() for value in guard(x)], network[0].weight.requires_grad
    network[0].weight.data *= 2
    assert all(torch.equal(a, b) for a, b in zip(guard(x), known, strict=True))
    assert guard.weights_sha256 != weights_sha256(network) and network[0].weight.requires_grad == trainable


def test_it_is_a_module_like_any_other(tmp_path):
    network, x = frozen(2), torch.randn(9, 6)
    guard = guarded(network, x, eps=0.1)
    torch.save(guard, tmp_path / "guard.pt")
    again = torch.load(tmp_path / "guard.pt", weights_only=False)
    assert all(torch.equal(a, b) for a, b in zip(guard(x), again(x), strict=True)) and again.bound == guard.bound
    assert not any(p.requires_grad for p in guard.parameters()) and not guard.training
    assert "eps=0.1, Bound(2→2" in repr(guard)
    program = torch.export.export(guard, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert all(torch.equal(a, b) for a, b in zip(program.module()(x[:4]), guard(x[:4]), strict=True))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"eps": -1.0}, "eps must be a finite number ≥ 0"),
        ({"eps": 0.1, "reserve": -1.0}, "reserve must be a finite number ≥ 0"),
        ({"eps": 0.1, "p": 3}, "no norm is called 3"),
    ],
)
def test_bad_numbers_are_refused(options, sentence):
    with pytest.raises(TightlipError, match=sentence):
        guarded(nn.Identity(), torch.rand(2, 2), **options)


def test_networks_that_cannot_be_certified_cannot_be_guarded():
    with pytest.raises(TightlipError, match=r"still held by constraints: guarded\(freeze\(network\), …\)"):
        guarded(mlp([6, 4]), torch.rand(2, 6), eps=0.1)
    with pytest.raises(TightlipError, match="certificates need"):
        guarded(nn.Identity(), torch.rand(2, 3, 3), eps=0.1)

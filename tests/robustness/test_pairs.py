"""Pairwise radii: exact for linear classifiers, never above the truth, never below the rule for all pairs."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from tightlip import MaxMin, RowL1Ball, Scale, certify, freeze, lipschitz, mlp, pgd

INF = math.inf
NORMS = [1.0, 2.0, INF]
DUAL = {1.0: INF, 2.0: 2.0, INF: 1.0}


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
def test_the_radius_of_a_linear_classifier_is_its_distance_to_the_nearest_boundary(p, K, seed):
    layer = nn.Linear(6, 4)
    network, x = nn.Sequential(layer, Scale(K)), torch.randn(100, 6)
    certificate = certify(network, x, p=p)
    logits = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    weight, t = layer.weight.double(), certificate.prediction
    gaps = (weight[t][:, None] - weight[None]).norm(DUAL[p], dim=2)
    truth = ((logits.gather(1, t[:, None]) - logits) / gaps).nan_to_num(nan=INF).amin(1)
    assert (certificate.radius <= truth).all()
    torch.testing.assert_close(certificate.radius, truth.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [1.0, INF])
def test_radii_are_below_the_rational_truth(p, seed):
    layer = nn.Linear(5, 3, bias=False, dtype=torch.float64)
    x = torch.randn(50, 5, dtype=torch.float64)
    certificate = certify(layer, x, p=p)
    rows = [[Fraction(v) for v in row] for row in layer.weight.tolist()]
    for point, radius, t in zip(x.tolist(), certificate.radius.tolist(), certificate.prediction.tolist(), strict=True):
        logits = [sum((w * Fraction(v) for w, v in zip(row, point, strict=True)), Fraction(0)) for row in rows]
        for i in set(range(3)) - {t}:
            gap = [abs(a - b) for a, b in zip(rows[t], rows[i], strict=True)]
            assert Fraction(radius) * (sum(gap) if p == INF else max(gap)) <= logits[t] - logits[i]


@pytest.mark.parametrize("p", NORMS)
def test_the_last_layer_only_ever_adds_to_a_radius(p, seed):
    network = freeze(mlp([6, 8, 8, 3], RowL1Ball(), K=3.0))
    x = torch.randn(100, 6)
    seen, hidden = certify(network, x, p=p), certify(nn.Sequential(network, nn.Identity()), x, p=p)
    assert (seen.radius >= hidden.radius).all()
    assert float(seen.radius.mean()) > 1.05 * float(hidden.radius.mean())


def test_attacks_fail_within_pairwise_radii(seed):
    network = freeze(mlp([6, 16, 16, 3], RowL1Ball(), MaxMin, K=2.0))
    x = torch.randn(100, 6)
    certificate = certify(network, x, p=INF)
    found = pgd(network, x, certificate.prediction, 0.999 * certificate.radius.float(), INF, 50, 3, clamp=None)
    assert (network(found).argmax(1) == certificate.prediction)[certificate.radius > 0].all()


def test_classes_with_equal_rows_never_part(seed):
    layer = nn.Linear(3, 2)
    layer.weight.data[1] = layer.weight.data[0]
    layer.bias.data = torch.tensor([1.0, 0.0])
    assert (certify(layer, torch.randn(4, 3)).radius > 1e200).all()
    layer.bias.data.zero_()
    assert certify(layer, torch.randn(4, 3)).radius.tolist() == [0.0] * 4


@pytest.mark.parametrize("exponent", [-140, -60, 60, 120])
def test_scales_far_from_one_round_to_the_safe_side(exponent, seed):
    layer = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    layer.weight.data *= 2.0**exponent
    x = torch.randn(20, 4, dtype=torch.float64)
    certificate = certify(layer, x, p=INF)
    assert lipschitz(layer, INF).constant > 0
    rows = [[Fraction(v) for v in row] for row in layer.weight.tolist()]
    for point, radius, t in zip(x.tolist(), certificate.radius.tolist(), certificate.prediction.tolist(), strict=True):
        logits = [sum((w * Fraction(v) for w, v in zip(row, point, strict=True)), Fraction(0)) for row in rows]
        for i in set(range(3)) - {t}:
            gap = sum((abs(a - b) for a, b in zip(rows[t], rows[i], strict=True)), Fraction(0))
            assert Fraction(radius) * gap <= logits[t] - logits[i]

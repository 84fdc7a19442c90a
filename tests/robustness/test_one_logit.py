"""Networks with one output answer by its sign: the margin is the logit, the radius is |logit| / K."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import MaxMin, Normalize, Residual, RowL1Ball, Scale, TightlipError, certify, freeze, lipschitz, mlp

INF = math.inf
DUAL = {1.0: INF, 2.0: 2.0, INF: 1.0}


@pytest.fixture
def boundary(seed):
    layer = nn.Linear(6, 1, dtype=torch.float64)
    return layer, torch.randn(100, 6, dtype=torch.float64)


@pytest.mark.parametrize("p", [1.0, 2.0, INF])
@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
def test_the_radius_of_a_linear_classifier_is_its_distance_to_the_boundary(boundary, p, K):
    layer, x = boundary
    certificate = certify(nn.Sequential(layer, Scale(K)), x, p=p)
    truth = layer(x)[:, 0].detach().abs() / layer.weight.detach()[0].norm(DUAL[p])
    assert (certificate.radius <= truth).all()
    torch.testing.assert_close(certificate.radius, truth, rtol=1e-9, atol=1e-12)
    assert torch.equal(certificate.prediction, (layer(x)[:, 0] > 0).long())
    torch.testing.assert_close(certificate.margin, K * layer(x)[:, 0].detach().abs(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("p", [1.0, INF])
def test_radii_are_below_the_rational_truth(boundary, p):
    layer, x = boundary
    row, bias = [Fraction(w) for w in layer.weight[0].tolist()], Fraction(layer.bias.item())
    steepness = max(map(abs, row)) if p == 1 else sum(map(abs, row))
    certificate = certify(layer, x, p=p)
    for point, radius, margin in zip(x.tolist(), certificate.radius.tolist(), certificate.margin.tolist(), strict=True):
        z = sum((w * Fraction(v) for w, v in zip(row, point, strict=True)), bias)
        assert 0 < Fraction(margin) <= abs(z) and Fraction(radius) * steepness <= abs(z)


def test_one_logit_is_worth_as_much_as_two_that_are_opposite(boundary):
    layer, x = boundary
    twice = nn.Linear(6, 2, dtype=torch.float64)
    twice.weight.data = torch.cat((-layer.weight.data, layer.weight.data)) / 2
    twice.bias.data = torch.cat((-layer.bias.data, layer.bias.data)) / 2
    for p in (1, 2, INF):
        one, two = certify(layer, x, p=p), certify(twice, x, p=p)
        assert torch.equal(one.prediction, two.prediction)
        torch.testing.assert_close(one.radius, two.radius, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [-1, 1, 1, -1]])
@pytest.mark.parametrize("array", [torch.tensor, np.array])
def test_a_label_decides_the_sign_of_the_margin(labels, array):
    x = torch.tensor([[-0.5], [0.5], [-0.5], [0.0]], dtype=torch.float64)
    certificate = certify(nn.Sequential(nn.Identity(), Scale(2.0)), x, array(labels))
    assert certificate.margin.tolist() == pytest.approx([1.0, 1.0, -1.0, 0.0])
    assert certificate.radius.tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0])
    assert certificate.correct.tolist() == [True, True, False, False]
    assert certificate.prediction.tolist()[:3] == [0, 1, 0] and certificate.accuracy(0) == 0.5


@pytest.mark.parametrize("value", [0.0, -0.0, math.nan, INF, -INF])
def test_zero_and_what_is_not_finite_are_never_certified(value):
    for y in (None, torch.tensor([1]), torch.tensor([0])):
        assert certify(nn.Identity(), torch.tensor([[value]]), y).accuracy(0) == 0.0


@pytest.mark.parametrize("labels", [[-1, 0], [0, 2], [-1, 2], [2, 2]])
def test_labels_of_more_than_two_classes_are_refused(labels):
    with pytest.raises(TightlipError, match="labels 0 and 1, or -1 and 1"):
        certify(nn.Identity(), torch.ones(2, 1), torch.tensor(labels))


@pytest.mark.parametrize("p", [2, INF])
def test_no_step_of_the_radius_changes_the_sign(p, seed):
    network = freeze(mlp([6, 16, 16, 1], RowL1Ball() if p == INF else None, MaxMin, K=3.0)).double()
    network = nn.Sequential(Normalize(0.1, 0.5), Residual(nn.Identity()), network).double()
    x = torch.randn(200, 6, dtype=torch.float64, requires_grad=True)
    certificate = certify(network, x, p=p)
    (slope,) = torch.autograd.grad(network(x).abs().sum(), x)
    unit = slope.sign() if p == INF else nn.functional.normalize(slope, dim=1)
    with torch.no_grad():
        moved = x - 0.999999 * certificate.radius[:, None] * unit
        assert torch.equal((network(moved)[:, 0] > 0).long(), certificate.prediction)
        assert (certificate.radius > 1e-3).double().mean() > 0.8
    assert (certificate.radius >= certificate.margin / lipschitz(network, p).sensitivity).all()


def test_one_logit_that_never_changes_is_certified_everywhere():
    layer = nn.Linear(3, 1)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, -0.5)
    certificate = certify(layer, torch.randn(4, 3), torch.tensor([0, 0, 1, 0]))
    assert certificate.radius.tolist() == [INF, INF, 0, INF] and certificate.prediction.tolist() == [0] * 4

"""Pairwise radii: exact for linear classifiers, never above the truth, never below the rule for all pairs."""

import math
from fractions import Fraction

import pytest
import torch
from sweeps import seeds
from torch import nn

from tightlip import MaxMin, RowL1Ball, Scale, TightlipError, certify, freeze, lipschitz, mlp, pgd
from tightlip.audit import audit, bound_of
from tightlip.robustness.pairs import pair_sensitivity

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


def affine(*matrices, bias=None):
    layers = []
    for rows in matrices:
        weight = torch.tensor(rows, dtype=torch.float64)
        layers.append(nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64))
        layers[-1].weight.data = weight
    if bias is not None:
        layers[-1].bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))
    return nn.Sequential(*layers)


@pytest.mark.parametrize("tiny", [1e-100, 1e-140, 1e-162, 1e-200, 1e-250])
@pytest.mark.parametrize("p", NORMS)
def test_differences_of_rows_whose_squares_underflow_still_count(tiny, p):
    """Two layers grow by 1/tiny in all, and the last rows differ by 2·tiny: the logits differ by 1 + 2·x₂."""
    grow = [[0.0, 0.0], [0.0, 1 / math.sqrt(tiny)]]
    network = affine(grow, grow, [[1.0, tiny], [1.0, -tiny]], bias=[1.0, 0.0])
    radius = float(certify(network, torch.zeros(1, 2, dtype=torch.float64), p=p).radius)
    assert 0.5 * (1 - 1e-9) <= radius <= 0.5


@pytest.mark.parametrize("p", NORMS)
def test_no_pair_is_less_steep_than_its_rows_at_any_scale(p, seed):
    """Layers diag(d) and then rows at scales from 1e-320 to 1e300, composed in rationals; rows that differ in one entry
    only, or by less than a float64 can square."""
    draw = torch.Generator().manual_seed(0)
    for _ in seeds(25, 100):
        scales = 10.0 ** torch.empty(7, dtype=torch.float64).uniform_(-320, 150, generator=draw)
        first = torch.diag(torch.minimum(1 / scales[:3], torch.tensor(1e150, dtype=torch.float64)))
        last = torch.randn(4, 3, dtype=torch.float64, generator=draw) * scales[:3]
        last[1] = last[0]
        last[1, 2] *= 1 + 2.0**-40
        last[3] *= scales[4]
        network = affine(first.tolist(), last.tolist())
        try:
            audited = audit(network)
            overall = bound_of(audited, p).sensitivity
        except TightlipError as refused:
            assert "exceeds the largest float64" in str(refused)
            continue
        table = pair_sensitivity(audited, p, overall, 4)
        rows = [
            [Fraction(w) * Fraction(d) for w, d in zip(row, first.diagonal().tolist(), strict=True)]
            for row in last.tolist()
        ]
        for t in range(4):
            for i in range(4):
                gap = [abs(a - b) for a, b in zip(rows[t], rows[i], strict=True)]
                square = {1.0: max(gap) ** 2, 2.0: sum(g * g for g in gap), INF: sum(gap) ** 2}[p]
                assert math.isinf(table[t, i]) or Fraction(float(table[t, i])) ** 2 >= square


@pytest.mark.parametrize("outputs", [1, 3])
def test_no_sensitivity_is_so_small_that_a_thread_could_take_it_for_zero(outputs):
    """Divided by zero, a lead would last for ever."""
    layer = nn.Linear(2, outputs, bias=False, dtype=torch.float64)
    layer.weight.data = torch.full((outputs, 2), 1e-310, dtype=torch.float64)
    for network in (nn.Sequential(layer), nn.Sequential(layer, nn.Identity())):
        audited = audit(network)
        for p in NORMS:
            table = pair_sensitivity(audited, p, bound_of(audited, p).sensitivity, outputs)
            assert (table >= 2.0**-1000).all()
    layer.weight.data.zero_()
    assert certify(layer, torch.ones(1, 2), p=2).radius.tolist() == [0.0]  # a tie

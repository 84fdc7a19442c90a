"""Beyond the largest logit: radii are exact where the truth is known, and no attack gets below them elsewhere."""

import inspect
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn
from truths import gaussian, linear

from tightlip import (
    Groups,
    MaxMin,
    MultiLabel,
    OneVsRest,
    RowL1Ball,
    Scale,
    TightlipError,
    TopK,
    certify,
    freeze,
    mlp,
)
from tightlip.robustness.overtaking import all_gone

INF = math.inf
DUAL = {1.0: INF, 2.0: 2.0, INF: 1.0}
PAIRS = Groups([[0, 3], [1, 4], [2]])


def lost_at(decision, target, classes):
    """Sets of (winner, loser): the decision changes exactly where all of one set have winner ≥ loser."""
    if isinstance(decision, TopK):
        others = [i for i in range(classes) if i != target]
        return [[(i, target) for i in chosen] for chosen in itertools.combinations(others, decision.k)]
    group = next(g for g in decision._members(classes) if target in g)
    return [[(i, t) for t in group] for i in range(classes) if i not in group]


def distance_of_identity(logits, pairs):
    """In the 2-norm: the logits of some of the pairs meet at their mean, and the others are beyond it already."""
    common = pairs[0][1] if len({loser for _, loser in pairs}) == 1 else pairs[0][0]
    moved, best = [i for pair in pairs for i in pair if i != common], INF
    for size in range(len(moved) + 1):
        for some in itertools.combinations(moved, size):
            point = logits.copy()
            point[[common, *some]] = logits[[common, *some]].mean()
            if all(point[i] >= point[t] - 1e-12 for i, t in pairs):
                best = min(best, float(np.linalg.norm(point - logits)))
    return best


def distance_of_affine(weight, logits, pairs, p):
    """By a linear program over δ and its size, p = 1 or ∞."""
    n = weight.shape[1]
    rise = np.stack([weight[i] - weight[t] for i, t in pairs])
    gap = np.array([logits[i] - logits[t] for i, t in pairs])
    if p == INF:  # |δ_j| ≤ s
        cost, size = np.r_[np.zeros(n), 1.0], np.ones((n, 1))
    else:  # |δ_j| ≤ s_j
        cost, size = np.r_[np.zeros(n), np.ones(n)], np.eye(n)
    unit, free = np.eye(n), np.zeros((len(pairs), size.shape[1]))
    bounds = np.vstack([np.hstack([unit, -size]), np.hstack([-unit, -size]), np.hstack([-rise, free])])
    found = linprog(cost, bounds, np.r_[np.zeros(2 * n), gap], bounds=(None, None))
    return found.fun if found.status == 0 else INF


@pytest.mark.parametrize("decision", [TopK(1), TopK(2), TopK(3), TopK(4), PAIRS, OneVsRest(1)], ids=repr)
@pytest.mark.parametrize("K", [0.1, 8.0])
def test_in_the_2_norm_the_radius_of_the_identity_is_the_distance_to_another_decision(decision, K):
    x = gaussian(40, 5)
    certificate = certify(Scale(K), x, decision=decision)
    for row, target, radius in zip(
        x.numpy(), certificate.prediction.tolist(), certificate.radius.tolist(), strict=True
    ):
        truth = min(distance_of_identity(row, pairs) for pairs in lost_at(decision, target, 5))
        assert truth * (1 - 1e-6) <= radius <= truth * (1 + 1e-12)


@pytest.mark.parametrize("decision", [TopK(1), TopK(2), TopK(4), PAIRS, OneVsRest(1)], ids=repr)
@pytest.mark.parametrize("p", [1.0, INF])
def test_no_radius_of_an_affine_map_is_above_the_distance_to_another_decision(decision, p):
    layer = linear(gaussian(5, 3, seed=1).tolist(), gaussian(5, seed=2).tolist(), torch.float64)
    x, y = gaussian(10, 3), torch.arange(10) % 5
    certificate = certify(layer, x, y, p, decision=decision)
    logits, shares = layer(x).numpy(), []
    for row, target, radius, right in zip(logits, y.tolist(), certificate.radius, certificate.correct, strict=True):
        truth = min(distance_of_affine(layer.weight.numpy(), row, pairs, p) for pairs in lost_at(decision, target, 5))
        assert float(radius) <= truth * (1 + 1e-9) and bool(right) == (truth > 0)
        shares += [float(radius) / truth] if right else []
    assert min(shares) > (0.999 if decision == TopK(1) else 0.2) and len(shares) > 1


def climbed(network, x, eps, p, worth, steps=30):
    """Points within eps that lower ``worth`` (of logits), by steps along its gradient."""
    delta = torch.zeros_like(x)
    for step in range(steps):
        delta.requires_grad_()
        (slope,) = torch.autograd.grad(worth(network(x + delta)).sum(), delta)
        unit = slope.sign() if p == INF else nn.functional.normalize(slope, dim=1)
        delta = delta.detach() - eps[:, None] * unit * 2 / (2 + step / 4)
        size = torch.linalg.vector_norm(delta, p, dim=1, keepdim=True)
        delta = delta * (eps[:, None] / size.clamp(min=1e-300)).clamp(max=1.0)
    return x + delta


def others(logits, y):
    return logits.scatter(1, y[:, None], -INF)


WORTH = {
    TopK(2): lambda logits, y: logits.gather(1, y[:, None])[:, 0] - others(logits, y).topk(2, 1).values[:, 1],
    OneVsRest(2): lambda logits, y: (
        torch.where(y == 2, 1, -1) * (logits[:, 2] - others(logits, torch.full_like(y, 2)).amax(1))
    ),
}


@pytest.mark.parametrize("decision", WORTH, ids=repr)
@pytest.mark.parametrize(("p", "constraint"), [(2, None), (INF, RowL1Ball())])
def test_attacks_fail_within_the_radius_and_succeed_not_far_beyond(decision, p, constraint, seed):
    network = freeze(mlp([6, 16, 16, 5], constraint, MaxMin, K=2.0)).double()
    x = torch.randn(150, 6, dtype=torch.float64)
    y = network(x).topk(2, 1).indices[:, 1]  # second best
    certificate = certify(network, x, y, p, decision=decision)
    worth = lambda logits: WORTH[decision](logits, y)  # noqa: E731
    assert torch.equal(certificate.correct, worth(network(x)) > 0)
    moved = climbed(network, x, 0.9999 * certificate.radius, p, worth)
    assert (worth(network(moved)) > 0)[certificate.correct].all()
    if p == 2:  # random rows of L1 norm 1 leave the logits far flatter than K
        beyond = climbed(network, x, 3 * certificate.radius, p, worth)
        assert (worth(network(beyond)) <= 0)[certificate.correct].double().mean() > 0.3


def test_the_usual_decision_is_the_first_of_these(seed):
    network, x, y = freeze(mlp([6, 8, 5])), torch.randn(100, 6), torch.randint(5, (100,))
    usual = certify(network, x, y)
    for decision in (TopK(), Groups([[i] for i in range(5)])):
        same = certify(network, x, y, decision=decision)
        assert torch.equal(same.radius, usual.radius) and torch.equal(same.margin, usual.margin)
        assert torch.equal(same.correct, usual.correct) and torch.equal(same.prediction, usual.prediction)
    assert usual.decision == TopK(1) and "TopK" not in repr(usual)
    assert "TopK(k=2)" in repr(certify(network, x, y, decision=TopK(2)))


@pytest.mark.parametrize("p", [1, 2, INF])
def test_asking_for_less_only_adds_to_a_radius(p, seed):
    network, x, y = freeze(mlp([6, 8, 5], RowL1Ball())), torch.randn(100, 6), torch.randint(5, (100,))
    radii = [certify(network, x, y, p, decision=TopK(k)).radius for k in (1, 2, 3, 4)]
    assert all((more >= less).all() for less, more in itertools.pairwise(radii))
    assert (certify(network, x, y, p, decision=Groups([[0, 1], [2, 3, 4]])).radius >= radii[0]).all()
    whole = Groups([[2], [0, 1, 3, 4]])
    assert torch.equal(
        certify(network, x, y, p, decision=OneVsRest(2)).radius, certify(network, x, y, p, decision=whole).radius
    )


def test_pieces_of_a_large_batch_change_nothing(seed, monkeypatch):
    network, x, y = freeze(mlp([6, 8, 5])), torch.randn(60, 6), torch.randint(5, (60,))
    whole = certify(network, x, y, decision=PAIRS)
    monkeypatch.setattr("tightlip.robustness.groups.PIECE", 20)
    parts = certify(network, x, y, decision=PAIRS, batch_size=17)
    torch.testing.assert_close(parts.radius, whole.radius, rtol=0, atol=1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0, INF])
def test_a_label_of_its_own_lasts_as_far_as_its_threshold(p, seed):
    layer = nn.Linear(6, 4).requires_grad_(False)
    x, y = torch.randn(50, 6), torch.randint(2, (50, 4))
    threshold = [0.3, 0.0, -0.2, 0.1]
    certificate = certify(nn.Sequential(layer, Scale(2.0)), x, y, p, decision=MultiLabel(threshold))
    logits = 2 * nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    lead = (logits - torch.tensor(threshold, dtype=torch.float64)) * (2 * y - 1)
    truth = (lead / (2 * layer.weight.double().norm(DUAL[p], dim=1))).clamp(min=0.0)
    found = torch.stack([label.radius for label in certificate.each], 1)
    assert (found <= truth).all()
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12)
    assert torch.equal(certificate.radius, found.amin(1))
    assert torch.equal(certificate.correct, (lead > 0).all(1)) and torch.equal(certificate.label, y)
    assert torch.equal(certificate.prediction, (logits > torch.tensor(threshold)).long())
    third = certificate.each[2]
    assert third.label.tolist() == y[:, 2].tolist() and third.accuracy(0) == float((lead[:, 2] > 0).double().mean())
    assert third.by_class(0.0) and third.interval(0.1)
    with pytest.raises(TightlipError, match=r"4 labels have no class: ask one of certificate\.each"):
        certificate.by_class(0.0)


@pytest.mark.parametrize("p", [2, INF])
def test_no_label_of_a_network_changes_within_its_radius(p, seed):
    network = freeze(mlp([6, 16, 16, 4], RowL1Ball() if p == INF else None, MaxMin, K=2.0)).double()
    x = torch.randn(60, 6, dtype=torch.float64)
    certificate = certify(network, x, p=p, decision=MultiLabel(0.1))
    assert not certificate.labeled
    for number, label in enumerate(certificate.each):
        side = 2 * label.prediction - 1
        worth = lambda logits, i=number, side=side: side * (logits[:, i] - 0.1)  # noqa: E731
        assert (worth(network(climbed(network, x, 0.9999 * label.radius, p, worth))) > 0).all()
        if p == 2:
            assert (worth(network(climbed(network, x, 4 * label.radius, p, worth))) <= 0).double().mean() > 0.4
    again = certify(network, [(part, None) for part in x.split(13)], p=p, decision=MultiLabel(0.1))
    torch.testing.assert_close(again.radius, certificate.radius, rtol=0, atol=1e-12)


def test_several_labels_come_with_batches_and_as_truth_values(seed):
    network, x, y = freeze(mlp([6, 8, 3])), torch.randn(20, 6), torch.randint(2, (20, 3))
    whole = certify(network, x, y, decision=MultiLabel())
    parts = certify(network, list(zip(x.split(7), y.bool().split(7), strict=True)), decision=MultiLabel())
    torch.testing.assert_close(parts.radius, whole.radius, rtol=0, atol=1e-12)
    assert whole.paired(parts).difference == 0 and whole.accuracy(0) == float(whole.correct.double().mean())


@pytest.mark.parametrize("decision", [TopK(2), PAIRS, OneVsRest(0), MultiLabel()], ids=repr)
@pytest.mark.parametrize("value", [math.nan, INF, -INF])
def test_what_is_not_finite_is_never_certified(decision, value):
    x = torch.tensor([[value, 4.0, 3.0, 2.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    assert certify(nn.Identity(), x, decision=decision).correct.tolist() == [False, True]


@pytest.mark.parametrize("decision", [TopK(2), PAIRS, OneVsRest(1)], ids=repr)
def test_radii_are_below_the_rational_truth_where_logits_are_hidden_by_rounding(decision):
    """Biases of 1e7 round the logits by some 1e-9; in the ∞-norm the radius of each pair is exact but for that."""
    layer, x = linear(gaussian(5, 3, seed=1).tolist(), [1e7] * 5, torch.float64), gaussian(40, 3)
    certificate, near = certify(layer, x, p=INF, decision=decision), 0
    rows = [[Fraction(w) for w in row] for row in layer.weight.tolist()]
    for point, target, radius in zip(x.tolist(), certificate.prediction.tolist(), certificate.radius, strict=True):
        logits = [sum(w * Fraction(v) for w, v in zip(row, point, strict=True)) for row in rows]
        truth = [
            max((logits[t] - logits[i]) / sum(map(abs, map(Fraction.__sub__, rows[t], rows[i]))) for i, t in pairs)
            for pairs in lost_at(decision, target, 5)
        ]
        assert Fraction(float(radius)) <= max(min(truth), 0)
        near += float(radius) > float(min(truth)) - 1e-6
    assert near > 30


def test_ties_are_never_certified():
    x = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert certify(nn.Identity(), x, torch.tensor([2]), decision=TopK(2)).accuracy(0) == 0
    assert certify(nn.Identity(), x, torch.tensor([2]), decision=TopK(3)).accuracy(0) == 1
    assert certify(nn.Identity(), x, decision=Groups([[0, 1], [2, 3]])).accuracy(0) == 0
    assert certify(nn.Identity(), x, decision=MultiLabel(1.0)).each[0].accuracy(0) == 0


def test_what_float64_cannot_tell_apart_is_not_certified():
    """Biases of 1e17 hide the logits, which are off by some ten."""
    layer = linear(torch.eye(4).tolist(), [1e17] * 4, torch.float64)
    x = torch.tensor([[5.0, 4.0, 3.0, 2.0]], dtype=torch.float64)
    for decision in (TopK(2), Groups([[0, 1], [2, 3]]), MultiLabel(1e17)):
        assert certify(layer, x, decision=decision).accuracy(0) == 0


def test_a_constant_network_keeps_its_decisions_for_ever():
    layer = linear([[0.0]] * 3, [3.0, 2.0, 1.0])
    x, y = torch.ones(3, 1), torch.tensor([0, 1, 2])
    assert certify(layer, x, y, decision=TopK(2)).radius.tolist() == [INF, INF, 0.0]
    assert certify(layer, x, y, decision=Groups([[0, 1], [2]])).radius.tolist() == [INF, INF, 0.0]
    assert certify(layer, x[:1], torch.tensor([[1, 1, 0]]), decision=MultiLabel(1.5)).radius.tolist() == [INF]


@pytest.mark.parametrize("scale", [1e-270, 1e-150, 1.0, 1e150, 4e307])
def test_all_leads_are_gone_at_their_exact_distance_rounded_down(scale):
    leads = (gaussian(60, 4) + 0.5) * scale
    for row, found in zip(leads.tolist(), all_gone(leads, 2.0).tolist(), strict=True):
        ordered, best = sorted((max(Fraction(m), Fraction(0)) for m in row), reverse=True), None
        for j in range(1, 5):
            s = sum(ordered[:j]) / (j + 1)
            square = s**2 + sum(max(m - s, 0) ** 2 for m in ordered)
            best = square if best is None else min(best, square)
        assert (2 * Fraction(found)) ** 2 <= best
        assert (2 * Fraction(found)) ** 2 >= best * Fraction(999_999, 1_000_000)


def test_without_a_constant_nothing_is_proven_and_with_zero_all_that_is_ahead_lasts():
    leads = torch.tensor([[-1.0, -2.0], [-1.0, 2.0], [math.nan, 1.0]], dtype=torch.float64)
    assert all_gone(leads, INF).tolist() == [0.0, 0.0, 0.0]
    assert all_gone(leads, 0.0)[:2].tolist() == [0.0, INF]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TopK(0), "k must be an integer ≥ 1"),
        (lambda: OneVsRest(-1), "positive must be an integer ≥ 0"),
        (lambda: Groups([[0, 1, 2]]), "1 group leaves nothing to decide"),
        (lambda: Groups([[0], []]), "a group must be a list of classes"),
        (lambda: Groups([[0], [True]]), "a class must be an integer"),
        (lambda: MultiLabel(math.nan), "threshold must be a finite number"),
        (lambda: MultiLabel([0.0, INF]), "threshold must be a list of finite numbers"),
    ],
)
def test_decisions_that_make_no_sense_are_refused(make, sentence):
    with pytest.raises(TightlipError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("decision", "y", "sentence"),
    [
        (TopK(3), None, "always among the 3 largest of 3 logits"),
        (OneVsRest(3), None, "no class 3 among 3"),
        (Groups([[0], [1]]), None, "class 2 is not in exactly one group"),
        (Groups([[0, 1], [2, 3]]), None, "class 3 is not in exactly one group"),
        (Groups([[0, 1], [2, 1]]), None, "class 1 is not in exactly one group"),
        (MultiLabel([0.0, 0.0]), None, "2 thresholds do not fit 3 logits"),
        (MultiLabel(), torch.zeros(2).long(), "a row of 0 and 1 for each"),
        (MultiLabel(), torch.zeros(2, 2).long(), r"\(2, 2\) do not fit logits of shape \(2, 3\)"),
        (MultiLabel(), torch.full((2, 3), 2), "labels reach from 2 to 2: give 1 for present"),
        (TopK(2), torch.tensor([0, 3]), "labels reach from 0 to 3"),
        ("top2", None, r"decision must be one such as TopK\(3\)"),
        (TopK, None, r"decision must be one such as TopK\(3\)"),
    ],
    ids=str,
)
def test_decisions_that_do_not_fit_are_refused(decision, y, sentence):
    with pytest.raises(TightlipError, match=sentence):
        inspect.unwrap(certify)(nn.Identity(), torch.rand(2, 3), y, decision=decision)


def test_one_logit_has_two_classes_and_one_label():
    x = torch.tensor([[-0.5], [0.25]], dtype=torch.float64)
    assert certify(nn.Identity(), x, decision=OneVsRest(1)).radius.tolist() == pytest.approx([0.5, 0.25])
    assert certify(nn.Identity(), x, decision=MultiLabel()).radius.tolist() == pytest.approx([0.5, 0.25])
    with pytest.raises(TightlipError, match="2 largest of 2"):
        certify(nn.Identity(), x, decision=TopK(2))


def test_thresholds_and_groups_may_be_arrays():
    assert (
        MultiLabel(np.array([0.1, 0.2]))
        == MultiLabel(torch.tensor([0.1, 0.2], dtype=torch.float64))
        == MultiLabel([0.1, 0.2])
    )
    assert MultiLabel(np.array(0.5)) == MultiLabel(0.5)
    groups = Groups([[0, 1], [2, 3]])
    assert Groups(np.array([[0, 1], [2, 3]])) == Groups([np.array([0, 1]), torch.tensor([2, 3])]) == groups

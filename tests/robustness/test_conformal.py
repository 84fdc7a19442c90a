"""Conformal sets hold the true class as often as they say, also under attack, and not much more often."""

import inspect
import math

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom
from torch import nn
from truths import gaussian, linear

from tightlip import ConformalSets, TightlipError, certify, conformal_sets, freeze, mlp

LINE = linear([[1.0], [-1.0]])
"""Two logits x and −x: the score of class 0 is −2x, that of class 1 is 2x."""


def noisy(count, seed):
    """Points of two classes that overlap, around 1 and −1."""
    y = torch.arange(count) % 2
    return (1 - 2 * y).unsqueeze(1) + 0.8 * gaussian(count, 1, seed=seed), y


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_share_of_sets_with_the_true_class_is_what_was_asked_for(alpha):
    """The exact law: over calibrations of n = 99 the coverage is Beta(k, n + 1 − k), k = ⌈100·(1 − α)⌉."""
    x, y = noisy(20_000, 1)
    scores = -2 * x[:, 0] * (1 - 2 * y)
    drawn = [conformal_sets(LINE, *noisy(99, 100 + draw), alpha=alpha) for draw in range(40)]
    assert torch.equal(drawn[0](x)[torch.arange(len(x)), y], scores <= drawn[0].quantile)
    found = [float((scores <= sets.quantile).double().mean()) for sets in drawn]
    k = math.ceil(100 * (1 - alpha))
    law = beta(k, 100 - k)
    assert abs(np.mean(found) - law.mean()) < 4 * law.std() / math.sqrt(40)
    assert law.ppf(1e-4) < min(found) and max(found) < law.ppf(1 - 1e-4)


def test_sets_with_eps_withstand_the_worst_move_and_those_without_do_not():
    (x, y), eps, alpha = noisy(4000, 2), 0.5, 0.1
    moved = x - eps * (1 - 2 * y).unsqueeze(1)  # as much against the true class as is allowed
    robust, plain = (conformal_sets(LINE, *noisy(999, 3), alpha=alpha, eps=size) for size in (eps, 0.0))
    held, lost = (int(sets(moved)[torch.arange(4000), y].sum()) for sets in (robust, plain))
    at_least, at_most = binom.ppf([1e-4, 1 - 1e-4], 4000, 1 - alpha) + 4000 * np.array([-0.04, 0.04])
    assert at_least < held < at_most  # of a linear map the move is exactly what eps allows for
    assert lost < at_least and robust.quantile == plain.quantile
    assert (robust(x) | ~plain(x)).all()  # and they only ever grow


def test_a_set_is_what_its_formula_says(seed):
    network = freeze(mlp([6, 8, 4])).double()
    x, y = torch.randn(50, 6, dtype=torch.float64), torch.randint(4, (50,))
    sets = conformal_sets(network, x, y, alpha=0.3, eps=0.2)
    scores = sorted((-certify(network, x, y).margin).tolist())
    assert sets.quantile == scores[math.ceil(51 * 0.7) - 1] and sets.calibrated == 50
    logits, weight = network(x).detach(), network[2].weight.detach()
    steep = (weight[:, None] - weight[None]).norm(dim=2) * float(network[3].scale)
    ahead = logits[:, None, :] - logits[:, :, None] - 0.2 * steep
    ahead.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    assert torch.equal(sets(x), ahead.amax(2) <= sets.quantile)
    assert torch.equal(sets(x.numpy(), batch_size=7), sets(x)) and torch.equal(sets(x.split(9)), sets(x))


def test_a_move_within_eps_never_drops_a_class_that_was_in_the_plain_set(seed):
    network = freeze(mlp([6, 16, 16, 4])).double()
    x, y = torch.randn(200, 6, dtype=torch.float64), torch.randint(4, (200,))
    robust, plain = (conformal_sets(network, x, y, alpha=0.5, eps=eps) for eps in (0.1, 0.0))
    for draw in range(5):
        move = nn.functional.normalize(gaussian(200, 6, seed=draw), dim=1) * 0.1 * (1 - 1e-12)
        assert (robust(x + move) | ~plain(x)).all()


def test_one_logit_has_sets_of_two_classes():
    single = linear([[2.0]])
    (x, y), (points, _) = noisy(199, 5), noisy(50, 6)
    one, two = conformal_sets(single, x, 1 - y, eps=0.1), conformal_sets(LINE, x, y, eps=0.1)
    assert torch.equal(one(points).flip(1), two(points))


def test_what_is_not_finite_is_left_open():
    sets = conformal_sets(LINE, *noisy(99, 7))
    assert sets(torch.tensor([[math.nan], [math.inf], [5.0]])).tolist() == [[True, True], [True, True], [True, False]]
    x, y = noisy(19, 8)
    x[3] = math.nan  # of 19 scores one is infinite, and alpha = 0.05 needs the 19th
    assert conformal_sets(LINE, x, y, alpha=0.05).quantile == math.inf


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alpha": 0.0}, "alpha must be a finite number > 0"),
        ({"alpha": 1.0}, "alpha must be a number between 0 and 1, got 1.0: 0.1 is usual"),
        ({"eps": -0.1}, "eps must be a finite number ≥ 0"),
        ({"alpha": 0.05}, r"10 inputs cannot calibrate sets for alpha = 0.05: give at least 19"),
        ({"y": None}, "give the true classes y"),
        ({"p": 3}, "no norm is called 3"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(options, sentence):
    x, y = noisy(10, 0)
    with pytest.raises(TightlipError, match=sentence):
        inspect.unwrap(conformal_sets)(LINE, x, **{"y": y} | options)


def test_the_least_number_of_inputs_is_enough():
    for count, alpha in ((9, 0.1), (19, 0.05), (1, 0.5)):
        assert isinstance(conformal_sets(LINE, *noisy(count, 1), alpha=alpha), ConformalSets)


def test_no_batches_are_one_sentence():
    for nothing in ([], iter([])):
        with pytest.raises(TightlipError, match="there are no batches: give at least one"):
            conformal_sets(LINE, *noisy(99, 100))(nothing)

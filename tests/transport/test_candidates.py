"""Lists of near points prove what prices are worth: never more than all pairs do, whatever happened to prices since."""

import math

import pytest
import torch
from truths import gaussian

from tightlip.transport import candidates
from tightlip.transport.auction import Auction
from tightlip.transport.candidates import Candidates
from tightlip.transport.distances import distances, smallest

NORMS = [1.0, 2.0, math.inf]


def listed(x, y, p, prices, careful=False):
    lists = Candidates(x, y, p, careful)
    lists.fill(prices, lambda: None)
    return lists


@pytest.mark.parametrize("shape", [(5, 40), (3, 2111), (7, 2112), (2, 5000)])
@pytest.mark.parametrize("k", [1, 33])
def test_the_smallest_are_those_of_topk(shape, k):
    values = gaussian(*shape)
    values[0] = values[0].round()  # ties
    values[1, : shape[1] // 2] = math.inf
    least, places = smallest(values, k)
    assert torch.equal(least, values.topk(k, 1, largest=False).values)
    assert torch.equal(values.gather(1, places), least)
    assert all(len(set(row)) == k for row in places.tolist())


CLOUDS = {
    "gaussian": (gaussian(300, 20) / 8, gaussian(300, 20, seed=1) / 8),
    "two clusters": tuple(gaussian(300, 20, seed=s) * 1e-3 + (torch.arange(300) % 2)[:, None] for s in (0, 1)),
    "almost the same": (gaussian(300, 20) / 8, gaussian(300, 20) / 8 + 1e-9 * gaussian(300, 20, seed=1)),
    "heavy tails": tuple(gaussian(300, 20, seed=s) / gaussian(300, 20, seed=s + 2) / 1e3 for s in (0, 1)),
    "few coordinates": (gaussian(300, 3) / 8, gaussian(300, 3, seed=1) / 8),
}


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_lists_never_prove_too_much(cloud, careful, p):
    x, y = CLOUDS[cloud]
    generator = torch.Generator().manual_seed(0)
    prices = gaussian(300, seed=3) * 0.1
    lists = listed(x, y, p, prices, careful)
    for trial in range(12):
        values, error = lists.proven(prices)
        exact = (distances(x, y, p) + prices).amin(1)
        assert bool((values - error <= exact).all()) and error < 1e-6
        if trial == 0:  # fresh lists are as good as all pairs, but for what products lose
            lost = 0.0 if lists.products is None else float(lists.products.loss(lists.nearest).max())
            assert float((exact - values).max()) <= 2 * lost + 1e-13 and (cloud != "gaussian" or lost < 1e-4)
        rising = torch.rand(300, generator=generator) < 0.3
        prices = prices + rising * 10.0 ** -float(trial % 4) * torch.rand(300, generator=generator)
        if trial % 3 == 2:
            lists.renew(torch.randperm(300, generator=generator)[:50], prices)
        if trial % 3 == 1:  # some fall, far below all others
            fallen = torch.randperm(300, generator=generator)[: 5 * trial]
            prices[fallen] -= 10.0 ** -float(trial % 2) * torch.rand(len(fallen), generator=generator)
            lists.cheaper(fallen, distances(x, y[fallen], p) + prices[fallen], prices)


def test_a_price_that_fell_and_was_not_told_would_prove_too_much():
    x, y = CLOUDS["gaussian"]
    lists, prices = listed(x, y, 2.0, torch.zeros(300, dtype=torch.float64)), torch.zeros(300, dtype=torch.float64)
    prices[0] = -1.0
    exact = (distances(x, y, 2.0) + prices).amin(1)
    assert float((lists.proven(prices)[0] - exact).max()) > 0.1
    lists.cheaper(torch.tensor([0]), distances(x, y[:1], 2.0) - 1.0, prices)
    assert float((lists.proven(prices)[0] - exact).max()) < 1e-6


def test_what_nobody_holds_becomes_cheaper_and_nobody_leaves_for_it():
    x, y = gaussian(600, 20) / 8, gaussian(600, 20, seed=1) / 8
    y[-4:] *= 20  # far from everyone
    zero = torch.zeros(600, dtype=torch.float64)
    auction = Auction(listed(x, y, 2.0, zero), zero, torch.Generator().manual_seed(0))
    costs = distances(x, y, 2.0)
    auction.held[:300] = auction.holder[:300] = torch.arange(300).flip(0)
    least = costs.amin(1)
    auction._reduce()
    assert bool((auction.prices[:300] == 0).all()) and bool((auction.prices[300:] <= 0).all())
    assert float(auction.prices[-4:].max()) < -5
    after = (costs + auction.prices).amin(1)
    assert float((least - after).abs().max()) < 1e-5  # float32 in the lists tells it so well
    assert float((costs + auction.prices - least[:, None])[:, 300:].amin(0).max()) < 1e-5  # somebody would take it


def test_thresholds_are_below_what_is_outside_by_products_too():
    """In two clusters far apart products lose the distances within each, and the thresholds know it."""
    x, y = CLOUDS["two clusters"]
    lists = listed(x, y, 2.0, torch.zeros(300, dtype=torch.float64))
    assert lists.products is not None
    outside = distances(x, y, 2.0).scatter(1, lists.index.long(), math.inf).amin(1)
    loss = lists.products.loss(lists.nearest)
    assert bool((lists.threshold - loss <= outside).all()) and bool((lists.threshold > outside).any())


@pytest.mark.parametrize("digits", [torch.bfloat16, torch.float16])
def test_products_with_fewer_digits_are_noticed(monkeypatch, digits):
    """As where torch may compute products of float32 in half precision."""

    def rounded(self, rows):
        products = self.x[rows].to(digits).float() @ self.y.to(digits).float().mT
        return self.y_squares - 2 * products

    monkeypatch.setattr(candidates._Products, "_squares", rounded)
    assert Candidates(*CLOUDS["gaussian"], 2.0, careful=False).products is None


def test_products_of_float32_are_used():
    assert Candidates(*CLOUDS["gaussian"], 2.0, careful=False).products is not None

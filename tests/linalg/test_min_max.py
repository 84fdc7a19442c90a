"""Sorting by minima and maxima alone: sorted, whatever the size, in few stages of pairs that share no member."""

import math

import pytest
import torch
from truths import gaussian

from tightlip.linalg.min_max import sort_by_min_max, stages


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 31, 32, 100])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_members_are_sorted_along_their_axis(size, dim):
    x = gaussian(3, 4, 5).movedim(dim, 0)[:1].repeat_interleave(size, 0) + gaussian(size, *[1] * 2, seed=1)
    x = x.movedim(0, dim)
    assert torch.equal(sort_by_min_max(x, dim), x.sort(dim=dim).values)


def test_every_pattern_of_zeros_and_ones_is_sorted():
    """A network of comparators that sorts these sorts all numbers (Knuth 5.3.4, Theorem Z)."""
    bits = (torch.arange(2**17)[:, None] >> torch.arange(17)).bitwise_and(1).to(torch.int8)
    assert torch.equal(sort_by_min_max(bits, 1), bits.sort(dim=1).values)


@pytest.mark.parametrize("size", [2, 17, 64, 200])
def test_stages_move_every_member_and_are_few(size):
    found = stages(size)
    assert all(sorted(order) == list(range(size)) and 2 * pairs <= size for order, pairs in found)
    bits = math.ceil(math.log2(size))
    assert len(found) <= bits * (bits + 1) // 2 + 1

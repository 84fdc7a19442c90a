"""Products with what rounding took from them, against exact rationals, at scales where floats end."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch

from tightlip.linalg.enclosure import Enclosure, Scales
from tightlip.linalg.spectral import operator_norm_bounds
from tightlip.norms import PAIRS

FAR = (5e-324, 1e-310, 1e-150, 1e-30, 0.3, 1.0, 7.0, 1e30, 1e150, 1e300)


def drawn(draw, rows, columns):
    def entry():
        return draw.choice((0.0, draw.gauss(0, 1) * draw.choice(FAR), draw.gauss(0, 1)))

    return torch.tensor([[entry() for _ in range(columns)] for _ in range(rows)], dtype=torch.float64)


def exact(matrix):
    return [[Fraction(a) for a in row] for row in matrix.tolist()]


def product(a, b):
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]


def assert_encloses(found, truth):
    unit, share = Fraction(2) ** found.exponent, Fraction(found.share)
    for i, row in enumerate(truth):
        for j, value in enumerate(row):
            center, size = Fraction(float(found.center[i, j])), Fraction(float(found.size[i, j]))
            assert abs(value - center * unit) <= share * size * unit
            assert abs(center) <= size
    assert found.share < 1e-13


@pytest.mark.parametrize("seed", range(60))
def test_scaled_and_multiplied_entries_lie_where_the_enclosure_says(seed):
    draw = random.Random(seed)
    shape = [draw.randint(1, 5) for _ in range(4)]
    found, truth = Enclosure.of(first := drawn(draw, shape[1], shape[0])), exact(first)
    for inputs, outputs in itertools.pairwise(shape[1:]):
        numbers = [draw.choice((-1, 1)) * draw.choice((*FAR, 0.0)) for _ in range(inputs)]
        found = found.scaled(Scales.of(torch.tensor(numbers, dtype=torch.float64)), (-1, 1))
        truth = [[Fraction(d) * a for a in row] for d, row in zip(numbers, truth, strict=True)]
        assert_encloses(found, truth)
        following = drawn(draw, outputs, inputs)
        found, truth = Enclosure.of(following).after(found), product(exact(following), truth)
        assert_encloses(found, truth)


@pytest.mark.parametrize("seed", range(30))
def test_norms_from_1_and_to_infinity_are_above_the_exact_ones_and_close(seed):
    draw = random.Random(seed)
    a, b = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    d = [draw.choice((1e-150, 1e150, 1.0, 1e-3)) for _ in range(3)]
    found = Enclosure.of(a).after(Enclosure.of(b).scaled(Scales.of(torch.tensor(d, dtype=torch.float64)), (-1, 1)))
    scaled = [[Fraction(s) * x for x in row] for s, row in zip(d, exact(b), strict=True)]
    truth = product(exact(a), scaled)
    bounds = found.norm_bounds(operator_norm_bounds)
    assert set(bounds) == set(PAIRS)
    norms = {
        (1.0, 1.0): max(sum(map(abs, column)) for column in zip(*truth, strict=True)),
        (math.inf, math.inf): max(sum(map(abs, row)) for row in truth),
        (1.0, math.inf): max(abs(x) for row in truth for x in row),
    }
    for pair, norm in norms.items():
        assert norm <= bounds[pair] <= norm * (1 + Fraction(1, 10**12))


def test_what_cancels_to_nothing_keeps_a_bound_of_the_size_of_rounding():
    third = torch.tensor([[1 / 3, 0.1]], dtype=torch.float64)
    found = Enclosure.of(third).after(Enclosure.of(torch.tensor([[0.1], [-1 / 3]], dtype=torch.float64)))
    bound = found.norm_bounds(operator_norm_bounds)[2.0, 2.0]
    assert 0 <= float(bound) < 1e-16


@pytest.mark.parametrize("std", [5e-324, 2.3e-308, 1e-150, 0.1, 3.0, 1e150, 1.7e308])
def test_reciprocals_and_products_of_diagonals_are_within_their_share(std):
    one = Scales.of(torch.tensor([std, -std, 1.0], dtype=torch.float64)).reciprocal()
    both = one.times(one)
    for scales, power in ((one, 1), (both, 2)):
        for place, sign in ((0, 1), (1, (-1) ** power)):
            held = Fraction(float(scales.mantissa[place])) * Fraction(2) ** int(scales.exponent[place])
            truth = sign / Fraction(std) ** power
            assert abs(truth - held) <= Fraction(scales.share) * abs(held)
        assert scales.largest() >= max(1 / Fraction(std) ** power, Fraction(1))
        assert scales.largest() <= max(1 / Fraction(std) ** power, Fraction(1)) * (1 + Fraction(1, 10**14))


def test_scales_are_alike_only_with_one_sign_and_zero_has_no_size():
    assert Scales.of(torch.full((3,), 0.3, dtype=torch.float64)).alike()
    assert not Scales.of(torch.tensor([0.3, -0.3], dtype=torch.float64)).alike()
    nothing = Scales.of(torch.zeros(2, dtype=torch.float64))
    assert nothing.largest() == 0
    repeated = Scales.of(torch.tensor([1.0, 3.0], dtype=torch.float64)).at(np.array([1, 1, 0]))
    assert len(repeated) == 3 and repeated.largest() == 3


def test_entries_that_lose_bits_beside_much_larger_ones_are_enclosed():
    weight = torch.tensor([[1e300, 1.2345678e-20], [3.3e-30, 0.0]], dtype=torch.float64)
    found = Enclosure.of(weight)
    assert_encloses(found, exact(weight))
    swapped = found.scaled(Scales.of(torch.tensor([1e-300, 1e300], dtype=torch.float64)), (1, -1))
    assert_encloses(
        swapped,
        [[Fraction(a) * Fraction(d) for a, d in zip(row, (1e-300, 1e300), strict=True)] for row in exact(weight)],
    )


def test_each_diagonal_adds_its_rounding():
    draw = random.Random(0)
    found, truth = Enclosure.of(torch.ones(40, 1, dtype=torch.float64)), [[Fraction(1)] for _ in range(40)]
    for _ in range(8):
        numbers = [draw.uniform(1.0, 2.0) for _ in truth]
        found = found.scaled(Scales.of(torch.tensor(numbers, dtype=torch.float64)), (-1, 1))
        truth = [[Fraction(d) * a for a in row] for d, row in zip(numbers, truth, strict=True)]
        assert_encloses(found, truth)


@pytest.mark.parametrize("terms", [3, 4096])
def test_a_sum_of_n_products_may_be_off_by_gamma_n(terms):
    """Equal terms round alike, so that errors add up; how far depends on the order of summation, which is not known."""
    row = torch.full((1, terms), 1 / 3, dtype=torch.float64)
    found = Enclosure.of(row).after(Enclosure.of(row.mT.contiguous()))
    assert Fraction(found.share) >= terms * Fraction(1, 2**53)
    unit = Fraction(2) ** found.exponent
    truth = terms * Fraction(1 / 3) ** 2
    center, size = Fraction(float(found.center)), Fraction(float(found.size))
    assert abs(truth - center * unit) <= Fraction(found.share) * size * unit

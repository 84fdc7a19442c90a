"""Some networks of each family, 180 in all, and 150 pairs of samples; `make redteam` takes 11,500 and 1,000."""

import pytest
from red_team.checks import FAMILIES
from red_team.tally import Tally

SLICE = {
    "matrices": 100,
    "affine": 24,
    "nests": 8,
    "smooth": 6,
    "pools": 12,
    "interpolants": 4,
    "distances": 150,
    "machines": 20,
    "checkers": 6,
}
LEAST = {
    "matrices": 1000,
    "affine": 400,
    "nests": 80,
    "smooth": 60,
    "pools": 120,
    "interpolants": 130,
    "distances": 900,
    "machines": 100,
    "checkers": 80,
}
"""Comparisons in the slice, so that a family that looks at nothing is seen."""


@pytest.mark.parametrize("family", FAMILIES)
def test_no_bound_is_below_the_truth_and_no_radius_above_it(family):
    tally = Tally()
    for seed in range(SLICE[family]):
        FAMILIES[family][0](seed, tally)
    assert not tally.complaints, tally.complaints[0]
    assert sum(tally.checks.values()) - tally.checks["refused"] >= LEAST[family]

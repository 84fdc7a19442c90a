"""Some hundred networks of each family; `make redteam` takes 10,000."""

import pytest
from red_team.checks import FAMILIES
from red_team.tally import Tally

SLICE = {"matrices": 150, "affine": 80, "nests": 25, "smooth": 10, "pools": 30, "interpolants": 10}
LEAST = {"matrices": 1500, "affine": 1000, "nests": 300, "smooth": 100, "pools": 300, "interpolants": 500}
"""Comparisons in the slice, so that a family that looks at nothing is seen."""


@pytest.mark.parametrize("family", FAMILIES)
def test_no_bound_is_below_the_truth_and_no_radius_above_it(family):
    tally = Tally()
    for seed in range(SLICE[family]):
        FAMILIES[family][0](seed, tally)
    assert not tally.complaints, tally.complaints[0]
    assert sum(tally.checks.values()) - tally.checks["refused"] >= LEAST[family]

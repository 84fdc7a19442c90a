"""Some networks of each family, 243 in all; `make redteam` takes 10,000."""

import pytest
from red_team.checks import FAMILIES
from red_team.tally import Tally

SLICE = {"matrices": 150, "affine": 45, "nests": 14, "smooth": 8, "pools": 20, "interpolants": 6}
LEAST = {"matrices": 1500, "affine": 800, "nests": 150, "smooth": 80, "pools": 200, "interpolants": 200}
"""Comparisons in the slice, so that a family that looks at nothing is seen."""


@pytest.mark.parametrize("family", FAMILIES)
def test_no_bound_is_below_the_truth_and_no_radius_above_it(family):
    tally = Tally()
    for seed in range(SLICE[family]):
        FAMILIES[family][0](seed, tally)
    assert not tally.complaints, tally.complaints[0]
    assert sum(tally.checks.values()) - tally.checks["refused"] >= LEAST[family]

"""Nothing that is false passes, whoever sealed it."""

import numpy as np
import pytest
import tightlip_check
from refutations import REFUTATIONS


@pytest.mark.parametrize("name", REFUTATIONS)
def test_it_is_refused(name):
    REFUTATIONS[name](tightlip_check)


def test_a_norm_of_nothing_is_not_taken_for_no_claim():
    outline = ["Linear", {"in_features": 2, "out_features": 2, "bias": False}]
    with pytest.raises(ValueError, match="the 2-norm 0.0 of '' is not proven"):
        tightlip_check.Network(outline, {"weight": np.diag([0.9, 0.8])}, {"": 0.0}, np.ones((1, 2)))

"""Nothing that is false passes, whoever sealed it."""

import pytest
import tightlip_check
from refutations import REFUTATIONS


@pytest.mark.parametrize("name", REFUTATIONS)
def test_it_is_refused(name):
    REFUTATIONS[name](tightlip_check)

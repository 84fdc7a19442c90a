"""Distances of images that are known: the interval holds them, and no critic is above."""

import pytest

from tightlip import TightlipError
from tightlip.experiments import real_data_truth
from tightlip.experiments.real_data_truth import Config


@pytest.mark.parametrize("case", real_data_truth.GRID["case"])
@pytest.mark.parametrize("shift", [1.0, 0.25])
def test_the_interval_holds_the_truth_and_the_critic_is_below(case, shift):
    found = real_data_truth.run(Config(case, shift, steps=60, width=32, tolerance=1e-3), 0).metrics
    truth = {"translation": 1.0, "digits": 8.2233113054}[case] * shift
    assert set(found) == set(real_data_truth.METRICS) and found["truth"] == pytest.approx(truth, rel=1e-12)
    assert found["lower"] <= truth * (1 + 1e-10) and truth * (1 - 1e-10) <= found["upper"]
    assert 0 <= found["gap_percent"] <= 0.11 and 0.2 * truth < found["critic"] <= truth * (1 + 1e-9)
    assert 1 - 1e-6 < found["constant"] <= 1 + 1e-6
    assert found["critic_percent"] == pytest.approx(100 * found["critic"] / truth)


def test_a_case_that_is_unknown_is_refused():
    with pytest.raises(TightlipError, match="no case is called 'digit' .did you mean digits"):
        real_data_truth.run(Config("digit"), 0)

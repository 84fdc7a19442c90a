"""What buys certified accuracy: each change alters what it says, against the same base, and the test part is unseen."""

from dataclasses import asdict, replace

import pytest

from tightlip.experiments import certified_ablations as study
from tightlip.experiments import tuning
from tightlip.experiments.classification_options import check


@pytest.fixture
def base():
    return study.based(study.Config(eps=1.58))


def test_the_base_is_what_train_does_for_the_radius(base):
    options = tuning.options_of(base)
    assert options.way == "orthonormal" and options.sizes.hidden == (512, 512, 512) and options.radius == 1.58
    assert options.settings == tuning.options_of(replace(base, offset=None, temperature=None)).settings
    assert options.settings["offset"] == pytest.approx(0.73 + 1.56 * 1.58, abs=0.01)


@pytest.mark.parametrize("change", study.CHANGES)
def test_a_change_alters_the_options_that_it_names_and_can_be_trained(change, base):
    changed = replace(base, **study.CHANGES[change](base))
    check(tuning.options_of(changed))
    differ = {name for name, value in asdict(changed).items() if value != asdict(base)[name]}
    assert len(differ - {"temperature"}) <= 1 or differ - {"depth"} == {"network", "hidden"}
    assert bool(differ) is (change != "base")


def test_changes_differ_from_each_other(base):
    made = [str(replace(base, **make(base))) for make in study.CHANGES.values()]
    assert len(set(made)) == len(made)


def test_what_is_certified_is_that_of_the_validation_part(monkeypatch):
    asked = []

    def run(config, seed):
        asked.append((config, seed))
        return tuning.Outcome({"accuracy": 0.9, "certified_0.3": 0.8, "constant": 1.0, "inputs": 7, "cpu_seconds": 2.0})

    monkeypatch.setattr(tuning, "run", run)
    found = study.run(study.Config("twice as wide", width=8), 3).metrics
    assert found == {"accuracy": 0.9, "certified": 0.8, "constant": 1.0, "cpu_seconds": 2.0}
    assert asked[0][0].hidden == (16, 16, 16) and asked[0][0].eps == (0.3,) and asked[0][1] == 3

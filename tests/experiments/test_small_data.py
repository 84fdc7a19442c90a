"""Small data: as many examples of each class as asked for, and strengths that the validation part chooses."""

import pytest
import torch
from torch import nn

from tightlip import TightlipError
from tightlip.data import Part, Splits
from tightlip.experiments import small_data as study
from tightlip.experiments.digits import Material, Trained


@pytest.fixture
def material():
    """Three classes with 20, 15 and 10 training examples, each of its own number."""
    labels = torch.tensor([0] * 20 + [1] * 15 + [2] * 10)
    part = Part(torch.arange(45.0)[:, None], labels)
    return Material(Splits(part, part, part), 3, {})


def test_there_are_as_many_of_each_class_and_another_seed_draws_others(material):
    part = study.some(material.parts.train, 8, material, 0)
    assert part.labels.bincount().tolist() == [8, 8, 8] and len(part.images.unique()) == 24
    assert torch.equal(material.parts.train.labels[part.images[:, 0].long()], part.labels)
    again, other = (study.some(material.parts.train, 8, material, seed) for seed in (0, 1))
    assert torch.equal(part.images, again.images) and not torch.equal(part.images, other.images)


def test_larger_samples_hold_the_smaller(material):
    few, more = (study.some(material.parts.train, count, material, 0).images[:, 0].tolist() for count in (3, 9))
    assert set(few) < set(more)


@pytest.mark.parametrize("count", [0, 11])
def test_samples_that_there_are_not_are_refused(material, count):
    with pytest.raises(TightlipError, match="per_class"):
        study.some(material.parts.train, count, material, 0)


@pytest.mark.parametrize("method", study.WAYS)
def test_options_are_those_of_the_method(method):
    way = study.WAYS[method]
    for strength in way.strengths or (None,):
        options = study.options(study.Config(method), way, strength, 3)
        assert (options.way, options.activation, options.shift, options.seed) == (method, way.activation, 0, 3)
        if way.option is not None:
            assert options.settings[way.option] == strength


def test_the_validation_part_chooses_the_strength_and_the_test_part_is_not_asked(monkeypatch):
    """Of networks that know the labels of one part each, the one that knows validation is taken."""
    asked = []

    def trained_as(options, images):
        asked.append(options.settings["dropout"])
        assert len(images.parts.train) == 30
        network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        right = options.settings["dropout"] == 0.5
        with torch.no_grad():
            network[1].weight.zero_()
            network[1].bias.copy_(torch.eye(10)[0 if right else 1])
        return Trained(network.eval().requires_grad_(False), 2.0)

    whole = study.material("mnist5k", 0)
    zero = Part(whole.parts.validation.images, torch.zeros_like(whole.parts.validation.labels))
    rigged = Material(Splits(whole.parts.train, zero, whole.parts.test), 10, whole.source)
    monkeypatch.setattr(study, "trained_as", trained_as)
    monkeypatch.setattr(study, "material", lambda name, seed: rigged)
    found = study.run(study.Config("dropout", 3), 0).metrics
    assert asked == list(study.WAYS["dropout"].strengths)
    assert (found["strength"], found["validation_accuracy"], found["cpu_seconds"]) == (0.5, 1.0, 4.0)
    assert found["accuracy"] == pytest.approx(0.1)  # of the test part, which has ten classes


def test_training_for_margin_is_proven_and_the_rest_is_said():
    found = study.run(study.Config("orthonormal", 20, 32, "mnist5k", 5), 0).metrics
    assert found.keys() == study.METRICS.keys()
    assert found["constant"] <= 1 and 0.1 < found["certified"] <= found["accuracy"] and found["accuracy"] > 0.5

"""Figures 8 and 9: the columns are what they are called, the sound rule holds, and the printed ones can be refuted."""

import math

import pytest
import torch
from torch import nn

from tightlip import certify
from tightlip.data import Part, Splits
from tightlip.experiments import mnist_robustness as study
from tightlip.experiments.digits import Material, Trained

CONFIG = study.Config(inputs=40, steps=10)


@pytest.fixture
def line():
    """f(x) = (x, −x)·10 on points of [−1, 1], for which every rule is known: the radius is |x| and the margin 20|x|."""
    torch.manual_seed(0)
    x = torch.linspace(-0.9, 0.9, 40)[:, None]
    part = Part(x, (x[:, 0] < 0).long())
    network = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Identity())
    network[0].weight.data = torch.tensor([[10.0], [-10.0]])
    return Trained(network.requires_grad_(False), 0.0), Material(Splits(part, part, part), 2, {})


def columns(line):
    result, images = line
    test = images.parts.test
    certificate = certify(result.network, test.images, test.labels, math.inf)
    return study.curves(CONFIG, result, images, certificate), certificate


def test_each_column_is_known_on_a_line(line):
    curve, certificate = columns(line)
    radius = line[1].parts.test.images[:, 0].abs()
    assert certificate.bound.constant == pytest.approx(10)
    assert set(curve) == set(study.CURVES) and {len(column) for column in curve.values()} == {len(study.RADII)}
    for place, eps in enumerate(study.RADII):
        assert curve["certified"][place] == pytest.approx(float((radius > eps).double().mean()), abs=0.026)
        assert curve["attacked"][place] == pytest.approx(float((radius > eps).double().mean()), abs=0.026)
        assert curve["fgs"][place] == pytest.approx(curve["attacked"][place], abs=1e-9)  # linear: one step is enough
        assert curve["figure_9"][place] == pytest.approx(float((2 * radius >= eps).double().mean()), abs=0.026)
        assert curve["section_4_3"][place] == pytest.approx(float((4 * radius > eps).double().mean()), abs=0.026)


def test_the_attack_refutes_the_printed_rules_and_not_the_sound_one(line):
    curve, _ = columns(line)
    found = study.judged(curve)
    assert found["violations"] == 0
    assert found["refuted_figure_9"] > 0.2 and found["refuted_section_4_3"] > found["refuted_figure_9"]
    assert study.judged(curve | {"certified": curve["figure_9"]})["violations"] > 5  # it can count


def test_all_of_the_allowed_drop_is_attained_on_a_line(line):
    _, certificate = columns(line)
    assert study.attained(CONFIG, *line, certificate) == pytest.approx(1.0, abs=1e-3)


def test_the_radii_are_twenty_and_those_of_the_table():
    assert study.RADII[0] == 0 and study.RADII[-1] == 0.5 and len(study.RADII) == 23
    assert set(study.NAMED) < set(study.RADII) and list(study.RADII) == sorted(study.RADII)


@pytest.mark.parametrize("name", study.NETWORKS)
def test_networks_are_trained_as_they_are_called(name):
    options = study.options(study.Config(name, k=500.0), 7)
    assert (options.norm, options.shift, options.seed, options.sizes.hidden) == ("inf", 0, 7, (512, 512, 512))
    assert options.activation in name and options.batch_size == 256
    assert options.constant == (500.0 if "a =" in name else None)
    if "a =" in name:
        asked = options.settings.get("a", options.settings.get("offset"))
        assert asked == float(name[-3:])
    assert ("PGD" in name) == (options.way == "pgd")


def test_a_cell_has_the_metrics_it_says_and_what_is_proven_stands():
    config = study.Config(data="mnist5k", width=32, epochs=4, batch_size=64, inputs=50, steps=5)
    found = study.run(config, 0)
    assert found.metrics.keys() == study.METRICS.keys()
    curve = found.drawings["curve"]
    assert found.metrics["accuracy"] > 0.5 and found.metrics["constant"] <= 1000
    assert found.metrics["violations"] == 0 and 0 < found.metrics["attained"] <= 1
    for proven, stands, fgs in zip(curve["certified"], curve["attacked"], curve["fgs"], strict=True):
        assert proven <= stands <= fgs + 0.05

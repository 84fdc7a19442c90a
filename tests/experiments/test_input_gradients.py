"""Figure 7: each measure of gradients against what is known of it, and what the picture holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tightlip import TightlipError
from tightlip.data import Part, Splits
from tightlip.experiments import input_gradients as study
from tightlip.experiments.digits import Material

SMALL = study.Config(data="mnist5k", width=32, epochs=1, inputs=10)


@pytest.fixture
def images():
    """Three classes of 4 × 4 images in two channels, twenty of each."""
    torch.manual_seed(0)
    part = Part(torch.rand(60, 2, 4, 4), torch.arange(60) % 3)
    return Material(Splits(part, part, part), 3, {"name": "random", "sha256": None})


def network(images):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))


def test_gradients_are_those_of_the_chain_rule_for_every_target(images):
    model, x = network(images), images.parts.test.images[:5]
    slopes = study.gradients(model, x, 3)
    assert slopes.shape == (5, 3, 2, 4, 4) and slopes.dtype == torch.float64
    double = network(images).double()
    for target in range(3):
        change = double(x.double()).softmax(1) - functional.one_hot(torch.tensor(target), 3)
        units = (change @ double[3].weight) * (double[:2](x.double()) > 0)
        assert torch.allclose(slopes[:, target].flatten(1), units @ double[1].weight)
    assert model[1].weight.dtype == torch.float32 and all(weight.grad is None for weight in model.parameters())


def test_a_gradient_along_the_way_to_the_mean_has_cosine_1(images):
    part, means = images.parts.test, study.class_means(images.parts.train, 3)
    assert torch.allclose(means[1], part.images[part.labels == 1].double().mean(0))
    dark = torch.zeros(2, 4, 4, dtype=torch.bool)
    ways = means - part.images.double()[:, None]
    assert study.compared(-3 * ways, part, images, dark)["cosine"] == pytest.approx(1)
    assert study.compared(ways, part, images, dark)["cosine"] == pytest.approx(-1)
    noise = torch.randn(ways.shape, dtype=torch.float64)
    assert abs(study.compared(noise, part, images, dark)["cosine"]) < 0.1


def test_an_images_own_class_does_not_count(images):
    part = images.parts.test
    dark = torch.zeros(2, 4, 4, dtype=torch.bool)
    slopes = torch.randn(60, 3, 2, 4, 4, dtype=torch.float64)
    other = slopes.clone()
    other[torch.arange(60), part.labels] *= -7
    assert study.compared(slopes, part, images, dark) == study.compared(other, part, images, dark)
    other[0, (part.labels[0] + 1) % 3] *= -7
    assert study.compared(slopes, part, images, dark) != study.compared(other, part, images, dark)


@pytest.mark.parametrize(("period", "share"), [(28, 0), (7, 0), (4, 0), (3.5, 1), (2, 1)])
@pytest.mark.parametrize("axis", [0, 1])
def test_waves_are_high_where_their_period_is_below_four_pixels(period, share, axis):
    wave = torch.cos(2 * torch.pi * torch.arange(28, dtype=torch.float64) / period)
    image = wave[:, None].expand(28, 28) if axis == 0 else wave.expand(28, 28)
    assert study.high_frequencies(image[None, None])[0] == pytest.approx(share, abs=1e-12)


def test_white_noise_has_the_share_of_high_frequencies_that_there_are():
    torch.manual_seed(0)
    noise = torch.randn(50, 1, 28, 28, dtype=torch.float64)
    assert study.high_frequencies(noise).mean() == pytest.approx(1 - np.pi / 16, abs=0.02)


def test_energy_is_counted_where_it_lies():
    values = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[1e100, 0.0]]], dtype=torch.float64)
    assert study.share_of_energy(values, torch.tensor([[True, False]])).tolist() == [9 / 25, 0, 1]


def test_pixels_that_a_shift_may_light_are_lit():
    images = torch.zeros(2, 1, 5, 5)
    images[0, 0, 2, 2] = 0.1
    images[1, 0, 0, 4] = 0.1
    assert (~study.unlit(images, 0)).nonzero().tolist() == [[0, 0, 4], [0, 2, 2]]
    lit = ~study.unlit(images, 1)[0]
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[1:4, 1:4] = expected[0:2, 3:5] = True
    assert torch.equal(lit, expected)


def test_the_loss_asks_for_the_margin_in_units_of_the_constant():
    logits, labels = torch.randn(7, 3), torch.arange(7) % 3
    for name in ("standard relu", "10-Lipschitz maxmin"):
        expected = functional.cross_entropy(logits, labels)
        assert torch.allclose(study.loss(study.NETWORKS[name])(logits, labels), expected)
    asking = replace(study.NETWORKS["1-Lipschitz maxmin, margin"], K=2.0)
    shifted = (logits - 1.6 * functional.one_hot(labels, 3)) / 0.5
    assert torch.allclose(study.loss(asking)(logits, labels), 0.5 * functional.cross_entropy(shifted, labels))


def test_the_picture_has_the_same_images_for_all_networks_above_their_gradients(images):
    first, second = (study.picture(network(images), images, seed) for seed in (3, 4))
    assert first["columns"] == ["0", "1", "2"] and first["scale"] == "column"
    assert [row["heading"] for row in first["rows"]] == ["image", "target 0", "target 1", "target 2"]
    assert [row["signed"] for row in first["rows"]] == [False, True, True, True]
    other = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    assert study.picture(other, images, 3)["rows"][0] == first["rows"][0] != second["rows"][0]
    test = images.parts.test
    for label, image in enumerate(first["rows"][0]["images"]):
        near = [float((torch.tensor(image) - own).abs().max()) for own in test.images[test.labels == label]]
        assert min(near) <= 5.1e-4
    slopes = study.gradients(network(images), torch.stack([study.a_test_image(test, 1, 3)]), 3)[0]
    levels = torch.tensor([row["images"][1] for row in first["rows"][1:]])
    assert int(levels.sum(1).abs().max()) in (126, 127, 128)  # whole numbers, summed over two channels
    assert functional.cosine_similarity(levels.double().flatten(), slopes.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("name", study.NETWORKS)
def test_a_cell_has_its_measures_and_its_constant(name):
    outcome = study.run(replace(SMALL, network=name), 0)
    metrics, K = outcome.metrics, study.NETWORKS[name].K
    assert metrics.keys() == study.METRICS.keys() and outcome.data["name"] == "mnist5k"
    assert K is None or 0.99 * K < metrics["constant"] <= K
    assert 0 < metrics["gradient_norm"] <= 2**0.5 * metrics["constant"]  # two logits may part at that rate
    for share in ("high_frequencies", "never_lit", "pixels_never_lit", "accuracy"):
        assert 0 <= metrics[share] <= 1
    assert len(outcome.drawings["images"]["rows"]) == 11 and len(outcome.drawings["images"]["columns"]) == 5


def test_rows_are_refused_before_anything_is_trained(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).random((90, 4)), y=np.arange(90) % 3)
    with pytest.raises(
        TightlipError, match=r"images are needed, as gradients are shown as images.*rows of shape \(4,\)"
    ):
        study.run(replace(SMALL, data=str(tmp_path / "rows.npz"), shift=0), 0)

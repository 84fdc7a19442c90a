"""Classifiers of images: what the studies on digits share."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tightlip import Orthonormal, TightlipError, lipschitz
from tightlip.constraints import constraint_of
from tightlip.data import Part
from tightlip.experiments import digits


@pytest.fixture
def images(tmp_path):
    """90 images of 5 × 5 pixels; each class has its own gray, so that a dense network tells them apart."""
    y = np.arange(90) % 3
    x = np.random.default_rng(0).random((90, 1, 5, 5)) / 4 + y[:, None, None, None] / 4
    np.savez(tmp_path / "grays.npz", x=x.astype(np.float32), y=y)
    return digits.material(str(tmp_path / "grays.npz"), 0)


def trained(material, network, **options):
    options = {"epochs": 10, "batch_size": 8, "learning_rate": 1e-2, "progress": False} | options
    return digits.trained(network, material, functional.cross_entropy, 0, **options)


def test_the_parts_are_those_of_the_seed_and_the_source_is_named(images, tmp_path):
    other = digits.material(str(tmp_path / "grays.npz"), 1)
    assert images.shape == (1, 5, 5) and images.classes == 3
    assert images.source["name"] == "grays" and len(images.source["sha256"]) == 64
    assert not torch.equal(images.parts.train.images, other.parts.train.images)


def test_a_network_with_a_constant_is_held_and_one_without_is_plain(images):
    held, free = (digits.classifier(images, [8, 6], "maxmin", K) for K in (3.0, None))
    linear = [layer for layer in held if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(8, 25), (6, 8), (3, 6)]
    assert all(isinstance(constraint_of(layer), Orthonormal) for layer in linear)
    assert [type(layer) for layer in free] == [type(layer) for layer in nn.Sequential(*list(held)[:-1])]
    assert all(constraint_of(layer) is None for layer in free)


@pytest.mark.parametrize("start", digits.STARTS)
def test_free_weights_begin_as_asked(images, start):
    torch.manual_seed(0)
    layer = digits.classifier(images, [8], "relu", None, start)[1]
    singular = torch.linalg.svdvals(layer.weight.detach())
    if start == "orthogonal":
        assert torch.allclose(singular, torch.full((8,), 25**-0.5))  # gain 1/√fan_in
    else:
        assert layer.weight.abs().max() <= 25**-0.5 and singular.max() > 1.2 * singular.min()


@pytest.mark.parametrize(
    ("options", "says"),
    [({"activation": "nonsense"}, "no activation is called 'nonsense'"), ({"start": "torhc"}, "did you mean torch")],
)
def test_unknown_names_are_refused(images, options, says):
    with pytest.raises(TightlipError, match=says):
        digits.classifier(images, [8], **{"activation": "relu", "K": None} | options)


def test_a_trained_network_is_frozen_and_scored(images):
    torch.manual_seed(0)
    result = trained(images, digits.classifier(images, [8], "maxmin", 3.0))
    score = digits.scored(result, images)
    assert score.keys() == digits.SCORED.keys()
    assert 2.9 < score["constant"] <= 3 and score["constant"] == lipschitz(result.network, 2).constant
    test = images.parts.test
    right = (result.network(test.images).argmax(1) == test.labels).double().mean()
    assert score["accuracy"] == right > 0.8 and score["cpu_seconds"] > 0
    assert not any(weight.requires_grad for weight in result.network.parameters())


def test_the_epoch_is_chosen_on_the_validation_part(images):
    seen = []

    def score(network, x, y):
        seen.append(x)
        return -len(seen)  # the first epoch is the best

    torch.manual_seed(0)
    chosen, shown = (digits.classifier(images, [8], "relu", None) for _ in range(2))
    shown.load_state_dict(chosen.state_dict())
    trained(images, chosen, score=score, epochs=3)
    trained(images, shown, score=lambda network, x, y: 0.0, epochs=3)
    assert all(torch.equal(x, images.parts.validation.images) for x in seen) and len(seen) == 3
    assert not torch.equal(chosen[1].weight, shown[1].weight)


def test_images_are_shifted_and_rows_are_not(images, tmp_path):
    torch.manual_seed(0)
    still, moved = (digits.classifier(images, [8], "relu", None) for _ in range(2))
    moved.load_state_dict(still.state_dict())
    a, b = trained(images, still), trained(images, moved, shift=1)
    assert not torch.equal(a.network[1].weight, b.network[1].weight)
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).random((90, 4)), y=np.arange(90) % 3)
    rows = digits.material(str(tmp_path / "rows.npz"), 0)
    with pytest.raises(TightlipError, match=r"images are needed.*these data are rows of shape \(4,\)"):
        trained(rows, digits.classifier(rows, [8], "relu", None), shift=1)


def test_batches_are_full_and_each_pass_has_each_example_once():
    part = Part(torch.arange(10.0).reshape(10, 1), torch.arange(10))
    drawn = list(digits.batches(part, 5, 4, 0))
    assert all(torch.equal(x[:, 0].long(), y) for x, y in drawn)
    first, second = (torch.cat([drawn[place][1], drawn[place + 1][1]]) for place in (0, 2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10)) and not torch.equal(first, second)
    again = list(digits.batches(part, 5, 4, 0))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(drawn, again, strict=True))
    assert {len(y) for _, y in digits.batches(part, 4, 5, 0)} == {4}


@pytest.mark.parametrize("size", [0, 11])
def test_impossible_batches_are_refused(size):
    part = Part(torch.zeros(10, 1), torch.zeros(10, dtype=torch.int64))
    with pytest.raises(TightlipError, match="batch_size"):
        next(digits.batches(part, size, 1, 0))

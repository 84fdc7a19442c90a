"""Training on JPEG: the parts that are compressed, how far that moves them, and what is tested."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tightlip import TightlipError
from tightlip.data import Part, Splits
from tightlip.experiments import jpeg_training as study
from tightlip.experiments.digits import Material, Trained


def part(channels=1, seed=0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand((20, channels, 4, 4), generator=generator)
    images = nn.functional.interpolate(smooth, scale_factor=4, mode="bilinear") * high
    return Part((images * 255).round() / 255, torch.arange(20) % 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_lower_quality_moves_images_further_and_none_moves_nothing(channels):
    original = part(channels)
    moved = [
        (study.compressed(original, quality).images - original.images).flatten(1).norm(dim=1).median()
        for quality in (study.LOSSLESS, 100, 95, 50, 5)
    ]
    assert moved[0] == 0 and moved == sorted(moved) and moved[1] < moved[2] < moved[3] < moved[4]
    again = study.compressed(original, 50)
    assert again.images.shape == original.images.shape and again.images.dtype == torch.float32
    assert torch.equal(again.labels, original.labels) and again.images.min() >= 0 and again.images.max() <= 1


def test_an_image_of_one_gray_is_itself():
    flat = Part(torch.full((2, 1, 16, 16), 128 / 255), torch.tensor([0, 1]))
    assert torch.equal(study.compressed(flat, 75).images, flat.images)


@pytest.mark.parametrize("bad", [part(2), part(1, high=2.0), Part(-part().images, part().labels)])
def test_what_jpeg_cannot_hold_is_refused(bad):
    with pytest.raises(TightlipError, match="JPEG takes 1 or 3 channels"):
        study.compressed(bad, 75)


@pytest.mark.parametrize("quality", [-1, 101, True])
def test_qualities_that_there_are_not_are_refused(quality):
    with pytest.raises(TightlipError, match="quality"):
        study.run(study.Config(quality), 0)


def test_training_and_validation_are_compressed_and_the_test_part_is_not(monkeypatch):
    parts = Splits(part(seed=1), part(seed=2), part(seed=3))
    asked = []

    def trained_as(options, own):
        asked.append(own)
        network = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
        return Trained(network, 1.0)

    def certify(network, images, labels, p):
        assert images is parts.test.images
        return SimpleNamespace(accuracy={0.25: 0.5}.get)

    monkeypatch.setattr(study, "material", lambda data, seed: Material(parts, 2, {"name": data, "sha256": None}))
    monkeypatch.setattr(study, "trained_as", trained_as)
    monkeypatch.setattr(study, "certify", certify)
    metrics = study.run(study.Config(20), 0).metrics
    (own,) = asked
    for name in ("train", "validation"):
        assert torch.equal(getattr(own.parts, name).images, study.compressed(getattr(parts, name), 20).images)
    assert own.parts.test is parts.test
    distances = (own.parts.train.images - parts.train.images).flatten(1).norm(dim=1)
    assert metrics["moved"] == pytest.approx(float(distances.median())) and metrics["moved"] > 0
    assert metrics["certified"] == 0.5 and metrics["cpu_seconds"] == 1.0

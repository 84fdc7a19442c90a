"""Means that training takes off: of inputs and of layers, by default and as it is asked; biases are left of it."""

import json

import pytest
import torch
from torch import nn

from tightlip import LinfDistance, MeanShift, Normalize, Prototypes, TightlipError, convnet, freeze, lipschitz, mlp
from tightlip.cli.folders import CONFIG, pin_config
from tightlip.data import Part
from tightlip.experiments import certified_run
from tightlip.experiments.centering import centered, means_in_biases
from tightlip.experiments.classification_options import Config, check
from tightlip.experiments.loading import loaded, suited
from tightlip.experiments.methods import METHODS


@pytest.fixture
def part():
    """Three classes of images of two channels, whose means are far apart."""
    torch.manual_seed(0)
    images = torch.rand(30, 2, 8, 8) * torch.tensor([0.1, 0.4])[:, None, None] + torch.tensor([0.9, 0.0])[:, None, None]
    return Part(images, torch.arange(30) % 3)


def kinds(network):
    return [type(layer) for layer in network.modules()]


@pytest.mark.parametrize("what", ["no", None])
def test_nothing_is_taken_off_where_nothing_is_asked(part, what):
    network = mlp([128, 8, 3])
    assert centered(network, part, what) is network


def test_the_mean_of_each_channel_of_the_training_images_is_taken_off_inputs(part):
    network = centered(nn.Sequential(nn.Flatten(), mlp([128, 8, 3])), part, "inputs")
    assert torch.allclose(network[0](part.images).mean((0, 2, 3)), torch.zeros(2), atol=1e-6)
    assert network[0].std == 1 and MeanShift not in kinds(network)


@torch.no_grad()
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Flatten(), mlp([128, 8, 6, 3], K=2.0)),
        lambda: convnet((2, 8, 8), 3, channels=(4, 6), depth=1, hidden=(8,), patch=2, K=2.0),
    ],
)
def test_what_layers_make_has_mean_zero_and_after_training_it_is_in_biases(part, make):
    torch.manual_seed(1)
    network = centered(make(), part, "layers")
    matrices = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    shifts = [layer for layer in network.modules() if isinstance(layer, MeanShift)]
    assert len(shifts) == len(matrices) - 1 and isinstance(network[0], Normalize)
    seen = []
    for layer in shifts:
        layer.register_forward_hook(lambda _, inputs, output: seen.append(output))
    for _ in range(200):
        network(part.images)
    assert all(float(one.transpose(0, 1).flatten(1).mean(1).abs().max()) < 1e-5 for one in seen)
    frozen = freeze(network)
    plain = means_in_biases(freeze(network))
    assert MeanShift in kinds(frozen) and MeanShift not in kinds(plain)
    assert torch.allclose(plain(part.images), frozen(part.images), atol=1e-6)
    assert lipschitz(plain, 2).constant <= 2


def test_prototypes_are_the_last_layer_and_begin_where_mixed_batches_come_to(part):
    """In batches of one class each, what tells classes apart would be taken off with the mean."""
    config = Config("x", hidden=(16,), last_layer="prototypes", center="layers")
    labels = torch.arange(900) % 9
    apart = Part(part.images.repeat(30, 1, 1, 1) / 10 + labels[:, None, None, None] / 9, labels)
    network = certified_run.build(config, apart, 9)
    assert kinds(network).count(MeanShift) == 1 and kinds(network)[-3] is Prototypes
    right = network(apart.images).argmax(1) == apart.labels
    assert float(right.double().mean()) > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_images_are_centered_by_default_and_other_data_are_not(method, tmp_path):
    config = Config(method=method)
    dataset = loaded(config)
    asked = suited(config, dataset, 100).center
    assert asked == {"orthonormal": "layers", "distances": "no"}.get(method, "inputs")
    assert suited(Config(center="no"), dataset, 100).center == "no"
    (tmp_path / "t.csv").write_text("a,b,kind\n" + "".join(f"{n},{n % 3},{n % 2}\n" for n in range(30)))
    table = loaded(Config(str(tmp_path / "t.csv")))
    assert suited(Config(str(tmp_path / "t.csv")), table, 20).center is None


def test_means_of_small_batches_are_not_trusted():
    dataset = loaded(Config())
    assert suited(Config(batch_size=63), dataset, 100).center == "inputs"
    assert suited(Config(batch_size=64), dataset, 100).center == "layers"
    assert suited(Config(), dataset, 63).center == "inputs"  # all of them are one batch
    assert suited(Config(batch_size=2, center="layers"), dataset, 100).center == "layers"
    with pytest.raises(TightlipError, match="one example less its mean is zero: give batch_size=2 or more"):
        check(Config(batch_size=1, center="layers"))


def test_layers_of_rows_may_be_centered_and_their_inputs_not(tmp_path):
    path = str(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b,kind\n" + "".join(f"{n},{n % 3},{n % 2}\n" for n in range(30)))
    result = certified_run.prove(Config(path, center="layers", hidden=(4,), epochs=1, attack_images=1), progress=False)
    assert MeanShift not in kinds(result.network) and result.row.config["center"] == "layers"
    with pytest.raises(TightlipError, match=r"center=inputs .--center. takes means off the channels of images"):
        loaded(Config(path, center="inputs"))


def test_layers_of_distances_keep_their_own(part):
    with pytest.raises(
        TightlipError, match="distances has layers of its own.*leave out network, activation and center"
    ):
        check(Config(norm="inf", method="distances", center="layers"))
    config = Config(norm="inf", method="distances", hidden=(4,), center="no")
    check(config)
    assert LinfDistance in kinds(certified_run.build(config, part, 3))


def test_a_run_that_began_before_there_was_the_option_goes_on_as_it_was(tmp_path):
    pin_config(tmp_path, Config("x", center="no"), resume=False)
    began = json.loads((tmp_path / CONFIG).read_text())
    del began["center"]
    (tmp_path / CONFIG).write_text(json.dumps(began))
    pin_config(tmp_path, Config("x", center="no"), resume=True)
    with pytest.raises(TightlipError, match="began with center=no: resume it with the same options"):
        pin_config(tmp_path, Config("x"), resume=True)

"""One run from arrays to files: complete, consistent with itself, and honest about its test part."""

import hashlib
import json
import math
import os
import signal
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from tightlip import TightlipError, lipschitz
from tightlip.data import load, split
from tightlip.experiments import certified_run, evidence
from tightlip.experiments.classification_options import Config
from tightlip.robustness import certify
from tightlip.robustness.attacks import cw_loss
from tightlip.serialization import load as load_network

FILES = {"model.safetensors", "certificate.json", "metrics.json"}
ATTACK = {"attack_images": 20, "attack_steps": 15, "attack_restarts": 1}


def images(path, examples=150):
    """Three classes of 8×8 images: a bright stripe at one of three heights, and noise."""
    generator = np.random.default_rng(0)
    y = np.arange(examples) % 3
    x = generator.integers(0, 60, (examples, 1, 8, 8), dtype=np.uint8)
    for label in range(3):
        x[y == label, :, 3 * label : 3 * label + 2, :] += 180
    np.savez(path, x=x, y=y)
    return str(path)


def vectors(path, examples=150):
    """Three classes of points around the axes of space, far outside [0, 1]."""
    generator = np.random.default_rng(0)
    y = np.arange(examples) % 3
    x = -4.0 + 6.0 * np.eye(5)[y] + generator.normal(0, 0.5, (examples, 5))
    np.savez(path, x=x, y=y)
    return str(path)


def config(data, **options):
    return Config(**({"data": data, "hidden": (16, 16), "epochs": 2, "batch_size": 16, **ATTACK} | options))


def strict(path):
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def run(*arguments, seconds=20, **options):
    """The run itself, a tenth of that long; a training that never ends must fail, not hang the suite."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"still running after {seconds} seconds"))
    signal.alarm(seconds)
    try:
        return certified_run.run(*arguments, **options)
    finally:
        signal.alarm(0)


@pytest.fixture(scope="module", params=["2", "inf"])
def finished(request, tmp_path_factory):
    """(config, folder, result) of a run in either norm."""
    folder = tmp_path_factory.mktemp("run")
    data = images(tmp_path_factory.mktemp("data") / "stripes.npz")
    options = config(data, norm=request.param, epochs=20, learning_rate=0.01, shift=0, seed=3)
    return options, folder, run(options, folder, progress=False)


def test_it_learns_and_leaves_exactly_its_files(finished):
    _, folder, result = finished
    assert set(os.listdir(folder)) == FILES
    assert result.row.test.accuracy > 0.8


def test_the_metrics_are_a_birth_certificate(finished):
    options, folder, result = finished
    metrics = strict(folder / "metrics.json")
    assert metrics == json.loads(json.dumps(result.row.to_json()))
    began = asdict(options) | {"k": options.constant, "eps": options.radius, "hidden": [16, 16]}
    began |= {"offset": 0.8, "temperature": 0.25, "loss": "cross_entropy"} if options.norm == "2" else {"a": 0.1}
    began |= {"last_layer": "orthonormal"} if options.norm == "2" else {}
    began |= {"method": {"2": "orthonormal", "inf": "row_l1"}[options.norm]}
    began |= {"center": "inputs"}  # batches are small
    assert metrics["config"] == began and metrics["seed"] == 3
    assert {"commit", "dirty", "versions", "device", "threads", "machine", "seconds", "name"} <= set(metrics)
    assert (metrics["device"], metrics["threads"]) == ("cpu", torch.get_num_threads())
    assert set(metrics["versions"]) == {"python", "torch", "numpy", "tightlip"}
    seconds = metrics["seconds"]
    assert set(seconds) == {"train", "freeze", "audit", "certify", "attack", "total"}
    assert seconds["total"] == pytest.approx(sum(seconds.values()) / 2, abs=1e-3) and seconds["train"] > 0


def test_the_data_are_named_by_the_hash_of_their_content(finished):
    options, folder, _ = finished
    data, arrays = strict(folder / "metrics.json")["data"], np.load(options.data)
    digest = hashlib.sha256()
    for name in ("x", "y"):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode() + arrays[name].tobytes())
    assert data["sha256"] == digest.hexdigest()
    assert (data["name"], data["classes"], data["shape"]) == ("stripes", 3, [1, 8, 8])
    assert data["split"] == {"train": 108, "validation": 12, "test": 30}


def test_every_accuracy_follows_from_the_radii_in_the_file(finished):
    options, folder, _ = finished
    certificate, metrics = strict(folder / "certificate.json"), strict(folder / "metrics.json")
    radii = certificate["radius"]

    def share(eps):
        return sum(radius > eps for radius in radii) / len(radii)

    assert certificate["certified_accuracy"] == [share(eps) for eps in certificate["eps"]]
    key = f"{options.radius:g}"
    assert metrics["test"]["certified"] == {key: share(options.radius)}
    assert metrics["test"]["accuracy"] == share(0.0)
    right = [a == b for a, b in zip(certificate["label"], certificate["prediction"], strict=True)]
    assert all(ok or radius == 0 for ok, radius in zip(right, radii, strict=True))
    least = [max(0.0, margin) / certificate["sensitivity"] for margin in certificate["margin"]]
    for radius, floor, ok in zip(radii, least, right, strict=True):  # the last layer can only add to the floor
        assert radius >= floor * (1 - 1e-12) if ok else radius == 0


def test_attacked_accuracy_lies_between_certified_and_clean(finished):
    options, folder, _ = finished
    certificate = strict(folder / "certificate.json")
    attack, radii = certificate["attack"], certificate["radius"][:20]
    assert (attack["images"], attack["steps"], attack["restarts"]) == (20, 15, 1)
    assert options.radius in attack["eps"] and attack["accuracy"] == sorted(attack["accuracy"], reverse=True)
    for eps, accuracy in zip(attack["eps"], attack["accuracy"], strict=True):
        assert sum(radius > eps for radius in radii) / 20 <= accuracy <= sum(radius > 0 for radius in radii) / 20
    metrics = strict(folder / "metrics.json")
    assert metrics["test"]["attacked"][f"{options.radius:g}"] == attack["accuracy"][attack["eps"].index(options.radius)]


def test_the_saved_model_is_the_one_that_was_certified(finished):
    options, folder, result = finished
    network = load_network(folder / "model.safetensors")
    test = split(load(options.data), options.seed).test
    again = certify(network, test.images, test.labels, options.p)
    stored = strict(folder / "certificate.json")
    assert again.radius.tolist() == stored["radius"] and again.margin.tolist() == stored["margin"]
    assert test.labels.tolist() == stored["label"]
    assert again.bound == result.certificate.bound == lipschitz(network, options.p)
    assert stored["bound"]["constant"] == again.bound.constant <= options.constant
    assert len(stored["bound"]["layers"]) == len(again.bound.layers)


def test_the_best_epoch_of_the_history_is_the_one_named(finished):
    _, folder, _ = finished
    metrics = strict(folder / "metrics.json")
    scores = [row["validation_score"] for row in metrics["history"]]
    assert len(scores) == 20 and metrics["best_epoch"] == 20 - scores[::-1].index(max(scores))  # of equals the later


def test_examples_are_images_of_the_test_part_with_their_gradients(finished):
    options, folder, result = finished
    certificate, test = strict(folder / "certificate.json"), split(load(options.data), options.seed).test
    assert 3 <= len(certificate["examples"]) <= 14
    for example in certificate["examples"]:
        i = example["index"]
        assert (example["label"], example["radius"]) == (int(test.labels[i]), certificate["radius"][i])
        assert np.allclose(example["image"], test.images[i, 0], atol=1e-3)
        image = test.images[[i]].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(-cw_loss(result.network(image), test.labels[[i]]).sum(), image)
        assert np.allclose(example["gradient"], gradient[0, 0], rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))
    indices = [example["index"] for example in certificate["examples"]]
    assert len(indices) == len(set(indices))


def test_the_test_part_is_touched_once_and_only_after_training(tmp_path, monkeypatch):
    options, events = config(images(tmp_path / "d.npz")), []
    test = split(load(options.data), options.seed).test.images.flatten(1)
    original_fit, original_certify = certified_run.fit, certified_run.certify

    def fit(network, loss, train, validation, **rest):
        for x, _ in (train, validation):
            assert (torch.cdist(x.flatten(1), test) > 0).all()  # no test image among them
        history = original_fit(network, loss, train, validation, **rest)
        events.append("trained")
        return history

    def certify(network, x, *rest, **options):
        events.append("certified")
        assert torch.equal(x.flatten(1), test)
        return original_certify(network, x, *rest, **options)

    monkeypatch.setattr(certified_run, "fit", fit)
    monkeypatch.setattr(certified_run, "certify", certify)
    run(options, tmp_path, progress=False)
    assert events == ["trained", "certified"]


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    data, models = images(tmp_path / "d.npz"), {}
    for name, seed, global_seed in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        (tmp_path / name).mkdir()
        torch.manual_seed(global_seed)
        run(config(data, seed=seed), tmp_path / name, progress=False)
        models[name] = [(tmp_path / name / file).read_bytes() for file in ("model.safetensors", "certificate.json")]
    assert models["a"] == models["b"] and models["a"][0] != models["c"][0]


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_vectors_outside_the_unit_box_are_attacked_where_they_are(norm, tmp_path, monkeypatch):
    original, moves = evidence.pgd, []

    def pgd(network, x, y, eps, p, *rest, **options):
        found = original(network, x, y, eps, p, *rest, **options)
        moves.append((float(torch.linalg.vector_norm((found - x).double(), p, dim=1).max()), eps))
        return found

    monkeypatch.setattr(evidence, "pgd", pgd)
    options = config(vectors(tmp_path / "v.npz"), norm=norm, epochs=8, learning_rate=0.01)
    result = run(options, tmp_path, progress=False)
    assert moves and all(moved <= eps * (1 + 1e-5) + 1e-6 for moved, eps in moves)
    certificate = strict(tmp_path / "certificate.json")
    assert certificate["examples"] == [] and result.row.test.accuracy > 0.9
    radii, attack = certificate["radius"][:20], certificate["attack"]
    for eps, accuracy in zip(attack["eps"], attack["accuracy"], strict=True):
        assert accuracy >= sum(radius > eps for radius in radii) / 20  # an attack inside the ball cannot do better


def test_a_test_part_of_the_users_own_is_used_whole_and_in_its_order(tmp_path):
    images(tmp_path / "d.npz")
    arrays = np.load(tmp_path / "d.npz")
    own = {
        "x_train": arrays["x"][30:],
        "y_train": arrays["y"][30:],
        "x_test": arrays["x"][:30],
        "y_test": arrays["y"][:30],
    }
    np.savez(tmp_path / "own.npz", **own)
    run(config(str(tmp_path / "own.npz")), tmp_path, progress=False)
    assert strict(tmp_path / "certificate.json")["label"] == arrays["y"][:30].tolist()


@pytest.mark.parametrize("test_part", [False, True])
def test_data_of_one_class_are_refused_before_anything_is_trained(test_part, tmp_path):
    x, y = np.zeros((20, 1, 4, 4), np.uint8), np.zeros(20, np.int64)
    test = {"x_test": x, "y_test": y} if test_part else {}
    np.savez(tmp_path / "one.npz", x_train=x, y_train=y, **test)
    with pytest.raises(TightlipError, match="one has one class, .* give at least two"):
        run(config(str(tmp_path / "one.npz")), tmp_path, progress=False)
    assert os.listdir(tmp_path) == ["one.npz"]


def test_the_names_of_classes_are_kept_and_others_have_numbers_only(tmp_path, finished):
    x, y = (lambda file: (file["x"], file["y"]))(np.load(images(tmp_path / "d.npz")))
    for label, name in enumerate(("ant", "bee", "cow")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index, image in enumerate(x[y == label][:10]):
            Image.fromarray(image[0]).save(tmp_path / "pictures" / name / f"{index}.png")
    (tmp_path / "run").mkdir()
    run(config(str(tmp_path / "pictures"), epochs=1), tmp_path / "run", progress=False)
    assert strict(tmp_path / "run" / "metrics.json")["data"]["class_names"] == ["ant", "bee", "cow"]
    assert "class_names" not in strict(finished[1] / "metrics.json")["data"]


@pytest.mark.parametrize("activation", ["groupsort4", "fullsort", "relu"])
def test_every_activation_runs(activation, tmp_path):
    run(config(images(tmp_path / "d.npz"), activation=activation, epochs=1), tmp_path, progress=False)
    assert set(os.listdir(tmp_path)) == FILES | {"d.npz"}


@pytest.mark.parametrize("network", ["convnet", "mixer"])
@pytest.mark.parametrize("norm", ["2", "inf"])
def test_networks_of_images_run_and_record_their_sizes(network, norm, tmp_path):
    options = config(images(tmp_path / "d.npz"), network=network, norm=norm, channels=(8,), hidden=(), epochs=1)
    result = run(options, tmp_path, progress=False)
    written = strict(tmp_path / "metrics.json")["config"]
    assert (written["network"], written["channels"], written["hidden"]) == (network, [8], [])
    assert written["depth"] == {"convnet": 0, "mixer": 2}[network]
    assert result.certificate.bound.constant <= options.constant
    assert any(isinstance(layer, torch.nn.Conv2d) for layer in load_network(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("network", ["convnet", "mixer"])
def test_networks_of_images_refuse_rows(network, tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).random((60, 4)), y=np.arange(60) % 3)
    with pytest.raises(TightlipError, match=r"takes images .* have shape \(4,\): choose network=mlp"):
        run(config(str(tmp_path / "rows.npz"), network=network, epochs=1), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": (15,)},
        {"hidden": (0,)},
        {"network": "resnet"},
        {"channels": (8,)},
        {"depth": 2},
        {"patch": 2},
        {"network": "mixer", "patch": 0},
        {"network": "convnet", "channels": (7,)},
        {"network": "convnet", "channels": (0, 8)},
        {"network": "mixer", "depth": -1},
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"learning_rate": math.nan},
        {"temperature": 0.0},
        {"k": 0.0},
        {"k": -1.0},
        {"k": math.inf},
        {"eps": -0.1},
        {"eps": math.nan},
        {"a": -1.0, "norm": "inf"},
        {"a": 0.1, "norm": "2"},
        {"offset": 0.8, "norm": "inf"},
        {"temperature": 0.25, "norm": "inf"},
        {"offset": -1.0},
        {"shift": -1},
        {"average": -0.1},
        {"average": 1.0},
        {"average": math.nan},
        {"attack_images": 0},
        {"attack_images": -5},
        {"attack_steps": -1},
        {"attack_restarts": 0},
        {"seed": 10**30},
        {"seed": 10**15},
    ],
    ids=str,
)
def test_impossible_options_are_refused_before_anything_is_trained(wrong, tmp_path, monkeypatch):
    data, folder = images(tmp_path / "d.npz"), tmp_path / "run"
    folder.mkdir()
    with pytest.raises(TightlipError, match="is impossible: |does not suit|belongs? to |no network is called"):
        run(config(data, **wrong), folder, progress=False)
    assert os.listdir(folder) == []

import gzip
import os
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tightlip.data import load, split
from tightlip.data.arrays import content_sha256, read_npz
from tightlip.data.sources import SPECS, PackagedSpec
from tightlip.errors import TightlipError

REAL = Path(os.environ.get("TIGHTLIP_DATA", "absent"))
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_mnist5k.py"


def needs(name):
    present = (REAL / name / "train-images-idx3-ubyte.gz").is_file()
    return pytest.mark.skipif(not present, reason=f"TIGHTLIP_DATA is not set: no complete {name} to test on")


@pytest.mark.parametrize("suffix", [".gz", ""], ids=["gz", "raw"])
@pytest.mark.parametrize("folder", ["tiny", ".", "Tiny/raw"])
def test_every_layout_under_a_root_is_found(tmp_path, cache, tiny, folder, suffix):
    tiny.place(tmp_path / "root" / folder, tiny.packed if suffix else tiny.raw, suffix)
    dataset = load("tiny", root=tmp_path / "root")
    assert tiny.equals(dataset)
    assert dataset.source == "root"
    assert not cache.exists()


def test_the_environment_names_a_root_and_the_argument_replaces_it(tmp_path, cache, tiny, monkeypatch):
    tiny.place(tmp_path / "a" / "tiny")
    monkeypatch.setenv("TIGHTLIP_DATA", str(tmp_path / "a"))
    assert load("tiny").source == "TIGHTLIP_DATA"
    (tmp_path / "b").mkdir()
    with pytest.raises(TightlipError, match="tiny is not complete"):
        load("tiny", root=tmp_path / "b")


def test_the_root_comes_before_the_cache_and_each_file_is_found_on_its_own(tmp_path, cache, tiny):
    tiny.place(cache / "tiny")
    assert load("tiny").source == "cache"
    root = tmp_path / "root"
    tiny.place(root, {"t10k-labels": tiny.packed["t10k-labels"]})
    dataset = load("tiny", root=root)
    assert tiny.equals(dataset)
    assert dataset.source == "cache, root"


def test_reading_a_complete_cache_writes_nothing(cache, tiny):
    tiny.place(cache / "tiny")
    load("tiny", download=True)
    assert {path.name for path in (cache / "tiny").iterdir()} == tiny.names


@pytest.mark.parametrize("download", [False, True])
def test_a_wrong_file_is_named_and_no_other_source_takes_its_place(tmp_path, cache, tiny, mirrors, download):
    tiny.know(mirrors.add("good"))
    tiny.place(cache / "tiny")
    tiny.place(
        tmp_path / "root" / "tiny", tiny.packed | {"t10k-labels": gzip.compress(tiny.raw["t10k-labels"][:-1] + b"\1")}
    )
    with pytest.raises(TightlipError, match=r"root.tiny.t10k-labels.gz is not the published file"):
        load("tiny", root=tmp_path / "root", download=download)
    assert mirrors.asked == []


def test_a_truncated_file_in_the_cache_is_named_and_left_to_its_owner(cache, tiny):
    tiny.place(cache / "tiny", tiny.packed | {"train-images": tiny.packed["train-images"][:-9]})
    with pytest.raises(TightlipError, match=r"cache.tiny.train-images.gz is truncated or damaged .* delete it"):
        load("tiny", download=True)
    assert tiny.held(cache) == tiny.names


def test_a_file_that_unpacks_to_more_than_was_published_is_not_read_to_its_end(cache, tiny):
    tiny.place(cache / "tiny", tiny.packed | {"train-images": gzip.compress(bytes(1_000_000))})
    with pytest.raises(TightlipError, match=r"train-images.gz holds more than the 160 bytes expected"):
        load("tiny")


def test_a_root_that_is_no_folder_is_an_error_even_if_the_cache_would_do(tmp_path, cache, tiny, monkeypatch):
    tiny.place(cache / "tiny")
    with pytest.raises(TightlipError, match=r"root is .*typo, which is not a folder"):
        load("tiny", root=tmp_path / "typo")
    monkeypatch.setenv("TIGHTLIP_DATA", str(tmp_path / "typo"))
    with pytest.raises(TightlipError, match=r"TIGHTLIP_DATA is .*typo, which is not a folder"):
        load("tiny")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "train-images-idx3-ubyte.gz and its companions"),
        ("fashion-mnist", "train-images-idx3-ubyte.gz and its companions"),
        ("cifar10", "cifar-10-binary.tar.gz, or"),
    ],
)
def test_a_set_that_is_absent_is_never_replaced_by_another(cache, name, file):
    with pytest.raises(TightlipError, match=f"{name} is not complete") as caught:
        load(name)
    for hint in ("TIGHTLIP_DATA", f"{name}/{file}", "--download"):
        assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mnist4k", r"no data set is called 'mnist4k' \(did you mean mnist5k\?\)"),
        ("MNIST", r"no data set is called 'MNIST' \(did you mean mnist\?\)"),
        ("", "no data set is called ''"),
        ("data.csv", "data.csv does not exist"),
        ("absent/folder", "absent/folder does not exist"),
    ],
)
def test_an_unknown_name_is_answered_with_all_that_is_possible(name, says):
    with pytest.raises(TightlipError, match=f"^{says}") as caught:
        load(name)
    for possible in ("cifar10, fashion-mnist, mnist, mnist5k, or", ".npz", "x.npy and y.npy", "folder of images"):
        assert possible in str(caught.value)


@pytest.mark.parametrize("name", ["wine.xlsx", "wine"])
def test_a_file_that_is_there_is_not_called_absent(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("1,2,0\n")
    with pytest.raises(TightlipError, match=rf"^{name} is a .* file, and data are read .*numpy.savez\('wine.npz'"):
        load(name)


def test_the_hash_of_a_set_depends_on_every_file():
    mnist = SPECS["mnist"]
    hashes = {mnist.sha256, SPECS["fashion-mnist"].sha256}
    for index, file in enumerate(mnist.files):
        files = (*mnist.files[:index], replace(file, sha256="0" * 64), *mnist.files[index + 1 :])
        hashes.add(replace(mnist, files=files).sha256)
    assert len(hashes) == 6


def test_mnist5k_needs_no_file_and_no_network(cache, monkeypatch):
    monkeypatch.setenv("TIGHTLIP_DATA", str(cache / "absent"))
    dataset = load("mnist5k")
    assert dataset.images.shape == (5000, 1, 28, 28)
    assert dataset.images.dtype == torch.uint8
    assert dataset.labels.bincount().tolist() == [500] * 10
    assert not dataset.labels.equal(dataset.labels.sort().values)
    assert (dataset.source, dataset.test_images) == ("package", None)
    assert "CC BY-SA 3.0" in dataset.licence
    assert [len(part) for part in vars(split(dataset, seed=0)).values()] == [3600, 400, 1000]


def test_mnist5k_travels_with_a_notice_that_names_its_content():
    notice = SPECS["mnist5k"].file.with_name("mnist5k.LICENSE.txt").read_text()
    for needed in ("CC BY-SA 3.0", "Yann LeCun and Corinna Cortes", SPECS["mnist5k"].sha256):
        assert needed in notice
    assert SPECS["mnist5k"].file.stat().st_size < 1_000_000


@pytest.mark.parametrize("tampered", ["pixel", "label", "shape", "dtype"])
def test_a_tampered_package_file_is_refused(tmp_path, tampered):
    arrays = read_npz(SPECS["mnist5k"].file, ("images", "labels"))
    if tampered == "pixel":
        arrays["images"][4999, 14, 14] ^= 1
    elif tampered == "label":
        arrays["labels"][0] ^= 1
    elif tampered == "shape":
        arrays["images"] = arrays["images"].reshape(5000, 14, 56)
    else:
        arrays["labels"] = arrays["labels"].view(np.int8)
    path = tmp_path / "mnist5k.npz"
    np.savez(path, **arrays)
    with pytest.raises(TightlipError, match=r"mnist5k.npz is not the published file"):
        PackagedSpec("mnist5k", path, SPECS["mnist5k"].sha256, 10, "none").load()


@needs("mnist")
def test_the_script_makes_mnist5k_again_from_the_training_part():
    made = runpy.run_path(str(SCRIPT))["select"](REAL)
    assert content_sha256(made) == SPECS["mnist5k"].sha256


@needs("mnist")
def test_no_image_of_mnist5k_is_in_mnists_test_part():
    test = {image.numpy().tobytes() for image in load("mnist", root=REAL).test_images}
    assert not any(image.numpy().tobytes() in test for image in load("mnist5k").images)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in ("mnist", "fashion-mnist")])
def test_the_complete_sets_load_and_split(name):
    dataset = load(name, root=REAL)
    assert dataset.images.shape == (60000, 1, 28, 28)
    assert dataset.test_images.shape == (10000, 1, 28, 28)
    assert [len(part) for part in vars(split(dataset, seed=0)).values()] == [55000, 5000, 10000]

import pickle
import zipfile

import numpy as np
import pytest
import torch

from tightlip.data import load
from tightlip.data.arrays import content_sha256, load_arrays, read_npz
from tightlip.errors import TightlipError

X, Y = np.arange(24, dtype=np.uint8).reshape(6, 4), np.array([0, 1, 0, 1, 0, 1], dtype=np.uint8)


def saved(tmp_path, **arrays):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train")])
@pytest.mark.parametrize("tested", [False, True])
def test_a_users_arrays_become_a_data_set(tmp_path, names, tested):
    arrays = dict(zip(names, (X, Y), strict=True)) | ({"x_test": X[:2], "y_test": Y[:2]} if tested else {})
    path = saved(tmp_path, **arrays, other=np.zeros(1))
    dataset = load(path)
    assert dataset.images.numpy().tolist() == X.tolist()
    assert dataset.images.dtype == torch.uint8
    assert dataset.labels.tolist() == Y.tolist()
    assert (dataset.test_images is not None) == tested
    assert (dataset.name, dataset.source, dataset.classes) == ("mine", "mine.npz", 2)
    assert dataset.sha256 == content_sha256(arrays)
    assert load(str(path)).sha256 == dataset.sha256


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_stand_first_wherever_the_file_has_them(tmp_path, channels, dtype):
    first = np.arange(6 * channels * 5 * 4).reshape(6, channels, 5, 4).astype(dtype)
    last = np.moveaxis(first, 1, -1)
    dataset = load(saved(tmp_path, x=last, y=Y[:, None], x_test=last[:3], y_test=Y[:3, None]))
    assert np.array_equal(dataset.images.numpy(), first) and np.array_equal(dataset.test_images.numpy(), first[:3])
    assert dataset.labels.tolist() == Y.tolist()
    assert np.array_equal(load(saved(tmp_path, x=first, y=Y)).images.numpy(), first)


def test_images_of_8_bits_without_channels_have_one(tmp_path):
    gray = np.arange(6 * 5 * 4).reshape(6, 5, 4)
    assert np.array_equal(load(saved(tmp_path, x=gray.astype(np.uint8), y=Y)).images.numpy(), gray[:, None])
    assert load(saved(tmp_path, x=gray.astype(np.float32), y=Y)).images.shape == (6, 5, 4)  # series, perhaps
    few = gray.reshape(6, 20, 1).astype(np.uint8)
    assert load(saved(tmp_path, x=few, y=Y)).images.shape == (6, 20, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_become_float32_unscaled(tmp_path, dtype):
    dataset = load_arrays(saved(tmp_path, x=X.astype(dtype), y=Y.astype(np.int32)))
    assert dataset.images.dtype == torch.float32
    assert dataset.images.tolist() == X.tolist()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X}, r"lacks y \(it holds x\): save it with numpy.savez\(path, x=..., y=...\)"),
        ({"x_train": X, "y": Y}, "x, y and x_train, y_train"),
        ({"x": X, "y": Y, "y_test": Y}, "lacks x_test"),
        ({"images": X, "labels": Y}, r"lacks x and y \(it holds images, labels\)"),
        ({}, "lacks x and y .it holds nothing"),
        ({"x": X, "y": Y, "x_train": X, "y_train": Y}, "keep the pair that is meant"),
        ({"x": X.astype(object), "y": Y}, "Object arrays cannot be loaded"),
        ({"x": X.astype(np.int64), "y": Y}, "int64 rows: save them as uint8"),
        (
            {"x": X, "y": Y.astype(float)},
            "float64 labels: save them as integers 0 to classes - 1; if they are numbers to be predicted, train in "
            r"Python: tightlip.fit\(network, torch.nn.functional.mse_loss, \(x, y\)\)",
        ),
        ({"x": X, "y": Y.astype(str)}, "labels: save them as integers 0 to classes - 1."),
        ({"x": X, "y": Y.astype(str)}, "<U.* labels"),
        ({"x": X, "y": Y * 2}, "labels from 0 to 2 but 2 classes"),
        ({"x": X, "y": Y.astype(np.int64) * 10**15}, "labels from 0 to 1000000000000000 but 2 classes"),
        ({"x": X, "y": Y.astype(np.uint64) * 2**63}, "labels from -9223372036854775808"),
        ({"x": X, "y": np.stack([Y, Y], 1)}, r"labels of shape \(6, 2\)"),
        ({"x": X, "y": Y[:5]}, "6 rows but 5 labels"),
        ({"x": X[:0], "y": Y[:0]}, "is empty"),
        ({"x": X[:4], "y": Y[:4]}, "at least three"),
        ({"x": np.where(X == 23, np.nan, X), "y": Y}, "NaN or infinite features in 1 of 6 rows, the first at index 5"),
        ({"x": np.where(X == 23, 1e39, X), "y": Y}, "NaN or infinite features"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, r"trains on \(4,\) uint8 but tests on \(2,\)"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused(tmp_path, arrays, says):
    with pytest.raises(TightlipError, match=f"mine.*{says}"):
        load_arrays(saved(tmp_path, **arrays))


def spread(tmp_path, **arrays):
    """A folder with a file for each array."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train")])
@pytest.mark.parametrize("tested", [False, True])
def test_a_folder_of_arrays_is_the_same_data_set_as_one_file(tmp_path, names, tested):
    arrays = dict(zip(names, (X, Y), strict=True)) | ({"x_test": X[:2], "y_test": Y[:2]} if tested else {})
    folder, file = spread(tmp_path, **arrays, other=np.zeros(1)), saved(tmp_path, **arrays)
    dataset = load(folder)
    assert (dataset.images.tolist(), dataset.labels.tolist()) == (X.tolist(), Y.tolist())
    assert (dataset.test_images is not None) == tested
    assert (dataset.name, dataset.source, dataset.classes) == ("mine", "mine", 2)
    assert dataset.sha256 == load(file).sha256 == load(str(folder / f"{names[0]}.npy")).sha256


@pytest.mark.parametrize("given", ["x.npy", ".", "../mine"])
def test_a_folder_of_arrays_has_a_name_however_it_was_given(tmp_path, monkeypatch, given):
    monkeypatch.chdir(spread(tmp_path, x=X, y=Y))
    assert load(given).name == "mine"


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X}, r"mine lacks y \(it holds x\): save each as an .npy file of that name"),
        ({"x": X, "y": Y, "y_test": Y}, "mine lacks x_test"),
        ({"images": X, "labels": Y}, r"mine lacks x and y \(it holds images, labels\)"),
        ({"x": X, "y": Y, "x_train": X, "y_train": Y}, "mine holds both"),
        ({"x": X.astype(object), "y": Y}, r"x.npy cannot be read .Object arrays .* with numpy.save\(path, x\)"),
        ({"x": X.astype(np.int64), "y": Y}, "mine has int64 rows"),
        ({"x": X, "y": Y.astype(float)}, "mine has float64 labels"),
        ({"x": X, "y": Y[:5]}, "6 rows but 5 labels"),
        ({"x": np.where(X == 23, np.nan, X), "y": Y}, "NaN or infinite features in 1 of 6 rows, the first at index 5"),
    ],
)
def test_a_folder_of_arrays_that_are_no_data_set_is_refused(tmp_path, arrays, says):
    with pytest.raises(TightlipError, match=says):
        load(spread(tmp_path, **arrays))


class Trap:
    """Unpickling it would be seen."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    "content", [b"", b"no array", pickle.dumps(Trap()), b"PK\3\4", b"\x93NUMPY\1\0\xff\xff", "cut"], ids=repr
)
def test_a_file_in_the_folder_that_is_no_array_is_named(tmp_path, content):
    folder = spread(tmp_path, x=X, y=Y)
    (folder / "y.npy").write_bytes((folder / "y.npy").read_bytes()[:-1] if content == "cut" else content)
    with pytest.raises(TightlipError, match=r"mine.y.npy cannot be read .*: save plain number arrays with numpy.save"):
        load(folder)


def packed_as_npz(file, folder, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", how) as archive:
        for array in folder.iterdir():
            archive.write(array, array.name)


def refused(path):
    """Whether it is, by a sentence."""
    try:
        load_arrays(path)
    except TightlipError:
        return True
    return False


@pytest.mark.parametrize("byte", b"({['\"\\x, 0\n#\x00\xff", ids=lambda byte: repr(bytes([byte])))
@pytest.mark.parametrize("packed", [False, True])
def test_any_damaged_byte_of_a_header_gives_an_array_or_one_sentence(tmp_path, byte, packed):
    folder, file = spread(tmp_path, x=X, y=Y), tmp_path / "mine.npz"
    whole = (folder / "x.npy").read_bytes()
    refusals = 0
    for i in range(len(whole) - X.nbytes):
        (folder / "x.npy").write_bytes(whole[:i] + bytes([byte]) + whole[i + 1 :])
        if packed:
            packed_as_npz(file, folder)
        refusals += refused(file if packed else folder)
    assert refusals > 30


HEADER = "{'descr': %s, 'fortran_order': False, 'shape': %s, }"


@pytest.mark.parametrize(
    "header",
    [
        "{[]: 1}",
        "{1: 2, 'a': 3}",
        "{'descr': (",
        "-" * 3000 + "1",
        HEADER % ("'|u1'", "(True, 2)"),
        HEADER % ("'|u1'", "(6, True)"),
        HEADER % ("'|u1'", "(-1, 4)"),
        HEADER % ("'|u1'", "(10, 10, 10, 10"),
        HEADER % ("'|u1'", "(99999999999999999999,)"),
        HEADER % ("'|u1'", "(999999999999999,)"),
        HEADER % ("[('a',)]", "(6, 4)"),
        HEADER % ("('|u1',)", "(6, 4)"),
        HEADER % ("[[]]", "(6, 4)"),
        HEADER % ("'M8['", "(6, 4)"),
    ],
    ids=lambda header: header[:60],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_that_describe_no_array_are_refused(tmp_path, header, version):
    folder, file = spread(tmp_path, x=X, y=Y), tmp_path / "mine.npz"
    line = header.encode() + b"\n"
    length = len(line).to_bytes(2 if version == 1 else 4, "little")
    (folder / "x.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + line + X.tobytes())
    packed_as_npz(file, folder)
    for path in (folder, file):
        with pytest.raises(TightlipError, match="cannot be read .*: save plain number arrays with numpy.save"):
            load_arrays(path)


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_any_damaged_byte_of_a_compressed_file_gives_arrays_or_one_sentence(tmp_path, how):
    file = tmp_path / "mine.npz"
    packed_as_npz(file, spread(tmp_path, x=X, y=Y), how)
    assert not refused(file)
    whole = file.read_bytes()
    refusals = 0
    for i, old in enumerate(whole):
        file.write_bytes(whole[:i] + bytes([old ^ 0x55]) + whole[i + 1 :])
        refusals += refused(file)
    assert refusals > 200


def test_an_npz_that_calls_itself_npy_is_refused(tmp_path):
    folder = spread(tmp_path, x=X, y=Y)
    np.savez(tmp_path / "two.npz", x=X, y=Y)
    (tmp_path / "two.npz").rename(folder / "y.npy")
    with pytest.raises(TightlipError, match=r"mine.y.npy cannot be read .*numpy.save"):
        load(folder)


def test_an_array_that_is_not_there_or_not_the_images_is_refused(tmp_path):
    folder = spread(tmp_path, x_train=X, y_train=Y)
    with pytest.raises(
        TightlipError, match=r"mine.x.npy does not exist: give the path of an .npz file, or of a folder"
    ):
        load(folder / "x.npy")
    with pytest.raises(TightlipError, match=r"mine.y_train.npy is one array of several: give its folder"):
        load(folder / "y_train.npy")


def single_array(path):
    with path.open("wb") as file:
        np.save(file, X)


def pickled(path):
    path.write_bytes(pickle.dumps({"x": X, "y": Y}))


def damaged(path):
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes().replace(X.tobytes(), bytes(24)))


def foreign_member(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
        archive.writestr("y.npy", b"none either")


def truncated(path):
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "cannot be read .*Is a directory"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"PK\3\4"), "cannot be read"),
        (single_array, "holds a single array"),
        (pickled, "cannot be read .*zip"),
        (truncated, "cannot be read .*zip"),
        (damaged, "cannot be read .*CRC"),
        (foreign_member, "holds something else than an array as x"),
    ],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path, make, says):
    path = tmp_path / "mine.npz"
    make(path)
    with pytest.raises(TightlipError, match=f"mine.npz {says}"):
        load(path)


def test_the_content_hash_is_the_compressors_and_the_memory_layouts_not_concern(tmp_path):
    arrays = {"x": np.arange(12, dtype=np.uint8).reshape(3, 4), "y": np.arange(3)}
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    hashes = {content_sha256(read_npz(tmp_path / name, ("x", "y"))) for name in ("plain.npz", "small.npz")}
    hashes.add(content_sha256(arrays | {"x": np.asfortranarray(arrays["x"])}))
    assert hashes == {content_sha256(arrays)}

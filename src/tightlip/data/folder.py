"""A folder of images, a subfolder a class: ``DIR/CLASS/*.png``, or ``DIR/train/CLASS/*.png``, ``DIR/test/CLASS/*.png``.

Read in two passes, so that nothing is decoded in vain and nothing is held twice: the headers, which must agree on one
size, then the pixels, into one array. Only the decoders of the formats below ever run, whatever a file is called.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from tightlip.data.arrays import content_sha256
from tightlip.data.dataset import Dataset
from tightlip.errors import TightlipError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
"""What the name of an image ends with, in small letters or capitals; other files are left alone."""

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_GRAY = ("1", "L", "LA", "La")  # Pillow's modes without color
# All that Pillow raises on a file that is not what it says.
_UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, TypeError, IndexError, KeyError, MemoryError)


def load_folder(path: str | Path, whole: bool = False) -> Dataset:
    """A user's images; the classes are the subfolders, numbered in the order of their names.

    Grayscale images become (n, 1, h, w) uint8; if only one has color, all become (n, 3, h, w). Pixels are as stored:
    transparency is dropped, and a camera's note on how to turn the picture is not followed. Hidden files, and files
    that are no images, are left alone. A test part may lack classes, but not add any. The hash is taken over the names
    of the files and their decoded pixels. A data set that is to stay ``whole`` may have one image of a class.

    Raises:
        TightlipError: no class folders, one without images or with folders inside, images that cannot be read, differ
            in size, move or have more than 8 bits, or whatever `Dataset` refuses.
    """
    path = Path(os.path.abspath(path))  # so that even "." has a name
    train, test = _parts(path)
    class_names = [folder.name for folder in _class_folders(train)]
    files, labels = _examples(train, class_names)
    test_files, test_labels = _examples(test, class_names) if test else ([], None)
    pixels = _decode([*files, *test_files])
    names = [file.relative_to(path).as_posix() for file in (*files, *test_files)]
    images = torch.from_numpy(pixels)
    return Dataset(
        name=path.name,
        source=path.name,
        sha256=content_sha256(dict(zip(names, pixels, strict=True))),
        images=images[: len(files)],
        labels=labels,
        test_images=images[len(files) :] if test else None,
        test_labels=test_labels,
        classes=len(class_names),
        licence="the user's own",
        class_names=tuple(class_names),
        whole=whole,
    )


def read_images(path: Path) -> tuple[tuple[str, ...], UInt8[np.ndarray, "n c h w"]]:
    """The images that lie in a folder, or in its subfolders if none do: their names, and their pixels as stored.

    Raises:
        TightlipError: if there is none, or for images as `load_folder` refuses them.
    """
    files = [file for file in _entries(path) if file.suffix.lower() in SUFFIXES]
    files = files or [file for folder in _folders(path) for file in _image_files(folder)]
    if not files:
        arrays = sorted(path.glob("*.npy"))
        which = f"name one of its arrays, such as {arrays[0]}" if arrays else f"put some in ({', '.join(SUFFIXES)})"
        raise TightlipError(f"{path} holds no images: {which}")
    return tuple(file.relative_to(path).as_posix() for file in files), _decode(files)


def _parts(path: Path) -> tuple[Path, Path | None]:
    """The folders of the training part and of the test part, if there is one."""
    names = [folder.name for folder in _folders(path)]
    if "train" not in names or not _folders(path / "train"):  # a class may be called train, too
        return path, None
    if foreign := [name for name in names if name not in ("train", "test")]:
        raise TightlipError(f"{path} holds {foreign[0]} beside train: keep train and test, and move the rest away.")
    return path / "train", path / "test" if "test" in names else None


def _class_folders(part: Path) -> list[Path]:
    folders = _folders(part)
    if not folders:
        raise TightlipError(
            f"{part} holds no class folders: put the images of each class into a folder of its own "
            f"({part.name}/CLASS/1.png), or give a folder with x.npy and y.npy."
        )
    return folders


def _examples(part: Path, class_names: Sequence[str]) -> tuple[list[Path], Int64[Tensor, " n"]]:
    """The image files of a part, class by class, and their labels."""
    number = {name: label for label, name in enumerate(class_names)}
    files, labels = [], []
    for folder in _class_folders(part):
        if folder.name not in number:
            raise TightlipError(
                f"{folder} is a class that training lacks (it has {', '.join(class_names)}): move or rename it."
            )
        images = _image_files(folder)
        files += images
        labels += [number[folder.name]] * len(images)
    return files, torch.tensor(labels)


def _image_files(folder: Path) -> list[Path]:
    if inner := _folders(folder):
        raise TightlipError(f"{inner[0]} is a folder inside of a class: put its images into {folder}, or move it away.")
    images = [file for file in _entries(folder) if file.suffix.lower() in SUFFIXES]
    if not images:
        raise TightlipError(f"{folder} holds no images ({', '.join(SUFFIXES)}): put some in, or delete it.")
    return images


def _folders(path: Path) -> list[Path]:
    return [entry for entry in _entries(path) if entry.is_dir()]


def _entries(path: Path) -> list[Path]:
    """What a folder holds and shows, in the order of the names."""
    try:
        return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise TightlipError(f"{path} cannot be read ({error.strerror}): check the path and its permissions.") from error


def _decode(files: Sequence[Path]) -> UInt8[np.ndarray, "n c h w"]:
    """The pixels of all files, in grayscale if none has color."""
    (width, height), mode = _survey(files)
    pixels = np.empty((len(files), len(mode), height, width), dtype=np.uint8)
    for target, file in zip(pixels, tqdm(files, desc="images", unit="", delay=1.0, disable=None), strict=True):
        with _opened(file) as image:
            image.info.pop("transparency", None)
            target[:] = np.asarray(image.convert(mode)).reshape(height, width, len(mode)).transpose(2, 0, 1)
    return pixels


def _survey(files: Sequence[Path]) -> tuple[tuple[int, int], str]:
    """From the headers alone: the one size of all images, width first, and the mode for them, ``L`` or ``RGB``."""
    sizes: dict[tuple[int, int], Path] = {}
    mode = "L"
    for file in files:
        with _opened(file) as image:
            _check_kind(file, image)
            sizes.setdefault(image.size, file)
            mode = mode if image.mode in _GRAY else "RGB"
        if len(sizes) > 1:
            one, other = (f"{file} has {width} × {height} pixels" for (width, height), file in sizes.items())
            raise TightlipError(
                f"{one}, but {other}: resize all images to one size, for instance by Image.open(file).resize((32, 32)) "
                "of Pillow."
            )
    [size] = sizes
    return size, mode


def _check_kind(file: Path, image: Any) -> None:
    """Refuse what could be read only in part."""
    if image.mode.startswith(("I", "F")):
        raise TightlipError(
            f"{file} has more than 8 bits a pixel: convert it to 8, or give a folder with x.npy and y.npy."
        )
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's JPEG with a preview is no film
        raise TightlipError(f"{file} holds {image.n_frames} images: save the one that is meant.")


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The image, its pixels not yet decoded; whatever opening or decoding it raises becomes one sentence."""
    from PIL import Image, UnidentifiedImageError  # only who has a folder of images waits for Pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as image:
                yield image
    except TightlipError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TightlipError(f"{file} will not be decoded ({str(error).rstrip('.')}): resize it.") from error
    except UnidentifiedImageError as error:
        raise TightlipError(f"{file} is not an image in a known format ({', '.join(_FORMATS)}): convert it.") from error
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise TightlipError(f"{file} cannot be read ({reason}): save it again or move it away.") from error

import os

import numpy as np
import pytest
import torch
from PIL import Image, features

from tightlip.data import load, split
from tightlip.errors import TightlipError

GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)  # three rows of four: height and width must not be confused
COLOR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


def write(file, pixels=GRAY, mode=None, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, **options)
    return file


def fill(folder, pixels=GRAY, classes=("cat", "dog"), count=3):
    """``count`` images a class, all different: image i of class c is ``pixels`` plus 10 c + i."""
    for label, name in enumerate(classes):
        for index in range(count):
            write(folder / name / f"{index}.png", pixels + np.uint8(10 * label + index))
    return folder


@pytest.mark.parametrize(("pixels", "channels"), [(GRAY, 1), (COLOR, 3)], ids=["gray", "color"])
def test_a_folder_a_class_becomes_a_data_set_with_channels_first(tmp_path, pixels, channels):
    dataset = load(fill(tmp_path / "mine", pixels))
    assert dataset.images.shape == (6, channels, 3, 4)
    assert dataset.images.dtype == torch.uint8
    for index, added in enumerate((0, 1, 2, 10, 11, 12)):
        expected = (pixels + np.uint8(added)).reshape(3, 4, channels)
        assert dataset.images[index].permute(1, 2, 0).numpy().tolist() == expected.tolist()
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.class_names == ("cat", "dog")
    assert (dataset.name, dataset.source, dataset.classes, dataset.test_images) == ("mine", "mine", 2, None)
    assert len(split(dataset, seed=0).train) == 2


def test_a_train_and_a_test_folder_become_two_parts(tmp_path):
    fill(tmp_path / "mine" / "train")
    write(tmp_path / "mine" / "test" / "dog" / "1.png", GRAY + np.uint8(50))
    dataset = load(tmp_path / "mine")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_labels.tolist() == [1]  # a test part may lack a class, and the others keep their numbers
    assert dataset.test_images[0, 0].numpy().tolist() == (GRAY + np.uint8(50)).tolist()
    assert len(dataset.images) == 6


def test_a_train_folder_alone_is_a_training_part(tmp_path):
    dataset = load(fill(tmp_path / "mine" / "train").parent)
    assert (len(dataset.images), dataset.test_images) == (6, None)


def test_a_class_may_be_called_train(tmp_path):
    assert load(fill(tmp_path, classes=("bus", "test", "train"))).class_names == ("bus", "test", "train")


@pytest.mark.parametrize("position", range(6))
def test_one_image_with_color_makes_all_of_them_rgb(tmp_path, position):
    fill(tmp_path)
    write(tmp_path / ("cat", "dog")[position // 3] / f"{position % 3}.png", COLOR)
    images = load(tmp_path).images
    assert images.shape == (6, 3, 3, 4)
    assert images[position].permute(1, 2, 0).numpy().tolist() == COLOR.tolist()
    assert all(image[0].equal(image[2]) == (index != position) for index, image in enumerate(images))


def test_color_in_the_test_part_makes_the_training_part_rgb(tmp_path):
    fill(tmp_path / "train")
    write(tmp_path / "test" / "cat" / "0.png", COLOR)
    dataset = load(tmp_path)
    assert dataset.images.shape == (6, 3, 3, 4)
    assert dataset.images[0].numpy().tolist() == [GRAY.tolist()] * 3


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_whatever_has_no_color_is_gray(tmp_path, mode):
    fill(tmp_path)
    write(tmp_path / "cat" / "3.png", np.where(GRAY > 5, 255, 0).astype(np.uint8), mode)
    dataset = load(tmp_path)
    assert dataset.images.shape[1] == 1
    assert dataset.images[3].flatten().tolist() == [0] * 6 + [255] * 6


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_whatever_has_color_is_rgb(tmp_path, mode):
    red = np.zeros((3, 4, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    for index in range(3):
        write(tmp_path / "red" / f"{index}.{'jpg' if mode == 'CMYK' else 'png'}", red, mode)
    images = load(tmp_path).images.int()
    assert images.shape == (3, 3, 3, 4)
    assert (images[:, 0] - 255).abs().max() <= 3 and images[:, 1:].max() <= 3  # JPEG is not exact


@pytest.mark.parametrize("transparency", [0, b"\0" * 7], ids=["a color", "a table"])
def test_transparency_is_dropped_without_a_warning(tmp_path, transparency):
    for index in range(3):
        write(tmp_path / "a" / f"{index}.png", COLOR, "P", transparency=transparency)
    assert load(tmp_path).images.float().std() > 1


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "JPEG", "bmp", "gif", "webp"])
def test_every_format_is_read(tmp_path, suffix):
    if suffix == "webp" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    for index in range(3):
        write(tmp_path / "a" / f"{index}.{suffix}", GRAY + np.uint8(100))
    assert (load(tmp_path).images.float().mean() - 105.5).abs() < 4


def test_what_is_hidden_or_no_image_is_left_alone(tmp_path):
    fill(tmp_path)
    before = load(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "cat" / ".cache").mkdir()
    for name in ("README.txt", "cat/notes.txt", "cat/._0.png", "dog/Thumbs.db", "stray.png"):
        (tmp_path / name).write_text("no image")
    after = load(tmp_path)
    assert after.class_names == ("cat", "dog")
    assert after.sha256 == before.sha256


def test_the_hash_is_that_of_names_and_pixels_and_not_of_files(tmp_path):
    original = load(fill(tmp_path / "a"))
    recompressed = fill(tmp_path / "b")
    write(recompressed / "cat" / "0.png", GRAY, compress_level=0)
    assert (recompressed / "cat" / "0.png").read_bytes() != (tmp_path / "a" / "cat" / "0.png").read_bytes()
    changed, renamed, regrouped = (fill(tmp_path / name) for name in "cde")
    write(changed / "cat" / "0.png", GRAY + np.uint8(200))
    (renamed / "cat" / "0.png").rename(renamed / "cat" / "00.png")
    (regrouped / "cat").rename(regrouped / "cow")
    assert load(recompressed).sha256 == original.sha256
    assert len({load(folder).sha256 for folder in (tmp_path / "a", changed, renamed, regrouped)}) == 4


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path / "mine"))
    assert load(".").name == "mine"


def test_a_name_that_is_no_unicode_is_hashed_all_the_same(tmp_path):
    fill(tmp_path)
    try:
        os.rename(tmp_path / "cat" / "0.png", os.fsencode(tmp_path / "cat") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes no such names")
    assert len(load(tmp_path).labels) == 6


def no_classes(folder):
    write(folder / "0.png")


def empty_class(folder):
    (fill(folder) / "cow").mkdir()


def class_without_images(folder):
    (empty_class(folder), (folder / "cow" / "moo.wav").write_bytes(b""))


def folder_in_a_class(folder):
    write(fill(folder) / "cat" / "more" / "0.png")


def validation_part(folder):
    (fill(folder / "train"), fill(folder / "val"))


def empty_test_part(folder):
    (fill(folder / "train"), (folder / "test").mkdir())


def foreign_test_class(folder):
    (fill(folder / "train"), fill(folder / "test", classes=("cow",)))


def two_of_a_class(folder):
    fill(folder, count=2)


def other_size(folder):
    write(fill(folder) / "dog" / "1.png", GRAY.T)


def other_size_in_the_test_part(folder):
    (fill(folder / "train"), write(folder / "test" / "cat" / "0.png", GRAY[:2]))


def text(folder):
    (fill(folder) / "dog" / "1.png").write_text("no image")


def empty_file(folder):
    (fill(folder) / "dog" / "1.png").write_bytes(b"")


def truncated(folder):
    noise = np.random.default_rng(0).integers(0, 255, (3, 4), dtype=np.uint8)
    file = write(fill(folder) / "dog" / "1.png", noise)
    file.write_bytes(file.read_bytes()[:-25])


def postscript(folder):
    (fill(folder) / "dog" / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n%%EndComments\n")


def dangling_link(folder):
    (fill(folder) / "dog" / "1.jpg").symlink_to(folder / "absent.jpg")


def sixteen_bits(folder):
    write(fill(folder) / "dog" / "1.png", GRAY.astype(np.uint16) * 256)


def film(folder):
    frames = [Image.fromarray(GRAY + np.uint8(40 * frame)) for frame in range(3)]
    fill(folder)
    frames[0].save(folder / "dog" / "1.gif", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (no_classes, r"mine holds no class folders: put the images of each class .*mine/CLASS/1.png.* x.npy"),
        (empty_class, r"mine.cow holds no images .\.png, .*: put some in, or delete it"),
        (class_without_images, r"mine.cow holds no images"),
        (folder_in_a_class, r"cat.more is a folder inside of a class: put its images into .*mine.cat, or move"),
        (validation_part, r"mine holds val beside train: keep train and test, and move the rest away"),
        (empty_test_part, r"mine.test holds no class folders"),
        (foreign_test_class, r"test.cow is a class that training lacks .it has cat, dog.: move or rename it"),
        (two_of_a_class, r"mine has 2 examples of class 0"),
        (
            other_size,
            r"cat.0.png has 4 × 3 pixels, but .*dog.1.png has 3 × 4 pixels: resize all images to one size, for",
        ),
        (other_size_in_the_test_part, r"train.cat.0.png has 4 × 3 pixels, but .*test.cat.0.png has 4 × 2 pixels"),
        (text, r"dog.1.png is not an image in a known format .PNG, JPEG, BMP, GIF, WEBP.: convert it"),
        (empty_file, r"dog.1.png is not an image"),
        (truncated, r"dog.1.png cannot be read .*: save it again or move it away"),
        (postscript, r"dog.1.png is not an image"),
        (dangling_link, r"dog.1.jpg cannot be read .No such file or directory"),
        (sixteen_bits, r"dog.1.png has more than 8 bits a pixel: convert it to 8"),
        (film, r"dog.1.gif holds 3 images: save the one that is meant"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_in_one_sentence(tmp_path, make, says):
    make(tmp_path / "mine")
    with pytest.raises(TightlipError, match=says) as caught:
        load(tmp_path / "mine")
    assert str(caught.value).count("\n") == 0 and str(caught.value).endswith(".")


@pytest.mark.parametrize("limit", [11, 5], ids=["doubtful", "certain"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # Pillow only warns up to twice as many
    with pytest.raises(TightlipError, match=r"cat.0.png will not be decoded .*12 pixels.*: resize it"):
        load(fill(tmp_path))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_a_sentence(tmp_path):
    fill(tmp_path)
    (tmp_path / "cat").chmod(0)
    with pytest.raises(TightlipError, match=r"cat cannot be read .Permission denied"):
        load(tmp_path)
    (tmp_path / "cat").chmod(0o755)


def test_a_camera_file_with_a_preview_inside_is_one_image(tmp_path):
    for index in range(3):
        preview = [Image.fromarray(GRAY)]
        write(tmp_path / "a" / f"{index}.jpg", GRAY + np.uint8(100), format="MPO", save_all=True, append_images=preview)
    assert load(tmp_path).images.int().min() > 90

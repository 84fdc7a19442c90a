from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tightlip.data import Dataset, split
from tightlip.errors import TightlipError


def dataset(counts, test_counts=None, dtype=torch.uint8):
    """``counts[c]`` images of class c, sorted by class; pixel (i, 0) tells the images apart."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    test_labels = None
    if test_counts is not None:
        test_labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(test_counts))
    return Dataset(
        name="made",
        source="test",
        sha256="0" * 64,
        images=numbered(len(labels), dtype),
        labels=labels,
        test_images=None if test_labels is None else numbered(len(test_labels), dtype),
        test_labels=test_labels,
        classes=len(counts),
        licence="none",
    )


def numbered(count, dtype):
    index = torch.arange(count)
    return torch.stack([index % 256, index // 256], dim=1).to(dtype)


def numbers(part, scale=255):
    return (part.images * scale).round().long() @ torch.tensor([1, 256])


def changed(**fields):
    made = dataset([3, 3], [1, 1])
    return Dataset(**{name: fields.get(name, getattr(made, name)) for name in made.__dataclass_fields__})


@pytest.mark.parametrize(
    ("counts", "test_counts", "sizes", "per_class"),
    [
        ([500] * 10, None, (3600, 400, 1000), ([360] * 10, [40] * 10, [100] * 10)),
        ([6000] * 10, [1000] * 10, (55000, 5000, 10000), ([5500] * 10, [500] * 10, [1000] * 10)),
        ([3, 3], None, (2, 2, 2), ([1, 1], [1, 1], [1, 1])),
        ([3, 1000], None, (722, 80, 201), ([1, 721], [1, 79], [1, 200])),
        ([3, 3], [1, 2], (4, 2, 3), ([2, 2], [1, 1], [1, 2])),
    ],
)
def test_split_sizes_are_exact_in_total_and_by_class(counts, test_counts, sizes, per_class):
    splits = split(dataset(counts, test_counts), seed=0)
    parts = (splits.train, splits.validation, splits.test)
    assert tuple(len(part) for part in parts) == sizes
    assert tuple(part.labels.bincount().tolist() for part in parts) == per_class


def test_validation_of_unequal_classes_is_within_one_of_proportional():
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # MNIST's training part
    validation = split(dataset(counts, [1] * 10), seed=0).validation
    assert len(validation) == 5000
    assert (validation.labels.bincount() - torch.tensor(counts) / 12).abs().max() < 1


@given(counts=st.lists(st.integers(3, 60), min_size=1, max_size=8), carve=st.booleans(), seed=st.integers(0, 9))
def test_parts_are_disjoint_cover_everything_and_hold_every_class(counts, carve, seed):
    whole = dataset(counts, None if carve else [1] * len(counts))
    splits = split(whole, seed)
    parts = [splits.train, splits.validation] + ([splits.test] if carve else [])
    assert torch.cat([numbers(part) for part in parts]).sort().values.equal(torch.arange(len(whole.labels)))
    for part in parts:
        assert part.labels.unique().tolist() == list(range(len(counts)))
        assert whole.labels[numbers(part)].equal(part.labels)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    whole = dataset([50, 50])
    first, again, other = (numbers(split(whole, seed).train) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.sort().values.equal(other.sort().values)


def test_parts_are_shuffled():
    for part in vars(split(dataset([50, 50]), seed=0)).values():
        assert not part.labels.equal(part.labels.sort().values)


def test_a_given_test_part_keeps_its_order():
    assert numbers(split(dataset([3, 3], [4, 4]), seed=0).test).tolist() == list(range(8))


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = numbers(split(dataset([20, 20]), seed=0).train)
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(2)
    assert numbers(split(dataset([20, 20]), seed=0).train).equal(first)


@pytest.mark.parametrize("test_counts", [None, [90, 90]], ids=["carved", "given"])
def test_uint8_is_kept_until_split_and_becomes_unit_floats_there(test_counts):
    whole = dataset([150, 150], test_counts)
    before = whole.images.clone()
    splits = split(whole, seed=0)
    assert whole.images.dtype == torch.uint8
    assert whole.images.equal(before)
    for part in (splits.train, splits.validation, splits.test):
        assert part.images.dtype == torch.float32
        assert 0 <= part.images.min() < part.images.max() <= 1
    assert splits.train.images.max() > 0.9


@pytest.mark.parametrize("test_counts", [None, [5, 5]], ids=["carved", "given"])
def test_float_images_are_passed_on_unscaled(test_counts):
    splits = split(dataset([5, 5], test_counts, torch.float32), seed=0)
    parts = [splits.train, splits.validation] + ([splits.test] if test_counts is None else [])
    assert torch.cat([numbers(part, scale=1) for part in parts]).sort().values.tolist() == list(range(10))
    assert splits.test.images.dtype == torch.float32


def test_a_data_set_cannot_be_changed():
    with pytest.raises(FrozenInstanceError, match="cannot assign to field"):
        dataset([3]).name = "other"


FLOATS = torch.zeros(6, 2)
NAN = torch.zeros(6, 2).index_fill(0, torch.tensor([4]), torch.nan)
INFINITE = torch.zeros(6, 2).index_fill(0, torch.tensor([0, 5]), -torch.inf)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"images": NAN, "test_images": FLOATS[:2]},
            "features in 1 of 6 rows, the first at index 4: mend",
        ),
        ({"images": INFINITE, "test_images": FLOATS[:2]}, "in 2 of 6 rows, the first at index 0"),
        ({"images": FLOATS, "test_images": NAN[3:5]}, "made, test part has NaN or infinite .* the first at index 1"),
        ({"images": FLOATS.double()}, "torch.float64 rows: convert them to uint8"),
        ({"images": torch.zeros(6, dtype=torch.uint8)}, r"inputs of shape \(6,\): give \(examples"),
        ({"images": torch.zeros(6, 0, dtype=torch.uint8)}, r"inputs of shape \(6, 0\)"),
        ({"images": torch.tensor(1, dtype=torch.uint8)}, r"inputs of shape \(\)"),
        ({"images": torch.zeros(5, 2, dtype=torch.uint8)}, "5 rows but 6 labels: give one label for each"),
        ({"labels": torch.zeros(6)}, "torch.float32 labels of shape .* give int64"),
        ({"labels": torch.zeros(6, dtype=torch.int32)}, "torch.int32 labels"),
        ({"labels": torch.zeros(6, 1).long()}, r"labels of shape \(6, 1\)"),
        ({"labels": torch.tensor([0, 0, 0, 1, 1, 2])}, "labels from 0 to 2 but 2 classes: number them 0 to 1"),
        ({"labels": torch.tensor([-1, 0, 0, 0, 1, 1])}, "labels from -1 to 1"),
        ({"labels": torch.tensor([0, 0, 0, 0, 1, 1])}, "2 examples of class 1: .* at least three"),
        ({"classes": 3}, "0 examples of class 2"),
        ({"class_names": ("cat",)}, "2 classes but 1 names for them"),
        ({"images": torch.zeros(0, 2, dtype=torch.uint8), "labels": torch.zeros(0).long()}, "made is empty"),
        ({"test_images": None}, "without inputs or without labels: give both or neither"),
        ({"test_labels": None}, "without inputs or without labels: give both or neither"),
        ({"test_labels": torch.tensor([0, 2])}, "made, test part has labels from 0 to 2"),
        ({"test_images": torch.zeros(2, 3, dtype=torch.uint8)}, r"trains on \(2,\) uint8 but tests on \(3,\) uint8"),
        ({"test_images": torch.zeros(2, 2)}, r"trains on \(2,\) uint8 but tests on \(2,\) float32"),
    ],
)
def test_what_is_not_a_data_set_is_refused_in_one_sentence(fields, says):
    with pytest.raises(TightlipError, match=says) as caught:
        changed(**fields)
    assert str(caught.value).startswith("made")
    assert str(caught.value).endswith(".")


def test_a_split_is_told_by_its_sizes():
    parts = split(dataset([50, 50]), 0)
    assert repr(parts) == "Splits(train 72, validation 8, test 20)" and repr(parts.test) == "Part(20 × (2,))"

"""Examples come as tensors, arrays, parts, datasets and loaders; what cannot be meant is one sentence."""

import math

import numpy as np
import pytest
import torch
from blobs import blobs, half_sum, regress, same_weights, seeded, train, without_seconds
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from tightlip import TightlipError, data
from tightlip.data import Part

X, Y = half_sum()
ARRAYS = X.numpy(), Y.numpy()


class Items(Dataset):
    """The examples, one by one."""

    def __init__(self, x=X, y=Y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class Stream(IterableDataset):
    """Examples without a number of them."""

    def __iter__(self):
        return iter(zip(X, Y, strict=True))


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: (x.numpy(), y.numpy()),
        lambda x, y: [x, y],
        lambda x, y: (x.double(), y.double()),
        lambda x, y: (x.double().numpy(), y),
        lambda x, y: (x.clone().requires_grad_(), y.clone().requires_grad_()),
        lambda x, y: TensorDataset(x, y),
        Items,
    ],
    ids=["arrays", "list of two", "float64", "float64 array", "with gradients", "TensorDataset", "Dataset"],
)
def test_every_form_of_the_same_examples_is_the_same_training(form):
    plain, history = regress(2)
    network, same = regress(2, train=form(X, Y), validation=form(*half_sum(50, 1)))
    assert without_seconds(same) == without_seconds(history) and same_weights(network, plain)


def test_a_part_of_a_data_set_is_its_images_and_labels():
    x, y = blobs()
    held_out = blobs(50, seed=1)
    plain, history = train(2)
    network, same = train(2, train=Part(x, y), validation=Part(*held_out))
    assert without_seconds(same) == without_seconds(history) and same_weights(network, plain)


def test_a_loader_is_used_as_it_is():
    seen = []

    def remember(x, generator):
        seen.append(x)
        return x

    loader = DataLoader(TensorDataset(X, Y), batch_size=30)
    _, history = regress(2, train=loader, validation=loader, batch_size=None, augment=remember)
    assert [len(x) for x in seen] == 2 * [30, 30, 30, 30, 30, 30, 20]
    assert torch.equal(torch.cat(seen[:7]), X)  # its order
    assert without_seconds(history) == without_seconds(
        regress(2, train=loader, validation=(X, Y), batch_size=None, augment=lambda x, g: x)[1]
    )


def test_a_loader_that_shuffles_is_seeded_by_the_seed_of_fit_and_draws_anew_each_epoch():
    def orders(seed):
        seen = []
        loader = DataLoader(TensorDataset(X, Y), 200, shuffle=True)
        options = {"train": loader, "batch_size": None, "augment": lambda x, g: seen.append(x) or x}
        regress(2, seed=seed, **options)
        return seen

    first, second = orders(0)
    assert not torch.equal(first, second) and torch.equal(first, orders(0)[0]) and torch.equal(second, orders(0)[1])
    assert not torch.equal(first, orders(1)[0])


def test_looking_at_a_loader_before_training_does_not_move_its_generator():
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(X, Y), 200, shuffle=True, generator=generator)
    seen = []
    regress(1, train=loader, batch_size=None, augment=lambda x, g: seen.append(x) or x)
    generator.manual_seed(3)
    assert torch.equal(seen[0], next(iter(loader))[0])


def test_items_are_drawn_anew_each_epoch():
    """A Dataset whose items are random is not frozen at its first draw."""

    class Noisy(Items):
        def __getitem__(self, index):
            return torch.rand(4), Y[index]

    seen = []
    regress(2, train=Noisy(), batch_size=200, augment=lambda x, g: seen.append(x) or x)
    assert not torch.isin(seen[0], seen[1]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_enter_in_the_dtype_of_the_network(dtype):
    seen = []

    def loss(outputs, targets):
        seen.append((outputs.dtype, targets.dtype))
        return functional.huber_loss(outputs, targets)  # which takes one dtype alone

    for given in (torch.float32, torch.float64):
        regress(1, seeded(4, 8, 1).to(dtype), loss=loss, train=(X.to(given), Y.to(given)))
    assert set(seen) == {(dtype, dtype)}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool])
def test_labels_may_be_integers_of_any_size(dtype):
    x, y = blobs()
    _, history = train(2, train=(x, y.to(dtype)))
    assert without_seconds(history) == without_seconds(train(2)[1])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_integer_inputs_are_refused_by_networks_of_numbers_and_taken_by_embeddings(dtype):
    x = torch.arange(200).reshape(50, 4) % 5
    with pytest.raises(TightlipError, match=rf"they are {dtype}, give floating-point numbers"):
        train(1, train=(x.to(dtype), blobs(50)[1]))
    embedding = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(12, 2))
    if dtype == torch.int64:
        train(1, embedding, train=(x, blobs(50)[1]), validation=None)


def views(x, y):
    """A loader that gives views of the caller's tensors, ten examples each."""
    return DataLoader(Items(x.split(10), y.split(10)), batch_size=None)


@pytest.mark.parametrize("where", ["train", "validation"])
@pytest.mark.parametrize("form", [lambda x, y: (x, y), TensorDataset, views])
def test_data_are_never_modified(where, form):
    """Not by a network that works in place, an augmentation or an adversary that does."""

    def spoil(x, *_):
        return x.zero_()

    x, y = blobs(40)
    before = x.clone(), y.clone()
    options = {"augment": spoil, "adversary": lambda network, x, y: spoil(x), "batch_size": None}
    train(1, nn.Sequential(nn.ReLU(inplace=True), seeded()), **{where: form(x, y)}, **options)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("where", ["train", "validation"])
@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (X, "part is a Tensor: give .inputs, targets."),
        ((X, Y, Y), "part is a tuple of 3"),
        ({"x": X, "y": Y}, "part is a dict"),
        (iter([(X, Y)]), "part is a list_iterator"),
        (X.tolist(), "part is a list of 200"),
        ((X.tolist(), Y), "inputs must be a tensor or a numpy array, got a list"),
        ((X, Y.tolist()), "targets must be a tensor or a numpy array, got a list"),
        ((X, np.array(["a"] * 200)), "targets must be numbers, got an array of <U1"),
        ((X, Y[:5]), r"inputs of shape \(200, 4\) and targets of shape \(5,\): give equally many"),
        ((X[:0], Y[:0]), "give equally many, not none"),
        ((X, Y.sum()), r"targets of shape \(\)"),
        (Items(X[:0], Y[:0]), "empty|not none"),
        (DataLoader(Stream(), 8), "without a length|one with __len__"),
        (Stream(), "without a length|one with __len__"),
        (DataLoader(TensorDataset(X[:0], Y[:0]), 8), "gives no batch|is empty"),
        (DataLoader(TensorDataset(X), 8), "part is a list of 1"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_parts_of_other_forms_are_one_sentence(where, part, sentence):
    with pytest.raises(TightlipError, match=sentence) as caught:
        regress(1, **{"batch_size": None, where: part})
    assert "\n" not in str(caught.value)


def test_a_whole_data_set_is_to_be_split():
    whole = data.load("mnist5k")
    with pytest.raises(TightlipError, match=r"a whole Dataset: give one Part, .*split"):
        train(1, train=whole)
    with pytest.raises(TightlipError, match="a whole Splits: give one Part"):
        train(1, train=data.split(whole, 0))


def test_a_batch_size_beside_a_loader_is_refused_and_not_ignored():
    with pytest.raises(TightlipError, match="a DataLoader has batches of its own: leave batch_size out"):
        regress(1, train=DataLoader(TensorDataset(X, Y), 8), batch_size=8)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("where", ["train", "validation"])
@pytest.mark.parametrize("form", [lambda *pair: pair, TensorDataset, Items, lambda x, y: DataLoader(Items(x, y), 8)])
def test_examples_that_are_not_finite_are_refused(bad, which, where, form):
    """1e300 is infinite in the float32 of the network."""
    pair = [X.double(), Y.double()]
    pair[which][3] = bad
    name = f"{'training' if where == 'train' else where} {('inputs', 'targets')[which]}"
    with pytest.raises(TightlipError, match=rf"1 of \d+ {name} are NaN or infinite .*first at index \d+: mend"):
        regress(1, **{where: form(*pair)}, batch_size=None)

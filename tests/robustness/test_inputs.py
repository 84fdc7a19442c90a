"""What `certify` takes: arrays as tensors, labels of every integer kind; and what it refuses, in one sentence."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import Gains, Roundoff, TightlipError, certify, freeze, mlp, rule
from tightlip.norms import as_norm
from tightlip.robustness.batches import batches


@pytest.fixture
def problem(seed):
    network = freeze(mlp([6, 8, 3]))
    x = torch.randn(50, 6)
    return network, x, network(x).argmax(1)


def same(a, b):
    assert torch.equal(a.radius, b.radius) and torch.equal(a.margin, b.margin) and torch.equal(a.correct, b.correct)


def read_only(array):
    array.setflags(write=False)
    return array


ARRAYS = {
    "plain": lambda a: a,
    "read-only": lambda a: read_only(a.copy()),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "by columns": np.asfortranarray,
    "reversed twice": lambda a: a[::-1].copy()[::-1],
    "subclass": lambda a: a.view(np.ma.MaskedArray),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_every_layout_give_the_certificate_of_the_tensor(problem, kind):
    network, x, y = problem
    make, whole = ARRAYS[kind], certify(network, x, y)
    same(certify(network, make(x.numpy()), make(y.numpy())), whole)
    same(certify(network, make(x.numpy()), y, batch_size=7), certify(network, x, y, batch_size=7))
    same(certify(network, x, make(y.numpy())), whole)
    same(certify(network, [(make(x.numpy()), make(y.numpy()))]), whole)
    same(certify(network, make(x.numpy())), certify(network, x))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_of_floats_are_widened_exactly(problem, dtype):
    network, x, y = problem
    array = x.numpy().astype(dtype)
    same(certify(network, array, y), certify(network, torch.from_numpy(array.astype(np.float64)), y))


UNSIGNED = [torch.uint8, torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, *UNSIGNED], ids=str)
def test_labels_of_every_integer_kind(problem, dtype):
    network, x, y = problem
    same(certify(network, x, y.to(dtype)), certify(network, x, y))
    same(certify(network, x, y.to(dtype).numpy()), certify(network, x, y))
    with pytest.raises(TightlipError, match="labels reach from 0 to"):
        certify(network, x, torch.tensor([*[0] * 49, 100]).to(dtype))


def test_truth_values_are_classes_and_the_largest_integers_none(problem):
    _, x, _ = problem
    two = x[:, :2].double()
    y = two.argmax(1)
    same(certify(nn.Identity(), two, y.bool()), certify(nn.Identity(), two, y))
    with pytest.raises(TightlipError, match="number the 2 classes from 0"):
        certify(nn.Identity(), two, np.full(50, 2**64 - 1, dtype=np.uint64))


WRONG_LABELS = [
    *(torch.zeros(50, dtype=torch.complex64), torch.zeros(50), torch.zeros(50, 1, dtype=torch.int64)),
    *(torch.zeros(50).to(torch.float8_e5m2), torch.zeros(50, dtype=torch.int64).to_sparse()),
    *(np.zeros(50), np.zeros(50, complex), np.array(["a"] * 50), np.zeros(50, object), [0] * 50, 3, "0"),
    torch.zeros(50, dtype=torch.int64, device="meta"),
]


@pytest.mark.parametrize("y", WRONG_LABELS, ids=lambda y: f"{type(y).__name__} {getattr(y, 'dtype', '')}")
def test_labels_that_are_not_one_integer_each_are_refused(problem, y):
    network, x, _ = problem
    with pytest.raises(TightlipError, match="labels|convert it with torch.as_tensor"):
        certify(network, x, y)


WRONG_INPUTS = [
    *(torch.ones(2, 6, dtype=torch.complex64), torch.ones(2, 6).long(), torch.ones(2, 6).to(torch.float8_e4m3fn)),
    *(torch.ones(2, 6).to_sparse(), torch.ones(2, 6, device="meta"), torch.ones(6), torch.tensor(1.0)),
    *(np.ones((2, 6), np.longdouble), np.ones((2, 6), int), np.ones((2, 6), complex), np.ones((2, 6), object)),
    *(np.ones(6), np.array([["a"]]), None, "x", 7, {"x": torch.ones(2, 6)}),
]


@pytest.mark.parametrize("x", WRONG_INPUTS, ids=lambda x: f"{type(x).__name__} {getattr(x, 'dtype', '')}")
def test_inputs_that_are_not_rows_of_floats_are_refused(problem, x):
    with pytest.raises(TightlipError, match="certif") as caught:
        certify(problem[0], x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch_size", [1.5, "8", None, True, torch.tensor(3), 0])
def test_a_batch_size_is_an_integer(problem, batch_size):
    with pytest.raises(TightlipError, match="evaluates nothing"):
        inspect.unwrap(batches)(problem[1], problem[2], batch_size)


@pytest.mark.parametrize("p", [10**400, torch.ones(2), torch.tensor(1j), None, [2], 1j, 3, "two", math.nan], ids=repr)
def test_other_norms_are_refused(p):
    with pytest.raises(TightlipError, match="choose 1, 2 or inf") as caught:
        inspect.unwrap(as_norm)(p)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("eps", [10**400, "a", None, 1j, [0.1], math.nan, -1, np.array(["0.1"])], ids=repr)
def test_a_radius_is_one_number(problem, eps):
    certificate = certify(problem[0], problem[1])
    with pytest.raises(TightlipError, match="radius") as caught:
        inspect.unwrap(type(certificate).curve)(certificate, [eps])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("x", [torch.zeros(0, 6), np.zeros((0, 6)), [torch.zeros(0, 6)]])
def test_no_inputs_have_no_accuracy(problem, x):
    certificate = certify(problem[0], x)
    assert certificate.radius.shape == (0,)
    for ask in (lambda: certificate.accuracy(0.1), lambda: certificate.curve([0.1])):
        with pytest.raises(TightlipError, match="no inputs, so no share of them"):
            ask()


class Odd(nn.Module):
    """Does to float64 what no rule says."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        return self.act(x)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda x: x.float(), "turns float64 into torch.float32"),
        (lambda x: (x, x), "turns float64 into tuple"),
        (lambda x: x.sum(), "changes the number of examples"),
        (lambda x: x[:1], "changes the number of examples"),
        (lambda x: x[:, :, 0], "do not fit the network"),
        (lambda x: x + "a", "do not fit the network"),
    ],
)
def test_a_forward_that_does_what_no_rule_says_is_refused(act, says):
    rule(Odd)(lambda module: Gains.constant(1.0, Roundoff()))
    with pytest.raises(TightlipError, match=says):
        certify(nn.Sequential(Odd(act), nn.Identity()), torch.ones(2, 6))


def test_inputs_with_too_few_axes_are_one_sentence():
    with pytest.raises(TightlipError, match="do not fit the network"):
        certify(nn.Sequential(nn.Flatten(2), nn.Identity()), torch.ones(2, 6))


def test_a_rule_that_knows_other_norms_only_carries_an_error_through():
    """‖y‖₂ ≤ √m·‖y‖_∞. A bias comes and goes, and leaves multiples of 256; the logits differ by 4·(b + c − 2a)."""

    class Fourfold(nn.Module):
        def forward(self, x):
            return x.repeat(1, 4)

    rule(Fourfold)(lambda module: Gains({(math.inf, math.inf): 1.0}, Roundoff()))
    network = nn.Sequential(nn.Linear(3, 3), Fourfold(), nn.Linear(12, 12), nn.Linear(12, 2, bias=False)).double()
    for layer, bias in ((network[0], 2.0**60), (network[2], -(2.0**60))):
        layer.weight.data, layer.bias.data = torch.eye(len(layer.bias)).double(), torch.full_like(layer.bias, bias)
    network[3].weight.data = torch.tensor([[2.0, 0.0, 0.0] * 4, [0.0, 1.0, 1.0] * 4]).double()
    x = torch.tensor([[127.0, 129.0, 100.0], [0.0, 1e8, 1e8]], dtype=torch.float64)
    certificate = certify(network, x, p=math.inf)
    assert certificate.prediction.tolist() == [1, 1]  # of the first, exactly, it is 0
    assert certificate.radius[0] == 0 and 0 < certificate.radius[1] <= 1e8 / 2

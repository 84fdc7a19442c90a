"""Tensors as they are, arrays as copies, the rest in one sentence."""

import numpy as np
import pytest
import torch

from tightlip import TightlipError
from tightlip.tensors import as_tensor, refuse_non_finite


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0)[::-2],
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(6, dtype=np.uint8),
        np.array(2.5),
        np.zeros((0, 3)),
    ],
    ids=["plain", "reversed", "transposed", "bytes", "a number", "empty"],
)
def test_arrays_of_numbers_are_copied(array):
    found = as_tensor(array, "x")
    assert found.shape == array.shape and np.array_equal(found.numpy(), array)
    if array.size:
        found.fill_(7)
        assert not (array == 7).any()


def test_read_only_arrays_are_taken_without_a_warning():
    array = np.ones(3)
    array.flags.writeable = False
    assert torch.equal(as_tensor(array, "x"), torch.ones(3, dtype=torch.float64))


def test_tensors_share_their_memory_and_have_no_gradient():
    x = torch.ones(3, requires_grad=True)
    assert as_tensor(x, "x").data_ptr() == x.data_ptr() and not as_tensor(x, "x").requires_grad


@pytest.mark.parametrize("wrong", [[1.0], (1.0,), 1.0, "1", None, {"x": 1.0}])
def test_what_is_neither_is_refused(wrong):
    with pytest.raises(
        TightlipError, match=f"the inputs must be a tensor or a numpy array, got a {type(wrong).__name__}"
    ):
        as_tensor(wrong, "the inputs")


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.array([object()])])
def test_arrays_of_other_things_are_refused(array):
    with pytest.raises(TightlipError, match="x must be numbers, got an array of"):
        as_tensor(array, "x")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 2, 2)])
def test_rows_that_are_not_finite_are_counted(bad, shape):
    values = torch.zeros(shape)
    refuse_non_finite(values, "things")
    refuse_non_finite(torch.zeros(shape, dtype=torch.int64), "things")
    values[[2, 4]] = bad
    with pytest.raises(TightlipError, match="2 of 5 things are NaN or infinite in torch.float32, the first at index 2"):
        refuse_non_finite(values, "things")


def test_an_array_of_one_entry_that_runs_backwards_is_copied():
    array = np.arange(3.0)[::-1]
    for part in (array[:1], array[:2], np.ones((4, 2))[::-1][3:]):
        assert torch.equal(as_tensor(part, "x"), torch.tensor(part.tolist(), dtype=torch.float64))

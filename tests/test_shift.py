import pytest
import torch
from slopes import PAIRS
from torch import nn

from tightlip import Shift, TightlipError, lipschitz, load, save
from tightlip.audit import gains

BOUNDARIES = ["bounce", "circular", "zeros"]
each_boundary = pytest.mark.parametrize("boundary", BOUNDARIES)


def operator(shift, shape):
    """The matrix of a shift, column by column."""
    basis = torch.eye(torch.Size(shape).numel()).view(-1, *shape)
    return shift(basis).flatten(1).T


@each_boundary
@pytest.mark.parametrize("dim", [2, 3, -1, -2])
def test_half_of_the_channels_that_move_go_forward_and_half_backward(boundary, dim):
    x = torch.arange(2 * 6 * 4 * 5.0).view(2, 6, 4, 5)
    y = Shift(0.7, dim, boundary)(x)
    length = x.shape[dim]
    assert torch.equal(y[:, :2].narrow(dim, 1, length - 1), x[:, :2].narrow(dim, 0, length - 1))
    assert torch.equal(y[:, 2:4].narrow(dim, 0, length - 1), x[:, 2:4].narrow(dim, 1, length - 1))
    assert torch.equal(y[:, 4:], x[:, 4:])


@pytest.mark.parametrize("boundary", ["bounce", "circular"])
@pytest.mark.parametrize("shape", [(4, 3, 2), (2, 1, 3), (5, 3, 1)])
@pytest.mark.parametrize("dim", [2, 3])
def test_these_boundaries_make_a_permutation(boundary, shape, dim):
    matrix = operator(Shift(1.0, dim, boundary), shape)
    assert set(matrix.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(matrix @ matrix.T, torch.eye(len(matrix)))


def test_zeros_lose_what_leaves():
    sigma = torch.linalg.svdvals(operator(Shift(1.0, 2, "zeros"), (2, 4, 1)))
    assert sigma.tolist() == pytest.approx([1.0] * 6 + [0.0] * 2)


def test_what_leaves_one_channel_enters_the_other():
    x = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    assert Shift(1.0, 2)(x).tolist() == [[[4.0, 1.0, 2.0], [5.0, 6.0, 3.0]]]
    assert Shift(1.0, 2, "circular")(x).tolist() == [[[3.0, 1.0, 2.0], [5.0, 6.0, 4.0]]]
    assert Shift(1.0, 2, "zeros")(x).tolist() == [[[0.0, 1.0, 2.0], [5.0, 6.0, 0.0]]]


@each_boundary
def test_the_bound_is_one_in_every_norm_and_attained(boundary):
    shift = Shift(0.5, 2, boundary)
    matrix = operator(shift, (4, 3))
    for p, q in PAIRS:
        assert lipschitz(shift, p, q).constant == 1.0
        attained = torch.linalg.vector_norm(matrix, q, dim=0).max()  # by a unit vector, of norm 1 in every norm
        assert float(attained) == 1.0


@pytest.mark.parametrize("part", [0.0, 0.2])
def test_fewer_than_two_channels_do_not_move(part):
    x = torch.randn(1, 4, 3)
    assert torch.equal(Shift(part, 2)(x), x)


@each_boundary
def test_it_is_saved_and_loaded(boundary, tmp_path):
    save(nn.Sequential(Shift(0.25, 3, boundary)), tmp_path / "n.safetensors")
    again = load(tmp_path / "n.safetensors")
    assert repr(again[0]) == f"Shift(0.25, dim=3, boundary={boundary!r})"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"part": 1.5}, "part must be a share of the channels from 0 to 1, got 1.5"),
        ({"part": -0.1}, "part must be a share"),
        ({"part": float("nan")}, "Shift has part = nan"),
        ({"dim": 0}, "is the axis of the batch"),
        ({"dim": 1}, "is the axis of the channels"),
        ({"boundary": "reflect"}, "choose one of bounce, circular, zeros"),
    ],
)
def test_impossible_options_are_refused_when_it_is_made_and_when_it_is_audited(options, words):
    with pytest.raises(TightlipError, match=words):
        Shift(**options)
    altered = Shift()
    vars(altered).update(options)
    with pytest.raises(TightlipError, match=words):
        gains(altered)


@pytest.mark.parametrize(("dim", "shape"), [(3, (2, 4, 3)), (-1, (2, 4)), (-3, (2, 4, 5, 5)), (-4, (2, 4, 5, 5))])
def test_an_axis_that_would_be_the_batch_or_the_channels_is_refused(dim, shape):
    with pytest.raises(TightlipError, match="dim is an axis after batch and channels"):
        Shift(0.5, dim)(torch.zeros(shape))

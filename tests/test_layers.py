import copy
import math
from fractions import Fraction

import pytest
import torch
from slopes import PAIRS, largest_slope
from torch import nn

from tightlip import Normalize, Scale, TightlipError, lipschitz


@pytest.mark.parametrize("K", [1e-3, 0.1, 1 / 3, 0.7, 1.0, 8.0, 1000.0, 123456.789])
def test_a_scale_is_audited_as_what_is_stored_and_never_above_what_was_asked(K):
    layer = Scale(K)
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    for p, q in PAIRS:
        constant = lipschitz(layer, p, q).constant
        assert K * (1 - 2e-7) <= constant <= K
        assert constant == float(layer.double()(x)[0, 0])


@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
def test_a_scale_multiplies(K):
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Scale(K)(x), K * x)


@pytest.mark.parametrize("K", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_constant_is_refused(K):
    with pytest.raises(TightlipError, match="give a finite number > 0"):
        Scale(K)


def test_a_scale_is_saved_with_the_network_and_is_not_trained():
    layer, other = Scale(8.0), Scale(1.0)
    assert not list(layer.parameters())
    other.load_state_dict(layer.state_dict())
    assert lipschitz(other, 2).constant == lipschitz(copy.deepcopy(layer), 2).constant == 8.0
    assert repr(layer) == "Scale(8)"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_scale_in_another_dtype_is_audited_as_it_is_then(dtype):
    layer = Scale(0.3).to(dtype)
    assert lipschitz(layer, 2).constant == float(layer.scale)


def test_normalize_subtracts_and_divides():
    x = torch.tensor([[1.0, 3.0]])
    assert Normalize(1.0, 4.0)(x).tolist() == [[0.0, 0.5]]
    images = torch.ones(2, 3, 4, 5)
    result = Normalize([0.0, 0.5, 1.0], [1.0, 0.5, 0.25])(images)
    assert result.shape == images.shape
    assert result[1, :, 2, 3].tolist() == [1.0, 1.0, 0.0]
    assert Normalize([0.0, 1.0], [1.0, 2.0])(x).tolist() == [[1.0, 1.0]]
    assert Normalize(0.5, [1.0, 2.0])(x).tolist() == [[0.5, 1.25]]


@pytest.mark.parametrize(("std", "smallest"), [(0.3, 0.3), ([0.7, 0.3, 2.0], 0.3), (3.0, 3.0)])
def test_normalize_has_its_share_in_every_bound_rounded_up_and_attained(std, smallest):
    layer = Normalize(0.1, std)
    exact = 1 / Fraction(float(layer.std.min()))
    shape = (3, 2) if isinstance(std, list) else (4,)
    for p, q in PAIRS:
        constant = lipschitz(layer, p, q).constant
        assert exact <= Fraction(constant) <= exact * (1 + Fraction(1, 2**52))
        assert constant == pytest.approx(1 / smallest, rel=1e-6)
        assert largest_slope(copy.deepcopy(layer).double(), shape, p, q) == pytest.approx(constant, rel=1e-9)


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 1), (2, 4, 3), (1,), (3,)])
def test_channels_are_never_multiplied_by_broadcasting(shape):
    layer = Normalize([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])  # (2, 1, 4, 5) would become (2, 3, 4, 5): norm √3, not 1
    try:
        result = layer(torch.ones(shape))
    except TightlipError:
        return
    assert result.shape == shape


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, 0.0), (0.0, -1.0), (0.0, math.nan), (0.0, math.inf), (math.nan, 1.0), (math.inf, 1.0), (0.0, [1.0, 0.0])],
)
def test_numbers_that_cannot_normalise_are_refused(mean, std):
    with pytest.raises(TightlipError, match="give finite numbers, std > 0"):
        Normalize(mean, std)


def test_a_std_that_became_zero_is_refused_by_the_audit():
    layer = Normalize(0.0, [1.0, 2.0])
    layer.std[1] = 0.0
    with pytest.raises(TightlipError, match="give std > 0"):
        lipschitz(layer, 2)


def test_constants_of_normalisation_and_scale_multiply():
    network = nn.Sequential(Normalize(0.5, 0.25), Scale(2.0))
    assert lipschitz(network, math.inf).constant == 8.0

"""What rules read of their modules is one exact number, or refused with one sentence: options, parameters, buffers."""

import inspect
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import (
    FullSort,
    GroupSort,
    Householder,
    MaxMin,
    Maxout,
    Normalize,
    Prototypes,
    Residual,
    Scale,
    TightlipError,
    certify,
    lipschitz,
)
from tightlip.constructions.interpolant import LatticeInterpolant
from tightlip.stored import exact_float
from tightlip.transport import Funnels

NAN, INF = math.nan, math.inf


def refused(module, says="give|restore|convert"):
    for ask in (
        lambda: lipschitz(module, 2, math.inf),
        lambda: lipschitz(nn.Sequential(Residual(module)), 2, math.inf),
    ):
        with pytest.raises(TightlipError, match=says) as caught:
            ask()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


NUMBERS = {
    "slope": (lambda: nn.LeakyReLU(), "negative_slope"),
    "alpha": (lambda: nn.ELU(), "alpha"),
    "low": (lambda: nn.Hardtanh(), "min_val"),
    "high": (lambda: nn.Hardtanh(), "max_val"),
    "six": (lambda: nn.ReLU6(), "max_val"),
    "dropout": (lambda: nn.Dropout().eval(), "p"),
    "dropout2d": (lambda: nn.Dropout2d().eval(), "p"),
}
WRONG = [
    *(NAN, "0.1", None, 1j, (0.1,), 10**400, 2**53 + 1, True, Fraction(1, 3), Decimal("0.1"), b"1"),
    *(torch.tensor(0.1), torch.tensor([0.1, 0.2]), np.array([0.1]), np.longdouble(1) / 3),
]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("option", NUMBERS)
def test_an_option_is_one_number_that_a_float64_holds(option, wrong):
    make, name = NUMBERS[option]
    module = make()
    assert lipschitz(module, 2).constant >= 1
    setattr(module, name, wrong)
    refused(module, f"{type(module).__name__} has {name} = ")


@pytest.mark.parametrize("option", ["slope", "alpha", "dropout"])
def test_infinity_is_not_finite(option):
    make, name = NUMBERS[option]
    for value in (INF, -INF):
        module = make()
        setattr(module, name, value)
        refused(module)


def test_numbers_of_other_kinds_are_taken_for_what_they_are():
    for value in (3, np.float32(3), np.int8(3), Fraction(3), np.float64(3)):
        assert lipschitz(nn.LeakyReLU(value), 2).constant == 3
    assert lipschitz(nn.Hardtanh(-INF, INF), 2).constant == lipschitz(nn.Hardtanh(0, INF), 2).constant == 1
    assert exact_float(2**60) == 2.0**60 and exact_float(2**60 + 1) is None
    assert exact_float(np.float32(0.1)) == float(np.float32(0.1))


@pytest.mark.parametrize("p", [-0.5, 1.5, 2])
def test_a_probability_lies_between_zero_and_one(p):
    module = nn.Dropout().eval()
    module.p = p
    refused(module, "between 0 and 1")


def test_an_approximation_has_one_of_two_names():
    module = nn.GELU()
    module.approximate = "erf"
    refused(module, "'none' or 'tanh'")


INTEGERS = {
    "flatten": (lambda: nn.Flatten(), "start_dim"),
    "flatten's end": (lambda: nn.Flatten(), "end_dim"),
    "max min": (lambda: MaxMin(), "dim"),
    "full sort": (lambda: FullSort(), "dim"),
    "group": (lambda: GroupSort(2), "group_size"),
    "maxout": (lambda: Maxout(2), "group_size"),
    "householder": (lambda: Householder(2), "dim"),
}


@pytest.mark.parametrize(
    "wrong", [1.5, "1", NAN, 1j, (1,), 2**40, 10**400, True, torch.tensor(1), np.array([1])], ids=repr
)
@pytest.mark.parametrize("option", INTEGERS)
def test_an_axis_or_a_size_is_an_integer(option, wrong):
    make, name = INTEGERS[option]
    module = make()
    lipschitz(module, 2)
    setattr(module, name, wrong)
    refused(module, f"{type(module).__name__} has {name} = ")


POOLS = {
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation"),
    nn.AvgPool2d: ("kernel_size", "stride", "padding", "divisor_override"),
    nn.AdaptiveAvgPool2d: ("output_size",),
    nn.AdaptiveMaxPool2d: ("output_size",),
}


@pytest.mark.parametrize("wrong", [1.5, "a", NAN, -1, 10**400, (1, 2, 3), (1, "a"), True, torch.tensor(2)], ids=repr)
@pytest.mark.parametrize(("kind", "option"), [(kind, option) for kind, options in POOLS.items() for option in options])
def test_the_options_of_pooling_are_small_integers(kind, option, wrong):
    module = kind(2)
    lipschitz(module, 2)
    if option == "divisor_override" and wrong == -1:
        return
    setattr(module, option, wrong)
    refused(module)


BUFFERS = {
    "scale": (lambda: Scale(3.0), "scale"),
    "mean": (lambda: Normalize(0.5, 0.25), "mean"),
    "std": (lambda: Normalize([0.5, 0.5], [0.25, 0.5]), "std"),
    "angle": (lambda: Householder(2), "angle"),
    "weight": (lambda: nn.Linear(2, 2), "weight"),
    "bias": (lambda: nn.Linear(2, 2), "bias"),
    "prototypes": (lambda: Prototypes(2, 2, 1), "weight"),
    "points": (lambda: LatticeInterpolant(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 1.0]), 2), "points"),
    "values": (lambda: LatticeInterpolant(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 1.0]), 2), "values"),
    "funnels": (lambda: Funnels(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 1.0])), "points"),
    "offsets": (lambda: Funnels(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 1.0])), "offsets"),
}
KINDS = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e5m2, torch.float8_e4m3fn]


def put(module, name, tensor):
    """In the place of a parameter or buffer, whatever its dtype."""
    module._parameters.pop(name, None)
    module._buffers.pop(name, None)
    module.register_buffer(name, tensor)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("buffer", BUFFERS)
def test_numbers_of_a_kind_that_evaluation_may_round_are_refused(buffer, kind):
    make, name = BUFFERS[buffer]
    module = make()
    lipschitz(module, 2, INF)
    put(module, name, torch.ones_like(getattr(module, name).detach()).to(kind))
    refused(module, "cannot be read exactly")


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("buffer", BUFFERS)
def test_numbers_that_are_not_finite_are_refused(buffer, bad):
    make, name = BUFFERS[buffer]
    module = make()
    getattr(module, name).data.flatten()[-1:].fill_(bad)
    refused(module, "NaN|infinit")


@pytest.mark.parametrize("name", ["scale", "mean", "std"])
def test_an_integer_beyond_float64_is_not_rounded_in_silence(name):
    module = Scale(1.0) if name == "scale" else Normalize(0.0, 1.0)
    setattr(module, name, torch.tensor(2**53 + 1))
    refused(module, "torch.int64")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_every_width_are_exact(dtype):
    scale, normalize = Scale(1.0), Normalize(0.0, 1.0)
    scale.scale = torch.tensor(0.1).to(dtype)
    normalize.std = torch.tensor([0.1, 0.3]).to(dtype)
    assert lipschitz(scale, 2).constant == float(scale.scale.double())
    exact = 1 / Fraction(float(normalize.std[0]))
    assert exact <= Fraction(lipschitz(normalize, 2).constant) <= exact * (1 + Fraction(1, 2**52))


SHAPES = {
    "a bias that repeats the output": (lambda: nn.Linear(3, 1), "bias", torch.ones(5)),
    "a bias for all": (lambda: nn.Linear(3, 4), "bias", torch.ones(1)),
    "angles that repeat a pair": (lambda: Householder(1), "angle", torch.ones(1, 5)),
    "constants": (lambda: Scale(1.0), "scale", torch.ones(3)),
    "channels that differ": (lambda: Normalize(0.0, 1.0), "std", torch.ones(2)),
    "no channels": (lambda: Normalize(0.0, 1.0), "std", torch.ones(0)),
    "a vector": (lambda: nn.Linear(3, 1), "weight", torch.ones(3)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_other_shapes_than_the_constructors_are_refused(case):
    make, name, tensor = SHAPES[case]
    module = make()
    put(module, name, tensor)
    if case == "channels that differ":
        put(module, "mean", torch.ones(3))
    refused(module, "restore")


def test_what_has_been_taken_away_is_named():
    module = Scale(1.0)
    module.scale = None
    refused(module, "Scale has scale = None: restore a tensor")
    layer = nn.Linear(2, 2)
    layer.weight = None
    refused(layer, "restore a tensor of two axes")


@pytest.mark.parametrize("K", [NAN, INF, 0, -1.0, "1", None, 1j, 10**400, torch.ones(2)], ids=repr)
def test_a_constant_is_one_finite_number(K):
    with pytest.raises(TightlipError, match="give a finite number > 0"):
        inspect.unwrap(Scale.__init__)(object.__new__(Scale), K)


@pytest.mark.parametrize("K", [1e39, 1e-40, 1e-300, 1e300])
def test_a_constant_that_float32_does_not_hold_is_not_another_one(K):
    assert K * (1 - 1e-15) <= lipschitz(Scale(K), 2).constant <= K
    x = torch.tensor([[0.9, 0.2]], dtype=torch.float64)
    assert torch.allclose(certify(Scale(K), x).radius, certify(nn.Identity(), x).radius, rtol=1e-9) or K < 1e-250

"""Layers with a known constant: one `Scale(K)` per network, input normalization, and the residual block."""

import sys
from collections.abc import Sequence
from fractions import Fraction
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from .audit import Channels, Gains, Part, Roundoff, Sum, Uniform, container, rule
from .errors import TightlipError
from .linalg.enclosure import Scales
from .linalg.rounding import round_up
from .options import LARGEST, NUMBER, several
from .stored import brief, stored_numbers


class Scale(nn.Module):
    """x ↦ K·x, the one place where a network's constant K lives (paper §4).

    K is a buffer in the default dtype (in float64 where that cannot hold it), rounded toward zero so that the network
    never exceeds the K asked for.

    >>> Scale(8.0)(torch.tensor([0.5]))
    tensor([4.])
    """

    scale: Tensor

    def __init__(self, scale: float | Tensor) -> None:
        super().__init__()
        scale = scale.item() if isinstance(scale, Tensor) and scale.numel() == 1 else scale
        if not isinstance(scale, Real) or not 0 < scale <= sys.float_info.max:
            raise TightlipError(f"K must be a number > 0, got {brief(scale)}: give a finite number > 0")
        narrow = torch.finfo(torch.get_default_dtype())
        held = narrow.smallest_normal <= scale <= narrow.max
        stored = torch.tensor(float(scale), dtype=torch.get_default_dtype() if held else torch.float64)
        if float(stored) > scale:
            stored = torch.nextafter(stored, torch.zeros_like(stored))
        self.register_buffer("scale", stored)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same."""
        return self.scale * x

    def extra_repr(self) -> str:
        """The constant."""
        return f"{float(self.scale):g}"


class Normalize(nn.Module):
    """x ↦ (x − mean) / std per channel: the input normalization, with its own share in every bound.

    Radii are therefore in raw input units. ``mean`` and ``std`` are numbers, or one number per channel for inputs
    (N, C, …), or per feature for rows (N, C). With several std that differ, inputs of more axes of which the last has C
    entries as well are refused: no one could tell channels from features, and the audit must (`audit.joining`).

    Raises:
        TightlipError: unless every std is positive and finite; in the forward, where channels do not fit.

    >>> Normalize(0.5, 0.25)(torch.tensor([1.0]))
    tensor([2.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        try:
            mean_, std_ = (torch.as_tensor(value, dtype=torch.get_default_dtype()) for value in (mean, std))
        except (TypeError, ValueError, OverflowError, RuntimeError) as problem:
            raise TightlipError(f"mean {mean!r} and std {std!r} cannot normalize: give finite numbers") from problem
        empty = not (mean_.numel() and std_.numel())
        if empty or not (torch.isfinite(mean_).all() and torch.isfinite(std_).all() and (std_ > 0).all()):
            raise TightlipError(f"mean {mean} and std {std} cannot normalize: give finite numbers, std > 0")
        self.register_buffer("mean", mean_)
        self.register_buffer("std", std_)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same; channels, if several, on axis 1."""
        if self.mean.dim() == self.std.dim() == 0:
            return (x - self.mean) / self.std
        channels = max(self.mean.numel(), self.std.numel())
        if x.dim() < 2 or x.shape[1] != channels:  # broadcasting would repeat the input, and the bound would be wrong
            raise TightlipError(f"Normalize has {channels} channels, which do not fit inputs of shape {list(x.shape)}")
        if x.dim() > 2 and x.shape[-1] == channels and bool((self.std != self.std.flatten()[0]).any()):
            raise TightlipError(  # or the audit could not merge it with a Linear, which takes the last axis
                f"Normalize has {channels} channels, as many as axis 1 and the last axis of inputs of shape "
                f"{list(x.shape)}: flatten features to rows, or divide channels by a nn.BatchNorm in eval mode"
            )
        shape = [-1] + [1] * (x.dim() - 2)
        return (x - self.mean.reshape(shape)) / self.std.reshape(shape)

    def extra_repr(self) -> str:
        """Mean and std; of many channels, how far they reach."""
        channels = max(self.mean.numel(), self.std.numel())
        if channels <= 4:
            return f"{self.mean.tolist()}, {self.std.tolist()}"
        told = [f"{name} {_reach(values)}" for name, values in (("mean", self.mean), ("std", self.std))]
        return f"{channels} channels, {', '.join(told)}"


def _reach(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


class Residual(nn.Module):
    """x ↦ (x + f(x)) / 2, the residual block that is 1-Lipschitz where f is.

    If f is c-Lipschitz from the p-norm to the q-norm, p ≤ q, the block is (1 + c)/2-Lipschitz: x itself has constant 1.

    Args:
        layers: f, as one module or as several in order; its outputs must have the shape of its inputs.

    Raises:
        TightlipError: unless there is a layer, and each is a module; in the forward, where f changes the shape.

    >>> Residual(nn.ReLU())(torch.tensor([[-2.0, 3.0]]))
    tensor([[-1.,  3.]])
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        if not layers or not all(isinstance(layer, nn.Module) for layer in layers):
            raise TightlipError("a Residual is made of layers: give it one module or several, in order")
        self.f: nn.Module = layers[0] if len(layers) == 1 else nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that f keeps → the same."""
        half = x / 2  # before f, which may work in place
        y = self.f(x)
        if half.shape != y.shape:  # broadcasting would repeat x, and the bound would be wrong
            shapes = f"{list(half.shape)} to {list(y.shape)}"
            raise TightlipError(f"the layers in a Residual turn shape {shapes}: give it layers that keep the shape")
        return half + y / 2


def _scale_of(scale: float) -> Scale:
    with torch.device("cpu"):  # where it is rounded
        return Scale(scale)


def _normalize_of(mean: float | Sequence[float], std: float | Sequence[float]) -> Normalize:
    with torch.device("cpu"):  # where it is checked
        return Normalize(mean, std)


def _times(module: Scale) -> Uniform:
    return Uniform(abs(Fraction(float(stored_numbers(module, "scale", ())))))


def _divided(module: Normalize) -> Channels | Uniform:
    """1/std of every channel. Where there are several, the forward tells channels from features."""
    std = stored_numbers(module, "std").flatten()
    scales = Scales.of(std)
    alike = scales.alike()
    return Uniform(1 / abs(Fraction(float(std[0])))) if alike else Channels(scales.reciprocal(), rows=True)


@rule(Scale, options={"scale": NUMBER}, build=_scale_of, affine=_times)
def _scale(module: Scale) -> Gains:
    return Gains.constant(abs(float(stored_numbers(module, "scale", ()))), Roundoff(2, output=1.0))


@rule(
    *(Normalize,),
    options=dict.fromkeys(("mean", "std"), several(NUMBER, LARGEST)),
    build=_normalize_of,
    affine=_divided,
)
def _normalize(module: Normalize) -> Gains:
    mean, std = stored_numbers(module, "mean"), stored_numbers(module, "std")
    counts = {tensor.numel() for tensor in (mean, std)} - {1}
    if 0 in counts or len(counts) > 1:
        shapes = f"{tuple(mean.shape)} and {tuple(std.shape)}"
        raise TightlipError(f"Normalize holds mean and std of shapes {shapes}: restore one number each per channel")
    smallest = Fraction(float(np.abs(std.numpy()).min()))
    if smallest == 0:
        raise TightlipError("Normalize holds a std of zero: give std > 0")
    means = (mean.double().abs() / std.double().abs()).amax()
    return Gains.constant(round_up(1 / smallest), Roundoff(4, output=1.0, own=1.01 * float(means)))


@container(Residual, build=lambda modules: Residual(*modules.values()))
def _residual(module: Residual) -> list[Part]:
    return [Part("f", module.f, (0,)), Part("", Sum(0.5, 0.5), (0, 1))]

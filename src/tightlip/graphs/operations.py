"""What functions and methods of torch are as layers: a table from names to modules with rules; and what has none."""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..activations import Abs
from ..errors import TightlipError
from .arithmetic import Mean
from .axes import Flip, Permute, Roll, Select, Slice, Squeeze, Transpose, Unsqueeze
from .extremes import Max, Min

Maker = Callable[..., nn.Module]


def _pool(kind: type[nn.Module]) -> Maker:
    return lambda kernel_size, stride=None, padding=0, **others: kind(kernel_size, stride, padding, **others)


def _mean(dim: Any = None, keepdim: bool = False) -> nn.Module:
    return Mean(_refuse_whole(dim, "averages the examples of a batch: give the axes, as in x.mean(1)"), keepdim)


def _over_axes(kind: type[nn.Module]) -> Maker:
    """torch.amax and torch.amin; and of torch.max and torch.min along an axis the values."""
    return lambda dim=None, keepdim=False: kind(
        _refuse_whole(dim, "compares the examples of a batch: give the axes, as in x.amax(1)"), keepdim
    )


def _squeeze(dim: Any = None) -> nn.Module:
    return Squeeze(_refuse_whole(dim, "may take the axis of the batch away: give the axis, as in x.squeeze(1)"))


def _refuse_whole(dim: Any, words: str) -> Any:
    if dim is None:
        raise TightlipError(words)
    return dim


def _flat(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _permute(*dims: Any) -> nn.Module:
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], Sequence) else dims
    return Permute([dim % len(order) for dim in order])


def _each(make: Callable[..., nn.Module], *options: Any) -> nn.Module:
    """One layer for each axis: options are numbers, or as many in each list."""
    lists = [list(option) if isinstance(option, list | tuple) else [option] for option in options]
    return nn.Sequential(*(make(*each) for each in zip(*lists, strict=True)))


def _roll(shifts: Any, dims: Any = None) -> nn.Module:
    dims = _refuse_whole(dims, "moves entries from one example to another: give the axes, as in x.roll(1, dims=1)")
    return _each(Roll, shifts, dims)


def _flip(*dims: Any) -> nn.Module:
    return _each(Flip, dims[0] if len(dims) == 1 else dims)


def _pad(pad: Any, mode: str = "constant", value: float | None = None) -> nn.Module:
    sides = list(pad)
    if mode == "constant":
        return getattr(nn, f"ConstantPad{len(sides) // 2}d")(tuple(sides), value or 0.0)  # type: ignore[no-any-return]
    kind = {"reflect": "Reflection", "replicate": "Replication", "circular": "Circular"}[mode]
    return getattr(nn, f"{kind}Pad{len(sides) // 2}d")(tuple(sides))  # type: ignore[no-any-return]


def _interpolate(size: Any = None, scale_factor: Any = None, mode: str = "nearest", **others: Any) -> nn.Module:
    if any(others.values()):
        raise ValueError("other options change what is read")
    return nn.Upsample(size, scale_factor, mode)


def _clamp(min: Any = None, max: Any = None) -> nn.Module:
    low, high = (float(end) if end is not None else end for end in (min, max))
    if low == 0 and high is None:
        return nn.ReLU()
    if low is None or high is None:
        raise TightlipError("has one end: give both, or use torch.relu")
    return nn.Hardtanh(low, high)


def _narrow(dim: int, start: int, length: int) -> nn.Module:
    if not (isinstance(start, int) and isinstance(length, int) and start >= 0 and length > 0):
        raise ValueError("counted from the end")
    return Slice(dim, start, start + length)


def _functional(kind: type[nn.Module]) -> Maker:
    """torch.nn.functional's softmax, with the depth of its warning in the middle."""
    made = _softmax(kind)
    return lambda dim, _stacklevel=3, dtype=None: made(dim, dtype)


def _softmax(kind: type[nn.Module]) -> Maker:
    """Torch's own, and the method."""

    def made(dim: int, dtype: Any = None) -> nn.Module:
        if dtype is not None:
            raise ValueError("another dtype")
        return kind(dim)

    return made


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    if training:
        raise TightlipError("is random: give training=self.training, and call network.eval()")
    return nn.Identity()


def _layer_norm(normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> nn.Module:
    if weight is not None or bias is not None:
        raise ValueError("weights outside of a layer")
    return nn.LayerNorm(normalized_shape, eps, elementwise_affine=False)


FUNCTIONS: dict[Any, Maker] = {
    **dict.fromkeys((torch.relu, F.relu, "relu"), lambda inplace=False: nn.ReLU()),
    **dict.fromkeys((torch.tanh, F.tanh, "tanh"), lambda: nn.Tanh()),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), lambda: nn.Sigmoid()),
    **dict.fromkeys((torch.abs, torch.absolute, operator.abs, "abs"), lambda: Abs()),
    **dict.fromkeys((torch.flatten, "flatten"), _flat),
    **dict.fromkeys((torch.unflatten, "unflatten"), lambda dim, sizes: nn.Unflatten(dim, sizes)),
    **dict.fromkeys(("contiguous", "clone", torch.clone, "float"), lambda **layout: nn.Identity()),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((torch.amax, "amax"), _over_axes(Max)),
    **dict.fromkeys((torch.amin, "amin"), _over_axes(Min)),
    **dict.fromkeys((torch.permute, "permute"), lambda *order, dims=(): _permute(*order, *([dims] if dims else []))),
    **dict.fromkeys(
        (torch.transpose, torch.swapaxes, "transpose", "swapaxes"), lambda dim0, dim1: Transpose(dim0, dim1)
    ),
    **dict.fromkeys((torch.squeeze, "squeeze"), _squeeze),
    **dict.fromkeys((torch.unsqueeze, "unsqueeze"), lambda dim: Unsqueeze(dim)),
    **dict.fromkeys((torch.roll, "roll"), _roll),
    **dict.fromkeys((torch.flip, "flip"), lambda *order, dims=(): _flip(*order, *([dims] if dims else []))),
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip"), _clamp),
    **dict.fromkeys((torch.select, "select"), lambda dim, index: Select(dim, index)),
    **dict.fromkeys((torch.narrow, "narrow"), _narrow),
    F.pad: _pad,
    F.interpolate: _interpolate,
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), _dropout),
    F.layer_norm: _layer_norm,
    F.leaky_relu: lambda negative_slope=0.01, inplace=False: nn.LeakyReLU(negative_slope),
    F.elu: lambda alpha=1.0, inplace=False: nn.ELU(alpha),
    F.celu: lambda alpha=1.0, inplace=False: nn.CELU(alpha),
    F.selu: lambda inplace=False: nn.SELU(),
    F.gelu: lambda approximate="none": nn.GELU(approximate),
    F.silu: lambda inplace=False: nn.SiLU(),
    F.mish: lambda inplace=False: nn.Mish(),
    F.relu6: lambda inplace=False: nn.ReLU6(),
    F.hardswish: lambda inplace=False: nn.Hardswish(),
    F.hardtanh: lambda min_val=-1.0, max_val=1.0, inplace=False: nn.Hardtanh(min_val, max_val),
    F.softplus: lambda beta=1.0, threshold=20.0: nn.Softplus(beta, threshold),
    F.softsign: lambda: nn.Softsign(),
    F.logsigmoid: lambda: nn.LogSigmoid(),
    F.softmax: _functional(nn.Softmax),
    F.log_softmax: _functional(nn.LogSoftmax),
    **dict.fromkeys((torch.softmax, "softmax"), _softmax(nn.Softmax)),
    **dict.fromkeys((torch.log_softmax, "log_softmax"), _softmax(nn.LogSoftmax)),
    F.avg_pool1d: _pool(nn.AvgPool1d),
    F.avg_pool2d: _pool(nn.AvgPool2d),
    F.avg_pool3d: _pool(nn.AvgPool3d),
    F.max_pool1d: _pool(nn.MaxPool1d),
    F.max_pool2d: _pool(nn.MaxPool2d),
    F.max_pool3d: _pool(nn.MaxPool3d),
    F.adaptive_avg_pool1d: nn.AdaptiveAvgPool1d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.adaptive_avg_pool3d: nn.AdaptiveAvgPool3d,
    F.adaptive_max_pool1d: nn.AdaptiveMaxPool1d,
    F.adaptive_max_pool2d: nn.AdaptiveMaxPool2d,
    F.adaptive_max_pool3d: nn.AdaptiveMaxPool3d,
    F.pixel_shuffle: nn.PixelShuffle,
    F.pixel_unshuffle: nn.PixelUnshuffle,
    F.channel_shuffle: nn.ChannelShuffle,
}
"""Functions and methods of one tensor, without that tensor among their arguments."""

_PRODUCT = "multiplies values by one another, and no constant bounds that on all inputs"
_SUM = "adds up as many entries as there are: use a mean"
_COPIED = "copies entries as often as the shapes ask for: use a layer, such as nn.Upsample"
_ROOT = "has a slope without a bound at 0: use a layer with a rule, such as nn.Softplus"
_SPREAD = "divides by the size of its input, and stretches small ones without a bound: use tightlip.Normalize"

REASONS: dict[Any, str] = {
    **dict.fromkeys((torch.matmul, operator.matmul, torch.bmm, torch.mm, "matmul", "bmm", "mm"), _PRODUCT),
    **dict.fromkeys((torch.einsum, F.scaled_dot_product_attention, torch.square, "square"), _PRODUCT),
    **dict.fromkeys((operator.pow, torch.pow, "pow", F.glu), _PRODUCT),
    **dict.fromkeys((torch.sum, "sum", torch.cumsum, "cumsum"), _SUM),
    **dict.fromkeys((torch.tile, torch.repeat_interleave, "expand", "repeat", "expand_as", "tile"), _COPIED),
    **dict.fromkeys(("repeat_interleave", torch.Tensor.expand), _COPIED),
    **dict.fromkeys((F.normalize, F.group_norm, F.instance_norm, F.batch_norm, F.rms_norm), _SPREAD),
    **dict.fromkeys((torch.var, torch.std, "var", "std"), _SPREAD),
    **dict.fromkeys(
        (torch.sqrt, "sqrt", torch.rsqrt, "rsqrt", torch.log, "log", torch.reciprocal, "reciprocal"), _ROOT
    ),
    **dict.fromkeys((torch.t, "t", "T"), "may move the axis of the batch: use x.transpose(1, 2) or x.mT"),
}
"""Why some functions that networks have are not among them."""

ATTRIBUTES: dict[str, Maker] = {"mT": lambda: Transpose(-2, -1)}
"""What stands for a layer without being called."""

ADD = (operator.add, torch.add, "add")
IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    "add_": operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
"""What works in place, and what it makes."""

SUBTRACT = (operator.sub, torch.sub, torch.subtract, "sub")
MULTIPLY = (operator.mul, torch.mul, torch.multiply, "mul")
DIVIDE = (operator.truediv, torch.div, torch.true_divide, "div")
NEGATE = (operator.neg, torch.neg, torch.negative, "neg")
CONCATENATE = (torch.cat, torch.concat, torch.concatenate)
STACK = (torch.stack,)
RESHAPE = ("view", "reshape", torch.reshape)
SPLIT = (torch.split, "split")
CHUNK = (torch.chunk, "chunk")
UNBIND = (torch.unbind, "unbind")
PIECES = (*CHUNK, *SPLIT, *UNBIND)
EXTREMES: dict[Any, Maker] = {
    **dict.fromkeys((torch.max, "max"), _over_axes(Max)),
    **dict.fromkeys((torch.min, "min"), _over_axes(Min)),
}
"""What returns values and their places, of which only the values have a rule."""

SEVERAL = (*PIECES, *EXTREMES)
"""What returns several tensors."""

FRESH = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.MaxPool2d)
"""Layers whose output shares no memory with their input, so that it may be overwritten."""


def is_zero(value: Any) -> bool:
    """Whether a number is one that nothing can be divided by."""
    return type(value) in (int, float) and (value == 0 or not math.isfinite(value))

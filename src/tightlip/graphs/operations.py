"""What functions and methods of torch are as layers: a table from names to modules with rules."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..activations import Abs

Maker = Callable[..., nn.Module]


def _pool(kind: type[nn.Module]) -> Maker:
    return lambda kernel_size, stride=None, padding=0, **others: kind(kernel_size, stride, padding, **others)


def _mean(dim: Any, keepdim: bool = False) -> nn.Module:
    if not isinstance(dim, list | tuple) or sorted(dim) not in ([2, 3], [-2, -1]) or keepdim:
        raise ValueError("only the mean over all pixels is a layer")
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _flat(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


FUNCTIONS: dict[Any, Maker] = {
    **dict.fromkeys((torch.relu, F.relu, "relu"), lambda inplace=False: nn.ReLU()),
    **dict.fromkeys((torch.tanh, F.tanh, "tanh"), lambda: nn.Tanh()),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), lambda: nn.Sigmoid()),
    **dict.fromkeys((torch.abs, torch.absolute, operator.abs, "abs"), lambda: Abs()),
    **dict.fromkeys((torch.flatten, "flatten"), _flat),
    **dict.fromkeys(("contiguous", "clone", torch.clone, "float"), lambda: nn.Identity()),
    **dict.fromkeys((torch.mean, "mean"), _mean),
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
    F.softmax: lambda dim: nn.Softmax(dim),
    "softmax": lambda dim: nn.Softmax(dim),
    torch.softmax: lambda dim: nn.Softmax(dim),
    F.avg_pool1d: _pool(nn.AvgPool1d),
    F.avg_pool2d: _pool(nn.AvgPool2d),
    F.avg_pool3d: _pool(nn.AvgPool3d),
    F.max_pool1d: _pool(nn.MaxPool1d),
    F.max_pool2d: _pool(nn.MaxPool2d),
    F.max_pool3d: _pool(nn.MaxPool3d),
    F.adaptive_avg_pool1d: nn.AdaptiveAvgPool1d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.adaptive_max_pool2d: nn.AdaptiveMaxPool2d,
    F.pixel_shuffle: nn.PixelShuffle,
    F.pixel_unshuffle: nn.PixelUnshuffle,
}
"""Functions and methods of one tensor, without that tensor among their arguments."""

ADD = (operator.add, torch.add, "add")
ADD_IN_PLACE = (operator.iadd, "add_")
SUBTRACT = (operator.sub, torch.sub, torch.subtract, "sub")
MULTIPLY = (operator.mul, torch.mul, torch.multiply, "mul")
DIVIDE = (operator.truediv, torch.div, torch.true_divide, "div")
NEGATE = (operator.neg, torch.neg, "neg")
CONCATENATE = (torch.cat, torch.concat, torch.concatenate)
RESHAPE = ("view", "reshape", torch.reshape)
PIECES = (torch.chunk, "chunk", torch.split, "split")

FRESH = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.MaxPool2d)
"""Layers whose output shares no memory with their input, so that it may be overwritten."""


def is_zero(value: Any) -> bool:
    """Whether a number is one that nothing can be divided by."""
    return type(value) in (int, float) and (value == 0 or not math.isfinite(value))

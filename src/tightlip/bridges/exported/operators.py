"""Operators of exported programs as layers, by name: what the audit knows of a layer holds of the operator.

Each entry takes the arguments of the operator by their names, without its first tensor, and makes the layer. Weights
are tensors of the program; a layer takes them as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import skip_init

from ...errors import TightlipError
from ...graphs import Max, Mean, Min, Permute, Select, Slice, Squeeze, Transpose, Unsqueeze
from ...graphs.operations import FUNCTIONS, REASONS

Maker = Callable[..., nn.Module]


def _filled(kind: type[nn.Module], tensors: Mapping[str, Tensor | None], **options: Any) -> nn.Module:
    """A layer of this kind with these tensors."""
    layer = skip_init(kind, device="cpu", **options).requires_grad_(False)
    for name, tensor in tensors.items():
        if tensor is not None and name in layer._parameters:
            layer._parameters[name] = nn.Parameter(tensor, requires_grad=False)
        elif tensor is not None:
            layer._buffers[name] = tensor
    return layer


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    sizes = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
    return _filled(nn.Linear, {"weight": weight, "bias": bias}, **sizes)


def _convolution(kind: type[nn.Module]) -> Maker:
    def made(
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> nn.Module:
        sizes = {"in_channels": weight.shape[1] * groups, "out_channels": weight.shape[0], "bias": bias is not None}
        walk = {"stride": stride, "padding": padding, "dilation": dilation}
        walk = {name: tuple(value) if isinstance(value, list) else value for name, value in walk.items()}
        options = {"kernel_size": tuple(weight.shape[2:]), "groups": groups, **walk}
        return _filled(kind, {"weight": weight, "bias": bias}, **sizes, **options)

    return made


def _transposed(kind: type[nn.Module]) -> Maker:
    def made(
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> nn.Module:
        sizes = {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * groups, "bias": bias is not None}
        walk = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
        walk = {name: tuple(value) if isinstance(value, list) else value for name, value in walk.items()}
        options = {"kernel_size": tuple(weight.shape[2:]), "groups": groups, **walk}
        return _filled(kind, {"weight": weight, "bias": bias}, **sizes, **options)

    return made


NORMALIZATIONS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
"""Batch normalization by the number of axes."""


def batch_norm(
    axes: int,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> nn.Module:
    """In eval mode, of values with so many axes."""
    if training or running_mean is None or running_var is None:
        raise TightlipError("normalizes by the batch at hand: export network.eval()")
    ones, zeros = running_mean.new_ones(len(running_mean)), running_mean.new_zeros(len(running_mean))
    tensors = {
        "weight": ones if weight is None else weight,
        "bias": zeros if bias is None else bias,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    return _filled(NORMALIZATIONS[axes], tensors, num_features=len(running_mean), eps=eps).eval()


def _same(**options: Any) -> nn.Module:
    return nn.Identity()


def _dropout(p: float, train: bool) -> nn.Module:
    if train:
        raise TightlipError("is random: export network.eval()")
    return nn.Identity()


def _prelu(weight: Tensor) -> nn.Module:
    return _filled(nn.PReLU, {"weight": weight}, num_parameters=weight.numel())


def _rrelu(lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, **others: Any) -> nn.Module:
    _dropout(0.0, training)  # as random
    return nn.RReLU(lower, upper)


def _slice(dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> nn.Module:
    if step != 1:
        raise TightlipError("takes entries in steps, of which no rule speaks")
    start, end = start or 0, None if end is None or end >= 2**62 else end
    return nn.Identity() if start == 0 and end is None else Slice(dim, start, end)


def _elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> nn.Module:
    if scale != 1 or input_scale != 1:
        raise TightlipError("is an elu with scales, of which no rule speaks")
    return nn.ELU(alpha)


def _upsample(output_size: Any = None, scale_factors: Any = None) -> nn.Module:
    return nn.Upsample(output_size, None if scale_factors is None else tuple(scale_factors), "nearest")


def _pool(kind: type[nn.Module]) -> Maker:
    return lambda kernel_size, stride=None, **others: kind(kernel_size, stride or None, **others)


def _roll(shifts: list[int], dims: list[int] | None = None) -> nn.Module:
    return FUNCTIONS["roll"](shifts, dims)


OPERATORS: dict[str, Maker] = {
    "linear.default": _linear,
    **{
        f"conv{n}d.{way}": _convolution(kind)
        for n, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1)
        for way in ("default", "padding")
    },
    "conv_transpose1d.default": _transposed(nn.ConvTranspose1d),
    "conv_transpose2d.input": _transposed(nn.ConvTranspose2d),
    "conv_transpose3d.input": _transposed(nn.ConvTranspose3d),
    "relu.default": nn.ReLU,
    "relu6.default": nn.ReLU6,
    "tanh.default": nn.Tanh,
    "sigmoid.default": nn.Sigmoid,
    "silu.default": nn.SiLU,
    "mish.default": nn.Mish,
    "selu.default": nn.SELU,
    "hardswish.default": nn.Hardswish,
    "hardsigmoid.default": nn.Hardsigmoid,
    "log_sigmoid.default": nn.LogSigmoid,
    "abs.default": FUNCTIONS["abs"],
    "gelu.default": nn.GELU,
    "elu.default": _elu,
    "celu.default": nn.CELU,
    "leaky_relu.default": nn.LeakyReLU,
    "prelu.default": _prelu,
    "rrelu.default": _rrelu,
    "hardtanh.default": nn.Hardtanh,
    "softplus.default": nn.Softplus,
    "softshrink.default": nn.Softshrink,
    "threshold.default": nn.Threshold,
    "clamp.default": FUNCTIONS["clamp"],
    "softmax.int": lambda dim, dtype=None: FUNCTIONS["softmax"](dim, dtype=dtype),
    "log_softmax.int": lambda dim, dtype=None: FUNCTIONS["log_softmax"](dim, dtype=dtype),
    "layer_norm.default": lambda normalized_shape, **others: nn.LayerNorm(normalized_shape, elementwise_affine=False),
    "group_norm.default": lambda num_groups, **others: nn.GroupNorm(num_groups, num_groups, affine=False),
    "dropout.default": _dropout,
    "feature_dropout.default": _dropout,
    "alpha_dropout.default": _dropout,
    **dict.fromkeys(("contiguous.default", "clone.default", "detach.default", "alias.default"), _same),
    "flatten.using_ints": FUNCTIONS["flatten"],
    "unflatten.int": lambda dim, sizes: nn.Unflatten(dim, tuple(sizes)),
    "permute.default": lambda dims: Permute([dim % len(dims) for dim in dims]),
    "transpose.int": Transpose,
    "swapaxes.default": lambda axis0, axis1: Transpose(axis0, axis1),
    "mT.default": lambda: Transpose(-2, -1),
    "squeeze.dim": Squeeze,
    "unsqueeze.default": Unsqueeze,
    "select.int": Select,
    "slice.Tensor": _slice,
    "narrow.default": FUNCTIONS["narrow"],
    "roll.default": _roll,
    "flip.default": lambda dims: FUNCTIONS["flip"](*dims),
    "amax.default": lambda dim=(), keepdim=False: Max(dim, keepdim),
    "amin.default": lambda dim=(), keepdim=False: Min(dim, keepdim),
    "max.dim": Max,  # the values; their places have no rule
    "min.dim": Min,
    "mean.dim": lambda dim, keepdim=False: Mean(dim, keepdim),
    **{f"max_pool{n}d.default": _pool(kind) for n, kind in enumerate((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), 1)},
    **{f"avg_pool{n}d.default": _pool(kind) for n, kind in enumerate((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), 1)},
    "adaptive_avg_pool1d.default": nn.AdaptiveAvgPool1d,
    "adaptive_avg_pool2d.default": nn.AdaptiveAvgPool2d,
    "adaptive_avg_pool3d.default": nn.AdaptiveAvgPool3d,
    "adaptive_max_pool1d.default": nn.AdaptiveMaxPool1d,
    "adaptive_max_pool2d.default": nn.AdaptiveMaxPool2d,
    "adaptive_max_pool3d.default": nn.AdaptiveMaxPool3d,
    "pad.default": FUNCTIONS[nn.functional.pad],
    "pixel_shuffle.default": nn.PixelShuffle,
    "pixel_unshuffle.default": nn.PixelUnshuffle,
    "channel_shuffle.default": nn.ChannelShuffle,
    "upsample_nearest1d.vec": _upsample,
    "upsample_nearest2d.vec": _upsample,
    "upsample_nearest3d.vec": _upsample,
}
"""By the operator's name after ``torch.ops.aten``."""

IN_PLACE = {name.replace(".", "_.", 1): name for name in OPERATORS}
"""Operators that overwrite their input, and what they make."""


def reason(name: str) -> str:
    """Why an operator is none of these, in the words of the trace where it knows them."""
    plain = name.partition(".")[0]
    return REASONS.get(plain, "is none of which a rule speaks")

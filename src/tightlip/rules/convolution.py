"""The rules of torch's convolutions: operator norms of what is stored, for images of every size.

Bounds are those of `linalg.convolutions`, from the weight as it is laid out and from the stride, dilation, groups and
padding that the forward really uses. Direct sums in float64 err by no more than γ_n(|K|∗|x| + |b|), with n products in
each output and |b| ≤ |y| + |K|∗|x|; and ‖|K|‖₂ ≤ √(‖|K|‖₁·‖|K|‖_∞). torch sums directly in float64: its algorithms by
Fourier or Winograd are for smaller types.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ..audit import Gains, Kernel, Roundoff, rule
from ..audit.lipschitz import representable
from ..errors import TightlipError
from ..linalg.convolutions import convolution_norm_bounds
from ..linalg.geometry import PADDING_MODES, Geometry
from ..linalg.rounding import refuse_inexact, sqrt_up
from ..options import COUNT, FLAG, SIZE, Kind, one_of, several
from ..stored import stored_numbers

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def _options(axes: int) -> dict[str, Kind]:
    sizes, counts, named = several(SIZE, axes), several(COUNT, axes), one_of("same", "valid")
    padding = Kind(f"{counts.words}, or {named.words}", lambda value: counts.holds(value) or named.holds(value))
    return {
        **{"in_channels": SIZE, "out_channels": SIZE, "kernel_size": sizes, "stride": sizes, "padding": padding},
        **{"dilation": sizes, "groups": SIZE, "bias": FLAG, "padding_mode": one_of(*PADDING_MODES)},
    }


def _transposed_options(axes: int) -> dict[str, Kind]:
    return _options(axes) | {"padding": several(COUNT, axes), "output_padding": several(COUNT, axes)}


def _entries(module: nn.Module, name: str, axes: int) -> tuple[int, ...]:
    """An option with one integer for each axis, or one for all."""
    value: Any = getattr(module, name)
    entries = (value,) * axes if type(value) is int else value
    if not isinstance(entries, tuple | list) or len(entries) != axes or not all(type(e) is int for e in entries):
        kind = type(module).__name__
        raise TightlipError(f"{kind} has {name} = {value!r:.60}: restore an integer, or one for each axis")
    return tuple(entries)


def _padding(module: Convolution, axes: int) -> Sequence[tuple[int, int]]:
    """Entries before and after along each axis, as the forward reads them."""
    if module.padding_mode != "zeros":  # the forward pads by this attribute, from the last axis on
        sides: Any = module._reversed_padding_repeated_twice
        if (
            not isinstance(sides, list | tuple)
            or len(sides) != 2 * axes
            or not all(type(side) is int for side in sides)
        ):
            raise TightlipError(f"{type(module).__name__} has damaged padding: make it anew")
        return [(sides[2 * i], sides[2 * i + 1]) for i in reversed(range(axes))]
    if module.padding == "valid":
        return [(0, 0)] * axes
    if module.padding == "same":
        dilation = _entries(module, "dilation", axes)
        total = [d * (k - 1) for d, k in zip(dilation, module.weight.shape[2:], strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    return [(side, side) for side in _entries(module, "padding", axes)]


def geometry_of(module: Convolution) -> Geometry:
    """How a convolution walks over an image, as its forward really does.

    Raises:
        TightlipError: where an option was replaced by something that no convolution has.
    """
    _axes(module, axes := len(module.kernel_size))
    return _geometry(module, _padding(module, axes), False)


def _geometry(module: Convolution | Transposed, padding: Sequence[tuple[int, int]], transposed: bool) -> Geometry:
    weight, axes = module.weight, len(padding)
    if type(module.groups) is not int or module.groups < 1 or weight.shape[0] % module.groups:
        raise TightlipError(
            f"{type(module).__name__} has groups = {module.groups!r:.60}: restore a divisor of its channels"
        )
    stride, dilation = _entries(module, "stride", axes), _entries(module, "dilation", axes)
    return Geometry(stride, dilation, padding, module.groups, module.padding_mode, transposed)


def _proven(module: Convolution | Transposed, padding: Sequence[tuple[int, int]], transposed: bool) -> Gains:
    weight = module.weight
    refuse_inexact(weight, f"weight of {type(module).__name__}")
    geometry = _geometry(module, padding, transposed)
    outputs = weight.shape[1] * module.groups if transposed else weight.shape[0]
    if module.bias is not None:
        stored_numbers(module, "bias", (outputs,))
    table = {pair: representable(c) for pair, c in convolution_norm_bounds(weight, geometry).items()}
    sizes = convolution_norm_bounds(weight.detach().abs(), geometry, [(1.0, 1.0), (float("inf"), float("inf"))])
    products = weight[0].numel() if not transposed else weight.shape[0] // module.groups * weight[0, 0].numel()
    share = 2.02 * sqrt_up(sizes[1.0, 1.0]) * sqrt_up(sizes[float("inf"), float("inf")])
    return Gains(table, Roundoff(products + 2, 1.01 * share, 1.01))


def _axes(module: nn.Module, axes: int) -> None:
    weight: Any = getattr(module, "weight", None)
    if weight is None or weight.dim() != axes + 2 or 0 in weight.shape:
        raise TightlipError(
            f"the weight of {type(module).__name__} has {axes + 2} axes, none of them empty: restore it"
        )


def _convolution(module: Convolution, axes: int) -> Gains:
    _axes(module, axes)
    return _proven(module, _padding(module, axes), False)


def _transposed_convolution(module: Transposed, axes: int) -> Gains:
    _axes(module, axes)
    for name in ("padding", "output_padding"):
        _entries(module, name, axes)  # they crop, and add rows of the same operator
    return _proven(module, [(0, 0)] * axes, True)


def _kernel(module: Convolution) -> Kernel:
    return Kernel(module.weight, geometry_of(module))


def _transposed_kernel(module: Transposed) -> Kernel:
    return Kernel(module.weight, _geometry(module, [(0, 0)] * (module.weight.dim() - 2), True))


def _along(axes: int, function: Callable[[Any, int], Gains]) -> Callable[[Any], Gains]:
    def rule_of_one_type(module: Any) -> Gains:
        return function(module, axes)

    return rule_of_one_type


for _count, _plain, _adjoint in (
    (1, nn.Conv1d, nn.ConvTranspose1d),
    (2, nn.Conv2d, nn.ConvTranspose2d),
    (3, nn.Conv3d, nn.ConvTranspose3d),
):
    rule(_plain, options=_options(_count), affine=_kernel)(_along(_count, _convolution))
    rule(_adjoint, options=_transposed_options(_count), affine=_transposed_kernel)(
        _along(_count, _transposed_convolution)
    )

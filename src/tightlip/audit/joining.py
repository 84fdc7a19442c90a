"""Which two affine maps are multiplied out to one, and how.

| first, then | product |
| --- | --- |
| `Channels`, `Channels` | the products of the numbers |
| `Channels`, `Kernel` and back | columns and rows of the kernel, scaled (padding mixes no channels) |
| `Channels`, `Flat`, then features | each number repeated for the entries of its channel |
| `Channels`, `Matrix` and back | columns and rows, scaled, if the value between is rows: (batch, features) |
| `Matrix`, `Matrix` | one product |
| `Kernel`, `Kernel` | one product, if one of them has a single tap, and neither has groups |

Of values (batch, c, c) a batch normalization scales axis 1 and a linear layer takes the last: that is another map, with
the product of both norms. So a value between the two must be known to be rows: a `Flat` came before, or one of the two
refuses these values (`Channels.rows`).
"""

import numpy as np

from ..linalg.enclosure import Enclosure, Scales
from .affine import Channels, Kernel, Linearly, Matrix

MOST_ENTRIES = 2**24
"""Of a product of two matrices; larger ones are not computed."""

BOTTLENECK = 512
"""The side up to which a product is computed though both of its sides are longer than one of each factor."""


def joined(first: Linearly, then: Linearly, flat: bool, rows: bool) -> Linearly | None:
    """``then`` after ``first`` as one, or None where they are not multiplied out.

    Args:
        first: What acts on the input.
        then: What acts on its result.
        flat: Whether the result is flattened in between.
        rows: Whether it is known to be (batch, features).
    """
    match first, then:
        case Channels(), Channels():
            return _channels(first, then, flat)
        case Channels(), Matrix():
            return _scaled_columns(first, then, flat) if rows or first.rows else None
        case Matrix(), Channels():
            return _scaled_rows(first, then) if rows or then.rows else None
        case Matrix(), Matrix():
            return _product(first, then)
        case Channels(), Kernel() if not flat:
            return _scaled_kernel(then, first, inputs=True)
        case Kernel(), Channels() if not flat:
            return _scaled_kernel(first, then, inputs=False)
        case Kernel(), Kernel() if not flat:
            return _product_of_kernels(first, then)
    return None


def _channels(first: Channels, then: Channels, flat: bool) -> Channels | None:
    scales = _per_feature(first.scales, len(then.scales), flat)
    pixels = {first.pixels, then.pixels} - {None}
    if scales is None or len(pixels) > 1:
        return None
    return Channels(scales.times(then.scales), first.rows or then.rows, next(iter(pixels), None))


def _scaled_columns(first: Channels, then: Matrix, flat: bool) -> Matrix | None:
    scales = _per_feature(first.scales, then.shape[1], flat)
    return None if scales is None else Matrix(then.enclosure.scaled(scales, (1, -1)))


def _scaled_rows(first: Matrix, then: Channels) -> Matrix | None:
    return Matrix(first.enclosure.scaled(then.scales, (-1, 1))) if first.shape[0] == len(then.scales) else None


def _per_feature(scales: Scales, features: int, flat: bool) -> Scales | None:
    """One number per entry of axis 1: flattened, a channel has as many neighboring entries as there are pixels."""
    pixels, rest = divmod(features, len(scales))
    if rest or (pixels != 1 and not flat):
        return None
    return scales.at(np.repeat(np.arange(len(scales)), pixels))


def _product(first: Matrix, then: Matrix) -> Matrix | None:
    out, middle, features = then.shape[0], then.shape[1], first.shape[1]
    side = max(BOTTLENECK, min(then.shape), min(first.shape))
    if middle != first.shape[0] or min(out, features) > side or out * features > MOST_ENTRIES:
        return None
    return Matrix(then.enclosure.after(first.enclosure))


def _scaled_kernel(kernel: Kernel, channels: Channels, inputs: bool) -> Kernel | None:
    """Where both speak of images with as many axes: of others, such as one without a batch, axis 1 is another.

    Along axis 0 of the weight there are all channels of one side; along axis 1 those of the other in one group.
    """
    (long, short), taps, groups = kernel.shape[:2], kernel.shape[2:], kernel.geometry.groups
    scales = channels.scales
    if channels.pixels not in (None, len(taps)):
        return None
    ones = (1,) * len(taps)
    if inputs == kernel.geometry.transposed:
        fits, shape = len(scales) == long, (long, 1, *ones)
    else:
        fits, shape = len(scales) == groups * short, (long, short, *ones)
        if fits:
            group = np.arange(long) // (long // groups)
            scales = scales.at((group[:, None] * short + np.arange(short)).ravel())
    return Kernel(kernel.enclosure.scaled(scales, shape), kernel.geometry) if fits else None


def _product_of_kernels(first: Kernel, then: Kernel) -> Kernel | None:
    dense = not any(kernel.geometry.transposed or kernel.geometry.groups > 1 for kernel in (first, then))
    fits = dense and len(first.shape) == len(then.shape) and first.shape[0] == then.shape[1]
    out, channels = then.shape[0], first.shape[1]
    if not fits or min(out, channels) > max(min(first.shape[:2]), min(then.shape[:2])):
        return None
    if then.pointwise:
        rows = first.enclosure.reshaped(lambda weight: weight.flatten(1))
        product = _as_matrix(then).after(rows)
        return Kernel(product.reshaped(lambda weight: weight.reshape(out, *first.shape[1:])), first.geometry)
    if first.pointwise:
        columns = then.enclosure.reshaped(lambda weight: weight.movedim(1, -1).reshape(-1, then.shape[1]))
        product = columns.after(_as_matrix(first))
        last = (out, *then.shape[2:], channels)
        return Kernel(product.reshaped(lambda weight: weight.reshape(last).movedim(-1, 1)), then.geometry)
    return None


def _as_matrix(kernel: Kernel) -> Enclosure:
    return kernel.enclosure.reshaped(lambda weight: weight.flatten(1))

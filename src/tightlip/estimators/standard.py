"""Features in units of their own, z = (x − mean) / unit, for training; and the same as the first layer of a network.

A network of z with constant K has at most K / min(unit) as a network of x, in every norm. So a constant K that is
promised of x leaves K·min(unit) to the network of z.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..errors import TightlipError
from ..layers import Normalize

LEAST = 1e-150
"""Of a spread, the root of a mean of squares: those of smaller numbers underflow."""


@dataclass(frozen=True)
class Standard:
    """The mean and the unit of each feature."""

    mean: Float64[np.ndarray, " d"]
    unit: Float64[np.ndarray, " d"]

    def __call__(self, X: Float64[np.ndarray, "n d"]) -> Float[Tensor, "n d"]:
        """Rows in these units, in torch's default dtype."""
        return torch.from_numpy((X - self.mean) / self.unit).to(torch.get_default_dtype())

    @property
    def least(self) -> float:
        """The smallest unit."""
        return float(self.unit.min())

    def layer(self) -> Normalize:
        """The same map as a layer in float64."""
        layer = Normalize(0.0, 1.0)
        layer.mean, layer.std = torch.from_numpy(self.mean), torch.from_numpy(self.unit)
        return layer


def standard(X: Float64[np.ndarray, "n d"], each: bool) -> Standard:
    """From the mean, in the standard deviation of each feature; or in one unit for all, the root of their mean square.

    A feature that never varies takes the largest unit of the others, so that it costs no slope.

    Raises:
        TightlipError: for numbers whose squares overflow or underflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = X.mean(0), X.std(0)
    if not np.isfinite(deviation).all():
        raise TightlipError(
            f"feature {int(np.isfinite(deviation).argmin())} has values whose squares overflow: give it in larger units"
        )
    same = X.min(0) == X.max(0)
    if (tiny := ~same & (deviation < LEAST)).any():
        raise TightlipError(
            f"feature {int(tiny.argmax())} has values whose squares underflow: give it in smaller units"
        )
    deviation[same] = 0.0  # but for rounding it is
    largest = deviation.max() if each else np.sqrt(np.square(deviation).mean())
    fallback = largest if largest > 0 else 1.0
    return Standard(mean, np.where(deviation > 0, deviation, fallback) if each else np.full_like(mean, fallback))

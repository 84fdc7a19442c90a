"""Rows in standardized units, (x − mean) / std of each feature, and images without the mean of each channel.

Means and standard deviations are those of the training part. The layer that takes them off is `Normalize`, so that it
can become a part of the network that is certified.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from tightlip.layers import Normalize

Vectors = NDArray[np.float64]
Exponents = NDArray[np.int32]


def spreads(rows: Float[Tensor, "n features"]) -> Float64[Tensor, " features"]:
    """The standard deviation of each feature; zero where a feature is the same in all rows, and only there.

    >>> spreads(torch.tensor([[1e-200, 7e200], [3e-200, 7e200]], dtype=torch.float64))
    tensor([1.0000e-200,  0.0000e+00], dtype=torch.float64)
    """
    scaled, exponents = brought_near_one(rows)
    return torch.from_numpy(np.ldexp(_deviations(scaled), exponents))


def standardized(rows: Float64[Tensor, "n features"]) -> Float64[Tensor, "n features"]:
    """Each feature divided by its standard deviation, whatever its unit; one that never changes is left."""
    scaled, _ = brought_near_one(rows)
    deviations = torch.from_numpy(_deviations(scaled))
    return torch.where(deviations > 0, torch.from_numpy(scaled) / deviations, rows)


def brought_near_one(rows: Float[Tensor, "n features"]) -> tuple[Vectors, Exponents]:
    """Each feature divided by the power of two above its largest number, exactly, and the exponents.

    Then no square over- or underflows where it counts.
    """
    values = rows.detach().double().cpu().numpy()
    exponents = np.frexp(np.abs(values).max(0))[1]
    return np.ldexp(values, -exponents), exponents


def _deviations(scaled: Vectors) -> Vectors:
    changes = (scaled != scaled[:1]).any(0)
    return np.where(changes, scaled.std(0), 0.0)


def standardization(rows: Float[Tensor, "n features"]) -> Normalize:
    """The layer that brings these rows to mean 0 and standard deviation 1.

    A feature that is the same in all rows keeps its own unit.

    >>> print(standardization(torch.tensor([[1.0, 7.0], [5.0, 7.0]])))
    Normalize([3.0, 7.0], [2.0, 1.0])
    """
    std = spreads(rows)
    mean = rows.double().mean(0)
    return Normalize(mean.tolist(), torch.where(std > 0, std, 1.0).tolist())


def centering(images: Float[Tensor, "n channels height width"]) -> Normalize:
    """The layer that brings each channel of these images to mean 0, and leaves distances as they are.

    >>> print(centering(torch.tensor([[[[0.25, 0.5]], [[0.0, 1.0]]]])))
    Normalize([0.375, 0.5], 1.0)
    """
    return Normalize(images.double().mean((0, 2, 3)).tolist(), 1.0)

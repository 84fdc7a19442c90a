"""Rows in standardized units: (x − mean) / std of each feature, as the training part has them, and nothing else.

The layer that does so is `Normalize`, so that it can become a part of the network that is certified.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tightlip.layers import Normalize


def spreads(rows: Float[Tensor, "n features"]) -> Float64[Tensor, " features"]:
    """The standard deviation of each feature; zero where a feature is the same in all rows."""
    return rows.double().std(0, correction=0)


def standardization(rows: Float[Tensor, "n features"]) -> Normalize:
    """The layer that brings these rows to mean 0 and standard deviation 1.

    A feature that is the same in all rows keeps its own unit.

    >>> print(standardization(torch.tensor([[1.0, 7.0], [5.0, 7.0]])))
    Normalize([3.0, 7.0], [2.0, 1.0])
    """
    std = spreads(rows)
    mean = rows.double().mean(0)
    return Normalize(mean.tolist(), torch.where(std > 0, std, 1.0).tolist())

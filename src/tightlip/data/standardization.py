"""Rows in standardized units: (x − mean) / std of each feature, as the training part has them, and nothing else.

The layer that does so is `Normalize`, so that it can become a part of the network that is certified.
"""

import torch
from torch import Tensor

from tightlip.data.dataset import Part
from tightlip.layers import Normalize


def spreads(train: Part) -> Tensor:
    """The standard deviation of each feature (features,) in float64; zero where a feature is the same in all rows."""
    return train.images.double().std(0, correction=0)


def standardization(train: Part) -> Normalize:
    """The layer that brings rows (n, features) to mean 0 and standard deviation 1 over the training part.

    A feature that is the same in all rows keeps its own unit.

    >>> print(standardization(Part(torch.tensor([[1.0, 7.0], [5.0, 7.0]]), torch.tensor([0, 1]))))
    Normalize([3.0, 7.0], [2.0, 1.0])
    """
    std = spreads(train)
    mean = train.images.double().mean(0)
    return Normalize(mean.tolist(), torch.where(std > 0, std, 1.0).tolist())

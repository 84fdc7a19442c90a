"""What several tests of attacks have in common."""

import pytest
import torch
from torch import nn

from tightlip import freeze, mlp


@pytest.fixture
def problem(seed):
    """A frozen network of 12 pixels, images in the unit box, and the classes that it gives them."""
    network = freeze(nn.Sequential(nn.Flatten(), mlp([12, 16, 4])))
    x = torch.rand(40, 3, 2, 2)
    return network, x, network(x).argmax(1)

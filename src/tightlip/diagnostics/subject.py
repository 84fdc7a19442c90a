"""What is looked at: a copy of the network in eval mode, and inputs that are there."""

import copy
from typing import Any

from torch import Tensor, nn

from ..arguments import tensor
from ..errors import TightlipError


def copied(network: Any) -> nn.Module:
    """A copy in eval mode, so that the network itself stays as it was."""
    if not isinstance(network, nn.Module):
        raise TightlipError(f"network must be an nn.Module, such as an nn.Sequential, got a {type(network).__name__}")
    return copy.deepcopy(network).eval()


def checked(x: Any) -> Tensor:
    """The inputs, as one tensor."""
    x = tensor("x, one batch at a time,", x)
    if x.dim() == 0 or not len(x):
        raise TightlipError(f"x must have shape (batch, …) with at least one example, got {tuple(x.shape)}")
    return x

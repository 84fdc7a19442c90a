"""What is looked at: a copy of the network in eval mode, and inputs that are there."""

import copy
from typing import Any

from torch import Tensor, nn

from ..errors import TightlipError


def copied(network: Any) -> nn.Module:
    """A copy in eval mode, so that the network itself stays as it was."""
    if not isinstance(network, nn.Module):
        raise TightlipError(f"a {type(network).__name__} is no network: give an nn.Module, such as an nn.Sequential")
    return copy.deepcopy(network).eval()


def checked(x: Any) -> Tensor:
    """The inputs, as they were given."""
    if not isinstance(x, Tensor):
        raise TightlipError(f"inputs are one tensor (batch, …), not a {type(x).__name__}: give one batch at a time")
    if x.dim() == 0 or not len(x):
        raise TightlipError(f"inputs of shape {tuple(x.shape)} show nothing: give (batch, …) with at least one example")
    return x

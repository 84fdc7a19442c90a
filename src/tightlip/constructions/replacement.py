"""Theorem 2 as an experiment: put polar factors in the place of weights, and measure what that changes.

The theorem says that a network with ‖W‖₂ ≤ 1 and gradient norm 1 almost everywhere can have orthonormal weights
*without changing the function*. It does not say that replacing one W by its polar factor, the others being left as they
are, does that; in general it does not (docs/theory/constructions.md has a counterexample). So the outputs are compared.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..arguments import tensor
from ..audit import refuse_altered
from ..constraints import constraint_of
from ..errors import TightlipError
from ..linalg.polar import polar


class Replacement(NamedTuple):
    """The network with polar factors, and the largest |difference| of an output from the original's, as measured."""

    network: nn.Module
    difference: float


@torch.no_grad()
def replace_by_polar(
    network: nn.Module, inputs: Float[Tensor, "batch *shape"], layers: Sequence[str] | None = None
) -> Replacement:
    """A copy of ``network`` with each weight replaced by its polar factor, and how far its outputs moved.

    Not function preserving in general: look at ``difference``, which speaks of these inputs only. A weight without full
    rank has several polar factors, of which one is taken. Source: paper §3, Theorem 2.

    Args:
        network: Any network; only its ``nn.Linear`` layers are touched. It is left as it is.
        inputs: What the two networks, both in eval mode, are compared on.
        layers: Names of the layers to replace, as in ``network.named_modules()``; None takes all.

    Raises:
        TightlipError: if a name belongs to no linear layer, or there is none; if layers are held by constraints or
            altered; if there are no inputs, or outputs are not finite.

    >>> shrunk = nn.Sequential(nn.Linear(2, 2, bias=False))
    >>> _ = shrunk[0].weight.data.copy_(torch.eye(2) / 2)
    >>> replace_by_polar(shrunk, torch.ones(1, 2)).difference
    0.5
    """
    inputs = tensor("inputs", inputs)
    if len(inputs) == 0:
        raise TightlipError("inputs must hold at least one example, on which the two networks are compared")
    original = copy.deepcopy(network).eval()
    replaced = copy.deepcopy(original)
    for name, layer in _linear_layers(replaced, layers).items():
        if constraint_of(layer) is not None:
            raise TightlipError(f"layer {name!r} is held by a constraint: replace_by_polar(freeze(network), inputs)")
        refuse_altered(layer, name)
        layer.weight.copy_(polar(layer.weight.double()))
    difference = float((replaced(inputs).double() - original(inputs).double()).abs().max())
    if not difference < torch.inf:
        raise TightlipError("outputs are NaN or infinite, so nothing can be compared: give finite inputs and weights")
    return Replacement(replaced, difference)


def _linear_layers(network: nn.Module, names: Sequence[str] | None) -> dict[str, nn.Linear]:
    if isinstance(names, str):
        raise TightlipError(f"layers must be a list of names, such as [{names!r}], got {names!r}")
    found = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    unknown = [name for name in names or [] if name not in found]
    if unknown or not found:
        known = ", ".join(repr(name) for name in found) or "none"
        raise TightlipError(f"no linear layer is called {unknown}: this network has {known}")
    return found if names is None else {name: found[name] for name in names}

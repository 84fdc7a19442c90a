"""How fast a function changes with one feature alone: the audit of t ↦ f(x + t·e_j).

That is the network after an affine map with the one column e_j, and its bound holds for every x, since a shift changes
no slope. Where the network begins with affine layers, they are multiplied out with that column (`merging`), so a
feature that is divided by its own unit is bounded in that unit.
"""

import copy
import math
from collections.abc import Iterable

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..arguments import integer, output_of
from .lipschitz import lipschitz


def feature_slopes(
    network: nn.Module, width: int, features: Iterable[int] | None = None, q: float = math.inf
) -> Float64[Tensor, " features"]:
    """Proven K_j with ‖f(x + t·e_j) − f(x)‖_q ≤ K_j·|t| for all x and t: one for each feature, in its own units.

    For a network with one output it bounds the partial derivatives. It says how far a prediction can change when one
    feature is wrong, where `lipschitz` is about all of them at once. Each feature takes an audit.

    Args:
        network: Of rows (n, width), of modules with rules.
        width: The number of features.
        features: Which ones, by their numbers; None for all.
        q: The norm of the outputs; the ∞-norm bounds each of them.

    Raises:
        TightlipError: for a feature that is not there, a network of rows of another width, or what `lipschitz` cannot
            prove.

    >>> import tightlip
    >>> network = nn.Sequential(tightlip.Normalize([0.0, 0.0], [1.0, 10.0]), nn.Linear(2, 1))
    >>> _ = nn.init.ones_(network[1].weight)
    >>> feature_slopes(network, 2)
    tensor([1.0000, 0.1000], dtype=torch.float64)
    """
    width = integer("width", width)
    chosen = range(width) if features is None else [integer("feature", j, least=0, most=width - 1) for j in features]
    of_zeros(network, width)
    found = [lipschitz(nn.Sequential(one_feature(j, width), network), 1, q).constant for j in chosen]
    return torch.tensor(found, dtype=torch.float64)


def of_zeros(network: nn.Module, width: int) -> Tensor:
    """What a network in eval mode makes of a row of zeros; it stays as it is.

    Raises:
        TightlipError: if it takes no such rows.
    """
    like = next(network.parameters(), torch.empty(0))
    return output_of(copy.deepcopy(network).eval(), torch.zeros(1, width, dtype=like.dtype, device=like.device))


def one_feature(feature: int, width: int) -> nn.Linear:
    """The map t ↦ t·e_j, (n, 1) → (n, width)."""
    line = nn.Linear(1, width, bias=False, dtype=torch.float64, device="meta").to_empty(device="cpu")
    line.requires_grad_(False).weight.zero_()[feature] = 1.0
    return line

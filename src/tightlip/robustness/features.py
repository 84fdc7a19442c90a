"""How far one feature of a row may move while all others stay: a radius for each feature, in that feature's own unit.

A change δ of feature j alone is δ·e_j, and |δ| is its size in every norm. So what counts is not the network's constant
but how fast logits change along one column:

    radius_j = min_i (y_t − y_i) / S_j[t, i],    |Δ(y_t − y_i)| ≤ S_j[t, i]·|δ|,

where S_j is that of the network after the map t ↦ t·e_j, a layer that is audited with it. `Normalize` and the first
linear layer are multiplied out, so that S_j has ‖W e_j‖ / std_j in it and not ‖W‖ / min std. As ‖W e_j‖ ≤ ‖W‖, radius_j
is at least radius·std_j, where radius is that of the row in standardized units, whatever the norm; and it is more where
the first layer has short columns.
"""

import math
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..arguments import integer
from ..audit import Audit, audit, bound_of, entered_by
from ..errors import TightlipError
from ..graphs.tracing import as_graph, refuse_disagreement
from ..layers import Normalize, Scale
from .batches import batches, labeled
from .certificate import device_of, refuse_held
from .evaluation import wide
from .judging import Answers, answers
from .pairs import pair_sensitivity


@torch.no_grad()
def feature_radii(network: nn.Module, x: Any, y: Any = None) -> Float64[Tensor, "batch features"]:
    """How far each feature of each row may move alone before the answer can change; 0 where the answer is wrong.

    For rows, whose features have units of their own. Several features that move together are what `certify` is for.
    Takes an audit of the first layers for each feature.

    Args:
        network: A frozen classifier, as for `certify`.
        x: Rows (batch, features), or a `Part` of a split, with its labels.
        y: True classes (batch,); None certifies the predicted ones.

    Raises:
        TightlipError: if inputs are no rows, or as `certify`.

    >>> network = nn.Linear(2, 2, bias=False)
    >>> network.weight.data = torch.tensor([[1.0, 0.25], [-1.0, -0.25]])
    >>> feature_radii(network, torch.tensor([[3.0, 0.0]])).round(decimals=6)
    tensor([[ 3., 12.]], dtype=torch.float64)
    """
    refuse_held(network)
    graph, rows = as_graph(network), [labeled(batch) for batch in batches(x, y, 1024)]
    if any(inputs.dim() != 2 for inputs, _ in rows):
        raise TightlipError(
            f"features are those of rows (batch, features), got inputs of shape {list(rows[0][0].shape)}"
        )
    refuse_disagreement(network, graph, rows[0][0])
    audited = audit(graph)
    judged = wide(graph, audited)
    said = [answers(judged, device_of(graph), *batch) for batch in rows]
    features = range(rows[0][0].shape[1])
    return torch.stack([_radius(audited, said, place, len(features)) for place in features], 1)


@torch.no_grad()
def feature_slopes(network: nn.Module, features: int) -> Float64[Tensor, " features"]:
    """How fast any output can change along each feature of a row, all others fixed: a proven bound, per unit of it.

    |f_i(x + t·e_j) − f_i(x)| ≤ slope_j·|t| for every row x, every t and every output i. For regressions, whose outputs
    are numbers of their own; of a classifier differences of outputs count, see `feature_radii`.

    Args:
        network: A network of rows (batch, features), as for `lipschitz`.
        features: How many there are.

    Raises:
        TightlipError: as `lipschitz`, or if the network's first layer takes another number of features.

    >>> feature_slopes(nn.Sequential(nn.Linear(2, 1), nn.ReLU()).requires_grad_(False), 2).shape
    torch.Size([2])
    """
    audited = audit(as_graph(network))
    count = integer("features", features)
    _refuse_misfit(audited, count)
    slopes = [bound_of(along(audited, place, count), 1.0, math.inf).constant for place in range(count)]
    return torch.tensor(slopes, dtype=torch.float64)


def _refuse_misfit(audited: Audit, features: int) -> None:
    """Raise where the first layer with a number of features of its own has another one."""
    for _, layer in audited.network.layers():
        if isinstance(layer, nn.Linear) and layer.in_features != features:
            raise TightlipError(f"the network takes rows of {layer.in_features} features: give features= this number")
        if not isinstance(layer, Normalize | Scale | nn.Flatten):
            return


def along(audited: Audit, place: int, features: int) -> Audit:
    """The audit of a network whose input is one feature of ``features``, all others being fixed."""
    layer = nn.Linear(1, features, bias=False, device="cpu", dtype=torch.float32)
    layer.weight.data = torch.eye(features)[:, place : place + 1]
    return entered_by(audited, layer)


def _radius(audited: Audit, said: list[Answers], place: int, features: int) -> Float64[Tensor, " batch"]:
    entered = along(audited, place, features)
    fastest = bound_of(entered, 1.0).sensitivity  # of one number, all norms are its size
    pairs = pair_sensitivity(entered, 1.0, fastest, said[0].classes)
    return torch.cat([some.radius(pairs) for some in said]).cpu()

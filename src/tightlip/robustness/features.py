"""How far one feature of a row may move while all others stay: a radius for each feature, in that feature's own unit.

A change δ of feature j alone is δ·e_j, and |δ| is its size in every norm. So what counts is not the network's constant
but how fast logits change along one column:

    radius_j = min_i (y_t − y_i) / S_j[t, i],    |Δ(y_t − y_i)| ≤ S_j[t, i]·|δ|,

where S_j is that of the network after the map t ↦ t·e_j, a layer that is audited with it. `Normalize` and the first
linear layer are multiplied out, so that S_j has ‖W e_j‖ / std_j in it and not ‖W‖ / min std. As ‖W e_j‖ ≤ ‖W‖, radius_j
is at least radius·std_j, where radius is that of the row in standardized units, whatever the norm; and it is more where
the first layer has short columns.
"""

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..audit import Audit, audit, bound_of, entered_by
from ..errors import TightlipError
from ..graphs.tracing import as_graph, refuse_disagreement
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

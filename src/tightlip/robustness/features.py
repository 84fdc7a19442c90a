"""How far one feature of a row may move while all others stay: a radius for each feature, in that feature's own unit.

A change δ of feature j alone is δ·e_j, and |δ| is its size in every norm. So what counts is not the network's constant
but how fast logits change along one column:

    radius_j = min_i (y_t − y_i) / S_j[t, i],    |Δ(y_t − y_i)| ≤ S_j[t, i]·|δ|,

where S_j is that of the network after the map t ↦ t·e_j, a layer that is audited with it. `Normalize` and the first
linear layer are multiplied out, so that S_j has ‖W e_j‖ / std_j in it and not ‖W‖ / min std. As ‖W e_j‖ ≤ ‖W‖, radius_j
is at least radius·std_j, where radius is that of the row in standardized units, whatever the norm; and it is more where
the first layer has short columns.
"""

import functools
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..audit import bound_of, entered_by, one_feature
from ..errors import TightlipError
from ..linalg.arithmetic import Arithmetic
from .batches import batches, labeled
from .contests import LARGEST
from .deployed import machine_of
from .examination import Examined, examined, refuse_held
from .judging import Evaluated, evaluated, verdict

Batch = tuple[Tensor, Tensor | None, Evaluated]
"""Rows, their labels, and what the network says of them."""


@torch.no_grad()
def feature_radii(
    network: nn.Module,
    x: Any,
    y: Any = None,
    output: int | str | None = None,
    arithmetic: str | Arithmetic = "real",
) -> Float64[Tensor, "batch features"]:
    """How far each feature of each row may move alone before the answer can change; 0 where the answer is wrong.

    For rows, whose features have units of their own. Several features that move together are what `certify` is for.
    Takes an audit of the first layers for each feature.

    Args:
        network: A frozen classifier, as for `certify`.
        x: Rows (batch, features), or a `Part` of a split, with its labels.
        y: True classes (batch,); None certifies the predicted ones.
        output: Of a network with several outputs the one that answers.
        arithmetic: Of the function with the stored weights, or of the network as a machine computes it, as `certify`.

    Raises:
        TightlipError: if inputs are no rows, or as `certify`.

    >>> network = nn.Linear(2, 2, bias=False)
    >>> network.weight.data = torch.tensor([[1.0, 0.25], [-1.0, -0.25]])
    >>> feature_radii(network, torch.tensor([[3.0, 0.0]])).round(decimals=6)
    tensor([[ 3., 12.]], dtype=torch.float64)
    """
    refuse_held(network, "feature_radii")
    rows = [labeled(batch) for batch in batches(x, y, 1024)]
    if not rows:
        raise TightlipError("there are no batches: give at least one (a generator can be used only once)")
    for inputs, _ in rows:
        if inputs.dim() != 2:
            raise TightlipError(f"features are those of rows (batch, features), got shape {list(inputs.shape)}")
    known = examined(network, 1.0, output)  # any norm will do: of one number, each is its size
    known.compare(rows[0][0])
    said = [(inputs, labels, evaluated(known, inputs)) for inputs, labels in rows]
    features = rows[0][0].shape[1]
    return torch.stack([_alone(known, said, place, features, arithmetic) for place in range(features)], 1)


def _alone(
    known: Examined, said: list[Batch], place: int, features: int, arithmetic: str | Arithmetic
) -> Float64[Tensor, " batch"]:
    """The radii of one feature."""
    entered = entered_by(known.audited, one_feature(place, features))
    bound = bound_of(entered, known.p)
    steepness = functools.cache(functools.partial(LARGEST.steepness, entered, known.p, bound.sensitivity))
    machine = machine_of(known._replace(audited=entered, bound=bound, reached=entered.reached[1:]), arithmetic)
    return torch.cat([verdict(answer, LARGEST, steepness, machine, x, y)[0] for x, y, answer in said])

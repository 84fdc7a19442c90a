"""Layers on their sets, from one seed: those that take a second to make are made once and copied."""

import copy
from functools import cache, lru_cache

import torch
from torch import nn

from tightlip import Constraint, Orthonormal, constrain
from tightlip.constraints.fingerprint import mark
from tightlip.constraints.guard import held

EXACT = Orthonormal()


def seeded(seed: int) -> None:
    """Seeds the CPU's numbers alone: `torch.manual_seed` takes milliseconds, for devices that are not there."""
    torch.default_generator.manual_seed(seed)


@lru_cache(maxsize=6)
def _member(constraint: Constraint, inputs: int, outputs: int, seed: int) -> torch.Tensor:
    """A member of the set near torch's own initial weight: made once, since decompositions take time."""
    seeded(seed)
    return constraint.map(nn.Linear(inputs, outputs).weight.detach().double()).float()


def constrained(constraint: Constraint, way: str, inputs: int, outputs: int, seed: int) -> nn.Linear:
    """A layer (outputs, inputs) on its set."""
    exact = isinstance(constraint, Orthonormal) and constraint.schedule is None
    W = _member(EXACT if exact else constraint, inputs, outputs, seed)
    seeded(seed)
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(W)
    return constrain(layer, constraint, way)


_once = cache(constrained)


def copied(constraint: Constraint, way: str, inputs: int, outputs: int, seed: int) -> nn.Linear:
    """The same layer, copied from one that was constrained before."""
    layer = copy.deepcopy(_once(constraint, way, inputs, outputs, seed), {id(constraint): constraint})
    if way == "step":
        held(layer).seen = mark(layer.weight)  # copies forget it
    seeded(seed)  # for what is made next
    return layer


def deviation(weight: torch.Tensor) -> float:
    """The largest |σ² − 1|, or a bound on it, ‖WᵀW − I‖_F in float64, where that says enough."""
    W = weight.double()
    gram = W @ W.mT if W.shape[0] <= W.shape[1] else W.mT @ W
    gram.diagonal().sub_(1)
    bound = float(torch.linalg.matrix_norm(gram))
    return bound if bound <= 1e-5 else float(torch.linalg.eigvalsh(gram).abs().max())

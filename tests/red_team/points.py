"""Where to look: inputs of every scale, or nearly between two classes; directions in which outputs move most."""

import copy
import math

import torch
from red_team.networks import Draw
from torch import Tensor, nn

from tightlip.norms import dual

LEAST, MOST = 1e-300, 1e300


def points(draw: Draw, network: nn.Module, shape: tuple[int, ...], count: int, scale: float = 1.0) -> Tensor:
    """Inputs of any scale, denormal ones among them; the last is nearly between two classes."""
    x = draw.normal(count, *shape) * draw.choice((1.0, 1.0, 1.0, 1e-3, 1e3, 1e8, 1e-40)) * scale
    wide = copy.deepcopy(network).double().eval()
    start = x[:1].clone().requires_grad_()
    logits = wide(start).flatten(1)
    if logits.shape[1] >= 2 and torch.isfinite(logits).all():
        two = logits.topk(2).values[0]
        x[-1] = x[0] - _gradient(two[0] - two[1], start)[0] * _ratio(two[0] - two[1], _gradient(two[0] - two[1], start))
    x = x.nan_to_num().clamp(-MOST, MOST)
    return x.clamp(-1e37, 1e37).float() if draw.random() < 0.3 else x


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found.nan_to_num()


def _ratio(lead: Tensor, slope: Tensor) -> float:
    """How far along its gradient a linear lead would be zero."""
    ratio = float(lead.detach()) / max(float(slope.square().sum()), LEAST)
    return ratio if abs(ratio) < 1e100 else 0.0


def steepest(draw: Draw, wide: nn.Module, point: Tensor, p: float, q: float) -> Tensor:
    """A direction in which the Jacobian attains its p→q norm, or any direction."""
    if draw.random() < 0.2:
        return draw.normal(*point.shape)
    jacobian = torch.autograd.functional.jacobian(lambda x: wide(x[None]).flatten(), point.double())
    matrix = jacobian.reshape(jacobian.shape[0], -1).nan_to_num()
    matrix = matrix / matrix.abs().max().clamp(min=LEAST)
    if p == 1:
        direction = _one(matrix.shape[1], int(torch.linalg.vector_norm(matrix, q, dim=0).argmax()))
    elif q == math.inf:
        row = matrix[int(torch.linalg.vector_norm(matrix, dual(p), dim=1).argmax())]
        direction = row.sign() if p == math.inf else row
    else:
        direction = torch.linalg.svd(matrix).Vh[0]
    return direction.reshape(point.shape)


def towards(draw: Draw, wide: nn.Module, point: Tensor, t: int, p: float) -> Tensor:
    """A step of p-norm just below 1 that lowers the lead of class t fastest, or any step."""
    x = point.double()[None].requires_grad_()
    logits = wide(x).flatten()
    if len(logits) == 1:
        lead = logits[0] if t else -logits[0]
    else:
        others = sorted((i for i in range(len(logits)) if i != t), key=lambda i: -float(logits[i].detach()))
        lead = logits[t] - logits[draw.choice((others[0], draw.choice(others)))]
    slope = _gradient(lead, x)
    if not slope.any() or draw.random() < 0.2:
        slope = draw.normal(*x.shape)
    slope = (slope / slope.abs().max()).flatten()
    if p == 1:
        step = _one(len(slope), int(slope.abs().argmax())) * slope.sign()
    else:
        step = slope.sign() if p == math.inf else slope / slope.norm()
    return (-(1 - 1e-9) * step).reshape(point.shape)


def _one(width: int, i: int) -> Tensor:
    return torch.zeros(width, dtype=torch.float64).index_fill_(0, torch.tensor(i), 1.0)

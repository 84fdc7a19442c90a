"""Machines that compute in float32 in any order: none may answer otherwise within a radius that is certified for it.

`outputs` is such a machine, for one input and a chain of layers; each sum of a linear layer is taken in an order of its
own. What a machine makes at an input is also compared with rationals: no difference of logits may stray by more than
the certificate has taken off.
"""

import copy
import math
from fractions import Fraction

import numpy as np
import torch
from red_team.exact import run
from red_team.networks import Draw, affine_network, nested_network
from red_team.tally import Tally
from torch import Tensor, nn

from tightlip import Normalize, Scale, certify
from tightlip.audit import audit
from tightlip.linalg.arithmetic import ARITHMETICS
from tightlip.norms import NORMS
from tightlip.robustness.deployed import Deployed
from tightlip.robustness.evaluation import wide

ORDERS = ("as stored", "any", "tree", "blocks")
SMALLEST = np.finfo(np.float32).tiny


def outputs(network: nn.Sequential, x: Tensor, order: str, draws: np.random.Generator, flush: bool = False) -> Tensor:
    """What a machine makes of one input; ``flush``: numbers below the smallest normal one are zero to it."""

    def kept(v: np.ndarray) -> np.ndarray:
        return np.where(np.abs(v) < SMALLEST, np.float32(0), v) if flush else v

    with np.errstate(all="ignore"):
        v = kept(x.double().numpy().astype(np.float32))
        for layer in network:
            v = kept(_layer(layer, v, order, draws, kept))
            assert v.dtype == np.float32
    return torch.from_numpy(v)


def _layer(layer: nn.Module, v: np.ndarray, order: str, draws: np.random.Generator, kept) -> np.ndarray:
    if isinstance(layer, nn.Linear):
        weight = kept(_float32(layer.weight))
        bias = np.zeros(len(weight), np.float32) if layer.bias is None else kept(_float32(layer.bias))
        return _added(np.concatenate((kept(weight * v), bias[:, None]), 1), order, draws, kept)
    if isinstance(layer, Scale):
        return v * np.float32(float(layer.scale))
    if isinstance(layer, Normalize):
        mean, std = (_float32(t).flatten() for t in (layer.mean, layer.std))
        return kept(v - mean) / std
    return copy.deepcopy(layer).float()(torch.from_numpy(v)[None])[0].numpy()


def _float32(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().astype(np.float32)


def _added(terms: np.ndarray, order: str, draws: np.random.Generator, kept) -> np.ndarray:
    """The sums of the rows of (rows, n)."""
    terms = terms if order == "as stored" else terms[:, draws.permutation(terms.shape[1])]
    if order == "blocks":
        parts = [_one_by_one(terms[:, i : i + 64], kept) for i in range(0, terms.shape[1], 64)]
        return _one_by_one(np.stack(parts, 1), kept)
    while order == "tree" and terms.shape[1] > 1:
        rest = terms[:, terms.shape[1] // 2 * 2 :]
        terms = np.concatenate((kept(terms[:, :-1:2] + terms[:, 1::2]), rest), 1)
    return _one_by_one(terms, kept)


def _one_by_one(terms: np.ndarray, kept) -> np.ndarray:
    total = terms[:, 0]
    for column in terms.T[1:]:
        total = kept(total + column)
    return total


def machines(seed: int, tally: Tally) -> None:
    """A random network at a few inputs, and at the worst points within their radii."""
    draw, draws = Draw(seed), np.random.default_rng(seed)
    network, width = affine_network(draw) if draw.random() < 0.5 else nested_network(draw, smooth=False)
    network = nn.Sequential(*(layer for block in network for layer in ([block] if not _nests(block) else block)))
    p, name = draw.choice(NORMS), draw.choice(("float32", "float32-blocks"))
    x = draw.normal(4, width) * draw.choice((1e-3, 1.0, 1.0, 1e3, 1e8))
    x = x if draw.random() < 0.5 else x.float().double()
    certificate = tally.asked(lambda: certify(network, x, p=p, arithmetic=name, progress=False))
    if certificate is None:
        return
    audited = audit(network)
    lines, _ = Deployed(wide(network, audited), audited.reached, ARITHMETICS[name], p).strays(x, certificate.prediction)
    allowed = lines[..., 0].nan_to_num(nan=math.inf).amin(1)
    for row, answer in enumerate(certificate.prediction.tolist()):
        radius = float(certificate.radius[row])
        _strays(network, x[row], answer, allowed[row], name, draws, tally)
        for point in _within(network, x[row], answer, radius, p, draw) if radius > 0 else ():
            for order in ("blocks",) if name.endswith("blocks") else ORDERS:
                found = outputs(network, point, order, draws, flush=draw.random() < 0.5)
                told = (f"{network}, {name}, p={p:g}, {order}, at", point.tolist(), "radius", radius)
                tally.expect("machine", _answer(found) == answer, *told, "answers", found.tolist(), "not", answer)


def _nests(block: nn.Module) -> bool:
    return type(block) is nn.Sequential


def _answer(logits: Tensor) -> int | None:
    """The class; of one logit its sign; None of what is not finite, or ties."""
    if not bool(torch.isfinite(logits).all()):
        return None
    if len(logits) == 1:
        return None if float(logits[0]) == 0 else int(logits[0] > 0)
    best = logits == logits.max()
    return int(best.nonzero()[0]) if int(best.sum()) == 1 else None


def _strays(
    network: nn.Sequential, x: Tensor, t: int, allowed: Tensor, name: str, draws: np.random.Generator, tally: Tally
) -> None:
    found = outputs(network, x, "blocks" if name.endswith("blocks") else "any", draws)
    if not bool(torch.isfinite(found).all()) or len(found) < 2:
        return
    exact = run(network, [Fraction(v) for v in x.tolist()])
    for i, (value, truth) in enumerate(zip(found.tolist(), exact, strict=True)):
        if i != t and math.isfinite(float(allowed[i])):
            off = abs((Fraction(float(found[t])) - Fraction(value)) - (exact[t] - truth))
            tally.expect("strays", off <= Fraction(float(allowed[i])), f"{network} strays by", off, "of", allowed[i])


def _within(network: nn.Sequential, x: Tensor, t: int, radius: float, p: float, draw: Draw) -> list[Tensor]:
    """The input itself, and points at the radius: against the margin, and anywhere."""
    smooth = copy.deepcopy(network).double().eval()
    point = x.clone().requires_grad_(True)
    logits = smooth(point[None])[0]
    one = len(logits) == 1
    lead = (2 * t - 1) * logits[0] if one else logits[t] - torch.cat((logits[:t], logits[t + 1 :])).amax()
    (gradient,) = torch.autograd.grad(lead, point, allow_unused=True)
    ways = [draw.normal(len(x)) for _ in range(2)] + ([] if gradient is None else [-gradient])
    size = min(radius, 1e30) * (1 - 1e-9)
    return [x] + [x + size * _unit(way, p) for way in ways if bool(way.any()) and bool(torch.isfinite(way).all())]


def _unit(way: Tensor, p: float) -> Tensor:
    """The steepest direction of p-norm 1 for a gradient."""
    if p == math.inf:
        return way.sign()
    if p == 1:
        return torch.zeros_like(way).index_fill_(0, way.abs().argmax(), 1.0) * way.sign()
    way = way / way.abs().max()
    return way / way.norm()

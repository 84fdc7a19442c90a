"""How near critics come to a W1 that is known: 28 pairs of distributions with 4 to 256 funnels in 2 to 128 dimensions.

A critic is trained on fresh, unpaired samples and measured on others, beside the recomputed truth and nine published
solvers. "generic" is an orthonormal network, or in up to 8 dimensions a minimum of 4,096 cones, which point the other
way than the truth's; fresh points decide between the two. Neither has the form of the truth. "funnels" has: it is a
maximum of 1,024 cones turned over, and shows what is to be had by knowing that form, and no more. All settings follow
from the dimension alone; they were chosen on pairs of another seed than the one measured here.

Source: Korotin, Kolesov & Burnaev 2022, "Kantorovich Strikes Back!" (arXiv:2206.07767).
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..activations import GroupSort
from ..audit import lipschitz
from ..choices import chosen
from ..constraints import freeze
from ..networks import mlp
from ..records import Metric
from ..transport import FunnelPair, train_critic
from ..transport.confidence import bernstein_lower
from ..transport.critic import Sampler
from ..transport.families import minus
from ..transport.funnel_pairs import DIMENSIONS, FUNNELS, SEED
from ..transport.growing import train_funnels
from .protocol import Outcome, Preset
from .published_solvers import COSINE, L2, SOLVERS, W1

LEVEL = 0.95
"""Of confidence, for the lower end."""

PIECES = 1024
"""Of the funnels, whatever the pair has."""

MANY = 32
"""In more dimensions funnels grow from few."""

FEW, CONES, VALIDATED = 8, 4096, 20_000
"""In up to so many dimensions the generic critic may be cones; how many; fresh points of each that decide."""

DEEP, SHALLOW, WIDER = 5, 3, 4
"""Hidden layers of the network in few dimensions and in more, and how many times as wide the latter are."""

GROUP, RATE = 8, 5e-3
"""How many of its units are sorted together, and its learning rate."""


@dataclass(frozen=True)
class Config:
    """One pair and one solver."""

    dimension: int = 16
    """D."""
    funnels: int = 64
    """N, of the pair."""
    solver: str = "generic"
    """generic (a network, or cones that point the other way than the truth's) or funnels (of the truth's own form)."""
    pair_seed: int = 987
    """Of centers and offsets; 987 is that of the published pairs."""
    width: int = 64
    """Of the hidden layers of the network; four times as wide in more than 8 dimensions."""
    steps: int = 8000
    """Of the optimizer; cones have half as many."""
    batch_size: int = 512
    """Fresh points of each distribution per step of the network; funnels have twice as many."""
    points: int = 100_000
    """Fresh points of each distribution that all is measured on."""
    truth_points: int = 1_000_000
    """Pairs of the best coupling that the truth is computed from."""


def _generic(pair: FunnelPair, config: Config, sample: Sampler) -> nn.Module:
    """The network, or in few dimensions the cones where they are better on fresh points."""
    network = _network(pair.dimension, config, sample)
    if pair.dimension > FEW:
        return network
    cones = train_funnels(sample, config.steps // 2, config.batch_size, CONES, grow=False)
    x, y = sample(VALIDATED)
    with torch.no_grad():
        return max((network, cones), key=lambda critic: float(critic(x).mean() - critic(y).mean()))


def _network(d: int, config: Config, sample: Sampler) -> nn.Module:
    """Deep where there are few coordinates, wide where there are many; groups of eight did better than pairs."""
    hidden = [config.width] * DEEP if d <= FEW else [WIDER * config.width] * SHALLOW
    network = mlp([d, *hidden, 1], activation=partial(GroupSort, GROUP))
    adam = partial(torch.optim.Adam, betas=(0.9, 0.95), fused=True)
    return freeze(train_critic(network, sample, config.steps, config.batch_size, RATE, adam))


def _funnels(pair: FunnelPair, config: Config, sample: Sampler) -> nn.Module:
    """−u, with the funnels u of the samples exchanged."""
    batch, grow = 2 * config.batch_size, pair.dimension > MANY
    pieces = train_funnels(lambda count: sample(count)[::-1], config.steps, batch, PIECES, grow)
    return nn.Sequential(pieces, minus())


ENDING = "_error_percent"
CRITICS: dict[str, Callable[[FunnelPair, Config, Sampler], nn.Module]] = {"generic": _generic, "funnels": _funnels}
GRID = {"dimension": DIMENSIONS, "funnels": FUNNELS, "solver": tuple(CRITICS)}
SMOKE = Preset(
    {"steps": 10, "batch_size": 128, "points": 2000, "truth_points": 20_000},
    grid={"dimension": (2, 16), "funnels": (4,)},
)
PAPER = Preset()
METRICS = {
    "estimate": Metric("mean f(x) − mean f(y) of the frozen critic on fresh points, divided by its audited constant."),
    "standard_error": "Of the estimate, from sampling those points.",
    "lower": Metric(
        f"Lower end at {LEVEL:.0%} of what these points prove of W1 (empirical Bernstein), at least 0.", rounding="down"
    ),
    "truth": "W1 of the pair, recomputed.",
    "truth_error": "The standard error of the truth.",
    "error_percent": "100·|estimate − truth|/truth.",
    "cosine": Metric("The mean cosine between ∇f and the true gradient on the first distribution.", truth=1.0),
    "l2": Metric("The mean of ‖∇f − true gradient‖₂² there.", truth=0.0),
    "constant": Metric("The audited Lipschitz constant of the frozen critic, in the Euclidean norm.", rounding="up"),
    "cpu_seconds": "Of the processor, for the training and all of its samples.",
    "published_truth": "What the authors took for the truth, from 4,096 points.",
    **{name + ENDING: f"The same of {name}, as published, against the published truth." for name in SOLVERS},
    "best_published_cosine": "The largest of the nine published cosines.",
    "best_published_l2": "The smallest of the nine published L2.",
}


def run(config: Config, seed: int) -> Outcome:
    """A critic beside the truth."""
    torch.manual_seed(seed)
    build = chosen("solver", config.solver, CRITICS)
    pair = FunnelPair(config.dimension, config.funnels, config.pair_seed)
    began = time.process_time()
    frozen = freeze(build(pair, config, partial(pair.sample, generator=torch.Generator().manual_seed(seed))))
    spent = time.process_time() - began
    truth, error = pair.wasserstein1(config.truth_points, torch.Generator().manual_seed(2**32 + seed))
    metrics = measured(pair, frozen, config.points) | {"truth": truth, "truth_error": error, "cpu_seconds": spent}
    metrics["error_percent"] = 100 * abs(metrics["estimate"] - truth) / truth
    return Outcome(metrics | published(config))


def measured(pair: FunnelPair, frozen: nn.Module, points: int) -> dict[str, float]:
    """Estimate, its lower end, and the gradient of a frozen critic, on points that no training saw; in float64."""
    critic, constant = copy.deepcopy(frozen).double().eval(), lipschitz(frozen, 2).constant
    x, y = pair.sample(points, torch.Generator().manual_seed(2**31), torch.float64)
    values, slopes = zip(*(_values_and_gradients(critic, part) for part in (x, y)), strict=True)
    first, second = (part / constant for part in values)
    reach = pair.diameter * (1 + 1e-6)
    truth = pair.gradient(x)
    return {
        "estimate": float(first.mean() - second.mean()),
        "standard_error": math.sqrt(sum(float(part.var()) / len(part) for part in (first, second))),
        "lower": max(0.0, bernstein_lower(first, second, reach, 1 - LEVEL)),
        "cosine": float(nn.functional.cosine_similarity(slopes[0], truth).mean()),
        "l2": float((slopes[0] - truth).square().sum(1).mean()),
        "constant": constant,
    }


def _values_and_gradients(critic: nn.Module, points: Tensor) -> tuple[Tensor, Tensor]:
    found = []
    for part in points.split(2048):
        at = part.clone().requires_grad_()
        values = critic(at)[:, 0]
        found.append((values.detach(), *torch.autograd.grad(values.sum(), at)))
    values, gradients = (torch.cat(parts) for parts in zip(*found, strict=True))
    return values, gradients


def published(config: Config) -> dict[str, float | None]:
    """The published numbers of a pair of theirs, None for any other."""
    key = config.dimension, config.funnels
    if config.pair_seed != SEED or key not in W1:
        return dict.fromkeys(name for name in METRICS if "published" in name or name.removesuffix(ENDING) in SOLVERS)
    *values, truth = W1[key]
    errors = {name + ENDING: 100 * abs(value / truth - 1) for name, value in zip(SOLVERS, values, strict=True)}
    best = {"best_published_cosine": max(COSINE[key]), "best_published_l2": min(L2[key])}
    return {"published_truth": truth, **errors, **best}

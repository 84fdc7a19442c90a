"""How often the interval about distributions holds the known distance, and how wide it is.

Pairs are the uniform distribution on the unit cube in d dimensions and its translate by 0.3 in every coordinate, at a
distance of 0.3·√d. A repetition draws both samples anew and asks for the interval at 95 %, with a linear critic, which
can be the true potential here. Beside it stands the interval with the true potential, which nothing is trained for.

    python benchmarks/coverage.py [REPETITIONS]

Prints the share of intervals that hold the distance and of either end, the lower ends of their Clopper–Pearson
intervals at 99 %, and widths; writes results/coverage.json.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from scipy.stats import beta
from torch import nn

from tightlip.provenance import provenance
from tightlip.records import BenchRow
from tightlip.transport import WassersteinCritic

DIMENSIONS, SHIFT, POINTS, LEVEL = (1, 2, 16, 64), 0.3, 400, 0.95


def clopper_pearson(hits: int, trials: int, confidence: float = 0.99) -> float:
    """The lower end of the two-sided interval of a share."""
    return float(beta.ppf((1 - confidence) / 2, hits, trials - hits + 1)) if hits else 0.0


def potential(d: int) -> nn.Module:
    """The sum of coordinates over √d, which attains the distance."""
    layer = nn.Linear(d, 1, bias=False, dtype=torch.float64).requires_grad_(False)
    layer.weight.fill_(1 / math.sqrt(d))
    return layer


def repetition(d: int, seed: int) -> tuple[float, float, float]:
    """Lower and upper end; and the lower end with the true potential."""
    draws = torch.Generator().manual_seed(seed)
    y, x = (torch.rand(POINTS, d, generator=draws, dtype=torch.float64) for _ in range(2))
    options = {"level": LEVEL, "diameter": (1 + SHIFT) * math.sqrt(d), "seed": seed}
    critics = ("linear", potential(d))
    found, known = (WassersteinCritic(critic=critic, **options).fit(x + SHIFT, y).interval_ for critic in critics)
    return found.lower, found.upper, known.lower


def coverage(d: int, repetitions: int) -> dict[str, float]:
    """All repetitions for one pair."""
    truth, began = SHIFT * math.sqrt(d), time.process_time()
    rows = torch.tensor([repetition(d, 1000 * d + seed) for seed in range(repetitions)], dtype=torch.float64)
    lower, upper, known = rows.T
    below, above = lower <= truth * (1 + 1e-12), upper >= truth * (1 - 1e-12)
    hits = {"both": below & above, "lower": below, "upper": above}
    shares = {f"{name}_holds": float(held.double().mean()) for name, held in hits.items()}
    ends = {f"{name}_at_least": clopper_pearson(int(held.sum()), repetitions) for name, held in hits.items()}
    return {
        "truth": truth,
        **shares,
        **ends,
        "width": float((upper - lower).mean()),
        "width_below": float((truth - lower).mean()),
        "width_below_over_that_of_the_true_potential": float((truth - lower).mean() / (truth - known).mean()),
        "cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    """Every dimension."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    began, origin = time.perf_counter(), provenance("cpu")
    results = {str(d): coverage(d, repetitions) for d in DIMENSIONS}
    config = {"dimensions": list(DIMENSIONS), "shift": SHIFT, "points": POINTS, "level": LEVEL}
    row = BenchRow(
        benchmark="coverage",
        config=config | {"repetitions": repetitions},
        seed=0,
        results=results,
        seconds=time.perf_counter() - began,
        **origin,
    )
    row.write(Path("results/coverage.json"))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

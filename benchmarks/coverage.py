"""How often the interval about distributions holds the known distance, and how wide it is.

Pairs are the uniform distribution on the unit cube in d dimensions and its translate by 0.3 in every coordinate, at a
distance of 0.3·√d. A repetition draws both samples anew and asks for the interval at 95 %, with a linear critic, which
can be the true potential here. Beside it stands the interval with the true potential, which nothing is trained for.

    python benchmarks/coverage.py                                      2,000 repetitions: some 30 minutes of one core
    python benchmarks/coverage.py --repetitions 10 --dimensions 1 2    a small form, in seconds

Prints the share of intervals that hold the distance and of either end, the lower ends of their Clopper–Pearson
intervals at 99 %, and widths; writes results/coverage.json.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from importlib import metadata
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
    found = WassersteinCritic(critic="linear", level=LEVEL, diameter=(1 + SHIFT) * math.sqrt(d), seed=seed)
    known = WassersteinCritic(critic=potential(d), level=(1 + LEVEL) / 2, seed=seed)  # the level of one end alone
    interval, beside = (critic.fit(x + SHIFT, y).interval_ for critic in (found, known))
    return interval.lower, interval.upper, beside.lower


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


def main(given: Sequence[str] | None = None) -> None:
    """Every dimension."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=list(DIMENSIONS))
    parser.add_argument("--output", type=Path, default=Path("results/coverage.json"))
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    began, origin, results = time.perf_counter(), provenance("cpu"), {}
    origin["versions"] |= {"scipy": metadata.version("scipy")}
    for d in options.dimensions:
        results[str(d)] = coverage(d, options.repetitions)
        print(d, json.dumps(results[str(d)], indent=1), flush=True)
    config = {"dimensions": options.dimensions, "repetitions": options.repetitions}
    config |= {"shift": SHIFT, "points": POINTS, "level": LEVEL}
    BenchRow("coverage", config, 0, results, time.perf_counter() - began, **origin).write(options.output)


if __name__ == "__main__":
    main()

"""How the cost of orthonormal layers grows with width and depth, and what a frozen network costs beside plain torch.

    python benchmarks/growth.py

* step: seconds of a training step at widths up to 4096 and depths up to 64, ours and unconstrained, interleaved; the
  exponents are slopes of a line through the logarithms.
* overhead: what a layer of ours costs where there is next to nothing to compute (16 rows, turned in blocks as a large
  one), less what an unconstrained one costs there, divided by a step of 784-256-256-256-10 and by one layer's share.
* frozen: seconds of a forward pass of a frozen network divided by those of the same network made of torch alone.

Writes results/growth.json.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tightlip
from tightlip.provenance import provenance
from tightlip.records import BenchRow
from tightlip.stopwatch import interleaved


class PlainMaxMin(nn.Module):
    """MaxMin in torch's own words, without a gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pairs are half the width apart."""
        a, b = x.chunk(2, 1)
        return torch.cat((torch.minimum(a, b), torch.maximum(a, b)), 1)


def unconstrained(widths: list[int], activation: Callable[[], nn.Module] | None = None) -> nn.Sequential:
    """The same network without a constraint."""
    make = activation or (lambda: tightlip.MaxMin(contiguous=False))
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), make()]
    return nn.Sequential(*layers[:-1])


def constrained(widths: list[int], constraint: tightlip.Constraint) -> nn.Sequential:
    """The same network with one; from orthogonal weights, since the polar factor of others takes minutes at 4096."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        linear = nn.Linear(a, b)
        nn.init.orthogonal_(linear.weight)
        layers += [tightlip.constrain(linear, constraint), tightlip.MaxMin(contiguous=False)]
    return nn.Sequential(*layers[:-1])


def stepper(network: nn.Module, batch: int, width: int) -> Callable[[], object]:
    """A training step on fixed inputs, at a rate that is not too high for the widest."""
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = tightlip.hold(network, torch.optim.Adam(trained, 1e-4, fused=True))
    x = torch.randn(batch, width, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    return step


def medians(ways: dict[str, Callable[[], object]], rounds: int, warm_up: int) -> dict[str, float]:
    """Median seconds of each, interleaved."""
    times = list(interleaved(ways, rounds, warm_up))
    return {name: statistics.median(row[name] for row in times) for name in ways}


def exponent(pairs: list[tuple[int, float]]) -> float:
    """The slope of a least squares line through (log size, log seconds)."""
    return statistics.linear_regression(*zip(*[(math.log(n), math.log(t)) for n, t in pairs], strict=True)).slope


def steps(widths: list[int], rounds: int, warm_up: int) -> dict[str, float]:
    """Median seconds of a step, ours and unconstrained."""
    torch.manual_seed(0)
    ways = {
        "tightlip": stepper(constrained(widths, tightlip.Orthonormal()), 256, widths[0]),
        "unconstrained": stepper(unconstrained(widths), 256, widths[0]),
    }
    return medians(ways, rounds, warm_up)


def overhead(rounds: int) -> dict[str, float]:
    """Seconds of overhead per layer, and its share at width 256."""
    per_layer = {}
    for name, make in {
        "tightlip": lambda widths: constrained(widths, tightlip.Orthonormal(blocks=8)),
        "unconstrained": unconstrained,
        "tightlip at 256": lambda widths: constrained(widths, tightlip.Orthonormal()),
    }.items():
        width = 256 if name.endswith("256") else 16
        ways = {str(depth): stepper(make([width] * (depth + 1)), 256, width) for depth in (4, 12)}  # type: ignore[operator]
        found = medians(ways, rounds, 10)
        per_layer[name] = (found["12"] - found["4"]) / 8
    own = per_layer["tightlip"] - per_layer["unconstrained"]
    step = steps([784, 256, 256, 256, 10], rounds, 10)["tightlip"]
    return {"seconds_per_layer": own, "of_the_step": own / step, "of_one_layer": own / per_layer["tightlip at 256"]}


def frozen(width: int, batch: int, rounds: int) -> dict[str, Any]:
    """The ratio of a frozen network's forward pass to plain torch's, as quartiles over rounds."""
    widths = [784, width, width, width, 10]
    torch.manual_seed(0)
    ours, plain = tightlip.freeze(tightlip.mlp(widths)), unconstrained(widths, PlainMaxMin)
    x, ratios = torch.randn(batch, 784), []
    with torch.no_grad():
        for _ in range(rounds + 5):
            times = {id(ours): 0.0, id(plain): 0.0}
            for network in (ours, plain, plain, ours):  # whoever comes first finds other data in the cache
                began = time.perf_counter()
                network(x)
                times[id(network)] += time.perf_counter() - began
            ratios.append(times[id(ours)] / times[id(plain)])
    low, middle, high = statistics.quantiles(ratios[5:], n=4)
    return {"ratio": middle, "quartiles": [low, high]}


def main() -> None:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warm-up", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config, origin = {**vars(options), "batch_size": 256}, provenance("cpu")
    results: dict[str, Any] = {}
    results["widths"] = {n: steps([n, n, n], options.rounds, options.warm_up) for n in options.widths}
    results["depths"] = {d: steps([256] * (d + 1), options.rounds, options.warm_up) for d in options.depths}
    for axis in ("widths", "depths"):
        results[f"exponents_of_{axis}"] = {
            name: exponent([(size, times[name]) for size, times in results[axis].items()])
            for name in ("tightlip", "unconstrained")
        }
    results["overhead"] = overhead(4 * options.rounds)
    results["frozen"] = {f"n={n} batch={b}": frozen(n, b, 8 * options.rounds) for n in (256, 1024) for b in (256, 1024)}
    row = BenchRow(benchmark="growth", config=config, seed=0, results=results, **origin)
    row.write(Path("results/growth.json"))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

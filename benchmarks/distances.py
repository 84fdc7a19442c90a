"""W1 of two samples, between proven bounds, beside POT's `ot.emd2` on the same points in the same run.

Points are Gaussian, and their images under a map that is no translation; or images: the digits 3 and 8 of mnist5k, and,
where TIGHTLIP_DATA has the full MNIST, 10,000 beside 10,000 others. POT is given its costs in float64, which takes part
of its time, and no limit; what it says of its end is in the row.

    pip install 'tightlip[transport]'
    python benchmarks/distances.py                       all cases but d16-100000: some 5 minutes of one core
    python benchmarks/distances.py d16-100000            2 minutes more; it has no emd2 beside it
    python benchmarks/distances.py --points 500 d2 d16   a small form, in seconds

Prints a line per case and writes results/distances.json, of all cases that were ever asked for at this commit.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tightlip
from tightlip.provenance import provenance
from tightlip.records import BenchRow

MANY = 10_000
"""Points of each sample, where the data have as many."""


def gaussian(n: int, d: int) -> tuple[Tensor, Tensor]:
    """A standard normal sample, and another one bent along its first coordinates."""
    draws = torch.Generator().manual_seed(d)
    x, y = (torch.randn(n, d, generator=draws, dtype=torch.float64) for _ in range(2))
    y[:, : min(d, 2)] += 0.5 * y[:, : min(d, 2)].square()
    return x, y


def images(points: int) -> tuple[Tensor, Tensor]:
    """Training images of MNIST, cut into two samples."""
    data = tightlip.data.load("mnist", root=os.environ["TIGHTLIP_DATA"])
    chosen = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0))[: 2 * points]
    first, second = data.images[chosen].flatten(1).double().chunk(2)
    return first, second


def digits(points: int) -> tuple[Tensor, Tensor]:
    """The digits 3 and 8 of mnist5k, in [0, 1]: 500 of each, 8.2233113054 apart."""
    data = tightlip.data.load("mnist5k")
    first, second = (data.images[data.labels == digit][:points].flatten(1).double() / 255 for digit in (3, 8))
    return first, second


@dataclass(frozen=True)
class Case:
    """How samples of so many points are made; the tolerance; how many points, and whether POT is asked too."""

    make: Callable[[int], tuple[Tensor, Tensor]]
    tolerance: float
    points: int = MANY
    beside: bool = True


CASES = {
    "d2": Case(partial(gaussian, d=2), 2e-3),
    "d16": Case(partial(gaussian, d=16), 1e-3),
    "d16-finer": Case(partial(gaussian, d=16), 1e-4),
    "d64": Case(partial(gaussian, d=64), 1e-3),
    "digits": Case(digits, 1e-4, 500),
    "mnist": Case(images, 1e-3),
    "d16-100000": Case(partial(gaussian, d=16), 3e-3, 100_000, beside=False),
}


def ours(x: Tensor, y: Tensor, tolerance: float) -> dict[str, Any]:
    """The interval, how long it took, and the most memory that the process held on the way."""
    Path("/proc/self/clear_refs").write_text("5")  # from here on
    cpu, wall = time.process_time(), time.perf_counter()
    found = tightlip.wasserstein1(x, y, tolerance=tolerance, progress=False)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "lower": found.lower,
        "upper": found.upper,
        "gap": found.gap,
        "method": found.method,
        "reason": found.reason,
        "cpu_seconds": cpu,
        "seconds": wall,
        "peak_megabytes": int(status["VmHWM"].split()[0]) / 1024,
    }


def emd2(x: Tensor, y: Tensor) -> dict[str, Any]:
    """What POT says, whether it came to its end, and how long it took, with the costs and without."""
    import ot

    cpu, wall = time.process_time(), time.perf_counter()
    costs = torch.cdist(x, y).numpy()
    solver = time.process_time()
    value, told = ot.emd2([], [], costs, numItermax=10**12, log=True)
    end = time.process_time()
    seconds = {"cpu_seconds": end - cpu, "cpu_seconds_of_the_solver": end - solver}
    return {"value": float(value), "warning": told["warning"], **seconds, "seconds": time.perf_counter() - wall}


def measured(name: str, points: int | None = None) -> dict[str, Any]:
    """One case, at its size or another: ours, POT's, and how many times as long POT took."""
    case = CASES[name]
    x, y = case.make(case.points if points is None else points)
    row: dict[str, Any] = {"points": len(x), "dimensions": x.shape[1], "tolerance": case.tolerance}
    row["wasserstein1"] = found = ours(x, y, case.tolerance)
    if case.beside:
        row["emd2"] = told = emd2(x, y)
        least, most = told["value"] * (1 - 1e-9), told["value"] * (1 + 1e-9)
        row["holds_the_value_of_emd2"] = found["lower"] <= most and least <= found["upper"]
        row["times_faster"] = told["cpu_seconds"] / found["cpu_seconds"]
    return row


def usual() -> list[str]:
    """The cases that are measured when none is named."""
    return [name for name in CASES if CASES[name].beside and (name != "mnist" or os.environ.get("TIGHTLIP_DATA"))]


def main(given: Sequence[str] | None = None) -> None:
    """All cases that are named, or the usual ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--points", type=int, default=None, help="of each sample, instead of the case's own")
    parser.add_argument("--output", type=Path, default=Path("results/distances.json"))
    options = parser.parse_args(given)
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case is called {', '.join(sorted(unknown))}: choose of {', '.join(CASES)}")
    torch.set_num_threads(1)
    config, began, origin = {"points": options.points}, time.perf_counter(), provenance("cpu")
    origin["versions"] |= {"POT": metadata.version("POT")}
    results, seconds = {}, 0.0
    for name in options.cases or usual():
        results[name] = measured(name, options.points)
        print(name, json.dumps(results[name], indent=1), flush=True)
    before = BenchRow.read(options.output) if options.output.exists() else None
    if before is not None and (before.commit, before.config) == (origin["commit"], config):
        results, seconds = before.results | results, before.seconds or 0.0
    row = BenchRow("distances", config, 0, results, seconds + time.perf_counter() - began, **origin)
    row.write(options.output)


if __name__ == "__main__":
    main()

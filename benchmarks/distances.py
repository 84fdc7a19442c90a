"""W1 of two samples, between proven bounds, beside POT's `ot.emd2` on the same points in the same run.

Points are Gaussian, and their images under a map that is no translation; or, where TIGHTLIP_DATA has the full MNIST,
10,000 images beside 10,000 others. POT is given its costs in float64, which takes part of its time, and no limit.

    pip install POT
    python benchmarks/distances.py [CASE …]        such as d16; d16-100000 alone takes minutes and has no emd2 beside it

Prints a line per case and writes results/distances.json, of all cases that were ever asked for at this commit.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tightlip
from tightlip.provenance import provenance
from tightlip.records import BenchRow

ROW = Path("results/distances.json")


def gaussian(n: int, d: int) -> tuple[Tensor, Tensor]:
    """A standard normal sample, and another one bent along its first coordinates."""
    draws = torch.Generator().manual_seed(d)
    x, y = (torch.randn(n, d, generator=draws, dtype=torch.float64) for _ in range(2))
    y[:, : min(d, 2)] += 0.5 * y[:, : min(d, 2)].square()
    return x, y


def digits() -> tuple[Tensor, Tensor]:
    """20,000 training images of MNIST, cut into two samples."""
    data = tightlip.data.load("mnist", root=os.environ["TIGHTLIP_DATA"])
    images = data.images[torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0))[:20_000]]
    return images[:10_000].flatten(1).double(), images[10_000:].flatten(1).double()


CASES: dict[str, tuple[Callable[[], tuple[Tensor, Tensor]], float, bool]] = {
    "d2": (lambda: gaussian(10_000, 2), 2e-3, True),
    "d16": (lambda: gaussian(10_000, 16), 1e-3, True),
    "d64": (lambda: gaussian(10_000, 64), 1e-3, True),
    "mnist": (digits, 1e-3, True),
    "d16-100000": (lambda: gaussian(100_000, 16), 3e-3, False),
}
"""The samples, the tolerance, and whether POT is asked too."""


def ours(x: Tensor, y: Tensor, tolerance: float) -> dict[str, Any]:
    """The interval, and how long it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = tightlip.wasserstein1(x, y, tolerance=tolerance, progress=False)
    return {
        "lower": found.lower,
        "upper": found.upper,
        "gap": 1 - found.lower / found.upper,
        "method": found.method,
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - wall,
        "peak_megabytes_of_the_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def emd2(x: Tensor, y: Tensor) -> dict[str, float]:
    """What POT says, and how long it took, with the costs and without."""
    import ot

    cpu, wall = time.process_time(), time.perf_counter()
    costs = torch.cdist(x, y).numpy()
    solver = time.process_time()
    value = float(ot.emd2([], [], costs, numItermax=10**12))
    end = time.process_time()
    seconds = {"cpu_seconds": end - cpu, "cpu_seconds_of_the_solver": end - solver}
    return {"value": value, **seconds, "seconds": time.perf_counter() - wall}


def measured(name: str) -> dict[str, Any]:
    """One case: ours, POT's, and how many times as long POT took."""
    make, tolerance, beside = CASES[name]
    x, y = make()
    row: dict[str, Any] = {"points": len(x), "dimensions": x.shape[1], "tolerance": tolerance}
    row["wasserstein1"] = ours(x, y, tolerance)
    if beside:
        row["emd2"] = emd2(x, y)
        row["holds_the_value_of_emd2"] = row["wasserstein1"]["lower"] <= row["emd2"]["value"] * (1 + 1e-9) and row[
            "emd2"
        ]["value"] <= row["wasserstein1"]["upper"] * (1 + 1e-9)
        row["times_faster"] = row["emd2"]["cpu_seconds"] / row["wasserstein1"]["cpu_seconds"]
    return row


def main() -> None:
    """All cases that are named, or all that need no more than a few minutes."""
    torch.set_num_threads(1)
    names = sys.argv[1:] or [n for n in CASES if CASES[n][2] and (n != "mnist" or os.environ.get("TIGHTLIP_DATA"))]
    began, origin = time.perf_counter(), provenance("cpu")
    results = {}
    for name in names:
        results[name] = measured(name)
        print(name, json.dumps(results[name], indent=1), flush=True)
    before = BenchRow.read(ROW) if ROW.exists() else None
    if before is not None and before.commit == origin["commit"]:
        results = {**before.results, **results}
    row = BenchRow(
        benchmark="distances", config={}, seed=0, results=results, seconds=time.perf_counter() - began, **origin
    )
    row.write(ROW)


if __name__ == "__main__":
    main()

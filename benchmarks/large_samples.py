"""Two memory-mapped samples far larger than a search would hold: how long `wasserstein1` takes, alone and on ranks.

Points are uniform on the unit cube, in float32, and those of the first sample moved by 0.3 in every coordinate: the
distance is 0.3·√d. One process asks about the distributions, with one thread; then several do, under torchrun, each on
the same files. All must find the same interval, to the last bit. Files are written to a folder that is removed.

    python benchmarks/large_samples.py                                    two of 10⁷ × 16, 1.2 GiB on the disk
    python benchmarks/large_samples.py --critic linear                    the same in 3 minutes of a core
    python benchmarks/large_samples.py --points 20000 --critic linear     a small form, in seconds

Writes results/large-samples.json. Memory is the most that a process held at once, pages of the files included.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import tightlip
from tightlip.provenance import provenance
from tightlip.records import BenchRow

SHIFT, BLOCK = 0.3, 2**18
SAME = ("lower", "upper", "estimate", "p_value", "method")
"""Of an interval: what does not depend on who asks."""


def write(path: Path, points: int, dimensions: int, shift: float, seed: int) -> None:
    """A sample, a block at a time."""
    draws = np.random.default_rng(seed)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (points, dimensions))
    for first in range(0, points, BLOCK):
        block = rows[first : first + BLOCK]
        block[:] = draws.random(block.shape, np.float32) + np.float32(shift)
    rows.flush()


def asked(folder: Path, critic: str | None) -> dict[str, Any]:
    """The interval that this process finds, and what it took."""
    x, y = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")
    cpu, wall = time.process_time(), time.perf_counter()
    diameter = (1 + SHIFT) * math.sqrt(x.shape[1]) * (1 + 1e-6)  # moved points were rounded
    found = tightlip.wasserstein1(x, y, about="distributions", diameter=diameter, critic=critic, progress=False)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {name: getattr(found, name) for name in SAME} | {
        "seconds": wall,
        "cpu_seconds": cpu,
        "points_per_second": (len(x) + len(y)) / wall,
        "points_per_cpu_second": (len(x) + len(y)) / cpu,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def one_process(folder: Path, critic: str | None) -> None:
    """What a process does that `measured` starts: ask, and under torchrun tell all others."""
    torch.set_num_threads(1)
    found = [asked(folder, critic)]
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, found[0])
        found = gathered
        dist.destroy_process_group()
    if os.environ.get("RANK", "0") == "0":
        (folder / "found.json").write_text(json.dumps(found))


def measured(folder: Path, critic: str | None, ranks: int | None) -> list[dict[str, Any]]:
    """What one process finds, or each of so many under torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *(torchrun if ranks else []), __file__, "--inside", str(folder)]
    command += ["--critic", critic] if critic else []
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    found: list[dict[str, Any]] = json.loads((folder / "found.json").read_text())
    return found


def compared(points: int, dimensions: int, critic: str | None, ranks: int) -> dict[str, Any]:
    """One process, then ranks; and whether the distance is inside, and all agree."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sample, (shift, seed) in {"x": (SHIFT, 0), "y": (0.0, 1)}.items():
            write(folder / f"{sample}.npy", points, dimensions, shift, seed)
        (alone,), together = measured(folder, critic, None), measured(folder, critic, ranks)
    truth = SHIFT * math.sqrt(dimensions)
    return {
        "truth": truth,
        "holds_the_truth": alone["lower"] <= truth * (1 + 1e-6) and truth * (1 - 1e-6) <= alone["upper"],
        "same_interval": all(other[name] == alone[name] for other in together for name in SAME),
        "alone": alone,
        "ranks": together,
    }


def main(given: list[str] | None = None) -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000_000, help="of each sample")
    parser.add_argument("--dimensions", type=int, default=16)
    parser.add_argument("--critic", choices=["linear", "network", "funnels"], default=None, help="default: all compete")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results/large-samples.json"))
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.inside is not None:
        one_process(options.inside, options.critic)
        return
    torch.set_num_threads(1)
    config = {name: getattr(options, name) for name in ("points", "dimensions", "critic", "ranks")} | {"shift": SHIFT}
    began, origin = time.perf_counter(), provenance("cpu")
    results = compared(options.points, options.dimensions, options.critic, options.ranks)
    row = BenchRow("large-samples", config, 0, results, time.perf_counter() - began, **origin)
    row.write(options.output)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""What each rank spends on folding weights where the work is shared, beside what one rank spends on all of it.

    python benchmarks/shared_folds.py

Networks of eight equal layers are trained under DistributedDataParallel by 1, 2 and 4 ranks over gloo, on the same
batch size for each rank, and hold(…, group=…) shares the folds. For each rank, medians over steps of the CPU time (of
all its threads) spent in folding, and of that spent in handing on what was folded; the bytes that it sends; and whether
all ranks end with the same bits. CPU time is what this compares, since ranks share the machine's cores. Writes
results/shared-folds.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

import tightlip
from tightlip.constraints import holding, sharing
from tightlip.constraints.fingerprint import fingerprint
from tightlip.provenance import provenance
from tightlip.records import BenchRow

LAYERS = 8


def dense(width: int, constraint: tightlip.Constraint) -> tuple[nn.Module, tuple[int, ...]]:
    """Square layers, and the shape of an input."""
    layers = [tightlip.constrain(nn.Linear(width, width), constraint) for _ in range(LAYERS)]
    return nn.Sequential(*(part for layer in layers for part in (layer, tightlip.MaxMin()))), (width,)


def convolutions(channels: int) -> tuple[nn.Module, tuple[int, ...]]:
    """3×3 kernels."""
    layers = [
        tightlip.constrain(nn.Conv2d(channels, channels, 3, padding=1), tightlip.Orthonormal()) for _ in range(LAYERS)
    ]
    return nn.Sequential(*layers), (channels, 8, 8)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "512 × 512, turned in 16 blocks": lambda: dense(512, tightlip.Orthonormal()),
    "1024 × 1024, turned in 32 blocks": lambda: dense(1024, tightlip.Orthonormal()),
    "512 × 512, projected": lambda: dense(512, tightlip.Orthonormal(blocks=0)),
    "256 × 256, spectral ball": lambda: dense(256, tightlip.SpectralBall()),
    "64 → 64 channels, 3×3": lambda: convolutions(64),
}


class Meter:
    """CPU seconds and bytes of each step."""

    def __init__(self) -> None:
        self.folds: list[float] = []
        self.wholes: list[float] = []
        self.sent: list[int] = []

    def watch(self) -> None:
        """Time the functions that fold and that share."""
        fold, fold_all, outcomes = sharing._fold_, holding.fold_all_, sharing._outcomes
        sharing._fold_ = self._timed(fold, self.folds)
        holding.fold_all_ = self._timed(fold_all, self.wholes)
        sharing._outcomes = self._weighed(outcomes)

    def _timed(self, function: Callable, into: list[float]) -> Callable:
        def timed(*arguments: Any) -> Any:
            began = time.process_time()
            found = function(*arguments)
            into.append(time.process_time() - began)
            return found

        return timed

    def _weighed(self, function: Callable) -> Callable:
        def weighed(*arguments: Any) -> Any:
            found = function(*arguments)
            self.sent.append(sum(value.nbytes for value in found[1].values()))
            return found

        return weighed


def train(rank: int, ranks: int, folder: str, name: str, batch: int, steps: int) -> None:
    """What one rank does; its figures go into the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    network, shape = NETWORKS[name]()
    wrapped, meter = DistributedDataParallel(network), Meter()
    optimizer = tightlip.hold(wrapped, torch.optim.Adam(network.parameters(), lr=1e-3), group=dist.group.WORLD)
    meter.watch()
    for step in range(steps):
        source = torch.Generator().manual_seed(ranks * step + rank)
        optimizer.zero_grad()
        wrapped(torch.randn(batch, *shape, generator=source)).square().mean().backward()
        optimizer.step()
    later = slice(steps // 3, None)  # the first steps fill the caches
    fold = statistics.median(meter.folds[later])
    found = {
        "fold": fold,
        "exchange": max(0.0, statistics.median(meter.wholes[later]) - fold),
        "bytes": statistics.median(meter.sent[later]) if meter.sent else 0,
        "weights": [fingerprint(layer.weight) for layer in network if hasattr(layer, "weight")],
    }
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)


def measured(name: str, ranks: int, batch: int, steps: int) -> dict[str, Any]:
    """The figures of all ranks, busiest first, in milliseconds and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        start_processes(train, (ranks, folder, name, batch, steps), nprocs=ranks, start_method="fork")
        found = [json.loads(Path(folder, f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    return {
        "fold_ms": sorted((round(1e3 * each["fold"], 3) for each in found), reverse=True),
        "exchange_ms": sorted((round(1e3 * each["exchange"], 3) for each in found), reverse=True),
        "sent_bytes": sorted((each["bytes"] for each in found), reverse=True),
        "bit_equal": all(each["weights"] == found[0]["weights"] for each in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--output", type=Path, default=Path("results/shared-folds.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, results = time.perf_counter(), {}
    for name in NETWORKS:
        rows = {str(ranks): measured(name, ranks, options.batch_size, options.steps) for ranks in options.ranks}
        alone = rows[str(options.ranks[0])]["fold_ms"][0]
        for row in rows.values():
            row["share"] = round(row["fold_ms"][0] / alone, 3)
            row["share_with_exchange"] = round((row["fold_ms"][0] + row["exchange_ms"][0]) / alone, 3)
        results[name] = rows
        print(name, *(f"{ranks} ranks: {row}" for ranks, row in rows.items()), sep="\n  ", flush=True)
    config = {"layers": LAYERS, "batch_size": options.batch_size, "steps": options.steps, "backend": "gloo"}
    seconds = round(time.perf_counter() - began, 1)
    BenchRow("shared-folds", config, 0, results, seconds, **provenance("cpu")).write(options.output)


if __name__ == "__main__":
    main()

"""What the speed of turned weights costs in quality: nothing, if this table holds. Every scheme at the same steps.

    python benchmarks/equal_steps.py cone256 cone1024 mnist
    python benchmarks/equal_steps.py cone256 --optimizer sgd --only "turned in blocks" "weight trained"

Each scheme sees the same batches in the same order. Its learning rate is found on the grid r·2^k with seed 0, r being
3e-3 (0.1 for SGD), by going up or down as long as the quality rises; then seeds 1 and 2 run at that rate. Quality is
that of the *exactly* projected network: every weight replaced by its polar factor in float64.

    cone256, cone1024    a critic between the center of the unit sphere in R^128 and the sphere; W1 = 1 (paper, Table 1)
    mnist                certified accuracy at 0.3 on the 10,000 test images, 784-512-512-512-10

Writes results/equal-steps-TASK.json after every run, or equal-steps-TASK-OPTIMIZER.json for others than Adam; started
again on the same commit, it goes on where it stopped. With --only, the other schemes' runs are kept, whatever commit
they are of; every run names its own.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tightlip
from tightlip.linalg.polar import polar
from tightlip.linalg.schedules import bjorck
from tightlip.provenance import provenance
from tightlip.records import BenchRow

SCHEMES: dict[str, tuple[Callable[[], tightlip.Constraint], str]] = {
    "turned in blocks": (tightlip.Orthonormal, "step"),
    "16 blocks": (lambda: tightlip.Orthonormal(blocks=16), "step"),
    "32 blocks": (lambda: tightlip.Orthonormal(blocks=32), "step"),
    "turned whole": (lambda: tightlip.Orthonormal(blocks=1), "step"),
    "weight trained": (lambda: tightlip.Orthonormal(blocks=0), "step"),
    "3 iterations": (lambda: tightlip.Orthonormal(bjorck(3)), "forward"),
    "Cayley": (tightlip.constraints.Cayley, "forward"),
}
SEEDS = 3


def _adam(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    return [torch.optim.Adam(network.parameters(), rate, fused=True)]


def _sgd(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(network.parameters(), rate, momentum=0.9)]


def _muon(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Matrices by Muon, biases by Adam."""
    matrices = [p for p in network.parameters() if p.dim() == 2]
    rest = [p for p in network.parameters() if p.dim() != 2]
    return [torch.optim.Muon(matrices, rate, weight_decay=0.0), torch.optim.Adam(rest, 3e-3, fused=True)]


OPTIMIZERS: dict[str, tuple[float, Callable[[nn.Module, float], list[torch.optim.Optimizer]]]] = {
    "adam": (3e-3, _adam),
    "sgd": (0.1, _sgd),
    "muon": (3e-3, _muon),
}
"""The rate in the middle of the grid, and what makes them."""


@dataclass(frozen=True)
class Cone:
    """The quality is f(center) − mean f over fresh points of the sphere."""

    width: int
    steps: int
    data: str = "sphere"

    @property
    def widths(self) -> list[int]:
        """Of the critic."""
        return [128, *[self.width] * 3, 1]

    def loss(self, network: nn.Module, stream: torch.Generator) -> Tensor:
        """Of the next batch."""
        return tightlip.kantorovich(network(torch.zeros(1, 128)), network(self._sphere(256, stream)))

    def quality(self, network: nn.Module) -> dict[str, float]:
        """Of the projected network, with the standard error of sampling."""
        outputs = network(self._sphere(20_000, torch.Generator().manual_seed(999)))
        error = float(outputs.std()) / len(outputs) ** 0.5
        return {"quality": float(network(torch.zeros(1, 128)) - outputs.mean()), "standard_error": error}

    @staticmethod
    def _sphere(count: int, stream: torch.Generator) -> Tensor:
        points = torch.randn(count, 128, generator=stream)
        return points / points.norm(dim=1, keepdim=True)


class Digits:
    """The quality is the certified accuracy at 0.3."""

    def __init__(self, name: str, steps: int) -> None:
        self.widths, self.steps = [784, 512, 512, 512, 10], steps
        dataset = tightlip.data.load(name)
        self.parts, self.data = tightlip.data.split(dataset, seed=0), dataset.sha256

    def loss(self, network: nn.Module, stream: torch.Generator) -> Tensor:
        """Of the next batch."""
        train = self.parts.train
        index = torch.randint(len(train.labels), (256,), generator=stream)
        return tightlip.margin_cross_entropy(network(train.images[index].flatten(1)), train.labels[index], 0.8, 0.25)

    def quality(self, network: nn.Module) -> dict[str, float]:
        """Of the projected network, with its plain accuracy."""
        certificate = tightlip.certify(network, self.parts.test.images.flatten(1), self.parts.test.labels, p=2)
        return {"quality": certificate.accuracy(0.3), "clean": certificate.accuracy(0)}


TASKS: dict[str, Callable[[], Any]] = {
    "cone256": lambda: Cone(256, 1000),
    "cone1024": lambda: Cone(1024, 200),
    "mnist": lambda: Digits("mnist", 700),
    "mnist5k": lambda: Digits("mnist5k", 100),
}


def projected(network: nn.Module) -> nn.Module:
    """The frozen network with every weight replaced by its polar factor."""
    result = copy.deepcopy(tightlip.freeze(network))
    with torch.no_grad():
        for layer in result.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.copy_(polar(layer.weight.double()))
    return result


def train(task: Any, scheme: str, optimizer: str, rate: float, seed: int) -> dict[str, Any]:
    """One run; a step that cannot be taken ends it with quality −1."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    make, way = SCHEMES[scheme]
    network = tightlip.mlp(task.widths, make(), hold=way)  # type: ignore[arg-type]
    optimizers = [tightlip.hold(network, made) for made in OPTIMIZERS[optimizer][1](network, rate)]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(made, task.steps) for made in optimizers]
    stream = torch.Generator().manual_seed(1000 + seed)
    try:
        for _ in range(task.steps):
            network.zero_grad()
            task.loss(network, stream).backward()
            for each in (*optimizers, *schedules):
                each.step()
        with torch.no_grad():
            measured = task.quality(projected(network))
    except tightlip.TightlipError as error:
        measured = {"quality": -1.0, "sentence": str(error)}
    return {"learning_rate": rate, "seed": seed, **measured, "seconds": time.perf_counter() - began}


def study(name: str, optimizer: str, only: list[str]) -> None:
    """The schemes of one task, ``only`` these anew; every finished run is kept."""
    adam = optimizer == "adam"
    task, path = TASKS[name](), Path(f"results/equal-steps-{name}{'' if adam else '-' + optimizer}.json")
    config = {"task": name, "widths": task.widths, "steps": task.steps, "batch_size": 256, "data": task.data}
    config |= {} if adam else {"optimizer": optimizer}
    schemes = list(SCHEMES) if adam else only
    results = {"runs": {scheme: [] for scheme in schemes}, "table": {}}
    row = BenchRow(benchmark=path.stem, config={**config, "seeds": SEEDS}, seed=0, results=results, **provenance("cpu"))
    if path.exists():
        known = BenchRow.read(path)
        if known.config == row.config and not known.dirty:
            for scheme, runs in known.results["runs"].items():
                dated = [{"commit": known.commit, **run} for run in runs]
                results["runs"][scheme] = [r for r in dated if scheme not in only or r["commit"] == row.commit]

    def run(scheme: str, k: int, seed: int) -> float:
        rate, runs = OPTIMIZERS[optimizer][0] * 2.0**k, results["runs"][scheme]
        found = next((r for r in runs if (r["learning_rate"], r["seed"]) == (rate, seed)), None)
        if found is None:
            found = {"commit": row.commit, **train(task, scheme, optimizer, rate, seed)}
            runs.append(found)
            row.write(path)
            print(f"{name} {scheme:18} rate {rate:.2g} seed {seed}: {found['quality']:.4f}  {found['seconds']:.0f} s")
        return float(found["quality"])

    for scheme in schemes:
        best = tuned(lambda k, scheme=scheme: run(scheme, k, 0))
        values = [run(scheme, best, seed) for seed in range(SEEDS)]
        results["table"][scheme] = {
            "rate": OPTIMIZERS[optimizer][0] * 2.0**best,
            "mean": statistics.mean(values),
            "spread": max(values) - min(values),
        }
        print(f"{name} {scheme:18} {results['table'][scheme]}")
        row.write(path)


def tuned(quality: Callable[[int], float]) -> int:
    """The k where quality is highest, found by going up or down from 0."""
    best, direction = 0, 1
    if quality(1) <= quality(0):
        direction = -1
    while quality(best + direction) > quality(best):
        best += direction
    return best


def main() -> None:
    """The tasks that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=SCHEMES, default=list(SCHEMES), help="run these schemes anew")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.tasks:
        study(name, options.optimizer, options.only)


if __name__ == "__main__":
    main()

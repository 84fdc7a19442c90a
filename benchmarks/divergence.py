"""Does training ever leave the set without a word? 100 short runs over learning rates, networks and optimizers.

    python benchmarks/divergence.py

At every tenth step and at the end each weight is measured: a run *finished* if max|σ² − 1| ≤ 1e-5 and every number was
finite all along, it *raised* if tightlip ended it with a sentence, and else it *drifted*, which must never happen.
Writes results/divergence.json.
"""

import itertools
import json
import math
import time
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

import tightlip
from tightlip.linalg.polar import residual
from tightlip.provenance import provenance
from tightlip.records import BenchRow

RATES = (1e-4, 4e-4, 1.6e-3, 6e-3, 3e-2)
NETWORKS = ((64,) * 3, (256,) * 3, (256,) * 6, (64, 256, 64), (32,) * 8)  # the third is the prototype that diverged
OPTIMIZERS = ("adam", "adamw", "momentum", "muon")
STEPS, MUON_STEPS, TOLERANCE = 60, 12, 1e-5  # Muon multiplies in bfloat16, which few processors do fast


def optimizers(kind: str, network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """One optimizer; Muon takes matrices only, so biases get a second one."""
    parameters = list(network.parameters())
    if kind == "adam":
        return [torch.optim.Adam(parameters, rate)]
    if kind == "adamw":
        return [torch.optim.AdamW(parameters, rate, weight_decay=0.1)]
    if kind == "momentum":
        return [torch.optim.SGD(parameters, rate, momentum=0.9)]
    matrices, biases = ([p for p in parameters if (p.dim() == 2) == wanted] for wanted in (True, False))
    return [torch.optim.Muon(matrices, rate), torch.optim.Adam(biases, rate)]


def off(network: nn.Module) -> float:
    """max|σ² − 1| over all layers; ∞ where a number is not finite."""
    weights = [layer.weight.detach().double() for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not all(torch.isfinite(p).all() for p in network.parameters()):
        return math.inf
    return max(float(torch.linalg.eigvalsh(residual(weight)).abs().max()) for weight in weights)


def short_run(kind: str, rate: float, hidden: tuple[int, ...], x: torch.Tensor, y: torch.Tensor) -> dict[str, object]:
    """Train for a little; how it ended."""
    torch.manual_seed(0)
    network = tightlip.mlp([784, *hidden, 10])
    engines = [tightlip.hold(network, optimizer) for optimizer in optimizers(kind, network, rate)]
    worst, generator = off(network), torch.Generator().manual_seed(0)
    row = {"optimizer": kind, "learning_rate": rate, "hidden": list(hidden)}
    try:
        for step in range(MUON_STEPS if kind == "muon" else STEPS):
            index = torch.randint(len(x), (128,), generator=generator)
            loss = tightlip.margin_cross_entropy(network(x[index]), y[index], 0.5, 0.25)
            for engine in engines:
                engine.zero_grad()
            loss.backward()
            for engine in engines:
                engine.step()
            if step % 10 == 9:
                worst = max(worst, off(network), 0.0 if torch.isfinite(loss) else math.inf)
    except tightlip.TightlipError as error:
        return row | {"outcome": "raised", "sentence": str(error)}
    return row | {"outcome": "finished" if worst <= TOLERANCE else "drifted", "worst": worst, "loss": loss.item()}


def main() -> None:
    """All runs; print the outcomes, write the row."""
    began = time.perf_counter()
    part = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0).train
    x = part.images.flatten(1)
    grid = list(itertools.product(OPTIMIZERS, RATES, NETWORKS))
    runs = [short_run(*cell, x, part.labels) for cell in tqdm(grid, unit="run", disable=None)]
    outcomes = Counter(str(run["outcome"]) for run in runs)
    worst = max(float(run["worst"]) for run in runs if run["outcome"] == "finished")  # type: ignore[arg-type]
    config = {"steps": STEPS, "muon_steps": MUON_STEPS, "batch_size": 128, "data": "mnist5k", "tolerance": TOLERANCE}
    results = {"outcomes": dict(outcomes), "worst": worst, "runs": runs}
    seconds = time.perf_counter() - began
    row = BenchRow(benchmark="divergence", config=config, seed=0, results=results, seconds=seconds, **provenance("cpu"))
    row.write(Path("results/divergence.json"))
    print(json.dumps({"outcomes": outcomes, "worst max|σ² − 1| of those that finished": worst}, ensure_ascii=False))


if __name__ == "__main__":
    main()

"""What the semidefinite bound gains over the product of the norms, and what it costs, beside slopes that were found.

    python benchmarks/semidefinite.py

Ordinary ReLU networks as torch initializes them, and one that was trained on mnist5k without a constraint. The slope is
the largest of the Jacobian's norm over a hundred points, so the truth lies between it and the proven constant. Writes
results/semidefinite.json.
"""

import json
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import tightlip
from tightlip.provenance import provenance
from tightlip.records import BenchRow

WIDTHS = [[5, 32, 32, 2], [10, 64, 64, 64, 2], [784, 128, 128, 10]]
POINTS, EPOCHS = 100, 10


def dense(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    torch.manual_seed(0)
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def trained(widths: list[int]) -> tuple[nn.Module, torch.Tensor]:
    """A network that nothing holds, and images that it was not trained with."""
    parts = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0)
    network = nn.Sequential(nn.Flatten(), *dense(widths))
    tightlip.fit(network, nn.functional.cross_entropy, parts.train, parts.validation, epochs=EPOCHS, progress=False)
    return network.eval(), parts.test.images[:POINTS]


def measured(network: nn.Module, x: torch.Tensor) -> dict[str, float]:
    """The bound, the product, the largest slope that was found, and seconds of the processor."""
    began = time.process_time()
    bound = tightlip.semidefinite_bound(network)
    searched = time.process_time()
    if not bound.holds_for(network):
        raise AssertionError("a proven bound does not hold")
    verified = time.process_time() - searched
    slope = float(tightlip.jacobian_singular_values(network, x).max())
    found = {"product": bound.product, "constant": bound.constant, "slope": slope}
    return found | {"seconds": searched - began, "seconds_to_verify": verified}


def main() -> None:
    """All networks."""
    torch.set_num_threads(1)
    rows = {}
    for widths in WIDTHS:
        network = dense(widths)
        rows["-".join(map(str, widths))] = measured(network, 10 * torch.randn(POINTS, widths[0]))
    rows["784-128-128-10, trained on mnist5k"] = measured(*trained(WIDTHS[-1]))
    config = {"points": POINTS, "epochs": EPOCHS}
    row = BenchRow(benchmark="semidefinite", config=config, seed=0, results={"rows": rows}, **provenance("cpu"))
    row.write(Path("results/semidefinite.json"))
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

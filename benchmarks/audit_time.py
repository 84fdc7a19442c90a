"""How long the audit takes and how tight it is, beside the plain forward pass and an SVD of the same layers.

A single frozen orthonormal layer is also measured in products of two matrices of its size, in float64, which the audit
computes in, and in float32.

    python benchmarks/audit_time.py

Prints medians over five rounds and their ratios, and writes results/audit-time.json.
"""

import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import tightlip
from tightlip.provenance import provenance
from tightlip.records import BenchRow

WIDTHS = [784, 1024, 1024, 1024, 10]


def seconds(function: Callable[[], object], rounds: int = 5) -> float:
    """The median of several runs, after one that is not counted."""
    function()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def one_layer(size: int) -> dict[str, float]:
    """The audit of a frozen square layer, in seconds and in products of its size; and how tight it is."""
    torch.manual_seed(0)
    layer = tightlip.freeze(nn.Sequential(tightlip.constrain(nn.Linear(size, size), tightlip.Orthonormal())))[0]  # type: ignore[index]
    weight = layer.weight.detach()
    double, norm = weight.double(), float(torch.linalg.matrix_norm(weight.double(), 2))
    audit = seconds(lambda: tightlip.lipschitz(layer, 2, 2))
    return {
        "seconds": audit,
        "products_in_float64": audit / seconds(lambda: double @ double),
        "products_in_float32": audit / seconds(lambda: weight @ weight),
        "bound_over_norm_minus_1": tightlip.lipschitz(layer, 2, 2).constant / norm - 1,
    }


def main() -> None:
    """Time orthonormal and Gaussian networks."""
    torch.manual_seed(0)
    gaussian = nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(WIDTHS)])
    for layer in gaussian:
        nn.init.normal_(layer.weight)
    networks = {"orthonormal": tightlip.freeze(tightlip.mlp(WIDTHS)), "gaussian": gaussian}
    x = torch.rand(256, WIDTHS[0])
    origin, results = provenance("cpu"), {"networks": {}, "layers": {}}
    for name, network in networks.items():
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        exact = [float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) for layer in layers]
        product = float(torch.tensor(exact, dtype=torch.float64).prod())
        audit = seconds(lambda network=network: tightlip.lipschitz(network, 2, 2))
        svd = seconds(lambda layers=layers: [torch.linalg.svdvals(layer.weight.detach().double()) for layer in layers])
        results["networks"][name] = {
            "audit_seconds": audit,
            "ratio_to_float64_svd": audit / svd,
            "ratio_to_forward_of_256": audit / seconds(lambda network=network: network(x)),
            "bound_over_product_of_norms_minus_1": tightlip.lipschitz(network, 2, 2).constant / product - 1,
        }
    results["layers"] = {str(size): one_layer(size) for size in (512, 1024, 2048)}
    row = BenchRow(benchmark="audit-time", config={"widths": WIDTHS, "rounds": 5}, seed=0, results=results, **origin)
    row.write(Path("results/audit-time.json"))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

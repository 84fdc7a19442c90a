"""What a certificate for a machine's arithmetic costs, in certified accuracy and in time, on networks that are there.

    python benchmarks/deployed_arithmetic.py RUN [RUN …]       folders that `tightlip train` has written

Each network is certified on the test part of its run: in exact arithmetic, and for every arithmetic of
`tightlip.linalg.arithmetic`. Prints a table for each and writes results/deployed-arithmetic.json.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import tightlip
from tightlip.linalg.arithmetic import ARITHMETICS
from tightlip.norms import as_norm
from tightlip.provenance import provenance
from tightlip.records import BenchRow, RunRow


def measured(network: nn.Module, x: Tensor, y: Tensor, p: float, eps: float) -> dict[str, dict[str, float]]:
    """Certified accuracy at the headline radius, points lost, and CPU seconds, for each arithmetic."""
    found: dict[str, dict[str, float]] = {}
    for name in ("real", *ARITHMETICS):
        began = time.process_time()
        certificate = tightlip.certify(network, x, y, p, arithmetic=name, progress=False)
        seconds = time.process_time() - began
        certified = 100 * certificate.accuracy(eps)
        real = found.get("real", {"certified": certified})["certified"]
        found[name] = {
            "correct": 100 * certificate.accuracy(0),
            "certified": certified,
            "points_lost": real - certified,
            "largest_radius": float(certificate.radius.max()),
            "cpu_seconds": seconds,
        }
    return found


def main() -> None:
    """Every run that is named."""
    torch.set_num_threads(1)
    began, origin, results = time.perf_counter(), provenance("cpu"), {}
    for folder in map(Path, sys.argv[1:]):
        run = RunRow.read(folder / "metrics.json")
        dataset = tightlip.data.load(run.config["data"], root=os.environ.get("TIGHTLIP_DATA"))
        test = tightlip.data.split(dataset, run.seed).test
        network = tightlip.load(folder / "model.safetensors")
        p, eps = as_norm(run.config["norm"]), float(run.config["eps"])
        results[folder.name] = measured(network, test.images, test.labels, p, eps)
        results[folder.name]["run"] = {key: run.config[key] for key in ("data", "norm", "network", "hidden", "eps")}
        print(folder.name, json.dumps(results[folder.name], indent=1), flush=True)
    row = BenchRow(
        benchmark="deployed-arithmetic",
        config={"runs": list(results)},
        seed=0,
        results=results,
        seconds=time.perf_counter() - began,
        **origin,
    )
    row.write(Path("results/deployed-arithmetic.json"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main()

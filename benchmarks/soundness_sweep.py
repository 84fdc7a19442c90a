"""Are certified radii true, and tight? Every network is attacked inside its radii and just outside, in float64.

    python benchmarks/soundness_sweep.py runs/NAME… [--images 500] [--steps 100] [--restarts 2]

Inside a radius not one prediction may flip, in the box of the pixels or out of it; just outside nearly all must, or the
attack is weak or the radii loose. What the network does in float32 at the very edge, where its own rounding decides,
is counted apart. Writes results/soundness/NAME.json for each, with the provenance of the run that it attacks.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import tightlip
from tightlip.norms import as_norm
from tightlip.provenance import provenance
from tightlip.records import BenchRow, RunRow
from tightlip.training import predict

BOX = (0.0, 1.0)
ATTACKS: dict[str, tuple[torch.dtype, float, tuple[float, float] | None]] = {
    "inside, pixel box": (torch.float64, 0.9999, BOX),
    "inside, any values": (torch.float64, 0.9999, None),
    "outside, any values": (torch.float64, 1.1, None),
    "at the edge, float32": (torch.float32, 1.0, None),
}
"""By name: the precision, the radius in units of what is certified, and the values allowed."""


@dataclass
class Target:
    """A network of a run in one precision, and the inputs that it classifies right, with their certified radii."""

    network: nn.Module
    x: Tensor
    y: Tensor
    radius: Tensor
    p: float


def target(folder: Path, run: RunRow, images: int, dtype: torch.dtype) -> Target:
    """The first ``images`` of the test part."""
    test = tightlip.data.split(tightlip.data.load(run.config["data"]), run.seed).test
    network = tightlip.load(folder / "model.safetensors").to(dtype)
    x, y, p = test.images[:images].to(dtype), test.labels[:images], as_norm(run.config["norm"])
    certificate = tightlip.certify(network, x, y, p)
    right = certificate.correct
    return Target(network, x[right], y[right], certificate.radius[right], p)


def attacked(at: Target, factor: float, box: Any, options: argparse.Namespace, name: str) -> dict[str, int]:
    """How many inputs were attacked at ``factor`` times their radius, from how many points, and how many flipped."""
    flips = 0
    for part in tqdm(torch.arange(len(at.x)).split(250), desc=name):
        eps = (factor * at.radius[part]).to(at.x.dtype)
        found = tightlip.pgd(at.network, at.x[part], at.y[part], eps, at.p, options.steps, options.restarts, box)
        flips += int((predict(at.network, found).argmax(1) != at.y[part]).sum())
    return {"inputs": len(at.x), "attempts": len(at.x) * options.restarts, "flips": flips}


def sweep(folder: Path, run: RunRow, options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """All attacks on the network of a run."""
    targets = {kind: target(folder, run, options.images, kind) for kind in (torch.float64, torch.float32)}
    return {
        name: attacked(targets[kind], factor, box, options, f"{folder.name}: {name}")
        for name, (kind, factor, box) in ATTACKS.items()
    }


def main() -> None:
    """Attack each network and write its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    for name, default in (("images", 500), ("steps", 100), ("restarts", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    origin = provenance("cpu")
    for folder in options.runs:
        run = RunRow.read(folder / "metrics.json")
        found = sweep(folder, run, options)
        row = BenchRow(
            benchmark=f"soundness/{folder.name}",
            config={name: getattr(options, name) for name in ("images", "steps", "restarts")},
            seed=run.seed,
            results={"data": run.data.to_json(), "trained_at": run.commit, "model_sha256": run.model_sha256, **found},
            **origin,
        )
        Path("results", "soundness").mkdir(exist_ok=True)
        row.write(Path("results", f"{row.benchmark}.json"))
        print(folder.name, json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()

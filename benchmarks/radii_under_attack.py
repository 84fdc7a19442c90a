"""Are certified radii true, and tight? Attack at 0.999 of each radius, then at 1.1 of it without the pixel box.

    python benchmarks/radii_under_attack.py runs/NAME [--images 1000] [--steps 200] [--restarts 3]

Inside the radius not one prediction may flip; just outside nearly all must, or the attack is weak or the radii loose.
Writes results/radii-under-attack-DATA.json, with the provenance of the run that it attacks.
"""

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

import tightlip
from tightlip.norms import as_norm
from tightlip.provenance import provenance
from tightlip.records import BenchRow, RunRow
from tightlip.training import predict


def main() -> None:
    """Run both attacks and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    for name, default in (("images", 1000), ("steps", 200), ("restarts", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    origin = provenance("cpu")
    run = RunRow.read(options.run / "metrics.json")
    p = as_norm(run.config["norm"])
    test = tightlip.data.split(tightlip.data.load(run.config["data"]), run.seed).test
    network = tightlip.load(options.run / "model.safetensors")
    x, y = test.images[: options.images], test.labels[: options.images]
    certificate = tightlip.certify(network, x, y, p)
    x, y, radius = x[certificate.correct], y[certificate.correct], certificate.radius[certificate.correct]
    flips = {}
    for factor, clamp in ((0.999, (0.0, 1.0)), (0.999, None), (1.1, None)):
        flipped = 0
        for part in tqdm(torch.arange(len(x)).split(250), desc=f"{factor} × radius, box {clamp}"):
            eps = (factor * radius[part]).to(x.dtype)
            found = tightlip.pgd(network, x[part], y[part], eps, p, options.steps, options.restarts, clamp)
            flipped += int((predict(network, found).argmax(1) != y[part]).sum())
        flips[f"{factor} × radius, {'pixel box' if clamp else 'unclamped'}"] = flipped
    results = {"attacked": len(x), "flips": flips}
    row = BenchRow(
        benchmark=f"radii-under-attack-{run.data.name}",
        config=vars(options) | {"run": options.run.name},
        seed=run.seed,
        results={"data": run.data.to_json(), "trained_at": run.commit, **results},
        **origin,
    )
    row.write(Path("results", f"{row.benchmark}.json"))
    print(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()

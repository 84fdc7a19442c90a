"""What a training step with orthonormal 3×3 kernels costs beside one with plain kernels, and beside peers.

    python benchmarks/convolution_step.py --channels 64 128

Three convolutions of c channels with MaxMin between them, on images of 14×14, under Adam; each scheme takes one step in
each round, and the ratio to the plain step is taken within the round. ``sigma`` are the proven bounds on the largest
singular value of the operator after the last step, and on the smallest where the kernel is orthonormal with circular
padding. A peer's kernel is that which its next forward uses. Writes results/convolution-step.json.
"""

import argparse
import importlib
import itertools
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tightlip
from tightlip.linalg.convolutions import convolution_norm_bounds
from tightlip.linalg.geometry import Geometry
from tightlip.provenance import provenance
from tightlip.records import BenchRow
from tightlip.stopwatch import interleaved

Make = Callable[[int], nn.Module]
"""A convolution from c channels to c."""

SIDE, LAYERS, SLOW = 14, 3, 20.0


def plain(c: int, padding_mode: str = "zeros") -> nn.Conv2d:
    """Torch's own."""
    return nn.Conv2d(c, c, 3, padding=1, padding_mode=padding_mode)  # type: ignore[arg-type]


def ours(c: int, constraint: tightlip.Constraint, padding_mode: str = "zeros") -> nn.Module:
    """The same, held."""
    return tightlip.lifted(plain(c, padding_mode), constraint)


SCHEMES: dict[str, Make] = {
    "plain": plain,
    "plain, circular": partial(plain, padding_mode="circular"),
    "tightlip": lambda c: ours(c, tightlip.Orthonormal()),
    "tightlip, circular": lambda c: ours(c, tightlip.Orthonormal(), "circular"),
    "shift and 1×1": lambda c: nn.Sequential(
        tightlip.Shift(0.5, 2), tightlip.lifted(nn.Conv2d(c, c, 1), tightlip.Orthonormal())
    ),
}


def _aoc(module: Any) -> Make:
    return lambda c: module.AdaptiveOrthoConv2d(c, c, kernel_size=3, padding=1, padding_mode="circular")


def _torchlip(module: Any) -> Make:
    return lambda c: module.SpectralConv2d(c, c, kernel_size=3, padding=1, padding_mode="circular")


PEERS: dict[str, tuple[str, Callable[[Any], Make]]] = {
    "orthogonium AOC": ("orthogonium.layers.conv.AOC", _aoc),
    "deel-torchlip SpectralConv2d": ("deel.torchlip", _torchlip),
}


def peers() -> dict[str, Make]:
    """Those that can be imported."""
    found: dict[str, Make] = {}
    for name, (package, maker) in PEERS.items():
        try:
            found[name] = maker(importlib.import_module(package))
        except Exception as error:  # noqa: BLE001  a peer may fail in any way as it is imported
            print(f"{name} is left out: {type(error).__name__}: {error}")
    return found


class Contender:
    """A network with its optimizer, stepping through the same batches as all others."""

    def __init__(self, make: Make, c: int, batches: list[tuple[torch.Tensor, torch.Tensor]], rate: float) -> None:
        torch.manual_seed(0)
        self.data = itertools.cycle(batches)
        layers = [(make(c), tightlip.MaxMin(dim=1, contiguous=False)) for _ in range(LAYERS)]
        self.network = nn.Sequential(*itertools.chain.from_iterable(layers))
        self.optimizer = torch.optim.Adam([p for p in self.network.parameters() if p.requires_grad], rate, fused=True)
        if tightlip.constraints.is_constrained(self.network):
            tightlip.hold(self.network, self.optimizer)

    def step(self) -> None:
        """One training step, on the next batch."""
        x, y = next(self.data)
        self.optimizer.zero_grad()
        nn.functional.mse_loss(self.network(x), y).backward()
        self.optimizer.step()

    def sigma(self) -> float:
        """A proven bound on the largest singular value of a layer of 3×3 kernels; the largest of all layers."""
        bounds = []
        for layer in self.network.modules():
            weight = getattr(layer, "weight", None)
            if isinstance(layer, nn.Conv2d) and isinstance(weight, torch.Tensor):
                mode = str(layer.padding_mode) if max(layer.kernel_size) > 1 else "zeros"
                side = max(layer.kernel_size) // 2
                geometry = Geometry((1, 1), (1, 1), ((side, side),) * 2, padding_mode=mode)
                bounds.append(float(convolution_norm_bounds(weight.detach(), geometry)[2.0, 2.0]))
        return max(bounds, default=math.nan)


def compare(c: int, batch: int, rounds: int, warm_up: int, rate: float) -> dict[str, Any]:
    """Ratios of every scheme to the plain step, as quartiles over rounds."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, batch, c, SIDE, SIDE, generator=generator)
    batches = [(draw(), draw()) for _ in range(4)]
    contenders = {n: Contender(make, c, batches, rate) for n, make in {**SCHEMES, **peers()}.items()}
    times = list(interleaved({n: each.step for n, each in contenders.items()}, rounds, warm_up, SLOW))
    rows = {}
    for name, contender in contenders.items():
        ratios = [seconds[name] / seconds["plain"] for seconds in times if name in seconds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows[name] = {"ratio": middle, "quartiles": [low, high], "sigma": contender.sigma()}
        print(
            f"c={c:4} batch={batch:4} {name:28} {middle:6.2f}  [{low:.2f}, {high:.2f}]  σ ≤ {rows[name]['sigma']:.7f}"
        )
    rows["plain"]["seconds"] = statistics.median(seconds["plain"] for seconds in times)
    return rows


def main() -> None:
    """All numbers of channels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results/convolution-step.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = {
        f"c={c}": compare(c, options.batch, options.rounds, options.warm_up, options.rate) for c in options.channels
    }
    config = {key: value for key, value in vars(options).items() if key != "output"}
    row = BenchRow(benchmark="convolution-step", config=config, seed=0, results={"rows": rows}, **provenance("cpu"))
    row.write(options.output)


if __name__ == "__main__":
    main()

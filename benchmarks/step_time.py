"""What a training step costs beside an unconstrained one: tightlip, the paper's iterations, torch's own, and peers.

    make bench ARGS="--widths 256 1024 --batches 256"

An MLP 784-n-n-n-10 with MaxMin and Adam, each scheme on the same batches, interleaved round by round; the ratio is
taken within each round, and its quartiles are printed. Schemes that cost more than 40 unconstrained steps run in every
third round. Rows in the L1 ball are another set, whose σ mean nothing. Peers are measured if they can be imported
(`make bench` installs them), and left out visibly if not. ``floor`` is the least number of operations of any exact
dense update, relative to the unconstrained step: 1 + n/(3·batch). Writes results/step-time.json, from which
scripts/step_time_chart.py draws README's chart.
"""

import argparse
import importlib
import itertools
import json
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations

import tightlip
from tightlip.linalg.schedules import bjorck
from tightlip.provenance import provenance
from tightlip.records import BenchRow
from tightlip.stopwatch import interleaved


def plain(n: int, wrap: Callable[[nn.Linear], nn.Module] = lambda layer: layer) -> nn.Sequential:
    """The unconstrained network, each linear layer passed through ``wrap``."""
    widths, layers = [784, n, n, n, 10], []
    for a, b in itertools.pairwise(widths):
        layers += [wrap(nn.Linear(a, b)), tightlip.MaxMin(contiguous=False)]
    return nn.Sequential(*layers[:-1])


def ours(n: int, constraint: tightlip.Constraint, way: str = "step") -> nn.Sequential:
    """Tightlip's network."""
    return tightlip.mlp([784, n, n, n, 10], constraint, hold=way)  # type: ignore[arg-type]


PEERS: dict[str, tuple[str, Callable[[Any], Callable[[int], nn.Module]]]] = {
    "geotorch": ("geotorch", lambda module: lambda n: plain(n, partial(_geotorch, module))),
    "deel-torchlip": ("deel.torchlip", lambda m: lambda n: plain(n, lambda i: m.SpectralLinear(*_sizes(i)))),
    "orthogonium": ("orthogonium.layers", lambda m: lambda n: plain(n, lambda i: m.OrthoLinear(*_sizes(i)))),
}


def peers(only: list[str]) -> dict[str, Callable[[int], nn.Module]]:
    """Those that can be imported, of these if any are named."""
    found: dict[str, Callable[[int], nn.Module]] = {}
    for name, (package, maker) in PEERS.items():
        if only and name not in only:
            continue
        try:
            found[name] = maker(importlib.import_module(package))
        except Exception as error:  # noqa: BLE001  a peer may fail in any way as it is imported
            print(f"{name} is left out: {type(error).__name__}: {error}")
    return found


def _sizes(layer: nn.Linear) -> tuple[int, int]:
    return layer.in_features, layer.out_features


def _geotorch(module: Any, layer: nn.Linear) -> nn.Linear:
    module.orthogonal(layer, "weight")
    return layer


SCHEMES: dict[str, Callable[[int], nn.Module]] = {
    "unconstrained": plain,
    "tightlip": lambda n: ours(n, tightlip.Orthonormal()),
    "tightlip, 16 blocks": lambda n: ours(n, tightlip.Orthonormal(blocks=16)),
    "tightlip, 32 blocks": lambda n: ours(n, tightlip.Orthonormal(blocks=32)),
    "tightlip, turned whole": lambda n: ours(n, tightlip.Orthonormal(blocks=1)),
    "tightlip, weight trained": lambda n: ours(n, tightlip.Orthonormal(blocks=0)),
    "tightlip, rows in the L1 ball": lambda n: ours(n, tightlip.RowL1Ball()),
    "paper, 3 iterations": lambda n: ours(n, tightlip.Orthonormal(bjorck(3)), "forward"),
    "paper, 15 iterations": lambda n: ours(n, tightlip.Orthonormal(bjorck(15)), "forward"),
    "torch spectral_norm": lambda n: plain(n, parametrizations.spectral_norm),
    **{
        f"torch {name}": lambda n, name=name: plain(n, partial(parametrizations.orthogonal, orthogonal_map=name))
        for name in ("cayley", "matrix_exp", "householder")
    },
}


RATES = {"deel-torchlip": 1e-4}
"""Of Adam where 1e-3, the usual rate of all others, ends in NaN."""

SLOW = 40.0
"""How many unconstrained steps a scheme may cost to run in every round."""


class Contender:
    """A network with its optimizer, stepping through the same batches as all others."""

    def __init__(
        self, make: Callable[[int], nn.Module], n: int, rate: float, data: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> None:
        torch.manual_seed(0)
        self.data = iter(data)
        self.network = make(n)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, rate, fused=True)
        if tightlip.constraints.is_constrained(self.network):
            tightlip.hold(self.network, self.optimizer)

    def step(self) -> None:
        """One training step, on the next batch."""
        x, y = next(self.data)
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.network(x), y).backward()
        self.optimizer.step()

    def off(self) -> float:
        """max|σ² − 1| of the weights that the next forward uses."""
        weights = [layer.weight.detach().double() for layer in self.network.modules() if isinstance(layer, nn.Linear)]
        if not all(torch.isfinite(weight).all() for weight in weights):
            return math.inf
        return max(float((torch.linalg.svdvals(weight) ** 2 - 1).abs().max()) for weight in weights)


def compare(n: int, batch: int, rounds: int, warm_up: int, only: list[str], rate: float) -> dict[str, Any]:
    """Ratios of every scheme to the unconstrained step, as quartiles over rounds."""
    generator = torch.Generator().manual_seed(0)
    data = [
        (torch.randn(batch, 784, generator=generator), torch.randint(0, 10, (batch,), generator=generator))
        for _ in range(warm_up + rounds)
    ]
    schemes = {
        name: make for name, make in {**SCHEMES, **peers(only)}.items() if not only or name in ("unconstrained", *only)
    }
    rates = {name: RATES.get(name, rate) for name in schemes}
    contenders = {name: Contender(make, n, rates[name], data) for name, make in schemes.items()}
    steps = {name: contender.step for name, contender in contenders.items()}
    times = list(interleaved(steps, rounds, warm_up, SLOW))
    rows = {"floor": 1 + n / (3 * batch)}
    for name, contender in contenders.items():
        ratios = [round_[name] / round_["unconstrained"] for round_ in times if name in round_]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows[name] = {"ratio": middle, "quartiles": [low, high], "max_off": contender.off()}
        off = f"max|σ² − 1| = {rows[name]['max_off']:.1e}"
        print(f"n={n:5} batch={batch:5} {name:26} {middle:7.2f}  [{low:.2f}, {high:.2f}]  {off}")
        rows[name]["learning_rate"] = rates[name]
    rows["unconstrained_seconds"] = statistics.median(round_["unconstrained"] for round_ in times)
    return rows


def main() -> None:
    """All widths and batches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512, 720, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warm-up", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], metavar="SCHEME", help="these beside the unconstrained step")
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's; long steps cost more (docs/theory/frame.md)")
    parser.add_argument("--output", type=Path, default=Path("results/step-time.json"))
    options = parser.parse_args()
    if unknown := set(options.only) - {*SCHEMES, *PEERS}:
        parser.error(f"no scheme is called {', '.join(unknown)}; there are {', '.join([*SCHEMES, *PEERS])}")
    if options.rounds < 2:
        parser.error("quartiles need --rounds 2 or more")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    rows = {
        f"n={n} batch={batch}": compare(n, batch, options.rounds, options.warm_up, options.only, options.rate)
        for n in options.widths
        for batch in options.batches
    }
    config = {key: value for key, value in vars(options).items() if key != "output"}
    row = BenchRow(benchmark="step-time", config=config, seed=0, results={"rows": rows}, **provenance("cpu"))
    row.write(options.output)
    shown = options.only or ["tightlip"]
    print(json.dumps({key: [row[name]["ratio"] for name in shown if name in row] for key, row in rows.items()}))


if __name__ == "__main__":
    main()

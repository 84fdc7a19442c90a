"""What only a GPU can show, in ten minutes on one card: whether our numbers are right there, and what they cost.

    python benchmarks/gpu.py                        # on cuda
    python benchmarks/gpu.py --device cpu --small   # the same parts in half a minute, to see that each one runs

* rates: products of float32 with all digits, in TF32 and in bfloat16 (TFLOP/s), and memory bandwidth (GB/s).
* sorting: values and gradients of each activation against float64 on the processor, and the share of bandwidth.
* sets: the constant that the audit proves after steps on the device, under each precision of torch's products.
* steps: milliseconds of a training step, plain and held, at each width and batch, in float32 and in bfloat16.
* depth: many layers of one shape, which are folded together, beside plain ones.
* kernels: orthonormal 3×3 convolutions beside plain ones.
* graph: the whole step, fold included, captured as a CUDA graph.
* certificates: seconds to audit a network and certify 10,000 inputs.

Writes results/gpu.json after every part, so that what was measured outlives a lease. A part that fails is named there
with its error, and the others run; parts that begin after --minutes are left out by name.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tightlip
from tightlip.provenance import provenance
from tightlip.records import BenchRow
from tightlip.stopwatch import interleaved, stopwatch

Results = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where everything runs, and in which sizes."""

    device: str
    small: bool
    rounds: int

    def medians(self, ways: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Median seconds of each, interleaved."""
        times = list(interleaved(ways, self.rounds, 3, clock=stopwatch(self.device)))
        return {name: statistics.median(row[name] for row in times) for name in ways}

    def normal(self, *shape: int) -> Tensor:
        """Fixed random numbers there."""
        return torch.randn(*shape, device=self.device, generator=torch.Generator(self.device).manual_seed(0))

    @property
    def bandwidth(self) -> float:
        """Bytes a second that a copy reads and writes."""
        source = self.normal(2**18 if self.small else 2**28)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self.medians({"copy": lambda: target.copy_(source)})["copy"]


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Torch told how to multiply float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def rates(bench: Bench) -> Results:
    """TFLOP/s and GB/s."""
    n = 256 if bench.small else 8192
    a = bench.normal(n, n)
    half, found = a.bfloat16(), {}
    for name, matrix, precision in (("float32", a, "highest"), ("tf32", a, "high"), ("bfloat16", half, "highest")):
        with products(precision):
            found[f"{name}_tflops"] = 2e-12 * n**3 / bench.medians({name: lambda m=matrix: m @ m})[name]
    return {**found, "bandwidth_gb": bench.bandwidth * 1e-9, "n": n}


ACTIVATIONS = {
    "maxmin": lambda: tightlip.MaxMin(contiguous=False),
    "groupsort4": lambda: tightlip.GroupSort(4),
    "groupsort16": lambda: tightlip.GroupSort(16),
    "fullsort": tightlip.FullSort,
}


def sorting(bench: Bench) -> Results:
    """Entries of values and gradients that are wrong, and how near forward and back come to five copies."""
    batch, width = (32, 64) if bench.small else (1024, 4096)
    x, upstream, bandwidth = bench.normal(batch, width), bench.normal(width, batch).mT.contiguous(), bench.bandwidth
    found: Results = {}
    for name, make in ACTIVATIONS.items():
        (value, gradient), truth = _derived(make(), x, upstream), _derived(make(), x.cpu().double(), upstream.cpu())
        wrong = sum(int((a.cpu() != b.float()).sum()) for a, b in zip((value, gradient), truth, strict=True))
        seconds = bench.medians({name: lambda make=make: _derived(make(), x, upstream)})[name]
        found[name] = {"wrong": wrong, "ms": 1e3 * seconds, "of_bandwidth": 5 * x.nbytes / bandwidth / seconds}
    return found


def _derived(activation: nn.Module, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    value = activation(x)
    (gradient,) = torch.autograd.grad(value, x, upstream.to(value.dtype))
    return value.detach(), gradient


SETS: dict[str, Callable[[], tightlip.Constraint]] = {
    "orthonormal": tightlip.Orthonormal,
    "orthonormal, weight trained": lambda: tightlip.Orthonormal(blocks=0),
    "spectral ball": tightlip.SpectralBall,
    "rows in the L1 ball": tightlip.RowL1Ball,
    "columns in the L1 ball": tightlip.ColumnL1Ball,
}


def sets(bench: Bench) -> Results:
    """Proven constants of a wide, a square and a tall weight and of a kernel, after steps under each precision."""
    n = 32 if bench.small else 1024
    found: Results = {}
    for (name, make), precision in itertools.product(SETS.items(), ("highest", "high", "medium")):
        layers: list[nn.Module] = [nn.Linear(2 * n, n), nn.Linear(n, n), nn.Linear(n, 2 * n)]
        if name == "orthonormal":
            layers.append(nn.Conv2d(n // 8, n // 8, 3, padding=1))
        with products(precision):
            found[f"{name}, {precision}"] = max(_trained(bench, layer, make()) for layer in layers)
    return found


def _trained(bench: Bench, layer: nn.Module, constraint: tightlip.Constraint) -> float:
    torch.manual_seed(0)
    held = tightlip.constrain(layer.to(bench.device), constraint)  # type: ignore[type-var]
    shape = (64, held.weight.shape[1], *((8, 8) if held.weight.dim() == 4 else ()))
    step = stepper(held, bench.normal(*shape), rate=1e-2)
    for _ in range(5 if bench.small else 20):
        step()
    return tightlip.lipschitz(held, *constraint.norms).constant


def stepper(network: nn.Module, x: Tensor, rate: float = 1e-4, autocast: bool = False) -> Callable[[], object]:
    """A training step on fixed inputs."""
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer: Any = torch.optim.Adam(trained, rate, fused=True)
    if tightlip.constraints.is_constrained(network):
        optimizer = tightlip.hold(network, optimizer)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            value = network(x)
        value.float().square().mean().backward()
        optimizer.step()

    return step


def dense(bench: Bench, widths: list[int], constraint: tightlip.Constraint | None) -> nn.Sequential:
    """A network with MaxMin, begun on the device from orthogonal weights."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        linear = nn.Linear(a, b, device=bench.device)
        nn.init.orthogonal_(linear.weight)
        layers += [tightlip.constrain(linear, constraint) if constraint else linear, tightlip.MaxMin(contiguous=False)]
    return nn.Sequential(*layers[:-1])


def compared(bench: Bench, x: Tensor, make: Callable[[tightlip.Constraint | None], nn.Module]) -> Results:
    """Milliseconds of a step, plain and held, with products of float32 and of bfloat16."""
    makers = {"plain": lambda: make(None), "held": lambda: make(tightlip.Orthonormal())}
    ways = {
        name + suffix: stepper(maker(), x, autocast=bool(suffix))
        for suffix in ("", ", bfloat16")
        for name, maker in makers.items()
    }
    seconds = bench.medians(ways)
    ratios = {f"ratio{suffix}": seconds[f"held{suffix}"] / seconds[f"plain{suffix}"] for suffix in ("", ", bfloat16")}
    return {**{f"{name}, ms": 1e3 * value for name, value in seconds.items()}, **ratios}


def steps(bench: Bench) -> Results:
    """784-n-n-n-10 at every width and batch."""
    widths, batches = ((64,), (32,)) if bench.small else ((1024, 2048, 4096, 8192), (256, 1024))
    return {
        f"n={n} batch={batch}": compared(
            bench, bench.normal(batch, 784), lambda c, n=n: dense(bench, [784, n, n, n, 10], c)
        )
        for n, batch in itertools.product(widths, batches)
    }


def depth(bench: Bench) -> Results:
    """Layers of one shape, which are folded in batches."""
    n, depths = (32, (4,)) if bench.small else (512, (4, 16, 64))
    x = bench.normal(256, n)
    return {f"n={n} depth={d}": compared(bench, x, lambda c, d=d: dense(bench, [n] * (d + 1), c)) for d in depths}


def kernels(bench: Bench) -> Results:
    """Six 3×3 convolutions."""
    found: Results = {}
    for c in (8,) if bench.small else (64, 128, 256):
        x = bench.normal(128 if c > 8 else 4, c, 14, 14)

        def make(constraint: tightlip.Constraint | None, c: int = c) -> nn.Module:
            layers: list[nn.Module] = []
            for _ in range(6):
                layer = nn.Conv2d(c, c, 3, padding=1, device=bench.device)
                layers += [tightlip.constrain(layer, constraint) if constraint else layer, tightlip.MaxMin(dim=1)]
            return nn.Sequential(*layers)

        found[f"c={c}"] = compared(bench, x, make)
    return found


def graph(bench: Bench) -> Results:
    """Milliseconds of a step as a CUDA graph, fold included."""
    if not bench.device.startswith("cuda"):
        return {"left out": "a processor has no CUDA graphs"}
    step = stepper(dense(bench, [784, 1024, 1024, 1024, 10], tightlip.Orthonormal()), bench.normal(256, 784))
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(8):
            step()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        step()
    return {f"{name}_ms": 1e3 * t for name, t in bench.medians({"eager": step, "graph": captured.replay}).items()}


def certificates(bench: Bench) -> Results:
    """Seconds of an audit and of 10,000 radii; and how far the device's constant is from the processor's."""
    n, count = (64, 100) if bench.small else (1024, 10_000)
    network = dense(bench, [784, n, n, n, 10], tightlip.Orthonormal())
    inputs, labels = bench.normal(count, 784), torch.zeros(count, dtype=torch.long)
    began = time.perf_counter()
    there = tightlip.lipschitz(network, 2).constant
    audited = time.perf_counter()
    tightlip.certify(tightlip.freeze(network), inputs, labels.to(bench.device), 2)
    done = time.perf_counter()
    here = tightlip.lipschitz(network.cpu(), 2).constant
    return {"audit_seconds": audited - began, "certify_seconds": done - audited, "constants_differ": abs(there - here)}


PARTS = {part.__name__: part for part in (rates, sets, sorting, steps, kernels, depth, certificates, graph)}


def measured(part: Callable[[Bench], Results], bench: Bench) -> Results:
    """What a part found and took, or the error that ended it."""
    torch.manual_seed(0)
    began = time.perf_counter()
    try:
        found = part(bench)
    except Exception as error:  # noqa: BLE001  a lease is too short to lose the other parts
        found = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
    return {**found, "seconds": time.perf_counter() - began}


def main() -> None:
    """Part after part, the row written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes that a processor computes in seconds")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=9.0, help="no part begins later")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--output", type=Path, default=Path("results/gpu.json"))
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --small shows that every part runs")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    bench, began = Bench(options.device, options.small, options.rounds), time.perf_counter()
    config = {key: value for key, value in vars(options).items() if key != "output"}
    origin, results = provenance(options.device), {}
    for name in options.only:
        late = time.perf_counter() - began > 60 * options.minutes
        results[name] = {"left out": "there was no time"} if late else measured(PARTS[name], bench)
        print(f"{name}: {results[name]}", flush=True)
        BenchRow(benchmark="gpu", config=config, seed=0, results=results, **origin).write(options.output)


if __name__ == "__main__":
    main()

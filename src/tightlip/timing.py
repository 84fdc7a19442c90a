"""What a training step costs on this machine, and in how many blocks orthonormal weights are turned fastest here.

Every way to train the same layers (`Orthonormal.blocks`) takes one step in each round, beside an unconstrained network
of the same widths, and the ratio is taken within the round: another load on the machine then slows down both.

    ratio of a way = median over rounds of  seconds(way) / seconds(unconstrained)
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .activations import MaxMin
from .constraints import Orthonormal, constrain, hold, is_constrained
from .constraints.frame import block_count
from .errors import TightlipError
from .linalg.polar import residual
from .networks import mlp

BLOCKS = (None, 0, 1, 4, 8, 16, 32)
"""The values of `Orthonormal.blocks` that are tried; 2 turns the whole as 1 does, in two halves that always meet."""

UNCONSTRAINED = "unconstrained"
EACH = "each layer's fastest"

SLOW = 4.0
"""How many unconstrained steps a way may cost to run in every round."""

WARM_UP = 3
"""Rounds before those that count; a way in q blocks has turned all its pairs once before."""


@dataclass(frozen=True)
class Way:
    """One way to train the layers, and what a step of it costs.

    ``blocks`` has a number for each layer, 0 where the weight itself is trained; ``ratio`` and ``quartiles`` compare
    with the unconstrained step; ``rounds`` is how often it was timed; ``off`` is max|σ² − 1| after the last step.
    """

    constraints: tuple[Orthonormal, ...]
    blocks: tuple[int, ...]
    seconds: float = math.nan
    ratio: float = math.nan
    quartiles: tuple[float, float] = (math.nan, math.nan)
    rounds: int = 0
    off: float = math.nan


@dataclass(frozen=True)
class Contest:
    """The ways by name, with the unconstrained step among them."""

    ways: dict[str, Way]

    @property
    def fastest(self) -> str:
        """The constrained way with the least ratio."""
        return min(self._held(), key=lambda name: self.ways[name].ratio)

    @property
    def level(self) -> list[str]:
        """The other ways whose quartiles overlap the fastest's: these rounds do not tell them apart."""
        best = self.fastest
        return [n for n in self._held() if n != best and self.ways[n].quartiles[0] <= self.ways[best].quartiles[1]]

    def _held(self) -> list[str]:
        return [name for name in self.ways if name != UNCONSTRAINED]


@dataclass(frozen=True)
class Benchmark:
    """The contest of the whole network, and that of each shape (out, in) among its layers alone."""

    network: Contest
    layers: dict[tuple[int, int], Contest]


def benchmark(
    widths: Sequence[int],
    batch_size: int = 256,
    rounds: int = 9,
    device: str = "cpu",
    progress: bool = True,
    clock: Callable[[], float] | None = None,
) -> Benchmark:
    """Time the ways to train ``mlp(widths)``, and each of its layer shapes alone.

    Args:
        widths: Input size, hidden widths, output size.
        batch_size: Inputs in a step.
        rounds: How often each way is timed; those beyond `SLOW` unconstrained steps in every third round only.
        device: Where to compute.
        progress: Whether a terminal shows a bar.
        clock: Reads seconds; None is the machine's own, which waits for the device.

    Raises:
        TightlipError: for widths that make no network, no rounds, no inputs, or more of them than memory holds.
    """
    widths = list(widths)
    _check(widths, batch_size, rounds)
    shapes = [(out, features) for features, out in itertools.pairwise(widths)]
    alone, together = {shape: ways([shape]) for shape in shapes}, ways(shapes)
    total = sum(len(found) + 1 + rounds for found in (*alone.values(), together))
    with (
        _enough_memory(widths, batch_size),
        torch.random.fork_rng(),
        tqdm(total=total, desc="bench", unit="round", disable=None if progress else True) as bar,
    ):
        torch.manual_seed(0)
        rate = min(1e-3, 1 / max(widths))  # rates fall with the width
        bench = _Bench(batch_size, rounds, rate, torch.device(device), clock or stopwatch(device), bar)
        layers = {shape: bench.layer(found, shape, shape in shapes[1:]) for shape, found in alone.items()}
        chosen = [layers[shape].ways[layers[shape].fastest].constraints[0] for shape in shapes]
        together = _distinct({**together, EACH: _way(shapes, chosen)})
        bar.total = total + (EACH in together)
        return Benchmark(bench.network(together, widths), layers)


def ways(shapes: Sequence[tuple[int, int]]) -> dict[str, Way]:
    """The values of `BLOCKS` that train layers of these shapes differently, the first of those that do not."""
    return _distinct(
        {repr(c): _way(shapes, [c] * len(shapes)) for c in (Orthonormal(blocks=blocks) for blocks in BLOCKS)}
    )


def _distinct(found: dict[str, Way]) -> dict[str, Way]:
    """The first way of each arrangement of blocks."""
    first: dict[tuple[int, ...], str] = {}
    for name, way in found.items():
        first.setdefault(way.blocks, name)
    return {name: found[name] for name in first.values()}


def _way(shapes: Sequence[tuple[int, int]], constraints: Sequence[Orthonormal]) -> Way:
    blocks = (block_count(c, shape) or 0 for c, shape in zip(constraints, shapes, strict=True))
    return Way(tuple(constraints), tuple(blocks))


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 0,
    slow: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[dict[str, float]]:
    """Seconds of every step, round by round, after ``warm_up`` rounds that are not told.

    A step that took longer than ``slow`` times the first of ``steps``, in the second round and in the third, runs in
    every third round from there on.
    """
    rare = set(steps)
    for number in range(warm_up + rounds):
        runs = [name for name in steps if number < 3 or name not in rare or (number - warm_up) % 3 == 0]
        times = {name: _seconds(steps[name], clock) for name in runs}
        if number in (1, 2):
            rare &= {name for name in steps if times[name] > slow * times[next(iter(steps))]}
        if number >= warm_up:
            yield times


def _seconds(step: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    step()
    return clock() - began


def costed(way: Way, name: str, times: Sequence[Mapping[str, float]]) -> Way:
    """``way`` with what its steps cost in these rounds; quartiles are interpolated between rounds."""
    present = [(row[name], row[name] / row[UNCONSTRAINED]) for row in times if name in row]
    seconds, ratios = zip(*present, strict=True)
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return replace(way, seconds=statistics.median(seconds), ratio=middle, quartiles=(low, high), rounds=len(present))


def stopwatch(device: str) -> Callable[[], float]:
    """A clock that is read when ``device`` has done what it was given."""
    if torch.device(device).type == "cpu":
        return time.perf_counter

    def read() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return read


class _Contender:
    """A network with its optimizer, stepping through the same few batches as all others."""

    def __init__(self, network: nn.Module, batches: list[tuple[Tensor, Tensor]], rate: float) -> None:
        self.network = network.to(batches[0][0].device)
        trained = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, rate, fused=True)
        if is_constrained(network):
            hold(network, self.optimizer)
        self.batches = itertools.cycle(batches)

    def __call__(self) -> None:
        """One training step."""
        x, y = next(self.batches)
        self.optimizer.zero_grad()
        nn.functional.mse_loss(self.network(x), y).backward()
        self.optimizer.step()

    def off(self) -> float:
        """max|σ² − 1| of the weights that the next forward pass uses."""
        weights = [layer.weight.detach() for layer in self.network.modules() if isinstance(layer, nn.Linear)]
        return max(float(torch.linalg.eigvalsh(residual(w.cpu().double())).abs().max()) for w in weights)


@dataclass(frozen=True)
class _Bench:
    """Where contests are held, and how long."""

    batch_size: int
    rounds: int
    rate: float
    device: torch.device
    clock: Callable[[], float]
    bar: "tqdm[Any]"

    def network(self, found: dict[str, Way], widths: list[int]) -> Contest:
        """Of whole networks."""

        def make(way: Way) -> nn.Module:
            return mlp(widths, way.constraints) if way.constraints else _unconstrained(widths)

        return self._contest(found, make, (widths[-1], widths[0]), inner=False)

    def layer(self, found: dict[str, Way], shape: tuple[int, int], inner: bool) -> Contest:
        """Of one layer; an ``inner`` one hands a gradient on to its input."""

        def make(way: Way) -> nn.Module:
            linear = _unconstrained([shape[1], shape[0]])[0]
            return constrain(linear, way.constraints[0]) if way.constraints else linear  # type: ignore[arg-type]

        return self._contest(found, make, shape, inner)

    def _contest(
        self, found: dict[str, Way], make: Callable[[Way], nn.Module], shape: tuple[int, int], inner: bool
    ) -> Contest:
        found, batches = {UNCONSTRAINED: Way((), ()), **found}, self._batches(shape, inner)
        contenders = {name: self._warm(way, _Contender(make(way), batches, self.rate)) for name, way in found.items()}
        times = []
        for row in interleaved(contenders, self.rounds, WARM_UP, SLOW, self.clock):
            times.append(row)
            self.bar.update()
        off = {name: contenders[name].off() if way.blocks else math.nan for name, way in found.items()}
        return Contest({name: replace(costed(way, name, times), off=off[name]) for name, way in found.items()})

    def _warm(self, way: Way, contender: _Contender) -> _Contender:
        """After a whole tournament, by which every moment of the optimizer has its memory."""
        for _ in range(max(way.blocks, default=0) - 1):
            contender()
        self.bar.update()
        return contender

    def _batches(self, shape: tuple[int, int], inner: bool) -> list[tuple[Tensor, Tensor]]:
        """Eight, of random inputs and targets."""
        sizes = [(self.batch_size, shape[1]), (self.batch_size, shape[0])]
        pairs = [[torch.randn(size).to(self.device) for size in sizes] for _ in range(8)]
        return [(x.requires_grad_(inner), y) for x, y in pairs]


def _unconstrained(widths: list[int]) -> nn.Sequential:
    """The network of `mlp`, with nothing held."""
    layers: list[nn.Module] = []
    for features, out in itertools.pairwise(widths):
        layers += [nn.Linear(features, out), MaxMin(contiguous=False)]
        nn.init.orthogonal_(layers[-2].weight)  # type: ignore[arg-type]
    return nn.Sequential(*layers[:-1])


def _check(widths: list[int], batch_size: int, rounds: int) -> None:
    """Refuse what cannot be timed before any time is spent."""
    if len(widths) < 2 or any(width < 1 for width in widths):
        raise TightlipError(f"widths {widths} make no network: give at least two integers ≥ 1")
    if any(width % 2 for width in widths[1:-1]):
        raise TightlipError(f"widths {widths} have an odd hidden one, which MaxMin cannot pair: make it even")
    if batch_size < 1:
        raise TightlipError(f"a step on {batch_size} inputs takes no time: give a batch size ≥ 1")
    if rounds < 1:
        raise TightlipError(f"{rounds} rounds time nothing: give a number ≥ 1, such as 9")


@contextmanager
def _enough_memory(widths: list[int], batch_size: int) -> Iterator[None]:
    """Turns torch's complaint about memory into a sentence."""
    try:
        yield
    except (RuntimeError, TypeError) as error:  # a TypeError where a number is beyond 64 bits
        if not any(word in str(error).lower() for word in ("memory", "overflow")):
            raise
        raise TightlipError(
            f"widths {widths} at batch size {batch_size} need more memory than there is, since all ways are timed "
            "side by side: give smaller ones"
        ) from error

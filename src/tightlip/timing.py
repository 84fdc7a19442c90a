"""What a training step costs on this machine, and in how many blocks orthonormal weights are turned fastest here.

Every scheme that trains the same layers (`Orthonormal.blocks`) takes one step in each round, beside an unconstrained
network of the same widths, and the ratio is taken within the round: another load on the machine then slows down both.

    ratio of a scheme = median over rounds of  seconds(scheme) / seconds(unconstrained)
"""

import itertools
import logging
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .activations import MaxMin
from .arguments import integer
from .constraints import Orthonormal, constrain, hold, is_constrained
from .constraints.frame import block_count
from .errors import TightlipError
from .linalg.polar import residual
from .networks import checked_widths, mlp
from .stopwatch import interleaved, stopwatch

logger = logging.getLogger(__name__)

BLOCKS = (None, 0, 1, 4, 8, 16, 32)
"""The values of `Orthonormal.blocks` that are tried; not 2, since two blocks make one pair, which is the whole."""

UNCONSTRAINED = "unconstrained"
EACH = "each layer's fastest"

SLOW = 4.0
"""How many unconstrained steps a scheme may cost to run in every round."""

WARM_UP = 3
"""Rounds that are run and not counted."""


@dataclass(frozen=True)
class Scheme:
    """How the layers are trained, and what a step of it costs.

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
class Comparison:
    """The schemes by name, with the unconstrained step among them."""

    schemes: dict[str, Scheme]

    @property
    def fastest(self) -> str:
        """The constrained scheme with the least ratio."""
        return min(self._held(), key=lambda name: self.schemes[name].ratio)

    @property
    def level(self) -> list[str]:
        """The other schemes whose quartiles overlap the fastest's: these rounds do not tell them apart."""
        most = self.schemes[self.fastest].quartiles[1]
        return [name for name in self.others if self.schemes[name].quartiles[0] <= most]

    @property
    def others(self) -> list[str]:
        """The constrained schemes but the fastest."""
        return [name for name in self._held() if name != self.fastest]

    def _held(self) -> list[str]:
        return [name for name in self.schemes if name != UNCONSTRAINED]


@dataclass(frozen=True)
class Benchmark:
    """The comparison for the whole network, and one for each shape (out, in) among its layers alone."""

    network: Comparison
    layers: dict[tuple[int, int], Comparison]


def benchmark(
    widths: Sequence[int],
    batch_size: int = 256,
    rounds: int = 9,
    device: str = "cpu",
    progress: bool = True,
    clock: Callable[[], float] | None = None,
) -> Benchmark:
    """Time the schemes that train ``mlp(widths)``, and each of its layer shapes alone.

    Args:
        widths: Input size, hidden widths, output size.
        batch_size: Inputs in a step.
        rounds: How often each scheme is timed; those beyond `SLOW` unconstrained steps in every third round only.
        device: Where to compute.
        progress: Whether a terminal shows a bar.
        clock: Reads seconds; None is the machine's own, which waits for the device.

    Raises:
        TightlipError: for widths that make no network, no rounds, no inputs, or more of them than memory holds.
    """
    widths = checked_widths(widths)
    _check(widths, batch_size, rounds, device)
    shapes = [(out, features) for features, out in itertools.pairwise(widths)]
    alone, together = {shape: schemes([shape]) for shape in shapes}, schemes(shapes)
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
        chosen = [layers[shape].schemes[layers[shape].fastest].constraints[0] for shape in shapes]
        together = _distinct({**together, EACH: _scheme(shapes, chosen)})
        bar.total = total + (EACH in together)
        return Benchmark(bench.network(together, widths), layers)


def schemes(shapes: Sequence[tuple[int, int]]) -> dict[str, Scheme]:
    """The values of `BLOCKS` that train layers of these shapes differently, the first of those that do not."""
    return _distinct(
        {repr(c): _scheme(shapes, [c] * len(shapes)) for c in (Orthonormal(blocks=blocks) for blocks in BLOCKS)}
    )


def _distinct(found: dict[str, Scheme]) -> dict[str, Scheme]:
    """The first scheme of each arrangement of blocks."""
    first: dict[tuple[int, ...], str] = {}
    for name, scheme in found.items():
        first.setdefault(scheme.blocks, name)
    return {name: found[name] for name in first.values()}


def _scheme(shapes: Sequence[tuple[int, int]], constraints: Sequence[Orthonormal]) -> Scheme:
    blocks = (block_count(c, shape) or 0 for c, shape in zip(constraints, shapes, strict=True))
    return Scheme(tuple(constraints), tuple(blocks))


def costed(scheme: Scheme, name: str, times: Sequence[Mapping[str, float]]) -> Scheme:
    """``scheme`` with what its steps cost in these rounds; quartiles are interpolated between rounds."""
    present = [(row[name], row[name] / row[UNCONSTRAINED]) for row in times if name in row]
    seconds, ratios = zip(*present, strict=True)
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return replace(scheme, seconds=statistics.median(seconds), ratio=middle, quartiles=(low, high), rounds=len(present))


class _Candidate:
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
    """Where and how long schemes are compared."""

    batch_size: int
    rounds: int
    rate: float
    device: torch.device
    clock: Callable[[], float]
    bar: "tqdm[Any]"

    def network(self, found: dict[str, Scheme], widths: list[int]) -> Comparison:
        """Of whole networks."""

        def make(scheme: Scheme) -> nn.Module:
            return mlp(widths, scheme.constraints) if scheme.constraints else _unconstrained(widths)

        return self._compare(found, make, (widths[-1], widths[0]), inner=False)

    def layer(self, found: dict[str, Scheme], shape: tuple[int, int], inner: bool) -> Comparison:
        """Of one layer; an ``inner`` one hands a gradient on to its input."""

        def make(scheme: Scheme) -> nn.Module:
            linear = _unconstrained([shape[1], shape[0]])[0]
            return constrain(linear, scheme.constraints[0]) if scheme.constraints else linear  # type: ignore[type-var]

        return self._compare(found, make, shape, inner)

    def _compare(
        self, found: dict[str, Scheme], make: Callable[[Scheme], nn.Module], shape: tuple[int, int], inner: bool
    ) -> Comparison:
        found, batches = {UNCONSTRAINED: Scheme((), ()), **found}, self._batches(shape, inner)
        candidates = {
            name: self._warm(scheme, _Candidate(make(scheme), batches, self.rate)) for name, scheme in found.items()
        }
        logger.debug("timing %d schemes for %d → %d, batch size %d", len(found), shape[1], shape[0], self.batch_size)
        times = []
        for row in interleaved(candidates, self.rounds, WARM_UP, SLOW, self.clock):
            times.append(row)
            self.bar.update()
        off = {name: candidates[name].off() if scheme.blocks else math.nan for name, scheme in found.items()}
        return Comparison({name: replace(costed(scheme, name, times), off=off[name]) for name, scheme in found.items()})

    def _warm(self, scheme: Scheme, candidate: _Candidate) -> _Candidate:
        """After one step for each block, by which all of the optimizer's state is allocated."""
        for _ in range(max(scheme.blocks, default=0) - 1):
            candidate()
        self.bar.update()
        return candidate

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


def _check(widths: list[int], batch_size: int, rounds: int, device: str) -> None:
    """Refuse what cannot be timed before any time is spent."""
    if any(width % 2 for width in widths[1:-1]):
        raise TightlipError(f"hidden widths must be even, since MaxMin sorts pairs, got {widths}")
    integer("batch_size", batch_size)
    integer("rounds", rounds)
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise TightlipError(f"device must be one that torch knows, such as cpu or cuda, got {device!r}") from error


@contextmanager
def _enough_memory(widths: list[int], batch_size: int) -> Iterator[None]:
    """Turns torch's complaint about memory into a sentence."""
    try:
        yield
    except (RuntimeError, TypeError) as error:  # a TypeError where a number is beyond 64 bits
        if not any(word in str(error).lower() for word in ("memory", "overflow")):
            raise
        raise TightlipError(
            f"widths {widths} at batch size {batch_size} need more memory than there is, since all schemes are timed "
            "side by side: give smaller ones"
        ) from error

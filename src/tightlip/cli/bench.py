"""`tightlip bench`: the fastest scheme to train orthonormal layers of these sizes on this machine."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from ..constraints import Orthonormal
from ..decimals import round_up
from ..provenance import provenance
from ..records import BenchRow
from ..timing import UNCONSTRAINED, Benchmark, Comparison, Scheme, benchmark
from .options import Machine, replaceable

_DEFAULT = repr(Orthonormal())

_FEWEST = 4
"""Rounds that an advice takes: quartiles of fewer are hardly more than the rounds themselves."""


@dataclass(frozen=True)
class Bench:
    """Time a training step with orthonormal layers of your sizes, under every scheme, on this machine."""

    widths: tuple[int, ...] = (784, 1024, 1024, 1024, 10)
    """Input size, hidden widths, output size."""
    batch_size: int = 256
    """Inputs in a step."""
    rounds: int = 9
    """How often each scheme is timed (slow ones a third as often)."""
    output: Path | None = None
    """Also write all numbers to this JSON file."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)

    def __call__(self) -> str:
        """Run; the tables and the advice to print."""
        device = self.machine.prepare()
        if self.output is not None:
            replaceable(self.output)
        began = time.perf_counter()
        result = benchmark(self.widths, self.batch_size, self.rounds, device)
        if self.output is not None:
            self._row(result, device, time.perf_counter() - began).write(self.output)
        place = f"{torch.get_num_threads()} CPU thread(s)" if device == "cpu" else device
        title = f"a training step of {'-'.join(map(str, self.widths))}, batch size {self.batch_size}, {place}"
        return "\n\n".join([title, _network_table(result.network), _layer_table(result.layers), advice(result)])

    def _row(self, result: Benchmark, device: str, seconds: float) -> BenchRow:
        config = {"widths": self.widths, "batch_size": self.batch_size, "rounds": self.rounds}
        results = {
            "fastest": written(result.network.schemes[result.network.fastest].constraints),
            "within_noise": [written(result.network.schemes[name].constraints) for name in result.network.level],
            "network": _fields(result.network),
            "layers": {
                f"{out}x{features}": _fields(comparison) for (out, features), comparison in result.layers.items()
            },
        }
        return BenchRow(
            benchmark="bench", config=config, seed=0, results=results, seconds=seconds, **provenance(device)
        )


def written(constraints: Sequence[Orthonormal]) -> str:
    """What to write for these constraints: one, or a list with one for each layer."""
    runs = [(name, len(list(same))) for name, same in itertools.groupby(map(repr, constraints))]
    if len(runs) == 1:
        return runs[0][0]
    return f"[{', '.join(name if count == 1 else f'*[{name}] * {count}' for name, count in runs)}]"


def advice(result: Benchmark) -> str:
    """What to write, or that the rounds do not tell, and what speed does not say."""
    return "\n".join(
        [
            _choice(result.network),
            "Blocks are of each layer, first to last: 0 trains the weight itself, 1 turns it whole.",
            "Speed is not accuracy: in square layers more blocks were no worse, in a first layer that is not square "
            f"they were, and {_DEFAULT} chooses with both in mind (docs/theory/frame.md).",
        ]
    )


def _choice(network: Comparison) -> str:
    """The scheme to write, if there is a choice and the rounds tell."""
    best, rounds = written(network.schemes[network.fastest].constraints), network.schemes[network.fastest].rounds
    if not network.others:
        return f"Write {best}, for these sizes there is no other scheme."
    if rounds < _FEWEST:
        are = "rounds are" if rounds > 1 else "round is"
        return f"No advice: {rounds} {are} too few for it, give --rounds {_FEWEST} or more."
    even = [written(network.schemes[name].constraints) for name in network.level]
    return _undecided(best, even, rounds) if even else f"Write {best}, the fastest here."


def _undecided(best: str, even: list[str], rounds: int) -> str:
    """No advice: what is not told apart, how the default compares, and what could tell."""
    others = f"{', '.join([best, *even[:-1]])} and {even[-1]}"
    default = "is among them" if _DEFAULT in (best, *even) else f"is slower than {best}"
    return (
        f"No advice: the difference between {others} is within the noise of {rounds} rounds, and more --rounds may "
        f"tell them apart. {_DEFAULT}, the default, {default}."
    )


def _network_table(comparison: Comparison) -> str:
    head = ["scheme", "blocks", "ms", "ratio", "quartiles", "max|σ² − 1|", ""]
    return _aligned([head, *(_network_cells(name, comparison) for name in comparison.schemes)], left=(0, 1, 6))


def _network_cells(name: str, comparison: Comparison) -> list[str]:
    scheme = comparison.schemes[name]
    if name == UNCONSTRAINED:
        return [name, "", _milliseconds(scheme), "1", "", "", ""]
    even = comparison.level
    mark = ("← within the noise" if even else "← fastest") if name in (comparison.fastest, *even) else ""
    return [
        name,
        _blocks(scheme),
        _milliseconds(scheme),
        f"{scheme.ratio:.2f}",
        _quartiles(scheme),
        round_up(scheme.off, 2),
        mark,
    ]


def _layer_table(layers: dict[tuple[int, int], Comparison]) -> str:
    head = ["one layer alone", "fastest", "ms", "ratio", "quartiles", f"ratio of {_DEFAULT}"]
    return _aligned([head, *(_layer_cells(shape, comparison) for shape, comparison in layers.items())], left=(0, 1))


def _layer_cells(shape: tuple[int, int], comparison: Comparison) -> list[str]:
    best = comparison.schemes[comparison.fastest]
    name = f"{shape[1]} → {shape[0]}"
    default = f"{comparison.schemes[_DEFAULT].ratio:.2f}"
    fastest = f"{comparison.fastest}, within the noise" if comparison.level else comparison.fastest
    return [name, fastest, _milliseconds(best), f"{best.ratio:.2f}", _quartiles(best), default]


def _aligned(rows: list[list[str]], left: tuple[int, ...]) -> str:
    """Rows of cells as a table: columns ``left`` begin together, the others end together."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def padded(place: int, cell: str) -> str:
        return cell.ljust(sizes[place]) if place in left else cell.rjust(sizes[place])

    return "\n".join("  ".join(itertools.starmap(padded, enumerate(row))).rstrip() for row in rows)


def _blocks(scheme: Scheme) -> str:
    runs = [(blocks, len(list(same))) for blocks, same in itertools.groupby(scheme.blocks)]
    return " ".join(f"{blocks}" if count == 1 else f"{blocks}×{count}" for blocks, count in runs)


def _milliseconds(scheme: Scheme) -> str:
    value = 1000 * scheme.seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _quartiles(scheme: Scheme) -> str:
    return f"{scheme.quartiles[0]:.2f}–{scheme.quartiles[1]:.2f}"


def _fields(comparison: Comparison) -> dict[str, Any]:
    """The schemes of a comparison for JSON; the unconstrained step has no σ to tell."""
    return {
        name: {
            "constraint": written(scheme.constraints) if scheme.constraints else None,
            "blocks": scheme.blocks,
            "seconds": scheme.seconds,
            "ratio": scheme.ratio,
            "quartiles": scheme.quartiles,
            "rounds": scheme.rounds,
            "max_off": scheme.off,
        }
        for name, scheme in comparison.schemes.items()
    }

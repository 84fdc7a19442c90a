"""`tightlip bench`: which way to train orthonormal layers of these sizes is the fastest on this machine."""

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
from ..provenance import certificate_of_birth, write_json
from ..timing import UNCONSTRAINED, Benchmark, Contest, Way, benchmark
from .options import Machine, replaceable

_DEFAULT = repr(Orthonormal())


@dataclass(frozen=True)
class Bench:
    """Time a training step with orthonormal layers of your sizes, in every way to train them, on this machine."""

    widths: tuple[int, ...] = (784, 1024, 1024, 1024, 10)
    """Input size, hidden widths, output size."""
    batch_size: int = 256
    """Inputs in a step."""
    rounds: int = 9
    """How often each way is timed (slow ones a third as often)."""
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
            write_json(self.output, self._row(result, device, time.perf_counter() - began))
        place = f"{torch.get_num_threads()} CPU thread(s)" if device == "cpu" else device
        title = f"a training step of {'-'.join(map(str, self.widths))}, batch size {self.batch_size}, {place}"
        return "\n\n".join([title, _network_table(result.network), _layer_table(result.layers), advice(result)])

    def _row(self, result: Benchmark, device: str, seconds: float) -> dict[str, Any]:
        config = {"widths": self.widths, "batch_size": self.batch_size, "rounds": self.rounds}
        return {
            "format": 1,
            "config": config,
            "seed": 0,
            **certificate_of_birth(device),
            "seconds": seconds,
            "fastest": written(result.network.ways[result.network.fastest].constraints),
            "network": _fields(result.network),
            "layers": {f"{out}x{features}": _fields(contest) for (out, features), contest in result.layers.items()},
        }


def written(constraints: Sequence[Orthonormal]) -> str:
    """What to write for these constraints: one, or a list with one for each layer."""
    runs = [(name, len(list(same))) for name, same in itertools.groupby(map(repr, constraints))]
    if len(runs) == 1:
        return runs[0][0]
    return f"[{', '.join(name if count == 1 else f'*[{name}] * {count}' for name, count in runs)}]"


def advice(result: Benchmark) -> str:
    """What to write, what else is as fast, and what speed does not say."""
    network = result.network
    best = written(network.ways[network.fastest].constraints)
    level = [written(network.ways[name].constraints) for name in network.level]
    also = f"; these rounds do not tell it from {', '.join(level)}" if level else ""
    why = "the fastest here" if len(network.ways) > 2 else "for these sizes there is no other way"
    return "\n".join(
        [
            f"Write {best}, {why}{also}.",
            "Blocks are of each layer, first to last: 0 trains the weight itself, 1 turns it whole.",
            "Speed is not accuracy: in square layers more blocks were no worse, in a first layer that is not square "
            f"they were, and {_DEFAULT} chooses with both in mind (docs/theory/frame.md).",
        ]
    )


def _network_table(contest: Contest) -> str:
    head = ["way", "blocks", "ms", "ratio", "quartiles", "max|σ² − 1|", ""]
    return _aligned([head, *(_network_cells(name, contest) for name in contest.ways)], left=(0, 1, 6))


def _network_cells(name: str, contest: Contest) -> list[str]:
    way = contest.ways[name]
    if name == UNCONSTRAINED:
        return [name, "", _milliseconds(way), "1", "", "", ""]
    mark = "← fastest" if name == contest.fastest else ""
    return [name, _blocks(way), _milliseconds(way), f"{way.ratio:.2f}", _quartiles(way), round_up(way.off, 2), mark]


def _layer_table(layers: dict[tuple[int, int], Contest]) -> str:
    head = ["one layer alone", "fastest", "ms", "ratio", "quartiles", f"ratio of {_DEFAULT}"]
    return _aligned([head, *(_layer_cells(shape, contest) for shape, contest in layers.items())], left=(0, 1))


def _layer_cells(shape: tuple[int, int], contest: Contest) -> list[str]:
    best = contest.ways[contest.fastest]
    name = f"{shape[1]} → {shape[0]}"
    default = f"{contest.ways[_DEFAULT].ratio:.2f}"
    return [name, contest.fastest, _milliseconds(best), f"{best.ratio:.2f}", _quartiles(best), default]


def _aligned(rows: list[list[str]], left: tuple[int, ...]) -> str:
    """Rows of cells as a table: columns ``left`` begin together, the others end together."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def padded(place: int, cell: str) -> str:
        return cell.ljust(sizes[place]) if place in left else cell.rjust(sizes[place])

    return "\n".join("  ".join(itertools.starmap(padded, enumerate(row))).rstrip() for row in rows)


def _blocks(way: Way) -> str:
    runs = [(blocks, len(list(same))) for blocks, same in itertools.groupby(way.blocks)]
    return " ".join(f"{blocks}" if count == 1 else f"{blocks}×{count}" for blocks, count in runs)


def _milliseconds(way: Way) -> str:
    value = 1000 * way.seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _quartiles(way: Way) -> str:
    return f"{way.quartiles[0]:.2f}–{way.quartiles[1]:.2f}"


def _fields(contest: Contest) -> dict[str, Any]:
    """The ways of a contest for JSON; the unconstrained step has no σ to tell."""
    return {
        name: {
            "constraint": written(way.constraints) if way.constraints else None,
            "blocks": way.blocks,
            "seconds": way.seconds,
            "ratio": way.ratio,
            "quartiles": way.quartiles,
            "rounds": way.rounds,
            "max_off": way.off,
        }
        for name, way in contest.ways.items()
    }

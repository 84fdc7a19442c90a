"""Print README's table of results from the committed rows, or with --write put it between README's markers.

python scripts/results_table.py [--write]
"""

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tightlip.decimals import exact, radius_words, round_up
from tightlip.report.runs import Run, read_run

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
NORMS = {"2": "2-norm", "inf": "∞-norm"}
USUAL = {"2": "orthonormal", "inf": "row_l1"}
OWN = {"distances": "–"}
"""Methods whose layers have no activations."""

COLUMNS = ("data", "norm", "method", "network", "activation", "centered", "runs", "clean", "ε")
COLUMNS += ("certified", "attacked, of them certified", "K ≤", "training")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n"


def table(folder: Path = ROOT / "results") -> str:
    """One line per network, over its seeds."""
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for path in sorted(folder.glob("*/metrics.json")):
        run = read_run(path.parent)
        config = run.row.config
        method = config.get("method", USUAL[config["norm"]])  # rows before methods had names
        network = _network(config), OWN.get(method, config["activation"]), config.get("center") or "no"
        groups[run.row.data.name, config["norm"], method, *network, exact(config["eps"])].append(run)
    return HEAD + "".join(_line(key, runs) for key, runs in sorted(groups.items()))


def _network(config: Mapping[str, Any]) -> str:
    """Its kind, and its widths or channels: "convnet 64-128, 256"; one with kernels is "convnet 64-128 + 3×3, 256"."""
    kind, channels = config.get("network", "mlp"), config.get("channels")  # rows before networks of images have neither
    kernels = " + 3×3" if kind == "convnet" and config.get("depth") else ""
    stages = ["-".join(map(str, channels)) + kernels] if channels else []
    return f"{kind} {', '.join([*stages, '-'.join(map(str, config['hidden']))])}"


def _line(key: tuple[str, ...], runs: list[Run]) -> str:
    data, norm, method, network, activation, centered, eps = key
    tests, resisting = [run.row.test for run in runs], [_certified_of_attacked(run) for run in runs]
    cells = [
        data,
        NORMS[norm],
        method,
        network,
        activation,
        centered,
        str(len(runs)),
        _percent([test.accuracy for test in tests]),
        radius_words(float(eps)),
        _percent([test.certified[eps] for test in tests], math.floor),
        f"{_mean([test.attacked[eps] for test in tests])}, {_mean(resisting, math.floor)}",
        f"{round_up(max(run.proof.bound.constant for run in runs), 6)}",
        f"≤ {_minutes(runs)}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _certified_of_attacked(run: Run) -> float:
    images = run.proof.attack.images if run.proof.attack else 0
    return float((run.proof.radius[:images] > run.row.config["eps"]).mean())


def _percent(values: list[float], rounding: Callable[[float], int] = round) -> str:
    """The mean, and the range where there are several; shares that are proven are rounded down."""
    if len(values) == 1:
        return f"{_mean(values, rounding)} %"
    least, most = _mean([min(values)], rounding), _mean([max(values)], rounding)
    return f"{_mean(values, rounding)} % ({least}–{most})"


def _mean(values: list[float], rounding: Callable[[float], int] = round) -> str:
    return f"{rounding(round(1e4 * sum(values) / len(values), 6)) / 100:.2f}"


def _minutes(runs: list[Run]) -> str:
    """The longest training, by the processor's clock where all were timed by it."""
    computed = [run.row.cpu_seconds["train"] for run in runs if run.row.cpu_seconds is not None]
    if len(computed) == len(runs):
        return f"{math.ceil(max(computed) / 60)} CPU min"
    return f"{math.ceil(max(run.row.seconds['train'] for run in runs) / 60)} min"


def main() -> None:
    """Print or write."""
    readme = ROOT / "README.md"
    if "--write" not in sys.argv:
        sys.stdout.write(table())
        return
    before, rest = readme.read_text().split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(before + BEGIN + table() + END + after)


if __name__ == "__main__":
    main()

"""Print README's table of results from the committed rows, or with --write put it between README's markers.

python scripts/results_table.py [--write]
"""

import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tightlip.decimals import exact, round_up

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
NORMS = {"2": "2-norm", "inf": "∞-norm"}
HEAD = """| data | norm | activation | runs | clean | ε | certified | attacked | of those certified | K ≤ | training |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def table(folder: Path = ROOT / "results") -> str:
    """One line per network, over its seeds."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("*/metrics.json")):
        row = json.loads(path.read_text())
        certificate = json.loads((path.parent / "certificate.json").read_text())
        config = row["config"]
        attacked = certificate["radius"][: certificate["attack"]["images"]]
        row["constant"] = certificate["bound"]["constant"]
        row["certified_of_attacked"] = sum(radius > config["eps"] for radius in attacked) / len(attacked)
        groups[config["data"], config["norm"], config["activation"], exact(config["eps"])].append(row)
    return HEAD + "".join(_line(key, rows) for key, rows in sorted(groups.items()))


def _line(key: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    data, norm, activation, eps = key
    tests = [row["test"] for row in rows]
    cells = [
        data,
        NORMS[norm],
        activation,
        str(len(rows)),
        _percent([test["accuracy"] for test in tests]),
        eps,
        _percent([test["certified"][eps] for test in tests], math.floor),
        _percent([test["attacked"][eps] for test in tests]),
        _percent([row["certified_of_attacked"] for row in rows], math.floor),
        f"{round_up(max(row['constant'] for row in rows), 9)}",
        f"≤ {math.ceil(max(row['seconds']['train'] for row in rows) / 60)} min, {_where(rows)}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _percent(values: list[float], rounding: Callable[[float], int] = round) -> str:
    """The mean, and the range where there are several; shares that are proven are rounded down."""

    def text(value: float) -> str:
        return f"{rounding(round(1e4 * value, 6)) / 100:.2f}"

    mean = text(sum(values) / len(values))
    return f"{mean} %" if len(values) == 1 else f"{mean} % ({text(min(values))}–{text(max(values))})"


def _where(rows: list[dict[str, Any]]) -> str:
    return ", ".join(sorted({f"{row['threads']} {row['device']} thread(s)" for row in rows}))


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

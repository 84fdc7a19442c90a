"""What the page's script (explorer.js) is given, so that it can tell what is certified at any ε.

In the place of a radius r stands t, the largest number below r that has at most four significant digits or is an eps
that the run names. Then

    ε ≤ t  ⟹  ε < r            for every ε: what is counted is proven;
    ε < r  ⟹  ε ≤ t            for every ε that has at most four significant digits or is named: nothing is left out.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

from tightlip.decimals import exact, round_up
from tightlip.records import Example
from tightlip.report.runs import Run
from tightlip.report.wording import ANY

FOUR = Context(prec=4)


@dataclass(frozen=True)
class Chooser:
    """A slider for ε in one norm and scale, and the places of its runs: ε of two scales cannot be compared.

    ``start``, ``top`` and ``step`` are numbers as they stand in HTML.
    """

    scale: tuple[str, bool]
    places: tuple[int, ...]
    start: str
    top: str
    step: str


def choosers(runs: Sequence[Run]) -> list[Chooser]:
    """One for each norm and scale that runs with test inputs were certified in."""
    tested = {place: run for place, run in enumerate(runs) if len(run.proof.radius)}
    return [
        _chooser(scale, {place: run for place, run in tested.items() if run.scale == scale})
        for scale in sorted({run.scale for run in tested.values()})
    ]


def counted(run: Run) -> str:
    """Compact JSON: ``proven`` in place of finite radii, the smallest first, and counts of inputs."""
    named = _named(run)
    radii = run.proof.radius[run.correct].tolist()
    values = sorted(proven(radius, named) for radius in radii if 0 < radius < math.inf)
    counts = {"unbounded": radii.count(math.inf), "right": len(radii), "inputs": len(run.proof.radius)}
    return json.dumps({"proven": values, **counts}, separators=(",", ":"))


def proven_of(run: Run, example: Example) -> str:
    """What stands in place of an example's radius; nothing where no ε is certified."""
    if not example.correct or not example.radius > 0:
        return ""
    return "Infinity" if math.isinf(example.radius) else exact(proven(example.radius, _named(run)))


def proven(radius: float, named: Iterable[float] = ()) -> float:
    """The largest number below a finite radius > 0 that has four significant digits, or is named.

    >>> proven(0.3), proven(0.30000000000000004), proven(0.141176470588, [0.14117647])
    (0.2999, 0.3, 0.14117647)
    """
    below = float(FOUR.next_minus(Decimal(repr(radius))))
    return max(value for value in (0.0, below, *named) if value < radius)


def _named(run: Run) -> list[float]:
    return [float(eps) for eps in run.row.test.certified if math.isfinite(float(eps))]


def _chooser(scale: tuple[str, bool], runs: dict[int, Run]) -> Chooser:
    """It starts at the first headline that there is, and ends where no radius has an end."""
    start = next((_start(run) for run in runs.values() if _start(run) > 0), 0.0)
    finite = [radius for run in runs.values() for radius in run.proof.radius.tolist() if radius < ANY]
    top = round_up(max([start, *finite]) or 1.0, 2)
    return Chooser(scale, tuple(runs), exact(start), top, f"1e{math.floor(math.log10(float(top))) - 2}")


def _start(run: Run) -> float:
    eps = float(run.main_eps or 0)
    return eps if math.isfinite(eps) else 0.0

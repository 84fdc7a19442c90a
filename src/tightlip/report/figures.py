"""The report's figures. Certified accuracy bounds the robust accuracy from below, attacked accuracy from above."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from tightlip.decimals import round_nearest
from tightlip.report.drawing import COLORS, Plot, plot, run_color
from tightlip.report.runs import Run
from tightlip.report.statistics import interval
from tightlip.report.wording import norm_name, percent

Vector = NDArray[np.float64]
BINS = 32


def robustness(run: Run, name: str) -> Plot:
    """Certified and attacked accuracy against eps with Wilson's intervals, the gap between them shaded."""
    proof, attack = run.proof, run.proof.attack

    def draw(axes: Axes) -> None:
        axes.plot(proof.eps, proof.certified_accuracy, color=COLORS["proven"], label="certified (lower bound)")
        low, high = _intervals(proof.certified_accuracy, len(proof.radius))
        axes.fill_between(proof.eps, low, high, color=COLORS["proven"], alpha=0.25, linewidth=0)
        if attack is not None and len(attack.eps):
            axes.plot(
                attack.eps, attack.accuracy, drawstyle="steps-post", color=COLORS["attacked"], marker="o", clip_on=False
            )
            axes.lines[-1].set_label("attacked (upper bound)")
            axes.vlines(attack.eps, *_intervals(attack.accuracy, attack.images), COLORS["attacked"], linewidth=0.9)
            _shade(axes, proof.eps, proof.certified_accuracy, attack.eps, attack.accuracy)
        _mark_eps(axes, run, top=0.02)
        _accuracy_axis(axes)
        axes.set_xlabel(_eps_label(run))
        axes.set_xlim(left=0)
        legend_above(axes)

    main = run.main_eps
    said = (
        ""
        if main is None
        else f" At eps {run.shown_eps}, {percent(run.row.test.certified[main])} of the test {run.inputs} are certified."
    )
    return plot(name, f"Certified and attacked accuracy against eps in the {_scale(run)}.{said}", draw)


def radii(run: Run, name: str) -> Plot:
    """Histogram of the finite, nonzero certified radii of correctly classified images."""
    values = run.proof.radius[run.correct & np.isfinite(run.proof.radius) & (run.proof.radius > 0)]
    eps = _main_eps(run)

    def draw(axes: Axes) -> None:
        edges = _edges(values, eps)
        counts, _ = np.histogram(values, edges)
        middle = (edges[:-1] + edges[1:]) / 2
        colors = [COLORS["quiet" if center < eps else "proven"] for center in middle]
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colors, edgecolor="none")
        _mark_eps(axes, run, top=0.98)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlim(left=0)
        axes.set_xlabel(f"certified radius ({_scale(run)})")
        axes.set_ylabel("count")

    middle = f", their median {round_nearest(float(np.median(values)))}" if len(values) else ""
    return plot(name, f"Histogram of {len(values)} certified radii{middle}.", draw)


def loss(run: Run, name: str) -> Plot:
    """Training loss against the epoch."""
    values = [row.loss for row in run.row.history]

    def draw(axes: Axes) -> None:
        axes.plot([row.epoch for row in run.row.history], values, color=COLORS["ink"], marker=_dot(run))
        spread_axis(axes, values)
        epoch_axis(axes)
        axes.set_ylabel("training loss")

    last = round_nearest(values[-1]) if values else "unknown"
    return plot(name, f"Training loss against the epoch; it ends at {last}.", draw)


def accuracy(run: Run, name: str) -> Plot:
    """Training and validation accuracy, and the validation score where it is a share, against the epoch."""
    epochs = [row.epoch for row in run.row.history]
    train = [row.train_accuracy for row in run.row.history]
    validation = [row.validation_accuracy for row in run.row.history]
    score = [row.validation_score for row in run.row.history]

    best = f"the best epoch is {run.row.best_epoch}"

    def draw(axes: Axes) -> None:
        axes.plot(epochs, train, color=COLORS["muted"], marker=_dot(run), label="training accuracy")
        axes.plot(epochs, validation, color=COLORS["attacked"], marker=_dot(run), label="validation accuracy")
        if all(0 <= value <= 1 for value in score) and score != validation:
            axes.plot(epochs, score, color=COLORS["proven"], marker=_dot(run), label="validation score")
        axes.axvline(run.row.best_epoch, color=COLORS["muted"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        _percent_axis(axes)
        epoch_axis(axes)
        axes.legend(loc="lower right")

    return plot(name, f"Training and validation accuracy against the epoch; {best}.", draw)


def compare_robustness(runs: Sequence[Run | None], name: str) -> Plot:
    """Certified (solid) and attacked (dashed) accuracy against eps of every run, which share a norm; others are None.

    A run keeps the color of its place.
    """
    first = next(run for run in runs if run is not None)

    def draw(axes: Axes) -> None:
        for place, run in enumerate(runs):
            if run is None:
                continue
            proof, attack, color = run.proof, run.proof.attack, run_color(place)
            axes.plot(proof.eps, proof.certified_accuracy, color=color)
            if attack is not None:
                (line,) = axes.plot(attack.eps, attack.accuracy, color=color, drawstyle="steps-post")
                line.set(linestyle=(0, (4, 2)), linewidth=1.3)
        _accuracy_axis(axes)
        axes.set_xlabel(_eps_label(first))
        axes.set_xlim(left=0)

    return plot(name, f"Certified and attacked accuracy against eps of every run in the {_scale(first)}.", draw)


def compare_training(runs: Sequence[Run], name: str) -> Plot:
    """Validation accuracy against the epoch of every run."""

    def draw(axes: Axes) -> None:
        for place, run in enumerate(runs):
            values = [row.validation_accuracy for row in run.row.history]
            axes.plot([row.epoch for row in run.row.history], values, color=run_color(place), marker=_dot(run))
        _percent_axis(axes)
        epoch_axis(axes)
        axes.set_ylabel("validation accuracy")

    return plot(name, "Validation accuracy against the epoch of every run.", draw)


def _intervals(shares: Vector, trials: int) -> tuple[Vector, Vector]:
    """The lower and upper ends of Wilson's 95 % intervals; NaN where a share is."""
    ends = np.array([interval(float(share), trials) for share in shares]).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def _shade(axes: Axes, low_eps: Vector, low: Vector, high_eps: Vector, high: Vector) -> None:
    """Shade between a curve and steps, where both are known: what stands at one eps bounds all larger ones."""
    start, stop = max(low_eps.min(initial=np.inf), high_eps.min()), min(low_eps.max(initial=-np.inf), high_eps.max())
    grid = np.unique(np.concatenate([low_eps, high_eps]))
    grid = grid[(grid >= start) & (grid <= stop)]
    if len(grid) > 1:
        ends = [np.maximum(np.searchsorted(high_eps, grid, side) - 1, 0) for side in ("left", "right")]
        bottom, top = np.repeat(np.interp(grid, low_eps, low), 2), high[np.column_stack(ends).ravel()]
        twice, color = np.repeat(grid, 2), COLORS["attacked"]
        axes.fill_between(twice, bottom, np.maximum(bottom, top), color=color, alpha=0.13, linewidth=0)


def _main_eps(run: Run) -> float:
    eps = math.nan if run.main_eps is None else float(run.main_eps)
    return eps if math.isfinite(eps) else 0.0


def _mark_eps(axes: Axes, run: Run, top: float) -> None:
    eps = _main_eps(run)
    if eps > 0:
        axes.axvline(eps, color=COLORS["muted"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"ε = {run.shown_eps}",
            (eps, top),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            va="top" if top > 0.5 else "bottom",
            color=COLORS["muted"],
        )


def _edges(values: Vector, eps: float) -> Vector:
    """Bin edges from 0 to the largest value, one of them exactly at eps where eps spans at least one bin."""
    top = float(values.max(initial=0.0))
    if top <= 0:
        return np.array([0.0, 1.0])
    width = top / BINS
    if width <= eps < top:
        width = eps / round(eps / width)
    edges = width * np.arange(math.ceil(top / width - 1e-9) + 1, dtype=np.float64)
    edges[-1] = max(edges[-1], top)
    return np.asarray(edges, dtype=np.float64)


def _eps_label(run: Run) -> str:
    return f"ε, size of the perturbation ({_scale(run)})"


def _scale(run: Run) -> str:
    """'2-norm', or '2-norm, standardized'."""
    return f"{norm_name(run.proof.input_norm)}{', standardized' * run.proof.standardized}"


def _percent_axis(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _accuracy_axis(axes: Axes) -> None:
    _percent_axis(axes)
    axes.set_ylim(0, 1)
    axes.set_ylabel("test accuracy")


def spread_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis, where values are positive and far apart."""
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: round_nearest(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())


def legend_above(axes: Axes) -> None:
    """A legend that covers nothing of what is drawn."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2,
        borderaxespad=0.2,
        handlelength=1.2,
        columnspacing=1.0,
        fontsize=8,
    )
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.width, 0.88 - box.y0))


def epoch_axis(axes: Axes) -> None:
    """Whole numbers along x."""
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("epoch")


def _dot(run: Run) -> str:
    """A marker where a line alone might be invisible: a single epoch."""
    return "o" if len(run.row.history) == 1 else ""

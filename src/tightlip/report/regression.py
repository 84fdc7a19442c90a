"""The page of one regression or of several, from their JSON alone: errors, predictions against truth, proven slopes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from tightlip.atomic import replacing
from tightlip.decimals import round_nearest
from tightlip.errors import TightlipError
from tightlip.linkage import check_model
from tightlip.records import RegressionRow, SlopesFile, TruthBand, read_fields
from tightlip.report.drawing import COLORS, Plot, plot
from tightlip.report.figures import epoch_axis, legend_above, spread_axis
from tightlip.report.page import environment
from tightlip.report.wording import norm_name

MOST_POINTS = 2000
"""That are drawn; of more, as many spread evenly over the test part."""


@dataclass(frozen=True)
class Section:
    """A run, where it stands on the page, and what is drawn of it."""

    row: RegressionRow
    proof: SlopesFile
    place: int
    plots: Mapping[str, Plot]

    @property
    def id(self) -> str:
        """What the ids of its parts begin with."""
        return f"regression-{self.place}"

    @property
    def explained(self) -> float:
        """The share of the mean's squared error that the prediction takes away: R²."""
        return 1 - (self.row.test.rmse / self.row.test.rmse_of_mean) ** 2 if self.row.test.rmse_of_mean else np.nan

    @property
    def half_off(self) -> float:
        """What predictions can be off by at most in half of the test rows, where there is a band."""
        band = self.proof.band
        return np.nan if band is None or band.refuted else float(np.median(band.off(self.proof.prediction)))


def render_regressions(folders: Sequence[Path]) -> str:
    """One self-contained HTML page; the same JSON gives the same text.

    Raises:
        TightlipError: no folder was given, or the JSON of one is absent or broken, or of another model.
    """
    if not folders:
        raise TightlipError("a report needs at least one folder: name what 'tightlip train --task regression' wrote")
    sections = [_section(Path(folder), place) for place, folder in enumerate(folders, 1)]
    return environment().get_template("regressions.html").render(sections=sections)


def write_regressions(folders: Sequence[Path], path: Path) -> None:
    """Render the page and put it at ``path``, whole or not at all."""
    text = render_regressions(folders)
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def _section(folder: Path, place: int) -> Section:
    metrics, certificate = read_fields(folder / "metrics.json"), read_fields(folder / "certificate.json")
    check_model(folder, {"certificate.json": certificate.values, "metrics.json": metrics.values})
    row, proof = RegressionRow.from_json(metrics), SlopesFile.from_json(certificate)
    name = f"regression-{place}"
    plots = {"predictions": _predictions(proof, f"{name}-predictions"), "loss": _loss(row, f"{name}-loss")}
    if proof.band is not None and not proof.band.refuted:
        plots["band"] = _band(proof, proof.band, f"{name}-band")
    if len(row.tried) > 1:
        plots["constants"] = _constants(row, f"{name}-constants", norm_name(proof.input_norm))
    return Section(row, proof, place, plots)


def _shown(count: int) -> NDArray[np.int64]:
    """Which of so many rows are drawn."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).astype(np.int64)) if count else np.arange(0)


def _band(proof: SlopesFile, band: TruthBand, name: str) -> Plot:
    """Test rows by their predictions: where the truth can be, the prediction, and the number that was measured."""
    order = np.argsort(proof.prediction, kind="stable")
    order = order[_shown(len(order))]
    place = np.arange(1, len(order) + 1)

    def draw(axes: Axes) -> None:
        ends = band.lower[order], band.upper[order]
        axes.fill_between(place, *ends, color=COLORS["proven"], alpha=0.25, linewidth=0, step="mid")
        axes.plot(place, proof.prediction[order], color=COLORS["proven"], label="prediction")
        axes.plot(place, proof.target[order], "o", color=COLORS["muted"], markersize=3, label="measured")
        axes.set_xlabel("test rows, by their prediction")
        axes.set_ylabel("value")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend_above(axes)

    return plot(name, f"Where the truth can be at {len(order)} test rows, by their prediction.", draw)


def _predictions(proof: SlopesFile, name: str) -> Plot:
    """Each test row at its true value and its prediction, and where both are one."""
    count, shown = len(proof.target), _shown(len(proof.target))
    target, prediction = proof.target[shown], proof.prediction[shown]
    both = np.concatenate([target, prediction]) if count else np.zeros(1)
    ends = [float(both.min()), float(both.max())]

    def draw(axes: Axes) -> None:
        axes.plot(ends, ends, color=COLORS["muted"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.plot(target, prediction, "o", color=COLORS["proven"], markersize=4.5, alpha=0.6, markeredgecolor="none")
        axes.set_xlabel("true value")
        axes.set_ylabel("prediction")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(6))

    return plot(name, f"Predictions of {len(shown)} test rows against their true values.", draw)


def _loss(row: RegressionRow, name: str) -> Plot:
    """Training and validation loss, of standardized targets, against the epoch."""
    epochs = [step.epoch for step in row.history]
    losses = {"training loss": [step.loss for step in row.history]}
    losses["validation loss"] = [step.validation_loss for step in row.history]
    every = [value for values in losses.values() for value in values]

    def draw(axes: Axes) -> None:
        for words, color in (("training loss", "muted"), ("validation loss", "proven")):
            marker = "o" if len(epochs) == 1 else ""
            axes.plot(epochs, losses[words], color=COLORS[color], marker=marker, label=words)
        axes.axvline(row.best_epoch, color=COLORS["muted"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        spread_axis(axes, every)
        epoch_axis(axes)
        axes.legend(loc="upper right")

    return plot(name, f"Losses against the epoch; the best epoch is {row.best_epoch}.", draw)


def _constants(row: RegressionRow, name: str, norm: str) -> Plot:
    """The error on validation data against the constant K."""
    k, error = [one.k for one in row.tried], [one.validation_rmse for one in row.tried]

    def draw(axes: Axes) -> None:
        axes.plot(k, error, "o-", color=COLORS["ink"])
        axes.axvline(row.k, color=COLORS["muted"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.set_xscale("log")
        axes.set_xticks(k, [round_nearest(value, 3) for value in k], minor=False)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"K, per standardized unit ({norm})")
        axes.set_ylabel("validation error")

    return plot(name, f"Validation error against K; {round_nearest(row.k)} was chosen.", draw)

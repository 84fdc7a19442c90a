"""The page: runs in, one HTML string out; everything that a run says is escaped by the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tightlip import decimals
from tightlip.atomic import replacing
from tightlip.errors import TightlipError
from tightlip.records import Example
from tightlip.report import figures, wording
from tightlip.report.drawing import RUN_COLORS, Plot
from tightlip.report.explorer import choosers, counted, proven_of
from tightlip.report.features import FeatureTable, feature_table
from tightlip.report.pictures import diverging, gradient_norm, picture
from tightlip.report.runs import Run, read_run, scale_name
from tightlip.report.script import script
from tightlip.report.statistics import UNKNOWN, ClassTable, Interval, class_table, interval, pairs_of


@dataclass(frozen=True)
class Outcome:
    """One part of the bar of what becomes of the test inputs."""

    kind: str
    words: str
    share: float


@dataclass(frozen=True)
class Tile:
    """An example, ready to be shown."""

    example: Example
    note: str
    image: str
    gradient: str
    gradient_norm: float
    proven: str


@dataclass(frozen=True)
class Titled:
    """A figure and its heading."""

    title: str
    plot: Plot
    scale: str | None = None
    """What the eps that it is drawn against is measured in."""


@dataclass(frozen=True)
class Section:
    """A run and what is drawn of it."""

    run: Run
    place: int
    plots: Mapping[str, Plot]
    tiles: Sequence[Tile]
    outcomes: Sequence[Outcome]
    classes: ClassTable | None
    features: FeatureTable | None

    @property
    def color(self) -> int:
        """The number of this run's color."""
        return self.place % RUN_COLORS + 1

    @property
    def counted(self) -> str:
        """From which the page's script counts what is certified."""
        return counted(self.run)

    @property
    def certified(self) -> float:
        """Certified accuracy at the main eps, NaN when there is none."""
        return self.run.row.test.certified.get(self.run.main_eps or "", np.nan)

    @property
    def attacked(self) -> float:
        """Attacked accuracy at the main eps, NaN when there is none."""
        return self.run.row.test.attacked.get(self.run.main_eps or "", np.nan)

    @property
    def certified_interval(self) -> Interval:
        """Of `certified`."""
        return interval(self.certified, len(self.run.proof.radius))

    @property
    def attacked_interval(self) -> Interval:
        """Of `attacked`, over the inputs that the attack saw."""
        return interval(self.attacked, self.run.proof.attack.images if self.run.proof.attack else 0)

    @property
    def clean_interval(self) -> Interval:
        """Of the clean accuracy."""
        return interval(self.run.row.test.accuracy, len(self.run.proof.radius))

    @property
    def certified_of_attacked_interval(self) -> Interval:
        """Of `certified_of_attacked`."""
        attack, share = self.run.proof.attack, self.certified_of_attacked
        return UNKNOWN if attack is None or share is None else interval(share, attack.images)

    @property
    def certified_of_attacked(self) -> float | None:
        """Certified accuracy at the main eps of the images that the attack saw; None where it saw all, or none."""
        attack, radius = self.run.proof.attack, self.run.proof.radius
        if attack is None or self.run.main_eps is None or not 0 < attack.images < len(radius):
            return None
        return float(self.run.certified(float(self.run.main_eps))[: attack.images].mean())

    @property
    def zero_share(self) -> float:
        """The share of test images whose certified radius is 0; NaN without images."""
        return float((self.run.proof.radius == 0).mean()) if len(self.run.proof.radius) else np.nan

    @property
    def zeros(self) -> int:
        """How many test images have the certified radius 0."""
        return int((self.run.proof.radius == 0).sum())

    @property
    def unbounded(self) -> int:
        """How many correct test images have no finite certified radius (every perturbation is harmless)."""
        return int((np.isinf(self.run.proof.radius) & self.run.correct).sum())

    @property
    def median(self) -> float:
        """The median certified radius over all test images, in raw input units; NaN without images."""
        return float(np.median(self.run.proof.radius)) if len(self.run.proof.radius) else np.nan


def render(run_folders: Sequence[Path]) -> str:
    """One self-contained HTML page of one run, or of several side by side; the same JSON gives the same text.

    Raises:
        TightlipError: no folder was given, or a folder's JSON is absent or broken.
    """
    if not run_folders:
        raise TightlipError("a report needs at least one run folder: name what 'tightlip train' wrote")
    runs = [read_run(Path(folder)) for folder in run_folders]
    sections = [_section(run, place) for place, run in enumerate(runs)]
    figures_of_all = _comparison(runs) if len(runs) > 1 else []
    explored = choosers(runs)
    return (
        environment()
        .get_template("page.html")
        .render(
            sections=sections,
            comparison=figures_of_all,
            pairs=pairs_of(runs),
            choosers=explored,
            script=script("explorer.js") if explored or any(section.tiles for section in sections) else None,
        )
    )


def write(run_folders: Sequence[Path], path: Path) -> None:
    """Render the report and put it at `path`, whole or not at all.

    Raises:
        TightlipError: as `render`, and when `path` cannot be written.
    """
    text = render(run_folders)
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


@cache
def environment() -> Environment:
    """The templates, with the words that they use; compiled once, as that takes longer than to fill them."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (
        wording.percent,
        decimals.bound_up,
        decimals.round_up,
        decimals.round_down,
        decimals.round_nearest,
        wording.between,
        wording.points,
        wording.reach,
        wording.points_between,
        wording.p_value,
        wording.count,
        wording.duration,
        wording.scalar,
        wording.norm_name,
        wording.symbol,
        scale_name,
        wording.spoken,
    )
    environment.filters.update({word.__name__: word for word in words})
    environment.globals.update(dual=wording.DUALS, nan=float("nan"), script=None)
    return environment


def _section(run: Run, place: int) -> Section:
    name = f"run-{place + 1}"
    plots = {"robustness": figures.robustness(run, f"{name}-robustness"), "radii": figures.radii(run, f"{name}-radii")}
    if run.row.history:
        plots |= {"accuracy": figures.accuracy(run, f"{name}-accuracy"), "loss": figures.loss(run, f"{name}-loss")}
    return Section(run, place, plots, _tiles(run), _outcomes(run), class_table(run), feature_table(run))


def _unbroken(norm: str) -> str:
    """The name of a norm, which no line ends within."""
    return wording.norm_name(norm).replace("-", "\N{NON-BREAKING HYPHEN}")


def _comparison(runs: Sequence[Run]) -> list[Titled]:
    """Accuracy against eps for each norm and scale in use (eps of two cannot be compared), then training."""
    scales = sorted({run.scale for run in runs})
    plots = [
        Titled(
            f"Certified and attacked accuracy in the {_unbroken(scale[0])}{' of standardized features' * scale[1]}",
            figures.compare_robustness(
                [run if run.scale == scale else None for run in runs], f"compare-{scale_name(scale)}"
            ),
            scale_name(scale),
        )
        for scale in scales
    ]
    return [*plots, Titled("Validation accuracy", figures.compare_training(runs, "compare-training"))]


def _tiles(run: Run) -> list[Tile]:
    """The examples from the least to the most robust, wrong ones first."""
    examples = sorted(run.proof.examples, key=lambda example: (example.correct, example.radius, example.index))
    correct = [example for example in examples if example.correct]
    notes = {id(correct[-1]): "most robust", id(correct[0]): "least robust"} if len(correct) > 1 else {}
    dual = wording.DUALS[run.proof.input_norm]
    return [
        Tile(
            example=example,
            note=notes.get(id(example), "" if example.correct else "wrong"),
            image=picture(example.image),
            gradient=diverging(example.gradient),
            gradient_norm=gradient_norm(example.gradient, dual),
            proven=proven_of(run, example),
        )
        for example in examples
    ]


def _outcomes(run: Run) -> list[Outcome]:
    """Split all test images at the main eps; empty when the attack saw only some of them, or a number is absent."""
    eps, test, attack = run.main_eps, run.row.test, run.proof.attack
    if eps is None or eps not in test.attacked or attack is None or attack.images != len(run.proof.radius):
        return []
    proven, standing, clean = test.certified[eps], test.attacked[eps], test.accuracy
    if not 0 <= proven <= standing <= clean <= 1:
        return []
    return [
        Outcome("proven", "proven: no perturbation can change the answer", proven),
        Outcome("open", "open: neither proof nor successful attack", round(standing - proven, 12)),
        Outcome("broken", "broken: the attack succeeds", round(clean - standing, 12)),
        Outcome("wrong", "wrong before any attack", round(1 - clean, 12)),
    ]

"""`tightlip train --task regression`: from a table to a network that predicts a number, and how fast it can change."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from ..decimals import bound_up, exact, round_nearest, round_up
from ..experiments.regression_options import Config
from ..experiments.regression_run import Result, run
from ..report import write_regressions
from .running import Running

_MOST = 12
"""Features that are told; the page has all."""


@dataclass(frozen=True, kw_only=True)
class Regress(Running):
    """Train a network that predicts a number from a row, prove how fast its prediction can change, and write a page."""

    task: Literal["classification", "regression"] = "regression"
    """What is predicted: a number of each row; or classes, with other options: tightlip train --help."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    @property
    def _stem(self) -> str:
        return f"{Path(self.config.data).stem or 'data'}-regression-l{self.config.norm}-{self.config.activation}"

    def _compute(self, folder: Path, device: str, resume: bool) -> str:
        result = run(self.config, folder, device, resume)
        page = folder / "report.html"
        self._show(folder, page)
        return "\n".join(_summary(self.config, result, page))

    def _show(self, folder: Path, page: Path) -> None:
        write_regressions([folder], page)


def _summary(config: Config, result: Result, page: Path) -> Iterator[str]:
    row, test, slopes = result.row, result.row.test, result.proof.features
    how = "the last column" if config.label is None else "--label"
    yield f"predicted           {row.data.label} ({how}), from {len(row.data.feature_names)} features"
    yield f"test error          {round_nearest(test.rmse)}   (root mean square, {row.data.split['test']} rows)"
    yield f"of the mean alone   {round_nearest(test.rmse_of_mean)}"
    yield f"mean absolute error {round_nearest(test.mae)}"
    unit = f"per standardized unit, {config.norm}-norm"
    yield f"K                   {round_nearest(row.k)} {unit}   ({_chosen(config, result)})"
    yield f"audited constant    {round_up(result.proof.bound.constant, 9)}"
    yield "slope at most       per unit of each feature, all others fixed: proven for all rows"
    for slope in slopes[:_MOST]:
        yield f"  {slope.name[:40]:<30} {bound_up(slope.slope, 4)}"
    if len(slopes) > _MOST:
        yield f"  and {len(slopes) - _MOST} more"
    yield from _band(result)
    yield f"training            {row.seconds['train']:.0f} s on {row.device}"
    yield f"page                {page.resolve()}"


def _band(result: Result) -> Iterator[str]:
    """How far off predictions can be where the noise of the table was declared."""
    band, proof = result.proof.band, result.proof
    if band is None:
        return
    if band.refuted:
        yield f"no band             {band.refuted}"
        return
    off = band.off(proof.prediction)
    half, most = (round_up(float(value), 4) for value in (np.median(off), off.max()))
    claims = f"if the truth changes no faster than K, and numbers are off by at most {exact(band.noise)}"
    yield f"predictions off by  at most {half} in half of the test rows, {most} in all   ({claims})"
    if outside := band.outside(proof.target):
        yield f"but                 {outside} of {len(proof.target)} test rows refute that: more noise, or a larger --k"


def _chosen(config: Config, result: Result) -> str:
    if config.k is not None:
        return f"--k {exact(config.k)}"
    tried = ", ".join(round_nearest(one.k) for one in result.row.tried)
    return f"of {tried}, by {result.row.data.split['validation']} validation rows"

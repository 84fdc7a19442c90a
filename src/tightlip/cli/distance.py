"""`tightlip distance A B`: how far two samples are apart, or the distributions behind them, and a page to look at."""

import logging
import math
import re
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from ..arguments import integer, number
from ..data.points import (
    Points,
    in_deviations,
    is_published,
    limited,
    path_of,
    read_points,
    refuse_non_finite,
    refuse_unlike,
)
from ..decimals import round_down, round_nearest, round_up
from ..errors import TightlipError
from ..interruption import Stopped
from ..locking import sole_writer
from ..norms import as_norm
from ..provenance import provenance
from ..records import DistanceRow, Sample
from ..report import write_distances
from ..report.distance import DISTANCE
from ..report.wording import norm_name
from ..tensors import as_tensor
from ..transport.interval import Interval
from ..transport.rounding import GAP, OVER
from ..transport.wasserstein import AUCTION, LEVEL, TOLERANCE, wasserstein1
from .folders import named_folder, new_folder, remove_if_empty
from .options import Machine, replaceable
from .portrait import portrait
from .prices import joined, keep, kept, refuse_changed

logger = logging.getLogger(__name__)

HISTORY = ("seconds", "lower", "upper")

EVERY = 5.0
"""Seconds between what is kept while a search goes on."""

OF = {"tolerance": "samples", "scale": "samples", "level": "distributions", "diameter": "distributions"}
"""Options that say nothing about the other question."""

UNSEARCHED = ("name", "runs", "resume", "output", "data_root", "download", "machine")
"""Options that are not about what is measured."""

HOW_LONG = ("tolerance", "seconds")
"""Options that a stopped search may go on with other values of."""


@dataclass(frozen=True)
class Distance:
    """Bound the Wasserstein-1 distance of two samples, or of the distributions behind them, from both sides."""

    a: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="A")]
    """The first sample: an .npy, .csv or .parquet file, FILE.npz or FILE.npz:NAME, a folder of images, a data set, or
    one class of it, such as mnist5k:3."""
    b: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="B")]
    """The second sample, of points of the same kind."""
    norm: Literal["1", "2", "inf"] = "2"
    """In which the distance of two points is measured: 1, 2 or inf."""
    about: Literal["samples", "distributions"] = "samples"
    """samples: these very points, proven. distributions: what they were drawn from, with a confidence level."""
    tolerance: float | None = None
    """About samples: stop when (upper - lower)/upper is at most this (default: 0.001)."""
    level: float | None = None
    """About distributions: how often the interval holds (default: 0.95)."""
    diameter: float | None = None
    """About distributions: the largest distance of any two points that can occur, which you declare; without it nothing
    bounds the distance from above."""
    seconds: float | None = None
    """Stop after about so many, with what is proven by then (default: no limit)."""
    limit: int | None = None
    """Take so many rows of each sample, drawn at random (default: all)."""
    scale: Literal["none", "standard"] = "none"
    """standard divides each coordinate by its standard deviation over both samples: for tables of unlike units."""
    part: Literal["train", "test"] | None = None
    """Of a data set that has a test part, train or test (default: train; others are taken whole)."""
    seed: int = 0
    """Of the rows that are drawn, and of the search."""
    name: str | None = None
    """Of the folder (default: both samples, the norm and the time)."""
    runs: Path = Path("runs")
    """Folder that run folders are made in."""
    resume: bool = False
    """Continue the search of this --name where it stopped."""
    output: Path | None = None
    """Also write the numbers to this JSON file."""
    data_root: str | None = None
    """Folder with data sets (default: the environment's TIGHTLIP_DATA)."""
    download: bool = False
    """Fetch an absent data set from its mirrors."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)

    def __call__(self) -> str:
        """Run; the table to print."""
        device = self.machine.prepare()
        self._check()
        a, b = self._points()
        if self.output is not None:
            replaceable(self.output, *map(path_of, (self.a, self.b)))
        folder = self._folder()
        try:
            with sole_writer(folder):
                if self.resume and (folder / DISTANCE).exists() and self._is_complete(folder, a, b):
                    page = folder / "report.html"
                    write_distances([folder], page)
                    return f"{folder} is complete already: open {page}"
                return self._measure(folder, a, b, device if self.about == "distributions" else "cpu")
        except BaseException:
            remove_if_empty(folder)
            raise

    def _check(self) -> None:
        """Refuse what can be refused before anything is read."""
        integer("--seed", self.seed, least=0, most=2**31)
        if self.limit is not None:
            integer("--limit", self.limit)
        if self.seconds is not None:
            number("--seconds", self.seconds, least=0)
        for name, about in OF.items():
            if about != self.about and getattr(self, name) not in (None, "none"):
                raise TightlipError(f"--{name} says nothing about {self.about}: leave it out, or give --about {about}")
        if self.about == "samples" and self.machine.device not in ("auto", "cpu"):
            raise TightlipError(f"--device {self.machine.device}: samples are compared on the processor, leave it out")

    def _points(self) -> tuple[Points, Points]:
        """Both samples, checked."""
        known = [is_published(given) for given in (self.a, self.b)]
        generator = torch.Generator().manual_seed(self.seed)
        a, b = (
            limited(read_points(given, *self._source(published or not any(known))), self.limit, generator)
            for given, published in zip((self.a, self.b), known, strict=True)
        )
        refuse_unlike(a, b)
        refuse_non_finite(a)
        refuse_non_finite(b)
        return in_deviations(a, b) if self.scale == "standard" else (a, b)

    def _source(self, applies: bool) -> tuple[str | None, str | None, bool]:
        """Part, root and download, for a sample that they are meant for."""
        return (self.part, self.data_root, self.download) if applies else (None, None, False)

    def _folder(self) -> Path:
        if self.name is not None:
            return named_folder(self.runs, self.name, self.resume)
        if self.resume:
            raise TightlipError("--resume needs the --name of the search to continue")
        stems = (re.sub(r"[^\w.]+", "-", Path(given).name) for given in (self.a, self.b))
        return new_folder(self.runs, f"{'-'.join(stems)}-l{self.norm}")

    def _is_complete(self, folder: Path, a: Points, b: Points) -> bool:
        """Whether there is nothing to go on with; other samples and options than those it began with are refused."""
        row = DistanceRow.read(folder / DISTANCE)
        refuse_changed(folder, row.config | {"sha256": [row.first.sha256, row.second.sha256]}, self._told(a, b))
        met = row.reason != GAP or row.gap <= _or(self.tolerance, TOLERANCE)
        return row.finished and (met or self.about == "distributions")

    def _measure(self, folder: Path, a: Points, b: Points, device: str) -> str:
        """Search in this folder, and write what is found there; at an interruption too, if anything is proven."""
        told = self._told(a, b)
        before = kept(folder, told) if self.resume else None
        search = _Search(
            folder, told, None if before is None else before.interval(a.flat(), b.flat(), as_norm(self.norm))
        )
        try:
            found = search.joined(self._searched(a, b, device, search))
        except KeyboardInterrupt as stop:
            if search.latest is None:
                raise
            keep(folder, search.latest, told)
            self._write(folder, replace(search.latest, reason="the search was interrupted"), a, b, device, False)
            raise Stopped(folder.name) from stop
        finished = found.reason != OVER or self.about == "distributions"
        keep(folder, found, told)
        row = self._write(folder, found, a, b, device, finished)
        return _summary(row, folder)

    def _searched(self, a: Points, b: Points, device: str, search: "_Search") -> Interval:
        options: dict[str, Any] = {"about": self.about, "seconds": self.seconds, "seed": self.seed}
        if self.about == "samples":
            start = search.start if search.start is not None and search.start.method == AUCTION else None
            options |= {"tolerance": _or(self.tolerance, TOLERANCE), "start": start, "heard": search.heard}
            return wasserstein1(a.values, b.values, p=self.norm, **options)
        options |= {"level": _or(self.level, LEVEL), "diameter": self.diameter}
        x, y = (_on(points.values, device) for points in (a, b))
        return wasserstein1(x, y, p=self.norm, **options)

    def _told(self, a: Points, b: Points) -> dict[str, Any]:
        """What a search holds for: the options that say what is measured, and the hashes of the data."""
        told = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in UNSEARCHED}
        return {name: told[name] for name in told if name not in HOW_LONG} | {"sha256": [a.sha256, b.sha256]}

    def _write(self, folder: Path, found: Interval, a: Points, b: Points, device: str, finished: bool) -> DistanceRow:
        """The numbers and the page."""
        began = time.perf_counter()
        drawn = portrait(found, a, b, as_norm(self.norm), self.seed)
        sure = self.about == "samples"
        row = DistanceRow(
            command="distance",
            name=folder.name,
            config={option.name: _plain(getattr(self, option.name)) for option in fields(self)[:-1]},
            first=Sample(a.given, a.sha256, len(a), a.part),
            second=Sample(b.given, b.sha256, len(b), b.part),
            shape=np.array(a.shape, dtype=np.int64),
            unit=a.unit,
            norm=self.norm,
            about=self.about,
            lower=found.lower,
            upper=found.upper,
            estimate=found.estimate,
            method=found.method,
            reason=found.reason,
            history={name: [step[place] for step in found.history] for place, name in enumerate(HISTORY)},
            seed=self.seed,
            seconds={"search": found.seconds, "drawing": time.perf_counter() - began},
            finished=finished,
            level=None if sure else _or(self.level, LEVEL),
            diameter=self.diameter,
            p_value=found.p_value,
            **drawn,
            **provenance(device),
        )
        row.write(folder / DISTANCE)
        if self.output is not None:
            row.write(self.output)
        write_distances([folder], folder / "report.html")
        return row


class _Search:
    """What a search is begun with, and the latest that was heard of it."""

    def __init__(self, folder: Path, told: dict[str, Any], start: Interval | None) -> None:
        self.folder, self.told, self.start, self.latest = folder, told, start, start
        self.next_keep = 0.0

    def heard(self, found: Interval) -> None:
        """Keep what is proven so far, now and then."""
        self.latest = self.joined(found)
        if time.perf_counter() >= self.next_keep:
            keep(self.folder, self.latest, self.told)
            self.next_keep = time.perf_counter() + EVERY
        logger.debug("%.1f s: between %.6g and %.6g", self.latest.seconds, self.latest.lower, self.latest.upper)

    def joined(self, found: Interval) -> Interval:
        """Together with what was found before."""
        return found if self.start is None else joined(self.start, found)


def _on(values: Any, device: str) -> Any:
    return values if device == "cpu" else as_tensor(np.asarray(values), "the sample").to(device)


def _or(given: float | None, default: float) -> float:
    return default if given is None else given


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _summary(row: DistanceRow, folder: Path) -> str:
    """A line for each number."""
    samples = row.about == "samples"
    kind = "proven" if samples else f"with {100 * (row.level or 0):g} % confidence"
    points = f"{row.first.rows} rows against {row.second.rows}, {norm_name(row.norm)}"
    lines = {
        "lower": f"{round_down(row.lower, 8)}   ({kind})",
        "upper": f"{round_up(row.upper, 8)}   ({kind})",
    }
    if math.isinf(row.upper):
        lines["upper"] = "∞   (give --diameter, the largest distance of two points that can occur)"
    else:
        lines["gap"] = f"{round_up(100 * row.gap, 2)} %"
    if not samples:
        lines |= {"estimate": round_nearest(row.estimate, 5), "p-value": round_up(row.p_value or 0, 2)}
    lines |= {
        "about": f"the {row.about}: {points}",
        "method": f"{row.method}; {row.reason}",
        "seconds": f"{row.seconds['search']:.1f} on {row.device}",
        "page": str((folder / "report.html").resolve()),
    }
    if not row.finished:
        lines["more"] = f"the same command with --resume --name {row.name} goes on"
    return "\n".join(f"{name:<9} {words}" for name, words in lines.items())

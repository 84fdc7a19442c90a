"""What the model of a run was trained on: its data and the seed of their split, as the files beside it say."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from ..data import Dataset, Splits, load, split
from ..data.labeled import column_names
from ..data.measured import MeasuredTable, load_measured
from ..data.sources import SPECS
from ..errors import TightlipError
from ..linkage import MODEL

CONFIG = "config.json"

Data = TypeVar("Data", Dataset, MeasuredTable)


@dataclass(frozen=True)
class Origin:
    """Data, seed and norm of the run in ``folder``; the hash of the data and its classes' names where they are kept.

    Of a table ``label`` is the column that was predicted, ``feature_names`` are those that it was predicted from, and
    ``drop`` those that were left out.
    """

    folder: Path
    data: str
    seed: int
    norm: str = "2"
    label: str | None = None
    sha256: str | None = None
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    def dataset(self, root: str | None = None, download: bool = False) -> Dataset:
        """The very data of the run.

        Raises:
            TightlipError: if they are not there any more, or are others now.
        """
        return self._unchanged(lambda place: load(place, root, download, self.label, self.drop))

    def measured(self) -> MeasuredTable:
        """The very table of a run that predicts numbers.

        Raises:
            TightlipError: as `dataset`.
        """
        return self._unchanged(lambda place: load_measured(place, self.label, self.drop))

    def _unchanged(self, read: Callable[[str], Data]) -> Data:
        try:
            found = read(self.place)
        except TightlipError as problem:
            raise TightlipError(f"{self.folder} was trained on {self.data}: {problem}") from problem
        if self.sha256 not in (None, found.sha256):
            raise TightlipError(
                f"{self.data} has changed since {self.folder} was trained on it (its sha256 starts with "
                f"{found.sha256[:12]}, not with {str(self.sha256)[:12]}): restore it, or give other "
                "examples by --data"
            )
        return found

    def parts(self, root: str | None = None, download: bool = False) -> Splits:
        """The parts that the run trained on, chose by and was judged by."""
        return split(self.dataset(root, download), self.seed)

    def left_out(self, table: Path) -> tuple[str, ...]:
        """The columns of another table that the run did not look at in its own."""
        there = column_names(table) if table.is_file() else ()
        return tuple(name for name in self.drop if name in there)

    @property
    def place(self) -> str:
        """The data's path, which is relative to where the run began: mostly here, or where its ``runs`` are."""
        beside = self.folder.absolute().parent.parent / self.data
        here = self.data in SPECS or Path(self.data).exists() or not beside.exists()
        return self.data if here else str(beside)


def origin_of(model: Path, written: Mapping[str, Mapping[str, Any]]) -> Origin | None:
    """Where a model comes from; None for one that lies in no folder of a run.

    Args:
        model: Its file.
        written: What lies beside it and speaks of it (`written_about`).

    Raises:
        TightlipError: if ``config.json`` beside it is damaged, or of another run than ``metrics.json``.
    """
    metrics = written.get("metrics.json", {})
    told = [_choices(metrics.get("config")), _choices(_config(model))]
    found = [pair for pair in told if pair is not None]
    if not found:
        return None
    if found[0] != found[-1]:
        raise TightlipError(
            f"{CONFIG} and metrics.json in {model.parent} speak of different runs: copy all files of one run"
        )
    data = metrics.get("data")
    about = data if isinstance(data, dict) else {}
    trained_on, seed, norm, label, drop = found[0]
    names = {name: tuple(about.get(name, ())) for name in ("class_names", "feature_names")}
    label = about.get("label") or label
    return Origin(model.parent, trained_on, seed, norm, label, about.get("sha256"), **names, drop=drop)


def seen(inputs: Tensor, part: Tensor) -> int:
    """How many of the inputs are among those of ``part``, to the bit."""
    known = set(_digests(part))
    return sum(digest in known for digest in _digests(inputs))


def _digests(inputs: Tensor) -> list[bytes]:
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in inputs.contiguous().numpy()]


def _config(model: Path) -> Any:
    """What ``config.json`` beside the model of a run holds."""
    file = model.parent / CONFIG
    if model.name != MODEL or not file.exists():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise TightlipError(
            f"{file} is damaged, so it does not say what {model} was trained on: restore it, or move the model to a "
            "folder of its own"
        ) from problem


def _choices(config: Any) -> tuple[str, int, str, str | None, tuple[str, ...]] | None:
    """Data, seed, norm, label and drop among the options of a run; None where they are those of something else."""
    if not isinstance(config, dict) or not {"data", "seed", "hidden"} <= config.keys():
        return None
    data, seed = config["data"], config["seed"]
    norm, label = str(config.get("norm", "2")), config.get("label")
    label = label if isinstance(label, str) else None
    drop = tuple(map(str, left)) if isinstance(left := config.get("drop"), list | tuple) else ()
    return (data, seed, norm, label, drop) if isinstance(data, str) and type(seed) is int and seed >= 0 else None

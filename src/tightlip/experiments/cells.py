"""The cells of an experiment: every point of its grid with every seed, each with the name of its file."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import TightlipError
from .protocol import Experiment, Preset, preset_name
from .words import name_of


@dataclass(frozen=True)
class Cell:
    """One row of an experiment, computed or not."""

    experiment: str
    config: dict[str, Any]
    axes: tuple[str, ...]
    seed: int
    preset: str = ""
    place: int = 0

    @property
    def file(self) -> str:
        """The name of its row's file."""
        return f"{self.stem}.json"

    @property
    def stem(self) -> str:
        """The values on the axes, the seed, and a hash of the whole config: its row's name, and that of its folder."""
        options = json.dumps(self.config, sort_keys=True)
        words = [f"{axis}={self.config[axis]}" for axis in self.axes]
        digest = hashlib.sha256(options.encode()).hexdigest()[:8]
        return "_".join([*words, f"seed{self.seed}", digest]).replace("/", "-").replace(" ", "")

    @property
    def words(self) -> str:
        """What a person would call it: 'schedule=bjorck1 start=gaussian seed 0'."""
        return " ".join([*(f"{axis}={self.config[axis]}" for axis in self.axes), f"seed {self.seed}"])


def cells(experiment: Experiment, preset: Preset) -> Iterator[Cell]:
    """Every cell of a preset in the order of the grid, first all of one seed: what is cut off has a whole table."""
    grid = {**experiment.GRID, **preset.grid}
    name = preset_name(experiment, preset)
    for seed in range(preset.seeds):
        for place, values in enumerate(itertools.product(*grid.values())):
            config = experiment.Config(**{**preset.shared, **dict(zip(grid, values, strict=True))})
            options = _as_json(config)
            yield Cell(name_of(experiment), options, tuple(grid), seed, name, place)


def config_of(experiment: Experiment, options: Mapping[str, Any]) -> Any:
    """The experiment's Config of options as a file holds them, in which tuples are lists."""
    return experiment.Config(**{name: tuple(v) if isinstance(v, list) else v for name, v in options.items()})


def _as_json(config: Any) -> dict[str, Any]:
    """The options as a file holds them.

    Raises:
        TightlipError: for numbers that JSON does not have.
    """
    try:
        return json.loads(json.dumps(asdict(config), allow_nan=False))  # type: ignore[no-any-return]
    except ValueError as error:
        raise TightlipError(f"a row keeps finite numbers only, so use None for others, got {config}") from error

"""What an experiment says of itself, once for all of its rows: its words, and what is known of each number."""

from dataclasses import dataclass, field

from ..decimals import bound_up, round_down, round_nearest
from .cell import DRAWINGS
from .fields import Fields
from .record import FileRecord, Record

FILE = "experiment.json"
"""Where it lies, beside the rows."""

PUBLISHED = "published"
"""What the paper's value was called in format 1."""

ROUNDINGS = {"nearest": round_nearest, "up": bound_up, "down": round_down}
"""How a number is shown: to the nearest, or a bound in its safe direction."""


def _rounding(fields: Fields, name: str) -> str:
    value = fields.text(name)
    return value if value in ROUNDINGS else fields.fail(name, f"one of {', '.join(ROUNDINGS)}")


@dataclass(frozen=True)
class Metric(Record):
    """One number of every row: what it means, and how it is to be read.

    ``rounding`` is up for what is proven from above, down for what is proven from below; ``truth`` is its true value,
    where that is known; ``published`` names the metric that holds the paper's value of it.
    """

    words: str = ""
    rounding: str = "nearest"
    truth: float | None = None
    published: str | None = None

    def __post_init__(self) -> None:
        """Refuses a rounding that is not known."""
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {self.rounding!r}")

    def shown(self, value: float, digits: int = 4) -> str:
        """A value in decimals, rounded as it may be."""
        return ROUNDINGS[self.rounding](value, digits)


@dataclass(frozen=True)
class Definition(FileRecord):
    """The file `FILE`: what a stranger must know to read the rows beside it."""

    experiment: str
    summary: str = ""
    about: str = ""
    config: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    curves: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> Metric:
        """The metric of this name; of one that is not described, a metric without words."""
        return self.metrics.get(name, Metric())

    def with_words_of(self, other: "Definition") -> "Definition":
        """What either says; where both do, the other."""
        metrics = self.metrics | {
            name: metric for name, metric in other.metrics.items() if metric.words or name not in self.metrics
        }
        return Definition(
            self.experiment,
            other.summary or self.summary,
            other.about or self.about,
            self.config | other.config,
            metrics,
            self.curves | other.curves,
        )

    @classmethod
    def from_json(cls, fields: Fields) -> "Definition":
        """What the file says; of format 1, what a row said of itself."""
        return _of_format_1(fields) if fields.values.get("format") == 1 else super().from_json(fields)


def _of_format_1(fields: Fields) -> Definition:
    """Rows had all the words, and names told which metrics are bounds and which is the paper's value."""
    told: dict[str, dict[str, str]] = {"config": {}, "metrics": {}, "curves": {}}
    if "explanations" in fields.values:
        parts = fields.inside("explanations")
        told |= {name: parts.words(name) for name in parts.values}
    truth = fields.table("truth") if "truth" in fields.values else {}
    about = fields.text("about") if "about" in fields.values else ""
    names = [name for name in {**fields.mapping("metrics"), **told["metrics"], **truth} if name not in DRAWINGS]
    compared = "objective" if "objective" in names else next((name for name in names if name != PUBLISHED), None)
    metrics = {
        name: Metric(
            told["metrics"].get(name, ""),
            {"constant": "up", "bound": "down"}.get(name, "nearest"),
            truth.get(name),
            PUBLISHED if name == compared and PUBLISHED in names else None,
        )
        for name in names
    }
    return Definition(fields.text("experiment"), fields.text("summary"), about, told["config"], metrics, told["curves"])

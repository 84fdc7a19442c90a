"""The options of a regression, as `tightlip train --task regression` has them, their defaults, and what they may be."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch.nn import functional

from ..choices import chosen
from ..constraints import Orthonormal, RowL1Ball
from ..norms import as_norm
from .limits import OF_ALL, refuse_beyond, refuse_widths
from .table_sizes import HIDDEN, NUMBERS, batch_of, passes_over

SLOPES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Constants that are tried, in standard deviations of the target per standardized unit."""

LOSSES = {"squared": functional.mse_loss, "absolute": functional.l1_loss}
"""What is minimized, of standardized targets."""

CONSTRAINTS = {"2": Orthonormal, "inf": RowL1Ball}
"""What holds the constant, by the norm of the features."""


@dataclass(frozen=True)
class Config:
    """Options of `tightlip train --task regression`."""

    data: str = ""
    """PATH of a .csv or .parquet table whose columns have names."""
    label: str | None = None
    """Column of the numbers that are predicted (default: the last)."""
    drop: tuple[str, ...] | None = None
    """Columns that are left out, such as numbers of customers."""
    norm: Literal["2", "inf"] = "2"
    """Norm of the standardized features in which the constant holds."""
    k: float | None = None
    """Lipschitz constant, in units of the target per standardized unit (default: of 0.5, 1, 2, 4 and 8 standard
    deviations of the target the smallest that validation data do not tell from the best)."""
    noise: float | None = None
    """What a number in the table is off by at most, in its unit: a claim of yours. With it the page shows where the
    truth can be at each test row if it changes no faster than K (default: no such band)."""
    loss: Literal["squared", "absolute"] = "squared"
    """What is minimized: the squared error, or the absolute one, which outliers move less."""
    hidden: tuple[int, ...] = HIDDEN
    """Widths of the hidden layers."""
    activation: str = "maxmin"
    """Activation after each hidden layer: maxmin, groupsort4, fullsort, abs, maxout, relu or tanh."""
    epochs: int | None = None
    """Passes over the training data; a quarter for each constant that is tried (default: 20 to 200, more of smaller
    tables)."""
    batch_size: int | None = None
    """Examples per step (default: 32, or 128 from 5000 training rows)."""
    learning_rate: float = 0.01
    """Initial, falling to zero along a cosine; of Adam."""
    average: float = 0.0
    """Decay, per step, of a moving average of the weights, in which epochs are judged and the network is kept; 0 for
    none, else such as 0.99."""
    seed: int = 0
    """Of the split, the initialization and the order of the examples."""

    @property
    def p(self) -> float:
        """The norm as a number."""
        return as_norm(self.norm)

    @property
    def resolved(self) -> dict[str, Any]:
        """The options as JSON has them."""
        return asdict(self)


def suited(config: Config, rows: int) -> Config:
    """With the epochs and batches that suit a training part of so many rows, where none are given."""
    epochs = passes_over(rows, NUMBERS) if config.epochs is None else config.epochs
    return replace(config, epochs=epochs, batch_size=config.batch_size or batch_of(rows))


def check(config: Config) -> None:
    """Refuse impossible options before anything is computed."""
    chosen("loss", config.loss, LOSSES)
    chosen("norm", config.norm, CONSTRAINTS)
    numbers = {
        "k": (config.k, 1e-30),
        "noise": (config.noise, 0),
        "epochs": (config.epochs, 1),
        "batch_size": (config.batch_size, 1),
    }
    limits = {name: (value, least) for name, (value, least) in numbers.items() if value is not None}
    limits |= {"learning_rate": (config.learning_rate, 1e-12), "average": (config.average, 0), "seed": (config.seed, 0)}
    refuse_beyond(limits, OF_ALL)
    refuse_widths("hidden", config.hidden, config.activation)

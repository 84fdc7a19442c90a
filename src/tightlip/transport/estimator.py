"""`WassersteinCritic`: the critic between two distributions as an estimator, with the manners of scikit-learn."""

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..arguments import output_of
from ..choices import unknown
from ..errors import TightlipError
from .interval import Interval
from .population import population
from .rows import Rows, pair_of_rows
from .views import device_of

BATCH = 2**12
"""Points that are transformed at once."""


class WassersteinCritic:
    """A 1-Lipschitz function that separates two distributions, with the interval of their Wasserstein-1 distance.

    Parameters are kept as they are given and looked at by `fit`, so scikit-learn's ``clone`` and grid searches take it;
    scikit-learn itself is not needed. The second argument of `fit` and `score` is the other sample, not labels.

    Args:
        p: The norm of the distance: 1, 2 or ∞.
        level: Of confidence, in (0, 1).
        diameter: Bound on the distance of any two points that can occur; None leaves the upper end infinite.
        critic: Which critics compete, as in ``wasserstein1(…, about="distributions")``.
        seconds: Train for about so long; None for a fixed number of steps.
        progress: Whether to show training on a terminal.
        seed: Of the parts, the training and the permutations.

    Attributes:
        interval_: The `Interval` that the last `fit` found.
        critic_: Its critic, a module in float64 of constant at most 1.

    It is no classifier: its values are distances, without a threshold.

    >>> x = torch.rand(600, 2, generator=torch.Generator().manual_seed(0))
    >>> estimator = WassersteinCritic(critic="linear").fit(x[:300], x[300:] + 1.0)
    >>> estimator.transform(x).shape, estimator.interval_.lower < 2**0.5
    (torch.Size([600]), True)
    """

    interval_: Interval
    critic_: nn.Module

    def __init__(
        self,
        *,
        p: float | str = 2,
        level: float = 0.95,
        diameter: float | None = None,
        critic: nn.Module | str | None = None,
        seconds: float | None = None,
        progress: bool = False,
        seed: int = 0,
    ) -> None:
        self.p = p
        self.level = level
        self.diameter = diameter
        self.critic = critic
        self.seconds = seconds
        self.progress = progress
        self.seed = seed

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; there are none inside of them, whatever ``deep`` is."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **parameters: Any) -> "WassersteinCritic":
        """Change parameters; what was fitted stays.

        Raises:
            TightlipError: for a name that is none of them.
        """
        for name, value in parameters.items():
            if name not in self.get_params():
                raise unknown("parameter", name, self.get_params())
            setattr(self, name, value)
        return self

    def fit(self, x: Any, y: Any) -> "WassersteinCritic":
        """Train, choose and confirm a critic that is larger on ``x``: samples (n, …) and (m, …) of one space.

        Raises:
            TightlipError: for samples or parameters that give no interval.
        """
        self.interval_ = population(x, y, **self.get_params())
        self.critic_, self._shape = self.interval_.critic, Rows(x, "x").shape
        return self

    def transform(self, x: Any) -> Tensor | np.ndarray:
        """The critic's values (n,) in float64, in units of the distance: of a tensor a tensor, of an array an array.

        Raises:
            TightlipError: before `fit`, or for points of another shape, NaN or infinite ones.
        """
        values = self._values(Rows(x, "x", least=1))
        return values if isinstance(x, Tensor) else values.numpy()

    def score(self, x: Any, y: Any) -> float:
        """The difference of the critic's means, at most W1 of these two samples.

        On points that `fit` has not seen its expectation is at most W1 of the distributions.

        Raises:
            TightlipError: as of `transform`.
        """
        first, second = (self._values(rows) for rows in pair_of_rows(x, y, least=1))
        return float(first.mean() - second.mean())

    def _values(self, rows: Rows) -> Tensor:
        critic = self._fitted()
        if rows.shape != self._shape:
            raise TightlipError(
                f"points have shape {rows.shape}, and fit has seen {self._shape}: give points like those"
            )
        return _values(critic, rows)

    def _fitted(self) -> nn.Module:
        if not hasattr(self, "critic_"):
            raise TightlipError("this WassersteinCritic has no critic yet: call fit(x, y) first")
        return self.critic_


@torch.no_grad()
def _values(critic: nn.Module, rows: Rows) -> Tensor:
    """Block by block, where the critic is."""
    parts = (part.to(device_of(critic)) for block in rows.finite_blocks() for part in block.split(BATCH))
    return torch.cat([output_of(critic, part).reshape(len(part)).to(rows.device) for part in parts])

"""Where the truth can be at the test rows of a regression, if the noise of its table is declared.

That is `ErrorBand` on standardized rows, with the network's constant: what the training rows say of any function that
changes no faster than the predictions may. The declaration may be wrong, and then rows refute it.
"""

import numpy as np
from torch import Tensor

from ..bands import ErrorBand
from ..errors import TightlipError
from ..records import TruthBand

MOST_ROWS = 100_000
"""Training rows of a band, which compares all pairs of them."""


def refuse_many(noise: float | None, rows: int) -> None:
    """Refuse a band of more training rows, before anything is trained."""
    if noise is not None and rows > MOST_ROWS:
        raise TightlipError(
            f"noise (--noise) compares all pairs of training rows, and takes {MOST_ROWS:,} of them at most, not "
            f"{rows:,}: leave it out, or give ErrorBand some of the rows"
        )


def truth_band(train: Tensor, targets: Tensor, test: Tensor, K: float, noise: float, p: float) -> TruthBand:
    """Where a function of slope K can be at test rows, if all training targets are within the noise of it."""
    try:
        lower, upper = ErrorBand(train, targets, K, noise, p)(test)
    except TightlipError as problem:
        return TruthBand(noise, np.empty(0), np.empty(0), str(problem))
    return TruthBand(noise, lower.numpy(), upper.numpy())

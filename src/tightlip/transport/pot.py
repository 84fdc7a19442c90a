"""Couplings and prices that POT's network simplex proposes, where POT is installed (`tightlip[transport]`).

It is some ten times as fast as `simplex`, cannot be stopped, and holds all costs and the whole coupling. Nothing that
it returns is believed: `bounds` computes what comes of it. Source: Bonneel, van de Panne, Paris & Heidrich 2011.
"""

import importlib
import importlib.util
import warnings
from dataclasses import dataclass

import numpy as np

from .bounds import normalized
from .costs import Clouds

LEAST, MOST = 2**17, 2**25
"""Pairs: fewer take less time than to import it; more take gigabytes."""

SECONDS = 1.5e-6
"""For each pair, at most; it takes 0.2e-6 to 0.5e-6 on a core of its own."""

PIVOTS = 10**12
"""Where it gives up; its own limit of 100,000 is reached with 2,000 points."""


@dataclass(frozen=True)
class Proposal:
    """Rows, columns and masses (k,) of a coupling, prices (m,), and whether POT holds them for the best."""

    pieces: tuple[np.ndarray, np.ndarray, np.ndarray]
    prices: np.ndarray
    best: bool


def fits(pairs: int, seconds: float) -> bool:
    """Whether it is worth asking, installed, and surely done in that time."""
    return LEAST <= pairs <= MOST and pairs * SECONDS <= seconds and importlib.util.find_spec("ot") is not None


def solved(clouds: Clouds) -> Proposal | None:
    """What POT proposes, for clouds whose costs are held; None if that is nothing."""
    assert clouds.matrix is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports, and of limits: its code tells
        emd = importlib.import_module("ot").emd
        largest = clouds.diameter
        costs, weights = (clouds.matrix / largest).numpy(), (normalized(clouds.weights_x), normalized(clouds.weights_y))
        plan, log = emd(*weights, costs, numItermax=PIVOTS, log=True)
    prices = -np.asarray(log["v"]) * largest
    if not (np.isfinite(plan).all() and (plan >= 0).all() and np.isfinite(prices).all()):
        return None
    rows, columns = np.nonzero(plan)
    return Proposal((rows, columns, plan[rows, columns]), prices, log["result_code"] == 1)

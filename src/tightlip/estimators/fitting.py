"""What the estimators share: a network in standard units is trained, frozen, and put behind its first layer.

Training is in torch's default dtype, all else in float64: rows alone then have the values that they have among others.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from ..arguments import flag, integer, number
from ..audit import Bound, lipschitz
from ..constraints import Constraint, Orthonormal, RowDualBall, RowL1Ball, freeze
from ..constructions.affine import scale
from ..descent import descend
from ..errors import TightlipError
from ..layers import Normalize
from ..networks import checked_sizes, mlp
from ..norms import as_norm
from ..tensors import as_tensor
from .standard import Standard, standard

KEPT = 1.0 - 2.0**-20
"""Of a constant that is promised, so that rounding breaks no promise."""

BLOCK = 2**13
"""Rows that are evaluated at once."""


class Training(NamedTuple):
    """How an estimator trains, checked."""

    hidden: list[int]
    p: float
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int

    def steps(self, rows: int) -> int:
        """How many there are for so many rows."""
        return self.epochs * -(-rows // self.batch_size)

    @classmethod
    def of(cls, estimator: Any, p: Any = 2) -> "Training":
        """What an estimator's parameters ask for; ``p`` is the norm where they leave it open.

        Raises:
            TightlipError: for one that makes no sense.
        """
        return cls(
            checked_sizes("hidden", estimator.hidden),
            as_norm(p if estimator.p is None else estimator.p),
            integer("epochs", estimator.epochs),
            integer("batch_size", estimator.batch_size),
            number("learning_rate", estimator.learning_rate, above=0),
            seed_of(estimator),
        )


def seed_of(estimator: Any) -> int:
    """A seed, by the estimator's ``random_state``: None draws one from numpy's global generator."""
    return int(check_random_state(estimator.random_state).randint(2**31 - 1))


def view_of(estimator: Any, X: Float64[np.ndarray, "n d"]) -> Standard:
    """Features in standard units, as the estimator asks for them."""
    return standard(X, flag("standardize", estimator.standardize))


def constant(estimator: Any, view: Standard, usual: float) -> float:
    """K of a network in standard units: what is left by the one that is promised of X, or else the usual one."""
    return usual if estimator.K is None else KEPT * number("K", estimator.K, above=0) * view.least


def network(
    training: Training, inputs: int, outputs: int, K: float, constraint: Constraint | None = None
) -> nn.Sequential:
    """A network that is K-Lipschitz in the p-norm, its weights in that set; drawn by torch's global generator."""
    layers = len(training.hidden) + 1
    first: Constraint = Orthonormal() if training.p == 2 else RowDualBall(training.p)
    others: Constraint = Orthonormal() if training.p == 2 else RowL1Ball()
    of_each = [first, *[others] * (layers - 1)] if constraint is None else constraint
    return mlp([inputs, *training.hidden, outputs], of_each, K=K)


def weights_asked(estimator: Any, p: float) -> Constraint | None:
    """The set that an estimator asks for, of those that bound every layer in the p-norm; None for the usual ones.

    Raises:
        TightlipError: for anything else.
    """
    asked = estimator.constraint
    if asked is None or (isinstance(asked, Constraint) and asked.promises and asked.norms == (p, p)):
        return asked
    bound = (
        "bounds no norm" if isinstance(asked, Constraint) and not asked.promises else f"does not bound the {p:g}-norm"
    )
    known = {2: "Orthonormal() or SpectralBall()", math.inf: "RowL1Ball()", 1: "ColumnL1Ball()"}
    raise TightlipError(f"constraint = {asked!r} {bound} of each layer: give {known[p]}, or leave it out")


def trained(
    make: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Tensor], Tensor],
    rows: int,
    training: Training,
    watch: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """A network that was made and trained under the seed, frozen, in float64. The global generator stays as it was.

    Args:
        make: Makes the network.
        loss: (network, indices of rows) → a scalar.
        rows: How many there are.
        training: For how long, and how.
        watch: Called with the network and the number of each step before it is taken.
    """
    with torch.random.fork_rng(devices=()), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(training.seed)
        made = make()
        optimizer = torch.optim.Adam(made.parameters(), training.learning_rate, fused=True)
        schedule = CosineAnnealingLR(optimizer, training.steps(rows))
        watched = None if watch is None else partial(watch, made)
        descend(made, optimizer, partial(loss, made), batches(rows, training), schedule, watched)
    return freeze(made).double()


def batches(rows: int, training: Training) -> Iterator[Tensor]:
    """Indices of rows, each once in an epoch, in a new order."""
    for _ in range(training.epochs):
        yield from torch.randperm(rows).split(training.batch_size)


def behind(view: Standard, fitted: nn.Module, K: float) -> nn.Sequential:
    """The network of X made of one in standard units, with K in the place of its last layer, a scale of 1."""
    return nn.Sequential(view.layer(), *list(fitted.children())[:-1], scale(K, torch.zeros(0, dtype=torch.float64)))


def minus(offset: float) -> Normalize:
    """The map x ↦ x − offset, in float64."""
    layer = Normalize(0.0, 1.0).double()
    layer.mean.fill_(offset)
    return layer


def slope(network: nn.Module, p: Any) -> Bound:
    """The proven constant of a network with one output. As that has one size, the least is the one to the ∞-norm."""
    return lipschitz(network, as_norm(p), math.inf)


def rows_of(estimator: Any, X: Any) -> Float64[np.ndarray, "n d"]:
    """The rows that a method of a fitted estimator is given, checked as scikit-learn does."""
    check_is_fitted(estimator)
    return validate_data(estimator, X, reset=False, dtype=np.float64)


@torch.no_grad()
def values(network: nn.Module, X: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n outputs"]:
    """What a network in float64 makes of rows, block by block."""
    found: np.ndarray = torch.cat([network(part) for part in as_tensor(X, "X").split(BLOCK)]).numpy()
    return found


def outputs(estimator: Any, X: Any) -> Float64[np.ndarray, "n outputs"]:
    """What the network of a fitted estimator makes of the rows that a method is given."""
    rows = rows_of(estimator, X)
    return values(estimator.network_, rows)

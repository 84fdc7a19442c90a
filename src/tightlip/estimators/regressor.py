"""`LipschitzRegressor`: a function with a proven slope, in the units of target and features, monotone where asked."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import validate_data
from torch import Tensor, nn

from ..arguments import number, vector
from ..audit import Bound
from ..errors import TightlipError
from ..monotonicity import monotone
from ..norms import dual
from .fitting import KEPT, Training, behind, minus, network, outputs, slope, trained, view_of, weights_asked
from .standard import LEAST, Standard

USUAL = 1.0
"""Standard deviations of the target for one of each feature, where no slope is asked for."""

STEEPER = 1.0 + 2.0**-14
"""The line of a monotone network against the largest slope of the rest, so that rounding does not tilt it."""

FARTHEST = 1e12
"""How far the targets may spread, in what a network of slope K can rise; the loss squares it, in float32."""


class LipschitzRegressor(RegressorMixin, BaseEstimator):
    """A regressor whose slope is bounded, by scikit-learn's conventions: |f(x) − f(x')| ≤ K·‖x − x'‖_p for all x, x'.

    K is in units of the target for one unit of X, as both are given. Features are standardized inside, by the training
    data. Standardization is a layer of `network_`, so the audit includes it.

    Args:
        hidden: Widths of the hidden layers; with orthonormal weights even numbers, for units are sorted in pairs.
        K: The slope, proven by `bound_`. None is one standard deviation of the target for one of the features, which
            `bound_` has in the units of both.
        p: The norm of X: 1, 2 or ∞. None is 2, or 1 where ``monotone`` has signs: then K bounds the slope along each
            feature by itself, and all can be flat at once. In another norm several features with signs cannot.
        monotone: One number for each feature: 1 where the prediction must not fall as the feature rises, −1 where it
            must not rise, 0 where it may do either. It is proven (`tightlip.monotone_signs`). None: no feature.
        constraint: The set that holds the weights, such as `SpectralBall` in the 2-norm. None: `Orthonormal` there,
            which makes the most of a small K; in other norms balls of rows. `SpectralBall` fits targets that are steep
            in few places and flat elsewhere, with a K of 8 or 16 standard deviations. Validation tells which one suits.
        standardize: Whether each feature has a unit of its own, its standard deviation; False takes one for all. Where
            units differ much, K with a unit for each is what the feature with the smallest one may use up; with False
            it holds for all alike, as of coordinates.
        epochs: Passes over the training data.
        batch_size: Rows for a step; at most all of them.
        learning_rate: At the first step; it falls to zero along a cosine.
        random_state: Of the weights and the order of the rows, as scikit-learn has it: an int repeats a fit.

    Attributes:
        network_: Frozen, in float64: rows (n, d) in units of X → predictions (n, 1) in those of the target.
        bound_: Its proven constant, a `Bound`.
        n_features_in_: d.
        feature_names_in_: Names of the features, of data frames.

    It minimizes squared errors. Along a feature without a sign a monotone one has half of K, for the rest is the line's
    (`tightlip.monotone`). It says nothing of noise. What is proven is proven of the function; a prediction is
    computed in float64, and off by what that rounds.

    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> regressor = LipschitzRegressor(K=1, random_state=0).fit(X, 3 * np.abs(X[:, 0]))
    >>> regressor.bound_.constant <= 1, float(np.ptp(regressor.predict(X))) <= 1
    (True, True)
    """

    network_: nn.Module
    bound_: Bound

    def __init__(
        self,
        *,
        hidden: Any = (64, 64),
        K: Any = None,
        p: Any = None,
        monotone: Any = None,
        constraint: Any = None,
        standardize: Any = True,
        epochs: Any = 50,
        batch_size: Any = 128,
        learning_rate: Any = 2e-2,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.K = K
        self.p = p
        self.monotone = monotone
        self.constraint = constraint
        self.standardize = standardize
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "LipschitzRegressor":
        """Train on rows X (n, d) and their targets y (n,).

        Raises:
            TightlipError: for a parameter that makes no sense.
            ValueError: as of scikit-learn's own estimators, for data that are none.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        y = _numbers(y)
        view, signs = view_of(self, X), self._signs(X.shape[1])
        training = Training.of(self, 2 if signs is None else 1)
        constraint = weights_asked(self, training.p)
        mean, k = float(y.mean()), self._slope(view, signs, training.p, y)
        z, targets = view(X), torch.from_numpy((y - mean) / k)[:, None].to(torch.get_default_dtype())

        def make() -> nn.Module:
            curve = network(training, X.shape[1], 1, 1.0, constraint)
            return curve if signs is None else monotone(curve, signs, np.full(len(signs), STEEPER))

        def loss(network: nn.Module, index: Tensor) -> Tensor:
            return nn.functional.mse_loss(network(z[index]), targets[index])

        fitted = trained(make, loss, len(z), training)
        if signs is None:
            self.network_ = nn.Sequential(*behind(view, fitted, k), minus(-mean))
        else:
            self.network_ = _rising(behind(view, fitted.curve, k), view, k, mean, signs)  # type: ignore[arg-type]
        self.bound_ = slope(self.network_, training.p)
        return self

    def predict(self, X: Any) -> Float64[np.ndarray, " n"]:
        """The prediction for each row, (n,), in units of the target."""
        return outputs(self, X)[:, 0]

    def _signs(self, features: int) -> np.ndarray | None:
        """The directions, or None where there are none."""
        if self.monotone is None:
            return None
        signs = vector("monotone", self.monotone).numpy()
        if len(signs) != features or not np.isin(signs, (-1, 0, 1)).all():
            raise TightlipError(
                f"monotone must be 1, -1 or 0 for each of {features} features, got {self.monotone!r}: leave it out "
                "where none has a direction"
            )
        return signs if signs.any() else None

    def _slope(self, view: Standard, signs: np.ndarray | None, p: float, y: np.ndarray) -> float:
        """Of the network in standard units: with a line beside it, what is left of K is for both."""
        with np.errstate(over="ignore"):
            spread = float(y.std())
        if not np.isfinite(spread):
            raise TightlipError("y has values whose squares overflow: give it in larger units")
        if spread < LEAST and y.min() < y.max():
            raise TightlipError("y has values whose squares underflow: give it in smaller units")
        if self.K is None:
            return USUAL * (spread if spread > 0 else 1.0)
        line = 0.0 if signs is None else float(np.linalg.norm(signs / view.unit, dual(p)))
        k = KEPT * number("K", self.K, above=0) / (1.0 / view.least + STEEPER * line)
        if spread >= FARTHEST * k:
            raise TightlipError(
                f"K = {self.K!r} is too small for targets that spread by {spread:.3g} and features whose smallest unit "
                f"is {view.least:.3g}: give a larger K, or leave it out"
            )
        return k


def _numbers(y: np.ndarray) -> np.ndarray:
    """Targets in float64, also where they are numbers in text."""
    try:
        if y.dtype.kind in "mM":
            raise ValueError(f"an array of {y.dtype}")
        return y.astype(np.float64)
    except (TypeError, ValueError) as problem:
        raise TightlipError(f"y must be numbers ({problem}): convert it, or predict classes") from problem


def _rising(curve: nn.Module, view: Standard, k: float, mean: float, signs: np.ndarray) -> nn.Module:
    """The sum of both in units of X; the line passes through the mean of the targets at that of the features."""
    graph = monotone(curve, signs, STEEPER * k / view.unit)
    graph.line.bias.fill_(mean - float(graph.line.weight.numpy()[0] @ view.mean))  # type: ignore[union-attr, operator]
    return graph

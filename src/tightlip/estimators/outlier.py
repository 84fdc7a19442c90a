"""`LipschitzOutlier`: one class against what surrounds it, with a score that is a proven distance from the border.

A 1-Lipschitz f is trained by the hinge-Kantorovich loss to be high on the data and low on points around them. These
begin anywhere in a box, and go by random shares of the way towards where f is 0 (Newton and Raphson):

    z ← z − η·f(z)·∇f(z)/‖∇f(z)‖²,     η uniform in [0, 1],

so that they close in on the data as f learns. Some make no move, or few: f is to be low far from the data too.
Source: Béthune et al., ICML 2023 (one-class signed distance functions), where all make as many.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import validate_data
from torch import Tensor, nn

from ..arguments import number
from ..audit import Bound
from ..losses import hinge_kantorovich
from ..robustness import certify
from .fitting import KEPT, Training, behind, minus, network, outputs, rows_of, slope, trained, values, view_of

HINGE = 1.0
"""The weight of the hinge in the loss."""

AROUND = 4.0
"""How far the box reaches beyond the data, in standard deviations of the features."""

ROUNDS, MOVES = 8, 6
"""How often in a training the surroundings are drawn anew, and how many moves they make at most towards the border."""


class LipschitzOutlier(OutlierMixin, BaseEstimator):
    """A detector of outliers with certified scores, by scikit-learn's conventions.

    ``decision_function`` is a 1-Lipschitz function of X in the p-norm, positive for inliers. So its size is a distance
    in units of X within which no change of a row, of all features together, turns an inlier into an outlier or back.

    Args:
        hidden: Widths of the hidden layers; with orthonormal weights even numbers, for units are sorted in pairs.
        p: The norm of X: 1, 2 or ∞.
        contamination: The share of the training data that is to be taken for outliers, in (0, 0.5].
        margin: How far from the border data and surroundings are asked to lie, in standard deviations.
        standardize: Whether each feature has a unit of its own, its standard deviation; False takes one for all.
        epochs: Passes over the training data.
        batch_size: Rows for a step, and as many points around them; at most all of them.
        learning_rate: At the first step; it falls to zero along a cosine.
        random_state: Of the weights, of the order of the rows and of the points around them, as scikit-learn has it: an
            int repeats a fit.

    Attributes:
        network_: Frozen, in float64: rows (n, d) in units of X → decisions (n, 1).
        bound_: Its proven constant, a `Bound`: at most 1.
        offset_: The score at which rows are taken for outliers.
        n_features_in_: d.
        feature_names_in_: Names of the features, of data frames.

    Scores are lower bounds of distances to the border of f, not of a density; with a unit for each feature they are in
    the smallest one.

    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> outlier = LipschitzOutlier(random_state=0).fit(X)
    >>> outlier.predict([[0.0, 0.0], [9.0, 9.0]]).tolist()
    [1, -1]
    """

    network_: nn.Module
    bound_: Bound
    offset_: float

    def __init__(
        self,
        *,
        hidden: Any = (64, 64),
        p: Any = 2,
        contamination: Any = 0.1,
        margin: Any = 1.0,
        standardize: Any = True,
        epochs: Any = 50,
        batch_size: Any = 128,
        learning_rate: Any = 2e-2,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.p = p
        self.contamination = contamination
        self.margin = margin
        self.standardize = standardize
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "LipschitzOutlier":
        """Train on rows X (n, d), most of them inliers; ``y`` is not looked at.

        Raises:
            TightlipError: for a parameter that makes no sense.
            ValueError: as of scikit-learn's own estimators, for data that are none.
        """
        X = validate_data(self, X, dtype=np.float64)
        training, view = Training.of(self), view_of(self, X)
        margin = number("margin", self.margin, above=0)
        share = number("contamination", self.contamination, above=0, most=0.5)
        z = view(X)
        around = _Surroundings(z, training)

        def loss(network: nn.Module, index: Tensor) -> Tensor:
            scores = network(torch.cat((z[index], around.points[index])))
            return hinge_kantorovich(scores, torch.arange(len(scores)).lt(len(index)).long(), margin, HINGE)

        fitted = trained(lambda: network(training, z.shape[1], 1, 1.0), loss, len(z), training, around.renew)
        scored = behind(view, fitted, KEPT * view.least)
        self.offset_ = float(np.percentile(values(scored, X), 100.0 * share))
        self.network_ = nn.Sequential(*scored, minus(self.offset_))
        self.bound_ = slope(self.network_, training.p)
        return self

    def decision_function(self, X: Any) -> Float64[np.ndarray, " n"]:
        """How far each row is inside, (n,): above 0 for inliers, below for outliers, in units of X."""
        return outputs(self, X)[:, 0]

    def score_samples(self, X: Any) -> Float64[np.ndarray, " n"]:
        """The decisions plus ``offset_``, (n,): higher is more like the training data."""
        return self.decision_function(X) + self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """1 for inliers and −1 for outliers, (n,)."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def certified_radius(self, X: Any) -> Float64[np.ndarray, " n"]:
        """Within which distance of each row its decision stays, (n,), in the p-norm of X: proven, and rounded down."""
        rows = rows_of(self, X)
        return certify(self.network_, rows, p=self.bound_.input_norm, progress=False).radius.numpy()


class _Surroundings:
    """Points around the data: as many, and where they are is renewed as the network learns."""

    def __init__(self, z: Float[Tensor, "n d"], training: Training) -> None:
        self.low, self.high = z.amin(0) - AROUND, z.amax(0) + AROUND
        self.points = z
        self.every = max(MOVES, training.steps(len(z)) // ROUNDS)  # so that moving takes no longer than training

    def renew(self, network: nn.Module, step: int) -> None:
        """Draw them anew, at the first step of a round."""
        if step % self.every == 0:
            self.points = self._closing_in(network, self._anywhere())

    def _anywhere(self) -> Float[Tensor, "n d"]:
        return self.low + (self.high - self.low) * torch.rand_like(self.points)

    def _closing_in(self, network: nn.Module, points: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        moves = torch.randint(MOVES + 1, (len(points), 1))
        for move in range(MOVES):
            points = points.detach().requires_grad_()
            values = network(points)
            (slope,) = torch.autograd.grad(values.sum(), points)
            step = torch.rand_like(values) * values / slope.square().sum(1, keepdim=True).clamp(min=0.01)
            points = torch.clamp(points - (move < moves) * step * slope, self.low, self.high)
        return points.detach()

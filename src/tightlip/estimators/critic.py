"""`WassersteinCritic`: a 1-Lipschitz function that tells two classes of rows apart, as a transformer of scikit-learn.

`tightlip.transport.WassersteinCritic` takes two samples and needs no scikit-learn; here both are rows of one X, and
labels say which is which, as pipelines and cross-validation have it.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import ClassifierTags, Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from ..audit import Bound
from ..errors import TightlipError
from ..transport.interval import Interval
from ..transport.population import LEAST, population
from .fitting import outputs, seed_of, slope, values


class WassersteinCritic(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The critic between two classes of rows, with a confidence interval of their Wasserstein-1 distance.

    ``transform`` gives its values: one feature, higher on the second class, that moves by no more than a row does.

    Args:
        p: The norm of the distance: 1, 2 or ∞.
        level: Of confidence, in (0, 1).
        diameter: Bound on the distance of any two rows that can occur; None leaves the upper end infinite.
        critic: "linear", which takes milliseconds, "network" or "funnels", which take seconds; None lets all compete;
            or a constrained module of your own.
        seconds: Train for about so long; None for a fixed number of steps.
        random_state: Of the parts, the training and the permutations, as scikit-learn has it: an int repeats a fit.

    Attributes:
        classes_: Both labels, sorted.
        interval_: The `Interval`: with probability ``level`` it holds the distance of the distributions of both.
        network_: The critic, frozen, in float64: rows (n, d) → values (n, 1), in units of the distance.
        bound_: Its proven constant, a `Bound`: at most 1.
        n_features_in_: d.
        feature_names_in_: Names of the features, of data frames.

    It is no classifier: its values are distances, without a threshold.

    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.random((200, 2)), np.repeat(["near", "far"], 100)
    >>> X[y == "near"] += 1.0
    >>> critic = WassersteinCritic(random_state=0).fit(X, y)
    >>> critic.transform(X).shape, 0 < critic.interval_.lower < 2**0.5
    ((200, 1), True)
    """

    classes_: np.ndarray
    interval_: Interval
    network_: nn.Module
    bound_: Bound

    def __init__(
        self,
        *,
        p: Any = 2,
        level: Any = 0.95,
        diameter: Any = None,
        critic: Any = "linear",
        seconds: Any = None,
        random_state: Any = None,
    ) -> None:
        self.p = p
        self.level = level
        self.diameter = diameter
        self.critic = critic
        self.seconds = seconds
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        """Needs labels, of two classes."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags

    def fit(self, X: Any, y: Any) -> "WassersteinCritic":
        """Train, choose and confirm a critic on rows X (n, d) with labels y (n,): three rows of each class at least.

        Raises:
            TightlipError: for labels of another number of classes, too few rows, or parameters that give no interval.
            ValueError: as of scikit-learn's own estimators, for data that are none.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        first, second = self._parts(X, y)
        options = {name: getattr(self, name) for name in ("p", "level", "diameter", "critic", "seconds")}
        self.interval_ = population(second, first, seed=seed_of(self), **options)
        self.network_ = self.interval_.critic
        self.bound_ = slope(self.network_, self.p)
        return self

    def transform(self, X: Any) -> Float64[np.ndarray, "n 1"]:
        """The critic's values (n, 1), in units of the distance."""
        return outputs(self, X)

    def score(self, X: Any, y: Any) -> float:
        """The difference of the critic's means on both classes, at most W1 of these two samples.

        On rows that `fit` has not seen its expectation is at most W1 of the distributions.

        Raises:
            TightlipError: for labels other than those of `fit`, or rows of one class alone.
        """
        check_is_fitted(self)
        X, y = validate_data(self, X, y, reset=False, dtype=np.float64)
        found = values(self.network_, X)[:, 0]
        members = [y == label for label in self.classes_]
        if not (all(map(np.any, members)) and (members[0] | members[1]).all()):
            raise TightlipError(f"y must have both labels of fit, {self.classes_.tolist()}, and no others")
        return float(found[members[1]].mean() - found[members[0]].mean())

    def _parts(self, X: Float64[np.ndarray, "n d"], y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of both classes."""
        check_classification_targets(y)
        self.classes_, counts = np.unique(y, return_counts=True)
        if len(self.classes_) != 2 or min(counts) < LEAST:
            kinds = "1 class" if len(counts) == 1 else f"{len(counts)} classes"
            raise TightlipError(
                f"y has {kinds} with n_samples = {', '.join(map(str, counts[:9]))}: give labels of two classes, and "
                f"{LEAST} rows of each at least"
            )
        return X[y == self.classes_[0]], X[y == self.classes_[1]]

    @property
    def _n_features_out(self) -> int:
        return 1

"""`LipschitzClassifier`: logits with a proven constant, and so a radius for each row within which its class stays."""

from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor, nn

from ..arguments import number
from ..audit import Bound, lipschitz
from ..errors import TightlipError
from ..losses import margin_cross_entropy
from ..robustness import Certificate, certify
from ..tensors import as_tensor
from .fitting import Training, constant, network, outputs, rows_of, trained, view_of

USUAL = 4.0
"""K for each standard deviation of the features, where none is asked for."""

LARGEST = 1e12
"""Of outputs, in training: the loss is computed in float32."""


class LipschitzClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of rows with certified radii, by scikit-learn's conventions.

    Features are standardized inside, by the training data. Standardization is a layer of `network_`, so the audit
    includes it, and constant and radii are in the units of X as it is given.

    Args:
        hidden: Widths of the hidden layers; with orthonormal weights even numbers, for units are sorted in pairs.
        K: The constant of the logits in the p-norm of X, proven by `bound_`. It acts as a temperature: a smaller one
            asks for more margin and gives softer probabilities. None is 4 for each standard deviation.
        p: The norm of perturbations: 1, 2 or ∞.
        eps: A radius in units of X that training asks for. The logits are asked for the margin that certifies it.
        standardize: Whether each feature has a unit of its own, its standard deviation; False takes one for all, for
            features that are alike, such as pixels or coordinates.
        epochs: Passes over the training data.
        batch_size: Rows for a step; at most all of them.
        learning_rate: At the first step; it falls to zero along a cosine.
        random_state: Of the weights and the order of the rows, as scikit-learn has it: an int repeats a fit.

    Attributes:
        classes_: The labels, sorted, shape (c,).
        network_: Frozen, in float64: rows (n, d) in units of X → logits (n, c).
        bound_: Its proven constant, a `Bound`.
        n_features_in_: d.
        feature_names_in_: Names of the features, of data frames.

    A radius is about all features at once, so that with the smallest unit counts most. It is about the trained network,
    not about what training again on other rows would give.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = LipschitzClassifier(epochs=20, random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.9, classifier.certified_radius(X).shape
    (True, (150,))
    """

    classes_: np.ndarray
    network_: nn.Module
    bound_: Bound

    def __init__(
        self,
        *,
        hidden: Any = (64, 64),
        K: Any = None,
        p: Any = 2,
        eps: Any = 0.0,
        standardize: Any = True,
        epochs: Any = 50,
        batch_size: Any = 128,
        learning_rate: Any = 2e-2,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.K = K
        self.p = p
        self.eps = eps
        self.standardize = standardize
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "LipschitzClassifier":
        """Train on rows X (n, d) and their labels y (n,), of two classes at least.

        Raises:
            TightlipError: for one class, or a parameter that makes no sense.
            ValueError: as of scikit-learn's own estimators, for data that are none.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        try:
            check_classification_targets(y)
            self.classes_, codes = np.unique(y, return_inverse=True)
        except TypeError as problem:
            raise TightlipError(
                f"y has labels of kinds that have no order ({problem}): give strings alone, or numbers alone"
            ) from problem
        if len(self.classes_) < 2:
            raise TightlipError(f"y has 1 class, {self.classes_.tolist()[0]!r}: give rows of two classes at least")
        training, view = Training.of(self), view_of(self, X)
        K = constant(self, view, USUAL)
        offset = self._margin(training.p, K / view.least)
        if max(K, offset) > LARGEST:
            raise TightlipError(
                f"K = {self.K!r} and eps = {self.eps!r} ask for outputs beyond {LARGEST:g}, too large for float32: "
                "give less"
            )
        z, labels = view(X), as_tensor(codes, "y")

        def loss(network: nn.Module, index: Tensor) -> Tensor:
            return margin_cross_entropy(network(z[index]), labels[index], offset)

        frozen = trained(lambda: network(training, z.shape[1], len(self.classes_), K), loss, len(z), training)
        self.network_ = nn.Sequential(view.layer(), *frozen.children())
        self.bound_ = lipschitz(self.network_, training.p)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row, (n,), of the labels in ``classes_``."""
        best = outputs(self, X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> Float64[np.ndarray, "n c"]:
        """A probability of each class, (n, c), in the order of ``classes_``: the softmax of the logits."""
        probability: np.ndarray = softmax(outputs(self, X), axis=1)
        return probability

    def certified_radius(self, X: Any) -> Float64[np.ndarray, " n"]:
        """Within which distance of each row its predicted class stays, right or wrong: (n,), in the p-norm of X."""
        return self.certify(X).radius.numpy()

    def certify(self, X: Any, y: Any = None) -> Certificate:
        """The `Certificate` of these rows, whose labels are numbers: the places of the classes in ``classes_``.

        Args:
            X: Rows (n, d).
            y: Their true classes (n,), or None: then what is certified is the predicted class, right or wrong.

        Raises:
            TightlipError: for a label that was not there in `fit`.
        """
        X = rows_of(self, X)
        codes = None if y is None else self._codes(y)
        return certify(self.network_, X, codes, p=self.bound_.input_norm, progress=False)

    def _margin(self, p: float, K: float) -> float:
        """How far the true logit must lead for the radius eps: 2^(1−1/q)·K·eps, q being 2 for p = 2 and ∞ else."""
        factor = 2.0**0.5 if p == 2 else 2.0
        return factor * K * number("eps", self.eps, least=0)

    def _codes(self, y: Any) -> np.ndarray:
        labels = column_or_1d(y)
        codes = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
        if not (known := self.classes_[codes] == labels).all():
            raise TightlipError(
                f"y has the label {labels[~known].tolist()[0]!r}, which fit has not seen: leave such rows out"
            )
        return codes

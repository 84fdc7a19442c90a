"""All of scikit-learn's own checks of estimators, none of which may fail; small networks, so that it takes seconds."""

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from tightlip.estimators import LipschitzClassifier, LipschitzOutlier, LipschitzRegressor, WassersteinCritic

SMALL = {"hidden": (), "epochs": 3, "batch_size": 512, "learning_rate": 0.3}
SMALL_CURVE = SMALL | {"hidden": (4,), "epochs": 6}  # of classifiers it is asked that they fit blobs


@parametrize_with_checks(
    [
        LipschitzClassifier(**SMALL_CURVE),
        LipschitzRegressor(**SMALL | {"epochs": 10}),  # it is asked for R² > 0.5
        LipschitzOutlier(**SMALL),
        WassersteinCritic(),
    ]
)
def test_what_scikit_learn_asks_of_estimators(estimator, check):
    check(estimator)

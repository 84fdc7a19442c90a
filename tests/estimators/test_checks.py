"""All of scikit-learn's own checks of estimators, none of which may fail; small networks, so that it takes seconds."""

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from tightlip.estimators import LipschitzClassifier, LipschitzOutlier, LipschitzRegressor, WassersteinCritic

SMALL = {"hidden": (8,), "epochs": 10, "batch_size": 512, "learning_rate": 0.1}


@parametrize_with_checks(
    [
        LipschitzClassifier(**SMALL),
        LipschitzRegressor(**SMALL | {"epochs": 25}),  # it is asked for R² > 0.5
        LipschitzOutlier(**SMALL),
        WassersteinCritic(),
    ]
)
def test_what_scikit_learn_asks_of_estimators(estimator, check):
    check(estimator)

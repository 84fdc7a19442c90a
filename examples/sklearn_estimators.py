"""scikit-learn: K by cross-validation, radii in the units of the table, and a slope that never points down."""

import importlib.util

if importlib.util.find_spec("sklearn") is None:
    print("skipped: this example needs scikit-learn, which pip install 'tightlip[sklearn]' brings")
    raise SystemExit

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, train_test_split

import tightlip
from tightlip.estimators import LipschitzClassifier, LipschitzRegressor

x, y = load_breast_cancer(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(x, y, random_state=0, stratify=y)
classifier = LipschitzClassifier(hidden=(32,), epochs=15, random_state=0)
search = GridSearchCV(classifier, {"eps": [0.0, 0.001]}, cv=2).fit(train_x, train_y)
best = search.best_estimator_
certificate = best.certify(test_x, test_y)
print(f"accuracy {best.score(test_x, test_y):.1%}; median radius {np.median(best.certified_radius(test_x)):.4f}")
print(f"right, and proven to stay so within 0.001 in the 2-norm: {certificate.accuracy(0.001):.1%}")

# Disease progression must not fall as the body mass index (feature 2) or the blood pressure (feature 3) rises.
x, y = load_diabetes(return_X_y=True, scaled=False)
train_x, test_x, train_y, test_y = train_test_split(x, y, random_state=0)
signs = [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
regressor = LipschitzRegressor(hidden=(32,), monotone=signs, epochs=40, random_state=0).fit(train_x, train_y)
ridge = Ridge().fit(train_x, train_y)
print(f"R² {regressor.score(test_x, test_y):.2f}, ridge regression {ridge.score(test_x, test_y):.2f}")
print(f"no unit of a feature is worth more than {regressor.bound_.constant:.1f}, proven")
assert tightlip.monotone_signs(regressor.network_).tolist() == signs
assert certificate.accuracy(0) > 0.9

"""Estimators whose constants, radii and directions hold, in the units of the data, in scikit-learn's own machinery."""

import pickle
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

import joblib
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tightlip
from tightlip import TightlipError, lipschitz
from tightlip.estimators import LipschitzClassifier, LipschitzOutlier, LipschitzRegressor, WassersteinCritic

QUICK = {"hidden": (16,), "epochs": 25, "batch_size": 256, "learning_rate": 6e-2, "random_state": 0}
RNG = np.random.default_rng(0)
X, Y = load_wine(return_X_y=True)
NAMES = np.array(["barolo", "grignolino", "barbera"])[Y]
U = RNG.normal(size=(120, 3)) * [1.0, 10.0, 0.1] + [5.0, -70.0, 0.0]
TARGETS = 3 * np.abs(U[:, 0] - 5) + U[:, 1] / 10 + RNG.normal(size=120) / 10


@pytest.fixture(scope="module")
def classifier():
    return LipschitzClassifier(**QUICK).fit(X, NAMES)


@pytest.fixture(scope="module")
def outlier():
    return LipschitzOutlier(**QUICK).fit(U)


def directions(rows, p):
    """Two moves of p-norm 1 for each row: a random one, and one along a single feature."""
    moves = np.concatenate([RNG.normal(size=rows.shape), np.eye(rows.shape[1])[np.arange(len(rows)) % rows.shape[1]]])
    return moves / np.linalg.norm(moves, p, axis=1, keepdims=True)


def test_the_radius_of_a_linear_classifier_is_the_distance_to_its_border():
    two = Y < 2
    fitted = LipschitzClassifier(hidden=(), standardize=False, epochs=5).fit(X[two], Y[two])
    points = torch.tensor(X[two], requires_grad=True)
    logits = fitted.network_(points)
    (slope,) = torch.autograd.grad((logits[0, 1] - logits[0, 0]), points)
    distance = (logits[:, 1] - logits[:, 0]).abs() / slope[0].norm()
    assert fitted.certified_radius(X[two]) == pytest.approx(distance.detach().numpy(), rel=1e-5)


def test_units_of_features_do_not_matter_and_radii_are_in_them(classifier):
    scaled = LipschitzClassifier(**QUICK).fit(1024 * X, NAMES)
    assert np.allclose(scaled.predict_proba(1024 * X), classifier.predict_proba(X), atol=1e-6)
    assert scaled.certified_radius(1024 * X) == pytest.approx(1024 * classifier.certified_radius(X), rel=1e-3)
    other = 10.0 ** (np.arange(X.shape[1]) % 5) * X + 3
    assert (LipschitzClassifier(**QUICK).fit(other, NAMES).predict(other) == classifier.predict(X)).all()


def test_asking_for_a_radius_makes_radii_larger(classifier):
    asked = LipschitzClassifier(eps=0.2, **QUICK).fit(X, NAMES)
    assert np.median(asked.certified_radius(X)) > 1.1 * np.median(classifier.certified_radius(X))


def test_a_certificate_knows_labels_by_their_places(classifier):
    certificate = classifier.certify(X, NAMES)
    assert certificate.accuracy(0) == classifier.score(X, NAMES)
    assert (classifier.classes_[certificate.label] == NAMES).all()
    assert not classifier.certify(X).labeled
    assert (classifier.certify(X, NAMES[::-1]).radius[classifier.predict(X) != NAMES[::-1]] == 0).all()
    with pytest.raises(TightlipError, match="label 'merlot', which fit has not seen"):
        classifier.certify(X[:2], ["barolo", "merlot"])


@pytest.mark.parametrize(("p", "K"), [(1, 8.0), (2, 0.1), (np.inf, 8.0)])
@pytest.mark.parametrize("options", [{}, {"monotone": [1, 0, -1]}])
def test_a_slope_that_is_promised_is_kept_and_used(p, K, options):
    rows = RNG.uniform(size=(40, 3))
    fitted = LipschitzRegressor(K=K, p=p, hidden=(8,), epochs=10, **options).fit(rows, 100 * rows[:, 0])
    both = np.concatenate([rows, rows])
    assert 0.25 * K < fitted.bound_.constant <= K
    assert np.abs(fitted.predict(both + directions(rows, p)) - fitted.predict(both)).max() <= K
    if not options:
        classifier = LipschitzClassifier(K=K, p=p, hidden=(8,), epochs=2).fit(rows, rows[:, 0] > 0.5)
        assert 0.25 * K < classifier.bound_.constant <= K


def test_a_slope_bounds_what_is_learned():
    x = np.linspace(-1, 1, 200)[:, None]
    options = QUICK | {"epochs": 60, "learning_rate": 0.1, "hidden": (8,)}
    steep, flat = (LipschitzRegressor(K=K, **options).fit(x, 3 * np.abs(x[:, 0])) for K in (4, 1))
    assert steep.score(x, 3 * np.abs(x[:, 0])) > 0.98
    assert 0.8 < np.ptp(flat.predict(x)) <= 1  # at a slope of 1 it rises by 1 at most from 0 to 1


def test_directions_are_proven_and_cost_little_where_they_are_true():
    signs = [1, 1, 1, -1]
    rows = RNG.normal(size=(200, 4)) * [1, 10, 0.1, 1]
    rising = rows @ [1, 0.1, 10, -1]
    fitted = LipschitzRegressor(monotone=signs, **QUICK).fit(rows, rising)
    assert fitted.score(rows, rising) > 0.95
    assert tightlip.monotone_signs(fitted.network_).tolist() == signs
    for j, sign in enumerate(signs):
        moved = rows + np.eye(4)[j] * rows[:, j].std() * RNG.exponential(size=(200, 1))
        assert (sign * (fitted.predict(moved) - fitted.predict(rows)) >= 0).all()


def test_all_features_can_be_flat_at_once():
    rows = RNG.normal(size=(200, 4))
    options = QUICK | {"monotone": [1, 1, 1, 1], "learning_rate": 0.1}
    fitted = LipschitzRegressor(**options).fit(rows, -rows.sum(1))  # it would like to fall
    assert np.ptp(fitted.predict(rows)) < 0.2 * np.ptp(rows.sum(1))


def test_decisions_are_distances(outlier):
    assert outlier.bound_.constant <= 1 and outlier.bound_ == lipschitz(outlier.network_, 2, np.inf)
    decision = outlier.decision_function(U)
    radius, rows = outlier.certified_radius(U), np.concatenate([U, U])
    assert (radius >= 0.999 * np.abs(decision)).all()
    moved = rows + directions(U, 2) * np.concatenate([radius, radius])[:, None]
    assert (outlier.predict(moved) == outlier.predict(rows)).all()
    assert (outlier.predict(U) == -1).sum() == 12
    assert outlier.score_samples(U) - outlier.offset_ == pytest.approx(decision)
    assert (outlier.predict(U.mean(0) + 8 * U.std(0) * directions(U, 2)) == -1).all()


def test_a_critic_tells_classes_apart():
    two = Y < 2
    critic = WassersteinCritic(random_state=0).fit(X[two], NAMES[two])
    values = critic.transform(X[two])[:, 0]
    apart = values[NAMES[two] == "grignolino"].mean() - values[NAMES[two] == "barolo"].mean()
    assert critic.score(X[two], NAMES[two]) == pytest.approx(apart)
    assert critic.interval_.lower > 100 and critic.bound_.constant <= 1
    with pytest.raises(TightlipError, match="both labels of fit"):
        critic.score(X, NAMES)
    with pytest.raises(TightlipError, match="3 classes with n_samples = 48, 59, 71: give labels of two"):
        critic.fit(X, NAMES)


def test_pipelines_searches_and_validation():
    small = {"hidden": (), "epochs": 10, "batch_size": 256, "learning_rate": 0.1, "random_state": 0}
    pipeline = make_pipeline(StandardScaler(), LipschitzClassifier(**small))
    search = GridSearchCV(pipeline, {"lipschitzclassifier__K": [0.1, 4]}, cv=2, scoring="neg_log_loss").fit(X, NAMES)
    assert search.best_params_ == {"lipschitzclassifier__K": 4} and search.score(X, NAMES) > -0.5
    grid = GridSearchCV(LipschitzRegressor(**QUICK), {"K": [0.01, 40.0]}, cv=2)
    assert grid.fit(U, TARGETS).best_params_ == {"K": 40.0}
    two = Y < 2
    before = make_pipeline(WassersteinCritic(), LipschitzClassifier(**small))
    assert cross_val_score(before, X[two], Y[two], cv=2).min() > 0.6
    inside = cross_val_score(LipschitzOutlier(hidden=(), epochs=2), U, cv=2, scoring=lambda e, x: e.predict(x).mean())
    assert inside.shape == (2,)


@pytest.mark.parametrize(
    ("kind", "method"),
    [(LipschitzClassifier, "predict_proba"), (LipschitzRegressor, "predict"), (LipschitzOutlier, "decision_function")],
)
def test_a_seed_repeats_a_fit_and_nothing_else_is_touched(kind, method):
    state, labels = torch.get_rng_state(), U[:, 1] > -70
    fitted = [kind(hidden=(8,), epochs=3, random_state=seed).fit(U, labels) for seed in (3, 3, 4)]
    found = [getattr(estimator, method)(U) for estimator in fitted]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_fitted_estimators_can_be_pickled_cloned_and_their_networks_saved(classifier, outlier, tmp_path):
    for fitted, rows, method in ((classifier, X, "predict_proba"), (outlier, U, "decision_function")):
        joblib.dump(fitted, tmp_path / "fitted.joblib")
        for again in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "fitted.joblib")):
            assert np.array_equal(getattr(again, method)(rows), getattr(fitted, method)(rows))
            assert again.bound_ == fitted.bound_ and not hasattr(clone(again), "network_")
    rising = LipschitzRegressor(monotone=[0, 1, 0], hidden=(8,), epochs=2).fit(U, TARGETS)
    for fitted in (classifier, outlier, rising):
        tightlip.save(fitted.network_, tmp_path / "model.safetensors")
        loaded, bound = tightlip.load(tmp_path / "model.safetensors"), fitted.bound_
        assert lipschitz(loaded, bound.input_norm, bound.output_norm) == bound


def test_a_feature_that_never_varies_costs_nothing():
    rows = np.column_stack([U[:, 0], np.full(len(U), 0.1), U[:, 1]])
    fitted = LipschitzRegressor(hidden=(8,), epochs=2).fit(rows, TARGETS)
    assert fitted.network_[0].std.tolist() == pytest.approx([rows[:, j].std() for j in (0, 2, 2)])
    flat = LipschitzRegressor(hidden=(8,), epochs=2).fit(np.ones((5, 2)), np.full(5, 7.0))
    assert flat.predict([[1.0, 1.0]]) == pytest.approx([7.0], abs=2)


def test_names_of_features_and_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[Y < 2], columns=load_wine().feature_names)
    critic = WassersteinCritic().set_output(transform="pandas").fit(frame, Y[Y < 2])
    assert list(critic.transform(frame).columns) == ["wassersteincritic0"]
    assert list(critic.feature_names_in_) == load_wine().feature_names
    fitted = LipschitzClassifier(hidden=(4,), epochs=1).fit(frame, Y[Y < 2])
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame.rename(columns={"ash": "ashes"}))


@pytest.mark.parametrize(
    ("estimator", "problem"),
    [
        (LipschitzClassifier(hidden=(0,)), "hidden must be integers ≥ 1"),
        (LipschitzClassifier(p=3), "choose 1, 2 or inf"),
        (LipschitzClassifier(K=0), "K must be a finite number > 0"),
        (LipschitzClassifier(eps=-1), "eps must be a finite number ≥ 0"),
        (LipschitzClassifier(standardize="no"), "standardize must be True or False"),
        (LipschitzRegressor(epochs=0), "epochs must be an integer ≥ 1"),
        (LipschitzRegressor(batch_size=2.5), "batch_size must be an integer ≥ 1"),
        (LipschitzRegressor(learning_rate=0), "learning_rate must be a finite number > 0"),
        (LipschitzRegressor(monotone=[1, 0]), "1, -1 or 0 for each of 4 features"),
        (LipschitzRegressor(monotone=[1, 0, 0, 2]), "1, -1 or 0 for each of 4 features"),
        (LipschitzRegressor(constraint="spectral"), r"'spectral' does not bound the 2-norm .* or SpectralBall\(\)"),
        (LipschitzRegressor(constraint=tightlip.RowL1Ball()), "does not bound the 2-norm of each layer"),
        (LipschitzRegressor(constraint=tightlip.SpectralBall(), p="inf"), r"give RowL1Ball\(\), or leave it out"),
        (LipschitzRegressor(constraint=tightlip.Parseval()), "bounds no norm"),
        (LipschitzOutlier(contamination=0.7), "contamination must be .* ≤ 0.5"),
        (LipschitzOutlier(margin=0), "margin must be a finite number > 0"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(estimator, problem):
    data = load_iris(return_X_y=True)
    with pytest.raises(TightlipError, match=problem):
        estimator.fit(*data)


def test_a_target_that_is_steep_at_one_place_is_fitted_in_the_spectral_ball():
    """Orthonormal weights lead all of their slope through; these can be flat, at the same K."""
    x = np.linspace(-1, 1, 200)[:, None]
    target = 20 * np.maximum(x[:, 0] - 0.8, 0)
    options = {"K": 100.0, "hidden": (32, 32), "epochs": 60, "batch_size": 50, "random_state": 0}
    orthonormal, ball = (
        LipschitzRegressor(constraint=c, **options).fit(x, target) for c in (None, tightlip.SpectralBall())
    )
    assert ball.score(x, target) > orthonormal.score(x, target) + 0.2
    assert repr(clone(ball)) == repr(ball) and ball.bound_.constant <= 100


def test_numbers_whose_squares_underflow_are_one_sentence():
    """They were taken for features that never vary, and for a target in another unit."""
    rows = U.copy()
    rows[:, 1] *= 1e-170
    for estimator in (LipschitzRegressor(), LipschitzClassifier(), LipschitzOutlier()):
        with pytest.raises(TightlipError, match="feature 1 has values whose squares underflow: give it in smaller"):
            estimator.fit(rows, TARGETS > 0)
    with pytest.raises(TightlipError, match="y has values whose squares underflow"):
        LipschitzRegressor().fit(U, TARGETS * 1e-170)


def test_targets_and_labels_of_no_kind_are_one_sentence():
    rows, quick = U[:20], {"epochs": 1, "hidden": (4,), "random_state": 0}
    numbers = LipschitzRegressor(**quick).fit(rows, TARGETS[:20])
    text = LipschitzRegressor(**quick).fit(rows, TARGETS[:20].astype(str))
    assert np.array_equal(text.predict(rows), numbers.predict(rows))
    for wrong in (np.array(["red"] * 20), np.array(["2020-01-01"] * 20, dtype="datetime64[D]")):
        with pytest.raises(ValueError, match="y must be numbers"):
            LipschitzRegressor().fit(rows, wrong)
    with pytest.raises(ValueError, match="strings alone, or numbers alone"):
        LipschitzClassifier().fit(rows, np.array(["b", 1] * 10, dtype=object))
    for beyond in ({"K": 1e300}, {"eps": 1e300}):
        with pytest.raises(TightlipError, match="ask for outputs beyond 1e\\+12, too large for float32"):
            LipschitzClassifier(**beyond).fit(rows, TARGETS[:20] > np.median(TARGETS[:20]))


def test_numbers_that_overflow_are_one_sentence():
    rows = U.copy()
    rows[:, 1] *= 1e160
    with pytest.raises(TightlipError, match="feature 1 has values whose squares overflow"):
        LipschitzRegressor().fit(rows, TARGETS)
    with pytest.raises(TightlipError, match="y has values whose squares overflow"):
        LipschitzRegressor().fit(U, 1e200 * TARGETS)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tightlip.estimators")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn.utils.validation", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[sklearn\]'"):
        import tightlip.estimators  # noqa: F401

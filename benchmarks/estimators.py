"""Estimators with a proven constant beside scikit-learn's own, on the same rows, each tuned the same way.

    pip install 'tightlip[sklearn]'
    python benchmarks/estimators.py [SET …]        such as yacht or 6_cardio; needs TIGHTLIP_DATA

Regression (folder uci-regression, the published splits): `LipschitzRegressor`, ridge regression and an MLP of the same
widths. Each chooses on the same fifth of the training part and is fitted again: ours K and whether weights are
orthonormal or of norm at most 1, the MLP its penalty and learning rate, ridge its penalty. A slope is in standard
deviations of the target for one of the features, in the 2-norm: proven of ours, exact of ridge's, the product of the
layers' norms of the MLP's. Both networks take as many epochs, in batches of 64: about `STEPS` steps, in 25 to 200
epochs. At the end the mean over the splits of each set, and ours against the MLP's.

Outliers (folder adbench): `LipschitzOutlier`, an isolation forest and a one-class SVM, fitted on half of the usual rows
and judged by AUROC on the other half and all outliers, features standardized. The certified one is what is left if each
row may be moved by eps = 0.1 standard deviations, usual ones outwards and outliers inwards.

Prints a line for each set and split, and writes results/estimators.json, anew after each.
"""

import argparse
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

import tightlip
from tightlip.estimators import LipschitzOutlier, LipschitzRegressor
from tightlip.provenance import provenance
from tightlip.records import BenchRow

HIDDEN = (64, 64)
BATCH = 64

STEPS = 2000

STEEPNESS = (2.0, 4.0, 8.0, 16.0)
"""K, in standard deviations of the target for one of the features."""

PENALTIES, RATES = (1e-4, 1e-2, 1.0), (3e-3, 1e-2)
"""Of the MLP."""

EPS = 0.1


def rmse(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """The root of the mean square error."""
    return float(np.sqrt(np.mean((model.predict(x) - y) ** 2)))


def tuned(model: Any, grid: dict[str, Any], x: np.ndarray, y: np.ndarray) -> Any:
    """The model with what is best on a fifth of these rows, fitted on all of them."""
    part = ShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
    return GridSearchCV(model, grid, cv=part, scoring="neg_root_mean_squared_error", error_score="raise").fit(x, y)


def standardized(model: Any) -> Any:
    """The model of standardized features and target."""
    return TransformedTargetRegressor(make_pipeline(StandardScaler(), model), transformer=StandardScaler())


def regression(folder: Path, split: int) -> dict[str, Any]:
    """Test errors and slopes of all three."""
    table = np.loadtxt(folder / "data.txt")
    columns, target = (np.loadtxt(folder / f"index_{name}.txt", dtype=int) for name in ("features", "target"))
    train, test = (np.loadtxt(folder / f"index_{part}_{split}.txt", dtype=int) for part in ("train", "test"))
    x, y, x_test, y_test = table[train][:, columns], table[train, target], table[test][:, columns], table[test, target]
    epochs = min(200, max(25, round(STEPS / math.ceil(len(x) / BATCH))))
    deviations = x.std(0)
    unit = float(deviations[deviations > 0].min() / y.std())
    start = time.perf_counter()
    ours = tuned(
        LipschitzRegressor(hidden=HIDDEN, epochs=epochs, batch_size=BATCH, random_state=0),
        {"K": [s / unit for s in STEEPNESS], "constraint": [None, tightlip.SpectralBall()]},
        x,
        y,
    )
    seconds = time.perf_counter() - start
    mlp = MLPRegressor(
        hidden_layer_sizes=HIDDEN,
        batch_size=BATCH,
        max_iter=epochs,
        n_iter_no_change=epochs,
        random_state=0,
    )
    choices = {"alpha": PENALTIES, "learning_rate_init": RATES}
    grid = {f"regressor__mlpregressor__{name}": values for name, values in choices.items()}
    network = tuned(standardized(mlp), grid, x, y)
    ridge = tuned(standardized(Ridge()), {"regressor__ridge__alpha": [1e-2, 1.0, 100.0]}, x, y)
    layers = network.best_estimator_.regressor_[-1].coefs_
    return {
        "split": split,
        "rows": len(x),
        "rmse": rmse(ours, x_test, y_test),
        "rmse_mlp": rmse(network, x_test, y_test),
        "rmse_ridge": rmse(ridge, x_test, y_test),
        "epochs": epochs,
        "K": ours.best_params_["K"] * unit,
        "constraint": repr(ours.best_params_["constraint"] or tightlip.Orthonormal()),
        "slope": ours.best_estimator_.bound_.constant * unit,
        "slope_mlp": math.prod(float(np.linalg.norm(layer, 2)) for layer in layers),
        "slope_ridge": float(np.linalg.norm(ridge.best_estimator_.regressor_[-1].coef_)),
        "seconds": seconds,
    }


def outliers(file: Path, seed: int, epochs: int) -> dict[str, Any]:
    """AUROC of all three, and what of ours is certified."""
    data = np.load(file)
    x, odd = data["X"].astype(float), data["y"].astype(bool)
    usual = np.random.default_rng(seed).permutation(x[~odd])
    half = len(usual) // 2
    scaler = StandardScaler().fit(usual[:half])
    train, test = scaler.transform(usual[:half]), scaler.transform(np.concatenate([usual[half:], x[odd]]))
    inside = np.arange(len(test)) < len(usual) - half
    start = time.perf_counter()
    ours = LipschitzOutlier(hidden=HIDDEN, epochs=epochs, standardize=False, random_state=seed).fit(train)
    seconds, scores = time.perf_counter() - start, ours.score_samples(test)
    moved = scores + ours.bound_.constant * EPS * np.where(inside, -1.0, 1.0)
    forest, machine = IsolationForest(random_state=seed).fit(train), OneClassSVM(gamma="scale").fit(train)
    return {
        "split": seed,
        "rows": half,
        "auroc": float(roc_auc_score(inside, scores)),
        "auroc_certified": float(roc_auc_score(inside, moved)),
        "auroc_forest": float(roc_auc_score(inside, forest.score_samples(test))),
        "auroc_svm": float(roc_auc_score(inside, machine.score_samples(test))),
        "seconds": seconds,
    }


def main() -> None:
    """All sets that were asked for, split by split."""
    root = Path(os.environ["TIGHTLIP_DATA"])
    regressions = {folder.name: folder for folder in sorted((root / "uci-regression").iterdir())}
    detections = {file.stem: file for file in sorted((root / "adbench").glob("*.npz"))}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", default=[*regressions, *detections])
    for name, default in (("splits", 5), ("outlier-epochs", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--output", type=Path, default=Path("results/estimators.json"))
    options = parser.parse_args()
    if unknown := set(options.sets) - set(regressions) - set(detections):
        parser.error(
            f"there is no set {', '.join(sorted(unknown))}: choose among {', '.join(regressions | detections)}"
        )
    warnings.simplefilter("ignore", ConvergenceWarning)  # all train for as many epochs as are asked for
    config = {key: value for key, value in vars(options).items() if key != "output"} | {"eps": EPS}
    origin, start, rows = provenance("cpu"), time.perf_counter(), []
    for name in options.sets:
        for split in range(options.splits):
            if name in regressions:
                found = regression(regressions[name], split)
            else:
                found = outliers(detections[name], split, options.outlier_epochs)
            rows.append({"set": name} | found)
            shown = (
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()
            )
            print(name, *shown, sep="  ", flush=True)
            results, seconds = {"rows": rows}, time.perf_counter() - start
            BenchRow(benchmark="estimators", config=config, seed=0, results=results, seconds=seconds, **origin).write(
                options.output
            )
    for name in sorted(set(options.sets) & set(regressions)):
        ours, mlp = (np.mean([row[key] for row in rows if row["set"] == name]) for key in ("rmse", "rmse_mlp"))
        print(f"{name}: {ours:.4g} beside {mlp:.4g} of the MLP, {ours / mlp - 1:+.1%}")


if __name__ == "__main__":
    main()

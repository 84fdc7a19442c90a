"""Run folders made from nothing: small, seeded, shaped as `tightlip train` writes them."""

import copy
import json

import numpy as np

GRADIENT_SHAPE = (6, 6)


def _examples(rng):
    return [
        {
            "index": index,
            "label": 3,
            "prediction": 3 if radius else 5,
            "radius": radius,
            "image": rng.random(GRADIENT_SHAPE).tolist(),
            "gradient": rng.normal(size=GRADIENT_SHAPE).tolist(),
        }
        for index, radius in ((11, 0.25), (12, 1.875), (13, 0.0))
    ]


def _history(rng):
    return [
        {
            "epoch": epoch,
            "loss": 1 / epoch**2,
            "train_accuracy": 0.9 + epoch / 100,
            "validation_accuracy": 0.9 + epoch / 200,
            "validation_score": 0.8 + epoch / 200,
            "learning_rate": 0.002,
            "seconds": 1.5,
        }
        for epoch in range(1, 8)
    ]


def certificate(seed=0):
    rng = np.random.default_rng(seed)
    radius = np.round(rng.gamma(4.0, 0.2, 200), 6)
    radius[:14] = 0
    label = rng.integers(0, 10, 200)
    prediction = np.where(radius > 0, label, (label + 1) % 10)
    eps = [0.0, 0.15, 0.3, 0.6, 1.2]
    layer = {"name": "1.0", "module": "Linear(36, 10)", "constant": 0.98765432, "input_norm": "2", "output_norm": "2"}
    return {
        "format": 1,
        "input_norm": "2",
        "bound": {
            "constant": 0.987654,
            "input_norm": "2",
            "output_norm": "2",
            "arithmetic": "float64 & rounded up",
            "layers": [layer, {**layer, "name": "1.1", "module": "GroupSort(2)", "constant": 1.0}],
        },
        "sensitivity": 1.396754,
        "eps": eps,
        "certified_accuracy": [float((radius > e).mean()) for e in eps],
        "attack": {"images": 200, "steps": 37, "restarts": 3, "eps": eps, "accuracy": [0.93, 0.925, 0.92, 0.8, 0.4]},
        "radius": radius.tolist(),
        "margin": (radius * 1.4).tolist(),
        "label": label.tolist(),
        "prediction": prediction.tolist(),
        "examples": _examples(rng),
    }


def metrics(seed=0):
    return {
        "format": 1,
        "name": "synthetic",
        "command": "train",
        "config": {"activation": "MaxMin", "widths": [36, 10], "K": 1.0, "compile": False, "limit": None},
        "data": {
            "name": "toy digits",
            "source": "made up",
            "sha256": "ab" * 32,
            "split": {"train": 3600, "validation": 400, "test": 200},
            "classes": 10,
            "shape": [1, *GRADIENT_SHAPE],
        },
        "seed": 4711,
        "commit": "cafe" * 10,
        "dirty": True,
        "versions": {"python": "3.11.9", "torch": "2.13.0", "numpy": "2.3.1", "tightlip": "0.1.0"},
        "device": "cpu",
        "threads": 2,
        "machine": "a machine",
        "seconds": {"train": 187.2, "freeze": 0.21, "audit": 0.34, "certify": 0.05, "attack": 7.9, "total": 200.0},
        "history": _history(np.random.default_rng(seed)),
        "best_epoch": 6,
        "test": {
            "accuracy": 0.9312,
            "certified": {"0.3": 0.8765, "1.0": 0.2},
            "attacked": {"0.3": 0.9123, "1.0": 0.5},
        },
    }


def change(document, path, value):
    """A copy with the field at the dotted path replaced; the value `...` removes it."""
    document = copy.deepcopy(document)
    *parents, last = path.split(".")
    inner = document
    for parent in parents:
        inner = inner[int(parent) if isinstance(inner, list) else parent]
    last = int(last) if isinstance(inner, list) else last
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return document


def write_run(folder, metrics_changes=(), certificate_changes=(), seed=0):
    """Write both files of a run, with `(dotted path, value)` changes; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, document, changes in (
        ("metrics.json", metrics(seed), metrics_changes),
        ("certificate.json", certificate(seed), certificate_changes),
    ):
        for path, value in changes:
            document = change(document, path, value)
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return folder


def write_cell(folder, config, axes=("activation",), seed=0, metrics=None, place=0, experiment="of_cones", **changes):
    """A row of an experiment, shaped as `tightlip run` writes it."""
    row = {
        "format": 1,
        "command": "run",
        "experiment": experiment,
        "summary": "Cones, compared.",
        "axes": list(axes),
        "config": config,
        "seed": seed,
        "metrics": {"objective": 0.5} if metrics is None else metrics,
        "seconds": {"total": 1.0},
        **{"commit": "0" * 40, "dirty": False, "device": "cpu", "machine": "Z80", "place": place},
        **changes,
    }
    folder.mkdir(exist_ok=True)
    words = "_".join(f"{axis}={config[axis]}" for axis in axes).replace("/", "-")
    (folder / f"{words}_seed{seed}_0.json").write_text(json.dumps(row))
    return folder


def surface(height=1.0, columns=5, rows=3):
    """A roof: x from -2 to 2, y from 0 to 1, z highest in the middle."""
    x, y = np.linspace(-2, 2, columns), np.linspace(0, 1, rows)
    return {"x": x.tolist(), "y": y.tolist(), "z": (-height * np.abs(x)[:, None] + 0 * y).tolist()}

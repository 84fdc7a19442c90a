"""No option is accepted and ignored: each one, given another value, changes what comes out, or is refused."""

import json
import logging
import shutil
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import MaxMin, TightlipError
from tightlip.cli import main, train
from tightlip.cli.main import COMMANDS
from tightlip.cli.parsing import options
from tightlip.data import load, published
from tightlip.data.arrays import load_arrays
from tightlip.data.sources import SPECS
from tightlip.experiments import EXPERIMENTS, certified_run, evidence
from tightlip.experiments.classification_options import OF_METHODS, Config, Training
from tightlip.experiments.methods import METHODS, owners
from tightlip.serialization import save
from tightlip.transport import contest, families

SMALL = {"steps": 2, "points": 200, "batch_size": 12, "width": 16, "size": 16, "units": 10, "epochs": 1, "inputs": 5}
SMALL |= {"generator_steps": 2, "generator_width": 4, "truth_points": 2000, "funnels": 8, "paces": (0.5, 1.0)}
"""Of experiments, where they have such options."""

NARROW = {"dynamical_isometry": {"network": "3 × 32"}, "zigzag": {"network": "trained, width 2"}}
"""Of one of them."""

OTHER = {"per_class": 20, "bias": "none", "dtype": "float64", "beta2": 0.5, "paces": (3.0,), "tuning": 1.0}
"""Another value of options that cannot be doubled and are not axes of a grid."""

STUDIES = [
    (name, field.name)
    for name, module in EXPERIMENTS.items()
    for field in fields(module.Config)
    if name != "classification"  # its options are those of a run, below
]


@cache
def outcome(module, config):
    """What is drawn and measured; of the config that all options of a study are compared with, computed once."""
    found = module.run(config, 0)
    curve = found.drawings.get("curve", {})
    metrics, columns = (
        {name: value for name, value in numbers.items() if not name.endswith("_seconds")}
        for numbers in (found.metrics, curve)
    )
    return json.dumps([metrics, columns, {**found.drawings, "curve": None}])


def another(module, name, value):
    if name in module.GRID and name not in OTHER:
        return next(other for other in module.GRID[name] if other != value)
    return OTHER.get(name) or 2 * value


@pytest.mark.parametrize(("study", "option"), STUDIES, ids=lambda value: value)
def test_every_option_of_a_study_changes_its_numbers(study, option, data):
    module, other = EXPERIMENTS[study], {"data": data["other images"]}
    small = SMALL | {"data": data["images"]} | NARROW.get(study, {})
    config = module.Config(**{name: value for name, value in small.items() if hasattr(module.Config, name)})
    value = getattr(config, option)
    changed = replace(config, **{option: other.get(option) or another(module, option, value)})
    assert outcome(module, config) != outcome(module, changed)
    if isinstance(value, str):
        with pytest.raises(TightlipError, match=r"no .* is called 'nonsense'"):
            module.run(replace(config, **{option: "nonsense"}), 0)


@pytest.mark.parametrize("count", [0, 5, 8])
def test_centers_that_fill_no_square_are_refused(count):
    with pytest.raises(TightlipError, match=f"centers={count} fill neither a row of up to 3 nor a square"):
        EXPERIMENTS["two_norm_universality"].touching(count)


def images(path, seed=0):
    generator = np.random.default_rng(seed)
    y = np.arange(90) % 3
    x = (generator.random((90, 1, 5, 5)).astype(np.float32) + y[:, None, None, None] / 4) / 1.5  # in [0, 1]
    np.savez(path, x=x.astype(np.float32), y=y)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "rows.npz", x=np.random.default_rng(0).random((90, 4)), y=np.arange(90) % 3)
    other = images(folder / "other.npz", 1)
    rows = "".join(f"{n},{10 * (n % 3) + n % 7},{n % 2},{n % 3}\n" for n in range(90))
    (folder / "table.csv").write_text(f"long,high,wide,kind\n{rows}")
    names = {"images": "images.npz", "rows": "rows.npz", "table": "table.csv"}
    images(folder / "images.npz")
    return {"other images": other, **{name: str(folder / file) for name, file in names.items()}}


CHANGED = {
    "label": "wide",
    "drop": ("high",),
    "standardize": "no",
    "center": "no",
    "norm": "inf",
    "network": "convnet",
    "channels": (4,),
    "depth": 3,
    "patch": 3,
    "hidden": (8, 8),
    "activation": "relu",
    "k": 3.0,
    "loss": "hinge",
    "last_layer": "rows",
    "offset": 0.3,
    "temperature": 1.0,
    "a": 0.5,
    "method": "standard",
    "dropout": 0.2,
    "weight_decay": 30.0,
    "penalty": 30.0,
    "train_eps": 0.1,
    "train_steps": 1,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.1,
    "shift": 2,
    "flip": True,
    "average": 0.5,
    "autocast": True,
    "eps": 0.7,
    "attack_images": 3,
    "attack_steps": 3,
    "attack_restarts": 2,
    "seed": 1,
    "minutes": 1e-5,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All numbers that a run leaves, and how the attack was called; not the options that it repeats, nor times.

    The run that many others are compared with is made once.
    """
    attack = evidence.pgd

    @cache
    def numbers(config):
        calls = []

        def pgd(network, x, y, *rest, **options):
            calls.append((len(x), *map(str, rest)))
            return attack(network, x, y, *rest, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evidence, "pgd", pgd)
            result = certified_run.run(config, tmp_path_factory.mktemp("run"), progress=False)
        history = [
            {key: value for key, value in row.items() if key != "seconds"} for row in result.row.to_json()["history"]
        ]
        return calls, history, result.row.test, result.attacked.accuracy.tolist(), result.certificate.radius.tolist()

    return numbers


def test_another_value_is_known_for_every_option_of_a_run():
    assert {"data", *CHANGED} == {field.name for field in fields(Config)}


@pytest.mark.parametrize("option", ["data", *CHANGED])
def test_every_option_of_a_run_changes_its_numbers(option, data, trained):
    small = {"hidden": (8,), "epochs": 1, "batch_size": 32, "attack_images": 4, "attack_steps": 2, "attack_restarts": 1}
    if option in ("channels", "depth", "patch"):
        small |= {"network": "mixer", "channels": (8,), "depth": 1}
    if option == "minutes":
        small.pop("epochs")  # they are those that so many minutes take: one, in place of the fifty by default
    if option in OF_METHODS:
        small |= {"method": owners(option)[-1]}
    kind = "table" if option in ("label", "drop", "standardize") else "images"
    config = Config(data=data[kind], norm="inf" if option == "a" else "2", **small)
    changed = replace(config, **{option: data["rows"] if option == "data" else CHANGED[option]})
    assert trained(config) != trained(changed)


def test_every_method_trains_its_own_way(data, trained):
    """No two of them leave the same numbers, so no entry of one is left out."""
    found = {}
    for name in METHODS:
        config = Config(data=data["images"], method=name, hidden=(8,), epochs=1, attack_images=4, attack_steps=2)
        found.setdefault(json.dumps(trained(config)[1:], default=repr), []).append(name)
    assert [names for names in found.values() if len(names) > 1] == []


def test_a_shift_of_rows_is_refused_and_none_is_recorded(data, tmp_path):
    config = Config(data=data["rows"], hidden=(8,), epochs=1, attack_images=2, attack_steps=1)
    with pytest.raises(TightlipError, match=r"shift=1 .--shift. moves images .*rows have shape .4,.: leave it out"):
        certified_run.run(replace(config, shift=1), tmp_path)
    with pytest.raises(TightlipError, match=r"flip=True .--flip. mirrors images .*rows have shape .4,.: leave it out"):
        certified_run.run(replace(config, flip=True), tmp_path)
    recorded = certified_run.run(config, tmp_path, progress=False).row.config
    assert (recorded["shift"], recorded["flip"]) == (0, False)


class Tiny:
    """A known data set, of which `split` makes a test part."""

    def __init__(self, path):
        self.path = path

    def load(self, root=None, download=False):
        return load_arrays(self.path)


@pytest.fixture
def workplace(data, tmp_path, monkeypatch, undrawn):
    """A folder with a model; data sets that are there (tiny) and absent (mnist); and a training that ends at once."""

    def fetch(*_):
        raise TightlipError("fetched")

    def run(config, *rest):
        logging.getLogger("tightlip.experiments").debug("running")
        raise TightlipError(f"run with {rest}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIGHTLIP_DATA", raising=False)
    monkeypatch.setenv("TIGHTLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(SPECS, "tiny", Tiny(data["images"]))
    monkeypatch.setattr(published, "download_file", fetch)
    monkeypatch.setattr(train, "run", run)
    for module, name, value in ((contest, "ROUNDS", 1), (families, "WIDTH", 16), (families, "COUNT", 32)):
        monkeypatch.setattr(module, name, value)  # critics of distributions train for seconds, not for minutes
    torch.manual_seed(0)
    save(nn.Sequential(nn.Flatten(), nn.Linear(25, 4), MaxMin(), nn.Linear(4, 3)), "m.safetensors")
    threads, level = torch.get_num_threads(), logging.getLogger("tightlip").level
    yield tmp_path
    torch.set_num_threads(threads)
    logging.getLogger("tightlip").setLevel(level)


def left(capsys, caplog, command):
    """What a command does, without what differs each time: its code, words, log, files, and torch's threads."""
    caplog.clear()
    torch.set_num_threads(1)
    code = main(command)
    out, err = capsys.readouterr()
    words = [word for word in out.split() if word.endswith("%") or not any(c.isdigit() for c in word)]
    files = sorted(str(path) for path in Path().rglob("*"))
    Path("o.json").unlink(missing_ok=True)
    for folder in ("runs", "elsewhere"):
        shutil.rmtree(folder, ignore_errors=True)
    return code, out.partition("\n")[0], words, err, files, len(caplog.messages), torch.get_num_threads()


@pytest.fixture(scope="module")
def bases():
    """What each command leaves without the flag that is tried, found once."""
    return {}


MACHINE = {"--device": ["nonsense"], "--threads": ["2"], "--verbose": []}
SOURCE = {"--data-root": ["absent"], "--download": []}
BASE = {
    "tune": ["--data", "tiny", "--hidden", "8", "--epochs", "1", "--offsets", "0.5", "1"],
    "train": ["--data", "tiny", "--hidden", "8", "--epochs", "1", "--attack-images", "2", "--attack-steps", "1"],
    "certify": ["m.safetensors", "--data", "tiny"],
    "audit": ["m.safetensors"],
    "distance": ["tiny:0", "tiny:1"],
    "report": ["runs/folding-smoke"],
    "list": [],
    "run": ["folding"],
    "bench": ["--widths", "4", "4", "2", "--batch-size", "2", "--rounds", "1"],
}
FLAGS = {
    "tune": {"--eps": ["0.2", "0.3"], "--offsets": ["0.5", "2"], "--jobs": ["0"], "--output": ["elsewhere"]}
    | {"--executor": ["nonsense"], **MACHINE},
    "train": {"--name": ["other"], "--runs": ["elsewhere"], "--resume": [], "--task": ["regression"], **SOURCE}
    | MACHINE,
    "certify": {"--norm": ["inf"], "--eps": ["0.123"], "--seed": ["1"], "--output": ["o.json"], **SOURCE, **MACHINE}
    | {"--head": ["0"], "--arithmetic": ["float32"], "--inputs": ["o.npz"], "--label": ["kind"]},
    "audit": {"--norm": ["inf"], "--output-norm": ["inf"], "--head": ["0"], "--json": [], "--tighter": [], **MACHINE},
    "distance": {"--norm": ["inf"], "--about": ["distributions"], "--tolerance": ["0.9"], "--level": ["0.9"]}
    | {"--diameter": ["9"], "--seconds": ["0"], "--limit": ["9"], "--scale": ["standard"], "--part": ["test"]}
    | {"--seed": ["1"], "--name": ["other"], "--runs": ["elsewhere"], "--resume": [], "--output": ["o.json"]}
    | {**SOURCE, **MACHINE},
    "report": {"--output": ["page.html"]},
    "list": {},
    "run": {"--preset": ["paper"], "--jobs": ["0"], "--executor": ["nonsense"], "--output": ["elsewhere"], **MACHINE},
    "bench": {"--widths": ["4", "8", "2"], "--batch-size": ["3"], "--rounds": ["0"], "--output": ["o.json"], **MACHINE},
}
OF_A_RUN = {f"--{name.replace('_', '-')}" for name in ("data", *CHANGED)}
OF_TRAINING = {f"--{field.name.replace('_', '-')}" for field in fields(Training)}  # handed on: tests/cli/test_tune.py


@pytest.mark.parametrize("name", COMMANDS)
def test_another_value_is_known_for_every_flag(name):
    more = {"train": OF_A_RUN, "tune": OF_TRAINING, "certify": {"--data"}}
    tried = {*FLAGS[name], *more.get(name, ())}
    assert set(options(COMMANDS[name])) == tried


@pytest.mark.parametrize(("name", "flag"), [(name, flag) for name, flags in FLAGS.items() for flag in flags])
def test_every_flag_changes_something_or_is_refused(name, flag, workplace, bases, capsys, caplog):
    caplog.set_level(logging.NOTSET)
    if name == "report":
        assert main(["run", "folding"]) == 0
        shutil.copytree("runs", "kept")
    base, values = [name, *(BASE[name] if name != "report" else ["kept/folding-smoke"])], FLAGS[name][flag]
    base += ["--name", "r"] if name in ("train", "distance") and flag != "--name" else []
    if flag in SOURCE:
        base = ["distance", "mnist:3", "mnist:8"] if name == "distance" else [*base, "--data", "mnist"]
    if tuple(base) not in bases:
        bases[tuple(base)] = left(capsys, caplog, base)
    assert bases[tuple(base)] != left(capsys, caplog, [*base, flag, *values])


def test_the_data_that_are_certified_are_those_asked_for(workplace, capsys, caplog, data):
    np.savez("other.npz", x=np.ones((90, 25), np.float32), y=np.arange(90) % 3)
    first, second = (left(capsys, caplog, ["certify", "m.safetensors", "--data", d]) for d in ("tiny", "other.npz"))
    assert first[0] == second[0] == 0 and first != second


@pytest.mark.parametrize(("name", "why"), [("mnist5k", "comes with the package"), ("images", "is read where it is")])
def test_a_root_is_refused_where_no_published_file_is_looked_for(name, why, data, tmp_path):
    with pytest.raises(TightlipError, match=rf"^root=.* .--data-root. is where published files are, and .* {why}"):
        load(data.get(name, name), root=tmp_path)

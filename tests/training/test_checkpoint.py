"""A run killed in the middle goes on as if nothing had happened, and never under another loss."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from blobs import blobs, regress, same_weights, seeded, train, without_seconds
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tightlip import Orthonormal, RowL1Ball, TightlipError, margin_cross_entropy, mlp, pgd

SCRIPT = """
import time
import torch
from torch.nn import functional
from tightlip import mlp
from tightlip.training import fit

def run(path, hold, pause):
    g = torch.Generator().manual_seed(0)
    def blobs(n):
        y = torch.arange(n) % 2
        return torch.randn(n, 4, generator=g) * 0.4 + (2.0 * y[:, None] - 1.0), y
    def slow(x, generator):
        time.sleep(pause)
        return x + 0.1 * torch.randn(x.shape, generator=generator)
    torch.manual_seed(0)
    network = mlp([4, 8, 2], hold=hold)
    history = fit(
        network, functional.cross_entropy, blobs(64), blobs(32), epochs=6, batch_size=32, augment=slow,
        checkpoint=path, resume=True, progress=False, tag="slow or not",
    )
    return history, network
"""


def run_here(path, hold):
    names = {}
    exec(SCRIPT, names)
    history, network = names["run"](path, hold, 0.0)
    return without_seconds(history), network


def start(path, hold):
    code = f"{SCRIPT}\nrun({str(path)!r}, {hold!r}, 0.3)"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)


def epochs_done(path: Path) -> int:
    return len(torch.load(path, weights_only=True)["history"]) if path.exists() else 0


@pytest.mark.parametrize("hold", ["step", "forward"])
def test_a_run_killed_in_the_middle_resumes_as_if_nothing_had_happened(hold, tmp_path):
    path = tmp_path / "killed.pt"
    process = start(path, hold)
    deadline = time.monotonic() + 60
    while epochs_done(path) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and 2 <= epochs_done(path) < 6
    history, network = run_here(path, hold)
    expected_history, expected = run_here(tmp_path / "whole.pt", hold)
    assert history == expected_history and len(history) == 6
    assert same_weights(network, expected)


BLOBS = blobs(50)


class StopError(Exception):
    """What kills a run of these tests."""


class Items(torch.utils.data.Dataset):
    """The blobs, one by one."""

    def __len__(self):
        return 50

    def __getitem__(self, index):
        return BLOBS[0][index], BLOBS[1][index]


@pytest.mark.parametrize("source", [Items, lambda: DataLoader(Items(), 16, shuffle=True)], ids=["dataset", "loader"])
def test_a_run_that_stops_goes_on_with_the_same_batches(source, tmp_path):
    def run(stop, **options):
        steps = []

        def augment(x, generator):
            steps.append(1)
            if len(steps) == stop:
                raise StopError
            return x

        size = 16 if isinstance(source(), Items) else None
        return train(4, train=source(), batch_size=size, augment=augment, tag="a", **options)

    path = tmp_path / "c.pt"
    with pytest.raises(StopError):
        run(4 * 2 + 3, checkpoint=path)
    assert epochs_done(path) == 2
    network, history = run(None, checkpoint=path, resume=True)
    whole, expected = run(None)
    assert without_seconds(history) == without_seconds(expected) and same_weights(network, whole)


def test_a_complete_run_is_resumed_without_another_epoch(tmp_path):
    first, history = train(3, checkpoint=tmp_path / "c.pt")
    assert os.listdir(tmp_path) == ["c.pt"]
    second, again = train(3, checkpoint=tmp_path / "c.pt", resume=True)
    assert history == again and same_weights(first, second)


def test_a_path_may_be_a_string(tmp_path):
    _, history = train(2, checkpoint=str(tmp_path / "c.pt"))
    assert train(2, checkpoint=str(tmp_path / "c.pt"), resume=True)[1] == history


def test_without_resume_an_earlier_checkpoint_is_not_read(tmp_path):
    (tmp_path / "c.pt").write_bytes(b"garbage")
    _, history = train(2, checkpoint=tmp_path / "c.pt")
    assert len(history) == 2 and epochs_done(tmp_path / "c.pt") == 2


@pytest.mark.parametrize("content", [b"", b"garbage", "half"])
def test_damaged_checkpoints_are_one_sentence_and_stay(content, tmp_path):
    path = tmp_path / "c.pt"
    train(2, checkpoint=path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    damaged = path.read_bytes()
    with pytest.raises(TightlipError, match=r"c\.pt.*checkpoint"):
        train(2, checkpoint=path, resume=True)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("content", [{"a": 1}, [1], {"format": 2}, {"format": 1, "key": {}}])
def test_files_that_are_no_checkpoints_are_one_sentence(content, tmp_path):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(TightlipError, match=r"c\.pt.*delete it"):
        train(2, checkpoint=tmp_path / "c.pt", resume=True)


X, Y = blobs()
OTHER = X + 1.0


def shifted(x, generator, by=1.0):
    return x + by


def scored(network, x, y):
    return 1.0


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"epochs": 5}, "epochs"),
        ({"seed": 1}, "seed"),
        ({"batch_size": 16}, "batch_size"),
        ({"network": nn.Linear(4, 2)}, "network"),
        ({"network": nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 2))}, "network"),
        ({"network": partial(mlp, [4, 8, 2], K=2.0)}, "network"),
        ({"network": partial(mlp, [4, 8, 2], RowL1Ball())}, "network"),
        ({"network": partial(mlp, [4, 8, 2], Orthonormal(), nn.ReLU)}, "network"),
        ({"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}, "optimizer"),
        ({"optimizer": partial(torch.optim.Adam, lr=3e-3)}, "optimizer"),
        ({"loss": functional.multi_margin_loss}, "loss"),
        ({"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, "loss"),
        ({"loss": partial(margin_cross_entropy, offset=0.5)}, "loss"),
        ({"loss": lambda o, y: functional.cross_entropy(o, y)}, "loss"),
        ({"schedule": None}, "schedule"),
        ({"schedule": partial(torch.optim.lr_scheduler.CosineAnnealingLR, eta_min=1e-3)}, "schedule"),
        ({"augment": shifted}, "augment"),
        ({"adversary": partial(pgd, eps=0.1, clamp=None)}, "adversary"),
        ({"score": scored}, "score"),
        ({"metrics": {"own": functional.cross_entropy}}, "metrics"),
        ({"train": (OTHER, Y)}, "training data"),
        ({"validation": (OTHER, Y)}, "validation data"),
        ({"validation": None}, "validation data"),
        ({"tag": "another"}, "tag"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused_and_says_what_differs(changed, what, tmp_path):
    train(3, checkpoint=tmp_path / "c.pt")
    before = (tmp_path / "c.pt").read_bytes()
    made = {"network": changed["network"]()} if isinstance(changed.get("network"), partial) else {}
    with pytest.raises(TightlipError, match=f"another run, whose .*{what}.* differed"):
        train(**({"epochs": 3} | changed | made), checkpoint=tmp_path / "c.pt", resume=True)
    assert (tmp_path / "c.pt").read_bytes() == before


@pytest.mark.parametrize("name", ["loss", "augment", "score", "adversary"])
def test_functions_of_ones_own_are_told_apart_by_what_they_do(name, tmp_path):
    """Two functions of one name, as a notebook makes them, that differ in a number that they close over."""

    def made(weight):
        makes = {
            "loss": lambda o, y: weight * functional.cross_entropy(o, y),
            "augment": lambda x, g: x + weight,
            "adversary": lambda n, x, y: x - weight,
            "score": lambda n, x, y: weight,
        }
        return {name: makes[name]}

    _, history = train(2, checkpoint=tmp_path / "c.pt", **made(2.0))
    assert train(2, checkpoint=tmp_path / "c.pt", resume=True, **made(2.0))[1] == history
    with pytest.raises(TightlipError, match=f"another run, whose {name} differed"):
        train(2, checkpoint=tmp_path / "c.pt", resume=True, **made(3.0))


def test_what_has_no_description_needs_a_tag_before_anything_is_trained(tmp_path):
    with open(os.devnull) as file:

        def loss(outputs, targets):
            file.read()
            return functional.cross_entropy(outputs, targets)

        network = seeded()
        with pytest.raises(TightlipError, match="tell its loss from others.*TextIOWrapper.*give tag="):
            train(2, network, loss=loss, checkpoint=tmp_path / "c.pt")
        assert same_weights(network, seeded()) and not os.listdir(tmp_path)
        train(2, loss=loss)  # without a checkpoint there is nothing to tell apart
        _, history = train(2, loss=loss, checkpoint=tmp_path / "c.pt", tag="v1")
        assert train(2, loss=loss, checkpoint=tmp_path / "c.pt", tag="v1", resume=True)[1] == history
        with pytest.raises(TightlipError, match="whose .*tag differed"):
            train(2, loss=loss, checkpoint=tmp_path / "c.pt", tag="v2", resume=True)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_is_told_from_one_of_other_data(shuffle, tmp_path):
    def loader(x, size=32):
        return DataLoader(TensorDataset(x, Y), size, shuffle)

    options = {"checkpoint": tmp_path / "c.pt", "batch_size": None}
    network, history = train(2, train=loader(X), validation=loader(X), **options)
    again, same = train(2, train=loader(X), validation=loader(X), resume=True, **options)
    assert history == same and same_weights(network, again)
    for changed in ({"train": loader(OTHER)}, {"train": loader(X, 16)}, {"validation": loader(OTHER)}):
        with pytest.raises(TightlipError, match=f"whose {'training' if 'train' in changed else 'validation'} data"):
            train(**({"epochs": 2, "train": loader(X), "validation": loader(X), "resume": True} | options | changed))


@pytest.mark.parametrize("name", ["absent/c.pt", ".", ""])
def test_a_checkpoint_that_cannot_be_written_is_said_before_training(name, tmp_path):
    network = seeded()
    with pytest.raises(TightlipError, match="cannot be written to"):
        train(1, network, checkpoint=tmp_path / name)
    assert same_weights(network, seeded())


def test_resuming_from_nowhere_is_refused(tmp_path):
    with pytest.raises(TightlipError, match="resume=True continues from a checkpoint"):
        train(1, resume=True)


@pytest.mark.parametrize("validated", [True, False])
def test_a_resumed_regression_ends_with_the_epoch_of_one_that_never_stopped(validated, tmp_path):
    """The score of the best epoch is kept in the file."""
    options = {"optimizer": partial(torch.optim.SGD, lr=0.5), "schedule": None}
    options |= {} if validated else {"validation": None}
    calls = []

    def stopping(x, generator):
        calls.append(1)
        if len(calls) == 4 * 7 + 1:  # at the first step of epoch 5
            raise StopError
        return x

    with pytest.raises(StopError):
        regress(6, augment=stopping, checkpoint=tmp_path / "c.pt", tag="a", **options)
    network, history = regress(6, augment=stopping, checkpoint=tmp_path / "c.pt", tag="a", resume=True, **options)
    whole, expected = regress(6, augment=lambda x, g: x, **options)
    assert without_seconds(history) == without_seconds(expected) and same_weights(network, whole)

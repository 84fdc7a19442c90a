"""A run killed in the middle goes on as if nothing had happened, and never under another loss."""

import math
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from blobs import blobs, regress, same_weights, seeded, train, without_seconds
from processes import Started
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

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
    return Started("-c", code)


def epochs_done(path: Path) -> int:
    return len(torch.load(path, weights_only=True)["history"]) if path.exists() else 0


@pytest.mark.parametrize("hold", ["step", "forward"])
def test_a_run_killed_in_the_middle_resumes_as_if_nothing_had_happened(hold, tmp_path):
    path = tmp_path / "killed.pt"
    with start(path, hold) as process:
        deadline = time.monotonic() + 60
        while epochs_done(path) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        assert process.end().returncode == -signal.SIGKILL
    assert 2 <= epochs_done(path) < 6
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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "add resume=True to go on from epoch 2 of this very training, or delete it"),
        ({"seed": 1}, r"not of this very training, so name another file \(resume=True .*\), or delete it"),
        ({"content": b"garbage"}, "not of this very training, so name another file .*, or delete it"),
        ({"content": b""}, "not of this very training, so name another file .*, or delete it"),
    ],
)
def test_without_resume_a_file_that_exists_is_not_overwritten(options, sentence, tmp_path):
    path, options = tmp_path / "c.pt", dict(options)
    train(2, checkpoint=path)
    if "content" in options:
        path.write_bytes(options.pop("content"))
    before, network = path.read_bytes(), seeded()
    with pytest.raises(TightlipError, match=f"c.pt exists and would be overwritten: .*{sentence}"):
        train(2, network, checkpoint=path, **options)
    assert path.read_bytes() == before and same_weights(network, seeded()) and os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize("content", [b"", b"garbage", "half"])
def test_damaged_checkpoints_are_one_sentence_and_stay(content, tmp_path):
    path = tmp_path / "c.pt"
    train(2, checkpoint=path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    damaged = path.read_bytes()
    with pytest.raises(TightlipError, match=r"c\.pt.*checkpoint"):
        train(2, checkpoint=path, resume=True)
    assert path.read_bytes() == damaged


def test_a_checkpoint_of_an_earlier_version_is_one_sentence(tmp_path):
    torch.save({"format": 1, "key": {}}, tmp_path / "c.pt")
    with pytest.raises(TightlipError, match=r"c\.pt.*delete it"):
        train(2, checkpoint=tmp_path / "c.pt", resume=True)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "content",
    [{"a": 1}, [1], {"format": 2}, nn.Linear(2, 2).state_dict(), nn.Linear(2, 2)],
    ids=["dict", "list", "format", "state_dict", "module"],
)
def test_somebody_elses_torch_file_is_called_one_and_never_to_be_deleted(content, zipped, resume, tmp_path):
    path = tmp_path / "c.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    before = path.read_bytes()
    with pytest.raises(TightlipError, match="a torch file .*name another path") as caught:
        train(2, checkpoint=path, resume=resume)
    assert "delete" not in str(caught.value) and path.read_bytes() == before


def changed(path, change):
    """The file with another content, as torch writes it."""
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    return path.read_bytes()


def first_weight(state):
    return next(iter(state["best"]["network"].values()))


DAMAGE = {
    "no history": lambda state: state.pop("history"),
    "no best epoch": lambda state: state.pop("best"),
    "no optimizer": lambda state: state.pop("optimizer"),
    "no network": lambda state: state.pop("network"),
    "a history of None": lambda state: state.update(history=None),
    "an optimizer of None": lambda state: state.update(optimizer=None),
    "a network of None": lambda state: state.update(network=None),
    "a best network of None": lambda state: state["best"].update(network=None),
    "a best score of NaN": lambda state: state["best"].update(score=math.nan),
    "best weights of NaN": lambda state: first_weight(state).fill_(math.nan),
    "a weight of NaN": lambda state: next(iter(state["network"].values())).view(-1)[0].fill_(math.nan),
    "moments of NaN": lambda state: state["optimizer"]["state"][0]["exp_avg"].fill_(math.nan),
    "no moments": lambda state: state["optimizer"]["state"].pop(0),
    "another rate": lambda state: state["optimizer"]["param_groups"][0].update(lr=1.0),
    "a schedule of None": lambda state: state.update(scheduler=None),
    "another step of the schedule": lambda state: state["scheduler"].update(last_epoch=0),
    "an epoch that is a string": lambda state: state["history"][0].update(epoch="3"),
    "an epoch below 0": lambda state: state["history"][0].update(epoch=-1),
    "a loss of None": lambda state: state["history"][1].update(loss=None),
    "a row without a loss": lambda state: state["history"][1].pop("loss"),
    "more rows than epochs": lambda state: state["history"].extend(state["history"]),
    "a row less": lambda state: state["history"].pop(),
    "another weight's shape": lambda state: state["network"].update({"0.weight": torch.ones(1)}),
    "no key": lambda state: state.pop("key"),
    "a key of None": lambda state: state.update(key=None),
    "a key without the loss": lambda state: state["key"].pop("loss"),
    "no format": lambda state: state.pop("format"),
    "a format that is a string": lambda state: state.update(format="3"),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_checkpoint_that_was_changed_is_one_sentence_and_nothing_is_lost(change, tmp_path):
    path, options = tmp_path / "c.pt", {"optimizer": partial(torch.optim.Adam, lr=1e-3)}
    train(2, checkpoint=path, **options)
    before, network = changed(path, change), seeded()
    with pytest.raises(
        TightlipError, match=r"c\.pt (is damaged|cannot be read|belongs to another).* delete it"
    ) as caught:
        train(2, network, checkpoint=path, resume=True, **options)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before and same_weights(network, seeded())


def test_a_checkpoint_that_is_written_anew_as_it_was_is_the_same(tmp_path):
    path = tmp_path / "c.pt"
    _, history = train(2, checkpoint=path)
    changed(path, lambda state: None)
    assert train(2, checkpoint=path, resume=True)[1] == history


class Stateful(torch.optim.lr_scheduler.LambdaLR):
    def state_dict(self):
        return {"odd": Path(".")}


def test_a_state_that_no_file_keeps_is_said_before_anything_is_trained(tmp_path):
    network = seeded()
    with pytest.raises(TightlipError, match="the state of the scheduler cannot be kept in a checkpoint"):
        train(1, network, schedule=lambda o, n: Stateful(o, lambda step: 1.0), checkpoint=tmp_path / "c.pt")
    assert same_weights(network, seeded()) and not os.listdir(tmp_path)


X, Y = blobs()
OTHER = X + 1.0


class Adam(torch.optim.Adam):
    """Another class of the name."""


def grouped(swapped):
    """Makes SGD with a rate for the one half of the weights and a rate for the other."""

    def make(weights):
        weights = list(weights)
        first, second = (weights[2:], weights[:2]) if swapped else (weights[:2], weights[2:])
        return torch.optim.SGD([{"params": first, "lr": 0.1}, {"params": second, "lr": 0.2}])

    return make


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
        ({"optimizer": partial(Adam, lr=2e-3)}, "optimizer"),
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


def test_groups_that_swap_their_weights_are_another_training(tmp_path):
    train(2, checkpoint=tmp_path / "c.pt", optimizer=grouped(False))
    train(2, checkpoint=tmp_path / "c.pt", optimizer=grouped(False), resume=True)
    with pytest.raises(TightlipError, match="whose optimizer differed"):
        train(2, checkpoint=tmp_path / "c.pt", optimizer=grouped(True), resume=True)


def drawing(seed):
    """A loader that shuffles by a generator of its own, and one whose sampler does."""
    g = torch.Generator().manual_seed(seed)
    return {
        "loader": DataLoader(TensorDataset(X, Y), 32, shuffle=True, generator=g),
        "sampler": DataLoader(TensorDataset(X, Y), 32, sampler=RandomSampler(X, generator=g)),
    }


@pytest.mark.parametrize("owner", ["loader", "sampler"])
def test_a_loader_with_a_generator_of_its_own_goes_on_where_it_was(owner, tmp_path):
    """In the process of the run that stopped, where the generator has moved on, and in another, where it has not."""
    options = {"batch_size": None, "tag": "a", "optimizer": partial(torch.optim.SGD, lr=0.2)}
    whole, expected = train(4, train=drawing(3)[owner], augment=lambda x, g: x, **options)
    for again in (True, False):
        path, calls, loader = tmp_path / f"{again}.pt", [], drawing(3)[owner]

        def stopping(x, generator, calls=calls):
            calls.append(1)
            if len(calls) == 7 * 2 + 3:
                raise StopError
            return x

        with pytest.raises(StopError):
            train(4, train=loader, augment=stopping, checkpoint=path, **options)
        rest = {"train": loader if again else drawing(3)[owner], "augment": stopping, "checkpoint": path}
        network, history = train(4, resume=True, **rest, **options)
        assert without_seconds(history) == without_seconds(expected) and same_weights(network, whole)
        with pytest.raises(TightlipError, match="whose training data differed"):
            train(4, resume=True, **(rest | {"train": drawing(4)[owner]}), **options)


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

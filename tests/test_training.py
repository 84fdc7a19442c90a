"""`fit`: learns, repeats itself bit for bit, survives kill -9, and refuses what it cannot train."""

import math
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from tightlip import Orthonormal, TightlipError, freeze, lipschitz, mlp
from tightlip.training import accuracy, fit, predict

OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, lr=1e-2),
    "AdamW": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    "SGD": partial(torch.optim.SGD, lr=0.2, momentum=0.9),
    "RMSprop": partial(torch.optim.RMSprop, lr=3e-3),
}


def blobs(examples=200, noise=0.4, seed=0):
    """Two classes around (±1, ±1), in 4 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(examples) % 2
    return torch.randn(examples, 4, generator=generator) * noise + (2.0 * y[:, None] - 1.0), y


def train(epochs=3, network=None, **options):
    if network is None:
        torch.manual_seed(0)
        network = mlp([4, 8, 2])
    options = {"loss": functional.cross_entropy, "batch_size": 32, "progress": False} | options
    return network, fit(network, train=blobs(), validation=blobs(50, seed=1), epochs=epochs, **options)


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("hold", ["step", "forward"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_learns_with_any_optimiser_and_either_hold(optimizer, hold):
    torch.manual_seed(0)
    network, history = train(5, mlp([4, 8, 2], hold=hold), optimizer=OPTIMIZERS[optimizer])
    assert accuracy(network, *blobs(500, seed=2)) > 0.95
    assert history[-1]["loss"] < history[0]["loss"]
    assert lipschitz(freeze(network), 2).constant <= 1.0
    for layer in network[::2]:
        assert Orthonormal().contains(layer.weight.detach())


def test_unconstrained_networks_train_too():
    torch.manual_seed(0)
    network, _ = train(5, nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    assert accuracy(network, *blobs(500, seed=2)) > 0.95


def test_history_has_a_complete_row_per_epoch():
    _, history = train(3)
    keys = {"epoch", "loss", "train_accuracy", "validation_accuracy", "validation_score", "learning_rate", "seconds"}
    assert all(set(row) == keys for row in history)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    rates = [row["learning_rate"] for row in history]
    assert rates[0] > rates[1] > rates[2] == pytest.approx(0.0, abs=1e-9)
    assert all(0 <= row["train_accuracy"] <= 1 and row["seconds"] > 0 for row in history)


def test_loss_and_accuracy_in_the_history_are_means_over_examples():
    """With a learning rate of zero they must be those of the network as it was, also with a smaller last batch."""
    torch.manual_seed(0)
    network, (row,) = train(1, nn.Linear(4, 2), optimizer=partial(torch.optim.SGD, lr=0.0), batch_size=64)
    x, y = blobs()
    assert row["loss"] == pytest.approx(float(functional.cross_entropy(network(x), y).detach()), rel=1e-5)
    assert row["train_accuracy"] == accuracy(network, x, y)
    assert row["validation_accuracy"] == row["validation_score"] == accuracy(network, *blobs(50, seed=1))


def test_the_same_seed_repeats_itself_bit_for_bit_whatever_the_global_state():
    first, history = train(3, seed=5)
    torch.manual_seed(0)
    network = mlp([4, 8, 2])
    torch.manual_seed(99)
    second, again = train(3, network, seed=5)
    assert without_seconds(history) == without_seconds(again) and same_weights(first, second)
    assert without_seconds(train(3, seed=6)[1]) != without_seconds(history)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(7)
    network = mlp([4, 8, 2])
    before = torch.random.get_rng_state()
    train(2, network)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_networks_own_randomness_is_seeded():
    def once(global_seed):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        torch.manual_seed(global_seed)
        return train(2, network)[1]

    assert without_seconds(once(1)) == without_seconds(once(2))


def test_augment_sees_every_training_batch_and_no_validation_data():
    seen = []

    def augment(x, generator):
        seen.append(len(x))
        return x + torch.randn(x.shape, generator=generator)

    first = train(2, augment=augment)[1]
    assert seen == 2 * [32, 32, 32, 32, 32, 32, 8]
    assert without_seconds(first) == without_seconds(train(2, augment=augment)[1])
    assert without_seconds(first) != without_seconds(train(2)[1])


def test_the_best_epoch_by_validation_remains_and_not_the_last():
    weights = []

    def score(network, x, y):
        weights.append({name: value.clone() for name, value in network.state_dict().items()})
        return [0.1, 0.9, 0.5, 0.9][len(weights) - 1]

    network, history = train(4, score=score)
    assert [row["validation_score"] for row in history] == [0.1, 0.9, 0.5, 0.9]
    final = network.state_dict()
    assert all(torch.equal(final[name], weights[1][name]) for name in final)  # the earlier of two equals
    assert not all(torch.equal(final[name], weights[3][name]) for name in final)
    assert not network.training


def test_an_epoch_without_a_score_is_never_the_best_once_another_has_one():
    weights = []

    def score(network, x, y):
        weights.append({name: value.clone() for name, value in network.state_dict().items()})
        return [math.nan, 0.5, math.nan][len(weights) - 1]

    network, _ = train(3, score=score)
    assert all(torch.equal(value, weights[1][name]) for name, value in network.state_dict().items())


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
        checkpoint=path, resume=True, progress=False,
    )
    return history, network
"""


def run_here(path, hold):
    names = {}
    exec(SCRIPT, names)
    history, network = names["run"](path, hold, 0.0)
    return without_seconds(history), network


def start(path, hold):
    code = f"{SCRIPT}\nfrom pathlib import Path\nrun(Path({str(path)!r}), {hold!r}, 0.3)"
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


def test_a_complete_run_is_resumed_without_another_epoch(tmp_path):
    first, history = train(3, checkpoint=tmp_path / "c.pt")
    assert os.listdir(tmp_path) == ["c.pt"]
    second, again = train(3, checkpoint=tmp_path / "c.pt", resume=True)
    assert history == again and same_weights(first, second)


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


@pytest.mark.parametrize("content", [{"a": 1}, [1], {"format": 2}, {"format": 1}])
def test_files_that_are_no_checkpoints_are_one_sentence(content, tmp_path):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(TightlipError, match=r"c\.pt"):
        train(2, checkpoint=tmp_path / "c.pt", resume=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 5},
        {"seed": 1},
        {"batch_size": 16},
        {"network": nn.Linear(4, 2)},
        {"network": nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 2))},
        {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)},
    ],
)
def test_the_checkpoint_of_another_run_is_refused(changed, tmp_path):
    train(3, checkpoint=tmp_path / "c.pt")
    before = (tmp_path / "c.pt").read_bytes()
    with pytest.raises(TightlipError, match="another run"):
        train(**({"epochs": 3} | changed), checkpoint=tmp_path / "c.pt", resume=True)
    assert (tmp_path / "c.pt").read_bytes() == before


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises_and_keeps_the_earlier_checkpoint(bad, constrained, tmp_path):
    calls = []

    def loss(outputs, y):
        calls.append(1)
        return functional.cross_entropy(outputs, y) * (bad if len(calls) > 2 * 7 else 1.0)  # from epoch 3 on

    torch.manual_seed(0)
    network = mlp([4, 8, 2]) if constrained else nn.Linear(4, 2)
    with pytest.raises(TightlipError, match="epoch 3|NaN"):
        train(5, network, loss=loss, checkpoint=tmp_path / "c.pt")
    assert epochs_done(tmp_path / "c.pt") == 2


@pytest.mark.parametrize("sizes", [{"epochs": 0}, {"epochs": -1}, {"batch_size": 0}, {"batch_size": -5}])
def test_sizes_that_train_nothing_are_refused(sizes):
    with pytest.raises(TightlipError, match="numbers ≥ 1"):
        train(**sizes)


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize(
    "wrong", [(torch.ones(3, 4), torch.zeros(2).long()), (torch.ones(0, 4), torch.zeros(0).long())]
)
def test_parts_that_are_empty_or_uneven_are_refused(part, wrong):
    parts = {"train": blobs(), "validation": blobs(50)} | {part: wrong}
    with pytest.raises(TightlipError, match="inputs and .* targets"):
        fit(nn.Linear(4, 2), functional.cross_entropy, **parts, epochs=1, progress=False)


def test_a_checkpoint_in_an_absent_folder_is_one_sentence(tmp_path):
    with pytest.raises((TightlipError, OSError), match="absent"):
        train(1, checkpoint=tmp_path / "absent" / "c.pt")


def test_predict_gives_the_same_in_batches_and_no_gradients():
    network, x = nn.Linear(4, 2), blobs()[0]
    assert torch.allclose(predict(network, x, batch_size=7), network(x).detach(), atol=1e-6)
    assert not predict(network, x).requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_it_trains_on_a_gpu():
    network, _ = train(5, device="cuda")
    x, y = blobs(500, seed=2)
    assert accuracy(network, x.cuda(), y.cuda()) > 0.95

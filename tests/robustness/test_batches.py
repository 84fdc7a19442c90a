"""Data that come batch by batch are certified as if they lay in memory, and are forgotten again."""

import math
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sweeps import some
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from tightlip import Residual, RowL1Ball, TightlipError, certify, freeze, mlp
from tightlip.audit import EXACT, Gains, registry
from tightlip.data import Dataset, split
from tightlip.robustness import certificate, contests, examination


@pytest.fixture
def problem(seed):
    network = freeze(mlp([6, 8, 3], RowL1Ball()))
    x = torch.randn(50, 6)
    return network, x, torch.where(torch.rand(50) < 0.8, network(x).argmax(1), 0)


class Stream(IterableDataset):
    def __init__(self, x, y):
        self.rows = list(zip(x, y, strict=True))

    def __iter__(self):
        return iter(self.rows)


def same(a, b):
    torch.testing.assert_close(a.radius, b.radius, rtol=0, atol=1e-12)
    torch.testing.assert_close(a.margin, b.margin, rtol=0, atol=1e-12)
    assert torch.equal(a.prediction, b.prediction) and torch.equal(a.correct, b.correct) and a.bound == b.bound


@pytest.mark.parametrize(
    ("p", "batch_size"),
    some([(1, 7), (2, 1), (2, 7), (2, 1000), (math.inf, 7)], [(1, 1), (1, 1000), (math.inf, 1), (math.inf, 1000)]),
)
def test_labeled_batches_of_every_kind_give_the_certificate_of_the_whole(problem, p, batch_size):
    network, x, y = problem
    whole = certify(network, x, y, p)
    parts = list(zip(x.split(9), y.split(9), strict=True))
    loaders = [DataLoader(TensorDataset(x, y), 9), DataLoader(Stream(x, y), 9)]
    for batches in (parts, iter(parts), (list(pair) for pair in parts), tuple(parts), *loaders):
        same(certify(network, batches, p=p, batch_size=batch_size), whole)


def test_batches_without_labels_certify_the_predicted_class(problem):
    network, x, _ = problem
    whole = certify(network, x)
    for batches in (
        x.split(9),
        iter(x.split(9)),
        ((part, None) for part in x.split(9)),
        DataLoader(TensorDataset(x), 9),
    ):
        same(certify(network, batches), whole)


def test_network_and_last_layer_are_audited_once(problem, monkeypatch):
    network, x, _ = problem
    calls = []
    for module, name in ((examination, "audit"), (contests, "pair_sensitivity"), (examination, "wide")):
        known = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, name=name, known=known: (calls.append(name), known(*a))[1])
    certify(network, (part for part in x.split(5)), batch_size=2)
    assert sorted(calls) == ["audit", "pair_sensitivity", "wide"]


class Counted(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize("inside", [False, True])
def test_the_rule_of_a_layer_is_asked_once(inside, problem, monkeypatch):
    network, x, _ = problem
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    asked = []
    registry.rule(Counted)(lambda module: (asked.append(module), Gains.constant(1.0, EXACT))[1])
    certificate = certify(nn.Sequential(Residual(Counted()) if inside else Counted(), network), x)
    assert len(asked) == 1
    torch.testing.assert_close(certificate.radius, certify(network, x).radius, rtol=0, atol=1e-12)


def test_batches_are_forgotten(problem):
    network, *_ = problem
    alive = []

    def batches():
        for _ in range(20):
            assert sum(reference() is not None for reference in alive) <= 1
            x = torch.randn(10, 6)
            alive.append(weakref.ref(x))
            yield x
            del x

    assert len(certify(network, batches()).radius) == 200


def test_batches_may_differ_in_size_dtype_and_emptiness(problem):
    network, x, _ = problem
    batches = [x[:1], x[1:1], x[1:20].double(), x[20:]]
    same(certify(network, batches), certify(network, x))


@pytest.mark.parametrize("empty", [[], (), iter([])])
def test_no_batches_are_refused(problem, empty):
    with pytest.raises(TightlipError, match="no batches"):
        certify(problem[0], empty)


def test_a_generator_that_is_used_up_is_refused(problem):
    network, x, _ = problem
    batches = (part for part in x.split(9))
    certify(network, batches)
    with pytest.raises(TightlipError, match="only once"):
        certify(network, batches)


GOOD = (torch.ones(2, 6), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        (torch.ones(2, 6), "batch 2: either every batch has labels or none"),
        ((torch.ones(2, 6), None), "batch 2: either every batch has labels or none"),
        ((torch.ones(2, 6), torch.tensor([0, 3])), "batch 2: labels reach from 0 to 3"),
        ((torch.ones(2, 6), torch.tensor([0])), r"batch 2: labels of shape \(1,\)"),
        ((torch.ones(2, 6), torch.ones(2)), "batch 2: labels of shape"),
        ((torch.ones(2, 5), torch.tensor([0, 1])), r"batch 2: inputs of shape \(2, 5\) do not fit"),
        ((torch.ones(2, 6).long(), torch.tensor([0, 1])), "batch 2: inputs of shape .* cannot be certified"),
        ((torch.ones(6), torch.tensor([0, 1])), "batch 2: inputs of shape .* cannot be certified"),
        ((np.ones((2, 6)), np.ones(2)), r"batch 2: labels of shape \(2,\) and float64 do not fit"),
        ((np.ones((2, 6), dtype=complex), np.zeros(2, int)), "batch 2: inputs of shape .* cannot be certified"),
        ({"x": torch.ones(2, 6)}, "batch 2: .*pairs .x, y., not for a dict"),
        ((torch.ones(2, 6), torch.tensor([0, 1]), torch.ones(2)), "batch 2: .*not for a tuple"),
        ((), "batch 2: .*not for a tuple"),
        ("xy", "batch 2: .*not for a str"),
    ],
)
def test_what_is_wrong_with_a_batch_is_said_with_its_number(problem, batch, sentence):
    with pytest.raises(TightlipError, match=sentence):
        certify(problem[0], iter([GOOD, GOOD, batch, GOOD]))


def test_labels_that_come_late_are_refused_too(problem):
    with pytest.raises(TightlipError, match="batch 1: either every batch"):
        certify(problem[0], [torch.ones(2, 6), GOOD])


def test_labels_beside_batches_are_refused(problem):
    network, x, y = problem
    with pytest.raises(TightlipError, match="no y beside them"):
        certify(network, x.split(9), y)


def test_inputs_and_labels_in_one_pair_are_no_batches(problem):
    network, x, y = problem
    with pytest.raises(TightlipError, match="batch 1: inputs of shape"):
        certify(network, (x, y))


def test_sentences_about_one_tensor_name_no_batch(problem):
    network, x, _ = problem
    with pytest.raises(TightlipError, match="^labels reach"):
        certify(network, x, torch.full((50,), 7), batch_size=9)


@pytest.mark.parametrize("x", [7, "x", {}, None, TensorDataset(torch.ones(2, 6))])
def test_what_is_neither_a_tensor_nor_batches_is_refused(problem, x):
    with pytest.raises(TightlipError, match="certif"):
        certify(problem[0], x)


@pytest.mark.parametrize("batch_size", [0, -1, True])
def test_batches_of_nothing_are_refused(problem, batch_size):
    network, x, _ = problem
    with pytest.raises(TightlipError, match="evaluates nothing"):
        certify(network, x, batch_size=batch_size)


def test_an_error_of_the_users_own_generator_comes_through(problem):
    def batches():
        yield torch.ones(2, 6)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        certify(problem[0], batches())


def test_a_bar_is_shown_on_terminals_only_and_only_if_wanted(problem, capfd, monkeypatch):
    network, x, _ = problem
    asked = []
    real = certificate.tqdm
    monkeypatch.setattr(certificate, "tqdm", lambda *a, **k: (asked.append(SimpleNamespace(**k)), real(*a, **k))[1])
    certify(network, x)
    certify(network, x.split(9), progress=False)
    assert [options.disable for options in asked] == [None, True] and capfd.readouterr() == ("", "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_batches_on_another_device_are_moved(problem):
    network, x, y = problem
    whole = certify(network, x, y)
    parts = [(a.cuda() if i % 2 else a, b) for i, (a, b) in enumerate(zip(x.split(9), y.split(9), strict=True))]
    for net in (network, freeze(network).cuda()):
        found = certify(net, parts)
        torch.testing.assert_close(found.radius, whole.radius, rtol=0, atol=1e-10)


def test_a_part_of_a_split_brings_its_labels():
    x, y = torch.rand(12, 3), torch.arange(12) % 3
    dataset = Dataset("mine", "here", "0", x, y, None, None, 3, "own")
    parts = split(dataset, 0)
    whole, part = certify(nn.Identity(), parts.test.images, parts.test.labels), certify(nn.Identity(), parts.test)
    assert part.labeled and part.radius.equal(whole.radius) and part.correct.equal(whole.correct)
    for given, labels, says in (
        (parts.test, y, "a Part brings its labels"),
        (parts, None, "a whole Splits cannot be certified: give one Part, its test"),
        (
            dataset,
            None,
            "a whole Dataset cannot be certified: give one Part, tightlip.data.split",
        ),
    ):
        with pytest.raises(TightlipError, match=says):
            certify(nn.Identity(), given, labels)


def test_what_a_mask_hides_is_not_certified():
    x = np.ma.masked_array(np.ones((2, 3)), mask=[[True, False, False], [False] * 3])
    for given in (x, [x]):
        with pytest.raises(TightlipError, match="masked entries of an array hold nothing"):
            certify(nn.Identity(), given)
    assert len(certify(nn.Identity(), np.ma.masked_array(np.ones((2, 3)))).radius) == 2

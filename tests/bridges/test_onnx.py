"""ONNX files compute what the network does, carry its proof, and sort without TopK where a verifier is to read them."""

import sys
from collections import Counter

import pytest
import torch
from torch import nn
from truths import gaussian

from tightlip import (
    FullSort,
    GroupSort,
    Normalize,
    Residual,
    TightlipError,
    freeze,
    guarded,
    lipschitz,
    mlp,
    to_onnx,
    weights_sha256,
)
from tightlip.bridges import onnx as bridge
from tightlip.norms import norm_name

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

X = gaussian(1000, 8, dtype=torch.float32)


def served(path, x):
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = [torch.from_numpy(value) for value in session.run(None, {"input": x.numpy()})]
    return found, session.get_modelmeta().custom_metadata_map


def operations(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_a_file_computes_what_the_network_does_and_carries_its_proof(tmp_path, seed):
    path, network = tmp_path / "m.onnx", freeze(nn.Sequential(Normalize(0.1, 2.0), mlp([8, 16, 4], K=2.0)))
    to_onnx(network, path, X[:1], p=1)
    for batch in (X, X[:1]):
        (found,), said = served(path, batch)
        torch.testing.assert_close(found, network(batch), rtol=0, atol=1e-5)
    bound = lipschitz(network, 1)
    assert float(said["tightlip.constant"]) == bound.constant
    assert said["tightlip.weights_sha256"] == weights_sha256(network)
    assert (said["tightlip.input_norm"], said["tightlip.output_norm"]) == ("1", norm_name(bound.output_norm))
    assert operations(path)["Min"] == 1 and not {"TopK", "Sort"} & operations(path).keys()


@pytest.mark.parametrize("min_max", [False, True])
def test_large_groups_are_sorted_without_sorts_where_that_is_asked_for(min_max, tmp_path, seed):
    layers = [nn.Linear(8, 34), GroupSort(17, contiguous=False), Residual(GroupSort(2)), nn.Linear(34, 3), FullSort()]
    path, network = tmp_path / "m.onnx", freeze(nn.Sequential(*layers))
    to_onnx(network, path, X[:3], min_max=min_max)
    torch.testing.assert_close(served(path, X)[0][0], network(X), rtol=0, atol=1e-5)
    assert bool({"TopK", "Sort"} & operations(path).keys()) != min_max
    assert type(network[1]) is GroupSort  # the network itself is left alone


def test_a_guard_answers_with_class_radius_and_abstention(tmp_path, seed):
    path, network = tmp_path / "m.onnx", freeze(mlp([8, 16, 4]))
    guard = guarded(network, X[:3], eps=0.15)
    to_onnx(guard, path, X[:3])
    found, said = served(path, X)
    expected = guard(X)
    sure = (expected[2] > 1e-4) & ((expected[2] - 0.15).abs() > 1e-4)
    assert sure.double().mean() > 0.9
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got[sure], wanted[sure], rtol=0, atol=1e-5)
    assert [o.name for o in onnx.load(path).graph.output] == ["logits", "class", "radius", "abstain"]
    assert float(said["tightlip.eps"]) == pytest.approx(0.15)
    assert said["tightlip.weights_sha256"] == weights_sha256(network)
    odd = torch.full((2, 8), float("nan"))
    assert served(path, odd)[0][3].tolist() == [True, True]


def test_a_guard_with_other_weights_or_another_norm_is_not_written(tmp_path, seed):
    guard = guarded(freeze(mlp([8, 4])), X[:3], eps=0.1)
    with pytest.raises(TightlipError, match="made for one norm and one output: leave out p="):
        to_onnx(guard, tmp_path / "m.onnx", X[:3], p=1)
    guard.network[0].weight.data *= 2
    with pytest.raises(TightlipError, match="not those that it was made for"):
        to_onnx(guard, tmp_path / "m.onnx", X[:3])


def test_what_computes_something_else_is_not_written(tmp_path, monkeypatch, seed):
    write = bridge._write

    def other(network, *rest):
        write(nn.Sequential(network, nn.Softplus()), *rest)

    monkeypatch.setattr(bridge, "_write", other)
    with pytest.raises(TightlipError, match="onnxruntime's outputs are .* from the network's"):
        to_onnx(freeze(mlp([8, 4])), tmp_path / "m.onnx", X[:3])
    assert not list(tmp_path.iterdir())


def test_without_the_packages_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TightlipError, match=r"need onnxruntime, which .*: pip install -e '\.\[onnx\]'"):
        to_onnx(freeze(mlp([8, 4])), tmp_path / "m.onnx", X[:3])


@pytest.mark.parametrize(
    ("network", "x", "sentence"),
    [
        (mlp([8, 4]), X, "still held by constraints: to_onnx"),
        (nn.Identity(), X[:0], "no input to trace the network with"),
        (nn.Linear(8, 4), X[0], "give .batch"),
    ],
    ids=["held", "empty", "one axis"],
)
def test_what_cannot_be_written_is_refused(network, x, sentence, tmp_path):
    with pytest.raises(TightlipError, match=sentence):
        to_onnx(network, tmp_path / "m.onnx", x)
    assert not list(tmp_path.iterdir())

"""The hash of weights: the same wherever they lie and however they were stored, another for any other weights."""

import copy
import hashlib

import pytest
import torch
from torch import nn
from truths import linear

import tightlip
from tightlip import TightlipError, freeze, mlp, weights_sha256


def test_it_is_the_hash_of_names_types_shapes_and_bytes():
    layer = linear([[1.0, 2.0]], [0.5], torch.float32)
    parts = b"bias torch.float32 [1]\n\x00\x00\x00?", b"weight torch.float32 [1, 2]\n\x00\x00\x80?\x00\x00\x00@"
    assert weights_sha256(layer) == hashlib.sha256(b"".join(parts)).hexdigest()


def test_it_survives_files_copies_and_layouts(tmp_path, seed):
    network = freeze(mlp([6, 8, 3]))
    known = weights_sha256(network)
    tightlip.save(network, tmp_path / "m.safetensors")
    torch.save(network, tmp_path / "m.pt")
    again = copy.deepcopy(network)
    again[0].weight.data = again[0].weight.data.T.contiguous().T
    found = [tightlip.load(tmp_path / "m.safetensors"), torch.load(tmp_path / "m.pt", weights_only=False), again]
    assert [weights_sha256(other) for other in found] == [known] * 3


def test_any_other_weights_have_another_hash(seed):
    network = freeze(mlp([6, 8, 3]))
    others = [copy.deepcopy(network) for _ in range(4)]
    others[0][0].weight.data[0, 0] = torch.nextafter(others[0][0].weight.data[0, 0], torch.tensor(9.0))
    others[1].double()
    others[2][0].weight.data = others[2][0].weight.data.reshape(6, 8)
    others[3] = nn.Sequential(nn.Flatten(), *others[3])
    assert len({weights_sha256(each) for each in (network, *others)}) == 5


def test_what_has_no_bytes_is_refused():
    with pytest.raises(TightlipError, match="weight is a meta or sparse tensor"):
        weights_sha256(nn.Linear(2, 2, bias=False, device="meta"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_type_of_numbers_has_bytes(dtype):
    assert len(weights_sha256(linear([[1.0]], dtype=dtype))) == 64

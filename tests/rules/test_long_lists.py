"""A list of options is no longer than the layer has axes: refused in a sentence, before anything is computed of it."""

import json
import struct

import pytest
from torch import nn

from tightlip import Normalize, TightlipError, lipschitz, load
from tightlip.audit import registered
from tightlip.rules import shape

LONG = 100_000

TOO_MANY = [
    nn.Upsample(scale_factor=(2,) * LONG),
    nn.Upsample(scale_factor=(2,) * 4),
    nn.UpsamplingNearest2d(scale_factor=(1,) * LONG),
    nn.Unflatten(1, (1,) * LONG),
    nn.Unflatten(1, (1,) * 64),
    nn.ZeroPad2d((1,) * LONG),
    nn.ConstantPad1d((1,) * 3, 0.5),
    nn.ReplicationPad3d((1,) * LONG),
    nn.ReflectionPad1d((1,) * LONG),
    nn.CircularPad2d((1,) * LONG),
    nn.MaxPool2d((2,) * LONG),
    nn.MaxPool1d(2, dilation=(1,) * LONG),
    nn.AvgPool3d(2, stride=(2,) * LONG),
    nn.AdaptiveAvgPool2d((2,) * LONG),
    nn.AdaptiveMaxPool1d((2,) * 2),
]


@pytest.fixture(autouse=True)
def nothing_is_counted(monkeypatch):
    monkeypatch.setattr(shape, "_copies", lambda *_: pytest.fail("copies were counted"))


@pytest.mark.parametrize("module", TOO_MANY, ids=lambda module: f"{type(module).__name__} {len(repr(module))}")
def test_a_longer_list_than_the_layer_has_axes_is_refused(module):
    with pytest.raises(TightlipError, match=type(module).__name__) as caught:
        lipschitz(module, 2)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("module", TOO_MANY, ids=lambda module: f"{type(module).__name__} {len(repr(module))}")
def test_and_so_it_is_in_a_file(module, tmp_path):
    options = {name: getattr(module, name) for name in registered()[type(module)].options}
    description = json.dumps({"format": 1, "network": [type(module).__name__, options]})
    head = json.dumps({"__metadata__": {"tightlip": description}}).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(TightlipError, match="or a list of 1") as caught:
        load(tmp_path / "m")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("kind", registered(), ids=lambda kind: kind.__name__)
def test_no_type_takes_a_list_of_any_length(kind):
    allowed = ("mean", "std") if kind is Normalize else ()  # a number for each channel, as the file has it
    for name, option in (registered()[kind].options or {}).items():
        assert name in allowed or not any(option.holds([value] * 65) for value in (1, 2.0, None, "2"))

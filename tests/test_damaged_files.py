"""Whatever a file says, it is the network that was saved or one sentence, and costs no more than its own size."""

import json
import math
import random
import struct
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import tightlip as tl
from tightlip import TightlipError, load, save


def network():
    layers = [
        nn.Flatten(),
        tl.Normalize(0.5, 0.25),
        nn.Linear(6, 4),
        tl.MaxMin(),
        tl.Residual(nn.Linear(4, 4), nn.GELU()),
    ]
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.BatchNorm1d(4), nn.PReLU(), nn.Linear(4, 3), tl.Scale(0.1)).eval()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("whole") / "m"
    save(network(), path)
    return path.read_bytes()


def parts(content):
    """The header of a file as an object, and its tensors' bytes."""
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header, data=b""):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def described(content, change):
    """The file again, its description changed by a function on the object, or replaced by a string."""
    header, data = parts(content)
    description = change(json.loads(header["__metadata__"]["tightlip"]))
    text = description if isinstance(description, str) else json.dumps(description)
    return joined(header | {"__metadata__": {"tightlip": text}}, data)


def refused(content, path, match="."):
    path.write_bytes(content)
    with pytest.raises(TightlipError, match=match) as caught:
        load(path)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


class NothingLarge(TorchDispatchMode):
    """Refuses operations that would make tensors of more than a thousand numbers."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if "meta" not in str((keywords or {}).get("device")):
            for size in arguments:
                if isinstance(size, list | tuple) and all(isinstance(n, int) for n in size):
                    assert math.prod(size) <= 1000, f"{function} of {size}"
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            assert not isinstance(tensor, torch.Tensor) or tensor.is_meta or tensor.numel() <= 1000
        return result


HUGE = [
    ["Linear", {"in_features": 30_000, "out_features": 30_000, "bias": True}],
    ["Linear", {"in_features": 2**31 - 1, "out_features": 2**31 - 1, "bias": False}],
    ["Householder", {"pairs": 2**31 - 1, "dim": -1}],
    ["PReLU", {"num_parameters": 2**31 - 1}],
    ["BatchNorm1d", {"num_features": 10**9, "eps": 1e-5, "momentum": 0.1, "affine": True, "bias": True}],
    ["LatticeInterpolant", {"sizes": [10**6, 10**6, 1], "norm": "2"}],
    ["Prototypes", {"in_features": 10**6, "classes": 10**3, "each": 10**3}],
    ["Funnels", {"sizes": [10**6, 10**6], "norm": "2", "trainable": False}],
    ["Residual", ["Sequential", [["0", ["Linear", {"in_features": 20_000, "out_features": 20_000, "bias": True}]]]]],
]


@pytest.mark.parametrize("outline", HUGE, ids=lambda outline: outline[0])
def test_a_few_bytes_that_name_a_large_layer_make_nothing_large(outline, tmp_path):
    content = joined({"__metadata__": {"tightlip": json.dumps({"format": 1, "network": outline})}})
    assert len(content) < 300
    with NothingLarge():
        refused(content, tmp_path / "m", "do not fit its description")


def test_the_guard_sees_what_is_large():
    with NothingLarge(), pytest.raises(AssertionError):
        nn.Linear(3000, 3000)


@pytest.mark.parametrize(
    "outline",
    [
        ["AvgPool1d", {"kernel_size": [2**31 - 1], "stride": [1], "padding": [0], "ceil_mode": False}],
        ["AvgPool3d", {"kernel_size": 2**31 - 1, "stride": 1, "padding": 0, "ceil_mode": False}],
    ],
    ids=lambda outline: outline[0],
)
def test_the_rule_of_a_huge_window_takes_no_time(outline, tmp_path):
    options = {"count_include_pad": True} | ({"divisor_override": None} if outline[0] == "AvgPool3d" else {})
    outline = [outline[0], outline[1] | options]
    content = joined({"__metadata__": {"tightlip": json.dumps({"format": 1, "network": outline})}})
    (tmp_path / "m").write_bytes(content)
    bound = tl.lipschitz(load(tmp_path / "m"), math.inf)
    assert bound.constant == 1
    share = tl.audit.gains(load(tmp_path / "m")).roundoff.input
    assert 0 < share < math.inf


OPTIONS = [
    ("MaxMin", {"dim": 1.5}),
    ("MaxMin", {"dim": True}),
    ("MaxMin", {"dim": "1"}),
    ("MaxMin", {"dim": 0}),
    ("MaxMin", {"dim": None}),
    ("MaxMin", {"dim": 10**30}),
    ("MaxMin", {"contiguous": 1}),
    ("MaxMin", {"contiguous": "yes"}),
    ("GroupSort", {"group_size": 2.0}),
    ("GroupSort", {"group_size": -2}),
    ("GroupSort", {"group_size": 0}),
    ("GroupSort", {"group_size": [2]}),
    ("LeakyReLU", {"negative_slope": "0.1"}),
    ("LeakyReLU", {"negative_slope": [0.1]}),
    ("LeakyReLU", {"negative_slope": True}),
    ("LeakyReLU", {"negative_slope": None}),
    ("LeakyReLU", {"negative_slope": 1e999}),
    ("LeakyReLU", {"negative_slope": 10**400}),
    ("LeakyReLU", {"negative_slope": -math.inf}),
    ("LeakyReLU", {"negative_slope": math.nan}),
    ("LeakyReLU", {"negative_slope": 2**53 + 1}),
    ("Dropout", {"p": math.nan}),
    ("Dropout", {"p": -0.1}),
    ("Dropout", {"p": 1.5}),
    ("Dropout", {"p": "0.5"}),
    ("GELU", {"approximate": "x"}),
    ("GELU", {"approximate": True}),
    ("GELU", {"approximate": ["tanh"]}),
    ("Hardtanh", {"min_val": 1, "max_val": 1}),
    ("Hardtanh", {"min_val": 2, "max_val": 1}),
    ("ELU", {"alpha": {"a": 1}}),
    ("CELU", {"alpha": -1.0}),
    ("CELU", {"alpha": 0}),
    ("Softplus", {"beta": 0, "threshold": 20}),
    ("Softplus", {"beta": 1, "threshold": 1}),
    ("Softmax", {"dim": 0}),
    ("Softmax", {"dim": None}),
    ("Softmax", {"dim": 1.0}),
    ("Softshrink", {"lambd": -1}),
    ("Threshold", {"threshold": 1, "value": 0}),
    ("Flatten", {"start_dim": 0, "end_dim": -1}),
    ("Flatten", {"start_dim": 1.0, "end_dim": -1}),
    ("Unflatten", {"dim": 1, "unflattened_size": 6}),
    ("Unflatten", {"dim": 1, "unflattened_size": []}),
    ("Unflatten", {"dim": 1, "unflattened_size": [2, -3]}),
    ("Unflatten", {"dim": "C", "unflattened_size": [2, 3]}),
    ("PixelShuffle", {"upscale_factor": 0}),
    ("ZeroPad1d", {"padding": [0, -1]}),
    ("ZeroPad1d", {"padding": "ab"}),
    ("ZeroPad2d", {"padding": [1, 1]}),
    ("Upsample", {"scale_factor": 1.5, "mode": "nearest"}),
    ("Upsample", {"scale_factor": 2, "mode": "bilinear"}),
    ("Upsample", {"scale_factor": None, "mode": "nearest"}),
    ("Upsample", {"scale_factor": [], "mode": "nearest"}),
    ("AdaptiveAvgPool2d", {"output_size": [1, 1, 1]}),
    ("AdaptiveAvgPool2d", {"output_size": "a"}),
    ("AdaptiveAvgPool2d", {"output_size": 0}),
    ("Scale", {"scale": 0}),
    ("Scale", {"scale": "8"}),
    ("Normalize", {"mean": 0, "std": 0}),
    ("Normalize", {"mean": [], "std": 1}),
    ("Normalize", {"mean": [[0.5]], "std": 1}),
    ("Normalize", {"mean": True, "std": 1}),
    ("BatchNorm1d", {"num_features": 4, "eps": -1, "momentum": 0.1, "affine": True, "bias": True}),
    ("BatchNorm1d", {"num_features": 4, "eps": 1e-5, "momentum": "a", "affine": True, "bias": True}),
    ("LatticeInterpolant", {"sizes": [2, 1], "norm": "2"}),
    ("LatticeInterpolant", {"sizes": [2, 1, 1], "norm": "3"}),
    ("LatticeInterpolant", {"sizes": [2, 1, 1], "norm": 2}),
    ("Funnels", {"sizes": [2, 1, 1], "norm": "2", "trainable": False}),
    ("Funnels", {"sizes": [2, 1], "norm": "2", "trainable": 1}),
    ("Prototypes", {"in_features": 4, "classes": 1, "each": 1}),
    ("Prototypes", {"in_features": 4, "classes": 2}),
    ("LayerNorm", {"normalized_shape": 3}),
    ("Sequential", {}),
    ("object", {}),
    ("__import__", {}),
    ("torch.nn.modules.linear.Linear", {"in_features": 2, "out_features": 2, "bias": True}),
]
_MAX = {"kernel_size": 2, "stride": 2, "padding": 0, "ceil_mode": False, "dilation": 1, "return_indices": False}
OPTIONS += [
    ("MaxPool1d", _MAX | wrong)
    for wrong in (
        {"padding": "a"}, {"padding": -1}, {"padding": [0, 0]}, {"padding": True}, {"kernel_size": 0},
        {"kernel_size": 2.0}, {"kernel_size": []}, {"kernel_size": [2, 2]}, {"kernel_size": [[2]]}, {"stride": 0},
        {"dilation": "1"}, {"return_indices": True}, {"return_indices": 0}, {"ceil_mode": "no"}, {"ceil_mode": None},
    )
]  # fmt: skip
LACKING = {"MaxMin": {"dim": -1, "contiguous": True}, "GroupSort": {"dim": -1, "contiguous": True}}


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=repr)
def test_options_of_a_wrong_kind_or_without_sense_are_one_sentence(name, options, tmp_path):
    outline = [name, LACKING.get(name, {}) | options]
    refused(joined({"__metadata__": {"tightlip": json.dumps({"format": 1, "network": outline})}}), tmp_path / "m")


def test_options_that_are_right_are_accepted_by_the_same_road(tmp_path):
    right = ["MaxPool1d", _MAX], ["MaxMin", {"dim": 1, "contiguous": False}], ["Dropout", {"p": 0}], ["Sequential", []]
    for outline in right:
        content = joined({"__metadata__": {"tightlip": json.dumps({"format": 1, "network": outline})}})
        (tmp_path / "m").write_bytes(content)
        assert type(load(tmp_path / "m")).__name__ == outline[0]


DESCRIPTIONS = {
    "format true": lambda d: d | {"format": True},
    "format 1.0": lambda d: d | {"format": 1.0},
    "format null": lambda d: d | {"format": None},
    "format string": lambda d: d | {"format": "1"},
    "format huge": lambda d: d | {"format": 10**50},
    "no format": lambda d: {"network": d["network"]},
    "no network": lambda d: {"format": 1},
    "another key": lambda d: d | {"extra": 1},
    "a list": lambda d: [d],
    "a string": lambda d: '"text"',
    "NaN": lambda d: json.dumps(d).replace('"p": 0.5', '"p": NaN'),
    "Infinity": lambda d: json.dumps(d).replace('"p": 0.5', '"p": Infinity'),
    "key twice": lambda d: json.dumps(d).replace('"p": 0.5', '"p": 0.5, "p": 0.5'),
    "format twice": lambda d: json.dumps(d).replace('{"format": 2', '{"format": 2, "format": 2'),
    "option twice, first wins": lambda d: json.dumps(d).replace(
        '"in_features": 6', '"in_features": 6, "in_features": 6'
    ),
    "name twice": lambda d: json.dumps(d).replace('["1",', '["0",'),
    "name with a dot": lambda d: json.dumps(d).replace('["1",', '["0.1",'),
    "empty name": lambda d: json.dumps(d).replace('["1",', '["",'),
    "number as name": lambda d: json.dumps(d).replace('["1",', "[1,"),
    "name of a field": lambda d: json.dumps(d).replace('["1",', '["training",'),
    "name of an attribute": lambda d: json.dumps(d).replace('["1",', '["forward",'),
    "option lacking": lambda d: json.dumps(d).replace('"in_features": 6, ', ""),
    "foreign option": lambda d: json.dumps(d).replace('"p": 0.5', '"p": 0.5, "inplace": true'),
    "bias lost": lambda d: json.dumps(d).replace('"bias": true', '"bias": false', 1),
    "other shape": lambda d: json.dumps(d).replace('"in_features": 6', '"in_features": 7'),
    "other scale": lambda d: json.dumps(d).replace("0.0999999", "0.0888888"),
    "other mean": lambda d: json.dumps(d).replace('"mean": 0.5', '"mean": 0.25'),
    "integer for a flag": lambda d: json.dumps(d).replace('"bias": true', '"bias": 1', 1),
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_a_changed_description_is_one_sentence(what, whole, tmp_path):
    content = described(whole, DESCRIPTIONS[what])
    assert content != whole
    refused(content, tmp_path / "m")


def with_tensor(name, tensor):
    return lambda tensors: tensors | {name: tensor}


TENSORS = {
    "extra": with_tensor("stranger", torch.ones(1)),
    "lacking": lambda tensors: {name: t for name, t in tensors.items() if name != "2.bias"},
    "integers": with_tensor("2.weight", torch.ones(4, 6, dtype=torch.int64)),
    "complex": with_tensor("2.weight", torch.ones(4, 6, dtype=torch.complex64)),
    "float8": with_tensor("2.weight", torch.ones(4, 6).to(torch.float8_e4m3fn)),
    "float8 e5m2": with_tensor("9.scale", torch.tensor(0.1).to(torch.float8_e5m2)),
    "bools": with_tensor("2.bias", torch.ones(4, dtype=torch.bool)),
    "float for a counter": with_tensor("6.num_batches_tracked", torch.tensor(0.0)),
    "int32 for a counter": with_tensor("6.num_batches_tracked", torch.tensor(0, dtype=torch.int32)),
    "a float64 bias": with_tensor("2.bias", torch.ones(4, dtype=torch.float64)),
    "a float16 layer": lambda t: t | {k: t[k].half() for k in ("8.weight", "8.bias")},
    "float64 statistics": with_tensor("6.running_var", torch.ones(4, dtype=torch.float64)),
    "transposed": with_tensor("2.weight", torch.ones(6, 4)),
    "an axis more": with_tensor("2.weight", torch.ones(1, 4, 6)),
    "an axis less": with_tensor("2.weight", torch.ones(24)),
    "a scale with an axis": with_tensor("9.scale", torch.tensor([0.1])),
    "another scale": with_tensor("9.scale", torch.tensor(0.2)),
    "a scale that is NaN": with_tensor("9.scale", torch.tensor(math.nan)),
    "nothing": lambda tensors: {},
}


@pytest.mark.parametrize("what", TENSORS)
def test_changed_tensors_are_one_sentence(what, whole, tmp_path):
    from safetensors import safe_open

    (tmp_path / "m").write_bytes(whole)
    with safe_open(tmp_path / "m", framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(TENSORS[what](tensors), tmp_path / "changed", metadata=metadata)
    refused((tmp_path / "changed").read_bytes(), tmp_path / "m", "do not fit its description")


def test_other_metadata_and_names_given_twice_are_one_sentence(whole, tmp_path):
    header, data = parts(whole)
    metadata = header["__metadata__"]
    refused(
        joined(header | {"__metadata__": metadata | {"format": "pt"}}, data),
        tmp_path / "m",
        "more or less than a network",
    )
    refused(joined({k: v for k, v in header.items() if k != "__metadata__"}, data), tmp_path / "m", "no tightlip")
    text = json.dumps(header)
    for name in ('"__metadata__": ', '"2.bias": '):
        at = text.index(name)
        value = json.dumps(json.JSONDecoder().raw_decode(text[at + len(name) :])[0])
        refused(joined(text.replace(name, f"{name}{value}, {name}", 1).encode(), data), tmp_path / "m")


@pytest.mark.parametrize("depth", [65, 200, 350, 450, 5000])
@pytest.mark.parametrize("opening", ['["Residual",', '["Sequential",[["0",'], ids=["residual", "sequential"])
def test_nesting_is_one_sentence(depth, opening, tmp_path):
    inner = '["ReLU",{}]'
    outline = opening * depth + inner + "".join("]" for c in opening if c == "[") * depth
    description = f'{{"format": 1, "network": {outline}}}'
    refused(joined({"__metadata__": {"tightlip": description}}), tmp_path / "m", "nested more than 64 deep|no tightlip")


def test_nesting_of_sixty_four_is_kept(tmp_path):
    network = nn.ReLU()
    for _ in range(64):
        network = nn.Sequential(network)
    save(network, tmp_path / "m")
    assert tl.lipschitz(load(tmp_path / "m"), 2).constant == 1


def check(content, path):
    """Whether a file is refused; if not, it must be a network that works."""
    path.write_bytes(content)
    try:
        loaded = load(path)
    except TightlipError as error:
        assert len(str(error)) < 600
        return True
    save(loaded, path)
    try:
        tl.lipschitz(loaded, 2)
        tl.certify(loaded, torch.zeros(2, 6), progress=False)
    except TightlipError:
        pass
    return False


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["ReLU", "Linear", "p"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def replaced(outline, value, chooser):
    """The outline with one node, chosen by a random generator, replaced."""
    if isinstance(outline, list) and outline and chooser.random() < 0.8:
        at = chooser.randrange(len(outline))
        return [*outline[:at], replaced(outline[at], value, chooser), *outline[at + 1 :]]
    if isinstance(outline, dict) and outline and chooser.random() < 0.8:
        key = chooser.choice(sorted(outline))
        return outline | {key: replaced(outline[key], value, chooser)}
    return value


@settings(max_examples=60)
@given(value=VALUES, seed=st.integers(0, 10**6))
def test_any_value_in_any_place_of_a_description_gives_a_network_or_one_sentence(value, seed, whole, tmp_path_factory):
    chooser = random.Random(seed)
    content = described(whole, lambda d: d | {"network": replaced(d["network"], value, chooser)})
    check(content, tmp_path_factory.getbasetemp() / "any")


def damaged(whole, chooser):
    """A few bytes flipped, cut, doubled or replaced, mostly in the header."""
    content = bytearray(whole)
    head = 8 + struct.unpack("<Q", whole[:8])[0]
    for _ in range(chooser.choice((1, 1, 2, 5))):
        at = chooser.randrange(head if chooser.random() < 0.9 else len(content))
        match chooser.randrange(4):
            case 0:
                content[at : at + 1] = bytes([chooser.randrange(256)])
            case 1:
                content[at : at + chooser.randrange(1, 9)] = b""
            case 2:
                content[at:at] = content[at : at + chooser.randrange(1, 30)]
            case _:
                content[at : at + 1] = chooser.choice(
                    [b"0", b"9", b"-", b".", b"e", b'"', b"[", b"}", b"null", b"true"]
                )
    if chooser.random() < 0.7:  # or the length would give most of them away
        size = head - 8 + len(content) - len(whole)
        content[:8] = struct.pack("<Q", max(size, 0))
    return bytes(content)


def test_damaged_bytes_give_a_network_or_one_sentence(whole, tmp_path):
    chooser = random.Random(0)
    assert sum(check(damaged(whole, chooser), tmp_path / "m") for _ in range(200)) > 150


if __name__ == "__main__":  # the long run: python tests/test_damaged_files.py FOLDER COUNT
    from pathlib import Path

    target = Path(sys.argv[1]) / "m"
    save(network(), target)
    bytes_, generator = target.read_bytes(), random.Random(1)
    count = int(sys.argv[2])
    sys.stdout.write(f"{sum(check(damaged(bytes_, generator), target) for _ in range(count))} of {count} refused\n")

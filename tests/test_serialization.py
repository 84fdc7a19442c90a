"""A file is either the network that was saved, bit for bit, or one sentence; and nothing is ever half-written."""

import json
import os
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tightlip import (
    FullSort,
    GroupSort,
    MaxMin,
    Normalize,
    Residual,
    RowL1Ball,
    Scale,
    TightlipError,
    freeze,
    lipschitz,
    mlp,
)
from tightlip.serialization import load, save

NETWORKS = {
    "linear": lambda: nn.Linear(6, 4),
    "linear without bias": lambda: nn.Linear(6, 4, bias=False),
    "linear in float64": lambda: nn.Linear(6, 4).double(),
    "flatten": lambda: nn.Sequential(nn.Flatten(1, -1), nn.Linear(6, 4)),
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky relu": lambda: nn.LeakyReLU(0.3),
    "leaky relu beyond one": lambda: nn.LeakyReLU(-2.5),
    "group sort": lambda: GroupSort(3),
    "group sort of strangers": lambda: GroupSort(3, contiguous=False),
    "group sort of all": lambda: GroupSort(None),
    "maxmin": MaxMin,
    "maxmin of strangers": lambda: MaxMin(contiguous=False),
    "maxmin on axis 1": lambda: MaxMin(dim=1),
    "full sort": FullSort,
    "scale": lambda: Scale(0.1),
    "scale beyond one": lambda: Scale(1000.0),
    "scale in float64": lambda: Scale(0.1).double(),
    "normalize": lambda: Normalize(0.1307, 0.3081),
    "normalize by channel": lambda: Normalize([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1.0, 0.3, 0.7, 2.0, 0.1, 1.1]),
    "normalize, one std": lambda: Normalize([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 0.3),
    "normalize in float64": lambda: Normalize(0.1307, 0.3081).double(),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.3)),
    "pools": lambda: nn.Sequential(nn.MaxPool1d(2, stride=1, padding=1, ceil_mode=True), nn.AvgPool1d((2,), stride=1)),
    "average pool in part": lambda: nn.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "adaptive pools": lambda: nn.Sequential(nn.AdaptiveMaxPool1d(4), nn.AdaptiveAvgPool1d((2,))),
    "residual": lambda: Residual(nn.Linear(6, 6)),
    "residual of several": lambda: nn.Sequential(Residual(nn.Linear(6, 4), MaxMin(), nn.Linear(4, 6)), Scale(2.0)),
    "nested residuals": lambda: Residual(nn.Sequential(Residual(nn.ReLU()), nn.Linear(6, 6)), Residual(nn.Tanh())),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 4), MaxMin()), nn.Sequential(), Scale(2.0)),
    "frozen mlp": lambda: freeze(mlp([6, 8, 8, 3], K=0.1)),
    "frozen mlp of rows": lambda: freeze(mlp([6, 8, 3], RowL1Ball(), nn.ReLU, K=8.0, bias=False)),
}


def a_network():
    return nn.Sequential(nn.Linear(6, 4), MaxMin(), nn.Linear(4, 3), Scale(0.1))


def rewritten(path, change=lambda description: description, weights=lambda tensors: tensors):
    """The file at ``path`` again, with another description or other tensors."""
    with safe_open(path, framework="pt") as file:
        description, tensors = json.loads(file.metadata()["tightlip"]), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    save_file(weights(tensors), path, metadata={"tightlip": json.dumps(change(description))})


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_loaded_is_what_was_saved(kind, tmp_path, seed):
    network = NETWORKS[kind]().eval()
    x = torch.randn(5, 6, dtype=next((t.dtype for t in network.state_dict().values()), torch.float32))
    save(network, tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors")
    assert torch.equal(loaded(x), network(x))
    assert {k: v.dtype for k, v in loaded.state_dict().items()} == {k: v.dtype for k, v in network.state_dict().items()}
    assert lipschitz(loaded, 2) == lipschitz(network, 2)
    assert lipschitz(loaded, float("inf")) == lipschitz(network, float("inf"))
    assert str(loaded) == str(network)
    assert os.listdir(tmp_path) == ["m.safetensors"]


IMAGE_POOLS = [
    nn.MaxPool2d((2, 3), stride=(1, 2), padding=1, dilation=(2, 1)),
    nn.AvgPool2d(2, padding=1, count_include_pad=False),
    nn.AvgPool2d(3, divisor_override=-2),
    nn.AdaptiveAvgPool2d((None, 1)),
    nn.AdaptiveMaxPool2d([1, 2]),
    nn.Sequential(nn.MaxPool3d(2), nn.AvgPool3d((1, 2, 1)), nn.AdaptiveAvgPool3d(2)),
    nn.AdaptiveMaxPool3d(1),
]


@pytest.mark.parametrize("pool", IMAGE_POOLS, ids=repr)
def test_pools_of_images_keep_their_options(pool, tmp_path, seed):
    save(nn.Sequential(pool), tmp_path / "m")
    loaded, x = load(tmp_path / "m"), torch.randn(2, 3, 6, 8, 8) if "3d" in repr(pool) else torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(x), pool(x)) and repr(loaded) == repr(nn.Sequential(pool)).replace("[1, 2]", "(1, 2)")
    assert lipschitz(loaded, 2) == lipschitz(nn.Sequential(pool), 2) or "[1, 2]" in repr(pool)


def test_a_pool_that_returns_a_pair_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(TightlipError, match="return_indices=False"):
        save(nn.Sequential(nn.MaxPool1d(2, return_indices=True), nn.Flatten()), tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_a_loaded_network_is_in_eval_mode_and_needs_no_gradient(tmp_path):
    save(a_network().train(), tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_scale_survives_a_second_round_without_drifting(tmp_path):
    network = nn.Sequential(Scale(0.1))
    for _ in range(3):
        save(network, tmp_path / "m")
        network = load(tmp_path / "m")
    assert torch.equal(network[0].scale, Scale(0.1).scale)


@pytest.mark.parametrize("hold", ["step", "forward"])
def test_a_held_network_is_refused_and_leaves_no_file(hold, tmp_path):
    with pytest.raises(TightlipError, match="freeze"):
        save(mlp([4, 4, 2], hold=hold), tmp_path / "m")
    assert os.listdir(tmp_path) == []


class Tenfold(nn.Linear):
    def forward(self, x):
        return 10 * super().forward(x)


@pytest.mark.parametrize("module", [nn.Bilinear(1, 1, 1), nn.LSTM(1, 1), nn.ModuleList([nn.ReLU()]), Tenfold(2, 2)])
def test_unknown_modules_are_refused_by_name_and_leave_no_file(module, tmp_path):
    with pytest.raises(TightlipError, match=type(module).__name__):
        save(nn.Sequential(nn.ReLU(), module), tmp_path / "m")
    assert os.listdir(tmp_path) == []


def hooked():
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda module, inputs, output: 10 * output)
    return layer


def overridden():
    layer = nn.Linear(2, 2)
    layer.forward = lambda x: 10 * x
    return layer


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's old weight_norm is deprecated, and still in use
@pytest.mark.parametrize("altered", [hooked, overridden, lambda: nn.utils.weight_norm(nn.Linear(2, 2))])
def test_altered_modules_are_refused_since_the_file_would_be_another_function(altered, tmp_path):
    with pytest.raises(TightlipError, match="hook|replaced|cannot be written"):
        save(nn.Sequential(altered()), tmp_path / "m")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_one_sentence(share, tmp_path):
    save(a_network(), tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(content[: int(share * len(content))])
    with pytest.raises(TightlipError, match="not a complete one"):
        load(tmp_path / "m")


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 100, b"\xff" * 100, b"PK\x03\x04" + b"x" * 50])
def test_garbage_is_one_sentence(content, tmp_path):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(TightlipError, match="not a complete one"):
        load(tmp_path / "m")


@pytest.mark.parametrize("path", ["absent", ".", "absent/m"])
def test_absent_files_and_folders_are_one_sentence(path, tmp_path):
    with pytest.raises(TightlipError, match="there is no file|is a folder: give the file in it"):
        load(tmp_path / path)


@pytest.mark.parametrize(
    "metadata", [None, {"other": "1"}, {"tightlip": "{"}, {"tightlip": "7"}, {"tightlip": "[]"}, {"tightlip": "{}"}]
)
def test_foreign_safetensors_are_one_sentence(metadata, tmp_path):
    save_file({"0.weight": torch.ones(2, 2)}, tmp_path / "m", metadata=metadata)
    with pytest.raises(TightlipError, match="no tightlip network"):
        load(tmp_path / "m")


def test_files_of_format_1_are_read(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Sequential(Residual(nn.Linear(3, 3), nn.ReLU())), Residual(nn.ReLU()))
    save(network, tmp_path / "m")
    relu, flat = ["ReLU", {}], ["Flatten", {"start_dim": 1, "end_dim": -1}]
    linear = ["Linear", {"in_features": 3, "out_features": 3, "bias": True}]
    block = ["Residual", ["Sequential", [["0", linear], ["1", relu]]]]
    outline = ["Sequential", [["0", flat], ["1", ["Sequential", [["0", block]]]], ["2", ["Residual", relu]]]]
    rewritten(tmp_path / "m", lambda description: {"format": 1, "network": outline})
    loaded = load(tmp_path / "m")
    assert str(loaded) == str(network) and torch.equal(loaded(torch.ones(2, 3)), network(torch.ones(2, 3)))


def test_a_newer_format_asks_for_an_update(tmp_path):
    save(a_network(), tmp_path / "m")
    rewritten(tmp_path / "m", lambda description: description | {"format": 3})
    with pytest.raises(TightlipError, match="format 3.*reads 1 to 2.*update"):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    "alter",
    [
        lambda tensors: tensors | {"0.weight": torch.ones(4, 7)},
        lambda tensors: tensors | {"0.weight": torch.ones(4)},
        lambda tensors: tensors | {"0.weight": torch.ones(4, 6, dtype=torch.int64)},
        lambda tensors: tensors | {"stranger": torch.ones(1)},
        lambda tensors: {name: value for name, value in tensors.items() if name != "0.bias"},
    ],
)
def test_weights_that_do_not_fit_the_description_are_one_sentence(alter, tmp_path):
    save(a_network(), tmp_path / "m")
    rewritten(tmp_path / "m", weights=alter)
    with pytest.raises(TightlipError, match="do not fit its description"):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    "network",
    [
        ["Sequential", [["Linear", {"in_features": 6, "out_features": 4, "bias": False}]]],
        ["Sequential", [["Conv2d", {}]]],
        ["Sequential", None],
        ["Scale", {"scale": -1.0}],
        ["MaxMin", {"unknown": 1}],
        ["Residual", None],
        ["Residual", {"f": ["ReLU", {}]}],
        ["MaxPool1d", {"kernel": 2}],
        ["Linear", {"in_features": -3, "out_features": 4, "bias": True}],
        "Linear",
        None,
        7,
        [["Sequential"], {}],
        [1, 2, 3],
        "ab",
        ["Linear", 5],
        ["Linear", None],
        ["Linear", ["in_features", "out_features"]],
        ["Linear", {"in_features": 6, "out_features": 4, "bias": True, "device": "cuda"}],
        ["Linear", {"in_features": 10**30, "out_features": 4, "bias": True}],
        ["Sequential", [["0", ["ReLU", 5]]]],
        ["Sequential", 5],
        ["Sequential", {}],
        ["Sequential", {}, 5],
        ["Sequential", {}, [["0", ["ReLU", {}]], ["0", ["ReLU", {}]]]],
        ["ReLU", {}, []],
        ["Residual", {}, [["f", ["ReLU", {}]], ["g", ["ReLU", {}]]]],
        ["Residual", {}, [["g", ["ReLU", {}]]]],
    ],
    ids=repr,
)
@pytest.mark.parametrize("version", [1, 2])
def test_swapped_or_impossible_descriptions_are_one_sentence(network, version, tmp_path):
    save(a_network(), tmp_path / "m")
    rewritten(tmp_path / "m", lambda description: description | {"network": network, "format": version})
    with pytest.raises(TightlipError, match="do not fit its description"):
        load(tmp_path / "m")


@pytest.mark.parametrize("depth", [50, 300, 600, 100_000])
@pytest.mark.parametrize(
    "opening",
    ["[", '["Residual",', '["Sequential",[["0",', '["Sequential",{},[["0",'],
    ids=["list", "residual", "sequential", "sequential in format 2"],
)
def test_descriptions_nested_too_deeply_are_one_sentence(opening, depth, tmp_path):
    outline = opening * depth + "[]" + "".join("]" for c in opening if c == "[") * depth
    version = 2 if "{}" in opening else 1
    description = f'{{"format": {version}, "network": ' + outline + "}"
    save_file({"0.weight": torch.ones(2, 2)}, tmp_path / "m", metadata={"tightlip": description})
    with pytest.raises(TightlipError, match="no tightlip network|do not fit its description"):
        load(tmp_path / "m")


def test_any_damaged_byte_of_the_head_gives_a_network_or_one_sentence(tmp_path):
    save(nn.Sequential(nn.Linear(2, 2), MaxMin()), tmp_path / "m")
    whole = (tmp_path / "m").read_bytes()
    refused = 0
    for i in range(8 + int.from_bytes(whole[:8], "little")):
        for byte in b'\xff"[':
            (tmp_path / "m").write_bytes(whole[:i] + bytes([byte]) + whole[i + 1 :])
            try:
                load(tmp_path / "m")
            except TightlipError:
                refused += 1
    assert refused > 500


def test_saving_again_replaces_the_file_whole(tmp_path):
    save(nn.Linear(2, 2), tmp_path / "m")
    save(a_network(), tmp_path / "m")
    assert len(load(tmp_path / "m")) == 4
    assert os.listdir(tmp_path) == ["m"]


def test_a_failed_save_keeps_the_earlier_file(tmp_path):
    save(a_network(), tmp_path / "m")
    before = (tmp_path / "m").read_bytes()
    with pytest.raises(TightlipError, match="LSTM"):
        save(nn.LSTM(1, 1), tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == before and os.listdir(tmp_path) == ["m"]


def test_an_absent_folder_is_one_sentence(tmp_path):
    with pytest.raises((TightlipError, OSError), match="absent"):
        save(a_network(), tmp_path / "absent" / "m")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_place_of_the_file_leaves_nothing_half_written(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises((TightlipError, OSError), match="m"):
        save(a_network(), tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises((TightlipError, OSError), match=str(tmp_path)):
            save(a_network(), tmp_path / "m")
        assert os.listdir(tmp_path) == []
    finally:
        tmp_path.chmod(0o700)


def test_named_layers_and_slices_survive(tmp_path):
    network = freeze(mlp([4, 6, 6, 3]))
    named = nn.Sequential(OrderedDict(head=network[0], act=network[1], tail=network[2:]))
    for module, width in ((named, 4), (network[1:], 6)):
        save(module, tmp_path / "m.safetensors")
        x = torch.randn(3, width)
        assert torch.equal(load(tmp_path / "m.safetensors")(x), module(x))


def test_what_a_file_cannot_hold_is_refused_before_writing(tmp_path):
    network = freeze(mlp([4, 6, 3]))
    network.register_buffer("step", torch.zeros(1))
    with pytest.raises(TightlipError, match="beside"):
        save(network, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())

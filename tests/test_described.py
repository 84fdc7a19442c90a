"""Every type that the audit knows can be saved: what is loaded computes the same, and has the same bound."""

import copy
import math

import pytest
import torch
from torch import nn

import tightlip as tl
from tightlip import TightlipError, graphs, lipschitz, load, save
from tightlip.audit import Concat, Gains, Sum, registered, rule
from tightlip.bridges.conversion.registry import StandIn
from tightlip.constructions import LatticeInterpolant
from tightlip.graphs import Graph, Slice
from tightlip.options import NUMBER
from tightlip.transport import Funnels


def learned(module):
    """Other numbers than a constructor gives."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator) + 0.1
    return module


EXAMPLES = [  # options that are no defaults, and the shape of an input without its batch
    (nn.Linear(6, 4), (6,)),
    (nn.Linear(6, 4, bias=False), (6,)),
    (nn.Flatten(1, 2), (2, 3)),
    (nn.Unflatten(1, (2, -1)), (6,)),
    *((module, (3, 4)) for module in (nn.Identity(), nn.ReLU(), nn.ReLU6(), nn.Tanh(), nn.Sigmoid(), nn.Softsign())),
    *((module, (3, 4)) for module in (nn.LogSigmoid(), nn.SiLU(), nn.Mish(), nn.SELU(), nn.Hardswish(), tl.Abs())),
    *((module, (3, 4)) for module in (nn.Hardsigmoid(), nn.Tanhshrink(), nn.Softshrink(0.2), nn.Threshold(0.3, 0.3))),
    (nn.Hardtanh(-0.25, 0.5), (6,)),
    (nn.ELU(1.5), (6,)),
    (nn.CELU(0.5), (6,)),
    (nn.GELU("tanh"), (6,)),
    (nn.GELU(), (6,)),
    (nn.LeakyReLU(-1.5), (6,)),
    (nn.RReLU(0.2, 1.4), (6,)),
    (nn.Softplus(2.0, 30.0), (6,)),
    (learned(nn.PReLU(3)), (3, 4)),
    (nn.Softmax(1), (3, 4)),
    (nn.Softmin(-1), (3, 4)),
    (nn.Dropout(0.25), (6,)),
    (nn.Dropout1d(0.25), (3, 4)),
    (nn.Dropout2d(0.25), (3, 4, 4)),
    (nn.Dropout3d(0.25), (3, 2, 4, 4)),
    (nn.AlphaDropout(0.25), (6,)),
    (nn.FeatureAlphaDropout(0.25), (3, 4)),
    (nn.MaxPool1d(3, 1, 1, 2, ceil_mode=True), (3, 8)),
    (nn.MaxPool2d((2, 3), padding=1), (3, 4, 6)),
    (nn.MaxPool3d(2), (1, 4, 4, 4)),
    (nn.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False), (3, 8)),
    (nn.AvgPool2d(2, divisor_override=-3), (3, 4, 6)),
    (nn.AvgPool3d(2, (1, 2, 1)), (1, 4, 4, 4)),
    (nn.AdaptiveMaxPool1d(4), (3, 8)),
    (nn.AdaptiveMaxPool2d((None, 2)), (3, 4, 6)),
    (nn.AdaptiveMaxPool3d(1), (1, 4, 4, 4)),
    (nn.AdaptiveAvgPool1d(3), (3, 8)),
    (nn.AdaptiveAvgPool2d((2, None)), (3, 4, 6)),
    (nn.AdaptiveAvgPool3d(2), (1, 4, 4, 4)),
    (nn.PixelShuffle(2), (4, 2, 3)),
    (nn.PixelUnshuffle(2), (1, 4, 6)),
    (nn.ChannelShuffle(3), (6, 2, 2)),
    (nn.ZeroPad1d((1, 2)), (2, 3)),
    (nn.ZeroPad2d(1), (2, 3, 3)),
    (nn.ZeroPad3d(2), (1, 2, 2, 2)),
    (nn.ConstantPad1d((1, 2), 0.5), (2, 3)),
    (nn.ConstantPad2d(1, -2), (2, 3, 3)),
    (nn.ConstantPad3d(2, 0.25), (1, 2, 2, 2)),
    (nn.ReplicationPad1d((1, 2)), (2, 3)),
    (nn.ReplicationPad2d(1), (2, 3, 3)),
    (nn.ReplicationPad3d(2), (1, 2, 2, 2)),
    (nn.ReflectionPad1d((1, 2)), (2, 3)),
    (nn.ReflectionPad2d(1), (2, 3, 3)),
    (nn.ReflectionPad3d(1), (1, 2, 2, 2)),
    (nn.CircularPad1d((1, 2)), (2, 3)),
    (nn.CircularPad2d(1), (2, 3, 3)),
    (nn.CircularPad3d(2), (1, 2, 2, 2)),
    (nn.Upsample(scale_factor=(3, 2), mode="nearest-exact"), (2, 3, 3)),
    (nn.Upsample(scale_factor=2), (2, 3)),
    (nn.UpsamplingNearest2d(scale_factor=2), (2, 3, 3)),
    (learned(nn.BatchNorm1d(3, eps=0.01, momentum=None)), (3, 4)),
    (learned(nn.BatchNorm2d(3, affine=False)), (3, 4, 4)),
    (learned(nn.BatchNorm3d(3)), (3, 4, 2, 2)),
    (tl.GroupSort(3, dim=1, contiguous=False), (6, 2)),
    (tl.MaxMin(dim=1, contiguous=False), (6, 2)),
    (tl.FullSort(dim=1), (6, 2)),
    (tl.Maxout(3, dim=1), (6, 2)),
    (learned(tl.Householder(3, dim=1)), (6, 2)),
    (tl.Scale(0.1), (6,)),
    (tl.Normalize([0.1, 0.2, 0.3], [0.5, 0.25, 2.0]), (3, 4)),
    (tl.Shift(0.5, 2), (4, 3, 2)),
    (tl.LinfDistance(6, 3, negative=True), (6,)),
    (tl.SortedDistance(6, 3, dropout=0.5), (6,)),
    (tl.MeanShift(6), (6,)),
    (tl.MeanShift(3), (3, 4, 4)),
    (tl.Prototypes(6, 3, each=2), (6,)),
    (tl.Residual(nn.Linear(6, 6), tl.MaxMin()), (6,)),
    (nn.Sequential(nn.Linear(6, 6), nn.ReLU()), (6,)),
    (nn.Conv1d(2, 4, 3, 2, "valid", 2, 2, False), (2, 9)),
    (nn.Conv2d(2, 4, (3, 2), padding=(1, 2), padding_mode="circular"), (2, 5, 5)),
    (nn.Conv2d(2, 4, 3, padding="same"), (2, 5, 5)),
    (nn.Conv3d(1, 2, 2), (1, 3, 3, 3)),
    (nn.ConvTranspose1d(2, 4, 3, 2, 1, 1, 2, False), (2, 5)),
    (nn.ConvTranspose2d(2, 2, (3, 2), (2, 1)), (2, 3, 3)),
    (nn.ConvTranspose3d(1, 2, 2, 2), (1, 2, 2, 2)),
    (Slice(1, 2, 5), (6,)),
    (graphs.Select(1, -1), (6, 2)),
    (graphs.Chunk(4, 2, 1), (3, 7)),
    (graphs.Transpose(1, 2), (3, 2)),
    (graphs.Permute((0, 3, 1, 2)), (3, 2, 4)),
    (graphs.Squeeze(1), (1, 4)),
    (graphs.Unsqueeze(-1), (3,)),
    (graphs.Roll(2, 1), (5,)),
    (graphs.Flip(-1), (5,)),
    (graphs.Mean((1, 2), True, 6), (2, 3)),
    (graphs.Mean(1), (3, 2)),
    (graphs.Max((1, 2), True), (2, 3)),
    (graphs.Min(-1), (3, 2)),
    (graphs.Offset(0.1), (3,)),
    (learned(graphs.Bias(3, 1)), (3, 4)),
    (learned(graphs.Transposed(nn.Linear(6, 4), True)), (4,)),
    (graphs.Transposed(nn.Linear(6, 4, bias=False)), (4,)),
    (Graph({"a": nn.Linear(6, 6)}, [("a", (0,)), (Sum(0.5, -2.0), (0, 1)), (Concat(1), (2, 0))]), (6,)),
    (Funnels(torch.rand(5, 3), torch.rand(5), math.inf), (3,)),
    (Funnels(torch.rand(5, 3), torch.rand(5), 1, trainable=True), (3,)),
    (LatticeInterpolant(torch.rand(5, 3, dtype=torch.float64), 0.1 * torch.rand(5, 2).double(), math.inf), (3,)),
]

REFUSED = {  # registered to say why they have no bound, or in what no network needs a file
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.Embedding, nn.EmbeddingBag, nn.Hardshrink, nn.GLU, nn.LogSoftmax, StandIn),
}


def bounds(network):
    found = {}
    for p, q in ((1, 1), (1, 2), (1, math.inf), (2, 2), (2, math.inf), (math.inf, math.inf)):
        try:
            found[p, q] = lipschitz(network, p, q)
        except TightlipError:
            found[p, q] = None
    return found


@pytest.mark.parametrize(("module", "shape"), EXAMPLES, ids=lambda value: repr(value).splitlines()[0])
def test_what_is_loaded_computes_the_same_and_has_the_same_bound(module, shape, tmp_path, seed):
    network = nn.Sequential(nn.Identity(), module).eval()
    x = torch.randn(4, *shape)
    save(network, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert torch.equal(loaded(x), network(x)) and type(loaded[1]) is type(module)
    found = bounds(network)
    assert bounds(loaded) == found and any(found.values())
    assert str(loaded) == str(network)
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_every_registered_type_has_an_example_or_a_reason():
    own = {kind for kind in registered() if kind.__module__.startswith(("torch.nn.", "tightlip."))}
    assert {type(module) for module, _ in EXAMPLES} | REFUSED == own
    for kind in REFUSED:
        assert registered()[kind].options is None
        with pytest.raises(TightlipError, match=kind.__name__):
            registered()[kind].rule(kind(2, 2) if "Embedding" in kind.__name__ else kind.__new__(kind))


def test_types_make_rows_of_rows_or_say_that_they_do_not():
    """What the audit takes for granted where it multiplies a batch normalization and a linear layer."""
    tried = set()
    for module, _ in EXAMPLES:
        for features in range(1, 13):
            rows = torch.rand(4, features, dtype=torch.float64)
            try:
                made = copy.deepcopy(module).double().eval()(rows)
            except (TightlipError, RuntimeError, IndexError, ValueError, UserWarning):
                continue
            tried.add(type(module))
            assert made.dim() == 2 or registered()[type(module)].reshapes, module
    assert len(tried) > 30


class Halve(nn.Module):
    """A layer of a user's own, with an option and a weight."""

    def __init__(self, by=2.0):
        super().__init__()
        self.by, self.shift = by, nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x / self.by + self.shift


@pytest.fixture
def halve(monkeypatch):
    from tightlip.audit import registry

    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    rule(Halve, options={"by": NUMBER})(lambda module: Gains.constant(1 / module.by))
    return learned(Halve(4.0))


def test_a_type_of_ones_own_is_saved_where_its_rule_names_its_options(halve, tmp_path):
    save(nn.Sequential(halve), tmp_path / "m")
    loaded = load(tmp_path / "m")
    x = torch.randn(2, 3)
    assert torch.equal(loaded(x), halve(x)) and lipschitz(loaded, 2).constant == 0.25


def test_without_its_rule_the_file_is_refused_and_the_advice_is_to_import_it(halve, tmp_path, monkeypatch):
    from tightlip.audit import registry

    save(nn.Sequential(halve), tmp_path / "m")
    del registry._KNOWN[Halve]
    with pytest.raises(TightlipError, match="Halve.*import what registers it"):
        load(tmp_path / "m")


def test_a_type_without_options_says_so(halve, tmp_path):
    rule(Halve)(lambda module: Gains.constant(1 / module.by))
    with pytest.raises(TightlipError, match="Halve.*options="):
        save(nn.Sequential(halve), tmp_path / "m")


def test_a_namesake_of_a_known_type_is_another_type(halve, tmp_path):
    class Linear(nn.Module):
        def forward(self, x):
            return 10 * x

    rule(Linear, options={})(lambda module: Gains.constant(10.0))
    save(nn.Sequential(Linear()), tmp_path / "m")
    assert type(load(tmp_path / "m")[0]) is Linear


def test_buffers_that_no_file_holds_are_refused_and_not_left_without_numbers(halve, tmp_path):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("factor", torch.ones(2), persistent=False)

        def forward(self, x):
            return self.factor * x

    rule(Hidden, options={})(lambda module: Gains.constant(1.0))
    with pytest.raises(TightlipError, match="state"):
        save(nn.Sequential(Hidden()), tmp_path / "m")


def test_training_mode_is_no_hindrance_and_is_left(tmp_path):
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    save(network, tmp_path / "m")
    assert network.training and not load(tmp_path / "m").training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_each_floating_point_type_is_kept(dtype, tmp_path):
    network = nn.Sequential(tl.Normalize(0.5, 0.25), nn.Linear(3, 4), nn.BatchNorm1d(4), tl.Scale(0.1)).to(dtype)
    save(network, tmp_path / "m")
    state = load(tmp_path / "m").state_dict()
    assert {key: value.dtype for key, value in state.items()} == {k: v.dtype for k, v in network.state_dict().items()}


@pytest.mark.parametrize(
    ("network", "advice"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), "float32.*float64.*network.double"),
        (nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), "complex64: give float16"),
        (nn.Sequential(nn.Linear(2, 2).to(torch.float8_e4m3fn)), "float8_e4m3fn: give float16"),
        (nn.Sequential(nn.Linear(2, 2, device="meta")), "meta"),
        (nn.Sequential(nn.Softplus(threshold=1)), "threshold"),
        (nn.Sequential(nn.Dropout(math.nan)), "from 0 to 1"),
        (nn.Sequential(nn.Hardtanh(-1, math.inf)), "finite"),
        (nn.Sequential(nn.LeakyReLU("0.1")), "finite"),
        (nn.Sequential(nn.Softmax(0)), "-1, or an integer"),
        (nn.BatchNorm1d(2, track_running_stats=False), "running_mean"),
    ],
    ids=repr,
)
def test_what_could_not_be_loaded_is_not_written(network, advice, tmp_path):
    with pytest.raises(TightlipError, match=advice):
        save(network, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_network_nested_too_deeply_is_one_sentence(tmp_path):
    network = nn.ReLU()
    for _ in range(450):
        network = nn.Sequential(network)
    with pytest.raises(TightlipError, match="nested more than 64 deep"):
        save(network, tmp_path / "m")

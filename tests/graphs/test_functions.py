"""What forwards do to images and tokens: traced, bounded from both sides, saved; and a Mixer block of plain torch."""

import math

import pytest
import torch
from slopes import largest_slope
from torch import nn
from torch.nn import functional as F

from tightlip import TightlipError, certify, convert, freeze, lipschitz, load, save, summary, trace
from tightlip.graphs import Max, Mean, Min, Offset, Permute


class Forward(nn.Module):
    """A forward without layers."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def unpacked(x):
    a, b, c, d = x.unbind(1)
    return torch.stack([a + 1.0, 2.0 - b, c, d - 0.5], dim=1)


def chunked(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([b, a], dim=-1)


def by_keywords(x):
    a, b = torch.split(tensor=x, split_size_or_sections=[2, 4], dim=2)
    return torch.cat([b, a], dim=2)


def by_sizes(x):
    batch, tokens, channels = x.shape
    return x.view(batch, tokens * channels)


def by_size_of_two_axes(x):
    image = x.unflatten(2, (2, 3))
    batch, channels, height, width = image.size()
    return image.reshape(batch, channels, height * width)


def by_size_and_numbers(x):
    return x.view(x.size(0), x.size(1), 2, -1)


def larger_of_two_pieces(x):
    larger, _ = x.unflatten(2, (3, 2)).max(3)
    return larger


MOVED = {
    "a view by all sizes": by_sizes,
    "a view by a product of sizes": by_size_of_two_axes,
    "a view by sizes and numbers": by_size_and_numbers,
    "a view that leaves out axes of one entry": lambda x: x[..., None, None].view(x.size(0), -1),
    "a view that names what is kept": lambda x: (lambda y: y.view(y.size(0), y.size(1), y.size(2)))(x[..., None]),
    "a product of sizes in the middle": lambda x: (lambda y: y.view(y.size(0), y.size(1) * y.size(2), -1))(
        x[..., None]
    ),
    "new axes by an index": lambda x: x[:, None, :, None],
    "new axes at the end": lambda x: x[..., None, :, None],
    "inputs by name": lambda x: torch.reshape(input=torch.neg(input=x), shape=(x.shape[0], -1)),
    "permute": lambda x: x.permute(0, 2, 1),
    "permute of a list": lambda x: torch.permute(x, (0, 2, 1)),
    "permute by negative numbers": lambda x: x.permute(0, -1, -2),
    "transpose": lambda x: x.transpose(1, 2).contiguous(),
    "mT": lambda x: x.mT,
    "swapaxes": lambda x: torch.swapaxes(x, -1, -2),
    "roll": lambda x: x.roll(1, dims=2),
    "roll of two axes": lambda x: torch.roll(x, (1, 2), dims=(1, 2)),
    "flip": lambda x: x.flip(2),
    "flip of two axes": lambda x: torch.flip(x, (1, 2)),
    "unsqueeze and squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "flattened at the end": lambda x: x.unflatten(2, (2, 3)).flatten(2),
    "a view of several sizes": lambda x: x.view(x.size(0), 2, 12),
    "a view with one free size": lambda x: x.reshape(x.shape[0], 3, -1),
    "a view of all sizes": lambda x: x.view(-1, 8, 3),
    "a view by the size of another value": lambda x: x.mT.reshape(x.size(0), -1),
    "a view by a tuple": lambda x: x.view((x.size(0), -1)),
    "padded": lambda x: F.pad(x, (1, 2)),
    "a number added": lambda x: 0.5 - (x + 3),
    "dropout of a network that is evaluated": lambda x: F.dropout(x, 0.5, training=False),
    "channels shuffled": lambda x: F.channel_shuffle(x, 2),
}
"""Functions that keep all entries, each once: norm 1 in the 2-norm, attained everywhere."""

LOOSE = {
    "one entry an example": lambda x: torch.stack([x.flatten(1)[:, :1].reshape(-1), x[:, 1, :1].view(x.size(0))], 1),
    "a scaled sum": lambda x: torch.sub(torch.add(x, x.relu(), alpha=2), other=x, alpha=0.5),
    "put together by axis": lambda x: torch.cat([x, x.relu()], axis=1),
    "the last chunk": lambda x: x.chunk(3, dim=2)[-1],
    "the last unbound": lambda x: x.unbind(1)[-1],
    "the last of stated pieces": lambda x: x.split([1, 3], dim=1)[-1],
    "narrowed": lambda x: torch.narrow(x, dim=1, start=1, length=2),
    "select by keywords": lambda x: x.select(dim=1, index=-1),
    "softmax": lambda x: F.softmax(x, dim=-1),
    "dropout of channels": lambda x: F.dropout1d(x, training=False),
    "unbound and stacked": unpacked,
    "chunked": chunked,
    "split by keywords": by_keywords,
    "selected": lambda x: x[:, 1],
    "selected from the end": lambda x: x[..., -1],
    "selected and sliced": lambda x: x[:, 1, 2:4],
    "sliced twice": lambda x: x[:, 1:3, :2],
    "sliced at the end of an image": lambda x: x[..., 1:, :3],
    "select": lambda x: torch.select(x, 1, 2),
    "the mean over tokens": lambda x: x.mean(1),
    "the mean over both, kept": lambda x: x.mean((1, 2), keepdim=True),
    "the largest": lambda x: x.max(1).values,
    "the largest of pairs": larger_of_two_pieces,
    "the largest, kept": lambda x: torch.max(x, dim=2, keepdim=True)[0],
    "the smallest": lambda x: torch.min(x, -1)[0],
    "the smallest over both": lambda x: x.amin((1, 2)),
    "the largest by keywords": lambda x: torch.amax(input=x, axis=1, keepdim=True),
    "clamped": lambda x: x.clamp(-1.0, 1.0),
    "clamped from below": lambda x: x.clamp(min=0),
    "pooled": lambda x: F.adaptive_max_pool1d(x, 1),
    "interpolated": lambda x: F.interpolate(x, scale_factor=2),
}
"""Functions that leave entries out or average them; pieces that are put together again count as different values."""

FORWARDS = MOVED | LOOSE


def jacobian_norm(network, x):
    jacobian = torch.func.jacrev(lambda one: network(one[None])[0].flatten())(x)
    return float(torch.linalg.matrix_norm(jacobian.flatten(1), 2).detach())


@pytest.mark.parametrize("name", FORWARDS)
def test_a_function_is_bounded_from_both_sides(name, seed, tmp_path):
    network, x = Forward(FORWARDS[name]).eval(), torch.randn(5, 4, 6, dtype=torch.float64)
    graph = trace(network)
    torch.testing.assert_close(graph(x), network(x), rtol=0, atol=1e-12)
    bound = lipschitz(network, 2, 2).constant
    reached = jacobian_norm(graph, x[0])
    assert reached <= bound * (1 + 1e-12)
    if name in MOVED:
        assert bound == pytest.approx(reached, rel=1e-12)
        assert bound == 1
    save(freeze(network), tmp_path / "m")
    assert torch.equal(load(tmp_path / "m")(x), graph(x))


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("kind", [Max, Min])
@pytest.mark.parametrize("dim", [1, -1, (1, 2), (-2, 3)])
def test_the_largest_and_the_smallest_have_slope_one(dim, kind, p, seed):
    layer = kind(dim)
    assert lipschitz(layer, p, p).constant == 1.0
    assert 1 - 1e-9 <= largest_slope(layer, (2, 3, 4), p, p) <= 1 + 1e-9
    x = torch.randn(5, 2, 3, 4)
    wanted = x.amax(dim) if kind is Max else x.amin(dim)
    assert torch.equal(layer(x), wanted)


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda x: x.max(1)[1].float(), "takes the places of extreme entries, which jump: take the values"),
        (lambda x: x.max(1).indices, "takes the places of extreme entries"),
        (lambda x: torch.max(x, -x), "takes one of two values"),
        (lambda x: torch.min(x, other=-x), "takes one of two values"),
        (lambda x: x.max(), "compares the examples of a batch: give the axes"),
        (lambda x: x.amin(), "compares the examples of a batch"),
        (lambda x: x.max(0).values, "axis 0|Max has dim=0"),
        (lambda x: x.amax((0, 1)), "axis 0|Max has dim"),
        (lambda x: x.max(1), "not a tensor|not one tensor"),
        (lambda x: x.max(1, True, "odd")[0], "arguments that no rule speaks of"),
    ],
)
def test_what_compares_otherwise_is_refused(forward, words):
    with pytest.raises(TightlipError, match=words):
        lipschitz(Forward(forward).eval(), 2)


def test_a_network_of_points_is_audited_certified_and_trained_on():
    """As PointNet: a layer for each point, the largest of each feature, a classifier."""

    class PointNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.each, self.last = nn.Linear(3, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.last(torch.relu(self.each(x)).max(dim=1)[0])

    network, x = PointNet().eval(), torch.randn(6, 20, 3)
    product = math.prod(
        float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) for layer in network.children()
    )
    assert lipschitz(network, 2, 2).constant == pytest.approx(product, rel=1e-6)
    assert float(certify(network, x).radius.max()) > 0
    converted = convert(network, example=x)
    assert lipschitz(freeze(converted.network), 2, 2).constant <= 1 + 1e-6


@pytest.mark.parametrize("count", [6, None])
@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_a_mean_whose_entries_are_counted_has_its_own_norm(count, p):
    layer = Mean(2, count=count)
    bound = lipschitz(layer, p, p).constant
    exact = {1: 1 / 6, 2: 6**-0.5, math.inf: 1.0}[p] if count else 1.0
    assert exact <= bound <= exact * (1 + 1e-12)
    assert largest_slope(layer, (4, 6), p, p) <= bound * (1 + 1e-9)


def test_a_mean_of_another_count_is_refused():
    with pytest.raises(TightlipError, match="state count=5"):
        Mean(1, count=6)(torch.zeros(2, 5))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Mean(0), "axes other than 0"),
        (Mean((1, 1)), "each once"),
        (Max(0), "axes other than 0"),
        (Min((2, 2)), "each once"),
        (Max(()), "axes other than 0"),
        (Mean(1, count=0), "integer ≥ 1"),
        (Permute((1, 0)), "give 0, that of the batch"),
        (Permute((0, 2)), "give 0, that of the batch"),
        (Offset(float("nan")), "finite number"),
    ],
)
def test_layers_that_would_mix_examples_have_no_bound(layer, words):
    with pytest.raises(TightlipError, match=words):
        lipschitz(layer, 2)


@pytest.mark.parametrize("name", ["permute by negative numbers", "selected from the end", "chunked"])
def test_an_axis_from_the_end_that_is_the_batch_is_refused_where_it_shows(name):
    graph = trace(Forward(FORWARDS[name]))
    with pytest.raises((TightlipError, RuntimeError), match="batch|no axis|number of dimensions"):
        graph(torch.zeros(5))


def test_a_layer_never_takes_the_batch_for_features():
    """Of (batch, 1) the last axis is taken away: what is left has the batch as its last axis."""
    head = nn.Linear(3, 2)
    network = Forward(lambda x: head(x[:, 0]))
    network.head = head
    with pytest.raises(TightlipError, match="whose last axis is that of the batch"):
        trace(network)(torch.zeros(3, 4))
    network = Forward(lambda x: torch.stack([x[:, 0] + 1.0, x[:, 1]], dim=1))
    assert trace(network)(torch.zeros(3, 4)).shape == (3, 2)


def test_a_vector_of_examples_is_not_made_of_several_entries():
    graph = trace(Forward(lambda x: x.view(-1)))
    assert graph(torch.zeros(5, 1)).shape == (5,)
    with pytest.raises(RuntimeError, match="unflatten"):
        graph(torch.zeros(5, 2))


class MixerBlock(nn.Module):
    """Token mixing and channel mixing with skip connections, as in Tolstikhin et al. 2021, without the norms."""

    def __init__(self, tokens, channels):
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(tokens, 8), nn.GELU(), nn.Linear(8, tokens))
        self.channels = nn.Sequential(nn.Linear(channels, 8), nn.GELU(), nn.Linear(8, channels))

    def forward(self, x):
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return x + self.channels(x)


class Mixer(nn.Module):
    """Patches, two blocks, the mean over tokens, a head."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 2, 2)
        self.blocks = nn.Sequential(MixerBlock(9, 6), MixerBlock(9, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.blocks(x).mean(dim=1))


def test_a_mixer_of_plain_torch_is_audited_certified_saved_and_summarized(seed, tmp_path):
    network, x = Mixer().eval(), torch.rand(4, 1, 6, 6)
    bound = lipschitz(network, 2, 2).constant
    assert largest_slope(trace(network).double(), (1, 6, 6), 2, 2, steps=5) <= bound * (1 + 1e-6)
    network = network.float()
    certificate = certify(network, x, torch.zeros(4, dtype=torch.int64))
    assert certificate.radius.shape == (4,)
    save(freeze(network), tmp_path / "m")
    loaded = load(tmp_path / "m")
    torch.testing.assert_close(loaded(x), network(x))
    assert lipschitz(loaded, 2, 2).constant == bound
    assert "Transpose" in str(summary(network))


def test_a_mixer_with_layer_norm_says_why_it_has_no_bound():
    network = nn.Sequential(MixerBlock(9, 6), nn.LayerNorm(6))
    with pytest.raises(TightlipError, match=r"LayerNorm divides each input by its own spread"):
        lipschitz(network, 2)

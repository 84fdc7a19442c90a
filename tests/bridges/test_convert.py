"""`convert` keeps its promise on networks as people write them, and refuses by name what it cannot convert."""

import copy
import inspect
import math
import re

import pytest
import torch
from bridges.architectures import ARCHITECTURES
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

import tightlip as tl
from tightlip import TightlipError, convert, freeze, lipschitz
from tightlip.graphs import Bias, Graph, Transposed


def images(count=8):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def plain_loss(outputs):
    """Something that every architecture can lower: the distance from fixed random targets."""
    generator = torch.Generator().manual_seed(1)
    return sum((y - torch.rand(y.shape, generator=generator)).square().mean() for y in tree_leaves(outputs))


def trained(network, x, steps=3):
    """The loss before and after a few steps."""
    optimizer = tl.hold(network, torch.optim.Adam(network.parameters(), 2e-2))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = plain_loss(network(x))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    network.eval()
    with torch.no_grad():
        return losses[0], plain_loss(network(x)).item()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_trained_and_audited_within_its_constant(name, seed):
    model, x, K = ARCHITECTURES[name](), images(), 3.0
    state, shapes = copy.deepcopy(model.state_dict()), [y.shape for y in tree_leaves(model(x))]
    for key, value in state.items():  # the forward above has moved running statistics
        value.copy_(model.state_dict()[key])
    converted = convert(model, K=K)
    assert converted.network.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    first, last = trained(converted.network, x)
    assert last < first
    assert [y.shape for y in tree_leaves(converted.network(x))] == shapes
    bound = lipschitz(freeze(converted.network), 2, 2)
    assert 0.5 * K < bound.constant <= K * (1 + 1e-6)
    text = str(converted)
    assert text.count("Scale(3)") == 1 and "constant 3 from the 2-norm to the 2-norm" in text
    assert all(row.place in text and row.reason for row in converted.table)


@pytest.mark.parametrize(
    "name", ["LeNet", "MobileNet", "MLP-Mixer", "two heads", "DCGAN critic", "tabular residual MLP"]
)
def test_so_it_is_in_the_norm_of_each_entry(name, seed):
    network = convert(ARCHITECTURES[name](), p=math.inf, K=0.1).network
    assert lipschitz(freeze(network), math.inf, math.inf).constant <= 0.1 * (1 + 1e-6)
    assert trained(network, images(4), 1)[1] < math.inf


@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
def test_the_constant_is_attained_where_no_layer_widens(K, seed):
    network = freeze(convert(ARCHITECTURES["MLP"](), K=K).network)
    norms = tl.gradient_norm(network, images(), output=0)
    assert norms.max() <= K * (1 + 1e-6) and norms.min() >= K * (1 - 1e-5)


def test_a_chain_is_a_sequential_under_its_own_names(seed):
    network = convert(ARCHITECTURES["MLP"]()).network
    assert type(network) is nn.Sequential
    assert list(network._modules) == ["0", "1", "2", "3", "4", "5", "scale"]
    assert [type(layer).__name__ for layer in network[1:5]] == ["Linear", "MaxMin", "Linear", "MaxMin"]
    heads = convert(ARCHITECTURES["two heads"]()).network
    assert type(heads) is Graph and heads.outputs == ("kind", "side") and "body_1" in heads._modules


def row(converted, place):
    (found,) = (row for row in converted.table if row.place == place)
    return found


def test_the_table_says_what_was_changed_and_why(seed):
    converted = convert(ARCHITECTURES["U-Net"]())
    assert row(converted, "down1.0").became == "Conv2d 1→8, 1×1 on Orthonormal(), then Conv2d 8→8, 3×3 on Orthonormal()"
    assert row(converted, "down1.1").became == "" and "part of down1.0" in row(converted, "down1.1").reason
    assert row(converted, "down1.2").became == "MaxMin(dim=1, contiguous=False)"
    assert row(converted, "up2").became == "Conv2d 8→32, 1×1 on Orthonormal(), then PixelShuffle(upscale_factor=2)"
    assert "· 0.5" in row(converted, "up1").became
    assert row(converted, "cat 1").was == "cat(down2.5, up2)" and "0.7071" in row(converted, "cat 1").became
    assert "SpectralBall" in row(converted, "merge1").became and "reflect" in row(converted, "merge1").reason
    assert row(converted, "sigmoid").became == ""
    mobile = convert(ARCHITECTURES["MobileNet"]())
    assert (
        "SpectralBall" in row(mobile, "blocks.0.conv.3").became
        and "one channel" in row(mobile, "blocks.0.conv.3").reason
    )
    assert row(mobile, "sum 1").became == "the same · 0.5"


class Calls(nn.Module):
    """A forward that is a function of this module and x, with layers by their names."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def linear(inputs=8, outputs=8):
    return nn.Linear(inputs, outputs)


BECOMES = {
    "no widths": (nn.Sequential(nn.ReLU(), linear()), "Abs", "not known"),
    "an odd width": (nn.Sequential(linear(8, 7), nn.GELU(), linear(7, 2)), "Abs", "7 features"),
    "an end": (nn.Sequential(linear(), nn.Tanh()), "kept", "makes the output"),
    "an end that is steep": (nn.Sequential(linear(), nn.SELU()), r"kept · 0.56", "makes the output"),
    "a scale": (nn.Sequential(linear(), tl.Scale(5.0), linear()), "^$", "one place"),
    "an overlapping maximum": (nn.MaxPool2d(3, 2, 1), r"kept · 0\.5", "2 is proven"),
    "overlapping averages": (nn.AvgPool1d(3, 2), r"kept · 1\.3", "proven"),
    "a global average": (nn.AdaptiveAvgPool2d(1), "kept", "give example="),
    "a layer norm": (nn.LayerNorm(8), "Bias", "own spread"),
    "a layer norm of images": (nn.Sequential(nn.LayerNorm((2, 4)), linear()), "^$", "2 axes"),
    "a group norm": (nn.GroupNorm(2, 8), "Bias", "own spread"),
    "an instance norm without a shift": (nn.Sequential(nn.InstanceNorm2d(4), nn.Flatten()), "^$", "own spread"),
    "a normalization before": (nn.Sequential(nn.BatchNorm1d(8), linear()), "Bias", "a shift stays"),
    "input normalization": (nn.Sequential(tl.Normalize(0.5, 0.25), linear()), r"kept · 0\.25", "4 is proven"),
    "learned angles": (nn.Sequential(linear(), tl.Householder(4), linear()), "kept", "1 is proven"),
    "dropout of SELU": (nn.Sequential(linear(), nn.AlphaDropout(0.1), linear()), "^$", "SELU"),
    "held already": (tl.constrain(linear(), tl.Orthonormal()), "kept", "held on Orthonormal"),
    "many to few": (nn.Conv2d(16, 2, 3), "then Conv2d", "alone cannot be held"),
    "circles": (nn.Conv1d(4, 4, 3, 2, 1, padding_mode="circular"), "SpectralBall", "circular padding"),
    "a number": (Calls(lambda m, x: 3 * x), "the same · 0.3333", "no steeper"),
    "three in a sum": (Calls(lambda m, x: x - (2 * x).relu()), "the same · 0.5", "no steeper"),
}


@pytest.mark.parametrize("name", BECOMES)
def test_what_a_layer_becomes(name, seed):
    model, became, reason = BECOMES[name]
    converted = convert(model)
    assert any(re.search(became, row.became) and reason in row.reason for row in converted.table), str(converted)
    assert lipschitz(freeze(converted.network), 2, 2).constant <= 1 + 1e-6


REFUSED = {
    "a recurrence": (Calls(lambda m, x: m.rnn(x), rnn=nn.LSTM(8, 8)), "LSTM"),
    "an embedding": (nn.Sequential(nn.Embedding(9, 8), linear()), r"0 \(Embedding\): it takes integers"),
    "overlapping patches": (nn.Sequential(nn.ConvTranspose2d(4, 4, 4, 2, 1)), r"0 \(ConvTranspose2d\): its patches"),
    "volumes": (nn.Sequential(nn.Conv3d(1, 2, 3)), r"0 \(Conv3d\): no set is known"),
    "a product": (Calls(lambda m, x: x * m.a(x), a=linear()), "no rule speaks"),
    "attention": (Calls(lambda m, x: F.scaled_dot_product_attention(x, x, x)), "multiplies values"),
    "gates": (nn.Sequential(linear(), nn.GLU()), r"1 \(GLU\): GLU has no Lipschitz constant"),
    "logs inside": (nn.Sequential(linear(), nn.LogSoftmax(1), linear()), r"1 \(LogSoftmax\): LogSoftmax subtracts"),
    "half precision": (nn.Sequential(linear().half()), r"0 \(Linear\).*half|float16"),
    "held in another norm": (tl.constrain(linear(), tl.RowL1Ball()), "freeze the network"),
    "every reason at once": (nn.Sequential(nn.Conv3d(1, 2, 3), nn.GLU()), "0 .Conv3d.*; 1 .GLU."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_refused_by_name(name):
    model, words = REFUSED[name]
    with pytest.raises(TightlipError, match=words):
        convert(model)


def test_impossible_arguments_are_one_sentence(seed):
    with pytest.raises(TightlipError, match="convert takes a network"):
        inspect.unwrap(convert)(torch.relu)
    for arguments, words in (
        ((linear(), 3), "no norm is called 3"),
        ((linear(), 2, 0), "K must be a number > 0"),
        ((linear(), 2, 1, torch.zeros(2, 5)), "inputs of shape"),
        ((linear(), 2, 1, torch.zeros(3)), "inputs of shape"),
    ):
        with pytest.raises(TightlipError, match=words):
            convert(*arguments)


def test_an_example_counts_what_is_averaged(seed):
    x = images(2)
    for pool in (nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(2), Calls(lambda m, x: x.mean([2, 3], keepdim=True))):
        converted = convert(pool, example=x)
        assert converted.table[0].became.endswith(("· 8", "· 4")) and lipschitz(converted.network, 2, 2).constant <= 1
        assert lipschitz(converted.network, 2, 2).constant >= 1 - 1e-12
        torch.testing.assert_close(converted.network(x), pool(x) * (8 if "8" in converted.table[0].became else 4))
    assert "· 0.3333" in convert(nn.AdaptiveAvgPool2d(3), example=x).table[0].became  # windows overlap


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_joins_are_as_steep_as_what_they_join(p, seed):
    """Of three copies of x together, and of x + x − x, what is proven is attained."""
    for forward in (
        lambda m, x: torch.cat([x, x, x], 1),
        lambda m, x: (x + x) + x,
        lambda m, x: torch.stack([x, x], 1),
    ):
        bound = lipschitz(convert(Calls(forward), p, 2.0).network, p, p).constant
        assert 2 * (1 - 1e-6) <= bound <= 2 * (1 + 1e-12)


def test_a_normalization_is_folded_into_what_it_follows(seed):
    """Rows of L1 norm below 1 are members of the ∞-norm's set, so the network computes what it did."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4)
    )
    with torch.no_grad():
        for layer in model:
            for name, tensor in layer.state_dict().items():
                if tensor.is_floating_point():
                    tensor.uniform_(0.001, 0.004) if name == "weight" else tensor.uniform_(0.5, 1)
        for index in (1, 4):
            model[index].weight.copy_(torch.tensor([1.0, -0.5, 0.3, 0.7])[: model[index].num_features])
    converted, x = convert(model.eval(), p=math.inf), images()
    network, zeros = converted.network.eval(), torch.zeros_like(x)
    torch.testing.assert_close(network(x) - network(zeros), model(x) - model(zeros), rtol=1e-4, atol=1e-7)
    assert not network[0].bias.any() and not network[2].bias.any()
    assert [type(layer).__name__ for layer in converted.network] == ["Conv2d", "Flatten", "Linear", "Scale"]


def test_a_scale_of_zero_leaves_the_weight(seed):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    nn.init.zeros_(model[1].weight)
    assert (convert(model).network[0].weight - tl.linalg.polar.polar(model[0].weight)).abs().max() < 1e-3


def test_weights_begin_as_the_models_own(seed):
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4))
    network = convert(model).network
    for index in (0, 2):
        torch.testing.assert_close(network[index].weight, tl.linalg.polar.polar(model[index].weight), rtol=0, atol=1e-5)
        assert torch.equal(network[index].bias, model[index].bias)
    transposed = nn.ConvTranspose2d(3, 2, 2, 2)
    with torch.no_grad():
        transposed.weight.mul_(1e-3)  # inside of the ball
    layer = convert(transposed, p=math.inf)
    torch.testing.assert_close(layer.network(torch.ones(1, 3, 2, 2)), transposed(torch.ones(1, 3, 2, 2)))


def test_tied_weights_stay_tied(seed):
    network = convert(ARCHITECTURES["tied autoencoder"]()).network
    trained(network, images())
    assert network.inner.weight is network.twin.weight
    assert isinstance(network.linear, Transposed) and network.linear.of is network.encoder
    names = [name for name, _ in network.named_parameters()]
    assert sum("weight" in name for name in names) == 2
    frozen = freeze(network)
    assert frozen.linear.of is frozen.encoder and torch.equal(frozen.inner.weight, frozen.twin.weight)
    with pytest.raises(TightlipError, match=r"linear \(Transposed\): .* give p=2"):
        convert(ARCHITECTURES["tied autoencoder"](), p=math.inf)


def test_a_view_of_another_weight_would_be_held_apart(seed):
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))
    model[2].weight.data = model[0].weight.data.t()
    with pytest.raises(TightlipError, match=r"2\.weight shares its memory with 0\.weight"):
        convert(model)


def test_a_layer_that_is_used_twice_is_converted_once(seed):
    model = Calls(lambda m, x: m.b(m.act(m.a(m.act(m.a(x))))), a=linear(8, 8), act=nn.ReLU(True), b=linear(8, 3))
    converted = convert(model)
    assert sum("Linear 8→8" in row.was for row in converted.table) == 1
    assert lipschitz(freeze(converted.network), 2, 2).constant <= 1 + 1e-6
    shared = Calls(lambda m, x: m.act(m.b(m.act(m.a(x)))), a=linear(8, 7), act=nn.ReLU(), b=linear(7, 4))
    assert [row.became.partition("(")[0] for row in convert(shared).table if row.place == "act"] == ["Abs", "kept"]


def test_what_is_used_again_is_no_end(seed):
    """Here the probabilities go on, so taking the softmax away would change more than the output's form."""
    model = Calls(lambda m, x: m.a(x).softmax(1) + x, a=linear())
    assert "LogSoftmax" not in str(convert(model)) and row(convert(model), "softmax").became == "kept"


def test_each_of_several_outputs_is_certified(seed):
    network = convert(ARCHITECTURES["two heads"](), K=2.0).network
    frozen = freeze(network)
    assert lipschitz(frozen.only("kind"), 2).constant <= 2 / 2**0.5 * (1 + 1e-6)
    assert len(tl.certify(frozen, images(), output="kind", progress=False).radius) == 8


class Swish(nn.Module):
    """No rule, a forward that no trace takes, and a branch."""

    def forward(self, x):
        return x * torch.sigmoid(x) if x.sum() > 0 else x


class Stretch(nn.Module):
    """A rule, and weights that decide."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.factor * x


@pytest.fixture
def own_types(monkeypatch):
    from tightlip.audit import registry as rules
    from tightlip.bridges.conversion import registry

    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    monkeypatch.setattr(rules, "_KNOWN", dict(rules._KNOWN))
    tl.rule(Stretch)(lambda module: tl.Gains.constant(abs(float(module.factor))))


def test_a_type_of_ones_own_becomes_what_it_is_registered_for(own_types, seed):
    from tightlip.bridges.conversion import Change, conversion

    model = Calls(lambda m, x: m.b(m.swish(m.a(x))), a=linear(), b=linear(), swish=Swish())
    with pytest.raises(TightlipError, match="cannot be traced|branches on the values"):
        convert(model)
    conversion(Swish)(lambda layer, place: Change(tl.FullSort(place.form.axis), "sorted"))
    converted = convert(model)
    assert row(converted, "swish").became == "FullSort(dim=-1)" and type(model.swish) is Swish
    with pytest.raises(TightlipError, match=r"cannot be converted: 0 \(Stretch\): its weights are trained"):
        convert(nn.Sequential(Stretch(), linear()))
    assert convert(nn.Sequential(Stretch().requires_grad_(False), linear())).table[0].became == "kept"


def test_what_a_conversion_returns_is_audited(own_types, seed):
    """A user's conversion that is steeper than 1 is divided by what its rule proves."""
    from tightlip.bridges.conversion import Change, conversion

    conversion(Swish)(lambda layer, place: Change(nn.LeakyReLU(3.0), "steep"))
    converted = convert(nn.Sequential(linear(), Swish(), linear()))
    assert row(converted, "1").became == "LeakyReLU(negative_slope=3.0) · 0.3333"
    assert lipschitz(freeze(converted.network), 2, 2).constant <= 1 + 1e-6


def test_a_bias_is_one_number_for_each_entry_of_an_axis():
    layer, x = Bias(3, 1), torch.zeros(2, 3, 4)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert layer(x)[0, :, 1].tolist() == [1, 2, 3] and Bias(4, -1)(x).shape == x.shape
    for wrong in (torch.zeros(2, 4, 3), torch.zeros(3)):
        with pytest.raises(TightlipError, match="do not fit|axis of the batch|no axis"):
            layer(wrong)
    with pytest.raises(TightlipError, match="tells examples apart"):
        lipschitz(Bias(3, 0), 2)


def test_what_a_forward_does_in_training_alone_is_left_out(seed):
    converted = convert(ARCHITECTURES["LeNet"]().eval())
    assert "training alone" in row(converted, "forward").reason and not converted.network.training
    converted.network.train()

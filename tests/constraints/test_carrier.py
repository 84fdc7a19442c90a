import copy
import inspect
import io
import itertools
import math
import pickle
import random

import pytest
import torch
from dense import dense_operator
from sweeps import EVERYTHING
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.optim.swa_utils import AveragedModel

from tightlip import (
    Cayley,
    ColumnL1Ball,
    MatrixExponential,
    MaxMin,
    Orthonormal,
    Parseval,
    RowDualBall,
    RowL1Ball,
    SpectralBall,
    TightlipError,
    constrain,
    freeze,
    hold,
    lipschitz,
    load,
    save,
)
from tightlip.constraints import constraint_of
from tightlip.constraints.carrier import Columns
from tightlip.constraints.frame import Frame
from tightlip.constraints.product import Product
from tightlip.linalg.schedules import bjorck
from tightlip.rules.convolution import geometry_of

SETS = [
    RowL1Ball(),
    ColumnL1Ball(),
    *(RowDualBall(p) for p in (1, 2, 3, math.inf)),
    SpectralBall(),
    Orthonormal(),
    Cayley(),
    MatrixExponential(),
]
HELD = [(constraint, way) for constraint in SETS for way in constraint.holds]


def seeded(make, scale=1.0):
    torch.manual_seed(0)
    layer = make()
    with torch.no_grad():
        layer.weight.mul_(scale)
    return layer


def images(layer, count=4, seed=0, pixels=9):
    size = (pixels,) * len(layer.kernel_size)
    return torch.randn(count, layer.in_channels, *size, generator=torch.Generator().manual_seed(seed))


def train(layer, optimizer, steps, rate=None, first=0):
    for step in range(first, first + steps):
        optimizer.zero_grad()
        layer(images(layer, seed=step)).square().mean().neg().backward()  # pulls outwards
        optimizer.step()
    return layer


def random_layer(seed):
    """A small convolution with any stride, padding, dilation and groups."""
    draw = random.Random(seed)
    axes, groups = draw.choice([1, 2, 2]), draw.choice([1, 1, 1, 2])
    kernel = [draw.choice([1, 2, 3]) for _ in range(axes)]
    stride = list(kernel) if draw.random() < 0.3 else [draw.choice([1, 1, 2, 3]) for _ in range(axes)]
    dilation = [1] * axes if stride == kernel else [draw.choice([1, 1, 2, 3]) for _ in range(axes)]
    mode = draw.choice(["zeros", "zeros", "circular", "reflect", "replicate"])
    padding = [draw.choice([0, 1, d * (k - 1) // 2]) for k, d in zip(kernel, dilation, strict=True)]
    kind = nn.Conv1d if axes == 1 else nn.Conv2d
    return seeded(
        lambda: kind(
            groups * draw.choice([2, 3, 4]),
            groups * draw.choice([1, 3, 4]),
            tuple(kernel),
            tuple(stride),
            tuple(padding),
            tuple(dilation),
            groups,
            padding_mode=mode,
        ),
        scale=draw.choice([0.1, 3.0]),
    )


@pytest.mark.parametrize(("constraint", "way"), HELD, ids=repr)
def test_a_promise_on_a_convolution_is_what_the_audit_proves(constraint, way):
    """Or it is refused at once, in a sentence, with the layer as it was."""
    taken = 0
    for seed in range(5 if isinstance(constraint, SpectralBall) else 12):  # whose bound takes long
        if taken == 2 and not EVERYTHING:
            break
        layer = random_layer(seed)
        before = layer.weight.detach().clone()
        try:
            constrain(layer, constraint, way)
        except TightlipError as refusal:
            assert "\n" not in str(refusal) and torch.equal(layer.weight, before) and constraint_of(layer) is None
            continue
        taken += 1
        optimizer = torch.optim.Adam(layer.parameters(), 0.05 if isinstance(constraint, MatrixExponential) else 0.3)
        if way == "step":
            hold(layer, optimizer)
        for steps in (0, 20):
            train(layer, optimizer, steps)
            frozen = freeze(layer)
            assert type(frozen) in (nn.Conv1d, nn.Conv2d) and not frozen._forward_pre_hooks
            assert lipschitz(frozen, *constraint.norms).constant <= 1
            off = float((frozen.weight - layer.weight).detach().abs().max())
            assert off <= 1e-5 if constraint.rounding == 64 else off <= 1e-3
            torch.testing.assert_close(frozen(images(layer)), layer(images(layer)).detach(), atol=1e-4, rtol=1e-4)
        if not isinstance(constraint, RowDualBall):  # whose largest entry need not reach 1 in the audited norm
            assert lipschitz(frozen, *constraint.norms).constant > 0.98  # trained outwards
    assert taken >= (3 if EVERYTHING else 2)


@pytest.mark.parametrize("seed", range(30))
def test_columns_are_those_of_the_operator(seed):
    draw = random.Random(seed)
    axes = draw.choice([1, 2])
    kernel, stride, dilation = ([draw.randint(1, 3) for _ in range(axes)] for _ in range(3))
    groups = draw.choice([1, 2])
    kind = nn.Conv1d if axes == 1 else nn.Conv2d
    layer = kind(2 * groups, 3 * groups, tuple(kernel), tuple(stride), 0, tuple(dilation), groups).double()
    weight = layer.weight.detach()
    carrier = constrain(copy.deepcopy(layer), ColumnL1Ball())._held.constraint.carrier
    assert isinstance(carrier, Columns)
    matrices = carrier.matrices(weight)
    assert torch.equal(carrier.weight(matrices, weight.shape), weight)
    size = [2 * d * k * s + 1 for d, k, s in zip(dilation, kernel, stride, strict=True)]  # every residue is inside
    operator = dense_operator(weight, geometry_of(layer), size)
    found, expected = (sorted(set((m.abs().sum(0) * 1e9).round().tolist())) for m in (matrices[0], operator))
    assert found[-1] == pytest.approx(expected[-1], abs=2)
    inside = {round(norm) for norm in found if norm}
    assert all(min(abs(norm - other) for other in expected) <= 2 for norm in inside)


SHAPES = {
    "1x1": lambda: nn.Conv2d(6, 6, 1),
    "patch": lambda: nn.Conv2d(3, 10, 2, stride=2),
    "groups": lambda: nn.Conv2d(4, 6, 1, groups=2),
    "strided 1x1": lambda: nn.Conv1d(5, 3, 1, stride=3, dilation=2),
    "3x3": lambda: nn.Conv2d(6, 6, 3, padding=1),
    "circular": lambda: nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular"),
    "same": lambda: nn.Conv1d(4, 6, 5, padding="same"),
    "4x4 at 2": lambda: nn.Conv2d(4, 8, 4, stride=2, padding=1),
    "dilated groups": lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2, bias=False),
}


@pytest.mark.parametrize("name", SHAPES)
def test_orthonormal_convolutions_have_all_singular_values_one(name):
    layer = constrain(seeded(SHAPES[name]), Orthonormal())
    train(layer, hold(layer, torch.optim.Adam(layer.parameters(), 0.05)), 10)
    geometry = geometry_of(layer)
    sigma = torch.linalg.svdvals(dense_operator(layer.weight.detach().double(), geometry, (6,) * len(geometry.stride)))
    assert float(sigma.max()) == pytest.approx(1.0, abs=1e-5)
    if name in ("1x1", "patch", "groups", "strided 1x1", "circular"):  # no padding cuts anything off
        assert float(sigma[sigma > 0.01].min()) == pytest.approx(1.0, abs=1e-5)
    moved = (name in ("1x1", "patch", "groups", "strided 1x1")) != isinstance(layer._held.coordinate, Product)
    assert moved


def test_gradients_keep_their_norm_through_six_trained_circular_kernels_with_maxmin():
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular") for _ in range(6)]
    network = nn.Sequential(*(part for layer in layers for part in (constrain(layer, Orthonormal()), MaxMin(dim=1))))
    before = [layer.weight.detach().clone() for layer in layers]
    optimizer = hold(network, torch.optim.Adam(network.parameters(), 1e-2))
    for step in range(10):
        generator = torch.Generator().manual_seed(step)
        x, goal = torch.randn(2, 8, 8, 6, 6, generator=generator)
        optimizer.zero_grad()
        (network(x) - goal).square().mean().backward()
        optimizer.step()
    assert all((layer.weight - old).abs().max() > 1e-2 for layer, old in zip(layers, before, strict=True))
    x = torch.randn(4, 8, 6, 6, requires_grad=True)
    v = torch.randn(4, 8, 6, 6)
    network(x).backward(v)
    ratios = x.grad.flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1)
    assert float((ratios - 1).abs().max()) <= 1e-5


@pytest.mark.parametrize(("channels", "taps", "seed"), [(4, 3, 0), (3, 5, 163), (2, 5, 195)])
def test_a_kernel_is_found_again_when_it_is_frozen(channels, taps, seed):
    """These begin as kernels whose products have moves that leave vectors undecided."""
    torch.manual_seed(seed)
    layer = constrain(nn.Conv2d(channels, channels, taps), Orthonormal())
    weight = layer.weight.detach().clone()
    torch.testing.assert_close(freeze(layer).weight, weight, atol=1e-5, rtol=0)
    train(layer, hold(layer, torch.optim.SGD(layer.parameters(), 1e-6)), 2)
    torch.testing.assert_close(layer.weight.detach(), weight, atol=1e-3, rtol=0)


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_patch_convolution_is_turned_as_its_matrix_is(blocks, layout):
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(4, 8, 2, stride=2), nn.Linear(16, 8)
    linear.load_state_dict({"weight": convolution.weight.detach().flatten(1), "bias": convolution.bias.detach()})
    convolution.to(memory_format=layout)
    for layer in (convolution, linear):
        constrain(layer, Orthonormal(blocks=blocks))
        assert isinstance(layer._held.coordinate, Frame)
        optimizer = hold(layer, torch.optim.Adam(layer.parameters(), 0.05))
        for step in range(8):
            optimizer.zero_grad()
            x = torch.randn(16, 4, 2, 2, generator=torch.Generator().manual_seed(step))
            (layer(x if layer is convolution else x.flatten(1)).flatten(1) - 0.3).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(convolution.weight.detach().flatten(1), linear.weight.detach(), atol=2e-6, rtol=0)
    assert Orthonormal().contains(convolution.weight.detach().flatten(1))


LAYER = {
    "rows": (RowL1Ball(), lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")),
    "columns": (ColumnL1Ball(), lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1)),
    "dual": (RowDualBall(2), lambda: nn.Conv1d(4, 6, 3, padding=1)),
    "spectral": (SpectralBall(), lambda: nn.Conv2d(4, 6, 3, padding=1)),
    "patch": (Orthonormal(), lambda: nn.Conv2d(4, 6, 2, stride=2)),
    "turned": (Orthonormal(blocks=2), lambda: nn.Conv2d(4, 6, 1)),
    "groups": (Orthonormal(), lambda: nn.Conv2d(4, 6, 1, groups=2)),
    "kernels": (Orthonormal(), lambda: nn.Conv2d(4, 6, 3, padding=1)),
}
WAYS = [(name, way) for name in LAYER for way in ("step", "forward") if (name, way) != ("kernels", "forward")]
each_layer = pytest.mark.parametrize(("name", "way"), WAYS)
each_step = pytest.mark.parametrize("name", LAYER)


def made(name, way="step", seed=0):
    constraint, make = LAYER[name]
    torch.manual_seed(seed)
    return constrain(make(), constraint, way)


def held(name, way="step", seed=0):
    layer = made(name, way, seed)
    optimizer = torch.optim.Adam(layer.parameters(), 0.1)
    return layer, hold(layer, optimizer) if way == "step" else optimizer


@each_layer
def test_copies_and_pickles_train_on_as_the_layer_does(name, way):
    layer, optimizer = held(name, way)
    train(layer, optimizer, 3)
    copies = [copy.deepcopy(layer)]
    if way == "step":  # torch does not pickle parametrized modules
        copies.append(pickle.loads(pickle.dumps(layer)))
    assert is_parametrized(layer) == (way == "forward")
    train(layer, optimizer, 1)
    for other in copies:
        assert repr(constraint_of(other)) == repr(LAYER[name][0])
        again = torch.optim.Adam(other.parameters(), 0.1)
        train(other, hold(other, again) if way == "step" else again, 3)
        assert lipschitz(freeze(other), *LAYER[name][0].norms).constant <= 1
        assert not torch.equal(other.weight, layer.weight)


@each_step
def test_a_checkpoint_with_torchs_own_keys_resumes_to_the_last_bit(name):
    whole, optimizer = held(name)
    train(whole, optimizer, 3)
    file = io.BytesIO()
    torch.save({"layer": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file)
    assert list(saved["layer"]) == ["weight", "bias"]
    train(whole, optimizer, 3, first=3)
    resumed, again = held(name, seed=1)
    resumed.load_state_dict(saved["layer"])
    again.load_state_dict(saved["optimizer"])
    train(resumed, again, 3, first=3)
    assert torch.equal(resumed.weight, whole.weight)


@each_layer
def test_frozen_networks_are_saved_and_loaded(name, way, tmp_path):
    layer, optimizer = held(name, way)
    train(layer, optimizer, 2)
    frozen = freeze(nn.Sequential(layer, nn.ReLU()))
    save(frozen, tmp_path / "network.safetensors")
    loaded = load(tmp_path / "network.safetensors")
    assert torch.equal(loaded(images(layer)), frozen(images(layer)))
    norms = LAYER[name][0].norms
    assert lipschitz(loaded, *norms) == lipschitz(frozen, *norms) and repr(loaded) == repr(frozen)


@each_step
def test_an_average_of_weights_is_put_back_by_freeze(name):
    layer, optimizer = held(name)
    average = AveragedModel(layer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    for step in range(6):
        train(layer, optimizer, 1, first=step)
        average.update_parameters(layer)
    frozen = freeze(average.module)
    constraint = layer._held.constraint
    assert lipschitz(frozen, *constraint.norms).constant <= 1 and constraint.contains(frozen.weight)


@each_step
def test_a_step_that_nobody_folds_is_refused(name):
    layer = made(name)
    optimizer = torch.optim.SGD(layer.parameters(), 100.0)
    train(layer, optimizer, 1)  # whose forward is on the set
    with pytest.raises(TightlipError, match=r"has left .* call tightlip.hold"):
        layer(images(layer))


@each_step
def test_a_step_with_nan_leaves_the_weight_on_its_set(name):
    layer, optimizer = held(name)
    train(layer, optimizer, 2)
    before = layer.weight.detach().clone()
    (layer(images(layer)) * torch.nan).sum().backward()
    with pytest.raises(TightlipError, match="NaN or infinite"):
        optimizer.step()
    assert torch.equal(layer.weight, before)
    train(layer, optimizer, 1)
    assert layer._held.constraint.contains(layer.weight.detach())


@pytest.mark.parametrize("name", ["rows", "columns", "dual", "patch", "groups"])
def test_gradients_through_a_forward_held_convolution_equal_finite_differences(name):
    layer = made(name, "forward").double()
    x = images(layer, 1, pixels=4).double()
    raw = torch.randn(layer.weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2

    def output(V):
        return torch.func.functional_call(layer, {"parametrizations.weight.original": V}, x)

    assert torch.autograd.gradcheck(output, raw.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_derivative_of_the_spectral_ball_is_that_of_dividing_by_the_norm(stride):
    layer = seeded(lambda: nn.Conv2d(3, 4, 3, stride=stride, padding=1, groups=1), 5.0).double()
    constraint = constrain(copy.deepcopy(layer), SpectralBall(), "forward").parametrizations.weight[0].constraint
    raw = layer.weight.detach().clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    upstream, direction = torch.randn(2, *raw.shape, dtype=torch.float64, generator=generator)
    (constraint.map(raw) * upstream).sum().backward()

    def value(V):
        return float((V / (1 + constraint.distance(V)) * upstream).sum())

    step = 0.05  # far enough for the excess of the bound not to matter
    slope = (value(raw.detach() + step * direction) - value(raw.detach() - step * direction)) / (2 * step)
    assert float((raw.grad * direction).sum()) == pytest.approx(slope, rel=0.1, abs=0.1)
    assert float((raw.grad * raw.detach()).sum()) == pytest.approx(0.0, abs=0.02)  # a multiple has the same image


@pytest.mark.parametrize("name", ["rows", "columns", "spectral", "patch", "groups"])
def test_functional_transforms_see_a_forward_held_convolution(name):
    layers = [nn.Sequential(made(name, "forward", seed)) for seed in range(3)]
    x = images(layers[0][0])
    parameters, buffers = torch.func.stack_module_state(layers)

    def run(parameters, buffers):
        return torch.func.functional_call(layers[0], (parameters, buffers), (x,))

    together = torch.vmap(run)(parameters, buffers)
    for number, layer in enumerate(layers):
        torch.testing.assert_close(together[number], layer(x))
    own = {key: value.detach() * 2 for key, value in layers[0].named_parameters()}
    ones = {key: torch.ones_like(value) for key, value in own.items()}
    _, along = torch.func.jvp(lambda p: run(p, {}).square().sum(), (own,), (ones,))
    gradient = torch.func.grad(lambda p: run(p, {}).square().sum())(own)
    torch.testing.assert_close(along, sum(g.sum() for g in gradient.values()), rtol=1e-3, atol=1e-2)
    each = torch.vmap(torch.func.grad(lambda p, b: run(p, b).square().sum()))(parameters, buffers)
    layers[1](x).square().sum().backward()
    expected = layers[1][0].parametrizations.weight.original.grad
    torch.testing.assert_close(each["0.parametrizations.weight.original"][1], expected, rtol=1e-3, atol=1e-3)


REFUSED = [
    (Orthonormal(), lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "reflect padding 1×1 reads pixels"),
    (Orthonormal(), lambda: nn.Conv2d(4, 4, 1, padding=1, padding_mode="replicate"), "replicate padding 1×1 reads"),
    (Orthonormal(), lambda: nn.Conv2d(4, 4, 4, 2, 1, padding_mode="circular"), "circular padding 1×1 reads pixels"),
    (ColumnL1Ball(), lambda: nn.Conv1d(4, 4, 3, padding=1, padding_mode="reflect"), "reflect padding 1 reads pixels"),
    (RowDualBall(2), lambda: nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), "from the 2-norm to the inf-norm"),
    (Orthonormal(), lambda: nn.Conv2d(1, 6, 5), r"use tightlip\.lifted\(layer\)"),
    (Orthonormal(bjorck(3)), lambda: nn.Conv2d(4, 4, 3), r"use Orthonormal\(\)"),
    (Orthonormal(blocks=8), lambda: nn.Conv2d(4, 4, 3), r"use Orthonormal\(\)"),
    (Parseval(), lambda: nn.Conv2d(4, 4, 3), "speaks of matrices, and 3×3 taps at stride 1×1 read pixels more than"),
    (RowL1Ball(), lambda: nn.ConvTranspose2d(4, 4, 3), "for nn.Linear, nn.Conv1d and nn.Conv2d, not ConvTranspose2d"),
    (RowL1Ball(), lambda: nn.Conv3d(4, 4, 3), "for nn.Linear, nn.Conv1d and nn.Conv2d, not Conv3d"),
    (RowL1Ball(), lambda: nn.Sequential(nn.Conv2d(4, 4, 3)), "not Sequential: constrain those inside it"),
]


@pytest.mark.parametrize(("constraint", "make", "words"), REFUSED)
def test_what_would_break_a_promise_is_refused_in_a_sentence(constraint, make, words):
    layer = make()
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(TightlipError, match=words) as caught:
        inspect.unwrap(constrain)(layer, constraint, constraint.holds[0])
    assert "\n" not in str(caught.value) and not hasattr(layer, "_held")
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_kernels_held_by_forward_are_refused_and_small_ones_are_not():
    with pytest.raises(TightlipError, match=r"of 3×3 kernels at stride 1×1.* held by 'forward': pass hold='step'"):
        constrain(nn.Conv2d(4, 4, 3), Orthonormal(), "forward")
    assert constrain(nn.Conv2d(4, 4, 1), Orthonormal(), "forward").weight.shape == (4, 4, 1, 1)


def test_one_kernel_of_two_layers_is_on_one_set():
    first, second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, dilation=2)
    second.weight = first.weight
    for constraint, works in ((RowL1Ball(), True), (SpectralBall(), False)):
        network = nn.Sequential(*(constrain(copy.deepcopy(layer), constraint) for layer in (first, second)))
        network[1].weight = network[0].weight
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        if works:
            hold(network, optimizer)
        else:
            with pytest.raises(TightlipError, match="constrain both by the same"):
                hold(network, optimizer)


def test_a_padding_that_was_changed_behind_its_forward_is_not_frozen():
    layer = constrain(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), Orthonormal())
    assert freeze(layer).padding == (1, 1)
    layer.padding = (0, 0)
    with pytest.raises(TightlipError, match="make the layer anew"):
        freeze(layer)


def test_parseval_pulls_the_matrix_of_a_patch_convolution():
    layer = constrain(seeded(lambda: nn.Conv2d(3, 4, 2, stride=2)), Parseval())
    train(layer, hold(layer, torch.optim.SGD(layer.parameters(), 0.01)), 30)
    gram = layer.weight.detach().flatten(1) @ layer.weight.detach().flatten(1).T
    torch.testing.assert_close(gram, torch.eye(4), atol=0.1, rtol=0)


def test_a_network_of_convolutions_is_constrained_trained_frozen_and_audited():
    torch.manual_seed(0)
    network = nn.Sequential(
        constrain(nn.Conv2d(1, 4, 2, stride=2), Orthonormal()),
        nn.ReLU(),
        constrain(nn.Conv2d(4, 8, 3, padding=1), Orthonormal()),
        nn.ReLU(),
        nn.Flatten(),
        constrain(nn.Linear(8 * 16, 3), Orthonormal()),
    )
    optimizer = hold(network, torch.optim.Adam(network.parameters(), 1e-2))
    losses = []
    for step in range(20):
        x = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x) * 8, (x.mean((1, 2, 3)) > 0).long())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])
    assert 0.9 < lipschitz(freeze(network), 2).constant <= 1


def test_every_set_says_what_it_is_on_a_layer():
    texts = {}
    for (constraint, make), way in itertools.product(LAYER.values(), ("step",)):
        layer = constrain(make(), constraint, way)
        texts[repr(layer._held.constraint)] = repr(constraint_of(layer))
    assert all(text.startswith(asked) for text, asked in texts.items())
    assert "Orthonormal() of 3×3 kernels at stride 1×1, groups 1" in texts and "Orthonormal(), groups 2" in texts

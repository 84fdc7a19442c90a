"""Writes to a held weight: noticed at the next forward pass or undone by the next step, without watching others."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from processes import python
from torch import nn

from tightlip import Orthonormal, RowL1Ball, TightlipError, constrain, hold, mlp
from tightlip.constraints.fingerprint import fingerprint
from tightlip.linalg.polar import residual


def off(layer):
    return float(torch.linalg.eigvalsh(residual(layer.weight.detach().double())).abs().max())


def by_fused_adam(network):
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    network(torch.ones(4, 6)).sum().backward()
    optimizer.step()


def by_data(network):
    for parameter in network.parameters():
        parameter.data -= 0.3


def by_vector(network):
    vector = nn.utils.parameters_to_vector(network.parameters()).detach()
    nn.utils.vector_to_parameters(3 * vector, network.parameters())


@pytest.mark.parametrize("move", [by_fused_adam, by_data, by_vector])
def test_weights_moved_behind_the_back_of_the_version_counter_are_noticed(move):
    network = mlp([6, 8, 8, 3])
    network(torch.ones(4, 6))
    move(network)
    with pytest.raises(TightlipError, match=r"tightlip\.hold"):
        network(torch.ones(4, 6))


class Measured(Orthonormal):
    """Orthonormal, and counts how often a weight is measured."""

    count = 0

    def contains(self, weight):
        self.count += 1
        return super().contains(weight)


def test_importing_the_library_hooks_nobodys_optimizer():
    code = (
        "import torch, tightlip\nfrom torch.optim import optimizer as o\n"
        "assert not o._global_optimizer_pre_hooks and not o._global_optimizer_post_hooks\n"
        "m = torch.nn.Linear(2, 2); s = torch.optim.SGD(m.parameters(), 0.1)\n"
        "assert not s._optimizer_step_pre_hooks and not s._optimizer_step_post_hooks"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("held", [False, True])
def test_steps_of_a_generator_do_not_make_a_critic_measure_itself_again(held):
    torch.manual_seed(0)
    constraint = Measured()
    critic, generator = constrain(nn.Linear(8, 8), constraint), constrain(nn.Linear(8, 8), Orthonormal())
    optimizer = torch.optim.Adam(generator.parameters() if held else nn.Linear(8, 8).parameters(), 0.1, fused=True)
    if held:
        hold(generator, optimizer)
    for _ in range(3):
        critic(generator(torch.randn(3, 8))).sum().backward()
        optimizer.step()
    critic(torch.randn(3, 8))
    assert constraint.count == 0


def test_after_a_step_that_is_folded_no_layer_measures_a_weight_that_two_of_them_share():
    torch.manual_seed(0)
    constraint = Measured()
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    network = nn.Sequential(constrain(first, constraint), constrain(second, constraint))
    optimizer = hold(network, torch.optim.Adam(network.parameters(), 0.1))
    network(torch.randn(3, 8))  # the second layer mapped the weight of the first once more
    constraint.count = 0
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(3, 8)).sum().backward()
        optimizer.step()
    assert constraint.count == 0


def test_a_weight_that_was_overwritten_by_a_member_is_measured_once():
    constraint = Measured()
    layer, other = constrain(nn.Linear(8, 8), constraint), constrain(nn.Linear(8, 8), Orthonormal())
    layer.load_state_dict(other.state_dict())
    for _ in range(3):
        layer(torch.randn(3, 8))
    assert constraint.count == 1


class Wrapper(torch.optim.Optimizer):
    """Steps the optimizer inside, and then writes to weights where it is told to."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.optimizer, self.write = inner, lambda weight: None

    def step(self, closure=None):
        self.optimizer.step()
        self.write(self.param_groups[0]["params"][0].data)


def test_what_a_wrapper_writes_is_pulled_back_and_measured_only_then():
    torch.manual_seed(0)
    constraint = Measured()
    layer = constrain(nn.Linear(8, 8, bias=False), constraint)
    optimizer = hold(layer, Wrapper(torch.optim.SGD(layer.parameters(), 0.1)))
    for write, counted in ((lambda weight: None, 0), (lambda weight: weight.mul_(0.5), 1)):
        optimizer.write = write
        layer(torch.randn(3, 8)).sum().backward()
        optimizer.step()
        assert constraint.count == counted and off(layer) <= 1e-5


def test_columns_between_those_of_an_even_sample_are_looked_at_too():
    layer = constrain(nn.Linear(512, 512), Orthonormal(blocks=0))
    layer.weight.data[:, 1::2].mul_(1.5)  # 4096 entries at equal distances would all lie in even columns
    with pytest.raises(TightlipError, match="without being pulled back"):
        layer(torch.ones(1, 512))


def test_a_network_copied_in_inference_mode_may_be_called():
    network = mlp([6, 8, 3])
    with torch.inference_mode():
        twin = copy.deepcopy(network)
        assert torch.equal(twin(torch.ones(2, 6)), network(torch.ones(2, 6)))


@pytest.mark.parametrize("other", [Orthonormal(blocks=0), RowL1Ball()], ids=repr)
def test_one_weight_of_two_layers_is_on_one_set(other):
    first, second = constrain(nn.Linear(8, 8), Orthonormal(blocks=4)), constrain(nn.Linear(8, 8), other)
    second.weight = first.weight
    with pytest.raises(TightlipError, match="is one tensor with another layer's weight, which is on another set"):
        hold(nn.Sequential(first, second), torch.optim.SGD(first.parameters(), 0.1))


def test_a_step_of_the_class_that_fails_is_undone_by_the_next_step_of_the_optimizer():
    """It goes past what `hold` has put around the step of the object."""
    torch.manual_seed(0)
    layer = constrain(nn.Linear(8, 8, bias=False), Orthonormal(blocks=4))
    optimizer = hold(layer, Once(layer.parameters(), 0.1))
    before, gradient = layer.weight.detach().clone(), torch.randn(8, 8)
    layer.weight.grad = gradient.clone()
    with pytest.raises(KeyboardInterrupt):
        Once.step(optimizer)
    optimizer.step()
    assert layer.weight.shape == (8, 8) and off(layer) <= 1e-5
    assert torch.equal(layer.weight.grad, gradient) and not torch.equal(layer.weight, before)


class Once(torch.optim.SGD):
    """Fails in its first step, having moved nothing."""

    failed = False

    def step(self, closure=None):
        if not self.failed:
            self.failed = True
            raise KeyboardInterrupt
        return super().step(closure)


def changed(weight):
    """Ways to change a matrix through ``.data`` that a sample, a sum or a version counter could miss."""
    rows, columns = weight.shape
    flat = weight.view(-1)
    yield "one entry", lambda: flat[rows * columns // 2 + 1].mul_(1.0001)
    yield "the last bit of one entry", lambda: flat[7].copy_(torch.nextafter(flat[7], flat.new_tensor(9.0)))
    yield "one sign", lambda: flat[5].neg_()
    yield "two signs in a column", lambda: weight[:2, 3].neg_()
    yield "signs in a checkerboard", lambda: weight[::2, ::2].neg_()
    yield "signs of half the rows in odd columns", lambda: weight[: rows // 2, 1::2].neg_()
    yield "all signs", lambda: weight.neg_()
    yield "two entries exchanged", lambda: flat.__setitem__([1, 2], flat[[2, 1]])
    yield "two rows exchanged", lambda: weight.__setitem__([0, 1], weight[[1, 0]])
    yield "columns rolled", lambda: weight.copy_(weight.roll(1, 1))
    yield "transposed", lambda: weight.copy_(weight.mT.clone())
    yield "all but a sample", lambda: flat[1::2].mul_(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_change_shows_in_the_fingerprint(dtype):
    torch.manual_seed(0)
    original = torch.randn(64, 64, dtype=dtype)
    for number, _ in enumerate(changed(original)):
        weight = original.clone()
        name, change = list(changed(weight))[number]
        assert fingerprint(weight) == fingerprint(original)
        change()
        assert not torch.equal(weight, original) and fingerprint(weight) != fingerprint(original), name


def test_the_sign_of_an_entry_that_its_row_does_not_feel_shows():
    original = torch.ones(64, 64)
    original[3, 5] = 1e-30
    changed = original.clone()
    changed[3, 5] = -1e-30
    assert torch.equal(original.sum(1), changed.sum(1)) and fingerprint(changed) != fingerprint(original)


def test_an_entry_that_no_sample_has_is_seen_by_its_write_or_by_its_tensor():
    layer = constrain(nn.Linear(512, 512), Orthonormal(blocks=0))
    member = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight[0, 1] = 9.0
    with pytest.raises(TightlipError, match="without being pulled back"):
        layer(torch.ones(1, 512))
    with torch.no_grad():
        layer.weight.copy_(member)
    layer(torch.ones(1, 512))
    other = nn.Parameter(member)
    other.data[0, 1] = 9.0
    while other._version < layer.weight._version:  # written to as often
        other.detach().add_(0)
    layer.weight = other
    with pytest.raises(TightlipError, match="without being pulled back"):
        layer(torch.ones(1, 512))


@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.parametrize("number", range(12))
def test_a_weight_written_through_data_is_back_on_its_set_after_the_next_step(count, number):
    torch.manual_seed(0)
    layer = constrain(nn.Linear(128, 128), Orthonormal(blocks=count))
    optimizer = hold(layer, torch.optim.Adam(layer.parameters(), 1e-3))
    for _ in range(2):
        optimizer.zero_grad()
        layer(torch.randn(3, 128)).sum().backward()
        optimizer.step()
    list(changed(layer.weight.data))[number][1]()
    optimizer.step()
    layer(torch.randn(3, 128))
    assert off(layer) <= 1e-5


def test_signs_and_rows_written_between_backward_and_step_do_not_stay():
    """The red team's ‖W‖ = 12.8 that stayed for 60 steps."""
    torch.manual_seed(0)
    network = mlp([256, 256, 8])
    optimizer = hold(network, torch.optim.Adam(network.parameters(), 1e-3))
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(3, 256)).sum().backward()
        network[0].weight.data.copy_(network[0].weight.data.abs())
        optimizer.step()
        assert off(network[0]) <= 1e-5


def test_a_step_by_hand_through_data_is_not_lost_without_a_word():
    layer = constrain(nn.Linear(64, 64), Orthonormal())
    layer(torch.randn(4, 64)).sum().backward()
    for p in layer.parameters():
        p.data.add_(p.grad, alpha=-0.1)
    with pytest.raises(TightlipError, match="without being pulled back"):
        layer(torch.randn(4, 64))


@pytest.mark.parametrize("constraint", [Orthonormal(), Orthonormal(blocks=0), RowL1Ball()])
def test_a_fused_step_without_hold_is_noticed(constraint):
    layer = constrain(nn.Linear(8, 8), constraint)
    optimizer = torch.optim.Adam(layer.parameters(), 0.5, fused=True)
    (layer(torch.randn(3, 8)) - 9).square().sum().backward()
    optimizer.step()
    with pytest.raises(TightlipError, match="without being pulled back"):
        layer(torch.randn(3, 8))


def test_an_optimizer_that_holds_another_network_does_not_move_this_one_unnoticed():
    network, other = mlp([8, 8, 4]), mlp([8, 8, 4])
    optimizer = hold(network, torch.optim.Adam([*network.parameters(), *other.parameters()], 0.1, fused=True))
    (network(torch.randn(3, 8)) + other(torch.randn(3, 8))).square().sum().backward()
    optimizer.step()
    network(torch.randn(3, 8))
    with pytest.raises(TightlipError, match="without being pulled back"):
        other(torch.randn(3, 8))


WAYS = {
    "compiled": 'forward = torch.compile(network, backend="eager")',
    "copied and compiled": 'network = copy.deepcopy(network)\nforward = torch.compile(network, backend="eager")',
    "pickled and compiled": (
        'network = pickle.loads(pickle.dumps(network))\nforward = torch.compile(network, backend="eager")'
    ),
    "traced": "forward = torch.jit.trace(network, torch.randn(16, 6))",
}

STEPS_ALONE = """
import copy, json, pickle, sys, torch, tightlip
said = {}
for name, way in json.loads(sys.argv[1]).items():
    torch._dynamo.reset()
    network = tightlip.mlp([6, 8, 8, 3])
    exec(way)
    optimizer = torch.optim.SGD(network.parameters(), 0.5)
    try:
        for _ in range(3):
            optimizer.zero_grad()
            forward(torch.randn(16, 6)).square().sum().backward()
            optimizer.step()
    except tightlip.TightlipError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said_alone():
    """What each way says, in one process of their own: the checks of shapes that tests switch on cannot be traced."""
    done = python("-c", STEPS_ALONE, json.dumps(WAYS))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", WAYS)
def test_a_forgotten_hold_is_noticed_where_values_cannot_be_looked_at_before_a_forward_pass(way, said_alone):
    assert "without being pulled back: call tightlip.hold" in said_alone[way]


def test_a_forgotten_hold_is_noticed_inside_torch_func():
    network = mlp([6, 8, 8, 3])
    x, weights = torch.randn(16, 6), {name: p.detach() for name, p in network.named_parameters()}

    def loss(weights):
        return torch.func.functional_call(network, weights, (x,)).square().sum()

    gradients = torch.func.grad(loss)(weights)
    moved = {name: weight - 0.1 * gradients[name] for name, weight in weights.items()}
    with pytest.raises(TightlipError, match="without being pulled back"):
        torch.func.grad(loss)(moved)


def test_gradients_are_waited_for_once_however_often_a_layer_is_called():
    network = mlp([6, 8, 3])
    for _ in range(5):
        network(torch.randn(2, 6))
    assert all(len(layer.weight._post_accumulate_grad_hooks) == 1 for layer in (network[0], network[2]))


def test_parameters_that_take_turns_are_waited_for_once_each():
    layer = constrain(nn.Linear(4, 4), Orthonormal())
    weights = [nn.Parameter(torch.eye(4)), nn.Parameter(-torch.eye(4))]
    for number in range(20):
        torch.func.functional_call(layer, {"weight": weights[number % 2]}, torch.ones(1, 4))
    assert [len(weight._post_accumulate_grad_hooks) for weight in weights] == [1, 1]

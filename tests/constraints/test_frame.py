"""The coordinate that turns orthonormal weights: the gradients of an explicit turn, and never off the set."""

import copy
import math
import pickle

import pytest
import torch
from processes import python
from sweeps import EVERYTHING
from torch import nn

from tightlip import MaxMin, Orthonormal, TightlipError, constrain, freeze, hold, lipschitz, mlp
from tightlip.constraints.frame import KEPT, ROUNDING, Frame, block_count, longest
from tightlip.constraints.guard import held
from tightlip.linalg.polar import residual
from tightlip.linalg.rotation import rotation, tournament

SHAPES = [(6, 6), (8, 5), (5, 8)]


def off(network):
    weights = [layer.weight.detach().double() for layer in network.modules() if isinstance(layer, nn.Linear)]
    return max(float(torch.linalg.eigvalsh(residual(weight)).abs().max()) for weight in weights)


def layer_of(shape, bias=True, dtype=torch.float64, count=1):
    torch.manual_seed(0)
    return constrain(nn.Linear(shape[1], shape[0], bias, dtype=dtype), Orthonormal(blocks=count))


def sgd(layer, rate=1.0):
    return hold(layer, torch.optim.SGD([layer.weight], rate))


def skew(matrix):
    return (matrix - matrix.mT) / 2


def tall(weight):
    return weight if weight.shape[0] >= weight.shape[1] else weight.mT


class Handed(torch.optim.SGD):
    """Notes the parameters and gradients that it was handed; moves nothing at rate 0."""

    def __init__(self, parameters, lr=0.0):
        super().__init__(parameters, lr)
        self.seen = []

    def step(self, closure=None):
        self.seen += [(p.detach().clone(), p.grad.clone()) for group in self.param_groups for p in group["params"]]
        return super().step(closure)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_handed_over_is_that_of_an_explicit_turn(shape):
    layer = layer_of(shape, bias=False)
    x, A = torch.randn(9, shape[1], dtype=torch.float64), torch.zeros(max(shape), max(shape), dtype=torch.float64)
    A.requires_grad_(True)
    turned = (torch.eye(len(A)) + skew(A)) @ tall(layer.weight.detach())
    nn.functional.linear(x, turned if shape[0] >= shape[1] else turned.mT).sin().sum().backward()
    optimizer = hold(layer, Handed([layer.weight]))
    layer(x).sin().sum().backward()
    optimizer.step()
    torch.testing.assert_close(optimizer.seen[0][1], A.grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_small_step_moves_the_weight_along_the_explicit_turn(shape):
    layer = layer_of(shape)
    before, optimizer = layer.weight.detach().clone(), sgd(layer, 1e-5)
    layer(torch.randn(9, shape[1], dtype=torch.float64)).square().sum().backward()
    turn = -1e-5 * skew(tall(layer.weight.grad) @ tall(before).mT)
    optimizer.step()
    moved = turn @ tall(before)
    difference = float((tall(layer.weight.detach()) - tall(before) - moved).abs().max())
    assert difference <= 10 * float(moved.abs().max()) ** 2  # the second order


def test_the_ordinary_gradient_is_there_before_and_after_a_step():
    layer, x = layer_of((8, 8), count=4), torch.randn(5, 8, dtype=torch.float64)
    optimizer = sgd(layer, 0.1)
    layer(x).square().sum().backward()
    gradient = layer.weight.grad
    (expected,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    optimizer.step()
    assert layer.weight.grad is gradient and torch.equal(gradient, expected)


def reference(frame, gradients, q, rate, transported):
    """Frame's algorithm in words of one block each, dense and slow: what each step hands over, and the last F."""
    n, rounds = len(frame), q - 1
    decay, b = KEPT ** (1 / rounds), n // q
    total, met, own = torch.zeros_like(frame), {}, {}
    place = [slice(i * b, (i + 1) * b) for i in range(q)]
    handed = []
    for step, gradient in enumerate(gradients):
        total = decay * total + gradient
        C, rotated = skew(total @ frame.mT), torch.eye(n, dtype=frame.dtype)
        pairs = []
        for i, j in tournament(q)[step % rounds]:
            new = torch.zeros(2 * b, 2 * b, dtype=frame.dtype)
            for k, rows in ((i, slice(0, b)), (j, slice(b, 2 * b))):
                new[rows, rows] = C[place[k], place[k]] - decay * own.get(k, torch.zeros(b, b))
                own[k] = C[place[k], place[k]]
            across = C[place[i], place[j]] - KEPT * met.get((i, j), torch.zeros(b, b))
            met[i, j] = C[place[i], place[j]]
            new[:b, b:], new[b:, :b] = across, -across.mT
            pairs.append(new)
            both = torch.cat([torch.arange(n)[place[i]], torch.arange(n)[place[j]]])
            change, _ = rotation(-rate * math.sqrt(rounds) * new[None].clone(), longest(n))
            rotated[both[:, None], both] += change[0]
        handed.append(torch.cat(pairs))
        frame = rotated @ frame
        total = rotated @ total if transported else total
    return handed, frame


@pytest.mark.parametrize("shape", [(16, 16), (16, 10), (10, 16)])
def test_blocks_do_what_a_slow_and_dense_reference_does(shape):
    layer = layer_of(shape, count=8)
    gradients = torch.randn(17, *shape, dtype=torch.float64)
    expected, frame = reference(
        tall(layer.weight.detach()), [tall(g) for g in gradients], 8, 0.01, shape[0] == shape[1]
    )
    optimizer = hold(layer, Handed([layer.weight], 0.01))
    for gradient, matrix in zip(gradients, expected, strict=True):
        layer.weight.grad = gradient
        optimizer.step()
        torch.testing.assert_close(optimizer.seen[-1][1], matrix, atol=1e-8, rtol=0)
    torch.testing.assert_close(tall(layer.weight.detach()), frame, atol=1e-8, rtol=0)


def test_the_gradient_of_one_step_is_handed_over_once_and_fades():
    """Each pair gets it at its first meeting, decayed by what it has waited, and nothing of it again."""
    layer = layer_of((8, 8), bias=False, count=4)
    optimizer, gradient = hold(layer, Handed([layer.weight])), torch.randn(8, 8, dtype=torch.float64)
    whole = skew(gradient @ layer.weight.detach().mT).square().sum()
    for step in range(9):
        layer.weight.grad = gradient * (step == 0)
        optimizer.step()
    sizes = [float(gradient.square().sum()) for _, gradient in optimizer.seen]
    assert all(size > 0 for size in sizes[:3]) and max(sizes[3:]) <= 1e-24
    faded = sum(size / KEPT ** (2 * k / 3) for k, size in enumerate(sizes[:3]))
    assert faded == pytest.approx(float(whole), rel=1e-9)


def test_weight_decay_alone_moves_nothing():
    layer = layer_of((8, 8), bias=False, dtype=torch.float32, count=4)
    before = layer.weight.detach().clone()
    optimizer = hold(layer, torch.optim.SGD(layer.parameters(), 0.01, weight_decay=10.0))
    for _ in range(7):
        layer.weight.grad = torch.zeros(8, 8)
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("rate", [1e-3, 3e-2, 1.0])
def test_at_every_forward_all_singular_values_are_one_to_five_digits(count, rate):
    torch.manual_seed(0)
    network = mlp([16, 24, 32, 16], Orthonormal(blocks=count))
    optimizer = hold(network, torch.optim.Adam(network.parameters(), lr=rate))
    for _ in range(60):
        optimizer.zero_grad()
        (network(torch.randn(20, 16)) - 1).square().mean().backward()
        optimizer.step()
        assert off(network) <= 1e-5


@pytest.mark.parametrize("count", [1, 4])
def test_training_lowers_the_loss_as_much_with_blocks_as_without(count):
    torch.manual_seed(0)
    network = mlp([8, 32, 32, 1], Orthonormal(blocks=count), K=4.0)
    optimizer = hold(network, torch.optim.Adam(network.parameters(), lr=3e-3))
    x = torch.randn(256, 8)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (network(x) - x[:, :1].abs()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_a_turn_in_blocks_is_as_long_as_a_sum_of_noisy_turns():
    layer = layer_of((8, 8), bias=False, count=4)
    before, A = layer.weight.detach().clone(), torch.zeros(8, 8, dtype=torch.float64)
    first, second = (2 * i for i in tournament(4)[0][0])  # rows of the first pair
    A[first, second], A[second, first] = 1e-3, -1e-3
    layer.weight.grad = -A @ before
    sgd(layer).step()
    angle = math.asin(float((layer.weight.detach() @ before.mT)[first, second]))
    assert angle == pytest.approx(math.sqrt(3) * 1e-3, rel=1e-5)


def test_the_error_of_a_turns_series_is_remembered():
    layer = layer_of((8, 8), bias=False, dtype=torch.float32)
    optimizer, drifts = sgd(layer), []
    for angle in (0.0, 1e-4, 0.29):  # the first step takes the polar factor
        A = torch.zeros(8, 8)
        A[0, 1], A[1, 0] = angle, -angle
        layer.weight.grad = A @ layer.weight.detach()
        if drifts:
            optimizer.state[layer.weight]["tightlip_drift"] = 0.0
        optimizer.step()
        drifts.append(optimizer.state[layer.weight]["tightlip_drift"])
    assert drifts[1] == pytest.approx(ROUNDING) and drifts[2] > ROUNDING + 0.01


def test_rounding_counts_and_the_polar_factor_is_taken_in_time():
    layer, drifts = layer_of((6, 6), dtype=torch.float32), []
    optimizer = sgd(layer, 1e-12)
    for _ in range(120):
        optimizer.zero_grad()
        layer(torch.ones(2, 6)).sum().backward()
        optimizer.step()
        drifts.append(optimizer.state[layer.weight]["tightlip_drift"])
    assert 41 < max(drifts) <= 42 and drifts[0] == 0 and drifts.index(0.0, 1) == 106


def advance(network, optimizer, seeds):
    for seed in seeds:
        x = torch.randn(12, 8, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("count", [1, 4, 8])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Adagrad, torch.optim.SGD])
@pytest.mark.parametrize("steps", range(5, 9))
def test_saving_in_the_middle_and_loading_goes_on_as_if_nothing_had_happened(count, kind, steps):
    torch.manual_seed(0)
    network = mlp([8, 8, 8], Orthonormal(blocks=count))
    optimizer = hold(network, kind(network.parameters(), lr=0.01))
    advance(network, optimizer, range(steps))
    state, moments = copy.deepcopy(network.state_dict()), copy.deepcopy(optimizer.state_dict())
    assert list(state) == list(mlp([8, 8, 8], Orthonormal(blocks=0)).state_dict())
    advance(network, optimizer, range(steps, 14))
    other = mlp([8, 8, 8], Orthonormal(blocks=count))
    other.load_state_dict(state, strict=True)
    resumed = hold(other, kind(other.parameters(), lr=0.01))
    resumed.load_state_dict(moments)
    advance(other, resumed, range(steps, 14))
    for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("travel", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))], ids=["copy", "pickle"])
def test_copies_train_on_their_own(count, travel):
    network = nn.Sequential(layer_of((8, 8), dtype=torch.float32, count=count), MaxMin(), nn.Linear(8, 1))
    twin = travel(network)
    before = network[0].weight.detach().clone()
    optimizer = hold(twin, torch.optim.Adam(twin.parameters(), lr=0.05))
    advance(twin, optimizer, range(4))
    assert torch.equal(network[0].weight, before) and not torch.equal(twin[0].weight, before)
    assert off(nn.Sequential(twin[0])) <= 1e-5


def test_without_gradients_the_output_is_torchs_own():
    layer, x = layer_of((6, 6), dtype=torch.float32), torch.randn(4, 6)
    plain = nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), plain)


COMPILED = """
import torch, tightlip
for widths in ([6, 6], [5, 8], [8, 5], [8, 8, 8, 4]):
    network = tightlip.mlp(widths)
    x = torch.randn(5, widths[0])
    gradients = []
    for run in (torch.compile(network, backend="aot_eager", fullgraph=True), network):
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
        network.zero_grad()
    for traced, eager in zip(*gradients, strict=True):
        torch.testing.assert_close(traced, eager, atol=1e-5, rtol=1e-4)
"""


def test_it_compiles_without_a_break():
    """In a process of its own: the checks of shapes that tests switch on cannot be traced."""
    python("-c", COMPILED).check_returncode()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("count", [1, 4])
def test_a_gradient_that_is_not_finite_raises_and_nothing_is_lost(bad, count):
    network = mlp([8, 8, 8], Orthonormal(blocks=count))
    optimizer = hold(network, torch.optim.Adam(network.parameters(), lr=0.01))
    advance(network, optimizer, range(5))
    before = copy.deepcopy(network.state_dict())
    optimizer.zero_grad()
    network(torch.ones(3, 8)).sum().backward()
    network[0].weight.grad[0, 1] = bad
    with pytest.raises(TightlipError, match=r"gradient of 0.weight is NaN or infinite, and no weight was moved"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), network.state_dict().values(), strict=True))
    assert network[0].weight.grad.shape == (8, 8)
    advance(network, optimizer, range(5, 9))
    assert off(network) <= 1e-5


class Failing(torch.optim.Adam):
    """Raises in the middle of a step, having moved what it was given."""

    def step(self, closure=None):
        super().step(closure)
        raise KeyboardInterrupt


@pytest.mark.parametrize("count", [1, 4])
def test_a_step_that_fails_leaves_the_weight_as_it_was(count):
    layer = layer_of((8, 8), count=count)
    optimizer, before = hold(layer, Failing(layer.parameters(), 0.1)), layer.weight.detach().clone()
    layer(torch.ones(3, 8, dtype=torch.float64)).sum().backward()
    gradient = layer.weight.grad
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert torch.equal(layer.weight.detach(), before) and layer.weight.grad is gradient
    assert layer(torch.ones(3, 8, dtype=torch.float64)).shape == (3, 8)


@pytest.mark.parametrize(("shape", "most"), [((40, 30), 0.2), ((256, 256), 0.2), ((300, 512), 0.1), ((512, 300), 0.1)])
def test_no_step_turns_a_plane_further_than_suits_the_width(shape, most):
    layer = layer_of(shape)
    optimizer, before = sgd(layer), layer.weight.detach().clone()
    layer.weight.grad = torch.randn(shape, dtype=torch.float64)
    optimizer.step()
    after, back = layer.weight.detach(), torch.linalg.pinv(before)
    turn = back @ after if shape[0] < shape[1] else after @ back
    sine = (turn - turn.mT) / 2  # of the whole turn, seen from where the weight can see
    assert 0.3 * most < float(torch.linalg.matrix_norm(sine, 2)) <= 1.001 * most


@pytest.mark.parametrize("size", [255, 300])
def test_long_turns_in_the_same_planes_stay_on_the_set(size):
    layer = layer_of((size, size), False, torch.float32)
    optimizer, turn = sgd(layer), torch.randn(size, size)
    turn = turn - turn.mT
    turn *= 5 / torch.linalg.matrix_norm(turn, 2)
    for _ in range(100):
        layer.weight.grad = turn @ layer.weight.detach()
        optimizer.step()
    assert off(layer) < 1e-5


def test_steps_of_any_size_stay_on_the_set_or_raise():
    """An eigenvalue that overflowed was taken for zero, and σ² became 1e46 without a word."""
    for rate in (1e2, 1e6, 3e10, 1e20, 1e30):
        layer = layer_of((8, 8), dtype=torch.float32)
        optimizer = hold(layer, torch.optim.Adam(layer.parameters(), lr=rate))
        layer(torch.randn(4, 8))[:, 0].sum().backward()
        try:
            optimizer.step()
        except TightlipError:
            continue
        assert off(layer) <= 1e-5


@pytest.mark.parametrize(
    ("shape", "blocks", "expected"),
    [
        ((1024, 1024), None, 32),
        ((1040, 1040), None, 26),  # not divisible by 32, 30 or 28
        ((1026, 1026), None, 18),
        ((992, 992), None, 16),
        ((512, 512), None, 16),
        ((264, 264), None, 12),
        ((255, 255), None, None),
        ((255, 255), 4, 1),
        ((1024, 784), None, 16),
        ((512, 784), None, 8),
        ((256, 784), None, 28),
        ((256, 128), None, 16),
        ((1024, 256), None, 32),
        ((1024, 128), None, None),  # far from square
        ((10, 1024), 8, None),
        ((512, 784), 4, 4),
        ((64, 64), 16, 16),
        ((64, 64), 6, 4),  # 6 does not divide
        ((784, 784), 32, 28),
        ((75, 75), 32, 1),  # nothing even does
        ((75, 75), 1, 1),
        ((64, 64), 0, None),
    ],
)
def test_how_many_blocks_are_chosen(shape, blocks, expected):
    assert block_count(Orthonormal(blocks=blocks), shape) == expected
    if max(shape) <= 500 or EVERYTHING:  # the first projection of a larger one takes long
        found = held(constrain(nn.Linear(shape[1], shape[0]), Orthonormal(blocks=blocks))).coordinate
        assert getattr(found, "blocks", None) == expected and isinstance(found, Frame) == (expected is not None)


@pytest.mark.parametrize("blocks", [3, -2, 2.0, "8", True])
def test_numbers_that_make_no_tournament_are_refused(blocks):
    with pytest.raises((TightlipError, TypeError)) as caught:
        Orthonormal(blocks=blocks)
    assert isinstance(caught.value, TightlipError) or not isinstance(blocks, int)


def test_frozen_networks_are_plain():
    frozen = freeze(mlp([8, 8, 4]))
    assert [name for name, _ in frozen.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert lipschitz(frozen, 2).constant <= 1


def test_strided_weights_work_as_for_any_layer():
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.randn(4, 4).T)
    constrain(layer, Orthonormal(blocks=2))
    optimizer = hold(layer, torch.optim.Adam(layer.parameters()))
    layer(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    assert layer(torch.randn(3, 4)).shape == (3, 4) and off(layer) <= 1e-5


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_gradient_scaler_changes_nothing_but_the_last_bits(fused, count):
    weights = []
    for scaled in (False, True):
        torch.manual_seed(0)
        network = mlp([8, 8, 8], Orthonormal(blocks=count))
        optimizer = hold(network, torch.optim.Adam(network.parameters(), 0.01, fused=fused))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3, enabled=scaled)
        for seed in range(8):
            x = torch.randn(12, 8, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            scaler.scale(network(x).square().mean()).backward()
            if scaled and seed == 4:
                network[0].weight.grad[0, 0] = math.inf  # the scaler skips this step
            if scaled or seed != 4:
                scaler.step(optimizer)
                scaler.update()
        weights.append(network[0].weight.detach().clone())
    torch.testing.assert_close(*weights, atol=2e-6, rtol=0)


class Odd(torch.optim.SGD):
    """SGD with a state of one more entry, which ``value`` makes of the number of the step."""

    def __init__(self, parameters, value):
        super().__init__(parameters, 0.01)
        self.value, self.count = value, 0

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            self.state[p]["odd"] = self.value(self.count, p)
        self.count += 1
        super().step(closure)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    "value",
    [
        lambda step, p: None if step < 2 else torch.ones_like(p),
        lambda step, p: torch.ones(step + 1),
        lambda step, p: torch.ones_like(p).to_sparse(),
    ],
    ids=["none, then a tensor", "grows", "sparse"],
)
def test_a_state_that_rounds_cannot_keep_is_refused_and_every_weight_is_a_weight(count, value):
    network = mlp([8, 8, 8, 8], Orthonormal(blocks=count))
    optimizer = hold(network, Odd([p for p in network.parameters() if p.dim() == 2], value))
    with pytest.raises(TightlipError, match="changes its kind or shape from step to step"):
        advance(network, optimizer, range(5))
    weights = [layer.weight for layer in network if isinstance(layer, nn.Linear)]
    assert all(w.shape == w.grad.shape == (8, 8) for w in weights) and off(network) <= 1e-5
    network(torch.ones(1, 8))


def test_a_number_of_another_type_is_kept_as_it_is():
    layer = layer_of((8, 8), count=4)
    optimizer = hold(
        layer, Odd([layer.weight], lambda step, p: torch.tensor(step) if step < 3 else torch.tensor(step * 0.5))
    )
    for _ in range(4):
        layer.weight.grad = torch.zeros(8, 8, dtype=torch.float64)
        optimizer.step()
    assert optimizer.state[layer.weight]["odd"].tolist() == [1.5, 1.0, 2.0]


class Stumbling(torch.optim.SGD):
    """Fails once, after it has moved."""

    fails = True

    def step(self, closure=None):
        super().step(closure)
        if self.fails:
            self.fails = False
            raise RuntimeError("once")


class Retrying(Stumbling):
    def step(self, closure=None):
        try:
            super().step(closure)
        except RuntimeError:
            super().step(closure)


@pytest.mark.parametrize("count", [0, 4])
def test_a_step_inside_a_step_that_fails_and_is_tried_again_leaves_a_weight(count):
    Stumbling([nn.Parameter(torch.zeros(1))], 0.1)  # torch patches the step of a class with its first instance
    layer = layer_of((8, 8), count=count)
    optimizer = hold(layer, Retrying([layer.weight], 0.01))
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.ones(3, 8, dtype=torch.float64)).sum().backward()
        optimizer.step()
        assert layer.weight.shape == (8, 8) and off(layer) <= 1e-5


def test_a_weight_that_the_optimizer_moved_before_it_failed_is_put_back_on_its_set():
    layer = layer_of((8, 8), count=0)
    optimizer = hold(layer, Failing(layer.parameters(), 0.1))
    layer(torch.ones(3, 8, dtype=torch.float64)).sum().backward()
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert off(layer) <= 1e-5


class ByName(torch.optim.Optimizer):
    """Momentum of its own, in a dictionary, in a list or where it belongs."""

    def __init__(self, parameters, where):
        super().__init__(parameters, {})
        self.where, self.listed = where, [p for group in self.param_groups for p in group["params"]]
        self.sums = [torch.zeros(0)] * len(self.listed) if where == "list" else {}

    @torch.no_grad()
    def step(self, closure=None):
        for number, p in enumerate(self.listed):
            place, key = (self.state[p], "sum") if self.where == "state" else (self.sums, self.key(number, p))
            known = place[key] if self.where == "list" or key in place else torch.zeros(0)
            place[key] = p.grad.clone() if not known.numel() else 0.9 * known + p.grad
            p.sub_(place[key], alpha=0.01)

    def key(self, number, p):
        return {"list": number, "by parameter": p, "by id": id(p)}[self.where]


@pytest.mark.parametrize("where", ["state", "list", "by parameter", "by id"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_what_an_optimizer_keeps_outside_of_its_state_is_not_mixed_between_rounds(count, where):
    layer = layer_of((8, 8), count=count, dtype=torch.float32)
    optimizer = hold(layer, ByName(layer.parameters(), where))

    def train():
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.eye(8)).sum().backward()
            optimizer.step()

    if count < 4 or where == "state":
        train()
    else:
        with pytest.raises(TightlipError, match=r"not in optimizer\.state, .*use Orthonormal\(blocks=0\)"):
            train()
    assert off(layer) <= 1e-5


@pytest.mark.parametrize("options", [{}, {"dampening": 0.5}, {"dampening": 0.5, "maximize": True}], ids=repr)
def test_fused_momentum_begins_each_round_as_any_other_does(options):
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = layer_of((8, 8), count=4, dtype=torch.float32)
        optimizer = torch.optim.SGD([layer.weight], 0.05, momentum=0.9, fused=fused, **options)
        advance(layer, hold(layer, optimizer), range(7))
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)

import copy
import inspect
import math
import pickle
import re

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tightlip import MaxMin, Orthonormal, RowL1Ball, TightlipError, constrain, freeze, hold, lipschitz, mlp
from tightlip.constraints import constraint_of, row_l1

both = pytest.mark.parametrize("constraint", [Orthonormal(), RowL1Ball()], ids=repr)
LEFT = "without being pulled back: call tightlip.hold"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def network(constraint=None, **options):
    return mlp([6, 8, 8, 3], constraint or Orthonormal(), **options)


def sgd(model, lr=0.5, **options):
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def backward(model, x=None):
    (model(torch.randn(16, 6) if x is None else x) - 5).square().mean().backward()


def members(model):
    held = [layer for layer in model.modules() if constraint_of(layer) is not None]
    assert held
    return all(constraint_of(layer).contains(layer.weight.detach()) for layer in held)


@both
def test_a_forgotten_hold_raises_at_the_next_forward_and_says_so(constraint):
    model = network(constraint)
    optimizer = sgd(model, lr=20.0)
    backward(model)
    optimizer.step()
    with pytest.raises(TightlipError, match=LEFT):
        model(torch.randn(2, 6))
    with pytest.raises(TightlipError, match=re.escape(repr(constraint))):
        model(torch.randn(2, 6))  # the second time too


@both
def test_hold_returns_the_optimizer_and_keeps_every_weight_on_its_set(constraint):
    model = network(constraint)
    optimizer = sgd(model)
    assert hold(model, optimizer) is optimizer
    for _ in range(5):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
        assert members(model)


def test_the_step_is_the_projection_of_a_tangent_step():
    model = constrain(nn.Linear(4, 4, dtype=torch.float64), Orthonormal(blocks=0))
    optimizer = hold(model, sgd(model, lr=0.1))
    W, gradient = model.weight.detach().clone(), torch.randn(4, 4, dtype=torch.float64)
    model.weight.grad = gradient.clone()
    optimizer.step()
    u, _, vh = torch.linalg.svd(W - 0.1 * (gradient - W @ (W.T @ gradient + gradient.T @ W) / 2))
    torch.testing.assert_close(model.weight.detach(), u @ vh, atol=1e-12, rtol=0)


@both
@pytest.mark.parametrize("way", ["step", "forward"])
def test_training_lowers_the_loss(constraint, way):
    model = mlp([6, 8, 1], constraint, K=4.0, hold=way)
    optimizer = hold(model, torch.optim.Adam(model.parameters(), lr=0.03))
    x = torch.randn(64, 6)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(x) - x[:, :1]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_lbfgs_and_optimizers_of_two_steps_are_refused():
    model = network()
    with pytest.raises(TightlipError, match="LBFGS .* use Adam or SGD"):
        hold(model, torch.optim.LBFGS(model.parameters()))

    class SAM(torch.optim.SGD):
        def first_step(self):
            """Its presence is what gives such optimisers away."""

    with pytest.raises(TightlipError, match="SAM"):
        hold(model, SAM(model.parameters()))


def test_holding_twice_is_holding_once():
    model, other = network(), None
    other = copy.deepcopy(model)
    x = torch.randn(16, 6)
    for each, times in ((model, 1), (other, 3)):
        optimizer = sgd(each, momentum=0.9)
        for _ in range(times):
            hold(each, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            backward(each, x)
            optimizer.step()
        assert len(optimizer._optimizer_step_post_hooks) == 1
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_one_optimizer_can_hold_two_networks():
    first, second = network(), network()
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.5)
    hold(first, optimizer)
    hold(second, optimizer)
    backward(first)
    backward(second)
    optimizer.step()
    assert members(first)
    assert members(second)


def test_a_layer_added_to_the_optimizer_later_can_be_held_by_calling_again():
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.5)
    hold(model, optimizer)
    optimizer.add_param_group({"params": [*model[2].parameters(), *model[4].parameters()]})
    hold(model, optimizer)
    backward(model)
    optimizer.step()
    assert members(model)


def test_a_subset_of_the_parameters_moves_alone():
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = hold(model, torch.optim.SGD(model[2].parameters(), lr=0.5))
    backward(model)
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"2.weight", "2.bias"}
    assert members(model)


@both
def test_clipping_accumulation_and_several_forwards_per_step(constraint):
    model = network(constraint)
    optimizer = hold(model, sgd(model))
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(2):
            x = torch.randn(16, 6)
            (model(x) - model(-x) + model(2 * x)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        assert members(model)


def test_accumulated_gradients_are_the_gradient_of_the_whole_batch():
    model = network().double()
    other, x = copy.deepcopy(model), torch.randn(8, 6, dtype=torch.float64)
    for each, pieces in ((model, x.split(8)), (other, x.split(4))):
        optimizer = hold(each, sgd(each))
        for piece in pieces:
            (each(piece).square().sum()).backward()
        optimizer.step()
    torch.testing.assert_close(dict(model.state_dict()), dict(other.state_dict()), atol=1e-12, rtol=0)


@both
@pytest.mark.parametrize("way", ["step", "forward"])
def test_under_bf16_autocast_the_weights_stay_on_the_set(constraint, way):
    model = network(constraint, hold=way)
    optimizer = hold(model, sgd(model))
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            backward(model)
            optimizer.step()
            assert members(model)
    assert members(model)
    assert lipschitz(model, *constraint.norms).constant <= 1 + 1e-5


def test_a_copy_may_run_under_autocast_at_once():
    model = copy.deepcopy(mlp([64, 64, 64]))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.zeros(1, 64)).shape == (1, 64)


def test_a_network_turned_to_float64_works_as_it_is_as_a_copy_and_reloaded():
    model = network().double()
    other = network().double()
    other.load_state_dict(network().state_dict())
    for each in (model, copy.deepcopy(model), other):
        assert each(torch.randn(2, 6, dtype=torch.float64)).shape == (2, 3)
        optimizer = hold(each, sgd(each))
        backward(each, torch.randn(4, 6, dtype=torch.float64))
        optimizer.step()
        assert members(each)


def test_deep_copies_train_independently():
    model = network()
    other = copy.deepcopy(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = hold(other, sgd(other))
    backward(other)
    optimizer.step()
    assert members(other)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not torch.equal(other[0].weight, model[0].weight)


@pytest.mark.parametrize("writes", range(1, 7))
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_that_left_its_set_is_refused_however_often_it_was_written(writes, duplicate):
    other = duplicate(constrain(nn.Linear(4, 4), Orthonormal()))
    with torch.no_grad():
        for _ in range(writes):
            other.weight.mul_(1.5)
    with pytest.raises(TightlipError, match=LEFT):
        other(torch.zeros(1, 4))


def test_loading_members_is_fine_and_loading_others_is_refused():
    model, members_of_the_set = network(), network().state_dict()
    model.load_state_dict(members_of_the_set)
    model(torch.zeros(1, 6))
    model.load_state_dict({key: 2 * value for key, value in members_of_the_set.items()})
    with pytest.raises(TightlipError, match=r"overwritten \(by a checkpoint.* put back when hold is called again"):
        model(torch.zeros(1, 6))


@both
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_leaves_nan_or_infinity_raises(constraint, bad):
    model = network(constraint)
    optimizer = hold(model, sgd(model))
    backward(model)
    trained = [p for p in model[2].parameters() if p.dim() == 2 and p.grad is not None]
    trained[0].grad[0, 1] = bad
    with pytest.raises(TightlipError, match="learning rate"):
        optimizer.step()


@both
def test_weights_overwritten_through_data_are_seen_by_the_audit_and_by_freeze(constraint):
    model = network(constraint)
    lipschitz(model, *constraint.norms)
    freeze(model)
    fresh = constraint.map(torch.randn(8, 8))
    model[2].weight.data = 3 * fresh
    assert lipschitz(model, *constraint.norms).constant > 2
    model[2].weight.data = fresh
    torch.testing.assert_close(freeze(model)[2].weight, fresh, atol=1e-5, rtol=0)


def test_an_average_of_weights_leaves_the_set_and_freeze_puts_it_back_with_a_warning(caplog):
    model = network()
    optimizer = hold(model, sgd(model, lr=2.0))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for _ in range(4):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
        average.update_parameters(model)
    assert not members(average)
    with caplog.at_level("WARNING", "tightlip"):
        frozen = freeze(average.module)
    assert "was off" in caplog.text
    assert 0.999 <= lipschitz(frozen, 2).constant <= 1
    assert lipschitz(average.module, 2).constant < 0.999


def test_freezing_members_does_not_warn(caplog):
    freeze(network())
    freeze(network(hold="forward"))
    assert not caplog.records


def test_a_network_in_which_nothing_is_constrained_is_refused():
    model = nn.Sequential(nn.Linear(6, 6), MaxMin())
    with pytest.raises(TightlipError, match=r"nothing in this network is constrained.* tightlip.mlp"):
        hold(model, sgd(model))
    frozen = freeze(network()).requires_grad_(True)
    with pytest.raises(TightlipError, match="nothing in this network is constrained"):
        hold(frozen, sgd(frozen))


def test_a_network_held_in_the_forward_pass_needs_no_hold_and_may_have_it():
    model = network(hold="forward")
    optimizer = sgd(model)
    assert hold(model, optimizer) is optimizer
    backward(model)
    optimizer.step()
    assert members(model)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (lambda n, o: (o, n), "network first and the optimizer second"),
        (lambda n, o: (n.state_dict(), o), "needs a network"),
        (lambda n, o: (n, list(n.parameters())), "needs an optimizer"),
        (lambda n, o: (n, n), "network first and the optimizer second"),
    ],
)
def test_arguments_of_other_kinds_are_refused_in_a_sentence(arguments, sentence):
    model = network()
    with pytest.raises(TightlipError, match=sentence):
        inspect.unwrap(hold)(*arguments(model, sgd(model)))  # annotations refuse them under test


def test_an_optimizer_whose_class_calls_the_step_of_its_parent_is_prepared_once():
    """torch runs the hooks of every class in the chain whose step it has patched."""
    weights = []
    for subclass in (False, True):

        class Steps(torch.optim.SGD):
            def step(self, closure=None):
                return super().step(closure)

        model = network(Orthonormal(blocks=2))
        model.load_state_dict(weights[0][0] if weights else model.state_dict())
        before = copy.deepcopy(model.state_dict())
        optimizer = hold(model, (Steps if subclass else torch.optim.SGD)(model.parameters(), lr=0.5))
        for seed in range(3):
            backward(model, torch.randn(16, 6, generator=torch.Generator().manual_seed(seed)))
            optimizer.step()
        weights.append((before, model.state_dict()))
    assert all(torch.equal(weights[0][1][key], weights[1][1][key]) for key in weights[0][1])


def test_double_backward_reaches_the_weights():
    model = mlp([6, 8, 1])
    x = torch.randn(4, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    trained = [p for layer in model if isinstance(layer, nn.Linear) for p in layer.parameters() if p.dim() == 2]
    trained = [p for p in trained if p.requires_grad]
    assert len(trained) == 2 and all(torch.isfinite(p.grad).all() and p.grad.any() for p in trained[:1])


def test_evaluation_in_inference_mode_works_before_and_after_steps():
    model = network()
    optimizer = hold(model, sgd(model))
    for _ in range(2):
        with torch.inference_mode():
            model(torch.zeros(1, 6))
        optimizer.zero_grad()
        backward(model)
        optimizer.step()


def test_a_step_too_large_to_be_pulled_back_raises():
    network = nn.Sequential(constrain(nn.Linear(64, 8), RowL1Ball()))
    optimizer = hold(network, torch.optim.SGD(network.parameters(), lr=1e38))
    (network(torch.randn(4, 64)).sum() * 0.5).backward()
    try:
        optimizer.step()
    except TightlipError:
        return
    assert torch.isfinite(network(torch.randn(4, 64))).all()


def test_a_layer_parametrized_twice_is_refused_by_freeze():
    layer = constrain(nn.Linear(4, 4), RowL1Ball(), "forward")
    torch.nn.utils.parametrizations.weight_norm(layer)
    with pytest.raises(TightlipError, match="parametrized again"):
        freeze(layer)


def test_an_optimizer_of_another_network_is_refused():
    network, other = mlp([4, 8, 2]), mlp([4, 8, 2])
    with pytest.raises(TightlipError, match="trains no parameter of this network: make it from network.parameters"):
        hold(network, torch.optim.Adam(other.parameters()))
    hold(network, torch.optim.Adam([*network.parameters(), *other.parameters()]))


@pytest.mark.parametrize("constraint", [Orthonormal(), Orthonormal(blocks=0), RowL1Ball()])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_cast_to_half_precision_after_constrain_are_refused_at_the_step(constraint, dtype):
    network = mlp([4, 8, 2], constraint).to(dtype)
    optimizer = hold(network, torch.optim.SGD(network.parameters(), 0.1))
    with pytest.raises(TightlipError, match="cannot be held exactly: keep them float32, use autocast"):
        network(torch.randn(3, 4, dtype=dtype))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(TightlipError, match="cannot be held exactly: keep them float32, use autocast"):
        optimizer.step()


def test_a_projection_begins_where_the_last_one_ended(monkeypatch):
    seen, project = [], row_l1.project_l1_ball_

    def recorded(weight, radius=1.0, guess=None):
        seen.append((guess, project(weight, radius, guess)))
        return seen[-1][1]

    monkeypatch.setattr(row_l1, "project_l1_ball_", recorded)
    model = mlp([6, 8], RowL1Ball())
    optimizer = hold(model, sgd(model))
    for _ in range(3):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
    guesses, ends = zip(*seen, strict=True)
    assert guesses[0] is None
    for guess, end in zip(guesses[1:], ends, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(guess, end, strict=True))


def test_where_a_projection_ended_is_saved_with_the_optimizer():
    """It is where the next begins, so it tells in the last bits."""

    def advance(model, optimizer, seeds):
        for seed in seeds:
            optimizer.zero_grad()
            model(torch.randn(12, 40, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
            optimizer.step()

    first = mlp([40, 64, 8], RowL1Ball())
    optimizer = hold(first, torch.optim.Adam(first.parameters(), lr=0.001))
    advance(first, optimizer, range(20))
    other = mlp([40, 64, 8], RowL1Ball())
    other.load_state_dict(first.state_dict())
    resumed = hold(other, torch.optim.Adam(other.parameters(), lr=0.001))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(first, optimizer, range(20, 40))
    advance(other, resumed, range(20, 40))
    for a, b in zip(first.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(8, 8), (12, 8), (8, 12)])
@pytest.mark.parametrize("constraint", [Orthonormal(blocks=0), Orthonormal(blocks=4), RowL1Ball()], ids=repr)
def test_a_fused_optimizer_does_what_another_does(shape, constraint):
    """It reads a gradient in the layout of the parameter, whatever the gradient's own."""
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = constrain(nn.Linear(shape[1], shape[0]), constraint)
        optimizer = hold(layer, torch.optim.Adam(layer.parameters(), 0.01, fused=fused))
        for _ in range(4):
            optimizer.zero_grad()
            (layer(torch.randn(5, shape[1])) - 1).square().sum().backward()
            optimizer.step()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize("blocks", [0, 4])
def test_hooks_of_others_see_weights_and_ordinary_gradients_whenever_they_were_registered(blocks):
    layer = constrain(nn.Linear(8, 8, bias=False), Orthonormal(blocks=blocks))
    optimizer = sgd(layer, lr=0.1)
    seen = []

    def look(optimizer, *_):
        seen.append((layer.weight.shape, members(layer), torch.equal(layer.weight.grad, gradient)))

    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(look)
    hold(layer, optimizer)
    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(look)
    for _ in range(2):
        optimizer.zero_grad()
        layer(torch.randn(4, 8)).square().sum().backward()
        gradient = layer.weight.grad.clone()
        optimizer.step()
    assert seen == [((8, 8), True, True)] * 8


def test_what_is_given_to_step_beside_a_closure_arrives():
    class Told(torch.optim.SGD):
        def step(self, closure=None, factor=None, *, other=None):
            self.told = factor, other
            return super().step(closure)

    layer = constrain(nn.Linear(4, 4), Orthonormal())
    optimizer = hold(layer, Told(layer.parameters(), 0.1))

    def closure():
        optimizer.zero_grad()
        loss = layer(torch.ones(2, 4)).sum()
        loss.backward()
        return loss

    optimizer.step(closure, 0.5, other=2)
    assert optimizer.told == (0.5, 2)
    optimizer.step(factor=0.25, closure=closure)
    assert optimizer.told == (0.25, None)


def test_a_closure_is_what_can_be_called_whatever_its_name_and_is_called_with_what_it_takes():
    class Other(torch.optim.SGD):
        def step(self, scale=1.0, fn=None):
            if fn is not None:
                fn(scale)
            super().step()

    layer = constrain(nn.Linear(4, 4), Orthonormal())
    Other(layer.parameters(), 0.1)
    optimizer = hold(layer, Other(layer.parameters(), 0.1))

    def closure(scale):
        optimizer.zero_grad()
        (scale * layer(torch.ones(2, 4)).sum()).backward()

    for arguments, options in (((), {"fn": closure}), ((2.0, closure), {}), ((), {"scale": 0.5, "fn": closure})):
        optimizer.step(*arguments, **options)
        assert members(layer)
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.step(3.0)
    assert members(layer)


def test_hold_called_again_puts_what_was_overwritten_back_on_its_set(caplog):
    model = network()
    optimizer = hold(model, sgd(model))
    with torch.no_grad():
        model[0].weight.mul_(0.5)
    with pytest.raises(TightlipError, match="is put back when hold is called again"):
        model(torch.randn(2, 6))
    hold(model, optimizer)
    assert members(model) and "was off Orthonormal()" in caplog.text
    backward(model)
    optimizer.step()
    assert members(model)


@pytest.mark.parametrize("constraint", [Orthonormal(), Orthonormal(blocks=1), Orthonormal(blocks=0), RowL1Ball()])
@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0)])
@pytest.mark.filterwarnings("ignore:Initializing zero")
def test_weights_without_entries_are_held_like_others(constraint, shape):
    layer = constrain(nn.Linear(*shape), constraint)
    optimizer = hold(layer, sgd(layer))
    layer(torch.ones(2, shape[0])).sum().backward()
    optimizer.step()
    assert layer.weight.shape == shape[::-1]

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tightlip import MaxMin, Normalize, Orthonormal, RowL1Ball, Scale, TightlipError, constrain, freeze, lipschitz, mlp
from tightlip.constraints import constraint_of

each_hold = pytest.mark.parametrize("way", ["step", "forward"])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@each_hold
@pytest.mark.parametrize("constraint", [Orthonormal(), RowL1Ball()], ids=repr)
def test_the_original_is_left_intact_and_can_still_be_trained(way, constraint):
    model = mlp([4, 6, 6, 2], constraint, hold=way)
    before = copy.deepcopy(model.state_dict())
    modules = [(name, id(module), type(module)) for name, module in model.named_modules()]
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    freeze(freeze(model))
    freeze(copy.deepcopy(model))
    assert modules == [(name, id(module), type(module)) for name, module in model.named_modules()]
    assert hooks == [len(module._forward_pre_hooks) for module in model.modules()]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == 6
    assert model.training
    assert type(constraint_of(model[0])) is type(constraint)
    model(torch.randn(3, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in trained)


@each_hold
def test_the_frozen_network_shares_nothing_with_the_original(way):
    model = nn.Sequential(Normalize(0.1, 0.5), *mlp([4, 4, 2], hold=way))
    frozen, x = freeze(model), torch.randn(3, 4)
    before = frozen(x)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.zero_()
    assert torch.equal(frozen(x), before)
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@each_hold
def test_names_other_layers_and_nesting_are_kept(way):
    model = nn.Sequential()
    model.add_module("block", nn.Sequential(constrain(nn.Linear(4, 4), Orthonormal(), way), MaxMin()))
    model.add_module("free", nn.Linear(4, 2))
    model.add_module("end", Scale(2.0))
    frozen = freeze(model)
    assert [name for name, _ in frozen.named_modules()] == ["", "block", "block.0", "block.1", "free", "end"]
    assert torch.equal(frozen.free.weight, model.free.weight)
    assert list(frozen.state_dict()) == ["block.0.weight", "block.0.bias", "free.weight", "free.bias", "end.scale"]


@each_hold
def test_a_layer_used_twice_stays_one_layer(way):
    layer = constrain(nn.Linear(4, 4), Orthonormal(), way)
    frozen = freeze(nn.Sequential(layer, MaxMin(), layer))
    assert frozen[0] is frozen[2]


@each_hold
def test_layers_without_bias_and_single_layers_freeze(way):
    layer = constrain(nn.Linear(4, 3, bias=False), Orthonormal(), way)
    frozen = freeze(layer)
    assert type(frozen) is nn.Linear
    assert frozen.bias is None
    torch.testing.assert_close(frozen.weight, layer.weight.detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_cast_to_another_dtype_freeze_below_one_in_that_dtype(dtype):
    frozen = freeze(mlp([8, 8, 8]).to(dtype))
    assert frozen[0].weight.dtype == dtype
    assert 0.98 <= lipschitz(frozen[0], 2).constant <= 1


def test_rows_inside_the_ball_are_frozen_bit_for_bit():
    layer = nn.Linear(3, 2)
    layer.weight.data = torch.tensor([[0.1, -0.2, 0.3], [0.0, 0.5, 0.25]])
    assert torch.equal(freeze(constrain(layer, RowL1Ball())).weight, layer.weight)


@pytest.mark.parametrize("constraint", [Orthonormal(), RowL1Ball()], ids=repr)
def test_a_wide_float32_layer_is_shrunk_no_further_than_rounding_asks(constraint):
    layer = constrain(nn.Linear(700, 300), constraint)
    with torch.no_grad():
        layer.weight.copy_(constraint.map(20 * layer.weight))
    assert 1 - 2e-6 <= lipschitz(freeze(layer), *constraint.norms).constant <= 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("constraint", [Orthonormal(), RowL1Ball()], ids=repr)
def test_weights_that_are_not_finite_cannot_be_frozen(constraint, bad):
    model = mlp([3, 3], constraint)
    model[0].weight.data[0, 0] = bad
    with pytest.raises(TightlipError, match="a weight is NaN or infinite"):
        freeze(model)


def test_freezing_draws_no_random_numbers():
    model = mlp([3, 3])
    state = torch.get_rng_state()
    freeze(model)
    assert torch.equal(torch.get_rng_state(), state)


@each_hold
def test_a_constrained_layer_that_was_altered_is_refused_rather_than_silently_repaired(way):
    x = torch.randn(2, 3)
    for alter in (
        lambda layer: layer.register_forward_hook(lambda module, inputs, output: 10 * output),
        lambda layer: setattr(layer, "forward", lambda x: 10 * x),
    ):
        model = mlp([3, 3], hold=way)
        alter(model[0])
        live = model(x).detach()
        try:
            frozen = freeze(model)
        except TightlipError:
            continue
        torch.testing.assert_close(frozen(x), live, atol=1e-5, rtol=0)


def test_constraining_asks_for_a_free_plain_linear_layer_in_full_precision():
    unchecked = inspect.unwrap(constrain)  # the annotations would speak first under test
    layer = constrain(nn.Linear(2, 2), Orthonormal())
    with pytest.raises(TightlipError, match="freeze the network to release it"):
        constrain(layer, RowL1Ball())
    with pytest.raises(TightlipError, match="for nn.Linear, nn.Conv1d and nn.Conv2d, not ConvTranspose2d: constrain"):
        unchecked(nn.ConvTranspose2d(1, 1, 3), Orthonormal())
    with pytest.raises(TightlipError, match="not ParametrizedLinear"):
        constrain(nn.utils.parametrizations.orthogonal(nn.Linear(2, 2)), Orthonormal())
    with pytest.raises(TightlipError, match="give an instance"):
        unchecked(nn.Linear(2, 2), Orthonormal)
    with pytest.raises(TightlipError, match="keep them float32"):
        constrain(nn.Linear(2, 2, dtype=torch.bfloat16), Orthonormal())


def test_a_refused_constraint_leaves_the_layer_as_it_was():
    layer = nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    with pytest.raises(TightlipError, match='"step" or "forward"'):
        inspect.unwrap(constrain)(layer, Orthonormal(), "sometimes")
    assert torch.equal(layer.weight, before)
    layer.weight.data[0, 0] = float("nan")
    with pytest.raises(TightlipError, match="a weight is NaN or infinite"):
        constrain(layer, Orthonormal())
    assert constraint_of(layer) is None


@pytest.mark.filterwarnings("ignore:.*script_method")
@pytest.mark.parametrize(
    ("wrap", "inner"), [(torch.compile, "_orig_mod"), (AveragedModel, "module"), (nn.DataParallel, "module")]
)
def test_of_a_wrapper_the_module_inside_is_frozen(wrap, inner):
    wrapper = wrap(mlp([4, 4, 2]))
    with pytest.raises(TightlipError, match=f"freeze its {inner} instead"):
        freeze(wrapper)
    assert lipschitz(freeze(getattr(wrapper, inner)), 2).constant <= 1

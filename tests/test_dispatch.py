"""What the audit must refuse: a module that is not exactly what its rule describes. Each refusal says what to do."""

import math

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrizations, parametrize

from tightlip import (
    FullSort,
    Gains,
    GroupSort,
    MaxMin,
    Normalize,
    Orthonormal,
    Residual,
    Scale,
    TightlipError,
    constrain,
    lipschitz,
    rule,
)
from tightlip.audit import gains, within


def refused(module, advice):
    """Alone and inside a network, with advice in the sentence."""
    for network in (module, nn.Sequential(nn.Flatten(), nn.Sequential(module))):
        with pytest.raises(TightlipError, match=advice):
            lipschitz(network, 2)


class TenTimes(nn.Linear):
    def forward(self, x):
        return 10 * super().forward(x)


class Innocent(nn.Linear):
    pass


class Square(nn.Module):
    def forward(self, x):
        return x * x


class Twice(nn.Sequential):
    def forward(self, x):
        return super().forward(super().forward(x))


class LoudMaxMin(MaxMin):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "module",
    [TenTimes(2, 2), Innocent(2, 2), Square(), LoudMaxMin(), nn.LocalResponseNorm(2), nn.LSTM(2, 2)],
)
def test_subclasses_and_unknown_modules_are_told_to_register_a_rule(module):
    refused(module, "register one with @tightlip.rule")


def test_a_container_with_another_forward_is_what_its_forward_does():
    assert lipschitz(Twice(Scale(3.0)), 2).constant == 9.0


def test_the_sentence_names_the_module_and_its_place():
    with pytest.raises(TightlipError, match="Square at '1.0'"):
        lipschitz(nn.Sequential(nn.ReLU(), nn.Sequential(Square())), 2)


KNOWN = [lambda: nn.Linear(2, 2), nn.ReLU, MaxMin, FullSort, lambda: Scale(1.0), lambda: Normalize(0.0, 1.0)]
KNOWN += [lambda: nn.Sequential(nn.ReLU()), lambda: GroupSort(2), nn.Flatten]
KNOWN += [
    lambda: Residual(nn.ReLU()),
    lambda: nn.MaxPool1d(2),
    lambda: nn.AvgPool2d(2),
    lambda: nn.AdaptiveAvgPool2d(1),
]


@pytest.mark.parametrize("make", KNOWN)
def test_a_forward_replaced_on_the_instance(make):
    module = make()
    lipschitz(module, 2)
    module.forward = lambda x: 10 * x
    refused(module, "restore it")


@pytest.mark.parametrize("make", KNOWN)
def test_a_forward_replaced_on_the_class(make, monkeypatch):
    module = make()
    monkeypatch.setattr(type(module), "forward", lambda self, x: 10 * x)
    with pytest.raises(TightlipError, match="restore it"):
        lipschitz(module, 2)


def test_a_forward_replaced_on_the_class_of_a_parametrized_layer():
    layer = constrain(nn.Linear(2, 2), Orthonormal(), hold="forward")
    type(layer).forward = lambda self, x: 10 * x  # torch makes one class per parametrized layer
    refused(layer, "restore it")


@pytest.mark.parametrize("make", KNOWN)
def test_forward_hooks_and_pre_hooks(make):
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        module = make()
        handle = getattr(module, register)(lambda *arguments: None)
        refused(module, "remove the hook")
        handle.remove()
        lipschitz(module, 2)


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_global_hooks(register):
    handle = register(lambda *arguments: None)
    try:
        refused(nn.Linear(2, 2), "remove the hook")
    finally:
        handle.remove()
    lipschitz(nn.Linear(2, 2), 2)


def test_a_foreign_hook_beside_our_own_is_refused():
    layer = constrain(nn.Linear(2, 2), Orthonormal())
    assert lipschitz(layer, 2).constant == pytest.approx(1, rel=1e-6)
    layer.register_forward_hook(lambda module, inputs, output: 10 * output)
    refused(layer, "remove the hook")


@pytest.mark.parametrize(
    "wrap", [parametrizations.spectral_norm, parametrizations.weight_norm, parametrizations.orthogonal]
)
def test_foreign_parametrizations_are_told_to_become_permanent(wrap):
    layer = wrap(nn.Linear(3, 3))
    refused(layer, "remove_parametrizations")
    parametrize.remove_parametrizations(layer, "weight")
    assert lipschitz(layer, 2).constant > 0


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_foreign_parametrization_after_ours_is_refused(name):
    layer = constrain(nn.Linear(3, 3), Orthonormal(), hold="forward")
    parametrize.register_parametrization(layer, name, nn.Hardtanh())
    refused(layer, "remove_parametrizations")


@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's older, hook-based forms
def test_hook_based_normalisations_are_refused(wrap):
    refused(wrap(nn.Linear(3, 3)), "remove the hook")


@pytest.mark.parametrize("start", [0, -2])
def test_flattening_the_batch_is_refused(start):
    with pytest.raises(TightlipError, match="use start_dim=1"):
        lipschitz(nn.Flatten(start), 2)


@pytest.mark.parametrize("dim", [0, -2])
def test_sorting_an_axis_that_may_be_the_batch_is_refused(dim):
    with pytest.raises(TightlipError, match="use dim=1 or dim=-1"):
        lipschitz(MaxMin(dim=dim), 2)  # over (batch, features), -2 mixes examples


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_prove_nothing(bad):
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = bad
    refused(layer, "restore a finite checkpoint")


def test_numbers_inside_layers_that_are_not_finite_prove_nothing():
    normalize, scale = Normalize(0.0, 1.0), Scale(1.0)
    normalize.std.fill_(math.nan)
    scale.scale.fill_(math.nan)
    for module in (normalize, scale, nn.LeakyReLU(math.nan)):
        with pytest.raises(TightlipError, match="NaN|finite|must be"):
            lipschitz(module, 2)


@pytest.mark.filterwarnings("ignore:Casting complex")
def test_complex_weights_are_refused_rather_than_halved():
    layer = nn.Linear(2, 2, dtype=torch.complex64)
    layer.weight.data.fill_(1j)
    with pytest.raises(TightlipError, match="convert it to a dense tensor of float32 or float64"):
        lipschitz(layer, 2)


def test_registering_a_rule_makes_a_module_known_and_does_not_leak_to_subclasses():
    class Third(nn.Module):
        def forward(self, x):
            return torch.sin(x) / 3

    class Louder(Third):
        def forward(self, x):
            return 3 * x

    refused(Third(), "register (one|a rule)")

    @rule(Third)
    def _(module):
        return Gains.constant(0.5)

    assert lipschitz(nn.Sequential(Third(), Third()), 1).constant == 0.25
    refused(Louder(), "register (one|a rule)")
    Third.forward = Louder.forward
    refused(Third(), "restore it")


def test_a_rule_that_asks_for_its_place_can_audit_what_is_inside():
    class Twin(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) + self.inner(x)

    @rule(Twin)
    def _(module, name):
        return Gains({pair: 2 * c for pair, c in gains(module.inner, within(name, "inner")).table.items()})

    assert lipschitz(nn.Sequential(Twin(Scale(3.0))), 2).constant == 6
    for network, place in ((nn.Sequential(nn.ReLU(), Twin(Square())), "1.inner"), (Twin(Square()), "inner")):
        with pytest.raises(TightlipError, match=f"Square at '{place}'"):
            lipschitz(network, 2)


def test_the_newest_rule_counts():
    class Mine(nn.Module):
        def forward(self, x):
            return x

    for constant in (2.0, 1.0):
        rule(Mine)(lambda module, constant=constant: Gains.constant(constant))
        assert lipschitz(Mine(), 2).constant == constant


class Tenfold(torch.Tensor):
    """A tensor that computes something else."""


def with_call_impl(layer):
    layer._call_impl = lambda x: 10 * x


def with_compile(layer):
    layer.compile(backend="eager")


def with_a_tensor_subclass(layer):
    layer._parameters["weight"] = nn.Parameter(layer.weight.detach().as_subclass(Tenfold))


def with_a_nan_bias(layer):
    layer.bias.data.fill_(math.nan)


def with_a_meta_weight(layer):
    layer.weight = nn.Parameter(torch.empty(3, 3, device="meta"))


def with_a_vector_for_a_weight(layer):
    layer.weight = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    "alter",
    [
        with_call_impl,
        with_compile,
        with_a_tensor_subclass,
        with_a_nan_bias,
        with_a_meta_weight,
        with_a_vector_for_a_weight,
    ],
)
def test_a_linear_layer_altered_in_a_rarer_way_is_refused(alter):
    layer = nn.Linear(3, 3)
    alter(layer)
    with pytest.raises(TightlipError, match="restore|remove|convert|audit a copy"):
        lipschitz(layer, 2)


WRAPPED = {
    "compiled": (torch.compile, "torch._dynamo.eval_frame.OptimizedModule.*give its _orig_mod"),
    "averaged": (torch.optim.swa_utils.AveragedModel, "AveragedModel.*give its module, the module itself"),
    "a graph": (torch.fx.symbolic_trace, "Sequential .*a graph of torch.fx: give the module that it was made from"),
    "parallel": (nn.DataParallel, "torch.nn.parallel.data_parallel.DataParallel.*give its module"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when its compiler is imported
@pytest.mark.parametrize("way", WRAPPED)
def test_a_wrapped_network_is_told_to_be_unwrapped(way):
    wrap, says = WRAPPED[way]
    refused(wrap(nn.Sequential(nn.Linear(2, 2))), says)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_network_compiled_in_place_is_told_apart_from_one_with_another_forward():
    network = nn.Sequential(nn.Linear(2, 2))
    network.compile()
    refused(network, "Sequential.*was compiled in place")


class Stand(nn.Module):
    """As torch's quantized layers are called: like what they were made from, in a module of another name."""


Stand.__name__ = Stand.__qualname__ = "Linear"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (
            "torch.ao.nn.quantized.dynamic.modules.linear",
            "a quantized layer: audit and certify the network",
        ),
        ("elsewhere.layers", "which is not torch.nn.modules.linear.Linear: use that one"),
    ],
)
def test_a_namesake_of_a_known_layer_is_called_by_its_full_type(place, says, monkeypatch):
    monkeypatch.setattr(Stand, "__module__", place)
    refused(Stand(), rf"no Lipschitz rule is known for Linear.*{place}.Linear.*{says}")
    with pytest.raises(TightlipError, match="at '1'"):
        lipschitz(nn.Sequential(nn.ReLU(), Stand()), 2)


@pytest.mark.filterwarnings("ignore")  # torch's own: quantization is moving to another package
def test_a_layer_that_torch_has_quantized_says_so():
    network = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)), {nn.Linear})
    refused(network[0], "torch.ao.nn.quantized.dynamic.modules.linear.Linear.*a quantized layer")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_a_scripted_network_is_told_what_to_give_instead():
    refused(torch.jit.script(nn.Sequential(nn.Linear(2, 2))), "a scripted module: give the module")

"""Whether a module is exactly what its rule describes: its own class, forward, hooks, tensors and parametrizations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

from ..errors import TightlipError
from .registry import registered

TRUSTED_PARAMETRIZATIONS: set[type] = set()
TRUSTED_HOOKS: set[Callable[..., Any]] = set()

_AROUND = {"__call__", "_call_impl", "_wrapped_call_impl", "_slow_forward", "__getattr__", "__getattribute__"}
"""What runs around a forward, or gives it its layers: torch's own, unless a class says otherwise."""


def refuse_altered(module: nn.Module, name: str = "") -> None:
    """Raise unless the module is exactly what its rule describes."""
    cls = original_type(module)
    where = f"{cls.__name__} at {name!r}" if name else cls.__name__
    if cls not in registered():
        raise TightlipError(f"no Lipschitz rule is known for {_unknown(module, cls, name)}")
    known = registered()[cls].forward
    refuse_hidden_code(module, where)
    if type(module).forward is not known:
        raise TightlipError(f"the forward of {where} has been replaced, so its rule proves nothing: restore it")
    if hidden := vars(module).keys() & {*module._parameters, *module._buffers, *module._modules}:
        raise TightlipError(f"{where} has a {min(hidden)} that hides the one in its state_dict: delete the attribute")
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and type(tensor) not in (torch.Tensor, nn.Parameter):
            kind = type(tensor).__name__
            raise TightlipError(f"{where} holds a {kind}, which can compute anything: convert it to a plain tensor")


def refuse_training(module: nn.Module, why: str) -> None:
    """Raise where the module is in training mode, in which its rule would prove nothing."""
    if module.training:
        kind = original_type(module).__name__
        raise TightlipError(f"{kind} in training mode {why}: call network.eval() before the audit")


def refuse_hidden_code(module: nn.Module, where: str) -> None:
    """Raise where other code than the forward of a module's class runs when it is called."""
    if module._compiled_call_impl is not None:
        raise TightlipError(
            f"{where} was compiled in place, so other code than its own runs: restore a copy from before .compile()"
        )
    for key, value in vars(module).items():
        if callable(value) and callable(getattr(type(module), key, None)):
            what = "forward" if key in ("forward", "_call_impl") else f"method {key}"
            raise TightlipError(f"the {what} of {where} has been replaced, so its rule proves nothing: restore it")
    for kind in type(module).__mro__[: type(module).__mro__.index(nn.Module)]:
        for name in _AROUND & vars(kind).keys():
            if vars(kind)[name] is not vars(nn.Module).get(name):
                raise TightlipError(f"{where} has a {name} of its own, which may do more than its forward: remove it")
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    hooks += [*torch_module._global_forward_hooks.values(), *torch_module._global_forward_pre_hooks.values()]
    if any(hook not in TRUSTED_HOOKS for hook in hooks):
        raise TightlipError(f"{where} runs a forward hook that could change its output: remove the hook first")


def _unknown(module: nn.Module, cls: type, name: str) -> str:
    """The full type of a module without a rule, and what to do: one word like Linear may stand for several classes."""
    full = f"{cls.__module__}.{cls.__qualname__}"
    where = f"{cls.__name__} at {name!r} ({full})" if name else f"{cls.__name__} ({full})"
    namesakes = [f"{known.__module__}.{known.__qualname__}" for known in registered() if known.__name__ == cls.__name__]
    inner = next((key for key in ("_orig_mod", "module") if isinstance(getattr(module, key, None), nn.Module)), None)
    if "quantized" in full.split("."):
        return f"{where}, a quantized layer: audit and certify the network that it was made from"
    if inner is not None:
        return f"{where}, a wrapper of another module: give its {inner}, the module itself, instead"
    if isinstance(module, torch.jit.ScriptModule):
        return f"{where}, a scripted module: give the module that it was made from"
    if isinstance(module, torch.fx.GraphModule):
        return f"{where}, a graph of torch.fx: give the module that it was made from, or the .pt2 file of an export"
    if namesakes:
        return f"{where}, which is not {namesakes[0]}: use that one, or register one with @tightlip.rule"
    return (
        f"{where}: build the network from nn.Sequential and modules with rules, "
        "or register one with @tightlip.rule(YourModule)"
    )


def original_type(module: nn.Module) -> type[nn.Module]:
    """The module's own class, seen through torch's parametrization wrapper when the map is one of ours."""
    if not parametrize.is_parametrized(module):
        return type(module)
    maps = [m for maps in module.parametrizations.values() for m in maps]  # type: ignore[union-attr, operator]
    foreign = [type(m).__name__ for m in maps if type(m) not in TRUSTED_PARAMETRIZATIONS]
    if foreign:
        raise TightlipError(
            f"the parametrization {foreign[0]} can give other weights at each call: "
            "make it permanent with torch.nn.utils.parametrize.remove_parametrizations before the audit"
        )
    return type(module).__bases__[0]  # torch derives its wrapper from the module's own class

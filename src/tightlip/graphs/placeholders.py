"""What a forward is called with to be traced: a placeholder that answers as a tensor does, or raises.

`hasattr(x, name)` is answered as of a tensor. What tensors differ in beside their values and shapes (their type,
device, gradient, …) is not answered: a table has no branches, so it could not say what the forward does with another
tensor. To `isinstance` it is no tensor, since torch would then read memory that is not there; what a forward makes of
that shows on real inputs (`agreement.py`).
"""

import inspect
import operator
import types
from typing import Any

import torch
from torch import fx, nn

from ..audit import Join, refuse_altered, registered
from ..audit.trust import original_type, refuse_hidden_code
from ..errors import TightlipError

_ANSWERED = {"shape", "ndim", "T", "mT", "H", "mH", "real", "imag", "data"}
"""Attributes that are shapes and values: they are lines of the trace, which have rules or not."""


def _is_question(name: str) -> bool:
    """Whether a tensor's attribute tells of it what is neither its values nor its shape."""
    found = inspect.getattr_static(torch.Tensor, name)
    return name not in _ANSWERED and isinstance(found, types.GetSetDescriptorType | property)


def _is_leaf(module: nn.Module) -> bool:
    """Whether the module is known, and so is all that it is made of."""
    known = registered().get(original_type(module))
    if known is None:
        return type(module).__module__.startswith("torch.nn.modules") and type(module) is not nn.ModuleList
    inside = known.expand(module) if known.expand is not None else ()
    return all(isinstance(part.operation, Join) or _is_leaf(part.operation) for part in inside)


def _in_place(function: Any) -> Any:
    def recorded(value: fx.Proxy, other: Any) -> fx.Proxy:
        return value.tracer.create_proxy("call_function", function, (value, other), {})

    return recorded


class _InPlace:
    """What tensors do in place, and torch.fx would record as work on a copy: y *= 2 changes all that y is a view of."""

    __iadd__, __isub__, __imul__, __itruediv__ = map(
        _in_place, (operator.iadd, operator.isub, operator.imul, operator.itruediv)
    )
    __ifloordiv__, __imod__, __ipow__, __imatmul__ = map(
        _in_place, (operator.ifloordiv, operator.imod, operator.ipow, operator.imatmul)
    )
    __iand__, __ior__, __ixor__, __ilshift__, __irshift__ = map(
        _in_place, (operator.iand, operator.ior, operator.ixor, operator.ilshift, operator.irshift)
    )


class _Value(_InPlace, fx.Proxy):
    """A tensor of the trace."""

    def __getattr__(self, name: str) -> Any:
        if not hasattr(torch.Tensor, name):
            raise AttributeError(f"a tensor has no attribute {name!r}")
        if _is_question(name):
            raise TightlipError(f"it asks for the {name} of a tensor, and one table is for all tensors: do not ask")
        return _Attribute(self, name)


class _Attribute(_InPlace, fx.proxy.Attribute):
    """What is read of one, such as x.mT."""


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return _is_leaf(module)

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if _is_leaf(module):
            refuse_altered(module, self.path_of_module(module))
        else:
            refuse_hidden_code(module, f"{type(module).__name__} at {self.path_of_module(module)!r}")
        return super().call_module(module, forward, args, kwargs)


def followed(network: nn.Module) -> fx.Graph:
    """What torch.fx saw of one call of a network's forward; its text tells whether two calls did the same."""
    refuse_hidden_code(network, type(network).__name__)
    try:
        return _Tracer().trace(network)
    except TightlipError:
        raise
    except Exception as problem:  # a forward may raise whatever it likes
        raise TightlipError(_reason(problem)) from problem


def _reason(problem: Exception) -> str:
    said = (str(problem).splitlines() or [""])[0]
    if isinstance(problem, fx.proxy.TraceError) and "control flow" in said:
        return (
            "it branches on the values or sizes of its input, so no one constant describes it: write what it does as "
            "layers and functions that have rules, such as torch.relu or torch.clamp"
        )
    if isinstance(problem, AssertionError):
        said = said or "it asserts what does not hold of the placeholder that it is traced with"
    return f"it cannot be traced ({': '.join(filter(None, (type(problem).__name__, said))):.120})"

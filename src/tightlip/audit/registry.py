"""The registry of rules: one registration per *exact* module type.

A rule states a theorem about one type. Inheritance would be unsound: a subclass may compute anything.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from torch import nn

from ..errors import TightlipError
from ..options import Kind
from .affine import Affine
from .gains import Gains

_Rule = Callable[..., Gains]


class Part(NamedTuple):
    """What a container does next: which of its parts, at which key, with which of the values so far.

    Value 0 is the container's input, value i what part i − 1 makes; the last one is the container's output.
    """

    key: str
    operation: Any
    inputs: tuple[int, ...]


class Registration(NamedTuple):
    """What is known of a module type: the forward that is spoken of, its rule or its parts, and how files keep it.

    ``affine`` states what its linear part is, where the type is an affine map.
    """

    forward: Callable[..., Any]
    rule: _Rule | None
    expand: Callable[[Any], Sequence[Part]] | None
    options: Mapping[str, Kind] | None
    build: Callable[..., nn.Module]
    affine: Callable[[Any], Affine | None] | None = None
    reshapes: bool = False


_PACKAGE = __name__.partition(".")[0]
_KNOWN: dict[type[nn.Module], Registration] = {}


def rule(
    *types: type[nn.Module],
    options: Mapping[str, Kind] | None = None,
    build: Callable[..., nn.Module] | None = None,
    affine: Callable[[Any], Affine | None] | None = None,
    reshapes: bool = False,
) -> Callable[[_Rule], _Rule]:
    """Register the function below as the Lipschitz rule of exactly these module types (never of their subclasses).

    The rule takes the module and returns its `Gains`. It states a theorem: whoever writes it vouches for it. If
    it has a parameter ``name``, it is told the module's place, to audit what is inside as ``within(name, "inner")``.
    A module that does nothing but pass values through the modules inside is a `container` instead.

    Args:
        types: Module classes, each with a forward of its own or an inherited one.
        options: The arguments that a file keeps, each an attribute of the module, with their kinds
            (`tightlip.options`); None: the types cannot be saved.
        build: Makes the module again from these arguments, on torch's meta device: parameters and buffers have shapes
            only, and get their values from the file. Default: the type itself.
        affine: For a map x ↦ Ax + b what A is (`tightlip.audit.affine`), so that neighbors are multiplied out; None, or
            a function that returns None: not stated, and nothing is merged with it.
        reshapes: Whether values (batch, features) may get another number of axes.

    >>> from tightlip import Gains, lipschitz
    >>> class Halve(nn.Module):
    ...     def forward(self, x): return x / 2
    >>> @rule(Halve)
    ... def _(module): return Gains.constant(0.5)
    >>> lipschitz(Halve(), 2).constant
    0.5
    """

    def register(function: _Rule) -> _Rule:
        if not function.__module__.startswith(_PACKAGE + "."):
            registered()  # so that a rule of a caller's takes the place of ours, and not the other way round
        for cls in types:
            _KNOWN[cls] = Registration(cls.forward, function, None, options, build or cls, affine, reshapes)
        return function

    return register


def container(
    kind: type[nn.Module], build: Callable[..., nn.Module], options: Mapping[str, Kind] | None = None
) -> Callable[[Callable[[Any], Sequence[Part]]], Callable[[Any], Sequence[Part]]]:
    """Register the function below as what exactly this module type does with the modules inside: its `Part`s.

    Args:
        kind: The type of module.
        build: Makes it again from the modules inside, by their keys, and from ``options``.
        options: What else a file keeps of it.
    """

    def register(function: Callable[[Any], Sequence[Part]]) -> Callable[[Any], Sequence[Part]]:
        def parts(module: Any) -> Sequence[Part]:
            made = function(module)
            for part in made:
                if part.operation is None:
                    raise TightlipError(f"{kind.__name__} holds None at {part.key!r}: put a layer there, or remove it")
            return made

        _KNOWN[kind] = Registration(kind.forward, None, parts, options or {}, build)
        return function

    return register


def registered() -> Mapping[type[nn.Module], Registration]:
    """Every module type that is known, by a rule or by its parts, whichever part of the package was imported first."""
    import_module(f"{_PACKAGE}.public")  # by its name: the files above register their rules here
    return _KNOWN

"""The architecture of a network as JSON has it, and the network that such a description speaks of.

A description is a nested list of [type, options], or [type, options, modules inside]; the options of a type are
registered with its rule. It is checked before it is believed: each option is of its kind, the network is made on
torch's meta device, which has shapes and no numbers, and the rule of each module without weights accepts its options.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .audit import Registration, registered
from .errors import TightlipError
from .options import plain

DEEPEST = 64
"""Modules within modules: no network needs more, and Python's stack holds no thousand."""

_FAULTS = (
    TightlipError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    AttributeError,
)
"""What constructors raise for options that they cannot take."""


def outline_of(module: nn.Module, depth: int = 0) -> list[Any]:
    """The description of a network as JSON has it."""
    if depth > DEEPEST:
        raise TightlipError(f"modules are nested more than {DEEPEST} deep: open some of the nn.Sequentials")
    kind, known = type(module), registered().get(type(module))
    if known is None or known.options is None:
        advice = "its state_dict" if known is None else "its state_dict, or give options= to its rule"
        raise TightlipError(f"a {kind.__name__} cannot be written to a file: save {advice}")
    options = {name: _read(module, name) for name in known.options}
    _check_options(_name(kind), known, options)
    if known.expand is None:
        return [_name(kind), options]
    modules = [[key, outline_of(child, depth + 1)] for key, child in module._modules.items()]  # type: ignore[arg-type]
    return [_name(kind), options, modules]


def _read(module: nn.Module, name: str) -> Any:
    """An option of a module; a bias becomes whether there is one."""
    value = getattr(module, name)
    return value is not None if name == "bias" else plain(value)


def _name(kind: type[nn.Module]) -> str:
    """A type in files: in a word if it is torch's or ours, else in full."""
    own = kind.__module__.startswith(("torch.nn.", "tightlip."))
    return kind.__name__ if own else f"{kind.__module__}.{kind.__qualname__}"


def _check_options(name: str, known: Registration, options: Mapping[str, Any]) -> None:
    for option, kind in (known.options or {}).items():
        if not kind.holds(options[option]):
            value = " ".join(f"{options[option]!r:.60}".split())
            raise TightlipError(f"{name} has {option}={value}: give {kind.words}")


def network_of(outline: Any) -> nn.Module:
    """The network of an outline on the meta device, in eval mode, each module without weights accepted by its rule.

    Raises:
        TightlipError: whatever is wrong with it.
    """
    types = {_name(kind): known for kind, known in registered().items() if known.options is not None}
    with torch.device("meta"):
        network = _build(outline, types).eval()
    for module in network.modules():
        if module._non_persistent_buffers_set:
            raise TightlipError(f"{type(module).__name__} has buffers that are not in its state_dict, nor in any file")
        known = registered().get(type(module))
        if known and known.rule and not module._parameters and not module._buffers and not module._modules:
            known.rule(module)
    return network


def _build(outline: Any, types: Mapping[str, Registration], depth: int = 0) -> nn.Module:
    if depth > DEEPEST:
        raise TightlipError(f"modules are nested more than {DEEPEST} deep")
    if not isinstance(outline, list) or len(outline) not in (2, 3) or not isinstance(outline[0], str):
        raise TightlipError(f"{outline!r:.60} is not a type and its options")
    name, options = outline[:2]
    if name not in types:
        raise TightlipError(f"no module called {name!r:.60} has a rule and options: import what registers it")
    known = types[name]
    if not isinstance(options, dict) or options.keys() != known.options.keys():  # type: ignore[union-attr]
        raise TightlipError(f"{name} has the options {', '.join(known.options or ()) or 'none'}, not {options!r:.60}")
    _check_options(name, known, options)
    if (known.expand is None) != (len(outline) == 2):
        raise TightlipError(f"{name} has modules inside if it is a container, and only then")
    inside = {"modules": OrderedDict(_children(outline[2], types, depth))} if known.expand else {}
    return _made(name, known.build, options, inside)


def _children(options: Any, types: Mapping[str, Registration], depth: int) -> Iterable[tuple[str, nn.Module]]:
    if not isinstance(options, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in options):
        raise TightlipError(f"{options!r:.60} is not a list of names and modules")
    keys = [key for key, _ in options]
    empty = nn.Sequential()
    if not all(isinstance(key, str) and key and "." not in key and not hasattr(empty, key) for key in keys):
        raise TightlipError("a container has a module whose name cannot be one")
    if len(set(keys)) < len(keys):
        raise TightlipError("a container has two modules of one name")
    return [(key, _build(child, types, depth + 1)) for key, child in options]


def _made(
    name: str, build: Callable[..., nn.Module], options: Mapping[str, Any], inside: Mapping[str, Any]
) -> nn.Module:
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return build(**inside, **arguments)
    except _FAULTS as problem:
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise TightlipError(f"{name} cannot be made from {options!r:.60}: {reason:.120}") from problem


def from_format_1(outline: Any, depth: int = 0) -> Any:
    """The same description as format 2 has it; what is damaged stays as it is."""
    if not isinstance(outline, list) or len(outline) != 2 or depth > DEEPEST:
        return outline
    kind, inside = outline
    if kind == "Residual":
        return [kind, {}, [["f", from_format_1(inside, depth + 1)]]]
    if kind == "Sequential" and isinstance(inside, list) and all(isinstance(i, list) and len(i) == 2 for i in inside):
        return [kind, {}, [[key, from_format_1(child, depth + 1)] for key, child in inside]]
    return outline

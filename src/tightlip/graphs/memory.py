"""All that a forward can remember from one call to the next: what is reached from a network, as plain values.

Attributes of modules and objects, slots, containers, arrays, tensors, iterators, generators of random numbers, and of
the user's own functions and classes what they name: globals, closures, defaults, attributes of the class. Two walks
are compared; where they differ, the next call may do something else than the one that was traced.

More than `MOST` objects are not walked through: such a network is refused. What torch, NumPy and the standard library
keep for themselves (caches, open files) is not looked into, nor is what a function reaches by a computed name.
"""

import collections
import contextlib
import functools
import operator
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import TightlipError

MOST = 100_000
"""Objects that are looked at."""

_SUMMED = 2**18
"""Entries of a tensor or array up to which its bytes are kept; of larger ones, sums."""

_OTHERS = {
    "torch",
    "numpy",
    "tightlip",
    "jaxtyping",
    "beartype",
    "scipy",
    "pytest",
    "_pytest",
} | sys.stdlib_module_names
"""Packages whose functions and objects are theirs."""

_PLAIN = (int, float, complex, str, bytes, bool, type(None))
_OPENED = {"types", "argparse", "queue", "functools", "collections", "dataclasses"}
"""Parts of the standard library whose objects hold what a user puts there."""

Found = Iterator[tuple[str, Any]]


def remembered(network: nn.Module) -> dict[str, Any]:
    """What is reached from a network, each by how it is reached.

    Raises:
        TightlipError: for more than `MOST` objects.
    """
    known: dict[str, Any] = {}
    seen: set[int] = set()
    kept: list[Any] = []  # or the next object might have the number of one that is gone
    todo: list[tuple[str, Any]] = [("", network)]
    while todo:
        place, value = todo.pop()
        known[place] = _itself(value)
        if isinstance(value, _PLAIN) or id(value) in seen:
            continue
        seen.add(id(value))
        kept.append(value)
        if len(kept) > MOST:
            raise TightlipError(
                f"it reaches more than {MOST:,} objects that a call may change: give a module that holds no data"
            )
        todo += [(f"{place}{key}", inner) for key, inner in _inside(value)][::-1]
    return known


def changed(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """Where two walks differ; None if they do not."""
    places = (place for place in before | after if before.get(place, _inside) != after.get(place, _inside))
    found = next(iter(sorted(places, key=len)), None)
    return found if found is None else found.removeprefix(".__class__").removeprefix(".") or "itself"


def _itself(value: Any) -> Any:
    """What is compared of an object beside what is inside of it."""
    for kinds, describe in _DESCRIBED.items():
        if isinstance(value, kinds):
            return describe(value)
    if hasattr(type(value), "__next__"):
        return _text(_reduced(value))
    return type(value) if _is_open(value) else _text(value)


def _text(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # of whoever wrote it
        return f"{type(value)} {id(value)}"


def _reduced(iterator: Any) -> Any:
    """How far it is: what pickle would keep, or how much is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return iterator.__reduce__()
        except Exception:  # noqa: BLE001
            return operator.length_hint(iterator, -1)


def _tensor(value: torch.Tensor) -> Any:
    version = None if value.is_inference() else value._version
    try:
        return version, value.shape, value.dtype, _entries(value.detach())
    except Exception:  # noqa: BLE001  # of tensors without entries, or of other kinds
        return version, id(value)


def _entries(value: torch.Tensor) -> Any:
    if value.is_meta:
        return None
    if value.numel() <= _SUMMED:
        return value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return repr([float(value.sum(dtype=torch.float64)), float(value.abs().sum(dtype=torch.float64))])


def _array(value: np.ndarray) -> Any:
    return value.shape, value.dtype.str, _text(value.tolist()) if value.dtype.hasobject else hash(value.tobytes())


def _bits(value: Any) -> str:
    """Where one of NumPy's generators is."""
    return str(value.bit_generator.state if isinstance(value, np.random.Generator) else value.get_state())


_DESCRIBED: dict[Any, Callable[[Any], Any]] = {
    (float, complex): repr,  # nan is not itself
    _PLAIN: lambda value: (type(value), value),
    torch.Tensor: _tensor,
    np.ndarray: _array,
    torch.Generator: lambda value: value.get_state().numpy().tobytes(),
    random.Random: lambda value: hash(value.getstate()),
    (np.random.Generator, np.random.RandomState): _bits,
    types.GeneratorType: lambda value: value.gi_frame and value.gi_frame.f_lasti,
    (bytearray, memoryview): bytes,
    (dict, list, tuple, collections.deque): lambda value: (type(value), len(value)),
    (set, frozenset): lambda value: sorted(map(_text, value)),
    nn.Module: type,
    (types.FunctionType, types.MethodType, type, types.ModuleType): id,
}


def _inside(value: Any) -> Found:
    if isinstance(value, dict):
        yield from ((f"[{_text(key):.40}]", inner) for key, inner in list(value.items()))
    elif isinstance(value, list | tuple | collections.deque):
        if not all(type(inner) in _PLAIN for inner in value):
            yield from ((f"[{number}]", inner) for number, inner in enumerate(value))
        else:
            yield "[…]", str(list(value)) if len(value) < 100 else repr(hash(tuple(value)))
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, types.MethodType):
        yield from ((".__self__", value.__self__), (".__func__", value.__func__))
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, type):
        yield from _of_class(value)
    elif isinstance(value, types.GeneratorType):
        yield ".locals", dict(value.gi_frame.f_locals) if value.gi_frame else {}
    elif isinstance(value, property):
        yield from ((".get", value.fget), (".set", value.fset))
    elif isinstance(value, staticmethod | classmethod):
        yield "", value.__func__
    elif not isinstance(value, torch.Tensor | np.ndarray) and _is_open(value):
        yield from _of_object(value)


def _is_others(owner: Any) -> bool:
    return str(getattr(owner, "__module__", None) or "builtins").partition(".")[0] in _OTHERS


def _is_open(value: Any) -> bool:
    """Whether an object holds what the user put there."""
    kind = type(value)
    return isinstance(value, nn.Module) or not _is_others(kind) or kind.__module__ in _OPENED


def _of_object(value: Any) -> Found:
    for key, inner in list(getattr(value, "__dict__", {}).items()):
        if key != "training" and not key.startswith("_tensor_constant"):  # tracing sets those
            yield f".{key}", inner
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for key in [slots] if isinstance(slots, str) else slots:
            with contextlib.suppress(AttributeError):  # one that is not set
                yield f".{key}", object.__getattribute__(value, key)
    yield ".__class__", type(value)


def _of_class(kind: type) -> Found:
    for owner in kind.__mro__:
        if not _is_others(owner):
            for key, inner in list(vars(owner).items()):
                if key not in ("__init__", "__dict__", "__weakref__", "__doc__", "__annotations__"):
                    yield f".{key}", inner


def _of_function(function: types.FunctionType) -> Found:
    """What a function of the user's own names: closures, defaults, globals, and attributes of modules."""
    if _is_others(function):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        with contextlib.suppress(ValueError):  # an empty one
            yield f": {name}", cell.cell_contents
    yield ".__defaults__", function.__defaults__
    yield ".__kwdefaults__", function.__kwdefaults__
    yield ".__dict__", function.__dict__
    names = _named(function.__code__)
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        yield f": {name}", value
        if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] not in _OTHERS:
            yield from ((f": {name}.{key}", vars(value)[key]) for key in sorted(names & vars(value).keys()))


def _named(code: types.CodeType) -> set[str]:
    """Names in a piece of code and in what is defined inside of it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_named, inner))

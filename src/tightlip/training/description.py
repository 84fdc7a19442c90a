"""A value in words that are the same in another process, so that no run resumes under another loss.

Functions of installed packages and of this library are their names. One's own are their names, their bytecode and the
values that they refer to: defaults, closures, globals, and what they read of modules of one's own. Objects are their
class, with its attributes, and the state that pickle would keep. What has no such description, such as an open file,
needs a tag of the caller's. With a tag, functions and classes that no import reaches are not looked into.
"""

import contextlib
import copy
import copyreg
import enum
import functools
import hashlib
import pickle
import re
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TightlipError
from .bytecode import globals_of, imports, is_importable, is_installed, is_known, names_of

PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, enum.Enum, Path, torch.dtype, torch.device)

SINGLETONS = (Ellipsis, NotImplemented)

MEMBERS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
"""What classes written in C, and slots, are made of: known by their names."""

MADE = re.compile(
    "__(dict|weakref|doc|module|qualname|name|slotnames|orig_bases|parameters|annotations|annotate|annotate_func|"
    "annotations_cache|firstlineno|static_attributes|abstractmethods|match_args|dataclass_fields|dataclass_params)__|"
    "_abc_impl|_backward_cls"
)
"""Attributes of a class that Python or torch makes, and that say nothing that the others do not."""

CACHED = type(functools.lru_cache(lambda: None))

TORCHS = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
"""Attributes that every module has."""


def digest(tensor: Tensor) -> str:
    """A hash of dtype, shape and bytes."""
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def hooks(module: nn.Module) -> list[Any]:
    """What a module calls before and after its forward."""
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


def attributes(module: nn.Module) -> dict[str, Any]:
    """Of a module, those that are neither weights nor torch's own."""
    if type(module).__module__.startswith("torch._dynamo."):  # how it was compiled is no part of what it computes
        return {}
    return {name: value for name, value in vars(module).items() if name not in TORCHS}


class Describer:
    """One walk through a value.

    Args:
        name: What to call the value in errors.
        network: The one that is trained, which may be referred to and whose weights do not count.
        tag: Stands for what has no description.
        moved: Generators of random numbers that are put back where they were by other means, known by their seeds.
    """

    def __init__(
        self, name: str, network: nn.Module | None, tag: str | None, moved: Iterable[torch.Generator] = ()
    ) -> None:
        self.name, self.tag = name, tag
        parts = () if network is None else (*network.modules(), *network.parameters(), *network.buffers())
        self.trained = {id(part) for part in parts}
        self.moved = {id(generator) for generator in moved}
        self.met: dict[Any, tuple[int, Any]] = {}  # holds what it has met, so that no id is used twice

    def words(self, thing: Any, read: frozenset[str] | None = None) -> Iterator[str]:
        """Piece by piece; of a module of one's own only the names that are ``read``, if they are known."""
        if isinstance(thing, PLAIN) or any(thing is known for known in SINGLETONS):
            yield f"{type(thing).__name__}:{thing!r};"
        elif id(thing) in self.trained:
            yield "of the network;"
        elif isinstance(thing, types.ModuleType):
            yield from self._module(thing, read)
        elif id(thing) in self.met:
            yield f"as number {self.met[id(thing)][0]};"
        else:
            if type(thing) is not tuple:  # equal ones are the same object or not as the interpreter likes
                self.met[id(thing)] = len(self.met), thing
            yield from self._compound(thing)

    def _afresh(self) -> "Describer":
        """For a member of a set, whose number must not depend on the order in which sets are read."""
        other = copy.copy(self)
        other.met = dict(self.met)
        return other

    def _compound(self, thing: Any) -> Iterator[str]:
        if isinstance(thing, Tensor):
            yield f"tensor {digest(thing)};"
        elif isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
            yield f"array {thing.dtype} {thing.shape} {hashlib.sha256(thing.tobytes()).hexdigest()};"
        elif isinstance(thing, torch.Generator) and id(thing) in self.moved:
            yield f"generator {thing.device} of seed {thing.initial_seed()};"
        elif isinstance(thing, nn.Module):
            yield "module "
            yield from self.words((type(thing), attributes(thing)))
            yield from self.words((thing._parameters, thing._buffers, thing._modules))
            yield from self.words(hooks(thing))
        elif type(thing) in (tuple, list):
            yield f"{type(thing).__name__} of {len(thing)}:"
            for member in thing:
                yield from self.words(member)
        elif type(thing) in (set, frozenset):
            yield from self.words(sorted("".join(self._afresh().words(member)) for member in thing))
        elif type(thing) in (dict, types.MappingProxyType):
            yield from self.words([(key, value) for key, value in thing.items()])
        elif isinstance(thing, functools.partial):
            yield "partial "
            yield from self.words((type(thing), thing.func, thing.args, thing.keywords, vars(thing)))
        else:
            yield from self._named(thing)

    def _named(self, thing: Any) -> Iterator[str]:
        if isinstance(thing, types.MethodType):
            yield f"method {thing.__func__.__qualname__} of "
            yield from self.words((thing.__self__, thing.__func__))
        elif isinstance(thing, types.BuiltinFunctionType):
            yield f"{thing.__qualname__} of "
            yield from self.words(thing.__self__)
        elif isinstance(thing, MEMBERS):
            yield f"{thing.__objclass__.__qualname__}.{thing.__name__};"
        elif isinstance(thing, staticmethod | classmethod):
            yield f"{type(thing).__name__} "
            yield from self.words(thing.__func__)
        elif isinstance(thing, property):
            yield from self.words((thing.fget, thing.fset, thing.fdel))
        elif isinstance(thing, functools.cached_property):
            yield from self.words((type(thing), thing.func))
        elif isinstance(thing, CACHED):  # of which pickle would keep the name
            yield from self.words((type(thing), vars(thing)))
        elif isinstance(thing, type | types.FunctionType):
            if self.tag is not None and not is_importable(thing):
                yield self._by_tag(thing.__qualname__)
            else:
                yield f"{thing.__module__}.{thing.__qualname__};"
                yield from () if is_installed(thing) else self._own(thing)
        else:
            yield from self._object(thing)

    def _own(self, thing: Any) -> Iterator[str]:
        """What a function or class of the caller's stands for, which may be something else tomorrow."""
        if isinstance(thing, types.FunctionType):
            yield from self._function(thing)
        else:
            yield from self.words((type(thing), thing.__bases__))
            for name, member in vars(thing).items():
                if not MADE.fullmatch(name):
                    yield from self.words((name, member))

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        kept = vars(function)
        if "_torchdynamo_orig_callable" in kept:
            yield from self.words(("compiled", kept["_torchdynamo_orig_callable"]))
            return
        if {"dispatch", "registry"} <= kept.keys():  # functools.singledispatch, which remembers its last calls
            yield from self.words(kept["registry"])
            return
        code = function.__code__
        read = frozenset(names_of(code))
        yield from self._code(code)
        yield from self.words((function.__defaults__, function.__kwdefaults__, kept))
        held: list[Any] = []
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # of a name that is not set yet
                held.append(cell.cell_contents)
        for value in held:
            yield from self.words(value, read)
        for name in globals_of(code):
            if name in function.__globals__:
                yield f"{name}="
                yield from self.words(function.__globals__[name], read)
        for module in imports(code, function.__globals__):
            yield from self.words(module, read)

    def _code(self, code: types.CodeType) -> Iterator[str]:
        yield f"code {code.co_code.hex()} {code.co_exceptiontable.hex()} {code.co_names};"
        for constant in code.co_consts:
            yield from self._code(constant) if isinstance(constant, types.CodeType) else self.words(constant)

    def _module(self, module: types.ModuleType, read: frozenset[str] | None) -> Iterator[str]:
        """Its name, and what is read of it where it may be another tomorrow."""
        yield f"{module.__name__};"
        if is_known(module.__name__):
            return
        names = sorted(name for name in vars(module) if not name.startswith("__")) if read is None else sorted(read)
        for name in names:
            if name in vars(module) and (id(module), name) not in self.met:
                self.met[id(module), name] = len(self.met), module
                yield f"{name}="
                yield from self.words(vars(module)[name], read)

    def _object(self, thing: Any) -> Iterator[str]:
        """Its class, and what pickle would keep of it."""
        yield "object "
        yield from self.words(type(thing))
        try:
            reduce = copyreg.dispatch_table.get(type(thing))
            kept = reduce(thing) if reduce is not None else thing.__reduce_ex__(4)
        except Exception as problem:
            if self.tag is None:
                raise self._unknown(f"a {type(thing).__name__}") from problem
            yield self._by_tag(type(thing).__name__)
            return
        if isinstance(kept, str):
            yield self._global(thing, kept)
        else:
            yield from self.words([list(part) if isinstance(part, Iterator) else part for part in kept])

    def _global(self, thing: Any, name: str) -> str:
        """What pickle finds by a name, if a module of an installed package has it."""
        module = pickle.whichmodule(thing, name)  # type: ignore[attr-defined]
        found = functools.reduce(lambda at, part: getattr(at, part, None), name.split("."), sys.modules.get(module))
        if found is thing and is_known(module):
            return f"{module}.{name};"
        if self.tag is None:
            raise self._unknown(f"{name}, a {type(thing).__name__},")
        return self._by_tag(name)

    def _by_tag(self, what: str) -> str:
        return f"{what} by the tag {self.tag!r};"

    def _unknown(self, what: str) -> TightlipError:
        return TightlipError(
            f"a checkpoint must tell {self.name} from others, and {what} in it has no stable description: give "
            "tag='…', a name of yours that you change with it"
        )

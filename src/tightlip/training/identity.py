"""What a callable is, in words that are the same in another process, so that no run resumes under another loss.

Functions of installed packages and of this library are their names. One's own are their names, their bytecode and the
values that they refer to: defaults, closures, globals. Objects are their class and the state that pickle would keep.
What has no such description, such as an open file, needs a tag of the caller's. With a tag, functions and classes that
no import reaches are not looked into.
"""

import dis
import enum
import functools
import hashlib
import re
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..constraints import constraint_of
from ..errors import TightlipError

PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, enum.Enum, Path, torch.dtype, torch.device)

INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})
"""Folders of packages that are known by name."""


def identity(thing: Any, name: str, network: nn.Module | None = None, tag: str | None = None) -> str:
    """A description of ``thing``, hashed where it is long.

    Args:
        thing: Any value.
        name: What to call it in errors.
        network: The one that is trained, which may be referred to and whose weights do not count.
        tag: Stands for what has no description.

    Raises:
        TightlipError: if there is no description and no tag.
    """
    words = "".join(_Describer(name, network, tag).words(thing))
    return words if len(words) < 200 else f"{words[:100]}… {hashlib.sha256(words.encode()).hexdigest()}"


def structure(network: nn.Module, tag: str | None = None) -> str:
    """Layers, options, shapes, constraints and what trains: everything of a network but its numbers."""
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(network))
    shapes = [(name, tuple(value.shape), value.dtype) for name, value in network.state_dict().items()]
    held = [repr(constraint_of(module)) for module in network.modules()]
    trains = [name for name, weight in network.named_parameters() if weight.requires_grad]
    options = [(type(module), _options(module)) for module in network.modules()]
    return identity((text, shapes, held, trains, options), "the network", network, tag)


def digest(tensor: Tensor) -> str:
    """A hash of dtype, shape and bytes."""
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


class _Describer:
    """One walk through a value."""

    def __init__(self, name: str, network: nn.Module | None, tag: str | None) -> None:
        self.name, self.tag = name, tag
        parts = () if network is None else (*network.modules(), *network.parameters(), *network.buffers())
        self.trained = {id(part) for part in parts}
        self.met: dict[int, Any] = {}  # holds what it has met, so that no id is used twice

    def words(self, thing: Any) -> Iterator[str]:
        """Piece by piece."""
        if isinstance(thing, PLAIN):
            yield f"{type(thing).__name__}:{thing!r};"
        elif id(thing) in self.trained:
            yield "of the network;"
        elif id(thing) in self.met:
            yield "as before;"
        else:
            if type(thing) is not tuple:  # equal ones are the same object or not as the interpreter likes
                self.met[id(thing)] = thing
            yield from self._compound(thing)

    def _compound(self, thing: Any) -> Iterator[str]:
        if isinstance(thing, Tensor):
            yield f"tensor {digest(thing)};"
        elif isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
            yield f"array {thing.dtype} {thing.shape} {hashlib.sha256(thing.tobytes()).hexdigest()};"
        elif isinstance(thing, types.ModuleType):
            yield f"{thing.__name__};"
        elif isinstance(thing, nn.Module):
            yield "module "
            yield from self.words((type(thing), _options(thing)))
            yield from self.words((thing._parameters, thing._buffers, thing._modules))
        elif type(thing) in (tuple, list):
            yield f"{type(thing).__name__} of {len(thing)}:"
            for member in thing:
                yield from self.words(member)
        elif type(thing) in (set, frozenset):
            yield from self.words(sorted("".join(self.words(member)) for member in thing))
        elif type(thing) in (dict, types.MappingProxyType):
            yield from self.words([(key, value) for key, value in thing.items()])
        elif isinstance(thing, functools.partial):
            yield "partial "
            yield from self.words((thing.func, thing.args, thing.keywords))
        else:
            yield from self._named(thing)

    def _named(self, thing: Any) -> Iterator[str]:
        if isinstance(thing, types.MethodType):
            yield f"method {thing.__func__.__qualname__} of "
            yield from self.words((thing.__self__, thing.__func__))
        elif isinstance(thing, types.BuiltinFunctionType):
            yield f"{thing.__qualname__} of "
            yield from self.words(thing.__self__)
        elif isinstance(thing, types.MethodDescriptorType):
            yield f"{thing.__objclass__}.{thing.__name__};"
        elif isinstance(thing, staticmethod | classmethod):
            yield from self.words(thing.__func__)
        elif isinstance(thing, property):
            yield from self.words((thing.fget, thing.fset))
        elif isinstance(thing, type | types.FunctionType):
            if self.tag is not None and not _is_importable(thing):
                yield self._by_tag(thing.__qualname__)
            else:
                yield f"{thing.__module__}.{thing.__qualname__};"
                yield from () if _is_installed(thing) else self._own(thing)
        else:
            yield "object "
            yield from self.words((type(thing), self._state(thing)))

    def _own(self, thing: Any) -> Iterator[str]:
        """What a function or class of the caller's stands for, which may be something else tomorrow."""
        if isinstance(thing, types.FunctionType):
            yield from self._code(thing.__code__)
            yield from self.words((thing.__defaults__, thing.__kwdefaults__))
            for cell in thing.__closure__ or ():
                yield from self.words(cell.cell_contents)
            for name in _globals(thing.__code__):
                if name in thing.__globals__:
                    yield from self.words((name, thing.__globals__[name]))
        else:
            yield from self.words(thing.__bases__)
            for name, member in vars(thing).items():
                functions = (types.FunctionType, staticmethod, classmethod, property)
                if isinstance(member, functions) or (isinstance(member, PLAIN) and not name.startswith("__")):
                    yield from self.words((name, member))

    def _code(self, code: types.CodeType) -> Iterator[str]:
        yield f"code {code.co_code.hex()} {code.co_names};"
        for constant in code.co_consts:
            yield from self._code(constant) if isinstance(constant, types.CodeType) else self.words(constant)

    def _state(self, thing: Any) -> Any:
        """What pickle would keep of an object."""
        try:
            kept = thing.__reduce_ex__(4)
        except Exception as problem:
            if self.tag is None:
                raise self._unknown(f"a {type(thing).__name__}") from problem
            return self._by_tag(type(thing).__name__)
        return kept if isinstance(kept, str) else [list(part) if isinstance(part, Iterator) else part for part in kept]

    def _by_tag(self, what: str) -> str:
        return f"{what} by the tag {self.tag!r};"

    def _unknown(self, what: str) -> TightlipError:
        return TightlipError(
            f"a checkpoint must tell {self.name} from others, and {what} in it has no stable description: give "
            "tag='…', a name of yours that you change with it"
        )


def _options(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module that are neither weights nor torch's own."""
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}


def _is_importable(thing: Any) -> bool:
    """Whether an import reaches it by its name; what a script or notebook defines, none does."""
    found: Any = sys.modules.get(thing.__module__ or "")
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing and thing.__module__ != "__main__"


def _is_installed(thing: Any) -> bool:
    """Whether it belongs to Python, an installed package or this library, and so to a version."""
    if not _is_importable(thing):
        return False
    if thing.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules[thing.__module__], "__file__", None)
    return file is None or file.startswith(INSTALLED)


def _globals(code: types.CodeType) -> list[str]:
    """The global names that a function and those inside it load."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return sorted(own.union(*map(_globals, inner)))

"""To whom a function or class belongs, and what a function reads, by its bytecode."""

import contextlib
import dis
import importlib.util
import os
import site
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def _folders(path: Iterable[str]) -> tuple[str, ...]:
    """Of packages that are known by name: those of the interpreter, and others on its path that pip has filled."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = {sysconfig.get_paths()[name] for name in names} | {*site.getsitepackages(), site.getusersitepackages()}
    found |= {folder for folder in filter(None, path) if next(Path(folder).glob("*.dist-info"), None)}
    return tuple(f"{path}{os.sep}" for folder in map(Path, found) for path in {folder, folder.resolve()})


INSTALLED = _folders(sys.path)


def is_importable(thing: Any) -> bool:
    """Whether an import reaches it by its name; what a script or notebook defines, none does."""
    found: Any = sys.modules.get(thing.__module__ or "")
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing and thing.__module__ != "__main__"


def is_installed(thing: Any) -> bool:
    """Whether it belongs to Python, an installed package or this library, and so to a version."""
    return is_importable(thing) and is_known(thing.__module__)


def is_known(module: str) -> bool:
    """Whether a module is Python's, an installed package's or this library's."""
    top = module.partition(".")[0]
    if top in (__name__.partition(".")[0], *sys.builtin_module_names):
        return True
    files = (getattr(sys.modules.get(name), "__file__", None) for name in (module, top))
    file = next(filter(None, files), None)
    return top in sys.stdlib_module_names if file is None else file.startswith(INSTALLED)


def _instructions(code: types.CodeType, names: Iterable[str]) -> Iterator[dis.Instruction]:
    """Of a function and those inside it."""
    yield from (i for i in dis.get_instructions(code) if i.opname in names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant, names)


def globals_of(code: types.CodeType) -> list[str]:
    """The global names that a function and those inside it load."""
    return sorted({i.argval for i in _instructions(code, ("LOAD_GLOBAL", "LOAD_NAME"))})


def names_of(code: types.CodeType) -> Iterator[str]:
    """Every name that a function and those inside it read, also of other objects."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_of(constant)


def imports(code: types.CodeType, names: dict[str, Any]) -> list[types.ModuleType]:
    """The modules that a function and those inside it import when they are called, if they are there."""
    asked, constants = set(), [0, 0]
    for instruction in _instructions(code, ("LOAD_CONST", "LOAD_SMALL_INT", "IMPORT_NAME")):
        if instruction.opname != "IMPORT_NAME":
            constants.append(instruction.argval)
            continue
        level = constants[-2]  # before the names that are wanted
        name = "." * level + instruction.argval if isinstance(level, int) else instruction.argval
        with contextlib.suppress(ImportError):
            name = importlib.util.resolve_name(name, names.get("__package__"))
        asked |= {name, name.partition(".")[0]}
    return [sys.modules[name] for name in sorted(asked) if name in sys.modules]

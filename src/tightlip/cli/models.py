"""What MODEL means on the command line: a file, a folder of a run, an exported program, or an importable network."""

import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..bridges.exported import load_exported
from ..errors import TightlipError
from ..linkage import check_model, written_about
from ..serialization import load
from .origin import origin_of
from .places import model_meant

_IMPORTABLE = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)")


@dataclass(frozen=True)
class Found:
    """A network in eval mode, its name, its file if it has one, and the norm that its run was trained for."""

    network: nn.Module
    name: str
    file: Path | None = None
    norm: str = "2"


def found(model: str) -> Found:
    """The network that is meant.

    Raises:
        TightlipError: where there is none, or what is there cannot be read without running it.
    """
    importable = _IMPORTABLE.fullmatch(model)
    if importable is not None and not Path(model).exists():
        return Found(_imported(importable[1], importable[2]).eval(), model)
    path = Path(model)
    if path.suffix == ".pt2" and path.is_file():
        return Found(load_exported(path), path.name, path)
    path = model_meant(path)
    written = written_about(path)
    check_model(path.parent, written)
    network, origin = load(path), origin_of(path, written)
    return Found(network, path.name, path, "2" if origin is None else origin.norm)


def _imported(module: str, attribute: str) -> nn.Module:
    """A network in an importable module, or what a function there makes; the working folder is looked in first."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        thing: Any = _run(f"{module} cannot be imported", lambda: importlib.import_module(module))
        for name in attribute.split("."):
            if not hasattr(thing, name):
                raise TightlipError(f"{module} has no {attribute}: give the name of a network or a function there")
            thing = getattr(thing, name)
        if callable(thing) and not isinstance(thing, nn.Module):
            thing = _run(f"{module}:{attribute} cannot be called without arguments", thing)
    finally:
        if here in sys.path:
            sys.path.remove(here)
    if not isinstance(thing, nn.Module):
        raise TightlipError(f"{module}:{attribute} is a {type(thing).__name__}: give an nn.Module, or what makes one")
    return thing


def _run(words: str, code: Callable[[], Any]) -> Any:
    """What code of the user's own makes."""
    try:
        return code()
    except Exception as problem:
        reason = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise TightlipError(f"{words} ({reason:.200})") from problem

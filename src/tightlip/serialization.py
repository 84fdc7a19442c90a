"""One file per network: safetensors weights plus a versioned description of the architecture. No pickle, no code.

The description is a nested list of [type, options], or [type, options, modules inside]; the options of a type are
registered with its rule. What is read
is checked before it is believed, and before anything of its size is made:

    JSON without repeated names and without numbers that are not finite
    → each option is of its kind → the network on torch's meta device, which has shapes and no numbers
    → the rule of each module without weights accepts its options
    → names, shapes and dtypes of the file's tensors are those of the network → the tensors
    → the network describes itself as the file did.

So a file is either the network that was saved or one sentence.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .atomic import replacing
from .audit import Registration, refuse_altered, registered
from .constraints import constraint_of
from .errors import TightlipError
from .graphs.tracing import as_graph
from .options import plain
from .torch_files import written_by_torch

FORMAT = 2
"""Format 1 had two containers, without options: ["Sequential", modules] and ["Residual", module]."""

DEEPEST = 64
"""Modules within modules: no network needs more, and Python's stack holds no thousand."""

_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
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


class _MismatchError(Exception):
    """A description and tensors that are not of one network."""


class _Stored(NamedTuple):
    """A tensor of a network, or of a file, without its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str


def save(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a frozen network to ``path`` (conventionally ``.safetensors``), atomically.

    Raises:
        TightlipError: if the network is still held by constraints, has a layer that files cannot describe, holds
            parameters of several dtypes, or could not be loaded again.
    """
    if not isinstance(network, nn.Module):
        raise TightlipError(f"save takes the network first and the path second, got a {type(network).__name__} first")
    if any(constraint_of(layer) is not None for layer in _parts(network)):
        raise TightlipError("this network is still held by constraints: save(freeze(network), path)")
    network = as_graph(network)
    outline = _outline(network)
    for module in _parts(network):
        refuse_altered(module)
    state = network.state_dict()
    if any(tensor.is_meta or tensor.layout != torch.strided for tensor in state.values()):
        raise TightlipError("the network holds meta or sparse tensors: fill them, or convert them to dense ones")
    expected = _shapes(_checked(outline))
    if different := [*(state.keys() ^ expected.keys())]:
        names = ", ".join(sorted(different))
        raise TightlipError(
            f"the network has tensors beside its layers' own, or lacks some ({names:.60}): restore them"
        )
    _compare(expected, {name: _Stored(tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()})
    description = json.dumps({"format": FORMAT, "network": outline}, allow_nan=False)
    weights = {name: value.detach().contiguous().clone() for name, value in state.items()}
    with replacing(Path(path)) as partial:
        save_file(weights, partial, metadata={"tightlip": description})


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The frozen network in ``path``, in eval mode, ready to audit and certify.

    Raises:
        TightlipError: if the file is absent, truncated, not written by `save`, or written by a newer version.
    """
    if not isinstance(path, str | os.PathLike):
        raise TightlipError(f"load takes the path of a file that save wrote, got a {type(path).__name__}")
    if Path(path).is_dir():
        raise TightlipError(f"{path} is a folder: give the file in it, such as {Path(path) / 'model.safetensors'}")
    if not Path(path).is_file():
        raise TightlipError(f"there is no file {path}: give the model.safetensors of a run")
    try:
        with safe_open(path, framework="pt") as file:
            outline, stored = _described(Path(path))
            network = _filled(outline, stored, file.get_tensor)
    except (SafetensorError, OSError) as error:
        if written_by_torch(Path(path)):
            raise TightlipError(
                f"{path} is a torch file (torch.save), and load reads what tightlip.save wrote: put its weights into a "
                "network with load_state_dict, and write that one with tightlip.save(freeze(network), path)"
            ) from error
        raise TightlipError(f"{path} is not a complete safetensors file: copy or train it again") from error
    except _MismatchError as problem:
        raise TightlipError(
            f"the weights in {path} do not fit its description ({problem}): copy or train it again"
        ) from problem
    return network.requires_grad_(False)


def _filled(outline: Any, stored: Mapping[str, _Stored], tensor: Callable[[str], torch.Tensor]) -> nn.Module:
    """The network of an outline with its tensors, none of which is read before all fit."""
    try:
        network = _checked(outline)
        _compare(_shapes(network), stored)
        network.load_state_dict({name: tensor(name) for name in stored}, strict=True, assign=True)
        if _outline(network) != outline:
            raise TightlipError("its options and its tensors are different numbers")
    except (TightlipError, RuntimeError) as problem:
        raise _MismatchError(str(problem).splitlines()[0]) from problem
    return network


def _parts(network: nn.Module) -> Iterator[nn.Module]:
    """Every module, however deep they are nested."""
    found = [network]
    while found:
        module = found.pop()
        found += [child for child in module._modules.values() if child is not None]
        yield module


def _outline(module: nn.Module, depth: int = 0) -> list[Any]:
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
    modules = [[key, _outline(child, depth + 1)] for key, child in module._modules.items()]  # type: ignore[arg-type]
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


def _described(path: Path) -> tuple[Any, dict[str, _Stored]]:
    """The outline in a file that safetensors takes for one of its own, and what it says of its tensors."""
    with path.open("rb") as file:
        head = file.read(int.from_bytes(file.read(8), "little"))
    try:
        tensors = _parse(head)
        metadata = tensors.pop("__metadata__", {})
        description = _parse(metadata["tightlip"])
        version = description["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TightlipError(f"{path} holds weights but no tightlip network: write it with tightlip.save") from error
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise TightlipError(f"{path} has format {version!r:.20}, this version reads 1 to {FORMAT}: update tightlip")
    if metadata.keys() != {"tightlip"} or description.keys() != {"format", "network"}:
        foreign = ", ".join(sorted({*metadata, *description} - {"tightlip", "format", "network"}))
        raise TightlipError(f"{path} holds more or less than a network ({foreign:.60}): write it with tightlip.save")
    stored = {name: _Stored(tuple(t["shape"]), _DTYPES.get(t["dtype"], t["dtype"])) for name, t in tensors.items()}
    network = description["network"]
    return _from_format_1(network) if version == 1 else network, stored


def _from_format_1(outline: Any, depth: int = 0) -> Any:
    """The same description as format 2 has it; what is damaged stays as it is."""
    if not isinstance(outline, list) or len(outline) != 2 or depth > DEEPEST:
        return outline
    kind, inside = outline
    if kind == "Residual":
        return [kind, {}, [["f", _from_format_1(inside, depth + 1)]]]
    if kind == "Sequential" and isinstance(inside, list) and all(isinstance(i, list) and len(i) == 2 for i in inside):
        return [kind, {}, [[key, _from_format_1(child, depth + 1)] for key, child in inside]]
    return outline


def _parse(text: str | bytes) -> Any:
    """JSON that says one thing only: without repeated names, NaN and infinities."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name is given twice")
        return dict(pairs)

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)


def _checked(outline: Any) -> nn.Module:
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


def _shapes(network: nn.Module) -> dict[str, _Stored]:
    return {name: _Stored(tuple(tensor.shape), tensor.dtype) for name, tensor in network.state_dict().items()}


def _compare(expected: Mapping[str, _Stored], stored: Mapping[str, _Stored]) -> None:
    """Raise unless ``stored`` has the same names and shapes, and dtypes that work together."""
    if different := sorted(expected.keys() ^ stored.keys()):
        where = "absent" if different[0] in expected else "foreign"
        raise TightlipError(f"the tensor {different[0]!r:.60} is {where}")
    common: dict[torch.dtype | str, str] = {}
    for name, (shape, dtype) in expected.items():
        found = stored[name]
        if found.shape != shape:
            raise TightlipError(f"{name} has shape {found.shape}, not {shape}")
        floats = isinstance(found.dtype, torch.dtype) and found.dtype.is_floating_point and found.dtype.itemsize > 1
        if not (floats if dtype.is_floating_point else found.dtype == dtype):  # type: ignore[union-attr]
            raise TightlipError(f"{name} is {found.dtype}: give float16, bfloat16, float32 or float64")
        if shape and dtype == torch.get_default_dtype():  # what is made in another dtype, by itself, works with any
            common.setdefault(found.dtype, name)
    if len(common) > 1:
        one, other = [f"{name} is {dtype}" for dtype, name in common.items()][:2]
        raise TightlipError(f"{one} and {other}: make them one with network.double() or network.float()")

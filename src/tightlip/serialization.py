"""One file per network: safetensors weights plus a versioned description of the architecture. No pickle, no code.

What is read is checked before it is believed, and before anything of its size is made:

    JSON without repeated names and without numbers that are not finite → the network that it describes (`outline`)
    → names, shapes and dtypes of the file's tensors are those of the network → the tensors
    → the network describes itself as the file did.

So a file is either the network that was saved or one sentence.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import nn

from .atomic import replacing
from .audit import refuse_altered
from .constraints import constraint_of
from .errors import TightlipError
from .graphs.tracing import as_graph
from .outline import from_format_1, network_of, outline_of
from .torch_files import written_by_torch

FORMAT = 2
"""Format 1 had two containers, without options: ["Sequential", modules] and ["Residual", module]."""

_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64}


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
    outline = outline_of(network)
    for module in _parts(network):
        refuse_altered(module)
    state = network.state_dict()
    if any(tensor.is_meta or tensor.layout != torch.strided for tensor in state.values()):
        raise TightlipError("the network holds meta or sparse tensors: fill them, or convert them to dense ones")
    expected = _shapes(network_of(outline))
    if different := [*(state.keys() ^ expected.keys())]:
        names = ", ".join(sorted(different))
        raise TightlipError(
            f"the network has tensors beside its layers' own, or lacks some ({names:.60}): restore them"
        )
    _compare(expected, {name: _Stored(tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()})
    description = json.dumps({"format": FORMAT, "network": outline}, allow_nan=False)
    weights = {name: value.detach().contiguous().clone() for name, value in state.items()}
    with replacing(Path(path)) as partial:
        partial.write_bytes(as_bytes(weights, {"tightlip": description}))  # save_file names a file of its own


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
        raise TightlipError(f"there is no file {path}: give one that tightlip.save or a run has written")
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
        raise TightlipError(
            f"{path} is not a safetensors file, or not a complete one: give what tightlip.save wrote, or copy it again"
        ) from error
    except _MismatchError as problem:
        raise TightlipError(
            f"the weights in {path} do not fit its description ({problem}): copy or train it again"
        ) from problem
    return network.requires_grad_(False)


def _filled(outline: Any, stored: Mapping[str, _Stored], tensor: Callable[[str], torch.Tensor]) -> nn.Module:
    """The network of an outline with its tensors, none of which is read before all fit."""
    try:
        network = network_of(outline)
        _compare(_shapes(network), stored)
        network.load_state_dict({name: tensor(name) for name in stored}, strict=True, assign=True)
        if outline_of(network) != outline:
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
    return from_format_1(network) if version == 1 else network, stored


def _parse(text: str | bytes) -> Any:
    """JSON that says one thing only: without repeated names, NaN and infinities."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name is given twice")
        return dict(pairs)

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)


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

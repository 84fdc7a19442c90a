"""A .pt2 file, read without torch: a zip archive of JSON and of the bytes of tensors.

``torch.export.load`` unpickles examples and constants and evaluates expressions, which may run anything. Here the JSON
of the program is parsed, and each tensor is its bytes as the file describes them; what was pickled is refused. The
format is that of torch's serializer, schema 8.
"""

import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...archives import opened
from ...errors import TightlipError

SCHEMA = 8
"""The major version of the schema that is read."""

_DTYPES = {5: torch.int64, 6: torch.float16, 7: torch.float32, 8: torch.float64, 13: torch.bfloat16}
"""torch's numbers of scalar types, those that parameters and buffers of networks have."""

_STRIDED = 7


class Archive(NamedTuple):
    """The JSON of a program, and its tensors by their names."""

    program: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def read_archive(path: Path) -> Archive:
    """What a file of ``torch.export.save`` holds.

    Raises:
        TightlipError: for any other file, another version, several programs, and tensors that were pickled.
    """
    try:
        with opened(path) as file:
            return _read(file, path)
    except TightlipError:
        raise
    except (zipfile.BadZipFile, OSError) as problem:
        raise TightlipError(f"{path} is not a whole .pt2 file: write it with torch.export.save") from problem
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError, IndexError) as problem:
        raise TightlipError(
            f"{path} is damaged ({type(problem).__name__}: {problem!s:.60}): write it anew with torch.export.save"
        ) from problem


def _read(file: zipfile.ZipFile, path: Path) -> Archive:
    names = file.namelist()
    models = [name for name in names if name.count("/") == 2 and "/models/" in name and name.endswith(".json")]
    if len(models) != 1:
        words = "holds no program" if not models else f"holds {len(models)} programs"
        raise TightlipError(f"{path} {words}: give a file with one, which torch.export.save has written")
    root = models[0].partition("/")[0]
    if file.read(f"{root}/byteorder").decode() != sys.byteorder:
        raise TightlipError(f"{path} was written on a machine with another byte order: export the network here")
    program = _json(file.read(models[0]))
    version = program["schema_version"]["major"]
    if version != SCHEMA:
        raise TightlipError(f"{path} has schema {version!r:.20}, and {SCHEMA} is read: export it with a torch of today")
    tensors: dict[str, Tensor] = {}
    stem = models[0].rpartition("/")[2].removesuffix(".json")
    for folder in ("weights", "constants"):
        config = f"{root}/data/{folder}/{stem}_{folder}_config.json"
        described = _json(file.read(config))["config"] if config in names else {}
        for name, meta in described.items():
            tensors[name] = _tensor(file, f"{root}/data/{folder}", name, meta)
    return Archive(program, tensors)


def _json(text: bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number")

    return json.loads(text.decode(), parse_constant=refuse)  # what begins with zeros would be read as UTF-32


def _tensor(file: zipfile.ZipFile, folder: str, name: str, meta: Mapping[str, Any]) -> Tensor:
    """One tensor, within the bytes that the archive has for it."""
    if meta["use_pickle"] or meta["tensor_meta"] is None:
        raise TightlipError(f"{name!r:.60} was pickled, which may run anything: export a network of plain tensors")
    about = meta["tensor_meta"]
    sizes, strides = ([_whole(size) for size in about[key]] for key in ("sizes", "strides"))
    offset, dtype = _whole(about["storage_offset"]), _DTYPES.get(about["dtype"])
    if dtype is None or about["layout"] != _STRIDED:
        raise TightlipError(f"{name!r:.60} is not a dense tensor of floating point: export a network of plain tensors")
    data = file.read(f"{folder}/{meta['path_name']}")
    last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    if 0 in sizes or min([offset, *strides], default=0) < 0 or (last + 1) * dtype.itemsize > len(data):
        raise ValueError(f"{name} has no bytes for its shape {sizes}")
    flat = torch.frombuffer(bytearray(data), dtype=dtype, count=len(data) // dtype.itemsize)
    return torch.as_strided(flat, sizes, strides, offset).clone()


def _whole(size: Mapping[str, Any]) -> int:
    value = size["as_int"]
    if type(value) is not int or not 0 <= value <= 2**40:
        raise ValueError(f"{value!r:.30} is no size")
    return value

"""Where a number comes from: commit, versions, machine; and JSON that is written whole or not at all, and sealed."""

import hashlib
import json
import math
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .atomic import replacing


def commit(folder: Path | None = None) -> tuple[str | None, bool | None]:
    """The git commit of the source tree and whether it has uncommitted changes; (None, None) outside a checkout.

    What lies in the tree's folder ``results`` is no source: a row does not make the next one dirty.
    """
    root = folder or Path(__file__).resolve().parent
    try:
        inside = _git(root, "rev-parse", "--show-toplevel")
        tracked = _git(root, "ls-files", "--error-unmatch", Path(__file__).name) if folder is None else inside
        changes = _git(root, "status", "--porcelain", "--", ":/", ":(top,exclude)results")
        return (_git(root, "rev-parse", "HEAD"), bool(changes)) if tracked else (None, None)
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def provenance(device: str) -> dict[str, Any]:
    """What every row carries beside its config and data: commit, versions, device, threads, machine."""
    head, dirty = commit()
    return {
        "commit": head,
        "dirty": dirty,
        "versions": versions(),
        "device": device,
        "threads": torch.get_num_threads(),
        "machine": machine(device),
    }


def versions() -> dict[str, str]:
    """Of Python and the packages that numbers depend on."""
    packages = {name: metadata.version(name) for name in ("torch", "numpy", "tightlip")}
    return {"python": platform.python_version(), **packages}


def machine(device: str) -> str:
    """The processor or accelerator that computed, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` atomically, an array of numbers a line; numbers that are not finite become null."""
    text = _laid_out(json.loads(_json(content)))
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` as a file holds it, with ``sha256``: the hash of its canonical form, without the hash itself.

    That form is JSON in ASCII with sorted keys and no spaces, numbers as Python writes them.
    """
    held = json.loads(_json(content))
    text = json.dumps(held, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return held | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def _json(content: Any) -> str:
    """As JSON; most files hold finite numbers alone, and then nothing is looked at number by number."""
    try:
        return json.dumps(content, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(content), allow_nan=False)


def _laid_out(value: Any, margin: str = "\n") -> str:
    """JSON, indented; an array of plain values is one line, and so is an object of plain values in an array."""
    inner = f"{margin} "
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(key)}: {_laid_out(item, inner)}" for key, item in value.items()]
        return f"{{{inner}{f',{inner}'.join(items)}{margin}}}"
    if isinstance(value, list) and not _is_plain(value):
        items = [json.dumps(item) if _is_plain(item) else _laid_out(item, inner) for item in value]
        return f"[{inner}{f',{inner}'.join(items)}{margin}]"
    return json.dumps(value)


def _is_plain(value: Any) -> bool:
    """Whether there is no array and no object in it."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not any(isinstance(item, dict | list) for item in inside)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

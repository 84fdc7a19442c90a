"""Which model a run's numbers are about: the files that speak of it carry its sha256, and every reader compares."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic import sha256
from .errors import TightlipError

MODEL = "model.safetensors"
"""The file of a run's network."""

ABOUT = ("certificate.json", "metrics.json")
"""The files of a run that speak of its network."""


def check_model(folder: Path, said: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the model in a run folder is the one that the folder's files speak of: compared, unless there is none.

    Args:
        folder: Of a run.
        said: What its files hold, by their names. Those of earlier versions carry no hash.

    Returns:
        False if there was nothing to compare: no hash, or no model.

    Raises:
        TightlipError: if hashes differ, from one another or from the model's.
    """
    hashes = {name: content.get("model_sha256") for name, content in said.items()}
    for name, value in hashes.items():
        hexadecimal = isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)
        if "model_sha256" in said[name] and not hexadecimal:
            raise TightlipError(f"{folder / name} has a damaged model_sha256 ({value!r:.30}): copy or make it again")
    if len(set(hashes.values())) > 1:
        names = " and ".join(hashes)
        raise TightlipError(f"{names} in {folder} speak of different models: copy all files of one run, or train again")
    expected = next(iter(hashes.values()), None)
    if expected is None or not (folder / MODEL).is_file():
        return False
    actual = sha256(folder / MODEL)
    if actual != expected:
        raise TightlipError(
            f"{folder / MODEL} is not the model that {next(iter(hashes))} speaks of (its sha256 starts with "
            f"{actual[:12]}, not with {expected[:12]}): restore it, or train again"
        )
    return True


def written_about(model: Path) -> dict[str, dict[str, Any]]:
    """The files beside a run's model, by their names, if one of them carries its hash.

    Nothing beside a model of another name, nor where none carries a hash: runs of earlier versions, or files of others.

    Raises:
        TightlipError: if one of them is there and holds nothing that can be read.
    """
    files = [model.parent / name for name in ABOUT] if model.name == MODEL else []
    found = {file.name: _content(file) for file in files if file.exists()}
    return found if any("model_sha256" in content for content in found.values()) else {}


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not content:
        raise TightlipError(
            f"{file} is damaged or empty, so it does not say which model it speaks of: restore it or train again, or "
            "move the model to a folder of its own"
        )
    return content

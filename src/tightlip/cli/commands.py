"""The commands by their names, each imported when it is asked for: most need torch, which takes seconds to import."""

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, util
from itertools import pairwise

_PLACES = {
    "train": ("train", "Train"),
    "tune": ("tune", "Tune"),
    "certify": ("certify", "Certify"),
    "audit": ("audit", "Audit"),
    "distance": ("distance", "Distance"),
    "report": ("report", "Report"),
    "list": ("experiment", "List"),
    "run": ("experiment", "Run"),
    "bench": ("bench", "Bench"),
}
"""The file and the class of each."""

TASKS = {"regression": {"train": ("regress", "Regress")}}
"""What takes the place of a command where it is given this --task."""


class Commands(Mapping[str, type]):
    """Each a dataclass whose fields are its flags, and which runs when called."""

    def __init__(self, task: str | None = None) -> None:
        self.places = {**_PLACES, **TASKS.get(task or "", {})}

    def of_task(self, arguments: Sequence[str]) -> "Commands":
        """The commands of the --task that is given, if it has its own."""
        given = [word.partition("=")[2] for word in arguments if word.startswith("--task=")]
        given += [after for word, after in pairwise(arguments) if word == "--task"]
        return Commands(given[-1]) if given else self

    def __getitem__(self, name: str) -> type:
        """Imports it."""
        file, command = self.places[name]
        return getattr(import_module(f".{file}", __package__), command)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)

    def __contains__(self, name: object) -> bool:
        return name in _PLACES

    def summary(self, name: str) -> str:
        """The docstring of a command, read in its file."""
        return _docstring(*self.places[name])


@functools.cache
def _docstring(file: str, command: str) -> str:
    found = util.find_spec(f".{file}", __package__)
    text = getattr(found.loader, "get_source", lambda _: None)(found.name) if found else None
    tree = ast.parse(text or "")
    return next((ast.get_docstring(node) or "" for node in tree.body if _is_class(node, command)), "")  # type: ignore[arg-type]


def _is_class(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


COMMANDS = Commands()

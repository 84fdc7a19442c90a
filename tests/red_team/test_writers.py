"""All that the library writes goes through one file, and no duration of its rests on the time of day."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import tightlip

WRITES = {"write_text", "write_bytes", "savez", "savez_compressed", "savefig", "to_csv", "to_parquet", "tofile"}
NAMES = {"mkdir", "makedirs", "rename", "unlink", "rmdir", "rmtree", "mkstemp", "NamedTemporaryFile", "mkdtemp"}
WHOSE = {
    "save": {"torch.save", "np.save", "numpy.save"},
    "save_file": {"save_file", "safetensors.torch.save_file"},
    "replace": {"os.replace"},
    "move": {"shutil.move"},
    "copy": {"shutil.copy"},
}
"""Names of which only these write."""
CALLED = WRITES | NAMES | WHOSE.keys() | {"open"}
LOOKED_AT = re.compile(rf"\b({'|'.join(CALLED)})\(|\btime\.time|datetime")
MAY = {
    ("atomic.py", "make_folder"): {"mkdir"},
    ("atomic.py", "discard"): {"unlink"},
    ("locking.py", "take"): {"write_text"},  # the words of a lock, which may be torn: nothing rests on them
    ("locking.py", "give_back"): {"unlink"},
    ("training/checkpoint.py", "_refuse_unreadable"): {"save"},  # in memory
    ("report/drawing.py", "plot"): {"savefig"},  # in memory
    ("data/download.py", "download"): {"mkdir"},  # what is lost of a cache is fetched again
    ("data/download.py", "_first_good"): {"unlink"},
    ("data/download.py", "_fetch"): {"open"},  # what it writes is put in place by `put_in_place`
    ("cli/folders.py", "remove_if_empty"): {"rmdir"},
    ("experiments/shelf.py", "clear"): {"rmtree"},
}
"""Calls outside of `replacing`, each with its reason."""


@functools.cache
def sources() -> list[tuple[str, ast.Module]]:
    """The files of the library."""
    root = Path(tightlip.__file__).parent
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*.py"))}
    return [(path, ast.parse(text)) for path, text in texts.items() if LOOKED_AT.search(text)]


def writing(call: ast.Call) -> str | None:
    """What the call writes with, if it does."""
    last = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if last not in CALLED:
        return None
    words = ast.unparse(call)
    if last == "open":
        modes = [given.value for given in [*call.args[:2], *(key.value for key in call.keywords)] if _is_mode(given)]
        return last if "O_CREAT" in words or any(set(mode) & set("wax+") for mode in modes) else None
    return last if words.partition("(")[0] in WHOSE.get(last, {words.partition("(")[0]}) else None


def _is_mode(argument: ast.expr) -> bool:
    return isinstance(argument, ast.Constant) and isinstance(argument.value, str) and len(argument.value) <= 3


def careless(tree: ast.AST, where: str, function: str = "", safe: bool = False) -> Iterator[tuple[str, str, str]]:
    """Calls that write and stand neither within ``with replacing(…)`` nor in the list."""
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef) else function
        held = isinstance(node, ast.With) and any("replacing(" in ast.unparse(item) for item in node.items)
        how = writing(node) if isinstance(node, ast.Call) and not safe else None
        if how is not None and how not in MAY.get((where, inside), ()):
            yield where, inside, how
        yield from careless(node, where, inside, safe or held)


def test_all_that_is_written_is_written_in_one_way():
    found = [found for path, tree in sources() for found in careless(tree, path)]
    assert found == [], "write within `with atomic.replacing(path) as partial`, and make folders by `make_folder`"


def test_other_ways_to_write_are_seen():
    for line in (
        "path.write_text('a')",
        "open(path, 'w')",
        "path.open(mode='ab')",
        "torch.save(x, path)",
        "np.savez(file, x=x)",
        "save_file(x, path)",
        "folder.mkdir()",
        "os.makedirs(a)",
        "path.rename(b)",
        "os.replace(a, b)",
        "os.open(a, os.O_CREAT | os.O_WRONLY)",
        "path.unlink()",
        "with suppressing(x):\n  figure.savefig(path)",
    ):
        assert len(list(careless(ast.parse(line), "x.py"))) == 1, line
    for line in (
        "path.open('rb')",
        "open(path)",
        "with replacing(a) as b:\n  b.write_text('')",
        "x.replace('w', '')",
        "os.open(a, os.O_RDWR)",
    ):
        assert list(careless(ast.parse(line), "x.py")) == [], line


def test_nothing_that_lasts_is_measured_by_the_time_of_day():
    """A clock that is set back would make durations negative, and limits endless."""
    found = [
        f"{path}:{node.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("time", "time_ns", "now", "utcnow", "today")
        if isinstance(node.value, ast.Name) and node.value.id in ("time", "datetime", "date")
    ]
    assert len(found) == 1 and found[0].startswith("locking.py"), found  # where it is only told

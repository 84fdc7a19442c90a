"""The house has floors: a file imports from its own floor or below, and no two modules import each other."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "tightlip"
PACKAGE = "tightlip"
ROOMS = [
    [
        "errors",
        "arguments",
        "archives",
        "atomic",
        "choices",
        "decimals",
        "tensors",
        "torch_files",
        "norms",
        "linalg",
        "locking",
        "options",
        "interruption",
    ],
    ["audit", "stored"],
    [
        "constraints",
        "activations",
        "layers",
        "shift",
        "linf_distance",
        "mean_shift",
        "prototypes",
        "pooling",
        "rules",
        "graphs",
    ],
    [
        "networks",
        "image_networks",
        "outline",
        "serialization",
        "seal",
        "constructions",
        "losses",
        "emma",
        "linf_training",
        "monotonicity",
        "penalties",
        "descent",
        "aggmo",
    ],
    ["robustness", "transport", "bands", "data", "diagnostics"],
    ["training", "provenance", "linkage", "records", "stopwatch", "timing"],
    ["experiments", "bridges", "estimators"],
    ["report", "cli"],
    ["__init__", "__main__", "public"],
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
FORBIDDEN = {"utils", "util", "misc", "common", "base", "helpers"}
LONGEST = 300


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, `__init__` files under the name of their package."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = (PACKAGE, *path.relative_to(root).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def room(module: str) -> str:
    """`tightlip.linalg.polar` -> `linalg`; `tightlip` itself -> `__init__`."""
    return (*module.split("."), "__init__")[1]


def imported(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, wherever in the file the import stands."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, *filter(None, [node.module])])
            if source.split(".")[0] == PACKAGE:
                names = (f"{source}.{alias.name}" for alias in node.names)
                yield from (name if name in known else source for name in names)


def complaints(root: Path) -> list[str]:
    """Everything wrong with the tree, one sentence each."""
    known = modules(root)
    graph = {module: set(imported(module, path, known)) for module, path in known.items()}
    found = []
    for module, path in known.items():
        if room(module) not in FLOOR:
            found.append(f"{module}: stands on no floor; give it one in ROOMS")
            continue
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST:
            found.append(f"{module}: longer than {LONGEST} lines")
        for target in sorted(graph[module]):
            if target not in known:
                found.append(f"{module}: imports {target}, which does not exist")
            elif FLOOR.get(room(target), 0) > FLOOR[room(module)]:
                found.append(f"{module}: imports {target} from a floor above")
    for path in sorted(root.rglob("*")):
        if FORBIDDEN & {path.stem, path.name}:
            found.append(f"{path.relative_to(root)}: a name that says nothing")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("cycle: " + " -> ".join(error.args[1]))
    return found


def test_the_tree_has_nothing_wrong():
    assert modules(SRC), f"no modules found under {SRC}"
    assert complaints(SRC) == []


TREE = {
    "__init__.py": "from tightlip.norms import dual\nfrom tightlip.linalg import polar\n",
    "norms.py": "import math\n\nimport torch\n",
    "linalg/__init__.py": "from tightlip.linalg.polar import polar\n",
    "linalg/polar.py": "from tightlip import norms\nfrom ..norms import dual\n",
    "audit.py": "from .linalg import polar\nimport tightlip.norms\n",
}


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("audit.py", "from tightlip.norms import dual", None),
        ("norms.py", "from tightlip.audit import lipschitz", "imports tightlip.audit from a floor above"),
        ("norms.py", "from tightlip import audit", "imports tightlip.audit from a floor above"),
        ("norms.py", "from . import audit", "imports tightlip.audit from a floor above"),
        ("norms.py", "def f():\n    import tightlip.audit", "imports tightlip.audit from a floor above"),
        ("linalg/polar.py", "from ..audit import lipschitz", "imports tightlip.audit from a floor above"),
        ("audit.py", "from tightlip import dual", "imports tightlip from a floor above"),
        ("audit.py", "from tightlip.nowhere import x", "imports tightlip.nowhere, which does not exist"),
        ("norms.py", "from tightlip.linalg.polar import polar", "cycle: "),
        ("attic.py", "", "tightlip.attic: stands on no floor"),
        ("linalg/utils.py", "", "linalg/utils.py: a name that says nothing"),
        ("linalg/common/one.py", "", "linalg/common: a name that says nothing"),
        ("norms.py", "\n" * (LONGEST + 1), "tightlip.norms: longer than 300 lines"),
    ],
)
def test_what_is_wrong_is_caught(tmp_path, file, text, complaint):
    for name, content in {**TREE, file: text}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    found = complaints(tmp_path)
    if complaint is None:
        assert found == []
    else:
        assert any(complaint in sentence for sentence in found), found

"""docs/api.md is true: what it names exists and takes these arguments, and nothing public is missing."""

import ast
import builtins
import importlib
import inspect
import re
import typing
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import tightlip

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
SPAN = re.compile(r"`([^`]+)`")
CALL = re.compile(r"([A-Za-z_][\w.]*)(?:\((.*)\))?")
PLAIN = {object, torch.nn.Module}
COMMA = re.compile(r",\s*(?![^()\[\]]*[)\]])")  # outside of brackets


@dataclass(frozen=True)
class Row:
    """A line of a table: the names in its first cell with their arguments, and the code in its second."""

    names: tuple[tuple[str, str | None], ...]
    words: tuple[str, ...]


def rows(page):
    found = []
    for line in page.splitlines():
        if line.startswith("| `"):
            first, second = re.split(r"(?<!\\)\|", line)[1:3]
            calls = [CALL.fullmatch(span) for span in SPAN.findall(first)]
            names = [(call[1], call[2]) for call in calls]
            home = names[0][0].rpartition(".")[0]  # `tightlip.transport.one()`, `another()`
            names = [(name if "." in name or not home else f"{home}.{name}", told) for name, told in names]
            found.append(Row(tuple(names), tuple(SPAN.findall(second))))
    return found


def resolve(name):
    """What a name means, 'tightlip.' being understood."""
    thing, path = tightlip, "tightlip"
    for part in name.removeprefix("tightlip.").split("."):
        path = f"{path}.{part}"
        thing = getattr(thing, part) if hasattr(thing, part) else importlib.import_module(path)
    return thing


def parameters(thing):
    made = any("__init__" in vars(kind) for kind in _type(thing).__mro__ if kind not in PLAIN)
    own = inspect.isroutine(thing) or made or thing.__new__ is not object.__new__
    if not callable(thing) or not own or issubclass(_type(thing), Exception):
        return {}
    return dict(inspect.signature(thing).parameters)


def _type(thing):
    return thing if inspect.isclass(thing) else type(thing)


def _default(parameter):
    return None if parameter.kind is inspect.Parameter.VAR_POSITIONAL else parameter.default


def told(arguments):
    """The parameters that a page gives, each with its default, if that is a literal."""
    given = {}
    for argument in filter(None, COMMA.split(arguments.replace("*, ", ""))):
        name, _, default = argument.lstrip("*").partition("=")
        try:
            given[name] = ast.literal_eval(default) if default else ...
        except (ValueError, SyntaxError):
            given[name] = ...
    return given


def problems(row):
    """What is untrue in a row."""
    things = [resolve(name) for name, _ in row.names]
    for (name, arguments), thing in zip(row.names, things, strict=True):
        known = parameters(thing)
        if arguments is None:
            continue
        given = told(arguments)
        if list(given) != list(known):
            yield f"{name} takes {list(known)}, not {list(given)}"
        for key in set(given) & set(known):
            if given[key] is not ... and given[key] != _default(known[key]):
                yield f"{name}: the default of {key} is {_default(known[key])}"
    for word in row.words:
        if not _means_something(word, things):
            yield f"{row.names[0][0]}: {word}"


def _means_something(word, things):
    """Whether code in a sentence is a member, a field or a parameter of these, or a name known beside them."""
    key = re.match(r"(\w+)=", word)
    call = CALL.fullmatch(word)
    if word.startswith(".") or (key and key[1] in PARAMETERS):
        return True
    if call is None:
        return re.fullmatch(r"\w+\[.*\]", word) is not None  # `table[p, q]`, of the signature
    homes = [tightlip, tightlip.data, tightlip.transport, builtins, torch.nn, torch.utils.data]
    for thing in things:
        returned = typing.get_type_hints(thing).get("return") if inspect.isfunction(thing) else None
        homes += [thing, *filter(inspect.isclass, [returned]), inspect.getmodule(thing)]
        if {call[1], call[1].partition(".")[0]} & parameters(thing).keys():
            return True
    first, _, rest = call[1].removeprefix("nn.").partition(".")
    members = [*map(dir, homes), *(getattr(home, "__annotations__", ()) for home in homes)]
    return any(first in names for names in members) or hasattr(tightlip, rest) or _resolves(call[1])


def _resolves(name):
    try:
        return bool(resolve(name))
    except ModuleNotFoundError:
        return False


ROWS = rows(PAGE)
PARAMETERS = {key for name in tightlip.__all__ for key in parameters(getattr(tightlip, name))}


def test_the_page_has_rows():
    assert len(ROWS) > 80


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.names[0][0])
def test_what_the_page_names_exists_and_takes_these_arguments(row):
    assert list(problems(row)) == []


def test_every_public_name_has_a_row_of_its_own():
    named = {name.removeprefix("tightlip.") for row in ROWS for name, _ in row.names}
    for package in ("", "transport", "constructions", "data"):
        public = resolve(package).__all__ if package else tightlip.__all__
        missing = [name for name in public if f"{package}.{name}".lstrip(".") not in named]
        assert missing == [], f"docs/api.md has no row for {missing}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("| `certify(network, x, y=None, p=2)` | |", "certify takes"),
        ("| `Scale(scale=2)` | |", "the default of scale"),
        ("| `Constraint` | `blocks(shape)` chooses |", "Constraint: blocks(shape)"),
        ("| `Certificate` | `curves(eps)` |", "Certificate: curves(eps)"),
    ],
)
def test_an_untrue_row_is_caught(line, problem):
    (row,) = rows(line)
    assert any(problem in found for found in problems(row))


def test_a_name_that_does_not_exist_is_caught():
    with pytest.raises(ModuleNotFoundError, match="certifi"):
        list(problems(rows("| `certifi(x)` | |")[0]))

"""From arguments to a command; what cannot be parsed becomes one sentence that names what is possible."""

import contextlib
import dataclasses
import io
import itertools
import operator
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..choices import hint
from ..errors import TightlipError
from .commands import Commands

Command = Callable[[], str]

_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]

SHOWN = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}
SHOWN |= {tuple[int, ...]: "INT ...", tuple[float, ...]: "FLOAT ...", tuple[str, ...]: "STR ..."}
"""What stands for the value of an option in the help."""

_HINT = tyro.conf.arg(help_behavior_hint="")

KINDS = {
    int: "a whole number",
    float: "a number",
    tuple[int, ...]: "whole numbers",
    tuple[float, ...]: "numbers",
    tuple[str, ...]: "names",
}
"""What a value of an option is called."""


def parse(arguments: Sequence[str], commands: Commands) -> Command:
    """The command meant.

    Raises:
        TightlipError: one sentence on what cannot be parsed.
        SystemExit: after printing the help that was asked for.
    """
    asked = arguments[0] if arguments else "--help"
    if asked not in commands and asked not in ("-h", "--help"):
        near = hint(asked, [*commands, "--help", "--version"])
        raise TightlipError(
            f"no command is called {asked!r}{near}: choose one of {', '.join(commands)}; see tightlip --help"
        )
    if asked in commands:
        _check_flags(asked, commands[asked], arguments[1:])
        arguments = [asked, *_divided(arguments[1:], options(commands[asked]))]
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(  # type: ignore[no-any-return]
                _union(commands, asked),  # type: ignore[arg-type]
                prog="tightlip",
                description="Networks whose Lipschitz constant is proven: train, certify, look. Also: --version.",
                args=arguments or ["--help"],
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as end:
        if not end.code:
            raise
    said = _plain(_said(box.getvalue()), arguments, options(commands[asked]))
    raise TightlipError(f"{said}; see tightlip {asked} --help")


def options(command: type) -> dict[str, Any]:
    """The flags of a command, '--batch-size', each with the type of its value."""
    return {f"--{name.replace('_', '-')}": kind for name, kind in _fields(command)}


def _fields(command: type) -> Iterator[tuple[str, Any]]:
    """The fields that become flags; those of a field that is a dataclass stand for it."""
    hints = typing.get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        kind = hints[field.name]
        marks = typing.get_args(kind)[1:] if typing.get_origin(kind) is Annotated else ()
        kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _fields(kind)
        elif _POSITIONAL not in marks:
            yield field.name, kind


def _check_flags(name: str, command: type, arguments: Sequence[str]) -> None:
    """Refuse a flag that the command does not have, naming the nearest that it has."""
    known = {*options(command), "--help"}
    for word in arguments:
        flag = word.partition("=")[0].replace("_", "-")
        if _is_flag(word) and flag not in known:
            raise TightlipError(
                f"tightlip {name} has no option {word.partition('=')[0]}{hint(flag, known)}; see tightlip {name} --help"
            )


@dataclasses.dataclass(frozen=True)
class _Unasked:
    """Stands for the commands that are only listed."""

    def __call__(self) -> str:
        """Nothing."""
        return ""


def _divided(words: Sequence[str], known: Mapping[str, Any]) -> Iterator[str]:
    """The words, in which options that take numbers may have fractions: 36/255."""
    kind: Any = None
    for word in words:
        flag, equals, value = word.partition("=") if _is_flag(word) else ("", "", word)
        kind = _without_none(known.get(flag.replace("_", "-"))) if flag else kind
        parts = value.split("/") if kind in (float, tuple[float, ...]) else []
        with contextlib.suppress(ValueError, ZeroDivisionError, OverflowError):  # the parser has words for it
            numerator, denominator = map(float, parts)
            value = repr(numerator / denominator)
        yield f"{flag}{equals}{value}"


def _is_flag(word: str) -> bool:
    """Whether a word was meant to be an option: '--epochs', '-epochs'; not '-1e-3' or '-inf'."""
    try:
        float(word)
    except ValueError:
        return len(word) > 2 and word.startswith("-") and word.lstrip("-")[:1].isalpha()
    return False


def _union(commands: Commands, asked: str) -> Any:
    parts = [
        Annotated[_hinted(commands[name]) if name == asked else _Unasked, tyro.conf.subcommand(name, description=words)]
        for name, words in ((name, commands.summary(name)) for name in commands)
    ]
    return typing.Union[tuple(parts)]  # noqa: UP007  of a list that is known only now


def _hinted(command: type) -> type:
    """A command whose help shows None neither as a default, whose meaning is in its own words, nor as a value."""
    for place in filter(dataclasses.is_dataclass, command.__mro__):
        kinds = place.__annotations__
        for field in dataclasses.fields(place):
            kind: Any = kinds.get(field.name)
            if kind is not None and typing.get_origin(kind) is not Annotated:
                if types.NoneType in typing.get_args(kind) and (shown := SHOWN.get(_without_none(kind))):
                    kinds[field.name] = Annotated[kinds[field.name], tyro.conf.arg(metavar=shown)]
                if field.default is None:
                    kinds[field.name] = Annotated[kinds[field.name], _HINT]
            for part in (kind, *typing.get_args(kind)):
                if isinstance(part, type) and dataclasses.is_dataclass(part):
                    _hinted(part)
    return command


def _said(framed: str) -> str:
    """The first paragraph of the parser's framed message, below its title."""
    lines = [line.strip(" │|╰╯─-") for line in framed.splitlines()[1:]]  # rules become empty
    return " ".join(itertools.takewhile(bool, itertools.dropwhile(operator.not_, lines)))


def _plain(said: str, arguments: Sequence[str], known: Mapping[str, Any]) -> str:
    """The parser's message in plain words, where it is one of those known here."""
    place = f"tightlip {arguments[0]}"
    if found := re.match(r"Unrecognized.*?: (.*?)(?: \(applied to .*\))?$", said):
        words = found[1].split(", ")
        return f"{place} does not know what to do with {' '.join(words)}{hint(words[0].partition('=')[0], known)}"
    if found := re.match(r"Missing from [^:]*: (\w+) (.*?)\.?\s*\(required\)", said):
        return f"{place} needs a {found[1]}: {found[2]}"
    if found := re.match(r"invalid choice '(.*)' for argument '(--[\w-]+)'\. Expected one of \((.*)\)", said):
        names = re.findall(r"'([^']*)'", found[3])
        return f"{found[2]} {found[1]} is not possible{hint(found[1], names)}: choose one of {', '.join(names)}"
    if found := re.match(r"(?:Error parsing|Missing value for argument) '?(--[\w-]+)", said):
        wanted, given = KINDS.get(_without_none(known.get(found[1])), "a value"), _given(found[1], arguments)
        return f"{found[1]} takes {wanted}{', not ' if given else ''}{given}"
    return said or "these options make no sense"


def _given(flag: str, arguments: Sequence[str]) -> str:
    """The words that were given as the value of a flag."""
    after = itertools.dropwhile(lambda word: word.partition("=")[0].replace("_", "-") != flag, arguments)
    first = next(after, "").partition("=")[2]
    return " ".join([first] * bool(first) + list(itertools.takewhile(lambda word: not word.startswith("--"), after)))


def _without_none(kind: Any) -> Any:
    """T for T | None."""
    if isinstance(kind, types.UnionType) and types.NoneType in typing.get_args(kind):
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    return kind

"""How the annotations of tightlip are checked in tests: all of them in every test, and at less cost than by jaxtyping.

The decorator of its import hook binds the arguments of each call anew, for sizes that are computed from them
(tightlip has none), checks them once more after it, and does so too where no array is spoken of. That is three quarters
of the time of a test that trains. Here the type checker looks at arguments and at what is returned, once each, and
sizes are remembered from the one to the other where there are arrays. What a test calls over and over is checked the
first `ENOUGH` times: the calls of a loop are of one kind. Functions inside functions are made anew at each call of the
outer one, and a check has to be made for each, in milliseconds; after `ENOUGH` calls of one kind no more are made.
"""

import collections
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping
from jaxtyping import AbstractArray, config
from sweeps import EVERYTHING

SHAPES = jaxtyping.jaxtyped
"""jaxtyping's own decorator."""

ENOUGH = 10**9 if EVERYTHING else 4
"""Calls of one function in one test; calls of one kind of inner function in a process."""

CALLS: collections.defaultdict[Callable[..., Any], int] = collections.defaultdict(int)
"""How often each function was called in this test; whoever runs tests clears it before each."""

CHECKED: collections.defaultdict[CodeType, int] = collections.defaultdict(int)
"""How many calls of each kind of inner function were checked in this process."""


def jaxtyped(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """What the import hook puts on every function and class."""
    return functools.partial(checked, typechecker)


def checked(typechecker: Callable[..., Any], subject: Any) -> Any:
    """A function, or the constructor of a dataclass, with its annotations checked at each call."""
    if inspect.isclass(subject):
        if dataclasses.is_dataclass(subject) and "__init__" in vars(subject):
            subject.__init__ = checked(typechecker, subject.__init__)
        return subject
    if CHECKED.get(getattr(subject, "__code__", None), 0) >= ENOUGH:
        return subject
    hints = known(subject)
    if hints is None or (inspect.isgeneratorfunction(subject) and speaks_of_arrays(hints)):
        return SHAPES(subject, typechecker=typechecker)
    if not hints:
        return subject
    return (_with_sizes if speaks_of_arrays(hints) else _plain)(typechecker, subject)


def known(function: Callable[..., Any]) -> list[Any] | None:
    """Its annotations, as they stand where a class is defined below (no array is); None where one has no meaning."""
    try:
        return list(typing.get_type_hints(function, include_extras=True).values())
    except NameError:
        return list(inspect.get_annotations(function).values())
    except TypeError:  # an argument of what takes none at run time
        return None


def speaks_of_arrays(hint: Any) -> bool:
    """Whether there is an annotation of jaxtyping's in it."""
    inside = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return (inspect.isclass(hint) and issubclass(hint, AbstractArray)) or any(map(speaks_of_arrays, inside))


def _seen_enough(function: Callable[..., Any]) -> bool:
    """Whether a call needs no check, be it that a test asks for none."""
    CALLS[function] += 1
    if CALLS[function] > ENOUGH or config.jaxtyping_disable:
        return True
    if "<locals>" in function.__qualname__:
        CHECKED[function.__code__] += 1
    return False


def _with_sizes(typechecker: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    by_type = _at_first_use(typechecker, function)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        if _seen_enough(function):
            return function(*arguments, **options)
        with SHAPES("context"):
            return by_type()(*arguments, **options)

    return wrapped


def _plain(typechecker: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    by_type = _at_first_use(typechecker, function)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        return (function if _seen_enough(function) else by_type())(*arguments, **options)

    return wrapped


def _at_first_use(typechecker: Callable[..., Any], function: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    """The function with its checks, which take milliseconds to make: most functions are not called in most processes.

    Where a name is written as text, the checks are made at once, as the type checker wants to know where it stood.
    """
    make = functools.cache(functools.partial(typechecker, function))
    if any(isinstance(hint, str) for hint in inspect.get_annotations(function).values()):
        make()
    return make


def install() -> None:
    """To be called before tightlip is imported; jaxtyping's import hook then finds the decorator above."""
    jaxtyping.jaxtyped = jaxtyped

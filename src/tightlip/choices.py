"""Names that are asked for: the known ones, and the nearest of them where a name is mistyped."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from .errors import TightlipError

T = TypeVar("T")


def nearest(asked: object, known: Iterable[str]) -> str | None:
    """The known name that ``asked`` was probably meant to be; None if nothing comes near, or it is that name itself.

    >>> nearest("trian", ["train", "certify"])
    'train'
    """
    spelled = {_plain(name): name for name in known}
    found = get_close_matches(_plain(asked), spelled, n=1, cutoff=0.6)
    return spelled[found[0]] if found and spelled[found[0]] != asked else None


def hint(asked: object, known: Iterable[str]) -> str:
    """' (did you mean train?)', or nothing."""
    name = nearest(asked, known)
    return f" (did you mean {name}?)" if name is not None else ""


def unknown(kind: str, asked: object, known: Iterable[str]) -> TightlipError:
    """The sentence for a name that is not among the known ones.

    >>> print(unknown("activation", "rleu", ["relu", "maxmin"]))
    no activation is called 'rleu' (did you mean relu?): choose one of relu, maxmin
    """
    known = list(known)
    return TightlipError(f"no {kind} is called {asked!r}{hint(asked, known)}: choose one of {', '.join(known)}")


def chosen(kind: str, asked: Any, table: Mapping[str, T]) -> T:
    """What a table holds by this name.

    Raises:
        TightlipError: the sentence of `unknown`.
    """
    if not isinstance(asked, str) or asked not in table:
        raise unknown(kind, asked, table)
    return table[asked]


def _plain(name: object) -> str:
    """Without what people mix up: capitals, '-' and '_'."""
    return str(name).lower().replace("_", "-").lstrip("-")

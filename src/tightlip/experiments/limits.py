"""What options may be: numbers between a least and a most, and widths that an activation can group."""

from collections.abc import Mapping

import torch

from ..activations import ACTIVATIONS
from ..choices import chosen
from ..errors import TightlipError

MOST = 2**31
"""Of numbers that have no limit of their own."""

OF_ALL = {"average": 0.99999}
"""What options that every training has are at most."""


def refuse_beyond(least: Mapping[str, tuple[float, float]], most: Mapping[str, float]) -> None:
    """Refuse numbers below what they are at least, or above what they are at most.

    Args:
        least: (the number, what it is at least) by the name of its option.
        most: What numbers are at most, where that is less than `MOST`.

    Raises:
        TightlipError: for the first that is beyond.
    """
    for name, (value, lowest) in least.items():
        highest = most.get(name, MOST)
        if not lowest <= value <= highest:
            wanted = "positive" if 0 < lowest < 1 else f"at least {lowest}"
            flag, end = name.replace("_", "-"), "2³¹" if highest == MOST else highest
            raise TightlipError(f"{name}={value} (--{flag}) is impossible: it must be {wanted}, and at most {end}")


def refuse_widths(name: str, widths: tuple[int, ...], activation: str) -> None:
    """Refuse widths that are no widths, or that the activation cannot group.

    Raises:
        TightlipError: for these, and an activation that is not known.
    """
    given = f"{name}={' '.join(map(str, widths))} (--{name})"
    make = chosen("activation", activation, ACTIVATIONS)
    if any(not 1 <= width <= 100_000 for width in widths):
        raise TightlipError(f"{given} is impossible: widths lie between 1 and 100000")
    for width in widths:
        try:
            make()(torch.zeros(1, width))
        except TightlipError as error:
            raise TightlipError(f"{given} does not suit activation={activation}: {error}") from error

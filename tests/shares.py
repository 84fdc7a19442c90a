"""What a `Roundoff` says in float64, as numbers."""

from typing import NamedTuple

from tightlip.linalg.arithmetic import FLOAT64


class Shares(NamedTuple):
    """Of the inputs' size, of the outputs' size, and what each entry can be off."""

    input: float
    output: float
    entry: float


def in_float64(roundoff, inputs=1):
    """The shares of a layer that takes so many numbers for one example."""
    gamma = FLOAT64.gamma(inputs + 2 if roundoff.count is None else roundoff.count)
    return Shares(gamma * roundoff.input, gamma * roundoff.output + roundoff.truncation, gamma * roundoff.entry)

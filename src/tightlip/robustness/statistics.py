"""What a test part of n inputs tells of an accuracy: intervals, a test between two classifiers, and single classes.

An accuracy on n inputs is the share of n trials that succeed. Wilson's score interval for the true share,

    (p̂ + z²/2n ± z·√(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n),     z the normal quantile of (1 + confidence)/2,

never leaves [0, 1] and has a width also where all trials succeed. Two classifiers on the same inputs are compared input
by input: only those count that one has right and the other has not. If neither is better, each of them falls to one
side or the other like a fair coin (McNemar's test, with the exact binomial).
Sources: Wilson 1927; McNemar 1947; Newcombe 1998, "Improved confidence intervals for the difference between binomial
proportions based on paired data", method 10.

All of it takes the test inputs for independent draws from those that are meant. It says nothing of another training
with another seed, nor of inputs of another kind; and certified accuracies have intervals although each certificate is a
proof, since which inputs came into the test part is chance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import confidence_level, integer, number
from ..errors import TightlipError
from ..tensors import as_tensor

CONFIDENCE = 0.95


def wilson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a share, without continuity correction.

    Its coverage is near ``confidence`` on average over shares; for shares near 0 or 1 of few trials it may be less.

    Args:
        successes: How many succeeded, such as inputs that were classified correctly.
        trials: Of how many, at least one.
        confidence: How often such intervals are to hold the true share, in (0, 1).

    Returns:
        Its ends, 0 ≤ low ≤ successes/trials ≤ high ≤ 1.

    Raises:
        TightlipError: for other numbers.

    >>> low, high = wilson(8119, 10_000)
    >>> round(low, 4), round(high, 4)
    (0.8041, 0.8194)
    """
    trials = integer("trials", trials, most=2**53)
    successes = integer("successes", successes, least=0, most=trials)
    z, share = _quantile(confidence), successes / trials
    middle = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    low, high = ((middle + side) / (1 + z * z / trials) for side in (-spread, spread))
    return min(low, share) if successes else 0.0, max(high, share) if successes < trials else 1.0


@dataclass(frozen=True)
class Paired:
    """Two classifiers on the same inputs: how many both have right, only the first, only the second, neither."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def inputs(self) -> int:
        """On how many inputs they were compared."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def difference(self) -> float:
        """The first accuracy minus the second, in [−1, 1]."""
        return (self.first_only - self.second_only) / self.inputs

    @property
    def p_value(self) -> float:
        """Of the exact two-sided McNemar test: how likely a difference at least as large is if neither is better.

        1 where they never differ, and 0 where it is below what a float64 can hold. The sum of binomial terms is as
        exact as floating point (1e-9 for a million inputs that they differ on).
        """
        differ, fewer = self.first_only + self.second_only, min(self.first_only, self.second_only)
        ways = math.lgamma(differ + 1) - math.lgamma(fewer + 1) - math.lgamma(differ - fewer + 1)
        last = np.arange(fewer, 0, -1)  # each term is the one after it times last / (differ − last + 1)
        tail = 1 + float(np.cumprod(last / (differ - last + 1)).sum())
        return min(1.0, 2 * math.exp(ways - differ * math.log(2)) * tail)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """For the difference: Newcombe's, of Wilson's intervals and how strongly the two go together.

        It is another approximation than the test is, so at the border one may speak where the other does not.

        Raises:
            TightlipError: if ``confidence`` is not between 0 and 1.
        """
        first, second = self.both + self.first_only, self.both + self.second_only
        p, q = first / self.inputs, second / self.inputs
        (p_low, p_high), (q_low, q_high) = (wilson(count, self.inputs, confidence) for count in (first, second))
        down = _joined(p - p_low, q_high - q, self._correlation)
        up = _joined(p_high - p, q - q_low, self._correlation)
        return max(-1.0, self.difference - down), min(1.0, self.difference + up)

    @property
    def _correlation(self) -> float:
        """φ of the table, where it is positive lowered by Newcombe's continuity correction; 0 without spread."""
        first, second = self.both + self.first_only, self.both + self.second_only
        spread = first * (self.inputs - first) * second * (self.inputs - second)
        product = self.both * self.neither - self.first_only * self.second_only
        lowered = max(product - self.inputs / 2, 0) if product > 0 else product
        return lowered / math.sqrt(spread) if spread else 0.0


def paired(a: Any, b: Any) -> Paired:
    """Compare two classifiers on the same inputs, input by input.

    Args:
        a: Whether the first is right on each input, (inputs,) of booleans; a tensor or an array.
        b: The same of the second, in the same order.

    Raises:
        TightlipError: if these are not booleans in two rows of equal length, or there are none.

    >>> result = paired(torch.tensor([True] * 9 + [False] * 3), torch.tensor([True] + [False] * 11))
    >>> result.first_only, result.second_only, round(result.p_value, 6)
    (8, 0, 0.007813)
    """
    first, second = _outcomes("a", a), _outcomes("b", b)
    if len(first) != len(second):
        raise TightlipError(
            f"a has {len(first)} entries and b {len(second)}: give one entry each for the same inputs in the same order"
        )
    table = torch.bincount(2 * (~first).long() + (~second).long(), minlength=4)
    return Paired(*table.tolist())


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, raised until the chance of a false alarm in any of them is what one of them says.

    Source: Holm 1979. It needs no independence.

    Raises:
        TightlipError: if one is not in [0, 1].

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = [number("each p-value", value, least=0, most=1) for value in p_values]
    adjusted, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = least
    return adjusted


@dataclass(frozen=True)
class ClassAccuracy:
    """How many of the inputs with one label are right, or certified: ``successes`` of ``support``, at least one."""

    label: int
    successes: int
    support: int

    @property
    def accuracy(self) -> float:
        """The share, in [0, 1]."""
        return self.successes / self.support

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Wilson's interval for it, and for this class alone: of ten at 95 %, one or more miss in four tables of ten.

        Raises:
            TightlipError: if ``confidence`` is not between 0 and 1.
        """
        return wilson(self.successes, self.support, confidence)


def per_class(successes: Any, labels: Any) -> tuple[ClassAccuracy, ...]:
    """The accuracy on each class that occurs among the labels, in the order of the labels.

    Args:
        successes: Whether each input is right, or certified, (inputs,) of booleans; a tensor or an array.
        labels: The true classes, (inputs,) integers.

    Raises:
        TightlipError: if these are not rows of equal length, or there are none.
    """
    right, classes = _outcomes("successes", successes), as_tensor(labels, "labels").cpu()
    if classes.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        raise TightlipError(f"labels must be integers, got {classes.dtype}: give the number of the class of each input")
    if classes.shape != right.shape:
        raise TightlipError(
            f"there are {len(right)} successes and labels of shape {tuple(classes.shape)}: give one label for each"
        )
    found, place = classes.long().unique(return_inverse=True)
    support, count = place.bincount(minlength=len(found)), place[right].bincount(minlength=len(found))
    return tuple(map(ClassAccuracy, found.tolist(), count.tolist(), support.tolist()))


def worst_class(classes: Sequence[ClassAccuracy]) -> ClassAccuracy:
    """The class with the lowest accuracy; of equals the one with the most inputs, then the first.

    The least of several shares is lower than its true one more often than not, and all the more for small classes.

    Raises:
        TightlipError: if there are none.
    """
    if not classes:
        raise TightlipError("of no classes none is the worst: give at least one")
    return min(classes, key=lambda row: (row.accuracy, -row.support))


def _outcomes(name: str, values: Any) -> Tensor:
    """A row of booleans, at least one."""
    row = as_tensor(values, name).cpu()
    if row.dtype != torch.bool or row.dim() != 1 or not len(row):
        raise TightlipError(
            f"{name} must be a row of booleans, whether each input is right, got shape {tuple(row.shape)} of "
            f"{row.dtype}: give predictions == labels, or radius > eps"
        )
    return row


def _quantile(confidence: Any) -> float:
    """How many standard deviations of a normal distribution hold that share around its mean."""
    return -NormalDist().inv_cdf((1 - confidence_level("confidence", confidence)) / 2)


def _joined(one: float, other: float, correlation: float) -> float:
    """√(a² − 2φab + b²): how far a difference strays if its parts stray by a and b and have the correlation φ."""
    return math.sqrt(max(one * one - 2 * correlation * one * other + other * other, 0.0))

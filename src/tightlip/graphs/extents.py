"""Sizes of axes as functions of the input's: what a forward needs them to be, and whether two of them can differ.

An axis has a known number of entries, or f(n) of them where an axis of the input has n, or a product of such. Whatever
a layer demands (a linear layer takes so many features) leaves fewer n. The function is a table of its values for all n
up to a limit, so what is left is counted out.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64


class Misfit(Exception):  # noqa: N818  # it is no error: other inputs may fit
    """No input with so many axes goes through the network."""


class Along(NamedTuple):
    """The size of an axis for each n = 1, 2, …, where axis ``axis`` of the input has n entries."""

    axis: int
    sizes: Int64[np.ndarray, "n"]


class Other(NamedTuple):
    """A product of sizes, or, without factors, one of which is only known where it comes from."""

    key: Hashable
    factors: tuple["Extent", ...] = ()


Extent = int | Along | Other

Axes = tuple[Extent, ...]
"""Those after the batch."""


def key_of(extent: Extent) -> Hashable:
    """What two extents share that are the same size whatever the input is."""
    if isinstance(extent, Along):
        return extent.axis, extent.sizes.tobytes()
    return extent.key if isinstance(extent, Other) else extent


class Extents:
    """What is known of the axes of an input after that of the batch."""

    def __init__(self, axes: int, most: int) -> None:
        self.counts = np.arange(1, most + 1)
        self.left: list[Bool[np.ndarray, "n"]] = [np.ones(most, bool) for _ in range(axes)]
        self.stated: dict[Hashable, tuple[Other, int]] = {}
        self.input: tuple[Extent, ...] = tuple(Along(axis, self.counts) for axis in range(axes))

    def known(self, extent: Extent) -> Extent:
        """The extent as a number, where only one is left."""
        if isinstance(extent, Other):
            return self.stated[extent.key][1] if extent.key in self.stated else extent
        if isinstance(extent, int):
            return extent
        values = extent.sizes[self.left[extent.axis]]
        return int(values[0]) if (values == values[0]).all() else extent

    def demand(self, extent: Extent, size: int) -> None:
        """Of this size the axis must be."""
        extent = self.known(extent)
        if isinstance(extent, Along):
            self.keep(extent.axis, extent.sizes == size)
        elif isinstance(extent, Other):
            self.stated[extent.key] = extent, size
        elif extent != size:
            raise Misfit

    def keep(self, axis: int, allowed: Bool[np.ndarray, "n"]) -> None:
        """Only these sizes of an axis of the input are left."""
        self.left[axis] &= allowed
        if not self.left[axis].any():
            raise Misfit

    def turned(
        self,
        extent: Extent,
        function: Callable[[Int64[np.ndarray, "n"]], Int64[np.ndarray, "n"]],
        name: Hashable,
        least: int = 1,
    ) -> Extent:
        """f(size), where ``name`` tells f from other functions; sizes with fewer entries than ``least`` are refused."""
        extent = self.known(extent)
        if isinstance(extent, Other):
            return Other((name, extent.key))
        if isinstance(extent, int):
            made = int(function(np.array([extent]))[0])
            if made < least:
                raise Misfit
            return made
        sizes = function(extent.sizes)
        self.keep(extent.axis, sizes >= least)
        return Along(extent.axis, sizes)

    def product(self, extents: Sequence[Extent]) -> Extent:
        """∏ of sizes."""
        factors = [self.known(extent) for extent in extents]
        number = math.prod(factor for factor in factors if isinstance(factor, int))
        open_ = [factor for factor in factors if not isinstance(factor, int)]
        if not open_:
            return number
        if len(open_) == 1 and isinstance(open_[0], Along):
            return Along(open_[0].axis, number * open_[0].sizes)
        parts = tuple(open_) if number == 1 else (number, *open_)
        return Other(("product", *sorted(map(key_of, parts), key=hash)), parts) if len(parts) > 1 else parts[0]

    def total(self, extents: Sequence[Extent]) -> Extent:
        """Σ of sizes."""
        terms = [self.known(extent) for extent in extents]
        axes = {term.axis for term in terms if isinstance(term, Along)}
        if any(isinstance(term, Other) for term in terms) or len(axes) > 1:
            return Other(("sum", *map(key_of, terms)))
        number = sum(term for term in terms if isinstance(term, int))
        sizes = [term.sizes for term in terms if isinstance(term, Along)]
        return Along(axes.pop(), np.sum(sizes, 0) + number) if axes else number

    def agree(self, one: Extent, other: Extent) -> None:
        """Two axes must have one size, or torch raises."""
        one, other = self.known(one), self.known(other)
        if isinstance(one, int):
            self.demand(other, one)
        elif isinstance(other, int):
            self.demand(one, other)
        elif isinstance(one, Along) and isinstance(other, Along) and one.axis == other.axis:
            self.keep(one.axis, one.sizes == other.sizes)

    def can_differ(self, one: Extent, other: Extent) -> bool:
        """Whether torch would add values with axes of these two sizes, and repeat one of them."""
        one, other = self.known(one), self.known(other)
        if key_of(one) == key_of(other):
            return False
        axes = {extent.axis for extent in (one, other) if isinstance(extent, Along)}
        if len(axes) == 1 and not any(isinstance(extent, Other) for extent in (one, other)):
            axis = next(iter(axes))
            a, b = (np.asarray(extent.sizes if isinstance(extent, Along) else extent) for extent in (one, other))
            self.keep(axis, (a == b) | (a == 1) | (b == 1))
            return bool((self.left[axis] & (a != b)).any())
        if isinstance(one, int) and isinstance(other, int) and 1 not in (one, other):
            raise Misfit
        return (self.can_be(one) and self.can_exceed(other)) or (self.can_be(other) and self.can_exceed(one))

    def can_be(self, extent: Extent) -> bool:
        """Whether an axis can have one entry."""
        if isinstance(extent, Other):
            return all(map(self.can_be, extent.factors))
        return extent == 1 if isinstance(extent, int) else bool((extent.sizes[self.left[extent.axis]] == 1).any())

    def can_exceed(self, extent: Extent) -> bool:
        """Whether an axis can have another number of entries than one."""
        if isinstance(extent, int | Other):
            return extent != 1
        return bool((extent.sizes[self.left[extent.axis]] != 1).any())

    def at(self, extent: Extent, n: int) -> int | None:
        """The size where all axes of the input whose size is open have n entries; None where it is not known."""
        extent = self.known(extent)
        if isinstance(extent, Along):
            return int(extent.sizes[n - 1])
        if isinstance(extent, int):
            return extent
        sizes = [self.at(factor, n) for factor in extent.factors]
        return math.prod(filter(None, sizes)) if sizes and None not in sizes else None

    def examples(self) -> list[int]:
        """Numbers n of entries of all open axes with which inputs fit, as far as that is known."""
        fits = np.ones(len(self.counts), bool)
        for axis, extent in enumerate(self.input):
            if isinstance(self.known(extent), Along):
                fits &= self.left[axis]
        sizes = [int(n) for n in self.counts[fits]]
        demands = [(Other(None, product.factors), size) for product, size in self.stated.values() if product.factors]
        return [n for n in sizes[:4096] if all(self.at(product, n) == size for product, size in demands)]

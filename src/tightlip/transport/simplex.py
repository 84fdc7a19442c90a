"""The network simplex for the transportation problem: exact masses on a tree of n + m − 1 pairs, better pair by pair.

A tree over all points carries the only flow on it that has the given marginals, and the only potentials with

    c_ij + q_j − φ_i = 0     on its edges.

A pair with c_ij + q_j < φ_i enters, the flow around the circle that it closes is turned until an edge is empty, and
that edge leaves. Where no pair can enter, φ_i = min_j(c_ij + q_j), and tree and prices are optimal.
Sources: Dantzig 1951; Ahuja, Magnanti & Orlin 1993, chapter 11; the masses are perturbed as in Orden 1956, so that no
edge is ever empty in between, and there are no circles without progress.

Masses are integers, so no tie is broken by rounding. A sweep looks at all pairs, takes the best of every row and lets
these enter in turn as long as they still improve. Nothing here is believed: `bounds` computes what comes of it.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from .bounds import normalized
from .costs import Lists

BITS = 80
"""Weights are integers out of about 2⁸⁰: one below 1e-24 of the sum counts for little."""

NOTHING = 1e-13
"""A pair that improves by less than this share of the largest cost does not enter."""


class Simplex:
    """A feasible tree for positive weights a (n,) and b (m,), started on the pairs of ``known`` with the least ``key``.

    Args:
        known: Which pairs may enter, with their costs.
        key: (n, k) of these pairs.
        between: The costs of any rows and columns (k,), for pairs that are not known.
    """

    def __init__(
        self,
        a: np.ndarray,
        b: np.ndarray,
        known: Lists,
        key: np.ndarray,
        between: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> None:
        n, m = len(a), len(b)
        self.a, self.b, self.n, self.known = normalized(a), normalized(b), n, known
        self.parent, self.children = [-1] * (n + m), [set[int]() for _ in range(n + m)]
        self.cost, self.flow = [0.0] * (n + m), [0] * (n + m)  # of the edge to the parent
        self.depth, self.potential = [0] * (n + m), [0.0] * (n + m)
        supplies, demands = whole_masses(a, b)
        self.total, self.lower, self.pivots = sum(supplies), 0.0, 0
        edges = greedy(key, known.columns, supplies, demands)
        costs = between(*np.array([(i, j) for i, j, _ in edges], dtype=np.int64).T)
        self.least = -NOTHING * max(float(costs.max()), float(known.costs.max()))
        self._hang(edges, costs.tolist())

    @property
    def prices(self) -> np.ndarray:
        """Of the columns, q (m,)."""
        return np.array(self.potential[self.n :])

    @property
    def upper(self) -> float:
        """The cost of the tree's flow."""
        return sum(float(f / self.total) * c for f, c in zip(self.flow, self.cost, strict=True))

    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and masses of the flow, n + m − 1 each."""
        edges = [(v, w) if v < self.n else (w, v) for v, w in enumerate(self.parent) if w >= 0]
        masses = [f / self.total for f, w in zip(self.flow, self.parent, strict=True) if w >= 0]
        rows, columns = np.array(edges, dtype=np.int64).T
        return rows, columns - self.n, np.array(masses)

    def sweep(self, over: Callable[[], bool]) -> bool:
        """Look at all known pairs once; whether one could enter.

        ``lower`` is what the prices before it prove, unrounded, if no other pair is better.
        """
        potential = np.array(self.potential)
        sums = self.known.costs + potential[self.n :][self.known.columns]
        best = sums.argmin(1)
        least = np.take_along_axis(sums, best[:, None], 1)[:, 0]
        self.lower = float(self.a @ least - self.b @ potential[self.n :])
        improved = least - potential[: self.n]
        entering = np.nonzero(improved < self.least)[0]
        for i in entering[np.argsort(improved[entering])].tolist():
            self._enter(i, int(self.known.columns[i, best[i]]) + self.n, float(self.known.costs[i, best[i]]))
            if over():
                break
        return len(entering) > 0

    def _enter(self, i: int, j: int, cost: float) -> None:
        if cost + self.potential[j] - self.potential[i] >= self.least:
            return
        self.pivots += 1
        top = self._meeting(i, j)
        up, down = self._path(i, top), self._path(j, top)  # mass goes from i to j, and back through the tree
        givers = [v for v in up if v < self.n] + [v for v in down if v >= self.n]
        leaving = min(givers, key=self.flow.__getitem__)
        mass = self.flow[leaving]
        for v in up:
            self.flow[v] += mass if v >= self.n else -mass
        for v in down:
            self.flow[v] += mass if v < self.n else -mass
        on_the_side_of_i = leaving < self.n and leaving in up
        path, top = (up, j) if on_the_side_of_i else (down, i)
        self._rehang(path[: path.index(leaving) + 1], top, mass, cost)

    def _meeting(self, v: int, w: int) -> int:
        depth, parent = self.depth, self.parent
        while v != w:
            if depth[v] >= depth[w]:
                v = parent[v]
            else:
                w = parent[w]
        return v

    def _path(self, v: int, top: int) -> list[int]:
        path = []
        while v != top:
            path.append(v)
            v = self.parent[v]
        return path

    def _rehang(self, path: list[int], top: int, flow: int, cost: float) -> None:
        """What hangs on the last of a path of parents hangs on its first, and that on ``top``."""
        first = path[0]
        for v in path:
            self.children[self.parent[v]].discard(v)
            self.children[top].add(v)
            self.parent[v], top = top, v
            self.flow[v], flow = flow, self.flow[v]
            self.cost[v], cost = cost, self.cost[v]
        self._settle(first)

    def _settle(self, root: int) -> None:
        """Depths and potentials of all that hangs on a point, and its own."""
        waiting, depth, potential = [root], self.depth, self.potential
        while waiting:
            v = waiting.pop()
            above = self.parent[v]
            if above >= 0:
                depth[v] = depth[above] + 1
                potential[v] = potential[above] + (self.cost[v] if v < self.n else -self.cost[v])
            waiting.extend(self.children[v])

    def _hang(self, edges: list[tuple[int, int, int]], costs: list[float]) -> None:
        """The tree of these edges, from its first row down."""
        near = [list[tuple[int, int, float]]() for _ in self.parent]
        for (i, j, mass), cost in zip(edges, costs, strict=True):
            near[i].append((j + self.n, mass, cost))
            near[j + self.n].append((i, mass, cost))
        waiting = [0]
        while waiting:
            v = waiting.pop()
            for w, mass, cost in near[v]:
                if w != self.parent[v]:
                    self.parent[w], self.flow[w], self.cost[w] = v, mass, cost
                    self.children[v].add(w)
                    waiting.append(w)
        self._settle(0)


def whole_masses(a: np.ndarray, b: np.ndarray) -> tuple[list[int], list[int]]:
    """Positive integers of equal sums, near the weights, of which no proper parts of both sides have equal sums.

    Orden's perturbation: (n + 1)·A_i + 1 against (n + 1)·B_j, and n more for the last of these.
    """
    supplies, demands = _whole(a), _whole(b)
    lead = sum(supplies) - sum(demands)
    side, place = (demands, int(b.argmax())) if lead > 0 else (supplies, int(a.argmax()))
    side[place] += abs(lead)
    n = len(a)
    demands = [(n + 1) * mass for mass in demands]
    demands[-1] += n
    return [(n + 1) * mass + 1 for mass in supplies], demands


def _whole(weights: np.ndarray) -> list[int]:
    exact = [Fraction(w) for w in weights.tolist()]
    whole = sum(exact)
    return [max(1, int(w * 2**BITS / whole)) for w in exact]


def greedy(key: np.ndarray, columns: np.ndarray, supplies: list[int], demands: list[int]) -> list[tuple[int, int, int]]:
    """A tree of edges (i, j, mass): as much as possible on the pair with the least key, then on the next that can.

    Where the pairs (i, columns_ik) are not all, what is left goes to any pairs in the end.
    """
    rows, rest, edges = list(supplies), list(demands), list[tuple[int, int, int]]()
    alive_x, alive_y = np.ones(len(rows), dtype=bool), np.ones(len(rest), dtype=bool)
    order, start, step = np.argsort(key, axis=None), 0, 4 * (len(rows) + len(rest))
    while start < len(order):
        here = order[start : start + step]
        first, second = here // key.shape[1], columns[np.unravel_index(here, key.shape)]
        some = alive_x[first] & alive_y[second]
        for i, j in zip(first[some].tolist(), second[some].tolist(), strict=True):
            _join(i, j, rows, rest, edges)
            alive_x[i], alive_y[j] = rows[i] > 0, rest[j] > 0
        start, step = start + step, 2 * step
    left_x, left_y = np.nonzero(alive_x)[0].tolist(), np.nonzero(alive_y)[0].tolist()
    while left_x and left_y:
        _join(left_x[-1], left_y[-1], rows, rest, edges)
        (left_y if rows[left_x[-1]] else left_x).pop()
    return edges


def _join(i: int, j: int, rows: list[int], columns: list[int], edges: list[tuple[int, int, int]]) -> None:
    mass = min(rows[i], columns[j])
    if mass:
        rows[i], columns[j] = rows[i] - mass, columns[j] - mass
        edges.append((i, j, mass))

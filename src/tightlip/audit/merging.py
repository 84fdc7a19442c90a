"""Neighboring affine maps as one: ‖diag(1/std)·W‖ in place of max(1/std)·‖W‖.

A **run** is a path of nodes in the graph, each affine. From the value where it starts to the one where it ends it is
x ↦ Ax + b, whatever else takes the values between, and ‖A‖_{p→q} is never above what its parts compose to. A is
multiplied out with a proven bound on the rounding (`linalg.enclosure`), and the smaller of both bounds counts.

Runs are as long as they can be (`joining` says what joins what), and are bounded where they end. If all parts but one
are multiples of the identity, nothing can be gained, and nothing is computed.
"""

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from .affine import Affine, Channels, Flat, Linearly, Matrix, Uniform
from .gains import Gains
from .graph import Node, Nodes
from .joining import joined
from .registry import registered
from .trust import original_type


@dataclass(frozen=True)
class Run:
    """Nodes one after another that are one affine map, and what is proven of it.

    ``start`` is the value that the first takes, as in `Node.inputs`; ``nodes`` are numbers in the list of nodes.
    """

    start: int
    nodes: tuple[int, ...]
    gains: Gains


@dataclass(frozen=True)
class Open:
    """A run that may go on: ``form`` times ``factor``, and a shift.

    ``flat`` says whether a `Flat` came after all of ``form``; ``parts`` counts what is no multiple of the identity.
    """

    start: int
    nodes: tuple[int, ...] = ()
    factor: Fraction = Fraction(1)
    form: Linearly | None = None
    flat: bool = False
    parts: int = 0

    def then(self, part: Affine, number: int, rows: bool) -> "Open | None":
        """With node ``number`` after it, which is ``part``; None where the two are not multiplied out.

        ``rows`` says whether the value between is known to be (batch, features).
        """
        form, flat, factor, parts = self.form, self.flat, self.factor, self.parts
        if isinstance(part, Uniform):
            factor *= part.factor
        elif isinstance(part, Flat):
            flat = True
        else:
            form = part if self.form is None else joined(self.form, part, self.flat, rows)
            flat, parts = False, parts + 1
        return (
            Open(self.start, (*self.nodes, number), factor, form, flat, parts)
            if form is not None or not parts
            else None
        )

    def closed(self) -> Run:
        """With what is proven of the whole at once."""
        assert self.form is not None
        norms = {pair: self.factor * norm for pair, norm in self.form.norms().items()}
        return Run(self.start, self.nodes, Gains(norms))


def affine_runs(network: Nodes) -> dict[int, Run]:
    """The runs of several parts, by the value that each ends in."""
    uses = Counter(i for node in network.nodes for i in node.inputs) + Counter([network.output])
    last = {i: number for number, node in enumerate(network.nodes) for i in node.inputs}
    running: dict[int, Open] = {}
    longer: Counter[int] = Counter()
    rows: set[int] = set()
    found: dict[int, Run] = {}

    def close(value: int) -> None:
        run = running.pop(value, None)
        if run is not None and run.parts > 1 and longer[value] < uses[value]:
            found[value] = run.closed()

    for number, node in enumerate(network.nodes):
        value, part = number + 1, stated(node)
        if isinstance(part, Flat) or (any(i in rows for i in node.inputs) and keeps_rows(node)):
            rows.add(value)
        if part is not None:
            (before,) = node.inputs
            run = running.get(before)
            going_on = None if run is None else run.then(part, number, before in rows)
            longer[before] += going_on is not None
            opened = going_on or Open(before).then(part, number, before in rows)
            assert opened is not None
            running[value] = opened
            if going_on is not None and run is not None and only_rows_fit(run, part, going_on):
                rows.add(value)
        for i in {*node.inputs}:
            if last[i] == number and i != network.output:
                close(i)
    for value in [*running]:
        close(value)
    return found


def stated(node: Node) -> Affine | None:
    """What the type of a node's module states about its linear part, if it states anything."""
    if not isinstance(node.operation, nn.Module):
        return None
    stated = registered()[original_type(node.operation)].affine
    return None if stated is None else stated(node.operation)


def keeps_rows(node: Node) -> bool:
    """Whether what is made of (batch, features) has two axes again: joins, and types with a rule of the library's own.

    All of these do that do not say otherwise; of a caller's own types it is not known.
    """
    if not isinstance(node.operation, nn.Module):
        return True
    known = registered()[original_type(node.operation)]
    ours = known.rule is not None and known.rule.__module__.split(".")[0] == __name__.split(".")[0]
    return ours and not known.reshapes


def only_rows_fit(run: Open, part: Affine, product: Open) -> bool:
    """A matrix with numbers per channel before or after it was only multiplied out where all of these are rows."""
    beside = isinstance(run.form, Channels) or isinstance(part, Channels)
    return beside and isinstance(product.form, Matrix) and not isinstance(part, Uniform)

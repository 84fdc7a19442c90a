"""Sums of a forward whose terms may have different shapes: torch would repeat one of them, and the bound be too small.

0.01·x + layer(x) with `layer = nn.Linear(64, 1)` adds one number to 64 others, so √64 times as much as its rule says.
A `Graph` raises where that happens; the forward that it was traced from does not. So shapes are followed for inputs
with every number of axes and of entries that the layers take, and a sum is refused unless its terms have one shape for
all of them. (Of more axes, the same index means another one: x[:, :2] takes features of rows and tokens of sequences.)
A forward says how many axes it takes by a layer that takes no other number, or by x.flatten(1) and x.permute(0, 1, 2).
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ..audit import Concat, Join, Sum, audit, expand
from ..audit.graph import Node, Nodes, fold
from ..audit.trust import original_type
from ..errors import TightlipError
from .extents import Axes, Extents, Misfit
from .shapes import RULES, Shape, Unknown, after, placed
from .spans import LEAST_SEEN, input_span

MOST_AXES = 5
"""Of inputs, after that of the batch; more where axes are counted further from both ends than that."""

TORCH_AXES = 64
"""Of a tensor, at most."""

MOST_ENTRIES = 2**20
"""Along an axis."""


def refuse_broadcasting(graph: nn.Module) -> tuple[int, ...] | None:
    """The shape, without the batch, of some input that a traced graph takes, if one is found.

    Raises:
        TightlipError: if terms of a sum may have different shapes.
    """
    network = expand(graph)
    largest = max((n for n in _numbers(graph) if n <= MOST_ENTRIES), default=0)
    span = input_span(network)
    most = min(MOST_ENTRIES, max(512 + 2 * largest, span(LEAST_SEEN + 2 * largest)))
    taken: Extents | None = None
    for axes in range(1, max(MOST_AXES, _counted(graph)) + 1):
        extents = Extents(axes, most)
        try:
            for check in (False, False, True):  # what a layer demands holds of all values before it
                fold(network, extents.input, _layer(extents), _join(extents, check))
        except Misfit:
            continue
        taken = taken or extents
    if _adds_values(network) and (taken is None or span(LEAST_SEEN) > MOST_ENTRIES):
        audit(graph)  # the sentence of a layer says more
        raise TightlipError(
            f"it adds values, and no inputs with up to {MOST_ENTRIES} entries along an axis show whether torch would "
            "repeat one (broadcast): register a layer that adds them with @tightlip.rule"
        )
    size = None if taken is None else _middle(taken.examples())
    return None if taken is None or size is None else tuple(taken.at(extent, size) or 0 for extent in taken.input)


def _adds_values(network: Nodes) -> bool:
    """Whether a sum of the graph's own takes several values."""
    sums = [node for node in network.nodes if isinstance(node.operation, Sum) and node.name.startswith("value ")]
    return any(len({*node.inputs}) > 1 for node in sums)


def _counted(graph: nn.Module) -> int:
    """So many axes an input has whose axes, counted from the first and from the last as layers do, are all others."""
    known = [vars(layer).items() for layer in graph.modules() if original_type(layer) in RULES]
    options = [value for option in known for name, value in option if "dim" in name]
    dims = [n for value in options for n in (value if isinstance(value, tuple) else [value]) if type(n) is int]
    return min(max([*dims, 0]) - min([*dims, 0]), TORCH_AXES)


def _middle(sizes: Sequence[int]) -> int | None:
    """A size that is neither special nor large."""
    return next((size for size in sizes if size >= 4), sizes[-1] if sizes else None)


def _numbers(graph: nn.Module) -> set[int]:
    """Numbers that layers state of sizes."""
    found = {size for tensor in graph.parameters() for size in tensor.shape}
    for layer in graph.modules():
        for value in vars(layer).values():
            found |= {n for n in (value if isinstance(value, tuple | list) else [value]) if type(n) is int}
    return found


def _layer(extents: Extents) -> Callable[[Node, Any], Any]:
    def layer(node: Node, shape: Shape) -> Shape:
        assert isinstance(node.operation, nn.Module)
        return after(extents, node.operation, shape)

    return layer


def _join(extents: Extents, check: bool) -> Callable[[Node, list[Any]], Any]:
    def join(node: Node, shapes: list[Shape]) -> Shape:
        if isinstance(node.operation, Concat):
            return _put_together(extents, node.operation, shapes)
        checked: Join | None = None
        if check and isinstance(node.operation, Sum) and node.name.startswith("value "):  # others raise by themselves
            checked = node.operation
        made = shapes[0]
        for shape in shapes[1:] if isinstance(node.operation, Sum) else []:
            made = _added(extents, made, shape, checked)
        return made

    return join


def _added(extents: Extents, one: Shape, other: Shape, checked: Join | None) -> Shape:
    """The shape of a sum of two."""
    if isinstance(one, Unknown) or isinstance(other, Unknown):
        if checked is not None and one is not other:
            raise _refusal(len(extents.input), "a shape that no rule tells", checked)
        return one
    if len(one) != len(other):
        if checked is not None:
            raise _refusal(len(extents.input), f"{len(one) + 1} and of {len(other) + 1} axes", checked)
        return max(one, other, key=len)
    for a, b in zip(one, other, strict=True):
        if extents.can_differ(a, b) and checked is not None:
            raise _refusal(len(extents.input), f"{_told(extents, one)} and {_told(extents, other)}", checked)
    return tuple(b if extents.known(a) == 1 else a for a, b in zip(one, other, strict=True))


def _told(extents: Extents, shape: Axes) -> str:
    sizes = [extents.known(extent) for extent in shape]
    return f"[batch, {', '.join(str(size) if isinstance(size, int) else '…' for size in sizes)}]"


def _refusal(axes: int, shapes: str, operation: Join) -> TightlipError:
    return TightlipError(
        f"of inputs with {axes + 1} axes it adds values of {'shapes ' if '[' in shapes else ''}{shapes} ({operation}), "
        "of which torch would repeat one (broadcast), and the bound would be too small: give layers that keep the "
        "shape, or say what comes in: how many entries, as x.unflatten(1, (8,)) does, or how many axes, as "
        "x.flatten(1) does of rows and x.permute(0, 1, 2) of sequences"
    )


def _put_together(extents: Extents, join: Concat, shapes: list[Shape]) -> Shape:
    known = [shape for shape in shapes if not isinstance(shape, Unknown)]
    if len(known) < len(shapes):
        return Unknown()
    if len({len(shape) for shape in known}) > 1:
        raise Misfit
    place = placed(join.dim, len(known[0]))
    for number, sizes in enumerate(zip(*known, strict=True)):
        for size in sizes[1:] if number != place else ():
            extents.agree(sizes[0], size)
    total = extents.total([shape[place] for shape in known])
    return (*known[0][:place], total, *known[0][place + 1 :])

"""The new network, node by node: what each layer and each join has become, and what is known of each value."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor, nn

from ...audit import Concat, Join, Node, Nodes, Sum
from ...errors import TightlipError
from ...graphs import Flip, Graph, Offset, Outputs, Permute, Roll, Squeeze, Transpose, Unsqueeze
from ...graphs.graph import Row as Line
from ...layers import Scale
from ...linalg.rounding import round_down
from .folding import folded, foldings
from .forms import Form, after, joined
from .joins import mean_of, spread, told
from .keeping import lasting
from .registry import Change, Place, StandIn, changed
from .table import Row, described

_SHAPES: tuple[type[nn.Module], ...] = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    Squeeze,
    Unsqueeze,
    Transpose,
    Permute,
    Roll,
    Flip,
)
"""Layers that only arrange entries: the table leaves them out."""


class Building:
    """A network on the way from what it was to what it becomes.

    Args:
        old: The nodes that it was.
        norm: p.
        names: Of its modules, by their identities.
        tied: Identities of parameters that several layers have.
        example: Its input, or None.
    """

    def __init__(
        self, old: Nodes, norm: float, names: dict[int, str], tied: set[int], example: Tensor | None = None
    ) -> None:
        self.old, self.norm, self.names, self.tied = old, norm, names, tied
        self.table: list[Row] = []
        self.problems: list[str] = []
        self._layers: dict[str, nn.Module] = {}
        self._rows: list[Line] = []
        self._values = [0]  # of the new network, by those of the old one
        self._labels = ["input"]  # of the old one's values
        self._seen = [example]
        self._forms = [Form() if example is None else Form().seen(example.shape)]
        self._done: dict[int, tuple[str | None, float | None]] = {}
        self._folded = foldings(old, tied)
        self._ends = _ends(old)

    def build(self, scale: Scale) -> None:
        """All nodes, and the constant after them; what is refused is in ``problems``."""
        norms = {before: number for number, before in self._folded.items()}
        for number, node in enumerate(self.old.nodes):
            if isinstance(node.operation, Outputs):
                self._outputs(node, scale)
            elif isinstance(node.operation, Join):
                self._join(node)
            elif number in self._folded:
                self._fold(node)
            else:
                norm: Any = self.old.nodes[norms[number]].operation if number in norms else None
                self._layer(number, node, norm)
        if not isinstance(self.old.nodes[-1].operation if self.old.nodes else None, Outputs):
            self._scale(scale, [self._values[self.old.output]])

    def network(self) -> nn.Module:
        """The network: an ``nn.Sequential`` where each layer takes what the one before makes, else a `Graph`."""
        keys = [operation for operation, _ in self._rows if isinstance(operation, str)]
        chain = all(inputs == (number,) for number, (_, inputs) in enumerate(self._rows))
        if chain and len({*keys}) == len(self._rows):
            return nn.Sequential(OrderedDict((key, self._layers[key]) for key in keys))
        return Graph(self._layers, self._rows)

    def _layer(self, number: int, node: Node, norm: nn.Module | None) -> None:
        layer: nn.Module = node.operation  # type: ignore[assignment]
        (source,) = (self._values[i] for i in node.inputs)
        name = self.names.get(id(layer), node.name) or type(layer).__name__
        self._labels.append(name)
        if id(layer) not in self._done:
            tied = any(id(parameter) in self.tied for parameter in layer.parameters())
            place = Place(name, self.norm, self._forms[source], number in self._ends, tied)
            try:
                key, factor = self._become(layer if norm is None else folded(layer, norm), layer, place)
            except TightlipError as problem:
                kind = type(layer.layer if isinstance(layer, StandIn) else layer).__name__
                self.problems.append(f"{name} ({kind}): {problem}")
                key, factor = None, None
            if any(True for _ in layer.parameters()):
                self._done[id(layer)] = key, factor
        else:
            key, factor = self._done[id(layer)]
        value = source if key is None else self._put(key, source)
        self._values.append(value if factor is None else self._put(Sum(factor), value))

    def _become(self, layer: nn.Module, was: nn.Module, place: Place) -> tuple[str | None, float | None]:
        """The key of what a layer becomes, and the factor after it."""
        text = described(was.layer if isinstance(was, StandIn) else was)
        change = changed(layer, place)
        factor = None if change.layer is None else _factor(change, place.norm)
        key = None if change.layer is None else self._named(place.name, change.layer)
        same = change.layer is was or change.layer is getattr(was, "layer", None)
        now = described(change.layer)
        became = (
            "kept"
            if same and now == text
            else f"held{now.removeprefix(text)}"
            if now.startswith(f"{text} on ")
            else now
        )
        by = "" if factor is None else f" · {factor:.4g}"
        if change.layer is not was or type(was) not in _SHAPES:
            self.table.append(Row(place.name, text, became + by, change.reason))
        return key, factor

    def _fold(self, node: Node) -> None:
        layer: Any = node.operation
        before, name = self._labels[node.inputs[0]], self.names.get(id(layer), node.name)
        reason = f"part of {before}: its scale in the weight, its shift in the bias"
        self.table.append(Row(name, described(layer), "", reason))
        self._labels.append(name)
        self._values.append(self._values[node.inputs[0]])

    def _join(self, node: Node) -> None:
        join, names = node.operation, [self._labels[i] for i in node.inputs]
        assert isinstance(join, Join)
        inputs = [self._values[i] for i in node.inputs]
        if isinstance(join, Sum) and join.weights == (1.0,):
            self._labels.append(names[0])
            self._values.append(inputs[0])
            return
        kind = "cat" if isinstance(join, Concat) else "sum"
        label = f"{kind} {1 + sum(row.place.startswith(f'{kind} ') for row in self.table)}"
        self._labels.append(label)
        if isinstance(join, Concat):
            factor = spread(len(inputs), self.norm)
            words = f"the {len(inputs)} together are no steeper than one"
            self.table.append(Row(label, told(join, names), f"the same · {factor:.4g}", words))
            self._values.append(self._put(Sum(factor), self._put(join, *inputs)))
            return
        assert isinstance(join, Sum)
        mean = mean_of(join)
        became = "kept" if mean is None else f"the same · {mean.weights[0] / join.weights[0]:.4g}"
        self.table.append(Row(label, told(join, names), became, _WHY[mean is None]))
        self._values.append(self._put(mean or join, *inputs))

    def _outputs(self, node: Node, scale: Scale) -> None:
        factor = spread(len(node.inputs), self.norm)
        values = [self._put(Sum(factor), self._values[i]) for i in node.inputs]
        names = [self._labels[i] for i in node.inputs]
        words = f"the {len(values)} together are no steeper than one"
        self.table.append(Row("outputs", ", ".join(names), f"each · {factor:.4g}", words))
        assert isinstance(node.operation, Outputs)
        self._rows.append((node.operation, tuple(self._scale(scale, values))))

    def _scale(self, scale: Scale, values: Sequence[int]) -> list[int]:
        key = self._named("scale", scale)
        self.table.append(Row(key, "", described(scale), "the constant"))
        return [self._put(key, value) for value in values]

    def _named(self, name: str, layer: nn.Module) -> str:
        """The key of a new layer."""
        key = name.replace(".", "_") or "layer"
        while key in self._layers or hasattr(Graph, key) or key in ("table", "training", "eval_only"):
            key += "_"
        self._layers[key] = layer
        return key

    def _put(self, operation: str | Join, *inputs: int) -> int:
        """A row of the new network, and what is known of the value that it makes."""
        self._rows.append((operation, inputs))
        forms, seen = [self._forms[i] for i in inputs], [self._seen[i] for i in inputs]
        layer: Any = operation if isinstance(operation, Join) else self._layers[operation]
        form = joined(layer, forms) if isinstance(layer, Join) else after(layer, forms[0])
        made = None if self.problems or any(x is None for x in seen) else layer(*seen)
        self._seen.append(made)
        self._forms.append(form if made is None else form.seen(made.shape))
        return len(self._rows)


_WHY = {True: "its weights add up to 1 at most", False: "as a mean it is no steeper than its parts"}


def _factor(change: Change, p: float) -> float | None:
    """What brings a layer to 1, where more is proven of it, or less and the change says so."""
    assert change.layer is not None
    constant = lasting(change.layer, p)
    if constant > 1 or (change.full and 0 < constant < 1):
        return round_down(1 / Fraction(constant))
    return None


def _ends(network: Nodes) -> set[int]:
    """The numbers of nodes whose results are outputs, but for their shape, and numbers that they are scaled by."""
    uses = Counter(i for node in network.nodes for i in node.inputs) + Counter([network.output])
    found, todo = set[int](), [network.output]
    while todo:
        value = todo.pop()
        if value == 0 or uses[value] > 1:
            continue
        _, operation, inputs = network.nodes[value - 1]
        found.add(value - 1)
        alone = isinstance(operation, Sum) and len(inputs) == 1
        if alone or isinstance(operation, Concat | Outputs) or type(operation) in (*_SHAPES, Offset):
            todo += inputs
    return found

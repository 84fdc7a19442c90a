"""A network as a list of nodes in the order of computation, and the one loop over it.

Each node is a module with a rule of its own, or a join of several values: a weighted `Sum`, or a `Concat`. Containers
are opened here and nowhere else (`registry.container`); audit, certificates, files and tables all go through `fold`.
"""

import abc
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..errors import TightlipError
from ..linalg.rounding import norm_above
from .gains import Gains
from .registry import Part, container, registered
from .trust import original_type, refuse_altered

T = TypeVar("T")


class Join(abc.ABC):
    """Several values in, one out; an object without tensors."""

    @abc.abstractmethod
    def __call__(self, *values: Tensor) -> Tensor:
        """The values (batch, …) joined; raises `TightlipError` where their shapes do not fit."""

    @abc.abstractmethod
    def gains(self, terms: Sequence[Gains]) -> Gains:
        """From the gains of the values those of what they are joined to."""

    @abc.abstractmethod
    def error(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], gamma: Callable[[int], float]) -> Tensor:
        """How far the computed result may be from the exact one in the 2-norm, (batch,), before the last rounding up.

        It is sublinear in errors and sizes together, and holds of the ∞-norm too.

        Args:
            errors: How far the values may be, each (batch,).
            sizes: Their 2-norms.
            gamma: γ_n of the arithmetic, for n operations on a number.
        """


class Sum(Join):
    """Σ w_i·x_i of values of one shape.

    >>> Sum(0.5, -0.5)(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    tensor([[1.]])
    """

    def __init__(self, *weights: float) -> None:
        if not weights or not all(math.isfinite(w) for w in weights):
            raise TightlipError(f"the weights of a sum must be finite numbers, got {weights}")
        self.weights = tuple(float(w) for w in weights)

    def __call__(self, *values: Tensor) -> Tensor:
        """Values of one shape → the same; others would be broadcast, so repeated, and the bound would be wrong."""
        if any(value.shape != values[0].shape for value in values):  # no set: in a trace, sizes are tensors
            shapes = " and ".join(str(list(value.shape)) for value in values)
            raise TightlipError(f"values of shapes {shapes} cannot be added: give layers that keep the shape")
        terms = [value if w == 1 else value * w for w, value in zip(self.weights, values, strict=True)]
        return sum(terms[1:], terms[0])

    def gains(self, terms: Sequence[Gains]) -> Gains:
        """Those of a sum."""
        return Gains.plus(terms, self.weights)

    def error(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], gamma: Callable[[int], float]) -> Tensor:
        """Σ |w_i|·error_i, and the rounding of products and sums; products with powers of two are exact."""
        shares = torch.tensor(self.weights, dtype=torch.float64).abs().unsqueeze(1)
        shares = shares.to(errors[0].device)
        exact = len(self.weights) <= 2 and all(abs(math.frexp(w)[0]) == 0.5 or w == 0 for w in self.weights)
        unit = gamma(1) if exact else 1.01 * gamma(len(self.weights) + 1)
        return (shares * torch.stack(tuple(errors))).sum(0) + unit * (shares * torch.stack(tuple(sizes))).sum(0)

    def __repr__(self) -> str:
        return f"Sum({', '.join(f'{w:g}' for w in self.weights)})"


class Concat(Join):
    """Values put together along an axis other than that of the batch."""

    def __init__(self, dim: int) -> None:
        if type(dim) is not int or dim == 0:
            raise TightlipError(f"values are put together along an axis other than that of the batch, got dim={dim!r}")
        self.dim = dim

    def __call__(self, *values: Tensor) -> Tensor:
        """Values that are alike but for one axis."""
        if self.dim < 0 and any(value.dim() + self.dim < 1 for value in values):
            raise TightlipError(f"axis {self.dim} of these values is that of the batch: give another dim")
        return torch.cat(values, self.dim)

    def gains(self, terms: Sequence[Gains]) -> Gains:
        """Those of one long vector."""
        return Gains.beside(terms)

    def error(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], gamma: Callable[[int], float]) -> Tensor:
        """What is put together was not computed: the root of the squares of the errors, from above."""
        return norm_above(torch.stack(tuple(errors)), 2, 0)

    def __repr__(self) -> str:
        return f"Concat(dim={self.dim})"


class Node(NamedTuple):
    """One operation: its place in the network, and which values it takes.

    Value 0 is the network's input, value i what node i − 1 makes.
    """

    name: str
    operation: nn.Module | Join
    inputs: tuple[int, ...]


class Nodes(NamedTuple):
    """A network as its nodes, and which value is its output."""

    nodes: tuple[Node, ...]
    output: int

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules, with their places."""
        return ((name, operation) for name, operation, _ in self.nodes if isinstance(operation, nn.Module))


def within(name: str, key: str) -> str:
    """The place of what is called ``key`` inside of what is at ``name``."""
    return ".".join(filter(None, (name, key)))


_TRACERS: list[Callable[[nn.Module], nn.Module]] = []


def trace_with(tracer: Callable[[nn.Module], nn.Module]) -> None:
    """Have modules with a forward of the user's own opened by ``tracer``, which makes known modules of them."""
    _TRACERS[:] = [tracer]


def is_traced(module: nn.Module) -> bool:
    """Whether a module has a forward of the user's own: no type of torch's, and none that refines one with a rule."""
    cls = type(module)
    if original_type(module) in registered() or cls.__module__.split(".")[0] == "torch" or not _TRACERS:
        return False
    ruled = [kind for kind, known in registered().items() if known.rule is not None]
    return cls.forward is not nn.Module.forward and not issubclass(cls, tuple(ruled))


def _traced(module: nn.Module, name: str) -> nn.Module:
    try:
        return _TRACERS[0](module)
    except TightlipError as problem:
        where = f"{type(module).__name__} at {name!r}" if name else type(module).__name__
        advice = "rewrite it, or register one with @tightlip.rule(YourModule)"
        raise TightlipError(f"no Lipschitz rule is known for {where}, and {problem}: {advice}") from problem


def refuse_other_things(module: object) -> None:
    """Raise for what is no module, such as a list of layers, or a class."""
    if isinstance(module, type):
        raise TightlipError(f"{module.__name__} is a class: give a network (nn.Module) that was made of it")
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise TightlipError(f"a network (nn.Module) is needed, got a {kind}: give layers as nn.Sequential(…)")


def expand(module: nn.Module, name: str = "") -> Nodes:
    """The nodes of a network, containers opened.

    Raises:
        TightlipError: for a module that is not known, or not exactly what is known; for what is no module.
    """
    refuse_other_things(module)
    nodes: list[Node] = []
    opened: set[int] = set()

    def place(module: nn.Module, name: str, value: int) -> int:
        if is_traced(module):
            module = _traced(module, name)
        refuse_altered(module, name)
        parts = registered()[original_type(module)].expand
        if parts is None:
            nodes.append(Node(name, module, (value,)))
            return len(nodes)
        if id(module) in opened:
            raise TightlipError(f"the {type(module).__name__} at {name!r} contains itself: give a network that ends")
        opened.add(id(module))
        values = [value]
        for key, operation, inputs in parts(module):
            if isinstance(operation, Join):
                nodes.append(Node(within(name, key), operation, tuple(values[i] for i in inputs)))
                values.append(len(nodes))
            else:
                values.append(place(operation, within(name, key), values[inputs[0]]))
        opened.remove(id(module))
        return values[-1]

    output = place(module, name, 0)
    return Nodes(tuple(nodes), output)


def fold(network: Nodes, start: T, layer: Callable[[Node, T], T], join: Callable[[Node, list[T]], T]) -> T:
    """What ``layer`` and ``join`` make of the values that each node takes, node by node from ``start`` on: the output.

    A value is let go after the last node that takes it.
    """
    last = {i: number for number, node in enumerate(network.nodes) for i in node.inputs} | {network.output: math.inf}
    values = {0: start}
    for number, node in enumerate(network.nodes):
        taken = [values[i] for i in node.inputs]
        for i in {*node.inputs}:
            if last[i] == number:
                del values[i]
        values[number + 1] = join(node, taken) if isinstance(node.operation, Join) else layer(node, taken[0])
    return values[network.output]


def chain(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of a network in which each takes what the one before makes, with their places.

    Raises:
        TightlipError: for a network with sums or other joins.
    """
    for place, operation, _ in expand(module, name).nodes:
        if isinstance(operation, Join):
            raise TightlipError(f"{operation} at {place!r} joins values: give a network of layers one after another")
        yield place, operation


@container(nn.Sequential, build=lambda modules: nn.Sequential(OrderedDict(modules)))
def _sequential(module: nn.Sequential) -> list[Part]:
    return [Part(key, child, (number,)) for number, (key, child) in enumerate(module._modules.items())]

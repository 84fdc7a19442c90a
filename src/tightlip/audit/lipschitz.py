"""The audit: a proven Lipschitz constant, from the numbers that are really stored.

`lipschitz(module, p, q)` composes what each layer can prove (`gains`), node by node from the input on. So a 2→∞ first
layer followed by ∞→∞ layers (paper, Theorem 3) is audited as what it is. Constants are float64 upper bounds, composed
as exact rationals and rounded up once. What no rule can prove raises; a flag, a class name or an iteration count
proves nothing.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from torch import nn

from ..errors import TightlipError
from ..linalg.rounding import round_up
from ..norms import NORMS, PAIRS, as_norm, norm_name
from .gains import Gains
from .graph import Join, Node, Nodes, expand, fold
from .registry import registered
from .trust import original_type

ARITHMETIC = "exact arithmetic on the stored weights; every constant is a float64 upper bound"


@dataclass(frozen=True)
class Bound:
    """A proven constant: ‖f(x) − f(x')‖_output ≤ constant · ‖x − x'‖_input for all x, x'.

    ``layers`` holds one (name, module text, bound in the best matching norms) row per layer, in order.
    """

    constant: float
    input_norm: float
    output_norm: float
    arithmetic: str = ARITHMETIC
    layers: tuple[tuple[str, str, "Bound"], ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        return f"Bound({norm_name(self.input_norm)}→{norm_name(self.output_norm)}, constant={self.constant!r})"

    @property
    def sensitivity(self) -> float:
        """How fast a difference of two outputs can change: 2^(1 − 1/q)·constant, rounded up (q the output norm)."""
        return round_up(Fraction(self.constant) * _PAIR_FACTOR[self.output_norm])


_PAIR_FACTOR = {1.0: Fraction(1), 2.0: Fraction(math.nextafter(math.sqrt(2.0), 2.0)), math.inf: Fraction(2)}


@dataclass(frozen=True)
class Audit:
    """A network, what is proven of each of its nodes alone, and from its input to what each node makes.

    ``reached`` has one entry more than there are nodes: the first is that of the input itself.
    """

    network: Nodes
    known: tuple[Gains, ...]
    reached: tuple[Gains, ...]

    @property
    def total(self) -> Gains:
        """What is proven of the whole."""
        return self.reached[self.network.output]


def lipschitz(module: nn.Module, p: float, q: float | None = None) -> Bound:
    """A proven Lipschitz constant of ``module`` from the p-norm to the q-norm of flattened inputs and outputs.

    Args:
        module: A network of modules with rules; training mode, caches and flags are ignored.
        p: Norm of the input: 1, 2 or ``math.inf``.
        q: Norm of the output; None picks the one with the smallest margin sensitivity 2^(1−1/q)·K.

    Raises:
        TightlipError: if a module has no rule, has been altered (subclass, replaced forward, foreign hook or
            parametrization), holds NaN, or if no rule proves this pair of norms.

    >>> lipschitz(nn.Sequential(nn.ReLU(), nn.Flatten()), 2).constant
    1.0
    """
    return bound_of(audit(module), p, q)


def audit(module: nn.Module, name: str = "") -> Audit:
    """What every rule in a network has to say."""
    network = expand(module, name)
    known: list[Gains] = []
    reached = [Gains.constant(1.0)]

    def layer(node: Node, before: Gains) -> Gains:
        known.append(_of_layer(node.operation, node.name))  # type: ignore[arg-type]
        reached.append(before.then(known[-1]))
        return reached[-1]

    def join(node: Node, before: Sequence[Gains]) -> Gains:
        known.append(node.operation.gains([Gains.constant(1.0)] * len(before)))  # type: ignore[union-attr, operator]
        reached.append(node.operation.gains(before))  # type: ignore[union-attr, operator]
        return reached[-1]

    fold(network, reached[0], layer, join)
    return Audit(network, tuple(known), tuple(reached))


def _of_layer(module: nn.Module, name: str) -> Gains:
    function = registered()[original_type(module)].rule
    assert function is not None  # containers are opened by `expand`
    return function(module, name=name) if "name" in inspect.signature(function).parameters else function(module)


def gains(module: nn.Module, name: str = "") -> Gains:
    """Every proven constant of one module, or of a network of modules."""
    audited = audit(module, name)
    return audited.known[0] if len(audited.known) == 1 and audited.network.output == 1 else audited.total


def bound_of(audited: Audit, p: float, q: float | None = None) -> Bound:
    """What `lipschitz` says of an audited network."""
    p, total = as_norm(p), audited.total
    choices = [_bound(total, p, s) for s in ([as_norm(q)] if q is not None else NORMS) if (p, s) in total.table]
    if not choices:
        asked = f"{norm_name(p)}→{norm_name(q)}" if q is not None else f"any norm from {norm_name(p)}"
        raise TightlipError(f"no rule proves a bound for {asked} on this network: ask for another pair with p ≤ q")
    best = min(choices, key=lambda bound: bound.sensitivity)
    rows = zip(audited.network.nodes, audited.known, strict=True)
    layers = tuple((n.name, _describe(n.operation), _best(layer, p, best.output_norm)) for n, layer in rows)
    return Bound(best.constant, p, best.output_norm, layers=layers)


def _bound(total: Gains, p: float, q: float) -> Bound:
    return Bound(representable(round_up(Fraction(total.table[p, q]))), p, q)


def representable(value: float) -> float:
    """A constant that a float64 can hold, or a sentence."""
    if math.isinf(value):
        raise TightlipError("a Lipschitz constant exceeds the largest float64: scale the weights down")
    return value


def _best(layer: Gains, p: float, q: float) -> Bound:
    """The row of a layer in the table of a p→q network: its own pair, or the nearest that it can prove."""
    for pair in ((p, p), (p, q), (q, q), *PAIRS):
        if pair in layer.table:
            return _bound(layer, *pair)
    raise TightlipError("a rule returned no bound at all: return at least one entry in Gains")


def _describe(operation: nn.Module | Join) -> str:
    return repr(operation).splitlines()[0].rstrip("(")

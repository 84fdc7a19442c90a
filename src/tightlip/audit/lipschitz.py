"""The audit: a proven Lipschitz constant, from the numbers that are really stored.

`lipschitz(module, p, q)` composes what each layer can prove (`gains`), node by node from the input on. So a 2→∞ first
layer followed by ∞→∞ layers (paper, Theorem 3) is audited as what it is. Constants are float64 upper bounds, composed
as exact rationals and rounded up once. What no rule can prove raises; a flag, a class name or an iteration count
proves nothing.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce

from torch import nn
from tqdm import tqdm

from ..errors import TightlipError
from ..linalg.rounding import round_up
from ..norms import NORMS, PAIRS, as_exponent, as_norm, norm_name
from .affine import Kernel, Matrix
from .gains import Gains
from .graph import Join, Node, Nodes, expand, fold, refuse_other_things
from .merging import Run, affine_runs, stated
from .other_norms import from_norm
from .registry import registered
from .trust import original_type

ARITHMETIC = "exact arithmetic on the stored weights; every constant is a float64 upper bound"


@dataclass(frozen=True)
class Bound:
    """A proven constant: ‖f(x) − f(x')‖_output ≤ constant · ‖x − x'‖_input for all x, x'.

    ``layers`` holds one (name, module text, bound in the best matching norms) row per layer, in order. ``merged`` holds
    such a row for every run of affine layers that was multiplied out, where that is less than one after another by more
    than a millionth: its first and last name, what it is made of, and what is proven of the whole run.

    ``spectral`` and ``runs`` are for who proves the constant again (`tightlip-check`): the 2→2 norm of every layer that
    is a matrix or a kernel, by its name; and the runs for which less is proven than one after another, however little.
    """

    constant: float
    input_norm: float
    output_norm: float
    arithmetic: str = ARITHMETIC
    layers: tuple[tuple[str, str, "Bound"], ...] = field(default=(), repr=False)
    merged: tuple[tuple[str, str, "Bound"], ...] = field(default=(), repr=False)
    spectral: tuple[tuple[str, float], ...] = field(default=(), repr=False)
    runs: tuple[str, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        norms = f"{norm_name(self.input_norm)}→{norm_name(self.output_norm)}"
        return f"{type(self).__name__}({norms}, constant={self.constant!r})"

    @property
    def sensitivity(self) -> float:
        """How fast a difference of two outputs can change: 2^(1 − 1/q)·constant, rounded up (q the output norm)."""
        return round_up(Fraction(self.constant) * _PAIR_FACTOR[self.output_norm])


_PAIR_FACTOR = {1.0: Fraction(1), 2.0: Fraction(math.nextafter(math.sqrt(2.0), 2.0)), math.inf: Fraction(2)}


@dataclass(frozen=True)
class Audit:
    """A network, what is proven of each of its nodes alone, and from its input to what each node makes.

    ``reached`` has one entry more than there are nodes: the first is that of the input itself. ``runs`` are the affine
    maps of several nodes that ``reached`` rests on as well.
    """

    network: Nodes
    known: tuple[Gains, ...]
    reached: tuple[Gains, ...]
    runs: tuple[Run, ...] = ()

    @property
    def total(self) -> Gains:
        """What is proven of the whole."""
        return self.reached[self.network.output]


def lipschitz(module: nn.Module, p: float, q: float | None = None) -> Bound:
    """A proven Lipschitz constant of ``module`` from the p-norm to the q-norm of flattened inputs and outputs.

    It is that of the map from one example to its output, for inputs that have a batch as their first axis.

    Args:
        module: A network of modules with rules; training mode, caches and flags are ignored.
        p: Norm of the input: 1, 2 or ``math.inf``; or any other p ≥ 1, of which the p→∞ norm of a first linear layer is
            computed, and all else is what its smaller neighbor among the three has.
        q: Norm of the output: 1, 2 or ``math.inf``; None picks the one with the smallest margin sensitivity
            2^(1−1/q)·K.

    Raises:
        TightlipError: if a module has no rule, has been altered (subclass, replaced forward, foreign hook or
            parametrization), holds NaN, or if no rule proves this pair of norms.

    >>> lipschitz(nn.Sequential(nn.ReLU(), nn.Flatten()), 2).constant
    1.0
    """
    refuse_other_things(module)
    return bound_of(audit(module), p, q)


def audit(module: nn.Module, name: str = "") -> Audit:
    """What every rule in a network has to say."""
    network = expand(module, name)
    shown = tqdm(network.nodes, "audit", unit="layer", delay=5.0, leave=False, disable=None)
    return composed(network, tuple(map(_alone, shown)))


def composed(network: Nodes, known: tuple[Gains, ...]) -> Audit:
    """The audit of these nodes, of each of which so much is ``known``."""
    runs = affine_runs(network)
    reached = [Gains.constant(1.0)]

    def layer(node: Node, before: Gains) -> Gains:
        value = len(reached)
        reached.append(before.then(known[value - 1]))
        if value in runs:
            reached[value] = reached[value].least(reached[runs[value].start].then(runs[value].gains))
        return reached[value]

    def join(node: Node, before: Sequence[Gains]) -> Gains:
        reached.append(node.operation.gains(before))  # type: ignore[union-attr, operator]
        return reached[-1]

    fold(network, reached[0], layer, join)
    return Audit(network, known, tuple(reached), tuple(runs.values()))


def _alone(node: Node) -> Gains:
    if isinstance(node.operation, Join):
        return node.operation.gains([Gains.constant(1.0)] * len(node.inputs))
    function = registered()[original_type(node.operation)].rule
    assert function is not None  # containers are opened by `expand`
    named = "name" in inspect.signature(function).parameters
    return function(node.operation, name=node.name) if named else function(node.operation)


def gains(module: nn.Module, name: str = "") -> Gains:
    """Every proven constant of one module, or of a network of modules."""
    audited = audit(module, name)
    return audited.known[0] if len(audited.known) == 1 and audited.network.output == 1 else audited.total


def bound_of(audited: Audit, p: float, q: float | None = None) -> Bound:
    """What `lipschitz` says of an audited network."""
    p, closed = as_exponent(p), dict[int, Fraction]()
    if p in NORMS:
        known = {s: Fraction(audited.total.table[p, s]) for s in NORMS if (p, s) in audited.total.table}
    else:
        ends = {run.nodes[-1] + 1: run for run in audited.runs}
        known, closed = from_norm(audited.network, audited.known, ends, p)
    choices = [_bound(known[s], p, s) for s in ([as_norm(q)] if q is not None else NORMS) if s in known]
    if not choices:
        asked = f"{norm_name(p)}→{norm_name(q)}" if q is not None else f"any norm from {norm_name(p)}"
        raise TightlipError(f"no rule proves a bound for {asked} on this network: ask for another pair with p ≤ q")
    best = min(choices, key=lambda bound: bound.sensitivity)
    layers = tuple(
        (node.name, _describe(node.operation), _row(layer, closed.get(number), p, best.output_norm))
        for number, (node, layer) in enumerate(zip(audited.network.nodes, audited.known, strict=True))
    )
    merged = tuple(_merged(audited, run, p, best.output_norm) for run in audited.runs)
    return Bound(
        best.constant,
        p,
        best.output_norm,
        layers=layers,
        merged=tuple(filter(None, merged)),
        spectral=tuple(_spectral(audited)),
        runs=tuple(_place(audited, run) for run in audited.runs if _counts(audited, run)),
    )


def _merged(audited: Audit, run: Run, p: float, q: float) -> tuple[str, str, Bound] | None:
    """The row of a run: in the norms of a layer's row, where the whole is less than one after another."""
    apart, whole = _apart(audited, run), _best(run.gains, p, q)
    pair = whole.input_norm, whole.output_norm
    if pair in apart.table and apart.table[pair] <= run.gains.table[pair] * Fraction(1_000_001, 1_000_000):
        return None
    text = ", ".join(type(audited.network.nodes[number].operation).__name__ for number in run.nodes)
    return _place(audited, run), f"{text} as one affine map", whole


def _apart(audited: Audit, run: Run) -> Gains:
    """What is proven of the nodes of a run, one after another."""
    return reduce(Gains.then, (audited.known[number] for number in run.nodes))


def _counts(audited: Audit, run: Run) -> bool:
    """Whether less is proven of a run than of its nodes, for any pair of norms."""
    apart = _apart(audited, run)
    return any(pair not in apart.table or bound < apart.table[pair] for pair, bound in run.gains.table.items())


def _place(audited: Audit, run: Run) -> str:
    first, *_, last = (audited.network.nodes[number].name for number in run.nodes)
    return f"{first} to {last}"


def _spectral(audited: Audit) -> Iterator[tuple[str, float]]:
    for node, known in zip(audited.network.nodes, audited.known, strict=True):
        if isinstance(stated(node), Matrix | Kernel) and (2.0, 2.0) in known.table:
            yield node.name, round_up(Fraction(known.table[2.0, 2.0]))


def _bound(constant: Fraction | float, p: float, q: float) -> Bound:
    return Bound(representable(round_up(Fraction(constant))), p, q)


def _row(layer: Gains, closed: Fraction | None, p: float, q: float) -> Bound:
    """The row of a layer; ``closed`` is its norm from p to ∞, where that was computed."""
    return _best(layer, p, q) if closed is None else _bound(closed, p, math.inf)


def representable(value: float) -> float:
    """A constant that a float64 can hold, or a sentence."""
    if math.isinf(value):
        raise TightlipError("a Lipschitz constant exceeds the largest float64: scale the weights down")
    return value


def _best(layer: Gains, p: float, q: float) -> Bound:
    """The row of a layer in the table of a p→q network: its own pair, or the nearest that it can prove."""
    for pair in ((p, p), (p, q), (q, q), *PAIRS):
        if pair in layer.table:
            return _bound(layer.table[pair], *pair)
    raise TightlipError("a rule returned no bound at all: return at least one entry in Gains")


def _describe(operation: nn.Module | Join) -> str:
    return repr(operation).splitlines()[0].rstrip("(")

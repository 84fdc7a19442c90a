"""A tighter bound for ordinary networks: one semidefinite matrix in place of a product of norms.

Layers rarely stretch most in the same direction, and a unit that is steep here is flat there; the product of the norms
sees neither. For affine layers with elementwise activations between them, 2-norm to 2-norm, `semidefinite_bound` looks
for multipliers (`linalg.multipliers`) and proves what they say by a verified Cholesky factorization
(`linalg.semidefinite`, which has the theorem).

This file reads a network as such a chain: neighboring affine layers are multiplied out as in `merging`, slopes are
those that the rules state (`Gains.slopes`), and an activation with no matrix on one side counts by its steepest slope.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..arguments import integer, tensor
from ..errors import TightlipError
from ..linalg.enclosure import Enclosure
from ..linalg.multipliers import STEPS, least_constant, search
from ..linalg.rounding import round_up, widened
from ..linalg.semidefinite import Alternation, proves
from .affine import Affine, Flat, Kernel, Matrix, Uniform
from .gains import Gains
from .graph import Join, Node
from .lipschitz import Audit, Bound, audit, bound_of
from .merging import Open, keeps_rows, only_rows_fit, stated

MOST = 5000
"""Inputs and units together of the largest network that is taken: its matrix has 25 million entries."""

EXCESSES = [4.0**-k for k in range(18, 0, -1)]
"""Shares of the estimated constant that are added to it, one after the other, until the factorization succeeds."""


@dataclass(frozen=True, repr=False)
class SemidefiniteBound(Bound):
    """A `Bound` from the 2-norm to the 2-norm that is never above the one of `lipschitz`, which is ``product``.

    ``layers`` and ``merged`` are those of the product. ``multipliers`` are the proof: one float64 tensor for each
    activation between two matrices, with a number for each unit; there are none where the product is as good.
    """

    product: float = field(kw_only=True)
    multipliers: tuple[Tensor, ...] = field(default=(), kw_only=True, compare=False)

    def holds_for(self, module: nn.Module) -> bool:
        """Whether the multipliers prove the constant for this network: one factorization, and no search.

        False says that they do not prove it, and not that it is wrong.

        Raises:
            TightlipError: as `semidefinite_bound`.
        """
        audited = audit(module)
        if bound_of(audited, 2.0, 2.0).constant <= self.constant:
            return True
        chain, factor = _chain(audited)
        if len(self.multipliers) != len(chain.widths) or not 0 < self.constant < math.inf:
            return False
        return proves(chain, _given(chain, self.multipliers), Fraction(self.constant) / factor)


def semidefinite_bound(
    module: nn.Module, multipliers: Sequence[Float[Tensor, " units"]] | None = None, steps: int = STEPS
) -> SemidefiniteBound:
    """A proven constant from the 2-norm to the 2-norm of a network of affine layers and elementwise activations.

    Use it where `lipschitz` gives too large a number: for ordinary networks, with ReLU, GELU, tanh and the like. Where
    all layers keep norms, as in what `constrain` makes, the product is near the truth already. It takes chains of
    ``nn.Linear``, with ``nn.Flatten``, `Normalize`, `Scale` and batch normalization beside them; convolutions, sums,
    and what sorts or pools are refused. Its time grows with the cube of the widths: a second for 784-128-128-10,
    half a minute for 784-512-512-10.

    Args:
        module: A network of modules with rules.
        multipliers: Numbers > 0 to prove with, such as another solver's, as `SemidefiniteBound` has them; None: they
            are searched for. They are those of the network whose matrices are each divided by the power of two that
            brings the largest entry into [½, 1).
        steps: Of the search in each of its five rounds, at most.

    Raises:
        TightlipError: if the network is no such chain or `lipschitz` refuses it, or if the multipliers are not one for
            each unit.

    Sources: Fazlyab et al. 2019 (LipSDP); Xu & Sivaranjani 2024 (ECLipsE).

    >>> network = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 2))
    >>> bound = semidefinite_bound(network)
    >>> bound.constant < bound.product and bound.holds_for(network)
    True
    """
    steps = integer("steps", steps)
    audited = audit(module)
    chain, factor = _chain(audited)
    product = bound_of(audited, 2.0, 2.0)
    found = [] if multipliers is None else _given(chain, multipliers)
    if multipliers is None and chain.slopes and product.constant:
        found = search(chain, steps)
    proven = _least(chain, found, factor) if product.constant else math.inf
    better = proven < product.constant
    return SemidefiniteBound(
        *(proven if better else product.constant, 2.0, 2.0),
        layers=product.layers,
        merged=product.merged,
        product=product.constant,
        multipliers=tuple(found) if better else (),
    )


def is_alternating(module: nn.Module) -> bool:
    """Whether `semidefinite_bound` takes this network."""
    try:
        return bool(_chain(audit(module))[0].slopes)
    except TightlipError:
        return False


def _given(chain: Alternation, multipliers: Any) -> list[Tensor]:
    if not isinstance(multipliers, Sequence) or len(multipliers) != len(chain.widths):
        raise TightlipError(f"multipliers are one tensor for each of {len(chain.widths)} activations: give as many")
    found = [widened(tensor("multipliers", given)) for given in multipliers]
    if [tuple(given.shape) for given in found] != [(width,) for width in chain.widths]:
        shapes = ", ".join(str(tuple(given.shape)) for given in found)
        raise TightlipError(f"multipliers of shapes {shapes} do not fit {chain.widths} units: give one for each unit")
    return found


def _least(chain: Alternation, multipliers: Sequence[Tensor], factor: Fraction) -> float:
    """About the least constant that multipliers prove, proven; ∞ where they prove none."""
    estimate = least_constant(chain, multipliers)
    if estimate is None or not math.isfinite(estimate):
        return math.inf
    for excess in EXCESSES:
        constant = round_up(Fraction(estimate) * Fraction(1.0 + excess) * chain.unit * factor)
        if math.isfinite(constant) and proves(chain, multipliers, Fraction(constant) / factor):
            return constant
    return math.inf


def _chain(audited: Audit) -> tuple[Alternation, Fraction]:
    """The matrices of a network and the slopes between them, and what its bound is multiplied with."""
    reading = _Reading()
    for number, (node, known) in enumerate(zip(audited.network.nodes, audited.known, strict=True)):
        if isinstance(node.operation, Join) or node.inputs != (number,):
            raise TightlipError(f"{_named(node)} takes values of several layers: {_CHAINS}")
        reading.take(number, node, known)
    if audited.network.output != len(audited.network.nodes):
        raise TightlipError(f"the output of this network is not that of its last layer: {_CHAINS}")
    return reading.closed()


_CHAINS = "semidefinite_bound takes linear layers one after another, with elementwise activations between them"


class _Reading:
    """The chain as far as it is read; the last affine map may go on."""

    def __init__(self) -> None:
        self.weights: list[Enclosure] = []
        self.slopes: list[tuple[float, float]] = []
        self.factor = Fraction(1)
        self.run, self.rows = Open(0), False

    def take(self, number: int, node: Node, known: Gains) -> None:
        """One layer more."""
        part, rows = stated(node), self.rows and keeps_rows(node)
        if part is None and known.slopes is not None:
            self._elementwise(number, node, *known.slopes)
        elif part is None or isinstance(part, Kernel):
            raise TightlipError(f"{_named(node)} {_reason(part)}: {_CHAINS}")
        else:
            rows |= self._affine(number, node, part)
        self.rows = rows or isinstance(part, Flat)

    def closed(self) -> tuple[Alternation, Fraction]:
        """All of it; an activation at the end counts by its steepest slope."""
        if self.run.form is None and self.slopes:
            self.factor *= self.run.factor * _steepest(self.slopes.pop())
        else:
            self._close("the end")
        chain = Alternation(tuple(self.weights), tuple(self.slopes))
        if chain.size > MOST:
            raise TightlipError(f"{chain.size} inputs and units are too many for one matrix: {MOST} are possible")
        return chain, self.factor

    def _affine(self, number: int, node: Node, part: Affine) -> bool:
        """The run with one affine layer more; whether its value is now known to be (batch, features)."""
        before, longer = self.run, self.run.then(part, number, self.rows)
        if longer is None:
            raise TightlipError(
                f"{_named(node)} and the affine layer before it are not known to be one matrix: begin the network with "
                "nn.Flatten() if its inputs are rows of features"
            )
        self.run = longer
        return only_rows_fit(before, part, longer)

    def _elementwise(self, number: int, node: Node, low: float, high: float) -> None:
        if low == high:
            self._affine(number, node, Uniform(abs(Fraction(low))))
        elif self.weights or self.run.form is not None:
            self._close(_named(node))
            self.slopes.append((low, high))
        else:  # of the input
            self.factor *= _steepest((low, high))

    def _close(self, before: str) -> None:
        form = self.run.form
        if not isinstance(form, Matrix):
            raise TightlipError(f"there is no linear layer right before {before}: {_CHAINS}")
        if self.weights and form.shape[1] != len(self.weights[-1].center):
            units = len(self.weights[-1].center)
            raise TightlipError(
                f"the linear layer before {before} takes {form.shape[1]} numbers, and the one before that makes "
                f"{units}: begin the network with nn.Flatten(), so that all values are rows"
            )
        self.weights.append(form.enclosure)
        self.factor *= self.run.factor
        self.run = Open(0)


def _steepest(slopes: tuple[float, float]) -> Fraction:
    return max(abs(Fraction(slope)) for slope in slopes)


def _named(node: Node) -> str:
    kind = type(node.operation).__name__
    return f"{kind} at {node.name!r}" if node.name else kind


def _reason(part: Kernel | None) -> str:
    if part is None:
        return "does not act on each number alone, with slopes that its rule states"
    return "is a convolution, whose matrix has the size of an image"

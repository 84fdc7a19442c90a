"""A table of the layers of a network: shapes, parameters, proven constants, constraints, and how well they are kept."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..audit import Bound, Join, gains, lipschitz, refuse_altered, registered
from ..constraints import Constraint, constraint_of
from ..errors import TightlipError
from ..graphs.tracing import as_graph
from ..linalg.convolutions import smallest_singular_value_bound
from ..linalg.polar import residual
from ..linalg.rounding import round_up
from ..norms import as_norm, norm_name
from ..rules.convolution import geometry_of
from .subject import copied

T = TypeVar("T")
Pairs = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class SummaryRow:
    """One layer: what it is, what is proven of it, and on which set it is held.

    ``weight`` is the shape of its weight; ``parameters`` counts numbers, those behind a parametrization included;
    ``bound`` is None where the audit refuses; ``residual`` is ‖WᵀW − I‖₂ on the small side, for matrices, in float64;
    ``smallest`` is a proven lower bound on the singular values of a kernel, on images without an edge (circular padding
    of images that the stride divides), and None where nothing is proven.
    """

    name: str
    module: str
    weight: tuple[int, ...] | None
    parameters: int
    bound: Bound | None
    residual: float | None
    constraint: Constraint | None
    smallest: float | None = None


@dataclass(frozen=True)
class Summary:
    """One row per layer, in order, and one for the whole; ``str`` makes a table of it, numbers rounded up."""

    rows: tuple[SummaryRow, ...]
    total: SummaryRow

    def __str__(self) -> str:
        merged = self.total.bound.merged if self.total.bound is not None else ()
        lines = [_HEADER, *self._layers(), *itertools.starmap(_merged, merged), _cells(self.total)]
        if all(row.smallest is None for row in self.rows):  # there are no kernels
            lines = [line[:_SMALLEST] + line[_SMALLEST + 1 :] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(_aligned, line, widths, lines[0])).rstrip() for line in lines]
        ruler = "─" * max(map(len, text))
        return "\n".join([text[0], ruler, *text[1:-1], ruler, text[-1]])

    def _layers(self) -> list[tuple[str, ...]]:
        """The rows, and between them sums and the like whose constant is not 1, each where it is computed."""
        layers = self.total.bound.layers if self.total.bound else ()
        order, names = {name: number for number, (name, *_) in enumerate(layers)}, {row.name for row in self.rows}
        lines, place = [], -1
        for row in self.rows:
            place = order.get(row.name, place)
            lines.append((place, _cells(row)))
        joins = (layer for layer in layers if layer[0] not in names and layer[2].constant != 1)
        lines += [(order[layer[0]], _merged(*layer)) for layer in joins]
        return [cells for _, cells in sorted(lines, key=lambda line: line[0])]


@torch.no_grad()
def summary(network: nn.Module, p: float = 2, q: float | None = None) -> Summary:
    """The layers of a network, held or frozen, and the constant that the audit proves for each and for the whole.

    Constants are audited from the weights as they are, of the function that the network computes in eval mode: of a
    held layer in its constraint's own norms, of others from the p-norm (or from the norm in which a layer is proven
    and the layers compose). What the audit refuses is "unproven"; the layers of a `Residual`, and of a container that
    the audit does not know, are listed below it. Where the audit proves less of affine layers multiplied out, the table
    has a line for them together, "0 to 1". The last line is `lipschitz`(network, p, q).

    Args:
        network: Any module.
        p: The norm of the input: 1, 2 or ``math.inf``.
        q: The norm of the output; None picks it as `lipschitz` does.

    Raises:
        TightlipError: for any other norm, or what is no module.

    >>> print(summary(nn.Sequential(nn.Flatten(), nn.ReLU())))
    layer    module                            weight  parameters  norms  constant ≤  ‖WᵀW − I‖₂  constraint
    ────────────────────────────────────────────────────────────────────────────────────────────────────────
    0        Flatten(start_dim=1, end_dim=-1)                   0  2→2             1
    1        ReLU                                               0  2→2             1
    ────────────────────────────────────────────────────────────────────────────────────────────────────────
    network  Sequential                                         0  2→2             1
    """
    p, q = as_norm(p), None if q is None else as_norm(q)
    original = network = copied(network)  # reading the weight of some foreign parametrizations changes them
    network = _unless_refused(lambda: as_graph(original)) or original
    bound = _unless_refused(lambda: lipschitz(network, p, q))
    end = bound.output_norm if bound is not None else q or p
    rows = tuple(_row(*listed, ((p, p), (p, end), (end, end))) for listed in _listed(network))
    count = sum(p.numel() for p in network.parameters())
    return Summary(rows, SummaryRow("network", _kind(network), None, count, bound, None, None))


def _listed(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module, bool]]:
    """The layers in order, as `audit.chain` has them; what the audit refuses is listed, and what it holds as well.

    So are the layers of a `Residual`. The third entry says whether the layers inside have rows of their own.
    """
    trusted = _is_trusted(module)
    container = trusted and type(module) in registered() and registered()[type(module)].expand is not None
    opened = not trusted or container
    children = module._modules.items() if opened else ()  # named_children would skip a layer that is used twice
    inner = [(key, child) for key, child in children if child is not None and key != "parametrizations"]
    if not inner or (name and not (container and _is_a_chain(module))):
        yield name, module, bool(inner)
    for key, child in inner:
        yield from _listed(child, f"{name}.{key}" if name else key)


def _is_a_chain(module: nn.Module) -> bool:
    parts = registered()[type(module)].expand(module)  # type: ignore[misc]
    return not any(isinstance(part.operation, Join) for part in parts)


def _is_trusted(module: nn.Module) -> bool:
    try:
        refuse_altered(module)
    except TightlipError:
        return False
    return True


def _row(name: str, layer: nn.Module, opened: bool, pairs: Pairs) -> SummaryRow:
    weight = _unless_refused(lambda: getattr(layer, "weight", None))
    constraint = _unless_refused(lambda: constraint_of(layer))
    own = () if constraint is None else (constraint.norms,)
    matrix = weight if isinstance(weight, Tensor) and weight.dim() == 2 and weight.is_floating_point() else None
    return SummaryRow(
        name,
        _kind(layer) if isinstance(weight, Tensor) else _with_options(layer),
        tuple(weight.shape) if isinstance(weight, Tensor) else None,
        sum(p.numel() for p in layer.parameters(recurse=not opened)),
        _unless_refused(lambda: _bound(layer, name, (*own, *pairs))),
        None if matrix is None else _residual_norm(matrix),
        constraint,
        _smallest(layer, weight),
    )


def _smallest(layer: nn.Module, weight: object) -> float | None:
    """What is proven of the singular values of a convolution from below."""
    if type(layer) not in _KERNELS or not isinstance(weight, Tensor):
        return None
    geometry = _unless_refused(lambda: geometry_of(layer))  # type: ignore[arg-type]
    if geometry is None:
        return None
    given = weight, geometry.dilation, geometry.groups, geometry.stride
    return _unless_refused(lambda: smallest_singular_value_bound(*given)) or None


def _bound(layer: nn.Module, name: str, pairs: Pairs) -> Bound | None:
    """What is proven of a layer in the first of these norms that its rule knows."""
    table = gains(layer, name).table
    known = [pair for pair in pairs if pair in table]
    return Bound(round_up(Fraction(table[known[0]])), *known[0]) if known else None


def _residual_norm(weight: Float[Tensor, "out in"]) -> float:
    """‖WᵀW − I‖₂ on the small side; NaN for weights that are not finite."""
    if not torch.isfinite(weight).all():
        return float("nan")
    return float(torch.linalg.eigvalsh(residual(weight.double())).abs().max())


WIDEST = 72
"""Most letters of a layer's options in a table."""

_KERNELS = (nn.Conv1d, nn.Conv2d)

_HEADER = ("layer", "module", "weight", "parameters", "norms", "constant ≤", "σ_min ≥", "‖WᵀW − I‖₂", "constraint")
_NUMBERS = ("parameters", "constant ≤", "σ_min ≥", "‖WᵀW − I‖₂")
_SMALLEST = _HEADER.index("σ_min ≥")


def _cells(row: SummaryRow) -> tuple[str, ...]:
    bound, constraint = row.bound, row.constraint
    return (
        row.name,
        row.module,
        "" if row.weight is None else " × ".join(map(str, row.weight)),
        f"{row.parameters:,}",
        "" if bound is None else f"{norm_name(bound.input_norm)}→{norm_name(bound.output_norm)}",
        "unproven" if bound is None else _up(bound.constant, 8),
        "" if row.smallest is None else _down(row.smallest, 8),
        "" if row.residual is None else _up(row.residual, 2),
        "" if constraint is None else repr(constraint),
    )


def _merged(name: str, text: str, bound: Bound) -> tuple[str, ...]:
    norms = f"{norm_name(bound.input_norm)}→{norm_name(bound.output_norm)}"
    return (
        name,
        text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…",
        "",
        "",
        norms,
        _up(bound.constant, 8),
        "",
        "",
        "",
    )


def _aligned(cell: str, width: int, title: str) -> str:
    return cell.rjust(width) if title in _NUMBERS else cell.ljust(width)


def _up(value: float, digits: int, rounding: str = ROUND_CEILING) -> str:
    """A number in decimals, rounded up to so many significant digits (at most 15, which every float64 can tell)."""
    rounded = Context(prec=digits, rounding=rounding).create_decimal(Decimal(value))
    return f"{float(rounded):.{digits}g}"


def _down(value: float, digits: int) -> str:
    return _up(value, digits, ROUND_FLOOR)


def _kind(module: nn.Module) -> str:
    return parametrize.type_before_parametrizations(module).__name__


def _with_options(module: nn.Module) -> str:
    options = module.extra_repr()
    text = f"{_kind(module)}({options})" if options else _kind(module)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 2]}…)"


def _unless_refused(ask: Callable[[], T]) -> T | None:
    """The answer, or None where tightlip refuses with a sentence."""
    try:
        return ask()
    except TightlipError:
        return None

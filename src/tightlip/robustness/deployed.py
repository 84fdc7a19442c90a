"""Radii for a network that is deployed in a format, whatever the order of its sums.

Differences of logits stray from exact arithmetic by a line α + β·r in the radius r (`straying`), so class t stays
ahead of class i while

    y_t − y_i − S_ti·r > α + β·r,     which is     r < (y_t − y_i − α) / (S_ti + β).

After a last linear layer, of rows w, a difference strays by ‖w_t − w_i‖_{q*}·D_q of what comes in, and by the rounding
of both sums; elsewhere by √2 times D₂, or 2·D_∞, of the logits. The better of q = 2 and ∞ counts. The machine's answer
at x itself is the case r = 0. Where a number on the way might exceed the format's largest, nothing is certified.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int
from torch import Tensor, nn

from ..audit import Gains, Node, Nodes, fold
from ..linalg.arithmetic import Arithmetic, arithmetic_of
from ..linalg.rounding import FLUSHED, round_up
from ..norms import dual
from .evaluation import Wide, evaluate_layer
from .examination import Examined
from .overtaking import down
from .pairs import last_linear, row_distances, row_norms
from .straying import ORDERS, Machine, Value, refuse_uncounted

SLACK = 1.0 + 2.0**-30
"""Covers the rounding of these bounds, which are sums of some dozens of products of numbers ≥ 0."""


class Deployed:
    """Bounds on how far differences of logits stray, for batches of inputs.

    Args:
        network: In float64, as `evaluation.wide` makes it.
        reached: What is proven of the original, from where perturbations are measured to each value (`Examined`).
        arithmetic: How the machine computes.
        p: The norm of the perturbations.

    Raises:
        TightlipError: if a layer computes by other steps in other formats.
    """

    def __init__(self, network: Wide, reached: Sequence[Gains], arithmetic: Arithmetic, p: float) -> None:
        self.network, self.reached, self.p, self.machine = network, reached, p, Machine(arithmetic)
        self.places = {id(node): place for place, node in enumerate(network.network.nodes)}
        for node, known in zip(network.network.nodes, network.known, strict=True):
            if isinstance(node.operation, nn.Module):
                refuse_uncounted(node.operation, known, node.name)
        self.last, factor, self.scales = last_linear(network.network)
        if self.last is not None and len(network.network.nodes[self.last].operation.weight) == 1:  # type: ignore[union-attr, arg-type]
            self.last = None  # one logit is a pair with its negative
        self.factor = round_up(factor)

    def judge(
        self,
        x: Float64[Tensor, "batch *shape"],
        target: Int[Tensor, " batch"],
        lead: Float64[Tensor, "batch classes"],
        sensitivity: Float64[Tensor, "batch classes"],
    ) -> tuple[Float64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        """The margin of the machine's own logits, and the radius within which its answer stays, both from below.

        Args:
            x: Inputs; not changed.
            target: The class t of each, which leads.
            lead: y_t − y_i, lowered by the error of its evaluation; ∞ for i = t.
            sensitivity: S_ti.
        """
        strays, peak = self.strays(x, target)
        left = down(lead.unsqueeze(1) - strays[..., 0])
        found = down(left / ((sensitivity.unsqueeze(1) + strays[..., 1]) * SLACK))
        own = torch.isinf(lead).unsqueeze(1)
        radius, margin = (v.masked_fill(own, math.inf).amin(2).nan_to_num(nan=-1.0).amax(1) for v in (found, left))
        room = self.machine.arithmetic.largest / 2.0 - peak[:, 0]
        margin = torch.where(room > 0, margin, -1.0)
        radius = torch.minimum(radius, down(room / (peak[:, 1] * SLACK)))
        return margin, torch.where(margin > 0, radius, 0.0).clamp(min=0.0)

    def strays(
        self, x: Float64[Tensor, "batch *shape"], target: Int[Tensor, " batch"]
    ) -> tuple[Float64[Tensor, "batch 2 classes 2"], Float64[Tensor, "batch 2"]]:
        """How far y_t − y_i strays, for q = 2 and ∞ and each i, and the largest number on the way: lines."""
        whole = self.network.network
        trunk = whole if self.last is None else Nodes(whole.nodes[: self.last], whole.nodes[self.last].inputs[0])
        self.peak = torch.zeros(len(x), 2, dtype=torch.float64, device=x.device)
        start = self.machine.input(x, self._reach(0, x[0].numel()))
        self._passes(start.size()[:, 1])
        reached = fold(trunk, start, self._layer, self._join)
        pairs = _of_any(reached) if self.last is None else self._of_linear(whole.nodes[self.last], reached, target)
        return pairs * SLACK, self.peak * SLACK

    def _layer(self, node: Node, before: Value) -> Value:
        known = self.network.known[self.places[id(node)]]
        layer: nn.Module = node.operation  # type: ignore[assignment]
        computed, error = evaluate_layer(layer, known, before.computed.clone(), before.error)
        reach = self._reach(self.places[id(node)] + 1, computed[0].numel())
        after = Value(computed, error, _carried(known, before, computed[0].numel()), reach)
        local = self.machine.local(layer, known, before, after)
        self._passes(local.largest)
        return after._replace(drift=after.drift + local.rounding)

    def _join(self, node: Node, values: list[Value]) -> Value:
        """What strays in each value, and what adding them rounds; both are sublinear, so a and b are taken apart."""
        join = node.operation
        computed = join(*(value.computed for value in values))
        norms = [torch.linalg.vector_norm(value.flat, dim=1) * SLACK for value in values]
        error = join.error([value.error for value in values], norms, self.machine.gamma) + FLUSHED  # type: ignore[union-attr, operator]
        drift = torch.empty_like(values[0].drift)
        for place in range(2):
            for part in range(2):
                strays = [value.drift[:, place, part] for value in values]
                drift[:, place, part] = join.error(strays, [v.size()[:, 0, part] for v in values], self.machine.gamma)  # type: ignore[union-attr, operator]
        drift[..., 0] += self.machine.arithmetic.underflow * 8.0 * (math.isqrt(computed[0].numel()) + 1) * len(values)
        weights = getattr(join, "weights", (1.0,))
        self._passes(max(1.0, *map(abs, weights)) * torch.stack([v.size()[:, 0] for v in values]).sum(0))
        return Value(computed, error, drift, self._reach(self.places[id(node)] + 1, computed[0].numel()))

    def _of_linear(self, node: Node, reached: Value, target: Tensor) -> Tensor:
        layer, known, near = node.operation, self.network.known[self.places[id(node)]], reached.near()
        share = self.machine.share(layer, known, reached.flat.shape[1])  # type: ignore[arg-type]
        share += self.scales * (self.machine.gamma(2) + 2.0 * self.machine.kept)
        sizes = self.machine.magnitude(layer, reached.computed)  # type: ignore[arg-type]
        found = []
        for place, q in enumerate(ORDERS):
            apart, rows = row_distances(layer.weight, dual(q)), row_norms(layer.weight, dual(q))  # type: ignore[union-attr, arg-type]
            lines = rows.to(sizes.device)[:, None] * near[:, None, place]  # (batch, classes, 2)
            lines[..., 0] += sizes
            self._passes(2.0 * max(1.0, self.factor) * lines.amax(1))
            rounding = share * lines
            rounding[..., 0] += self.machine.lost(known, reached, float(rows.max())).unsqueeze(1)
            own = rounding[torch.arange(len(target)), target].unsqueeze(1)
            carried = apart.to(sizes.device)[target].unsqueeze(2) * reached.drift[:, None, place]
            found.append(self.factor * (carried + rounding + own))
        return torch.stack(found, 1)

    def _passes(self, largest: Float64[Tensor, "batch 2"]) -> None:
        """Numbers of this size are on the way."""
        self.peak = torch.maximum(self.peak, largest)

    def _reach(self, value: int, entries: int) -> tuple[float, float]:
        """g₂ and g_∞ of a value of so many entries: how far exact values move for each unit of the radius."""
        table = self.reached[value].table
        known = [round_up(table[self.p, q]) if (self.p, q) in table else math.inf for q in ORDERS]  # type: ignore[arg-type]
        return min(known[0], known[1] * (math.isqrt(entries) + 1)), known[1]


def machine_of(known: Examined, arithmetic: str | Arithmetic) -> Deployed | None:
    """What a machine makes of a network; None in exact arithmetic.

    Raises:
        TightlipError: for an arithmetic that is not known, and as `Deployed`.
    """
    return None if arithmetic == "real" else Deployed(known.wide, known.reached, arithmetic_of(arithmetic), known.p)


def _carried(known: Gains, before: Value, outputs: int) -> Tensor:
    """c·D in both norms, by the constants that are proven; the 2-norm of n numbers is at most √n times the largest."""
    table, lines = known.table, torch.full_like(before.drift, math.inf)
    for place, q in enumerate(ORDERS):
        if (q, q) in table:
            lines[:, place] = round_up(table[q, q]) * before.drift[:, place]  # type: ignore[arg-type]
    if (2.0, 2.0) not in table:
        lines[:, 0] = lines[:, 1] * (math.isqrt(outputs) + 1)
    if (math.inf, math.inf) not in table:
        lines[:, 1] = round_up(table[2.0, math.inf]) * before.drift[:, 0] if (2.0, math.inf) in table else math.inf  # type: ignore[arg-type]
    return lines


def _of_any(reached: Value) -> Tensor:
    """Of logits that come of no linear layer; of one logit, of the pair that it stands for."""
    classes = reached.flat.shape[1]
    factors = (1.0, 1.0) if classes == 1 else (1.42, 2.0)
    lines = reached.drift * torch.tensor(factors, dtype=torch.float64, device=reached.drift.device)[:, None]
    return lines[:, :, None].expand(-1, -1, max(classes, 2), -1)

"""`tightlip audit MODEL`: a proof about a network that one has already."""

import json as json_
import logging
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro
from torch import nn

from ..atomic import sha256
from ..audit import Bound, SemidefiniteBound, is_alternating, lipschitz, semidefinite_bound
from ..decimals import round_up
from ..diagnostics import summary
from ..errors import TightlipError
from ..graphs import Graph
from ..graphs.tracing import as_graph
from ..norms import as_norm, norm_name
from ..records import Audit as AuditRecord
from ..records import AuditFile, Multipliers
from .certify import output_named
from .models import Found, found
from .options import Machine

logger = logging.getLogger(__name__)

VACUOUS = 1e6
"""From this constant on a margin of 1 certifies less than a millionth, and a bound is called vacuous."""


@dataclass(frozen=True)
class Audit:
    """Prove the Lipschitz constant of a network that you have, and list its layers."""

    model: tyro.conf.Positional[str]
    """A model.safetensors of `tightlip train` or `tightlip.save`, the folder of a run, a .pt2 file of
    torch.export.save, or module:attribute, an importable network or a function that makes one. Files are read and run
    nothing; module:attribute imports your module, which runs its code."""
    norm: str | None = None
    """Norm of the inputs: 1, 2 or inf (default: that of the model's run; of a model without one, 2)."""
    output_norm: str | None = None
    """Norm of the outputs: 1, 2 or inf (default: the one with the smallest change of a margin)."""
    head: str | None = None
    """Of a network with several outputs the one to audit, by its name or number (default: all, as one vector)."""
    tighter: bool = False
    """Look for a smaller constant than the product of the layers' norms: of linear layers with elementwise
    activations between them, from the 2-norm to the 2-norm."""
    json: bool = False
    """Print JSON instead of a table."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)

    def __call__(self) -> str:
        """Run; the table to print, or JSON."""
        device = self.machine.prepare()
        asked, q = (None if norm is None else as_norm(norm) for norm in (self.norm, self.output_norm))
        model = found(self.model)
        network = model.network if self.head is None else _one_output(as_graph(model.network), self.head)
        p = as_norm(model.norm) if asked is None else asked
        logger.debug("%s: auditing on %s", self.model, device)
        network = network.to(device)
        bound = _tighter(network, p, q) if self.tighter else lipschitz(network, p, q)
        return _as_json(model, bound) if self.json else _as_text(network, bound)


def _one_output(network: nn.Module, head: str) -> nn.Module:
    if not isinstance(network, Graph):
        raise TightlipError("this network has one output: leave out --head")
    return network.only(output_named(network, head))


def _tighter(network: nn.Module, p: float, q: float | None) -> SemidefiniteBound:
    if p != 2 or q not in (None, 2):
        raise TightlipError("--tighter is from the 2-norm to the 2-norm: leave out other norms, or give --norm 2")
    return semidefinite_bound(network)


def _as_text(network: nn.Module, bound: Bound) -> str:
    p, q = norm_name(bound.input_norm), norm_name(bound.output_norm)
    lines = [str(summary(network, bound.input_norm, bound.output_norm)), ""]
    lines.append(f"constant  {round_up(bound.constant, 9)} from the {p}-norm to the {q}-norm, proven for all inputs")
    if isinstance(bound, SemidefiniteBound):
        lines.append(f"product   {round_up(bound.product, 9)} of the norms of the layers, as in the table")
    return "\n".join([*lines, *_advice(network, bound)])


def _advice(network: nn.Module, bound: Bound) -> list[str]:
    if bound.constant < VACUOUS:
        return []
    offered = not isinstance(bound, SemidefiniteBound) and bound.input_norm == 2 and is_alternating(network)
    tighter = "advice    --tighter looks for a smaller constant of this network, from the 2-norm to the 2-norm"
    return [
        f"vacuous   a margin of 1 certifies no radius above {1 / bound.constant:.1e}: the network may be far less "
        "steep, but nothing useful is proven",
        *([tighter] if offered else []),
        "advice    tightlip.convert(network) makes one like it whose constant is K, to be trained anew",
    ]


def _as_json(model: Found, bound: Bound) -> str:
    record = AuditFile(
        model=model.name,
        model_sha256=None if model.file is None else sha256(model.file),
        audit=AuditRecord.of(bound),
        merged=AuditRecord.rows_of(bound.merged),
        vacuous=bound.constant >= VACUOUS,
        **(_proof(bound) if isinstance(bound, SemidefiniteBound) else {}),
    )
    return json_.dumps(record.to_json(), indent=2, ensure_ascii=False, allow_nan=False)


def _proof(bound: SemidefiniteBound) -> dict[str, Any]:
    multipliers = tuple(Multipliers(numbers.numpy()) for numbers in bound.multipliers)
    return {"product": bound.product, "multipliers": multipliers}

"""Monotone networks: a network whose slopes are bounded, and a line that is at least as steep, added up.

    f(x) = g(x) + Σ_j s_j·k_j·x_j,     |∂g/∂x_j| ≤ k_j     ⇒     s_j·∂f/∂x_j ≥ 0

for the features with a sign s_j = ±1; the others have s_j = 0. Each k_j is an audited constant (`feature_slopes`), so
the direction is proven as the constant is. A function whose slope along j lies in [0, K] is such a sum with
k_j = K/2, so along one feature nothing is lost. Source: Nolte, Kitouni & Williams, ICLR 2023.

In a p-norm the sum has the constant K_g + ‖k‖_{p*}: with m signs and one k for all, K_g = k = K / (1 + m^{1/p*}).
"""

from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from .arguments import vector
from .audit import Sum, feature_slopes, lipschitz
from .audit.per_feature import of_zeros
from .errors import TightlipError
from .graphs import Graph


def monotone(network: nn.Module, signs: Any, slopes: Any = None) -> Graph:
    """``network`` and a line, added up: rises with each feature of sign 1, and falls with each of sign −1.

    The sum is a `Graph` of both, shares the network with the caller, and is audited, certified and saved as any other.
    `monotone_signs` proves its directions again, also of what was loaded from a file. To train, build it of a
    constrained network with ``slopes`` a little above its constant, so that they stay above it.

    Args:
        network: g, of modules with rules: rows (n, d) → (n, 1).
        signs: One for each feature: 1, −1, or 0 for a feature that may go both ways.
        slopes: k, one for each feature, at least what is proven of g; None takes just that. Those without a sign are
            left out.

    It can be steep but not flat by construction alone: between 0 and 2k along a feature, g decides.

    Raises:
        TightlipError: for signs that are none, slopes that are too small, or a network that cannot be audited or has
            several outputs.

    >>> from tightlip import freeze, mlp
    >>> f = monotone(freeze(mlp([2, 8, 1])), [1, 0])
    >>> x = torch.rand(100, 2)
    >>> bool((f(x + torch.tensor([0.1, 0.0])) >= f(x)).all()), monotone_signs(f)
    (True, tensor([1, 0]))
    """
    sign = _signs(signs)
    chosen = sign.nonzero()[:, 0].tolist()
    steep = torch.zeros(len(sign), dtype=torch.float64)
    proven = feature_slopes(network, len(sign), chosen)
    steep[chosen] = proven if slopes is None else _checked(slopes, proven, chosen, len(sign))
    value = of_zeros(network, len(sign))
    if value.shape != (1, 1):
        raise TightlipError(f"the network turns a row into {tuple(value.shape)}: give one with a single output (n, 1)")
    line = nn.Linear(len(sign), 1, dtype=value.dtype, device=value.device).requires_grad_(False)
    line.weight.copy_(sign * _rounded_up(steep, value.dtype))
    line.bias.zero_()
    return Graph({"curve": network, "line": line}, [("curve", (0,)), ("line", (0,)), (Sum(1.0, 1.0), (1, 2))])


ROWS = [["layer curve", [], [0]], ["layer line", [], [0]], ["Sum", [1.0, 1.0], [1, 2]]]
"""The table of such a graph, as files have it."""


def monotone_signs(graph: nn.Module) -> Int64[Tensor, " d"]:
    """The directions that are proven of what `monotone` has made, as it is now: 1 or −1 for each feature, or 0.

    Raises:
        TightlipError: for any other network.
    """
    line = getattr(graph, "line", None)
    if type(graph) is not Graph or graph.rows != ROWS or type(line) is not nn.Linear:
        raise TightlipError("this network is not the sum of a network and a line: give what monotone(…) has made")
    lipschitz(graph, 1)  # refuses what was altered
    weight = line.weight.detach().cpu().double()[0]
    chosen = weight.nonzero()[:, 0].tolist()
    proven = torch.zeros(len(weight), dtype=torch.float64)
    proven[chosen] = feature_slopes(graph.curve, len(weight), chosen)  # type: ignore[arg-type]
    return (weight.sign() * ((weight.abs() >= proven) & weight.isfinite())).long()


def _signs(signs: Any) -> Float64[Tensor, " d"]:
    sign = vector("signs", signs)
    if not bool(((sign == 0) | (sign.abs() == 1)).all()) or not bool(sign.any()):
        raise TightlipError(f"signs must be 1, -1 or 0 for each feature, and not all 0, got {signs!r}")
    return sign


def _checked(slopes: Any, proven: Tensor, chosen: list[int], width: int) -> Float64[Tensor, " chosen"]:
    given = vector("slopes", slopes)
    if len(given) != width:
        raise TightlipError(f"{len(given)} slopes do not fit {width} signs: give one for each feature")
    least = given[chosen]
    if bool((least < proven).any()):
        worst = int((least - proven).argmin())
        raise TightlipError(
            f"the slope {float(least[worst])} of feature {chosen[worst]} is below what is proven of the network, "
            f"{float(proven[worst])}: give that much at least, or leave slopes out"
        )
    return least


def _rounded_up(values: Float64[Tensor, " d"], kind: torch.dtype) -> Tensor:
    """The numbers ≥ 0 of this dtype that are not below."""
    stored = values.to(kind)
    return torch.where(stored.double() < values, torch.nextafter(stored, torch.full_like(stored, torch.inf)), stored)

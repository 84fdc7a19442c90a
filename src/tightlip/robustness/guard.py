"""Serving the guarantee: logits, class, certified radius and "abstain below ε" from one graph of ordinary operations.

With t the largest logit and S the table of `pairs`, rounded up to the network's dtype,

    radius = min_{i≠t} (y_t − y_i − reserve) / S[t, i],        abstain where not radius > ε.

S holds proven constants, computed once; the graph takes a table, differences and a minimum. Each rounding of these is
covered, underflow and overflow too, and so are ties, NaN and infinity, which get radius 0. What the network's own
products round in the runtime is not: the radius is that of logits as they come out. `certify` bounds that, in float64
or for another arithmetic; a graph in float32 needs a ``reserve``, what two of its logits may be off together.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import number
from ..audit import Bound
from ..seal import weights_sha256
from .batches import labeled
from .contests import LARGEST
from .examination import examined, refuse_held
from .judging import evaluated


class Guard(nn.Module):
    """A frozen classifier that says how sure it is; made by `guarded`.

    ``bound`` is the proven constant behind its radii, and ``weights_sha256`` the hash of the weights that it was proven
    of: with other weights in it, its radii would be false. It is an ordinary module without trainable parameters: it
    moves, exports, traces and scripts.
    """

    steepness: Tensor
    eps: Tensor
    reserve: Tensor

    def __init__(
        self, network: nn.Module, bound: Bound, steepness: Tensor, eps: float, reserve: float, single: bool
    ) -> None:
        super().__init__()
        self.network, self.bound, self.weights_sha256 = network, bound, weights_sha256(network)
        dtype = next((t.dtype for t in network.state_dict().values() if t.is_floating_point()), torch.float32)
        self.register_buffer("steepness", _up(steepness, dtype).clamp(min=torch.finfo(dtype).tiny))
        self.register_buffer("eps", _up(torch.tensor(eps, dtype=torch.float64), dtype))
        self.register_buffer("reserve", _up(torch.tensor(reserve, dtype=torch.float64), dtype))
        self.single = single  # one logit z is the pair (−z/2, z/2)
        self.shrink = 1.0 - 4.0 * torch.finfo(dtype).eps  # more than the roundings that follow one another
        self.least, self.largest = torch.finfo(dtype).tiny, torch.finfo(dtype).max  # under- and overflow
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs (batch, …) → logits (batch, classes), class, radius and whether to abstain, (batch,) each."""
        logits = self.network(x)
        scores = torch.cat((-logits, logits), 1) / 2 if self.single else logits
        best = scores.argmax(1)
        ahead = (scores.gather(1, best.unsqueeze(1)) - scores).clamp(max=self.largest)
        leads = ahead * self.shrink - self.reserve - self.least
        own = torch.arange(scores.shape[1], device=scores.device) == best.unsqueeze(1)
        radii = (leads / self.steepness[best]).masked_fill(own, float("inf"))
        radius = (radii.amin(1).clamp(max=self.largest) * self.shrink - self.least).clamp(min=0.0)
        finite = torch.isfinite(logits).all(1) & torch.isfinite(x).flatten(1).all(1)
        radius = torch.where(finite, radius, torch.zeros_like(radius))
        return logits, best, radius, ~(radius > self.eps)

    def extra_repr(self) -> str:
        """What it abstains below, and why it may."""
        return f"eps={float(self.eps):g}, {self.bound!r}"


@torch.no_grad()
def guarded(
    network: nn.Module, x: Any, eps: float, p: float = 2, reserve: float = 0.0, output: int | str | None = None
) -> Guard:
    """A module that returns (logits, class, radius, abstain) for inputs, to be served: it needs no audit any more.

    Radii are those of `certify` for logits as the module computes them, in its own dtype, and are never rounded up. To
    have the rounding of the network itself in them too, give a ``reserve``, or serve the network in float64, where it
    is some 1e-10 of a margin.

    Args:
        network: A frozen classifier, as `certify` takes it; it is copied.
        x: A few inputs, as `certify` takes them, to see what comes out.
        eps: It abstains where the radius is not above this, in units of the inputs.
        p: The norm of the perturbations: 1, 2 or ``math.inf``.
        reserve: What a difference of two logits may be off in the arithmetic that serves it, in units of the logits.
        output: Of a network with several outputs the one that answers.

    Raises:
        TightlipError: as `certify`; for numbers below 0.

    >>> guard = guarded(nn.Identity(), torch.rand(2, 2), eps=0.2, p=float("inf"))
    >>> logits, best, radius, abstain = guard(torch.tensor([[0.9, 0.1], [0.5, 0.7]]))
    >>> best.tolist(), abstain.tolist()
    ([0, 1], [False, True])
    """
    refuse_held(network, "guarded")
    eps, reserve = number("eps", eps, least=0.0), number("reserve", reserve, least=0.0)
    inputs, _ = labeled(x)
    known = examined(network, p, output)
    known.compare(inputs)
    classes = evaluated(known, inputs)[1].shape[1]
    table = LARGEST.steepness(known.audited, p, known.bound.sensitivity, classes).each
    guard = Guard(copy.deepcopy(known.network), known.bound, table, eps, reserve, classes == 1)
    return guard if known.device is None else guard.to(known.device)


def _up(value: Tensor, dtype: torch.dtype) -> Tensor:
    """float64 numbers in another dtype, not below what they were."""
    narrow = value.to(dtype)
    return torch.where(narrow.double() < value, torch.nextafter(narrow, torch.full_like(narrow, float("inf"))), narrow)

"""Nearest prototypes as a layer: for each class a lower bound on the distance to where another class is nearer.

Let w_s and w_o be prototypes of different classes. Their bisector is where both are equally near, and the distance from
it, positive on the side of w_s, is an affine function with a gradient of length 1:

    h(s, o)(x) = (‖x − w_o‖² − ‖x − w_s‖²) / (2·‖w_s − w_o‖).

Minima and maxima keep the constant 1, so every output is 1-Lipschitz in the 2-norm:

    y_c(x) = max over s of class c, min over o of other classes, of h(s, o)(x).

y_c > 0 exactly if the nearest prototype is one of class c; then x stays in the cell of one prototype of c within y_c,
and each other output is at most −y_c. Source of the bound: Saralajew et al. 2020; Voráček and Hein, ICML 2022.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .arguments import integer
from .audit import Gains, Roundoff, rule
from .errors import TightlipError
from .linalg.fusing import fused
from .linalg.rounding import UNIT_ROUNDOFF, full_precision, sqrt_up
from .options import SIZE
from .stored import stored_numbers

PIECE = 2**22
"""Most numbers of a piece of the table of an input, own and other prototypes, where nothing is compiled."""

LOST = 1e100
"""A roundoff that leaves no radius."""


class Prototypes(nn.Module):
    """x ↦ for each class how far x is inside the cell of one of its prototypes: (…, in) → (…, classes).

    The largest output is that of the nearest prototype's class. Each output is 1-Lipschitz in the 2-norm, so that
    `certify` proves the radius (y_t − max y_i)/2, and at x no output of a wrong class is above −y_t. It needs no
    constraint: prototypes move freely. Alone it classifies raw inputs; as the last layer of a 1-Lipschitz network it
    classifies what that makes of them.

    Args:
        in_features: Entries of an input.
        classes: How many there are, at least 2.
        each: Prototypes of each class.
        nearest: In training mode compare only the nearest own prototype, and so many nearest of each other class: some
            four times faster, and mostly the same numbers, but not proven; None compares all. So does eval mode.

    `place` puts them at examples of their classes, from where training should begin; until then they are standard
    Gaussians. Inputs cost a product with all prototypes, and each of them a table of all pairs of prototypes.

    Raises:
        TightlipError: for impossible sizes; in the forward for other inputs than (…, in_features).

    >>> layer = Prototypes(2, classes=2, each=1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
    >>> layer(torch.tensor([[1.0, 5.0]])).tolist()
    [[1.0, -1.0]]
    """

    def __init__(self, in_features: int, classes: int, each: int = 100, nearest: int | None = None) -> None:
        super().__init__()
        self.in_features, self.classes = integer("in_features", in_features), integer("classes", classes, least=2)
        self.each = integer("each", each)
        self.nearest = None if nearest is None else integer("nearest", nearest)
        self.weight = nn.Parameter(torch.randn(self.classes * self.each, self.in_features))

    @torch.no_grad()
    def place(self, x: Float[Tensor, "n in"], labels: Int[Tensor, " n"], seed: int = 0) -> None:
        """Put the prototypes of each class at examples of it, drawn at random; where these are too few, at some again.

        Raises:
            TightlipError: for inputs of another size, or a class without examples.
        """
        if x.dim() != 2 or x.shape[1] != self.in_features or labels.shape != x.shape[:1]:
            raise TightlipError(
                f"prototypes are placed at examples (n, {self.in_features}) with labels (n,), got shapes "
                f"{list(x.shape)} and {list(labels.shape)}"
            )
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(integer("seed", seed, least=0)))
        order = order.to(labels.device)
        for label, rows in enumerate(self.weight.split(self.each)):
            found = order[labels[order] == label]
            if not len(found):
                raise TightlipError(f"no example has the label {label}: give some of every class")
            rows.copy_(x[found[torch.arange(self.each, device=found.device) % len(found)]])

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch classes"]:
        """(…, in_features) → (…, classes)."""
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise TightlipError(f"Prototypes take {self.in_features} features, got inputs of shape {list(x.shape)}")
        rows = x.reshape(-1, self.in_features)
        if torch.is_autocast_enabled(x.device.type):
            rows = rows.to(self.weight.dtype)
        with full_precision(self.weight):
            return self._inside(rows).reshape(*x.shape[:-1], self.classes)

    def _inside(self, rows: Tensor) -> Tensor:
        with torch.no_grad():
            score = _scores(rows, self.weight)
            if self.training and self.nearest is not None:
                own, other = _near(score, self.weight, self.classes, min(self.nearest, self.each))
            else:
                own, other = _chosen(score, self.weight, self.classes)
            lost = ~torch.isfinite(score).all(1, keepdim=True)
        here, there = self.weight[own], self.weight[other]
        away = here - there
        length = torch.linalg.vector_norm(away, dim=-1).clamp(min=torch.finfo(away.dtype).tiny)
        inside = (away * (rows[:, None] - (here + there) / 2)).sum(-1) / length
        return inside.masked_fill(lost, math.nan)  # nothing was compared

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"{self.in_features}, classes={self.classes}, each={self.each}"


def _scores(rows: Tensor, weight: Tensor) -> Tensor:
    """‖w_s‖²/2 − ⟨x, w_s⟩, (batch, prototypes): h(s, o) = (score_o − score_s)/‖w_s − w_o‖."""
    return torch.addmm(weight.square().sum(1) / 2, rows, weight.mT, alpha=-1)


def _inverse(weight: Tensor) -> Tensor:
    """1/‖w_s − w_o‖ for all pairs; 0 where they are the same."""
    half = weight.square().sum(1) / 2
    squares = 2 * (half[:, None] + half - weight @ weight.mT)
    return torch.where(squares > 0, squares, math.inf).rsqrt()


def _near(score: Tensor, weight: Tensor, classes: int, nearest: int) -> tuple[Tensor, Tensor]:
    """The same with the nearest s of each class, and the o among so many nearest of each other class."""
    each = len(weight) // classes
    first = each * torch.arange(classes, device=weight.device)
    close, place = score.unflatten(1, (classes, each)).topk(nearest, 2, largest=False)
    place = place + first[:, None]
    own, others, levels = place[..., 0], place.flatten(1), close.flatten(1)
    ahead = (levels[:, None] - close[..., :1]) * _inverse(weight)[own[..., None], others[:, None]]
    kind = torch.arange(classes, device=weight.device)
    ahead = ahead.masked_fill(kind[:, None] == kind.repeat_interleave(nearest), math.inf)
    return own, others.gather(1, ahead.argmin(2))


def _chosen(score: Tensor, weight: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """For each row and class the s and the o at which the maximum of the minima is taken, (batch, classes) each."""
    inverse = _inverse(weight)
    kind = torch.arange(len(weight), device=weight.device) // (len(weight) // classes)
    barred = torch.zeros_like(inverse).masked_fill_(kind[:, None] == kind, math.inf)
    least = fused(_least, (score, inverse, barred), score.shape[0] * len(weight) ** 2)
    if least is None:
        size = max(1, PIECE // len(weight) ** 2)
        least = torch.cat([_least(piece, inverse, barred) for piece in score.split(size)])
    each = len(weight) // classes
    own = least.unflatten(1, (classes, each)).argmax(2) + each * torch.arange(classes, device=weight.device)
    seen = (score[:, None] - score.gather(1, own)[..., None]) * inverse[own] + barred[own]
    return own, seen.argmin(2)


def _least(score: Tensor, inverse: Tensor, barred: Tensor) -> Tensor:
    """Min over o of h(s, o), for each row and s: (batch, prototypes)."""
    return ((score[:, None] - score[:, :, None]) * inverse + barred).amin(2)


@rule(Prototypes, options={"in_features": SIZE, "classes": SIZE, "each": SIZE})
def _prototypes(module: Prototypes) -> Gains:
    """Each output is 1-Lipschitz in the 2-norm, and √d-Lipschitz in the ∞-norm; n outputs move by √n times as much.

    Let R be the largest norm of a prototype, G the least distance of two of different classes, and ρ = R/G. A score
    errs by γ·(R²/2 + R‖x‖), a distance by a share 2γρ² of it where 4γρ² is below 1/2, and |h| ≤ ‖x‖ + R. So h is found
    up to e = γ_{d+10}·((R² + 2R‖x‖)/G + (2ρ² + 1)(‖x‖ + R)), the pair that is chosen is as good as the best up to 4e,
    and its h is then computed up to 2γ_{d+10}·(‖x‖ + R).
    """
    if module.training and module.nearest is not None:
        raise TightlipError(
            "Prototypes with nearest= compare but a few prototypes in training mode, of which nothing is proven: call "
            "network.eval() first, or set nearest to None"
        )
    n, d = module.classes, module.in_features
    weight = stored_numbers(module, "weight", (n * module.each, d))
    largest = float(torch.linalg.vector_norm(weight, dim=1).max())
    gap = _least_distance(weight, n) / largest if largest > 0 else 0.0
    table = {(2.0, math.inf): 1.0, (2.0, 2.0): sqrt_up(float(n)), (math.inf, math.inf): sqrt_up(float(d))}
    if not (gap > 8 * math.sqrt((d + 12) * UNIT_ROUNDOFF) and 1e-100 < largest < 1e100):
        return Gains(table, Roundoff(d + 12, input=LOST, entry=LOST))
    ratio = 1.01 / gap
    steep, flat = 8 * ratio + 8 * ratio**2 + 6, 4 * ratio + 8 * ratio**2 + 6
    return Gains(table, Roundoff(d + 12, input=1.01 * sqrt_up(float(n)) * steep, entry=1.01 * largest * flat))


def _least_distance(weight: Tensor, classes: int) -> float:
    """The least distance of two prototypes of different classes."""
    parts = weight.chunk(classes)
    return min(
        float(torch.cdist(a, torch.cat(parts[place + 1 :]), compute_mode="donot_use_mm_for_euclid_dist").min())
        for place, a in enumerate(parts[:-1])
    )

"""Layers of ℓ∞-distances: 1-Lipschitz in the ∞-norm, and more expressive there than matrices of norm 1.

Each unit measures how far its input is from a point in the ∞-norm. Networks of such units represent every 1-Lipschitz
function of that norm; matrices whose rows have 1-norm 1 cannot represent order statistics. Source: Zhang et al., ICML
2021 (distances), Zhang et al., NeurIPS 2022 (order statistics).
"""

import math
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .audit import Gains, Roundoff, refuse_training, rule
from .errors import TightlipError
from .linalg.power_distance import PIECE, power_distance
from .linalg.rounding import round_up, sqrt_up
from .options import FLAG, SHARE, SIZE
from .stored import stored_number, stored_numbers

MOST_OCTAVES = 20
"""p = 2^20 is as good as ∞ in float32."""


class _Distances(nn.Module):
    """Weights w (out, in), biases, and the octave of training."""

    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool, negative: bool, octave: int | None) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if type(size) is not int or size < 1:
                raise TightlipError(f"{name} must be an integer ≥ 1, got {size!r}")
        self.in_features, self.out_features, self.negative = in_features, out_features, bool(negative)
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.octave = octave

    @property
    def octave(self) -> int | None:
        """k, where training measures in the norm of p = 2^k; None where p = ∞."""
        return self._octave

    @octave.setter
    def octave(self, octave: int | None) -> None:
        if octave is not None and not (type(octave) is int and 1 <= octave <= MOST_OCTAVES):
            raise TightlipError(
                f"octave must be an integer from 1 to {MOST_OCTAVES}, or None for p = ∞, got {octave!r}"
            )
        self._octave = octave

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            kind = type(self).__name__
            raise TightlipError(f"{kind} takes {self.in_features} features, got inputs of shape {list(x.shape)}")
        distance = self.measured(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)
        distance = -distance if self.negative else distance
        return distance if self.bias is None else distance + self.bias

    def measured(self, rows: Tensor) -> Tensor:
        """(batch, in_features) → distances (batch, out_features)."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        parts = [f"{self.in_features}, {self.out_features}"]
        parts += ["bias=False"] * (self.bias is None) + ["negative=True"] * self.negative
        return ", ".join(parts)


class LinfDistance(_Distances):
    """y_j = ‖x − w_j‖_∞ + b_j, or b_j − ‖x − w_j‖_∞.

    The gradient of a maximum reaches one entry only, so in training mode the layer may measure in the p-norm instead:
    ``octave = k`` takes p = 2^k, None takes p = ∞. In eval mode, and to the audit, p = ∞ always.

    Args:
        in_features: Entries of an input.
        out_features: Units.
        bias: Whether units have a bias; it begins at zero.
        negative: Whether distances count with a minus sign, as logits do: the nearest prototype has the largest.
        octave: Of training, from 1 to 20; or None.

    Weights w (out, in) begin as standard Gaussians.

    Raises:
        TightlipError: for sizes below 1 or another octave; in the forward for other inputs than (…, in_features).

    >>> layer = LinfDistance(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0.0]]))
    >>> layer(torch.tensor([[0.5, 3.0]])).item()
    3.0
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, negative: bool = False, octave: int | None = None
    ) -> None:
        super().__init__(in_features, out_features, bias, negative, octave)

    def measured(self, rows: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """‖x − w_j‖ of each row and unit."""
        if self.training:
            return power_distance(rows, self.weight, self.octave)
        if rows.dtype in (torch.float16, torch.bfloat16):  # torch has no kernel
            return power_distance(rows, self.weight, None)
        distance = torch.cdist(rows, self.weight, p=math.inf)  # torch's own kernel, on which certificates rest
        broken = rows.isnan().any(1, keepdim=True) | self.weight.isnan().any(1)  # it passes over NaN
        return distance.masked_fill(broken, math.nan)


class SortedDistance(_Distances):
    """y_j = Σ_k c_k·d_(k) + b_j: the entries of d = |x − w_j| in descending order, weighted with c_k = (1 − ρ)·ρ^(k−1).

    With ρ = 0 it is `LinfDistance`. The weights add up to less than 1, so the layer is 1-Lipschitz in the ∞-norm;
    unlike matrices of norm 1 it represents order statistics. In training the sum is estimated by a maximum over those
    entries that remain when each is left out with probability ρ (one draw for each unit and step), whose mean is that
    sum. Source: Zhang et al., NeurIPS 2022 (SortNet).

    Args:
        in_features: Entries of an input.
        out_features: Units.
        dropout: ρ, from 0 to less than 1.
        bias: Whether units have a bias; it begins at zero.
        negative: Whether distances count with a minus sign.
        octave: As of `LinfDistance`.

    Raises:
        TightlipError: as of `LinfDistance`, and for another ρ.

    >>> layer = SortedDistance(3, 1, dropout=0.5).eval()
    >>> _ = layer.weight.data.zero_()
    >>> layer(torch.tensor([[8.0, 2.0, -4.0]])).item()  # 8/2 + 4/4 + 2/8
    5.25
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dropout: float = 0.3,
        bias: bool = True,
        negative: bool = False,
        octave: int | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, negative, octave)
        self.dropout = dropout
        _refuse_dropout(self)

    @property
    def weights(self) -> list[float]:
        """c, as far as float32 can tell it from zero."""
        _refuse_dropout(self)
        share = float(self.dropout)
        needed = 1 if share == 0 else math.ceil(math.log(2.0**-26) / math.log(share))
        return [(1.0 - share) * share**k for k in range(min(needed, self.in_features))]

    def measured(self, rows: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """The weighted sum of each row and unit, or in training its estimate."""
        if self.training:
            keep = (torch.rand_like(self.weight) >= self.dropout).to(rows.dtype)
            return power_distance(rows, self.weight, self.octave, keep)
        weights = rows.new_tensor(self.weights)
        units = max(1, PIECE // max(1, rows.numel()))
        parts = [
            (rows[:, None] - w[None]).abs().topk(len(weights), sorted=True).values @ weights
            for w in self.weight.split(units)
        ]
        return torch.cat(parts, 1)

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"{super().extra_repr()}, dropout={self.dropout:g}"


_SIZES = {"in_features": SIZE, "out_features": SIZE, "bias": FLAG, "negative": FLAG}


@rule(LinfDistance, options=_SIZES)
def _linf_distance(module: LinfDistance) -> Gains:
    """|‖x − w‖_∞ − ‖x' − w‖_∞| ≤ ‖x − x'‖_∞."""
    return _ordered(module, [1.0])


@rule(SortedDistance, options=_SIZES | {"dropout": SHARE})
def _sorted_distance(module: SortedDistance) -> Gains:
    """With descending weights the sum is a norm of d, so the triangle inequality holds of it."""
    _refuse_dropout(module)
    return _ordered(module, module.weights)


def _ordered(module: LinfDistance | SortedDistance, weights: list[float]) -> Gains:
    """Gains of N(x − w_j) for the norm N(d) = Σ c_k·|d|_(k): N ≤ ‖c‖₁·‖·‖_∞, ‖c‖₂·‖·‖₂ and c_1·‖·‖₁.

    n outputs move by n, or √n, times as much in the 1-norm, or 2-norm. Sums of m products of numbers ≥ 0 err by a share
    of (m + 2)·2⁻⁵³, differences and sums with a bias by 2⁻⁵³; sorting errs by nothing.
    """
    if module.octave is not None or isinstance(module, SortedDistance):
        refuse_training(module, "computes something else")
    n, exact = module.out_features, [Fraction(c) for c in weights]
    places = stored_numbers(module, "weight", (n, module.in_features)).abs()
    biases = [0.0] if module.bias is None else stored_numbers(module, "bias", (n,)).abs().tolist()
    square = sqrt_up(round_up(sum((c * c for c in exact), Fraction(0))))
    to_one = {1.0: round_up(max(exact)), 2.0: square, math.inf: round_up(sum(exact, Fraction(0)))}
    table = {(p, math.inf): c for p, c in to_one.items()}
    table |= {(2.0, 2.0): round_up(Fraction(square) * Fraction(sqrt_up(n))), (1.0, 1.0): round_up(n * max(exact))}
    own = to_one[math.inf] * float(places.max()) + max(biases)
    return Gains(table, Roundoff(2 * (len(weights) + 4), output=1.0, entry=max(biases), own=own))


def _refuse_dropout(module: SortedDistance) -> None:
    if not 0 <= stored_number(module, "dropout") < 1:
        raise TightlipError(f"dropout must be a number from 0 to less than 1, got {module.dropout!r}")

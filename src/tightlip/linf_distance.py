"""Layers of ℓ∞-distances: 1-Lipschitz in the ∞-norm, and more expressive there than matrices of norm 1.

Each unit measures how far its input is from a point in the ∞-norm. Networks of such units represent every 1-Lipschitz
function of that norm; matrices whose rows have 1-norm 1 cannot represent order statistics. Source: Zhang et al., ICML
2021 (distances), Zhang et al., NeurIPS 2022 (order statistics).
"""

import math
from fractions import Fraction

import torch
from torch import Tensor, nn

from .audit import Gains, Roundoff, Uniform, rule
from .errors import TightlipError
from .linalg.power_distance import power_distance
from .linalg.rounding import UNIT_ROUNDOFF, sqrt_up
from .options import FLAG, SHARE, SIZE
from .stored import stored_numbers

MOST_OCTAVES = 20
"""p = 2^20 is as good as ∞ in float32."""


class LinfDistance(nn.Module):
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
    >>> layer(torch.tensor([[0.5, 3.0]]))
    tensor([[3.]], grad_fn=<AddBackward0>)
    """

    bias: nn.Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, negative: bool = False, octave: int | None = None
    ) -> None:
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
            raise TightlipError(f"LinfDistance takes {self.in_features} features, got inputs of shape {list(x.shape)}")
        rows = x.reshape(-1, self.in_features)
        if self.training and self.octave is not None:
            distance = power_distance(rows, self.weight, self.octave)
        else:
            distance = torch.cdist(rows, self.weight, p=math.inf)
        distance = distance.reshape(*x.shape[:-1], self.out_features)
        distance = -distance if self.negative else distance
        return distance if self.bias is None else distance + self.bias

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        parts = [f"{self.in_features}, {self.out_features}"]
        parts += ["bias=False"] * (self.bias is None) + ["negative=True"] * self.negative
        return ", ".join(parts)


class MeanShift(nn.Module):
    """x ↦ x − mean, per feature: what batch normalization does without the division, and so 1-Lipschitz.

    In training the mean is that of the batch; ``momentum`` is the share of the old running mean that
    stays at each step. In eval mode it is the running mean. Source: Zhang et al., ICML 2021.

    Args:
        features: Entries along the last axis.
        momentum: From 0 to 1.

    Raises:
        TightlipError: for impossible options; in the forward for other inputs than (batch, features).

    >>> MeanShift(2).eval()(torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.]])
    """

    mean: Tensor

    def __init__(self, features: int, momentum: float = 0.95) -> None:
        super().__init__()
        if type(features) is not int or features < 1:
            raise TightlipError(f"features must be an integer ≥ 1, got {features!r}")
        if not isinstance(momentum, float | int) or not 0 <= momentum <= 1:
            raise TightlipError(f"momentum must be a number from 0 to 1, got {momentum!r}")
        self.features, self.momentum = features, momentum
        self.register_buffer("mean", torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, features) → the same."""
        if x.dim() != 2 or x.shape[1] != self.features:
            raise TightlipError(
                f"MeanShift takes rows of {self.features} features, got inputs of shape {list(x.shape)}"
            )
        if not self.training:
            return x - self.mean
        mean = x.mean(0)
        with torch.no_grad():
            self.mean.lerp_(mean, 1 - self.momentum)
        return x - mean

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"{self.features}, momentum={self.momentum:g}"


@rule(LinfDistance, options={"in_features": SIZE, "out_features": SIZE, "bias": FLAG, "negative": FLAG})
def _distance(module: LinfDistance) -> Gains:
    """|‖x − w‖_∞ − ‖x' − w‖_∞| ≤ ‖x − x'‖_∞ ≤ ‖x − x'‖₂ in each of n outputs: n of them move by √n times that.

    Differences, and sums with a bias, err by a share of 2⁻⁵³ each; a maximum errs by nothing.
    """
    if module.octave is not None:
        _refuse_training(module, f"measures in the norm of p = 2^{module.octave}")
    stored_numbers(module, "weight", (module.out_features, module.in_features))
    biases = [0.0] if module.bias is None else stored_numbers(module, "bias", (module.out_features,)).abs().tolist()
    table = {(math.inf, math.inf): 1.0, (2.0, 2.0): sqrt_up(module.out_features), (1.0, 1.0): module.out_features}
    return Gains(table, Roundoff(output=4.0 * UNIT_ROUNDOFF, entry=4.0 * UNIT_ROUNDOFF * max(biases)))


@rule(MeanShift, options={"features": SIZE, "momentum": SHARE}, affine=lambda module: Uniform(Fraction(1)))
def _mean_shift(module: MeanShift) -> Gains:
    """A translation; one difference errs by a share of 2⁻⁵³ of what it makes."""
    _refuse_training(module, "depends on the whole batch")
    stored_numbers(module, "mean", (module.features,))
    return Gains.constant(1, Roundoff(output=2.0 * UNIT_ROUNDOFF))


def _refuse_training(module: nn.Module, why: str) -> None:
    if module.training:
        kind = type(module).__name__
        raise TightlipError(f"{kind} in training mode {why}: call network.eval() before the audit")

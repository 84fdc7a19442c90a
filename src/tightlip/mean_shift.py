"""`MeanShift`: values of each channel have mean 0, which is what batch normalization does that costs no constant.

A translation has the constant 1 in every norm. Sorting layers choose by which of two values is larger; where one is
larger for all inputs they choose nothing, and values whose means differ by more than they vary are such. After training
the mean is a constant. Source: Zhang et al., ICML 2021.
"""

from fractions import Fraction

import torch
from torch import Tensor, nn

from .audit import Gains, Roundoff, Uniform, refuse_training, rule
from .errors import TightlipError
from .options import SHARE, SIZE
from .stored import stored_numbers


class MeanShift(nn.Module):
    """x ↦ x − mean, per channel: what batch normalization does without the division, and so 1-Lipschitz.

    In training the mean is that of the batch, and of the pixels of images; ``momentum`` is the share of the old running
    mean that stays at each step. In eval mode it is the running mean. Batches of a few rows have means that vary much:
    then leave it out. Where several processes train, each takes the mean of its own rows. Source: Zhang et al., ICML
    2021.

    Args:
        features: Entries along axis 1.
        momentum: From 0 to 1.

    Raises:
        TightlipError: for impossible options; in the forward for other inputs than (batch, features, …), and in
            training for integers.

    >>> MeanShift(2).eval()(torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.]])
    >>> MeanShift(2)(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    tensor([[-1.,  0.],
            [ 1.,  0.]])
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
        """(batch, features, …) → the same."""
        if x.dim() < 2 or x.shape[1] != self.features:
            raise TightlipError(
                f"MeanShift takes {self.features} features on axis 1, got inputs of shape {list(x.shape)}"
            )
        if self.training and not x.is_floating_point():
            raise TightlipError(f"MeanShift takes the mean of floating-point numbers, got {x.dtype}: give x.float()")
        mean = self._seen(x) if self.training and x.numel() > 0 else self.mean
        return x - mean.reshape([-1] + [1] * (x.dim() - 2))

    def _seen(self, x: Tensor) -> Tensor:
        """The mean of this batch, which the running one follows."""
        mean = x.mean(0) if x.dim() == 2 else x.mean(0).flatten(1).mean(1)
        with torch.no_grad():
            self.mean.lerp_(mean.to(self.mean.dtype), 1 - self.momentum)
        return mean

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"{self.features}, momentum={self.momentum:g}"


@rule(MeanShift, options={"features": SIZE, "momentum": SHARE}, affine=lambda module: Uniform(Fraction(1)))
def _mean_shift(module: MeanShift) -> Gains:
    """A translation; one difference errs by a share of 2⁻⁵³ of what it makes."""
    refuse_training(module, "depends on the whole batch")
    mean = stored_numbers(module, "mean", (module.features,))
    return Gains.constant(1, Roundoff(2, output=1.0, own=float(mean.abs().max())))

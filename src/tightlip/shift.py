"""`Shift`: channels move by one pixel, so that 1×1 convolutions between shifts see neighbors.

A permutation of pixels has all singular values 1 in every norm. Moving all pixels of a channel by one leaves a place
free at one edge and pushes a pixel out at the other; ``boundary`` says what becomes of them. Source of layers of shifts
and 1×1 convolutions: Wu et al. 2018.
"""

import torch
from torch import Tensor, nn

from .audit import EXACT, Gains, rule
from .choices import chosen
from .errors import TightlipError
from .options import INTEGER, SHARE, one_of
from .stored import stored_integer, stored_number


class Shift(nn.Module):
    """A share of the channels moves one pixel along an axis, half of them forward and half of them backward.

    Args:
        part: The share of the channels that moves, from 0 to 1; channels move in pairs, the first of all.
        dim: The axis of the pixels: 2 or 3 for images (N, C, H, W), or counted from the end.
        boundary: "bounce": what leaves one channel of a pair enters the other, a permutation without wrap-around;
            "circular": it enters at the other edge; "zeros": it is lost, and gradients with it.

    Raises:
        TightlipError: for a share outside [0, 1], the axis of the batch or of the channels, another boundary; in the
            forward, for inputs without that axis.

    >>> x = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    >>> Shift(1.0, dim=2)(x)
    tensor([[[4., 1., 2.],
             [5., 6., 3.]]])
    """

    def __init__(self, part: float = 0.5, dim: int = -1, boundary: str = "bounce") -> None:
        super().__init__()
        self.part, self.dim, self.boundary = part, dim, boundary
        _check(self)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, …) → the same."""
        axis = self.dim % x.dim() if -x.dim() <= self.dim < x.dim() else 0
        if axis < 2:  # the batch and the channels are not moved
            raise TightlipError(
                f"Shift(dim={self.dim}) does not fit inputs of shape {list(x.shape)}: dim is an axis after batch and "
                "channels"
            )
        pairs = int(self.part * x.shape[1] / 2)
        length = x.shape[axis]
        if not pairs or not length:
            return x
        forward, backward = x[:, :pairs], x[:, pairs : 2 * pairs]
        enters, leaves = _ENTERING[self.boundary](
            *(
                end
                for channel in (forward, backward)
                for end in (channel.narrow(axis, 0, 1), channel.narrow(axis, -1, 1))
            )
        )
        moved = torch.cat([enters, forward.narrow(axis, 0, length - 1)], axis)
        back = torch.cat([backward.narrow(axis, 1, length - 1), leaves], axis)
        return torch.cat([moved, back, x[:, 2 * pairs :]], 1)

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"{self.part:g}, dim={self.dim}, boundary={self.boundary!r}"


def _bounce(first: Tensor, last: Tensor, back_first: Tensor, back_last: Tensor) -> tuple[Tensor, Tensor]:
    return back_first, last


def _circular(first: Tensor, last: Tensor, back_first: Tensor, back_last: Tensor) -> tuple[Tensor, Tensor]:
    return last, back_first


def _zeros(first: Tensor, last: Tensor, back_first: Tensor, back_last: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(last), torch.zeros_like(back_first)


_ENTERING = {"bounce": _bounce, "circular": _circular, "zeros": _zeros}
"""What enters at the first pixel of channels that move forward, and at the last of those that move backward."""


def _check(module: Shift) -> None:
    if not 0 <= stored_number(module, "part") <= 1:
        raise TightlipError(f"part must be a share of the channels from 0 to 1, got {module.part}")
    if stored_integer(module, "dim") in (0, 1):
        raise TightlipError(f"dim={module.dim} is the axis of the {('batch', 'channels')[module.dim]}: give 2 or more")
    chosen("boundary", module.boundary, _ENTERING)


@rule(Shift, options={"part": SHARE, "dim": INTEGER, "boundary": one_of(*_ENTERING)})
def _shift(module: Shift) -> Gains:
    """Every output is one input, or zero, and no input is copied."""
    _check(module)
    return Gains.constant(1, EXACT)

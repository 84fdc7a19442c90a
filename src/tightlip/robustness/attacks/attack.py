"""What every attack in the table takes and returns."""

from typing import Any, Protocol

from torch import Tensor, nn


class Attack(Protocol):
    """A function that looks for points x' with ‖x' − x‖_p ≤ eps, inside the box, where the network answers wrongly.

    What else an attack takes, such as steps or a seed, has defaults and is its own.
    """

    def __call__(
        self,
        network: nn.Module,
        x: Any,
        y: Any,
        eps: float | Tensor,
        p: float = ...,
        *,
        clamp: tuple[float, float] | None = ...,
        targets: Any = ...,
    ) -> Tensor:
        """The points, of the shape of x.

        Args:
            network: Any classifier, (batch, classes) logits.
            x: Inputs (batch, …), floating-point numbers; a tensor, or an array of numpy.
            y: The classes to be left, (batch,), integers in [0, classes).
            eps: Radius, one for all or one per input (batch,), in units of x.
            p: 1, 2 or ``math.inf``.
            clamp: The box of valid inputs, or None for all of space.
            targets: Classes to be reached, (batch,), each another than in y; None where any class but y will do.
        """
        ...

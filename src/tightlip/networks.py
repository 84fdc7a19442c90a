"""Networks with a proven constant, as plain ``nn.Sequential``s: z_l = W_l h_{l-1} + b_l, h_l = φ(z_l), y = K z_L."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from .activations import MaxMin
from .constraints import Constraint, Hold, Orthonormal, constrain
from .errors import TightlipError
from .layers import Scale


def mlp(
    widths: Sequence[int],
    constraint: Constraint | Sequence[Constraint] | None = None,
    activation: Callable[[], nn.Module] = partial(MaxMin, contiguous=False),
    K: float = 1.0,
    hold: Hold = "step",
    bias: bool = True,
) -> nn.Sequential:
    """A fully connected network whose constrained layers are each 1-Lipschitz and whose last layer is `Scale(K)`.

    Args:
        widths: Input size, hidden widths, output size; at least two numbers. Inputs have shape (batch, widths[0]).
        constraint: One constraint for all layers or one per layer; default `Orthonormal()`.
        activation: Makes the activation after each hidden layer, e.g. ``MaxMin`` or ``partial(GroupSort, 4)``.
        K: The Lipschitz constant, in the constraint's norms.
        hold: How the constraints are held, see `constrain`.
        bias: Whether layers have (unconstrained) biases.

    Raises:
        TightlipError: for impossible widths, a wrong number of constraints, or an activation that makes no layer, or
            that a width does not fit.

    >>> network = mlp([2, 8, 8, 1], K=3.0)
    >>> network(torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    """
    if len(widths) < 2 or any(not isinstance(w, int) or w < 1 for w in widths):
        raise TightlipError(f"widths {list(widths)} make no network: give at least two integers ≥ 1")
    count = len(widths) - 1
    if constraint is None or isinstance(constraint, Constraint):
        constraint = [constraint or Orthonormal()] * count
    if not isinstance(constraint, Sequence):
        raise TightlipError(f"{constraint!r} is not a constraint: give an instance such as Orthonormal()")
    if len(constraint) != count:
        raise TightlipError(f"{len(constraint)} constraints do not fit {count} layers: give one, or one per layer")
    layers: list[nn.Module] = []
    features = widths[0]
    for index, (width, member_of) in enumerate(zip(widths[1:], constraint, strict=True)):
        linear = nn.Linear(features, width, bias)
        nn.init.orthogonal_(linear.weight)
        layers.append(constrain(linear, member_of, hold))
        features = width
        if index < count - 1:
            layers.append(_made(activation))
            features = layers[-1](torch.zeros(1, width)).shape[-1]
    return nn.Sequential(*layers, Scale(K))


def _made(activation: Any) -> nn.Module:
    """One more activation layer, of its own."""
    if isinstance(activation, nn.Module):
        raise TightlipError(
            f"activation={activation} is one layer, and each needs its own: give its class, or partial(GroupSort, 4)"
        )
    try:
        return activation()
    except TypeError as problem:
        name = getattr(activation, "__name__", repr(activation))
        raise TightlipError(
            f"activation={name} makes no layer when called ({problem}): give its options, as in partial(GroupSort, 4)"
        ) from problem

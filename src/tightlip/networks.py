"""Networks with a proven constant, as plain ``nn.Sequential``s: z_l = W_l h_{l-1} + b_l, h_l = φ(z_l), y = K z_L."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import nn

from .activations import MaxMin
from .constraints import Constraint, Hold, Orthonormal, constrain_sample
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
    widths = checked_widths(widths)
    count = len(widths) - 1
    if constraint is None or isinstance(constraint, Constraint):
        constraint = [constraint or Orthonormal()] * count
    if not isinstance(constraint, Sequence) or any(not isinstance(c, Constraint) for c in constraint):
        raise TightlipError(
            f"constraint must be a constraint such as Orthonormal(), or a list with one per layer, got {constraint!r}"
        )
    if len(constraint) != count:
        raise TightlipError(f"{len(constraint)} constraints do not fit {count} layers: give one, or one per layer")
    constant = Scale(K)
    layers: list[nn.Module] = []
    features = widths[0]
    for index, (width, member_of) in enumerate(zip(widths[1:], constraint, strict=True)):
        layers.append(constrain_sample(nn.Linear(features, width, bias), member_of, hold))
        features = width
        if index < count - 1:
            layers.append(made(activation))
            features = layers[-1](torch.zeros(1, width)).shape[-1]
    return nn.Sequential(*layers, constant)


def checked_widths(widths: Any) -> list[int]:
    """The sizes of a network's layers.

    Raises:
        TightlipError: unless there are at least two, each an integer ≥ 1.
    """
    return checked_sizes("widths", widths, "at least two integers ≥ 1, the input's size first", fewest=2)


def checked_sizes(
    name: str, sizes: Any, wanted: str = "integers ≥ 1", fewest: int = 0, most: float = math.inf
) -> list[int]:
    """Sizes of layers or of an image.

    Raises:
        TightlipError: unless there are as many as they may be, each an integer ≥ 1.
    """
    given = list(sizes) if isinstance(sizes, Iterable) and not isinstance(sizes, str) else [sizes]
    whole = all(isinstance(size, Integral) and not isinstance(size, bool) and int(size) >= 1 for size in given)
    if not fewest <= len(given) <= most or not whole:
        raise TightlipError(f"{name} must be {wanted}, got {sizes!r}")
    return [int(size) for size in given]


def made(activation: Any) -> nn.Module:
    """One more activation layer, of its own."""
    advice = "give a class such as MaxMin, or partial(GroupSort, 4)"
    if isinstance(activation, str):
        raise TightlipError(f"activation must be what makes a layer, got {activation!r}: {advice}")
    if isinstance(activation, nn.Module):
        raise TightlipError(f"activation must make a new layer for each place, got one layer, {activation}: {advice}")
    try:
        layer = activation()
    except TypeError as problem:
        name = getattr(activation, "__name__", repr(activation))
        raise TightlipError(f"activation={name} cannot be called without arguments ({problem}): {advice}") from problem
    if not isinstance(layer, nn.Module):
        raise TightlipError(f"activation must make a torch module, and made {layer!r}: {advice}")
    return layer

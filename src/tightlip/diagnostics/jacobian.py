"""How fast a network changes at given inputs: the singular values of its Jacobian, and the norm of a gradient.

σ(∂f/∂x) all equal to K      dynamical isometry (paper §4.4, Figure 16)
‖∂f/∂x‖_{p*} = K             the constant is used up at x (paper §3); 1/p + 1/p* = 1
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..arguments import integer, output_of
from ..errors import TightlipError
from ..norms import dual
from .subject import checked, copied


def jacobian_singular_values(
    network: nn.Module, x: Float[Tensor, "batch ..."], dtype: torch.dtype = torch.float64, batch_size: int = 64
) -> Float[Tensor, "batch k"]:
    """The singular values of ∂f/∂x at each input, descending; k = min(outputs, inputs), both flattened.

    One backward pass per output, then a decomposition: exact up to the rounding of ``dtype``. NaN in, NaN out: the row
    of an input is NaN where it, its outputs or its Jacobian hold NaN or infinity; the other rows are what they are.
    Sources: paper §4.4 and §7.1, Figure 6 (left).

    Args:
        network: Maps (batch, …) to (batch, …), each example by itself; evaluated in eval mode.
        x: Inputs.
        dtype: Of all arithmetic and of the result.
        batch_size: Inputs at once; their Jacobians are batch_size × outputs × inputs numbers.

    Raises:
        TightlipError: if there are no inputs, or not one row of outputs per input.

    >>> jacobian_singular_values(nn.Flatten(), torch.zeros(2, 3, 1))
    tensor([[1., 1., 1.],
            [1., 1., 1.]], dtype=torch.float64)
    """

    def values(x: Tensor, y: Tensor) -> Tensor:
        jacobians = torch.stack([_gradient(output, x) for output in y.unbind(1)], dim=1)
        known = _finite(jacobians)  # the decomposition raises on NaN
        return _nan_unless(known, torch.linalg.svdvals(jacobians.where(known[:, None, None], 0.0)))

    return _by_piece(values, network, x, dtype, batch_size)


def gradient_norm(
    network: nn.Module,
    x: Float[Tensor, "batch ..."],
    p: float = 2,
    output: int | None = None,
    dtype: torch.dtype = torch.float64,
    batch_size: int = 1024,
) -> Float[Tensor, " batch"]:
    """‖∂f/∂x‖_{p*} at each input: how fast f can change there, per unit of input in the p-norm.

    Nowhere above the constant that `lipschitz` proves for p, and equal to it where the network is tight. NaN where
    the input or its outputs hold NaN or infinity. Source: paper §3 and §7.1.

    Args:
        network: Maps (batch, …) to (batch,) or (batch, 1), or to more with ``output``; evaluated in eval mode.
        x: Inputs.
        p: The norm of the inputs, any p ≥ 1 or ``math.inf``. The gradient is measured in its dual.
        output: Which one of several outputs, counted as flattened.
        dtype: Of all arithmetic and of the result.
        batch_size: Inputs at once.

    Raises:
        TightlipError: if there are no inputs, no such output, or several of them and none chosen.

    >>> gradient_norm(nn.Flatten(), torch.zeros(2, 3), p=2, output=0)
    tensor([1., 1.], dtype=torch.float64)
    """
    order = dual(p)

    def norms(x: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.vector_norm(_gradient(y[:, _chosen(output, y.shape[1])], x), order, dim=1)

    return _by_piece(norms, network, x, dtype, batch_size)


def _chosen(output: Any, count: int) -> int:
    if output is None and count != 1:
        raise TightlipError(f"a gradient belongs to one output, and this network has {count}: choose one with output=")
    return integer("output", 0 if output is None else output, least=0, most=count - 1)


@torch.enable_grad()
def _by_piece(
    measure: Callable[[Tensor, Tensor], Tensor], network: Any, x: Any, dtype: torch.dtype, batch_size: int
) -> Tensor:
    """``measure(x, f(x))`` piece by piece, with f a copy of the network and f(x) of shape (piece, outputs)."""
    if not isinstance(dtype, torch.dtype):
        raise TightlipError(f"dtype must be a torch.dtype such as torch.float64, got {dtype!r}")
    x, network = checked(x), copied(network).requires_grad_(False).to(dtype)
    results = []
    for piece in x.detach().split(integer("batch_size", batch_size)):
        piece = piece.to(dtype, copy=True).requires_grad_()
        y = output_of(network, piece)
        measured = measure(piece, y.reshape(len(y), -1)).detach()
        results.append(_nan_unless(_finite(piece) & _finite(y), measured))
    return torch.cat(results)


def _finite(tensor: Tensor) -> Bool[Tensor, " batch"]:
    """Whether all entries of an example are."""
    return tensor.reshape(len(tensor), -1).isfinite().all(dim=1)


def _nan_unless(known: Bool[Tensor, " batch"], measured: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    return measured.where(known.reshape(-1, *[1] * (measured.dim() - 1)), math.nan)


def _gradient(output: Float[Tensor, " batch"], x: Tensor) -> Float[Tensor, "batch in"]:
    """∂output/∂x of every example, flattened; zero where the output does not depend on its input."""
    if not output.requires_grad:
        return x.new_zeros(len(x), x[0].numel())
    (gradient,) = torch.autograd.grad(output.sum(), x, retain_graph=True, materialize_grads=True)
    return gradient.reshape(len(x), -1)

"""Penalties on derivatives: ask for a slope where the data are, instead of proving one everywhere.

`gradient_penalty` asks a critic for ‖∇f‖₂ = 1 at random points between two samples; `jacobian_spectral_penalty` lowers
the largest singular value of a network's Jacobian at the data. Both are differentiated a second time, into the weights.
They constrain a network locally and prove nothing (paper §5); they are here to be compared with, and combined with, the
constraints, under which double backward works in both ways of holding.

Both expect networks that treat the examples of a batch one by one: put batch normalization in eval mode.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .arguments import integer, output_of, tensor
from .errors import TightlipError


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    first: Float[Tensor, "n ..."],
    second: Float[Tensor, "m ..."],
    target: float = 1.0,
    one_sided: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Mean (‖∇f(z)‖₂ − target)² with z = t·x + (1 − t)·x', one t ~ U(0, 1) per pair.

    Add it, times a weight (Gulrajani et al.: 10), to `kantorovich` of an unconstrained critic. Gradients flow into the
    critic, not into the samples. Under ``torch.no_grad`` it is evaluated all the same, without a graph. A critic that
    does not look at its input has the slope 0. Source: Gulrajani et al. 2017; one-sided: Petzka et al. 2018.

    Args:
        critic: Maps (n, …) to one number per example, (n,) or (n, 1).
        first: Samples x of one distribution.
        second: As many samples x' of the other, of the same shape.
        target: The slope asked for, in output units per input unit.
        one_sided: Penalize only slopes above the target.
        generator: Of the random t; None is torch's global one.

    Raises:
        TightlipError: if the samples differ in shape, or the critic gives no single number per example.

    >>> gradient_penalty(lambda z: 3 * z.sum(1), torch.zeros(4, 1), torch.ones(4, 1))
    tensor(4.)
    """
    first, second = tensor("first", first), tensor("second", second)
    if first.shape != second.shape or not len(first):
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise TightlipError(f"both samples must have one shape, and at least one example, got {shapes}")
    device = first.device if generator is None else generator.device
    t = torch.rand(len(first), generator=generator, dtype=first.dtype, device=device).to(first.device)
    t = t.reshape(-1, *[1] * (first.dim() - 1))
    between = (t * first + (1 - t) * second).detach()
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        between.requires_grad_()
        scores = output_of(critic, between)
        if scores.shape not in ((len(first),), (len(first), 1)):
            raise TightlipError(f"a critic must give one number per example, got shape {tuple(scores.shape)}")
        gradient = _pulled(between, scores, torch.ones_like(scores), create_graph=differentiable)
    excess = _sizes(gradient) - target
    return (excess.clamp(min=0.0) if one_sided else excess).square().mean()


def jacobian_spectral_penalty(
    network: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch ..."],
    iterations: int = 10,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """The largest singular value of the Jacobian at each input, averaged over the batch; by power iteration.

    An estimate from below, the better the more ``iterations``: each costs two backward passes. The last vectors are
    held fixed in the gradient, which is exact where the iteration has converged. Gradients flow into the network, not
    into ``x``. Under ``torch.no_grad`` it is evaluated all the same, without a graph. A network that does not look at
    its input has the Jacobian 0. The paper's baseline adds 0.05 times such a penalty to the cross-entropy, there with
    one iteration on the mean of the batch. Source: paper §5.

    Args:
        network: Maps (batch, …) to (batch, …), any shapes.
        x: Inputs.
        iterations: Rounds of power iteration, ≥ 0, started at random.
        generator: Of the starting vectors; None is torch's global one.

    Raises:
        TightlipError: for negative ``iterations``, an empty batch, or outputs that have no row per input.

    >>> stretch = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> round(float(jacobian_spectral_penalty(lambda x: x @ stretch, torch.ones(5, 2))), 4)
    3.0
    """
    x, iterations = tensor("x", x), integer("iterations", iterations, least=0)
    if not len(x):
        raise TightlipError("x must hold at least one example, got none")
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = output_of(network, x)
        if not y.requires_grad:
            return x.new_zeros(())
        left = _left_singular(x, y, iterations, generator)
        pulled = _pulled(x, y, left, create_graph=differentiable)
    return _sizes(pulled).mean()


def _left_singular(x: Tensor, y: Tensor, iterations: int, generator: torch.Generator | None) -> Tensor:
    """Unit vectors u, one per example, that u ↦ JJᵀu / ‖JJᵀu‖ has turned towards the largest singular value.

    Jᵀu is a backward pass; it is linear in u, so its own backward pass, from v, is Jv.
    """
    device = x.device if generator is None else generator.device
    left = _unit(torch.randn(y.shape, generator=generator, dtype=y.dtype, device=device).to(y.device))
    probe = torch.zeros_like(y, requires_grad=True)
    transposed = _pulled(x, y, probe, create_graph=True)
    for _ in range(iterations):
        right = _pulled(x, y, left)
        left = _unit(_pulled(probe, transposed, _unit(right)))
    return left


def _pulled(x: Tensor, y: Tensor, left: Tensor, create_graph: bool = False) -> Tensor:
    """(∂y/∂x)ᵀ·left; zero where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (pulled,) = torch.autograd.grad(y, x, left, retain_graph=True, create_graph=create_graph, materialize_grads=True)
    return pulled


def _sizes(vectors: Tensor) -> Tensor:
    """The 2-norm of each example's entries."""
    return torch.linalg.vector_norm(vectors.reshape(len(vectors), -1), dim=1)


def _unit(vectors: Tensor) -> Tensor:
    """Each example's entries, divided by their 2-norm; zero stays zero."""
    flat = vectors.reshape(len(vectors), -1)
    return functional.normalize(flat, dim=1, eps=torch.finfo(flat.dtype).tiny).reshape(vectors.shape)

"""An adversary for Lipschitz bounds: it searches pairs x, x' with a large ‖f(x) − f(x')‖_q / ‖x − x'‖_p.

Whatever it finds is a true lower estimate: a bound below it is wrong, a bound far above it may be loose. It looks
along the steepest direction of the Jacobian, known in closed form for every p ≤ q in {1, 2, ∞}, then climbs.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

PAIRS = [(p, q) for p in (1.0, 2.0, math.inf) for q in (1.0, 2.0, math.inf) if p <= q]
"""Every (input, output) norm with a closed form, written down again rather than imported."""

Function = Callable[[Tensor], Tensor]


def slopes(f: Function, x: Tensor, other: Tensor, p: float, q: float) -> Tensor:
    """The slope between each pair of inputs."""
    rise = torch.linalg.vector_norm((f(x) - f(other)).flatten(1), q, dim=1)
    return rise / torch.linalg.vector_norm((x - other).flatten(1), p, dim=1)


def jacobians(f: Function, x: Tensor) -> Tensor:
    """One (out, in) matrix per input, by one backward pass per output."""
    x = x.detach().requires_grad_()
    total = f(x).flatten(1).sum(0)
    rows = [torch.autograd.grad(y, x, retain_graph=True)[0].flatten(1) for y in total]
    return torch.stack(rows, dim=1)


def steepest(jacobian: Tensor, p: float, q: float) -> Tensor:
    """A direction of p-norm 1 in which each matrix attains its p→q operator norm."""
    if p == 1:
        best = torch.linalg.vector_norm(jacobian, q, dim=1).argmax(1)
        return torch.nn.functional.one_hot(best, jacobian.shape[2]).to(jacobian.dtype)
    if q == math.inf:
        dual = 2.0 if p == 2 else 1.0
        best = torch.linalg.vector_norm(jacobian, dual, dim=2).argmax(1)
        row = jacobian[torch.arange(len(best)), best]
        return torch.nn.functional.normalize(row, dim=1) if p == 2 else row.sign() + (row == 0).to(row.dtype)
    return torch.linalg.svd(jacobian, full_matrices=False).Vh[:, 0]


def climb(f: Function, x: Tensor, other: Tensor, p: float, q: float, steps: int) -> float:
    """Gradient ascent on the logarithm of the slope over both ends of every pair."""
    ends = [x.clone().requires_grad_(), other.clone().requires_grad_()]
    optimizer = torch.optim.Adam(ends, lr=0.03)
    best = 0.0
    for _ in range(steps):
        found = slopes(f, *ends, p, q)
        best = max(best, float(found.detach().max()))
        optimizer.zero_grad()
        (-found.clamp(min=1e-300).log().sum()).backward()
        optimizer.step()
    return best


def largest_slope(
    f: Function, shape: tuple[int, ...], p: float, q: float, *, seed: int = 0, points: int = 16, steps: int = 0
) -> float:
    """The largest slope found, in float64, for inputs of this shape (without the batch)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(points, *shape, generator=generator, dtype=torch.float64)
    direction = steepest(jacobians(f, x), p, q).reshape(x.shape)
    best = 0.0
    for step in (1e-3, -0.1, 1.0):
        with torch.no_grad():
            best = max(best, float(slopes(f, x, x + step * direction, p, q).max()))
    return max(best, climb(f, x, x + 0.1 * direction, p, q, steps)) if steps else best

"""What tests compare with: numbers drawn, layers written down, and norms computed without the library."""

import math

import mpmath
import numpy as np
import torch
from torch import nn


def gaussian(*shape, seed=0, dtype=torch.float64):
    """Standard normal numbers, drawn in float64 whatever they become."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def linear(weight, bias=None, dtype=torch.float64):
    """The layer with these entries; it is not trained."""
    weight = torch.tensor(weight, dtype=dtype)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=dtype)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = torch.tensor(bias, dtype=dtype)
    return layer.requires_grad_(False)


def exact_norm(weight, p, q):
    """‖W‖_{p→q} for p ≤ q by numpy, as exact as float64."""
    matrix = np.asarray(weight, dtype=np.float64)
    if p == q == 2:
        return float(np.linalg.svd(matrix, compute_uv=False)[0])
    order, axis = (q, 0) if p == 1 else ({2.0: 2, math.inf: 1}[p], 1)
    return float(np.linalg.norm(matrix, order, axis).max())


def norm_to_60_digits(weight, p, q):
    """The same, from the entries that are really stored."""
    with mpmath.workdps(60):
        rows = [[mpmath.mpf(v) for v in row] for row in weight.double().tolist()]
        if p == q == 2:
            return max(mpmath.svd_r(mpmath.matrix(rows), compute_uv=False))
        vectors, order = (list(zip(*rows, strict=True)), q) if p == 1 else (rows, {math.inf: 1, 2.0: 2}[p])
        return max(mpmath.norm(v, order) for v in vectors)


def distance(a, b, p):
    """‖a − b‖_p of each pair of inputs, in float64."""
    return torch.linalg.vector_norm((a - b).double().flatten(1), p, dim=1)

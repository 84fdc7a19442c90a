"""Calls that a newcomer makes: each works, or ends in one sentence. Run as a script, it names those that do neither.

A script, because under pytest the shape checks of the tests would speak first.
"""

import math
import sys
from functools import partial

import numpy as np
import torch
from torch import nn

from tightlip import (
    GroupSort,
    Householder,
    MaxMin,
    Maxout,
    Normalize,
    Orthonormal,
    Residual,
    Shift,
    TightlipError,
    activation_statistics,
    attack_suite,
    convnet,
    fgs,
    freeze,
    gradient_norm,
    gradient_penalty,
    jacobian_singular_values,
    jacobian_spectral_penalty,
    lifted,
    mixer,
    mlp,
    norm_product,
    pgd,
    summary,
)
from tightlip import constructions as c
from tightlip.data import Dataset, load, split
from tightlip.linalg import ball, polar, schedules
from tightlip.norms import dual, operator_norm
from tightlip.timing import benchmark
from tightlip.transport import Spheres, circular_cones, high_dimensional_cone


class Named(nn.Module):
    """Returns a dict, as many published models do."""

    def forward(self, x):
        return {"logits": x}


torch.manual_seed(0)
NET, CRITIC = freeze(mlp([4, 8, 3])), freeze(mlp([2, 8, 1]))
X, Y = torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
ARRAY, LABELS = X.numpy(), Y.numpy()
PAIR = circular_cones()
attack = partial(pgd, clamp=None, steps=2, restarts=1)

WORKS = {
    "K of a tensor": lambda: c.lattice_interpolant(X, torch.zeros(6), 2, K=torch.tensor(2.0)),
    "widths of numpy": lambda: mlp(np.array([2, 8, 2])),
    "group_size of numpy": lambda: GroupSort(np.int64(2))(X),
    "channels of numpy": lambda: Normalize(np.zeros(3), np.ones(3)),
    "samples of numpy": lambda: c.lattice_interpolant(ARRAY, np.zeros(6), 2),
    "integer values": lambda: c.lattice_interpolant(np.arange(6.0)[:, None], np.arange(6), 2),
    "a layer of numpy samples": lambda: c.LatticeInterpolant(ARRAY, np.zeros(6), 2),
    "polar factors on numpy": lambda: c.replace_by_polar(NET, ARRAY),
    "points of tensors": lambda: c.square_pyramids(torch.zeros(2), torch.ones(2)),
    "jacobians on numpy": lambda: jacobian_singular_values(NET, ARRAY),
    "statistics on numpy": lambda: activation_statistics(NET, ARRAY),
    "an attack on numpy": lambda: attack(NET, ARRAY, LABELS, 0.1),
    "radii in a list": lambda: attack(NET, X, Y, [0.1] * 6),
    "penalties on numpy": lambda: gradient_penalty(CRITIC, np.zeros((4, 2), np.float32), np.ones((4, 2), np.float32)),
    "centers of numpy": lambda: Spheres(np.zeros((1, 2))),
    "a matrix of numpy": lambda: (polar.polar(ARRAY), operator_norm(ARRAY, 2)),
}
REFUSED = {
    "a constraint by name": (lambda: mlp([2, 8, 2], "orthonormal"), "constraint must be"),
    "constraints by name": (lambda: mlp([2, 8, 2], ["orthonormal"] * 2), "constraint must be"),
    "the class of a constraint": (lambda: mlp([2, 8, 2], Orthonormal), "constraint must be"),
    "an activation by name": (lambda: mlp([2, 8, 2], activation="relu"), "activation must be what makes a layer"),
    "an activation that is none": (
        lambda: mlp([2, 8, 2], activation=lambda: 3),
        "a torch module, and made 3",
    ),
    "one width": (lambda: mlp(5), "widths must be at least two integers"),
    "no width": (lambda: mlp("abc"), "widths must be at least two integers"),
    "a width that is no integer": (lambda: mlp([2.5, 8, 2]), "widths must be at least two integers"),
    "hidden widths in words": (lambda: convnet((1, 8, 8), 3, hidden="64"), "hidden must be integers ≥ 1"),
    "a depth of a half": (lambda: mixer((1, 8, 8), 3, depth=1.5), "depth must be an integer ≥ 0, got 1.5"),
    "an image that is a number": (lambda: convnet(28, 10), "image must be channels, height and width"),
    "kernels for each axis": (lambda: convnet((1, 8, 8), 3, kernel=(3, 3)), "kernel must be one odd integer"),
    "a share in words": (lambda: Shift("half"), "Shift has part = 'half': give a finite number"),
    "an axis of a float": (lambda: Shift(0.5, 2.0), "Shift has dim = 2.0: give an integer"),
    "a boundary that is none": (lambda: Shift(0.5, 2, None), "no boundary is called None"),
    "an activation to be lifted": (lambda: lifted(nn.ReLU()), "constraints are for"),
    "volumes to be lifted": (lambda: lifted(nn.Conv3d(1, 2, 3)), "constraints are for"),
    "a constraint to be lifted by name": (lambda: lifted(nn.Linear(2, 2), "orthonormal"), "is not a constraint"),
    "an odd width": (lambda: mlp([2, 7, 2]), "choose a width that is a multiple of 2"),
    "a group in words": (lambda: GroupSort("2"), "group_size must be an integer ≥ 1, got '2'"),
    "a group of a half": (lambda: Maxout(2.5), "group_size must be an integer ≥ 1, got 2.5"),
    "an axis in words": (lambda: GroupSort(2, dim="a"), "dim must be an integer"),
    "a group for an axis": (lambda: MaxMin(2)(X), "and not how many are in a group"),
    "pairs below zero": (lambda: Householder(-1), "pairs must be an integer ≥ 1, got -1"),
    "a list of layers": (lambda: Residual([nn.ReLU()]), "made of layers"),
    "samples in lists": (lambda: c.lattice_interpolant([[0.0]], [0.0], 2), "points must be a tensor or a numpy array"),
    "samples on a line": (lambda: c.lattice_interpolant(X[0], X[0], 2), "points must have shape (N, d)"),
    "names that are one": (lambda: c.replace_by_polar(NET, X, "0"), "layers must be a list of names"),
    "no inputs": (lambda: c.replace_by_polar(NET, None), "inputs must be a tensor"),
    "a point that is a number": (lambda: c.square_pyramids(1, 2), "first must be a list of finite numbers, got 1"),
    "an offset in words": (lambda: c.fold([1, 0], "a", 1), "offset must be a finite number, got 'a'"),
    "no reach": (lambda: c.max_min_from_abs(2, None), "reach, a bound on every |x|, must be a finite number > 0"),
    "a slope in words": (lambda: c.leaky_relu_from_max_min(2, "a"), "slope must be"),
    "arguments swapped": (lambda: summary(2, NET), "no norm is called a Sequential"),
    "a network by name": (lambda: summary("net"), "network must be an nn.Module"),
    "outputs in a dict": (
        lambda: jacobian_singular_values(Named(), X),
        "one tensor, and it returned a dict",
    ),
    "outputs in a tuple": (lambda: gradient_norm(nn.LSTM(4, 4), X), "must return one tensor, and it returned a tuple"),
    "inputs of another width": (lambda: jacobian_singular_values(NET, X[:, :3]), "do not fit the network"),
    "the same for statistics": (lambda: activation_statistics(NET, X[:, :3]), "do not fit the network"),
    "no batch": (lambda: activation_statistics(NET, X, batch_size=0), "batch_size must be an integer ≥ 1, got 0"),
    "a dtype by name": (lambda: jacobian_singular_values(NET, X, dtype="float64"), "dtype must be a torch.dtype"),
    "an attack on a dict": (
        lambda: attack(Named(), X, Y, 0.1),
        "needs logits (batch, classes ≥ 2), got a dict",
    ),
    "an attack on other widths": (lambda: attack(NET, X[:, :3], Y, 0.1), "do not fit the network"),
    "an attack outside of the box": (
        lambda: pgd(NET, 9 * X, Y, 0.1),
        "clamp=(0.0, 1.0), and these reach",
    ),
    "a box that is a number": (lambda: pgd(NET, X, Y, 0.1, clamp=1), "clamp must be (lowest, highest)"),
    "a radius in words": (lambda: attack(NET, X, Y, "0.1"), "eps must be a number ≥ 0"),
    "labels of floats": (lambda: attack(NET, X, Y.float(), 0.1), "y must hold one integer for each of 6 inputs"),
    "labels beyond the classes": (lambda: attack(NET, X, Y + 5, 0.1), "labels must be from 0 to 2, got 5 to 7"),
    "integers that cannot move": (lambda: attack(NET, X.long(), Y, 0.1), "x must be floating point"),
    "one logit": (
        lambda: attack(mlp([4, 8, 1]), X, Y, 0.1),
        "needs logits (batch, classes ≥ 2), got a tensor",
    ),
    "steps below zero": (lambda: pgd(NET, X, Y, 0.1, steps=-1), "steps must be an integer ≥ 0"),
    "a loss that there is not": (lambda: attack(NET, X, Y, 0.1, loss="hinge"), "no loss is called 'hinge'"),
    "stopping in words": (lambda: attack(NET, X, Y, 0.1, early_stop="no"), "early_stop must be True or False"),
    "targets that are the classes": (lambda: fgs(NET, X, Y, 0.1, targets=Y), "6 of 6 are the same"),
    "one step on other widths": (lambda: fgs(NET, X[:, :3], Y, 0.1), "do not fit the network"),
    "a suite without a box": (lambda: attack_suite(NET, X, Y, 0.1, clamp=None), "need a box"),
    "a suite by another name": (
        lambda: attack_suite(NET, X, Y, 0.1, library="torchattack"),
        "did you mean torchattacks",
    ),
    "a suite on a function": (lambda: attack_suite(NET.forward, X, Y, 0.1), "network must be an nn.Module"),
    "a suite with several radii": (lambda: attack_suite(NET, X, Y, [0.1] * 6), "eps must be a finite number"),
    "a penalty on a dict": (lambda: jacobian_spectral_penalty(Named(), X), "must return one tensor"),
    "samples that are no pairs": (lambda: gradient_penalty(CRITIC, torch.ones(4, 2), torch.ones(5, 2)), "one shape"),
    "a norm that there is not": (lambda: norm_product(NET, 3), "no norm is called 3"),
    "centers in lists": (lambda: Spheres([[0.0, 0.0]]), "centers must be a tensor or a numpy array"),
    "half a sample": (lambda: PAIR.sample(2.5), "count must be an integer ≥ 1, got 2.5"),
    "points of another space": (lambda: PAIR.potential(torch.zeros(3, 5)), "points must have shape (…, 2)"),
    "a critic of another space": (lambda: PAIR.objective(mlp([3, 8, 1]), 8), "do not fit the network"),
    "a critic by name": (lambda: PAIR.objective("critic", 8), "network must be a module or a function"),
    "a dimension in words": (lambda: high_dimensional_cone("2"), "dimension must be an integer ≥ 1, got '2'"),
    "data that are no name": (lambda: load((ARRAY, LABELS)), "name must be that of a data set, or a path"),
    "a data set by name": (lambda: split("mnist5k", 0), "split takes a Dataset, as load gives"),
    "no seed": (lambda: split(load("mnist5k"), None), "seed must be an integer ≥ 0, got None"),
    "rows as images": (lambda: Dataset("a", "b", "c", X.double(), Y, None, None, 3, "x"), "torch.float64 rows"),
    "widths in words": (lambda: benchmark("784"), "widths must be at least two integers"),
    "a device that there is not": (lambda: benchmark([2, 4], device="nonsense"), "device must be one that torch knows"),
    "a vector as a matrix": (lambda: polar.polar(X[0]), "weight must be a floating-point matrix"),
    "integers as a matrix": (lambda: operator_norm(Y[None], 2), "weight must be a floating-point matrix"),
    "a schedule by name": (lambda: polar.orthonormalize(X, "bjorck"), "schedule must be a Schedule such as bjorck(3)"),
    "steps in words": (lambda: schedules.express("a"), "lower must be a finite number"),
    "a radius of a ball in words": (lambda: ball.project_l1_ball(X, "1"), "radius must be > 0, got '1'"),
    "a dual that there is not": (lambda: dual(math.nan), "no norm is called nan"),
}


def complaints():
    """One line for each call that neither works nor is refused in the words expected."""
    for name, call in WORKS.items():
        try:
            call()
        except Exception as error:  # noqa: BLE001  whatever it is, it is told
            yield f"{name}: {type(error).__name__}: {error}"
    for name, (call, says) in REFUSED.items():
        try:
            call()
            yield f"{name}: accepted"
        except TightlipError as error:
            if says not in str(error) or "\n" in str(error):
                yield f"{name}: {error}"
        except Exception as error:  # noqa: BLE001  as above
            yield f"{name}: {type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in complaints()))

"""Experiments: one file per table or figure, each a `Config` and a `run`. Nothing below imports them.

A new one is a file and its name in `EXPERIMENTS`; `tightlip list`, `tightlip run` and the tests find it there.
"""

from . import (
    absolute_value,
    bjorck_convergence,
    bjorck_vs_parseval,
    certified_ablations,
    circular_cones,
    classification,
    dynamical_isometry,
    folding,
    gan_distance,
    group_sort_shapes,
    high_dim_cones,
    input_gradients,
    jpeg_training,
    known_truth,
    lattice,
    lipschitz_capacity,
    maxmin_depth,
    mnist_robustness,
    real_data_truth,
    small_claims,
    small_data,
    spectral_vs_orthonormal,
    theorem_1,
    two_norm_universality,
    wgan,
    zigzag,
)
from .protocol import Experiment
from .words import name_of

EXPERIMENTS: dict[str, Experiment] = {
    name_of(module): module
    for module in (
        group_sort_shapes,
        theorem_1,
        folding,
        lattice,
        absolute_value,
        circular_cones,
        high_dim_cones,
        maxmin_depth,
        known_truth,
        real_data_truth,
        lipschitz_capacity,
        dynamical_isometry,
        spectral_vs_orthonormal,
        bjorck_convergence,
        bjorck_vs_parseval,
        gan_distance,
        wgan,
        classification,
        certified_ablations,
        small_data,
        jpeg_training,
        mnist_robustness,
        input_gradients,
        two_norm_universality,
        zigzag,
        small_claims,
    )
}
"""Every experiment by its name, in the order of the paper."""

__all__ = ["EXPERIMENTS", "Experiment"]

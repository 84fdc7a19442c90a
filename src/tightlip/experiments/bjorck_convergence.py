"""How fast each orthonormalization schedule converges, from several starts (paper §4.2.1, B.3).

A weight is divided by a bound on its norm (by the true one of `norm_bound`, or by √(rows·columns) as the original
experiments did) and iterated. The error is ‖I − WᵀW‖₂; a product is one multiplication of n × n matrices, 2n³ flops.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import sqrt

import torch
from torch import Tensor

from ..choices import chosen, unknown
from ..linalg.polar import iterate, norm_bound, polar, residual
from ..linalg.schedules import Schedule, bjorck, express
from .protocol import Outcome, Preset

SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    **{f"bjorck{order}": partial(bjorck, order=order) for order in range(1, 6)},
    "express3": lambda steps: _extended(express(1e-3), steps),
    "express6": lambda steps: _extended(express(1e-6), steps),
}


TOLERANCES = {"float32": 1e-6, "float64": 1e-12}
"""By arithmetic: the error at which a schedule has arrived."""

SCALES: dict[str, Callable[[Tensor], float | Tensor]] = {
    "bound": norm_bound,
    "size": lambda weight: sqrt(weight.numel()),
}
"""What the weight is divided by first."""


@dataclass(frozen=True)
class Config:
    """One schedule from one start."""

    schedule: str = "bjorck1"
    """bjorck1 … bjorck5: Björck's iteration of that order; express3, express6: polynomials that converge fastest for
    singular values from 1e-3 or 1e-6 to 1; adaptive: the library's own polar factor, which ends when it is done."""
    start: str = "gaussian"
    """The weight to begin with: gaussian (n × n), tall (gaussian, n × n/2), drifted (singular values from 0.6 to 1.6),
    initial (orthonormal, divided by √n)."""
    scaling: str = "bound"
    """What the weight is divided by first: a bound on its norm, or √(rows·columns), its size, which is none."""
    size: int = 720
    """n, the larger side of the weight."""
    dtype: str = "float32"
    """The arithmetic: float32 or float64."""
    steps: int = 60
    """The most steps of the iteration."""


GRID = {
    "schedule": (*SCHEDULES, "adaptive"),
    "start": ("gaussian", "tall", "drifted", "initial"),
    "scaling": ("bound", "size"),
}
SMOKE = Preset({"size": 64, "steps": 40}, grid={"start": ("gaussian", "drifted"), "scaling": ("bound",)})
PAPER = Preset({"size": 720}, seeds=3)
METRICS = {
    "final_error": "‖I − WᵀW‖₂ at the end; 0 if orthonormal.",
    "arrived": "1 if the error came down to 1e-6 (float32) or 1e-12 (float64), 0 if not; of several seeds, the share.",
    "steps": "Steps of the iteration until it arrived.",
    "products": "Multiplications of n × n matrices until it arrived, 2n³ flops each: the price.",
    "error_after_15_steps": "The error after 15 steps, or on arrival if that was earlier.",
}
CURVES = {"products": "products of n × n matrices", "error": "error ‖I − WᵀW‖₂"}


def run(config: Config, seed: int) -> Outcome:
    """Products and steps until the error is 1e-6 (float32) or 1e-12 (float64), and the error after each step."""
    tolerance = chosen("dtype", config.dtype, TOLERANCES)
    weight = start(config, seed)
    scale = chosen("scaling", config.scaling, SCALES)
    if config.schedule == "adaptive":
        error = _error(polar(weight))
        return Outcome({"final_error": error, "arrived": error <= tolerance, "steps": None, "products": None})
    weight = weight / scale(weight)
    products, errors = [0], [_error(weight)]
    for polynomial in chosen("schedule", config.schedule, SCHEDULES)(config.steps).polynomials:
        weight = iterate(weight, Schedule("one step", (polynomial,)))
        products.append(products[-1] + len(polynomial))
        errors.append(_error(weight))
        if errors[-1] <= tolerance or not errors[-1] < 1e6:
            break
    arrived = errors[-1] <= tolerance
    after_15 = errors[min(15, len(errors) - 1)]
    metrics = {
        "final_error": errors[-1],
        "arrived": arrived,
        "steps": len(errors) - 1 if arrived else None,
        "products": products[-1] if arrived else None,
        "error_after_15_steps": after_15,
    }
    return Outcome(metrics, {"curve": {"products": products, "error": errors}})


def start(config: Config, seed: int) -> Tensor:
    """The weight to begin with."""
    n, generator = config.size, torch.Generator().manual_seed(seed)
    gaussian = torch.randn(n, n, dtype=torch.float64, generator=generator)
    if config.start == "gaussian":
        weight = gaussian
    elif config.start == "tall":
        weight = gaussian[:, : n // 2]
    elif config.start == "drifted":
        u, _, vh = torch.linalg.svd(gaussian)
        weight = u * torch.linspace(0.6, 1.6, n, dtype=torch.float64) @ vh
    elif config.start == "initial":
        weight = polar(gaussian) / sqrt(n)
    else:
        raise unknown("start", config.start, GRID["start"])
    return weight.to(getattr(torch, config.dtype))


def _error(weight: Tensor) -> float:
    return float(torch.linalg.eigvalsh(residual(weight.double())).abs().max())


def _extended(schedule: Schedule, steps: int) -> Schedule:
    """The schedule, its last step repeated until there are ``steps``."""
    last: tuple[Fraction, ...] = schedule.polynomials[-1]
    return Schedule(schedule.name, schedule.polynomials + (last,) * max(0, steps - len(schedule.polynomials)))

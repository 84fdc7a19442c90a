"""Rules of torch's elementwise activations, of `Dropout` and of `Flatten`.

An elementwise map has the largest |slope| of its function as constant, in every norm; the rule states its least slope
too. Whatever a rule reads of its module is read exactly (`stored`). Slopes: docs/theory/audit.md.
"""

import math

from torch import nn

from ..audit import EXACT, FEW_ULPS, Flat, Gains, Roundoff, Uniform, refuse_training, rule
from ..errors import TightlipError
from ..options import INTEGER, NUMBER, SHARE, one_of
from ..stored import stored_integer, stored_number


def _identity(module: nn.Module) -> Uniform:
    return Uniform()


@rule(nn.Identity, options={}, affine=_identity)
def _itself(module: nn.Identity) -> Gains:
    return Gains.elementwise(1.0, 1.0, EXACT)


@rule(nn.ReLU, options={})
def _no_rounding(module: nn.ReLU) -> Gains:
    return Gains.elementwise(0.0, 1.0, EXACT)


@rule(nn.Tanh, nn.Softsign, nn.LogSigmoid, options={})
def _one(module: nn.Module) -> Gains:
    return Gains.elementwise(0.0, 1.0, FEW_ULPS)


@rule(nn.Hardtanh, options={"min_val": NUMBER, "max_val": NUMBER})
@rule(nn.ReLU6, options={})
def _clipped(module: nn.Hardtanh | nn.ReLU6) -> Gains:
    low, high = (stored_number(module, end, infinite=True) for end in ("min_val", "max_val"))
    if low == math.inf or high == -math.inf:
        raise TightlipError(f"{type(module).__name__} clips to {low} to {high}, which no number is: give finite ends")
    return Gains.elementwise(0.0, 1.0, Roundoff(own=max(abs(end) for end in (low, high, 0.0) if abs(end) < math.inf)))


@rule(nn.Sigmoid, options={})
def _sigmoid(module: nn.Sigmoid) -> Gains:
    return Gains.elementwise(0.0, 0.25, FEW_ULPS)


@rule(nn.ELU, options={"alpha": NUMBER})
def _elu(module: nn.ELU) -> Gains:
    alpha = stored_number(module, "alpha")
    return Gains.elementwise(min(alpha, 0.0), max(alpha, 1.0), FEW_ULPS)


@rule(nn.GELU, options={"approximate": one_of("none", "tanh")})
def _gelu(module: nn.GELU) -> Gains:
    if module.approximate not in ("none", "tanh"):
        raise TightlipError(f"GELU has approximate = {module.approximate!r}: give 'none' or 'tanh'")
    # 1 + erf(x) cancels for negative x, so the error is relative to x
    # the slope peaks at √2: 1.1289 (exact), 1.1290 (tanh); those at x and −x add up to 1
    return Gains.elementwise(-0.13, 1.13, Roundoff(16, 1.0, 1.0))


@rule(nn.SiLU, options={})
def _silu(module: nn.SiLU) -> Gains:
    return Gains.elementwise(-0.1, 1.1, FEW_ULPS)  # the slope peaks near 2.4 with 1.09984; at x and −x they add up to 1


@rule(nn.LeakyReLU, options={"negative_slope": NUMBER})
def _leaky_relu(module: nn.LeakyReLU) -> Gains:
    slope = stored_number(module, "negative_slope")
    return Gains.elementwise(min(slope, 1.0), max(slope, 1.0), FEW_ULPS)


@rule(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, options={"p": SHARE}, affine=_identity)
def _dropout(module: nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d) -> Gains:
    kind, p = type(module).__name__, stored_number(module, "p")
    if not 0 <= p <= 1:
        raise TightlipError(f"{kind} has p = {p}: give a probability between 0 and 1")
    if p > 0:
        refuse_training(module, "is random")
    return Gains.constant(1.0, EXACT)


def _flat(module: nn.Flatten) -> Flat | None:
    return Flat() if (module.start_dim, module.end_dim) == (1, -1) else None


@rule(nn.Flatten, options={"start_dim": INTEGER, "end_dim": INTEGER}, affine=_flat)
def _flatten(module: nn.Flatten) -> Gains:
    stored_integer(module, "end_dim")
    if stored_integer(module, "start_dim") < 1:
        raise TightlipError("Flatten(start_dim < 1) mixes the examples of a batch: use start_dim=1")
    return Gains.constant(1.0, EXACT)

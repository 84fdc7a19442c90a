"""Rules of more of torch's activations: elementwise ones by their largest slope, and the softmax.

| type | f(x) | largest slope |
| --- | --- | --- |
| `PReLU` | x, or w·x for x < 0 | max(1, max abs w) |
| `Softplus` | log(1 + exp(βx)) / β | 1: the slope is σ(βx) |
| `CELU` | x, or α·(exp(x/α) − 1) for x < 0 | 1: the slope is exp(x/α) ≤ 1 there, since α > 0 |
| `SELU` | s·x, or s·α·(exp(x) − 1) for x < 0 | s·α = 1.7581, at 0 from the left |
| `Mish` | x·tanh(log(1 + exp(x))) | 1.08850, near 1.49 |
| `Hardswish` | x·min(max(x + 3, 0), 6)/6 | 3/2, at 3 from the left: the slope is (2x + 3)/6 for abs x < 3 |
| `Hardsigmoid` | min(max(x + 3, 0), 6)/6 | 1/6 |
| `Softshrink` | x ∓ λ beyond ±λ ≥ 0, else 0 | 1 |
| `Tanhshrink` | x − tanh(x) | 1: the slope is tanh² |
| `Threshold` | max(x, t), where its value is its threshold t | 1 |
| `RReLU` in eval mode | x, or x·(l + u)/2 for x < 0 | max(1, abs (l + u)/2) |

What has a jump (`Hardshrink`, other `Threshold`s) or slopes that grow with the input (`GLU`) has no constant.
Sources: the formulas are those of torch's documentation; peaks of slopes are measured in the tests.
"""

import math
from fractions import Fraction

from torch import nn

from ..audit import EXACT, FEW_ULPS, Gains, Roundoff, refuse_training, rule
from ..errors import TightlipError
from ..linalg.rounding import round_down, round_up
from ..norms import PAIRS
from ..options import AXIS, NUMBER, SHARE, SIZE
from ..stored import stored_integer, stored_number, stored_numbers


@rule(nn.PReLU, options={"num_parameters": SIZE})
def _prelu(module: nn.PReLU) -> Gains:
    weight = stored_numbers(module, "weight")
    if weight.dim() > 1 or not weight.numel():
        raise TightlipError(f"PReLU has slopes of shape {tuple(weight.shape)}: restore one, or one for each channel")
    slopes = [1.0, *weight.flatten().tolist()]
    return Gains.elementwise(min(slopes), max(slopes), FEW_ULPS)


SOFTPLUS_THRESHOLDS = 15.0, 80.0
"""Below, the jump at the threshold is more than float32 rounds there; above, the exponential overflows in float32."""


@rule(nn.Softplus, options={"beta": NUMBER, "threshold": NUMBER})
def _softplus(module: nn.Softplus) -> Gains:
    """The function is log(1 + exp(βx))/β. Where βx exceeds the threshold t, torch evaluates it by x.

    That is a part of evaluation: it errs there by log(1 + exp(−βx))/β ≤ e⁻ᵗ/β, while x ≥ t/β, so relative to the output
    by at most e⁻ᵗ/t (1e-10 for the default t = 20, where float32 has a gap of 1e-7 between neighbors). Elsewhere βx is
    off by u·|βx|, which moves the output by at most u·|x|, and exp, log1p and the division by a few ulps.
    """
    _positive(module, "beta")
    threshold = stored_number(module, "threshold")
    low, high = SOFTPLUS_THRESHOLDS
    if not low <= threshold <= high:
        raise TightlipError(
            f"Softplus(threshold={threshold:g}) jumps there, or overflows before: give a threshold from 15 to 80"
        )
    return Gains.elementwise(0.0, 1.0, Roundoff(16, 1.0, 1.0, truncation=1.01 * math.exp(-threshold) / threshold))


@rule(nn.CELU, options={"alpha": NUMBER})
def _celu(module: nn.CELU) -> Gains:
    # x/α is computed as x·(1/α), off by 3u; |z·e^z| ≤ |e^z − 1| for z < 0, so the output is off by as little
    _positive(module, "alpha")
    return Gains.elementwise(0.0, 1.0, FEW_ULPS)


@rule(nn.SELU, options={})
def _selu(module: nn.SELU) -> Gains:
    # 1.0507009873554804934 · 1.6732632423543772848, rounded up
    return Gains.elementwise(0.0, 1.7580993408473770, FEW_ULPS)


@rule(nn.Mish, options={})
def _mish(module: nn.Mish) -> Gains:
    # exp, log1p, tanh and a product, none of which magnifies relative errors; the least slope is −0.11253
    return Gains.elementwise(-0.1126, 1.0886, FEW_ULPS)


@rule(nn.Hardswish, options={})
def _hardswish(module: nn.Hardswish) -> Gains:
    return Gains.elementwise(-0.5, 1.5, FEW_ULPS)


@rule(nn.Hardsigmoid, options={})
def _hardsigmoid(module: nn.Hardsigmoid) -> Gains:
    return Gains.elementwise(0.0, round_up(Fraction(1, 6)), FEW_ULPS)


@rule(nn.Softshrink, options={"lambd": NUMBER})
def _softshrink(module: nn.Softshrink) -> Gains:
    if stored_number(module, "lambd") < 0:
        raise TightlipError(f"Softshrink has lambd = {module.lambd}: give a number ≥ 0")
    return Gains.elementwise(0.0, 1.0, Roundoff(16, output=1.0, own=float(module.lambd)))


@rule(nn.Tanhshrink, options={})
def _tanhshrink(module: nn.Tanhshrink) -> Gains:
    return Gains.elementwise(0.0, 1.0, Roundoff(16, 1.0, 1.0))  # x and tanh(x) cancel near 0


@rule(nn.Threshold, options={"threshold": NUMBER, "value": NUMBER})
def _threshold(module: nn.Threshold) -> Gains:
    if stored_number(module, "threshold") != stored_number(module, "value"):
        raise TightlipError(
            f"Threshold({module.threshold:g}, {module.value:g}) jumps, so no constant holds: make both numbers the same"
        )
    return Gains.elementwise(0.0, 1.0, Roundoff(own=abs(float(module.value))))


@rule(nn.RReLU, options={"lower": NUMBER, "upper": NUMBER})
def _rrelu(module: nn.RReLU) -> Gains:
    refuse_training(module, "is random")
    slope = (Fraction(stored_number(module, "lower")) + Fraction(stored_number(module, "upper"))) / 2
    return Gains.elementwise(min(1.0, round_down(slope)), max(1.0, round_up(slope)), FEW_ULPS)


@rule(nn.AlphaDropout, nn.FeatureAlphaDropout, options={"p": SHARE})
def _alpha_dropout(module: nn.AlphaDropout | nn.FeatureAlphaDropout) -> Gains:
    kind, p = type(module).__name__, stored_number(module, "p")
    if not 0 <= p <= 1:
        raise TightlipError(f"{kind} has p = {p}: give a probability between 0 and 1")
    refuse_training(module, "is random")
    return Gains.constant(1.0, EXACT)


@rule(nn.Softmax, nn.Softmin, options={"dim": AXIS})
def _softmax(module: nn.Softmax | nn.Softmin) -> Gains:
    """The Jacobian J = diag(s) − ssᵀ has entries s_i(δ_ij − s_j), s being the probabilities.

    For each row and column, then,

        Σ_j |J_ij| = 2·s_i(1 − s_i) ≤ 1/2        ∞→∞, 1→1 (J is symmetric), and 2→2, since ‖J‖₂² ≤ ‖J‖₁‖J‖_∞
        √Σ_j J_ij² ≤ √2·s_i(1 − s_i) ≤ √2/4      2→∞ and 1→2, since Σ_{j≠i} s_j² ≤ (1 − s_i)²
        |J_ij| ≤ 1/4                             1→∞

    All are attained where two of the probabilities are 1/2. Several rows make J block diagonal, with the same norms.

    Evaluation: x_i − max x is off by u·|x_i − max x|, which moves s_i by as much times s_i: at most 2u·‖x‖₂·‖s‖₂ in
    all, and ‖s‖₂ ≤ 1 in each row. The sum of n positive terms and the rest is off by γ_{n+20} ≤ 20·γ_{n+2} of s.
    """
    kind, dim = type(module).__name__, module.dim
    if dim is None:
        raise TightlipError(f"{kind} has no dim, and guesses one: give dim=1 or dim=-1")
    if stored_integer(module, "dim") == 0 or dim < -1:
        raise TightlipError(f"{kind}(dim={dim}) could mix the batch, not the features: use dim=1 or dim=-1")
    half, root = Fraction(1, 2), Fraction(math.nextafter(math.sqrt(2.0), 2.0)) / 4
    table = dict.fromkeys(PAIRS, half) | {(1.0, 2.0): root, (2.0, math.inf): root, (1.0, math.inf): half / 2}
    return Gains(table, Roundoff(None, input=16.0, output=20.0))


@rule(nn.LogSoftmax)
def _log_softmax(module: nn.LogSoftmax) -> Gains:
    """It is 2-Lipschitz in the ∞-norm, but a margin is a difference of two outputs, and in that the number cancels.

    Raises:
        TightlipError: always.
    """
    raise TightlipError(
        "LogSoftmax subtracts a number that all outputs share: leave it out, since neither predictions nor margins "
        "change"
    )


@rule(nn.Hardshrink, nn.GLU)
def _no_constant(module: nn.Hardshrink | nn.GLU) -> Gains:
    """Hardshrink jumps at ±λ; GLU multiplies two halves of its input, so that slopes grow with the input.

    Raises:
        TightlipError: always.
    """
    why = "jumps: use nn.Softshrink" if type(module) is nn.Hardshrink else "multiplies parts of its input: use MaxMin"
    raise TightlipError(f"{type(module).__name__} has no Lipschitz constant, since it {why}")


def _positive(module: nn.Module, option: str) -> float:
    value = stored_number(module, option)
    if not 1e-30 <= value <= 1e30:
        raise TightlipError(f"{type(module).__name__} has {option} = {value:g}: give a number from 1e-30 to 1e30")
    return value

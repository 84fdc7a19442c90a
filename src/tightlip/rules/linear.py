"""The rule of ``nn.Linear``: the operator norms of its stored matrix."""

from torch import Tensor, nn

from ..audit import Gains, Matrix, Roundoff, rule
from ..audit.lipschitz import representable
from ..errors import TightlipError
from ..linalg.rounding import refuse_inexact
from ..linalg.spectral import frobenius_norm_bound, operator_norm_bounds
from ..options import FLAG, SIZE
from ..stored import stored_numbers


@rule(
    nn.Linear,
    options={"in_features": SIZE, "out_features": SIZE, "bias": FLAG},
    affine=lambda module: Matrix(module.weight),
)
def _linear(module: nn.Linear) -> Gains:
    weight = module.weight
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise TightlipError("the weight of a Linear is one matrix: restore a tensor of two axes")
    refuse_inexact(weight, "weight of Linear")
    if module.bias is not None:
        stored_numbers(module, "bias", weight.shape[:1])  # another shape would be broadcast, and repeat the output
    table = {pair: representable(bound) for pair, bound in operator_norm_bounds(weight).items()}
    # |error| ≤ γ(|W||x| + |b|) in any order of summation, and |b| ≤ |Wx + b| + |W||x|
    return Gains(table, Roundoff(weight.shape[1] + 2, 2.02 * frobenius_norm_bound(weight), 1.01))

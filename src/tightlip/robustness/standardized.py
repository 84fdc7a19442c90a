"""Networks that begin with `Normalize`: how far a row may move in standardized units.

Features of a table have units of their own, so a norm of them all means little. If f = g ∘ Normalize(mean, std), then
for z = (x − mean) / std

    a radius r of g at z    is    any change δ of x with ‖(δ_j / std_j)_j‖_p < r    leaves the answer,

so that feature j alone may move by r·std_j, in every norm. Logits are still those of f at x, with all that evaluating
`Normalize` can be off by.
"""

from ..audit import Gains, behind_first, bound_of
from ..errors import TightlipError
from ..layers import Normalize
from .examination import Examined


def standardizing(known: Examined) -> Examined:
    """The same network, with perturbations measured behind the `Normalize` that it begins with.

    Raises:
        TightlipError: if it does not begin with one.
    """
    nodes = known.audited.network.nodes
    first = nodes[0].operation if nodes else None
    if type(first) is not Normalize:
        raise TightlipError(
            "standardized=True is for networks that begin with Normalize: put it first, or leave it out"
        )
    measured = behind_first(known.audited)
    raw = Gains.constant(float(first.std.max()))  # δ_j is std_j times what it is in standardized units
    return known._replace(audited=measured, bound=bound_of(measured, known.p), reached=(raw, *measured.reached))

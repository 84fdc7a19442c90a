"""Networks that begin with `Normalize`: how far a row may move in standardized units.

Features of a table have units of their own, so a norm of them all means little. If f = g ∘ Normalize(mean, std), then
for z = (x − mean) / std

    a radius r of g at z    is    any change δ of x with ‖(δ_j / std_j)_j‖_p < r    leaves the answer,

so that feature j alone may move by r·std_j, in every norm. Logits are still those of f at x, with all that evaluating
`Normalize` can be off by.
"""

from ..audit import Audit, behind_first
from ..errors import TightlipError
from ..layers import Normalize


def standardizing(audited: Audit) -> Audit:
    """The audit of what follows the `Normalize` that a network begins with.

    Raises:
        TightlipError: if it does not begin with one.
    """
    nodes = audited.network.nodes
    if not nodes or type(nodes[0].operation) is not Normalize:
        raise TightlipError(
            "standardized=True is for networks that begin with Normalize: put it first, or leave it out"
        )
    return behind_first(audited)

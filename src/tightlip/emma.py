"""EMMA, efficient margin maximization: a cross-entropy that asks of each class for the margin that is there already.

    raise y_i by min(offset, max(0, y_t − y_i)),  i ≠ t,  taken without gradient.

So a network is never asked for more than one step ahead: an input that is wrong is to be right first.
"""

import math

from jaxtyping import Float, Int
from torch import Tensor

from .errors import TightlipError
from .losses import check_labels, margin_cross_entropy


def emma_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    offset: float,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Cross-entropy after each other logit i was raised by what it lies below the true one, up to ``offset``.

    The raise min(offset, max(0, y_t − y_i)) carries no gradient. Where the margin is reached, this is
    `margin_cross_entropy`; where the input is wrong, cross-entropy; in between the two logits are made equal, so that
    all classes within reach are pushed away alike, and not the nearest alone. There the *value* stays temperature·log
    of the number of equal classes however the margin grows: it tells little about progress, and the gradient is not
    its derivative. Choose epochs by certified accuracy.

    Source: Hu, Zou, Wang, Leino & Fredrikson 2023 (NeurIPS, EMMA), whose raise is what the radius lets a Lipschitz
    network's pair of logits move, and whose code raises by a hundredth of that at least; the temperature is that of
    `margin_cross_entropy`.

    Args:
        logits: Scores y.
        labels: True classes t in [0, classes).
        offset: The margin asked for in the end, in logit units: √2·K·ε for a radius ε in the 2-norm.
        temperature: Divides the raised logits and multiplies the loss, in logit units.

    Raises:
        TightlipError: for labels as in `multiclass_hinge`, an offset that is negative or not finite, or a temperature
            that is not positive.

    >>> import torch
    >>> emma_cross_entropy(torch.tensor([[0.3, 0.0]]), torch.tensor([0]), offset=1.0)  # as if they were equal: log 2
    tensor(0.6931)
    """
    check_labels(logits, labels)
    if not 0 <= offset < math.inf:
        raise TightlipError(f"offset must be a finite number ≥ 0, got {offset}")
    true = logits.detach().gather(1, labels.unsqueeze(1))
    reached = (true - logits.detach()).clamp(min=0.0, max=offset)
    return margin_cross_entropy(logits + reached, labels, temperature=temperature)

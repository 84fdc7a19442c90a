"""What attacks climb: functions of logits and a class that grow as the class loses, one number per input.

    cw    max_{i≠t} y_i − y_t      positive exactly where the class has changed
    ce    log Σ_i exp(y_i) − y_t   cross-entropy

The slope of cross-entropy is lost in rounding where a network is very sure, as with large Lipschitz constants; that of
the margin is not. Sources: Carlini & Wagner 2017, as in paper §7.3; Goodfellow et al. 2015.
"""

import math
from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from ...errors import TightlipError


def cw_loss(logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """max_{i≠t} y_i − y_t: positive where the class has changed. Source: Carlini & Wagner 2017, as in paper §7.3.

    Raises:
        TightlipError: for labels out of range.
    """
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) < logits.shape[1]):
        raise TightlipError(f"labels must be from 0 to {logits.shape[1] - 1}, got {int(y.min())} to {int(y.max())}")
    true = logits.gather(1, y.unsqueeze(1)).squeeze(1)
    return logits.scatter(1, y.unsqueeze(1), -math.inf).amax(1) - true


def cross_entropy(logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """−log of the probability that softmax gives to y."""
    return functional.cross_entropy(logits, y, reduction="none")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cw": cw_loss, "ce": cross_entropy}
"""By the names that attacks take."""

"""Decisions about each label of its own: present where its logit is above a threshold, absent where it is below.

Logit i moves by at most S[i]·‖δ‖ (`pairs.logit_sensitivity`), so its label stays within |y_i − threshold| / S[i]. All
labels of an input stay within the least of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..arguments import number, vector
from ..audit import Audit
from ..errors import TightlipError
from .contests import lasting, leads_of
from .decision import Decision, Judged, Steepness
from .pairs import logit_sensitivity


@dataclass(frozen=True)
class MultiLabel(Decision):
    """Every logit answers for a label of its own: present where it is above the threshold, absent where it is below.

    Labels are (batch, logits) of 0 and 1, or of truth values. The certificate is about all labels of an input together;
    its ``each`` holds one for every label. A logit at the threshold is never certified.

    Args:
        threshold: In units of the logits, one number or one for each: 0 where sigmoids would be compared with ½.

    >>> from tightlip import certify
    >>> x = torch.tensor([[0.9, -0.2]])
    >>> certificate = certify(torch.nn.Identity(), x, torch.tensor([[1, 0]]), decision=MultiLabel())
    >>> round(float(certificate.radius), 6), [round(float(label.radius), 6) for label in certificate.each]
    (0.2, [0.9, 0.2])
    """

    threshold: float | Sequence[float] | Tensor | np.ndarray = 0.0
    several = True

    def __post_init__(self) -> None:
        if isinstance(self.threshold, Tensor | np.ndarray):
            object.__setattr__(self, "threshold", self.threshold.tolist())
        if isinstance(self.threshold, Sequence) and not isinstance(self.threshold, str):
            object.__setattr__(self, "threshold", tuple(vector("threshold", self.threshold).tolist()))
        else:
            object.__setattr__(self, "threshold", number("threshold", self.threshold))

    def steepness(self, audited: Audit, p: float, overall: float, classes: int) -> Steepness:
        """Of every logit."""
        if isinstance(self.threshold, tuple) and len(self.threshold) != classes:
            raise TightlipError(f"{len(self.threshold)} thresholds do not fit {classes} logits: give one for each")
        return Steepness(logit_sensitivity(audited, p, classes))

    def judged(self, logits: Tensor, error: Tensor, y: Tensor | None, steep: Steepness) -> Judged:
        """The verdict on every label; no logit is off by more than all of them in the 2-norm."""
        threshold = torch.as_tensor(self.threshold, dtype=logits.dtype, device=logits.device)
        prediction = (logits > threshold).long()
        target = prediction if y is None else _checked(y.to(logits.device), logits)
        side = 2 * target - 1
        margin = leads_of(side * logits, side * threshold, error.unsqueeze(1))
        return Judged(lasting(margin, steep.each), margin, prediction, target)


def _checked(y: Tensor, logits: Tensor) -> Tensor:
    if y.shape != logits.shape:
        raise TightlipError(
            f"labels of shape {tuple(y.shape)} do not fit logits of shape {tuple(logits.shape)}: give a 0 or 1 for each"
        )
    if not bool(((y == 0) | (y == 1)).all()):
        raise TightlipError(f"labels reach from {int(y.min())} to {int(y.max())}: give 1 for present, 0 for absent")
    return y

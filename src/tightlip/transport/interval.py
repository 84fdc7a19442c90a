"""What is known of a distance: an interval, how it was found and why the search ended."""

from dataclasses import dataclass, field

from jaxtyping import Int64
from torch import Tensor, nn


@dataclass(frozen=True)
class Interval:
    """lower ≤ W1 ≤ upper, and what proves it.

    Attributes:
        lower: At most W1; in the unit of the points.
        upper: At least W1; infinite where nothing bounds it.
        estimate: One number to report: the middle for samples, the held-out difference of means for distributions.
        critic: The 1-Lipschitz function that separates best; ``lower`` is what it proves.
        p_value: Of the hypothesis that both distributions are the same; None about samples.
        method: How both ends were found.
        reason: Why the search ended there.
        seconds: That it took.
        history: How the interval closed: (seconds, lower, upper), the last one being this interval.
        pairs: Of the coupling that ``upper`` belongs to: rows (i, j), mass moves from x_i to y_j; None if not kept.
    """

    lower: float
    upper: float
    estimate: float
    critic: nn.Module
    p_value: float | None
    method: str
    reason: str
    seconds: float
    history: list[tuple[float, float, float]] = field(default_factory=list)
    pairs: Int64[Tensor, "k 2"] | None = None

    @property
    def gap(self) -> float:
        """(upper − lower)/upper: 0 for a point, 1 where nothing is known from below."""
        return (self.upper - self.lower) / self.upper if 0 < self.upper < float("inf") else float(self.upper > 0)

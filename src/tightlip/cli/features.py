"""The features of a table in the terminal: how far each may move alone, in its own unit."""

from collections.abc import Iterator, Sequence

from ..records import Feature
from ..report.wording import reach

_MOST = 12
"""Features that are told; the page has more."""


def told_features(features: Sequence[Feature]) -> Iterator[str]:
    """A line for each of the first features: its median radius over the test rows, alone and in its own unit."""
    if not features:
        return
    yield "alone may move      median over the test rows, in the feature's own unit, all others fixed"
    for feature in features[:_MOST]:
        yield f"  {feature.name[:40]:<30} {reach(feature.radius)}"
    if len(features) > _MOST:
        yield f"  and {len(features) - _MOST} more"

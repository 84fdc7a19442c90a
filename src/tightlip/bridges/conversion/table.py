"""What `convert` returns: the network, and a table of what each layer was, what it has become, and why."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...audit.trust import original_type
from ...constraints import constraint_of
from ...constraints.carrier import by
from ...decimals import exact
from ...norms import norm_name

WIDEST = 32
"""Most letters of a layer in the table, but for linear layers and convolutions."""


@dataclass(frozen=True)
class Row:
    """One layer or join: its place in the network, what it was, what it has become ("" where it is gone), and why."""

    place: str
    was: str
    became: str
    reason: str


@dataclass(frozen=True)
class Converted:
    """A network with a constant: trained with `hold`, audited after `freeze`. ``str`` makes a table of its rows.

    ``network`` ends in one `Scale`, ``constant``, from the ``norm`` to itself; several outputs are one long vector.
    """

    network: nn.Module = field(repr=False)
    table: tuple[Row, ...] = field(repr=False)
    norm: float
    constant: float

    def __str__(self) -> str:
        head = ("place", "was", "became", "why")
        lines = [head, *((row.place, row.was, row.became or "–", row.reason) for row in self.table)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        ruler = "─" * max(map(len, text))
        name = norm_name(self.norm)
        end = f"constant {exact(self.constant)} from the {name}-norm to the {name}-norm, once frozen"
        return "\n".join([text[0], ruler, *text[1:], ruler, end])


def described(layer: nn.Module | None) -> str:
    """A layer in few words: Linear 64→16; Conv2d 6→8, 3×3."""
    if layer is None:
        return ""
    if type(layer) is nn.Sequential:
        return ", then ".join(map(described, layer))
    kind = original_type(layer)
    text = f"{kind.__name__} {_WORDS[kind](layer)}" if kind in _WORDS else " ".join(repr(layer).split())
    short = (
        text if kind in _WORDS or len(text) <= WIDEST else f"{text[:WIDEST].rpartition(', ')[0] or kind.__name__}, …)"
    )
    constraint = constraint_of(layer)
    return short if constraint is None else f"{short} on {constraint}"


def _convolution(layer: Any) -> str:
    options = {"stride": layer.stride, "dilation": layer.dilation}
    parts = [f"{layer.in_channels}→{layer.out_channels}", by(layer.kernel_size)]
    parts += [f"{name} {by(sizes)}" for name, sizes in options.items() if {*sizes} != {1}]
    parts += [f"groups {layer.groups}"] * (layer.groups > 1) + [layer.padding_mode] * (layer.padding_mode != "zeros")
    return ", ".join(parts)


_WORDS: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.Linear: lambda layer: f"{layer.in_features}→{layer.out_features}",
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _convolution),
}

"""The scales of features: a network learns from standardized rows, and the one that is kept takes them raw.

What is trained is g, on z = (x − mean) / std; what is frozen, certified and saved is g ∘ Normalize(mean, std). So its
radius in standardized units (`certify(…, standardized=True)`) rests on the constant that training held, and each
feature has a radius in its own unit beside it (`robustness.feature_radii`).
"""

import copy
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from ..data import Dataset, Part, Splits
from ..data.standardization import spreads, standardization
from ..decimals import round_nearest
from ..layers import Normalize
from ..records import Feature
from ..robustness import feature_radii
from .classification_options import Config

UNEVEN = 1000.0
"""How far apart scales of features may be before a network that takes them raw is warned of."""


@dataclass(frozen=True)
class Scaling:
    """How inputs come to a network: through ``layer``, or raw where that is None; ``names`` are those of features."""

    layer: Normalize | None = None
    names: tuple[str, ...] = ()

    @property
    def standardized(self) -> bool:
        """Whether there is a layer."""
        return self.layer is not None

    @property
    def scales(self) -> dict[str, float] | None:
        """The standard deviation of each feature, by its name."""
        return None if self.layer is None else dict(zip(self.names, self.layer.std.flatten().tolist(), strict=True))

    def seen(self, part: Part) -> Part:
        """What the network is trained on in place of this part."""
        return part if self.layer is None else Part(self.layer(part.images), part.labels)

    def of(self, parts: Splits) -> Splits:
        """The same for all three."""
        return Splits(*map(self.seen, (parts.train, parts.validation, parts.test)))

    def whole(self, network: nn.Module) -> nn.Module:
        """The network that takes raw inputs, of one that takes what it was trained on."""
        if self.layer is None:
            return network
        layers = network if isinstance(network, nn.Sequential) else [network]
        place = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), None)
        return nn.Sequential(copy.deepcopy(self.layer).to(place), *layers).eval()

    def features(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        output: int | str | None = None,
        arithmetic: str = "real",
    ) -> tuple[Feature, ...]:
        """What is told of each feature, from rows that the whole network takes; nothing where they have no names."""
        if not self.names:
            return ()
        medians = np.median(feature_radii(network, images, labels, output, arithmetic).numpy(), axis=0).tolist()
        if self.layer is None:
            return tuple(Feature(name, median) for name, median in zip(self.names, medians, strict=True))
        columns = zip(self.names, medians, self.layer.mean.tolist(), self.layer.std.tolist(), strict=True)
        return tuple(Feature(*column) for column in columns)


def scaling_of(config: Config, dataset: Dataset, train: Part) -> Scaling:
    """As the options have it; mean and std are those of the training part."""
    names = dataset.feature_names
    if config.standardize != "yes":
        return Scaling(None, names)
    return Scaling(
        standardization(train.images), names or tuple(f"feature {place}" for place in range(train.images.shape[1]))
    )


def scaling_in(network: nn.Module, names: tuple[str, ...]) -> Scaling:
    """That of a whole network for rows with these names, as its first layer has it."""
    first = next(iter(network.children()), None) if isinstance(network, nn.Sequential) else None
    fits = type(first) is Normalize and first.mean.numel() == first.std.numel() == len(names)
    return Scaling(first if fits else None, names)  # type: ignore[arg-type]


def warning_of(scaling: Scaling, train: Part) -> str | None:
    """One sentence where raw features have scales so far apart that no norm suits them all."""
    if scaling.standardized or train.images.dim() != 2:
        return None
    spread = spreads(train.images).numpy()
    there = np.flatnonzero(spread > 0)
    if not len(there):
        return None
    least, most = there[spread[there].argmin()], there[spread[there].argmax()]
    if spread[most] <= UNEVEN * spread[least]:
        return None
    named = [scaling.names[place] if scaling.names else f"feature {place}" for place in (most, least)]
    apart = [
        f"{name} ({round_nearest(float(spread[place]), 2)})" for name, place in zip(named, (most, least), strict=True)
    ]
    return (
        f"standard deviations of features differ by a factor of {round_nearest(float(spread[most] / spread[least]), 2)}"
        f", from {apart[0]} to {apart[1]}, and one radius in raw units means little for both: give --standardize yes"
    )

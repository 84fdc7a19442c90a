"""How good generated images are: Fréchet distance and recall, in the features of a classifier of the same data.

    Fréchet distance    ‖m − m'‖² + tr(C + C' − 2(CC')^½), of means and covariances of features (Heusel et al. 2017)
    precision           the share of generated images within the reach of a real one: near its k-th real neighbor
    recall              the share of real images within the reach of a generated one (Kynkäänniemi et al. 2019)

Both are measured from samples, and what they are depends on the sample's size and on the features: numbers compare with
those of the same classifier and size alone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arguments import integer
from ..errors import TightlipError
from ..training import accuracy, predict
from .digits import Material, trained
from .shelf import kept

NEIGHBORS = 3
"""k: how far an image reaches."""

FEATURES = 64
"""Units of the classifier's last hidden layer."""

LEARNING_RATE = 2e-3
"""Of the classifier, at the start."""


@dataclass(frozen=True)
class Judge:
    """Features of images in [0, 1], and the accuracy of the classifier that they are of, on the test part."""

    features: nn.Module
    accuracy: float

    def __call__(self, images: Tensor) -> Tensor:
        """(n, *shape) → (n, features), in float64."""
        return predict(self.features, images).double()


def judge(material: Material, epochs: int) -> Judge:
    """Of a data set; the same for all seeds, and trained once for a run."""
    torch.manual_seed(0)
    network = classifier(material)
    key = {"judge": dict(material.source), "epochs": epochs}
    found = kept(key, lambda _: _learned(network, material, epochs))
    network.load_state_dict(found["network"])
    return Judge(network.eval().requires_grad_(False)[:-1], found["accuracy"])


def _learned(network: nn.Sequential, material: Material, epochs: int) -> dict[str, object]:
    options = {"epochs": epochs, "batch_size": 128, "learning_rate": LEARNING_RATE}
    trained(network, material, functional.cross_entropy, 0, **options)  # type: ignore[arg-type]
    test = material.parts.test
    network.eval()
    return {"network": network.state_dict(), "accuracy": accuracy(network, test.images, test.labels)}


def classifier(material: Material) -> nn.Sequential:
    """A small convolutional network; nothing constrains it."""
    channels, *sides = material.shape
    few = math.prod(math.ceil(math.ceil(side / 2) / 2) for side in sides)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(32 * few, FEATURES),
        nn.ReLU(),
        nn.Linear(FEATURES, material.classes),
    )


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Between normal distributions with the means and covariances of two samples (n, d) and (m, d).

    With R the triangular factor of the centered sample, C = RᵀR, the trace of (CC')^½ is the sum of the singular values
    of RR'ᵀ: no root of a matrix is taken, whatever the rank.

    Raises:
        TightlipError: unless both have two rows at least.
    """
    if min(len(x), len(y)) < 2:
        raise TightlipError(f"{len(x)} and {len(y)} samples have no covariance: give at least two of each")
    roots = [torch.linalg.qr((z - z.mean(0)).double() / (len(z) - 1) ** 0.5, mode="r").R for z in (x, y)]
    apart = (x.double().mean(0) - y.double().mean(0)).square().sum()
    squares = sum(root.square().sum() for root in roots) - 2 * torch.linalg.svdvals(roots[0] @ roots[1].mT).sum()
    return max(float(apart + squares), 0.0)


def reaches(x: Tensor, neighbors: int = NEIGHBORS) -> Tensor:
    """How far each row (n, d) is from its k-th nearest other row: (n,).

    Raises:
        TightlipError: unless there are more rows than neighbors.
    """
    integer("neighbors", neighbors, most=len(x) - 1)
    return torch.cat([torch.cdist(part, x).kthvalue(neighbors + 1).values for part in x.split(1000)])


def covered(x: Tensor, by: Tensor, reach: Tensor) -> float:
    """The share of rows x (n, d) that lie within the reach (m,) of a row of ``by`` (m, d)."""
    within = [(torch.cdist(part, by) <= reach).any(dim=1) for part in x.split(1000)]
    return float(torch.cat(within).double().mean())


@dataclass(frozen=True)
class Reference:
    """Real images that generated ones are compared with, by their features (n, d)."""

    judge: Judge
    features: Tensor
    reach: Tensor

    def compared(self, images: Tensor) -> dict[str, float]:
        """Fréchet distance, precision and recall of as many images (n, *shape) in [0, 1]."""
        found = self.judge(images)
        return {
            "frechet": frechet_distance(found, self.features),
            "precision": covered(found, self.features, self.reach),
            "recall": covered(self.features, found, reaches(found)),
        }


def reference(judge: Judge, images: Tensor) -> Reference:
    """Of real images (n, *shape) in [0, 1]."""
    features = judge(images)
    return Reference(judge, features, reaches(features))

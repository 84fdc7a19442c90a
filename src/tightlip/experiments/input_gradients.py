"""Figure 7: gradients of the loss with respect to the input, of a standard and of Lipschitz networks.

The paper: networks with a constant have interpretable gradients, without adversarial training. Here that is measured in
three ways, for the cross-entropy L with each target that is not the image's class. First, the cosine of −∂L/∂x with the
way to the mean of the target's class: it grows with the margin that is asked for, and is to exceed the standard
network's; the 10-Lipschitz network, trained without a margin, stands beside them. Then the shares of high
frequencies and of pixels that were never lit in training. Those are noise of the first weights, which orthonormal
weights keep, so that after a short training the standard network looks the better there. The picture has a test image
of each of five classes above its gradients: red where ∂L/∂x is above zero, blue below, where light leads to the target.
"""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..choices import chosen
from ..data import Part
from ..losses import margin_cross_entropy
from .digits import SCORED, Material, classifier, material, refuse_rows, scored, trained
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Network:
    """One of those compared: its activation, its constant if it has one, and in units of it what the loss asks for."""

    activation: str
    K: float | None
    offset: float = 0.0
    temperature: float | None = None


NETWORKS = {
    "standard relu": Network("relu", None),
    "1-Lipschitz maxmin, margin": Network("maxmin", 1.0, 0.8, 0.25),
    "1-Lipschitz maxmin, margin 3.2": Network("maxmin", 1.0, 3.2, 0.25),
    "10-Lipschitz maxmin": Network("maxmin", 10.0),
}

HIDDEN_LAYERS = 3

SHOWN = 5
"""Classes of which an image is shown."""

LEVELS = 127
"""The largest number of a drawn gradient, in whole numbers; all of one image have one scale."""

CUT = 0.25
"""Frequencies above are high, in periods per pixel; 0.5 is the highest along an axis."""


@dataclass(frozen=True)
class Config:
    """One network."""

    network: str = "standard relu"
    """Constant, activation and loss: the cross-entropy, for a margin of 0.8, or the one it names, at the temperature
    1/4 if it says so."""
    width: int = 512
    """Of the three hidden layers."""
    data: str = "mnist"
    """Data set of images, by its name or path."""
    epochs: int = 30
    """Passes over the training data; the one of the best validation accuracy is kept."""
    batch_size: int = 256
    """Examples per step."""
    learning_rate: float = 1e-3
    """Of Adam; it falls to zero along a cosine."""
    shift: int = 1
    """Images are moved by up to this many pixels at random in training."""
    inputs: int = 1000
    """Test images whose gradients are measured."""


GRID = {"network": tuple(NETWORKS)}
SMOKE = Preset({"data": "mnist5k", "width": 32, "epochs": 1, "inputs": 50})
PAPER = Preset(seeds=3)
METRICS = {
    "cosine": "Of −∂L/∂x with (mean of the target's class − x): the mean over test images and targets.",
    "high_frequencies": "The share of the energy of ∂L/∂x at frequencies above 1/4 per pixel; of white noise 0.8.",
    "never_lit": "The share of its energy at pixels that no training image lights, as far as images are moved.",
    "pixels_never_lit": "The share of such pixels: what a gradient without preference would have there.",
    "gradient_norm": "The mean of ‖∂L/∂x‖₂.",
    **SCORED,
}


def run(config: Config, seed: int) -> Outcome:
    """Three measures of the frozen network's gradients, and a picture of some."""
    known = chosen("network", config.network, NETWORKS)
    images = material(config.data, seed)
    refuse_rows(images, "gradients are shown as images")
    torch.manual_seed(seed)
    network = classifier(images, [config.width] * HIDDEN_LAYERS, known.activation, known.K)
    options = {"epochs": config.epochs, "batch_size": config.batch_size, "shift": config.shift}
    result = trained(network, images, loss(known), seed, learning_rate=config.learning_rate, **options)
    test = images.parts.test
    part = Part(test.images[: config.inputs], test.labels[: config.inputs])
    slopes = gradients(result.network, part.images, images.classes)
    measures = compared(slopes, part, images, unlit(images.parts.train.images, config.shift))
    drawn = {"images": picture(result.network, images, seed)}
    return Outcome(measures | scored(result, images), drawn, images.source)


def loss(network: Network) -> Any:
    """The cross-entropy, asking for what the network is to be asked for."""
    K = network.K or 1.0
    temperature = 1.0 if network.temperature is None else network.temperature * K
    return partial(margin_cross_entropy, offset=network.offset * K, temperature=temperature)


def gradients(network: nn.Module, x: Tensor, classes: int) -> Tensor:
    """∂L/∂x (images, targets, *shape) of the plain cross-entropy L with each class as the target, in float64."""
    x, network = x.double().requires_grad_(), copy.deepcopy(network).double()
    logs = functional.log_softmax(network(x), dim=1)
    slopes = [torch.autograd.grad(-logs[:, target].sum(), x, retain_graph=True)[0] for target in range(classes)]
    return torch.stack(slopes, dim=1)


def compared(slopes: Tensor, part: Part, images: Material, dark: Tensor) -> dict[str, float]:
    """The measures of gradients (images, targets, *shape) of a part, over targets other than an image's class.

    ``dark`` are the pixels (*shape) that training leaves unlit.
    """
    others = functional.one_hot(part.labels, images.classes) == 0
    ways = class_means(images.parts.train, images.classes) - part.images.double()[:, None]
    cosines = functional.cosine_similarity(-slopes.flatten(2), ways.flatten(2), dim=2)
    chosen_slopes = slopes[others]
    return {
        "cosine": float(cosines[others].mean()),
        "high_frequencies": float(high_frequencies(chosen_slopes).mean()),
        "never_lit": float(share_of_energy(chosen_slopes, dark).mean()),
        "pixels_never_lit": float(dark.double().mean()),
        "gradient_norm": float(torch.linalg.vector_norm(chosen_slopes.flatten(1), dim=1).mean()),
    }


def class_means(part: Part, classes: int) -> Tensor:
    """(classes, *shape), in float64."""
    return torch.stack([part.images[part.labels == label].double().mean(dim=0) for label in range(classes)])


def high_frequencies(slopes: Tensor) -> Tensor:
    """Of each gradient (n, channels, height, width), the share of its energy at |f| > `CUT`."""
    height, width = slopes.shape[-2:]
    down, across = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.fftfreq(width, dtype=torch.float64)
    high = torch.hypot(down[:, None], across[None, :]) > CUT
    return share_of_energy(torch.fft.fft2(slopes).abs(), high.expand(slopes.shape[1:]))


def share_of_energy(values: Tensor, where: Tensor) -> Tensor:
    """Of each row (n, *shape), the share of the sum of squares that lies ``where``; 0 for a row of zeros."""
    energy = values.square().flatten(1)
    return energy[:, where.flatten()].sum(dim=1) / energy.sum(dim=1).clamp(min=torch.finfo(energy.dtype).tiny)


def unlit(images: Tensor, shift: int) -> Tensor:
    """Pixels (channels, height, width) that are zero in all images (n, …), moved by up to ``shift`` pixels."""
    lit = (images != 0).any(dim=0).float()
    return functional.max_pool2d(lit, 2 * shift + 1, stride=1, padding=shift) == 0


def picture(network: nn.Module, images: Material, seed: int) -> dict[str, Any]:
    """A test image of each of the first classes, the same for all networks, above its gradients for each target."""
    labels = range(min(SHOWN, images.classes))
    x = torch.stack([a_test_image(images.parts.test, label, seed) for label in labels])
    slopes = gradients(network, x, images.classes)
    largest = slopes.sum(dim=2).abs().flatten(1).max(dim=1).values.clamp(min=torch.finfo(slopes.dtype).tiny)
    levels = (LEVELS * slopes / largest[:, None, None, None, None]).round().int()
    rows = [{"heading": "image", "signed": False, "images": (1000 * x.double()).round().div(1000).tolist()}]
    rows += [
        {"heading": f"target {target}", "signed": True, "images": levels[:, target].tolist()}
        for target in range(images.classes)
    ]
    return {"columns": [str(label) for label in labels], "scale": "column", "rows": rows}


def a_test_image(test: Part, label: int, seed: int) -> Tensor:
    """One at random of those of a class."""
    own = (test.labels == label).nonzero().flatten()
    return test.images[own[torch.randint(len(own), (), generator=torch.Generator().manual_seed(seed))]]

"""Certified classification: train, freeze, audit, certify and attack the test part (paper §7.3).

In the 2-norm: orthonormal layers, cross-entropy with an offset and a temperature. In the ∞-norm, the paper's network:
row-L1 layers, K = 1000 and the multi-class hinge with κ = K·a, which certifies the radius a/2.
"""

import logging
import math
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..activations import ACTIVATIONS
from ..audit import Bound, lipschitz
from ..choices import chosen
from ..constraints import Orthonormal, RowL1Ball, freeze
from ..data import Dataset, Part, Splits, load, split
from ..data.augmentation import is_image, random_shift
from ..data.dataset import words_for
from ..decimals import exact
from ..errors import TightlipError
from ..linkage import MODEL, model_sha256
from ..losses import margin_cross_entropy, multiclass_hinge
from ..norms import as_norm
from ..options import plain
from ..provenance import provenance, write_json
from ..robustness import Certificate, certify
from ..robustness.attacks import cw_loss
from ..serialization import save
from ..training import History, fit, predict
from . import architectures
from .architectures import Sizes, sizes_of
from .evidence import Attack, attack_curve, describe
from .laps import Laps

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Options of `tightlip train`."""

    data: str = "mnist5k"
    """Data set: mnist5k (ships with the package), mnist, fashion-mnist, cifar10, or a PATH: an .npz file, a
    folder of .npy files, or a folder of images."""
    norm: Literal["2", "inf"] = "2"
    """Norm of the perturbations to be certified against."""
    network: str = "mlp"
    """Kind of network: mlp, or for images convnet or mixer."""
    hidden: tuple[int, ...] | None = None
    """Widths of the dense hidden layers (default: 512 512 512 for the mlp, 256 for the others)."""
    channels: tuple[int, ...] | None = None
    """convnet and mixer only: channels of each stage (default: 64 128)."""
    depth: int | None = None
    """convnet and mixer only: convolutions of a stage after its first (default: 1 for the convnet, 2 for the mixer)."""
    activation: str = "maxmin"
    """Activation after each hidden layer: maxmin, groupsort4, fullsort, abs, maxout, relu or tanh."""
    k: float | None = None
    """Lipschitz constant of the network (default: 1 for the 2-norm, 1000 for the inf-norm)."""
    offset: float | None = None
    """2-norm only: margin that the cross-entropy asks for, in units of K (default: 0.8)."""
    temperature: float | None = None
    """2-norm only: temperature of the cross-entropy, in units of K (default: 0.25)."""
    a: float | None = None
    """inf-norm only: the hinge asks for the margin K·a, which certifies the radius a/2 (default: 0.1)."""
    patch: int | None = None
    """convnet and mixer only: height and width of the patches that the first stage begins with (default: 4)."""
    epochs: int = 50
    """Passes over the training data."""
    batch_size: int = 128
    """Examples per step."""
    learning_rate: float | None = None
    """Of Adam, falling to zero along a cosine (default: 0.002 for the 2-norm, 0.01 for the inf-norm)."""
    shift: int | None = None
    """Images are moved by up to this many pixels at random in training (default: 1; other data are not moved)."""
    eps: float | None = None
    """Radius of the headline (default: 0.3 for the 2-norm, a/2 for the inf-norm), in units of the inputs."""
    attack_images: int = 1000
    """Test inputs that the attack tries."""
    attack_steps: int = 50
    """Gradient steps per restart of the attack."""
    attack_restarts: int = 2
    """Starting points of the attack."""
    seed: int = 0
    """Of the split, the initialization, the order of the examples and the attack."""

    @property
    def p(self) -> float:
        """The norm as a number."""
        return as_norm(self.norm)

    @property
    def constant(self) -> float:
        """The Lipschitz constant asked for."""
        return (1.0 if self.p == 2 else 1000.0) if self.k is None else self.k

    @property
    def rate(self) -> float:
        """The initial learning rate."""
        return (2e-3 if self.p == 2 else 1e-2) if self.learning_rate is None else self.learning_rate

    @property
    def margin(self) -> float:
        """The margin that the loss asks for, in units of K."""
        given, default = (self.offset, 0.8) if self.p == 2 else (self.a, 0.1)
        return default if given is None else given

    @property
    def softness(self) -> float:
        """The temperature of the cross-entropy, in units of K."""
        return 0.25 if self.temperature is None else self.temperature

    @property
    def pixels(self) -> int:
        """How far images are moved in training."""
        return 1 if self.shift is None else self.shift

    @property
    def radius(self) -> float:
        """The radius of the headline."""
        return (0.3 if self.p == 2 else self.margin / 2) if self.eps is None else self.eps

    @property
    def sizes(self) -> Sizes:
        """Of the network."""
        return sizes_of(self.network, self.hidden, self.channels, self.depth, self.patch)

    @property
    def resolved(self) -> dict[str, Any]:
        """The options as JSON has them, with their defaults; None where the norm's loss has no such option."""
        loss = (self.margin, self.softness, None) if self.p == 2 else (None, None, self.margin)
        values = asdict(self) | {"k": self.constant, "learning_rate": self.rate}
        return (
            values
            | plain(asdict(self.sizes))
            | {"eps": self.radius, "shift": self.pixels}
            | dict(zip(("offset", "temperature", "a"), loss, strict=True))
        )


def _check(config: Config) -> None:
    """Refuse impossible options before anything is computed."""
    limits = {
        "epochs": (config.epochs, 1),
        "batch_size": (config.batch_size, 1),
        "shift": (config.pixels, 0),
        "seed": (config.seed, 0),
        "attack_images": (config.attack_images, 1),
        "attack_steps": (config.attack_steps, 1),
        "attack_restarts": (config.attack_restarts, 1),
        "eps": (config.radius, 0),
        "a" if config.p == math.inf else "offset": (config.margin, 0),
        "depth": (config.sizes.depth or 0, 0),
        "patch": (1 if config.sizes.patch is None else config.sizes.patch, 1),
        "temperature": (config.softness, 1e-12),
        "learning_rate": (config.rate, 1e-12),
        "k": (config.constant, 1e-30),
    }
    for name, norm in {"offset": "2", "temperature": "2", "a": "inf"}.items():
        if getattr(config, name) is not None and config.norm != norm:
            raise TightlipError(f"{name} belongs to the loss of the {norm}-norm: leave it out, or choose norm={norm}")
    for name, (value, least) in limits.items():
        if not least <= value <= 2**31:
            wanted = "positive" if 0 < least < 1 else f"at least {least}"
            flag = name.replace("_", "-")
            raise TightlipError(f"{name}={value} (--{flag}) is impossible: it must be {wanted}, and at most 2³¹")
    for name, widths in (("hidden", config.sizes.hidden), ("channels", config.sizes.channels or ())):
        _check_widths(name, widths, config.activation)


def _check_widths(name: str, widths: tuple[int, ...], activation: str) -> None:
    """Refuse widths that are no widths, or that the activation cannot group."""
    given = f"{name}={' '.join(map(str, widths))} (--{name})"
    make = chosen("activation", activation, ACTIVATIONS)
    if any(not 1 <= width <= 100_000 for width in widths):
        raise TightlipError(f"{given} is impossible: widths lie between 1 and 100000")
    for width in widths:
        try:
            make()(torch.zeros(1, width))
        except TightlipError as error:
            raise TightlipError(f"{given} does not suit activation={activation}: {error}") from error


@dataclass(frozen=True)
class Result:
    """What `run` leaves: the frozen network, its certificate on the test part, and the rows that were written."""

    network: nn.Module
    certificate: Certificate
    metrics: dict[str, Any]


def run(
    config: Config,
    folder: Path,
    device: str = "cpu",
    root: str | None = None,
    download: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Train, freeze, audit, certify and attack; write ``model.safetensors``, ``certificate.json``, ``metrics.json``.

    Args:
        config: All that determines the numbers.
        folder: Where to write; must exist. ``checkpoint.pt`` lies there until the run is complete.
        device: "cpu", "cuda", …
        root: Folder with data sets, instead of the environment's TIGHTLIP_DATA.
        download: Whether an absent data set may be fetched.
        resume: Continue from the checkpoint.
        progress: Show a progress bar on a terminal.

    Raises:
        TightlipError: for impossible options, bad data or data of one class, or a training that diverges.
    """
    _check(config)
    clock = Laps()
    origin = provenance(device)
    dataset = load(config.data, root=root, download=download)
    if dataset.classes < 2:
        raise TightlipError(f"{dataset.name} has one class, and a classifier tells classes apart: give at least two")
    if config.shift and not is_image(dataset.images):
        shape = tuple(dataset.images.shape[1:])
        raise TightlipError(
            f"shift={config.shift} (--shift) moves images (channels, height, width), and inputs of {dataset.name} have "
            f"shape {shape}: leave it out"
        )
    inputs, _ = words_for(dataset.images.shape[1:])
    parts = split(dataset, config.seed)
    network = build(config, parts.train, dataset.classes)
    checkpoint = folder / "checkpoint.pt"
    logger.info("%s: training on %d %s, %d epochs", folder, len(parts.train), inputs, config.epochs)
    began = time.process_time()
    history = _train(config, network, parts.train, parts.validation, device, checkpoint, resume, progress)
    computed = time.process_time() - began  # of all threads
    clock.lap("train", sum(row["seconds"] for row in history))
    logger.info("freezing, auditing, certifying %d test %s", len(parts.test), inputs)
    frozen = freeze(network)
    clock.lap("freeze")
    lipschitz(frozen, config.p)  # `certify` audits again; this lap is the audit alone
    clock.lap("audit")
    images, labels = parts.test.images.to(device), parts.test.labels.to(device)
    certificate = certify(frozen, images, labels, config.p, 1024, progress)
    clock.lap("certify")
    logger.info("attacking %d of them", min(config.attack_images, len(labels)))
    options = Attack(config.attack_images, config.attack_steps, config.attack_restarts)
    attacked = attack_curve(options, config.p, config.radius, frozen, images, labels, certificate, progress)
    clock.lap("attack")
    metrics = _metrics(config, dataset, parts, history, certificate, attacked)
    save(frozen, folder / MODEL)
    model = model_sha256(folder)
    metrics["cpu_seconds"] = None if resume else {"train": round(computed, 3)}
    metrics |= {"name": folder.name, "seconds": clock.seconds(), **model, **origin}
    write_json(folder / "certificate.json", describe(config.p, certificate, images, labels, frozen, attacked) | model)
    write_json(folder / "metrics.json", metrics)
    checkpoint.unlink(missing_ok=True)
    return Result(frozen, certificate, metrics)


def build(config: Config, train: Part, classes: int) -> nn.Sequential:
    """The network of a run: constrained layers, one Scale(K)."""
    torch.manual_seed(config.seed)
    constraint = Orthonormal() if config.p == 2 else RowL1Ball()
    shape, activation = tuple(train.images.shape[1:]), ACTIVATIONS[config.activation]
    return architectures.build(config.network, shape, classes, config.sizes, constraint, activation, config.constant)


def _train(
    config: Config,
    network: nn.Module,
    train: Part,
    validation: Part,
    device: str,
    checkpoint: Path,
    resume: bool,
    progress: bool,
) -> History:
    k = config.constant
    loss = (
        partial(margin_cross_entropy, offset=config.margin * k, temperature=config.softness * k)
        if config.p == 2
        else partial(multiclass_hinge, kappa=config.margin * k, mean_over_classes=True)
    )
    augment = partial(random_shift, pixels=config.pixels) if config.pixels and is_image(train.images) else None
    return fit(
        network,
        loss,
        (train.images, train.labels),
        (validation.images, validation.labels),
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer=partial(torch.optim.Adam, lr=config.rate),
        score=partial(_certified_share, margin=_sensitivity(config.p) * k * config.radius),
        augment=augment,
        device=device,
        seed=config.seed,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
    )


def _certified_share(network: nn.Module, x: Tensor, y: Tensor, margin: float) -> float:
    """The share of inputs that lead by more than ``margin``."""
    return float((-cw_loss(predict(network, x), y) > margin).double().mean())


def _sensitivity(p: float) -> float:
    return Bound(1.0, p, p).sensitivity


def _metrics(
    config: Config,
    dataset: Dataset,
    parts: Splits,
    history: History,
    certificate: Certificate,
    attacked: dict[str, Any],
) -> dict[str, Any]:
    sizes = {name: len(getattr(parts, name)) for name in ("train", "validation", "test")}
    shape = list(parts.test.images.shape[1:])
    best = max(history, key=lambda row: (row["validation_score"], row["epoch"]))
    eps = exact(config.radius)
    return {
        "format": 1,
        "command": "train",
        "config": config.resolved | {"shift": config.pixels if is_image(parts.test.images) else 0},
        "data": {
            "name": dataset.name,
            "source": dataset.source,
            "sha256": dataset.sha256,
            "split": sizes,
            "classes": dataset.classes,
            "shape": shape,
            **({"class_names": list(dataset.class_names)} if dataset.class_names else {}),
        },
        "seed": config.seed,
        "history": history,
        "best_epoch": int(best["epoch"]),
        "test": {
            "accuracy": certificate.accuracy(0.0),
            "certified": {eps: certificate.accuracy(config.radius)},
            "attacked": {eps: attacked["accuracy"][attacked["eps"].index(config.radius)]},
        },
    }

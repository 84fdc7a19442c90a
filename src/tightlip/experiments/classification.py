"""Certified classification: train, freeze, audit, certify and attack the test part (paper §7.3).

In the 2-norm: orthonormal layers, cross-entropy with an offset and a temperature. In the ∞-norm, the paper's network:
row-L1 layers, K = 1000 and the multi-class hinge with κ = K·a, which certifies the radius a/2.
"""

import logging
import math
import time
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..activations import ACTIVATIONS
from ..atomic import sha256
from ..audit import Bound, lipschitz
from ..choices import chosen
from ..constraints import Orthonormal, RowL1Ball, freeze
from ..data import Dataset, Part, Splits, load, split
from ..data.augmentation import is_image, random_shift
from ..data.dataset import words_for
from ..decimals import exact
from ..errors import TightlipError
from ..linkage import MODEL
from ..losses import margin_cross_entropy, multiclass_hinge
from ..networks import mlp
from ..norms import as_norm
from ..provenance import provenance
from ..records import Attack as Attacked
from ..records import Data, Epoch, RunRow, Tested
from ..robustness import Certificate, certify
from ..robustness.attacks import cw_loss
from ..serialization import save
from ..training import History, fit, predict
from .evidence import Attack, attack_curve, certificate_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Options of `tightlip train`."""

    data: str = "mnist5k"
    """Data set: mnist5k (ships with the package), mnist, fashion-mnist, cifar10, or a PATH: an .npz file, a
    folder of .npy files, or a folder of images."""
    norm: Literal["2", "inf"] = "2"
    """Norm of the perturbations to be certified against."""
    hidden: tuple[int, ...] = (512, 512, 512)
    """Widths of the hidden layers."""
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
    def resolved(self) -> dict[str, Any]:
        """The options as JSON has them, with their defaults; None where the norm's loss has no such option."""
        loss = (self.margin, self.softness, None) if self.p == 2 else (None, None, self.margin)
        values = asdict(self) | {"hidden": list(self.hidden), "k": self.constant, "learning_rate": self.rate}
        return (
            values
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
    _check_widths(config.hidden, config.activation)


def _check_widths(hidden: tuple[int, ...], activation: str) -> None:
    """Refuse widths that are no widths, or that the activation cannot group."""
    given = f"hidden={' '.join(map(str, hidden))} (--hidden)"
    make = chosen("activation", activation, ACTIVATIONS)
    if any(not 1 <= width <= 100_000 for width in hidden):
        raise TightlipError(f"{given} is impossible: widths lie between 1 and 100000")
    for width in hidden:
        try:
            make()(torch.zeros(1, width))
        except TightlipError as error:
            raise TightlipError(f"{given} does not suit activation={activation}: {error}") from error


@dataclass(frozen=True)
class Result:
    """What `run` leaves: the frozen network, its certificate on the test part, and the row that was written."""

    network: nn.Module
    certificate: Certificate
    row: RunRow


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
    clock = _Clock()
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
    history = _train(config, network, parts.train, parts.validation, device, checkpoint, resume, progress)
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
    proof = certificate_file(config.p, certificate, images, labels, frozen, attacked)
    row = RunRow(
        command="train",
        config=config.resolved | {"shift": config.pixels if is_image(parts.test.images) else 0},
        data=_data(dataset, parts),
        seed=config.seed,
        history=tuple(_epoch(epoch) for epoch in history),
        best_epoch=int(max(history, key=lambda epoch: (epoch["validation_score"], epoch["epoch"]))["epoch"]),
        test=_tested(config, certificate, attacked),
        name=folder.name,
        seconds=clock.seconds(),
        **origin,
    )
    save(frozen, folder / MODEL)
    model = sha256(folder / MODEL)
    proof, row = replace(proof, model_sha256=model), replace(row, model_sha256=model)
    proof.write(folder / "certificate.json")
    row.write(folder / "metrics.json")
    checkpoint.unlink(missing_ok=True)
    return Result(frozen, certificate, row)


def build(config: Config, train: Part, classes: int) -> nn.Sequential:
    """The network of a run: flatten, constrained layers, one Scale(K)."""
    torch.manual_seed(config.seed)
    widths = [train.images[0].numel(), *config.hidden, classes]
    constraint = Orthonormal() if config.p == 2 else RowL1Ball()
    return nn.Sequential(nn.Flatten(), mlp(widths, constraint, ACTIVATIONS[config.activation], config.constant))


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


def _data(dataset: Dataset, parts: Splits) -> Data:
    sizes = {name: len(getattr(parts, name)) for name in ("train", "validation", "test")}
    shape = np.array(parts.test.images.shape[1:])
    source = (dataset.name, dataset.source, dataset.sha256)
    return Data(*source, sizes, dataset.classes, shape, tuple(dataset.class_names))


def _epoch(row: dict[str, float]) -> Epoch:
    known: dict[str, Any] = {field.name: row[field.name] for field in fields(Epoch) if field.name in row}
    return Epoch(**known)


def _tested(config: Config, certificate: Certificate, attacked: Attacked) -> Tested:
    eps, place = exact(config.radius), attacked.eps.tolist().index(config.radius)
    certified, standing = certificate.accuracy(config.radius), float(attacked.accuracy[place])
    return Tested(certificate.accuracy(0.0), {eps: certified}, {eps: standing})


class _Clock:
    """Wall-clock seconds of each stage; training counts its epochs, so that a resumed run is not shorter."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str, seconds: float | None = None) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self.last if seconds is None else seconds, 3)
        self.last = now

    def seconds(self) -> dict[str, float]:
        return {**self.laps, "total": round(sum(self.laps.values()), 3)}

"""Certified classification: train, freeze, audit, certify and attack the test part (paper §7.3).

`methods` has the ways to train. By default in the 2-norm: orthonormal layers, cross-entropy with an offset and a
temperature. In the ∞-norm, the paper's network: row-L1 layers, K = 1000 and the multi-class hinge with κ = K·a, which
certifies the radius a/2.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..activations import ACTIVATIONS
from ..audit import Bound, lipschitz
from ..constraints import Orthonormal, freeze
from ..data import Dataset, Part, Splits, split
from ..data.augmentation import augmentation, is_image
from ..data.dataset import words_for
from ..decimals import exact
from ..provenance import provenance
from ..records import Attack as Attacked
from ..records import CertificateFile, Data, Epoch, RunRow, Tested
from ..robustness import Certificate, certify
from ..robustness.attacks import cw_loss
from ..training import History, fit, predict
from . import architectures
from .centering import centered, means_in_biases
from .classification_options import Config, check
from .evidence import Attack, attack_curve, certificate_file
from .laps import Laps
from .leaving import clear, leave
from .loading import described, loaded, suited
from .method_layers import placed
from .methods import Adversary, box_of, fitting, standing
from .pace import paced
from .scaling import Scaling, scaling_of, warning_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a run leaves: its options as they came to be, and of the test part what is proven, with what is written.

    The ``network`` is frozen and takes raw inputs.
    """

    config: Config
    row: RunRow
    network: nn.Module
    certificate: Certificate
    attacked: Attacked
    proof: CertificateFile

    def write(self, folder: Path) -> "Result":
        """Write ``model.safetensors``, ``certificate.json`` and ``metrics.json``; the result with the model's hash."""
        row, proof = leave(folder, self.network, self.row, self.proof)
        return replace(self, row=row, proof=proof)


def run(
    config: Config,
    folder: Path,
    device: str = "cpu",
    root: str | None = None,
    download: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Train, freeze, audit, certify and attack; write the files of a `Result`.

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
    checkpoint = folder / "checkpoint.pt"
    result = prove(config, checkpoint, folder.name, device, root, download, resume, progress).write(folder)
    clear(folder)
    return result


def prove(
    config: Config,
    checkpoint: Path | None = None,
    name: str = "",
    device: str = "cpu",
    root: str | None = None,
    download: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """As `run`, but nothing is written except the checkpoint, where a path is given for one; ``name`` is the run's."""
    check(config)
    clock, origin = Laps(), provenance(device)
    dataset = loaded(config, root, download)
    parts = split(dataset, config.seed)
    config = suited(config, dataset, len(parts.train))
    scaling = scaling_of(config, dataset, parts.train)
    seen = scaling.of(parts)
    asked, config = config, paced(config, seen, dataset.classes, partial(trained, device=device), checkpoint, resume)
    logger.info("%s: training on %s, %d epochs", name or "a run", described(dataset, parts.train), config.passes)
    began = time.process_time()
    learned = partial(trained, config, seen.train, seen.validation, dataset.classes)
    network, history = learned(device, checkpoint, resume, progress)
    computed = time.process_time() - began  # of all threads
    clock.lap("train", sum(row["seconds"] for row in history))
    proven = _prove(config, network, scaling, parts.test, device, clock, progress)
    warning = warning_of(scaling, parts.train)
    row = RunRow(
        command="train",
        config=_recorded(config, parts.test) | {"minutes": asked.minutes},
        data=_data(dataset, parts, scaling),
        seed=config.seed,
        history=tuple(_epoch(epoch) for epoch in history),
        best_epoch=int(max(history, key=lambda epoch: (epoch["validation_score"], epoch["epoch"]))["epoch"]),
        test=_tested(config, proven.certificate, proven.attacked),
        name=name,
        seconds=clock.seconds(),
        cpu_seconds=None if resume else {"train": round(computed, 3)},
        warnings=() if warning is None else (warning,),
        **origin,
    )
    return Result(config, row, *proven)


def _recorded(config: Config, test: Part) -> dict[str, Any]:
    """The options, in which data that are not images are not moved."""
    return config.resolved | {"shift": config.pixels if is_image(test.images) else 0}


class _Proven(NamedTuple):
    """What is known of a network: frozen, and whole, so that it takes raw inputs."""

    network: nn.Module
    certificate: Certificate
    attacked: Attacked
    proof: CertificateFile


def _prove(
    config: Config, network: nn.Module, scaling: Scaling, test: Part, device: str, clock: Laps, progress: bool
) -> _Proven:
    """Freeze, audit, certify and attack."""
    inputs, _ = words_for(test.images.shape[1:])
    logger.info("freezing, auditing, certifying %d test %s", len(test), inputs)
    frozen = means_in_biases(freeze(network))
    whole = scaling.whole(frozen)
    clock.lap("freeze")
    lipschitz(frozen, config.p)  # `certify` audits again; this lap is the audit alone
    clock.lap("audit")
    images, labels = test.images.to(device), test.labels.to(device)
    certificate = certify(whole, images, labels, config.p, 1024, progress, standardized=scaling.standardized)
    features = scaling.features(whole, images, labels)
    clock.lap("certify")
    logger.info("attacking %d of them", min(config.attack_images, len(labels)))
    options, seen = Attack(config.attack_images, config.attack_steps, config.attack_restarts), scaling.seen(test)
    seen_images = seen.images.to(device)
    attacked = attack_curve(options, config.p, config.radius, frozen, seen_images, labels, certificate, progress)
    clock.lap("attack")
    proof = certificate_file(config.p, certificate, seen_images, labels, frozen, attacked)
    return _Proven(whole, certificate, attacked, replace(proof, standardized=scaling.standardized, features=features))


def build(config: Config, train: Part, classes: int) -> nn.Sequential:
    """The network of a run: layers as its method has them, means taken off where that is asked, and one Scale(K)."""
    torch.manual_seed(config.seed)
    method, K = config.trained_by, config.constant or 1.0
    constraint = Orthonormal() if method.constraint is None else method.constraint()
    shape, activation = tuple(train.images.shape[1:]), ACTIVATIONS[config.activation]
    network = architectures.build(config.network, shape, classes, config.sizes, constraint, activation, K)
    if method.constraint is None:
        network = architectures.unconstrained(network)
    return placed(centered(method.layers(network, config.settings), train, config.center), train, config.seed)


def trained(
    config: Config,
    train: Part,
    validation: Part,
    classes: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> tuple[nn.Module, History]:
    """The network of a run, trained by its method on these examples and chosen on those, and its history.

    The epoch that stays is the best by what the method is for: under a constant K in the norm of the run, the share of
    validation inputs that lead by what the headline radius needs; with an adversary, the share that stands against it;
    else accuracy.

    Raises:
        TightlipError: for impossible options, and as `fit`.
    """
    check(config)
    network = build(config, train, classes)
    made = fitting(
        config.trained_by, network, config.settings, config.rate, config.p, box_of(train.images, validation.images)
    )
    history = fit(
        network,
        train=(train.images, train.labels),
        validation=(validation.images, validation.labels),
        epochs=config.passes,
        batch_size=config.batch,
        score=_score(config, made["adversary"]),
        augment=augmentation(config.pixels, config.flip) if is_image(train.images) else None,
        device=device,
        seed=config.seed,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
        average=config.average,
        autocast=config.autocast,
        **made,
    )
    return network, history


def _score(config: Config, adversary: Adversary | None) -> Callable[[nn.Module, Tensor, Tensor], float] | None:
    """What the epoch is chosen by; None is accuracy."""
    method = config.trained_by
    if config.constant is not None and method.norm == config.p:
        return partial(_certified_share, margin=_sensitivity(config.p) * config.constant * config.radius)
    return None if adversary is None or method.adversary is None else partial(standing, adversary=adversary)


def _certified_share(network: nn.Module, x: Tensor, y: Tensor, margin: float) -> float:
    """The share of inputs that lead by more than ``margin``."""
    return float((-cw_loss(predict(network, x), y) > margin).double().mean())


def _sensitivity(p: float) -> float:
    return Bound(1.0, p, p).sensitivity


def _data(dataset: Dataset, parts: Splits, scaling: Scaling) -> Data:
    sizes = {name: len(getattr(parts, name)) for name in ("train", "validation", "test")}
    shape = np.array(parts.test.images.shape[1:])
    source = (dataset.name, dataset.source, dataset.sha256)
    return Data(*source, sizes, dataset.classes, shape, dataset.class_names, scaling.names, dataset.label)


def _epoch(row: dict[str, float]) -> Epoch:
    known: dict[str, Any] = {field.name: row[field.name] for field in fields(Epoch) if field.name in row}
    return Epoch(**known)


def _tested(config: Config, certificate: Certificate, attacked: Attacked) -> Tested:
    eps, place = exact(config.radius), attacked.eps.tolist().index(config.radius)
    certified, standing = certificate.accuracy(config.radius), float(attacked.accuracy[place])
    return Tested(certificate.accuracy(0.0), {eps: certified}, {eps: standing})

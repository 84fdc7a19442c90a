"""A regression under a proven slope: a number predicted from a row, and how fast the prediction can change.

Features and target are standardized by the training part: z = (x − mean) / std and t = (y − m) / s. A network f with
|f(z) − f(z′)| ≤ c·‖z − z′‖ is trained for t. What is kept predicts y from the raw row,

    Normalize(mean, std), the layers of f, the last bias moved by m / (c·s), Scale(K),     K = c·s,

and is K-Lipschitz behind its first layer: in units of the target per standardized unit. Along feature j alone it is
bounded by a slope in units of the target per unit of the feature, at most K / std_j (`audit.feature_slopes`).

Which K suits the data is not known beforehand: too small a one cannot follow them, too large a one follows noise. So
where none is given a few are tried, in trainings of a quarter of the length, and `chosen` takes the smallest that
validation data do not tell from the best; with it the network is trained.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam

from ..activations import ACTIVATIONS
from ..audit import feature_slopes, lipschitz
from ..constraints import freeze
from ..data.measured import MeasuredParts, MeasuredTable, Measurements, load_measured, split_measured
from ..data.standardization import standardization
from ..decimals import round_nearest
from ..layers import Normalize, Scale
from ..networks import mlp
from ..norms import norm_name
from ..provenance import provenance
from ..records import TASK, Audit, Errors, RegressionRow, Slope, SlopesFile, Step, TableData, Tried
from ..training import History, fit, predict
from .laps import Laps
from .leaving import clear, leave
from .regression_options import CONSTRAINTS, LOSSES, SLOPES, Config, check, suited
from .truth_band import refuse_many, truth_band

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a run leaves: the frozen network, which takes raw rows, and what is written of it."""

    network: nn.Module
    row: RegressionRow
    proof: SlopesFile

    def write(self, folder: Path) -> "Result":
        """Write ``model.safetensors``, ``certificate.json`` and ``metrics.json``; the result with the model's hash."""
        row, proof = leave(folder, self.network, self.row, self.proof)
        return replace(self, row=row, proof=proof)


LOOK, LEAST = 4, 20
"""A training that only chooses a constant has this part of the epochs, but so many at least."""


class Scales(NamedTuple):
    """What rows and targets are standardized by: a layer, and the target's mean and standard deviation."""

    layer: Normalize
    mean: float
    std: float

    def seen(self, part: Measurements) -> tuple[Tensor, Tensor]:
        """What the network is trained on: rows (n, features) and targets (n, 1)."""
        targets = (part.targets - self.mean) / self.std
        return self.layer(part.inputs), targets.float().unsqueeze(1)


class Candidate(NamedTuple):
    """A network of one constant, in standard deviations of the target, as it was trained.

    ``squares`` are its squared errors on validation rows, in the same unit.
    """

    slope: float
    network: nn.Module
    history: History
    squares: Tensor

    @property
    def rmse(self) -> float:
        """The root of their mean."""
        return float(self.squares.mean().sqrt())


def run(config: Config, folder: Path, device: str = "cpu", resume: bool = False, progress: bool = True) -> Result:
    """Load, train, freeze, audit, and write the files of a `Result` into ``folder``, which must exist.

    Args:
        config: All that determines the numbers.
        folder: There ``checkpoint.pt``, and one more for each constant that is tried, lie until the run is complete.
        device: "cpu", "cuda", …
        resume: Continue from the checkpoints.
        progress: Show progress bars on a terminal.

    Raises:
        TightlipError: for impossible options or bad data, or a training that diverges.
    """
    check(config)
    table = load_measured(config.data, config.label, config.drop)
    parts = split_measured(table.rows, config.seed)
    result = prove(config, table, parts, folder, folder.name, device, resume, progress).write(folder)
    clear(folder)
    return result


def prove(
    config: Config,
    table: MeasuredTable,
    parts: MeasuredParts,
    folder: Path | None = None,
    name: str = "",
    device: str = "cpu",
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """As `run`, on parts of a table that are given; only checkpoints are written, where there is a folder for them."""
    check(config)
    refuse_many(config.noise, len(parts.train))
    config, clock, origin = suited(config, len(parts.train)), Laps(), provenance(device)
    scales = scales_of(parts.train)
    candidates = [config.k / scales.std] if config.k is not None else list(SLOPES)
    told = f"{len(parts.train)} rows of {len(table.feature_names)} features, to predict {table.label}"
    short = replace(config, epochs=_epochs_of_choice(config.epochs or 1) if len(candidates) > 1 else config.epochs)
    plan = f"{config.epochs} epochs"
    if len(candidates) > 1:
        plan = f"to choose K among {len(candidates)} by validation, {short.epochs} epochs each, then {plan}"
    logger.info("%s: training on %s; %s", name or "a run", told, plan)
    began = time.process_time()

    def learned(options: Config, place: int, slope: float) -> Candidate:
        checkpoint = None if folder is None else _checkpoint(folder, place)
        return candidate(options, scales, parts, slope, device, checkpoint, resume, progress)

    tried = []
    for place, slope in enumerate(candidates):
        tried.append(learned(short, place, slope))
        values = [round_nearest(value * scales.std) for value in (slope, tried[-1].rmse)]
        logger.info("K = %s (%d of %d): error on validation data %s", values[0], place + 1, len(candidates), values[1])
    best, trained = chosen(tried), tried
    if short.epochs != config.epochs:
        logger.info("training with K = %s", round_nearest(best.slope * scales.std))
        best = learned(config, len(candidates), best.slope)
        trained = [*tried, best]
    computed = time.process_time() - began
    clock.lap("train", sum(epoch["seconds"] for one in trained for epoch in one.history))
    network = whole(freeze(best.network), scales).to(device)
    clock.lap("freeze")
    proof = _proof(config, network, table, parts.test)
    clock.lap("audit")
    if config.noise is not None:
        train, test = (scales.layer(part.inputs) for part in (parts.train, parts.test))
        band = truth_band(train, parts.train.targets, test, best.slope * scales.std, config.noise, config.p)
        proof = replace(proof, band=band)
        clock.lap("band")
    row = RegressionRow(
        task=TASK,
        command="train",
        config=config.resolved,
        data=_data(table, parts),
        seed=config.seed,
        k=best.slope * scales.std,
        tried=tuple(Tried(one.slope * scales.std, one.rmse * scales.std) for one in tried),
        history=tuple(_step(epoch) for epoch in best.history),
        best_epoch=int(max(best.history, key=lambda epoch: (epoch["validation_score"], epoch["epoch"]))["epoch"]),
        test=_errors(torch.from_numpy(proof.prediction), parts.test.targets, scales.mean),
        name=name,
        seconds=clock.seconds(),
        cpu_seconds=None if resume else {"train": round(computed, 3)},
        **origin,
    )
    return Result(network, row, proof)


def scales_of(train: Measurements) -> Scales:
    """Those of a training part; a target that is the same in all of its rows keeps its own unit."""
    std = float(train.targets.std(correction=0))
    return Scales(standardization(train.inputs), float(train.targets.mean()), std if std > 0 else 1.0)


def chosen(candidates: Sequence[Candidate]) -> Candidate:
    """The smallest constant whose squared errors exceed those of the best one by a standard error at most.

    That is the standard error of the mean difference, row against row: the rule of one standard error (Breiman et al.
    1984, §3.4.3), with the difference in the place of the error, which is far less uncertain.
    """
    best = min(candidates, key=lambda one: one.rmse)
    for one in sorted(candidates, key=lambda one: one.slope):
        more = one.squares - best.squares
        if one is best or float(more.mean()) <= float(more.std()) / len(more) ** 0.5:
            return one
    return best


def candidate(
    config: Config,
    scales: Scales,
    parts: MeasuredParts,
    slope: float,
    device: str = "cpu",
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Candidate:
    """A network of one constant, trained; of its epochs the one with the least validation loss."""
    torch.manual_seed(config.seed)
    widths = [parts.train.inputs.shape[1], *config.hidden, 1]
    network = mlp(widths, CONSTRAINTS[config.norm](), ACTIVATIONS[config.activation], slope)
    validation = scales.seen(parts.validation)
    history = fit(
        network,
        LOSSES[config.loss],
        scales.seen(parts.train),
        validation,
        epochs=config.epochs or 1,
        batch_size=config.batch_size,
        optimizer=partial(Adam, lr=config.learning_rate),
        device=device,
        seed=config.seed,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
        average=config.average,
    )
    x, y = validation
    squares = (predict(network, x.to(device)).cpu().double() - y.double()).square().squeeze(1)
    return Candidate(slope, network, history, squares)


def _epochs_of_choice(epochs: int) -> int:
    """How long the trainings are by which a constant is chosen."""
    return min(epochs, max(LEAST, epochs // LOOK))


def whole(frozen: nn.Module, scales: Scales) -> nn.Sequential:
    """The network that predicts targets in their own unit from raw rows, of one that was trained on `Scales`."""
    layers: list[Any] = [*frozen.cpu().children()]
    *layers, last, scale = layers
    constant = float(scale.scale) * scales.std
    last.bias += scales.mean / constant
    return nn.Sequential(scales.layer, *layers, last, Scale(constant)).eval()


def _proof(config: Config, network: nn.Module, table: MeasuredTable, test: Measurements) -> SlopesFile:
    """What is proven of the network, and what it predicts."""
    bound = lipschitz(network[1:], config.p)  # type: ignore[index]
    layer: Normalize = network[0]  # type: ignore[index]
    slopes = feature_slopes(network, len(table.feature_names)).tolist()
    columns = zip(table.feature_names, layer.mean.tolist(), layer.std.tolist(), slopes, strict=True)
    place = layer.mean.device
    prediction = predict(network, test.inputs.to(place)).squeeze(1).cpu().double().numpy()
    features = tuple(Slope(*column) for column in columns)
    return SlopesFile(TASK, norm_name(config.p), Audit.of(bound), features, test.targets.numpy(), prediction)


def _errors(prediction: Tensor, target: Tensor, mean: float) -> Errors:
    off = prediction - target
    return Errors(_root(off), float(off.abs().mean()), _root(target - mean))


def _root(off: Tensor) -> float:
    return float(off.square().mean().sqrt())


def _data(table: MeasuredTable, parts: MeasuredParts) -> TableData:
    sizes = {name: len(getattr(parts, name)) for name in ("train", "validation", "test")}
    return TableData(table.name, table.source, table.sha256, sizes, table.label, table.feature_names)


def _step(epoch: dict[str, float]) -> Step:
    names: Sequence[str] = ("epoch", "loss", "learning_rate", "validation_loss", "seconds")
    values: dict[str, Any] = {name: epoch[name] for name in names}
    return Step(**values)


def _checkpoint(folder: Path, place: int) -> Path:
    """Of the constant at this place: that of the first is what shows that a run has begun."""
    return folder / (f"checkpoint-{place + 1}.pt" if place else "checkpoint.pt")

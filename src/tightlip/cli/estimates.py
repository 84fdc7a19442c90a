"""`tightlip certify` of a regression: the number that is predicted of each row, and how far it can move."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..atomic import replacing
from ..audit import Bound, lipschitz
from ..data.measured import split_measured, targets_of
from ..data.sources import is_table
from ..decimals import radius_words, round_nearest, round_up
from ..errors import TightlipError
from ..experiments.scaling import Scaling
from ..norms import norm_name
from ..training import predict
from .origin import Origin, seen
from .predictions import MOST, Scales, as_trained, has_labels, refuse_files


@dataclass(frozen=True)
class Estimates:
    """What the model of a run predicts of rows: ``values`` (n,), beside ``targets`` (n,) where the table has them.

    ``source`` says which rows they are, ``label`` what is predicted; ``note`` what the run has seen of them, ``truth``
    which column the targets are, where that is another name.
    """

    source: str
    label: str
    values: Float64[Tensor, " n"]
    targets: Float64[Tensor, " n"] | None
    note: str | None = None
    truth: str | None = None

    @property
    def errors(self) -> tuple[float, float]:
        """The root mean square and the mean absolute difference from the targets."""
        assert self.targets is not None
        off = (self.values - self.targets).abs()
        largest = float(off.max()) or 1.0
        return largest * math.sqrt(float((off / largest).square().mean())), largest * float((off / largest).mean())

    @property
    def columns(self) -> dict[str, list[float]]:
        """The predictions, and what is true beside them."""
        known = {} if self.targets is None else {"true": self.targets.tolist()}
        return {"prediction": self.values.tolist(), **known}

    def write(self, output: Path) -> None:
        """A table of row, prediction and, where it is known, the true value."""
        with replacing(output) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            rows = zip(range(len(self.values)), *self.columns.values(), strict=True)
            csv.writer(file).writerows([("row", *self.columns), *rows])


def check_options(output: Path | None, inputs: Path | None, head: str | None, arithmetic: str) -> None:
    """Refuse what is for classes only.

    Raises:
        TightlipError: for ``--inputs``, ``--head``, another ``--arithmetic``, or an ``--output`` that is no ``.csv``.
    """
    refuse_files(output, inputs)
    if head is not None or arithmetic != "real":
        option = "--head" if head is not None else "--arithmetic"
        raise TightlipError(f"{option} is for classes, and this is a regression: leave it out")


def estimated(
    network: nn.Module, run: Origin, scales: Scales, data: str | None, label: str | None, seed: int | None
) -> Estimates:
    """Of the test part of the run, or of another table, with the true numbers or without.

    Args:
        network: The model, on its device.
        run: Where it comes from.
        scales: What it divides features by, if it does.
        data: The other table; None is the run's own.
        label: Its column of true numbers; None is that of the run, where the table has it.
        seed: Of the split; None is the run's.

    Raises:
        TightlipError: for data that are gone, other features, cells that are no numbers, or another seed.
    """
    place = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu"))

    def of(rows: Tensor) -> Tensor:
        return predict(network, rows.to(place)).squeeze(1).cpu().double()

    own = run.label or "number"
    if data is None:
        if seed not in (None, run.seed):
            raise TightlipError(
                f"--seed {seed} would take training rows of {run.folder} for test rows, since its data were split with "
                f"seed {run.seed}: leave --seed out"
            )
        test = split_measured(run.measured().rows, run.seed).test
        source = f"{len(test)} test rows of this run ({run.data}, seed {run.seed})"
        return Estimates(source, own, of(test.inputs), test.targets)
    path = Path(data)
    if not is_table(data) or not path.is_file():
        what = "is no table" if path.exists() else "does not exist"
        raise TightlipError(f"{run.folder} is a regression and takes the rows of a table, and {data} {what}")
    if seed is not None:
        raise TightlipError("--seed is of the split of the run's own data, and --data gives others: leave it out")
    if label in run.feature_names:
        raise TightlipError(f"--label {label} is a feature of {run.folder}: name the column of true numbers")
    label = run.label if label is None and has_labels(path, run.label) else label
    rows, inputs = as_trained(path, run, label, scales)
    targets = None if label is None else targets_of(rows, "mend the cell, or leave the column out")
    note = None if targets is None else _note(inputs, run)
    return Estimates(f"{path.name}: {len(inputs)} rows", own, of(inputs), targets, note, label)


def _note(inputs: Tensor, run: Origin) -> str | None:
    """What the run has learned from of these rows."""
    try:
        parts = split_measured(run.measured().rows, run.seed)
    except TightlipError as problem:
        return f"whether {run.folder} was trained on some of these is not known ({problem})"
    train, validation = (seen(inputs, part.inputs) for part in (parts.train, parts.validation))
    if not train and not validation:
        return None
    return (
        f"{train} of these are training rows of {run.folder}, {validation} validation rows: this is not its error on "
        "unseen rows"
    )


def constant_of(network: nn.Module, scaling: Scaling, p: float) -> Bound:
    """What is proven of the network behind its standardization, if it has one."""
    layers = [*network.children()]
    return lipschitz(nn.Sequential(*layers[1:]) if scaling.standardized else network, p)


def told_estimates(estimates: Estimates, bound: Bound, standardized: bool, radii: Sequence[float]) -> Iterator[str]:
    """The first rows; the errors, where true numbers are known; and how far each prediction can move."""
    unit = "per standardized unit, " if standardized else ""
    constant = f"{round_up(bound.constant, 9)} {unit}{norm_name(bound.input_norm)}-norm"
    yield f"{estimates.source}, {estimates.label} predicted; audited constant {constant}"
    yield f"{'row':>5}" + "".join(f"  {name:<12}" for name in estimates.columns).rstrip()
    columns = [[round_nearest(value, 6) for value in values[:MOST]] for values in estimates.columns.values()]
    for place, row in enumerate(zip(*columns, strict=True)):
        yield f"{place:>5}" + "".join(f"  {cell:<12}" for cell in row).rstrip()
    if (more := len(estimates.values) - MOST) > 0:
        yield f"  and {more} more, which --output FILE.csv writes"
    if estimates.targets is not None:
        rmse, mae = map(round_nearest, estimates.errors)
        against = "" if estimates.truth in (None, estimates.label) else f", against the column {estimates.truth}"
        yield f"error {rmse} (root mean square), {mae} (mean absolute){against}"
    if estimates.note:
        yield f"note: {estimates.note}"
    for eps in radii:
        moved = round_up(bound.constant * eps * (1 + 1e-15), 4)
        yield f"within {radius_words(eps)} of a row the prediction changes by at most {moved}"
    unit = "distances are in standardized units, one is the std of a feature; " if standardized else ""
    yield f"{unit}changes are those of exact arithmetic, for rows as float32 holds them"

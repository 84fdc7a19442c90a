"""`tightlip certify MODEL`: audit a saved network and certify data with it."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from torch import nn

from ..arguments import integer
from ..atomic import replacing, sha256
from ..audit import Bound
from ..data.dataset import called
from ..data.sources import SPECS
from ..decimals import bracketed, floored, radius_words, round_up
from ..errors import TightlipError
from ..experiments.scaling import scaling_in
from ..graphs import Graph
from ..linkage import ABOUT, check_model, written_about
from ..norms import as_norm, norm_name
from ..records import TASK, Feature, Grounds, RadiiFile
from ..robustness import Certificate, certify
from ..serialization import load as load_network
from .estimates import check_options, constant_of, estimated, told_estimates
from .examples import DEFAULT, Examples, check_classes, other_examples, own_test_part
from .features import told_features
from .options import Machine, replaceable
from .origin import Origin, origin_of
from .places import model_meant
from .predictions import Unlabeled, refuse_files, told_predictions, unlabeled_rows, write_predictions

logger = logging.getLogger(__name__)

RADII, OF_EACH_ENTRY = (0.1, 0.2, 0.3, 0.5, 1.0), (0.05, 0.1, 0.15, 0.2, 0.3)
"""What is reported unless asked otherwise, and in the inf-norm."""

STANDARDIZED = "radii are in standardized units: one is the std of a feature"
INTERVALS = "in brackets: 95% Wilson intervals"


@dataclass(frozen=True)
class Certify:
    """Audit a saved network and certify the test part of a data set (or the whole of your own file).

    Of a table without the column of the classes: predict the class of each row, with its certified radius. Of a
    regression: predict the number of each row, and prove how far it can move.
    """

    model: tyro.conf.Positional[Path]
    """A model.safetensors written by `tightlip train` or `tightlip.save`, or the folder of a run."""
    data: str | None = None
    """Data set: mnist5k, mnist, fashion-mnist, cifar10, or a PATH: a .csv, .tsv or .parquet table, with the classes or
    without, an .npz file, a folder of .npy files, or a folder of images (default: the test part of the model's run; of
    a model without one, mnist5k)."""
    label: str | None = None
    """Of a table the column of the classes (default: that of the model's run; of a model without one, the last)."""
    norm: str | None = None
    """Norm of the perturbations: 1, 2 or inf (default: that of the model's run; of a model without one, 2)."""
    eps: tuple[float, ...] | None = None
    """Radii to report (default: 0.1 0.2 0.3 0.5 1; in the inf-norm 0.05 0.1 0.15 0.2 0.3)."""
    arithmetic: str = "real"
    """What is certified: real, the function in exact arithmetic; or the network as a machine computes it: float64,
    float32, float32-blocks (sums by blocks of at most 64 terms), bfloat16/float32 or bfloat16/float32-blocks."""
    head: str | None = None
    """Of a network with several outputs the one to certify, by its name or number."""
    seed: int | None = None
    """Of the split, as in training (default: that of the model's run; of a model without one, 0)."""
    output: Path | None = None
    """Also write the radii to this JSON file, as tightlip-check reads it; of rows without classes, classes and radii
    to this .csv file, and the numbers that a regression predicts."""
    inputs: Path | None = None
    """Also write the inputs and labels that are certified to this .npz file, for tightlip-check --data."""
    data_root: str | None = None
    """Folder with data sets (default: the environment's TIGHTLIP_DATA)."""
    download: bool = False
    """Fetch an absent data set from its mirrors."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)

    def __call__(self) -> str:
        """Run; the table to print."""
        device = self.machine.prepare()
        if self.seed is not None:
            integer("--seed", self.seed, least=0, most=2**31)
        if not all(eps >= 0 for eps in self.eps or ()):
            raise TightlipError(f"--eps must be numbers ≥ 0, got {' '.join(map(str, self.eps or ()))}")
        asked, model = None if self.norm is None else as_norm(self.norm), model_meant(self.model)
        written = written_about(model)
        check_model(model.parent, written)
        network = load_network(model).to(device)
        origin = origin_of(model, written)
        p = as_norm("2" if origin is None else origin.norm) if asked is None else asked
        self._check_places(model, origin)
        radii = self.eps or (OF_EACH_ENTRY if p == math.inf else RADII)
        if origin is not None and written.get("metrics.json", {}).get("task") == TASK:
            return self._estimate(network, origin, p, radii)
        scales = None if origin is None else scaling_in(network, origin.feature_names).scales
        if (rows := unlabeled_rows(origin, self.data, self.label, scales)) is not None:
            return self._predict(network, rows, p, radii)
        examples = self._examples(origin)
        check_classes(network, examples)
        x, y = examples.images.to(device), examples.labels.to(device)
        scaling = scaling_in(network, examples.feature_names or (origin.feature_names if origin else ()))
        logger.debug("%s: auditing, and certifying %d inputs on %s", model, len(x), device)
        head = output_named(network, self.head)
        certificate = certify(
            network, x, y, p, output=head, arithmetic=self.arithmetic, standardized=scaling.standardized
        )
        features = scaling.features(network, x, y, head, self.arithmetic)
        if self.output is not None:
            self._write(self.output, model, certificate, examples, features)
        if self.inputs is not None:
            with replacing(self.inputs) as partial, partial.open("wb") as file:
                np.savez(file, x=examples.images.numpy(), y=examples.labels.numpy())
        names = examples.class_names or (origin.class_names if origin else ())
        lines = _audit_table(certificate.bound)
        lines.append(f"accuracy {_share(certificate, 0)} on {examples.part}; {_worst(certificate, 0, names)}")
        lines += [f"note: {examples.note}"] * bool(examples.note)
        lines += [f"for {certificate.speaks_of}"] * (self.arithmetic != "real")
        lines += [
            f"certified at {radius_words(eps)}: {_share(certificate, eps)}; {_worst(certificate, eps, names)}"
            for eps in radii
        ]
        lines += [STANDARDIZED] * scaling.standardized
        lines += told_features(features)
        return "\n".join([*lines, INTERVALS])

    def _predict(self, network: nn.Module, rows: Unlabeled, p: float, radii: Sequence[float]) -> str:
        """The classes of rows that have none yet."""
        refuse_files(self.output, self.inputs)
        place = next((tensor.device for tensor in network.parameters()), None)
        standardized = scaling_in(network, rows.run.feature_names).standardized
        certificate = certify(
            network,
            rows.images.to(place),
            p=p,
            output=output_named(network, self.head),
            arithmetic=self.arithmetic,
            standardized=standardized,
        )
        if self.output is not None:
            write_predictions(self.output, rows, certificate)
        lines = [*told_predictions(rows, certificate, radii), *[STANDARDIZED] * standardized]
        lines += [f"for {certificate.speaks_of}"] * (self.arithmetic != "real")
        return "\n".join([*lines, INTERVALS])

    def _estimate(self, network: nn.Module, run: Origin, p: float, radii: Sequence[float]) -> str:
        """The numbers that a regression predicts."""
        check_options(self.output, self.inputs, self.head, self.arithmetic)
        scaling = scaling_in(network, run.feature_names)
        estimates = estimated(network, run, scaling.scales, self.data, self.label, self.seed)
        if self.output is not None:
            estimates.write(self.output)
        return "\n".join(told_estimates(estimates, constant_of(network, scaling, p), scaling.standardized, radii))

    def _check_places(self, model: Path, run: Origin | None) -> None:
        """Refuse to write where nothing can be written, or over what is read."""
        read = [model, *(model.parent / name for name in (*ABOUT, "config.json"))]
        read += [Path(data) for data in (self.data, None if run is None else run.place) if data is not None]
        for place, others in ((self.output, ()), (self.inputs, (self.output,))):
            if place is not None:
                replaceable(place, *read, *filter(None, others))

    def _examples(self, run: Origin | None) -> Examples:
        if run is not None and (self.data is None or (self.data == run.data and self.data in SPECS)):
            return own_test_part(run, self.seed, self.data_root, self.download)
        return other_examples(self.data or DEFAULT, self.seed, self.data_root, self.download, run, self.label)

    def _write(
        self, output: Path, model: Path, certificate: Certificate, examples: Examples, features: tuple[Feature, ...]
    ) -> None:
        RadiiFile(
            model=model.name,
            model_sha256=sha256(model),
            data=examples.data,
            seed=examples.seed,
            seen=examples.seen,
            input_norm=norm_name(certificate.bound.input_norm),
            constant=certificate.bound.constant,
            output_norm=norm_name(certificate.bound.output_norm),
            arithmetic=certificate.speaks_of,
            radius=certificate.radius.numpy(),
            margin=certificate.margin.numpy(),
            label=examples.labels.numpy(),
            prediction=certificate.prediction.numpy(),
            grounds=Grounds.of(certificate.bound, examples.images, examples.labels),
            standardized=certificate.standardized,
            features=features,
        ).write(output)


def output_named(network: nn.Module, head: str | None) -> int | str | None:
    """The output that is meant: a number, unless outputs have names."""
    outputs = network.outputs if isinstance(network, Graph) else ()
    if outputs and head is None:
        raise TightlipError(f"this network has several outputs: give --head one of {', '.join(map(str, outputs))}")
    return next((output for output in outputs if str(output) == head), head)


def _share(certificate: Certificate, eps: float) -> str:
    return f"{floored(certificate.accuracy(eps))}% {bracketed(certificate.interval(eps))}"


def _worst(certificate: Certificate, eps: float, names: Sequence[str]) -> str:
    worst = certificate.worst_class(eps)
    return f"worst class {called(worst.label, names)}: {floored(worst.accuracy)}% {bracketed(worst.interval())}"


def _audit_table(bound: Bound) -> list[str]:
    merged = [(row, f"{name}: {text}") for name, text, row in bound.merged]
    rows = [*((row, text) for _, text, row in bound.layers), *merged, (bound, "the whole network")]
    return [f"{_norms(row):>8} {round_up(row.constant, 9):<14} {text}" for row, text in rows]


def _norms(bound: Bound) -> str:
    return f"{norm_name(bound.input_norm)}→{norm_name(bound.output_norm)}"

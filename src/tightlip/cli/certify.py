"""`tightlip certify MODEL`: audit a saved network and certify data with it."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ..arguments import integer
from ..atomic import sha256
from ..audit import Bound
from ..data import load, split
from ..data.sources import SPECS
from ..decimals import exact, floored, round_up
from ..errors import TightlipError
from ..linkage import check_model, written_about
from ..norms import as_norm, norm_name
from ..provenance import write_json
from ..robustness import Certificate, certify
from ..serialization import load as load_network
from .options import Machine
from .places import model_meant

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Certify:
    """Audit a saved network and certify the test part of a data set (or the whole of your own file)."""

    model: tyro.conf.Positional[Path]
    """A model.safetensors written by `tightlip train` or `tightlip.save`, or the folder of a run."""
    data: str = "mnist5k"
    """Data set: mnist5k, mnist, fashion-mnist, cifar10, or a PATH: an .npz file, a folder of
    .npy files, or a folder of images."""
    norm: str = "2"
    """Norm of the perturbations: 1, 2 or inf."""
    eps: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 1.0)
    """Radii to report."""
    seed: int = 0
    """Of the split, as in training."""
    output: Path | None = None
    """Also write the radii to this JSON file."""
    data_root: str | None = None
    """Folder with data sets (default: the environment's TIGHTLIP_DATA)."""
    download: bool = False
    """Fetch an absent data set from its mirrors."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)

    def __call__(self) -> str:
        """Run; the table to print."""
        device = self.machine.prepare()
        integer("--seed", self.seed, least=0, most=2**31)
        if not all(eps >= 0 for eps in self.eps):
            raise TightlipError(f"--eps must be numbers ≥ 0, got {' '.join(map(str, self.eps))}")
        p, model = as_norm(self.norm), model_meant(self.model)
        check_model(model.parent, written_about(model))
        network = load_network(model).to(device)
        x, y, part = self._examples()
        logger.debug("%s: auditing, and certifying %d inputs on %s", model, len(x), device)
        certificate = certify(network, x.to(device), y.to(device), p)
        if self.output is not None:
            self._write(model, certificate, y)
        lines = _audit_table(certificate.bound)
        lines.append(f"accuracy {floored(certificate.accuracy(0))}% on {part}")
        lines += [f"certified at {exact(eps)}: {floored(certificate.accuracy(eps))}%" for eps in self.eps]
        return "\n".join(lines)

    def _examples(self) -> tuple[torch.Tensor, torch.Tensor, str]:
        dataset = load(self.data, root=self.data_root, download=self.download)
        if self.data not in SPECS and dataset.test_images is None:
            images = dataset.images.float() / 255 if dataset.images.dtype == torch.uint8 else dataset.images
            return images, dataset.labels, f"all {len(images)} examples of {dataset.source}, which has no test part"
        test = split(dataset, self.seed).test
        return test.images, test.labels, f"{len(test)} test examples"

    def _write(self, model: Path, certificate: Certificate, y: torch.Tensor) -> None:
        content = {
            "format": 1,
            "model": model.name,
            "model_sha256": sha256(model),
            "data": self.data,
            "input_norm": norm_name(as_norm(self.norm)),
            "constant": certificate.bound.constant,
            "output_norm": norm_name(certificate.bound.output_norm),
            "arithmetic": certificate.bound.arithmetic,
            "radius": certificate.radius.tolist(),
            "margin": certificate.margin.tolist(),
            "label": y.tolist(),
            "prediction": certificate.prediction.tolist(),
        }
        write_json(self.output, content)  # type: ignore[arg-type]


def _audit_table(bound: Bound) -> list[str]:
    rows = [*((row, text) for _, text, row in bound.layers), (bound, "the whole network")]
    return [f"{_norms(row):>8} {round_up(row.constant, 9):<14} {text}" for row, text in rows]


def _norms(bound: Bound) -> str:
    return f"{norm_name(bound.input_norm)}→{norm_name(bound.output_norm)}"

"""One run as the report sees it: the records of a run folder, and what follows from both."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tightlip.data.dataset import called, words_for
from tightlip.decimals import radius_words
from tightlip.linkage import check_model
from tightlip.records import CertificateFile, RunRow, read_fields


@dataclass(frozen=True)
class Run:
    """Everything that a report shows of one run."""

    row: RunRow
    proof: CertificateFile

    @property
    def inputs(self) -> str:
        """What its inputs are called: images, rows or examples."""
        return words_for(self.row.data.shape.tolist())[0]

    @property
    def scale(self) -> tuple[str, bool]:
        """What radii are measured in: a norm, and whether that of standardized features."""
        return self.proof.input_norm, self.proof.standardized

    @property
    def main_eps(self) -> str | None:
        """The eps of the headline, as written: the first one in the test part's certified accuracies."""
        return next(iter(self.row.test.certified), None)

    @property
    def shown_eps(self) -> str | None:
        """The eps of the headline for people: '36/255'."""
        return None if self.main_eps is None else radius_words(float(self.main_eps))

    def called(self, label: int) -> str:
        """A class by its name, whatever kind of word that is; 'a 2' or 'an 8' where classes have numbers only."""
        name = called(label, self.row.data.class_names)
        return f"{'an' if name.startswith('8') else 'a'} {name}" if name == str(label) else name

    def certified(self, eps: float) -> NDArray[np.bool_]:
        """Which test inputs have a radius beyond ``eps``; at 0 the ones that are right."""
        return self.proof.radius > eps

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which test images are classified correctly."""
        return self.proof.label == self.proof.prediction


def scale_name(scale: tuple[str, bool]) -> str:
    """'2', or '2-standardized'."""
    norm, standardized = scale
    return f"{norm}{'-standardized' * standardized}"


def read_run(folder: Path) -> Run:
    """Read `metrics.json` and `certificate.json` of one run folder.

    Raises:
        TightlipError: a file is absent, broken, of another format, or a field is not what it should be; or they do not
            speak of the model that is there.
    """
    metrics, certificate = read_fields(folder / "metrics.json"), read_fields(folder / "certificate.json")
    check_model(folder, {"certificate.json": certificate.values, "metrics.json": metrics.values})
    return Run(RunRow.from_json(metrics), CertificateFile.from_json(certificate))

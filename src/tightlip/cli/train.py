"""`tightlip train`: from data to a certified network and a page to look at."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..data.dataset import called, words_for
from ..decimals import bracketed, exact, floored, radius_words, round_up
from ..experiments.certified_run import Result, run
from ..experiments.classification_options import Config
from ..report import write
from ..robustness import wilson
from .features import told_features
from .running import Running


@dataclass(frozen=True, kw_only=True)
class Train(Running):
    """Train a network, prove its Lipschitz constant, certify and attack the test part, and write a page about it."""

    task: Literal["classification", "regression"] = "classification"
    """What is predicted: classes, or a number of each row of a table. A regression has options of its own: tightlip
    train --task regression --help."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    data_root: str | None = None
    """Folder with data sets (default: the environment's TIGHTLIP_DATA)."""
    download: bool = False
    """Fetch an absent data set from its mirrors."""

    @property
    def _stem(self) -> str:
        usual = {"mlp", replace(self.config, method=None).way}
        words = "".join(f"{name}-" for name in (self.config.network, self.config.way) if name not in usual)
        return f"{Path(self.config.data).stem or 'data'}-{words}l{self.config.norm}-{self.config.activation}"

    def _compute(self, folder: Path, device: str, resume: bool) -> str:
        result = run(self.config, folder, device, self.data_root, self.download, resume)
        page = folder / "report.html"
        self._show(folder, page)
        return _summary(result, page)

    def _show(self, folder: Path, page: Path) -> None:
        write([folder], page)


def _summary(result: Result, page: Path) -> str:
    config, row, certificate, eps = result.config, result.row, result.certificate, result.config.radius
    units = ", standardized units" if result.proof.standardized else ""
    proven = f"proven, {config.norm}-norm{units}"
    return "\n".join(
        [
            *_predicted(result),
            _line("test accuracy", floored(row.test.accuracy), certificate.interval(0), "95% Wilson intervals"),
            _worst(result, 0.0),
            _line(
                f"certified at {radius_words(eps)}",
                floored(certificate.accuracy(eps)),
                certificate.interval(eps),
                proven,
            ),
            _worst(result, eps),
            *_attacked(result, eps),
            f"audited constant    {round_up(certificate.bound.constant, 9)}",
            *told_features(result.proof.features),
            f"training            {row.seconds['train']:.0f} s on {row.device}",
            *(f"warning             {sentence}" for sentence in row.warnings),
            f"page                {page.resolve()}",
        ]
    )


def _predicted(result: Result) -> Iterator[str]:
    """Of a table the column that is predicted, and how it was chosen."""
    data = result.row.data
    if data.label:
        how = "the last column" if result.config.label is None else "--label"
        told = f"{data.label} ({how}), {data.classes} classes, from {len(data.feature_names)} features"
        yield f"predicted           {told}"


def _attacked(result: Result, eps: float) -> Iterator[str]:
    """The accuracy under attack, and the certified one of the same inputs where these are not all."""
    count, share = result.attacked.images, result.row.test.attacked[exact(eps)]
    interval, radius = wilson(round(share * count), count), result.certificate.radius
    yield _line(f"attacked at {radius_words(eps)}", floored(share), interval, f"first {count} {_inputs(result)}")
    if count < len(radius):
        certified = int((radius[:count] > eps).sum())
        yield _line("certified of those", floored(certified / count), wilson(certified, count))


def _worst(result: Result, eps: float) -> str:
    worst = result.certificate.worst_class(eps)
    name = called(worst.label, result.row.data.class_names)
    note = f"class {name}, {worst.support} {_inputs(result)}"
    return _line("worst class", floored(worst.accuracy), worst.interval(), note)


def _inputs(result: Result) -> str:
    return words_for(result.row.data.shape.tolist())[0]


def _line(words: str, share: str, interval: tuple[float, float], note: str = "") -> str:
    """An accuracy, what the test part tells of it, and how it was come by."""
    return f"{words:<19} {share:>6}%   {bracketed(interval):<18}{f' ({note})' if note else ''}".rstrip()

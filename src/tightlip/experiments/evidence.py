"""What a classification run leaves to look at: the attack curve, and ``certificate.json``."""

import copy
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from .. import records
from ..norms import norm_name
from ..records import Audit, CertificateFile, Example, Grounds
from ..robustness import Certificate, pgd
from ..robustness.attacks import cw_loss
from ..training import predict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attack:
    """How hard to attack: the first ``images`` inputs, ``steps`` gradient steps from each of ``restarts`` points."""

    images: int
    steps: int
    restarts: int


def attack_curve(
    options: Attack,
    p: float,
    radius: float,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    certificate: Certificate,
    progress: bool = True,
    grid: Sequence[float] | None = None,
) -> records.Attack:
    """Attacked accuracy against eps, on a grid that includes ``radius``: an upper bound on robust accuracy.

    Computed in the inputs' own arithmetic, and in float64 where ``radius`` is too small for it. With ``progress`` a
    terminal shows bars; else, or where there is none, each eps has a line in the log.
    """
    count = min(options.images, len(images))
    x, y = images[:count], labels[:count]
    if _is_fine(x, radius, p):
        network, x = copy.deepcopy(network).double(), x.double()
    curve = []
    grid = sorted({radius * factor for factor in (0, 0.5, 1, 1.5, 2, 3, 4, 6)} if grid is None else grid)
    box = (0.0, 1.0) if float(x.min()) >= 0 and float(x.max()) <= 1 else None
    standing = certificate.correct[:count].to(x.device)
    bar = tqdm(total=len(grid), desc="attacks", unit="eps", disable=None if progress else True)
    for eps in grid:
        began = time.perf_counter()
        points = x[standing], y[standing]
        found = pgd(network, *points, eps, p, options.steps, options.restarts, box, 0, progress, early_stop=True)
        resists = predict(network, found).argmax(1) == y[standing]
        standing = standing.clone().masked_scatter(standing, resists)
        curve.append(float(standing.double().mean()))
        _tell(bar, eps, curve, len(grid), time.perf_counter() - began)
    bar.close()
    return records.Attack(count, options.steps, options.restarts, np.array(grid), np.array(curve))


def _tell(bar: Any, eps: float, curve: list[float], total: int, seconds: float) -> None:
    """Show how many stand in the bar, or else in the log, as training shows its epochs."""
    bar.update()
    bar.set_postfix({"eps": f"{eps:.4g}", "stand": f"{curve[-1]:.4f}"})
    level = logging.INFO if bar.disable else logging.DEBUG
    logger.log(level, "attack %d/%d: eps %.4g, %.4f stand, %.1f s", len(curve), total, eps, curve[-1], seconds)


def _is_fine(x: Tensor, radius: float, p: float) -> bool:
    """Whether moving each entry by its share of ``radius`` would be lost in the rounding of x's float32."""
    share = radius / math.sqrt(x[0].numel()) if p == 2 else radius
    return share < 1e-4 * float(x.abs().max())


def certificate_file(
    p: float, certificate: Certificate, images: Tensor, labels: Tensor, network: nn.Module, attack: records.Attack
) -> CertificateFile:
    """The audit, every radius, the curves, and example images with their gradients."""
    finite = certificate.radius[torch.isfinite(certificate.radius)]
    end = max(float(finite.max()) if len(finite) else 0.0, *attack.eps.tolist(), 1e-9)
    grid = sorted({*(end * i / 60 for i in range(61)), *attack.eps.tolist()})
    return CertificateFile(
        input_norm=norm_name(p),
        bound=Audit.of(certificate.bound),
        sensitivity=certificate.bound.sensitivity,
        eps=np.array(grid),
        certified_accuracy=certificate.curve(grid).numpy(),
        attack=attack,
        radius=certificate.radius.numpy(),
        margin=certificate.margin.numpy(),
        label=labels.cpu().numpy(),
        prediction=certificate.prediction.numpy(),
        examples=tuple(_examples(certificate, images, labels, network)),
        grounds=Grounds.of(certificate.bound, images, labels),
    )


def _examples(certificate: Certificate, images: Tensor, labels: Tensor, network: nn.Module) -> Iterator[Example]:
    """The three least and three most robust correct images, two wrong ones, and six from in between."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        return
    order = certificate.radius.argsort().tolist()
    right = [i for i in order if certificate.correct[i]]
    wrong = [i for i in order if not certificate.correct[i]]
    middle = right[3:-3]
    some = [*right[:3], *middle[:: max(1, len(middle) // 6)][:6], *right[-3:], *wrong[:2]]
    chosen = list(dict.fromkeys(some))  # of fewer than six, the least robust are the most robust as well
    x = images[chosen].clone().requires_grad_(True)
    (gradients,) = torch.autograd.grad(-cw_loss(network(x), labels[chosen]).sum(), x)
    for i, gradient in zip(chosen, gradients, strict=True):
        said = int(labels[i]), int(certificate.prediction[i]), float(certificate.radius[i])
        yield Example(i, *said, _rounded(images[i]), _rounded(gradient))


def _rounded(image: Tensor) -> NDArray[np.float64]:
    """To four significant digits: enough for a picture, a quarter of the file."""
    scale = 10.0 ** (3 - math.floor(math.log10(max(float(image.abs().max()), 1e-30))))
    return ((image.double() * scale).round() / scale).cpu().numpy()

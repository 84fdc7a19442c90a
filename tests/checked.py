"""Files for `tightlip-check`: networks that are certified as `tightlip certify` does, or changed as a forger would."""

import hashlib
import json
import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import tightlip
from tightlip import FullSort, GroupSort, LinfDistance, MaxMin, Maxout, MeanShift, Normalize, Residual, RowL1Ball, Scale
from tightlip.atomic import sha256
from tightlip.norms import norm_name
from tightlip.records import Grounds, RadiiFile
from tightlip.transport import Funnels

ACCEPTED, REJECTED, UNCHECKED = 0, 1, 2
ROWS, IMAGES, INF = (16,), (2, 8, 8), math.inf


class Files(NamedTuple):
    """What the checker takes, as bytes."""

    model: bytes
    certificate: bytes
    data: bytes | None

    def claims(self) -> dict[str, Any]:
        """The certificate as JSON has it."""
        return json.loads(self.certificate)

    def stating(self, change=None, **fields) -> "Files":
        """With another certificate, sealed again, as one who wants to deceive would."""
        held = self.claims() | fields
        if change is not None:
            change(held)
        del held["sha256"]
        held["model_sha256"] = hashlib.sha256(self.model).hexdigest()
        text = json.dumps(held, sort_keys=True, separators=(",", ":"))
        return self._replace(
            certificate=json.dumps(held | {"sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()
        )

    def radius(self, index: int, radius: float | None) -> "Files":
        """With one other radius."""
        return self.stating(lambda held: held["radius"].__setitem__(index, radius))


def outcome(check: Any, files: Files, exact: bool = False) -> int:
    """What the command ends with, without the command."""
    try:
        with np.errstate(all="ignore"):
            check.verdict(*files, exact)
    except NotImplementedError:
        return UNCHECKED
    except Exception:  # noqa: BLE001  as the command does
        return REJECTED
    return ACCEPTED


def written(network: nn.Module, x: torch.Tensor, y: torch.Tensor, p: float) -> Files:
    """A network in float32 or float64, and what is certified of it."""
    network = tightlip.freeze(network).eval()
    c = tightlip.certify(network, x, y, p)
    with tempfile.TemporaryDirectory() as folder:
        model, text, data = (Path(folder) / name for name in ("m.safetensors", "c.json", "d.npz"))
        tightlip.save(network, model)
        RadiiFile(
            model=model.name,
            model_sha256=sha256(model),
            data="x",
            seed=None,
            seen=None,
            input_norm=norm_name(p),
            constant=c.bound.constant,
            output_norm=norm_name(c.bound.output_norm),
            arithmetic=c.speaks_of,
            radius=c.radius.numpy(),
            margin=c.margin.numpy(),
            label=y.numpy(),
            prediction=c.prediction.numpy(),
            grounds=Grounds.of(c.bound, x, y),
        ).write(text)
        np.savez(data, x=x.numpy(), y=y.numpy())
        return Files(*(path.read_bytes() for path in (model, text, data)))


def _plain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def _shift(features: int) -> MeanShift:
    layer = MeanShift(features)
    layer.mean.normal_()
    return layer


NETWORKS: dict[str, tuple[Any, tuple[int, ...], float]] = {
    "dense": (lambda: tightlip.mlp([16, 12, 12, 4]), ROWS, 2),
    "dense, 1": (lambda: tightlip.mlp([16, 12, 4], K=3.0), ROWS, 1),
    "dense, inf": (lambda: tightlip.mlp([16, 12, 12, 4], constraint=RowL1Ball()), ROWS, INF),
    "one logit": (lambda: tightlip.mlp([16, 12, 1]), ROWS, 2),
    "unconstrained": (
        lambda: _plain(Normalize(0.1, 0.3), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4, bias=False)),
        ROWS,
        2,
    ),
    "sorted": (
        lambda: _plain(
            nn.Linear(16, 24), GroupSort(4), nn.Linear(24, 12), FullSort(), Maxout(2), tightlip.Abs(), nn.Linear(6, 4)
        ),
        ROWS,
        2,
    ),
    "residual": (
        lambda: _plain(
            nn.Linear(16, 12), MaxMin(), Residual(nn.Linear(12, 12), MaxMin()), nn.Dropout(), nn.Linear(12, 4)
        ),
        ROWS,
        2,
    ),
    "means of channels": (
        lambda: _plain(nn.Conv2d(2, 6, 3), _shift(6), MaxMin(1), nn.Flatten(), nn.Linear(216, 4), _shift(4)),
        IMAGES,
        2,
    ),
    "distances": (
        lambda: _plain(LinfDistance(16, 12), _shift(12), LinfDistance(12, 4, negative=True)),
        ROWS,
        INF,
    ),
    **{
        f"funnels, {p:g}": (lambda p=p: Funnels(torch.randn(20, 16), torch.randn(20) - 6.0, p=p), ROWS, p)
        for p in (1, 2, INF)
    },
    "funnels, 2 of inf": (lambda: Funnels(torch.randn(20, 16), torch.randn(20) - 6.0, p=2), ROWS, INF),
    "convnet": (lambda: tightlip.convnet(IMAGES, 4, (4, 8), patch=2, depth=1, hidden=(12,)), IMAGES, 2),
    "mixer": (lambda: tightlip.mixer(IMAGES, 4, (4, 8), patch=2, hidden=(12,)), IMAGES, 2),
    "any kernels": (
        lambda: _plain(
            nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
            nn.ReLU(),
            nn.MaxPool2d(3, 1, 1),
            nn.Flatten(),
            nn.LazyLinear(4),
        ),
        IMAGES,
        2,
    ),
    "tiny": (lambda: _plain(nn.Linear(3, 4), MaxMin(), nn.Linear(4, 3), Scale(2)), (3,), 2),
    "a tiny signal": (
        lambda: _plain(nn.Conv1d(1, 2, 2, stride=2), nn.ReLU(), nn.MaxPool1d(2, 1), nn.Flatten(), nn.Linear(4, 2)),
        (1, 6),
        2,
    ),
    "tiny distances": (lambda: _plain(LinfDistance(3, 2), LinfDistance(2, 2)), (3,), INF),
    "a signal": (
        lambda: _plain(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(24, 4)),
        (2, 16),
        INF,
    ),
}
"""What is accepted: how it is made, the shape of an input, and the norm."""


@cache
def files(name: str) -> Files:
    """Twelve inputs, one of which is not finite, for one of `NETWORKS`; every fourth label is another class."""
    make, shape, p = NETWORKS[name]
    torch.manual_seed(0)
    network, x = make().eval(), torch.randn(12, *shape)
    with torch.no_grad():
        logits = network(x)
    y = logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()
    y[::4] = (y[::4] + 1) % max(logits.shape[1], 2)
    x[1].view(-1)[2] = torch.nan
    return written(network, x, y, p)

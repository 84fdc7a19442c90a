"""What a search that stopped has left in its folder: prices, pairs and what they prove, to go on from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor

from ..atomic import replacing
from ..data.arrays import content_sha256
from ..errors import TightlipError
from ..transport.contradictions import contradiction
from ..transport.interval import Interval
from ..transport.potential import Funnels

PRICES = "prices.safetensors"


@dataclass(frozen=True)
class Kept:
    """What a stopped search has proven, and of what."""

    prices: Tensor
    pairs: Tensor
    said: dict[str, Any]
    folder: Path

    def interval(self, x: Tensor, y: Tensor, p: float) -> Interval:
        """As it was found, for points x (n, d) and y (m, d); prices and pairs are asked again what they prove.

        Raises:
            TightlipError: if it is damaged.
        """
        pairs = self.pairs if len(self.pairs) else None
        try:
            lower, upper, seconds = (float(self.said[name]) for name in ("lower", "upper", "seconds"))
            history = [(float(at), float(low), float(high)) for at, low, high in self.said["history"]]
            words = str(self.said["method"]), str(self.said["reason"]), seconds
            wrong = contradiction(x, y, p, (lower, upper), self.prices, pairs)
            critic = Funnels(y, self.prices, p)
        except (LookupError, ValueError, TypeError, RuntimeError) as problem:
            raise _damaged(self.folder) from problem
        if wrong:
            raise _damaged(self.folder)
        return Interval(lower, upper, lower + (upper - lower) / 2, critic, None, *words, history, pairs)


def keep(folder: Path, found: Interval, about: Mapping[str, Any]) -> None:
    """Write what was found so far; ``about`` are the options and hashes that it holds for."""
    if not isinstance(found.critic, Funnels):
        return
    pairs = torch.empty(0, 2, dtype=torch.long) if found.pairs is None else found.pairs
    said = {name: getattr(found, name) for name in ("lower", "upper", "method", "reason", "seconds", "history")}
    with replacing(folder / PRICES) as partial:
        tensors = {"prices": found.critic.offsets.detach().cpu().contiguous(), "pairs": pairs.cpu().contiguous()}
        words = json.dumps(said | {"about": dict(about)})
        partial.write_bytes(as_bytes(tensors, {"said": words, "sha256": _seal(words, tensors)}))


def kept(folder: Path, about: Mapping[str, Any]) -> Kept | None:
    """What was left there; None if nothing was.

    Raises:
        TightlipError: if it is damaged, or holds for other samples or options.
    """
    path = folder / PRICES
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            words, seal = (file.metadata()[name] for name in ("said", "sha256"))
            tensors = {name: file.get_tensor(name) for name in ("prices", "pairs")}
            said = json.loads(words)
            began = dict(said["about"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as problem:
        raise _damaged(folder) from problem
    if seal != _seal(words, tensors):
        raise _damaged(folder)
    refuse_changed(folder, began, about)
    return Kept(tensors["prices"], tensors["pairs"], said, folder)


def _seal(words: str, tensors: Mapping[str, Tensor]) -> str:
    """The hash of all that a file holds: a digit that flips on the disk shows."""
    return content_sha256({name: tensors[name].numpy() for name in ("prices", "pairs")} | {"said": np.array(words)})


def _damaged(folder: Path) -> TightlipError:
    return TightlipError(f"{folder / PRICES} is damaged: delete {folder}, and begin again")


def refuse_changed(folder: Path, began: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuse to go on with other samples or options than a search began with.

    Raises:
        TightlipError: with what it began with.
    """
    if changed := [name for name in about if began.get(name) != about[name]]:
        was = ", ".join(f"{name}={began.get(name)}" for name in changed)
        raise TightlipError(f"{folder} began with {was}: resume it with the same samples and options")


def joined(before: Interval, after: Interval) -> Interval:
    """One search in two parts: the best of both ends, and the history of both."""
    best = before if before.lower > after.lower else after
    near = before if before.upper < after.upper else after
    lower, upper = best.lower, near.upper
    later = [(before.seconds + s, max(before.lower, low), min(before.upper, high)) for s, low, high in after.history]
    return replace(
        after,
        lower=lower,
        upper=upper,
        estimate=lower + (upper - lower) / 2,
        critic=best.critic,
        pairs=near.pairs,
        seconds=before.seconds + after.seconds,
        history=[*before.history, *later],
    )

"""Normalizations leave a shift: what they divide by would decide the constant, and orthonormal weights need none.

A batch normalization that follows a linear layer or a convolution has become part of it before (`folding`); any other
is a `Bias` that begins at zero. Layers that divide each input by its own spread have no useful constant at all.
"""

from typing import Any

from torch import nn

from ...errors import TightlipError
from ...graphs import Bias
from .registry import Change, Place, conversion

_OWN_SPREAD = "it divides each input by its own spread, which has no useful constant"


@conversion(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def _batch_norm(layer: Any, place: Place) -> Change:
    return _shift(layer, layer.num_features, 1, "its division decides the constant")


@conversion(nn.GroupNorm)
def _group_norm(layer: Any, place: Place) -> Change:
    return _shift(layer, layer.num_channels, 1, _OWN_SPREAD)


@conversion(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def _instance_norm(layer: Any, place: Place) -> Change:
    return _shift(layer, layer.num_features, 1, _OWN_SPREAD)


@conversion(nn.LayerNorm, nn.RMSNorm)
def _layer_norm(layer: Any, place: Place) -> Change:
    shape = layer.normalized_shape
    if len(shape) > 1:
        return Change(None, f"{_OWN_SPREAD}; its shift of {len(shape)} axes is left out as well")
    return _shift(layer, shape[0], -1, _OWN_SPREAD)


def _shift(layer: Any, features: int, dim: int, why: str) -> Change:
    """A bias in the place of a normalization that has a shift of its own, and nothing in that of one that has none."""
    beta = getattr(layer, "bias", None)
    if beta is None:
        return Change(None, why)
    return Change(Bias(features, dim).to(beta.device, beta.dtype), f"{why}: a shift stays")


@conversion(nn.Embedding, nn.EmbeddingBag)
def _embedding(layer: nn.Module, place: Place) -> Change:
    raise TightlipError("it takes integers, and a constant speaks of small changes: convert the layers after it")

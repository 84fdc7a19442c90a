"""Activations become `MaxMin`, which keeps the norm of gradients; those that make the output stay, or go.

A width that is odd, or not known, cannot be sorted in pairs: there `Abs` is as expressive in the 2-norm, and keeps the
norm of gradients as well; in the other norms it is ReLU.
"""

from typing import Any

from torch import nn

from ...activations import Abs, MaxMin
from .keeping import kept
from .registry import Change, Place, conversion


@conversion(
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Softplus, nn.Hardswish, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Threshold),
    *(nn.Tanh, nn.Hardtanh, nn.Softsign, nn.LogSigmoid),
)
def _elementwise(layer: nn.Module, place: Place) -> Change:
    if place.ends:
        return Change(layer, f"it makes the output, and {kept(layer, place.norm)}")
    return _sorted(layer, place)


@conversion(nn.Sigmoid, nn.Hardsigmoid)
def _sigmoid(layer: nn.Module, place: Place) -> Change:
    if place.ends:
        return Change(None, "it only squeezes what comes out: the order of outputs is that of what goes in")
    return _sorted(layer, place)


@conversion(nn.Softmax, nn.LogSoftmax)
def _softmax(layer: Any, place: Place) -> Change:
    if place.ends:
        return Change(None, "outputs are logits now; no class changes by it")
    return Change(layer, kept(layer, place.norm))


def _sorted(layer: nn.Module, place: Place) -> Change:
    form = place.form
    if form.axis is not None and form.width is not None and form.width % 2 == 0:
        return Change(MaxMin(form.axis, contiguous=False), "it keeps the norm of gradients")
    odd = "features whose number is not known" if form.width is None else f"{form.width} features"
    if place.norm == 2:
        return Change(Abs(), f"{odd} make no pairs for MaxMin, and in the 2-norm this is as expressive")
    return Change(nn.ReLU(), f"{odd} make no pairs for MaxMin, and of this 1 is proven")


@conversion(nn.AlphaDropout, nn.FeatureAlphaDropout)
def _alpha_dropout(layer: nn.Module, place: Place) -> Change:
    return Change(None, "it is made for SELU, which has become another activation")


@conversion(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
def _dropout(layer: nn.Module, place: Place) -> Change:
    return Change(layer, "it does nothing outside of training")

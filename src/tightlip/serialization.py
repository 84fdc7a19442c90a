"""One file per network: safetensors weights plus a versioned description of the architecture. No pickle, no code.

The description is a nested list of [type, options] of the exact types below; loading rebuilds them and checks every
weight's name and shape, so a file is either the network that was saved or an error.
"""

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .activations import Abs, FullSort, GroupSort, MaxMin, Maxout
from .atomic import replacing
from .audit import refuse_altered
from .constraints import constraint_of
from .errors import TightlipError
from .layers import Normalize, Residual, Scale

FORMAT = 1

_MAX = ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")

_OPTIONS: dict[type, tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features", "bias"),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.Identity: (),
    nn.Dropout: ("p",),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _MAX),
    nn.AvgPool1d: _AVG,
    **dict.fromkeys((nn.AvgPool2d, nn.AvgPool3d), (*_AVG, "divisor_override")),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), ("output_size",)),
    **dict.fromkeys(
        (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), ("output_size", "return_indices")
    ),
    nn.ReLU: (),
    nn.Tanh: (),
    nn.Sigmoid: (),
    nn.LeakyReLU: ("negative_slope",),
    Abs: (),
    Maxout: ("group_size", "dim"),
    GroupSort: ("group_size", "dim", "contiguous"),
    MaxMin: ("dim", "contiguous"),
    FullSort: ("dim",),
    Scale: ("scale",),
    Normalize: ("mean", "std"),
}
_TYPES = {cls.__name__: cls for cls in _OPTIONS}


def save(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a frozen network to ``path`` (conventionally ``.safetensors``), atomically.

    Raises:
        TightlipError: if the network is still held by constraints or has a layer that files cannot describe.
    """
    if any(constraint_of(layer) is not None for layer in network.modules()):
        raise TightlipError("this network is still held by constraints: save(freeze(network), path)")
    outline = _describe(network)
    if list(_build(outline).state_dict()) != list(network.state_dict()):
        raise TightlipError("the network has parameters or buffers beside its layers' own: remove them before saving")
    description = json.dumps({"format": FORMAT, "network": outline})
    weights = {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}
    with replacing(Path(path)) as partial:
        save_file(weights, partial, metadata={"tightlip": description})


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The frozen network in ``path``, in eval mode, ready to audit and certify.

    Raises:
        TightlipError: if the file is absent, truncated, not written by `save`, or written by a newer version.
    """
    if not Path(path).is_file():
        raise TightlipError(f"there is no file {path}: give the model.safetensors of a run")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError) as error:
        raise TightlipError(f"{path} is no complete safetensors file: copy or train it again") from error
    try:
        description = json.loads(metadata["tightlip"])
        version, outline = description["format"], description["network"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TightlipError(f"{path} holds weights but no tightlip network: write it with tightlip.save") from error
    if version != FORMAT:
        raise TightlipError(f"{path} has format {version}, this version reads {FORMAT}: update tightlip")
    try:
        network = _build(outline)
        network.load_state_dict(weights, strict=True, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TightlipError(f"the weights in {path} do not fit its description: copy or train it again") from error
    return network.eval().requires_grad_(False)


def _describe(module: nn.Module) -> list[Any]:
    if type(module) is nn.Sequential:
        refuse_altered(module)
        return ["Sequential", [[key, _describe(child)] for key, child in module._modules.items()]]  # type: ignore[arg-type]
    if type(module) is Residual:
        refuse_altered(module)
        return ["Residual", _describe(module.f)]
    if type(module) not in _OPTIONS:
        known = ", ".join(["Sequential", "Residual", *_TYPES])
        raise TightlipError(f"a {type(module).__name__} cannot be written to a file: use {known}")
    refuse_altered(module)
    return [type(module).__name__, {name: _plain(name, getattr(module, name)) for name in _OPTIONS[type(module)]}]


def _plain(name: str, value: Any) -> Any:
    """An option as JSON can hold it; a bias becomes whether there is one."""
    if name == "bias":
        return value is not None
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _build(outline: Any) -> nn.Module:
    """The network of an outline; whatever is wrong with it is a KeyError, TypeError, ValueError or RuntimeError."""
    name, options = outline
    if name == "Sequential":
        return nn.Sequential(OrderedDict((key, _build(child)) for key, child in options))
    if name == "Residual":
        return Residual(_build(options))
    if not isinstance(options, dict) or not options.keys() <= set(_OPTIONS[_TYPES[name]]):
        raise TypeError(f"{options!r} are no options of {name}")
    tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return _TYPES[name](**tuples)  # type: ignore[no-any-return]

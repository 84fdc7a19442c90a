"""A frozen network as an ONNX file that carries its proof: the constant, the norms and the hash of the weights.

What is written is run once by onnxruntime and compared with the network before the file gets its name. Groups of up to
16 are sorted by minima and maxima, and so are larger ones where a verifier is to read the file: few of these know TopK.
"""

import copy
import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..activations import FullSort, GroupSort, MaxMin, grouped
from ..arguments import flag
from ..atomic import replacing
from ..audit import Bound
from ..errors import TightlipError, install
from ..linalg.min_max import sort_by_min_max
from ..norms import norm_name
from ..robustness.batches import labeled
from ..robustness.examination import examined, refuse_held
from ..robustness.guard import Guard
from ..seal import weights_sha256

TOLERANCE = 1e-5
"""How far onnxruntime's outputs may be from the network's, relative to the largest of these if that is above 1."""

GUARDED = ("logits", "class", "radius", "abstain")
"""What a `Guard` returns, as the file names it."""


class _MinMaxSort(nn.Module):
    """What a GroupSort does, by minima and maxima."""

    def __init__(self, sort: GroupSort) -> None:
        super().__init__()
        self.group_size, self.dim, self.contiguous = sort.group_size, sort.dim, sort.contiguous

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same."""
        axis = self.dim % x.dim()
        members = grouped(x, self.group_size, self.dim, self.contiguous)
        return sort_by_min_max(members, axis + 1 if self.contiguous else axis).flatten(axis, axis + 1)


def to_onnx(
    network: nn.Module,
    path: str | PathLike[str],
    x: Any,
    p: float | None = None,
    min_max: bool = False,
    output: int | str | None = None,
) -> None:
    """Write a frozen network, or a `Guard` of one, to ``path`` as ONNX, with any number of inputs per call.

    The metadata (``session.get_modelmeta().custom_metadata_map`` in onnxruntime) hold what is proven of the weights:
    "tightlip.constant", "tightlip.input_norm", "tightlip.output_norm", "tightlip.arithmetic", "tightlip.weights_sha256"
    (see `weights_sha256`), "tightlip.version" and, of a guard, "tightlip.eps". The runtime's own rounding is no part of
    that. Needs the extra ``tightlip[onnx]``.

    Args:
        network: As `certify` takes it, or what `guarded` returned, whose outputs are called "logits", "class", "radius"
            and "abstain"; of others the output is called "output".
        path: Where to write, conventionally ``.onnx``; in one file, so for up to 2 GB of weights.
        x: A few inputs (batch, …), to trace the network and to compare.
        p: The norm of the inputs in which the constant is proven; None is 2, and of a guard its own.
        min_max: Sort large groups by minima and maxima as well, without TopK and Sort: for verifiers. It takes about
            2.5·log₂²n operations for a group of n, and is slower where it is served.
        output: Of a network with several outputs the one that is written.

    Raises:
        TightlipError: without onnx, onnxscript and onnxruntime; as `certify` for what it does not take; for a layer
            that ONNX has no operations for; if onnxruntime computes something else.
    """
    refuse_held(network, "to_onnx")
    runtime = {name: _imported(name) for name in ("onnx", "onnxscript", "onnxruntime")}["onnxruntime"]
    inputs = labeled(x)[0]
    served, said = _proven(network, inputs, p, output)
    inputs = _fitting(inputs, served)
    with replacing(Path(path)) as partial:
        _write(_by_min_max(served) if flag("min_max", min_max) else served, partial, inputs, said)
        _compare(served, partial, inputs, runtime)


def _proven(
    network: nn.Module, x: Tensor, p: float | None, output: int | str | None
) -> tuple[nn.Module, dict[str, str]]:
    """What is written, and what is proven of it."""
    if isinstance(network, Guard):
        if p is not None or output is not None:
            raise TightlipError("a guard was made for one norm and one output: leave out p= and output=")
        if weights_sha256(network.network) != network.weights_sha256:
            raise TightlipError("the weights of this guard are not those that it was made for: make it again")
        return network, _words(network.bound, network.weights_sha256) | {"eps": repr(float(network.eps))}
    known = examined(network, 2 if p is None else p, output)
    known.compare(x)
    return known.network, _words(known.bound, weights_sha256(known.network))


def _words(bound: Bound, weights: str) -> dict[str, str]:
    norms = {"input_norm": norm_name(bound.input_norm), "output_norm": norm_name(bound.output_norm)}
    constant = {"constant": repr(bound.constant), "arithmetic": bound.arithmetic}
    return {**constant, **norms, "weights_sha256": weights, "version": version("tightlip")}


def _write(network: nn.Module, path: Path, x: Tensor, said: Mapping[str, str]) -> None:
    names = GUARDED if isinstance(network, Guard) else ("output",)
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                network.eval(),
                (x,),
                dynamo=True,
                verbose=False,
                input_names=["input"],
                output_names=list(names),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except torch.onnx.errors.OnnxExporterError as problem:
        raise TightlipError(f"this network cannot be written as ONNX: {_reason(problem)}") from problem
    assert program is not None
    program.model.metadata_props.update({f"tightlip.{key}": value for key, value in said.items()})
    program.save(path, external_data=False)


@contextmanager
def _silence() -> Iterator[None]:
    """Without what the exporter says of its own ways, and of libraries that it looks for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _reason(problem: BaseException) -> str:
    """The first line of what went wrong first."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def _compare(network: nn.Module, path: Path, x: Tensor, runtime: Any) -> None:
    """Raise unless onnxruntime makes of the inputs what the network makes of them."""
    with torch.no_grad():
        expected = network(x)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": x.cpu().numpy()})
    pairs = zip([expected] if isinstance(expected, Tensor) else expected, found, strict=True)
    for wanted, got in pairs if not isinstance(network, Guard) else [*pairs][:1]:  # ties may fall to either class
        apart = float((torch.from_numpy(got) - wanted.cpu()).abs().max())
        if not apart <= TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise TightlipError(f"onnxruntime's outputs are {apart:.1e} from the network's: this file would not be it")


def _fitting(x: Tensor, network: nn.Module) -> Tensor:
    """The inputs where the network is and in its dtype; at least two, or their number would be taken for fixed."""
    like = next((t for t in network.state_dict().values() if t.is_floating_point()), x)
    if not len(x):
        raise TightlipError("there is no input to trace the network with: give at least one")
    return (x if len(x) > 1 else torch.cat((x, x))).to(like.device, like.dtype)


def _by_min_max(network: nn.Module) -> nn.Module:
    """A copy whose sorts are made of minima and maxima."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) in (GroupSort, MaxMin, FullSort):
                setattr(module, name, _MinMaxSort(child))  # type: ignore[arg-type]
    return _MinMaxSort(network) if isinstance(network, GroupSort) else network


def _imported(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            return importlib.import_module(name)
    except ImportError as problem:
        raise TightlipError(
            f"ONNX files need {name}, which cannot be imported ({problem}): {install('onnx')}"
        ) from problem

"""A linear layer with the weight of another one, transposed: x ↦ Wᵀx + b, as the decoder of a tied autoencoder has it.

A forward says F.linear(h, encoder.weight.t(), bias). The trace keeps the encoder itself inside of the layer, so the
weight stays one tensor: it is trained, held and frozen once.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ..audit import Part, container
from ..audit.trust import original_type
from ..errors import TightlipError
from ..options import FLAG
from .overwriting import FxNode, refused

_TRANSPOSITIONS: tuple[Any, ...] = ("t", "transpose", "swapaxes", torch.t, torch.transpose, torch.swapaxes)


class Transposed(nn.Module):
    """x ↦ Wᵀx + b, with W the weight of the layer ``of``.

    Args:
        of: An ``nn.Linear``, held or not; it is used elsewhere as well.
        bias: A parameter (of.in_features,), True for a new one, or None.

    Raises:
        TightlipError: unless ``of`` is an ``nn.Linear`` and the bias fits.

    >>> layer = nn.Linear(3, 2)
    >>> Transposed(layer)(torch.ones(1, 2)).shape
    torch.Size([1, 3])
    """

    bias: nn.Parameter | None

    def __init__(self, of: nn.Linear, bias: nn.Parameter | bool | None = None) -> None:
        super().__init__()
        if not isinstance(of, nn.Module) or original_type(of) is not nn.Linear:
            raise TightlipError(f"a Transposed has the weight of an nn.Linear, not of a {type(of).__name__}")
        self.of = of
        given = nn.Parameter(of.weight.new_zeros(of.in_features)) if bias is True else bias
        made = given if isinstance(given, nn.Parameter) else None
        if made is not None and made.shape != (of.in_features,):
            raise TightlipError(f"a bias of shape {tuple(made.shape)} does not fit {of.in_features} outputs")
        self.bias = made

    def forward(self, x: Tensor) -> Tensor:
        """(…, of.out_features) → (…, of.in_features)."""
        return F.linear(x, self.of.weight.mT, self.bias)


@container(Transposed, build=lambda modules, bias: Transposed(modules["of"], bias), options={"bias": FLAG})
def _transposed(module: Transposed) -> list[Part]:
    """The layer that it is, which the audit reads as any other."""
    if original_type(module.of) is not nn.Linear:
        raise TightlipError(f"a Transposed has the weight of an nn.Linear, not of a {type(module.of).__name__}")
    plain = nn.Linear(module.of.out_features, module.of.in_features, module.bias is not None, device="meta")
    plain.weight = nn.Parameter(module.of.weight.detach().mT, requires_grad=False)
    plain.bias = module.bias  # type: ignore[assignment]  # None: there is none
    return [Part("", plain.train(module.training), (0,))]


def serves(node: FxNode) -> bool:
    """Whether a node is a parameter, or one transposed, and only a weight or a bias of ``F.linear``."""
    users = list(node.users)
    if node.op == "get_attr" and users and all(_is_transposition(user) for user in users):
        return all(serves(user) for user in users)
    parameter = node.op == "get_attr" or (_is_transposition(node) and node.args[0].op == "get_attr")
    return parameter and bool(users) and all(user.target is F.linear and user.args[:1] != (node,) for user in users)


def _is_transposition(node: FxNode) -> bool:
    """W.t(), W.mT or W.transpose(0, 1)."""
    if node.target is getattr:
        return node.args[1] in ("T", "mT")
    axes = list(node.args[1:])
    return node.target in _TRANSPOSITIONS and axes in ([], [0, 1], [1, 0], [-1, -2], [-2, -1]) and not node.kwargs


def transposed(node: FxNode, modules: dict[str, nn.Module]) -> tuple[FxNode, Transposed]:
    """F.linear(x, layer.weight.t(), bias): x and the layer.

    Raises:
        TightlipError: for any other weight.
    """
    given: dict[str, Any] = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | node.kwargs
    weight, bias = given["weight"], given.get("bias")
    inner: Any = weight.args[0] if isinstance(weight, fx.Node) and _is_transposition(weight) else None
    owner, _, name = str(inner.target if getattr(inner, "op", "") == "get_attr" else "").rpartition(".")
    layer = modules.get(owner)
    if name != "weight" or layer is None or original_type(layer) is not nn.Linear:
        raise refused(node, "uses a tensor outside of a layer")
    return given["input"], Transposed(layer, None if bias is None else _parameter(node, bias, modules))  # type: ignore[arg-type]


def _parameter(node: FxNode, bias: Any, modules: dict[str, nn.Module]) -> nn.Parameter:
    owner, _, name = str(bias.target).rpartition(".") if isinstance(bias, fx.Node) else ("", "", "")
    found = modules[owner]._parameters.get(name) if owner in modules else None
    if found is None:
        raise refused(node, "uses a tensor outside of a layer")
    return found

"""Calls in a trace: their arguments by torch's own names, and the layers that stand for them."""

from typing import Any

from torch import nn

from ..errors import TightlipError
from .operations import Maker
from .overwriting import FxNode, refused


def arguments(node: FxNode) -> tuple[list[Any], dict[str, Any]]:
    """Those of a call, with torch's other names for them; tensors stand first, by whatever names they were given."""
    args, kwargs = list(node.args), {"dim" if key == "axis" else key: value for key, value in node.kwargs.items()}
    if not args:
        args = [kwargs.pop(name) for name in ("input", "tensors", "self") if name in kwargs][:1]
    if len(args) == 1 and "other" in kwargs:
        args.append(kwargs.pop("other"))
    if kwargs.get("out", 0) is None:
        del kwargs["out"]
    return args, kwargs


def made(node: FxNode, make: Maker, args: list[Any], kwargs: dict[str, Any]) -> nn.Module:
    """The layer that stands for a call with these arguments besides its tensor."""
    try:
        return make(*args, **kwargs)
    except TightlipError as problem:
        raise refused(node, str(problem)) from problem
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as problem:
        raise refused(node, "has arguments that no rule speaks of") from problem

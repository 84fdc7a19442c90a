"""Work in place, which a table of what takes what does not show: refused where it spoils what is used again."""

from typing import Any

from torch import fx, nn

from ..audit import expand
from ..audit.trust import original_type
from ..errors import TightlipError
from . import operations as ops

FxNode = Any
"""An ``fx.Node``, whose arguments torch declares to be of twenty types."""


def refused(node: FxNode, reason: str) -> TightlipError:
    """What is wrong with a node, with its line of the trace."""
    made = getattr(node.target, "__name__", node.target)
    return TightlipError(f"it {reason} (in the trace {node.name} = {made!s:.60}(…))")


def overwrites(layer: nn.Module) -> bool:
    """Whether a known layer, or one inside of it, may work in place on the input, or on what shares memory with it."""
    if not any(getattr(module, "inplace", False) for module in layer.modules()):
        return False
    shared = {0}
    for number, (_, operation, inputs) in enumerate(expand(layer).nodes, 1):
        if shared.isdisjoint(inputs):
            continue
        if getattr(operation, "inplace", False):
            return True
        if not any(type(operation) is kind for kind in ops.FRESH):
            shared.add(number)
    return False


def refuse_shared(node: FxNode, source: Any, modules: dict[str, nn.Module]) -> None:
    """Raise if what a node overwrites, or what shares memory with it, is used by another node as well."""
    while isinstance(source, fx.Node):
        if len(source.users) > 1:
            raise refused(node, "works in place on a tensor that is used again: give it inplace=False")
        if source.op == "call_module" and any(original_type(modules[source.target]) is kind for kind in ops.FRESH):  # type: ignore[index]
            return
        if source.op == "call_function" and source.target in (*ops.ADD, *ops.SUBTRACT, *ops.MULTIPLY, *ops.CONCATENATE):
            return
        source = next(iter(source.all_input_nodes), None)

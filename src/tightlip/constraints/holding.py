"""`hold` keeps every step-held layer of a network on its set through the steps of an optimizer.

The optimizer stays the one that schedulers, scalers and trainers know: torch's own step hooks call the layers'
coordinates before and after. Its bound ``step`` is wrapped, so that a step that fails leaves every weight on its set:
one that is turned as it was, one that the optimizer moves itself as far as it was moved.
"""

import contextlib
import functools
import logging
import types
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import TightlipError
from .constraint import Constraint
from .coordinate import OURS, Move, refuse_half
from .copied import refuse_steps_of_copies
from .fingerprint import mark
from .gathered import Gathered, is_sharded, whole, write_whole_
from .guard import Held
from .holdable import held_layers, parameters_of, refuse_arguments, weight_of
from .sharing import fold_all_, refuse_other_networks, shared_by

logger = logging.getLogger(__name__)

AnyOptimizer = TypeVar("AnyOptimizer")


class _Holding:
    """What an optimizer that holds remembers: its networks, and the moves of a step that is being taken."""

    def __init__(self) -> None:
        self.networks: list[nn.Module] = []
        self.moves: list[tuple[Move, list[Held]]] = []
        self.buffers: dict[Any, Tensor] = {}
        self.hooks: tuple[int, int] = 0, 0  # how torch knows our hooks before and after a step
        self.gathered = Gathered()
        self.group: Any = None  # of the ranks that share the work
        self.depth = 0  # of steps within steps: torch calls the hooks again where a subclass calls super().step()


def hold(network: nn.Module, optimizer: AnyOptimizer, group: Any = None) -> AnyOptimizer:
    """Keep every step-held layer of ``network`` on its set through all steps of ``optimizer``; returns the optimizer.

    One line in a training loop: ``optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters()))``.
    Works with any optimizer that steps once per backward, several forwards per step, accumulation and clipping. A
    weight that does not require a gradient, has none, or is not the optimizer's stays as it is. Weights that were
    overwritten (by a checkpoint, an average) are put back on their sets when hold is called, again or for a copy.

    Args:
        network: A module with constrained layers.
        optimizer: One of ``torch.optim`` or a subclass; of a wrapper with an ``optimizer`` inside, that one is held.
        group: A process group of `torch.distributed` whose ranks share the work: each folds a part of the weights and
            hands them on. They must train the same network on averaged gradients, under DistributedDataParallel or
            ``fully_shard``, and all call hold and step. Without it every rank does all of it, and none waits for
            another, as networks that differ from rank to rank must; weights sharded by ``fully_shard`` are gathered
            either way.

    Raises:
        TightlipError: for a network in which nothing is constrained; for optimizers that step several times per
            backward (LBFGS, SAM), move weights in ``eval()`` (schedule-free ones), keep copies of their own (ZeRO), or
            train nothing of the network; for a group whose ranks have different weights. Later, at a step that would
            leave NaN or infinity in a weight, where weights were cast to half precision, and where the ranks of a group
            have different gradients.
    """
    inner, group = refuse_arguments(network, optimizer), shared_by(group)
    holding = vars(inner).setdefault("_tightlip_holding", _Holding())
    if not holding.networks:
        before, after = inner.register_step_pre_hook(_before_step), inner.register_step_post_hook(_after_step)
        holding.hooks = before.id, after.id
        # what is held is moved outside of compiled steps: they would be compiled anew for every round of turns
        inner.step = types.MethodType(torch.compiler.disable(_undoing(inner.step)), inner)  # type: ignore[method-assign]
        refuse_steps_of_copies(inner)
    _pull_back(network)
    if group is not None:
        refuse_other_networks(network, group)
        holding.group = group
    if not any(network is known for known in holding.networks):
        holding.networks.append(network)
        if optimizer is not inner and hasattr(optimizer, "_optimizer_step_post_hooks"):  # it may write to weights too
            optimizer.register_step_post_hook(functools.partial(_pull_back, network))  # type: ignore[attr-defined]
    return optimizer


def _pull_back(network: nn.Module, *_: Any) -> None:
    """`put_back`; a warning says how far a weight was moved by that."""
    for name, constraint, moved in put_back(network):
        if moved > 1e-3:
            logger.warning("%s was off %r: it was moved by up to %.2g", name, constraint, moved)


@torch.no_grad()
def put_back(network: nn.Module) -> list[tuple[str, Constraint, float]]:
    """Put every step-held weight that was overwritten, say by an average, back on its set.

    Returns:
        Of each weight that was moved its name, its set, and by how much the entry moved that moved most.

    Raises:
        TightlipError: for a weight that is not finite.
    """
    found = []
    for name, layer, record in held_layers(network):
        weight: Tensor = layer.weight  # type: ignore[assignment]
        if weight.dtype not in (torch.float32, torch.float64):
            continue  # the next forward pass says what is wrong with it
        if not is_sharded(weight) and mark(weight) == record.seen:
            continue
        value = whole(weight)
        if not record.constraint.contains(value):
            before = value.clone()
            record.constraint.map_(value)
            write_whole_(weight, value)
            found.append((name, record.constraint, float((value - before).abs().max())))
        record.see(value, is_sharded(weight))
    return found


def _undoing(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step``, after which every weight is a weight and on its set, even if it fails."""

    @functools.wraps(step)
    def undoing(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        holding: _Holding = vars(optimizer)["_tightlip_holding"]
        before, after = holding.hooks  # nearest to the step itself, so that no other hook sees turns
        optimizer._optimizer_step_pre_hooks.move_to_end(before)  # type: ignore[attr-defined]
        optimizer._optimizer_step_post_hooks.move_to_end(after, last=False)  # type: ignore[attr-defined]
        holding.depth = 0
        try:
            result = step(*args, **kwargs)
            if holding.moves:  # a step inside failed, and its class has gone on
                _finish(optimizer)
        except BaseException:
            _undo(holding)
            _return_to_sets(optimizer)
            holding.gathered.close(optimizer)
            raise
        return result

    return undoing


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
    """Prepare the gradients; where the optimizer computes them itself, by a closure, after that."""
    holding: _Holding = vars(optimizer)["_tightlip_holding"]
    holding.depth += 1
    if holding.depth > 1:
        return None
    given = {**dict(enumerate(args)), **kwargs}  # args[0] is the optimizer
    key = next((key for key in ("closure", *given) if key != 0 and callable(given.get(key))), None)
    if key is None:
        _prepare(optimizer)
        return None
    closure = given[key]

    def prepared(*options: Any, **named: Any) -> Any:
        loss = closure(*options, **named)
        _prepare(optimizer)
        return loss

    given[key] = prepared
    return tuple(given.pop(number) for number in range(len(args))), given


def _prepare(optimizer: Optimizer) -> None:
    holding: _Holding = vars(optimizer)["_tightlip_holding"]
    _undo(holding)  # a step inside that failed and is tried again, a closure that is called twice
    holding.gathered.close(optimizer)
    scale, overflowed = _loss_scale(optimizer)
    trained = _trained(holding.networks, parameters_of(optimizer))
    holding.gathered.open(optimizer, [weight for _, weight in trained])
    for (name, listed), records in trained.items():
        weight: nn.Parameter = holding.gathered.of(listed)  # type: ignore[assignment]
        refuse_half(weight)
        state = optimizer.state.get(weight, {})
        memory = {key.removeprefix(OURS): value for key, value in state.items() if key.startswith(OURS)}
        move = Move(name, weight, weight.grad, records[0].constraint, optimizer, memory, scale, buffers=holding.buffers)  # type: ignore[arg-type]
        holding.moves.append((move, records))
        for key in memory:
            del state[OURS + key]
        if overflowed or not weight.requires_grad:
            weight.grad = None  # it stays as it is
        else:
            records[0].coordinate.before_step(move)


def _undo(holding: _Holding) -> None:
    """After a step that failed: every weight is a weight again, with its ordinary gradient."""
    for move, _ in holding.moves:  # all of them first: what comes next may raise
        move.undo()
    for move, records in holding.moves:
        records[0].coordinate.after_failure_(move)
        move.remember()
    holding.moves = []


@torch.no_grad()
def _return_to_sets(optimizer: Optimizer) -> None:
    """Put weights that a failed step has moved back on their sets; one that is not finite stays as it is."""
    holding: _Holding = vars(optimizer)["_tightlip_holding"]
    listed = parameters_of(optimizer)
    for network in holding.networks:
        for _, layer, record in held_layers(network):
            listed_weight = layer._parameters.get("weight")
            weight = holding.gathered.of(listed_weight) if id(listed_weight) in listed else None  # type: ignore[arg-type]
            if weight is not None and not record.constraint.contains(weight):
                with contextlib.suppress(TightlipError):
                    record.constraint.map_(weight)


def _trained(networks: list[nn.Module], listed: set[int]) -> dict[tuple[str, nn.Parameter], list[Held]]:
    """The weights that this step moves, each with the records of all layers that share it."""
    found: dict[int, tuple[str, nn.Parameter, list[Held]]] = {}
    for network in networks:
        for name, layer, record in held_layers(network):
            weight = weight_of(name, layer)
            if id(weight) in listed and weight.grad is not None:
                found.setdefault(id(weight), (name, weight, []))[2].append(record)
    return {(name, weight): records for name, weight, records in found.values()}


def _loss_scale(optimizer: Optimizer) -> tuple[float, bool]:
    """What a `torch.amp.GradScaler` has left for a fused optimizer to do: its scale, and whether to skip the step."""
    scale, overflows = (getattr(optimizer, name, None) for name in ("grad_scale", "found_inf"))
    return 1.0 if scale is None else float(scale), overflows is not None and float(overflows) > 0


def _after_step(optimizer: Optimizer, *_: Any) -> None:
    holding: _Holding = vars(optimizer)["_tightlip_holding"]
    holding.depth -= 1
    if holding.depth == 0:
        _finish(optimizer)


def _finish(optimizer: Optimizer) -> None:
    """Move the weights along their sets by what the optimizer has made of their gradients."""
    holding: _Holding = vars(optimizer)["_tightlip_holding"]
    problems = _close(holding.moves)
    moves = [(move, records) for move, records in holding.moves if move.handed]
    folds = [(records[0].coordinate, move) for move, records in moves]
    problems += fold_all_(folds, holding.group, _device(holding.networks))
    for move, records in moves:
        move.remember()
        for record in records:
            record.see(move.weight, holding.gathered.lent(move.weight))
    holding.moves = []
    if problems:
        raise problems[0]
    holding.gathered.close(optimizer)


def _device(networks: list[nn.Module]) -> torch.device:
    """Where held weights are."""
    weights = (layer.weight for network in networks for _, layer, _ in held_layers(network))
    return next((weight.device for weight in weights), torch.device("cpu"))  # type: ignore[misc, return-value]


def _close(moves: list[tuple[Move, list[Held]]]) -> list[TightlipError]:
    """Every weight is a weight again, with its ordinary gradient; what was wrong with the states of optimizers."""
    for move, records in moves:  # all weights first: what comes after them may raise
        move.weight.grad = None
        records[0].coordinate.give_back(move)
        move.weight.grad = move.gradient
    problems = []
    for move, records in moves:
        try:
            records[0].coordinate.after_step(move)
        except TightlipError as problem:
            move.handed = False  # and so it is not moved
            problems.append(problem)
        move.remember()
        move.closed = True
    return problems

"""What two ranks try once, not in every cell; `ranks` calls it, and test_processes.py asks what came of it."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from conventions.cells import EXACT, adam, inputs, train
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tightlip import MaxMin, Orthonormal, RowL1Ball, SpectralBall, TightlipError, constrain, hold, mlp, wasserstein1
from tightlip.constraints import sharing
from tightlip.constraints.frame import Frame
from tightlip.transport import contest, families

SCENARIOS: dict[str, Callable[[], str | None]] = {}


def scenario(function: Callable[[], None]) -> Callable[[], None]:
    """Adds a function to what is tried."""
    SCENARIOS[function.__name__] = function
    return function


def network(seed: int = 0) -> nn.Sequential:
    """Weights turned in blocks and as a whole, projected, warm-started and of a convolution, and a plain one."""
    torch.manual_seed(seed)
    layers = [constrain(nn.Conv2d(2, 2, 3, padding=1), EXACT), nn.Flatten(), constrain(nn.Linear(32, 32), EXACT)]
    for members in (Orthonormal(blocks=8), Orthonormal(blocks=1), RowL1Ball(), SpectralBall(iterations=5)):
        layers += [MaxMin(), constrain(nn.Linear(32, 32), members)]
    return nn.Sequential(*layers, nn.Linear(32, 3))


def images(seed: int) -> torch.Tensor:
    return torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def same_everywhere(value: object) -> bool:
    """Whether all ranks have the same."""
    found: list = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return all(each == found[0] for each in found)


def bits(network: nn.Module, optimizer: torch.optim.Optimizer) -> list:
    """All that is known of a training."""
    state = optimizer.state_dict()["state"].items()
    known = [
        *network.state_dict().items(),
        *((f"{number} {key}", v) for number, each in state for key, v in each.items()),
    ]
    return [(name, value.tolist() if isinstance(value, torch.Tensor) else value) for name, value in known]


def refused(call: Callable[[], object]) -> str:
    """The one sentence that all ranks raise."""
    sentence = "nothing"
    try:
        call()
    except TightlipError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert same_everywhere(sentence), sentence
    return sentence


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@scenario
def shared_state() -> None:
    """Weights of all kinds, and all that the optimizer remembers, are the same bits on both ranks."""
    trained = network()
    wrapped = DistributedDataParallel(trained)
    optimizer = hold(wrapped, adam(trained.parameters()), group=dist.group.WORLD)
    for number in range(9):
        optimizer.zero_grad()
        wrapped(images(2 * number + dist.get_rank())).square().sum().backward()
        optimizer.step()
    assert same_everywhere(bits(trained, optimizer))
    assert any("tightlip_last" in name for name, _ in bits(trained, optimizer))


@scenario
def each_has_work() -> None:
    """No rank folds what another has folded."""
    trained = network()
    wrapped, own, fold = DistributedDataParallel(trained), [], sharing._fold_
    optimizer = hold(wrapped, adam(trained.parameters()), group=dist.group.WORLD)
    wrapped(images(dist.get_rank())).square().sum().backward()
    with replaced(sharing, "_fold_", lambda folds, places: fold(folds, own.extend(places) or own)):
        optimizer.step()
    found: list = [None, None]
    dist.all_gather_object(found, own)
    assert sorted(found[0] + found[1]) == list(range(6))
    assert all(found), found


@scenario
def other_weights() -> None:
    """Networks that differ from rank to rank are not overwritten by one another."""
    own = network(dist.get_rank())
    before = own[2].weight.detach().clone()
    sentence = refused(lambda: hold(own, adam(own.parameters()), group=dist.group.WORLD))
    assert "different weights in 0.weight" in sentence
    assert torch.equal(own[2].weight, before)
    optimizer = hold(own, adam(own.parameters()))  # and nothing waits for another rank here
    for number in range(1 + dist.get_rank()):
        own(images(number)).square().sum().backward()
        optimizer.step()


@scenario
def other_gradients() -> None:
    """The network is not wrapped, so gradients are not averaged."""
    own = network()
    optimizer = hold(own, adam(own.parameters()), group=dist.group.WORLD)
    own(images(dist.get_rank())).square().sum().backward()
    assert "different gradients" in refused(optimizer.step)
    own(images(0))  # every weight is on its set


@scenario
def other_steps() -> None:
    """One rank has frozen a weight."""
    own = network()
    optimizer = hold(own, adam(own.parameters()), group=dist.group.WORLD)
    own[4].weight.requires_grad_(dist.get_rank() == 0)
    own(images(0)).square().sum().backward()
    assert "step different weights" in refused(optimizer.step)


@scenario
def a_fold_that_fails() -> None:
    """Where it fails on the rank that owns the weight, both raise what that rank says, and go on together."""
    own = network()
    wrapped = DistributedDataParallel(own)
    optimizer = hold(wrapped, adam(own.parameters()), group=dist.group.WORLD)

    def failing(coordinate: Frame, moves: list) -> None:
        raise TightlipError(f"{moves[0].name} fails on rank {dist.get_rank()}")

    for fold in (Frame.fold_, failing, Frame.fold_, Frame.fold_):
        optimizer.zero_grad()
        wrapped(images(dist.get_rank())).square().sum().backward()
        with replaced(Frame, "fold_", fold):
            if fold is failing:
                assert "fails on rank" in refused(optimizer.step)
                assert optimizer.state[own[4].weight]["tightlip_drift"] == math.inf, "what waits is not given up"
            else:
                optimizer.step()
    assert same_everywhere(bits(own, optimizer))


@scenario
def an_error_of_another_kind() -> None:
    """One rank raises it, and the others do not wait."""
    own = network()
    optimizer = hold(own, adam(own.parameters()), group=dist.group.WORLD)
    own(images(0)).square().sum().backward()

    def failing(*_: object) -> None:
        raise ZeroDivisionError

    with replaced(SpectralBall, "map_", failing):
        try:
            optimizer.step()
        except (ZeroDivisionError, TightlipError) as error:
            found: list = [None, None]
            dist.all_gather_object(found, type(error).__name__)
    assert sorted(found) == ["TightlipError", "ZeroDivisionError"], found


@scenario
def looked_at_once() -> None:
    """A sharded weight that a step has folded is not compared with its set again; one that nobody folded is found."""
    own = nn.Sequential(constrain(nn.Linear(32, 32), Orthonormal(blocks=1)), nn.Linear(32, 3))
    fully_shard(own)
    optimizer, looked, contains = hold(own, adam(own.parameters())), [], Orthonormal.contains
    with replaced(Orthonormal, "contains", lambda *_: looked.append(1) or contains(*_)):
        train(own, optimizer, 4)
    assert len(looked) == 1, "at the first forward pass alone, which meets a tensor that it does not know"
    torch.optim.SGD(own.parameters(), lr=1.0).step()
    assert "without being pulled back" in refused(lambda: own(inputs(own)))


@scenario
def accelerate() -> None:
    """Accelerate wraps networks in DistributedDataParallel, or shards them where it is told to."""
    rank = str(dist.get_rank())  # as torchrun says it; the address is there to be read, not to be called
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.utils import DistributedType

    for sharded in (False, True):
        accelerator = Accelerator(cpu=True)
        if sharded:  # which it would not do on a CPU by itself
            plugin = FullyShardedDataParallelPlugin(
                fsdp_version=2, auto_wrap_policy="no_wrap", cpu_ram_efficient_loading=False
            )
            accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
        torch.manual_seed(0)
        own = mlp([8, 32, 32, 1])
        own, optimizer = accelerator.prepare(own, adam(own.parameters()))
        optimizer = hold(own, optimizer, group=dist.group.WORLD)
        for number in range(3):
            optimizer.zero_grad()
            accelerator.backward(own(torch.randn(8, 8) + number).square().mean())
            optimizer.step()
        weights = [p.full_tensor() if sharded else p.detach() for p in own.parameters()]
        assert same_everywhere([weight.tolist() for weight in weights])
        assert sharded == hasattr(next(own.parameters()), "full_tensor")


@scenario
def distance() -> str:
    """About distributions, ranks with the same samples find the same interval."""
    torch.manual_seed(dist.get_rank())  # what a rank has drawn before is of no account
    found = interval()
    assert same_everywhere(found)
    return found


def interval() -> str:
    """What `wasserstein1` says of two samples, with a critic that is trained."""
    x = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    options = {"critic": "network", "diameter": 4.0, "progress": False}
    with replaced(contest, "ROUNDS", 1), replaced(families, "WIDTH", 16):
        found = wasserstein1(x[:150], x[150:] + 1, about="distributions", **options)
    return repr((found.lower, found.upper, found.estimate, found.p_value))

"""What torch users do with parameters, tried on every constraint, every way to hold it and every shape.

A *convention* is something that people, and other people's code, do with `nn.Parameter`s and optimizers without asking:
freeze, tie, average, save, copy, clip, distribute. A *cell* is one constraint, one way to hold it, one shape (of a
matrix, or a convolution of `carriers`) and one width. In each cell a convention works, or is refused by one sentence (a
`TightlipError`); the test says which.

    test_parameters.py    what `layer.weight` is: its name, its leafness, its gradient, its identity over a step
    test_freezing.py      requires_grad=False at any time; weights that the optimizer does not list
    test_tying.py         W and Wᵀ, one layer used twice, one Parameter of two layers
    test_functional.py    F.linear, functional_call, vmap, jvp, jacrev, hessian; parametrized by someone else
    test_averaging.py     moving averages: torch's, a loop over parameters(), one that skips what is frozen
    test_saving.py        what trains, all of it, the optimizer's state in the middle of a tournament, assign=True
    test_distributed_checkpoint.py   torch.distributed.checkpoint, flattened or not
    test_copying.py       deepcopy and pickle at every step of a round
    test_optimizers.py    every optimizer of torch trains, or is refused
    test_wrapping.py      wrappers, subclasses, schedule-free, SAM, hold called twice or the wrong way round
    test_groups.py        parameter groups, decay, several optimizers, several networks, schedulers
    test_loops.py         accumulation, clipping, closures, double backward, zero_grad, steps inside the backward pass
    test_precision.py     autocast, float64, GradScaler, fused, compile, moving between devices
    test_failures.py      exceptions and NaN inside a step, writes from outside, states of another kind
    test_processes.py     two ranks: DistributedDataParallel, ZeRO, fully_shard

`make conventions` tries everything at widths 64 and 256 (``CONVENTION_WIDTHS``); at 1024, where one test of some
constraints takes seconds, each of their cells meets a share of the conventions (`SHARES`). `make test` has a minute: at
width 64, every constraint meets every convention but for those that are held `ALIKE`, of which one does, others from
test to test; those of `MAIN` in all shapes and the others in one shape that changes, too; of the cells with
convolutions, orthonormal 3×3 kernels and two that change meet it. A test asks for the fixture ``cell``, and narrows it
by the marker ``cells``, whose arguments are those of `cells`:

    @pytest.mark.cells(way="step", turned=True)
    def test_...(cell): ...
"""

import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from conventions.carriers import CARRIERS, KERNELS, TURNED, singular_value_deviation
from conventions.members import EXACT, constrained, copied, deviation, seeded
from torch import nn

from tightlip import (
    Cayley,
    ColumnL1Ball,
    Constraint,
    MatrixExponential,
    Orthonormal,
    Parseval,
    RowDualBall,
    RowL1Ball,
    SpectralBall,
    TightlipError,
    constrain,
    hold,
)
from tightlip.constraints.constraining import weight_constraint
from tightlip.constraints.frame import block_count
from tightlip.linalg.schedules import bjorck

STEP = {
    "turned-8": Orthonormal(blocks=8),
    "turned-1": Orthonormal(blocks=1),
    "turned": EXACT,
    "ambient": Orthonormal(blocks=0),
    "schedule": Orthonormal(bjorck(3)),
    "spectral": SpectralBall(),
    "spectral-power": SpectralBall(iterations=5),
    "row-l1": RowL1Ball(),
    "column-l1": ColumnL1Ball(),
    "row-dual-1": RowDualBall(1),
    "row-dual-2": RowDualBall(2),
    "row-dual-inf": RowDualBall(math.inf),
    "parseval": Parseval(),
}
"""What is held by ``hold="step"``. The default turns in blocks only from 256 rows on, so 8 are asked for here."""

FORWARD = {
    "orthonormal": EXACT,
    **{name: STEP[name] for name in ("schedule", "spectral", "row-l1", "column-l1")},
    **{name: STEP[name] for name in ("row-dual-1", "row-dual-2", "row-dual-inf")},
    "cayley": Cayley(),
    "exponential": MatrixExponential(),
}
"""What is held by ``hold="forward"``."""

CHARTS = {"cayley", "exponential"}
"""Torch's own: what trains is a coordinate, and the point that it starts from is a buffer."""

SHAPES = {"square": (1.0, 1.0), "tall": (1.0, 0.5), "wide": (0.5, 1.0)}
"""Rows and columns of the first layer, in widths."""

MAIN = {("step", "turned-8")}
"""What `make test` tries in all shapes: the one for which tall and wide are not the same lines."""

PULLED_BACK = ("schedule", "spectral", "spectral-power", "row-l1", "column-l1")
PULLED_BACK += ("row-dual-1", "row-dual-2", "row-dual-inf")
ALIKE = {
    "step": [("turned-1", "turned", "ambient"), PULLED_BACK[::2], PULLED_BACK[1::2]],
    "forward": [("cayley", "exponential"), tuple(name for name in PULLED_BACK if name in FORWARD)],
}
"""Sets that the library holds by the same lines. In `make test` a convention meets one of each, others from test to
test."""

FEW = {*MAIN, ("step", "ambient"), ("forward", "orthonormal"), ("step", "row-l1")}
"""Where a convention takes long (a compiler, two processes), `make test` tries these, and squares alone."""

CHANNELS = 8
"""The width of cells with convolutions."""

FEW_CARRIED = {("step", "turned", "3x3"), ("step", "turned-8", "patch"), ("forward", "column-l1", "1d")}
"""Cells with convolutions in which `make test` tries a convention that takes long."""

SHARES = {
    **dict.fromkeys([("step", "turned-1"), ("step", "ambient"), ("forward", "cayley")], 3),
    **dict.fromkeys([("step", "schedule"), ("step", "spectral"), ("forward", "spectral")], 6),
    **dict.fromkeys([("forward", "orthonormal"), ("forward", "schedule"), ("forward", "exponential")], 12),
}
"""At width 1024, where one test of these takes seconds, a convention is tried in one cell of so many."""

WIDTHS = tuple(int(width) for width in os.environ.get("CONVENTION_WIDTHS", "64").split(","))
EVERYTHING = "CONVENTION_WIDTHS" in os.environ


@dataclass(frozen=True)
class Cell:
    """One constraint, held in one way, on layers of one shape and width."""

    name: str
    way: str
    shape: str
    width: int

    @property
    def constraint(self) -> Constraint:
        return (STEP if self.way == "step" else FORWARD)[self.name]

    @property
    def turned(self) -> bool:
        """Whether an orthonormal weight is turned here, rather than trained and projected."""
        return self.way == "step" and (self.name in TURNED or self.turned_by_default)

    @property
    def turned_by_default(self) -> bool:
        """Whether `Orthonormal()` turns weights of this size, or the factors of such kernels."""
        return self.name == "turned" and (self.width >= 256 or self.shape in KERNELS)

    @property
    def orthonormal(self) -> bool:
        """Whether members are orthonormal to rounding, whatever the optimizer does."""
        return self.turned or self.name in ("turned", "ambient", "orthonormal", "cayley")

    @property
    def rounds(self) -> int:
        """As many steps as the longest tournament of the network has rounds."""
        if not self.turned or self.shape in KERNELS:
            return 1
        rows, columns = self.sizes
        return max(1, *((block_count(self.constraint, (rows, m)) or 1) - 1 for m in (columns, rows)))

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns of the first layer's matrix."""
        if self.shape in CARRIERS:
            return self.width, self.width
        rows, columns = (round(factor * self.width) for factor in SHAPES[self.shape])
        return rows, columns

    def layer(self, seed: int = 0) -> nn.Module:
        """One layer of this shape on its set."""
        if self.shape in CARRIERS:
            return self._convolution(CARRIERS[self.shape].first, seed)
        rows, columns = self.sizes
        return self._linear(columns, rows, seed)

    def square(self) -> nn.Module:
        """A plain layer that keeps the shape of what it takes."""
        return CARRIERS[self.shape].square() if self.shape in CARRIERS else nn.Linear(self.width, self.width)

    def head(self) -> nn.Module:
        """A plain layer from what `layer` makes to three numbers."""
        return nn.Linear(self._features, 3)

    def flat(self) -> nn.Module:
        """What stands before the head."""
        axes = len(CARRIERS[self.shape].size) if self.shape in CARRIERS else 0
        return nn.Sequential(nn.ReLU(), nn.Flatten(-1 - axes)) if axes else nn.ReLU()

    @property
    def _features(self) -> int:
        if self.shape not in CARRIERS:
            return self.sizes[0]
        pixels = math.prod(CARRIERS[self.shape].size)
        return self.width * (pixels // 4 if self.shape == "patch" else pixels)

    def _linear(self, inputs: int, outputs: int, seed: int) -> nn.Linear:
        make = constrained if self.width <= 64 else copied  # large ones take a second
        return make(self.constraint, self.way, inputs, outputs, seed)

    def _convolution(self, make, seed: int) -> nn.Module:
        seeded(seed)
        return constrain(make(), self.constraint, self.way)

    def network(self, seed: int = 0) -> nn.Sequential:
        """A layer of this shape, one that keeps it and a plain one: (batch, …) to (batch, 3)."""
        first, rows = self.layer(seed), self.sizes[0]
        convolution = CARRIERS.get(self.shape)
        second = self._convolution(convolution.square, seed + 1) if convolution else self._linear(rows, rows, seed + 1)
        return nn.Sequential(first, nn.ReLU(), second, self.flat(), self.head())

    def plain(self) -> nn.Sequential:
        """The same network in torch's layers alone, with other weights."""
        rows, columns = self.sizes
        first = CARRIERS[self.shape].first() if self.shape in CARRIERS else nn.Linear(columns, rows)
        second = CARRIERS[self.shape].square() if self.shape in CARRIERS else nn.Linear(rows, rows)
        return nn.Sequential(first, nn.ReLU(), second, self.flat(), self.head())

    def held(self, seed: int = 0, make=None) -> tuple[nn.Sequential, torch.optim.Optimizer]:
        """A network and the optimizer that holds it, Adam unless ``make`` makes another of its parameters."""
        network = self.network(seed)
        optimizer = (make or adam)(network.parameters())
        if self.name == "parseval":  # a step longer than its pull reaches runs away
            paced(optimizer)
        return network, hold(network, optimizer)

    def leaf(self, layer: nn.Linear) -> nn.Parameter:
        """What is trained: the weight, or what it is mapped from."""
        return layer.weight if self.way == "step" else layer.parametrizations.weight.original

    @torch.no_grad()
    def assert_member(self, network: nn.Module) -> None:
        """Every held weight is on its set; the exactly orthonormal ones by the library's promise, |σ² − 1| ≤ 1e-5."""
        layers = [layer for layer in network.modules() if weight_constraint(layer) is not None]
        assert layers
        for layer in layers:
            weight = layer.weight  # computed, where it is held in the forward pass
            assert weight_constraint(layer).contains(weight)
            assert not self.orthonormal or self.deviation(layer) <= 1e-5

    def deviation(self, layer: nn.Module) -> float:
        """How far a layer's squared singular values are from 1."""
        return singular_value_deviation(layer) if self.shape in CARRIERS else deviation(layer.weight.detach())

    def contains(self, layer: nn.Module, weight: torch.Tensor) -> bool:
        """Whether a layer's set has this weight."""
        return weight_constraint(layer).contains(weight)

    def __str__(self) -> str:
        return f"{self.way}-{self.name}-{self.shape}-{self.width}"


def cells(way=None, shape=None, turned=None, orthonormal=None, names=None, few=False, carriers=True, test=""):
    """The cells of this run for one test, narrowed by whatever is given; ``few`` is for what takes long.

    The shape "square" is also that of the convolutions that keep the shape of an image; ``carriers=False`` leaves all
    convolutions out.
    """

    def fits(cell: Cell) -> bool:
        kind = "square" if cell.shape in CARRIERS and cell.shape != "patch" else cell.shape
        wanted = ((way, cell.way), (shape, kind), (turned, cell.turned), (orthonormal, cell.orthonormal))
        return all(asked is None or asked == has for asked, has in wanted) and (names is None or cell.name in names)

    chosen = _in_everything if EVERYTHING else _in_a_minute
    for each, table in (("step", STEP), ("forward", FORWARD)):
        known = table if EVERYTHING or few else _met(table, each, test)
        for cell in (Cell(name, each, s, width) for width in WIDTHS for name in known for s in SHAPES):
            if fits(cell) and chosen(cell, few, test, fixed=shape):
                yield cell
    yield from _of_carriers([cell for cell in carried() if carriers and fits(cell)], few, test)


def _met(table: dict[str, Constraint], way: str, test: str) -> list[str]:
    """The constraints that a test meets in a minute: one of those that are `ALIKE`, and every other one."""
    turn = zlib.crc32(f"{test} {way}".encode())
    left_out = {name for alike in ALIKE[way] for name in alike if name != alike[turn % len(alike)]}
    return [name for name in table if name not in left_out]


def carried() -> Iterator[Cell]:
    """Every cell with convolutions."""
    for way, table in (("step", STEP), ("forward", FORWARD)):
        for name in table:
            for shape, convolution in CARRIERS.items():
                if name not in convolution.refused:
                    yield Cell(name, way, shape, CHANNELS)


def _of_carriers(fitting: list[Cell], few: bool, test: str) -> Iterator[Cell]:
    """All of them in everything; in a minute orthonormal 3×3 kernels, one that is step-held and one that is not."""
    main = [cell for cell in fitting if (cell.way, cell.name, cell.shape) in FEW_CARRIED]
    if few or EVERYTHING:
        yield from fitting if EVERYTHING else main
        return
    chosen = [cell for cell in main if cell.shape == "3x3"]
    for way in ("step", "forward"):
        others = [cell for cell in fitting if cell.way == way and cell not in chosen]
        chosen += others[zlib.crc32(f"{test} {way}".encode()) % len(others) :][:1] if others else []
    yield from chosen


def _in_everything(cell: Cell, few: bool, test: str, fixed: str | None) -> bool:
    if cell.width <= 256:
        return True
    if few or fixed is not None:
        return not few or (cell.way, cell.name) in FEW
    return (_turn(cell, test) + list(SHAPES).index(cell.shape)) % SHARES.get((cell.way, cell.name), 1) == 0


def _in_a_minute(cell: Cell, few: bool, test: str, fixed: str | None) -> bool:
    if few:
        return cell.shape == "square" and (cell.way, cell.name) in FEW
    turn = list(SHAPES)[_turn(cell, test) % len(SHAPES)]
    return fixed is not None or cell.shape == turn or (cell.way, cell.name) in MAIN


def _turn(cell: Cell, test: str) -> int:
    """A number of the test and of the constraint, the same for all shapes."""
    return zlib.crc32(f"{test} {cell.way} {cell.name}".encode())


def adam(parameters, **options) -> torch.optim.Optimizer:
    return paced(torch.optim.Adam(parameters, lr=3e-3, **options))


def paced(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """At rates for its widest parameter: Adam moves each entry by the rate, so n columns by up to n times that."""
    widest = max(max(p.shape) for group in optimizer.param_groups for p in group["params"])
    for options in (optimizer.defaults, *optimizer.param_groups):
        options["lr"] *= min(1.0, 256 / widest)
    return optimizer


def momentum(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def inputs(network: nn.Module, seed: int = 0, count: int = 8) -> torch.Tensor:
    """A batch that the network takes, the same for the same seed."""
    layer = next(m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d))
    generator = torch.Generator().manual_seed(seed)
    if isinstance(layer, nn.Linear):
        shape = (layer.in_features,)
    else:
        shape = layer.in_channels, *((12,) if isinstance(layer, nn.Conv1d) else (6, 6))
    return torch.randn(count, *shape, generator=generator).to(next(network.parameters()).dtype)


def goal(x: torch.Tensor, outputs: int = 3) -> torch.Tensor:
    """The sizes of the first inputs, three times: (batch, outputs)."""
    return 3 * x.flatten(1)[:, :outputs].abs()


def loss(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The squared distance of the outputs to their `goal`."""
    outputs = network(x).flatten(1)
    return (outputs - goal(x, outputs.shape[1])).square().mean()


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    """The loop that everybody writes."""
    for number in range(steps):
        optimizer.zero_grad()
        loss(network, inputs(network, seed + number)).backward()
        optimizer.step()


def values(network: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the state of a network."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(network: nn.Module, other: nn.Module) -> bool:
    """Whether two networks agree in every bit of their state."""
    one, two = network.state_dict(), other.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@contextmanager
def refused(match: str) -> Iterator[None]:
    """Expects the library's own error, in one sentence that matches."""
    with pytest.raises(TightlipError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)

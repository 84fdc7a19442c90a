"""What forwards do to the axes of values, as layers with bound 1 in every norm.

`Permute`, `Transpose`, `Roll`, `Flip`, `Squeeze` and `Unsqueeze` move entries; `Slice`, `Chunk` and `Select` leave some
out. None is copied. Axis 0 is that of the batch. A negative number may mean it as well, which shows only where the
values are: then the layer raises.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..audit import EXACT, Gains, rule
from ..errors import TightlipError
from ..options import AXES, INTEGER, SIZE, optional, several
from ..stored import brief, stored_integer

DIMS = several(INTEGER, AXES)
"""An axis, or several."""


def own_axis(dim: int, axes: int) -> int:
    """The number of an axis, counted from the first.

    Raises:
        TightlipError: for that of the batch, and for one that is not there.
    """
    if not -axes <= dim < axes:
        raise TightlipError(f"values of {axes} axes have no axis {dim}: give one from 1 to {axes - 1}")
    if dim % axes == 0:
        raise TightlipError(f"axis {dim} of values of {axes} axes is that of the batch: give another dim")
    return dim % axes


def own_axes(dims: int | Sequence[int], axes: int) -> list[int]:
    """The numbers of one axis or several, each as `own_axis` has it."""
    return [own_axis(dim, axes) for dim in ([dims] if isinstance(dims, int) else dims)]


def refuse_axes(module: nn.Module) -> None:
    """Raise if what a layer has as ``dim`` is no axis, holds that of the batch, or one twice."""
    dims: Any = module.dim
    dims = list(dims) if isinstance(dims, tuple | list) else [dims]
    if not dims or not all(type(dim) is int and dim != 0 for dim in dims) or len(set(dims)) < len(dims):
        name, given = type(module).__name__, brief(module.dim)
        raise TightlipError(f"{name} has dim={given}: give axes other than 0, that of the batch, each once")


class OfAxes(nn.Module):
    """A layer whose options are named axes and numbers."""

    names: Sequence[str] = ("dim",)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.names)


class Slice(OfAxes):
    """Entries ``start`` to ``stop`` of an axis other than that of the batch, as x[:, start:stop] has them.

    >>> import torch
    >>> Slice(1, 0, 2)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 2.]])
    """

    names = ("dim", "start", "stop")

    def __init__(self, dim: int, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self.dim, self.start, self.stop = dim, start, stop

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same with fewer entries along the axis."""
        return x[(slice(None),) * own_axis(self.dim, x.dim()) + (slice(self.start, self.stop),)]


class Select(OfAxes):
    """Entry ``index`` of an axis other than that of the batch, as x[:, index] has it.

    >>> import torch
    >>> Select(1, -1)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([3.])
    """

    names = ("dim", "index")

    def __init__(self, dim: int, index: int) -> None:
        super().__init__()
        self.dim, self.index = dim, index

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same without the axis."""
        return x.select(own_axis(self.dim, x.dim()), self.index)


class Chunk(OfAxes):
    """Piece ``index`` of ``chunks`` along an axis other than that of the batch, as x.chunk(chunks, dim)[index] has it.

    >>> import torch
    >>> Chunk(2, 1, 0)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 2.]])
    """

    names = ("chunks", "dim", "index")

    def __init__(self, chunks: int, dim: int, index: int) -> None:
        super().__init__()
        self.chunks, self.dim, self.index = chunks, dim, index

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same with fewer entries along the axis."""
        pieces = x.chunk(self.chunks, own_axis(self.dim, x.dim()))
        if not -len(pieces) <= self.index < len(pieces):
            raise TightlipError(
                f"values of shape {list(x.shape)} make {len(pieces)} chunks: chunk {self.index} is none"
            )
        return pieces[self.index]


class Transpose(OfAxes):
    """Two axes other than that of the batch change places.

    >>> import torch
    >>> Transpose(1, 2)(torch.ones(1, 2, 3)).shape
    torch.Size([1, 3, 2])
    """

    names = ("dim0", "dim1")

    def __init__(self, dim0: int, dim1: int) -> None:
        super().__init__()
        self.dim0, self.dim1 = dim0, dim1

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same in another order."""
        return x.transpose(own_axis(self.dim0, x.dim()), own_axis(self.dim1, x.dim()))


class Permute(OfAxes):
    """All axes in another order, with that of the batch first.

    >>> import torch
    >>> Permute((0, 2, 3, 1))(torch.ones(1, 2, 3, 4)).shape
    torch.Size([1, 3, 4, 2])
    """

    names = ("dims",)

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same in another order."""
        return x.permute(self.dims)


class Squeeze(OfAxes):
    """An axis other than that of the batch goes, if it has one entry.

    >>> import torch
    >>> Squeeze(1)(torch.ones(2, 1, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same entries."""
        return x.squeeze(own_axis(self.dim, x.dim()))


class Unsqueeze(OfAxes):
    """A new axis with one entry, after that of the batch.

    >>> import torch
    >>> Unsqueeze(1)(torch.ones(2, 3)).shape
    torch.Size([2, 1, 3])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same entries."""
        return x.unsqueeze(own_axis(self.dim, x.dim() + 1))


class Roll(OfAxes):
    """Entries move along an axis other than that of the batch, and around its end.

    >>> import torch
    >>> Roll(1, 1)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 1., 2.]])
    """

    names = ("shifts", "dim")

    def __init__(self, shifts: int, dim: int) -> None:
        super().__init__()
        self.shifts, self.dim = shifts, dim

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same entries."""
        return x.roll(self.shifts, own_axis(self.dim, x.dim()))


class Flip(OfAxes):
    """Entries along an axis other than that of the batch in reverse.

    >>> import torch
    >>> Flip(1)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 2., 1.]])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same entries."""
        return x.flip(own_axis(self.dim, x.dim()))


@rule(Slice, options={"dim": INTEGER, "start": INTEGER, "stop": optional(INTEGER)})
@rule(Select, options={"dim": INTEGER, "index": INTEGER}, reshapes=True)
@rule(Chunk, options={"chunks": SIZE, "dim": INTEGER, "index": INTEGER})
@rule(Transpose, options={"dim0": INTEGER, "dim1": INTEGER})
@rule(Squeeze, Unsqueeze, options={"dim": INTEGER}, reshapes=True)
@rule(Flip, options={"dim": INTEGER})
@rule(Roll, options={"shifts": INTEGER, "dim": INTEGER})
def _moved(module: OfAxes) -> Gains:
    """Each output is an input, and none is copied."""
    for name in module.names:
        if not (name == "stop" and getattr(module, name) is None):
            stored_integer(module, name)
        if name.startswith("dim") and getattr(module, name) == 0:
            kind = type(module).__name__
            raise TightlipError(f"a {kind} along the axis of the batch mixes examples: give another dim")
    if isinstance(module, Chunk) and module.chunks < 1:
        raise TightlipError(f"Chunk has chunks={module.chunks}: give an integer ≥ 1")
    return Gains.constant(1.0, EXACT)


@rule(Permute, options={"dims": DIMS})
def _permuted(module: Permute) -> Gains:
    dims: Any = module.dims
    numbers = isinstance(dims, tuple | list) and all(type(dim) is int for dim in dims)
    if not numbers or list(dims[:1]) != [0] or sorted(dims) != list(range(len(dims))):
        raise TightlipError(f"Permute has dims={brief(dims)}: give 0, that of the batch, and then all the others")
    return Gains.constant(1.0, EXACT)

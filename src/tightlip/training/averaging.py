"""A moving average of the weights: after each step average ← decay·average + (1 − decay)·weights.

Averages of members of a set need not be members, so the network that is judged is a copy with every step-held weight
put back on its set. What is trained does not notice: its weights are those of a run without an average, bit for bit.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import TypeVar

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..constraints import put_back
from ..errors import TightlipError

Batch = TypeVar("Batch")


class Average:
    """The exponential moving average of the parameters of a network, which begins with those after the first step.

    Buffers, such as the running statistics of batch normalization, are copied as they are, not averaged. What a module
    changes in training beside parameters and buffers stays as it was when this was made.

    Args:
        network: Whose weights are averaged, on the device on which it is trained.
        decay: What the average keeps of itself at each step, above 0 and below 1.

    Raises:
        TightlipError: for a network that cannot be copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        try:
            self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))
        except Exception as problem:
            raise TightlipError(
                f"an average needs a copy of the network, which cannot be made ({str(problem).splitlines()[0]}): leave "
                "average out, or let the network be copied by copy.deepcopy"
            ) from problem

    def after_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; whoever asks for the next one, or finds none, has taken the step of the last."""
        for batch in batches:
            yield batch
            self.averaged.update_parameters(self.network)

    def member(self) -> nn.Module:
        """A copy of the network that has the averaged weights, on their sets."""
        member: nn.Module = copy.deepcopy(self.averaged.module)
        put_back(member)
        return member

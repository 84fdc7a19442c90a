"""Aggregated momentum: velocities with several dampings, and a step along their mean.

    v_b ← b·v_b + g  for each b of betas,      w ← w − lr/|betas| · Σ_b v_b

Large b carry a step through flat directions, small ones damp the swings that a large b alone would make. The paper's
∞-norm networks were trained with it, b ∈ {0, 0.9, 0.99} (from its original code). Source: Lucas et al. 2019.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .arguments import flag, number
from .errors import TightlipError


class AggMo(Optimizer):
    """Gradient descent with aggregated momentum; works under `hold` and in `fit` as torch's own optimizers do.

    With one beta it is torch's SGD with that momentum. Each velocity is a tensor of its own in the state, "velocity_0"
    and on, as large as the weight; dense gradients only.

    Args:
        params: Parameters, or groups of them, as of any optimizer of torch; a group may have options of its own.
        lr: Learning rate, ≥ 0.
        betas: Dampings, each in [0, 1); at least one.
        weight_decay: λ ≥ 0, of the penalty λ/2·‖w‖² that is added to the loss.
        maximize: Climb instead.

    Raises:
        TightlipError: for other options; at a step, for sparse gradients.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = AggMo([weight], lr=0.3)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.data
    tensor([0.4000])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        betas: Sequence[float] = (0.0, 0.9, 0.99),
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; those that are left out are the optimizer's.

        Raises:
            TightlipError: for options as the class says.
        """
        options = self.defaults | param_group
        super().add_param_group(param_group | _checked(options))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of any optimizer.

        Raises:
            TightlipError: for the state of another optimizer, before anything is taken over.
        """
        if not all(self.defaults.keys() <= group.keys() for group in state_dict.get("param_groups", [])):
            raise TightlipError("this is the state of another optimizer: load it into the one that it was saved from")
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; with a closure, which computes the loss and its gradients anew, its loss is returned.

        Raises:
            TightlipError: for sparse gradients, before anything is moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moved = [(group, w) for group in self.param_groups for w in group["params"] if w.grad is not None]
        if any(weight.grad.is_sparse for _, weight in moved):
            raise TightlipError("AggMo needs dense gradients, and one is sparse: make its embedding with sparse=False")
        for group, weight in moved:
            self._move(weight, group)
        return loss

    def _move(self, weight: Tensor, group: Mapping[str, Any]) -> None:
        gradient, state, betas = _gradient(weight, group), self.state[weight], group["betas"]
        for place, beta in enumerate(betas):
            name = f"velocity_{place}"
            if name not in state:
                state[name] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            velocity = state[name].mul_(beta).add_(gradient)
            weight.add_(velocity, alpha=-float(group["lr"]) / len(betas))


def _gradient(weight: Tensor, group: Mapping[str, Any]) -> Tensor:
    """Of what is to be made small."""
    gradient: Tensor = -weight.grad if group["maximize"] else weight.grad  # type: ignore[assignment, operator]
    return gradient.add(weight, alpha=group["weight_decay"]) if group["weight_decay"] else gradient


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    betas = options["betas"]
    if not isinstance(betas, tuple | list) or not betas:
        raise TightlipError(f"betas must be numbers in [0, 1), one at least, e.g. (0, 0.9, 0.99), got {betas!r}")
    dampings = tuple(number("each of betas", beta, least=0) for beta in betas)
    if max(dampings) >= 1:
        raise TightlipError(f"betas must be below 1, or velocities would never fade, got {betas!r}")
    return {
        "lr": number("lr", options["lr"], least=0),
        "betas": dampings,
        "weight_decay": number("weight_decay", options["weight_decay"], least=0),
        "maximize": flag("maximize", options["maximize"]),
    }

"""Attacks of other libraries, where these are installed: a second opinion on what resists ours.

    torchattacks   AutoAttack: APGD on cross-entropy, APGD and FAB at each other class, Square on images; p = 2 and ∞
    foolbox        PGD and DeepFool, DDN for p = 2, sparse descent for p = 1; p = 1, 2 and ∞

AutoAttack is put together here, because torchattacks gives its own 10 steps where the publication gives 100.
Nothing is taken on trust: each point that a library returns is drawn back into the ball and the box, and is a success
only if the network answers wrongly there. Source: Croce & Hein 2020, "Reliable evaluation of adversarial robustness
with an ensemble of diverse parameter-free attacks".
"""

import copy
import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...arguments import integer, number
from ...choices import chosen
from ...errors import TightlipError, install
from ...norms import norm_name
from .margins import cw_loss
from .problem import Problem, posed

Suite = dict[str, Callable[[Tensor, Tensor], Tensor]]
"""Attacks by name: (images in [0, 1], classes) → images."""

STEPS, QUERIES, TARGETS = 100, 5000, 9
"""Of AutoAttack, as published: gradient steps, queries of Square, and how many other classes are aimed at."""


def attack_suite(
    network: nn.Module,
    x: Any,
    y: Any,
    eps: float,
    p: float = 2,
    library: str = "torchattacks",
    clamp: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    progress: bool = True,
) -> Tensor:
    """The strongest points that the attacks of another library find within ‖x' − x‖_p ≤ eps, each after the other.

    An attack sees only the inputs that stand after those before it. The network is asked as a copy in eval mode, in its
    own arithmetic; the libraries compute in float32. The random state of torch is left as it was.

    Args:
        network: Any classifier, (batch, classes) logits; a module, such as `freeze` returns.
        x: Inputs (batch, …), floating-point numbers; a tensor, or an array of numpy.
        y: The classes to be left, (batch,), integers in [0, classes).
        eps: Radius, one for all, in units of x.
        p: 2 or ``math.inf``; for foolbox 1 as well.
        library: "torchattacks", which is AutoAttack, or "foolbox", which is faster, and weak for p = 1.
        clamp: The box of valid inputs; there must be one.
        seed: Of the random numbers.
        progress: Show a progress bar on a terminal.

    Returns:
        Points of the shape of x; an input that resists comes back as the point of largest margin.

    Raises:
        TightlipError: if the library is not installed, with the command that installs it; for a norm that it does not
            know, an infinite box, and all that `pgd` refuses.
    """
    maker = chosen("library of attacks", library, MAKERS)
    eps, seed = number("eps", eps, least=0.0), integer("seed", seed, least=0)
    problem = posed(_frozen(network), x, y, eps, p, _box(clamp))
    best, (margin, _), boxed = problem.x.clone(), problem.evaluated(problem.x, cw_loss), _Boxed(problem).eval()
    suite = maker(imported(library), boxed, problem, eps / boxed.width, seed)
    for attack in tqdm(suite.values(), desc=library, unit="attack", leave=False, disable=None if progress else True):
        standing = (margin <= 0).nonzero()[:, 0]
        if len(standing) == 0 or eps == 0:
            break
        point, found = _tried(attack, problem.among(standing), boxed, seed)
        better = found > margin[standing]
        best[standing[better]], margin[standing[better]] = point[better], found[better]
    return best


def imported(library: str) -> Any:
    """The module of a library.

    Raises:
        TightlipError: if it cannot be imported, with the command that installs it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the library imports
            return importlib.import_module(library)
    except ImportError as problem:
        raise TightlipError(
            f"{library} cannot be imported ({problem}): install it with {COMMANDS[library]}"
        ) from problem


class _Boxed(nn.Module):
    """The network as libraries want it: of images (batch, channels, height, width) in [0, 1], in float32."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.network, self.shape, self.dtype = problem.network, problem.x.shape[1:], problem.x.dtype
        self.low, high = problem.clamp or (0.0, 1.0)
        self.width = high - self.low

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.back(images)).float()

    def images(self, x: Tensor) -> Tensor:
        """Inputs as images; what is none lies in a row of pixels."""
        shape = self.shape if len(self.shape) == 3 else (1, 1, math.prod(self.shape))
        return ((x - self.low) / self.width).float().clamp(0.0, 1.0).reshape(-1, *shape)

    def back(self, images: Tensor) -> Tensor:
        """Images as inputs."""
        return self.low + self.width * images.to(self.dtype).reshape(-1, *self.shape)


def _frozen(network: nn.Module) -> nn.Module:
    if not isinstance(network, nn.Module):
        raise TightlipError(f"network must be an nn.Module, such as freeze returns, got a {type(network).__name__}")
    return copy.deepcopy(network).eval().requires_grad_(False)


def _box(clamp: Any) -> tuple[float, float]:
    finite = isinstance(clamp, tuple | list) and len(clamp) == 2 and math.isfinite(clamp[1] - clamp[0])
    if not finite or not clamp[0] < clamp[1]:
        raise TightlipError(f"these libraries need a box: give clamp=(lowest, highest) of valid inputs, got {clamp!r}")
    return float(clamp[0]), float(clamp[1])


def _tried(
    attack: Callable[[Tensor, Tensor], Tensor], problem: Problem, boxed: _Boxed, seed: int
) -> tuple[Tensor, Tensor]:
    """What an attack finds, in the ball and in the box, and the margin there."""
    with torch.random.fork_rng([problem.x.device] if problem.x.is_cuda else []), torch.enable_grad():
        torch.manual_seed(seed)
        found = attack(boxed.images(problem.x), problem.goal).detach()
    point = problem.moved(boxed.back(torch.nan_to_num(found, 0.0).clamp(0.0, 1.0)) - problem.x)
    return point, problem.evaluated(point, cw_loss)[0]


def _norm(library: str, p: float, names: dict[float, str]) -> str:
    if p not in names:
        known = " and ".join(map(norm_name, names))
        raise TightlipError(f"{library} attacks here for p = {known}, got p = {norm_name(p)}: try the other library")
    return names[p]


def _torchattacks(library: Any, boxed: _Boxed, problem: Problem, eps: float, seed: int) -> Suite:
    norm = _norm("torchattacks", problem.p, {2.0: "L2", math.inf: "Linf"})
    classes = boxed(boxed.images(problem.x[:1])).shape[1] if len(problem.x) else 0
    some = {"norm": norm, "eps": eps, "seed": seed}
    aimed = {"n_classes": min(classes, TARGETS + 1), "steps": STEPS}
    suite: Suite = {"APGD-CE": library.APGD(boxed, steps=STEPS, loss="ce", **some)}
    if classes > 3:  # its loss divides by a difference with the fourth largest logit
        suite["APGD-T"] = library.APGDT(boxed, **some, **aimed)
    suite["FAB-T"] = library.FAB(boxed, multi_targeted=True, **some, **aimed)
    if min(boxed.images(problem.x).shape[2:]) > 4:  # its squares have sides from a fifth of the image
        suite["Square"] = library.Square(boxed, n_queries=QUERIES, **some)
    return suite


def _foolbox(library: Any, boxed: _Boxed, problem: Problem, eps: float, seed: int) -> Suite:
    names = {1.0: "L1", 2.0: "L2", math.inf: "Linf"}
    norm = _norm("foolbox", problem.p, names)
    attacks, model = library.attacks, library.PyTorchModel(boxed, bounds=(0, 1), device=problem.x.device)
    made = {"PGD": getattr(attacks, f"{norm}ProjectedGradientDescentAttack")(steps=STEPS).repeat(3)}
    if norm == "L1":
        made["sparse descent"] = attacks.SparseL1DescentAttack(steps=STEPS, random_start=True).repeat(3)
    else:
        made["DeepFool"] = getattr(attacks, f"{norm}DeepFoolAttack")(candidates=None)
    if norm == "L2":
        made["DDN"] = attacks.DDNAttack(steps=STEPS)

    def run(attack: Any) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda images, y: attack(model, images, y, epsilons=eps)[1]

    return {name: run(attack) for name, attack in made.items()}


MAKERS: dict[str, Callable[[Any, _Boxed, Problem, float, int], Suite]] = {
    "torchattacks": _torchattacks,
    "foolbox": _foolbox,
}
"""Each library with its suite."""

COMMANDS = {
    "torchattacks": "pip install scipy, and pip install --no-deps torchattacks (its torchvision is not needed)",
    "foolbox": install("attacks"),
}

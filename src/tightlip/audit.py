"""The audit: a proven Lipschitz constant, from the numbers that are really stored.

`lipschitz(module, p, q)` multiplies what each layer can prove. A rule, one per *exact* module type and written beside
the class it describes, returns `Gains`: every provable bound ‖f(x) − f(x')‖_q ≤ c·‖x − x'‖_p for p ≤ q in {1, 2, ∞}.
Composition keeps, for every pair, the best product over the norm in between,

    c(p→q) = min_r c_inner(p→r) · c_outer(r→q),

so that a 2→∞ first layer followed by ∞→∞ layers (paper, Theorem 3) is audited as what it is. Constants are float64
upper bounds, multiplied as exact rationals and rounded up once. What no rule can prove raises; a flag, a class name
or an iteration count proves nothing.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

from .errors import TightlipError
from .linalg.rounding import UNIT_ROUNDOFF, gamma, refuse_inexact, round_up
from .linalg.spectral import frobenius_norm_bound, operator_norm_bounds
from .norms import NORMS, PAIRS, as_norm, norm_name
from .options import FLAG, SIZE, Kind
from .stored import stored_numbers

ARITHMETIC = "exact arithmetic on the stored weights; every constant is a float64 upper bound"


class Roundoff(NamedTuple):
    """How far float64 evaluation of a layer can stray: ‖error‖₂ ≤ input·‖x‖₂ + output·‖f(x)‖₂ + entry·√n.

    n is the number of outputs for one input: ``entry`` is what each of them can be off, whatever its size.
    """

    input: float = 0.0
    output: float = 0.0
    entry: float = 0.0


EXACT = Roundoff()
"""Comparisons, permutations and reshapes: no rounding at all."""

FEW_ULPS = Roundoff(output=16.0 * UNIT_ROUNDOFF)
"""An elementwise function from a good mathematical library."""

UNKNOWN = Roundoff(math.inf, math.inf, math.inf)
"""Not stated; `certify` refuses such a layer, `lipschitz` does not need to know."""


@dataclass(frozen=True)
class Gains:
    """Proven Lipschitz constants of one map: ``table[p, q]`` bounds p→q for p ≤ q; a missing pair is not proven.

    ‖x‖_∞ ≤ ‖x‖₂ ≤ ‖x‖₁ carries each entry to every smaller p and larger q.
    """

    table: Mapping[tuple[float, float], Fraction | float]
    roundoff: Roundoff = UNKNOWN

    def __post_init__(self) -> None:
        if not all(0 <= c < math.inf for c in self.table.values()):
            given = list(self.table.values())
            raise TightlipError(f"Lipschitz constants must be ≥ 0, got {given}: give finite numbers")
        exact = {pair: Fraction(c) for pair, c in self.table.items()}  # products of floats would round
        closed = {
            (p, q): min(known) for p, q in PAIRS if (known := [c for (r, s), c in exact.items() if p <= r and s <= q])
        }
        object.__setattr__(self, "table", closed)

    @classmethod
    def constant(cls, value: float, roundoff: Roundoff = UNKNOWN) -> "Gains":
        """The same constant in every norm, as an elementwise map or a permutation has it."""
        return cls(dict.fromkeys(PAIRS, value), roundoff)

    def then(self, outer: "Gains") -> "Gains":
        """The gains of ``outer`` after this map."""
        table = {}
        for p, q in PAIRS:
            paths = [
                self.table[p, r] * outer.table[r, q] for r in NORMS if (p, r) in self.table and (r, q) in outer.table
            ]
            if paths:
                table[p, q] = min(paths)
        return Gains(table)


@dataclass(frozen=True)
class Bound:
    """A proven constant: ‖f(x) − f(x')‖_output ≤ constant · ‖x − x'‖_input for all x, x'.

    ``layers`` holds one (name, module text, bound in the best matching norms) row per layer, in order.
    """

    constant: float
    input_norm: float
    output_norm: float
    arithmetic: str = ARITHMETIC
    layers: tuple[tuple[str, str, "Bound"], ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        return f"Bound({norm_name(self.input_norm)}→{norm_name(self.output_norm)}, constant={self.constant!r})"

    @property
    def sensitivity(self) -> float:
        """How fast a difference of two outputs can change: 2^(1 − 1/q)·constant, rounded up (q the output norm)."""
        return round_up(Fraction(self.constant) * _PAIR_FACTOR[self.output_norm])


_PAIR_FACTOR = {1.0: Fraction(1), 2.0: Fraction(math.nextafter(math.sqrt(2.0), 2.0)), math.inf: Fraction(2)}

Audited = tuple[str, nn.Module, Gains]
"""A layer with its name and its gains."""

_Rule = Callable[..., Gains]


class Registration(NamedTuple):
    """What is known of a module type: its rule, the forward that it speaks of, and how files describe and make it."""

    rule: _Rule
    forward: Callable[..., Any]
    options: Mapping[str, Kind] | None
    build: Callable[..., nn.Module]


_RULES: dict[type[nn.Module], Registration] = {}
TRUSTED_PARAMETRIZATIONS: set[type] = set()
TRUSTED_HOOKS: set[Callable[..., Any]] = set()


def rule(
    *types: type[nn.Module],
    options: Mapping[str, Kind] | None = None,
    build: Callable[..., nn.Module] | None = None,
) -> Callable[[_Rule], _Rule]:
    """Register the function below as the Lipschitz rule of exactly these module types (never of their subclasses).

    The rule takes the module and returns its `Gains`. It states a theorem: whoever writes it vouches for it. If
    it has a parameter ``name``, it is told the module's place, to audit what is inside as ``within(name, "inner")``.

    Args:
        types: Module classes, each with a forward of its own or an inherited one.
        options: The arguments that a file keeps, each an attribute of the module, with their kinds
            (`tightlip.options`); None: the types cannot be saved.
        build: Makes the module again from these arguments, on torch's meta device: parameters and buffers have shapes
            only, and get their values from the file. Default: the type itself.

    >>> class Halve(nn.Module):
    ...     def forward(self, x): return x / 2
    >>> @rule(Halve)
    ... def _(module): return Gains.constant(0.5)
    >>> lipschitz(Halve(), 2).constant
    0.5
    """

    def register(function: _Rule) -> _Rule:
        if not function.__module__.startswith(f"{__package__}."):
            registered()  # so that a rule of a caller's takes the place of ours, and not the other way round
        for cls in types:
            _RULES[cls] = Registration(function, cls.forward, options, build or cls)
        return function

    return register


def registered() -> Mapping[type[nn.Module], Registration]:
    """Every module type with a rule, whichever part of the package was imported first."""
    import_module(f"{__package__}.public")  # by its name: the files above register their rules here
    return _RULES


def lipschitz(module: nn.Module, p: float, q: float | None = None) -> Bound:
    """A proven Lipschitz constant of ``module`` from the p-norm to the q-norm of flattened inputs and outputs.

    Args:
        module: A network of modules with rules; training mode, caches and flags are ignored.
        p: Norm of the input: 1, 2 or ``math.inf``.
        q: Norm of the output; None picks the one with the smallest margin sensitivity 2^(1−1/q)·K.

    Raises:
        TightlipError: if a module has no rule, has been altered (subclass, replaced forward, foreign hook or
            parametrization), holds NaN, or if no rule proves this pair of norms.

    >>> lipschitz(nn.Sequential(nn.ReLU(), nn.Flatten()), 2).constant
    1.0
    """
    return bound_of(audit_layers(module), p, q)


def audit_layers(module: nn.Module, name: str = "") -> list[Audited]:
    """The layers of a network in order, each with its name and what is proven of it."""
    return [(place, leaf, gains(leaf, place)) for place, leaf in chain(module, name)]


def composed(rows: Sequence[Audited]) -> Gains:
    """The gains of layers one after another."""
    total = Gains.constant(1.0)
    for _, _, layer in rows:
        total = total.then(layer)
    return total


def bound_of(rows: Sequence[Audited], p: float, q: float | None = None) -> Bound:
    """What `lipschitz` says of a network with these layers."""
    p, total = as_norm(p), composed(rows)
    choices = [_bound(total, p, s) for s in ([as_norm(q)] if q is not None else NORMS) if (p, s) in total.table]
    if not choices:
        asked = f"{norm_name(p)}→{norm_name(q)}" if q is not None else f"any norm from {norm_name(p)}"
        raise TightlipError(f"no rule proves a bound for {asked} on this network: ask for another pair with p ≤ q")
    best = min(choices, key=lambda bound: bound.sensitivity)
    layers = tuple((name, _describe(leaf), _best(layer, p, best.output_norm)) for name, leaf, layer in rows)
    return Bound(best.constant, p, best.output_norm, layers=layers)


def gains(module: nn.Module, name: str = "") -> Gains:
    """Every proven constant of one module that has a rule (or of a Sequential of such)."""
    refuse_altered(module, name)
    if type(module) is nn.Sequential:
        total = Gains.constant(1.0)
        for inner_name, leaf in chain(module, name):
            total = total.then(gains(leaf, inner_name))
        return total
    function = _RULES[_original_type(module)].rule
    return function(module, name=name) if "name" in inspect.signature(function).parameters else function(module)


def within(name: str, key: str) -> str:
    """The place of a module called ``key`` inside the one at ``name``."""
    return f"{name}.{key}" if name else key


def chain(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of a network in order, with their names: nested Sequentials opened, everything else a leaf."""
    refuse_altered(module, name)
    if type(module) is not nn.Sequential:
        yield name, module
        return
    for key, child in module._modules.items():  # named_children would skip a layer that is used twice
        yield from chain(child, within(name, key))  # type: ignore[arg-type]


def refuse_altered(module: nn.Module, name: str = "") -> None:
    """Raise unless the module is exactly what its rule describes."""
    cls, rules = _original_type(module), registered()
    where = f"{cls.__name__} at {name!r}" if name else cls.__name__
    if cls is not nn.Sequential and cls not in rules:
        raise TightlipError(f"no Lipschitz rule is known for {_unknown(module, cls, name)}")
    if module._compiled_call_impl is not None:
        raise TightlipError(
            f"{where} was compiled in place, so other code than its own runs: restore a copy from before .compile()"
        )
    known = _SEQUENTIAL if cls is nn.Sequential else rules[cls].forward
    if {"forward", "_call_impl"} & vars(module).keys() or type(module).forward is not known:
        raise TightlipError(f"the forward of {where} has been replaced, so its rule proves nothing: restore it")
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and type(tensor) not in (torch.Tensor, nn.Parameter):
            kind = type(tensor).__name__
            raise TightlipError(f"{where} holds a {kind}, which can compute anything: convert it to a plain tensor")
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    hooks += [*torch_module._global_forward_hooks.values(), *torch_module._global_forward_pre_hooks.values()]
    if any(hook not in TRUSTED_HOOKS for hook in hooks):
        raise TightlipError(f"{where} runs a forward hook that could change its output: remove the hook first")


def _unknown(module: nn.Module, cls: type, name: str) -> str:
    """The full type of a module without a rule, and what to do: one word like Linear may stand for several classes."""
    full = f"{cls.__module__}.{cls.__qualname__}"
    where = f"{cls.__name__} at {name!r} ({full})" if name else f"{cls.__name__} ({full})"
    namesakes = [f"{known.__module__}.{known.__qualname__}" for known in _RULES if known.__name__ == cls.__name__]
    inner = next((key for key in ("_orig_mod", "module") if isinstance(getattr(module, key, None), nn.Module)), None)
    if "quantized" in full.split("."):
        return f"{where}, a quantized layer: audit and certify the network that it was made from"
    if inner is not None:
        return f"{where}, a wrapper of another module: give its {inner}, the module itself, instead"
    if isinstance(module, torch.jit.ScriptModule):
        return f"{where}, a scripted module: give the module that it was made from"
    if namesakes:
        return f"{where}, which is not {namesakes[0]}: use that one, or register one with @tightlip.rule"
    return (
        f"{where}: build the network from nn.Sequential and modules with rules, "
        "or register one with @tightlip.rule(YourModule)"
    )


def _original_type(module: nn.Module) -> type[nn.Module]:
    """The module's own class, seen through torch's parametrization wrapper when the map is one of ours."""
    if not parametrize.is_parametrized(module):
        return type(module)
    maps = [m for maps in module.parametrizations.values() for m in maps]  # type: ignore[union-attr, operator]
    foreign = [type(m).__name__ for m in maps if type(m) not in TRUSTED_PARAMETRIZATIONS]
    if foreign:
        raise TightlipError(
            f"the parametrization {foreign[0]} can give other weights at each call: "
            "make it permanent with torch.nn.utils.parametrize.remove_parametrizations before the audit"
        )
    return type(module).__bases__[0]  # torch derives its wrapper from the module's own class


def _bound(total: Gains, p: float, q: float) -> Bound:
    return Bound(_representable(round_up(Fraction(total.table[p, q]))), p, q)


def _representable(value: float) -> float:
    if math.isinf(value):
        raise TightlipError("a Lipschitz constant exceeds the largest float64: scale the weights down")
    return value


def _best(layer: Gains, p: float, q: float) -> Bound:
    """The row of a layer in the table of a p→q network: its own pair, or the nearest that it can prove."""
    for pair in ((p, p), (p, q), (q, q), *PAIRS):
        if pair in layer.table:
            return _bound(layer, *pair)
    raise TightlipError("a rule returned no bound at all: return at least one entry in Gains")


def _describe(module: nn.Module) -> str:
    return repr(module).splitlines()[0].rstrip("(")


_SEQUENTIAL = nn.Sequential.forward


@rule(nn.Linear, options={"in_features": SIZE, "out_features": SIZE, "bias": FLAG})
def _linear(module: nn.Linear) -> Gains:
    weight = module.weight
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise TightlipError("the weight of a Linear is one matrix: restore a tensor of two axes")
    refuse_inexact(weight, "weight of Linear")
    if module.bias is not None:
        stored_numbers(module, "bias", weight.shape[:1])  # another shape would be broadcast, and repeat the output
    table = {pair: _representable(bound) for pair, bound in operator_norm_bounds(weight).items()}
    # |error| ≤ γ(|W||x| + |b|) in any order of summation, and |b| ≤ |Wx + b| + |W||x|
    unit = 1.01 * gamma(weight.shape[1] + 2)
    return Gains(table, Roundoff(2.0 * unit * frobenius_norm_bound(weight), unit))

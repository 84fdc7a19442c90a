"""`tightlip-check` against exact rationals: does it pass a radius beyond an input of another class?"""

from fractions import Fraction

import tightlip_check
from checked import ACCEPTED, REJECTED, Files, outcome, written
from red_team.exact import run, squared_norm
from red_team.networks import Draw, linear
from red_team.tally import Tally
from torch import nn

from tightlip import Abs, FullSort, GroupSort, MaxMin, Residual, Scale
from tightlip.norms import NORMS, norm_name


def checkers(seed: int, tally: Tally) -> None:
    """What the library certifies of ordinary networks passes; what an input or a pair of them contradicts does not."""
    draw = Draw(seed)
    network, inputs = _network(draw)
    p, x = draw.choice(NORMS), draw.normal(6, inputs)
    values = [run(network, [Fraction(a) for a in row]) for row in x.tolist()]
    y = [max(range(len(value)), key=value.__getitem__) for value in values]
    held = tally.asked(lambda: written(network, x, x.new_tensor(y).long(), p))
    if held is None:
        return
    code = outcome(tightlip_check, held)
    tally.expect("accepted", code == ACCEPTED, network, p, code)
    for i in range(6):
        for j in range(i):
            step = squared_norm([Fraction(a) - Fraction(b) for a, b in zip(*x[[i, j]].tolist(), strict=True)], p)
            rise = max(abs(a - b) for a, b in zip(values[i], values[j], strict=True))
            if step and y[i] != y[j]:
                _refused(tally, "radius", held.radius(i, _above(step)), network, p, i, j)
            if rise:  # the ∞-norm of the outputs, so of less than any other
                steep = 1 / _above(step / rise**2)
                _refused(tally, "constant", held.stating(constant=steep, output_norm=norm_name(NORMS[2])), network, p)


def _refused(tally: Tally, kind: str, forged: Files, *told: object) -> None:
    tally.expect(kind, outcome(tightlip_check, forged) == REJECTED, *told)


def _above(square: Fraction) -> float:
    """A little more than the root."""
    return float(square) ** 0.5 * (1 + 1e-9)


def _network(draw: Draw) -> tuple[nn.Sequential, int]:
    width = inputs = draw.randint(1, 6)
    layers: list[nn.Module] = []
    for _ in range(draw.randint(1, 3)):
        after = 2 * draw.randint(1, 4)
        layers.append(linear(draw, width, after, tame=True))
        layers.append(draw.choice((nn.ReLU(), Abs(), FullSort(), MaxMin(), GroupSort(2, contiguous=False))))
        width = after
        if draw.random() < 0.4:
            layers.append(Residual(linear(draw, width, width, tame=True), MaxMin()))
            layers.append(nn.ReLU())
    layers += [linear(draw, width, draw.randint(2, 4), tame=True), Scale(draw.choice((1.0, 0.5, 8.0)))]
    return nn.Sequential(*layers).double(), inputs

"""Steps are timed by a clock that the tests wind themselves, so every number is known; seconds are never asserted."""

import itertools
import math
import time

import pytest
import torch
from torch import nn

from tightlip import Orthonormal, TightlipError, constrain, hold
from tightlip.stopwatch import interleaved, stopwatch
from tightlip.timing import (
    BLOCKS,
    EACH,
    SLOW,
    UNCONSTRAINED,
    WARM_UP,
    Comparison,
    Scheme,
    benchmark,
    costed,
    schemes,
)

WIDTHS = [16, 32, 32, 4]
TALL, SQUARE, FAR = (32, 16), (32, 32), (4, 32)
HELD = ["Orthonormal()", *(f"Orthonormal(blocks={q})" for q in (1, 4, 8, 16, 32))]


class Clock:
    """Time passes only when a step says so."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def step(self, name, seconds):
        durations = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def run():
            self.calls.append(name)
            self.now += next(durations)

        return run


class Scripted:
    """Every two readings are a step apart, whose seconds ``script`` gives in order."""

    def __init__(self, script):
        self.script, self.now, self.reading = iter(script), 0.0, 0

    def __call__(self):
        self.reading += 1
        if self.reading % 2 == 0:
            self.now += next(self.script)
        return self.now


def script(comparisons, rounds):
    """Steps in the order of a benchmark; the machine gets slower from round to round, all schemes alike."""
    return [costs[name] * (1 + number) for costs in comparisons for number in range(WARM_UP + rounds) for name in costs]


def test_steps_take_turns_and_warm_up_rounds_are_not_told():
    clock = Clock()
    steps = {"a": clock.step("a", [9, 9, 1, 2]), "b": clock.step("b", [9, 9, 3, 5])}
    assert list(interleaved(steps, rounds=2, warm_up=2, clock=clock)) == [{"a": 1, "b": 3}, {"a": 2, "b": 5}]
    assert clock.calls == ["a", "b"] * 4


def test_a_slow_step_runs_in_every_third_round_and_in_the_first_that_counts():
    clock = Clock()
    steps = {"a": clock.step("a", [1]), "slow": clock.step("slow", [5]), "level": clock.step("level", [4])}
    found = list(interleaved(steps, rounds=7, warm_up=4, slow=4, clock=clock))
    assert ["slow" in row for row in found] == [True, False, False, True, False, False, True]
    assert all("level" in row and "a" in row for row in found)
    assert clock.calls.count("slow") == 3 + 3


@pytest.mark.parametrize("seconds", [[9, 9, 1], [9, 1, 9, 1]])
def test_one_slow_round_of_two_makes_no_slow_step(seconds):
    clock = Clock()
    steps = {"a": clock.step("a", [1]), "b": clock.step("b", seconds)}
    assert all("b" in row for row in interleaved(steps, rounds=5, warm_up=3, slow=4, clock=clock))


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_slow_step_is_timed_however_few_the_rounds(rounds):
    clock = Clock()
    steps = {"a": clock.step("a", [1]), "slow": clock.step("slow", [50])}
    found = list(interleaved(steps, rounds, warm_up=3, slow=4, clock=clock))
    assert found[0] == {"a": 1, "slow": 50} and len(found) == rounds


def test_ratios_are_taken_within_a_round_and_seconds_are_medians():
    times = [{UNCONSTRAINED: u, "scheme": u * r} for u, r in [(1, 5), (10, 1), (2, 3), (20, 2), (4, 4)]]
    found = costed(Scheme((Orthonormal(),), (1,)), "scheme", times)
    assert (found.ratio, found.quartiles, found.rounds) == (3, (2, 4), 5)
    assert found.seconds == 10  # of 5, 10, 6, 40, 16
    reference = costed(Scheme((), ()), UNCONSTRAINED, times)
    assert (reference.ratio, reference.quartiles, reference.seconds) == (1, (1, 1), 4)


def test_a_way_is_compared_in_the_rounds_that_it_ran_in():
    times = [
        {UNCONSTRAINED: 1, "scheme": 8},
        {UNCONSTRAINED: 1},
        {UNCONSTRAINED: 100},
        {UNCONSTRAINED: 2, "scheme": 12},
    ]
    found = costed(Scheme((), ()), "scheme", times)
    assert (found.ratio, found.quartiles, found.rounds) == (7, (6.5, 7.5), 2)
    assert costed(Scheme((), ()), "scheme", times[:1]).quartiles == (8, 8)


def scheme(ratio, low, high, seconds=1.0):
    return Scheme((Orthonormal(),), (1,), seconds, ratio, (low, high), 9, 0.0)


def test_the_fastest_is_the_constrained_way_with_the_least_ratio():
    found = {
        UNCONSTRAINED: scheme(1, 1, 1),
        "a": scheme(3, 2.9, 3.2),
        "b": scheme(2, 1.9, 2.1, 99.0),
        "c": scheme(2.2, 2.1, 2.3),
    }
    comparison = Comparison(found)
    assert comparison.fastest == "b"  # although its seconds are the most
    assert comparison.level == ["c"]


def test_every_arrangement_is_tried_once():
    assert list(schemes([TALL, SQUARE, FAR])) == HELD
    assert [w.blocks for w in schemes([TALL, SQUARE, FAR]).values()] == [(q, q, 0) for q in (0, 1, 4, 8, 16, 32)]
    assert list(schemes([FAR])) == ["Orthonormal()"]
    assert list(schemes([(9, 9)])) == HELD[:2]  # no number of blocks divides 9
    assert [w.blocks for w in schemes([(512, 512)]).values()] == [(16,), (0,), (1,), (4,), (8,), (32,)]


def test_two_blocks_are_the_whole_and_need_no_turn_of_their_own():
    torch.manual_seed(0)
    start, x, weights = torch.randn(8, 8), torch.randn(5, 8), []
    for blocks in (1, 2):
        layer = nn.Linear(8, 8, bias=False)
        layer.weight.data.copy_(start)
        constrain(layer, Orthonormal(blocks=blocks))
        optimizer = hold(layer, torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], 1e-2))
        for _ in range(4):
            optimizer.zero_grad()
            (layer(x) - 1).square().sum().backward()
            optimizer.step()
        weights.append(layer.weight.detach())
    assert 2 not in BLOCKS and torch.allclose(*weights, atol=1e-5)
    assert not torch.allclose(weights[0], start, atol=1e-2)


COSTS = dict(zip([UNCONSTRAINED, *HELD], (1.0, 2.5, 3.5, 1.75, 2.25, 2.0, 2.75), strict=True))
"""The fastest is blocks=4."""


def test_a_benchmark_names_the_fastest_of_each_layer_and_of_the_network():
    alone = COSTS | {"Orthonormal(blocks=4)": 3.0}  # which leaves blocks=16
    comparisons = [COSTS, alone, {UNCONSTRAINED: 1.0, HELD[0]: 1.5}, {**COSTS, EACH: 1.25}]
    found = benchmark(WIDTHS, 8, 5, clock=Scripted(script(comparisons, 5)))
    assert {shape: comparison.fastest for shape, comparison in found.layers.items()} == {
        TALL: "Orthonormal(blocks=4)",
        SQUARE: "Orthonormal(blocks=16)",
        FAR: "Orthonormal()",
    }
    assert found.network.fastest == EACH
    assert found.network.schemes[EACH].blocks == (4, 16, 0)
    assert [c.blocks for c in found.network.schemes[EACH].constraints] == [4, 16, None]
    ratios = {name: scheme.ratio for name, scheme in found.network.schemes.items()}
    assert ratios == pytest.approx({**COSTS, EACH: 1.25})
    assert found.layers[SQUARE].schemes["Orthonormal(blocks=4)"].ratio == pytest.approx(3.0)


def test_what_suits_every_layer_alone_is_not_timed_twice():
    found = benchmark(WIDTHS, 8, 2, clock=Scripted(script([COSTS, COSTS, {UNCONSTRAINED: 1, HELD[0]: 2}, COSTS], 2)))
    assert list(found.network.schemes) == [UNCONSTRAINED, *HELD]
    assert found.network.fastest == "Orthonormal(blocks=4)" and found.network.level == []


def test_on_a_real_clock_every_way_is_there_and_on_its_set():
    before = torch.get_rng_state()
    found = benchmark(WIDTHS, 8, 4, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(found.network.schemes) - {EACH} == {UNCONSTRAINED, *HELD}
    assert set(found.layers) == {TALL, SQUARE, FAR}
    for comparison in (found.network, *found.layers.values()):
        held = {name: scheme for name, scheme in comparison.schemes.items() if name != UNCONSTRAINED}
        assert comparison.fastest == min(held, key=lambda name: held[name].ratio)
        assert comparison.schemes[UNCONSTRAINED].ratio == 1 and math.isnan(comparison.schemes[UNCONSTRAINED].off)
        for scheme in held.values():
            assert scheme.seconds > 0 and 0 < scheme.quartiles[0] <= scheme.ratio <= scheme.quartiles[1]
            assert scheme.off < 1e-5 and scheme.rounds in (2, 4)


def test_schemes_beyond_the_threshold_are_timed_less_often():
    slow = COSTS | {"Orthonormal(blocks=1)": SLOW + 1}
    comparison = [slow[name] for number in range(WARM_UP) for name in slow]
    for number in range(4):
        comparison += [slow[name] for name in slow if number % 3 == 0 or name != "Orthonormal(blocks=1)"]
    found = benchmark([32, 32], 8, 4, clock=Scripted(comparison * 2))
    for each in (found.network, found.layers[SQUARE]):
        assert each.schemes["Orthonormal(blocks=1)"].rounds == 2 and each.schemes["Orthonormal(blocks=8)"].rounds == 4


@pytest.mark.parametrize(
    ("widths", "batch_size", "rounds", "says"),
    [
        ([5], 8, 3, "at least two integers"),
        ([], 8, 3, "at least two integers"),
        ([4, 0, 2], 8, 3, "at least two integers"),
        ([4, 3, 2], 8, 3, "hidden widths must be even"),
        (WIDTHS, 0, 3, "batch_size must be an integer ≥ 1, got 0"),
        (WIDTHS, 8, 0, "rounds must be an integer ≥ 1, got 0"),
        (WIDTHS, 8, -1, "rounds must be an integer ≥ 1, got -1"),
        (WIDTHS, 10**14, 1, "more memory"),
        (WIDTHS, 10**30, 1, "more memory"),
        ([4, 10**14, 2], 8, 1, "more memory"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_a_sentence(widths, batch_size, rounds, says):
    with pytest.raises(TightlipError, match=says):
        benchmark(widths, batch_size, rounds)


def test_a_processor_needs_no_waiting():
    assert stopwatch("cpu") is time.perf_counter

"""What annotations say is checked in every test, of functions of the library and of the constructors of its records."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import annotations
import beartype
import jaxtyping
import pytest
import torch
from annotations import CALLS, SHAPES, checked
from jaxtyping import Float
from torch import Tensor

from tightlip.linalg.power_distance import power_distance
from tightlip.provenance import machine
from tightlip.records import Metric


def by_type(subject):
    return beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, violation_type=TypeError))(subject)


@pytest.fixture(autouse=True)
def every_call(monkeypatch):
    """Unless a test says otherwise, all calls are checked, however many there are."""
    monkeypatch.setattr(annotations, "ENOUGH", 1000)


@pytest.fixture(params=["ours", "jaxtyping's"])
def check(request):
    """Both decorators say the same."""
    if request.param == "ours":
        return lambda subject: checked(by_type, subject)
    return lambda subject: SHAPES(subject, typechecker=by_type)


def test_the_library_is_checked():
    x = torch.zeros(2, 3)
    assert power_distance(x, torch.ones(4, 3), None).shape == (2, 4)
    for bad in (torch.ones(4, 2), torch.ones(3), torch.ones(4, 3).long()):
        with pytest.raises(TypeError, match="w"):
            power_distance(x, bad, None)
    with pytest.raises(TypeError, match="machine"):
        machine(3)
    with pytest.raises(TypeError, match="words"):
        Metric(3)


def test_arguments_are_checked_and_what_is_returned(check):
    @check
    def half(n: int, *, exact: bool = True) -> int:
        return n // 2 if exact else n / 2

    assert half(4) == 2
    for call in (lambda: half("4"), lambda: half(4, exact=3), lambda: half(4, exact=False)):
        with pytest.raises(TypeError, match="half"):
            call()
    with pytest.raises(TypeError, match="argument"):
        half()


def test_sizes_are_remembered_within_a_call_and_forgotten_after_it(check):
    @check
    def turned(x: Float[Tensor, "rows columns"], whole: bool = True) -> Float[Tensor, "columns rows"]:
        return x.T if whole else x.T[:1]

    @check
    def twice(x: Float[Tensor, "columns rows"]) -> Float[Tensor, "columns rows"]:
        return turned(turned(x))

    for shape in ((2, 3), (5, 4)):
        assert turned(torch.zeros(shape)).shape == shape[::-1] and twice(torch.zeros(shape)).shape == shape
    for call in (lambda: turned(torch.zeros(2)), lambda: turned(torch.zeros(2, 3), False)):
        with pytest.raises(TypeError, match="turned"):
            call()
    assert turned(torch.zeros(2, 3)).shape == (3, 2)  # as well after an error


def test_records_and_generators_are_checked(check):
    @check
    @dataclass(frozen=True)
    class Pair:
        x: Float[Tensor, " n"]
        y: Float[Tensor, " n"]

    assert len(Pair(torch.zeros(2), torch.zeros(2)).y) == 2
    with pytest.raises(TypeError, match="__init__"):
        Pair(torch.zeros(2), torch.zeros(3))

    @check
    def few(n: int) -> Iterator[int]:
        yield from range(n)

    assert list(few(2)) == [0, 1]
    with pytest.raises(TypeError, match="few"):
        list(few("2"))


def first(x: Float[Tensor, " n"], count: "Count") -> Float[Tensor, " n"]:
    return x[: count.number]


EARLY = {"ours": checked(by_type, first), "jaxtyping's": SHAPES(first, typechecker=by_type)}


@dataclass(frozen=True)
class Count:
    number: int


@pytest.mark.parametrize("whose", EARLY)
def test_a_class_that_is_defined_below_hides_nothing(whose):
    assert len(EARLY[whose](torch.zeros(3), Count(3))) == 3
    for arguments in ((torch.zeros(3), 3), (torch.zeros(3), Count(2)), (torch.zeros(3, 3), Count(3))):
        with pytest.raises(TypeError, match="first"):
            EARLY[whose](*arguments)


def test_in_a_loop_the_first_calls_are_checked_and_in_another_test_they_are_again(monkeypatch):
    @partial(checked, by_type)
    def half(n: int) -> float:
        return n / 2

    monkeypatch.setattr(annotations, "ENOUGH", 3)
    for _ in range(2):
        CALLS.clear()
        for _ in range(3):
            with pytest.raises(TypeError, match="half"):
                half("4")
        assert half(4.0) == 2  # which is no int


def test_of_inner_functions_the_first_ones_are_checked(monkeypatch):
    def made(check):
        @check
        def half(n: int) -> float:
            return n / 2

        return half

    monkeypatch.setattr(annotations, "ENOUGH", 2)
    for _ in range(5):
        made(partial(checked, by_type))  # and never called
    for _ in range(2):
        with pytest.raises(TypeError, match="half"):
            made(partial(checked, by_type))("4")
    assert made(partial(checked, by_type))(4.0) == 2


def test_nothing_is_checked_where_a_test_asks_for_that(check):
    @check
    def text(n: int) -> str:
        return str(n)

    @check
    def size(x: Float[Tensor, " n"]) -> int:
        return len(x)

    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        assert text("4") == "4" and size([1, 2]) == 2
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
    with pytest.raises(TypeError, match="text"):
        text("4")

"""How far one feature may move, and a row in standardized units: exact where it is known, never above the truth."""

import math

import pytest
import torch
from torch import nn
from truths import linear

from tightlip import (
    Normalize,
    Orthonormal,
    RowL1Ball,
    Scale,
    TightlipError,
    TopK,
    certify,
    feature_slopes,
    freeze,
    lipschitz,
    mlp,
)
from tightlip.data import Part
from tightlip.robustness import feature_radii

STD = torch.tensor([256.0, 0.125, 2.0])


@pytest.fixture(params=[(2, Orthonormal), (math.inf, RowL1Ball)], ids=["2", "inf"])
def problem(request, seed):
    """A norm, a frozen network of rows with mixed scales, and rows with the classes that it gives them."""
    p, constraint = request.param
    network = freeze(nn.Sequential(Normalize([64.0, 1.0, 0.0], STD.tolist()), mlp([3, 8, 3], constraint(), K=2.0)))
    x = torch.randn(20, 3) * STD + torch.tensor([64.0, 1.0, 0.0])
    return p, network, x, network(x).argmax(1)


def test_of_a_linear_classifier_the_radius_of_a_feature_is_the_distance_to_the_border_along_it():
    network = nn.Sequential(Normalize([1.0, 0.0, 0.0], [0.5, 4.0, 1.0]), linear([[1.0, 2.0, 0.0], [-1.0, -2.0, 0.0]]))
    x = torch.tensor([[2.0, 8.0, 3.0], [0.0, -8.0, 3.0]], dtype=torch.float64)  # z = ±(2, 2), which leads by 12
    along = torch.tensor([[12 * 0.5 / 2, 12 * 4.0 / 4]] * 2, dtype=torch.float64)
    found = feature_radii(network, x)
    assert bool((found[:, :2] <= along).all()) and torch.allclose(found[:, :2], along, rtol=1e-9)
    assert float(found[:, 2].min()) > 1e200  # it plays no part


def test_of_one_logit_it_is_the_distance_to_zero():
    found = feature_radii(
        nn.Sequential(linear([[2.0, -0.5]]), Scale(3.0)), torch.tensor([[1.0, 2.0]]), torch.tensor([1])
    )
    assert torch.allclose(found, torch.tensor([[0.5, 2.0]], dtype=torch.float64))


def test_a_wrong_row_has_no_radius_and_a_part_brings_its_labels(problem):
    _, network, x, y = problem
    wrong = torch.cat([(y[:1] + 1) % 3, y[1:]])
    found = feature_radii(network, Part(x, wrong))
    assert float(found[0].max()) == 0 and torch.equal(found[1:], feature_radii(network, x, y)[1:])


def test_moving_one_feature_within_its_radius_never_changes_the_answer(problem):
    _, network, x, y = problem
    radii = feature_radii(network, x, y)
    wide = network.double()
    for feature in range(3):
        for share in (-0.9999, -0.5, 0.5, 0.9999):
            moved = x.double()
            moved[:, feature] += share * radii[:, feature]
            assert torch.equal(wide(moved).argmax(1), y)


def test_a_feature_may_move_at_least_as_far_as_the_row_in_standardized_units(problem):
    """In the 2-norm no column is shorter than 1 here, so not much farther; rows of L1 norm 1 have short columns."""
    p, network, x, y = problem
    whole = certify(network, x, y, p, standardized=True).radius
    share = feature_radii(network, x, y) / (whole[:, None] * STD.double())
    assert float(share.min()) >= 1 - 1e-9
    assert float(share.max()) < 1 + 1e-6 if p == 2 else float(share.min(0).values.max()) > 1.5


def test_standardized_radii_are_those_of_what_follows_at_the_standardized_row(problem):
    """The std are powers of two, so that z is exact."""
    p, network, x, y = problem
    z = (x.double() - network[0].mean.double()) / network[0].std.double()
    found, rest = certify(network, x, y, p, standardized=True), certify(network[1:], z, y, p)
    assert found.bound == rest.bound and found.bound.constant == lipschitz(network[1:], p).constant
    assert torch.allclose(found.radius, rest.radius, rtol=1e-9, atol=1e-12)
    raw = certify(network, x, y, p)
    assert bool((raw.radius >= found.radius * float(STD.min()) * (1 - 1e-9)).all())
    assert raw.bound.constant > 3 * found.bound.constant  # one feature governs the norm of raw ones


def test_a_change_of_standardized_size_below_the_radius_never_changes_the_answer(problem):
    p, network, x, y = problem
    radius = certify(network, x, y, p, standardized=True).radius
    wide = network.double()
    for _ in range(20):
        step = torch.randn(20, 3, dtype=torch.float64)
        step *= 0.9999 * (radius / torch.linalg.vector_norm(step, p, 1))[:, None]
        assert torch.equal(wide(x + step * STD.double()).argmax(1), y)


def test_what_cannot_be_is_refused():
    rows, plain = torch.zeros(2, 3), freeze(mlp([3, 4, 2]))
    with pytest.raises(TightlipError, match="networks that begin with Normalize"):
        certify(plain, rows, standardized=True)
    with pytest.raises(TightlipError, match=r"features are those of rows.*\[2, 1, 3\]"):
        feature_radii(nn.Sequential(nn.Flatten(), plain), rows[:, None])
    with pytest.raises(TightlipError, match="still held by constraints"):
        feature_radii(mlp([3, 4, 2]), rows)
    with pytest.raises(TightlipError, match="do not fit"):
        feature_radii(plain, torch.zeros(2, 4))


class Skipping(nn.Module):
    """Takes the raw input as well as the standardized one."""

    def __init__(self):
        super().__init__()
        self.normalize = Normalize(0.0, 4.0)

    def forward(self, x):
        return self.normalize(x) + x


def test_an_input_that_does_not_only_go_through_the_standardization_has_no_standardized_radius():
    with pytest.raises(TightlipError, match="does not begin with one layer that all others follow"):
        certify(Skipping().eval(), torch.zeros(2, 3), standardized=True)


def test_slopes_of_a_linear_map_are_its_entries_in_the_units_of_its_features(problem):
    network = nn.Sequential(Normalize([1.0, 0.0, 5.0], [0.5, 4.0, 1.0]), linear([[1.0, -2.0, 0.0]]), Scale(2.0))
    found = feature_slopes(network, 3)
    exact = torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64)
    assert bool((found >= exact).all()) and torch.allclose(found, exact, rtol=1e-9, atol=1e-200)
    p, deep, _, _ = problem
    bound = lipschitz(deep[1:], p).constant
    assert bool((feature_slopes(deep, 3) <= bound / STD.double() * (1 + 1e-9)).all())


@pytest.mark.parametrize("decision", [None, TopK(2)])
def test_standardized_units_suit_every_decision(problem, decision):
    p, network, x, _ = problem
    z = (x.double() - network[0].mean.double()) / network[0].std.double()
    found = certify(network, x, p=p, decision=decision, standardized=True)
    assert found.standardized and torch.allclose(
        found.radius, certify(network[1:], z, p=p, decision=decision).radius, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16/float32"])
def test_what_a_machine_rounds_is_in_units_of_the_input(arithmetic):
    """With one std for all, a standardized radius is the raw one over that std, rounding of the input included."""
    std = 256.0
    network = freeze(nn.Sequential(Normalize([0.0] * 3, [std] * 3), mlp([3, 8, 3])))
    x = torch.randn(30, 3) * std
    raw, found = (certify(network, x, arithmetic=arithmetic, standardized=unit) for unit in (False, True))
    assert torch.allclose(found.radius * std, raw.radius, rtol=1e-9) and float(found.radius.max()) > 0
    assert bool((found.radius < certify(network, x, standardized=True).radius)[found.radius > 0].all())


def test_what_a_machine_rounds_is_taken_off_the_radius_of_a_feature(problem):
    _, network, x, y = problem
    exact, machine = feature_radii(network, x, y), feature_radii(network, x, y, arithmetic="float32")
    assert bool((machine < exact)[exact > 0].all())
    assert bool((machine > 0.98 * exact)[exact > exact.median(0).values].all())


def test_radii_in_two_units_are_not_compared(problem):
    p, network, x, y = problem
    raw, found = (certify(network, x, y, p, standardized=unit) for unit in (False, True))
    assert raw.paired(found).p_value == 1
    with pytest.raises(TightlipError, match="standardized units and raw ones are not comparable"):
        raw.paired(found, 0.1)

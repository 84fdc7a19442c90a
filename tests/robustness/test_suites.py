"""Attacks of other libraries: asked for in a sentence where there are none, never believed, and run where there are."""

import importlib.util
import math
import sys

import pytest
import torch
from torch import nn

from tightlip import TightlipError, attack_suite, certify, freeze, mlp, pgd
from tightlip.robustness.attacks import cw_loss, suites

INF = math.inf


@pytest.fixture
def problem(seed):
    network = freeze(nn.Sequential(nn.Flatten(), mlp([12, 16, 5])))
    x = torch.rand(30, 3, 2, 2)
    return network, x, network(x).argmax(1)


@pytest.fixture
def lying(monkeypatch):
    """A library whose attacks are these functions of images and classes."""

    def with_(*attacks):
        suite = {str(place): attack for place, attack in enumerate(attacks)}
        monkeypatch.setattr(suites, "imported", lambda library: None)
        monkeypatch.setitem(suites.MAKERS, "foolbox", lambda *given: suite)

    return with_


def distance(a, b, p):
    return torch.linalg.vector_norm((a - b).double().flatten(1), p, dim=1)


@pytest.mark.parametrize(
    ("library", "command"),
    [("torchattacks", "pip install --no-deps torchattacks"), ("foolbox", r"pip install -e '\.\[attacks\]'")],
)
def test_a_library_that_is_not_there_is_asked_for_with_the_command(problem, monkeypatch, library, command):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(TightlipError, match=rf"{library} cannot be imported \(.*\): install it with .*{command}"):
        attack_suite(*problem, 0.1, library=library)


@pytest.mark.parametrize("p", [1, 2, INF])
@pytest.mark.parametrize(
    "attack",
    [
        lambda images, y: images + 5.0,
        lambda images, y: -images,
        lambda images, y: torch.full_like(images, math.nan),
        lambda images, y: torch.full_like(images, INF),
        lambda images, y: torch.rand_like(images),
    ],
)
@pytest.mark.parametrize("clamp", [(0.0, 1.0), (-3.0, 1.5)])
def test_points_outside_the_ball_or_the_box_are_drawn_back(problem, lying, p, attack, clamp):
    lying(attack)
    before = torch.random.get_rng_state()
    found = attack_suite(*problem, 0.2, p, "foolbox", clamp)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.isfinite(found).all() and (distance(found, problem[1], p) <= 0.2 * (1 + 1e-5) + 1e-6).all()
    assert clamp[0] <= found.min() and found.max() <= clamp[1]


def test_each_attack_sees_what_stands_and_the_strongest_point_is_kept(problem, lying):
    network, x, y = problem
    seen, end = [], pgd(network, x, y, 0.3, INF, 20, 1)

    def some(images, classes):
        seen.append((images, classes))
        return torch.where(torch.arange(len(images))[:, None, None, None] % 2 == 0, end, images)

    def nothing(images, classes):
        seen.append((images, classes))
        return images

    lying(some, nothing)
    found = attack_suite(network, x, y, 0.3, INF, "foolbox")
    stands = network(torch.where(torch.arange(30)[:, None, None, None] % 2 == 0, end, x)).argmax(1) == y
    assert 0 < stands.sum() < 30
    assert torch.equal(seen[0][0], x) and torch.equal(seen[0][1], y)
    assert torch.equal(seen[1][0], x[stands]) and torch.equal(seen[1][1], y[stands])
    assert torch.equal(network(found).argmax(1) == y, stands)
    assert (cw_loss(network(found), y) >= cw_loss(network(x), y)).all()


def test_images_lie_in_the_unit_box_whatever_the_inputs_are(problem, lying):
    network, _, y = problem
    rows, seen = torch.rand(30, 12).double() * 4 - 2, []
    lying(lambda images, y: seen.append(images) or images)
    network = network[1].double()
    y = network(rows).argmax(1)
    found = attack_suite(network, rows, y, 0.1, 2, "foolbox", (-2.0, 2.0))
    assert seen[0].shape == (30, 1, 1, 12) and seen[0].dtype == torch.float32
    assert torch.allclose(seen[0].double().reshape(30, 12) * 4 - 2, rows, atol=1e-6)
    assert found.dtype == torch.float64 and found.shape == rows.shape


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"library": "advertorch"}, "no library of attacks is called 'advertorch'"),
        ({"eps": -0.1}, "eps must be a finite number ≥ 0"),
        ({"eps": INF}, "eps must be a finite number ≥ 0"),
        ({"clamp": (0.0, INF)}, "give clamp="),
        ({"clamp": (1.0, 0.0)}, "give clamp="),
        ({"clamp": (0.4, 0.6)}, "the attack keeps inputs in clamp="),
        ({"p": 3}, "no norm is called 3"),
        ({"y": torch.zeros(4, dtype=torch.long)}, "y must hold one integer for each of 30 inputs"),
    ],
)
def test_what_a_suite_does_not_take_is_refused_before_the_library_is_looked_for(problem, monkeypatch, change, sentence):
    monkeypatch.setattr(suites, "imported", lambda library: pytest.fail("looked for"))
    network, x, y = problem
    with pytest.raises(TightlipError, match=sentence):
        attack_suite(network, **({"x": x, "y": y, "eps": 0.1, "p": 2, "library": "foolbox"} | change))


def installed(library, *values):
    there = importlib.util.find_spec(library) is not None
    return pytest.param(library, *values, marks=pytest.mark.skipif(not there, reason=f"{library} is not installed"))


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(suites, "STEPS", 30)
    monkeypatch.setattr(suites, "QUERIES", 30)


@pytest.mark.parametrize(
    ("library", "p"),
    [
        *(installed("torchattacks", p) for p in (2, INF)),
        *(installed("foolbox", p) for p in (1, 2, INF)),
    ],
)
def test_a_suite_finds_what_our_attack_finds_and_leaves_certified_inputs_alone(problem, brief, library, p):
    network, x, y = problem
    eps = {1: 0.4, 2: 0.12, INF: 0.05}[p]
    before = torch.random.get_rng_state()
    found = attack_suite(network, x, y, eps, p, library, progress=False)
    assert torch.equal(before, torch.random.get_rng_state())
    assert (distance(found, x, p) <= eps * (1 + 1e-5) + 1e-6).all() and 0 <= found.min() <= found.max() <= 1
    ours, theirs = (network(points).argmax(1) != y for points in (pgd(network, x, y, eps, p, 50, 2), found))
    assert 0.2 < theirs.double().mean() < 0.95 and (theirs & ~ours).sum() <= 1
    if p > 1:  # in the 1-norm foolbox scales its points back into the ball, and finds less
        assert (ours & ~theirs).sum() <= 1
        assert not theirs[certify(network, x, y, p).radius >= eps].any()
    assert torch.equal(found, attack_suite(network, x, y, eps, p, library, progress=False))


@pytest.mark.parametrize("library", [installed("torchattacks"), installed("foolbox")])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_suite_takes_few_classes_one_input_none_and_radius_zero(brief, library, classes, seed):
    network = freeze(mlp([6, 8, classes])).double()
    x = torch.rand(20, 6).double()
    y = network(x).argmax(1)
    found = attack_suite(network, x, y, 0.5, 2, library)
    assert (network(found).argmax(1) != y).any() and (distance(found, x, 2) <= 0.5 * (1 + 1e-9)).all()
    assert attack_suite(network, x[:1], y[:1], 0.01, 2, library).shape == (1, 6)
    assert attack_suite(network, x[:0], y[:0], 0.5, 2, library).shape == (0, 6)
    assert torch.equal(attack_suite(network, x, y, 0.0, 2, library), x)


@pytest.mark.parametrize(("library", "p"), [installed("torchattacks", 2), installed("torchattacks", INF)])
def test_square_runs_on_images_that_are_large_enough(brief, monkeypatch, library, p, seed):
    """Its squares have sides from a fifth of the image, so smaller images and rows are left out."""
    network = freeze(nn.Sequential(nn.Flatten(), mlp([70, 8, 4])))
    x, sizes = torch.rand(9, 1, 7, 10), []
    original = suites.imported(library).Square.forward
    monkeypatch.setattr(
        suites.imported(library).Square, "forward", lambda self, *given: sizes.append(1) or original(self, *given)
    )
    found = attack_suite(network, x, network(x).argmax(1), 0.02, p, library)
    assert sizes and (distance(found, x, p) <= 0.02 * (1 + 1e-5)).all()

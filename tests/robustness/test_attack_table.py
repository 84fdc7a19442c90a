"""What every attack in the table keeps to, and what is known of each where the optimum is known."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from truths import distance, linear

from tightlip import ColumnL1Ball, Orthonormal, RowL1Ball, TightlipError, certify, fgs, freeze, mlp, pgd
from tightlip.linalg.ball import project_l1_ball
from tightlip.robustness import ATTACKS
from tightlip.robustness.attacks import cw_loss
from tightlip.robustness.attacks.directions import project_l1

INF = math.inf
FEW = {"pgd": {"steps": 10, "restarts": 2}}
EACH = pytest.mark.parametrize(
    "attack", [partial(attack, **FEW.get(name, {})) for name, attack in ATTACKS.items()], ids=ATTACKS
)
NORMS = pytest.mark.parametrize("p", [1, 2, INF])
short = partial(pgd, steps=20, restarts=1)


@EACH
@NORMS
@pytest.mark.parametrize("clamp", [(0.0, 1.0), (0.2, 0.7), None])
@pytest.mark.parametrize("targeted", [False, True])
def test_each_stays_in_the_ball_and_in_the_box_and_moves(problem, attack, p, clamp, targeted):
    network, x, y = problem
    x = x.clamp(*clamp) if clamp else x
    eps = torch.linspace(0.0, 0.5, len(x))
    found = attack(network, x, y, eps, p, clamp=clamp, targets=(y + 1) % 4 if targeted else None)
    assert found.shape == x.shape and found.dtype == x.dtype and not found.requires_grad
    moved = distance(found, x, p)
    assert (moved <= eps * (1 + 1e-5) + 1e-6).all() and (moved[1:] > 0).all() and moved[0] == 0
    if clamp:
        assert found.min() >= torch.tensor(clamp[0]) and found.max() <= torch.tensor(clamp[1])


@EACH
@NORMS
def test_each_does_harm(problem, attack, p):
    """Steps in the wrong direction would raise the margin."""
    network, x, y = problem
    found = attack(network, x, y, 0.05, p, clamp=None)
    assert (cw_loss(network(found), y) > cw_loss(network(x), y)).double().mean() > 0.9


@EACH
@NORMS
def test_each_comes_closer_to_its_targets(problem, attack, p):
    network, x, y = problem
    targets = (y + 2) % 4
    found = attack(network, x, y, 0.05, p, clamp=None, targets=targets)

    def chance(points):
        return network(points).log_softmax(1).gather(1, targets[:, None])[:, 0]

    assert (chance(found) > chance(x)).double().mean() > 0.9


@EACH
@pytest.mark.parametrize(("p", "constraint"), [(1, ColumnL1Ball()), (2, Orthonormal()), (INF, RowL1Ball())])
def test_none_flips_an_answer_within_its_certified_radius(attack, p, constraint, seed):
    network, x = freeze(mlp([12, 16, 16, 4], constraint, K=3.0)), torch.rand(60, 12)
    certificate = certify(network, x, p=p)
    sure = certificate.radius > 1e-3
    y = certificate.prediction[sure]
    assert sure.double().mean() > 0.8
    found = attack(network, x[sure], y, 0.999 * certificate.radius[sure].float(), p, clamp=None)
    assert torch.equal(network(found).argmax(1), y)


@EACH
@pytest.mark.parametrize("training", [True, False])
def test_each_leaves_the_network_as_it_was(attack, training, seed):
    network = mlp([12, 16, 4], hold="forward").train(training)
    x, before = torch.rand(5, 12), torch.random.get_rng_state()
    with torch.no_grad():
        attack(network, x, torch.zeros(5, dtype=torch.long), 0.1, 2)
        assert not torch.is_grad_enabled()
    assert all(module.training == training for module in network.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(before, torch.random.get_rng_state())


@EACH
def test_without_gradients_there_is_no_attack_and_a_sentence(problem, attack):
    network, x, y = problem
    with torch.no_grad():
        assert not torch.equal(attack(network, x, y, 0.1, 2, clamp=None), x)
    with torch.inference_mode(), pytest.raises(TightlipError, match=r"torch\.inference_mode keeps none"):
        attack(network, x, y, 0.1, 2, clamp=None)


@EACH
@NORMS
def test_each_survives_networks_without_a_slope_empty_batches_and_nan(attack, p):
    constant = linear([[0.0], [0.0]], (1.0, 0.0), torch.float32)
    x = torch.full((3, 1), 0.5)
    assert torch.isfinite(attack(constant, x, torch.zeros(3).long(), 0.1, p)).all()
    assert attack(constant, x[:0], torch.zeros(0).long(), 0.1, p).shape == (0, 1)
    broken = linear([[math.nan], [0.0]], (1.0, 0.0), torch.float32)
    assert torch.isfinite(attack(broken, x, torch.zeros(3).long(), 0.1, p)).all()


@EACH
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"p": 3}, "no norm is called 3"),
        ({"eps": -0.1}, "eps must be a number ≥ 0, or one for each of 40 inputs"),
        ({"y": torch.zeros(39, dtype=torch.long)}, "y must hold one integer for each of 40 inputs"),
        ({"y": torch.full((40,), 4)}, "labels must be from 0 to 3, got 4 to 4"),
        ({"clamp": (0.4, 0.6)}, "the attack keeps inputs in clamp="),
        ({"targets": torch.zeros(39, dtype=torch.long)}, "targets must hold one integer for each of 40 inputs"),
        ({"targets": torch.zeros(40)}, "targets must hold one integer for each of 40 inputs"),
        ({"targets": [0] * 40}, "targets must be a tensor or a numpy array"),
        (
            {"y": torch.zeros(40).long(), "targets": torch.arange(40) % 4},
            "other classes than y, and 10 of 40 are the same",
        ),
        ({"y": torch.zeros(40).long(), "targets": torch.full((40,), 4)}, "labels must be from 0 to 3, got 4 to 4"),
    ],
)
def test_what_no_attack_takes_is_refused(problem, attack, change, sentence):
    network, x, y = problem
    options = {"x": x, "y": y, "eps": 0.1, "p": 2, "clamp": None} | change
    with pytest.raises(TightlipError, match=sentence):
        attack(network, **options)


def worst(slope, x, eps, p, clamp):
    """The largest rise of slope·δ in the ball and the box, by linear programming over δ = a − b; p is 1 or ∞."""
    room = [(hi, lo) for hi, lo in zip((clamp[1] - x).tolist(), (x - clamp[0]).tolist(), strict=True)]
    most = eps if p == INF else math.inf
    bounds = [(0, min(hi, most)) for hi, _ in room] + [(0, min(lo, most)) for _, lo in room]
    limit = {} if p == INF else {"A_ub": np.ones((1, 2 * len(x))), "b_ub": [eps]}
    return -linprog(np.concatenate([-slope, slope]), bounds=bounds, **limit).fun


@pytest.mark.parametrize("p", [1, INF])
@pytest.mark.parametrize("eps", [0.05, 0.4, 3.0])
@pytest.mark.parametrize(("attack", "share"), [(fgs, 1.0), (partial(pgd, steps=100, restarts=1), 0.99)])
def test_linear_classifiers_lose_all_that_they_can_inside_the_box(p, eps, attack, share, seed):
    """Where the box is in the way, the steepest coordinate alone is not the answer in the 1-norm."""
    slope, x = torch.randn(15).double(), torch.rand(6, 15).double()
    network = linear((torch.stack([-slope, slope]) / 2).tolist(), (0.0, 0.0))
    found = attack(network, x, torch.zeros(6, dtype=torch.long), eps, p)
    for before, after in zip(x, found, strict=True):
        rise, most = float((after - before) @ slope), worst(slope.numpy(), before, eps, p, (0.0, 1.0))
        assert share * most - 1e-9 <= rise <= most + 1e-9


@NORMS
def test_fast_gradient_sign_by_hand(p):
    """The slope of cross-entropy of class 0 is a multiple of (3, −4); both losses of a pair have one direction."""
    network = linear([[-1.5, 2.0], [1.5, -2.0]], (0.0, 0.0), torch.float32)
    x = torch.tensor([[0.5, 0.5]])
    step = {1: [0.0, -0.1], 2: [0.06, -0.08], INF: [0.1, -0.1]}[p]
    found = fgs(network, x, torch.tensor([0]), 0.1, p)
    assert torch.allclose(found - x, torch.tensor([step]), atol=1e-6)
    back = fgs(network, x, torch.tensor([1]), 0.1, p, targets=torch.tensor([0]))
    assert torch.allclose(back - x, -torch.tensor([step]), atol=1e-6)


def test_fast_gradient_sign_climbs_cross_entropy_and_not_the_margin():
    """Of logits (x, 0, −2x) the margin of class 0 at x = 1 knows the second alone, cross-entropy also the third."""
    network = linear([[1.0, 0.0], [0.0, 0.0], [0.0, -1.0]], (0.0, 0.0, 0.0), torch.float32)
    x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    assert fgs(network, x, y, 0.1).tolist() == [[pytest.approx(0.4), pytest.approx(0.4)]]
    assert pgd(network, x, y, 0.1, INF, 20, 1)[0, 1] == 0.5
    assert pgd(network, x, y, 0.1, INF, 20, 1, loss="ce")[0, 1] == pytest.approx(0.4)


def test_cross_entropy_has_no_slope_where_a_network_is_very_sure_and_the_margin_has():
    network = linear([[1e4, 0.0], [-1e4, 0.0]], (0.0, 0.0), torch.float32)
    x, y = torch.tensor([[0.3, 0.3]]), torch.tensor([0])
    at = partial(short, network, x, y, 0.4, clamp=None)
    assert torch.equal(fgs(network, x, y, 0.4, clamp=None), x)
    assert not bool(cw_loss(network(at(loss="ce")), y) > 0) and bool(cw_loss(network(at(loss="cw")), y) > 0)


@NORMS
@pytest.mark.parametrize("loss", ["cw", "ce"])
def test_a_target_is_reached_or_nothing_counts(p, loss):
    """Class 1 is nearer than class 2: without a target the first wins, with it only the second is a success."""
    network = linear([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], (0.0, -0.1, -0.3), torch.float32)
    x, y = torch.zeros(1, 2), torch.tensor([0])
    at = partial(short, network, x, y, 0.5, p, clamp=None, loss=loss)
    assert network(at(targets=torch.tensor([2]))).argmax(1) == 2
    assert network(at(targets=torch.tensor([1]))).argmax(1) == 1
    near = short(network, x, y, 0.2, p, clamp=None, loss=loss, targets=torch.tensor([2]))
    assert network(near).argmax(1) != 2


@NORMS
def test_stopping_early_flips_the_same_inputs_at_the_first_point_and_asks_less(problem, p):
    network, x, y = problem
    asked = []
    network.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    eps = {1: 0.3, 2: 0.12, INF: 0.04}[p]
    whole = pgd(network, x, y, eps, p, 120, 2, clamp=None)
    all_along, asked[:] = sum(asked), []
    early = pgd(network, x, y, eps, p, 120, 2, clamp=None, early_stop=True)
    few = sum(asked)
    flipped = network(whole).argmax(1) != y
    assert torch.equal(network(early).argmax(1) != y, flipped) and 0.2 < flipped.double().mean() < 0.9
    assert few < all_along
    first = cw_loss(network(early), y)[flipped]
    assert (first > 0).all() and first.mean() < cw_loss(network(whole), y)[flipped].mean()
    assert torch.equal(early[~flipped], whole[~flipped])


def test_stopping_early_returns_what_is_wrong_already(problem):
    network, x, y = problem
    assert torch.equal(short(network, x, (y + 1) % 4, 0.3, early_stop=True), x)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"loss": "hinge"}, "no loss is called 'hinge': choose one of cw, ce"),
        ({"steps": -1}, "steps must be an integer ≥ 0"),
        ({"restarts": 0}, "restarts must be an integer ≥ 1"),
    ],
)
def test_what_pgd_does_not_take_is_refused(problem, change, sentence):
    with pytest.raises(TightlipError, match=sentence):
        pgd(*problem, 0.1, **change)


def nearest(u, radius, room):
    """The projection onto the 1-norm ball and the box, by bisection on the threshold."""
    low, high = 0.0, float(np.abs(u).max())
    if np.minimum(np.abs(u), room).sum() <= radius:
        high = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        total = np.clip(np.abs(u) - middle, 0, room).sum()
        low, high = (middle, high) if total > radius else (low, middle)
    return np.sign(u) * np.clip(np.abs(u) - high, 0, room)


@pytest.mark.parametrize("reach", [0.1, 1.0, 10.0])
def test_the_projection_onto_ball_and_box_is_the_nearest_point(reach, seed):
    u, radius = torch.randn(60, 9).double(), torch.rand(60).double() * 4
    room = reach * torch.rand(60, 9).double() * (torch.rand(60, 9) > 0.2)
    radius[0], u[1], room[2], u[3] = 0.0, 0.0, 0.0, 1.0
    found = project_l1(u, radius, room)
    for row, bound, limit, point in zip(u.numpy(), radius.tolist(), room.numpy(), found.numpy(), strict=True):
        assert point == pytest.approx(nearest(row, bound, limit), abs=1e-12)


def test_the_projection_without_a_box_is_that_of_the_constraint(seed):
    u, radius = torch.randn(60, 9), 3 * torch.rand(60) + 0.1
    expected = project_l1_ball(u / radius[:, None]) * radius[:, None]
    assert torch.allclose(project_l1(u, radius, torch.full_like(u, 100.0)), expected, atol=1e-6)

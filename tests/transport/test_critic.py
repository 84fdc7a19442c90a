"""A critic finds the distance from below; what would let it grow without bound is refused."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import (
    MaxMin,
    Orthonormal,
    SpectralBall,
    TightlipError,
    constrain,
    freeze,
    gradient_penalty,
    lipschitz,
    mlp,
)
from tightlip.transport import Funnels, absolute_value, high_dimensional_cone, train_critic

PLAIN_TRAIN_CRITIC = inspect.unwrap(train_critic)
CIRCLE = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))


def test_a_critic_finds_the_distance_on_the_line_and_stays_below_it():
    torch.manual_seed(0)
    pair, critic = absolute_value(), mlp([1, 32, 32, 1])
    before = pair.objective(critic)[0]
    assert train_critic(critic, pair.sample, steps=150, batch_size=16, learning_rate=1e-2) is critic
    frozen = freeze(critic)
    assert before < 0.9 < 0.99 < pair.objective(frozen)[0] <= 1 + 1e-6
    assert lipschitz(frozen, 2).constant <= 1


def test_whoever_watches_sees_every_step_and_the_end():
    seen = []
    train_critic(mlp([3, 4, 1]), high_dimensional_cone(3).sample, steps=5, batch_size=2, watch=seen.append)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_the_same_seeds_make_the_same_critic():
    def weights():
        torch.manual_seed(3)
        generator = torch.Generator().manual_seed(4)
        pair = high_dimensional_cone(4)
        critic = train_critic(mlp([4, 8, 1]), lambda n: pair.sample(n, generator), steps=7, batch_size=8)
        return critic[0].weight

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize("options", [{"steps": 0}, {"batch_size": 0}])
def test_training_that_trains_nothing_is_refused(options):
    with pytest.raises(TightlipError, match="must be an integer ≥ 1, got 0"):
        train_critic(mlp([1, 2, 1]), absolute_value().sample, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 3.0},
        {"batch_size": 16.0},
        {"learning_rate": -1},
        {"learning_rate": "1e-3"},
        {"learning_rate": math.nan},
        {"optimizer": "adam"},
        {"optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)},
        {"decay": "cosine"},
        {"unconstrained": "no"},
        {"watch": 3},
    ],
    ids=str,
)
def test_an_option_that_is_none_is_one_sentence(options):
    with pytest.raises(TightlipError, match=next(iter(options))):
        PLAIN_TRAIN_CRITIC(mlp([2, 4, 1]), (CIRCLE, CIRCLE), **options)


# ------------------------------------------------------------------------------------------------------- two samples


@pytest.mark.parametrize(
    "form", [lambda x: x, lambda x: x.numpy(), lambda x: x.double(), lambda x: x.double().numpy()[::-1]]
)
def test_two_samples_are_drawn_from(form):
    """Points and the same points, 0.5 to the right, are 0.5 apart."""
    torch.manual_seed(0)
    first, second = CIRCLE + torch.tensor([0.5, 0.0]), CIRCLE
    critic = freeze(train_critic(mlp([2, 16, 1]), (form(first), form(second)), steps=200, learning_rate=2e-2))
    assert 0.47 < float((critic(first).mean() - critic(second).mean()).detach()) <= 0.5 + 1e-6


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", [lambda x: x, lambda x: x.numpy() if x.dtype != torch.bfloat16 else x])
def test_batches_of_any_kind_of_number_are_brought_to_that_of_the_critic(kind, form):
    points = (CIRCLE * 9).to(kind)
    for sample in ((form(points), form(points)), lambda n: (form(points[:n]), form(points[n:]))):
        train_critic(mlp([2, 4, 1]), sample, steps=1, batch_size=9)


def test_every_point_of_both_samples_is_drawn_and_none_is_written_to():
    first, second = CIRCLE[:5].clone(), CIRCLE[5:8].clone()
    seen = []

    class Remembers(nn.Sequential):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x.zero_())

    train_critic(Remembers(mlp([2, 4, 1])), [first, second], steps=3, batch_size=100)
    assert torch.equal(first, CIRCLE[:5]) and torch.equal(second, CIRCLE[5:8])
    assert [x.shape for x in seen] == 6 * [(100, 2)]
    assert torch.equal(seen[0].unique(dim=0), first.unique(dim=0))
    assert torch.equal(seen[1].unique(dim=0), second.unique(dim=0))
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(
    ("critic", "sample", "sentence"),
    [
        (mlp([2, 4, 1]), CIRCLE, "sample is a Tensor: give a function of the batch size, .* or two samples"),
        (mlp([2, 4, 1]), (CIRCLE, CIRCLE, CIRCLE), "sample is a tuple: give"),
        (mlp([2, 4, 1]), high_dimensional_cone(2), "sample is a Spheres: give .* such as pair.sample"),
        (mlp([2, 4, 1]), (CIRCLE, CIRCLE.tolist()), "the second sample must be a tensor or a numpy array, got a list"),
        (mlp([2, 4, 1]), (CIRCLE[:0], CIRCLE), r"the first sample has shape \(0, 2\)"),
        (mlp([2, 4, 1]), (CIRCLE, torch.tensor(1.0)), r"the second sample has shape \(\)"),
        (mlp([2, 4, 1]), (CIRCLE * math.nan, CIRCLE), "300 of 300 points of the first sample are NaN"),
        (mlp([2, 4, 1]), (CIRCLE, np.full((3, 2), np.inf)), "3 of 3 points of the second sample are NaN or infinite"),
        (mlp([2, 4, 1]), lambda n: CIRCLE[:n], "sample returned a Tensor: return .first, second."),
        (mlp([2, 4, 3]), (CIRCLE, CIRCLE), r"one number per sample, got outputs of shape \(256, 3\)"),
        (mlp([3, 4, 1]), (CIRCLE, CIRCLE), r"inputs of shape \(256, 2\) do not fit the network"),
        (Funnels(CIRCLE, torch.zeros(300)), (CIRCLE, CIRCLE), "no weight to train: make Funnels with trainable=True"),
        (lambda x: x, (CIRCLE, CIRCLE), "the critic is a function: give a network first"),
    ],
)
def test_what_cannot_be_sampled_is_one_sentence(critic, sample, sentence):
    with pytest.raises(TightlipError, match=sentence) as caught:
        PLAIN_TRAIN_CRITIC(critic, sample, steps=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises_with_the_steps_number(bad):
    calls = []

    def sample(count):
        calls.append(1)
        return CIRCLE[:count], CIRCLE[:count] * (bad if len(calls) == 4 else 1.0)

    with pytest.raises(TightlipError, match="at step 3"):
        train_critic(mlp([2, 4, 1]), sample, steps=10, batch_size=8)


# ---------------------------------------------------------------------------------------------------- unconstrained


def plain():
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))


@pytest.mark.parametrize(
    ("critic", "named"),
    [
        (plain(), "constrains 0 .Linear."),
        (nn.Sequential(mlp([2, 4, 1]), nn.BatchNorm1d(1)), "constrains 1 .BatchNorm1d."),
        (nn.Sequential(mlp([2, 4, 4]), nn.LayerNorm(4), mlp([4, 1])), "constrains 1 .LayerNorm."),
        (nn.Sequential(mlp([2, 4, 1]), nn.PReLU()), "constrains 1 .PReLU."),
        (nn.Linear(2, 1), "constrains the critic .Linear."),
        (nn.Sequential(mlp([2, 4, 4]), nn.Linear(4, 1)), "constrains 1 .Linear."),
        (nn.Sequential(constrain(nn.Linear(2, 4), Orthonormal()), MaxMin(), nn.Linear(4, 1)), "constrains 2 .Linear."),
        (nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 1, 2), nn.Flatten()), "constrains 1 .Conv1d."),
    ],
    ids=["plain", "batch norm", "layer norm", "slope", "one layer", "a head", "a mix", "convolution"],
)
def test_a_critic_that_nothing_bounds_is_refused(critic, named):
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    with pytest.raises(TightlipError, match=f"nothing {named}, so the critic has no Lipschitz constant"):
        train_critic(critic, (CIRCLE + 1, CIRCLE), steps=2)
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())


def test_a_critic_without_bound_may_be_asked_for():
    torch.manual_seed(0)
    critic = plain()
    train_critic(critic, (CIRCLE + 1, CIRCLE), steps=100, learning_rate=0.1, unconstrained=True)
    assert lipschitz(critic, 2, 2).constant > 10


@pytest.mark.parametrize("way", ["step", "forward"])
@pytest.mark.parametrize("constraint", [Orthonormal(), SpectralBall()])
def test_constrained_critics_are_let_through_in_either_hold(way, constraint):
    train_critic(mlp([2, 4, 1], constraint, hold=way), (CIRCLE + 1, CIRCLE), steps=2)


def test_weights_that_do_not_train_need_no_constraint():
    features = nn.Linear(2, 4).requires_grad_(False)
    train_critic(nn.Sequential(features, mlp([4, 4, 1])), (CIRCLE + 1, CIRCLE), steps=2)


def test_the_penalty_has_a_loop_of_its_own():
    """What `unconstrained` is for says where to look: `descend` takes any loss."""
    from tightlip import kantorovich
    from tightlip.descent import descend

    torch.manual_seed(0)
    critic, first = plain(), CIRCLE + 1

    def loss(_):
        penalty = gradient_penalty(critic, first, CIRCLE, one_sided=True)
        return kantorovich(critic(first), critic(CIRCLE)) + 10 * penalty

    descend(critic, torch.optim.Adam(critic.parameters(), 1e-2), loss, range(60))
    assert lipschitz(critic, 2, 2).constant < 10


# ------------------------------------------------------------------------------------------------- funnels, and time


def test_funnels_are_trained_although_nothing_constrains_them():
    """A point against the circle around it: from a funnel that is off its place."""
    middle, circle = torch.zeros(50, 2), nn.functional.normalize(CIRCLE, dim=1)
    cone = Funnels(torch.tensor([[0.4, 0.3]]), torch.zeros(1), trainable=True)
    train_critic(cone, (circle, middle), steps=200, learning_rate=2e-2, progress=False)
    assert 0.98 < float((cone(circle).mean() - cone(middle).mean()).detach()) <= 1 + 1e-6


def test_no_step_is_taken_when_time_is_over():
    critic, seen = mlp([2, 4, 1]), []
    before = critic[0].weight.clone()
    train_critic(critic, (CIRCLE, CIRCLE), steps=10**9, seconds=0.0, watch=seen.append)
    assert torch.equal(critic[0].weight, before)
    assert seen == [10**9]
    train_critic(critic, (CIRCLE, CIRCLE + 1), steps=10**9, seconds=0.3, decay=False)
    assert not torch.equal(critic[0].weight, before)


@pytest.mark.parametrize("options", [{"seconds": -1.0}, {"seconds": "1"}, {"progress": 1}])
def test_other_times_are_refused(options):
    with pytest.raises(TightlipError, match="must be"):
        PLAIN_TRAIN_CRITIC(mlp([2, 4, 1]), (CIRCLE, CIRCLE), **options)

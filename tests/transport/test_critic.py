import pytest
import torch

from tightlip import TightlipError, freeze, lipschitz, mlp
from tightlip.transport import absolute_value, high_dimensional_cone, train_critic


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
    with pytest.raises(TightlipError, match="train nothing"):
        train_critic(mlp([1, 2, 1]), absolute_value().sample, **options)

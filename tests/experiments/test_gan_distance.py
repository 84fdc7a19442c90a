"""Table 2: what is compared is what is said, on one generator for all rows, and critics are measured fairly."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tightlip.experiments import gan_distance as study
from tightlip.experiments.gan_training import images
from tightlip.experiments.shelf import shelf

SMALL = study.Config(**{**study.SMOKE.shared, "data": "mnist5k"})


@pytest.fixture(scope="module")
def whole():
    return images("mnist5k")


def test_all_rows_of_a_seed_have_one_generator_that_is_trained_once(whole, tmp_path, monkeypatch):
    trainings = []
    begun = study.begun
    monkeypatch.setattr(study, "begun", lambda *given: trainings.append(given[0].seed) or begun(*given))
    with shelf(tmp_path):
        first, same = (study.made(replace(SMALL, activation=name), whole, 0) for name in ("relu", "maxout"))
        other = study.made(SMALL, whole, 1)
    alone = study.made(SMALL, whole, 0)
    assert trainings == [0, 1, 0]
    z = torch.rand(5, 62)
    assert torch.equal(first(z), same(z)) and torch.equal(first(z), alone(z)) and not torch.equal(first(z), other(z))
    assert not first.training and not any(weight.requires_grad for weight in first.parameters())


def test_the_critic_is_that_of_the_table():
    sizes = {}
    for name in study.ROWS:
        config = replace(SMALL, activation=name, steps=1)
        found = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(study, "trained", lambda config, critic, *_, found=found: found.append(critic) or 1 / 0)
            with pytest.raises(ZeroDivisionError):
                study.run(config, 0)
        layers = [layer for layer in found[0] if isinstance(layer, nn.Linear)]
        sizes[name] = [(layer.in_features, layer.out_features) for layer in layers]
    width = SMALL.width
    assert sizes.pop("maxout") == [(784, width), (width // 2, width), (width // 2, 1)]
    assert set(map(tuple, sizes.values())) == {((784, width), (width, width), (width, 1))}
    assert study.Config().width == 720


def test_gradients_are_shortened_before_adam_sees_them():
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
    engine = study.clipped_adam(iter(weights), 1.0, 0.1)
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([4.0])
    engine.step()
    assert torch.cat([weight.grad for weight in weights]).tolist() == pytest.approx([0.06, 0, 0, 0.08])
    first = engine.state[weights[1]]["exp_avg"]
    assert float(first) == pytest.approx(0.1 * 0.08)


def test_the_objective_of_a_known_critic_is_known(whole):
    critic = nn.Sequential(nn.Flatten(), nn.Linear(784, 1, bias=False))
    nn.init.constant_(critic[1].weight, 1 / 28)
    real, fake = torch.full((6, 1, 28, 28), 0.75), torch.full((4, 1, 28, 28), -0.5)
    objective, error = study.compared(critic, real, fake)
    assert objective == pytest.approx(28 * (0.5 + 0.5), rel=1e-5) and error < 1e-4
    real[:3], fake[:2] = 0.5, 0.5
    objective, error = study.compared(critic, real, fake)
    assert objective == pytest.approx(28 * (0.25 - 0.0), rel=1e-5)
    assert error == pytest.approx(28 * (0.25**2 * 6 / 5 / 6 + 0.5**2 * 4 / 3 / 4) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("constraint", study.CONSTRAINTS)
def test_a_critic_that_is_trained_finds_more_and_numbers_come_again(constraint, tmp_path):
    config = replace(SMALL, constraint=constraint, steps=15)
    with shelf(tmp_path):
        first, again = study.run(config, 0), study.run(config, 0)
        less = study.run(replace(config, steps=1), 0)
    drop = {"cpu_seconds": None}
    assert {**first.metrics, **drop} == {**again.metrics, **drop} and first.drawings == again.drawings
    assert first.metrics["objective"] > less.metrics["objective"]
    assert first.metrics["constant"] <= 1 and first.metrics["bound"] >= first.metrics["objective"]
    curve = first.drawings["curve"]
    assert curve["step"][0] == 0 and curve["objective"][-1] > curve["objective"][0]
    gap = first.metrics["training_objective"] - first.metrics["objective"]
    assert 0 < abs(gap) < 5 * first.metrics["standard_error"] + 1


def test_the_papers_values_stand_beside_its_rows_alone():
    table = {
        (name, constraint): study.published(study.Config(activation=name, constraint=constraint))
        for name in study.ROWS
        for constraint in study.CONSTRAINTS
    }
    assert table["relu", "spectral"] == 0.95 and table["groupsort9", "orthonormal"] == 2.31
    assert all(table[name, "orthonormal"] > table[name, "spectral"] for name in study.ROWS)
    assert study.published(study.Config(data="fashion-mnist")) is None

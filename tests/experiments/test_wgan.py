"""Critics of GANs are what they are called, a training goes on as if nothing had been, and paces are chosen by data."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sweeps import some
from torch import nn

from tightlip import TightlipError, freeze, lipschitz
from tightlip.experiments import gan_training, sample_quality, wgan
from tightlip.experiments.gan_parts import CLIP, CRITICS, generator, images_of, latent
from tightlip.experiments.gan_training import Gan, Recipe
from tightlip.experiments.shelf import Progress, shelf

SMALL = wgan.Config(**{**wgan.SMOKE.shared, "data": "mnist5k"})


@pytest.fixture
def real():
    return 2 * torch.rand(40, 1, 12, 12, generator=torch.Generator().manual_seed(0)) - 1


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A judge that was never trained: what is measured here does not depend on how good it is."""

    def untrained(network, material, epochs):
        return {"network": network.state_dict(), "accuracy": epochs / 10}

    monkeypatch.setattr(sample_quality, "_learned", untrained)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 5, 5), (2, 9, 14)], ids=str)
def test_parts_fit_images_of_any_size(shape):
    made = generator(shape, 4)
    images = made(latent(3, torch.Generator().manual_seed(0)))
    assert images.shape == (3, *shape) and float(images.detach().abs().max()) <= 1
    for kind in CRITICS.values():
        assert kind.make(shape, 4)(images).shape == (3, 1)


def test_at_the_papers_width_the_layers_are_the_papers():
    made = generator((1, 28, 28), 64)
    weights = [tuple(weight.shape) for weight in made.parameters() if weight.dim() > 1]
    assert weights == [(1024, 62), (6272, 1024), (128, 64, 4, 4), (64, 1, 4, 4)]
    plain = CRITICS["clip"].make((1, 28, 28), 64)
    weights = [tuple(weight.shape) for weight in plain.parameters() if weight.dim() > 1]
    assert weights == [(64, 1, 4, 4), (128, 64, 4, 4), (1024, 6272), (1, 1024)]
    dense = CRITICS["orthonormal dense"].make((1, 28, 28), 64)
    assert [layer.out_features for layer in dense if isinstance(layer, nn.Linear)] == [512, 512, 1]
    for network in (made, plain):
        for layer in network:
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                assert not layer.bias.any() and float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.2)


def test_images_are_made_in_eval_mode_and_in_parts_alike():
    torch.manual_seed(0)
    made = generator((1, 8, 8), 2)
    made(latent(64, torch.Generator().manual_seed(0)))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    one, other = images_of(made, 9, 3), images_of(made, 9, 3, batch=2)
    assert torch.allclose(one, other, atol=1e-6) and not torch.equal(one, images_of(made, 9, 4))
    assert made.training and all(torch.equal(before[name], value) for name, value in made.state_dict().items())


@pytest.mark.parametrize("critic", CRITICS)
def test_a_critic_is_kept_as_it_is_called(critic, real):
    gan = Gan(Recipe(critic, width=4, steps=6, batch_size=8, pace=3.0), real)
    before = [weight.clone() for weight in (*gan.generator.parameters(), *gan.critic.parameters())]
    for to in range(1, 7):
        gan.train(to)
        constant = lipschitz(gan.critic, 2).constant
        if CRITICS[critic].constrained:
            assert 0.9 < lipschitz(freeze(gan.critic), 2).constant <= 1 and constant <= 1 + 1e-5
        if CRITICS[critic].clipped:
            assert max(float(weight.detach().abs().max()) for weight in gan.critic.parameters()) <= CLIP
    after = (*gan.generator.parameters(), *gan.critic.parameters())
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert sum(moved) >= len(moved) - 1  # the critic's last bias has no gradient
    assert gan.step == 6 and gan.cpu["critic"] > 0 < gan.cpu["generator"]
    assert all(weight.requires_grad for weight in gan.critic.parameters())


def test_the_penalty_is_what_it_is_called(real):
    """Of a linear critic of slope s it adds 10 (s − 1)²."""
    gan = Gan(Recipe("gradient penalty", width=4, steps=1, batch_size=8), real)
    weight = torch.full((1, 144), 3 / 12)  # of norm 3
    gan.critic = nn.Sequential(nn.Flatten(), nn.Linear(144, 1))
    with torch.no_grad():
        gan.critic[1].weight.copy_(weight)
    state = gan.random.get_state()
    with_it = gan._critic_loss(0)
    gan.random.set_state(state)
    gan.recipe = replace(gan.recipe, critic="clip")
    assert float(with_it.detach()) == pytest.approx(float(gan._critic_loss(0).detach()) + 40.0, rel=1e-5)


@pytest.mark.parametrize("critic", CRITICS)
def test_what_was_interrupted_goes_on_as_if_nothing_had_been(critic, real, tmp_path, monkeypatch):
    monkeypatch.setattr(gan_training, "SAVED", 0.0)
    recipe, progress = Recipe(critic, width=4, steps=5, batch_size=8), Progress(tmp_path / "gan.pt", "")
    whole = Gan(recipe, real).train(5)
    Gan(recipe, real).train(3, progress)
    torch.manual_seed(99)  # nothing rests on torch's own generator
    rest = Gan(recipe, real)
    rest.restore(progress.read())
    assert rest.step == 3 and rest.cpu_seconds > 0
    rest.train(5)
    for one, other in ((whole.generator, rest.generator), (whole.critic, rest.critic)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"critic": "gp"}, "no critic is called 'gp'"),
        ({"critic": "clip", "width": 0}, "width must be an integer ≥ 1, got 0"),
        ({"critic": "clip", "pace": 0.0}, "pace must be a finite number > 0, got 0.0"),
        ({"critic": "clip", "batch_size": 41}, "batch_size must be an integer from 1 to 40, got 41"),
    ],
)
def test_impossible_options_are_refused(options, words, real):
    with pytest.raises(TightlipError, match=words):
        Gan(Recipe(**{"width": 4, "steps": 1, **options}), real)


def without_seconds(outcome):
    metrics = {name: value for name, value in outcome.metrics.items() if not name.endswith("_seconds")}
    curve = {name: column for name, column in outcome.drawings["curve"].items() if name != "cpu_seconds"}
    return metrics, curve, outcome.drawings["images"]


@pytest.mark.parametrize("critic", some(["orthonormal dense"], ["clip"]))
def test_a_cell_that_was_interrupted_has_the_numbers_of_one_that_was_not(critic, tmp_path, monkeypatch):
    config = replace(SMALL, critic=critic)
    whole = wgan.run(config, 1)
    look = wgan._look

    def interrupted(gan, log, against):
        if gan.step == 3:
            raise KeyboardInterrupt
        look(gan, log, against)

    with shelf(tmp_path):
        monkeypatch.setattr(wgan, "_look", interrupted)
        with pytest.raises(KeyboardInterrupt):
            wgan.run(config, 1)
        steps = []
        monkeypatch.setattr(wgan, "_look", lambda gan, log, against: steps.append(gan.step) or look(gan, log, against))
        again = wgan.run(config, 1)
        assert steps == [3, 4]  # and no pace was tried again
    assert without_seconds(again) == without_seconds(whole)
    assert without_seconds(whole) != without_seconds(wgan.run(config, 2))


def test_what_is_logged_is_there_at_every_step(monkeypatch):
    outcome = wgan.run(replace(SMALL, critic="orthonormal conv", steps=7, tuning=0.2), 0)
    curve, drawn = outcome.drawings["curve"], outcome.drawings["images"]
    assert curve["step"] == [1, 2, 3, 4, 5, 6, 7]
    assert max(curve["constant"]) == outcome.metrics["constant"] <= 1 + 1e-6
    assert max(curve["trained_constant"]) == outcome.metrics["trained_constant"] <= 1 + 1e-5
    assert (
        curve["cpu_seconds"] == sorted(curve["cpu_seconds"])
        and curve["cpu_seconds"][-1] == outcome.metrics["cpu_seconds"]
    )
    assert [row["heading"] for row in drawn["rows"]] == ["step 1", "step 3", "step 5", "step 7"]
    assert np.array(drawn["rows"][0]["images"]).shape == (wgan.COLUMNS, 1, 28, 28)


def test_the_pace_is_the_best_on_validation_data_and_one_that_diverges_is_not(monkeypatch):
    whole, eye = wgan.images("mnist5k"), sample_quality.Judge(nn.Identity(), 1.0)
    seen = []

    class Against:
        def __init__(self, judge, images):
            self.features = images[:, 0, 0]
            seen.append(len(images))

        def compared(self, pace):
            return {"frechet": abs(pace - 2.1)}

    def train(gan, to, progress=None):
        if gan.recipe.pace == 8.0:
            raise TightlipError("NaN")
        gan.generator.pace = gan.recipe.pace
        return gan

    monkeypatch.setattr(wgan, "reference", Against)
    monkeypatch.setattr(Gan, "train", train)
    monkeypatch.setattr(wgan, "seen", lambda gan, against: gan.generator.pace)
    config = replace(SMALL, paces=(0.5, 2.0, 4.0, 8.0), inputs=10_000)
    assert wgan.tuned(config, whole, eye) == (2.0, pytest.approx(0.1))
    assert seen == [len(whole.parts.validation)]
    with pytest.raises(TightlipError, match=r"training diverges at all paces, \[8.0\]: try lower ones"):
        wgan.tuned(replace(config, paces=(8.0,)), whole, eye)


def test_numbers_at_equal_time_lie_between_those_that_were_logged():
    assert wgan._at(15.0, [10.0, 20.0, 30.0], [4.0, 2.0, 1.0]) == 3.0
    assert wgan._at(30.0, [10.0, 20.0, 30.0], [4.0, 2.0, 1.0]) == 1.0
    assert wgan._at(31.0, [10.0, 20.0, 30.0], [4.0, 2.0, 1.0]) is None
    assert wgan._at(9.0, [10.0, 20.0, 30.0], [4.0, 2.0, 1.0]) is None


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(30, 4), "images are needed, as they are generated"),
        (3 * torch.rand(30, 1, 5, 5), r"images in \[0, 1\] are generated, and these are from .*: scale them"),
    ],
)
def test_what_no_generator_makes_is_refused(images, words, tmp_path):
    np.savez(tmp_path / "data.npz", x=images.numpy(), y=np.arange(30) % 3)
    with pytest.raises(TightlipError, match=words):
        wgan.images(str(tmp_path / "data.npz"))


def test_paces_are_of_every_size_but_none():
    with pytest.raises(TightlipError, match="pace must be a finite number > 0"):
        wgan.run(replace(SMALL, paces=(-1.0,)), 0)
    assert math.isfinite(wgan.run(SMALL, 0).metrics["validation_frechet"])

"""An estimator with the manners of scikit-learn, which does not have to be there."""

import inspect

import numpy as np
import pytest
import torch

from tightlip import TightlipError, lipschitz
from tightlip.transport import WassersteinCritic
from tightlip.transport.population import population

DRAWS = torch.Generator().manual_seed(0)
X, Y = torch.rand(600, 2, generator=DRAWS) + 1.0, torch.rand(500, 2, generator=DRAWS)


@pytest.fixture(scope="module")
def fitted():
    return WassersteinCritic(critic="linear", seed=3).fit(X, Y)


def test_it_is_the_interval_of_two_distributions(fitted):
    found = population(X, Y, critic="linear", seed=3)
    assert fitted.interval_.lower == found.lower > 0
    assert fitted.critic_ is fitted.interval_.critic
    assert lipschitz(fitted.critic_, 2).constant <= 1


def test_values_are_those_of_the_critic_and_the_score_their_difference(fitted):
    values = fitted.transform(X)
    assert isinstance(values, torch.Tensor)
    assert torch.equal(values, fitted.critic_(X.double())[:, 0])
    array = fitted.transform(X.numpy())
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, values.numpy())
    assert fitted.score(X, Y.numpy()) == pytest.approx(float(values.mean() - fitted.transform(Y).mean()))
    assert 1.2 < fitted.score(X, Y) < 1.5


def test_points_of_another_shape_are_refused():
    images = torch.rand(9, 2, 3)
    fitted = WassersteinCritic(critic="linear").fit(images, images)
    for points in (torch.rand(9, 3, 2), torch.rand(9, 6)):
        for call, samples in ((fitted.transform, (points,)), (fitted.score, (points, points))):
            with pytest.raises(TightlipError, match=r"fit has seen \(2, 3\)"):
                call(*samples)


def test_one_point_is_enough_to_transform(fitted):
    assert fitted.transform(X[:1]).shape == (1,)


def test_parameters_are_kept_as_they_are_given():
    level = np.float64(0.9)
    estimator = WassersteinCritic(level=level, p="inf")
    parameters = estimator.get_params()
    assert set(parameters) == set(inspect.signature(population).parameters) - {"x", "y"}
    assert parameters["level"] is level
    assert estimator.set_params(p=1, seed=4) is estimator
    assert (estimator.get_params(deep=False)["p"], estimator.seed) == (1, 4)
    clone = type(estimator)(**estimator.get_params())  # what scikit-learn's clone does
    assert clone.get_params() == estimator.get_params()
    assert not hasattr(clone, "critic_")


def test_mistakes_are_one_sentence(fitted):
    with pytest.raises(TightlipError, match="call fit"):
        WassersteinCritic().transform(X)
    with pytest.raises(TightlipError, match="call fit"):
        WassersteinCritic().score(X, Y)
    with pytest.raises(TightlipError, match="did you mean level"):
        WassersteinCritic().set_params(levels=3)
    with pytest.raises(TightlipError, match=r"points have shape \(3,\), and fit has seen \(2,\)"):
        fitted.transform(torch.zeros(4, 3))
    unknown = torch.where(torch.arange(600)[:, None] == 17, torch.nan, X)
    with pytest.raises(TightlipError, match="point 17 of x is NaN or infinite"):
        fitted.transform(unknown.numpy())
    with pytest.raises(TightlipError, match="point 17 of the second sample is NaN or infinite"):
        fitted.score(X, unknown)
    with pytest.raises(TightlipError, match="masked entries of x hold nothing"):
        fitted.transform(np.ma.masked_greater(X.numpy(), 1.5))
    with pytest.raises(TightlipError, match="level must be"):
        WassersteinCritic(level=2.0).fit(X, Y)

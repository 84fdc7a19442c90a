"""Fréchet distance and recall, where they are known."""

from dataclasses import replace

import pytest
import torch
from scipy.linalg import sqrtm

from tightlip import TightlipError
from tightlip.data import Part
from tightlip.experiments import sample_quality as quality
from tightlip.experiments.digits import material
from tightlip.experiments.sample_quality import covered, frechet_distance, reaches


def normal(count, d, seed, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(count, d, seed):
    """A sample whose mean is 0 and covariance 1."""
    x = normal(count, d, seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (count - 1))).T


def test_the_distance_of_a_shift_is_its_square_and_of_a_scale_that_of_the_deviations():
    x = exactly(400, 6, 0)
    shift = torch.tensor([3.0, 0.0, 4.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(x, x + shift) == pytest.approx(25.0)
    assert frechet_distance(x, 3 * x) == pytest.approx(6 * (3 - 1) ** 2)
    assert frechet_distance(x, 3 * x + shift) == pytest.approx(25 + 24)


def test_it_is_that_of_the_formula_also_where_covariances_do_not_commute():
    x, y = normal(500, 7, 0) @ normal(7, 7, 1), normal(300, 7, 2) @ normal(7, 7, 3) + 1
    a, b = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    truth = float((x.mean(0) - y.mean(0)).square().sum()) + float((a + b - 2 * sqrtm(a @ b).real).trace())
    assert frechet_distance(x, y) == pytest.approx(truth) == frechet_distance(y, x)
    assert truth > 1


def test_samples_of_lower_rank_have_one_too():
    x, y = torch.zeros(5, 3), torch.zeros(4, 3)
    y[:, 0] = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    assert frechet_distance(x, y) == pytest.approx(4 / 3)  # of one axis: the variance of y, n − 1 in the denominator
    wide = normal(4, 50, 0)
    assert frechet_distance(wide, wide + 1) == pytest.approx(50)


def test_one_sample_has_no_covariance():
    with pytest.raises(TightlipError, match="1 and 5 samples have no covariance: give at least two"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(5, 2))


def test_an_image_reaches_its_kth_other_neighbor():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert reaches(x, 1).tolist() == [1, 1, 2, 4]
    assert reaches(x, 3).tolist() == [7, 6, 4, 7]
    assert reaches(torch.zeros(5, 2), 2).tolist() == [0] * 5  # others at the same place count
    with pytest.raises(TightlipError, match="neighbors must be an integer from 1 to 3, got 4"):
        reaches(x, 4)


def test_recall_is_the_share_of_modes_that_are_generated_and_precision_of_what_is_real():
    """Four clusters, of which a generator makes two, and a quarter of its images elsewhere."""
    centers = 100 * torch.eye(4, dtype=torch.float64)
    real = torch.cat([centers[i] + normal(50, 4, i) for i in range(4)])
    made = torch.cat([centers[i] + normal(60, 4, 10 + i) for i in (0, 1)] + [normal(40, 4, 20, shift=-100.0)])
    assert 0.4 < covered(real, made, reaches(made)) <= 0.5
    assert 0.6 < covered(made, real, reaches(real)) <= 0.75
    assert covered(real, real, reaches(real)) == 1.0
    assert covered(real, real + 1000, reaches(real)) == 0.0


def test_many_rows_are_compared_in_parts():
    x = normal(2100, 3, 0)
    assert torch.equal(reaches(x), torch.cdist(x, x).sort(dim=1).values[:, 3])


def test_a_judge_is_one_for_all_seeds_and_reads_images_as_they_come():
    whole = material("mnist5k", 0)
    few = Part(whole.parts.train.images[:1500], whole.parts.train.labels[:1500])
    whole = replace(whole, parts=replace(whole.parts, train=few))
    torch.manual_seed(5)
    first = quality.judge(whole, 1)
    torch.manual_seed(6)
    second = quality.judge(whole, 1)
    test, train = whole.parts.test.images[:500], few.images[:500]
    assert torch.equal(first(test), second(test)) and first(test).shape == (500, quality.FEATURES)
    assert 0.2 < first.accuracy == second.accuracy < 1
    against = quality.reference(first, test)
    same, others = against.compared(test), against.compared(train)
    noise = against.compared(torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    assert same["frechet"] == pytest.approx(0, abs=1e-6) and same["recall"] == same["precision"] == 1.0
    assert noise["frechet"] > 10 * others["frechet"] and noise["recall"] < 0.1 < 0.7 < others["recall"]

"""The losses against loops that anyone can check, and against torch where torch knows the same formula."""

import math

import pytest
import torch
from torch.nn import functional

from tightlip import TightlipError
from tightlip.losses import hinge_kantorovich, kantorovich, margin_cross_entropy, multiclass_hinge


def batch(dtype=torch.float64, examples=7, classes=5):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(examples, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(0, classes, (examples,), generator=generator)


def hinge_by_hand(logits, labels, kappa):
    """Eq. 4, word by word: the sum over the wrong classes, the mean over the batch."""
    rows = [
        sum(max(0.0, kappa - (row[t] - row[i])) for i in range(len(row)) if i != t)
        for row, t in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    return sum(rows) / len(rows)


def cross_entropy_by_hand(logits, labels, offset, temperature):
    total = 0.0
    for row, t in zip(logits.tolist(), labels.tolist(), strict=True):
        shifted = [(value - (offset if i == t else 0.0)) / temperature for i, value in enumerate(row)]
        total += temperature * (math.log(sum(math.exp(value) for value in shifted)) - shifted[t])
    return total / len(labels)


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0, 100.0])
def test_hinge_is_equation_4_as_printed(kappa):
    logits, labels = batch()
    assert float(multiclass_hinge(logits, labels, kappa)) == pytest.approx(hinge_by_hand(logits, labels, kappa))


@pytest.mark.parametrize("kappa", [0.3, 1.0, 100.0])
def test_hinge_averaged_over_classes_is_torchs_multi_margin_loss(kappa):
    logits, labels = batch()
    ours = multiclass_hinge(logits, labels, kappa, mean_over_classes=True)
    assert float(ours) == pytest.approx(float(functional.multi_margin_loss(logits, labels, margin=kappa)))
    assert float(ours) * logits.shape[1] == pytest.approx(float(multiclass_hinge(logits, labels, kappa)))


def test_hinge_gradient_is_one_per_violated_class():
    logits = torch.tensor([[1.0, 0.5, -5.0, 0.9]], requires_grad=True)
    multiclass_hinge(logits, torch.tensor([0]), kappa=1.0).backward()
    assert logits.grad.tolist() == [[-2.0, 1.0, 0.0, 1.0]]


def test_hinge_is_exactly_zero_with_zero_gradient_once_the_margin_is_reached():
    logits = torch.tensor([[100.5, 0.0, -1.0], [3.0, 3.0, 150.0]], requires_grad=True)
    loss = multiclass_hinge(logits, torch.tensor([0, 2]), kappa=100.0)
    loss.backward()
    assert loss.item() == 0.0 and not logits.grad.any()


def test_hinge_in_float32_keeps_a_small_violation_beside_a_large_kappa():
    logits = torch.tensor(
        [[100.0, 1e-5]]
    )  # exactly representable to 7 digits; the shortfall is 1e-5 up to an ulp of 100
    exact = 100.0 - (float(logits[0, 0]) - float(logits[0, 1]))
    assert float(multiclass_hinge(logits, torch.tensor([0]), kappa=100.0)) == pytest.approx(exact, abs=8e-6)


def test_both_gradients_pass_gradcheck():
    logits, labels = batch(examples=3)
    logits.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: multiclass_hinge(z, labels, 0.7), logits)
    assert torch.autograd.gradcheck(lambda z: margin_cross_entropy(z, labels, 0.7, 0.3), logits)


@pytest.mark.parametrize("offset", [0.0, 0.8, -0.5])
@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_cross_entropy_matches_a_hand_loop(offset, temperature):
    logits, labels = batch()
    ours = margin_cross_entropy(logits, labels, offset, temperature)
    assert float(ours) == pytest.approx(cross_entropy_by_hand(logits, labels, offset, temperature))


def test_cross_entropy_without_options_is_torchs():
    logits, labels = batch()
    expected = functional.cross_entropy(logits, labels)
    assert float(margin_cross_entropy(logits, labels)) == pytest.approx(float(expected))


def test_offset_asks_the_true_logit_alone_for_that_much_margin():
    """A margin equal to the offset costs what a tie costs without one: temperature · log 2."""
    logits = torch.tensor([[0.8, 0.0]], dtype=torch.float64)
    at_offset = margin_cross_entropy(logits, torch.tensor([0]), offset=0.8, temperature=0.25)
    assert float(at_offset) == pytest.approx(0.25 * math.log(2))
    other_label = margin_cross_entropy(logits, torch.tensor([1]), offset=0.8, temperature=0.25)
    assert float(other_label) == pytest.approx(0.25 * math.log(1 + math.exp(1.6 / 0.25)))


def test_losses_scale_with_the_logits_so_that_k_can_be_taken_out():
    logits, labels = batch()
    unit = margin_cross_entropy(logits, labels, 0.8, 0.25)
    assert float(margin_cross_entropy(1000 * logits, labels, 800.0, 250.0)) == pytest.approx(1000 * float(unit))
    hinge = multiclass_hinge(logits, labels, 0.1)
    assert float(multiclass_hinge(1000 * logits, labels, 100.0)) == pytest.approx(1000 * float(hinge))


@pytest.mark.parametrize("loss", [margin_cross_entropy, lambda z, y: multiclass_hinge(z, y, 1.0)])
def test_logits_far_beyond_the_range_of_exp_stay_finite(loss):
    logits = torch.tensor([[1e30, -1e30, 0.0], [-1e30, 0.0, 1e30]], requires_grad=True)
    value = loss(logits, torch.tensor([0, 0]))
    value.backward()
    assert value.item() >= 0.99e30 and torch.isfinite(value) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", [margin_cross_entropy, lambda z, y: multiclass_hinge(z, y, 1.0)])
@pytest.mark.parametrize("wrong", [-1, 5, 100])
def test_labels_out_of_range_are_named(loss, wrong):
    logits, labels = batch()
    labels[2] = wrong
    with pytest.raises(TightlipError, match=f"{wrong}.*5 outputs"):
        loss(logits, labels)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperatures_that_are_not_positive_are_refused(temperature):
    with pytest.raises(TightlipError, match="temperature"):
        margin_cross_entropy(*batch(), temperature=temperature)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_keep_the_dtype_of_the_logits(dtype):
    logits, labels = batch(dtype)
    assert multiclass_hinge(logits, labels, 1.0).dtype == margin_cross_entropy(logits, labels, 0.5).dtype == dtype


def test_the_kantorovich_objective_of_a_translation_is_its_length():
    x = torch.rand(50, 2)
    potential = torch.tensor([0.6, 0.8])
    assert kantorovich((x + 3 * potential) @ potential, x @ potential).item() == pytest.approx(-3, abs=1e-5)


def test_hinge_kantorovich_is_its_two_terms():
    scores, labels = torch.tensor([0.5, 2.0, -3.0, 0.25]), torch.tensor([1, 1, 0, 0])
    hinge = (0.5 + 0.0 + 0.0 + 1.25) / 4
    gap = (0.5 + 2.0) / 2 - (-3.0 + 0.25) / 2
    assert hinge_kantorovich(scores, labels, margin=1.0, weight=10.0).item() == pytest.approx(10 * hinge - gap)


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0], [0, 1, 2]])
def test_hinge_kantorovich_needs_two_classes(labels):
    with pytest.raises(TightlipError, match="both present"):
        hinge_kantorovich(torch.zeros(3), torch.tensor(labels))

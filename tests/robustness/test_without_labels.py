"""Without labels a certificate says that predicted classes stay the same, and not that they are correct."""

import pytest
import torch
from torch import nn

from tightlip import certify

POINTS = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])  # the last is a tie
CLASSES = torch.tensor([0, 0, 1])


@pytest.mark.parametrize("x", [POINTS, [POINTS, POINTS[:1]], POINTS.numpy()], ids=["tensor", "batches", "array"])
def test_nothing_is_called_correct(x):
    certificate = certify(nn.Identity(), x)
    assert not certificate.labeled and "correct" not in repr(certificate)
    assert "without labels" in repr(certificate) and "predicted class stays the same" in repr(certificate)


def test_with_labels_it_is():
    assert repr(certify(nn.Identity(), POINTS, CLASSES)).startswith("Certificate(3 inputs, 1 correct, Bound(")
    assert certify(nn.Identity(), [(POINTS, CLASSES)]).labeled


def test_it_counts_the_predictions_that_stay():
    certificate = certify(nn.Identity(), POINTS)
    assert repr(certificate).startswith("Certificate(3 inputs, without labels, 2 whose predicted class stays the same")
    assert certificate.accuracy(0) == pytest.approx(2 / 3)


def test_one_output_answers_by_its_sign_without_labels_too():
    certificate = certify(nn.Identity(), torch.tensor([[-0.5], [0.25]]))
    assert certificate.prediction.tolist() == [0, 1] and certificate.radius.tolist() == pytest.approx([0.5, 0.25])
    assert "correct" not in repr(certificate)


def test_it_says_the_arithmetic_that_it_is_about():
    certificate = certify(nn.Identity(), POINTS)
    assert certificate.speaks_of == certificate.bound.arithmetic != ""
    assert "float32" in certify(nn.Linear(2, 2), POINTS, arithmetic="float32").speaks_of

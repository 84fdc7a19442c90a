"""What a certificate says beside its accuracy: the interval, each class, and another classifier on the same inputs."""

import inspect
import math

import pytest
import torch
from torch import nn

from tightlip import Certificate, TightlipError, certify
from tightlip.robustness import ClassAccuracy, Paired, paired, wilson

# Radii in the 2-norm: the lead over √2; the last is wrong.
POINTS = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 0.4], [0.0, 2.0], [0.0, 3.0], [1.0, 0.0]])
LABELS = torch.tensor([0, 0, 1, 1, 1, 1])


@pytest.fixture
def certificate():
    return certify(nn.Identity(), POINTS, LABELS)


@pytest.mark.parametrize(("eps", "count"), [(0, 5), (0.3, 4), (0.5, 3), (1.5, 1), (math.inf, 0)])
def test_the_interval_is_that_of_the_accuracy(certificate, eps, count):
    assert certificate.accuracy(eps) == count / 6 and certificate.interval(eps) == wilson(count, 6)
    assert certificate.interval(eps, 0.5) == wilson(count, 6, confidence=0.5)


def test_each_class_has_its_certified_accuracy(certificate):
    assert certificate.label.tolist() == LABELS.tolist()
    assert certificate.by_class(0) == (ClassAccuracy(0, 2, 2), ClassAccuracy(1, 3, 4))
    assert certificate.by_class(0.5) == (ClassAccuracy(0, 1, 2), ClassAccuracy(1, 2, 4))
    assert certificate.worst_class(0) == ClassAccuracy(1, 3, 4)
    assert certificate.worst_class(1) == ClassAccuracy(0, 0, 2)
    for eps in (0, 0.3, 1):
        rows = certificate.by_class(eps)
        assert sum(row.successes for row in rows) / sum(row.support for row in rows) == certificate.accuracy(eps)


def test_labels_come_along_from_batches_and_of_one_logit_as_classes():
    batches = certify(nn.Identity(), [(POINTS[:4], LABELS[:4]), (POINTS[4:], LABELS[4:].to(torch.uint8))])
    assert batches.label.tolist() == LABELS.tolist()
    sign = certify(nn.Identity(), torch.tensor([[-0.5], [0.25], [0.1]]), torch.tensor([-1, 1, -1]))
    assert sign.label.tolist() == [0, 1, 0]
    assert sign.by_class(0.3) == (ClassAccuracy(0, 1, 2), ClassAccuracy(1, 0, 1))


def test_without_labels_there_are_intervals_and_no_classes():
    certificate = certify(nn.Identity(), POINTS)
    assert certificate.label is None and certificate.interval(0.5) == wilson(4, 6)
    for ask in (certificate.by_class, certificate.worst_class, lambda eps: certificate.paired(certificate, eps)):
        with pytest.raises(TightlipError, match="knows no labels.*give certify the true classes"):
            ask(0.5)


@pytest.mark.parametrize("eps", [-1, math.nan, -math.inf, "a", None, [0.1]])
def test_radii_that_are_none_are_refused_by_all(certificate, eps):
    for ask in (Certificate.interval, Certificate.by_class):
        with pytest.raises(TightlipError, match="each radius must be a number|give a row of them"):
            inspect.unwrap(ask)(certificate, eps)
    with pytest.raises(TightlipError, match="each radius must be a number|give a row of them"):
        inspect.unwrap(Certificate.paired)(certificate, certificate, eps)


def test_no_inputs_have_no_interval():
    empty = certify(nn.Identity(), POINTS[:0], LABELS[:0])
    for ask in (empty.interval, empty.by_class, empty.worst_class):
        with pytest.raises(TightlipError, match="has no inputs"):
            ask(0)


def test_two_classifiers_are_compared_input_by_input(certificate):
    other = certify(nn.Identity(), POINTS.flip(1) + torch.tensor([1.2, 0.0]), LABELS)
    assert (certificate.radius > 0).tolist() == [True] * 5 + [False]
    assert (other.radius > 0).tolist() == [True, True, False, False, False, False]
    assert certificate.paired(other) == Paired(2, 3, 0, 1)
    assert certificate.paired(other, 0.5) == paired(certificate.radius > 0.5, other.radius > 0.5)
    assert certificate.paired(certificate, 0.5).p_value == 1


def test_what_cannot_be_compared_is_refused(certificate):
    with pytest.raises(TightlipError, match="compared with another one, got a Tensor"):
        inspect.unwrap(Certificate.paired)(certificate, certificate.radius)
    for other in (certify(nn.Identity(), POINTS[:3], LABELS[:3]), certify(nn.Identity(), POINTS, 1 - LABELS)):
        with pytest.raises(TightlipError, match="do not have the same labels"):
            certificate.paired(other)
    infinite = certify(nn.Identity(), POINTS, LABELS, p=math.inf)
    assert certificate.paired(infinite, 0).p_value == 1
    with pytest.raises(TightlipError, match="in the 2-norm and in the inf-norm are not comparable"):
        certificate.paired(infinite, 0.1)

"""Calls that are plainly wrong: each ends in one sentence that says what to give instead."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
from processes import python
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tightlip import (
    GroupSort,
    Orthonormal,
    TightlipError,
    activation_statistics,
    gradient_norm,
    hinge_kantorovich,
    jacobian_singular_values,
    kantorovich,
    lipschitz,
    lipschitz_margin_cross_entropy,
    margin_cross_entropy,
    mlp,
    multiclass_hinge,
    multiclass_hinge_kantorovich,
    summary,
)
from tightlip.linalg.schedules import bjorck

LOSSES = {
    "margin_cross_entropy": margin_cross_entropy,
    "multiclass_hinge": lambda logits, labels: inspect.unwrap(multiclass_hinge)(logits, labels, 1.0),
    "multiclass_hinge_kantorovich": multiclass_hinge_kantorovich,
}
X, Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
BATCHES = DataLoader(TensorDataset(X, Y))
NETWORK = nn.Linear(3, 3)


def test_a_newcomer_meets_answers_and_sentences_and_no_traceback():
    """In a process of its own, without the tests' shape checks."""
    script = Path(__file__).with_name("clumsy.py")
    done = python(script)
    assert (done.returncode, done.stdout) == (0, "")


def messages():
    """(file, text) of every sentence that the library raises; what is filled in is left out."""
    for path in sorted((Path(__file__).parents[1] / "src" / "tightlip").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "TightlipError":
                parts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                yield path.name, "…".join(part for part in parts if isinstance(part, str))


def test_sentences_are_plain_english():
    """'radius must be > 0, got -1' and not '-1 is no radius'."""
    found = list(messages())
    assert len(found) > 200
    idiom = re.compile(r"(?<!there )\b(is|are) no\b|\bmakes? no\b")
    assert [message for message in found if idiom.search(message[1])] == []


def refuses(says, function, *arguments, **options):
    """The sentence that a user meets: without the shape checks, which would speak first under test."""
    with pytest.raises(TightlipError, match=says) as caught:
        inspect.unwrap(function)(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [3, "bjorck", 0])
@pytest.mark.parametrize("name", ["schedule", "finish"])
def test_a_schedule_is_no_number_and_no_name(wrong, name):
    says = rf"{name} must be one of tightlip.linalg.schedules, such as bjorck\(3\), got {wrong!r}"
    refuses(says, Orthonormal.__init__, object.__new__(Orthonormal), **{name: wrong})
    assert Orthonormal(**{name: bjorck(3)})


@pytest.mark.parametrize("look", [jacobian_singular_values, gradient_norm, activation_statistics])
def test_what_is_looked_at_is_a_module_at_one_tensor(look):
    refuses("x, one batch at a time, must be a tensor or a numpy array, got a DataLoader", look, NETWORK, BATCHES)
    refuses("network must be an nn.Module, .* got a function", look, lambda x: x, X)


def test_a_summary_is_one_of_modules():
    refuses("network must be an nn.Module, .* got a function", summary, lambda x: x)


@pytest.mark.parametrize("output", [Y, torch.tensor(1), 1.0, "1"], ids=["labels", "a tensor", "a float", "a string"])
def test_the_output_whose_gradient_is_asked_for_is_one_integer(output):
    refuses("output must be an integer from 0 to 2, got", gradient_norm, NETWORK, X, output=output)


def test_activations_are_given_by_what_makes_them():
    with_activation = [3, 4, 3]
    refuses(
        r"activation must make a new layer .* got one layer, ReLU\(\): give a class",
        mlp,
        with_activation,
        activation=nn.ReLU(),
    )
    for maker, name in ((GroupSort, "GroupSort"), (None, "None"), (torch.relu, "relu")):
        says = rf"activation={name} cannot be called without arguments .* or partial\(GroupSort, 4\)"
        refuses(says, mlp, with_activation, activation=maker)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (X, Y.float()),
        (X, Y.int()),
        (X, Y[:5]),
        (X, Y[:, None]),
        (X, X.softmax(1)),
        (X, torch.tensor(0)),
        (X[:, 0], Y),
        (X[None], Y),
    ],
    ids=["floats", "int32", "too few", "a column", "probabilities", "one", "scores", "axes"],
)
def test_labels_are_one_integer_for_each_row_of_logits(loss, logits, labels):
    refuses(r"logits \(.*and labels \(.* do not fit: give logits .batch, classes.", LOSSES[loss], logits, labels)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (X[:, :2], Y % 2),
        (X[:, 0], Y[:5] % 2),
        (X[:, 0], (Y % 2).float()),
        (X[:, :1], Y[:5, None] % 2),
        (X[:, 0].sum(), Y % 2),
    ],
    ids=["two columns", "too few", "floats", "too short a column", "one number"],
)
def test_the_scores_of_two_classes_are_one_number_for_each_input(scores, labels):
    refuses("give one score and one integer per input", hinge_kantorovich, scores, labels)


def test_a_bound_is_more_than_the_constant_that_a_loss_takes():
    refuses("give its .constant", lipschitz_margin_cross_entropy, X, Y, lipschitz(NETWORK, 2), 0.1)


def test_the_distance_to_no_samples_is_refused_and_not_nan():
    refuses("0 and 6 samples have no distance", kantorovich, X[:0, 0], X[:, 0])
    refuses("6 and 0 samples have no distance", kantorovich, X[:, 0], X[:0, 0])


@pytest.mark.parametrize("outputs", [X, X[:, :2], X.sum()], ids=["three", "two", "none"])
def test_a_critic_has_one_output_per_sample(outputs):
    refuses(r"one number per sample, got outputs of shape", kantorovich, X[:, 0], outputs)
    refuses(r"one number per sample, got outputs of shape", kantorovich, outputs, X[:, :1])


def containing_itself():
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    network[1].append(network)
    return network


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.Linear, r"Linear is a class: give a network \(nn\.Module\) that was made of it"),
        ([nn.Linear(2, 2)], r"got a list: give layers as nn\.Sequential"),
        (None, "got a NoneType"),
        (containing_itself(), "the Sequential at '1.1' contains itself"),
    ],
    ids=["a class", "a list", "nothing", "itself"],
)
def test_what_is_no_network_is_not_audited(network, says):
    refuses(says, lipschitz, network, 2)

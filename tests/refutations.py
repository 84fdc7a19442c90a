"""False statements, each of which a sound checker refuses: ``refute(check)`` fails where ``check`` does not.

`test_rejects` asks them of `tightlip_check`, and `test_mutants` of copies of it that were made unsound.
"""

import io
import json
import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import torch
from checked import INF, REJECTED, UNCHECKED, Files, files, outcome, written
from torch import nn

from tightlip import LinfDistance, MeanShift, Normalize, Residual, Scale
from tightlip.transport import Funnels

REFUTATIONS: dict[str, Callable[[Any], None]] = {}
"""By name; each asserts what must be refused."""

B, HALF_GAP = 2.0**30, 0.6 * 2.0**-22
"""B + HALF_GAP rounds to B + 2⁻²² in float64."""


def refutation(function):
    REFUTATIONS[function.__name__] = function
    return function


def refused(check, *forged: Files, exact: bool = False):
    for one in forged:
        assert outcome(check, one, exact) == REJECTED


@refutation
def radii_that_are_too_large(check):
    for name in ("dense", "dense, inf", "one logit", "distances", "funnels, 1"):
        held = files(name)
        radii = held.claims()["radius"]
        for row in [i for i, r in enumerate(radii) if r > 0][:3]:
            refused(check, held.radius(row, radii[row] * (1 + 1e-6)), held.radius(row, radii[row] * 1.01))
        refused(check, held.radius(2, None), held.radius(0, 1e-9), held.radius(1, 1e-9), held.radius(2, -1.0))


@refutation
def radii_of_what_is_predicted_instead_of_the_label(check):
    held = files("dense")
    claims = held.claims()
    assert claims["prediction"][4] != claims["label"][4]
    predicted = held.stating(lambda c: (c["radius"].__setitem__(4, 1e-3), c["margin"].__setitem__(4, None)))
    refused(check, predicted)


@refutation
def constants_that_are_too_small(check):
    for name in ("dense", "dense, 1", "dense, inf", "convnet", "residual", "any kernels", "a signal"):
        held = files(name)
        refused(check, held.stating(constant=held.claims()["constant"] * (1 - 1e-6)))


@refutation
def norms_that_are_too_small(check):
    for name, layer in (("dense", "2"), ("convnet", "2"), ("any kernels", "0")):
        held = files(name)
        low = held.stating(lambda c, key=layer: c["grounds"]["norms"].update({key: 0.99 * c["grounds"]["norms"][key]}))
        refused(check, low)
        refused(check, low.stating(constant=0.99 * held.claims()["constant"]))
    tiny = files("tiny")
    exact = tiny.stating(lambda c: c["grounds"]["norms"].__setitem__("0", 0.999 * c["grounds"]["norms"]["0"]))
    refused(check, exact, exact=True)


@refutation
def margins_and_predictions(check):
    held = files("dense")
    claims = held.claims()
    for row, margin in enumerate(claims["margin"]):
        if margin is not None:
            refused(check, held.stating(lambda c, i=row, m=margin: c["margin"].__setitem__(i, m + 1e-9)))
    refused(check, held.stating(lambda c: c["margin"].__setitem__(1, -1.0)))  # of an input that is not finite
    other = (claims["prediction"][2] + 1) % 4
    refused(check, held.stating(lambda c: c["prediction"].__setitem__(2, other)))


@refutation
def other_labels(check):
    held = files("dense")
    labels = held.claims()["label"]
    refused(check, held.stating(label=[(labels[0] + 1) % 4, *labels[1:]]), held.stating(label=labels[:-1]))
    swapped = held.stating(lambda c: (c["label"].__setitem__(0, c["prediction"][0]), c["radius"].__setitem__(0, 1e-4)))
    refused(check, swapped)


@refutation
def accuracies_that_do_not_follow(check):
    held = files("dense")
    true = sum(r > 0 for r in held.claims()["radius"]) / 12
    assert outcome(check, held.stating(eps=[0.0], certified_accuracy=[true])) == 0
    refused(check, held.stating(eps=[0.0], certified_accuracy=[true + 0.01]))
    refused(check, held.stating(eps=[-1.0], certified_accuracy=[1.0]), held.stating(eps=[0.0], certified_accuracy=[]))
    refused(check, held.stating(sensitivity=0.5), held.stating(bound=held.claims()))  # stated twice, and differently


@refutation
def another_model(check):
    held = files("dense")
    flipped = bytearray(held.model)
    flipped[-1] ^= 1
    refused(check, held._replace(model=bytes(flipped)), held._replace(model=held.model[:-4]))
    refused(check, held._replace(model=files("dense, 1").model), held._replace(model=b""))
    alike = files("residual")
    other = alike.model.replace(b'p\\": 0.5', b'p\\": 0.6')  # of a Dropout: nothing is computed otherwise
    assert other != alike.model
    refused(check, alike._replace(model=other))


@refutation
def weights_that_grew(check):
    held = files("unconstrained")
    length = int.from_bytes(held.model[:8], "little")
    start = 8 + length + json.loads(held.model[8 : 8 + length])["1.weight"]["data_offsets"][0]
    stop = 8 + length + json.loads(held.model[8 : 8 + length])["1.weight"]["data_offsets"][1]
    grown = (np.frombuffer(held.model[start:stop], "<f4") * np.float32(1.01)).tobytes()
    refused(check, held._replace(model=held.model[:start] + grown + held.model[stop:]).stating())


def saved(x, y) -> bytes:
    np.savez(buffer := io.BytesIO(), x=x, y=y)
    return buffer.getvalue()


@refutation
def other_inputs(check):
    held = files("dense")
    x, y = check.read_inputs(held.data)[:2]
    x, unseen = x.astype(np.float32), x.astype(np.float32)
    unseen[1, 0] += 1  # of the input that is not finite: nothing is certified of it
    for others in ((unseen, y), (x + 0.01, y), (x, (y + 1) % 4), (x[:-1], y[:-1])):
        refused(check, held._replace(data=saved(*others)))
    refused(check, held._replace(data=held.data[:-30]), held._replace(data=b""))


@refutation
def inputs_nearer_to_the_border(check):
    """Another input, with its own hash, for the radii of the old one."""
    held = files("dense")
    x, y, _ = check.read_inputs(held.data)
    x[2] = (x[2] + x[3]) / 2
    digest = check.read_inputs(saved(x, y))[2]
    refused(check, held._replace(data=saved(x, y)).stating(lambda c: c["grounds"].update(inputs_sha256=digest)))


@refutation
def what_was_changed_without_its_seal(check):
    held = files("dense")
    refused(check, held._replace(certificate=held.certificate.replace(b'"data": "x"', b'"data": "y"')))
    refused(check, held._replace(certificate=held.certificate[:-20]), held._replace(certificate=b"[]"))
    without = held.claims()
    del without["sha256"]
    refused(check, held._replace(certificate=json.dumps(without).encode()))


@refutation
def what_is_no_number(check):
    held = files("dense")
    radius = held.claims()["radius"][2]
    for value in (str(radius), [radius], {}, True, False):
        refused(
            check,
            held.radius(2, value),
            held.stating(constant=value),
            held.stating(lambda c, v=value: c["margin"].__setitem__(2, v)),
        )
    refused(check, held.stating(lambda c: c["label"].__setitem__(2, float(c["label"][2]))))
    refused(check, held.stating(lambda c: c["grounds"]["norms"].__setitem__("0", "1.1")))
    for odd in (b"NaN", b"Infinity", b"1e999", b"-Infinity"):
        start, _, rest = held.certificate.partition(b'"constant": ')
        refused(check, held._replace(certificate=start + b'"constant": ' + odd + b", " + rest.partition(b", ")[2]))
    refused(check, held._replace(certificate=b'{"constant": 1e-3, ' + held.certificate.partition(b"{")[2]))  # twice


@refutation
def norms_of_no_layer(check):
    held = files("dense")
    refused(check, held.stating(lambda c: c["grounds"]["norms"].update(foreign=1.0)))


@refutation
def other_versions(check):
    held = files("dense")
    for change in (
        lambda c: c["grounds"].update(version=2),
        lambda c: c.pop("grounds"),
        lambda c: c.update(grounds=None),
    ):
        assert outcome(check, held.stating(change)) == UNCHECKED
    assert outcome(check, held.stating(lambda c: c["grounds"].update(merged=["0 to 2"]))) == UNCHECKED
    assert outcome(check, held.stating(arithmetic="float32")) == UNCHECKED
    assert outcome(check, held._replace(data=None)) == UNCHECKED
    refused(check, held.stating(lambda c: c.update(constant=0.1))._replace(data=None))


def alone(*layers: nn.Module, x=None, p: float = 2, y: int = 0) -> Files:
    """One input of a small network."""
    x = torch.zeros(1, 1, 8) if x is None else torch.tensor([x], dtype=torch.float64)
    return written(nn.Sequential(*layers).double(), x, torch.tensor([y]), p)


def linear(weight, bias) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight)).double()
    layer.weight.data, layer.bias.data = torch.tensor(weight).double(), torch.tensor(bias).double()
    return layer


def shifted(*mean: float) -> MeanShift:
    layer = MeanShift(len(mean)).double()
    layer.mean.copy_(torch.tensor(mean))
    return layer.eval()


@refutation
def two_logits_that_move_apart(check):
    """Of f(x) = x a difference of 1 is gone after 1/√2."""
    held = alone(nn.ReLU(), x=[2.0, 1.0])
    assert abs(held.claims()["radius"][0] - math.sqrt(0.5)) < 1e-9
    refused(check, held.radius(0, 0.71), held.radius(0, 1.0))


IDENTITY = [[1.0, 0.0], [0.0, 1.0]]


@cache
def rounded() -> list[tuple[Files, float]]:
    """Networks whose float64 lead is larger than the true one, and a radius in between."""
    between, x = 0.8 * 2.0**-22, [HALF_GAP, 0.0]
    there, back = linear(IDENTITY, [B, 0.0]), linear(IDENTITY, [-B, 0.0])
    far = LinfDistance(1, 2).double()
    far.weight.data.zero_()
    far.bias.data = torch.tensor([B, 0.0]).double()
    return [
        (alone(there, nn.ReLU(), back, x=x), between / math.sqrt(2)),
        (alone(shifted(-B, 0.0), nn.ReLU(), shifted(B, 0.0), x=x), between / math.sqrt(2)),
        (alone(there, nn.ReLU(), back, Scale(1000.0), x=x), between / math.sqrt(2)),
        (alone(far, shifted(B, 0.0), x=[HALF_GAP], p=INF), 0.1 * 2.0**-22),
    ]


@refutation
def leads_that_are_rounded_up(check):
    for held, radius in rounded():
        assert held.claims()["radius"] == [0]
        refused(check, held.radius(0, radius))


@refutation
def norms_that_kinds_of_layers_do_not_have(check):
    """A constant that a wrong rule would prove, from the ``p``-norm to the ``q``-norm."""
    f = linear([[0.1]], [0.0])
    for held, constant, q in (
        (alone(nn.MaxPool1d(3, 1), nn.Flatten()), 1.0, "2"),
        (alone(Residual(f), x=[1.0]), 0.2, "2"),
        (alone(Normalize([0.0, 0.0], [0.1, 1.0]), nn.ReLU(), x=[1.0, 2.0]), 1.0, "2"),
        (alone(Funnels(torch.zeros(2, 4), torch.zeros(2), p=2), x=[1.0] * 4, p=INF), 1.0, "inf"),
        (alone(linear([[3.0, 4.0], [0.0, 0.0]], [0.0, 0.0]), x=[1.0, 0.0], p=INF), 5.0, "inf"),
        (alone(linear([[3.0, 0.0], [4.0, 0.0]], [0.0, 0.0]), x=[1.0, 0.0], p=1), 4.0, "2"),
        (alone(nn.Conv1d(1, 1, 3, bias=False), nn.Flatten()), 1e-3, "2"),
        (alone(Scale(3.0), nn.ReLU(), Scale(2.0), x=[1.0, 2.0]), 3.0, "2"),
    ):
        refused(check, held.stating(constant=constant, output_norm=q))


@refutation
def kernels_between_the_frequencies_that_are_looked_at(check):
    for taps, false, true in (([1, 1], 1.9, 2.01), ([1, -1], 1.9, 2.01), ([1, 0, 1e-3], 1 + 8e-4, 1 + 3e-3)):
        kernel = np.array(taps, float)[None, None]
        assert check.holds(kernel, Fraction(true)) and not check.holds(kernel, Fraction(false))


@refutation
def matrices_whose_products_are_rounded_down(check):
    """Sums of squares that float64 takes for less: 100,000 equal ones, each addition rounded alike."""
    lower = 0
    for value in np.linspace(0.51, 0.99, 12).tolist():
        W = np.full((100_000, 1), value)
        true, found = 100_000 * Fraction(value) ** 2, Fraction(float((W.T @ W)[0, 0]))
        if found < true * (1 - 40 * check.U):
            lower += 1
            assert not check.factors(W, true * (1 - 2 * check.U))
    assert lower > 2


@refutation
def matrices_whose_factorization_errs_as_far_as_it_may(check):
    """γ_{n+1}·trace is what a Cholesky factorization can miss."""
    W = np.diag([0.75] + [0.1] * 63)
    square = Fraction(0.75) ** 2 - 1000 * check.U
    missed = float(check.gamma(65) * (64 * square - Fraction(0.75) ** 2 - 63 * Fraction(0.1) ** 2))

    def blind(A):
        if np.linalg.eigvalsh(A)[0] < -0.9 * missed:
            raise np.linalg.LinAlgError
        return np.eye(len(A))

    with mock.patch.object(np.linalg, "cholesky", blind):
        assert check.factors(W, square + 5000 * check.U) and not check.factors(W, square)


@refutation
def matrices_that_are_not_definite(check):
    for seed in range(12):
        W = np.random.default_rng(seed).integers(-3, 4, (5, 4)).astype(float)
        for square in range(1, 90, 4):
            truth = np.linalg.norm(W, 2) ** 2 <= square
            assert check.factors(W, Fraction(square)) == truth == check.factors(check.rational(W), Fraction(square))
            assert check.factors(W, Fraction(square), -1) == (np.linalg.svd(W)[1][-1] ** 2 >= square)

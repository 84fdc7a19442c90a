"""The running bound on rounding: above the true error in rationals, through branches too, and not needlessly large."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from tightlip import Gains, MaxMin, Normalize, Residual, Roundoff, Scale, TightlipError, certify, rule
from tightlip.audit import audit
from tightlip.robustness.evaluation import evaluate, wide
from tightlip.training import predict


def audited(network):
    return wide(network, audit(network))


def shift(by, width=3):
    """x ↦ x + by, exactly the identity again after `shift(-by)`; in float64 all below 2⁻⁵³·by is lost."""
    layer = nn.Linear(width, width, dtype=torch.float64)
    layer.weight.data = torch.eye(width, dtype=torch.float64)
    layer.bias.data.fill_(by)
    return layer


def strayed(network, x):
    """The outputs, the bound on their error, and for networks that equal the identity the true error."""
    y, error = evaluate(audited(network), x.clone())
    true = [
        math.hypot(*(float(Fraction(a) - Fraction(b)) for a, b in zip(*rows, strict=True)))
        for rows in zip(y.flatten(1).tolist(), x.flatten(1).tolist(), strict=True)
    ]
    return y, error, torch.tensor(true, dtype=torch.float64)


LOSSY = [shift(1e9), shift(-1e9)]
IDENTITIES = {
    "in the branch": Residual(*LOSSY),
    "before the block": nn.Sequential(*LOSSY, Residual(nn.Identity())),
    "after it": nn.Sequential(Residual(nn.Sequential()), *LOSSY),
    "two deep": Residual(Residual(*LOSSY), nn.Identity()),
    "in a branch and around it": nn.Sequential(*LOSSY, Residual(Residual(*LOSSY), *LOSSY)),
}


@pytest.mark.parametrize("kind", IDENTITIES)
def test_what_is_lost_in_a_branch_is_in_the_bound(kind, seed):
    y, error, true = strayed(IDENTITIES[kind], torch.randn(50, 3, dtype=torch.float64))
    assert (true > 1e-9).any() and (true <= error).all()
    assert (error <= 1e3 * true.max()).all()
    assert (error > 1e6 * 2.0**-53 * y.norm(dim=1)).all()  # far more than the rounding of the block's own addition


@pytest.mark.parametrize("K", [0.5, 1.0, 1000.0])
def test_an_error_before_a_block_is_carried_through_it_and_its_branch(K, seed):
    x = torch.randn(20, 3, dtype=torch.float64)
    _, before = evaluate(audited(nn.Sequential(*LOSSY)), x.clone())
    _, after = evaluate(audited(nn.Sequential(*LOSSY, Residual(Scale(K)))), x.clone())
    assert (after >= (1 + K) / 2 * before).all()
    assert (after <= (1 + K) / 2 * before * 1.001 + 1e-12).all()


def test_a_residual_without_rounding_inside_rounds_once(seed):
    x = torch.randn(50, 4, dtype=torch.float64) * 2.0 ** torch.randint(-40, 40, (50, 4))
    y, error = evaluate(audited(Residual(MaxMin())), x.clone())
    for row, out, bound in zip(x.tolist(), y.tolist(), error.tolist(), strict=True):
        h = [Fraction(v) for v in row]
        exact = [(a + b) / 2 for a, b in zip(h, [*sorted(h[:2]), *sorted(h[2:])], strict=True)]
        assert math.hypot(*(float(Fraction(v) - e) for v, e in zip(out, exact, strict=True))) <= bound
        assert bound <= 4 * 2.0**-53 * math.hypot(*out) + 1e-200


def test_the_evaluation_of_a_residual_is_its_forward(seed):
    network = nn.Sequential(nn.Linear(4, 4), Residual(nn.Linear(4, 6), MaxMin(), nn.Linear(6, 4)), Scale(3.0)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    y, _ = evaluate(audited(network), x.clone())
    assert torch.equal(y, network(x))


@pytest.mark.parametrize("network", [Residual(nn.Linear(4, 1)), nn.Sequential(nn.ReLU(), Residual(nn.Linear(4, 5)))])
def test_a_branch_of_another_shape_is_refused(network):
    with pytest.raises(TightlipError, match="keep the shape"):
        evaluate(audited(network), torch.ones(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("evaluation", [certify, predict])
@pytest.mark.parametrize(
    ("made", "shape", "reason"),
    [
        (48, (2, 1, 4, 4), r"it was made for 48 values per input, these have 16 .gray against color.."),
        (16, (2, 3, 4, 4), r"it was made for 16 values per input, these have 48 .gray against color.."),
        (16, (2, 1, 5, 5), r"it was made for 16 values per input, these have 25$"),
        (16, (2, 17), r"it was made for 16 values per input, these have 17$"),
    ],
)
def test_inputs_of_another_size_are_told_apart_by_their_number_of_values(evaluation, made, shape, reason):
    network = nn.Sequential(Normalize(0.5, 0.5), nn.Sequential(nn.Flatten(), nn.Linear(made, 2)))
    with pytest.raises(TightlipError, match=rf"inputs of shape \(2, .*do not fit the network: {reason}"):
        evaluation(network, torch.zeros(shape))


def test_what_fails_for_another_reason_says_its_own():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(4, 2))
    with pytest.raises(TightlipError, match="do not fit the network: mat1 and mat2"):
        certify(network, torch.zeros(2, 4))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predict(network, torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("pair", "entries", "outputs"),
    [((math.inf, math.inf), [1.0] * 3, 12), ((2.0, math.inf), [1.0, 0.0, 0.0], 12), ((1.0, 1.0), [1.0] * 3, 1)],
)
def test_an_error_passes_a_layer_that_is_known_in_other_norms(pair, entries, outputs):
    """In the 2-norm four copies have the constant 2, and a sum of three entries √3; from 1 to 1 the latter has 1."""

    class Through(nn.Module):
        def forward(self, x):
            return x.repeat(1, 4) if outputs == 12 else x.sum(1, keepdim=True)

    rule(Through)(lambda module: Gains({pair: 1.0}, Roundoff()))
    x = torch.tensor([entries], dtype=torch.float64)
    _, before = evaluate(audited(nn.Sequential(*LOSSY)), x.clone())
    _, after = evaluate(audited(nn.Sequential(*LOSSY, Through())), x.clone())
    least = 2.0 if outputs == 12 else math.sqrt(3.0)
    assert (least * before <= after).all() and (after <= 4.001 * before).all()


def held(layer, **numbers):
    for name, value in numbers.items():
        setattr(layer, name, torch.tensor(value, dtype=torch.float64))
    return layer


ROUNDING = {
    "Normalize": (held(Normalize(0.0, 1.0), mean=0.1, std=0.7), lambda a: (a - Fraction(0.1)) / Fraction(0.7)),
    "Scale": (held(Scale(1.0), scale=0.3), lambda a: a * Fraction(0.3)),
    "LeakyReLU": (nn.LeakyReLU(0.3), lambda a: a if a > 0 else a * Fraction(0.3)),
    "Hardsigmoid": (nn.Hardsigmoid(), lambda a: min(max(a + 3, 0), 6) / 6),
    "Softsign": (nn.Softsign(), lambda a: a / (1 + abs(a))),
}


@pytest.mark.parametrize("name", ROUNDING)
def test_what_one_layer_rounds_is_taken_off_the_margin_of_near_ties(name, seed):
    """Two entries some bits apart: their images differ by less or more than the computed ones do."""
    layer, exactly = ROUNDING[name]
    first = torch.randn(500, dtype=torch.float64)
    x = torch.stack((first, first * (1 + torch.randint(1, 9, (500,)).double() * 2.0**-52)), 1)
    certificate = certify(nn.Sequential(layer, nn.Identity()), x)
    for row, margin, t in zip(x.tolist(), certificate.margin.tolist(), certificate.prediction.tolist(), strict=True):
        images = [exactly(Fraction(a)) for a in row]
        assert Fraction(margin) <= images[t] - images[1 - t]

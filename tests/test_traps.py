"""The traps about certificates: each rule that looks right and is not, with the example that refutes it."""

import math
import signal
from fractions import Fraction

import pytest
import torch
from torch import nn
from truths import linear

from tightlip import Gains, MaxMin, RowL1Ball, Scale, TightlipError, freeze, lipschitz, mlp, rule, save
from tightlip.losses import multiclass_hinge
from tightlip.robustness import certify, pgd

INF = math.inf


PLUS_MINUS = linear([[1.0], [-1.0]])  # f(x) = (x, −x), with K = 1 in the ∞-norm


def test_the_papers_equation_3_is_refuted_by_plus_minus_x():
    """M > Kε/2 holds for x = 0.3, ε = 1 (0.6 > 0.5), and yet x − 0.6 is of the other class."""
    x, eps, constant = torch.tensor([[0.3]], dtype=torch.float64), 1.0, lipschitz(PLUS_MINUS, INF, INF).constant
    margin = 0.6
    assert constant == pytest.approx(1.0) and margin > constant * eps / 2
    flipped = pgd(PLUS_MINUS, x, torch.tensor([0]), eps, INF, clamp=None)
    assert PLUS_MINUS(flipped).argmax() == 1
    certificate = certify(PLUS_MINUS, x, p=INF)
    assert certificate.accuracy(eps) == 0.0
    assert float(certificate.radius) == pytest.approx(margin / (2 * constant))  # a factor 4 below Eq. 3's 1.2


def test_the_rule_of_figure_9_is_refuted_by_plus_minus_x():
    """M ≥ Kε would certify ε = 0.5 at x = 0.3, but x − 0.4 is of the other class."""
    x, eps = torch.tensor([[0.3]], dtype=torch.float64), 0.5
    assert lipschitz(PLUS_MINUS, INF, INF).constant * eps <= 0.6
    assert PLUS_MINUS(x - 0.4).argmax() == 1
    assert certify(PLUS_MINUS, x, p=INF).accuracy(eps) == 0.0


@pytest.mark.parametrize(("q", "factor"), [(1, 1.0), (2, math.sqrt(2.0)), (INF, 2.0)])
def test_the_factor_belongs_to_the_output_norm(q, factor):
    bound = lipschitz(Scale(8.0), 1, q)
    assert bound.sensitivity == pytest.approx(8.0 * factor, rel=1e-15)
    assert Fraction(bound.sensitivity) >= Fraction(8) * (1 if q == 1 else 2 if q == INF else Fraction(factor))
    if q == 2:
        assert Fraction(bound.sensitivity) ** 2 >= 2 * 64


@pytest.mark.parametrize(("q", "worst"), [(1, [1.0, 0.0]), (2, [0.5**0.5, -(0.5**0.5)]), (INF, [1.0, -1.0])])
def test_no_smaller_factor_would_do(q, worst):
    """A step of the logits beyond the certified radius, in the q-norm, changes the class; one within it does not."""
    logits, step = torch.tensor([[0.5, 0.0]], dtype=torch.float64), torch.tensor(worst, dtype=torch.float64)
    certificate = certify(nn.Identity(), logits, p=q)
    radius = float(certificate.radius)
    assert float(torch.linalg.vector_norm(step, q)) == pytest.approx(1.0)
    assert radius == pytest.approx(0.5 / 2 ** (1 - 1 / q), rel=1e-9)
    assert (logits - 0.999999 * radius * step).argmax() == 0
    assert (logits - 1.000001 * radius * step).argmax() == 1


def test_a_two_to_infinity_network_is_certified_with_the_factor_two():
    """Rows of unit 2-norm, then ∞-norm layers: K = 1 from 2 to ∞, and the margin is worth a half of itself."""
    network = nn.Sequential(linear([[1.0, 0.0], [-1.0, 0.0]]))
    certificate = certify(network, torch.tensor([[0.3, 0.0]]), p=2)
    assert lipschitz(network, 2, INF).constant == pytest.approx(1.0)
    assert float(certificate.radius) == pytest.approx(0.3, rel=1e-6) and float(certificate.radius) < 0.3000001
    assert network(torch.tensor([[-0.001, 0.0]], dtype=torch.float64)).argmax() == 1


@pytest.mark.parametrize("K", [1.0, 1000.0])
def test_a_hinge_margin_of_k_times_a_certifies_half_of_a_and_not_a(K):
    """f(x) = K·(x, −x): the loss is zero from x = a/2 on, and exactly there x − a/2 ties."""
    a, network = 0.1, nn.Sequential(PLUS_MINUS, Scale(K))
    x = torch.tensor([[a / 2]], dtype=torch.float64)
    scale = float(network[1].scale)
    assert float(multiclass_hinge(network(x), torch.tensor([0]), kappa=scale * a)) == pytest.approx(0.0, abs=1e-9)
    certificate = certify(network, x, p=INF)
    assert float(certificate.radius) == pytest.approx(a / 2, rel=1e-9)
    assert certificate.accuracy(0.999 * a / 2) == 1.0 and certificate.accuracy(a) == 0.0
    assert network(x - 0.51 * a).argmax() == 1


@pytest.mark.parametrize("p", [1, 2, INF])
@pytest.mark.parametrize(
    "row",
    [
        [0.5, 0.5, 0.0],
        [0.0, 0.0, 0.0],
        [math.nan, 0.0, 0.0],
        [1.0, math.nan, 0.0],
        [math.inf, 0.0, 0.0],
        [0.0, -math.inf, 1.0],
        [math.inf, math.inf, 0.0],
    ],
)
@pytest.mark.parametrize("network", [nn.Identity(), MaxMin(dim=1), nn.Tanh(), nn.Sequential(linear([[1.0, 0, 0]] * 2))])
def test_ties_nan_and_infinity_are_never_certified(network, row, p):
    if type(network) is MaxMin:
        row = [*row, 0.5 if 0.5 in row else max(row[0], row[2])]  # whatever is largest stays tied, or not finite
        network = nn.Sequential(network, linear([[0.0, 0, 0, 1], [0.0, 0, 0, 1]]))
    for y in (None, torch.tensor([0])):
        certificate = certify(network, torch.tensor([row], dtype=torch.float64), y, p)
        assert float(certificate.radius) == 0.0 and certificate.accuracy(0) == 0.0


@pytest.mark.parametrize("row", [[math.inf, 0.0], [math.nan, 0.0], [0.0, -math.inf]])
def test_inputs_that_are_not_finite_stay_uncertified_behind_a_layer_that_makes_them_finite(row):
    """tanh(∞) = 1: the logits look sane, but ∞ is no input."""
    network = nn.Sequential(nn.Tanh(), nn.Identity(), linear([[1.0, 2.0], [0.0, 3.0]], [0.5, 0.0]), nn.Identity())
    for p in (1, 2, INF):
        assert certify(network, torch.tensor([row]), p=p).accuracy(0) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_prove_nothing(bad):
    with pytest.raises(TightlipError, match="NaN or inf"):
        certify(linear([[1.0, bad], [0.0, 1.0]]), torch.ones(1, 2))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_biases_that_are_not_finite_certify_nothing(bad):
    with pytest.raises(TightlipError, match="NaN or inf"):
        certify(linear([[1.0, 0.0], [0.0, 1.0]], [bad, 0.0]), torch.ones(1, 2))


@pytest.mark.parametrize("scale", [1e-4, 1e-20, 1e-40])
@pytest.mark.parametrize("p", [1, 2, INF])
def test_tiny_weights_neither_vanish_nor_inflate_radii(scale, p):
    """f(x) = s·(x, −x) flips at x whatever s is; a constant rounded to zero would promise infinity."""
    network = linear([[scale], [-scale]], dtype=torch.float32)
    certificate = certify(network, torch.tensor([[0.3]]), p=p)
    assert 0 < certificate.bound.constant < 2 * scale
    assert float(certificate.radius) == pytest.approx(0.3, rel=1e-6) and float(certificate.radius) <= 0.3 + 1e-7


def test_seven_tiny_layers_underflow_to_no_certificate_rather_than_to_an_infinite_one():
    network = nn.Sequential(*[linear([[1e-45, 0.0], [0.0, 1e-45]], dtype=torch.float32) for _ in range(8)])
    certificate = certify(network, torch.tensor([[0.9, 0.1]]))
    assert certificate.bound.constant > 0 and certificate.accuracy(0) == 0.0


def test_biases_that_swallow_the_signal_leave_nothing_to_certify():
    """5e6 + 1e-10 is 5e6 also in float64: the computed margin is rounding, and is not certified."""
    network = nn.Sequential(linear([[1e-10], [-1e-10]], [5e6, 5e6], torch.float32), linear([[1.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[1.0], [-1.0], [3.0]])
    certificate = certify(network, x, torch.zeros(3, dtype=torch.long))
    assert certificate.accuracy(0) == 0.0


def test_biases_that_leave_the_signal_alone_cost_only_their_rounding():
    network = linear([[1.0], [-1.0]], [5e6, 5e6], torch.float32)
    certificate = certify(network, torch.tensor([[0.3]], dtype=torch.float64))
    assert 0.3 - 1e-7 < float(certificate.radius) <= 0.3


def test_a_constant_network_is_certified_everywhere_or_nowhere():
    """Zero weights: no perturbation changes anything, so the radius is infinite, unless the constant is a tie."""
    x = torch.tensor([[0.3], [-7.0]])
    untied = certify(linear([[0.0], [0.0]], [1.0, 0.0]), x)
    assert untied.radius.tolist() == [INF, INF] and untied.bound.constant == 0.0 and untied.accuracy(1e300) == 1.0
    assert certify(linear([[0.0], [0.0]], [1.0, 0.0]), x, torch.tensor([0, 1])).radius.tolist() == [INF, 0.0]
    assert certify(linear([[0.0], [0.0]], [1.0, 1.0]), x).radius.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("p", [2, INF])
def test_certified_radii_of_random_networks_survive_the_attack(p, seed):
    network = freeze(mlp([6, 12, 12, 3], None if p == 2 else RowL1Ball(), K=8.0)).double()
    x = torch.randn(100, 6, dtype=torch.float64)
    certificate = certify(network, x, p=p)
    eps = 0.999 * certificate.radius
    found = pgd(network, x, certificate.prediction, eps, p, steps=60, restarts=2, clamp=None)
    assert (certificate.radius > 0).all()
    assert torch.equal(network(found).argmax(1), certificate.prediction)


def test_a_row_one_rounding_above_the_ball_is_projected_in_finite_time():
    """An entry that equals the threshold up to rounding must not enter and leave the active set forever."""
    row = [
        *(0.08920623362064362, 0.009935494512319565, 0.11945988982915878, 1.1353463946761622e-08),
        *(0.010435945354402065, 0.009837555699050426, 0.004198181908577681, 0.11507773399353027),
        *(0.1947105973958969, 0.00991871114820242, 0.010405324399471283, 0.08331944048404694),
        *(0.3353975713253021, 0.0036717464681714773, 0.0002211922692367807, 0.004204530268907547),
    ]
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the projection does not end"))
    signal.alarm(5)
    try:
        projected = RowL1Ball().map(torch.tensor([row]))
    finally:
        signal.alarm(0)
    assert torch.allclose(projected, torch.tensor([row]), atol=1e-6) and RowL1Ball().contains(projected)


def test_the_error_of_an_early_layer_is_carried_through_the_steep_ones_after_it():
    network = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2)).double()
    network[0].weight.data.fill_(1.0)
    network[0].bias.data.zero_()
    network[1].weight.data = torch.tensor([[1e6], [0.0]], dtype=torch.float64)
    network[1].bias.data = torch.tensor([-5e5, 0.0], dtype=torch.float64)
    x = torch.tensor([[1e17, 1.0, -1e17]], dtype=torch.float64)  # exactly, the logits are (5e5, 0)
    assert certify(network, x).radius == 0


def test_the_radius_is_the_lowered_margin_rounded_down():
    x = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    certificate = certify(nn.Identity(), x, p=2)
    sensitivity = Fraction(certificate.bound.sensitivity)
    for radius, margin in zip(certificate.radius.tolist(), certificate.margin.tolist(), strict=True):
        assert radius == 0 or Fraction(radius) * sensitivity < Fraction(margin)


def test_a_rule_without_a_roundoff_is_audited_and_not_certified():
    class Sum(nn.Module):
        def forward(self, x):
            total = x[:, 0] + x[:, 1] + x[:, 2] + x[:, 3]
            return torch.stack((total / 2, -total / 2), 1)

    rule(Sum)(lambda module: Gains({(2.0, 2.0): 2.0}))
    assert lipschitz(Sum(), 2, 2).constant == 2
    with pytest.raises(TightlipError, match="Roundoff"):
        certify(Sum(), torch.tensor([[1e17, -3.0, -1e17, 1.0]], dtype=torch.float64))


def test_certify_leaves_float64_inputs_alone_behind_an_activation_in_place():
    x = torch.tensor([[-1.0, 2.0]], dtype=torch.float64)
    certify(nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True)), x)
    assert x.tolist() == [[-1.0, 2.0]]


def test_flushed_denormals_are_refused():
    layer = nn.Linear(1, 2)
    assert torch.set_flush_denormal(True)
    try:
        with pytest.raises(TightlipError, match="set_flush_denormal"):
            lipschitz(layer, 2)
    finally:
        torch.set_flush_denormal(False)
    assert lipschitz(layer, 2).constant > 0


def test_a_tensor_that_hides_the_one_in_the_state_dict_is_refused(tmp_path):
    """The layer computes with the attribute, and its file would hold the parameter: ten times less here."""
    layer = nn.Linear(3, 3)
    layer.__dict__["weight"] = 10 * layer.weight.detach()
    for ask in (lambda: lipschitz(layer, 2), lambda: save(layer, tmp_path / "m")):
        with pytest.raises(TightlipError, match="a weight that hides the one in its state_dict"):
            ask()

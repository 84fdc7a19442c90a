"""Certified radii: exact where the truth is known, never above it, and reached by an attack where layers are tight."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import nn
from truths import linear

from tightlip import Gains, MaxMin, Normalize, Residual, RowL1Ball, Scale, TightlipError, freeze, lipschitz, mlp, rule
from tightlip.data import load, split
from tightlip.losses import margin_cross_entropy
from tightlip.robustness import Certificate, certify, pgd
from tightlip.training import fit

INF = math.inf


def exact_outputs(network, row):
    """Linear, MaxMin by neighbours, ReLU, Scale and Residual in rationals: what the stored numbers really compute."""
    return exactly_through(network, [Fraction(value) for value in row.tolist()])


def exactly_through(network, h):
    for layer in network:
        if type(layer) is nn.Linear:
            bias = layer.bias.tolist() if layer.bias is not None else [0.0] * len(layer.weight)
            weight = [[Fraction(w) for w in line] for line in layer.weight.tolist()]
            h = [
                sum((w * v for w, v in zip(line, h, strict=True)), Fraction(b))
                for line, b in zip(weight, bias, strict=True)
            ]
        elif type(layer) is MaxMin:
            h = [value for a, b in zip(h[::2], h[1::2], strict=True) for value in sorted((a, b))]
        elif type(layer) is nn.ReLU:
            h = [max(value, Fraction(0)) for value in h]
        elif type(layer) is Residual:
            h = [(a + b) / 2 for a, b in zip(h, exactly_through(layer.f, h), strict=True)]
        else:
            h = [Fraction(float(layer.scale)) * value for value in h]
    return h


def exact_margin(network, row, target):
    h = exact_outputs(network, row)
    return h[target] - max(value for i, value in enumerate(h) if i != target)


@pytest.mark.parametrize(("p", "radius"), [(1, 0.3), (2, 0.3), (INF, 0.3)])
def test_plus_minus_x_flips_at_exactly_x(p, radius):
    """f(x) = (x, −x) flips at |δ| = x: K = 1 and factor 2 in the ∞-norm, K = √2 and factor √2 in the 2-norm."""
    certificate = certify(linear([[1.0], [-1.0]]), torch.tensor([[radius]], dtype=torch.float64), p=p)
    assert float(certificate.radius) == pytest.approx(radius, rel=1e-12)
    assert float(certificate.radius) <= radius


@pytest.mark.parametrize(("p", "exact"), [(1, 2.0), (2, math.sqrt(2.0)), (INF, 1.0)])
def test_identity_has_the_distance_to_the_diagonal_as_radius(p, exact):
    certificate = certify(nn.Identity(), torch.tensor([[3.0, 1.0]], dtype=torch.float64), p=p)
    assert float(certificate.radius) == pytest.approx(exact, rel=1e-12) and float(certificate.radius) <= exact


@pytest.mark.parametrize("p", [1, 2, INF])
@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
def test_scale_changes_margins_but_no_radius(p, K):
    x = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.2, 0.25]])
    plain, scaled = certify(nn.Identity(), x, p=p), certify(Scale(K), x, p=p)
    assert torch.allclose(scaled.radius, plain.radius, rtol=1e-12)
    assert torch.allclose(scaled.margin, float(Scale(K).scale) * plain.margin, rtol=1e-12)


def test_radii_are_in_raw_input_units():
    x = torch.tensor([[0.9, 0.2]])
    normalised = certify(nn.Sequential(Normalize(0.5, 0.25)), x)
    assert torch.allclose(normalised.radius, certify(nn.Identity(), x).radius, rtol=1e-12)


@pytest.mark.parametrize("p", [1, 2, INF])
def test_radii_are_rounded_down(p, seed):
    """radius · 2^(1−1/q) · K ≤ margin in rationals, and the margin is not above the true one."""
    network = nn.Sequential(linear(torch.randn(4, 6).double().tolist()), MaxMin(), linear(torch.randn(3, 4).tolist()))
    x = torch.randn(50, 6, dtype=torch.float64)
    certificate = certify(nn.Sequential(network, nn.Identity()), x, p=p)  # hides the last layer: one rule for all pairs
    constant, q = Fraction(certificate.bound.constant), certificate.bound.output_norm
    for row, radius, margin, t in zip(
        x, certificate.radius.tolist(), certificate.margin.tolist(), certificate.prediction.tolist(), strict=True
    ):
        true = exact_margin(network, row, t)
        assert Fraction(margin) <= true
        if q == 2:
            assert 2 * (Fraction(radius) * constant) ** 2 <= true**2
        else:
            assert Fraction(radius) * constant * (1 if q == 1 else 2) <= true
        assert margin > float(true) - 1e-12  # and not lowered by more than rounding


def test_labels_decide_which_class_is_certified():
    x = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    certificate = certify(nn.Identity(), x, torch.tensor([0, 1]))
    assert certificate.radius[0] > 0 and certificate.radius[1] == 0
    assert certificate.margin[1] == pytest.approx(-0.8) and certificate.prediction.tolist() == [0, 0]
    assert certificate.correct.tolist() == [True, False]
    assert certify(nn.Identity(), x).correct.tolist() == [True, True]
    assert certificate.accuracy(0) == 0.5


def test_accuracy_counts_radii_strictly_beyond_eps():
    radius, correct = torch.tensor([0.0, 0.1, 0.2, INF], dtype=torch.float64), torch.ones(4, dtype=torch.bool)
    certificate = Certificate(radius, radius, torch.zeros(4).long(), correct, lipschitz(nn.Identity(), 2))
    assert [certificate.accuracy(eps) for eps in (0, 0.05, 0.15, 0.5, INF)] == [0.75, 0.75, 0.5, 0.25, 0.0]
    for eps in certificate.radius[1:3].tolist():
        assert certificate.accuracy(eps) < certificate.accuracy(math.nextafter(eps, 0.0))


def test_a_curve_is_the_accuracy_at_each_radius_and_counts_like_a_loop(seed):
    certificate = certify(freeze(mlp([6, 8, 3])), torch.randn(101, 6), torch.randint(3, (101,)))
    radii = certificate.radius.tolist()
    eps = [0.3, 0.0, *radii, *(math.nextafter(r, 0.0) for r in radii if r), INF, 0.3]
    curve = certificate.curve(eps)
    assert curve.shape == (len(eps),) and curve.dtype == torch.float64
    assert curve.tolist() == [certificate.accuracy(e) for e in eps] == [sum(r > e for r in radii) / 101 for e in eps]
    assert torch.equal(certificate.curve(torch.tensor(eps, dtype=torch.float64)), curve)
    assert certificate.curve([]).shape == (0,)
    assert certificate.curve([0.3])[0] == curve[0] and curve[1] == certificate.correct.double().mean()


def test_an_infinite_radius_stands_at_every_finite_eps():
    layer = linear([[0.0], [0.0]], [1.0, 0.0])
    assert certify(layer, torch.ones(3, 1)).curve([0.0, 1e200, INF]).tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("eps", [-1e-9, -INF, math.nan])
def test_negative_radii_are_refused(eps):
    certificate = certify(nn.Identity(), torch.ones(1, 2))
    with pytest.raises(TightlipError, match="radius"):
        certificate.accuracy(eps)
    with pytest.raises(TightlipError, match="radius"):
        certificate.curve([0.1, eps, 0.2])


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_batches_change_nothing(batch_size, seed):
    network, x = freeze(mlp([6, 16, 4])), torch.randn(64, 6)
    whole, parts = certify(network, x), certify(network, x, batch_size=batch_size)
    assert torch.allclose(whole.radius, parts.radius, rtol=0, atol=1e-12)
    assert torch.equal(whole.prediction, parts.prediction)


def test_a_residual_at_the_end_is_no_linear_layer(seed):
    """Its rows are (eᵢ + wᵢ)/2: a pairwise radius from wᵢ alone would be too large."""
    layer = linear([[-1.0, 0.0], [-1.0, 0.0]])
    certificate = certify(Residual(layer), torch.tensor([[0.0, 1.0], [3.0, 1.0]], dtype=torch.float64), p=INF)
    assert (certificate.radius <= torch.tensor([0.5, 1.0], dtype=torch.float64)).all() and certificate.radius.all()


def test_no_attack_flips_a_network_with_residuals_within_the_radius(seed):
    blocks = [Residual(nn.Linear(8, 8), MaxMin(), nn.Linear(8, 8)) for _ in range(2)]
    network, x = nn.Sequential(*blocks, nn.Linear(8, 3)).requires_grad_(False), torch.randn(200, 8)
    certificate = certify(network, x)
    assert (certificate.radius > 1e-3).double().mean() > 0.9
    assert attacked(network, certificate, x, 2, 0.999, steps=60, restarts=2) == 0.0


def test_a_rule_without_roundoff_is_refused_inside_a_residual_too():
    class Third(nn.Module):
        def forward(self, x):
            return x / 3

    rule(Third)(lambda module: Gains.constant(1 / 3))
    with pytest.raises(TightlipError, match="Third states no roundoff"):
        certify(nn.Sequential(Residual(nn.ReLU(), Third())), torch.ones(1, 2))


@pytest.mark.parametrize("dim", [0, -2])
def test_a_network_that_mixes_the_examples_of_a_batch_is_never_certified(dim):
    with pytest.raises(TightlipError, match="batch"):
        certify(nn.Sequential(MaxMin(dim=dim)), torch.tensor([[0.9, 0.1], [0.2, 0.8]]))


def test_an_empty_batch_has_an_empty_certificate():
    certificate = certify(freeze(mlp([6, 8, 3])), torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))
    assert certificate.radius.shape == certificate.margin.shape == (0,)


@pytest.mark.parametrize("x", [torch.ones(2, 2, dtype=torch.int64), torch.ones(2), torch.tensor(1.0)])
def test_inputs_that_are_no_batch_of_floats_are_refused(x):
    with pytest.raises(TightlipError, match="cannot be certified"):
        certify(nn.Identity(), x)


@pytest.mark.parametrize(
    ("network", "x"),
    [
        (linear([[1.0, 2.0]]), torch.ones(1, 3, 2)),
        (nn.Identity(), torch.ones(2, 3, 4)),
        (nn.Identity(), torch.ones(2, 0)),
    ],
)
def test_outputs_that_are_no_logits_are_refused(network, x):
    with pytest.raises(TightlipError, match=r"certificates need .batch, classes."):
        certify(network, x)


@pytest.mark.parametrize(
    "y", [torch.tensor([0, 2]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([[0], [1]]), torch.zeros(2)]
)
def test_labels_that_do_not_fit_are_refused(y):
    with pytest.raises(TightlipError, match="labels"):
        certify(nn.Identity(), torch.ones(2, 2), y)


@pytest.mark.parametrize("p", [0, 3, -1, math.nan, "three"])
def test_other_norms_are_refused(p):
    with pytest.raises((TightlipError, TypeError), match=r"norm|p"):
        certify(nn.Identity(), torch.ones(2, 2), p=p)


@pytest.mark.parametrize("hold", ["step", "forward"])
def test_held_networks_are_refused(hold):
    with pytest.raises(TightlipError, match="freeze"):
        certify(mlp([4, 4, 2], hold=hold), torch.ones(1, 4))


def test_networks_without_a_rule_are_refused():
    with pytest.raises(TightlipError, match="no Lipschitz rule"):
        certify(nn.Sequential(nn.LSTM(4, 4)), torch.ones(1, 4))


def test_the_network_and_the_inputs_are_left_as_they_were():
    network, x = freeze(mlp([4, 4, 2])), torch.ones(3, 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    certify(network, x)
    assert all(
        value.dtype == torch.float32 and torch.equal(value, before[n]) for n, value in network.state_dict().items()
    )
    assert torch.equal(x, torch.ones(3, 4)) and x.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_inputs_of_every_precision_are_evaluated_in_float64(dtype, seed):
    network, x = freeze(mlp([6, 8, 3])), torch.randn(20, 6).to(dtype)
    assert torch.equal(certify(network, x).radius, certify(network, x.double()).radius)


def test_float32_deployment_agrees_with_the_certificate_outside_float32_rounding(seed):
    network, x = freeze(mlp([20, 32, 10])), torch.randn(500, 20)
    certificate = certify(network, x)
    safe = certificate.margin > 1e-5
    assert safe.float().mean() > 0.9
    assert torch.equal(network(x).argmax(1)[safe], certificate.prediction[safe])


def random_net(generator, bias, layers=3, width=6):
    modules = []
    for _ in range(layers):
        weight = torch.randn(width, width, generator=generator) / width**0.5
        shift = bias * torch.randint(-1, 2, (width,), generator=generator).float() + torch.randn(
            width, generator=generator
        )
        modules += [linear(weight.tolist(), shift.tolist(), torch.float32), MaxMin()]
    return nn.Sequential(*modules[:-1], Scale(8.0))


def with_residuals(generator, bias):
    """Residuals one after another and within one another, around layers whose large biases cancel again."""
    first, second, third, last = (random_net(generator, bias) for _ in range(4))
    return nn.Sequential(*first[:2], Residual(*second, Residual(*third)), Residual(nn.ReLU(), MaxMin()), *last)


@pytest.mark.parametrize("make", [random_net, with_residuals])
@pytest.mark.parametrize("bias", [0.0, 1.0, 5e6])
def test_margins_never_exceed_the_true_ones_of_the_stored_numbers(make, bias):
    """Also with biases of 5e6, that leave a float64 evaluation only nine digits behind the point."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(20 if make is random_net else 6):
        network, x = make(generator, bias), torch.randn(10, 6, generator=generator)
        certificate = certify(network, x)
        for row, margin, t in zip(x, certificate.margin.tolist(), certificate.prediction.tolist(), strict=True):
            true = exact_margin(network, row, t)
            assert Fraction(margin) <= true
            few = 1e-10 if make is random_net else 1e-6  # of which there are more layers, each scaled by 8
            assert margin >= float(true) - few * (1.0 + 1e5 * bias)  # the slack itself stays small


@pytest.mark.parametrize("by_columns", [False, True])
def test_a_large_bias_may_take_part_in_every_addition_of_a_sum(by_columns):
    """How a product is summed is the BLAS's business: stored by columns, the bias is rounded n times, not once."""
    n, unit = 4000, 2.0**-30  # the gap between float64 numbers near 5e6
    layer = linear([[0.6 * unit] * n, [0.0] * n], [5e6, 5e6], torch.float32)
    if by_columns:
        layer.weight.data = layer.weight.data.t().contiguous().t()
    certificate = certify(layer, torch.ones(1, n))
    assert Fraction(float(certificate.margin)) <= n * Fraction(layer.weight[0, 0].item())


@pytest.mark.parametrize("exponent", [0, -300, -700, -1000])
def test_exact_ties_are_never_certified_however_small_the_inputs(exponent):
    """Two rows with the same weights in another order tie on constant inputs; only rounding tells them apart."""
    for number in range(50):
        generator = torch.Generator().manual_seed(number)
        row = torch.randn(8, generator=generator, dtype=torch.float64)
        tie = linear([row.tolist(), row[torch.randperm(8, generator=generator)].tolist()])
        assert not certify(tie, torch.full((1, 8), 2.0**exponent, dtype=torch.float64)).radius.any()


def test_products_that_underflow_are_never_trusted():
    layer = linear([[0.75 * 2.0**-537] * 100, [0.0] * 100])
    certificate = certify(layer, torch.full((1, 100), 2.0**-537, dtype=torch.float64))
    true = 100 * Fraction(0.75 * 2.0**-537) * Fraction(2.0**-537)
    assert Fraction(float(certificate.margin)) <= true


@pytest.fixture(scope="module")
def tight():
    """An orthonormal network that never widens, trained for some seconds on mnist5k, and test images."""
    torch.manual_seed(0)
    parts = split(load("mnist5k"), 0)
    network = nn.Sequential(nn.Flatten(), mlp([784, 64, 64, 10]))
    fit(
        network,
        partial(margin_cross_entropy, offset=0.8, temperature=0.25),
        (parts.train.images, parts.train.labels),
        (parts.validation.images, parts.validation.labels),
        epochs=4,
        optimizer=partial(torch.optim.Adam, lr=5e-3),
        progress=False,
    )
    return freeze(network), parts.test.images[:300], parts.test.labels[:300]


def attacked(network, certificate, x, p, factor, steps, restarts):
    """The share of certified inputs whose class changes at ``factor`` times their radius, all of space allowed."""
    sure = certificate.radius > 1e-3
    x, y = x[sure], certificate.prediction[sure]
    found = pgd(network, x, y, factor * certificate.radius[sure].float(), p, steps, restarts, clamp=None)
    return float((network(found).argmax(1) != y).double().mean())


def test_no_attack_flips_within_the_radius(tight):
    network, x, y = tight
    certificate = certify(network, x, y)
    assert certificate.accuracy(0) > 0.85 and certificate.accuracy(0.1) > 0.8
    assert attacked(network, certificate, x, 2, 0.999, steps=60, restarts=2) == 0.0


def test_the_same_attack_flips_nearly_all_just_beyond_it(tight):
    network, x, y = tight
    assert attacked(network, certify(network, x, y), x, 2, 1.1, steps=200, restarts=2) >= 0.95


def test_no_attack_flips_within_the_radius_of_the_infinity_norm(seed):
    network, x = freeze(mlp([8, 16, 16, 3], RowL1Ball(), K=10.0)), torch.randn(200, 8)
    certificate = certify(network, x, p=INF)
    assert (certificate.radius > 1e-3).double().mean() > 0.9
    assert attacked(network, certificate, x, INF, 0.999, steps=60, restarts=2) == 0.0


def test_the_infinity_norm_radius_is_reached_where_rows_are_opposite():
    network, x = linear([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float32), torch.tensor([[0.9, 0.1], [0.5, 0.4]])
    certificate = certify(network, x, p=INF)
    assert certificate.radius.tolist() == pytest.approx([0.4, 0.05], rel=1e-6)
    assert attacked(network, certificate, x, INF, 0.999, 20, 1) == 0.0
    assert attacked(network, certificate, x, INF, 1.001, 20, 1) == 1.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_certifies_like_the_cpu(seed):
    network, x = freeze(mlp([20, 32, 10])), torch.randn(100, 20)
    here, there = certify(network, x), certify(network.cuda(), x.cuda())
    assert torch.allclose(here.radius, there.radius, rtol=0, atol=1e-10) and there.radius.device.type == "cpu"

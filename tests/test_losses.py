"""The losses against loops that anyone can check, and against torch where torch knows the same formula."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from tightlip import (
    FullSort,
    Householder,
    MaxMin,
    Normalize,
    RowL1Ball,
    Scale,
    TightlipError,
    hold,
    lipschitz,
    mlp,
)
from tightlip.emma import emma_cross_entropy
from tightlip.losses import (
    hinge_kantorovich,
    kantorovich,
    lipschitz_margin_cross_entropy,
    margin_cross_entropy,
    multiclass_hinge,
    multiclass_hinge_kantorovich,
    norm_product,
)


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


def emma(logits, labels):
    return emma_cross_entropy(logits, labels, 0.7, 0.3)


@pytest.mark.parametrize("loss", [margin_cross_entropy, lambda z, y: multiclass_hinge(z, y, 1.0), emma])
def test_logits_far_beyond_the_range_of_exp_stay_finite(loss):
    logits = torch.tensor([[1e30, -1e30, 0.0], [-1e30, 0.0, 1e30]], requires_grad=True)
    value = loss(logits, torch.tensor([0, 0]))
    value.backward()
    assert value.item() >= 0.99e30 and torch.isfinite(value) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", [margin_cross_entropy, lambda z, y: multiclass_hinge(z, y, 1.0), emma])
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
    with pytest.raises(TightlipError, match="temperature"):
        emma_cross_entropy(*batch(), 0.5, temperature)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_keep_the_dtype_of_the_logits(dtype):
    logits, labels = batch(dtype)
    assert multiclass_hinge(logits, labels, 1.0).dtype == margin_cross_entropy(logits, labels, 0.5).dtype == dtype
    assert emma(logits, labels).dtype == dtype


# --------------------------------------------------------------------------------------------------------------- EMMA


def slopes(loss, logits, labels):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, labels), logits)[0]


@pytest.mark.parametrize("temperature", [0.25, 1.0])
@pytest.mark.parametrize("offset", [0.0, 0.5, 3.0])
def test_emma_raises_each_other_logit_by_what_it_lies_below_the_true_one(offset, temperature):
    logits, labels = batch()
    total = 0.0
    for row, t in zip(logits.tolist(), labels.tolist(), strict=True):
        raised = [y + min(offset, max(0.0, row[t] - y)) for y in row]
        total += temperature * math.log(sum(math.exp((y - row[t]) / temperature) for y in raised))
    assert float(emma_cross_entropy(logits, labels, offset, temperature)) == pytest.approx(total / len(labels))


@pytest.mark.parametrize("lead", [0.01, 0.3, 0.79])
def test_a_class_within_reach_is_as_if_it_were_equal_whatever_its_lead(lead):
    """The value says nothing, and the gradient, that of a tie, does not fade before the margin is there."""
    logits = torch.tensor([[lead, 0.0, 0.0]], dtype=torch.float64)
    assert float(emma_cross_entropy(logits, torch.tensor([0]), 0.8, 0.25)) == pytest.approx(0.25 * math.log(3))
    found = slopes(lambda z, y: emma_cross_entropy(z, y, 0.8, 0.25), logits, torch.tensor([0]))
    assert found[0].tolist() == pytest.approx([-2 / 3, 1 / 3, 1 / 3])


def test_classes_within_reach_are_pushed_alike_and_not_the_nearest_most():
    logits, labels = torch.tensor([[1.0, 0.9, 0.3, -4.0]], dtype=torch.float64), torch.tensor([0])
    emma_slopes = slopes(lambda z, y: emma_cross_entropy(z, y, 0.8, 0.25), logits, labels)[0]
    usual = slopes(lambda z, y: margin_cross_entropy(z, y, 0.8, 0.25), logits, labels)[0]
    assert emma_slopes[1] == pytest.approx(float(emma_slopes[2])) and emma_slopes[3] < 1e-6
    assert usual[1] > 5 * usual[2]


def test_a_margin_that_is_reached_makes_it_margin_cross_entropy_and_a_wrong_input_cross_entropy():
    reached = torch.tensor([[2.0, 0.0, -1.0], [0.0, -1.5, 4.0]], dtype=torch.float64)
    labels = torch.tensor([0, 2])
    for loss in (
        lambda f: f(reached, labels, 0.8, 0.5),
        lambda f: slopes(lambda z, y: f(z, y, 0.8, 0.5), reached, labels),
    ):
        torch.testing.assert_close(loss(emma_cross_entropy), loss(margin_cross_entropy))
    wrong = torch.tensor([[0.0, 0.1, 3.0]], dtype=torch.float64)
    for loss in (emma_cross_entropy, lambda z, y, offset: functional.cross_entropy(z, y)):
        assert float(loss(wrong, torch.tensor([0]), 5.0)) == pytest.approx(math.log(1 + math.exp(0.1) + math.exp(3.0)))


def test_emma_scales_with_the_logits():
    logits, labels = batch()
    unit = float(emma_cross_entropy(logits, labels, 0.8, 0.25))
    assert float(emma_cross_entropy(1000 * logits, labels, 800.0, 250.0)) == pytest.approx(1000 * unit)


@pytest.mark.parametrize("offset", [-0.1, math.inf, math.nan])
def test_offsets_that_are_no_margin_are_refused(offset):
    with pytest.raises(TightlipError, match="offset must be a finite number ≥ 0, got"):
        emma_cross_entropy(*batch(), offset)


def test_constrained_networks_reach_the_margin_that_emma_asks_for():
    torch.manual_seed(0)
    network = mlp([2, 8, 3])
    optimizer = hold(network, torch.optim.Adam(network.parameters(), lr=0.02))
    labels = torch.arange(3).repeat(20)
    x = 2.0 * torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])[labels] + 0.05 * torch.randn(60, 2)

    def least():
        y = network(x).detach()
        return float((y.gather(1, labels[:, None]) - y).masked_fill(nn.functional.one_hot(labels, 3) == 1, 9.0).min())

    before = least()
    for _ in range(150):
        optimizer.zero_grad()
        emma_cross_entropy(network(x), labels, 1.0, 0.1).backward()
        optimizer.step()
    assert before < 0.3 and least() > 0.95


# -------------------------------------------------------------------------------------------------------- Kantorovich


def test_the_kantorovich_objective_of_a_translation_is_its_length():
    x = torch.rand(50, 2)
    potential = torch.tensor([0.6, 0.8])
    assert kantorovich((x + 3 * potential) @ potential, x @ potential).item() == pytest.approx(-3, abs=1e-5)


def test_hinge_kantorovich_is_its_two_terms():
    scores, labels = torch.tensor([0.5, 2.0, -3.0, 0.25]), torch.tensor([1, 1, 0, 0])
    hinge = (0.5 + 0.0 + 0.0 + 1.25) / 4
    gap = (0.5 + 2.0) / 2 - (-3.0 + 0.25) / 2
    assert hinge_kantorovich(scores, labels, margin=1.0, weight=10.0).item() == pytest.approx(10 * hinge - gap)


def test_hinge_kantorovich_takes_the_papers_labels_and_torchs_alike():
    scores, labels = torch.tensor([0.5, 2.0, -3.0, 0.25]), torch.tensor([1, -1, 1, -1])
    assert torch.equal(hinge_kantorovich(scores, labels), hinge_kantorovich(scores, (labels + 1) // 2))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_score_per_input_is_a_vector_or_a_column(shape):
    scores, labels = torch.tensor([0.5, 2.0, -3.0, 0.25]), torch.tensor([1, 1, 0, 0])
    expected = hinge_kantorovich(scores, labels)
    assert torch.equal(hinge_kantorovich(scores.reshape(shape), labels), expected)
    assert torch.equal(hinge_kantorovich(scores.reshape(shape), labels[:, None]), expected)
    assert kantorovich(scores[:2].reshape(2, *shape[1:]), scores[2:]) == kantorovich(scores[:2], scores[2:])


@pytest.mark.parametrize(("sign", "labels"), [(1.0, [1, 1, 1]), (-1.0, [0, 0, 0]), (-1.0, [-1, -1, -1])])
def test_a_batch_of_one_class_has_the_hinge_alone_and_stops_no_shuffled_loop(sign, labels):
    scores = torch.tensor([0.5, 2.0, -3.0], requires_grad=True)
    loss = hinge_kantorovich(scores, torch.tensor(labels), margin=1.0, weight=2.0)
    assert loss.item() == pytest.approx(2 * (1 - sign * scores.detach()).clamp(min=0).mean().item())
    loss.backward()
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("labels", [[0, 1, 2], [-1, 0, 1], [2, 2, 2], [0, -1, 0]])
def test_hinge_kantorovich_knows_two_classes_by_one_pair_of_numbers(labels):
    with pytest.raises(TightlipError, match="give the labels -1 and .1, or 0 and 1"):
        hinge_kantorovich(torch.zeros(3), torch.tensor(labels))


def test_multiclass_hinge_kantorovich_is_the_binary_loss_of_every_class_against_the_rest():
    logits, labels = batch(examples=20, classes=4)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    binary = [hinge_kantorovich(logits[:, k], (labels == k).long(), margin=0.7, weight=3.0) for k in range(4)]
    ours = multiclass_hinge_kantorovich(logits, labels, margin=0.7, weight=3.0)
    assert float(ours) == pytest.approx(float(sum(binary)))


def test_a_class_that_is_absent_or_alone_keeps_its_hinge_and_loses_its_kantorovich_term():
    logits, _ = batch(examples=3, classes=4)
    alone = torch.ones(3, dtype=torch.long)
    hinge = (1 - logits[:, 1]).clamp(min=0).mean() + (1 + logits[:, [0, 2, 3]]).clamp(min=0).sum(1).mean()
    ours = multiclass_hinge_kantorovich(logits, alone, margin=1.0, weight=2.0)
    assert float(ours) == pytest.approx(2 * float(hinge))
    logits.requires_grad_()
    multiclass_hinge_kantorovich(logits, torch.tensor([0, 1, 1])).backward()
    assert torch.isfinite(logits.grad).all()


def test_multiclass_hinge_kantorovich_passes_gradcheck_and_names_wrong_labels():
    logits, labels = batch(examples=6)
    assert torch.autograd.gradcheck(lambda z: multiclass_hinge_kantorovich(z, labels), logits.requires_grad_())
    with pytest.raises(TightlipError, match="7.*5 outputs"):
        multiclass_hinge_kantorovich(logits, labels.fill_(7))


# ------------------------------------------------------------------------------------------ Lipschitz-margin training


@pytest.mark.parametrize(("q", "factor"), [(1, 1.0), (2, math.sqrt(2)), (math.inf, 2.0)])
def test_lipschitz_margin_training_adds_what_the_radius_needs_to_every_logit_but_the_true_one(q, factor):
    logits, labels = batch()
    raised = logits + factor * 3.0 * 0.2
    raised[torch.arange(7), labels] = logits[torch.arange(7), labels]
    ours = lipschitz_margin_cross_entropy(logits, labels, constant=3.0, eps=0.2, q=q)
    assert float(ours) == pytest.approx(float(functional.cross_entropy(raised, labels)))


def test_without_a_radius_lipschitz_margin_training_is_cross_entropy():
    logits, labels = batch()
    expected = float(functional.cross_entropy(logits, labels))
    assert float(lipschitz_margin_cross_entropy(logits, labels, constant=5.0, eps=0.0)) == pytest.approx(expected)


def test_gradients_flow_into_the_constant_and_the_logits():
    logits, labels = batch(examples=3)
    constant = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    logits.requires_grad_()

    def loss(z, k):
        return lipschitz_margin_cross_entropy(z, labels, k, eps=0.3)

    assert torch.autograd.gradcheck(loss, (logits, constant))
    (slope,) = torch.autograd.grad(loss(logits, constant), constant)
    assert float(slope) > 0  # a smaller constant is a smaller loss


@pytest.mark.parametrize(
    ("constant", "eps"), [(-1.0, 0.1), (math.inf, 0.1), (math.nan, 0.1), (1.0, -0.1), (1.0, math.nan)]
)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_constants_and_radii_that_ask_for_no_margin_are_refused(constant, eps, as_tensor):
    given = torch.tensor(constant, requires_grad=True) if as_tensor else constant
    with pytest.raises(TightlipError, match="finite numbers ≥ 0"):
        lipschitz_margin_cross_entropy(*batch(), constant=given, eps=eps)


def unconstrained(*activations, widths=(3, 5, 4, 2)):
    torch.manual_seed(0)
    layers = []
    for index, activation in enumerate([*activations, None]):
        layers += [nn.Linear(widths[index], widths[index + 1])] + ([activation] if activation is not None else [])
    return nn.Sequential(nn.Flatten(), nn.Sequential(*layers), Scale(4.0)).double()


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_the_norm_product_is_numpys_and_the_audits(p):
    network = unconstrained(nn.ReLU(), FullSort())
    norms = [np.linalg.norm(m.weight.detach().numpy(), p) for m in network.modules() if isinstance(m, nn.Linear)]
    product = norm_product(network, p)
    assert product.dtype == torch.float64 and product.shape == ()
    assert float(product.detach()) == pytest.approx(4.0 * math.prod(norms), rel=1e-12)
    assert float(product.detach()) == pytest.approx(lipschitz(network, p, p).constant, rel=1e-8)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_the_gradient_of_the_norm_product_equals_finite_differences(p):
    network = unconstrained(nn.Tanh(), Householder(2)) if p == 2 else unconstrained(nn.Tanh(), nn.ReLU())
    network = network.double()
    names, values = zip(*((n, v) for n, v in network.named_parameters() if n.endswith("weight")), strict=True)

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self):
            return norm_product(self.network, p)

    def product(*weights):
        return functional_call(Product(), {f"network.{n}": w for n, w in zip(names, weights, strict=True)}, ())

    assert torch.autograd.gradcheck(product, values, fast_mode=True)  # along random directions


@pytest.mark.parametrize("way", ["step", "forward"])
def test_the_norm_product_of_a_constrained_network_is_its_constant(way):
    torch.manual_seed(0)
    assert float(norm_product(mlp([4, 8, 8, 3], K=3.0, hold=way)).detach()) == pytest.approx(3.0, rel=1e-5)
    product = norm_product(mlp([4, 8, 8, 3], RowL1Ball(), K=3.0, hold=way), math.inf)
    assert float(product.detach()) <= 3.0 * (1 + 1e-6)
    product.backward()


def test_a_layer_used_twice_counts_twice_and_normalization_counts():
    layer = nn.Linear(2, 2)
    nn.init.eye_(layer.weight).data.mul_(3.0)
    assert float(norm_product(nn.Sequential(Normalize(0.0, 0.5), layer, MaxMin(), layer)).detach()) == pytest.approx(18)


class Double(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        (Double(2, 2), "no Lipschitz rule is known for Double"),
        (nn.LayerNorm(2), "the norm of LayerNorm"),
        (nn.CosineSimilarity(), "no Lipschitz rule is known for CosineSimilarity"),
        (Householder(1), "no rule proves a inf→inf bound for Householder at '1'"),
    ],
)
def test_what_has_no_norm_is_refused(layer, complaint):
    with pytest.raises(TightlipError, match=complaint):
        norm_product(nn.Sequential(nn.Linear(2, 2), layer), math.inf)


def test_a_layer_whose_norm_depends_on_its_parameters_in_another_way_is_refused(monkeypatch):
    from tightlip import Gains, rule
    from tightlip.audit import registry

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.factor * x

    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    rule(Learned)(lambda module: Gains.constant(abs(float(module.factor.detach()))))
    with pytest.raises(TightlipError, match="Learned at '0' has no gradient here"):
        norm_product(nn.Sequential(Learned()))


def test_lipschitz_margin_training_buys_radius_that_plain_cross_entropy_does_not():
    """Two blobs at ±(1, 1). Margins grow with plain cross-entropy as well, but there the constant grows with them."""
    labels = torch.arange(2).repeat(32)
    noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    x = 0.1 * noise + (2.0 * labels.unsqueeze(1) - 1.0)

    def radius(eps):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(100):
            optimizer.zero_grad()
            lipschitz_margin_cross_entropy(network(x), labels, norm_product(network), eps).backward()
            optimizer.step()
        lead = network(x).detach().diff(dim=1).squeeze(1) * (2 * labels - 1)
        return float(lead.mean()) / (math.sqrt(2) * lipschitz(network, 2, 2).constant)

    plain, trained = radius(eps=0.0), radius(eps=0.5)
    assert 1.15 * plain < trained < 1.02 * math.sqrt(2)  # half the distance is the most that any classifier has


def test_constrained_networks_train_with_a_margin_too():
    torch.manual_seed(0)
    network = mlp([2, 8, 2])
    optimizer = hold(network, torch.optim.SGD(network.parameters(), lr=0.1))
    x, labels = torch.randn(16, 2), torch.arange(2).repeat(8)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = lipschitz_margin_cross_entropy(network(x), labels, constant=1.0, eps=0.1)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

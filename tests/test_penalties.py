"""Penalties against closed forms, exact decompositions and finite differences, in both ways to hold a constraint."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from truths import gaussian

from tightlip import FullSort, Orthonormal, RowL1Ball, TightlipError, hold, mlp
from tightlip.penalties import gradient_penalty, jacobian_spectral_penalty

HELD = [(constraint, way) for constraint in (Orthonormal(), RowL1Ball()) for way in ("step", "forward")]
each_way_to_hold = pytest.mark.parametrize(("constraint", "way"), HELD, ids=lambda value: str(value))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def held(constraint, way, widths):
    """A network that widens, where gradients may lose norm and the penalties have something to do."""
    torch.manual_seed(0)
    return mlp(widths, constraint, hold=way).double()


def penalties(widths):
    """Each penalty as a function of the network alone: its random numbers are the same at every call."""
    first, second = gaussian(6, widths[0], seed=1), gaussian(6, widths[0], seed=2)
    if widths[-1] == 1:
        return lambda network: gradient_penalty(network, first, second, generator=seeded())
    return lambda network: jacobian_spectral_penalty(network, first, iterations=300, generator=seeded())


each_shape = pytest.mark.parametrize("widths", [(2, 4, 4, 1), (2, 6, 3)], ids=["gradient", "jacobian"])


@each_way_to_hold
@each_shape
def test_penalties_have_the_gradients_of_finite_differences_in_the_raw_parameters(constraint, way, widths):
    """By gradcheck along random directions, since each evaluation of a converged power iteration costs much."""
    network, penalty = held(constraint, way, widths), penalties(widths)
    ending = "weight.original" if way == "forward" else "weight"
    names, raw = zip(*((n, v.detach()) for n, v in network.named_parameters() if n.endswith(ending)), strict=True)
    if way == "forward":  # off the set, where the map does something; a step-held weight has to stay on it
        raw = [v + 0.3 * gaussian(*v.shape, seed=i) for i, v in enumerate(raw)]

    def value(*weights):
        return penalty(lambda x: functional_call(network, dict(zip(names, weights, strict=True)), (x,)))

    assert len(names) == len(widths) - 1
    assert torch.autograd.gradcheck(value, [v.clone().requires_grad_() for v in raw], fast_mode=True, atol=1e-6)


@each_way_to_hold
@each_shape
def test_a_step_lowers_the_penalty(constraint, way, widths):
    network, penalty = held(constraint, way, widths), penalties(widths)
    optimizer = hold(network, torch.optim.SGD(network.parameters(), lr=0.02))
    before = penalty(network)
    assert before.item() > 1e-3
    before.backward()
    optimizer.step()
    assert penalty(network).item() < before.item()


# --------------------------------------------------------------------------------------------------- gradient penalty


@pytest.mark.parametrize("target", [0.0, 1.0, 7.0])
def test_the_gradient_penalty_of_a_linear_critic_is_known(target):
    slope = torch.tensor([3.0, 4.0])
    value = gradient_penalty(lambda z: z @ slope, torch.randn(5, 2), torch.randn(5, 2), target, generator=seeded())
    assert value.item() == pytest.approx((5 - target) ** 2, rel=1e-5, abs=1e-9)
    one_sided = gradient_penalty(lambda z: z @ slope, torch.randn(5, 2), torch.randn(5, 2), target, one_sided=True)
    assert one_sided.item() == pytest.approx(max(0, 5 - target) ** 2, rel=1e-5, abs=1e-9)


def test_the_gradient_is_taken_at_one_random_point_between_each_pair():
    first, second = gaussian(50, 3, seed=1), gaussian(50, 3, seed=2)
    seen = []

    def critic(z):
        seen.append(z.detach())
        return z.square().sum(1, keepdim=True)

    value = gradient_penalty(critic, first, second, generator=seeded())
    (z,) = seen
    t = (z - second) / (first - second)
    assert float((t - t[:, :1]).abs().max()) < 1e-9  # the same t for every coordinate
    assert 0 <= float(t.min()) < 0.2 and 0.8 < float(t.max()) <= 1 and len(t[:, 0].unique()) == 50
    assert value.item() == pytest.approx(float(((2 * z.norm(dim=1)) - 1).square().mean()))


def test_the_same_generator_gives_the_same_points_and_the_global_one_is_left_alone():
    first, second, critic = gaussian(4, 2, seed=1), gaussian(4, 2, seed=2), lambda z: z.square().sum(1)
    state = torch.get_rng_state()
    values = [gradient_penalty(critic, first, second, generator=seeded(s)).item() for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert torch.equal(torch.get_rng_state(), state)
    gradient_penalty(critic, first, second)
    assert not torch.equal(torch.get_rng_state(), state)


def test_images_are_flattened_and_samples_get_no_gradient():
    first, second = (gaussian(3, 1, 4, 4, seed=s).requires_grad_() for s in (1, 2))
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 1)).double()
    gradient_penalty(critic, first, second).backward()
    assert first.grad is None and second.grad is None
    assert critic[0].weight.grad.any()


def test_a_critic_that_is_flat_somewhere_has_a_finite_penalty_and_gradient():
    critic = nn.Sequential(nn.Linear(2, 1), nn.ReLU())
    nn.init.constant_(critic[0].bias, -100.0)
    value = gradient_penalty(critic, torch.randn(4, 2), torch.randn(4, 2))
    value.backward()
    assert value.item() == 1.0 and torch.isfinite(critic[0].weight.grad).all()


class Ignoring(nn.Module):
    """Outputs of their own, that do not look at the input: three a row, or one."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = nn.Parameter(torch.ones(outputs))

    def forward(self, x):
        return self.outputs.expand(len(x), -1)


DEAF = {
    "constant": lambda n: lambda z: torch.zeros(len(z), n),
    "integers": lambda n: lambda z: (z[:, :1] > 0).long().expand(-1, n),
    "parameters": Ignoring,
    "steps": lambda n: lambda z: z[:, :1].sign().expand(-1, n),
    "detached": lambda n: lambda z: z.detach()[:, :1].expand(-1, n),
}
"""Functions of slope 0 with n outputs, which autograd knows for several reasons."""


@pytest.mark.parametrize("deaf", DEAF.values(), ids=DEAF)
@pytest.mark.parametrize("target", [0.0, 1.0, 3.0])
def test_a_critic_that_does_not_look_at_its_input_has_the_slope_zero(deaf, target):
    x = torch.randn(4, 2)
    assert gradient_penalty(deaf(1), x, -x, target).item() == target**2
    assert gradient_penalty(deaf(1), x, -x, target, one_sided=True).item() == 0
    with torch.no_grad():
        assert gradient_penalty(deaf(1), x, -x, target).item() == target**2


@pytest.mark.parametrize(
    ("first", "second", "advice"),
    [((4, 2), (5, 2), "one shape"), ((4, 2), (4, 3), "one shape"), ((0, 2), (0, 2), "at least one")],
)
def test_samples_that_cannot_be_paired_are_refused(first, second, advice):
    with pytest.raises(TightlipError, match=advice):
        gradient_penalty(nn.Linear(2, 1), torch.zeros(first), torch.zeros(second))


@pytest.mark.parametrize("critic", [lambda z: z, lambda z: z.sum(), lambda z: z.sum(1)[:3], lambda z: z[:, :1, None]])
def test_a_critic_gives_one_number_per_example(critic):
    with pytest.raises(TightlipError, match="one number per example|one row for each input"):
        gradient_penalty(critic, torch.zeros(4, 2), torch.ones(4, 2))


# ------------------------------------------------------------------------------------------- Jacobian spectral penalty


def jacobians(network, x):
    """One by one, in a graph, by torch's own function."""
    return torch.stack([torch.autograd.functional.jacobian(network, r[None], create_graph=True)[0, :, 0] for r in x])


@pytest.mark.parametrize("widths", [(5, 7, 3), (3, 7, 6), (4, 6, 4), (3, 5, 1)])
def test_the_spectral_penalty_is_the_mean_of_the_largest_singular_values(widths):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(*widths[:2]), nn.Tanh(), FullSort(), nn.Linear(*widths[1:])).double()
    x = gaussian(9, widths[0])
    exact = torch.linalg.svdvals(jacobians(network, x))[:, 0].mean()
    value = jacobian_spectral_penalty(network, x, iterations=500, generator=seeded())
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)
    gradient = torch.autograd.grad(value, network[0].weight)[0]
    expected = torch.autograd.grad(exact, network[0].weight)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_the_estimate_rises_with_the_iterations_and_never_passes_the_exact_value():
    matrix = gaussian(8, 8)
    values = [
        jacobian_spectral_penalty(lambda x: x @ matrix.mT, torch.zeros(3, 8).double(), k, seeded()).item()
        for k in range(12)
    ]
    assert values == sorted(values)
    assert values[-1] <= float(torch.linalg.matrix_norm(matrix, 2)) + 1e-12
    assert values[-1] > 0.95 * float(torch.linalg.matrix_norm(matrix, 2))


def test_each_example_has_its_own_jacobian():
    x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])  # of x², 2x on the diagonal
    value = jacobian_spectral_penalty(torch.square, x, iterations=50, generator=seeded())
    assert value.item() == pytest.approx((2 + 6) / 2)


def test_images_may_map_to_images_and_scalars():
    x = gaussian(3, 2, 4, 4)
    assert jacobian_spectral_penalty(lambda x: 5 * x.flip(2), x).item() == pytest.approx(5)
    assert jacobian_spectral_penalty(lambda x: 5 * x[:, 0, 0, 0], x).item() == pytest.approx(5)


def test_under_no_grad_both_penalties_give_values_without_a_graph():
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(5, 2)
    with torch.no_grad():
        values = [gradient_penalty(network, x, -x, generator=seeded())]
        values.append(jacobian_spectral_penalty(network, x, generator=seeded()))
    assert not any(value.requires_grad for value in values)
    graph = [gradient_penalty(network, x, -x, generator=seeded())]
    graph.append(jacobian_spectral_penalty(network, x, generator=seeded()))
    assert [v.item() for v in values] == [v.item() for v in graph]


def test_an_orthonormal_network_has_a_spectral_penalty_of_k():
    torch.manual_seed(0)
    network = mlp([6, 6, 6, 4], K=3.0)
    assert jacobian_spectral_penalty(network, torch.randn(5, 6)).item() == pytest.approx(3, rel=1e-5)


def test_flat_networks_have_the_penalty_zero():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    nn.init.constant_(network[0].bias, -100.0)
    value = jacobian_spectral_penalty(network, torch.randn(4, 2))
    value.backward()
    assert value.item() == 0.0 and torch.isfinite(network[0].weight.grad).all()


@pytest.mark.parametrize("deaf", DEAF.values(), ids=DEAF)
@pytest.mark.parametrize("iterations", [0, 3])
def test_a_network_that_does_not_look_at_its_input_has_the_penalty_zero(deaf, iterations):
    x = torch.randn(4, 2, dtype=torch.float32)
    value = jacobian_spectral_penalty(deaf(3), x, iterations)
    assert value.item() == 0 and value.dtype == torch.float32
    with torch.no_grad():
        assert jacobian_spectral_penalty(deaf(3), x, iterations).item() == 0


def test_a_penalty_that_is_constant_joins_a_loss_whose_gradient_it_leaves_alone():
    network, x = Ignoring(1), torch.randn(4, 2)
    loss = network(x).sum() + gradient_penalty(network, x, -x) + jacobian_spectral_penalty(network, x)
    loss.backward()
    assert network.outputs.grad.tolist() == [4.0]


@pytest.mark.parametrize(
    ("network", "x", "iterations", "advice"),
    [
        (nn.Linear(2, 2), torch.zeros(3, 2), -1, "iterations must be an integer ≥ 0, got -1"),
        (nn.Linear(2, 2), torch.zeros(0, 2), 1, "at least one"),
        (torch.sum, torch.zeros(3, 2), 1, "must return one row for each input"),
        (nn.Flatten(0), torch.zeros(3, 2), 1, "must return one row for each input"),
    ],
)
def test_what_has_no_jacobian_per_input_is_refused(network, x, iterations, advice):
    with pytest.raises(TightlipError, match=advice):
        jacobian_spectral_penalty(network, x, iterations)


def test_float32_is_kept():
    x = torch.randn(3, 2)
    assert jacobian_spectral_penalty(nn.Linear(2, 2), x).dtype == torch.float32
    assert gradient_penalty(nn.Linear(2, 1), x, x).dtype == torch.float32
    assert math.isfinite(gradient_penalty(nn.Linear(2, 1), x, x).item())

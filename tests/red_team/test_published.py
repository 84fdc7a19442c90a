"""Eight published ways to break a certificate, rebuilt from their descriptions: no radius may outlive one.

| suite | what broke others | told by |
| --- | --- | --- |
| ties | equal logits were left out of the margin | gloro, issue 9 |
| units | the bound was the network's, the inputs were not | gloro, issue 8 |
| tiny weights | a product of norms became 0, and all was certified | gloro's and Tobler's tests |
| blind starts | power iteration began at a right angle to the top singular vector | Tobler et al., CAV 2025 |
| two neurons | real arithmetic tells two weights apart, float32 does not | Murray 2026, arXiv 2603.13334 |
| biases | hidden ones of 5e6, last ones of 1e6 to 4e6, swallow the signal | Murray 2026; Zombori et al. 2021 |
| rounding search | neighbors of a boundary point, coordinate by coordinate | Jin et al., "Getting a-Round Guarantees" |
| detectors | (2^k + 1) − 2^k tells the order and the format of a sum | Szász et al. 2025, arXiv 2506.01054 |

Where a suite breaks a naive certificate, that is asserted too, so that none of them can pass for lack of teeth.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from red_team.exact import composed, run, squared_norm
from red_team.machines import ORDERS, outputs
from torch import Tensor, nn

from tightlip import MaxMin, Normalize, Orthonormal, SpectralBall, certify, constrain, freeze, hold, lipschitz
from tightlip.linalg.arithmetic import ARITHMETICS
from tightlip.norms import NORMS, dual

MACHINES = ("float32", "float32-blocks")
ALL = ("real", *ARITHMETICS)


def layer(weight, bias=None, dtype=torch.float32):
    """A linear layer with these numbers."""
    weight = torch.as_tensor(weight, dtype=dtype)
    made = nn.Linear(weight.shape[1], len(weight), bias=bias is not None, dtype=dtype).requires_grad_(False)
    made.weight.data = weight
    if bias is not None:
        made.bias.data = torch.as_tensor(bias, dtype=dtype)
    return made


def true_radius_squared(network: nn.Sequential, x: Tensor, p: float) -> Fraction:
    """Of an affine network, in rationals: the distance to the nearest boundary of the predicted class."""
    rows, _ = composed(network, x.numel(), tuple(x.shape))
    logits = run(network, [Fraction(v) for v in x.flatten().tolist()], tuple(x.shape))
    best = max(range(len(logits)), key=lambda i: logits[i])
    gaps = [
        (
            (logits[best] - logits[i]) ** 2,
            squared_norm([a - b for a, b in zip(rows[best], rows[i], strict=True)], dual(p)),
        )
        for i in range(len(logits))
        if i != best
    ]
    return min(margin / steep for margin, steep in gaps if steep)


@pytest.mark.parametrize("arithmetic", ALL)
@pytest.mark.parametrize("p", NORMS)
def test_ties_have_no_radius_and_ties_of_others_have_one(p, arithmetic):
    x = torch.tensor([[1.0, 0.5]])
    for rows in ([[1, 0], [1, 0]], [[1, 0], [1, 0], [0, 1]], [[0, 1], [1, 0], [1, 0]], [[0, 0], [0, 0]]):
        network = nn.Sequential(layer(rows))
        for labels in (None, torch.tensor([0]), torch.tensor([1])):
            found = certify(network, x, labels, p=p, arithmetic=arithmetic)
            assert float(found.radius) == 0.0 and not bool(found.correct), (rows, labels)
    behind = certify(nn.Sequential(layer([[2, 0], [1, 0], [1, 0]])), x, p=p, arithmetic=arithmetic)
    assert 0.9 < float(behind.radius) <= 1.0


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("std", [[0.25], [0.2, 0.4, 1.0], [1e-20], [4.0]])
def test_radii_are_in_the_units_of_the_inputs_and_not_of_what_normalization_makes_of_them(p, std):
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 12, generator=draws)
    network = nn.Sequential(
        Normalize(0.5, std[0]) if len(std) == 1 else Normalize([0.5] * 3, std), nn.Flatten(), layer(weight)
    )
    for x in torch.rand(5, 3, 2, 2, generator=draws):
        radius, truth = Fraction(float(certify(network, x[None], p=p).radius)), true_radius_squared(network, x, p)
        loss = Fraction(1, 1000) if len(std) == 1 else Fraction(99, 100)  # of several units the largest counts
        assert truth * (1 - loss) < radius**2 <= truth


@pytest.mark.parametrize("scale", [1e-20, 1e-37, 1e-40, 2.0**-149, 1e-160, 1e-200, 1e-300, 5e-324])
def test_tiny_weights_are_not_constants(scale):
    draws, dtype = torch.Generator().manual_seed(1), torch.float32 if scale > 1e-46 else torch.float64
    weight = torch.randn(3, 4, generator=draws, dtype=torch.float64).sign() * scale
    weight[0] *= 3
    for after in ([], [layer(torch.eye(3).double() / max(scale, 1e-300), dtype=torch.float64)]):
        network = nn.Sequential(layer(weight, dtype=dtype).double(), *after)
        for p in NORMS:
            x = torch.randn(4, generator=draws, dtype=torch.float64)
            radius = float(certify(network, x[None], p=p).radius)
            assert math.isfinite(radius) and Fraction(radius) ** 2 <= true_radius_squared(network, x, p)
            assert float(lipschitz(network, p).constant) > 0.0


STARTS = ("ones", "first", "alternating", *range(5))


@pytest.mark.parametrize("start", STARTS)
def test_no_start_is_blind_to_the_largest_singular_value(start):
    n = 24
    named = {"ones": torch.ones(n), "first": torch.eye(n)[0], "alternating": torch.ones(n) * (-1.0) ** torch.arange(n)}
    drawn = lambda seed: torch.randn(n, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    blind = (named[start] if start in named else drawn(start)).double()
    top = torch.randn(n, generator=torch.Generator().manual_seed(99)).double()
    top = top - blind * (top @ blind) / (blind @ blind)
    top = top / top.norm()
    weight = 0.5 * torch.outer(blind, blind) / (blind @ blind) + 3.0 * torch.outer(top, top)
    few = weight @ blind / (weight @ blind).norm()
    for _ in range(3):
        few = weight.T @ (weight @ few)
        few = few / few.norm()
    assert float((weight @ few).norm()) < 0.6  # what three rounds from there say of a norm of 3
    assert float(lipschitz(nn.Sequential(layer(weight, dtype=torch.float64)), 2, 2).constant) >= 3.0 * (1 - 1e-12)
    for constraint in (SpectralBall(iterations=3), SpectralBall(), Orthonormal()):
        trained = nn.Sequential(constrain(nn.Linear(n, n, bias=False), constraint))
        optimizer = hold(trained, torch.optim.SGD(trained.parameters(), lr=1.0))
        for _ in range(3):  # steps that end at the matrix, where nothing holds it back
            trained[0].weight.grad = trained[0].weight.detach() - weight.float()
            optimizer.step()
        frozen = freeze(trained)
        assert float(torch.linalg.matrix_norm(frozen[0].weight.double(), 2)) <= 1 + 1e-6
        assert float(lipschitz(frozen, 2, 2).constant) <= 1 + 1e-6


def answers(network: nn.Module, x: Tensor) -> Tensor:
    """What torch answers in float32."""
    with torch.no_grad():
        return network(x.float()).argmax(1)


def assert_kept(network: nn.Sequential, x: Tensor, tried: Tensor, answer: Tensor, p: float = 2.0) -> None:
    """No certificate for float32 reaches from an input (n, d) to a point tried (n, d) that is answered otherwise."""
    moved = torch.linalg.vector_norm(tried.double() - x.double(), p, 1)
    for machine in MACHINES:
        found = certify(network, x, p=p, arithmetic=machine, progress=False)
        broken = (answer != found.prediction) & (found.radius > 0) & (moved <= found.radius * (1 + 1e-15))
        assert not bool(broken.any()), (machine, x[broken][:1], tried[broken][:1])


def test_two_neurons_that_only_real_numbers_tell_apart():
    low, high = 0.98905944, 0.98905950  # neighbors in float32
    network = nn.Sequential(layer([[low], [high]]))
    draws = torch.Generator().manual_seed(0)
    x = (1e-3 + torch.rand(20_000, 1, generator=draws)).float()
    real = certify(network, x, progress=False)
    assert bool((real.prediction == 1).all()) and bool((real.radius > 0.9 * x.flatten()).all())
    nearer = (x * torch.rand(x.shape, generator=draws)).float()  # towards 0, where the second is the larger still
    found = answers(network, nearer)
    reached = (x - nearer).flatten().double() < real.radius
    assert int(((found == 0) & reached).sum()) > 100  # ties in float32, within what real arithmetic certifies
    assert_kept(network, x, nearer, found)
    assert float(certify(network, x, arithmetic="float32").radius.max()) == 0.0
    wide = nn.Sequential(layer([[low], [high]], dtype=torch.float64))
    assert 0.24 < float(certify(wide, torch.full((1, 1), 0.2472), arithmetic="float64").radius) < 0.2473


def swallowed(hidden: float, last: float, seed: int) -> nn.Sequential:
    """A MaxMin network with biases of this size that cancel in exact arithmetic."""
    draws = torch.Generator().manual_seed(seed)
    first, second = (
        torch.linalg.qr(torch.randn(8, 8, generator=draws)).Q,
        torch.eye(8)[torch.randperm(8, generator=draws)],
    )
    bias = hidden * torch.randn(8, generator=draws).sign()
    middle = MaxMin()(bias[None])[0]
    # MaxMin orders biases alone where they differ; where they are equal it orders the signal
    return nn.Sequential(
        layer(first, bias), MaxMin(), layer(second, -(second @ middle)), MaxMin(), layer(torch.eye(8)[:3], [last] * 3)
    )


@pytest.mark.parametrize(("hidden", "last"), [(5e6, 0.0), (0.0, 1e6), (0.0, 4e6), (5e6, 4e6), (1e8, 1e8)])
def test_biases_that_swallow_the_signal(hidden, last, seed):
    network, flips = swallowed(hidden, last, seed), 0
    x = torch.rand(400, 8)
    real = certify(network, x, progress=False)
    for _ in range(3):
        way = torch.randn_like(x)
        tried = x + 0.99 * (real.radius.float() * torch.rand(400))[:, None] * way / way.norm(dim=1, keepdim=True)
        found = answers(network, tried)
        flips += int(((found != real.prediction) & (real.radius > 0)).sum())
        assert_kept(network, x, tried, found)
        assert_kept(network, tried, tried, answers(network, tried))
    assert flips > 10  # what real arithmetic certifies, float32 does not keep


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("kind", ["linear", "network"])
def test_neighbors_of_the_boundary_found_by_rounding(kind, p, seed):
    d = 12
    network = nn.Sequential(layer(torch.randn(2, d), 1e-3 * torch.randn(2)))
    if kind == "network":
        network = nn.Sequential(layer(torch.randn(8, d) / 4, torch.randn(8)), MaxMin(), layer(torch.randn(2, 8)))
    x = torch.rand(150, d)
    real = certify(network, x, p=p, progress=False)
    point = x.clone().requires_grad_()
    logits = network(point)
    lead = logits.gather(1, real.prediction[:, None])[:, 0] - logits.gather(1, 1 - real.prediction[:, None])[:, 0]
    slope = torch.autograd.grad(lead.sum(), point)[0].double()
    way = -slope / slope.norm(dim=1, keepdim=True) if p == 2 else -slope.sign()
    if p == 1:
        way = way * nn.functional.one_hot(slope.abs().argmax(1), d)
    edge, beyond = x.double() + real.radius[:, None] * way, 0
    for _ in range(12):  # every coordinate up to two numbers from where it belongs
        tried = edge.float()
        for _ in range(2):
            tried = torch.where(
                torch.rand(tried.shape) < 0.5, tried, torch.nextafter(tried, edge.float() + torch.randn(tried.shape))
            )
        found = answers(network, tried)
        inside = torch.linalg.vector_norm(tried.double() - x.double(), p, 1) <= real.radius
        beyond += int(((found != real.prediction) & inside).sum())
        assert_kept(network, x, tried, found, p)
        for row in ((found != real.prediction) & inside).nonzero().flatten().tolist()[:2]:
            exact = run(network, [Fraction(v) for v in tried[row].tolist()])
            best = int(real.prediction[row])
            assert exact[best] > exact[1 - best]  # in real arithmetic the certificate holds there too
    assert kind == "network" or p != 2 or beyond > 0  # float32 flips within what real arithmetic certifies


def detector(k: int, d: int) -> tuple[nn.Sequential, Tensor]:
    """A network whose first logit is 1 in exact arithmetic and any of 0, 1, 2 on a machine; the other is 0.5."""
    row = torch.zeros(d)
    row[0], row[1], row[d // 2], row[-1] = 2.0**k, 1.0, -(2.0**k), 0.0
    return nn.Sequential(layer(torch.stack((row, torch.zeros(d))), [0.0, 0.5])), torch.ones(1, d)


@pytest.mark.parametrize("d", [4, 16, 130, 1030])
def test_detectors_of_order_and_format(d, seed):
    told = set()
    for k in (8, 12, 24, 26, 32):
        network, x = detector(k, d)
        assert float(certify(network, x).radius) > 0
        radii = {name: float(certify(network, x, arithmetic=name).radius) for name in ALL}
        orders = [outputs(network, x[0], order, np.random.default_rng(i)) for i in range(8) for order in ORDERS]
        blocks = [outputs(network, x[0], "blocks", np.random.default_rng(i)) for i in range(16)]
        for columns in (torch.arange(d), *(torch.randperm(d) for _ in range(4))):
            moved = nn.Sequential(layer(network[0].weight[:, columns], network[0].bias))
            moved[0].weight.data = moved[0].weight.data.T.contiguous().T  # rows and columns the other way in memory
            for batch in (1, 3, 64):
                orders.append(moved(x.expand(batch, d))[0])
            half = moved.bfloat16()(x.bfloat16())[0]
            told.add(("bfloat16", k, float(half[0])))
            assert float(half.argmax()) == 0 or radii["bfloat16/float32"] == 0.0
        told |= {("float32", k, float(found[0])) for found in orders}
        flips = [found for found in orders if int(found.argmax()) != 0]
        assert not flips or radii["float32"] == 0.0, (k, d)
        assert radii["float32-blocks"] == 0.0 or all(int(found.argmax()) == 0 for found in blocks)
    assert {value for name, k, value in told if name == "float32" and k >= 26} >= {0.0, 1.0}  # it does tell
    assert ("float32", 8, 1.0) in told and float(certify(*detector(8, d), arithmetic="float32").radius) > 0


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_an_order_like_others(threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for k in (8, 16, 24, 26):
            network, x = detector(k, 4096)
            radius = float(certify(network, x, arithmetic="float32").radius)
            answered = [answers(network, x.expand(batch, -1)) for batch in (1, 7, 64)]
            assert radius == 0.0 or all(bool((found == 0).all()) for found in answered), k
            assert (radius > 0) == (k == 8)
    finally:
        torch.set_num_threads(before)

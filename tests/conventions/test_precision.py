"""Mixed precision, other dtypes, scaled losses, compilers, moves between devices."""

import copy
import math

import pytest
import torch
from conventions.cells import adam, inputs, loss, momentum, refused, train, values
from sweeps import EVERYTHING
from torch import optim

from tightlip import hold, lipschitz

of_dynamo = pytest.mark.filterwarnings("ignore")  # warnings inside of torch's compiler are not about us


def test_autocast_never_touches_the_weight(cell):
    network, optimizer = cell.held()
    for number in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss(network, inputs(network, number)).backward()
            optimizer.step()
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in network.parameters())
        cell.assert_member(network)
    if cell.constraint.promises and cell.orthonormal:
        assert lipschitz(network[0], *cell.constraint.norms).constant <= 1 + 1e-5


@pytest.fixture(params=["matrices", "kernels"])
def products(request):
    """A place where torch is told how float32 is multiplied; told here to use bfloat16, and put back afterwards."""
    place = {"matrices": torch.backends.mkldnn.matmul, "kernels": torch.backends.mkldnn.conv}[request.param]
    before, place.fp32_precision = place.fp32_precision, "bf16"
    yield place
    place.fp32_precision = before


@pytest.mark.cells(few=True)
def test_products_of_fewer_digits_never_touch_the_weight(cell, products):
    network, optimizer = cell.held()
    for number in range(3):
        train(network, optimizer, 1, number)
        cell.assert_member(network)
        assert products.fp32_precision == "bf16"


@pytest.mark.parametrize("late", [False, True], ids=["before-hold", "while-training"])
def test_a_network_turned_to_float64_trains_on(cell, late):
    network = cell.network()
    make = lambda p: optim.SGD(p, 0.05)  # noqa: E731 - torch's own keep their state in float32
    if late:
        optimizer = hold(network, make(network.parameters()))
        train(network, optimizer, 3)
    network.double()
    if not late:
        optimizer = hold(network, adam(network.parameters()))
    before = cell.leaf(network[0]).detach().clone()
    train(network, optimizer, cell.rounds + 1)
    assert all(p.dtype == torch.float64 for p in network.parameters())
    assert not torch.equal(before, cell.leaf(network[0]))
    cell.assert_member(network)


@pytest.mark.cells(way="step")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_cast_to_half_precision_is_refused(cell, dtype):
    network = cell.network().to(dtype)
    if cell.name == "parseval":  # promises nothing that rounding could break
        return
    with refused("cannot be held exactly: keep them float32, use autocast"):
        train(network, hold(network, momentum(network.parameters())), 1)


def test_moving_a_network_to_where_it_is_changes_nothing(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    before = values(network)
    network.to("cpu").cpu().float().share_memory()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for number in range(3):
        train(network, optimizer, 1, number)
        cell.assert_member(network)
    assert not torch.equal(before["4.weight"], network[4].weight)


FUSED = {
    "adam": adam,
    "momentum": momentum,
    "fused-adam": lambda p: adam(p, fused=True),
    "fused-sgd": lambda p: optim.SGD(p, 0.05, momentum=0.9, fused=True),
}


def scaled(network, optimizer, scaler, number, clip=True, factor=1.0):
    optimizer.zero_grad()
    (scaler.scale(loss(network, inputs(network, number))) * factor).backward()
    if clip:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("make", FUSED.values(), ids=FUSED)
def test_scaled_losses_with_unscale_and_clipping(cell, make):
    network, optimizer = cell.held(make=make)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = cell.leaf(network[0]).detach().clone()
    for number in range(3):
        scaled(network, optimizer, scaler, number)
        cell.assert_member(network)
    assert not torch.equal(before, cell.leaf(network[0]))


@pytest.mark.parametrize("name", ["adam", "momentum"])
def test_a_scaled_loss_trains_as_an_unscaled_one(cell, name):
    results = []
    for scale in (2.0**10, None):
        network, optimizer = cell.held(make=FUSED[name])
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for number in range(min(cell.rounds, 8) + 1):
            scaled(network, optimizer, scaler, number, clip=False)
        results.append(network)
    for p, q in zip(*(network.parameters() for network in results), strict=True):
        torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("clip", [False, True], ids=["step", "unscale"])
def test_steps_that_the_scaler_skips_leave_the_weights_as_they_were(cell, clip):
    network, optimizer = cell.held()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled(network, optimizer, scaler, 0, clip)
    before, scale = values(network), scaler.get_scale()
    scaled(network, optimizer, scaler, 1, clip, factor=math.inf)
    assert scaler.get_scale() < scale
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for number in range(3):
        scaled(network, optimizer, scaler, number, clip)
        cell.assert_member(network)
    assert not torch.equal(before["4.weight"], network[4].weight)


@pytest.mark.cells(way="step")
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_fused_optimizer_that_unscales_by_itself_trains_as_any(cell, name):
    """Its gradients are still scaled when the step begins: projections do not mind, sums of gradients do."""
    makes = {"adam": (adam, FUSED["fused-adam"]), "sgd": (momentum, FUSED["fused-sgd"])}[name]
    results = []
    for make in makes:
        network, optimizer = cell.held(make=make)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for number in range(min(cell.rounds, 8) + 1):
            scaled(network, optimizer, scaler, number, clip=False)
        cell.assert_member(network)
        results.append(network)
    for p, q in zip(*(network.parameters() for network in results), strict=True):
        torch.testing.assert_close(p, q, atol=1e-3, rtol=0)


@of_dynamo
@pytest.mark.cells(few=True, names=None if EVERYTHING else {"turned-8", "orthonormal", "row-l1"})  # 5 s each
def test_a_compiled_forward_is_the_forward_and_trains(cell):
    torch._dynamo.reset()
    network, optimizer = cell.held()
    compiled, before = torch.compile(network, backend="aot_eager"), cell.leaf(network[0]).detach().clone()
    for number in range(3):
        torch.testing.assert_close(compiled(inputs(network)), network(inputs(network)), atol=1e-5, rtol=1e-4)
        train(compiled, optimizer, 1, number)
        cell.assert_member(network)
    assert not torch.equal(before, cell.leaf(network[0]))


@of_dynamo
@pytest.mark.cells(way="step", names={"turned-8"}, few=True)
def test_a_compiled_network_can_be_held(cell):
    torch._dynamo.reset()
    compiled = torch.compile(cell.network(), backend="aot_eager")
    optimizer = hold(compiled, adam(compiled.parameters()))
    for number in range(2):
        train(compiled, optimizer, 1, number)
        cell.assert_member(compiled)


@of_dynamo
@pytest.mark.cells(way="step", names={"turned-8", "row-l1"}, few=True)
@pytest.mark.parametrize("whole", [False, True])
def test_a_compiled_step_is_the_step(cell, whole):
    torch._dynamo.reset()
    network, optimizer = cell.held()
    twin, twin_optimizer = copy.deepcopy((network, optimizer))
    hold(twin, twin_optimizer)
    compiled = torch.compile((lambda: train(network, optimizer, 1)) if whole else optimizer.step, backend="eager")
    for _ in range(3):
        train(twin, twin_optimizer, 1)
        if not whole:
            optimizer.zero_grad()
            loss(network, inputs(network)).backward()
        compiled()
        cell.assert_member(network)
    torch.testing.assert_close(cell.leaf(network[0]), cell.leaf(twin[0]), atol=1e-6, rtol=1e-5)

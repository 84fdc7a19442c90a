"""Distances in the ∞-norm: what they compute, how they relax, and that nothing exceeds what is proven of them."""

import itertools
import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from tightlip import (
    LinfDistance,
    MeanShift,
    SortedDistance,
    TightlipError,
    certify,
    fit,
    freeze,
    lipschitz,
    load,
    pgd,
    save,
)
from tightlip.linalg import fusing
from tightlip.linalg import power_distance as kernels
from tightlip.linalg.power_distance import power_distance


def dense(x, w, octave):
    if octave is None:
        return (x[:, None] - w[None]).abs().amax(-1)
    return (x[:, None] - w[None]).abs().pow(2.0**octave).sum(-1).pow(0.5**octave)


@pytest.mark.parametrize("octave", [1, 2, 3, 5, None])
def test_powers_and_their_derivatives_are_those_of_the_formula(octave):
    x = torch.rand(6, 9, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(power_distance(x, w, octave), dense(x, w, octave), rtol=1e-12)
    assert torch.autograd.gradcheck(lambda x, w: power_distance(x, w, octave), (x, w))


@pytest.mark.parametrize("octave", [1, 10, 20])
def test_extreme_inputs_neither_overflow_nor_become_nan(octave):
    w = torch.tensor([[0.0, 0.0], [1e18, -1e18], [1e-20, 0.0]], requires_grad=True)
    x = torch.tensor([[0.0, 0.0], [1e18, 1e18], [1e-25, 1e-25]], requires_grad=True)
    y = power_distance(x, w, octave)
    y.sum().backward()
    assert torch.isfinite(y).all() and (y >= 0).all()
    assert torch.isfinite(x.grad).all() and torch.isfinite(w.grad).all()


def test_the_power_falls_to_the_maximum_with_the_octave():
    x, w = torch.rand(5, 50), torch.rand(7, 50)
    found = torch.stack([power_distance(x, w, octave) for octave in range(1, 15)])
    largest = torch.cdist(x, w, p=math.inf)
    assert (found.diff(dim=0) <= 1e-5).all() and torch.allclose(found[-1], largest, rtol=1e-3)
    assert (found >= largest * (1 - 1e-6)).all()


@pytest.mark.filterwarnings("ignore")  # of torch, in compiling
def test_compiled_and_in_pieces_are_the_same(monkeypatch):
    x, w = torch.rand(30, 40, requires_grad=True), torch.rand(50, 40, requires_grad=True)
    made = []
    for small, piece in ((0, 2**20), (2**40, 2000), (2**40, 2**20)):
        monkeypatch.setattr(fusing, "SMALL", small)
        monkeypatch.setattr(kernels, "PIECE", piece)
        x.grad = w.grad = None
        y = power_distance(x, w, 4)
        y.square().sum().backward()
        made.append((y.detach(), x.grad, w.grad))
    assert not fusing._BROKEN
    for other in made[1:]:
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(made[0], other, strict=True))


def test_where_nothing_compiles_pieces_are_computed_and_it_is_said_once(monkeypatch, caplog):
    def fails(function):
        def compiled(*arguments):
            raise RuntimeError("no compiler")

        return compiled

    monkeypatch.setattr(fusing, "SMALL", 0)
    monkeypatch.setattr(fusing, "_compile", fails)
    monkeypatch.setattr(fusing, "_BROKEN", set())
    x, w = torch.rand(3, 4), torch.rand(5, 4)
    for _ in range(2):
        assert torch.allclose(power_distance(x, w, 3), dense(x, w, 3), rtol=1e-5)
    assert len([m for m in caplog.messages if "torch.compile does not work here (no compiler)" in m]) == 1


def distances(widths=(12, 16, 8, 3)):
    layers = []
    for i, o in itertools.pairwise(widths[:-1]):
        layers += [LinfDistance(i, o, bias=False), MeanShift(o)]
    network = nn.Sequential(nn.Flatten(), *layers, LinfDistance(*widths[-2:], negative=True))
    for module in network:
        if isinstance(module, MeanShift):
            module.mean.normal_()
    return network


def test_eval_mode_measures_in_the_infinity_norm_whatever_the_octave():
    layer = LinfDistance(5, 4, octave=3)
    x = torch.randn(7, 5)
    truth = (x[:, None] - layer.weight).abs().amax(-1)
    assert torch.allclose(layer.eval()(x), truth)
    assert not torch.allclose(layer.train()(x), truth, rtol=1e-2)
    layer.octave = None
    assert torch.allclose(layer(x), truth)
    assert layer(x.reshape(7, 1, 5)).shape == (7, 1, 4)


def test_the_audit_proves_one_and_the_constant_is_attained():
    network = distances().eval()
    bound = lipschitz(network, math.inf)
    assert bound.constant == 1.0 and (bound.input_norm, bound.output_norm) == (math.inf, math.inf)
    layer = LinfDistance(3, 1).eval()
    x = torch.tensor([[50.0, 0.0, 0.0]])
    change = layer(x + torch.tensor([[0.5, 0.0, 0.0]])) - layer(x)
    assert abs(change.item()) == pytest.approx(0.5)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 2), (math.inf, math.inf), (2, math.inf), (1, math.inf)])
def test_no_pair_of_inputs_moves_outputs_by_more_than_is_proven(p, q):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        layer = LinfDistance(6, 9).double().eval()
        x = 2 * torch.randn(400, 6, dtype=torch.float64, generator=generator)
        step = torch.randn(400, 6, dtype=torch.float64, generator=generator) * torch.rand(400, 1).double() * 0.1
        moved = (layer(x + step) - layer(x)).norm(q, dim=1) / step.norm(p, dim=1)
        assert moved.max().item() <= lipschitz(layer, p, q).constant * (1 + 1e-9)


def test_several_outputs_can_move_together_as_far_as_is_proven():
    layer = LinfDistance(2, 9).eval()
    layer.weight.data.zero_()
    x, step = torch.tensor([[5.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    moved = (layer(x + step) - layer(x)).norm(dim=1) / step.norm(dim=1)
    assert moved.item() == pytest.approx(lipschitz(layer, 2, 2).constant, rel=1e-6) == pytest.approx(3.0)


def test_what_training_mode_measures_is_not_audited():
    network = distances().train()
    with pytest.raises(
        TightlipError, match=r"MeanShift in training mode depends on the whole batch: call network.eval"
    ):
        lipschitz(network, math.inf)
    with pytest.raises(TightlipError, match="LinfDistance in training mode computes something else: call network.eval"):
        lipschitz(LinfDistance(3, 2, octave=3), math.inf)
    assert lipschitz(LinfDistance(3, 2), math.inf).constant == 1.0


def test_a_trained_network_is_certified_saved_and_resists_attacks(tmp_path):
    torch.manual_seed(0)
    y = torch.arange(240) % 3
    x = (torch.rand(240, 12) * 0.3 + torch.eye(3).repeat_interleave(4, 1)[y] * 0.6).clamp(0, 1)
    network = distances()
    network.train()
    for module in network:
        if isinstance(module, LinfDistance):
            module.octave = 3

    def hinge(outputs, targets):
        true = outputs.gather(1, targets[:, None])
        return (0.6 - true + outputs.scatter(1, targets[:, None], -9.0).amax(1, keepdim=True)).relu().mean()

    fit(network, hinge, (x, y), epochs=60, batch_size=40, optimizer=partial(torch.optim.Adam, lr=0.02), progress=False)
    frozen = freeze(network)
    certificate = certify(frozen, x, y, p=math.inf)
    assert certificate.accuracy(0) > 0.95 and certificate.accuracy(0.05) > 0.8
    save(frozen, tmp_path / "m.safetensors")
    again = certify(load(tmp_path / "m.safetensors"), x, y, p=math.inf)
    assert torch.equal(again.radius, certificate.radius)
    safe = certificate.radius > 0.05
    found = pgd(frozen, x[safe], y[safe], 0.05, p=math.inf, steps=40, restarts=2, progress=False)
    assert torch.equal(frozen(found).argmax(1), y[safe])


def test_sorted_distances_are_weighted_in_descending_order():
    layer = SortedDistance(4, 2, dropout=0.25).eval()
    x = torch.randn(6, 4)
    ordered = (x[:, None] - layer.weight).abs().sort(-1, descending=True).values
    weights = 0.75 * 0.25 ** torch.arange(4)
    assert torch.allclose(layer(x), ordered @ weights, rtol=1e-5)
    plain = LinfDistance(4, 2).eval()
    same = SortedDistance(4, 2, dropout=0.0).eval()
    same.load_state_dict(plain.state_dict())
    assert torch.equal(same(x), plain(x))


def test_the_maximum_over_what_is_kept_has_the_sum_for_its_mean():
    layer = SortedDistance(5, 3, dropout=0.5).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    mean = torch.stack([layer.train()(x) for _ in range(5000)]).mean(0)
    assert torch.allclose(mean, layer.eval()(x), atol=0.03)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 2), (math.inf, math.inf), (2, math.inf), (1, math.inf)])
def test_no_pair_of_inputs_moves_sorted_distances_by_more_than_is_proven(p, q):
    found = 0.0
    layer = SortedDistance(3, 2, dropout=0.4).double().eval()
    layer.weight.data.zero_()
    bound = lipschitz(layer, p, q).constant
    for step in ([1.0, 0, 0], [1.0, 1, 1], [1.0, 0.4, 0.16]):
        x = torch.tensor([[50.0, 50.0, 50.0]]).double()
        moved = layer(x + torch.tensor([step]).double()) - layer(x)
        found = max(found, (moved.norm(q) / torch.tensor(step).norm(p)).item())
    assert found <= bound * (1 + 1e-6) and found >= 0.9 * bound


def test_sorted_distances_in_training_are_not_audited_and_others_survive_a_file(tmp_path):
    layer = nn.Sequential(SortedDistance(3, 2))
    with pytest.raises(
        TightlipError, match="SortedDistance in training mode computes something else: call network.eval"
    ):
        lipschitz(layer, math.inf)
    x = torch.randn(5, 3)
    save(layer.eval(), tmp_path / "m.safetensors")
    assert torch.equal(load(tmp_path / "m.safetensors")(x), layer(x))
    assert lipschitz(layer, math.inf).constant <= 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: LinfDistance(0, 3), "in_features must be an integer ≥ 1"),
        (lambda: LinfDistance(3, -2), "out_features must be an integer ≥ 1"),
        (lambda: LinfDistance(3, 2, octave=0), "octave must be an integer from 1 to 20"),
        (lambda: setattr(LinfDistance(3, 2), "octave", True), "octave must be an integer"),
        (lambda: LinfDistance(3, 2)(torch.zeros(4, 2)), "takes 3 features, got inputs of shape"),
        (lambda: SortedDistance(3, 2, dropout=1.0), "dropout must be a number from 0 to less than 1"),
        (lambda: SortedDistance(3, 2, dropout=-0.1), "dropout must be a number from 0 to less than 1"),
    ],
)
def test_mistakes_are_told(call, says):
    with pytest.raises(TightlipError, match=says):
        call()


@pytest.mark.parametrize("kind", [LinfDistance, SortedDistance])
def test_a_method_that_was_replaced_is_refused(kind):
    layer = kind(3, 2).eval()
    layer.measured = lambda rows: rows[:, :2] * 100
    with pytest.raises(TightlipError, match=f"the method measured of {kind.__name__} has been replaced"):
        lipschitz(layer, math.inf)


@pytest.mark.parametrize("kind", [LinfDistance, SortedDistance])
@pytest.mark.parametrize("training", [False, True])
def test_nan_comes_out_where_nan_goes_in(kind, training):
    layer = kind(3, 2, octave=3).train(training)
    assert layer(torch.full((1, 3), math.nan)).isnan().all()
    layer.weight.data[0] = math.nan
    assert layer(torch.zeros(1, 3)).isnan().tolist() == [[True, False]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_measures_too(dtype):
    layer = LinfDistance(2, 1, octave=3).to(dtype)
    layer.weight.data.zero_()
    x = torch.tensor([[0.0, 0.0], [0.5, 0.25]], dtype=dtype)
    assert layer.eval()(x).flatten().tolist() == [0.0, 0.5]
    y = layer.train()(x)
    y.sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(layer.weight.grad).all()


def test_a_dropout_that_is_no_share_is_refused_later_too():
    layer = SortedDistance(3, 2).eval()
    layer.dropout = 1.0
    with pytest.raises(TightlipError, match="dropout must be a number"):
        layer(torch.zeros(1, 3))


def test_importing_the_library_does_not_import_torchs_compiler():
    code = "import sys, tightlip; tightlip.LinfDistance(2, 3); assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("octave", range(1, 21))
def test_no_power_is_a_number_that_slows_processors_down(dtype, octave):
    share = torch.cat([torch.logspace(-40, 0, 2001, dtype=torch.float64), torch.linspace(0, 1, 2001)]).to(dtype)
    power = kernels._counted(share, octave)
    for _ in range(octave):
        power = power * power
    assert ((power == 0) | (power >= torch.finfo(dtype).tiny)).all()
    assert power[-1] == 1  # and what counts is left
    exact = share.double() ** (2**octave)
    assert (power.double() - exact).abs().max() <= 2**octave * torch.finfo(dtype).eps

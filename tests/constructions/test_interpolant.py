import copy
import io
import math
import pickle
import time

import pytest
import torch
from sweeps import some
from torch import nn

from tightlip import TightlipError, lipschitz
from tightlip.audit import gains
from tightlip.constructions import LatticeInterpolant, interpolant, lattice_interpolant
from tightlip.constructions.interpolant import separating
from tightlip.linalg.rounding import normalize_exactly

NORMS = (1, 2, math.inf)


def cones(n, d, p, seed=0):
    """As steep as allowed: distances to some of the samples."""
    points = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return points, torch.cdist(points, points[:20], p=p, compute_mode="donot_use_mm_for_euclid_dist").amin(1)


@pytest.mark.parametrize("p", some([2], [1, math.inf]))
def test_two_thousand_samples_in_ten_dimensions_take_seconds(p):
    """Processor time, for other work may share the machine."""
    points, values = cones(2000, 10, p)
    began = time.process_time()
    h = lattice_interpolant(points, values, p)
    error = float((h(points)[:, 0] - values).abs().max())
    assert time.process_time() - began < 10
    assert error == 0
    assert sum(t.numel() for t in h.state_dict().values()) == 2000 * 11
    assert 1 - 1e-9 < lipschitz(h, p).constant <= 1 + 1e-9


@pytest.mark.parametrize("p", NORMS)
def test_the_search_finds_what_trying_all_pieces_finds(p):
    points, values = cones(150, 4, p)
    x = torch.cat((points[:20], 2 * torch.randn(80, 4, generator=torch.Generator().manual_seed(1)).double()))
    d = points[:, None] - points
    slopes = (values[:, None] - values)[..., None] * separating(d, p)
    pieces = values[:, None] + torch.einsum("ijd,qid->qij", slopes, x[:, None] - points)
    pieces.masked_fill_((d == 0).all(-1), math.inf)
    everything = pieces.amin(2).amax(1)
    assert (LatticeInterpolant(points, values, p)(x)[:, 0] - everything).abs().max() < 1e-12


@pytest.mark.parametrize("p", NORMS)
def test_integer_grids_with_their_many_ties_are_no_exception(p):
    points = torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * 3)
    values = torch.linalg.vector_norm(points - 1, p, dim=1)
    plain, layer = (lattice_interpolant(points[::2], values[::2], p, dense=dense) for dense in (True, False))
    x = torch.cat((points, points + 0.5))
    assert (plain(x) - layer(x)).abs().max() < 1e-12
    assert torch.equal(layer(points[::2])[:, 0], values[::2])


@pytest.mark.parametrize("p", NORMS)
def test_the_slope_of_a_piece_has_dual_norm_one_over_the_distance(p):
    d = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    d[0], d[1] = 0.0, torch.tensor([2.0, -2.0, 0.0, 2.0])
    u, dual = separating(d, p), {1: math.inf, 2: 2, math.inf: 1}[p]
    assert torch.allclose((u * d)[1:].sum(-1), torch.ones(49, dtype=torch.float64))
    assert torch.equal(u[0], torch.zeros(4, dtype=torch.float64))
    product = torch.linalg.vector_norm(u, dual, -1) * torch.linalg.vector_norm(d, p, -1)
    assert torch.allclose(product[1:], torch.ones(49, dtype=torch.float64))
    assert torch.equal(separating(-d, p), -u)  # f_ij = f_ji


@pytest.mark.parametrize("p", NORMS)
def test_gradients_flow_through_the_piece_that_attains_the_value(p):
    points, values = cones(60, 3, p)
    h = LatticeInterpolant(points, torch.stack((values, -values), 1), p)
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(h, x)
    gradient = torch.autograd.grad(h(x)[:, 0].sum(), x)[0]
    dual = {1: math.inf, 2: 2, math.inf: 1}[p]
    assert (torch.linalg.vector_norm(gradient, dual, dim=1) <= 1 + 1e-9).all()
    assert gradient.any()


def test_shapes_of_batches():
    points, values = cones(40, 3, 2)
    h = LatticeInterpolant(points, torch.stack((values, -values), 1), 2)
    assert h(points.reshape(5, 8, 3)).shape == (5, 8, 2)
    assert torch.equal(h(points.reshape(5, 8, 3)), h(points).reshape(5, 8, 2))
    assert h(points[0]).shape == (2,)
    assert h(points[:0]).shape == (0, 2)
    for wrong in (points[:, :2], points[0, 0]):
        with pytest.raises(TightlipError, match=r"give \(…, 3\)"):
            h(wrong)


def test_an_input_that_is_not_a_number_has_no_value_and_ends():
    h = LatticeInterpolant(*cones(40, 3, 2), 2)
    x = torch.zeros(3, 3, dtype=torch.float64)
    x[1, 1] = math.nan
    assert torch.isnan(h(x)[:, 0]).tolist() == [False, True, False]


@pytest.mark.parametrize("p", NORMS)
def test_it_survives_copying_pickling_saving_and_loading(p):
    h = LatticeInterpolant(*cones(40, 3, p), p)
    other = LatticeInterpolant(*cones(40, 3, p, seed=5), p)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert not torch.allclose(other(x), h(x))
    other.load_state_dict(h.state_dict())
    stream = io.BytesIO()
    torch.save(h.state_dict(), stream)
    stream.seek(0)
    assert torch.load(stream).keys() == {"points", "values"}
    for twin in (other, copy.deepcopy(h), pickle.loads(pickle.dumps(h))):
        assert torch.equal(twin(x), h(x))
        assert lipschitz(twin, p) == lipschitz(h, p)


@pytest.mark.parametrize("p", NORMS)
def test_float32_costs_its_rounding_and_the_audit_says_so(p):
    points, values = cones(200, 3, p)
    h = LatticeInterpolant(points, values, p).float()
    out = h(points.float())
    assert out.dtype == torch.float32
    assert (out[:, 0] - values).abs().max() < 1e-5
    assert 1 < lipschitz(h, p).constant < 1.001
    stored = [buffer.double() for buffer in (h.points, h.values)]
    run = torch.linalg.vector_norm(stored[0][:, None] - stored[0], p, dim=-1).fill_diagonal_(math.inf)
    assert lipschitz(h, p).constant == pytest.approx(float(((stored[1] - stored[1].mT).abs() / run).max()), rel=1e-9)


def test_the_audit_reads_the_data_that_are_there_and_not_what_was_promised():
    h = LatticeInterpolant(*cones(50, 3, 2), 2)
    h.values.mul_(7)
    assert lipschitz(h, 2).constant == pytest.approx(7)
    h.values[3] = math.nan
    with pytest.raises(TightlipError, match="NaN"):
        lipschitz(h, 2)
    h = LatticeInterpolant(*cones(50, 3, 2), 2)
    h.points[1] = h.points[0]
    h.points[2] = h.points[0]
    assert lipschitz(h, 2).constant > 1  # pieces between them are left out, others are steeper than before
    h.points[:] = h.points[0].clone()
    with pytest.raises(TightlipError, match="one point"):
        lipschitz(h, 2)


def test_only_this_exact_type_has_the_rule():
    class Louder(LatticeInterpolant):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(TightlipError, match="register one"):
        lipschitz(Louder(*cones(40, 3, 2), 2), 2)
    h = LatticeInterpolant(*cones(40, 3, 2), 2)
    h.forward = lambda x: 10 * x
    with pytest.raises(TightlipError, match="restore it"):
        lipschitz(nn.Sequential(h), 2)


@pytest.mark.parametrize("p", NORMS)
def test_constants_from_the_other_norms_are_true_too(p):
    """‖slope‖_{r*} by hand, for one piece; with several outputs only the ∞-norm of outputs is claimed."""
    points = torch.tensor([[0.0, 0.0, 0.0], [3.0, -2.0, 1.0]], dtype=torch.float64)
    h = LatticeInterpolant(points, torch.tensor([0.0, 1.0], dtype=torch.float64), p)
    slope = torch.autograd.functional.jacobian(h, torch.ones(3, dtype=torch.float64))[0]
    for r, dual in ((1, math.inf), (2, 2), (math.inf, 1)):
        for q in [q for q in NORMS if q >= r]:
            assert lipschitz(h, r, q).constant == pytest.approx(float(torch.linalg.vector_norm(slope, dual)), rel=1e-9)
    both = LatticeInterpolant(points, torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64), p)
    lipschitz(both, 2, math.inf)
    with pytest.raises(TightlipError, match="no rule proves"):
        lipschitz(both, 2, 2)


def test_one_point_is_left_to_lattice_interpolant():
    with pytest.raises(TightlipError, match="use lattice_interpolant"):
        LatticeInterpolant(torch.ones(3, 2), torch.zeros(3), 2)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_coordinates_that_a_thread_takes_for_equal_still_count(p, monkeypatch):
    """With flushed denormals d = (1, 1e-310) has the sign (1, 0): half of the slope from ∞ for p = 1."""
    points = torch.tensor([[0.0, 0.0], [1.0, 1e-310]], dtype=torch.float64)
    h = LatticeInterpolant(points, torch.tensor([0.0, 1.0]), p)
    expected = gains(h).table
    read = {name: getattr(h, name).clone() for name in ("points", "values")}
    known = normalize_exactly(h.values)
    monkeypatch.setattr(interpolant, "stored_numbers", lambda module, name: read[name])
    monkeypatch.setattr(interpolant, "normalize_exactly", lambda values: known)
    assert torch.set_flush_denormal(True)
    try:
        found = gains(h).table
    finally:
        torch.set_flush_denormal(False)
    assert found == expected and found[math.inf, math.inf] >= (2 if p == 1 else 1)

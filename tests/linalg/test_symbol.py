"""Bounds of convolutions against dense operators, closed forms and fine grids of frequencies.

`CONVOLUTION_CASES=1000 python -m pytest tests/linalg/test_symbol.py -k dense` compares more random convolutions.
"""

import math
import os

import mpmath
import pytest
import torch
from dense import attained_norm, dense_operator, random_case
from slopes import PAIRS
from truths import exact_norm, gaussian

from tightlip import TightlipError
from tightlip.linalg import symbol_bounds
from tightlip.linalg.convolutions import convolution_norm_bounds, smallest_singular_value_bound
from tightlip.linalg.frequencies import covering
from tightlip.linalg.geometry import Geometry, pixel_multiplicity, polyphase
from tightlip.linalg.symbol import gram_symbol

INF = math.inf
CASES = int(os.environ.get("CONVOLUTION_CASES", "80"))
EXACT = 1 - 1e-13
"""The truth is computed in float64 as well."""


def geometry(axes, stride=1, dilation=1, padding=0, **options):
    return Geometry((stride,) * axes, (dilation,) * axes, ((padding, padding),) * axes, **options)


def spectral(weight, shape):
    return convolution_norm_bounds(weight, shape, [(2, 2)])[2, 2]


def orthonormal(channels, moves, out=None):
    """Orthonormal 1×1 maps with moves of half the channels by a tap in between, along these axes."""
    axes = max(moves) + 1
    kernel = torch.linalg.qr(gaussian(out or channels, channels)).Q.view(-1, channels, *[1] * axes)
    for seed, axis in enumerate(moves, start=1):
        stay, go = kernel.new_zeros(2, *kernel.shape[: 2 + axis], 1, *kernel.shape[3 + axis :])
        half = len(kernel) // 2
        kernel = torch.cat(
            (torch.cat((kernel[:half], stay[:half]), 2 + axis), torch.cat((go[half:], kernel[half:]), 2 + axis))
        )
        turn = torch.linalg.qr(gaussian(len(kernel), len(kernel), seed=seed)).Q
        kernel = torch.tensordot(turn, kernel, 1)
    return kernel


# --------------------------------------------------------------------------------------------------- against the truth


@pytest.mark.parametrize("part", range(4))
def test_no_dense_operator_is_above_its_bounds(part):
    for seed in range(part, CASES, 4):
        case = random_case(seed)
        operator = dense_operator(case.weight, case.geometry, case.size)
        bounds = convolution_norm_bounds(case.weight, case.geometry)
        assert set(bounds) == {(p, q) for p, q in PAIRS if p == q or not case.geometry.wraps}
        for (p, q), bound in bounds.items():
            assert bound >= exact_norm(operator, p, q) * EXACT, (seed, p, q)


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_arbitrary_kernels_are_bounded_to_a_tenth_of_a_percent(seed):
    case = random_case(seed)
    shape = Geometry(case.geometry.stride, case.geometry.dilation, case.geometry.padding, case.geometry.groups)
    attained = attained_norm(case.weight, shape, 120 if len(case.size) < 3 else 24)
    assert attained * EXACT <= spectral(case.weight, shape) <= attained * (1.001 if len(case.size) < 3 else 1.01)


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair != (2, 2)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (2, 3), (3, 2), (2, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_rows_and_columns_are_attained_on_images_with_room(pair, stride, dilation, transposed):
    weight = gaussian(4, 2, 3, 2, seed=stride)
    shape = geometry(2, stride, dilation, 3 * (not transposed), groups=2, transposed=transposed)
    truth = exact_norm(dense_operator(weight, shape, (9, 8)), *pair)
    assert truth * EXACT <= convolution_norm_bounds(weight, shape)[pair] <= truth * (1 + 1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_transposed_convolution_is_an_adjoint(axes):
    weight = gaussian(6, 2, *[3, 2, 2][:axes])
    there = convolution_norm_bounds(weight, geometry(axes, 2, groups=3))
    back = convolution_norm_bounds(weight, geometry(axes, 2, groups=3, transposed=True))
    assert back == {(1, 1): there[INF, INF], (1, 2): there[2, INF], (2, INF): there[1, 2], (INF, INF): there[1, 1]} | {
        pair: there[pair] for pair in [(2, 2), (1, INF)]
    }


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize(("taps", "dilation", "padding"), [(3, 1, 1), (5, 1, 2), (3, 2, 2), (3, 1, 2), (2, 1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_on_the_smallest_images(mode, taps, dilation, padding, stride):
    """Sizes from the first that torch takes: around, mirrored and repeated pixels meet in one."""
    shape = geometry(1, stride, dilation, padding, padding_mode=mode)
    for weight in (gaussian(2, 2, taps).abs(), gaussian(3, 1, taps, seed=1)):
        bounds = convolution_norm_bounds(weight, shape)
        first = max({"circular": padding, "reflect": padding + 1}.get(mode, 1), dilation * (taps - 1) + 1 - 2 * padding)
        for size in range(max(first, 1), first + 8):
            operator = dense_operator(weight, shape, (size,))
            for (p, q), bound in bounds.items():
                assert bound >= exact_norm(operator, p, q) * EXACT, (size, p, q)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (0, 2), (1, 1), (2, 1), (3, 3)])
@pytest.mark.parametrize("taps", [1, 2, 4])
def test_the_multiplicity_of_a_pixel_is_that_of_the_worst_image(mode, padding, taps):
    shape = Geometry((2,), (2,), (padding,), 1, mode)
    most = 1
    for size in range(max({"circular": max(padding), "reflect": max(padding) + 1}.get(mode, 1), 1), 12):
        if size + sum(padding) > 2 * (taps - 1):
            numbers = torch.arange(size, dtype=torch.float64)[None]
            padded = torch.nn.functional.pad(numbers, padding, mode) if any(padding) else numbers
            most = max(most, int(torch.bincount(padded[0].long()).max()))
    assert pixel_multiplicity(shape, (taps,)) == most


@pytest.mark.parametrize(("mode", "square"), [("circular", 3), ("reflect", 3), ("replicate", 3), ("zeros", 1)])
def test_the_multiplicity_of_a_pixel_is_attained(mode, square):
    bounds = convolution_norm_bounds(torch.full((1, 1, 1), -2.0), geometry(1, 2, padding=1, padding_mode=mode))
    assert bounds[1, 1] == pytest.approx(2 * square, rel=1e-9)
    assert bounds[2, 2] == pytest.approx(2 * math.sqrt(square), rel=1e-9)
    assert bounds[INF, INF] == pytest.approx(2, rel=1e-9)


def test_circular_padding_of_stride_one_costs_nothing():
    weight = gaussian(3, 2, 3, 3)
    plain, around = (
        convolution_norm_bounds(weight, geometry(2, 1, 1, 1, padding_mode=m)) for m in ("zeros", "circular")
    )
    assert around == {(p, q): bound for (p, q), bound in plain.items() if p == q}


def test_a_circular_stride_costs_no_more_than_no_stride():
    weight = gaussian(3, 2, 3, 3)
    strided, dense = (spectral(weight, geometry(2, s, 1, 1, padding_mode="circular")) for s in (2, 1))
    assert strided <= dense


# -------------------------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(
    ("taps", "norm"),
    [([1.0, 0.0, -1.0], 2.0), ([1.0, 1.0, 1.0], 3.0), ([-1.0, 2.0, -1.0], 4.0), ([1.0], 1.0), ([0.0, 0.0, 3.0], 3.0)],
)
def test_small_kernels(taps, norm):
    weight = torch.tensor(taps).view(1, 1, -1)
    assert norm <= spectral(weight, geometry(1)) <= norm * 1.001
    square = weight[..., None] * weight[:, :, None]
    assert norm**2 <= spectral(square, geometry(2)) <= norm**2 * 1.001


@pytest.mark.parametrize("frequency", [0.05, 0.77, 1.571, 2.9, 3.14])
def test_a_narrow_peak_between_the_cells_is_found(frequency):
    place = torch.arange(41, dtype=torch.float64)
    weight = torch.stack((torch.cos(frequency * place), torch.sin(frequency * place)))[
        :, None
    ]  # |K̂| peaks at ±frequency
    attained = attained_norm(weight, geometry(1), 20_000)
    assert attained * EXACT <= spectral(weight, geometry(1)) <= attained * 1.001
    plane = weight[:, :, :9, None] * torch.cos(1.3 * place[:7])
    attained = attained_norm(plane, geometry(2), 300)
    assert attained * EXACT <= spectral(plane, geometry(2)) <= attained * 1.001


def test_a_patch_convolution_is_its_matrix():
    weight = gaussian(5, 2, 3, 3)
    norm = float(torch.linalg.matrix_norm(weight.flatten(1), 2))
    assert norm * EXACT <= spectral(weight, geometry(2, 3)) <= norm * (1 + 1e-9)


def test_groups_and_dilation_leave_the_largest_block():
    weight = gaussian(6, 2, 3, 3)
    blocks = [spectral(block, geometry(2)) for block in weight.chunk(3)]
    assert spectral(weight, geometry(2, dilation=2, groups=3)) == pytest.approx(max(blocks), rel=1e-3)


# --------------------------------------------------------------------------------------------------------- orthonormal


@pytest.mark.parametrize("channels", [2, 8, 24])
@pytest.mark.parametrize("moves", [[0], [0, 0], [0, 1], [0, 1, 0, 1], [0, 1, 0, 1, 0, 1], [0, 1, 2]])
def test_orthonormal_kernels_are_bounded_from_both_sides(channels, moves):
    kernel = orthonormal(channels, moves)
    axes = max(moves) + 1
    for weight, slack in ((kernel, 1e-9), (kernel.float(), 1e-6)):
        assert 1 - 1e-6 <= spectral(weight, geometry(axes)) <= 1 + slack
        assert 1 - slack <= smallest_singular_value_bound(weight, (1,) * axes) <= 1 + 1e-6


@pytest.mark.parametrize("out", [4, 12])
def test_tall_and_wide_orthonormal_kernels(out):
    tall = orthonormal(4, [0, 1, 0], out)
    for weight in (tall, tall.transpose(0, 1)):
        assert (
            1 - 1e-9 <= smallest_singular_value_bound(weight, (1, 2)) <= 1 <= spectral(weight, geometry(2)) <= 1 + 1e-9
        )


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 1e-2, 0.1])
def test_nearly_orthonormal_kernels(noise):
    kernel = orthonormal(8, [0, 1, 0, 1])
    kernel = kernel + noise * gaussian(*kernel.shape, seed=9) / 24
    symbol = torch.fft.fft2(kernel, s=(64, 64)).movedim((2, 3), (0, 1))
    singular = torch.linalg.svdvals(symbol)
    largest, smallest = float(singular.max()), float(singular.min())
    assert largest * EXACT <= spectral(kernel, geometry(2)) <= largest * (1 + min(2 * noise, 1e-3))
    assert smallest - 4 * noise <= smallest_singular_value_bound(kernel, (1, 1)) <= smallest / EXACT


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_smallest_singular_value_holds_around_every_circle(size):
    kernel = orthonormal(4, [0, 1]) + 0.02 * gaussian(4, 4, 2, 2)
    padding = ((1, 0), (1, 0)) if size > 0 else ()
    operator = dense_operator(kernel, Geometry((1, 1), (1, 1), padding, 1, "circular"), (size, size + 1))
    bound = smallest_singular_value_bound(kernel, (1, 1))
    assert 0.7 < bound <= float(torch.linalg.svdvals(operator)[-1])


def test_nothing_is_proven_of_kernels_that_vanish_somewhere():
    assert smallest_singular_value_bound(torch.tensor([[[1.0, 1.0]]]), (1,)) == 0.0
    assert smallest_singular_value_bound(torch.zeros(2, 2, 3), (1,)) == 0.0
    assert smallest_singular_value_bound(torch.stack((torch.ones(1, 2), torch.zeros(1, 2))), (1,), groups=2) == 0.0


# ------------------------------------------------------------------------------------- what the proof rests on, and not


@pytest.mark.parametrize(("degrees", "reach"), [((2,), 1.0), ((2, 2), 1.0), ((4, 1), 0.7), ((2, 1, 3), 1.0)])
def test_cells_and_their_negatives_cover_the_torus(degrees, reach):
    points = (torch.rand(100, len(degrees), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5) * 20
    first = covering(degrees, 1, reach)
    for cells in (first, first.split()):
        centers = torch.cat((cells.frequencies, -cells.frequencies))
        distance = torch.remainder(points[:, None] - centers + math.pi, 2 * math.pi) - math.pi
        near = (distance.abs() @ torch.tensor(degrees, dtype=torch.float64)).amin(1)
        assert near.max() <= cells.reach(degrees) <= reach * 1.0001
        reach /= 2


@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (1, 4, 2, 3, 2), (2, 2, 3, 2, 2, 2)])
def test_the_symbol_is_within_its_stated_error(shape):
    kernel = gaussian(*shape).clamp(-1, 1)
    gram = gram_symbol(kernel)
    cells = covering(gram.degrees, shape[0], 1.0).where(slice(0, 6))
    with mpmath.workdps(40):
        for row, cell in enumerate(cells.parts(1)):
            block = kernel[int(cell.group)]
            symbol = mpmath.matrix(*shape[1:3])
            for tap in torch.ones(shape[3:]).nonzero().tolist():
                phase = mpmath.fsum(mpmath.mpf(w) * t for w, t in zip(cell.frequencies[0].tolist(), tap, strict=True))
                symbol += mpmath.matrix(block[(..., *tap)].tolist()) * mpmath.expj(phase)
            exact = symbol.H * symbol if shape[1] >= shape[2] else symbol.conjugate() * symbol.T
            found = gram.at(cells)[row].tolist()
            assert mpmath.mnorm(exact - mpmath.matrix(found), "f") <= gram.error <= 1e-11


@pytest.mark.parametrize(("factor", "loosest"), [(0.0, 2.0), (0.5, 1.2), (0.97, 1.005), (1.0001, 1.001)])
def test_the_bound_does_not_rest_on_estimates(monkeypatch, factor, loosest):
    arbitrary, near = gaussian(2, 2, 3, 2), orthonormal(4, [0, 1])
    truth = attained_norm(arbitrary, geometry(2), 120)
    estimate = symbol_bounds.GramSymbol.eigenvalues
    monkeypatch.setattr(symbol_bounds.GramSymbol, "eigenvalues", lambda self, cells: factor * estimate(self, cells))
    climbed = symbol_bounds._climbed
    monkeypatch.setattr(symbol_bounds, "_climbed", lambda gram, cells: factor * climbed(gram, cells))
    assert truth * EXACT <= spectral(arbitrary, geometry(2)) <= truth * loosest
    assert 1 - 1e-12 <= spectral(near, geometry(2)) <= 1.002
    assert smallest_singular_value_bound(near, (1, 1)) <= 1 + 1e-12


@pytest.mark.parametrize("spread", [INF, 2.0])
@pytest.mark.parametrize("attained", [2.8, 3.0, 3.2, 3.3, 3.33])
def test_cells_whose_middles_miss_the_maximum_are_not_done_with(monkeypatch, spread, attained):
    """2 + 2cos 2ω grows as fast as any such polynomial may, from 3 in the middle of a cell to 4 at its edge."""
    monkeypatch.setattr(symbol_bounds, "FINEST", 0.2)
    monkeypatch.setattr(symbol_bounds, "COARSEST", 0.2)
    gram = gram_symbol(torch.tensor([[[[1.0, 0.0, 1.0]]]], dtype=torch.float64))
    assert symbol_bounds._by_cells(gram, covering((2,), 1, symbol_bounds.REACH), spread, attained) >= 4


@pytest.mark.parametrize("estimate", [0.8, 0.9, 0.96, 1.0])
def test_a_range_is_proven_on_both_sides(estimate):
    scales = torch.ones(8, dtype=torch.float64)
    scales[3] = 0.8
    gram = gram_symbol((orthonormal(8, [0, 1]) * scales[:, None, None])[None])
    cells = covering(gram.degrees, 1, symbol_bounds.REACH)
    middle, spread = symbol_bounds._centered(gram, cells, estimate, estimate)
    assert middle - spread <= 0.64 * (1 + 1e-12) and middle + spread >= 1 - 1e-12


def test_with_less_work_the_bound_is_within_a_percent(monkeypatch):
    monkeypatch.setattr(symbol_bounds, "WORK", 0.0)
    for seed in range(4):
        weight = gaussian(3, 4, 3, 3, seed=seed)
        truth = attained_norm(weight, geometry(2), 120)
        assert truth * EXACT <= spectral(weight, geometry(2)) <= truth * 1.01


# ------------------------------------------------------------------------------------------------------ numbers, shapes


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(2.0**-664, torch.float64), (2.0**664, torch.float64), (2.0**-133, torch.float32), (2.0**-10, torch.bfloat16)],
)
def test_the_scale_only_scales(scale, dtype):
    weight = gaussian(2, 2, 3, 3).bfloat16().double().clamp(-4, 4)
    weight = torch.where(weight.abs() < 0.25, 0.0, (weight * 4).round() / 4)  # few bits: exact in float32's denormals
    small = (weight * scale).to(dtype)
    assert torch.equal(small.double(), weight * scale)
    plain = convolution_norm_bounds(weight, geometry(2))
    assert convolution_norm_bounds(small, geometry(2)) == {pair: bound * scale for pair, bound in plain.items()}


def test_entries_of_very_different_size():
    weight = torch.tensor([1e300, 1e-300, 1e-300], dtype=torch.float64).view(1, 1, 3)
    for bound in convolution_norm_bounds(weight, geometry(1)).values():
        assert 1e300 <= bound <= 1e300 * (1 + 1e-9)


def test_the_smallest_singular_value_is_rounded_down_among_the_last_denormals():
    weight = torch.tensor([2.0, 1.0], dtype=torch.float64).view(2, 1, 1) * 5e-324
    assert smallest_singular_value_bound(weight, (1,)) == 2 * 5e-324


@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_nan_and_infinity_prove_nothing(bad):
    weight = gaussian(2, 2, 3)
    weight[1, 0, 2] = bad
    with pytest.raises(TightlipError, match="restore a finite checkpoint"):
        convolution_norm_bounds(weight, geometry(1))
    with pytest.raises(TightlipError, match="restore a finite checkpoint"):
        smallest_singular_value_bound(weight, (1,))


def test_only_zero_has_bound_zero():
    weight = torch.zeros(2, 3, 3, 3, dtype=torch.float64)
    assert set(convolution_norm_bounds(weight, geometry(2)).values()) == {0.0}
    weight[1, 2, 0, 2] = 5e-324
    assert min(convolution_norm_bounds(weight, geometry(2)).values()) >= 5e-324


def test_only_the_pairs_asked_for():
    weight = gaussian(1, 1, 2)
    assert set(convolution_norm_bounds(weight, geometry(1), [(1, 2), (2, 2)])) == {(1, 2), (2, 2)}


@pytest.mark.parametrize(
    ("taps", "stride", "dilation", "shape"),
    [
        *[(3, 1, 4, (1, 3)), (3, 2, 4, (1, 3)), (3, 2, 1, (2, 2)), (4, 4, 1, (4, 1)), (3, 4, 2, (2, 2))],
        *[(3, 2, 3, (2, 2)), (3, 3, 1, (3, 1)), (3, 4, 1, (4, 1)), (3, 300_001, 2, (4, 1)), (3, 2, 3_000_001, (2, 2))],
    ],
)
def test_phases_are_no_more_than_needed(taps, stride, dilation, shape):
    phases = polyphase(gaussian(1, 1, 1, taps), (stride,), (dilation,))
    assert phases.shape == (1, 1, *shape)
    assert polyphase(torch.nn.functional.pad(phases, (2, 1)), (1,), (1,)).equal(phases)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stride": (0, 1)}, "must be ≥ 1"),
        ({"dilation": (1, -1)}, "must be ≥ 1"),
        ({"groups": 0}, "must be ≥ 1"),
        ({"padding": ((0, -1), (0, 0))}, "padding must be ≥ 0"),
        ({"padding": ((0, 0),)}, "one entry per axis"),
        ({"padding_mode": "mirror"}, "choose one of zeros, circular, reflect, replicate"),
        ({"padding_mode": "reflect", "transposed": True}, "padding mode 'zeros' only"),
    ],
)
def test_what_no_convolution_has_is_refused(change, sentence):
    with pytest.raises(TightlipError, match=sentence):
        Geometry(**{"stride": (1, 1), "dilation": (1, 1), "padding": ((0, 0), (0, 0))} | change)


def test_kernels_of_another_shape_are_refused():
    with pytest.raises(TightlipError, match="does not have the 2 axes"):
        convolution_norm_bounds(gaussian(2, 2, 3), geometry(2))
    with pytest.raises(TightlipError, match="cannot be divided into 3 groups"):
        convolution_norm_bounds(gaussian(4, 2, 3), geometry(1, groups=3))

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from tightlip import TightlipError
from tightlip.linalg.blocks import Factors, compose, polished, sample, sweep, turn
from tightlip.linalg.kernel_shape import KernelShape
from tightlip.linalg.paraunitary import deviation
from tightlip.linalg.peeling import factor
from tightlip.linalg.polar import residual

SHAPES = [
    KernelShape(4, 4, (3, 3), (1, 1)),
    KernelShape(4, 4, (2, 4), (1, 1)),
    KernelShape(1, 1, (3, 2), (1, 1)),
    KernelShape(5, 2, (5, 3), (1, 1)),
    KernelShape(8, 2, (3, 3), (1, 1)),
    KernelShape(1, 4, (4, 3), (1, 1)),
    KernelShape(2, 7, (3, 3), (1, 1)),
    KernelShape(16, 1, (2, 2), (1, 1)),
    KernelShape(6, 4, (1, 1), (1, 1)),
    KernelShape(6, 6, (5,), (1,)),
    KernelShape(9, 2, (3,), (1,)),
    KernelShape(8, 4, (3, 3), (2, 2)),
    KernelShape(16, 4, (4, 4), (2, 2)),
    KernelShape(20, 4, (4, 4), (2, 2)),
    KernelShape(4, 4, (2, 2), (2, 2)),
    KernelShape(8, 4, (3, 2), (1, 2)),
    KernelShape(6, 3, (7,), (3,)),
]
LIFTED = [
    KernelShape(6, 1, (5, 5), (1, 1)),
    KernelShape(24, 1, (4, 4), (2, 2)),
    KernelShape(26, 3, (5, 5), (2, 1)),
]

EXACT = 5e-15
"""Some units of rounding for each factor, against the norm of the kernel."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def drawn(shape, batch=(), seed=0):
    return sample(shape, batch, torch.float64, generator=generator(seed))


def off(kernel, other):
    return float((kernel - other).norm() / other.norm())


def operator(kernel, size, stride=None, dilation=None, groups=1, circular=True):
    """The dense matrix of a convolution with 'same' padding."""
    axes = kernel.dim() - 2
    stride, dilation = stride or (1,) * axes, dilation or (1,) * axes
    channels = kernel.shape[1] * groups
    images = torch.eye(channels * math.prod(size), dtype=kernel.dtype).view(-1, channels, *size)
    extents = [d * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
    pad = [part for extent in reversed(extents) for part in (extent // 2, extent - extent // 2)]
    images = F.pad(images, pad, mode="circular" if circular else "constant")
    convolution = F.conv1d if axes == 1 else F.conv2d
    return convolution(images, kernel, stride=stride, dilation=dilation, groups=groups).flatten(1).mT


@pytest.mark.parametrize("shape", [*SHAPES, *LIFTED], ids=str)
def test_composed_kernels_have_only_singular_values_one_and_no_more_where_the_edge_is_zero(shape):
    kernel = compose(drawn(shape))
    assert kernel.shape == (shape.outputs, shape.inputs, *shape.kernel) and kernel.is_contiguous()
    size = tuple(s * math.ceil(6 / s) for s in shape.stride)
    values = torch.linalg.svdvals(operator(kernel, size, shape.stride))
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-14)
    cut = torch.linalg.matrix_norm(operator(kernel, size, shape.stride, circular=False), 2)
    assert float(cut) <= 1 + 1e-14
    assert deviation(kernel, shape) < 1e-13


@pytest.mark.parametrize(
    ("stride", "dilation", "reduced"), [((1, 1), (2, 3), (1, 1)), ((2, 2), (3, 3), (2, 2)), ((2, 4), (2, 2), (1, 2))]
)
def test_dilation_moves_further_and_shares_its_factors_with_the_stride(stride, dilation, reduced):
    shape = KernelShape.of((8, 2, 3, 4), stride, dilation, groups=2)
    assert shape == KernelShape(4, 2, (3, 4), reduced)
    kernel = compose(drawn(shape, (2,))).flatten(0, 1)
    values = torch.linalg.svdvals(operator(kernel, (12, 12), stride, dilation, groups=2))
    read = math.prod(12 // (s // r) for s, r in zip(stride, reduced, strict=True)) * 4
    torch.testing.assert_close(values[:read], torch.ones_like(values[:read]), rtol=0, atol=1e-14)
    assert float(values[read:].abs().sum()) < 1e-12  # pixels that no tap reads


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_product_is_found_again(shape, batch):
    kernel = compose(drawn(shape, batch))
    found = factor(kernel, shape)
    assert found.batch == batch and found.patch.shape == drawn(shape, batch).patch.shape
    for matrix in found.matrices():
        assert float(residual(matrix).norm()) < 1e-13
    assert off(compose(found), kernel) < EXACT
    again = factor(kernel.float(), shape)
    assert again.squares.dtype == torch.float32 and off(compose(again), kernel.float()) < 1e-6


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (4, 4, 4, 4), (1, 3, 2, 0), (3, 1, 1, 3), (3, 2, 1, 2)])
def test_how_many_channels_move_is_read_from_the_kernel(counts):
    shape = KernelShape(4, 4, (3, 3), (1, 1))
    first, second = drawn(shape), drawn(shape, seed=1)
    kernel = compose(Factors(shape, first.patch, first.squares, (counts,)))
    assert off(compose(factor(kernel, shape)), kernel) < EXACT
    both = Factors(
        shape,
        torch.stack([first.patch, second.patch]),
        torch.stack([first.squares, second.squares]),
        (counts, second.counts[0]),
    )
    together = compose(both)
    assert off(together[0], kernel) < EXACT and off(together[1], compose(second)) < EXACT
    assert off(compose(factor(together, shape)), together) < EXACT


@pytest.mark.parametrize(
    ("counts", "seed"), [((2, 2, 0, 2, 2, 1, 1, 3), 2), ((2, 1, 0, 1, 2, 1, 1, 3), 1), ((1, 3, 2, 1, 0, 1, 1, 3), 2)]
)
def test_moves_that_leave_vectors_undecided_may_each_decide_otherwise(counts, seed):
    """The first slabs have less than their full rank; what they lack stays in one move and is moved in another."""
    shape = KernelShape(3, 3, (5, 5), (1, 1))
    kernel = compose(dataclasses.replace(drawn(shape, seed=seed), counts=(counts,)))
    assert off(compose(factor(kernel, shape)), kernel) < 1e-12
    assert off(compose(factor(kernel.float(), shape)), kernel.float()) < 1e-5


def one_tap(channels, taps, place, matrix=None):
    kernel = torch.zeros(channels, channels, *taps, dtype=torch.float64)
    kernel[(..., *place)] = torch.eye(channels, dtype=torch.float64) if matrix is None else matrix
    return kernel


@pytest.mark.parametrize("taps", [(3, 3), (2, 4), (5,)])
def test_identities_and_shifts_are_exact_and_all_their_factors_can_turn(taps):
    shape = KernelShape(6, 6, taps, (1,) * len(taps))
    for place in {(0,) * len(taps), tuple(n // 2 for n in taps), tuple(n - 1 for n in taps)}:
        kernel = one_tap(6, taps, place)
        assert torch.equal(compose(factor(kernel, shape)), kernel)
    centre = factor(one_tap(6, (3, 3), (1, 1)), KernelShape(6, 6, (3, 3), (1, 1)))
    assert centre.counts == ((3, 3, 3, 3),)


def test_each_channel_may_be_shifted_by_itself():
    shape, kernel = KernelShape(9, 9, (3, 3), (1, 1)), torch.zeros(9, 9, 3, 3, dtype=torch.float64)
    for channel in range(9):
        kernel[channel, channel, channel % 3, channel // 3] = 1.0
    assert torch.equal(compose(factor(kernel, shape)), kernel)
    mixed = torch.einsum("ab,bcxy,cd->adxy", drawn(shape).squares[0], kernel, drawn(shape).squares[1])
    assert off(compose(factor(mixed, shape)), mixed) < EXACT


def test_vectors_with_little_in_either_slab_are_found():
    shape = KernelShape(32, 32, (7,), (1,))  # eigenvalues down to 1e-13, and their vectors to eight digits only
    kernel = compose(drawn(shape))
    assert off(compose(factor(kernel, shape)), kernel) < 1e-13


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1e-2])
@pytest.mark.parametrize("start", ["product", "identity", "orthogonal tap"])
def test_a_noisy_kernel_is_moved_by_about_its_noise(start, size):
    shape = KernelShape(16, 16, (3, 3), (1, 1))
    tap = {"identity": None, "orthogonal tap": drawn(shape).squares[0]}
    exact = compose(drawn(shape)) if start == "product" else one_tap(16, (3, 3), (1, 1), tap[start])
    disturbance = noise(*exact.shape)
    kernel = exact + disturbance * (size * exact.norm() / disturbance.norm())
    nearest = compose(factor(kernel, shape))
    assert deviation(nearest, shape) < 1e-12
    assert off(nearest, kernel) < 1.01 * size


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 7.0, 1e200])
def test_the_size_of_a_kernel_does_not_matter(scale):
    shape = KernelShape(4, 4, (3, 3), (1, 1))
    kernel = compose(drawn(shape))
    assert off(compose(factor(kernel * scale, shape)), kernel) < 1e-14


def test_a_kernel_of_zeros_is_mapped_to_a_member():
    assert deviation(compose(factor(torch.zeros(4, 4, 3, 3), SHAPES[0])), SHAPES[0]) < 1e-5


def test_the_map_does_not_move_what_it_has_made():
    shape = KernelShape(12, 8, (3, 3), (1, 1))
    once = compose(factor(noise(12, 8, 3, 3), shape))
    assert off(compose(factor(once, shape)), once) < EXACT


def angles(matrix):
    return (matrix - matrix.mT) / 2


def moved_by_exponentials(factors, patch, squares):
    outer, inner = factors.matrices()
    turn_patch, turn_squares = torch.matrix_exp(angles(patch)), torch.matrix_exp(angles(squares))
    wide = outer.shape[-2] <= outer.shape[-1]
    return factors.like(outer @ turn_patch if wide else turn_patch @ outer, turn_squares @ inner)


@pytest.mark.parametrize("shape", [*SHAPES, *LIFTED], ids=str)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_the_sweep_is_autograd(shape, batch):
    factors = drawn(shape, batch)
    patch = torch.zeros(math.prod(batch), shape.angles, shape.angles, dtype=torch.float64, requires_grad=True)
    squares = torch.zeros_like(factors.matrices()[1], requires_grad=True)
    gradient = noise(*batch, shape.outputs, shape.inputs, *shape.kernel)
    (compose(moved_by_exponentials(factors, patch, squares)) * gradient).sum().backward()
    ours = sweep(factors, gradient)
    torch.testing.assert_close(ours[0], patch.grad, rtol=1e-12, atol=1e-12)
    assert ours[1].shape == squares.shape
    if shape.axes:
        torch.testing.assert_close(ours[1], squares.grad, rtol=1e-12, atol=1e-12)


def test_the_sweep_knows_how_many_channels_each_group_moves():
    shape = KernelShape(4, 4, (3, 3), (1, 1))
    drawn_factors = drawn(shape, (2,))
    factors = Factors(shape, drawn_factors.patch, drawn_factors.squares, ((1, 2, 3, 0), (4, 2, 1, 1)))
    squares = torch.zeros_like(factors.squares, requires_grad=True)
    gradient = noise(2, 4, 4, 3, 3)
    (
        compose(factors.like(factors.patch, torch.matrix_exp(angles(squares)) @ factors.squares)) * gradient
    ).sum().backward()
    torch.testing.assert_close(sweep(factors, gradient)[1], squares.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "shape",
    [SHAPES[0], SHAPES[2], KernelShape(6, 4, (1, 1), (1, 1)), KernelShape(20, 4, (4, 4), (2, 2)), LIFTED[1]],
    ids=str,
)
def test_turned_factors_are_factors_and_a_step_against_the_gradient_descends(shape):
    factors, goal = drawn(shape), compose(drawn(shape, seed=1))
    kernel = compose(factors)
    patch, squares = sweep(factors, kernel - goal)
    turned, error = turn(factors, -0.01 * patch, -0.01 * squares)
    after = compose(turned)
    assert error < 1e-6 and deviation(after, shape) < 1e-12
    if shape.angles > 1:
        assert (after - goal).norm() < (kernel - goal).norm()


def test_drift_is_polished_away():
    factors = drawn(SHAPES[0])
    loose = factors.like(factors.patch * 1.001, factors.squares + 1e-4 * noise(*factors.squares.shape))
    assert deviation(compose(loose), factors.shape) > 1e-4
    assert deviation(compose(polished(loose)), factors.shape) < 1e-13


def test_turns_that_are_not_finite_are_told():
    factors = drawn(SHAPES[0])
    patch, squares = sweep(factors, noise(4, 4, 3, 3))
    squares[0, 1, 0, 1] = torch.nan
    assert turn(factors, patch, squares)[1] == math.inf


def test_deviation_sees_each_tap_and_each_phase():
    for shape in (SHAPES[0], KernelShape(2, 7, (3, 3), (1, 1)), KernelShape(7, 2, (3,), (2,)), SHAPES[-1]):
        kernel = compose(drawn(shape))
        for place in ((0,) * len(shape.kernel), tuple(n - 1 for n in shape.kernel)):
            disturbed = kernel.clone()
            disturbed[(0, 0, *place)] += 1e-3
            found = deviation(disturbed, shape)
            size = tuple(s * 4 for s in shape.stride)
            values = torch.linalg.svdvals(operator(disturbed, size, shape.stride))
            assert 1e-4 < float((values.square() - 1).abs().max()) <= found < 0.1


def test_pixels_that_no_tap_reads_count_for_nothing():
    shape = KernelShape(6, 4, (1, 2), (2, 3))
    kernel = compose(drawn(shape))
    assert deviation(kernel, shape) < 1e-13
    values = torch.linalg.svdvals(operator(kernel, (4, 6), shape.stride))
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-14)


def test_factors_are_as_exact_as_a_polar_factor():
    shape = KernelShape(64, 64, (3, 3), (1, 1))
    found = factor(compose(drawn(shape)), shape)
    assert all(float(torch.linalg.matrix_norm(residual(matrix), 2).amax()) < 3e-15 for matrix in found.matrices())


@pytest.mark.parametrize("shape", LIFTED, ids=str)
def test_lifted_kernels_are_not_found_again(shape):
    with pytest.raises(TightlipError, match="a square kernel and a 1×1 convolution in its place"):
        factor(compose(drawn(shape)), shape)


@pytest.mark.parametrize(
    ("shape", "square"),
    [
        (KernelShape(17, 4, (3, 3), (1, 1)), KernelShape(17, 17, (3, 3), (1, 1))),
        (KernelShape(4, 17, (3, 2), (1, 1)), KernelShape(17, 17, (3, 2), (1, 1))),
        (KernelShape(2, 13, (3, 3), (2, 2)), KernelShape(13, 13, (3, 3), (2, 2))),
        (KernelShape(17, 1, (3, 3), (2, 2)), KernelShape(17, 5, (3, 3), (2, 2))),
    ],
)
def test_what_cannot_be_found_again_is_refused_and_has_a_square_kernel_that_can(shape, square):
    assert deviation(compose(drawn(shape)), shape) < 1e-13
    with pytest.raises(TightlipError, match=f"from {shape.inputs} to {shape.outputs} channels cannot be found again"):
        factor(compose(drawn(shape)), shape)
    assert shape.square == square and square.factorable
    kernel = compose(drawn(square))
    assert off(compose(factor(kernel, square)), kernel) < EXACT


@pytest.mark.parametrize(
    ("shape", "places"),
    [
        (KernelShape(27, 3, (3, 3), (1, 1)), 9),
        (KernelShape(26, 3, (3, 3), (1, 1)), None),
        (KernelShape(16, 1, (4, 4), (2, 2)), 4),
        (KernelShape(64, 1, (3, 3), (2, 2)), None),
        (KernelShape(64, 1, (4, 3), (2, 1)), 6),
    ],
)
def test_orthonormal_columns_over_the_root_of_the_places_are_isometries_where_there_are_enough(shape, places):
    assert shape.places == places
    if places is not None:
        columns = shape.inputs * shape.kernel[0] * shape.kernel[1]
        kernel = torch.linalg.qr(torch.randn(shape.outputs, columns, dtype=torch.float64))[0] / places**0.5
        assert deviation(kernel.view(shape.outputs, shape.inputs, *shape.kernel), shape) < 1e-13


@pytest.mark.parametrize("outputs", [16, 18, 24])
def test_the_limit_is_where_products_are_lost(outputs, monkeypatch):
    shape = KernelShape(outputs, 4, (3, 3), (1, 1))
    kernel = compose(drawn(shape))
    monkeypatch.setattr(KernelShape, "refuse_unfactorable", lambda self: None)
    lost = off(compose(factor(kernel, shape)), kernel)
    assert lost < EXACT if outputs == 16 else lost > 1e-4


def test_mistakes_are_answered():
    with pytest.raises(TightlipError, match="one axis or two"):
        KernelShape(4, 4, (3, 3, 3), (1, 1, 1))
    with pytest.raises(TightlipError, match="one axis or two"):
        KernelShape(4, 4, (3, 3), (1,))
    with pytest.raises(TightlipError, match="must be ≥ 1, got .*0"):
        KernelShape(4, 0, (3,), (1,))
    with pytest.raises(TightlipError, match="6 channels cannot be cut into 4 groups"):
        KernelShape.of((6, 1, 3), (1,), (1,), groups=4)
    with pytest.raises(TightlipError, match="NaN or infinite"):
        factor(torch.full((4, 4, 3, 3), torch.inf), SHAPES[0])
    with pytest.raises(TightlipError, match=r"\(4, 5, 3, 3\) is not one of KernelShape\(outputs=4"):
        factor(torch.ones(4, 5, 3, 3), SHAPES[0])

"""Neighboring affine maps as one: never below the truth, never above one after another, and only where they are one."""

import math
import random
from fractions import Fraction
from functools import reduce

import pytest
import torch
from slopes import largest_slope
from torch import nn
from truths import exact_norm, gaussian, linear

from tightlip import (
    Gains,
    MaxMin,
    Normalize,
    Residual,
    Scale,
    TightlipError,
    certify,
    graphs,
    lipschitz,
    load,
    rule,
    save,
    summary,
)
from tightlip.audit import Matrix, audit
from tightlip.norms import PAIRS

FAR = (1e-310, 1e-150, 1e-30, 0.1, 1.0, 3.0, 1e30, 1e150)
INF = math.inf


def apart(module):
    """What the layers compose to, one after another."""
    return reduce(Gains.then, audit(module).known)


def normalize(std):
    """In float64, so that std is what is given."""
    layer = Normalize([0.0] * len(std), [1.0] * len(std)).double()
    layer.std = torch.tensor(std, dtype=torch.float64)
    return layer


def batch_norm(kind, gamma, variance):
    layer = kind(len(gamma), eps=0.0).double().eval()
    layer.weight.data = torch.tensor(gamma, dtype=torch.float64)
    layer.running_var = torch.tensor(variance, dtype=torch.float64)
    return layer.requires_grad_(False)


def test_a_normalize_after_a_linear_is_audited_as_their_product():
    """Rows of size 0.578 and 0.000578, divided by 1 and 0.001: apart 0.578 · 1000."""
    network = nn.Sequential(linear([[0.578, 0.0], [0.0, 0.000578]]), normalize([1.0, 0.001]))
    assert float(apart(network).table[2.0, 2.0]) == pytest.approx(578, rel=1e-12)
    for pair in PAIRS:
        assert lipschitz(network, *pair).constant == pytest.approx(0.578, rel=1e-12)
    assert largest_slope(network, (2,), 2, 2) == pytest.approx(0.578, rel=1e-9)


def exact(layer, matrix):
    """The layer's linear part after ``matrix``, in rationals; roots of variances are exact."""
    if isinstance(layer, nn.Linear):
        rows = [[Fraction(w) for w in row] for row in layer.weight.tolist()]
        return [[sum(w * a for w, a in zip(row, c, strict=True)) for c in zip(*matrix, strict=True)] for row in rows]
    each = [Fraction(1)] * len(matrix)
    if isinstance(layer, Normalize):
        each = [1 / Fraction(std) for std in layer.std.tolist()]
    elif isinstance(layer, nn.BatchNorm1d):
        roots = [math.sqrt(v) for v in layer.running_var.tolist()]
        each = [Fraction(g) / Fraction(root) for g, root in zip(layer.weight.tolist(), roots, strict=True)]
    elif isinstance(layer, Scale):
        each = [Fraction(float(layer.scale))] * len(matrix)
    return [[d * a for a in row] for d, row in zip(each, matrix, strict=True)]


def drawn_chain(draw, scales):
    width = draw.randint(1, 5)
    layers, first = [], width

    def number():
        return draw.choice((1, 1, 1, -1)) * draw.choice(scales)

    for _ in range(draw.randint(2, 6)):
        kind = draw.choice(("linear", "linear", "normalize", "batch norm", "scale", "identity"))
        if kind == "linear":
            after = draw.randint(1, 5)
            rows = [[draw.gauss(0, 1) * draw.choice((*scales, 0.0)) for _ in range(width)] for _ in range(after)]
            layers, width = [*layers, linear(rows)], after
        elif kind == "normalize":
            layers.append(normalize([draw.choice(scales[1:]) for _ in range(width)]))
        elif kind == "batch norm":
            variance = [4.0 ** draw.randint(-30, 30) for _ in range(width)]
            layers.append(batch_norm(nn.BatchNorm1d, [number() for _ in range(width)], variance))
        else:
            layers.append(Scale(draw.choice(scales)).double() if kind == "scale" else nn.Dropout(0.5).eval())
    return layers, first


def assert_between(truth, found, above):
    """Above the exact norms (2→2 by numpy, in units of the largest entry), and not above one after another."""
    size = max(abs(a) for row in truth for a in row)
    assert all(found[pair] <= above[pair] for pair in PAIRS)
    assert max(sum(map(abs, column)) for column in zip(*truth, strict=True)) <= found[1.0, 1.0]
    assert max(sum(map(abs, row)) for row in truth) <= found[INF, INF]
    assert size <= found[1.0, INF]
    if size:
        unit = [[float(a / size) for a in row] for row in truth]
        for pair in PAIRS:
            assert Fraction(exact_norm(unit, *pair)) * size <= found[pair] * (1 + Fraction(1, 10**13))


@pytest.mark.parametrize("scales", [FAR, (0.1, 1.0, 3.0)], ids=["far", "near"])
@pytest.mark.parametrize("seed", range(40))
def test_a_chain_of_rows_has_a_bound_between_the_exact_norm_and_that_of_its_parts(seed, scales):
    draw = random.Random(seed)
    layers, width = drawn_chain(draw, scales)
    network = nn.Sequential(nn.Flatten(), *layers)
    found, above = audit(network).total.table, apart(network).table
    identity = [[Fraction(i == j) for j in range(width)] for i in range(width)]
    truth = reduce(lambda matrix, layer: exact(layer, matrix), layers, identity)
    assert_between(truth, found, above)
    if scales is not FAR and any(a for row in truth for a in row):
        assert found[1.0, 1.0] <= max(sum(map(abs, c)) for c in zip(*truth, strict=True)) * (1 + Fraction(1, 10**8))


def test_a_batch_norm_undoes_the_scales_of_a_linear_before_it_and_after_it():
    matrix, d = gaussian(3, 3, seed=1), [1e-3, -1.0, 50.0]
    norm = exact_norm(matrix, 2, 2)
    scaled = linear((torch.tensor(d, dtype=torch.float64).unsqueeze(1) * matrix).tolist())
    undone = batch_norm(nn.BatchNorm1d, [math.copysign(1, a) for a in d], [a * a for a in d])
    assert lipschitz(nn.Sequential(nn.Flatten(), scaled, undone), 2, 2).constant == pytest.approx(norm, rel=1e-12)
    columns = linear((matrix * torch.tensor(d, dtype=torch.float64)).tolist())
    assert lipschitz(nn.Sequential(nn.Flatten(), undone, columns), 2, 2).constant == pytest.approx(norm, rel=1e-12)


def test_signs_count_between_two_matrices():
    difference = nn.Sequential(
        nn.Flatten(), linear([[1.0], [1.0]]), batch_norm(nn.BatchNorm1d, [1.0, -1.0], [1.0, 1.0]), linear([[1.0, 1.0]])
    )
    assert lipschitz(difference, 2, 2).constant < 1e-12
    total = nn.Sequential(
        nn.Flatten(), *difference[1:2], batch_norm(nn.BatchNorm1d, [1.0, 2.0], [1.0, 1.0]), linear([[1.0, 1.0]])
    )
    assert lipschitz(total, 2, 2).constant == pytest.approx(3, rel=1e-12)


def test_a_batch_norm_beside_a_linear_is_not_merged_where_values_may_have_more_axes():
    """Of values (batch, 2, 2) it scales axis 1: then the norm is the product of both."""
    network = nn.Sequential(linear([[1e-3, 0.0], [0.0, 1.0]]), batch_norm(nn.BatchNorm1d, [1e3, 1.0], [1.0, 1.0]))
    assert largest_slope(network, (2, 2), 2, 2) == pytest.approx(1000, rel=1e-9)
    assert lipschitz(network, 2, 2).constant == pytest.approx(1000, rel=1e-9)
    assert lipschitz(nn.Sequential(nn.Flatten(), network), 2, 2).constant == pytest.approx(1, rel=1e-9)
    through = nn.Sequential(nn.Flatten(), nn.ReLU(), Residual(nn.Identity()), network)
    assert lipschitz(through, 2, 2).constant == pytest.approx(1, rel=1e-9)
    again = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 2)), network)
    assert largest_slope(again, (4,), 2, 2) == pytest.approx(1000, rel=1e-9)
    assert lipschitz(again, 2, 2).constant == pytest.approx(1000, rel=1e-9)


def test_a_batch_norm_before_a_linear_is_not_merged_where_values_may_have_more_axes():
    network = nn.Sequential(batch_norm(nn.BatchNorm1d, [1e3, 1.0], [1.0, 1.0]), linear([[1e-3, 0.0], [0.0, 1.0]]))
    assert largest_slope(network, (2, 2), 2, 2) == pytest.approx(1000, rel=1e-9)
    assert lipschitz(network, 2, 2).constant == pytest.approx(1000, rel=1e-9)
    assert lipschitz(nn.Sequential(nn.Flatten(), network), 2, 2).constant == pytest.approx(1, rel=1e-9)


class Doubled(nn.Module):
    """A layer of a caller's own, which makes (batch, 2, features) of rows."""

    def forward(self, x):
        return torch.stack((x, x), 1)


rule(Doubled)(lambda module: Gains({(1.0, 1.0): 2.0, (2.0, 2.0): 1.5, (INF, INF): 1.0}))


def test_rows_may_have_more_axes_after_a_layer_of_a_callers_own():
    beside = nn.Sequential(linear([[1e-3, 0.0], [0.0, 1.0]]), batch_norm(nn.BatchNorm1d, [1e3, 1.0], [1.0, 1.0]))
    network = nn.Sequential(nn.Flatten(), Doubled(), beside)
    assert largest_slope(network, (2,), INF, INF) == pytest.approx(1000, rel=1e-9)
    assert lipschitz(network, INF, INF).constant == pytest.approx(1000, rel=1e-9)


@pytest.mark.parametrize("before", [True, False])
def test_normalize_tells_channels_from_features_or_refuses(before):
    layers = [normalize([1.0, 0.001]), linear([[1.0, 0.0], [0.0, 1e-3]])]
    network = nn.Sequential(*(layers if before else layers[::-1]))
    assert lipschitz(network, 2, 2).constant == pytest.approx(1, rel=1e-9)
    for shape in ((3, 2, 2), (3, 2, 5, 2)):
        with pytest.raises(TightlipError, match=r"as many as axis 1 and the last axis of inputs of shape \[3, 2"):
            network(gaussian(*shape))
    alike = normalize([0.5, 0.5])
    assert alike(gaussian(3, 2, 2)).shape == (3, 2, 2)
    assert normalize([1.0, 0.001])(gaussian(3, 2, 5)).shape == (3, 2, 5)


def test_channels_of_another_number_than_features_are_not_merged_with_a_linear():
    network = nn.Sequential(normalize([1.0, 0.001]), linear(gaussian(3, 4).tolist()))
    assert lipschitz(network, 2, 2).constant == pytest.approx(float(apart(network).table[2.0, 2.0]), rel=1e-15)
    assert largest_slope(network, (2, 4), 2, 2) == pytest.approx(lipschitz(network, 2, 2).constant, rel=1e-8)


@pytest.mark.parametrize("between", [nn.Flatten(), nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Identity())])
def test_channels_of_an_image_scale_the_columns_of_the_linear_that_it_is_flattened_for(between):
    head, std = linear(gaussian(4, 24, seed=2).tolist()), [1.0, 0.01, 7.0]
    head.weight.data[:, 8:16] *= 0.01
    network = nn.Sequential(
        normalize(std), batch_norm(nn.BatchNorm2d, [1.0, -2.0, 1.0], [1.0, 1.0, 4.0]), between, head
    )
    network.eval()
    jacobian = torch.autograd.functional.jacobian(network, gaussian(1, 3, 2, 4)).reshape(4, 24)
    for pair in PAIRS:
        assert lipschitz(network, *pair).constant == pytest.approx(exact_norm(jacobian, *pair), rel=1e-12)
    assert lipschitz(network, 2, 2).constant < apart(network).table[2.0, 2.0] / 10


def test_a_linear_that_repeats_along_an_axis_is_not_merged_with_the_one_after_flattening():
    network = nn.Sequential(linear([[1.0, 1.0]]), nn.Flatten(), linear([[1.0, 1.0, 1.0]]))
    assert not audit(network).runs
    assert largest_slope(network, (3, 2), 2, 2) == pytest.approx(math.sqrt(6), rel=1e-9)
    assert lipschitz(network, 2, 2).constant >= math.sqrt(6) * (1 - 1e-12)


def convolution(draw, kind, channels, axes, taps):
    """A convolution that takes these channels, and how many it makes."""
    groups = draw.choice([g for g in (1, 2) if channels % g == 0])
    after = groups * draw.randint(1, 2)
    if "Transpose" in kind.__name__:
        layer = kind(channels, after, taps, draw.choice((1, 2)), groups=groups)
    else:
        mode = draw.choice(("zeros", "zeros", "circular", "reflect", "replicate"))
        layer = kind(channels, after, taps, draw.choice((1, 2)), taps // 2, groups=groups, padding_mode=mode)
    layer.weight.data *= 10.0 ** torch.randint(-3, 4, layer.weight.shape[:1] + (1,) * (axes + 1))
    return layer, after


@pytest.mark.parametrize("seed", range(20))
def test_convolutions_with_channels_scaled_and_single_taps_lie_between_a_jacobian_and_one_after_another(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    axes = draw.choice((1, 1, 2))
    plain = (nn.Conv1d, nn.Conv2d)[axes - 1]
    kinds = (plain, plain, (nn.ConvTranspose1d, nn.ConvTranspose2d)[axes - 1])
    inputs = channels = draw.choice((2, 4))
    layers = []
    for _ in range(draw.randint(2, 4)):
        if draw.random() < 0.5:
            gamma = [draw.choice((-1, 1)) * draw.choice((1e-3, 1.0, 30.0)) for _ in range(channels)]
            layers.append(batch_norm((nn.BatchNorm1d, nn.BatchNorm2d)[axes - 1], gamma, [1.0] * channels))
        elif draw.random() < 0.3:
            layers.append(normalize([draw.choice((1e-3, 1.0, 30.0)) for _ in range(channels)]))
        elif draw.random() < 0.5:
            after = draw.randint(1, 3)
            layers, channels = [*layers, plain(channels, after, 1)], after
        else:
            layer, channels = convolution(draw, draw.choice(kinds), channels, axes, draw.choice((1, 3)))
            layers.append(layer)
    network = nn.Sequential(*layers).double().eval()
    shape = (inputs, *(7, 6)[:axes])
    jacobian = torch.autograd.functional.jacobian(network, torch.zeros(1, *shape, dtype=torch.float64))
    jacobian = jacobian.reshape(-1, math.prod(shape))
    found, above = audit(network).total.table, apart(network).table
    for pair in found:
        assert exact_norm(jacobian, *pair) * (1 - 1e-12) <= found[pair] <= above[pair]


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_batch_norm_after_a_convolution_undoes_the_scales_of_its_channels(kind):
    torch.manual_seed(0)
    layer, d = kind(2, 4, 3, groups=2).double(), torch.tensor([1e-3, 5.0, 1e4, 1.0], dtype=torch.float64)
    plain = {pair: lipschitz(layer, *pair).constant for pair in PAIRS}
    layer.weight.data *= d.reshape((4, 1, 1, 1) if kind is nn.Conv2d else (2, 2, 1, 1))
    undone = batch_norm(nn.BatchNorm2d, [1.0] * 4, (d * d).tolist())
    for pair in PAIRS:
        assert lipschitz(nn.Sequential(layer, undone), *pair).constant == pytest.approx(plain[pair], rel=1e-9)


@pytest.mark.parametrize("first", [True, False])
def test_a_convolution_of_one_tap_is_multiplied_out(first):
    """A rotation and back: each 1-norm is 7/5, that of the product is the other convolution's."""
    torch.manual_seed(0)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    one, other = nn.Conv2d(2, 2, 1).double(), nn.Conv2d(2, 2, 3, padding=1).double()
    one.weight.data = turn.reshape(2, 2, 1, 1)
    plain = {pair: lipschitz(other, *pair).constant for pair in PAIRS}
    back = "po,oi...->pi..." if not first else "oi...,ip->op..."
    matrices = (turn.mT, other.weight.data) if not first else (other.weight.data, turn.mT)
    other.weight.data = torch.einsum(back, *matrices)
    network = nn.Sequential(one, other) if first else nn.Sequential(other, one)
    for pair in PAIRS:
        assert lipschitz(network, *pair).constant == pytest.approx(plain[pair], rel=1e-5)  # other frequencies are tried


def test_a_run_inside_of_a_branch_and_one_whose_middle_is_used_again():
    pair = nn.Sequential(linear([[1.0, 0.0], [0.0, 1e-3]]), normalize([1.0, 0.001]))
    assert lipschitz(Residual(pair), 2, 2).constant == pytest.approx(1, rel=1e-9)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = pair

        def forward(self, x):
            middle = self.a(x)
            return torch.cat([self.b(middle), middle], 1)

    assert lipschitz(Both(), 2, INF).constant == pytest.approx(1, rel=1e-9)
    assert lipschitz(Both(), 2, 2).constant == pytest.approx(math.sqrt(2), rel=1e-9)


def test_nothing_is_computed_where_all_parts_but_one_are_multiples_of_the_identity():
    even = batch_norm(nn.BatchNorm1d, [0.3, 0.3], [2.0, 2.0])
    network = nn.Sequential(
        Normalize(0.1, 0.3), nn.Flatten(), linear([[1.0, 2.0]] * 2), even, Scale(0.7), nn.Identity()
    )
    found = audit(network)
    assert found.runs == () and found.total.table == apart(network).table


def test_a_bottleneck_is_not_multiplied_out_to_what_is_larger_than_its_parts():
    narrow, wide = nn.Linear(600, 1), nn.Linear(1, 600)
    assert not audit(nn.Sequential(narrow, wide)).runs
    assert audit(nn.Sequential(wide, narrow)).runs


def test_the_bound_lists_what_was_multiplied_out_where_it_is_less(tmp_path):
    network = nn.Sequential(linear([[1.0, 0.0], [0.0, 1e-3]]), normalize([1.0, 0.001]), MaxMin(), Scale(2.0))
    bound = lipschitz(network, 2, 2)
    assert [(name, text) for name, text, _ in bound.merged] == [("0 to 1", "Linear, Normalize as one affine map")]
    assert bound.merged[0][2].constant == pytest.approx(1, rel=1e-9) and len(bound.layers) == 4
    assert lipschitz(nn.Sequential(linear([[3.0]]), linear([[2.0]])), 2).merged == ()
    line = next(line for line in str(summary(network)).splitlines() if line.startswith("0 to 1"))
    assert line.split() == ["0", "to", "1", "Linear,", "Normalize", "as", "one", "affine", "map", "2→2", "1.0000001"]
    save(network, tmp_path / "m")
    assert lipschitz(load(tmp_path / "m"), 2, 2) == bound


def test_certificates_rest_on_the_merged_bound_and_stay_below_the_exact_radius():
    weight = gaussian(3, 5, seed=4)
    std = [10.0**-k for k in range(5)]
    network = nn.Sequential(normalize(std), linear((weight * torch.tensor(std, dtype=torch.float64)).tolist()))
    x = gaussian(50, 5, seed=5)
    certificate = certify(network, x, p=2)
    logits = x @ weight.mT
    lead = logits.gather(1, certificate.prediction.unsqueeze(1)) - logits
    distance = torch.linalg.vector_norm(weight[certificate.prediction].unsqueeze(1) - weight, dim=2)
    exact_radius = (lead / distance).nan_to_num(INF).amin(1)
    assert (certificate.radius <= exact_radius).all() and (certificate.radius > exact_radius / 4).all()


class Turn(nn.Module):
    """x ↦ Qx, a layer of a caller's own."""

    def forward(self, x):
        return x @ torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=x.dtype)


def test_a_type_of_a_callers_own_may_state_its_matrix():
    matrix = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    rule(Turn, affine=lambda module: Matrix(matrix))(lambda module: Gains({(2.0, 2.0): 1.0, (INF, INF): 1.4}))
    network = nn.Sequential(Turn(), linear(matrix.mT.tolist()))
    assert lipschitz(network, INF, INF).constant == pytest.approx(1, rel=1e-12)
    assert largest_slope(network, (2,), INF, INF) == pytest.approx(1, rel=1e-9)


def test_a_convolution_is_merged_with_a_batch_norm_of_images_of_as_many_axes_only():
    """`BatchNorm1d` after `Conv2d` takes a single image (channels, height, width), and scales its rows of pixels."""
    convolution = nn.Conv2d(2, 2, 1, bias=False, dtype=torch.float64)
    convolution.weight.data = torch.diag(torch.tensor([1e-3, 1.0], dtype=torch.float64)).reshape(2, 2, 1, 1)
    for kind, merged in ((nn.BatchNorm1d, False), (nn.BatchNorm2d, True), (nn.BatchNorm3d, False)):
        batch_norm = kind(2, eps=0.0, dtype=torch.float64).eval()
        batch_norm.weight.data = torch.tensor([1e3, 1.0], dtype=torch.float64)
        bound = lipschitz(nn.Sequential(convolution, batch_norm), 2, 2).constant
        assert bound == pytest.approx(1.0 if merged else 1e3)


def test_one_tap_with_padding_is_not_one_matrix_at_every_pixel():
    """Replicated padding copies a pixel; the product with a kernel before it would forget that."""
    first, then = nn.Conv1d(1, 1, 3, bias=False), nn.Conv1d(1, 1, 1, padding=1, padding_mode="replicate", bias=False)
    first.weight.data = torch.tensor([[[0.0, 1.0, 0.0]]])
    then.weight.data = torch.ones(1, 1, 1)
    network = nn.Sequential(first, then)
    jacobian = torch.func.jacrev(lambda x: network(x)[0, 0])(torch.zeros(1, 1, 3))[:, 0, 0].detach()
    assert float(torch.linalg.vector_norm(jacobian, 1, 0).max()) == 3
    assert lipschitz(network, 1, 1).constant >= 3
    assert lipschitz(network, 2, 2).constant >= 3**0.5


@pytest.mark.parametrize(
    "between", [nn.Unflatten(1, (1, 2)), graphs.Unsqueeze(1), nn.Sequential(graphs.Unsqueeze(1), graphs.Squeeze(2))]
)
def test_what_reshapes_rows_ends_what_is_known_of_them(between):
    """(batch, 1, 2): a batch normalization then scales axis 1, which is not the one of the linear layer."""
    linear = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    linear.weight.data = torch.diag(torch.tensor([1e-3, 1.0], dtype=torch.float64))
    batch_norm = nn.BatchNorm1d(2, eps=0.0, dtype=torch.float64).eval()
    batch_norm.weight.data = torch.tensor([1e3, 1.0], dtype=torch.float64)
    assert lipschitz(nn.Sequential(nn.Flatten(), linear, batch_norm), 2, 2).constant == pytest.approx(1.0)
    assert lipschitz(nn.Sequential(nn.Flatten(), between, linear, batch_norm), 2, 2).constant == pytest.approx(1e3)

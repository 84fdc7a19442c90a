"""The table of layers: what it says, how it is printed, and that it never claims what the audit refuses."""

import math
from decimal import Decimal

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tightlip import (
    MaxMin,
    Normalize,
    Orthonormal,
    Residual,
    RowDualBall,
    RowL1Ball,
    Scale,
    TightlipError,
    constrain,
    convnet,
    freeze,
    lipschitz,
    mlp,
    summary,
)


def known_layer():
    """Singular values 2 and 1, so WᵀW − I has norm 3."""
    layer = nn.Linear(3, 2)
    layer.weight.data = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return layer


def test_rows_say_what_each_layer_is():
    network = nn.Sequential(nn.Flatten(), nn.Sequential(known_layer(), MaxMin()), Scale(4.0))
    found = summary(network)
    assert [row.name for row in found.rows] == ["0", "1.0", "1.1", "2"]
    assert [row.module.partition("(")[0] for row in found.rows] == ["Flatten", "Linear", "MaxMin", "Scale"]
    assert [row.weight for row in found.rows] == [None, (2, 3), None, None]
    assert [row.parameters for row in found.rows] == [0, 8, 0, 0]
    assert [row.residual for row in found.rows] == [None, pytest.approx(3.0), None, None]
    assert [row.bound.constant for row in found.rows] == [1.0, pytest.approx(2.0), 1.0, 4.0]
    assert found.total.parameters == 8
    assert found.total.bound == lipschitz(network, 2)


@pytest.mark.parametrize("transpose", [False, True])
def test_the_residual_is_taken_on_the_small_side(transpose):
    layer = nn.Linear(3, 5)
    nn.init.orthogonal_(layer.weight)
    if transpose:
        layer = nn.Linear(5, 3)
        nn.init.orthogonal_(layer.weight)
    (row,) = summary(layer).rows
    assert row.residual < 1e-6
    layer.weight.data *= 0.5
    (row,) = summary(layer).rows
    assert row.residual == pytest.approx(0.75, rel=1e-5)


@pytest.mark.parametrize("way", ["step", "forward"])
def test_held_networks_show_their_constraints_and_frozen_ones_have_none(way):
    torch.manual_seed(0)
    network = mlp([4, 6, 6, 2], [Orthonormal(), RowL1Ball(), Orthonormal()], hold=way)
    names = [type(row.constraint).__name__ for row in summary(network).rows if row.weight]
    assert names == ["Orthonormal", "RowL1Ball", "Orthonormal"]
    assert {row.module for row in summary(network).rows if row.weight} == {"Linear"}
    assert summary(network).total.parameters == sum(p.numel() for p in network.state_dict().values()) - 1 == 86
    assert summary(network).total.bound == lipschitz(network, 2)
    assert all(row.constraint is None for row in summary(freeze(network)).rows)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_the_last_row_is_the_audit_in_the_norm_that_was_asked_for(p):
    torch.manual_seed(0)
    network = freeze(mlp([4, 6, 6, 2], [RowDualBall(2), RowL1Ball(), RowL1Ball()], K=8.0))
    found = summary(network, p)
    assert found.total.bound == lipschitz(network, p)
    by_audit = [bound for _, _, bound in lipschitz(network, p).layers]
    assert [row.bound for row in found.rows] == by_audit
    assert str(found).splitlines()[-1].split()[:2] == ["network", "Sequential"]


def test_the_output_norm_can_be_chosen():
    torch.manual_seed(0)
    network = mlp([4, 6, 6, 2], K=8.0)
    for q in (2, math.inf):
        assert summary(network, 2, q).total.bound == lipschitz(network, 2, q)
        assert str(summary(network, 2, q)).splitlines()[-1].split()[3] == f"2→{q}"
    assert summary(network, math.inf, 2).total.bound is None  # no rule proves it, and nothing raises
    with pytest.raises(TightlipError, match="no norm is called 3"):
        summary(network, 2, 3)


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("way", ["step", "forward"])
def test_a_held_layer_is_shown_in_the_norms_of_its_constraint(p, way):
    torch.manual_seed(0)
    network = mlp([16, 6, 6, 2], [RowDualBall(2), RowL1Ball(), Orthonormal()], hold=way)
    bounds = [row.bound for row in summary(network, p).rows if row.constraint is not None]
    assert [(bound.input_norm, bound.output_norm) for bound in bounds] == [(2, math.inf), (math.inf, math.inf), (2, 2)]
    assert all(bound.constant <= 1 + 1e-6 for bound in bounds)
    assert "2→inf" in str(summary(network, p)) and "RowDualBall(p=2)" in str(summary(network, p))


def test_the_layers_of_a_residual_are_listed_below_it():
    inner = constrain(nn.Linear(3, 3), Orthonormal())
    network = nn.Sequential(known_layer(), Residual(nn.Linear(2, 2)), nn.Linear(2, 3), Residual(inner, MaxMin(3)))
    network[1].f.weight.data = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    found = summary(network)
    assert [row.name for row in found.rows] == ["0", "1", "1.f", "2", "3", "3.f.0", "3.f.1"]
    assert [row.parameters for row in found.rows] == [8, 0, 6, 9, 0, 12, 0]
    assert [row.bound.constant for row in found.rows[1:3]] == [pytest.approx(2.0), pytest.approx(3.0)]
    assert found.rows[5].constraint is not None
    assert found.total.bound == lipschitz(network, 2)
    assert [row.name for row in summary(network[3]).rows] == ["f.0", "f.1"]


def test_an_unproven_residual_shows_which_of_its_layers_is_unproven():
    network = nn.Sequential(nn.ReLU(), Residual(nn.Linear(3, 3), nn.LayerNorm(3), Residual(nn.GLU())))
    unproven = [row.name for row in summary(network).rows if row.bound is None]
    assert unproven == ["1", "1.f.1", "1.f.2", "1.f.2.f"]


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.bend, self.free = nn.Sequential(nn.Linear(3, 3), nn.GLU()), nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.free * self.bend(x)


def test_what_has_no_rule_is_unproven_and_its_layers_are_listed():
    found = summary(nn.Sequential(known_layer(), nn.Linear(2, 3), Unknown(), nn.LayerNorm(3)))
    proven = {row.name: row.bound is not None for row in found.rows}
    assert proven == {"0": True, "1": True, "2": False, "2.bend.0": True, "2.bend.1": False, "3": False}
    assert [row.parameters for row in found.rows] == [8, 9, 3, 12, 0, 6]  # a container counts its own numbers only
    assert found.total.bound is None and found.total.parameters == 38
    assert str(found).count("unproven") == 4


def test_a_network_of_one_layer_has_one_row_and_an_unknown_root_only_its_layers():
    assert [row.name for row in summary(known_layer()).rows] == [""]
    assert [row.name for row in summary(Unknown()).rows] == ["bend.0", "bend.1"]
    assert summary(Unknown()).total.bound is None
    assert summary(nn.Sequential()).total.bound == lipschitz(nn.Sequential(), 2)


def test_an_altered_sequential_is_not_passed_over():
    inner = nn.Sequential(known_layer())
    inner.register_forward_hook(lambda module, args, y: 10 * y)
    found = summary(nn.Sequential(inner))
    assert [(row.name, row.bound is None) for row in found.rows] == [("0", True), ("0.0", False)]
    assert found.total.bound is None


def test_foreign_parametrizations_are_unproven_layers_with_all_their_numbers():
    (row,) = summary(nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 2)))).rows
    assert (row.module, row.weight, row.parameters, row.bound) == ("Linear", (2, 3), 8, None)


def test_weights_that_are_not_finite_are_unproven():
    layer = known_layer()
    layer.weight.data[0, 0] = math.nan
    (row,) = summary(layer).rows
    assert row.bound is None and math.isnan(row.residual)
    assert "nan" in str(summary(layer))
    held = constrain(known_layer(), RowL1Ball(), hold="forward")
    held.parametrizations.weight.original.data[0, 0] = math.nan
    (row,) = summary(held).rows
    assert row.bound is None and row.weight is None


def test_a_layer_that_no_norm_in_question_knows_is_unproven(monkeypatch):
    from tightlip import Gains, rule
    from tightlip.audit import registry

    class OnlyMax(nn.Module):
        def forward(self, x):
            return x

    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    rule(OnlyMax)(lambda module: Gains({(math.inf, math.inf): 1.0}))
    assert summary(OnlyMax(), 1).rows[0].bound.constant == 1.0  # 1→∞, which ∞→∞ implies
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    rule(OnlyMax)(lambda module: Gains({(1.0, math.inf): 1.0}))
    assert summary(OnlyMax(), 2).rows[0].bound is None


def test_layers_used_twice_have_two_rows_and_their_numbers_once_in_the_total():
    layer = nn.Linear(2, 2)
    found = summary(nn.Sequential(layer, nn.ReLU(), layer))
    assert [row.name for row in found.rows] == ["0", "1", "2"]
    assert [row.parameters for row in found.rows] == [6, 0, 6]
    assert found.total.parameters == 6


def test_the_table_is_aligned_and_complete():
    torch.manual_seed(0)
    found = summary(nn.Sequential(nn.Flatten(), mlp([784, 64, 64, 10], K=3.0)))
    lines = str(found).splitlines()
    assert len(lines) == len(found.rows) + 4
    assert set(lines[1]) == set(lines[-2]) == {"─"}
    header = lines[0]
    for row, line in zip(found.rows, lines[2:-2], strict=True):
        assert line.startswith(row.name)
        assert line[header.index("module") :].startswith(row.module)
        if row.constraint is not None:
            assert line[header.index("constraint") :] == "Orthonormal()"
        end = header.index("parameters") + len("parameters")
        assert line[:end].endswith(f"{row.parameters:,}")
    assert "64 × 784" in lines[3] and "50,240" in lines[3] and "2→2" in lines[3]


@pytest.mark.parametrize("K", [0.1, 1.0, 1 / 3, 1e-9, 123456789.0, 2.0**40 + 1])
def test_printed_constants_are_never_below_the_proven_ones(K):
    network = Scale(K).double()
    network.scale.fill_(K)
    found = summary(network)
    constant = found.total.bound.constant
    printed = Decimal(str(found).splitlines()[-1].split()[-1])
    assert printed >= Decimal(constant)
    assert float(printed) == pytest.approx(constant, rel=2e-7)


def test_other_norms_are_refused():
    with pytest.raises(TightlipError, match="no norm is called 3"):
        summary(known_layer(), 3)


def test_a_table_stays_as_wide_as_a_screen_however_many_channels_there_are():
    class Wordy(nn.Identity):
        def extra_repr(self):
            return "word, " * 500

    channels = torch.linspace(-1, 1, 784).tolist()
    network = nn.Sequential(Normalize(channels, [0.5] * 784), nn.Linear(784, 4), Wordy())
    table = str(summary(network))
    assert max(map(len, table.splitlines())) < 160
    assert "Normalize(784 channels, mean -1 to 1, std 0.5)" in table and "…)" in table
    assert "Normalize(0.5, 2.0)" in str(summary(Normalize(0.5, 2.0)))


def test_kernels_show_their_smallest_singular_value_and_networks_without_any_have_no_such_column():
    torch.manual_seed(0)
    network = convnet((1, 8, 8), 3, channels=(8,), depth=1, hidden=())
    shown = summary(network)
    kernels = [row for row in shown.rows if row.module == "Conv2d"]
    assert len(kernels) == 2 and all(1 - 1e-5 < row.smallest <= 1 for row in kernels)
    assert all(row.smallest is None for row in shown.rows if row.module != "Conv2d")
    assert "σ_min ≥" in str(shown) and "σ_min ≥" not in str(summary(mlp([2, 4, 2])))


def test_a_kernel_that_vanishes_somewhere_shows_nothing():
    layer = nn.Conv2d(1, 1, (1, 2), bias=False)
    nn.init.ones_(layer.weight)
    assert summary(nn.Sequential(layer)).rows[0].smallest is None


@pytest.mark.parametrize(("stride", "kernel"), [(2, 2), (2, 3), (2, 4), (1, 3), (3, 3)])
def test_the_smallest_singular_value_of_a_stride_is_that_of_circular_images_or_less(stride, kernel):
    torch.manual_seed(0)
    layer = constrain(nn.Conv2d(4, 8, kernel, stride, bias=False), Orthonormal())
    layer = freeze(nn.Sequential(layer))[0].double()
    (bound,) = (row.smallest for row in summary(nn.Sequential(layer)).rows)
    side = 2 * stride
    basis = torch.eye(4 * side * side, dtype=torch.float64).view(-1, 4, side, side)
    around = nn.functional.pad(basis, (0, kernel - stride, 0, kernel - stride), "circular")
    sigma = torch.linalg.svdvals(layer(around).flatten(1))
    rank = min(8, 4 * stride**2) * 4  # output pixels
    assert 1 - 1e-5 < bound <= float(sigma[rank - 1]) + 1e-12

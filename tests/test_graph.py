"""The one loop over nodes: laws of gains, sums and concatenations, and what is let go."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from tightlip import Gains, Residual, Scale, TightlipError, certify, lipschitz
from tightlip.audit import Concat, Node, Nodes, Sum, audit, chain, expand, fold
from tightlip.linalg.arithmetic import FLOAT64
from tightlip.norms import NORMS, PAIRS


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return Gains({pair: float(torch.rand((), generator=generator)) for pair in PAIRS})


def test_gains_after_one_another_may_be_grouped_in_any_way():
    for seed in range(20):
        f, g, h = (drawn(3 * seed + i) for i in range(3))
        assert f.then(g).then(h).table == f.then(g.then(h)).table


def test_a_sum_is_never_more_than_its_terms_and_beside_lies_between_largest_and_sum():
    for seed in range(20):
        f, g = drawn(2 * seed), drawn(2 * seed + 1)
        plus, beside = Gains.plus([f, g], [2.0, -0.5]).table, Gains.beside([f, g]).table
        for pair in PAIRS:
            one, other = f.table[pair], g.table[pair]
            assert plus[pair] == 2 * one + Fraction(1, 2) * other
            assert max(one, other) <= beside[pair] <= one + other
        assert beside[2.0, 2.0] ** 2 >= f.table[2.0, 2.0] ** 2 + g.table[2.0, 2.0] ** 2
        assert beside[1.0, 1.0] == f.table[1.0, 1.0] + g.table[1.0, 1.0]


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e300])
def test_the_root_of_squares_neither_over_nor_underflows(size):
    both = Gains.beside([Gains.constant(3 * size), Gains.constant(4 * size)]).table[2.0, 2.0]
    assert Fraction(5 * size) <= both <= Fraction(5 * size) * (1 + Fraction(1, 2**48))


def test_a_block_in_the_middle_is_composed_with_what_comes_before_it():
    """A row of ones is 2→∞ √2, and the identity of the block passes its ∞-norm on: nothing is lost to the 2-norm."""
    first = nn.Linear(2, 2, bias=False)
    first.weight.data.fill_(1.0)
    network = nn.Sequential(first, Residual(nn.ReLU()))
    assert lipschitz(network, 2, math.inf).constant == pytest.approx(math.sqrt(2))


def test_each_node_takes_values_that_exist_and_containers_are_open():
    block = Residual(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), Residual(nn.Tanh())))
    nodes = expand(nn.Sequential(nn.Flatten(), block, nn.Sequential(), Scale(2.0)))
    assert [node.name for node in nodes.nodes] == ["0", "1.f.0", "1.f.1.0", "1.f.1.1.f", "1.f.1.1", "1", "3"]
    assert all(i <= number for number, node in enumerate(nodes.nodes) for i in node.inputs)
    assert nodes.nodes[4].inputs == (3, 4) and nodes.nodes[5].inputs == (1, 5)
    assert nodes.output == len(nodes.nodes)


def test_values_are_let_go_after_their_last_use():
    alive = set()

    class Value:
        def __init__(self, number):
            self.number = number
            alive.add(number)

        def __del__(self):
            alive.discard(self.number)

    layers = tuple(Node(str(i), nn.ReLU(), (i,)) for i in range(5))
    seen = []

    def layer(node, value):
        seen.append(len(alive))
        return Value(value.number + 1)

    fold(Nodes(layers, 5), Value(0), layer, lambda node, values: values[0])
    assert max(seen) <= 2


def test_a_network_without_layers_is_the_identity():
    assert lipschitz(nn.Sequential(), 2).constant == 1.0
    assert lipschitz(Residual(nn.Sequential()), 2).constant == 1.0
    assert audit(nn.Sequential()).total.table[2.0, 2.0] == 1


def test_a_chain_has_no_joins():
    assert [name for name, _ in chain(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh())))] == ["0", "1.0"]
    with pytest.raises(TightlipError, match="Sum\\(0.5, 0.5\\) at '1' joins values"):
        list(chain(nn.Sequential(nn.ReLU(), Residual(nn.Tanh()))))


def test_sums_and_concatenations_refuse_what_would_be_broadcast_or_mix_examples():
    with pytest.raises(TightlipError, match="cannot be added"):
        Sum(1.0, 1.0)(torch.ones(2, 3), torch.ones(2, 1))
    for dim in (0, True):
        with pytest.raises(TightlipError, match="other than that of the batch"):
            Concat(dim)
    with pytest.raises(TightlipError, match="is that of the batch"):
        Concat(-2)(torch.ones(2, 3), torch.ones(2, 1))
    with pytest.raises(TightlipError, match="finite"):
        Sum(math.nan)


def test_in_place_layers_do_not_spoil_what_a_sum_takes_as_well():
    blocks = [Residual(nn.Flatten(), nn.ReLU(inplace=way)) for way in (False, True)]
    network, inplace = (nn.Sequential(block, nn.Linear(3, 2)) for block in blocks)
    inplace[1].load_state_dict(network[1].state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(certify(network, x).radius, certify(inplace, x.clone()).radius)


@pytest.mark.parametrize("join", [Sum(0.5, -0.25), Sum(0.3, 0.3, 0.3), Concat(1)], ids=repr)
def test_a_join_strays_from_exact_arithmetic_by_no_more_than_it_says(join):
    count = len(join.weights) if isinstance(join, Sum) else 2
    values = [torch.randn(50, 4, dtype=torch.float64) * 10.0**i for i in range(count)]
    found = join(*values)
    exact = [[Fraction(entry) for entry in value.flatten().tolist()] for value in values]
    if isinstance(join, Sum):
        flat = [sum(Fraction(w) * value[i] for w, value in zip(join.weights, exact, strict=True)) for i in range(200)]
        off = torch.tensor([float(abs(a - Fraction(b))) for a, b in zip(flat, found.flatten().tolist(), strict=True)])
        sizes = [torch.linalg.vector_norm(value, dim=1) for value in values]
        allowed = join.error([torch.zeros(50, dtype=torch.float64)] * count, sizes, FLOAT64.gamma)
        assert bool((torch.linalg.vector_norm(off.double().view(50, 4), dim=1) <= allowed).all())
    else:
        assert torch.equal(found, torch.cat(values, 1))
        errors = [torch.full((50,), 3e-9, dtype=torch.float64), torch.full((50,), 4e-9, dtype=torch.float64)]
        assert bool((join.error(errors, errors, FLOAT64.gamma) >= 5e-9).all())


def test_norms_are_what_the_table_is_made_of():
    assert set(PAIRS) == {(p, q) for p in NORMS for q in NORMS if p <= q}

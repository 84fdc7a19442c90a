"""A weight that a forward uses once more, transposed, is one tensor in the graph; other uses of it are refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tightlip import Orthonormal, TightlipError, certify, constrain, freeze, lipschitz, load, save, trace
from tightlip.graphs import Transposed


class Tied(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.encoder, self.bias, self.function = nn.Linear(6, 4), nn.Parameter(torch.rand(6)), forward
        self.other = nn.Parameter(torch.rand(4, 6))

    def forward(self, x):
        return self.function(self, x)


HONEST = {
    "t()": lambda m, x: F.linear(m.encoder(x).relu(), m.encoder.weight.t(), m.bias),
    "T": lambda m, x: F.linear(m.encoder(x), m.encoder.weight.T),
    "mT by names": lambda m, x: F.linear(m.encoder(x), weight=m.encoder.weight.mT, bias=m.bias),
    "transpose": lambda m, x: F.linear(x[:, :4], torch.transpose(m.encoder.weight, 0, 1)),
    "before and after": lambda m, x: m.encoder(F.linear(m.encoder(x), m.encoder.weight.t(), m.bias)),
}


@pytest.mark.parametrize("name", HONEST)
def test_a_transposed_weight_is_one_tensor_with_the_weight(name, tmp_path, seed):
    network, x = Tied(HONEST[name]).eval(), torch.randn(5, 6)
    graph = trace(network)
    assert torch.equal(graph(x), network(x))
    (layer,) = (part for part in graph.modules() if type(part) is Transposed)
    assert layer.of is network.encoder and lipschitz(graph, 2, 2) == lipschitz(network, 2, 2)
    slope = torch.linalg.matrix_norm(torch.func.vmap(torch.func.jacrev(lambda x: graph(x[None])[0]))(x), 2).max()
    assert slope <= lipschitz(graph, 2, 2).constant * (1 + 1e-6)
    constrain(network.encoder, Orthonormal())
    frozen = freeze(network)
    assert lipschitz(frozen, 2, 2).constant <= 1 and torch.allclose(frozen(x), network(x), atol=1e-6)
    save(frozen, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert torch.equal(loaded(x), frozen(x)) and lipschitz(loaded, 2, 2) == lipschitz(frozen, 2, 2)
    assert torch.equal(certify(loaded, x, p=2, progress=False).radius, certify(frozen, x, p=2, progress=False).radius)


LIES = {
    "not transposed": lambda m, x: F.linear(x, m.encoder.weight),
    "transposed twice": lambda m, x: F.linear(x, m.encoder.weight.t().t()),
    "another parameter": lambda m, x: F.linear(x[:, :4], m.other.t()),
    "a weight that is added": lambda m, x: x + m.encoder.weight.t()[0],
    "a bias that is computed": lambda m, x: F.linear(m.encoder(x), m.encoder.weight.t(), m.bias * 2),
    "the bias as an input": lambda m, x: F.linear(m.bias, m.encoder.weight),
    "two uses": lambda m, x: (lambda w: F.linear(m.encoder(x), w) + w.sum())(m.encoder.weight.t()),
    "a value for a weight": lambda m, x: F.linear(x, m.encoder(x).t()),
}


@pytest.mark.parametrize("name", LIES)
def test_any_other_use_of_a_tensor_is_refused(name, seed):
    with pytest.raises(TightlipError, match="outside of a layer|axis of the batch|adds up|no rule"):
        lipschitz(Tied(LIES[name]), 2)


def test_what_is_no_linear_layer_has_no_transpose(seed):
    class Doubled(nn.Linear):
        pass

    for wrong, words in (
        (lambda: Transposed(Doubled(2, 2)), "not of a Doubled"),
        (lambda: Transposed(nn.Linear(3, 2), nn.Parameter(torch.zeros(2))), "does not fit 3 outputs"),
    ):
        with pytest.raises(TightlipError, match=words):
            wrong()
    layer = Transposed(nn.Linear(2, 2))
    layer.of = Doubled(2, 2)
    with pytest.raises(TightlipError, match="not of a Doubled"):
        lipschitz(layer, 2)

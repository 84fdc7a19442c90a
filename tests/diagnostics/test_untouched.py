"""Whoever looks at a network leaves it exactly as it was."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tightlip import (
    MaxMin,
    TightlipError,
    activation_statistics,
    gradient_norm,
    jacobian_singular_values,
    mlp,
    summary,
)


def chatty():
    """Everything that a careless look would move: running statistics, power iteration, dropout, modes, hooks."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 6)), nn.BatchNorm1d(6), nn.Dropout(0.5)),
        nn.Sequential(MaxMin(), nn.Linear(6, 2)),
    )
    network[1].eval()
    network[1][1].weight.requires_grad_(False)
    network[1][0].register_forward_hook(noting)
    return network


def noting(module, args, y):
    return None


NETWORKS = {
    "chatty": chatty,
    "step": lambda: mlp([4, 6, 2]),
    "forward": lambda: mlp([4, 6, 2], hold="forward"),
}
LOOKS = {
    "jacobian": lambda network, x: jacobian_singular_values(network, x, batch_size=2),
    "gradient": lambda network, x: gradient_norm(network, x, output=0),
    "units": lambda network, x: activation_statistics(network, x, batch_size=2),
    "layers": lambda network, x: summary(network),
}


def everything(network):
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return {
        "values": [(name, value.detach().clone(), value.dtype) for name, value in tensors],
        "versions": [(name, id(value), value._version, value.requires_grad) for name, value in tensors],
        "gradients": [(name, None if value.grad is None else value.grad.clone()) for name, value in tensors],
        "modes": [(name, module.training) for name, module in network.named_modules()],
        "hooks": [
            (name, list(module._forward_hooks.items()), list(module._forward_pre_hooks.items()))
            for name, module in network.named_modules()
        ],
        "random": torch.get_rng_state(),  # Python's own moves when beartype samples
    }


def same(before, after):
    assert before.keys() == after.keys()
    for key in ("versions", "modes", "hooks"):
        assert before[key] == after[key], key
    for key in ("values", "gradients"):
        for old, new in zip(before[key], after[key], strict=True):
            assert old[0] == new[0] and old[2:] == new[2:]
            assert (old[1] is None and new[1] is None) or torch.equal(old[1], new[1]), (key, old[0])
    assert torch.equal(before["random"], after["random"])


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_network_is_left_as_it_was(look, make):
    torch.manual_seed(0)
    network = make()
    x = torch.randn(5, 4).requires_grad_()
    network(x).sum().backward()
    x.grad, kept = None, x.detach().clone()
    before = everything(network)
    result = look(network, x)
    same(before, everything(network))
    assert x.grad is None and torch.equal(x, kept)
    assert not getattr(result, "requires_grad", False)


@pytest.mark.parametrize("look", [LOOKS[name] for name in ("jacobian", "gradient", "units")])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_network_is_left_as_it_was_when_the_look_fails(look, make):
    torch.manual_seed(0)
    network, misfit = make(), torch.randn(5, 3)
    before = everything(network)
    with pytest.raises(TightlipError, match="do not fit the network"):
        look(network, misfit)
    same(before, everything(network))


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_training_mode_is_not_what_is_measured(look):
    network, x = chatty(), torch.randn(5, 4)
    network.train()
    first = look(network, x)
    torch.randn(3)
    network.eval()
    second = look(network, x)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, tuple):
        assert all(torch.equal(a.positive, b.positive) for a, b in zip(first, second, strict=True))
    else:
        assert str(first) == str(second)

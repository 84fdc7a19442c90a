"""Images for a network that takes rows: the sentence names Flatten, whoever is asked."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tightlip import (
    Normalize,
    TightlipError,
    activation_statistics,
    certify,
    fit,
    freeze,
    gradient_norm,
    jacobian_singular_values,
    mlp,
    pgd,
)

IMAGES, LABELS = torch.rand(4, 1, 28, 28), torch.arange(4)
ADVICE = r"put nn.Flatten\(\) in front of the network, or give x.flatten\(1\)"


@pytest.fixture(scope="module")
def network():
    return freeze(mlp([784, 8, 10]))


ASKED = {
    "certify": lambda network: certify(network, IMAGES, LABELS),
    "certify gray": lambda network: certify(network, IMAGES[:, 0]),
    "certify normalized": lambda network: certify(nn.Sequential(Normalize(0.1, 0.3), network), IMAGES),
    "certify batches": lambda network: certify(network, [IMAGES, IMAGES]),
    "pgd": lambda network: pgd(network, IMAGES, LABELS, 0.1, steps=1, restarts=1),
    "gradient_norm": lambda network: gradient_norm(nn.Sequential(network, nn.Linear(10, 1)), IMAGES),
    "jacobian_singular_values": lambda network: jacobian_singular_values(network, IMAGES),
    "activation_statistics": lambda network: activation_statistics(network, IMAGES),
    "fit": lambda _: fit(mlp([784, 8, 10]), cross_entropy, (IMAGES, LABELS), epochs=1, progress=False),
}


@pytest.mark.parametrize("asked", ASKED)
def test_the_sentence_names_flatten(network, asked):
    with pytest.raises(TightlipError, match=f"rows of 784 values, and each input is .*28×28: {ADVICE}"):
        ASKED[asked](network)


def test_what_it_says_helps(network):
    flattened = certify(nn.Sequential(nn.Flatten(), network), IMAGES)
    assert torch.equal(flattened.radius, certify(network, IMAGES.flatten(1)).radius)


@pytest.mark.parametrize("asked", ["certify", "pgd"])
def test_where_the_last_axis_fits_by_chance_it_is_named_too(asked):
    with pytest.raises(TightlipError, match=rf"shape \(4, 1, 28, 10\).*{ADVICE}"):
        ASKED[asked](freeze(mlp([28, 8, 10])))


def test_where_flattening_would_not_help_it_is_not_advised():
    with pytest.raises(TightlipError, match="rows of 100 values, and each input is 1×28×28, 784 values") as caught:
        certify(freeze(mlp([100, 8, 10])), IMAGES)
    assert "Flatten" not in str(caught.value)

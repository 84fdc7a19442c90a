"""A classification task that any network learns in a moment, a regression task, and `fit` with short options."""

import inspect

import torch
from torch.nn import functional

from tightlip import fit, mlp

PLAIN_FIT = inspect.unwrap(fit)
"""What a user meets: without the shape checks, which would speak first under test."""


def blobs(examples=200, noise=0.4, seed=0):
    """Two classes around (±1, ±1), in 4 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(examples) % 2
    return torch.randn(examples, 4, generator=generator) * noise + (2.0 * y[:, None] - 1.0), y


def half_sum(examples=200, seed=0):
    """Four numbers and half their sum, (N,): a 1-Lipschitz function."""
    x = torch.rand(examples, 4, generator=torch.Generator().manual_seed(seed))
    return x, x.sum(1) / 2


def seeded(*widths, **options):
    """An `mlp` that is the same at each call."""
    torch.manual_seed(0)
    return mlp([4, 8, 2] if not widths else list(widths), **options)


def train(epochs=3, network=None, **options):
    """`fit` on blobs: (the network, the history)."""
    network = seeded() if network is None else network
    options = {"loss": functional.cross_entropy, "batch_size": 32, "progress": False} | options
    options = {"train": blobs(), "validation": blobs(50, seed=1)} | options
    return network, PLAIN_FIT(network, epochs=epochs, **options)


def regress(epochs=3, network=None, **options):
    """`fit` on half sums: (the network, the history)."""
    options = {"loss": functional.mse_loss, "train": half_sum(), "validation": half_sum(50, 1)} | options
    return train(epochs, seeded(4, 8, 1) if network is None else network, **options)


def without_seconds(history):
    """What two runs must agree on."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def same_weights(a, b):
    """Bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))

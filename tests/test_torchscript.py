"""TorchScript: what is frozen can be scripted and traced, what is trained can be traced; the outputs are the same."""

import subprocess
import sys

PROGRAM = """
import io
import warnings

import torch
from torch import nn

from tightlip import (
    Abs, FullSort, GroupSort, Householder, MaxMin, Maxout, Normalize, Residual, RowL1Ball, Scale, freeze, mlp
)

warnings.simplefilter("ignore")
torch.manual_seed(0)
STATELESS = [
    GroupSort(4), GroupSort(2, dim=1), MaxMin(), MaxMin(contiguous=False), FullSort(), Abs(), Maxout(2), Householder(4),
    Scale(3.0), Normalize(0.5, 2.0), Normalize([0.0] * 8, [1.0] * 8), Residual(nn.Linear(8, 8), MaxMin()),
]
HELD = [mlp([8, 16, 32, 4], hold=hold) for hold in ("step", "forward")] + [mlp([8, 16, 4], RowL1Ball())]
x, y = torch.randn(3, 8), torch.randn(5, 8)


def check(kind, module, recorded):
    file = io.BytesIO()
    torch.jit.save(recorded, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    leaf, other = (y.clone().requires_grad_() for _ in range(2))
    results = loaded(leaf), module(other)
    for result in results:
        result.square().sum().backward()
    assert torch.allclose(*results, atol=1e-6) and torch.allclose(leaf.grad, other.grad, atol=1e-5), (kind, module)


for module in STATELESS + [freeze(network) for network in HELD]:
    check("script", module, torch.jit.script(module))
for module in STATELESS + HELD + [freeze(network) for network in HELD]:
    check("trace", module, torch.jit.trace(module, x))
"""


def test_scripts_and_traces_compute_what_the_modules_do():
    """In a process of its own: the shape checks of the tests cannot be scripted."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

"""What is frozen can be scripted, traced, exported and compiled, what is trained be traced, with the same outputs."""

from processes import python

PROGRAM = """
import io
import warnings

import torch
from torch import nn

from tightlip import (
    Abs, FullSort, GroupSort, Householder, MaxMin, Maxout, MeanShift, Normalize, Residual, RowL1Ball, Scale, convnet,
    freeze, guarded, mlp
)
from tightlip.graphs import as_fx

warnings.simplefilter("ignore")
torch.manual_seed(0)
STATELESS = [
    GroupSort(4), GroupSort(2, dim=1), MaxMin(), MaxMin(contiguous=False), FullSort(), Abs(), Maxout(2), Householder(4),
    Scale(3.0), Normalize(0.5, 2.0), Normalize([0.0] * 8, [1.0] * 8), Residual(nn.Linear(8, 8), MaxMin()),
    MeanShift(8).eval(), nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 4, 3), MeanShift(4), MaxMin(1)).eval(),
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


class TwoWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.g, self.relu = nn.Linear(8, 8), nn.Linear(16, 3), nn.ReLU()

    def forward(self, x):
        z = self.f(x)
        return self.g(torch.cat((0.5 * self.relu(z) - x, z), 1))


MANY = torch.randn(1000, 8)
IMAGES = torch.randn(1000, 1, 8, 8)
plain = [mlp([8, 32, 4]), mlp([8, 40, 4], activation=FullSort), mlp([8, 16, 4], activation=lambda: GroupSort(4))]
FROZEN = [(freeze(network), MANY) for network in (*plain, TwoWays().eval())]
FROZEN += [(freeze(convnet((1, 8, 8), 3, channels=(4, 8), depth=1, hidden=(8,))), IMAGES)]
FROZEN += [(guarded(FROZEN[0][0], MANY, 0.1), MANY)]
for network, x in FROZEN:
    expected = network(x)
    graph = type(network).__name__ == "Graph"
    forms = {
        "script": torch.jit.script(as_fx(network) if graph else network),
        "trace": torch.jit.trace(network, x[:3], check_trace=False),
        "export": torch.export.export(network, (x[:3],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module(),
    }
    if network is FROZEN[1][0] or graph:
        forms["compile"] = torch.compile(network, fullgraph=True)
    for kind, form in forms.items():
        with torch.no_grad():
            found = form(x)
        pairs = zip(found, expected) if isinstance(found, tuple) else [(found, expected)]
        assert all(torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in pairs), (kind, network)
"""


def test_scripts_traces_exports_and_compiled_networks_compute_what_the_modules_do():
    """In a process of its own: the shape checks of the tests cannot be scripted."""
    done = python("-c", PROGRAM, timeout=300)
    assert done.returncode == 0, done.stderr

"""What the comparison with other libraries says of them, tried: each probe is one claim of docs/peers.md.

    pip install --no-deps deel-torchlip==1.0.5 orthogonium==0.0.4 einops
    python benchmarks/peers.py

Norms are the largest singular values of the whole operator, found by pushing the identity through the layer; where a
weight is searched for, by gradient ascent over it. They are attained, so they are lower bounds on the worst case. Yes
or no is whether a call came back. Writes results/peers.json, with the versions of what was tried.
"""

import importlib
import io
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tightlip
from tightlip.provenance import provenance
from tightlip.records import BenchRow

PADDINGS = ("zeros", "circular", "reflect", "replicate")
CHANNELS, SIDE, ASCENT = 9, 6, 40
PEERS = ("deel-torchlip", "orthogonium")


def operator(layer: nn.Module) -> torch.Tensor:
    """The matrix of an affine layer on small images."""
    shape = (CHANNELS, SIDE, SIDE)
    return (layer(torch.eye(CHANNELS * SIDE**2).unflatten(1, shape)) - layer(torch.zeros(1, *shape))).flatten(1)


def worst_norm(make: Callable[[], nn.Module]) -> float:
    """The largest norm of a kernel's operator that ascent over its parameters finds, in eval mode."""
    torch.manual_seed(0)
    layer, best = make(), 0.0
    optimizer = torch.optim.Adam((p for p in layer.parameters() if p.requires_grad), 0.05)
    if tightlip.constraints.is_constrained(layer):
        tightlip.hold(layer, optimizer)
    for _ in range(ASCENT):
        optimizer.zero_grad()
        (-torch.linalg.matrix_norm(operator(layer.train()), 2)).backward()
        optimizer.step()
        operator(layer.train())  # one more forward pass, for weights that are kept for eval mode
        with torch.no_grad():
            best = max(best, float(torch.linalg.matrix_norm(operator(layer.eval()), 2)))
    return best


def slope(network: nn.Module, inputs: int) -> float:
    """The largest gradient norm at 64 random points."""
    x = torch.randn(64, inputs)
    network(x)
    return float(tightlip.jacobian_singular_values(network.eval(), x, dtype=torch.float32).max())


def works(act: Callable[[], Any]) -> bool:
    """Whether a call comes back."""
    try:
        act()
    except Exception as problem:  # noqa: BLE001  a peer may fail in any way
        print(f"  {type(problem).__name__}: {str(problem)[:100]}")
        return False
    return True


def by_padding(make: Callable[[str], nn.Module]) -> dict[str, float | None]:
    """The norm of a 3×3 kernel for each padding; None where the layer cannot be made."""
    return {mode: worst_norm(partial(make, mode)) if works(partial(make, mode)) else None for mode in PADDINGS}


def torchlip() -> dict[str, Any]:
    """What deel-torchlip answers."""
    tl = importlib.import_module("deel.torchlip")

    def network(constant: float) -> nn.Module:
        torch.manual_seed(0)
        layers = tl.SpectralLinear(16, 16), tl.GroupSort2(), tl.SpectralLinear(16, 16)
        return tl.Sequential(*layers, k_coef_lip=constant)

    layer = tl.SpectralLinear(16, 16)
    layer(torch.randn(2, 16))
    layer.eval()(torch.randn(2, 16)).sum().backward()
    return {
        "norm of a 3×3 kernel": by_padding(
            lambda mode: tl.SpectralConv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode=mode)
        ),
        "slope of a container": {str(k): slope(network(k), 16) for k in (0.1, 1.0, 8.0)},
        "torch.save": works(lambda: torch.save(tl.SpectralLinear(4, 4), io.BytesIO())),
        "double": works(lambda: tl.SpectralLinear(4, 4).double()(torch.randn(2, 4).double())),
        "gradient in eval mode": any(p.grad is not None for name, p in layer.named_parameters() if "weight" in name),
    }


def orthogonium() -> dict[str, Any]:
    """The same of orthogonium, and one question more."""
    layers, losses = (importlib.import_module(f"orthogonium.{name}") for name in ("layers", "losses"))
    convolution, linear = layers.AdaptiveOrthoConv2d, layers.OrthoLinear
    labels = torch.zeros(4, dtype=torch.long)
    return {
        "norm of a 3×3 kernel": by_padding(
            lambda mode: convolution(CHANNELS, CHANNELS, kernel_size=3, padding=1, padding_mode=mode)
        ),
        "torch.save": works(lambda: torch.save(linear(4, 4), io.BytesIO())),
        "double": works(lambda: linear(4, 4).double()(torch.randn(2, 4).double())),
        "accuracy within a radius, on the processor": works(lambda: losses.VRA(torch.randn(4, 10), labels)),
    }


def ours() -> dict[str, Any]:
    """The same questions."""

    def kernel(mode: str) -> nn.Module:
        return tightlip.constrain(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode=mode), tightlip.Orthonormal()
        )

    def network(constant: float) -> nn.Module:
        torch.manual_seed(0)
        return tightlip.mlp([16, 16, 16], K=constant)

    layer = tightlip.constrain(nn.Linear(16, 16), tightlip.Orthonormal()).eval()
    layer(torch.randn(2, 16)).sum().backward()
    return {
        "norm of a 3×3 kernel": by_padding(kernel),
        "slope of a container": {str(k): slope(network(k), 16) for k in (0.1, 1.0, 8.0)},
        "torch.save": works(lambda: torch.save(tightlip.mlp([4, 4]), io.BytesIO())),
        "double": works(lambda: tightlip.mlp([4, 4]).double()(torch.randn(2, 4).double())),
        "gradient in eval mode": layer.weight.grad is not None,
    }


def main() -> None:
    """All probes."""
    rows = {}
    for probe in (ours, torchlip, orthogonium):
        print(probe.__name__)
        rows[probe.__name__] = probe()
        print(f"  {rows[probe.__name__]}")
    config = {"channels": CHANNELS, "side": SIDE, "ascent": ASCENT, "versions": {name: version(name) for name in PEERS}}
    row = BenchRow(benchmark="peers", config=config, seed=0, results={"rows": rows}, **provenance("cpu"))
    row.write(Path("results/peers.json"))


if __name__ == "__main__":
    main()

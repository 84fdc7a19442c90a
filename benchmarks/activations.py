"""What sorting activations cost, forward and backward, beside torch's own operations.

    python benchmarks/activations.py

MaxMin beside min and max by autograd, larger groups beside torch.sort, each in both layouts; the ratio is taken within
each round. Writes results/activations.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import tightlip
from tightlip.activations import grouped
from tightlip.provenance import provenance
from tightlip.records import BenchRow

Activation = Callable[[Tensor], Tensor]


def by_min_and_max(contiguous: bool) -> Activation:
    """MaxMin as autograd differentiates it."""

    def activation(x: Tensor) -> Tensor:
        axis = 2 if contiguous else 1
        a, b = grouped(x, 2, -1, contiguous).unbind(axis)
        return torch.stack((torch.minimum(a, b), torch.maximum(a, b)), axis).flatten(1)

    return activation


def by_sort(size: int, contiguous: bool) -> Activation:
    """GroupSort by torch.sort."""
    return lambda x: grouped(x, size, -1, contiguous).sort(dim=2 if contiguous else 1).values.flatten(1)


def seconds(activation: Activation, x: Tensor, gradient: Tensor) -> float:
    """Of a pass forward and backward that follows another, so that memory is where this way itself left it."""
    for _ in range(2):
        x.grad = None
        began = time.perf_counter()
        activation(x).backward(gradient)
    return time.perf_counter() - began


def main() -> None:
    """All sizes and layouts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("results/activations.json"))
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("quartiles need --rounds 2 or more")
    if options.width % 16:
        parser.error("--width must be a multiple of 16, the largest group")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    rows: dict[str, dict[str, object]] = {}
    for batch in options.batches:
        x = torch.randn(batch, options.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
        gradient = torch.randn(batch, options.width, generator=torch.Generator().manual_seed(1))
        for size in (2, 4, 8, 16, options.width):
            for contiguous in (True, False) if size < options.width else (True,):
                ours: Activation = tightlip.GroupSort(size, contiguous=contiguous)
                other = by_min_and_max(contiguous) if size == 2 else by_sort(size, contiguous)
                times = [[seconds(way, x, gradient) for way in (ours, other)] for _ in range(options.rounds + 3)][3:]
                low, ratio, high = statistics.quantiles([theirs / mine for mine, theirs in times], n=4)
                name = f"GroupSort({size}) {'contiguous' if contiguous else 'strided'} batch {batch}"
                milliseconds = 1e3 * statistics.median(mine for mine, _ in times)
                beside = "min and max" if size == 2 else "sort"
                rows[name] = {"beside": beside, "ratio": ratio, "quartiles": [low, high], "milliseconds": milliseconds}
                print(
                    f"{name:42} {milliseconds:8.2f} ms, {ratio:6.2f} [{low:.2f}, {high:.2f}] times faster than {beside}"
                )
    config = {key: value for key, value in vars(options).items() if key != "output"}
    row = BenchRow(benchmark="activations", config=config, seed=0, results={"rows": rows}, **provenance("cpu"))
    row.write(options.output)
    print(json.dumps({name: round(row["ratio"], 2) for name, row in rows.items()}))  # type: ignore[call-overload]


if __name__ == "__main__":
    main()

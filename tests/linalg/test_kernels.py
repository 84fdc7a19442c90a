"""The kernels of the GPU, without one: interpreted, through all tests of sorting, and compiled down to machine code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sweeps import some, thorough

pytest.importorskip("triton", reason="Triton, which comes with torch's builds for CUDA, is not here")

TESTS = Path(__file__).parents[1]
INTERPRETED = {**os.environ, "TRITON_INTERPRET": "1"}
COMPILED = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "0"}


def run(arguments, environment, cwd):
    result = subprocess.run([sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


# Interpreted, many members take a minute, and bfloat16's smallest numbers become zero; codes are tested below. What is
# the same for all sizes is tried on some: each is compared with torch's own sort below.
LEFT_OUT = """
    test_sorting.py and first_and_second and (3 or 4 or 8 or 16 or 1-2) or one_byte or swaps_are_seen and dtype2
    or values_are_those and (5 or 6 or 7 or 9 or 10 or 11 or 12 or 13 or 14)
    or bit_for_bit and (5 or 7 or 9 or 10 or 11 or 12 or 13 or 14 or 15)
    or test_activations.py and jacobian and (4 or 6 or 12)
    or test_activations.py and (vmap_and_jacrev and (None or True) or first_and_second and (True or 2))
"""


@thorough
def test_every_test_of_sorting_holds_for_the_kernels(tmp_path):
    options = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-q", "-n", "0"]
    files = [str(TESTS / "test_activations.py"), str(TESTS / "linalg/test_sorting.py")]
    output = run(["-m", "pytest", *files, *options, "-k", f"not ({' '.join(LEFT_OUT.split())})"], INTERPRETED, tmp_path)
    assert int(re.search(r"(\d+) passed", output)[1]) > 200


INTERPRET = """
import json, sys, torch, triton
from torch.nn import functional as F
from tightlip import GroupSort, MaxMin
from tightlip.activations import group_sort
from tightlip.linalg import kernels

launches = []
launch = kernels._launch
kernels._launch = lambda kernel, *rest: (launches.append(kernel.fn.__name__), launch(kernel, *rest))

generator = torch.Generator().manual_seed(0)
draw = lambda *shape, dtype=torch.float32: torch.randn(shape, generator=generator).to(dtype).requires_grad_()

# every size, layout and place of the axis, more groups than a program holds: as torch sorts
for size in (2, 3, 4, 5, 6, 7, 8, 9, 16):
    two_programs = kernels.LANES // triton.next_power_of_2(size) + 3
    for contiguous, biased in json.loads(sys.argv[1]):
        for shape, dim in (((5, 2 * size), -1), ((3, 3 * size, 2, 5), 1), ((two_programs, size), -1), ((0, size), -1)):
            x, bias = draw(*shape), draw(2 * shape[dim])[::2] if biased else None
            axis = dim % x.dim()
            split = (shape[axis] // size, size) if contiguous else (size, shape[axis] // size)
            added = x if bias is None else x + bias.view(-1, *[1] * (x.dim() - 1 - axis))
            expected = added.unflatten(axis, split).sort(axis + contiguous).values.flatten(axis, axis + 1)
            launches.clear()
            result = group_sort(x, size, dim, contiguous, bias)
            assert torch.equal(result, expected)
            gradient = torch.randn(shape, generator=generator)
            inputs = [x, *([] if bias is None else [bias])]
            for got, wanted in zip(torch.autograd.grad(result, inputs, gradient),
                                   torch.autograd.grad(expected, inputs, gradient)):
                torch.testing.assert_close(got, wanted, rtol=0, atol=0 if got.shape == x.shape else 1e-4)
            assert launches == ["_sort", "_undo"]
            with torch.no_grad():
                assert torch.equal(group_sort(x, size, dim, contiguous, bias), expected)

# what is kept for the backward pass is a code per group
for size in range(2, 17):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        GroupSort(size)(draw(30, size))
    (codes,) = kept
    assert codes.numel() == 30
    assert codes.element_size() <= (0.5 if size in (2, 4, 8, 16) else 0.75) * size

# ties, NaN, half precision, memory in another order, a scaled and a batched gradient
x = torch.tensor([[1.0, 1.0, float("nan"), 2.0, 0.0, -0.0]], requires_grad=True)
result = MaxMin()(x)
assert result[0, :2].tolist() == [1, 1] and result[0, 2:4].isnan().all()
assert torch.autograd.grad(result[:, [0, 1, 4, 5]].sum(), x)[0].tolist() == [[1, 1, 0, 0, 1, 1]]
for dtype in (torch.float16, torch.bfloat16, torch.float64):
    x, bias = draw(7, 8, dtype=dtype), draw(8, dtype=dtype)
    assert torch.equal(group_sort(x, 4), x.view(7, 2, 4).sort(-1).values.view(7, 8))
    result, expected = group_sort(x, 4, bias=bias), (x + bias).view(7, 2, 4).sort(-1).values.view(7, 8)
    truncated = 2**-7 if dtype == torch.bfloat16 else 0  # the interpreter does not round to bfloat16
    torch.testing.assert_close(result, expected, rtol=truncated, atol=0)
x = draw(6, 8, 4, 4).detach().to(memory_format=torch.channels_last).mT.requires_grad_()
assert torch.equal(MaxMin(1)(x), x.unflatten(1, (4, 2)).sort(2).values.flatten(1, 2))
x = draw(4, 6)
jacobian = torch.autograd.functional.jacobian(GroupSort(3), x, vectorize=True).reshape(24, 24)
assert (jacobian.sum(0) == 1).all() and (jacobian.sum(1) == 1).all()
wide = draw(2, 6, dtype=torch.float64), draw(6, dtype=torch.float64)
assert torch.autograd.gradgradcheck(lambda x, bias: group_sort(x, 3, bias=bias).pow(3), wide)

# trained through the kernels, a network does what it does without them
launches.clear()
weight = draw(8, 4)
F.mse_loss(MaxMin()(draw(5, 4).detach() @ weight.T), torch.zeros(5, 8)).backward()
assert launches == ["_sort", "_undo"] and weight.grad.abs().sum() > 0
print("all of it")
"""


def test_interpreted_they_sort_as_torch_does_with_and_without_a_bias(tmp_path):
    (tmp_path / "script.py").write_text(INTERPRET)
    ways = some([(True, False), (False, True)], [(True, True), (False, False)])  # contiguous, biased
    assert "all of it" in run(["script.py", json.dumps(ways)], INTERPRETED, tmp_path)


COMPILE = r"""
import re, torch, triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tightlip.linalg import kernels
from tightlip.linalg.comparators import sorting_network

def compiled(kernel, pointers, integers, size, network, chip, absent=()):
    wide = kernels._code_type(size) == torch.int64
    constants = {"SIZE": size, "NETWORK": network, "CODE": tl.int64 if wide else tl.int32, "INDEX": tl.int32,
                 "BLOCK": kernels.LANES // triton.next_power_of_2(size), **dict.fromkeys(absent)}
    signature = {name: "constexpr" for name in constants} | pointers | dict.fromkeys(integers, "i32")
    signature = {name: signature[name] for name in kernel.arg_names}
    at = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    return triton.compile(ASTSource(kernel, signature, at), target=GPUTarget("cuda", chip, 32)).asm

def of_many(kernel, pointers, integers, network):
    names = pointers | dict.fromkeys(integers, "i32")
    constants = {"SIZE": 4, "NETWORK": network, "CODE": tl.int32, "INDEX": tl.int64, "BLOCK": 256}
    signature = {name: names.get(name, "constexpr") for name in kernel.arg_names}
    at = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    return triton.compile(ASTSource(kernel, signature, at), target=GPUTarget("cuda", 90, 32)).asm["ttir"]

# with more numbers than 32 bits count, no product of sizes is taken in 32 bits
network, integers = sorting_network(4), ("groups", "after", "features", "inner")
pointers = dict.fromkeys(("members", "bias", "ordered"), "*fp32") | {"codes": "*i8"}
texts = [of_many(kernels._sort, pointers, integers, network)]
pointers = {"bits": "*i32", "codes": "*i8", "undone": "*i32"}
texts.append(of_many(kernels._undo, pointers, ("groups", "after"), network[::-1]))
for text in texts:
    assert "tensor<256xi64>" in text
    assert not re.findall(r"muli [^\n]*: i32", text) and not re.findall(r"muli [^\n]*xi32>", text), text

CODES = {torch.int8: "*i8", torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64"}
for chip, sizes in ((75, (16,)), (80, (16,)), (90, (2, 3, 4, 8, 16))):
    for size in sizes:
        network, codes = sorting_network(size), CODES[kernels._code_type(size)]
        every = chip == 90 and size == 2
        for kind in ("*fp32", "*fp16", "*bf16", "*fp64") if every else ("*fp32",):
            for absent in ((), ("bias",), ("bias", "codes")) if every else ((),):  # with all of them most registers
                pointers = {"members": kind, "bias": kind, "ordered": kind, "codes": codes}
                pointers = {name: each for name, each in pointers.items() if name not in absent}
                integers = ("groups", "after", "features", "inner")
                asm = compiled(kernels._sort, pointers, integers, size, network, chip, absent)
                assert asm["cubin"] and ".local" not in asm["ptx"], "registers spill"
                assert chip < 80 or kind == "*fp64" or "min.NaN.f32" in asm["ptx"], "NaN would be lost"
        for kind in ("*i32", "*i16", "*i64") if every else ("*i32",):
            pointers = {"bits": kind, "codes": codes, "undone": kind}
            asm = compiled(kernels._undo, pointers, ("groups", "after"), size, network[::-1], chip)
            assert asm["cubin"]
print("all of it")
"""


def test_they_compile_to_machine_code_for_three_generations_of_chips(tmp_path):
    (tmp_path / "script.py").write_text(COMPILE)
    assert "all of it" in run(["script.py"], {**COMPILED, "TRITON_CACHE_DIR": str(tmp_path)}, tmp_path)

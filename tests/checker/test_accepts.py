"""What the library certifies the checker proves again, and it needs nothing of the library's."""

import ast
import itertools
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tightlip_check
import torch
from checked import ACCEPTED, NETWORKS, REJECTED, UNCHECKED, files, outcome, written
from torch import nn

import tightlip
from tightlip.cli import main
from tightlip.linalg.convolutions import convolution_norm_bounds
from tightlip.linalg.geometry import Geometry

SOURCE = Path(tightlip_check.__file__)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_library_certifies_is_accepted(name):
    held = files(name).claims()
    assert sum(r > 0 for r in held["radius"]) >= 5 and held["margin"][1] is None
    assert outcome(tightlip_check, files(name)) == ACCEPTED


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("tiny") or name == "a tiny signal"])
def test_rationals_agree(name):
    held = files(name)
    assert outcome(tightlip_check, held, exact=True) == ACCEPTED
    row = max(range(12), key=lambda i: held.claims()["radius"][i])
    assert outcome(tightlip_check, held.radius(row, held.claims()["radius"][row] * (1 + 1e-6)), exact=True) == REJECTED


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_in_other_formats(dtype):
    network = nn.Sequential(nn.Linear(4, 6), tightlip.MaxMin(), nn.Linear(6, 3)).to(dtype)
    x = torch.randn(8, 4, dtype=torch.float64)
    held = written(network, x, network.double()(x).argmax(1), 2)
    assert outcome(tightlip_check, held) == ACCEPTED
    best = max(range(8), key=lambda i: held.claims()["radius"][i])
    assert outcome(tightlip_check, held.radius(best, held.claims()["radius"][best] * 1.001)) == REJECTED


def test_norms_of_kernels_of_all_shapes():
    """The library's bounds are proven again, and nothing below what the kernel attains on an image."""
    draw = np.random.default_rng(0)
    for taps, stride, dilation in (((3,), 1, 1), ((4,), 2, 1), ((3,), 2, 3), ((3, 2), 2, 1), ((2, 2), 1, 1)):
        axes = len(taps)
        weight = draw.standard_normal((2, 3, *taps))
        geometry = Geometry((stride,) * axes, (dilation,) * axes, ((0, 0),) * axes, 1)
        bound = convolution_norm_bounds(torch.tensor(weight), geometry, [(2.0, 2.0)])[2.0, 2.0]
        walk = {"kernel_size": [*taps], "stride": [stride] * axes, "dilation": [dilation] * axes, "padding": [0] * axes}
        layer = tightlip_check.Layer(name="", kind=f"Conv{axes}d", o=walk, t={"weight": weight})
        assert tightlip_check.holds(layer.phases(), Fraction(bound))
        torch.manual_seed(0)
        convolve = (nn.functional.conv1d, nn.functional.conv2d)[axes - 1]
        basis = torch.eye(3 * 12**axes, dtype=torch.float64).reshape(-1, 3, *[12] * axes)
        image = convolve(basis, torch.tensor(weight), stride=stride, dilation=dilation).flatten(1)
        attained = float(torch.linalg.matrix_norm(image, 2))
        assert 0.9 * bound < attained < bound and not tightlip_check.holds(layer.phases(), Fraction(0.999 * attained))


def test_no_input_within_an_accepted_radius_changes_its_class():
    """Small random networks, and the steepest ways out of every ball."""
    for seed in range(4):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(2, 6), tightlip.MaxMin(), nn.Linear(6, 3)).double()
        x = torch.randn(10, 2, dtype=torch.float64)
        y = network(x).argmax(1)
        held = written(network, x, y, 2)
        assert outcome(tightlip_check, held) == ACCEPTED
        angles = torch.linspace(0, 6.2831853, 100, dtype=torch.float64)
        circle = torch.stack([angles.cos(), angles.sin()], 1) * (1 - 1e-9)
        for center, label, radius in zip(x, y, held.claims()["radius"], strict=True):
            assert (network(center + radius * circle).argmax(1) == label).all()


def test_what_it_does_not_know_it_says():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.a(x) + self.b(x)

    x, y = torch.randn(3, 4), torch.zeros(3, dtype=torch.int64)
    for network in (
        Twice(),
        nn.Sequential(nn.Linear(4, 3), nn.Tanh()),
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)),
    ):
        assert outcome(tightlip_check, written(network, x, y, 2)) == UNCHECKED
    known = written(nn.Sequential(nn.Linear(4, 3)), x, y, 2)
    assert outcome(tightlip_check, known) == ACCEPTED
    assert outcome(tightlip_check, known.stating(standardized=True)) == UNCHECKED
    assert outcome(tightlip_check, known.stating(format=3)) == UNCHECKED


def test_what_it_has_not_proven_is_named_wherever_it_stands():
    x, y = torch.randn(3, 4), torch.zeros(3, dtype=torch.int64)
    known = written(nn.Sequential(nn.Linear(4, 3)), x, y, 2)

    def bound(held, **more):
        names = ("constant", "output_norm", "arithmetic")
        held["bound"] = {name: held.pop(name) for name in names} | {"input_norm": "2"} | more

    layer = {"name": "0", "constant": 9.0, "input_norm": "2", "output_norm": "2"}
    for change, named in (
        (lambda held: None, "data, model, seed, seen"),
        (lambda held: held.update(safe=True), "data, model, safe, seed, seen"),
        (lambda held: held["grounds"].update(proof="by hand"), "data, grounds.proof, model, seed, seen"),
        (lambda held: bound(held, layers=[layer]), "data, model, seed, seen"),
        (lambda held: bound(held, note="at 5"), "bound.note, data, model, seed, seen"),
        (lambda held: bound(held, layers=[layer | {"module": "?"}]), "data, layers.module, model, seed, seen"),
        (lambda held: bound(held) or held.update(layers=[]), "data, layers, model, seed, seen"),
    ):
        with np.errstate(all="ignore"):
            words = tightlip_check.verdict(*known.stating(change), False)
        assert words.startswith("3 radii in the 2-norm, constant ")
        assert words.endswith(f" from 2 to 2; by its hash alone: {named}")


def test_the_file_is_short_and_imports_numpy_alone():
    text = SOURCE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    imported = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported - sys.stdlib_module_names == {"numpy"}


ALONE = """
import runpy, sys
sys.argv = ["tightlip-check", *sys.argv[1:]]
try:
    runpy.run_path(sys.argv.pop(1), run_name="__main__")
except SystemExit as end:
    print(end.code, sorted({"torch", "tightlip", "safetensors", "scipy"} & sys.modules.keys()))
"""


def alone(folder, *arguments):
    """The file by itself, in a process that has not imported anything."""
    copy = folder / "checker.py"
    copy.write_bytes(SOURCE.read_bytes())
    command = [sys.executable, "-I", "-c", ALONE, str(copy), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.stderr == ""
    words, end = done.stdout.splitlines()
    return words, end


def test_the_command_certifies_and_the_file_alone_accepts(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TIGHTLIP_CACHE", str(tmp_path / ".cache"))
    model, c, d, own = (tmp_path / name for name in ("m.safetensors", "c.json", "d.npz", "own.npz"))
    torch.manual_seed(0)
    tightlip.save(tightlip.freeze(nn.Sequential(nn.Flatten(), tightlip.mlp([16, 8, 3]))), model)
    np.savez(own, x=np.random.default_rng(0).random((9, 4, 4), np.float32), y=np.arange(9) % 3)
    asked = ["certify", str(model), "--data", str(own), "--norm", "2", "--output", str(c), "--inputs", str(d)]
    assert main(asked) == 0
    capsys.readouterr()
    words, end = alone(tmp_path, model, c, "--data", d)
    assert words.startswith("accepted: 9 radii in the 2-norm") and end == "0 []"
    for code, line, arguments in (
        (2, "not checked: all but the constants, without --data", (model, c)),
        (2, "not checked: [Errno 2] No such file", (model, tmp_path / "absent.json", "--data", d)),
        (1, "rejected: the model is another one", (c, c, "--data", d)),
        (0, "accepted: ", (model, c, "--data", d, "--exact")),
    ):
        assert tightlip_check.main([*map(str, arguments)]) == code
        assert capsys.readouterr().out.startswith(line)
    held = json.loads(c.read_text())
    held["radius"] = [1.0] * 9
    c.write_text(json.dumps(held))
    assert tightlip_check.main([str(model), str(c), "--data", str(d)]) == 1
    assert "its hash differs" in capsys.readouterr().out


def test_rows_that_are_rejected_are_named():
    held = files("dense")
    forged = held.stating(lambda c: [c["radius"].__setitem__(i, 9.0) for i in (2, 3)])
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="2 of 12 rows, .*: 2, 3$"):
        tightlip_check.verdict(*forged, False)


def test_matrices_of_halves_are_bounded_tightly():
    """Rationals and floats agree on where the norm is, to a part of 10¹²."""
    for rows, columns in itertools.product((2, 5), (3, 4)):
        W = np.random.default_rng(rows * columns).integers(-4, 5, (rows, columns)) / 2
        square = Fraction(float(np.linalg.norm(W, 2)) ** 2)
        for held in (W, tightlip_check.rational(W)):
            assert tightlip_check.factors(held, square * (1 + Fraction(1, 10**12)))
            assert not tightlip_check.factors(held, square * (1 - Fraction(1, 10**12)))

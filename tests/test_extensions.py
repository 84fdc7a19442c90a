"""ARCHITECTURE's "Where to add what" is true: one of each is added to a copy of the tree, and nothing else changes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ADDITIONS = {
    "robustness/first.py": '''
"""The label's logit is above that of class 0."""

from dataclasses import dataclass

from .contests import Contest, lasting, leads_of
from .overtaking import down


@dataclass(frozen=True)
class AboveFirst(Contest):
    """The label's logit is above that of class 0."""

    def _refuse(self, classes):
        return None

    def _margin(self, logits, target):
        return down(logits.gather(1, target[:, None])[:, 0] - logits[:, 0])

    def _radius(self, logits, target, error, steep):
        leads = leads_of(logits.gather(1, target[:, None])[:, 0], logits[:, 0], error)
        return lasting(leads, steep.each[target, 0])
''',
    "constraints/frobenius.py": """
\"\"\"The Frobenius ball.\"\"\"

import torch

from .constraint import Constraint


class FrobeniusBall(Constraint):
    \"\"\"Matrices with ‖W‖_F ≤ 1.\"\"\"

    norms = (2.0, 2.0)

    def map(self, weight):
        return weight / torch.linalg.matrix_norm(weight).clamp(min=1.0)

    def distance(self, weight):
        return max(float(torch.linalg.matrix_norm(weight)) - 1.0, 0.0)
""",
    "experiments/squares.py": """
\"\"\"Squares, computed.

More about squares.
\"\"\"

from dataclasses import dataclass

from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    \"\"\"One number.\"\"\"

    base: int = 2
    \"\"\"What is squared.\"\"\"


GRID = {"base": (2, 3)}
SMOKE = PAPER = Preset()
METRICS = {"square": "The square."}


def run(config, seed):
    return Outcome({"square": float(config.base**2)}, {"dots": {"heights": [1.0, 4.0]}})
""",
    "robustness/attacks/noise.py": """
\"\"\"Noise.\"\"\"

import torch

from .problem import posed


def noise(network, x, y, eps, p=2, *, clamp=(0.0, 1.0), targets=None):
    \"\"\"A random point of each ball.\"\"\"
    problem = posed(network, x, y, eps, p, clamp, targets)
    return problem.moved(problem.start(torch.Generator().manual_seed(0)))
""",
    "report/dots.html": "{% for heights in drawn %}<p>dots at {{ heights }}</p>{% endfor %}",
}
APPENDED = {
    "constraints/__init__.py": "from .frobenius import FrobeniusBall\n",
    "activations.py": """

class Negate(nn.Module):
    \"\"\"−x.\"\"\"

    def forward(self, x: Tensor) -> Tensor:
        return -x


@rule(Negate, options={})
def _negate(module: Negate) -> Gains:
    return Gains.constant(1.0, EXACT)
""",
    "experiments/architectures.py": """

ARCHITECTURES["narrow"] = Architecture(Sizes((6, 4)), _dense)
""",
    "robustness/attacks/__init__.py": """
from .noise import noise

ATTACKS["noise"] = noise
""",
    "experiments/methods.py": """

METHODS["bold"] = replace(METHODS["orthonormal"], rate=0.5)
""",
    "experiments/margin_losses.py": """

LOSSES["plain"] = lambda settings: cross_entropy
""",
    "report/drawings.py": """

DRAWINGS["dots"] = Kind(
    lambda drawings, name: drawings.inside(name).numbers("heights").tolist(),
    lambda groups, words, name: [group.rows[0].drawn["dots"] for group in groups],
    "dots.html",
)
""",
    "data/sources.py": """

class _Pair:
    def load(self, root=None, download=False):
        x, y = torch.eye(2).repeat(30, 1), torch.arange(2).repeat(30)
        return Dataset("pair", "code", "0" * 64, x, y, None, None, 2, "none")


SPECS["pair"] = _Pair()
""",
}
REPLACED = {
    "experiments/methods.py": ("dataclass, field\n", "dataclass, field, replace\n"),
    "experiments/margin_losses.py": (
        "from torch import Tensor\n",
        "from torch import Tensor\nfrom torch.nn.functional import cross_entropy\n",
    ),
    "experiments/classification_options.py": (
        "    seed: int = 0\n",
        '    mood: int = 3\n    """Of the run."""\n    seed: int = 0\n',
    ),
    "experiments/__init__.py": (
        "    for module in (\n",
        "    for module in (\n        squares,\n",
    ),
}
PROGRAM = """
import json
from pathlib import Path

import torch
from torch import nn

import tightlip
from tightlip.activations import Negate
from tightlip.cli import main
from tightlip.constraints import FrobeniusBall
from tightlip.constraints.coordinate import Ambient
from tightlip.constraints.guard import attach
from tightlip.linalg.schedules import Schedule, bjorck
from tightlip.robustness.first import AboveFirst


def trained(network, width):
    optimizer = tightlip.hold(network, torch.optim.SGD(network.parameters(), 0.1))
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.ones(4, width)).square().sum().backward()
        optimizer.step()
    return network


class Halved(Ambient):
    def before_step(self, move):
        super().before_step(move)
        move.weight.grad /= 2


torch.manual_seed(0)
network = trained(tightlip.mlp([4, 6, 3], FrobeniusBall(), Negate), 4)
frozen = tightlip.freeze(network)
assert tightlip.lipschitz(frozen, 2).constant <= 1
assert "FrobeniusBall" in str(tightlip.summary(network))

tightlip.save(frozen, "m.safetensors")
x = torch.rand(5, 4)
assert torch.equal(tightlip.load("m.safetensors")(x), frozen(x))
assert tightlip.certify(frozen, x).radius.shape == (5,)

y = frozen(x).argmax(1)
above = tightlip.certify(frozen, x, y, decision=AboveFirst())
assert torch.equal(above.correct, y > 0) and (above.radius >= tightlip.certify(frozen, x, y).radius)[y > 0].all()

found = tightlip.robustness.ATTACKS["noise"](frozen, x, y, 0.1, 1, targets=(y + 1) % 3)
assert 0 < float((found - x).abs().sum(1).max()) <= 0.1001

layer = nn.Linear(4, 4)
attach(layer, tightlip.RowL1Ball(), Halved())
layer.weight.data = tightlip.RowL1Ball().map(layer.weight.data)
assert tightlip.RowL1Ball().contains(trained(nn.Sequential(layer), 4)[0].weight.detach())

own = tightlip.mlp([4, 4], tightlip.Orthonormal(Schedule("own", bjorck(9).polynomials)))
assert tightlip.lipschitz(tightlip.freeze(own), 2).constant <= 1

assert main(["run", "squares", "--output", "."]) == 0
assert len(list(Path("squares-smoke").glob("*seed*.json"))) == 2 and Path("squares-smoke/report.html").exists()
assert "dots at [1.0, 4.0]" in Path("squares-smoke/report.html").read_text()

small = ["--network", "narrow", "--epochs", "1", "--attack-images", "2", "--attack-steps", "1", "--name", "r"]
assert main(["train", "--data", "pair", "--mood", "7", "--method", "bold", "--loss", "plain", *small]) == 0
assert json.loads(Path("runs/r/metrics.json").read_text())["config"]["loss"] == "plain"
assert json.loads(Path("runs/r/metrics.json").read_text())["config"]["learning_rate"] == 0.5
assert json.loads(Path("runs/r/metrics.json").read_text())["config"]["mood"] == 7
assert [m.out_features for m in tightlip.load("runs/r/model.safetensors").modules() if hasattr(m, "out_features")] == [
    6, 4, 2
]
"""


@pytest.fixture
def tree(tmp_path):
    copy = tmp_path / "src" / "tightlip"
    shutil.copytree(ROOT / "src" / "tightlip", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in ADDITIONS.items():
        (copy / name).write_text(text.lstrip(), encoding="utf-8")
    for name, text in APPENDED.items():
        path = copy / name
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    for name, (old, new) in REPLACED.items():
        path = copy / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name}: {old}"
        path.write_text(text.replace(old, new).replace("from . import (\n", "from . import (\n    squares,\n"), "utf-8")
    return copy.parent


def test_one_of_each_is_added_where_the_table_says(tree, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_every_row_of_the_table_is_performed():
    table = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## Where to add what")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (an? [^|]*?) \|", table, re.MULTILINE)
    assert rows == [
        "a set of matrices",
        "a way to move weights",
        "an activation or a layer",
        "a type that files can hold",
        "a data set",
        "a network for `tightlip train`",
        "a training method",
        "a loss that asks for margin",
        "a task of `tightlip train`",
        "an option of `tightlip train`",
        "an orthonormalization method",
        "an experiment",
        "a decision",
        "an attack",
        "a kind of drawing",
    ]

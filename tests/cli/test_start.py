"""What needs no torch does not import it: it takes seconds."""

import inspect
import subprocess
import sys
from importlib import metadata

import pytest

import tightlip
from tightlip.cli.commands import COMMANDS

PROGRAM = """
import sys
from tightlip.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(code or 0, sorted({"torch", "numpy", "tightlip.public"} & sys.modules.keys()))
"""


def after(*arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()[-1], done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["--version"], ["-V"]], ids=str)
def test_help_and_version_import_neither_torch_nor_numpy(arguments):
    last, said = after(*arguments)
    assert last == "0 []" and "tightlip" in said


def test_the_package_is_the_command_too():
    def said(*words):
        done = subprocess.run([sys.executable, "-m", "tightlip", *words], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    code, out, err = said("--version")
    assert (code, err) == (0, "") and out == f"tightlip {metadata.version('tightlip')}\n"
    code, out, err = said("trian")
    assert (code, out) == (2, "") and err.startswith("tightlip: ") and "did you mean train?" in err


def test_neither_does_a_command_that_is_unknown():
    last, said = after("trian")
    assert last == "2 []" and "did you mean train?" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_lists_every_command_with_its_docstring(name):
    assert COMMANDS.summary(name) == inspect.getdoc(COMMANDS[name]) and name in COMMANDS


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_every_rule_is_known_whichever_part_is_imported_first():
    program = (
        "from tightlip.audit import lipschitz\nfrom torch import nn\n"
        "print(lipschitz(nn.Sequential(nn.Softplus(), nn.MaxPool1d(2), nn.Flatten()), 2).constant)"
    )
    assert run(program).stdout == "1.0\n"


def test_a_rule_of_ones_own_takes_the_place_of_ours_whichever_part_is_imported_first():
    program = (
        "from tightlip.audit import Gains, lipschitz, rule\nfrom torch import nn\n"
        "rule(nn.Softplus)(lambda module: Gains.constant(7.0))\nprint(lipschitz(nn.Softplus(), 2).constant)"
    )
    assert run(program).stdout == "7.0\n"


def test_the_public_names_are_there_as_ever():
    program = (
        "import sys, tightlip\nassert 'torch' not in sys.modules\n"
        "from tightlip import *\nfrom tightlip import __all__, data\n"
        "print(certify is tightlip.certify, tightlip.audit.lipschitz is lipschitz, {*__all__} <= {*dir(tightlip)})"
    )
    assert run(program).stdout == "True True True\n"


@pytest.mark.parametrize(
    ("name", "hint"), [("certfy", " (did you mean certify?)"), ("orthonormal", " (did you mean O")]
)
def test_a_mistyped_name_is_told_with_the_nearest(name, hint):
    with pytest.raises(AttributeError, match="has no attribute") as caught:
        getattr(tightlip, name)
    assert f"{name!r}{hint}" in str(caught.value)

"""Mutants of what proves: of how many changes to one line of it do the tests see nothing?

    make mutants                                   50 changes to each part, chosen at random: an hour of one core
    make mutants ARGS="--part checker --count 200" more of one part

cosmic-ray makes the changes: another operator, comparison, number or condition. Each is made in a copy of the tree, and
the tests of its part are run there, in a process that begins with torch already imported. A change is killed if a test
fails, or takes ten times as long as all of them together take without it. Survivors are printed as they are found.

What survives and may do so is explained in tests/red_team/harmless_mutants.toml. Writes results/mutants.json, and goes
on from there: a change that was seen or is explained is not tried again while its file is the same. Ends with 1 if any
survivor is not explained.
"""

import argparse
import contextlib
import difflib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from tqdm import tqdm

from tightlip.provenance import provenance
from tightlip.records import BenchRow

ROOT = Path(__file__).parents[1]
EXPLAINED = ROOT / "tests/red_team/harmless_mutants.toml"


@dataclass(frozen=True)
class Part:
    """Files, and the tests that are to see what is changed in them, the quickest first."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


def slice_of(*families: str) -> tuple[str, ...]:
    """Some networks of these families of the red team."""
    test = "tests/red_team/test_slice.py::test_no_bound_is_below_the_truth_and_no_radius_above_it"
    return tuple(f"{test}[{family}]" for family in families)


_AUDIT = ("gains", "affine", "joining", "merging", "lipschitz", "graph", "other_norms", "per_feature", "semidefinite")
PARTS = {
    "audit": Part(
        tuple(f"src/tightlip/audit/{name}.py" for name in _AUDIT),
        (
            "tests/test_per_feature.py",
            "tests/test_gains.py",
            "tests/test_merging.py",
            "tests/test_audit.py",
            "tests/test_other_norms.py",
            "tests/test_semidefinite.py",
            "tests/rules",
            "tests/graphs/test_tracing.py",
            *slice_of("matrices", "affine", "nests", "smooth", "pools", "interpolants"),
        ),
    ),
    "evaluation": Part(
        ("src/tightlip/robustness/evaluation.py", "src/tightlip/linalg/rounding.py"),
        (
            "tests/robustness/test_evaluation.py",
            "tests/linalg/test_rounding.py",
            "tests/robustness/test_deployed.py",
            "tests/robustness/test_certificate.py",
            "tests/robustness/test_pairs.py",
            *slice_of("affine", "machines"),
        ),
    ),
    "pairs": Part(
        ("src/tightlip/robustness/pairs.py", "src/tightlip/robustness/certificate.py"),
        (
            "tests/robustness/test_pairs.py",
            "tests/robustness/test_one_logit.py",
            "tests/robustness/test_certificate.py",
            "tests/robustness/test_certificate_statistics.py",
            "tests/robustness/test_inputs.py",
            "tests/robustness/test_other_norms.py",
            "tests/robustness/test_decisions.py",
            "tests/robustness/test_deployed.py",
            "tests/robustness/test_batches.py",
            "tests/robustness/test_guard.py",
            "tests/robustness/test_without_labels.py",
            *slice_of("affine", "nests", "machines"),
        ),
    ),
    "symbol": Part(
        ("src/tightlip/linalg/symbol.py", "src/tightlip/linalg/enclosure.py", "src/tightlip/linalg/spectral.py"),
        (
            "tests/linalg/test_enclosure.py",
            "tests/linalg/test_spectral.py",
            "tests/linalg/test_symbol.py",
            "tests/rules/test_convolution.py",
            "tests/test_merging.py",
            *slice_of("matrices", "affine"),
        ),
    ),
    "checker": Part(
        ("checker/tightlip_check.py",),
        (
            "tests/checker/test_rounding.py",
            "tests/checker/test_rejects.py",
            "tests/checker/test_mutants.py",
            "tests/checker/test_accepts.py",
            *slice_of("checkers"),
        ),
    ),
}

ARITHMETIC = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Mul_Add", "Pow_Mul", "FloorDiv_Mul", "Mod_Add")
COMPARISONS = ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "LtE_Gt", "Gt_LtE", "GtE_Lt")
COMPARISONS += ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")
OTHERS = ("AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue")
OTHERS += ("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not", "NumberReplacer")
OTHERS += ("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop", "RemoveDecorator")
OPERATORS = tuple(f"core/ReplaceBinaryOperator_{name}" for name in ARITHMETIC)
OPERATORS += tuple(f"core/ReplaceComparisonOperator_{name}" for name in COMPARISONS)
OPERATORS += tuple(f"core/{name}" for name in OTHERS)


@dataclass(frozen=True)
class Mutant:
    """The change that an operator makes to a file where it can do so for the n-th time."""

    file: str
    operator: str
    occurrence: int

    def text(self, source: str) -> str:
        """The file with the change."""
        changed = mutate_code(source, get_operator(self.operator)(), self.occurrence)
        assert changed is not None
        return changed


def mutants(part: Part) -> list[Mutant]:
    """All of a part."""
    found = []
    for file in part.files:
        tree = get_ast((ROOT / file).read_text(encoding="utf-8"))
        for name in OPERATORS:
            operator = get_operator(name)()
            count = sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
            found += [Mutant(file, name, occurrence) for occurrence in range(count)]
    return found


def changed(source: str, text: str) -> dict[str, Any]:
    """Where the first line stands that differs, and the lines as they were and as they became."""
    lines, there = source.splitlines(), text.splitlines()
    line = next(n for n, (a, b) in enumerate(zip(lines, [*there, ""], strict=False), 1) if a != b)
    found = list(difflib.ndiff(lines, there))
    was, became = ("\n".join(one[2:].strip() for one in found if one.startswith(sign)) for sign in "-+")
    return {"line": line, "was": was, "became": became}


def tests_fail(copy: Path, part: Part, limit: float | None) -> bool:
    """Whether a test fails there, or all take too long; in a process of its own, forked of this one."""
    process = multiprocessing.get_context("fork").Process(target=_run_tests, args=(copy, part.tests))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode != 0


def _run_tests(copy: Path, tests: tuple[str, ...]) -> None:
    os.chdir(copy)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tightlip"]:
        del sys.modules[name]  # what this process has is not the copy
    sys.path.insert(0, str(copy / "src"))
    os.environ["PYTHONPATH"] = str(copy / "src")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    own = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=--import-mode=importlib"]
    own += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what was imported before the fork
    os._exit(int(pytest.main([*own, *tests])))


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """The tree without what is made from it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        made = (".git", ".venv", "runs", "site", "__pycache__", ".*_cache", "results")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*made))
        yield copy


class Trial:
    """Changes with what became of each, as `ROW` keeps them: a change that is known is not tried again."""

    def __init__(self, output: Path) -> None:
        self.output, self.origin = output, provenance("cpu")
        self.origin["versions"] |= {"cosmic_ray": metadata.version("cosmic_ray")}
        self.results: dict[str, Any] = BenchRow.read(output).results if output.exists() else {}

    def of_part(self, name: str, count: int, seed: int) -> list[dict[str, Any]]:
        """So many of a part, chosen at random; those that survive and are not explained."""
        part = PARTS[name]
        every = mutants(part)
        known = {_key(one): one for one in self.results.get(name, {}).get("tried", ())}
        survivors, limit = [], None
        with copied() as copy:
            for mutant in tqdm(random.Random(seed).sample(every, min(count, len(every))), name, unit="mutant"):
                source = (ROOT / mutant.file).read_text(encoding="utf-8")
                text = mutant.text(source)
                one = {"file": mutant.file, "sha256": sha256(source.encode()).hexdigest()}
                one |= {"operator": mutant.operator.removeprefix("core/"), **changed(source, text)}
                before = known.get(_key(one))
                if before is None or not (before["killed"] or why(one)):  # tests may see today what they did not
                    limit = self.limit(name, copy) if limit is None else limit
                    (copy / mutant.file).write_text(text, encoding="utf-8")
                    known[_key(one)] = one | {"killed": tests_fail(copy, part, limit)}
                    (copy / mutant.file).write_text(source, encoding="utf-8")
                if not known[_key(one)]["killed"]:
                    survivors += [] if why(one) else [one]
                    tqdm.write(f"{told(one)}: {why(one) or 'UNSEEN'}")
                self.write(name, len(every), known, seed)
        return survivors

    @staticmethod
    def limit(name: str, copy: Path) -> float:
        """Ten times what the tests take without a change."""
        began = time.perf_counter()
        if tests_fail(copy, PARTS[name], None):
            raise SystemExit(f"the tests of {name} fail without any change: mend them first")
        return 10 * (time.perf_counter() - began)

    def write(self, name: str, mutants: int, known: dict[tuple[str, ...], dict[str, Any]], seed: int) -> None:
        """Keep what is known of the files as they are, of this choice and of those before."""
        there = {file: sha256((ROOT / file).read_bytes()).hexdigest() for file in PARTS[name].files}
        tried = [one for one in known.values() if one["sha256"] == there[one["file"]]]
        killed = sum(one["killed"] for one in tried)
        self.results[name] = {"mutants": mutants, "killed": killed, "tried": tried}
        BenchRow("mutants", {"operators": OPERATORS}, seed, self.results, **self.origin).write(self.output)


def _key(one: dict[str, Any]) -> tuple[str, ...]:
    return tuple(one[name] for name in ("file", "sha256", "operator", "line", "became"))


def told(one: dict[str, Any]) -> str:
    """A change in words."""
    return f"{one['file']}, line {one['line']}\n  - {one['was']}\n  + {one['became']}\n "


def why(one: dict[str, Any]) -> str | None:
    """Why a change is harmless, where that is explained."""
    for harmless in tomllib.loads(EXPLAINED.read_text(encoding="utf-8")).get("harmless", ()):
        if all(harmless[name] == one[name] for name in ("file", "was", "became")):
            return str(harmless["why"])
    return None


def main() -> int:
    """Try the parts in turn; 0 if every survivor is explained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default=None, help="one part only")
    parser.add_argument("--count", type=int, default=50, help="changes to each part")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--output", type=Path, default=ROOT / "results/mutants.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trial, unseen = Trial(options.output), 0
    for name in [options.part] if options.part else PARTS:
        unseen += len(trial.of_part(name, options.count, options.seed))
        found = trial.results[name]
        tried = len(found["tried"])
        print(f"{name:11} {found['killed']} of {tried} killed, of {found['mutants']} changes in all", flush=True)
    print(f"{unseen} survive unexplained" if unseen else "every survivor is explained")
    return bool(unseen)


if __name__ == "__main__":
    sys.exit(main())

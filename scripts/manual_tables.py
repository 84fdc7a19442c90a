"""Print the manual's tables from the committed rows, or with --write put them between the markers of its pages.

python scripts/manual_tables.py [--write]
"""

import json
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tightlip.decimals import round_down, round_up
from tightlip.experiments.dynamical_isometry import Config
from tightlip.records import BenchRow
from tightlip.report.cells import Group
from tightlip.report.rows import read_groups

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(?:(?!<!--).)*(<!-- /table -->)", re.DOTALL)
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if MARKED.search(page.read_text(encoding="utf-8"))]

STEPS = {
    "`Orthonormal()`": "tightlip",
    "`RowL1Ball()`": "tightlip, rows in the L1 ball",
    "torch's Cayley chart": "torch cayley",
    "deel-torchlip, at 1e-4": "deel-torchlip",
    "orthogonium": "orthogonium",
    "the paper's three iterations": "paper, 3 iterations",
}
SIZES = {
    "64, batch 256": "n=64 batch=256",
    "1024, batch 256": "n=1024 batch=256",
    "1024, batch 1024": "n=1024 batch=1024",
}
ANSWERERS = {"ours": "tightlip", "torchlip": "deel-torchlip", "orthogonium": "orthogonium"}
QUESTIONS = {
    "norm of a 3×3 kernel": "largest norm found of a 3×3 convolution, padding {}",
    "slope of a container": "slope found of a network that was told K = {}",
    "torch.save": "`torch.save` of a layer in training",
    "double": "`.double()`",
    "gradient in eval mode": "the weight gets a gradient in eval mode",
    "accuracy within a radius, on the processor": "its measure of accuracy within a radius runs on the processor",
}
CHOSEN = ("data", "norm", "network", "activation", "centered", "runs", "clean", "ε", "certified")
CHOSEN += ("attacked, of them certified", "training")


def networks() -> str:
    """README's table, the columns that help to choose."""
    whole = runpy.run_path(str(ROOT / "scripts" / "results_table.py"))
    places = [whole["COLUMNS"].index(name) for name in CHOSEN]
    lines = [line.strip("|\n").split("|") for line in whole["table"]().splitlines()[2:]]
    return _table(CHOSEN, [[line[place].strip() for place in places] for line in lines])


def activations() -> str:
    """What each activation reaches on the cones in the plane, and how far it is from the true potential."""
    return _cells(
        "circular_cones",
        {"activation": "activation"},
        {"W1 found, of 1": "objective", "farthest from the true potential": "farthest_on_discs"},
    )


def cones() -> str:
    """Table 1: the mean over seeds, and the paper's value in brackets."""
    lines: dict[str, dict[str, str]] = {}
    for group in read_groups(RESULTS / "high_dim_cones"):
        key = dict(group.key)
        found, published = (fmean(group.values(name)) for name in ("objective", "published"))
        head = f"d = {key['dimension']}, depth {key['depth']}"
        lines.setdefault(key["activation"], {})[head] = f"{found:.3f} ({published:.2f})"
    heads = next(iter(lines.values()))
    return _table(["activation", *heads], [[name, *cells.values()] for name, cells in lines.items()])


def zigzag() -> str:
    """How far networks are from a zigzag: the mean over seeds of the largest difference."""
    lines: dict[str, dict[str, str]] = {}
    for group in read_groups(RESULTS / "zigzag"):
        key = dict(group.key)
        lines.setdefault(key["network"], {})[f"{key['layers']} layers"] = f"{fmean(group.values('error')):.1e}"
    heads = next(iter(lines.values()), {})
    return _table(["network", *heads], [[name, *cells.values()] for name, cells in lines.items()])


def input_gradients() -> str:
    """What gradients with respect to the input look like, by network."""
    measured = {
        "cosine": "cosine",
        "high frequencies": "high_frequencies",
        "norm": "gradient_norm",
        "constant": "constant",
        "accuracy": "accuracy",
        "CPU seconds": "cpu_seconds",
    }
    return _cells("input_gradients", {"network": "network"}, measured)


def capacity() -> str:
    """How much of the constant networks use, and how often their units are positive."""
    measured = {
        "largest σ_max": "largest",
        "of K": "used",
        "positive at 40 %": "active_40",
        "at 90 %": "active_90",
        "at 99 %": "always",
        "never": "never",
        "accuracy": "accuracy",
        "CPU seconds": "cpu_seconds",
    }
    return _cells("lipschitz_capacity", {"network": "network", "width": "width"}, measured)


def robustness() -> str:
    """Accuracy under attack in the inf-norm, and what is proven of it."""
    measured = {
        "accuracy": "accuracy",
        "certified .05": "certified_0.05",
        "certified .1": "certified_0.1",
        "attacked .05": "attacked_0.05",
        "attacked .1": "attacked_0.1",
        "Figure 9's rule, beyond what stands": "refuted_figure_9",
        "constant": "constant",
        "CPU seconds": "cpu_seconds",
    }
    return _cells("mnist_robustness", {"network": "network"}, measured)


def isometry() -> str:
    """The ten singular values of the Jacobian: the least and the largest of all seeds, inputs and measurements."""
    lines, whole = [], Config().K
    for group in read_groups(RESULTS / "dynamical_isometry"):
        key, least, most = dict(group.key), min(group.values("smallest")), max(group.values("largest"))
        off = f"{max(whole - least, most - whole):.2g}"
        gradients = [f"{fmean(group.values(name)):.3g}" for name in ("gradient_start", "gradient_end")]
        lines.append(
            [key["activation"], key["network"], f"{least:.3g} to {most:.3g}", off, *gradients, group.metric("accuracy")]
        )
    heads = ["activation", "layers", "the ten", f"farthest from {whole:g}", "gradient, before", "and after", "accuracy"]
    return _table(heads, lines)


def constraints() -> str:
    """Singular values at most 1, and all equal to 1."""
    measured = {
        "W1 found, of 1": "objective",
        "norm of the gradient": "gradient_norm",
        "least σ": "smallest_singular_value",
    }
    return _cells("spectral_vs_orthonormal", {"weights": "constraint"}, measured)


def steps() -> str:
    """A training step as a multiple of an unconstrained one."""
    rows = json.loads((RESULTS / "step-time.json").read_text())["results"]["rows"]
    lines = [[words, *(f"{rows[size][name]['ratio']:.3g}" for size in SIZES.values())] for words, name in STEPS.items()]
    return _table(["weights held by", *(f"n = {words}" for words in SIZES)], lines)


def tried() -> str:
    """What libraries answered to the same questions; a dash where a question was not asked."""
    rows = json.loads((RESULTS / "peers.json").read_text())["results"]["rows"]
    asked = [ANSWERERS[name] for name in rows]
    lines = []
    for question in dict.fromkeys(question for answers in rows.values() for question in answers):
        parts = {kind for answers in rows.values() for kind in _parts(answers.get(question))}
        for kind in sorted(parts, key=lambda kind: (len(kind), kind)):
            given = [_parts(answers.get(question)).get(kind, "–") for answers in rows.values()]
            lines.append([QUESTIONS[question].format(kind), *given])
    return _table(["asked", *asked], lines)


def semidefinite() -> str:
    """What is proven of ordinary networks by one semidefinite matrix."""
    rows = json.loads((RESULTS / "semidefinite.json").read_text())["results"]["rows"]
    numbers = ("product", "constant", "slope", "seconds", "seconds_to_verify")
    lines = [[name, *(f"{row[number]:.3g}" for number in numbers)] for name, row in rows.items()]
    heads = ("product of norms", "semidefinite", "slope found", "seconds", "seconds to verify again")
    return _table(["ReLU network", *heads], lines)


def gans() -> str:
    """Whether GANs with a critic of ours are as good as those with the usual two."""
    found: str = runpy.run_path(str(ROOT / "scripts" / "gan_verdict.py"))["table"]()
    return found


def distances() -> str:
    """`wasserstein1` beside POT's solver."""
    heads = ["samples", "n", "d", "W1", "gap", "CPU s", "MiB", "`ot.emd2`, CPU s"]
    found = _of("distances")
    lines = [[name, *_distance(row)] for name, row in found.items()]
    return _table(heads, lines) if lines else _absent("distances.py")


def _distance(row: Mapping[str, Any]) -> list[str]:
    ours, theirs = row["wasserstein1"], row.get("emd2")
    ends = f"{round_down(ours['lower'], 6)} to {round_up(ours['upper'], 6)}"
    numbers = [f"{round_up(100 * ours['gap'], 2)} %", f"{ours['cpu_seconds']:.1f}", f"{ours['peak_megabytes']:.0f}"]
    sizes = [f"{row['points']:,}", str(row["dimensions"])]
    return [*sizes, ends, *numbers, "–" if theirs is None else f"{theirs['cpu_seconds']:.1f}"]


def coverage() -> str:
    """How often intervals about distributions hold, and how wide they are."""
    heads = ["d", "distance", "hold", "at 99 % at least", "lower ends hold", "width", "below, of the true potential's"]
    names = ("both_holds", "both_at_least", "lower_holds")
    rest = ("width", "width_below_over_that_of_the_true_potential")
    lines = [
        [d, f"{row['truth']:.4g}", *(round_down(row[name]) for name in names), *(f"{row[name]:.3g}" for name in rest)]
        for d, row in _of("coverage").items()
    ]
    return _table(heads, lines) if lines else _absent("coverage.py")


def large_samples() -> str:
    """Two samples of many points, asked about by one process and by several."""
    found = _of("large-samples")
    asked = (
        [("alone", found["alone"]), *((f"rank {n}", rank) for n, rank in enumerate(found["ranks"]))] if found else []
    )
    lines = [
        [
            name,
            f"{round_down(row['lower'], 9)} to {round_up(row['upper'], 9)}",
            *(f"{row[number]:,.0f}" for number in ("cpu_seconds", "points_per_cpu_second", "peak_megabytes")),
        ]
        for name, row in asked
    ]
    heads = ["process", "interval", "CPU s", "points per CPU s", "MiB"]
    return _table(heads, lines) if lines else _absent("large_samples.py")


def _of(benchmark: str) -> dict[str, Any]:
    """The results of a row; nothing where there is none."""
    path = RESULTS / f"{benchmark}.json"
    return BenchRow.read(path).results if path.exists() else {}


def _absent(script: str) -> str:
    return f"It has not been measured for this page: `python benchmarks/{script}`.\n"


def _parts(answer: Any) -> dict[str, str]:
    """An answer in words, for each of the cases that it tells apart."""
    if answer is None:
        return {}
    if isinstance(answer, dict):
        return {kind: "refused" if value is None else f"{value:.4g}" for kind, value in answer.items()}
    return {"": "yes" if answer else "no"}


TABLES = {
    table.__name__: table
    for table in (
        networks,
        activations,
        cones,
        zigzag,
        input_gradients,
        capacity,
        robustness,
        isometry,
        constraints,
        steps,
        tried,
        semidefinite,
        gans,
        distances,
        coverage,
        large_samples,
    )
}


def filled(page: str) -> str:
    """The page with each of its tables made anew."""
    return MARKED.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}", page)


def _cells(experiment: str, axes: Mapping[str, str], metrics: Mapping[str, str]) -> str:
    """A line for each cell of an experiment, over its seeds; both mappings go from a heading to a name in the rows."""

    def line(group: Group) -> list[str]:
        key = dict(group.key)
        return [*(key[name] for name in axes.values()), *(group.metric(name) for name in metrics.values())]

    return _table([*axes, *metrics], [line(group) for group in read_groups(RESULTS / experiment)])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = f"|{' --- |' * len(head)}"
    return "".join(
        f"{line}\n" for line in [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(cells)} |" for cells in lines)]
    )


def main() -> None:
    """Print or write."""
    if "--write" in sys.argv:
        for page in PAGES:
            page.write_text(filled(page.read_text()))
        return
    for name, table in TABLES.items():
        sys.stdout.write(f"{name}\n\n{table()}\n")


if __name__ == "__main__":
    main()

"""How many processor seconds to a certified accuracy? Ways to train, ours and others', each at its own best recipe.

    pip install --no-deps geotorch==0.4.0 deel-torchlip==1.0.5 orthogonium==0.0.4 einops
    python benchmarks/time_to_certificate.py search mnist        writes results/race-recipes-mnist.json
    python benchmarks/time_to_certificate.py race mnist          writes results/race-mnist.json

With `mnist-inf` in the place of `mnist` perturbations are those of the ∞-norm, and a radius of 0.1 is asked for.

`search` draws recipes of each contender (widths, learning rates, batch sizes, margins) in an order set by the seed, and
trains each on `--shortest` processor seconds. The best quarter, by what is certified at eps on validation data, is
trained again for four times as long, and so on until `--longest`; the best of each length is kept. No test data are
seen. `race` trains each contender at lengths that double from `--shortest` to `--longest`, with the recipe of the next
length searched, for three seeds, and certifies the test part. All take the same loop: Adam, a rate that falls to zero
along a cosine of the time that is used up, and no augmentation. Seconds are those of one process and thread: making
the network, training, freezing and auditing; measuring accuracies is left out. Certificates are all ours:
`tightlip.certify` of plain float32 layers. Two contenders have their own: those of randomized smoothing hold but for a
chance, are of 500 images, and what one of them takes is stated; interval bounds are computed in float64, inside of
[0, 1]. Run it on an idle machine: seconds of a busy one are longer.

Both go on where they stopped. At the end, and by `table`, seconds to each target: the least among the lengths whose
median over the seeds reaches it, interpolated to the one before along the logarithm of time.
"""

import argparse
import itertools
import math
import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contenders import Contender, contenders
from interval_bounds import infinity_contenders

import tightlip
from tightlip.provenance import provenance
from tightlip.records import BenchRow


@dataclass(frozen=True)
class Track:
    """What is asked for."""

    data: str
    eps: float
    targets: tuple[int, ...]
    """Certified accuracies, in percent."""
    p: float = 2.0

    def contenders(self) -> dict[str, Contender]:
        """All that run in its norm."""
        return contenders(self.eps) if self.p == 2 else infinity_contenders(self.eps)


TRACKS = {
    "mnist": Track("mnist", 0.3, (90, 93, 95, 97)),
    "mnist5k": Track("mnist5k", 0.3, (80, 90)),
    "fashion-mnist": Track("fashion-mnist", 0.25, (75, 78, 80)),
    "mnist-inf": Track("mnist", 0.1, (85, 90, 93), math.inf),
    "mnist5k-inf": Track("mnist5k", 0.1, (70, 80), math.inf),
}

SEEDS = 3
KEPT = 4
"""Of so many recipes one is trained for longer."""


class Race:
    """The data, and what one run on them gives."""

    def __init__(self, track: Track) -> None:
        dataset = tightlip.data.load(track.data)
        self.parts, self.sha256 = tightlip.data.split(dataset, seed=0), dataset.sha256
        self.track, self.classes = track, int(dataset.labels.max()) + 1

    def train(
        self, contender: Contender, recipe: Mapping[str, Any], seconds: float, seed: int
    ) -> tuple[Any, float, int]:
        """The plain network, the processor seconds that it took, audit included, and how many steps."""
        began = time.process_time()
        torch.manual_seed(seed)
        train, steps = self.parts.train, 0
        network = contender.make(recipe, tuple(train.images.shape[1:]), self.classes)
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = contender.optimizer(parameters, recipe)
        if tightlip.constraints.is_constrained(network):
            tightlip.hold(network, optimizer)
        advance = contender.schedule(network, optimizer)
        while True:
            for index in torch.randperm(len(train)).split(recipe["batch_size"]):
                used = (time.process_time() - began) / seconds
                if used >= 1:
                    frozen = contender.frozen(network)
                    tightlip.lipschitz(frozen, p=self.track.p)
                    return frozen, time.process_time() - began, steps
                advance(used)
                optimizer.zero_grad()
                contender.loss(network, train.images[index], train.labels[index], recipe, used).backward()
                optimizer.step()
                steps += 1

    def run(
        self, contender: Contender, recipe: Mapping[str, Any], seconds: float, seed: int, part: str
    ) -> dict[str, Any]:
        """Accuracies on a part. A run that ends in no number, or that is refused, certifies nothing."""
        data = getattr(self.parts, part)
        asked = {"length": seconds, "seed": seed, "recipe": dict(recipe)}
        try:
            network, took, steps = self.train(contender, recipe, seconds, seed)
            measured = contender.measured(network, data.images, data.labels, self.track.eps, self.track.p)
        except (tightlip.TightlipError, RuntimeError, ValueError) as error:
            nothing = {"seconds": seconds, "certified": 0.0, "clean": 0.0}
            return asked | nothing | {"failed": f"{type(error).__name__}: {error}"[:200]}
        return asked | {"seconds": took, "steps": steps} | measured


def recipes(space: dict[str, tuple[Any, ...]], count: int, seed: int = 0) -> list[dict[str, Any]]:
    """So many of all combinations, drawn without replacement."""
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    random.Random(seed).shuffle(every)
    return every[:count]


def lengths(options: argparse.Namespace) -> list[float]:
    """Of the race, in processor seconds."""
    doublings = range(math.ceil(math.log2(options.longest / options.shortest)) + 1)
    return [min(options.longest, options.shortest * 2**k) for k in doublings]


class Book:
    """A row that is written after each run, and read again by a call that goes on."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.row = BenchRow(benchmark=path.stem, config=config, seed=0, results={"runs": {}}, **provenance("cpu"))
        if path.exists() and (known := BenchRow.read(path)).config == config:
            self.row = known
        self.runs: dict[str, list[dict[str, Any]]] = self.row.results["runs"]

    def find(self, name: str, seconds: float, seed: int, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
        """A run that is there already."""
        known = self.runs.get(name, [])
        same = {"length": seconds, "seed": seed, "recipe": _as_json(recipe)}
        return next((run for run in known if {key: run[key] for key in same} == same), None)

    def run(self, race: Race, name: str, contender: Contender, recipe: Mapping[str, Any], **how: Any) -> dict[str, Any]:
        """One run, computed if it is not there."""
        found = self.find(name, how["seconds"], how["seed"], recipe)
        if found is None:
            found = {**race.run(contender, recipe, **how), "recipe": _as_json(recipe)}
            self.runs.setdefault(name, []).append(found)
            self.row.write(self.path)
            shown = f"clean {found['clean']:.2%}, certified {found['certified']:.2%}"
            print(f"{name}: {how['seconds']:g} s, seed {how['seed']}, {dict(recipe)}: {shown}", flush=True)
        return found


def _as_json(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in recipe.items()}


def search(race: Race, runners: dict[str, Contender], book: Book, options: argparse.Namespace) -> None:
    """Successive halving, by quarters."""
    for name, contender in runners.items():
        alive, seconds = recipes(contender.space, options.recipes), options.shortest
        while alive:
            tried = [book.run(race, name, contender, r, seconds=seconds, seed=0, part="validation") for r in alive]
            order = sorted(range(len(alive)), key=lambda k, tried=tried: -tried[k]["certified"])
            book.row.results.setdefault("best", {}).setdefault(name, {})[f"{seconds:g}"] = tried[order[0]]["recipe"]
            if seconds >= options.longest:
                break
            alive = [alive[k] for k in order[: math.ceil(len(alive) / KEPT)]]
            seconds = min(options.longest, KEPT * seconds)
        book.row.write(book.path)


def race_all(race: Race, runners: dict[str, Contender], book: Book, options: argparse.Namespace, best: Any) -> None:
    """Every length with the recipe of the next one that was searched, until the highest target is reached."""
    for name, contender in runners.items():
        for seconds in lengths(options):
            known = sorted((float(length), recipe) for length, recipe in best[name].items())
            recipe = next((r for length, r in known if length >= seconds), known[-1][1])
            runs = [
                book.run(race, name, contender, recipe, seconds=seconds, seed=seed, part="test")
                for seed in range(1, SEEDS + 1)  # the search had seed 0
            ]
            if statistics.median(run["certified"] for run in runs) >= max(race.track.targets) / 100:
                break


def to_target(runs: list[dict[str, Any]], target: float) -> float | None:
    """Seconds at which the medians over seeds reach it, None where they do not."""
    before: tuple[float, float] | None = None
    for length in sorted({run["length"] for run in runs}):
        here = [run for run in runs if run["length"] == length]
        seconds, reached = (statistics.median(run[key] for run in here) for key in ("seconds", "certified"))
        if reached >= target:
            if before is None or reached == before[1]:
                return seconds
            share = (target - before[1]) / (reached - before[1])
            return before[0] * (seconds / before[0]) ** share
        before = seconds, reached
    return None


def table(book: Book, targets: tuple[int, ...]) -> None:
    """Prints and keeps the seconds of each contender."""
    found = {name: {str(t): to_target(runs, t / 100) for t in targets} for name, runs in book.runs.items()}
    book.row.results["seconds"] = found
    for name, seconds in found.items():
        shown = (f"{t} %: " + ("never" if s is None else f"{s:.0f} s") for t, s in seconds.items())
        print(f"{name:28}", *shown, sep="  ")


def main(arguments: list[str] | None = None) -> None:
    """One phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=["search", "race", "table"])
    parser.add_argument("data", choices=TRACKS)
    parser.add_argument("--shortest", type=float, default=10.0, help="processor seconds of the shortest runs")
    parser.add_argument("--longest", type=float, default=320.0)
    parser.add_argument("--recipes", type=int, default=32, help="how many are tried of each contender")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these contenders alone")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the rows")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    race = Race(TRACKS[options.data])
    everyone = race.track.contenders()
    if unknown := set(options.only or ()) - set(everyone):
        parser.error(f"there is no contender {', '.join(sorted(unknown))}: choose among {', '.join(everyone)}")
    runners = {name: each for name, each in everyone.items() if not options.only or name in options.only}
    first = next(iter(everyone.values()))
    race.run(first, recipes(first.space, 1)[0], 0.2, 0, "validation")  # what torch does once in a process
    asked = {"eps": race.track.eps} | ({} if race.track.p == 2 else {"p": str(race.track.p)})
    config = {"data": race.sha256, **asked, "shortest": options.shortest, "longest": options.longest}
    searched = Book(options.output / f"race-recipes-{options.data}.json", config | {"recipes": options.recipes})
    if options.phase == "search":
        return search(race, runners, searched, options)
    best = searched.row.results.get("best", {})
    if missing := set(runners) - set(best):
        parser.error(f"nothing was searched for {', '.join(sorted(missing))}: give the phase 'search' first")
    raced = Book(options.output / f"race-{options.data}.json", config | {"recipes": options.recipes, "seeds": SEEDS})
    if options.phase == "race":
        race_all(race, runners, raced, options, best)
    table(raced, race.track.targets)
    raced.row.write(raced.path)
    return None


if __name__ == "__main__":
    main()

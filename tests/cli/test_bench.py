"""`tightlip bench` prints what was measured, says what to write, and leaves a whole row or none."""

import json
import os
import re
from pathlib import Path

import pytest

from tightlip import Orthonormal
from tightlip.cli import bench, main
from tightlip.timing import EACH, UNCONSTRAINED, Benchmark, Comparison, Scheme

TINY = ["--widths", "16", "32", "32", "4", "--batch-size", "8", "--rounds", "4"]
HELD = ["Orthonormal()", *(f"Orthonormal(blocks={q})" for q in (1, 4, 8, 16, 32))]


pytestmark = pytest.mark.usefixtures("workplace")


def refused(capsys, *options):
    """The one sentence that the command ends with."""
    assert main(["bench", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tightlip: ") and err.count("\n") == 1
    return err


def test_the_tables_and_the_row_tell_the_same(capsys):
    assert main(["bench", *TINY, "--threads", "1", "--output", "row.json"]) == 0
    out, err = capsys.readouterr()
    row = json.loads(Path("row.json").read_text())
    results = row["results"]
    assert err == "" and os.listdir() == ["row.json"]
    assert row["config"] == {"widths": [16, 32, 32, 4], "batch_size": 8, "rounds": 4}
    assert row["device"] and row["machine"] and row["threads"] == 1 and row["versions"]["torch"] and row["seconds"] > 0
    assert {"commit", "dirty", "seed", "format"} <= set(row)
    assert set(results["network"]) - {EACH} == {UNCONSTRAINED, *HELD} and set(results["layers"]) == {
        "32x16",
        "32x32",
        "4x32",
    }
    held = {name: scheme for name, scheme in results["network"].items() if name != UNCONSTRAINED}
    best = min(held, key=lambda name: held[name]["ratio"])
    assert results["fastest"] == held[best]["constraint"]
    marked = [line for line in out.splitlines() if "  ← " in line]
    assert len(marked) == 1 + len(results["within_noise"]) and any(line.startswith(f"{best} ") for line in marked)
    assert (f"Write {results['fastest']}, the fastest here." in out) == (results["within_noise"] == [])
    assert ("No advice: " in out) == (results["within_noise"] != [])
    for name, scheme in held.items():
        (line,) = [line for line in out.split("\n\n")[1].splitlines() if line.startswith(f"{name} ")]
        assert f" {scheme['ratio']:.2f} " in line and scheme["max_off"] < 1e-5
    for shape in ("16 → 32", "32 → 32", "32 → 4"):
        assert re.search(rf"^{shape} ", out, re.MULTILINE)
    assert "docs/theory/frame.md" in out


def measured(*ratios):
    """A benchmark of two layers with these ratios of `Orthonormal()`, `blocks=8` and a list."""
    schemes = {
        UNCONSTRAINED: Scheme((), (), 0.1, 1.0, (1.0, 1.0), 9),
        "Orthonormal()": Scheme((Orthonormal(),) * 3, (1, 1, 0)),
        "Orthonormal(blocks=8)": Scheme((Orthonormal(blocks=8),) * 3, (8, 8, 0)),
        EACH: Scheme((Orthonormal(blocks=4), Orthonormal(blocks=8), Orthonormal(blocks=8)), (4, 8, 0)),
    }
    held = zip(list(schemes.items())[1:], ratios, strict=True)
    timed = {
        name: Scheme(scheme.constraints, scheme.blocks, ratio / 10, ratio, (ratio - 0.1, ratio + 0.1), 9, 1.23e-7)
        for (name, scheme), ratio in held
    }
    comparison = Comparison({UNCONSTRAINED: schemes[UNCONSTRAINED], **timed})
    return Benchmark(comparison, {(32, 32): comparison})


@pytest.mark.parametrize(
    ("ratios", "sentence"),
    [
        ((3.0, 2.0, 2.5), "Write Orthonormal(blocks=8), the fastest here."),
        (
            (3.0, 2.0, 2.1),
            "No advice: the difference between Orthonormal(blocks=8) and [Orthonormal(blocks=4), "
            "*[Orthonormal(blocks=8)] * 2] is within the noise of 9 rounds, and more --rounds may tell them apart. "
            "Orthonormal(), the default, is slower than Orthonormal(blocks=8).",
        ),
        (
            (2.1, 2.0, 2.15),
            "No advice: the difference between Orthonormal(blocks=8), Orthonormal() and [Orthonormal(blocks=4), "
            "*[Orthonormal(blocks=8)] * 2] is within the noise of 9 rounds, and more --rounds may tell them apart. "
            "Orthonormal(), the default, is among them.",
        ),
        ((1.9, 2.5, 2.5), "Write Orthonormal(), the fastest here."),
        ((3.0, 2.0, 1.5), "Write [Orthonormal(blocks=4), *[Orthonormal(blocks=8)] * 2], the fastest here."),
    ],
)
def test_what_to_write_follows_from_the_ratios(ratios, sentence, monkeypatch, capsys):
    monkeypatch.setattr(bench, "benchmark", lambda *_: measured(*ratios))
    assert bench.advice(measured(*ratios)).splitlines()[0] == sentence
    assert main(["bench", *TINY, "--threads", "1"]) == 0
    assert sentence in capsys.readouterr().out


def test_what_is_within_the_noise_is_marked_so_and_nothing_is_called_the_fastest(monkeypatch, capsys):
    monkeypatch.setattr(bench, "benchmark", lambda *_: measured(3.0, 2.0, 2.1))
    assert main(["bench", *TINY, "--threads", "1", "--device", "cpu"]) == 0
    _, network, layers, advice = capsys.readouterr().out.split("\n\n")
    marked = [line.split("  ")[0] for line in network.splitlines() if line.endswith("← within the noise")]
    assert marked == ["Orthonormal(blocks=8)", EACH]
    assert "Orthonormal(blocks=8), within the noise" in layers and "Write " not in advice
    assert not any("fastest here" in text or "← fastest" in text for text in (network, layers, advice))


def few(rounds, *quartiles):
    """A benchmark of two schemes with these quartiles of their ratios."""
    schemes = {UNCONSTRAINED: Scheme((), (), 0.1, 1.0, (1.0, 1.0), rounds)}
    for held, (low, high) in zip((Orthonormal(), Orthonormal(blocks=8)), quartiles, strict=True):
        ratio = (low + high) / 2
        schemes[repr(held)] = Scheme((held,) * 3, (1, 1, 1), ratio / 10, ratio, (low, high), rounds, 1e-7)
    comparison = Comparison(schemes)
    return Benchmark(comparison, {(32, 32): comparison})


@pytest.mark.parametrize(("rounds", "words"), [(1, "1 round is"), (3, "3 rounds are")])
def test_few_rounds_give_no_advice_and_mark_only_what_overlaps(rounds, words, monkeypatch, capsys):
    def table(result):
        monkeypatch.setattr(bench, "benchmark", lambda *_: result)
        assert main(["bench", *TINY, "--threads", "1"]) == 0
        return capsys.readouterr().out

    apart, near = table(few(rounds, (15.9, 15.9), (1.38, 1.38))), table(few(rounds, (1.4, 1.5), (1.38, 1.45)))
    for out in (apart, near):
        assert out.count(f"No advice: {words} too few for it, give --rounds 4 or more.") == 1 and "Write" not in out
    assert "within the noise" not in apart and apart.count("← fastest") == 1
    assert near.count("← within the noise") == 2


def test_the_table_reads_well(monkeypatch, capsys):
    monkeypatch.setattr(bench, "benchmark", lambda *_: measured(3.0, 2.0, 2.5))
    assert main(["bench", *TINY, "--threads", "1", "--device", "cpu"]) == 0
    title, network, layers, _ = capsys.readouterr().out.split("\n\n")
    assert title == "a training step of 16-32-32-4, batch size 8, 1 CPU thread(s)"
    assert network.splitlines() == [
        "scheme                 blocks   ms  ratio  quartiles  max|σ² − 1|",
        "unconstrained                  100      1",
        "Orthonormal()          1×2 0   300   3.00  2.90–3.10       1.3e-7",
        "Orthonormal(blocks=8)  8×2 0   200   2.00  1.90–2.10       1.3e-7  ← fastest",
        "each layer's fastest   4 8 0   250   2.50  2.40–2.60       1.3e-7",
    ]
    assert layers.splitlines() == [
        "one layer alone  fastest                 ms  ratio  quartiles  ratio of Orthonormal()",
        "32 → 32          Orthonormal(blocks=8)  200   2.00  1.90–2.10                    3.00",
    ]


def test_what_is_to_be_written_is_python_that_mlp_takes():
    from tightlip import mlp

    constraints = [Orthonormal(blocks=4), *[Orthonormal(blocks=8)] * 2, Orthonormal()]
    text = bench.written(constraints)
    read = eval(text, {"Orthonormal": Orthonormal})
    assert list(map(repr, read)) == list(map(repr, constraints))
    mlp([8, 8, 8, 8, 8], read)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--widths", "5"], "at least two integers"),
        (["--widths"], "at least two integers"),
        (["--widths", "4", "-1", "2"], "at least two integers"),
        (["--widths", "4", "3", "2"], "hidden widths must be even"),
        (["--rounds", "0"], "rounds must be an integer ≥ 1, got 0"),
        (["--batch-size", "0"], "batch_size must be an integer ≥ 1, got 0"),
        (["--threads", "0"], "--threads must be an integer from 1 to 4096, got 0"),
        (["--device", "tpu9"], "--device tpu9"),
        (["--widths", "four"], "see tightlip bench --help"),
        (["--nonsense", "1"], "--nonsense"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(capsys, options, says):
    assert says in refused(capsys, *options, "--output", "row.json")
    assert os.listdir() == []


@pytest.mark.parametrize("output", ["absent/row.json", "folder", "file/row.json", "/proc/row.json"])
def test_a_place_that_cannot_be_written_to_is_refused_before_any_time_is_spent(capsys, monkeypatch, output):
    os.mkdir("folder")
    Path("file").touch()
    monkeypatch.setattr(bench, "benchmark", lambda *_: pytest.fail("time was spent"))
    assert f"{output} cannot be written to" in refused(capsys, *TINY, "--output", output)
    assert sorted(os.listdir()) == ["file", "folder"] and os.listdir("folder") == []


def test_an_interruption_keeps_what_was_there(capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "benchmark", stop)
    Path("row.json").write_text("mine")
    assert main(["bench", "--output", "row.json"]) == 130
    assert capsys.readouterr().err == "tightlip: interrupted; nothing was kept\n"
    assert Path("row.json").read_text() == "mine" and os.listdir() == ["row.json"]


def test_the_defaults_are_the_example_of_the_documentation():
    defaults = bench.Bench()
    assert (defaults.widths, defaults.batch_size) == ((784, 1024, 1024, 1024, 10), 256)


def test_the_command_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "bench" in capsys.readouterr().out


def test_one_way_is_not_called_the_fastest(capsys):
    assert main(["bench", "--widths", "60", "12", "2", "--batch-size", "4", "--rounds", "2", "--threads", "1"]) == 0
    assert "Write Orthonormal(), for these sizes there is no other scheme." in capsys.readouterr().out

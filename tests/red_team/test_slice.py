"""Some networks of each family, 92 in all, 75 pairs of samples and 33 damaged files.

`make redteam` takes 11,500 networks and 1,000 pairs, `make fuzz` 1,000 files a reader.
"""

import warnings

import pytest
import torch
from red_team import readers
from red_team.checks import FAMILIES
from red_team.readers import READERS, damage_once, good_file
from red_team.tally import Tally

SLICE = {
    "matrices": 50,
    "affine": 12,
    "nests": 4,
    "smooth": 3,
    "pools": 6,
    "interpolants": 2,
    "distances": 75,
    "machines": 10,
    "checkers": 5,
}
LEAST = {
    "matrices": 500,
    "affine": 200,
    "nests": 40,
    "smooth": 30,
    "pools": 60,
    "interpolants": 65,
    "distances": 450,
    "machines": 50,
    "checkers": 40,
}
"""Comparisons in the slice, so that a family that looks at nothing is seen."""


@pytest.mark.parametrize("family", FAMILIES)
def test_no_bound_is_below_the_truth_and_no_radius_above_it(family):
    tally = Tally()
    for seed in range(SLICE[family]):
        FAMILIES[family][0](seed, tally)
    assert not tally.complaints, tally.complaints[0]
    assert sum(tally.checks.values()) - tally.checks["refused"] >= LEAST[family]


@pytest.mark.parametrize("name", [name for name in READERS if name != "exported"])  # torch.export takes seconds to load
def test_damaged_files_get_one_sentence_and_no_memory(name, tmp_path):
    reader = READERS[name]
    good = good_file(reader, tmp_path)
    assert [found for seed in range(3) if (found := damage_once(reader, good, tmp_path, seed))] == []


def test_a_reader_that_errs_warns_asks_or_hangs_is_seen(tmp_path, monkeypatch):
    def errs(path):
        raise ValueError("raw")

    def hangs(path):
        while True:
            pass

    monkeypatch.setattr(readers, "SECONDS", 1)
    bad = {
        "ValueError: raw": errs,
        "UserWarning: warned": lambda path: warnings.warn("warned", stacklevel=1),
        "bytes for a file": lambda path: bytearray(5_000_000),
        "bytes for a file of": lambda path: torch.empty(5_000_000),
        "TimeoutError": hangs,
    }
    (tmp_path / "x").write_bytes(b"1")
    for says, read in bad.items():
        assert says in readers.complaint(readers.Reader("x", str, read), tmp_path / "x")

"""Broken input is one sentence that names the file; a report is written whole or not at all."""

import math
import os
import re

import pytest

from tightlip.errors import TightlipError
from tightlip.report import render, write


@pytest.mark.parametrize(
    ("file", "path", "value", "sentence"),
    [
        ("metrics", "format", 3, "format 3, and this version reads formats 1 and 2"),
        ("certificate", "format", ..., "format null, and this version reads formats 1 and 2"),
        ("metrics", "name", 3, "'name' is 3, but a report needs a string"),
        ("metrics", "name", ..., "'name' is missing"),
        ("metrics", "seed", True, "'seed' is True, but a report needs a whole number"),
        ("metrics", "dirty", "no", "true, false or null"),
        ("metrics", "data", [], "'data' is [], but a report needs an object"),
        ("metrics", "data.split", {"train": "many"}, "'data.split.train' is 'many', but a report needs a whole number"),
        ("metrics", "data.class_names", [1, 2], "'data.class_names' is [1, 2], but a report needs a list of strings"),
        ("metrics", "history", {}, "a list of objects"),
        ("metrics", "history.2.loss", "low", "'history[2].loss' is 'low'"),
        ("metrics", "test.certified", {"big": 1}, "has the key 'big', but each key must be an eps"),
        ("certificate", "bound.layers.1.output_norm", "3", "one of the norms '1', '2' and 'inf'"),
        ("certificate", "eps", [0.1], "as many numbers as in 'eps' (1)"),
        ("certificate", "attack.eps", [0.1], "as many numbers as in 'eps' (1)"),
        ("certificate", "radius", [0.1], "as many numbers as in 'radius' (1)"),
        ("certificate", "radius.3", -0.1, "radii of at least 0"),
        ("certificate", "radius.3", math.nan, "not valid JSON"),
        ("certificate", "radius.3", "0.1", "a list of numbers"),
        ("certificate", "examples.0.image", [[0, 1], [0]], "an image of equally long rows"),
        ("certificate", "examples.0.image", 4, "an image with two or three axes"),
        ("certificate", "examples.0.gradient", [[0.0]], "the image's shape (1, 6, 6)"),
    ],
)
def test_broken_fields_are_one_sentence(synthetic, tmp_path, file, path, value, sentence):
    changes = {"metrics_changes": (), "certificate_changes": (), f"{file}_changes": [(path, value)]}
    broken = synthetic.write_run(tmp_path / "broken", **changes)
    with pytest.raises(TightlipError, match=re.escape(sentence)) as caught:
        render([broken])
    assert str(broken / f"{file}.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["metrics.json", "certificate.json"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is missing, and a report needs it"),
        (b'{"format": 1, "na', "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1]", "holds [1], but a report needs a JSON object"),
    ],
)
def test_broken_files_are_one_sentence(folder, file, content, sentence):
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    with pytest.raises(TightlipError, match=re.escape(sentence)) as caught:
        render([folder])
    assert str(folder / file) in str(caught.value)


def test_no_run_is_an_error():
    with pytest.raises(TightlipError, match="at least one run folder"):
        render([])


def test_write_puts_the_page_there_and_nothing_else(folder, tmp_path):
    target = tmp_path / "out" / "report.html"
    target.parent.mkdir()
    target.write_text("old")
    write([folder], target)
    assert target.read_text(encoding="utf-8") == render([folder])
    assert os.listdir(target.parent) == ["report.html"]


@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_a_failed_write_leaves_the_old_page(folder, tmp_path, monkeypatch, step):
    target = tmp_path / "out" / "report.html"
    target.parent.mkdir()
    target.write_text("old")

    def full(self, *_, **__):
        with self.open("w") as file:
            file.write("half of")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(type(target), step, full)
        with pytest.raises(TightlipError, match=r"report\.html cannot be written to \(No space left on device\)"):
            write([folder], target)
    assert os.listdir(target.parent) == ["report.html"]
    assert target.read_text() == "old"


def test_a_read_only_folder_is_one_sentence(folder, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write into read-only folders (root)")
    with pytest.raises(TightlipError, match="cannot be written to"):
        write([folder], locked / "report.html")
    assert os.listdir(locked) == []


@pytest.mark.parametrize("target", ["absent/report.html", "run/metrics.json/report.html", "."])
def test_a_target_that_cannot_be_is_one_sentence(folder, tmp_path, target):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TightlipError, match="cannot be written to"):
        write([folder], tmp_path / target)
    assert sorted(tmp_path.rglob("*")) == before


def test_text_that_is_no_unicode_still_makes_a_page(synthetic, tmp_path):
    write([synthetic.write_run(tmp_path / "run", [("name", "half \ud800 a pair")])], tmp_path / "report.html")
    assert "<h1>half ? a pair</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")

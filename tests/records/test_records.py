"""Records read what they wrote, and what earlier versions wrote; a mistake is one sentence with file and field."""

import json
import math
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pytest

from tightlip import TightlipError
from tightlip.records import BenchRow, CellRow, CertificateFile, Definition, Fields, FileRecord, Metric, Record, RunRow
from tightlip.records.certificate import Example
from tightlip.records.record import Integers, Vector

BORN = {"commit": "0" * 40, "dirty": False, "device": "cpu", "machine": "Z80", "versions": {"torch": "2"}, "threads": 1}
CELL = CellRow(
    command="run",
    experiment="study",
    axes=("depth",),
    config={"depth": 3, "widths": [4, 4]},
    seed=1,
    metrics={"error": 0.1, "steps": 15, "arrived": True, "published": None},
    seconds={"total": 1.5},
    preset="paper",
    place=0,
    drawings={"curve": {"x": [0, 1], "y": [0.5, 0.25]}},
    true_curves={"y": [0.5, 0.25]},
    **BORN,
)


@dataclass(frozen=True)
class Part(Record):
    name: str
    size: float = math.nan


@dataclass(frozen=True)
class Whole(FileRecord):
    count: int
    values: Vector
    places: Integers
    parts: tuple[Part, ...]
    by_name: dict[str, Part]
    known: bool | None
    one: Part | None = None
    twice: Annotated[float, lambda fields, name: fields.number(name) / 2] = 0.0


WHOLE = Whole(2, np.array([0.1, math.inf]), np.array([3]), (Part("a", 1.0), Part("b")), {"c": Part("c", 2.0)}, None)


def test_a_record_of_every_kind_of_field_is_read_as_it_was_written(tmp_path):
    WHOLE.write(tmp_path / "a.json")
    read = Whole.read(tmp_path / "a.json")
    assert (read.count, read.known, read.one, read.by_name) == (2, None, None, {"c": Part("c", 2.0)})
    assert read.values[0] == 0.1 and math.isnan(read.values[1]) and read.places.tolist() == [3]  # null is NaN
    assert read.parts[0] == Part("a", 1.0) and math.isnan(read.parts[1].size)
    replace(WHOLE, one=Part("d", 4.0), twice=3.0).write(tmp_path / "a.json")
    read = Whole.read(tmp_path / "a.json")
    assert (read.one, read.twice) == (Part("d", 4.0), 1.5)


def test_what_holds_its_default_is_not_written_and_need_not_be_there(tmp_path):
    assert set(WHOLE.to_json()) == {"format", "count", "values", "places", "parts", "by_name", "known"}
    assert math.isnan(Part.from_json(Fields(tmp_path, "", {"name": "a"})).size)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"count": 2.5}, "the field 'count' is 2.5"),
        ({"count": True}, "the field 'count' is True"),
        ({"values": [1, "2"]}, "the field 'values' is"),
        ({"places": [1.5]}, "a list of whole numbers"),
        ({"places": [2**70]}, "a list of whole numbers"),
        ({"parts": [{"name": "a"}, {"name": 7}]}, r"the field 'parts\[1\].name' is 7"),
        ({"by_name": {"c": {}}}, "the field 'by_name.c.name' is missing"),
        ({"one": 3}, "the field 'one' is 3, but a report needs an object"),
        ({"known": "no"}, "true, false or null"),
        ({"format": 3}, "has format 3, and this version reads formats 1 and 2"),
        ({"format": True}, "has format True"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_field(tmp_path, change, sentence):
    content = json.loads(json.dumps(WHOLE.to_json()).replace("Infinity", "null").replace("NaN", "null"))
    (tmp_path / "a.json").write_text(json.dumps(content | change))
    with pytest.raises(TightlipError, match=sentence) as caught:
        Whole.read(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_of_numbers_stand_on_one_line_each(tmp_path):
    CELL.write(tmp_path / "a.json")
    lines = [line.strip() for line in (tmp_path / "a.json").read_text().splitlines()]
    assert '"y": [0.5, 0.25]' in lines and '"x": [0, 1],' in lines and '"widths": [4, 4]' in lines
    WHOLE.write(tmp_path / "b.json")
    assert '"values": [0.1, null],' in (tmp_path / "b.json").read_text()
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(json.dumps(CELL.to_json()))


def test_a_row_keeps_the_kinds_of_its_numbers(tmp_path):
    CELL.write(tmp_path / "a.json")
    assert CellRow.read(tmp_path / "a.json") == CELL
    assert [type(value) for value in CellRow.read(tmp_path / "a.json").metrics.values()] == [
        float,
        int,
        bool,
        type(None),
    ]


def test_a_row_of_format_1_keeps_its_drawings_among_its_metrics_and_its_words_itself(tmp_path):
    content = CELL.to_json()
    content["metrics"] = (
        content["metrics"] | content.pop("drawings") | {"objective": 1.0, "constant": 1.0, "bound": 0.9}
    )
    words = {"config": {"depth": "Layers."}, "metrics": {"error": "How far."}, "curves": {"y": "height"}}
    content |= {
        "format": 1,
        "summary": "S.",
        "about": "More.",
        "explanations": words,
        "truth": {"error": 0.0, "y": 1.0},
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    row, said = CellRow.read(tmp_path / "a.json"), Definition.read(tmp_path / "a.json")
    assert row.drawings == CELL.drawings and "curve" not in row.metrics and row.metrics["error"] == 0.1
    assert (said.summary, said.about, said.config, said.curves) == ("S.", "More.", words["config"], words["curves"])
    assert said.metrics["error"] == Metric("How far.", truth=0.0) and said.metrics["y"].truth == 1.0
    assert (said.metrics["constant"].rounding, said.metrics["bound"].rounding) == ("up", "down")
    assert said.metrics["objective"].published == "published" and "curve" not in said.metrics


def test_a_metric_that_is_damaged_is_one_sentence(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(CELL.to_json() | {"metrics": {"error": "small"}}))
    with pytest.raises(TightlipError, match=r"the field 'metrics\.error' is 'small', but a report needs a number"):
        CellRow.read(tmp_path / "a.json")


def test_a_benchmark_of_format_1_had_its_results_beside_the_rest(tmp_path):
    content = {"format": 1, "config": {"n": 4}, "seed": 0, "rows": {"a": 1.5}, "fastest": "b", "seconds": 2.0, **BORN}
    (tmp_path / "speed.json").write_text(json.dumps(content))
    row = BenchRow.read(tmp_path / "speed.json")
    assert (row.benchmark, row.results, row.seconds) == ("speed", {"rows": {"a": 1.5}, "fastest": "b"}, 2.0)
    row.write(tmp_path / "again.json")
    assert BenchRow.read(tmp_path / "again.json") == row


def test_bounds_are_shown_rounded_in_their_safe_direction():
    shown = [Metric(rounding=rounding).shown(0.912346) for rounding in ("nearest", "up", "down")]
    assert shown == ["0.9123", "0.9124", "0.9123"]
    assert Metric(rounding="down").shown(0.91239) == "0.9123"
    with pytest.raises(ValueError, match="rounding must be one of nearest, up, down, got 'upwards'"):
        Metric(rounding="upwards")


def test_the_words_of_two_definitions_are_put_together():
    first = Definition("e", "S.", "", {"a": "old"}, {"m": Metric("M.", truth=1.0), "n": Metric("N.")}, {"x": "x"})
    second = Definition("e", "", "More.", {"a": "new"}, {"m": Metric(), "n": Metric("New.")}, {})
    both = first.with_words_of(second)
    assert (both.summary, both.about, both.config, both.curves) == ("S.", "More.", {"a": "new"}, {"x": "x"})
    assert both.metrics == {"m": Metric("M.", truth=1.0), "n": Metric("New.")}


def test_an_image_of_one_channel_is_a_matrix_in_the_file_and_others_are_not():
    for channels in (1, 3):
        pixels = np.arange(4.0 * channels).reshape(channels, 2, 2)
        written = Example(0, 1, 1, math.inf, pixels, -pixels).to_json()
        assert np.shape(written["image"]) == ((2, 2) if channels == 1 else (3, 2, 2))


def test_every_kind_of_row_says_where_it_comes_from():
    assert all(set(BORN) <= set(kind.__dataclass_fields__) for kind in (RunRow, CellRow, BenchRow))
    assert next(iter(CELL.to_json())) == "format" and list(CELL.to_json())[-6:] == list(BORN)
    assert "model_sha256" in CertificateFile.__dataclass_fields__

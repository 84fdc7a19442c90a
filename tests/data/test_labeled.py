"""Tables with a label column: what is read, and what is wrong with one in a sentence with its row and column."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tightlip import TightlipError
from tightlip.choices import hint
from tightlip.data import Dataset, labeled, load
from tightlip.data.sources import load_whole
from tightlip.data.standardization import standardization

FLOWERS = "long,wide,kind\n" + "".join(f"{n},{n / 8},{'rose' if n % 2 else 'aster'}\n" for n in range(1, 9))


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text, name="t.csv"):
    Path(name).write_text(text, encoding="utf-8", newline="")
    return name


# ------------------------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("piece", [3, 4096])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_rows_of_features_with_names(separator, piece, monkeypatch):
    monkeypatch.setattr(labeled, "_PIECE", piece)
    found = load(write("\ufeff" + FLOWERS.replace(",", separator).replace("\n", "\r\n")))
    assert found.images.tolist() == [[n, n / 8] for n in range(1, 9)] and found.images.dtype == torch.float32
    assert found.labels.tolist() == [1, 0] * 4 and found.class_names == ("aster", "rose") and found.classes == 2
    assert (found.name, found.source, found.feature_names, found.label) == ("t", "t.csv", ("long", "wide"), "kind")


def test_any_column_may_be_the_label_and_the_others_keep_their_order():
    found = load(write("kind,a,b\n" + "x,1,2\ny,3,4\n" * 3), label="kind")
    assert found.feature_names == ("a", "b") and found.images[1].tolist() == [3, 4] and found.class_names == ("x", "y")


def test_columns_that_are_dropped_are_not_looked_at():
    found = load(
        write("id,a,kind,b,note\nk7,1,x,2,\n,3,y,4,old\n" + "k9,1,x,2,\n,3,y,4,?\n" * 2),
        label="kind",
        drop=["id", "note"],
    )
    assert found.feature_names == ("a", "b") and found.images[:2].tolist() == [[1, 2], [3, 4]]
    assert found.class_names == ("x", "y")
    other = load(write("a,b,kind\n" + "1,2,x\n3,4,y\n" * 3, "other.csv"))
    assert found.sha256 == other.sha256  # of what is learned from


@pytest.mark.parametrize(
    ("drop", "says"),
    [
        (["ida"], "has no column 'ida' .did you mean id.*: give drop= .--drop. one of id, a, kind"),
        (["kind"], "the column kind of .* is to be predicted and to be dropped"),
        (["id", "a"], "has no column beside kind"),
        ("id", "drop must be a list of columns, such as .'id'., got 'id'"),
    ],
)
def test_what_cannot_be_dropped_is_told(drop, says):
    with pytest.raises(TightlipError, match=says):
        load(write("id,a,kind\n" + "1,2,x\n3,4,y\n" * 3), label="kind", drop=drop)


def test_of_what_is_no_table_nothing_can_be_dropped():
    with pytest.raises(TightlipError, match=r"drop=id .--drop. is a column of a table .*mnist5k is none: leave it out"):
        load("mnist5k", drop=["id"])
    with pytest.raises(TightlipError, match=r"drop must be a list of columns"):
        load("mnist5k", drop="id")
    assert load("mnist5k", drop=[]).name == "mnist5k"


def test_without_a_label_the_last_column_that_is_not_dropped_is_predicted():
    found = load(write("a,kind,id\n" + "1,x,7\n2,y,8\n" * 3), drop=["id"])
    assert (found.label, found.feature_names) == ("kind", ("a",))
    with pytest.raises(TightlipError, match=r"drop= .--drop. leaves no column"):
        load("t.csv", drop=["a", "kind", "id"])


def test_classes_that_are_numbers_are_ordered_by_size_however_they_are_written():
    found = load(write("a,grade\n" + "0,10\n1,9.0\n2,-1\n" * 3))
    assert found.class_names == ("-1", "9", "10") and found.labels[:3].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (("9007199254740993", "9007199254740992"), ("9007199254740992", "9007199254740993")),
        (("1_0", "10"), ("10", "1_0")),
        (("2020_02", "2020_01"), ("2020_01", "2020_02")),
        (("02", "01"), ("01", "02")),
        (("1e1", "9.0"), ("9", "10")),
    ],
)
def test_classes_are_called_as_they_are_written_and_none_are_merged(cells, names):
    assert load(write("a,kind\n" + "".join(f"{n},{cells[n % 2]}\n" for n in range(8)))).class_names == names


def test_truth_is_a_number_and_quotes_hold_commas():
    found = load(write('"a, b",c,kind\n' + 'True,1,"x, y"\nfalse,2,z\n' * 3))
    assert found.feature_names == ("a, b", "c") and found.images[:2].tolist() == [[1, 1], [0, 2]]
    assert found.class_names == ("x, y", "z")


def test_the_hash_is_that_of_what_the_table_holds():
    one = load(write(FLOWERS)).sha256
    assert load(write(FLOWERS.replace(",", ";"), "other.csv")).sha256 == one
    for change in (("wide", "broad"), ("8,1.0", "8,2.0"), ("rose", "iris"), ("kind", "sort")):
        assert load(write(FLOWERS.replace(*change))).sha256 != one


def test_a_table_that_is_looked_at_whole_may_have_one_row():
    found = load_whole(write("a,kind\n1,x\n"))
    assert found.whole and found.class_names == ("x",)


def test_a_real_parquet_file_gives_the_same_as_its_csv():
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    pyarrow = sys.modules["pyarrow"]
    columns = {"n": [1, 2, 3] * 3, "x": [0.5, 1.5, 2.5] * 3, "good": [True, False, True] * 3}
    parquet.write_table(
        pyarrow.table(columns | {"kind": pyarrow.array(["b", "a", "b"] * 3).dictionary_encode()}), "t.parquet"
    )
    found = load("t.parquet")
    csv = load(write("n,x,good,kind\n" + "1,0.5,true,b\n2,1.5,false,a\n3,2.5,true,b\n" * 3))
    assert torch.equal(found.images, csv.images) and torch.equal(found.labels, csv.labels)
    assert (found.class_names, found.feature_names, found.sha256) == (csv.class_names, csv.feature_names, csv.sha256)
    for wrong, sentence in (
        ({"x": [1.0, None], "kind": ["a", "b"]}, "misses row 1 of the column x"),
        ({"x": [1.0, np.nan], "kind": ["a", "b"]}, r"misses row 1 of the column x \('nan'\)"),
        ({"x": [1.0, 2.0], "kind": ["a", None]}, "misses row 1 of the column kind"),
        ({"x": ["u", "v"], "kind": ["a", "b"]}, "holds text in the column x, and features are numbers"),
        ({"x": [2**60, 1], "kind": ["a", "b"]}, "integers beyond 2⁵³ in the column x"),
    ):
        parquet.write_table(pyarrow.table(wrong), "t.parquet")
        with pytest.raises(TightlipError, match=f"^t.parquet (holds|has)? ?{sentence}"):
            load("t.parquet")


# ------------------------------------------------------------------------------------------------------ what is wrong


def with_cell(cell, row=3, column=1):
    lines = FLOWERS.splitlines()
    cells = lines[row + 1].split(",")
    cells[column] = cell
    lines[row + 1] = ",".join(cells)
    return "\n".join(lines)


WRONG = [
    (with_cell(""), "misses row 3 of the column wide: fill the cell or drop the row"),
    (with_cell(" NA "), r"misses row 3 of the column wide \('NA'\): fill"),
    (with_cell("?", 5, 0), r"misses row 5 of the column long \('\?'\)"),
    (with_cell("nan"), r"misses row 3 of the column wide \('nan'\)"),
    (with_cell("", 2, 2), "misses row 2 of the column kind"),
    (with_cell("many"), "holds 'many' in row 3 of the column wide, and numbers must be finite: mend it"),
    (with_cell("inf"), "holds 'inf' in row 3 of the column wide, and numbers must be finite"),
    (with_cell("1,2"), "has 4 cells in row 3 and 3 columns: mend the row"),
    (with_cell("1e300"), "has numbers beyond float32 in the column wide: give"),
    (
        "a,color,size,kind\n" + "1,red,S,x\n2,,L,y\n" * 3,
        "holds text in the columns color, size, and features are numbers",
    ),
    (
        "day,land,paid,kind\n2024-01-05,DE,3,x\n2024-02-06,FR,,y\n2024-02-07 12:30,FR,,y\n",
        "holds dates in the column day and text in the column land and no number in row 1 of the column paid and 1 "
        "more, and features are numbers: write dates as numbers, such as days since the first; leave it out by drop= "
        ".--drop., .*; fill",
    ),
    ("day,kind\n05.01.24,x\n6/1/2024,y\n", "holds dates in the column day, and features are numbers: write"),
    ("a,b,a,kind\n1,2,3,x\n", "has several columns called a: give each"),
    (",a,kind\n0,1,x\n", "column number 1 of t.csv has no name: .*index=False"),
    ("", "t.csv is empty: give rows"),
    ("\n \n", "t.csv is empty: give rows"),
    ("a;b;kind\n" + "1,5;2;x\n0;1;y\n" * 3, "holds '1,5' in row 0 of the column a: write numbers with a point, as 1.5"),
    ('a,kind\n1,"x\n' + "1,y\n" * 40_000, "cannot be read .*: look for a quote that is never closed"),
    ("t,kind\n" + "".join(f"{n}e-50,{'xy'[n % 2]}\n" for n in range(8)), "numbers in the column t that differ by less"),
    ("t,kind\n" + "".join(f"{n}e-300,{'xy'[n % 2]}\n" for n in range(8)), "numbers in the column t that differ by l"),
    ("a,kind\n1,01\n2,1\n", "the column kind of t.csv holds '01' and '1', which are one number: write a class in one"),
    ("a,kind\n1_00,x\n2,y\n3,y\n", "holds '1_00' in row 0 of the column a"),
    ("a,kind\n١٠,x\n2,y\n3,y\n", "holds '١٠' in row 0 of the column a"),
    ("a,kind\n9007199254740993,x\n", "holds '9007199254740993' in row 0 of the column a, which float64 has not"),
    ("x" * 200_000 + ",kind\n1,x\n", "cannot be read .*: look for a quote that is never closed"),
    ("a,kind\n", "holds no rows but its first line"),
    ("kind\nx\n", "has no column beside kind"),
    ("5.1,3.5,iris\n4.9,3.0,iris\n", "the first line of t.csv holds the number 5.1, and it must name the columns"),
    ("a,y\n" + "1,0.5\n2,1.5\n" * 3, "the column y of t.csv holds numbers that are not whole.*--task regression"),
    ("a,y\n" + "1,1\n2,2\n" * 3 + "3,7\n", "the column y of t.csv has 3 classes, '7' with 1 row: .*--task regression"),
    ("a,y\n" + "1,u\n2,v\n" * 3 + "3,w\n4,w\n", "has 3 classes, 'w' with 2 rows: give three rows of each"),
    (
        "t,kind\n" + "".join(f"{1.7e9 + n},{'xy'[n % 2]}\n" for n in range(8)),
        "numbers in the column t that differ by less",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG, ids=[sentence[:30] for _, sentence in WRONG])
def test_what_is_wrong_with_a_table_is_told(text, sentence):
    with pytest.raises(TightlipError, match=sentence) as caught:
        load(write(text))
    assert "t.csv" in str(caught.value)


@pytest.mark.parametrize("piece", [2, 4096])
def test_the_row_is_counted_over_all_pieces(piece, monkeypatch):
    monkeypatch.setattr(labeled, "_PIECE", piece)
    with pytest.raises(TightlipError, match="misses row 7 of the column wide"):
        load(write(with_cell("", 7)))


def test_a_label_that_is_not_there_is_answered_with_the_columns():
    with pytest.raises(
        TightlipError, match=r"no column 'knd' \(did you mean kind\?\): give label= .* long, wide, kind"
    ):
        load(write(FLOWERS), label="knd")
    for number in (0, 2):  # whatever was asked for, the hint is words, and never what was asked for
        assert hint(number, ("long", "wide")) == hint("wide", ("long", "wide")) == ""
    with pytest.raises(TightlipError, match=r"label=kind \(--label\) is a column of a table .* mnist5k is none"):
        load("mnist5k", label="kind")


def test_names_of_features_must_fit_the_rows():
    x, y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(TightlipError, match="names of 1 features: name each"):
        Dataset("a", "", "", x, y, None, None, 1, "", feature_names=("one",))


# ------------------------------------------------------------------------------------------------------ standardized


def test_rows_are_standardized_by_the_training_part_and_constants_stay():
    x = torch.tensor([[1.0, 5.0, 1e6], [3.0, 5.0, 3e6], [5.0, 5.0, 5e6]])
    layer = standardization(x)
    z = layer(x)
    assert layer.std[1] == 1 and z[:, 1].tolist() == [0, 0, 0]
    assert torch.allclose(z.mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(z[:, [0, 2]].std(0, correction=0), torch.ones(2))

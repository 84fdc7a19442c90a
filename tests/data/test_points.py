"""What a word on the command line holds, as points: every kind of file, and what is wrong with one in a sentence."""

import os
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tightlip import TightlipError
from tightlip.data import arrays, load
from tightlip.data.points import (
    AS_STORED,
    DEVIATIONS,
    PIXELS,
    in_deviations,
    limited,
    read_points,
    refuse_non_finite,
    refuse_unlike,
)

ROWS = np.arange(12, dtype=np.float64).reshape(4, 3) / 8


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIGHTLIP_DATA", raising=False)
    return tmp_path


def write(name, text):
    Path(name).write_text(text, encoding="utf-8", newline="")
    return name


def table(header="a,b,c", separator=","):
    lines = [header.replace(",", separator)] * bool(header)
    return "\n".join([*lines, *(separator.join(map(repr, row)) for row in ROWS.tolist())]) + "\n"


def picture(path, value=7, mode="L", size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)


# ------------------------------------------------------------------------------------------------------ what is read


def test_an_array_is_taken_as_it_is():
    np.save("x.npy", ROWS)
    found = read_points("x.npy")
    assert np.array_equal(found.values, ROWS) and (found.shape, found.unit, found.part) == ((3,), AS_STORED, None)
    assert found.called(2) == "row 2" and torch.equal(found.flat(np.array([1])), torch.from_numpy(ROWS[1:2]))


def test_numbers_are_points_on_a_line():
    np.save("x.npy", np.arange(5))
    assert read_points("x.npy").values.tolist() == [[0], [1], [2], [3], [4]]


def test_a_large_array_is_mapped_and_not_read(monkeypatch):
    monkeypatch.setattr(arrays, "MAPPED", 10)
    np.save("x.npy", ROWS)
    assert isinstance(read_points("x.npy").values, np.memmap)


def test_arrays_in_one_file_are_called_by_their_names():
    np.savez("one.npz", x=ROWS)
    np.savez("two.npz", first=ROWS, second=2 * ROWS)
    assert np.array_equal(read_points("one.npz").values, ROWS)
    assert np.array_equal(read_points("two.npz:second").values, 2 * ROWS)


def test_images_of_eight_bits_are_from_0_to_1_and_other_bytes_as_they_are():
    pixels = np.full((2, 1, 4, 3), 255, np.uint8)
    np.save("images.npy", pixels)
    np.save("ages.npy", pixels[:, 0, :, 0])
    assert float(read_points("images.npy").values.max()) == 1 and read_points("images.npy").unit == PIXELS
    assert read_points("ages.npy").values.max() == 255 and read_points("ages.npy").unit == AS_STORED


def test_the_same_images_are_the_same_points_wherever_their_channels_stand():
    pixels = np.arange(3 * 3 * 5 * 4, dtype=np.uint8).reshape(3, 3, 5, 4)
    np.save("first.npy", pixels)
    np.save("last.npy", np.moveaxis(pixels, 1, -1))
    np.save("gray.npy", pixels[:, 0])
    first, last, gray = (read_points(f"{name}.npy") for name in ("first", "last", "gray"))
    assert first.unit == last.unit == gray.unit == PIXELS
    assert torch.equal(torch.as_tensor(first.values), torch.as_tensor(last.values))
    assert torch.equal(torch.as_tensor(gray.values), torch.as_tensor(first.values)[:, :1])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["a,b,c", ""])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_is_read_with_its_columns(separator, header, mark):
    found = read_points(write("t.csv", mark + table(header, separator)))
    assert np.array_equal(found.values, ROWS)
    assert found.columns == (("a", "b", "c") if header else ())


@pytest.mark.parametrize(
    "text", ["\na,b\n1,2\n3,4\n", "a,b\n1,2\n3,4\n   \n", '"a, cm";"b, kg, net"\n1;2\n3;4\n', "1,2\n3,4\n  \n"]
)
def test_blank_lines_and_separators_in_quotes_do_not_matter(text):
    assert read_points(write("t.csv", text)).values.tolist() == [[1, 2], [3, 4]]


def test_large_whole_numbers_that_float64_has_are_read():
    assert read_points(write("t.csv", "a\n9007199254740994\n1e300\n")).values.tolist() == [[2.0**53 + 2], [1e300]]


def test_names_of_files_may_be_in_capitals():
    np.savez("x.npz", x=ROWS), Path("x.npz").rename("X.NPZ")
    write("T.CSV", table())
    assert np.array_equal(read_points("X.NPZ:x").values, read_points("T.CSV").values)


@pytest.mark.parametrize("kind", [">f8", ">f4", ">i2", "<u8", np.float16])
def test_numbers_of_other_machines_are_the_same_numbers(kind):
    np.save("x.npy", (8 * ROWS).astype(kind))
    assert torch.equal(read_points("x.npy").flat(), torch.from_numpy(8 * ROWS))


@pytest.mark.parametrize("array", [np.array([2**60 + 1]), np.array([2**63 + 5], np.uint64), np.ones(2, np.longdouble)])
def test_numbers_that_float64_has_not_are_refused_scaled_or_not(array):
    np.save("x.npy", array)
    points = read_points("x.npy")
    for look in (points.flat, lambda: in_deviations(points, points)):
        with pytest.raises(TightlipError, match="x.npy must be numbers"):
            look()


@pytest.mark.parametrize("unit", [1.0, 1e160, 1e-170, 1e-300, np.array([1.0, 1e-170, 1e300])])
def test_standard_deviations_do_not_over_or_underflow(unit):
    np.save("x.npy", np.random.default_rng(0).normal(size=(12, 3)) * unit)
    found, _ = in_deviations(read_points("x.npy"), read_points("x.npy"))
    assert np.allclose(found.values.std(0, correction=0), 1) and found.unit == DEVIATIONS


def test_quotes_blank_lines_and_the_line_ends_of_others_do_not_matter():
    found = read_points(write("t.csv", '"a, b",c\r\n\r\n1,"2"\r\n3,4\r\n'))
    assert found.values.tolist() == [[1, 2], [3, 4]] and found.columns == ("a, b", "c")


class Column(np.ndarray):
    """A column as pyarrow gives it."""

    null_count = 0

    def to_numpy(self):
        return np.asarray(self)


class Arrow:
    """What is used of a table of pyarrow's."""

    def __init__(self, columns, nulls=()):
        self.columns, self.column_names, self.nulls = columns, list(columns), nulls
        self.num_rows = len(next(iter(columns.values()), []))
        self.schema = types.SimpleNamespace(types=[np.asarray(column).dtype.kind for column in columns.values()])

    def __getitem__(self, name):
        column = np.asarray(self.columns[name]).view(Column)
        column.null_count = int(name in self.nulls)
        return column


def arrow(monkeypatch, found):
    """A pyarrow whose files hold this."""

    class ArrowException(Exception):  # noqa: N818  pyarrow's own name
        pass

    def read_table(path):
        if found is None:
            raise ArrowException("magic bytes\nnot found")
        return found

    kinds = {"is_integer": lambda kind: kind in "iu", "is_floating": lambda kind: kind == "f"}
    module = types.ModuleType("pyarrow")
    module.ArrowException, module.types = ArrowException, types.SimpleNamespace(**kinds)
    parquet = types.ModuleType("pyarrow.parquet")
    parquet.read_table = read_table
    monkeypatch.setitem(sys.modules, "pyarrow", module)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    write("t.parquet", "PAR1")


def test_a_parquet_file_is_read_by_pyarrow(monkeypatch):
    arrow(monkeypatch, Arrow({"a": [1, 2], "b": [0.5, 1.5]}))
    found = read_points("t.parquet")
    assert found.values.tolist() == [[1, 0.5], [2, 1.5]] and found.columns == ("a", "b")


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            Arrow({"a": [1], "who": ["x"], "good": [True]}),
            "something else than numbers in the columns who, good: leave",
        ),
        (Arrow({"a": [1.0, 2.0], "b": [1.0, 2.0]}, ("b",)), "empty cells in the column b: fill them"),
        (Arrow({"a": [2**60]}), "integers beyond 2⁵³ in the column a"),
        (Arrow({"a": np.empty(0)}), "holds no rows"),
        (Arrow({}), "holds no rows"),
        (
            Arrow({"a": [1.0], "__index_level_0__": [0]}),
            "column number 2 .* is called __index_level_0__: .*index=False",
        ),
        (Arrow({"": [1.0], "a": [0]}), "column number 1 of t.parquet has no name"),
        (None, r"cannot be read \(magic bytes\): save it again"),
    ],
)
def test_what_is_wrong_with_a_parquet_file_is_told(monkeypatch, found, sentence):
    arrow(monkeypatch, found)
    with pytest.raises(TightlipError, match=sentence):
        read_points("t.parquet")


def test_without_pyarrow_a_parquet_file_is_told_what_it_takes(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TightlipError, match=r"t.parquet is read by pyarrow.*pip install -e '\.\[tables\]'.*\.csv"):
        read_points(write("t.parquet", "PAR1"))


def test_a_real_parquet_file():
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    pyarrow = sys.modules["pyarrow"]
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [0.5, 1.5]}), "t.parquet")
    assert read_points("t.parquet").values.tolist() == [[1, 0.5], [2, 1.5]]
    parquet.write_table(pyarrow.table({"a": [1, None], "b": [0.5, 1.5]}), "t.parquet")
    with pytest.raises(TightlipError, match="empty cells in the column a"):
        read_points("t.parquet")
    parquet.write_table(pyarrow.table({"a": [1], "name": ["x"]}), "t.parquet")
    with pytest.raises(TightlipError, match="something else than numbers in the column name"):
        read_points("t.parquet")
    with pytest.raises(TightlipError, match="cannot be read"):
        read_points(write("t.parquet", "PAR1"))


def test_the_images_of_a_folder_are_called_by_their_names(workplace):
    for name in ("a.png", "b.PNG"):
        picture(workplace / "flat" / name, 51)
        picture(workplace / "deep" / "cats" / name, 51)
    flat, deep = read_points("flat"), read_points("deep")
    assert torch.equal(flat.values, torch.full((2, 1, 3, 4), 0.2)) and flat.unit == PIXELS
    assert (flat.called(1), deep.called(0)) == ("b.PNG", "cats/a.png")


def test_a_class_of_a_data_set_is_all_of_it_where_there_are_no_parts():
    data = load("mnist5k")
    found = read_points("mnist5k:3")
    assert torch.equal(found.values, data.images[data.labels == 3].float() / 255)
    assert (len(found), found.shape, found.part) == (500, (1, 28, 28), None)
    assert int(data.labels[found.rows].unique()) == 3
    assert len(read_points("mnist5k")) == 5000


def test_a_file_goes_before_a_data_set_of_its_name(workplace):
    picture(workplace / "mnist5k:3" / "a.png")
    assert len(read_points("mnist5k:3")) == 1


def test_some_of_the_rows_are_drawn_by_seed_and_know_where_they_were():
    np.save("x.npy", ROWS)
    points = read_points("x.npy")
    first, again = (limited(points, 2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert np.array_equal(first.values, ROWS[first.rows]) and np.array_equal(first.rows, again.rows)
    assert len({tuple(limited(points, 2, torch.Generator().manual_seed(seed)).rows) for seed in range(20)}) > 3
    assert limited(points, 9, torch.Generator()) is points and limited(points, None, torch.Generator()) is points


# ------------------------------------------------------------------------------------------------- what is not read


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,name,city\n1,x,y\n", "something else than numbers in the columns name, city: leave them out"),
        ("a,name\n1,x\n2,3\n", "something else than numbers in the column name: leave it out"),
        ("1,2\n3,x\n", "something else than numbers in the column number 2"),
        ("a,b\n1,2\n3,\n", "no number in row 1 of the column b: fill it or drop the row"),
        ("a,b\n1,2\n3\n", "1 cells in row 1 and 2 columns: mend the row"),
        ("a,b\n", "holds no rows but its first line"),
        ("\n\n", "t.csv is empty"),
        (",a,b\n0,1,2\n", "column number 1 of t.csv has no name: .*index=False"),
        ("a,b,a\n0,1,2\n", "t.csv has several columns called a: give each"),
        ("a,b\n1,2,3\n4,5,6\n", "3 cells in row 0 and 2 columns: mend the row"),
        ('"a,b,c\n1,2,3\n', "3 cells in row 0 and 1 columns: mend the row"),
        ("a,b\n" + "x" * 200_000 + ",2\n", "cannot be read .*: look for a quote that is never closed"),
        ("x" * 200_000 + ",b\n1,2\n", "cannot be read .*: look for a quote that is never closed"),
        ("a,b\n1,2\n1,9007199254740993\n", "holds '9007199254740993' in row 1 of the column b, which float64 has not"),
        ("a,b\n1,2020_01\n", "something else than numbers in the column b"),
        ("a,b\n1,١٠\n", "something else than numbers in the column b"),
        ("", "t.csv is empty"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_by_its_column(text, sentence):
    with pytest.raises(TightlipError, match=sentence):
        read_points(write("t.csv", text))


def make(name, array, **named):
    np.savez(name, **named) if named else np.save(name, array)
    return name


def twice(name, *members):
    with zipfile.ZipFile(name, "w") as file:
        for member in members:
            with file.open(member, "w") as stream:
                np.lib.format.write_array(stream, ROWS)
    return name


def deep(name):
    header = (b"(" * 5000).ljust(10_000) + b"\n"
    Path(name).write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return name


WRONG = {
    "there is no absent.npy: give an .npy": lambda: "absent.npy",
    r"there is no xs.npy \(did you mean x.npy\?\)": lambda: make("x.npy", ROWS) and "xs.npy",
    r"there is no mnits5k \(did you mean mnist5k\?\)": lambda: "mnits5k",
    "mnist5k has no class '12': its classes are 0 to 9": lambda: "mnist5k:12",
    "mnist5k has no class 'three'": lambda: "mnist5k:three",
    "holds 2 arrays .x, y.: say which one is meant, as xy.npz:x": lambda: make("xy.npz", None, x=ROWS, y=ROWS),
    r"has no array z: it holds x, y": lambda: make("xy.npz", None, x=ROWS, y=ROWS) + ":z",
    "x.npy is empty: give one point": lambda: make("x.npy", ROWS[:0]),
    "x.npy is empty": lambda: make("x.npy", ROWS[:, :0]),
    "x.npy is a single number": lambda: make("x.npy", np.float64(3)),
    "x.npy holds <U1 and not numbers": lambda: make("x.npy", np.array([["a"]])),
    "x.npy holds bool and not numbers": lambda: make("x.npy", ROWS > 0),
    "x.npy holds complex128 and not numbers": lambda: make("x.npy", 1j * ROWS),
    "x.npy cannot be read": lambda: write("x.npy", "nonsense"),
    "dang.npy is a link to what is not there": lambda: os.symlink("nowhere", "dang.npy") or "dang.npy",
    r"xx.npz cannot be read \(two arrays have one name\)": lambda: twice("xx.npz", "x", "x.npy"),
    r"deep.npy cannot be read \(\w+": lambda: deep("deep.npy"),
    "t.json is a .json file: give an .npy": lambda: write("t.json", "{}"),
    r"t.csv cannot be read": lambda: Path("t.csv").write_bytes(b"\xff\xfe\x00a") and "t.csv",
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_cannot_be_compared_is_told_in_a_sentence(sentence):
    with pytest.raises(TightlipError, match=sentence):
        read_points(WRONG[sentence]())


def test_a_folder_without_images_says_what_is_in_it(workplace):
    (workplace / "empty").mkdir()
    with pytest.raises(TightlipError, match=r"empty holds no images: put some in \(.png"):
        read_points("empty")
    np.save("empty/x.npy", ROWS)
    with pytest.raises(TightlipError, match="name one of its arrays, such as .*x.npy"):
        read_points("empty")


def test_options_of_published_data_are_refused_elsewhere(workplace):
    np.save("x.npy", ROWS)
    with pytest.raises(TightlipError, match="--part test is of data sets with two parts, and x.npy has none"):
        read_points("x.npy", part="test")
    with pytest.raises(TightlipError, match="--data-root is where published files are"):
        read_points("x.npy", root=str(workplace))
    with pytest.raises(TightlipError, match="mnist5k has no test part of its own: leave --part out"):
        read_points("mnist5k", part="test")


@pytest.mark.parametrize(
    ("b", "sentence"),
    [
        ("b.npy", "points are of 3 numbers in t.csv and of 1 number in b.npy"),
        ("u.csv", r"other columns \('c' is only in t.csv\)"),
        ("v.csv", r"other columns \(they are in another order\)"),
    ],
)
def test_points_of_two_spaces_are_refused(b, sentence):
    np.save("b.npy", np.arange(5))
    write("t.csv", table()), write("u.csv", table("a,b,d")), write("v.csv", table("b,a,c"))
    with pytest.raises(TightlipError, match=sentence):
        refuse_unlike(read_points("t.csv"), read_points(b))


def test_pixels_and_bytes_are_two_units(workplace):
    picture(workplace / "images" / "a.png")
    np.save("x.npy", np.zeros((2, 1, 3, 4)))
    with pytest.raises(TightlipError, match="images has pixels from 0 to 1, and x.npy has the numbers as they are"):
        refuse_unlike(read_points("images"), read_points("x.npy"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_counted_with_the_row_in_the_file(value):
    rows = np.repeat(ROWS, 5, 0)
    rows[[3, 17], 1] = value
    np.save("x.npy", rows)
    with pytest.raises(TightlipError, match="2 of 20 rows of x.npy hold NaN or infinity, the first of them row 3"):
        refuse_non_finite(read_points("x.npy"))
    with pytest.raises(TightlipError, match="1 of 10 rows of x.npy hold NaN or infinity, the first of them row 17"):
        refuse_non_finite(read_points("x.npy").at(np.arange(10, 20)))

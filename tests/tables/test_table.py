"""Tables: what a file holds comes back as it is, and what is not sound is refused by place."""

import builtins
import csv
import json

import pyarrow
import pytest
from hypothesis import given, settings, strategies as st

from gtsvj_reward.tables import read_table, write_table
from tests.annotations.rows import write_csv, write_jsonl, write_parquet

ROWS = [{"id": "007", "n": "1.0"}, {"id": "08", "n": ""}]


def test_csv_cells_stay_text(tmp_path):
    table = read_table(write_csv(tmp_path / "x.csv", ROWS))
    assert table.cells == {"id": ("007", "08"), "n": ("1.0", "")}
    assert table.rows == ("x.csv row 1", "x.csv row 2")
    assert table.column("n").rows == table.rows


def test_json_and_parquet_keep_their_types(tmp_path):
    rows = [{"id": 7, "n": 1.5, "deep": {"a": [1, None]}}, {"id": 8, "n": None, "deep": None}]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    expected = {"id": (7, 8), "n": (1.5, None), "deep": ({"a": [1, None]}, None)}
    for path in (
        tmp_path / "x.json",
        write_jsonl(tmp_path / "x.jsonl", rows),
        write_parquet(tmp_path / "x.parquet", rows),
    ):
        table = read_table(path)
        assert table.cells == expected
        assert table.rows == (f"{path.name} row 1", f"{path.name} row 2")


def test_what_spreadsheets_and_editors_leave(tmp_path):
    # A byte order mark, Windows line ends, a blank line at the end.
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfid,n\r\n1,2\r\n\r\n")
    assert read_table(path).cells == {"id": ("1",), "n": ("2",)}
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a\xe2\x80\xa8b"}\r\n\r\n')
    assert read_table(path).cells == {"id": ("a\u2028b",)}, "U+2028 ends no line of JSONL"


def test_keys_that_json_objects_lack_are_none(tmp_path):
    table = read_table(write_jsonl(tmp_path / "x.jsonl", [{"b": 1}, {"a": 2, "b": 3}]))
    assert table.cells == {"b": (1, 3), "a": (None, 2)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "is empty"),
        ("x.csv", "a,b\n", "has no rows"),
        ("x.csv", "a,b,a\n1,2,3\n", "more than one column `a`"),
        ("x.csv", "a,b\n1,2\n1\n1,2,3\n", r"2 of 3 do not: x.csv row 2 has 1; x.csv row 3 has 3"),
        ("x.csv", 'a,b\n1,"2\n', "line 2 is not CSV"),
        ("x.csv", 'a,b\n1,"2"3\n', "line 2 is not CSV"),
        ("x.csv", b"a\n\xff\xfe\n", "not UTF-8"),
        ("x.jsonl", "", "has no rows"),
        ("x.jsonl", '{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("x.jsonl", '{"a": 1}\n[1]\n', "line 2 must be an object, got list"),
        ("x.jsonl", '{"a": 1, "a": 2}\n', "line 1 has a key twice"),
        ("x.jsonl", b'{"a": "\xff"}\n', "not UTF-8"),
        ("x.json", '{"a": 1}', "must hold a list of objects, got dict"),
        ("x.json", "[1]", "item 1 must be an object, got int"),
        ("x.json", "[]", "has no rows"),
        ("x.parquet", "version https://git-lfs.github.com/spec/v1", "not a whole parquet file"),
        ("x.xlsx", "a\tb\n", r"expected a file ending in .csv, .tsv, .jsonl, .json, .parquet"),
    ],
)
def test_unsound_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_missing_files_columns_and_pyarrow(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"x\.csv"):
        read_table(tmp_path / "x.csv")
    table = read_table(write_csv(tmp_path / "x.csv", ROWS))
    with pytest.raises(ValueError, match="no column `m`, `o`, it has `id`, `n`"):
        table.require(["id", "m", "o"])
    path = write_parquet(tmp_path / "x.parquet", ROWS)
    imported = builtins.__import__

    def without_pyarrow(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(ImportError, match=r'pip install "gtsvj-reward\[data\]"'):
        read_table(path)


def test_shards_in_natural_order(tmp_path):
    for number in (10, 9, 100):
        write_parquet(tmp_path / f"part-{number}.parquet", [{"n": number}, {"n": -number}])
    (tmp_path / "README.md").write_text("card")
    table = read_table(tmp_path)
    assert table.cells == {"n": (9, -9, 10, -10, 100, -100)}
    assert table.rows[2] == "part-10.parquet row 1"


def test_folders_that_are_not_one_table(tmp_path):
    with pytest.raises(ValueError, match="no parquet files"):
        read_table(tmp_path)
    write_parquet(tmp_path / "test-00000-of-00002.parquet", ROWS)
    with pytest.raises(ValueError, match="1 of the 2 files of `test`"):
        read_table(tmp_path)
    write_parquet(tmp_path / "test-00001-of-00002.parquet", [{"id": "9"}])
    with pytest.raises(ValueError, match=r"has the columns `id`, .* has `id`, `n`"):
        read_table(tmp_path)
    write_parquet(tmp_path / "test-00001-of-00002.parquet", ROWS)
    assert len(read_table(tmp_path).rows) == 4
    write_parquet(tmp_path / "test_v1-00000-of-00001.parquet", ROWS)
    with pytest.raises(ValueError, match=r"more than one table: test-00000.*test_v1"):
        read_table(tmp_path)


def test_parquet_columns_of_one_name(tmp_path):
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], ["a", "a"])
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="more than one column `a`"):
        read_table(tmp_path / "x.parquet")


def test_ids(tmp_path):
    rows = [{"id": 7}, {"id": "8"}]
    table = read_table(write_jsonl(tmp_path / "x.jsonl", rows))
    assert table.identified_by("id").rows == ("7", "8")
    assert table.identified_by("id").column("id").rows == ("7", "8")
    rows += [{"id": 8}, {"id": None}, {"id": ""}, {"id": 1.5}, {"id": True}]
    table = read_table(write_jsonl(tmp_path / "x.jsonl", rows))
    with pytest.raises(
        ValueError, match=r"5 of 7 do not: x.jsonl row 3 has 8 like x.jsonl row 2; x.jsonl row 4"
    ):
        table.identified_by("id")


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=4), kind=st.sampled_from("cj"))
def test_text_round_trip(tmp_path_factory, rows, kind):
    path = tmp_path_factory.mktemp("x") / ("x.csv" if kind == "c" else "x.jsonl")
    write_table(path, ["a, b", 'c"\n'], rows)
    assert list(zip(*read_table(path).cells.values(), strict=True)) == rows


def test_writing(tmp_path):
    write_table(tmp_path / "x.csv", ["a", "b", "c"], [[None, 0.1, "x,\r"]])
    with (tmp_path / "x.csv").open(newline="") as opened:
        assert list(csv.reader(opened)) == [["a", "b", "c"], ["", "0.1", "x,\r"]]
    write_table(tmp_path / "x.jsonl", ["a", "b"], [[None, 0.1]])
    assert json.loads((tmp_path / "x.jsonl").read_text()) == {"a": None, "b": 0.1}
    with pytest.raises(ValueError, match=r"ending in \.csv or \.jsonl"):
        write_table(tmp_path / "x.txt", ["a"], [])
    with pytest.raises(ValueError, match="different names"):
        write_table(tmp_path / "y.csv", ["a", "a"], [])
    assert not (tmp_path / "y.csv").exists()


def test_long_cells_are_read(tmp_path):
    before = csv.field_size_limit()
    path = write_csv(tmp_path / "x.csv", [{"video": "v", "trajectory": "1" * 200_000}])
    assert read_table(path).cells["trajectory"] == ("1" * 200_000,)
    assert csv.field_size_limit() == before, "which other readers rely on"


def test_no_cell_is_a_formula(tmp_path):
    cells = [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "@SUM(A1)",
        "-2+3",
        "\t=1",
        "'=1",
        "'quoted'",
        "-1.5",
        "x",
    ]
    write_table(tmp_path / "x.csv", ["video", "score"], [[cell, -0.5] for cell in cells])
    with (tmp_path / "x.csv").open(newline="") as opened:
        written = list(csv.reader(opened))[1:]
    assert [row[0] for row in written if row[0][0] in "=+-@\t"] == ["-1.5"], "a number is none"
    assert {row[1] for row in written} == {"-0.5"}
    assert read_table(tmp_path / "x.csv").cells["video"] == tuple(cells)

"""Data that a job file names: what is read, and the whole message for what is not."""

import os

import numpy as np
import pandas as pd
import pytest
from test_cli import CONFIGS, invoke, refused

from gmm_bayes import _row_files
from gmm_bayes.jobs import table_files


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Write a file and a job file for it; return the arguments of a dry run."""
    monkeypatch.chdir(tmp_path)

    def job(name, content, *changes):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        config = tmp_path / "job.toml"
        config.write_text(f'[data]\npath = "{name}"\n[model]\nn_components = 1\n')
        sets = [a for change in changes for a in ("--set", change)]
        return ["run", config, "--dry-run", *sets]

    return job


GOOD = {
    "plain": ("a,b\n1,2\n2,4.5\n", [], "2 rows, 2 columns (a, b)"),
    "byte order mark": ("\ufeffa,b\n1,2\n2,4.5\n", [], "2 rows, 2 columns (a, b)"),
    "line ends of Windows": ("a,b\r\n1,2\r\n2,4.5\r\n\r\n", [], "2 rows, 2 columns (a, b)"),
    "decimal comma": (
        "a;b\n1,5;2\n2;4\n",
        ["data.delimiter=;", "data.decimal=,"],
        "2 rows, 2 columns (a, b)",
    ),
    "no header": ("1,2\n2,4.5\n3,1\n", ["data.header=false"], "3 rows, 2 columns (x0, x1)"),
    "some columns": (
        "name,b,a\nx,1,2\ny,2,3\n",
        ["data.columns=['a', 'b']"],
        "2 rows, 2 columns (a, b)",
    ),
    "named rows": (
        "b,id,a\n1,007,2\n2,n/a,3\n",
        ["data.index=id"],
        "2 rows, 2 columns (b, a)",
    ),
    "tabs": ("a\tb\n1\t2\n2\t4\n", [r'data.delimiter="\t"'], "2 rows, 2 columns (a, b)"),
}


@pytest.mark.parametrize("what", GOOD)
def test_tables_that_are_right(job, what):
    content, changes, described = GOOD[what]
    result = invoke(*job("t.csv", content, *changes))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].endswith(f"t.csv: {described}")


CHOOSE = "choose the columns of numbers with data.columns"
COMMAS = 'for decimal commas set data.decimal = "," and data.delimiter = ";"'
DROP = "drop or impute them: rows are never dropped silently"
DATA_FAULTS = {
    "empty": (b"", [], "{path} is empty"),
    "empty lines only": (b"\n\n", [], "{path} is empty"),
    "no rows": ("a,b\n", [], "{path} has a header but no rows"),
    "one row": ("a,b\n1,2\n", [], "{path} must have at least 2 rows, got shape (1, 2)."),
    "not UTF-8": (
        b"a,b\n1,2\n\xe9,3\n",
        [],
        "{path}: line 3: not UTF-8; save the file as UTF-8",
    ),
    "UTF-16": ("a,b\n".encode("utf-16"), [], "{path}: line 1: not UTF-8; save the file as UTF-8"),
    "decimal comma": (
        "a;b\n1;2\n1,5;2\n",
        ["data.delimiter=;"],
        "{path}: line 3, column 'a': expected a number, got '1,5'; " + COMMAS,
    ),
    "decimal commas between commas": (
        "a,b\n1,5,2,5\n",
        [],
        "{path}: line 2: expected 2 cells as in line 1, got 4; " + COMMAS,
    ),
    "decimal point": (
        "a;b\n1,5;2\n1.5;2\n",
        ["data.delimiter=;", "data.decimal=,"],
        "{path}: line 3, column 'a': expected a number, got '1.5'; set data.decimal = \".\"",
    ),
    "other delimiter": (
        "a;b\n1;2\n",
        [],
        "{path}: line 1: only one column, 'a;b'; set data.delimiter = \";\"",
    ),
    "tabs": (
        "a\tb\n1\t2\n",
        [],
        "{path}: line 1: only one column, 'a\\tb'; set data.delimiter = \"\\t\"",
    ),
    "a long row": ("a,b\n1,2\n1,2,3\n", [], "{path}: line 3: expected 2 cells as in line 1, got 3"),
    "long rows": (
        "a,b\n1,2,3\n4,5,6\n",
        [],
        "{path}: line 2: expected 2 cells as in line 1, got 3",
    ),
    "a short row": ("a,b\n1,2\n1\n", [], "{path}: line 3: expected 2 cells as in line 1, got 1"),
    "an empty line": (
        "a\n1\n\n2\n",
        [],
        "{path}: line 3: empty line between rows; delete it or fill it",
    ),
    "an open quote": ('a,b\n1,"2\n', [], "{path}: line 2: unexpected end of data"),
    "no header": (
        "1,2\n3,4\n",
        [],
        "{path}: line 1: expected the names of the columns, got numbers only; "
        "if the file has no header, set data.header = false",
    ),
    "text": (
        "a,b\n1,2\n1,two\n",
        [],
        "{path}: line 3, column 'b': expected a number, got 'two'; " + CHOOSE,
    ),
    "text behind a quoted line break": (
        'name,b\n"x\ny",2\nz,two\n',
        ["data.columns=['b']"],
        "{path}: line 4, column 'b': expected a number, got 'two'; " + CHOOSE,
    ),
    "text without a header": (
        "1,2\n1,two\n",
        ["data.header=false"],
        "{path}: line 2, column 'x1': expected a number, got 'two'; " + CHOOSE,
    ),
    "booleans": (
        "a,b\n1,True\n2,False\n",
        [],
        "{path}: line 2, column 'b': expected a number, got 'True'; " + CHOOSE,
    ),
    "an index": (
        ",a\n0,1\n1,2\n",
        [],
        "{path}: line 1: column 1 has no name (a saved index?); "
        "choose the columns with data.columns",
    ),
    "a name twice": ("a,a\n1,2\n", [], "{path}: line 1: column name 'a' more than once"),
    "no such column": (
        "waiting,b\n1,2\n",
        ["data.columns=['Waiting']"],
        "{path} has no column 'Waiting'; did you mean 'waiting'?",
    ),
    "a missing cell": (
        "a,b\n1,2\n,3\n",
        [],
        "{path}: line 3, column 'a': expected a finite number, the first of 1 missing in 2 rows of "
        "this column; " + DROP,
    ),
    "infinite": (
        "a,b\n1,2\n3,-inf\n",
        [],
        "{path}: line 3, column 'b': expected a finite number, the first of 1 infinite in 2 rows "
        "of this column; " + DROP,
    ),
    "a missing cell behind a quoted line break": (
        'name,b\n"x\ny",2\nz,\n',
        ["data.index=name"],
        "{path}: line 4, column 'b': expected a finite number, the first of 1 missing in 2 rows of "
        "this column; " + DROP,
    ),
    "an empty column": (
        "a,b\n1,\n2,\n",
        [],
        "{path}: column 'b' is empty; leave it out with data.columns",
    ),
    "names of rows": (
        "id,b\nx,1\ny,2\n",
        [],
        "{path}: line 2, column 'id': expected a number, got 'x'; if it names the rows, set "
        'data.index = "id"; else ' + CHOOSE,
    ),
    "groups of rows": (
        "group,b\nx,1\nx,2\n",
        [],
        "{path}: line 2, column 'group': expected a number, got 'x'; " + CHOOSE,
    ),
    "a name of two rows": (
        "id,b\nx,1\ny,2\nx,3\n",
        ["data.index=id"],
        "{path}: line 4: column 'id' names the rows (data.index), but 'x' is already the name of "
        "line 2",
    ),
    "a row without a name": (
        "id,b\nx,1\n,2\n",
        ["data.index=id"],
        "{path}: line 3: column 'id' names the rows (data.index), but is empty here",
    ),
    "no such index": (
        "id,b\nx,1\ny,2\n",
        ["data.index=idd"],
        "{path} has no column 'idd'; did you mean 'id'?",
    ),
    "a constant column": (
        "a,b\n1,2\n3,2\n",
        [],
        "X must vary in every column, but column 'b' is constant (value 2); drop the column.",
    ),
}


@pytest.mark.parametrize("what", DATA_FAULTS)
def test_tables_that_are_wrong(job, tmp_path, what):
    content, changes, message = DATA_FAULTS[what]
    assert refused(3, *job("t.csv", content, *changes)) == message.format(path=tmp_path / "t.csv")


OTHER_FILES = {
    "t.xls": (b"x", "{path}: unknown kind of file '.xls'; known: .csv, .npy, .npz, .parquet"),
    "t": (b"x", "{path}: unknown kind of file ''; known: .csv, .npy, .npz, .parquet"),
    "missing.csv": (None, "there is no file {path}"),
    "d.csv": (None, "{path} is a directory; name a file in it"),
    "pipe.csv": (None, "{path} is not a regular file"),
    "text.npy": (b"x", None),
    "text.npz": (b"x", None),
    "text.parquet": (b"x", None),
    "cut.npy": (b"\x93NUMPY\x01\x00\x05\x00{'a':", None),
    "objects.npy": (None, None),
    "cut.npz": (None, None),
    "objects.npz": (None, None),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_files_that_are_wrong(job, tmp_path, name):
    content, message = OTHER_FILES[name]
    path = tmp_path / name
    arguments = job(name, content)
    objects = np.array([[1, None]], dtype=object)
    if name == "d.csv":
        path.mkdir()
    elif name == "pipe.csv":
        os.mkfifo(path)
    elif name == "objects.npy":
        np.save(path, objects, allow_pickle=True)
    elif name == "objects.npz":
        np.savez(path, objects)
    elif name == "cut.npz":
        np.savez(path, np.eye(3))
        path.write_bytes(path.read_bytes()[:-30])
    if message is None:
        message = (
            f"{{path}} is not a readable {path.suffix} file: it is damaged, or holds Python "
            "objects, which are never loaded"
        )
    assert refused(3, *arguments) == message.format(path=path)


def test_arrays(job, tmp_path):
    np.savez(tmp_path / "t.npz", first=np.eye(3), second=np.arange(8.0).reshape(4, 2))
    path = tmp_path / "t.npz"
    assert refused(3, *job("t.npz", None)) == (
        f"{path} holds 2 arrays (first, second); choose one with data.array"
    )
    assert refused(3, *job("t.npz", None, "data.array=secnd")) == (
        f"{path} has no array 'secnd'; did you mean 'second'?"
    )
    result = invoke(*job("t.npz", None, "data.array=second"))
    assert result.stdout.startswith(f"data     {path}: 4 rows, 2 columns (x0, x1)\n")
    np.save(tmp_path / "t.npy", np.arange(4.0))
    assert refused(3, *job("t.npy", None)).startswith(
        f"{tmp_path / 't.npy'} must have shape (n_obs, n_features), got (4,)"
    )


def test_parquet_keeps_the_index(job, tmp_path, monkeypatch):
    frame = pd.DataFrame({"a": [1.0, 2], "b": ["x", "y"], "c": [3, 5]}, index=[7, 9])
    frame.to_parquet(tmp_path / "t.parquet")
    result = invoke(*job("t.parquet", None, "data.columns=['c', 'a']"))
    assert result.stdout.splitlines()[0].endswith("t.parquet: 2 rows, 2 columns (c, a)")
    pd.testing.assert_frame_equal(
        table_files.read_table(tmp_path / "t.parquet", columns=["c", "a"]), frame[["c", "a"]]
    )
    monkeypatch.setattr(_row_files, "find_spec", lambda name: None)
    assert refused(3, *job("t.parquet", None)) == (
        f"reading {tmp_path / 't.parquet'} needs pyarrow; "
        "install it with pip install 'gmm-bayes[parquet]'"
    )


def test_rows_have_the_names_that_the_file_gives_them(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("b,id,a\n1,007,2\n2,n/a,3\n")
    frame = table_files.read_table(path, index="id")
    assert (list(frame), list(frame.index), frame.index.name) == (["b", "a"], ["007", "n/a"], "id")
    path.write_text("id,a\n12,2\n-3,3\n")
    assert list(table_files.read_table(path, index="id").index) == [12, -3]
    same = pd.DataFrame({"id": ["x", "y"], "a": [1.0, 2]})
    same.to_parquet(tmp_path / "t.parquet")
    named = table_files.read_table(tmp_path / "t.parquet", index="id")
    pd.testing.assert_frame_equal(named, same.set_index("id"))
    with pytest.raises(table_files.TableError, match=r'set data.index = "id"'):
        table_files.read_table(tmp_path / "t.parquet")


def test_numbers_are_read_to_the_last_digit(tmp_path):
    values = (
        np.random.default_rng(0).standard_normal((200, 2)) * 10.0 ** np.arange(-100, 100)[:, None]
    )
    big = 123456789012345678901234567890
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{a!r},{b!r}\n" for a, b in values.tolist()) + f"1,{big}\n")
    expected = np.vstack([values, [1, float(big)]])
    # pandas before 3.1 may miss the last digit.
    np.testing.assert_allclose(table_files.read_table(path), expected, rtol=1e-15)


def test_blobs_have_no_names(job):
    sets = ("--set", "data.columns=['x0']", "--dry-run")
    blobs = next(path for path in CONFIGS if path.stem == "textbook_blobs")
    assert refused(3, "run", blobs, *sets) == "the columns of blobs have no names to choose by"


def test_names_cannot_steer_the_terminal(job):
    result = invoke(*job("t.csv", "a\x1b[31m,b\u202e\n1,2\n2,1\n"))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].endswith(r"2 columns (a\x1b[31m, b\u202e)")


def test_a_numpy_file_is_mapped_and_not_held(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(6.0).reshape(3, 2))
    table = table_files.read_table(path)
    assert isinstance(table, np.memmap)
    assert not table.flags.writeable
    np.testing.assert_array_equal(table, np.load(path))
    np.save(path, np.empty((0, 2)))
    assert table_files.read_table(path).shape == (0, 2)

"""What a finished job says of new rows, and the names of rows in every table that it writes."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import invoke, refused
from typer.testing import CliRunner

import gmm_bayes as gb
from gmm_bayes import _row_files, cli
from gmm_bayes.jobs.results import new_rows

JOB = """
[data]
path = "rows.csv"
index = "id"
[model]
n_components = 2
[sampler]
kind = "laplace"
num_samples = 200
[anomalies]
contamination = 0.05
[output]
plots = false
"""
NAMES = [f"r{n:02}" for n in range(60)]
COLUMNS = ["component_0", "component_1", "label", "log_predictive_density"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One run of rows that have names, whose columns are called a and b."""
    folder = tmp_path_factory.mktemp("named")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2)) + np.repeat([[0, 0], [8, 5]], 30, axis=0)
    pd.DataFrame({"b": X[:, 1], "id": NAMES, "a": X[:, 0]}).to_csv(folder / "rows.csv", index=False)
    (folder / "job.toml").write_text(JOB)
    order = ("--set", "data.columns=['a', 'b']")
    arguments = ["run", folder / "job.toml", "--out", folder / "out", *order]
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.fixture
def fit(done):
    return gb.load(done / "posterior.nc")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def new(text="id,note,b,a\nx,hm,5.5,8\ny,,0,-1\n", name="new.csv"):
    Path(name).write_text(text)
    return name


@pytest.mark.parametrize("table", ["responsibilities.csv", "partition.csv", "anomalies.csv"])
def test_rows_keep_their_names_in_every_table(done, table):
    frame = pd.read_csv(done / table)
    assert (frame.columns[0], frame["id"].tolist()) == ("id", NAMES)


def test_new_rows_are_told_where_they_belong(done, fit):
    result = invoke("predict", done, new())
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "left out: columns that the fit does not have: note",
        "written to new.responsibilities.csv: 2 rows",
    ]
    frame = pd.read_csv("new.responsibilities.csv", index_col="id")
    assert (list(frame), list(frame.index)) == (COLUMNS, ["x", "y"])
    X = [[8.0, 5.5], [-1.0, 0.0]]
    np.testing.assert_allclose(frame[COLUMNS[:2]], gb.responsibilities(fit, X), atol=1e-12)
    np.testing.assert_array_equal(frame["label"], gb.assign(fit, X))
    expected = gb.log_predictive_density(fit, X)
    np.testing.assert_allclose(frame["log_predictive_density"], expected, rtol=1e-12)
    # The rows of the job itself have the answer of the job.
    assert invoke("predict", done, done.parent / "rows.csv", "--out", "same.csv").exit_code == 0
    assert Path("same.csv").read_text() == (done / "responsibilities.csv").read_text()


def test_rows_are_read_by_the_rules_of_the_job_or_by_others(done, fit):
    text = "a;b;id\n8,0;5,5;3\n"
    hint = "new.csv: line 1: only one column, 'a;b;id'; set data.delimiter = \";\""
    assert refused(3, "predict", done, new(text)).endswith(hint)
    changes = ("--set", "data.delimiter=;", "--set", "data.decimal=,")
    assert invoke("predict", done, "new.csv", *changes).exit_code == 0
    frame = pd.read_csv("new.responsibilities.csv", index_col="id")
    assert list(frame.index) == [3]
    np.testing.assert_allclose(frame[COLUMNS[:2]], gb.responsibilities(fit, [[8.0, 5.5]]))
    assert refused(2, "predict", done, "new.csv", "--force", "--set", "model.n_components=3") == (
        "--set of predict must say how the new rows are read, such as 'data.delimiter=;', got "
        "'model.n_components=3'"
    )
    # Files without names hold the columns of the fit in its order.
    np.save("rows.npy", [[8.0, 5.5]])
    assert invoke("predict", done, "rows.npy").exit_code == 0
    again = pd.read_csv("rows.responsibilities.csv", index_col="index")
    np.testing.assert_array_equal(again, frame)


def test_rows_that_stay_in_their_file_are_read_in_pieces(done, fit, monkeypatch):
    monkeypatch.setattr(new_rows, "_STAYS_IN_ITS_FILE", 0)
    monkeypatch.setattr(_row_files, "_NUMBERS", 8)
    X = fit.X.values[:11]
    pd.DataFrame({"b": X[:, 1], "c": 1, "a": X[:, 0]}).to_parquet("new.parquet")
    shutil.copytree(done, "out")
    config = Path("out/config.resolved.toml")
    counted = config.read_text().replace('index = "id"\n', "")
    config.write_text(
        counted.replace("in_memory = true", "in_memory = false").replace(".csv", ".parquet")
    )
    assert invoke("predict", "out", "new.parquet").exit_code == 0
    frame = pd.read_csv("new.responsibilities.csv", index_col="index")
    assert list(frame.index) == list(range(11))
    np.testing.assert_allclose(frame[COLUMNS[:2]], gb.responsibilities(fit, X), atol=1e-12)
    X[9, 1] = np.nan
    pd.DataFrame(X, columns=["a", "b"]).to_parquet("new.parquet")
    assert "new.parquet from row 8 on must be finite, got 1 missing of 6 values" in refused(
        3, "predict", "out", "new.parquet", "--force"
    )


FAULTS = {
    "a missing column": ("id,a\nx,1\n", "new.csv has no column 'b'; known: id, a"),
    "no names of rows": ("a,b\n1,2\n", "new.csv has no column 'id'; known: a, b"),
    "no number": (
        "id,a,b\nx,1,2\ny,1,o\n",
        "new.csv: line 3, column 'b': expected a number, got 'o'; choose the columns of numbers "
        "with data.columns",
    ),
    "a missing cell": (
        "id,a,b\nx,1,2\ny,,2\n",
        "new.csv: line 3, column 'a': expected a finite number, the first of 1 missing in 2 rows "
        "of this column; drop or impute them: rows are never dropped silently",
    ),
    "a missing cell of the only row": (
        "id,a,b\nx,,2\n",
        "new.csv: line 2, column 'a': expected a finite number, the first of 1 missing in 1 rows "
        "of this column; drop or impute them: rows are never dropped silently",
    ),
    "other units": (
        "id,a,b\nx,1e200,2\n",
        "new.csv must lie within 1e+140 standard deviations of the training rows, or densities "
        "overflow; got 1e+200 in row 0, column 'a'. Are the units those of the fit?",
    ),
}


@pytest.fixture
def no_work(monkeypatch):
    def work(new):
        raise AssertionError("work began")

    monkeypatch.setattr(new_rows, "write_new_rows", work)


@pytest.mark.parametrize("what", FAULTS)
def test_rows_that_are_wrong(done, no_work, what, tmp_path):
    text, message = FAULTS[what]
    here = f"{tmp_path}/"
    assert refused(3, "predict", done, new(text)).replace(here, "") == message
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_answers_do_not_replace_what_is_there(done, no_work):
    predict = ("predict", done, new(), "--out")
    Path("mine.csv").write_text("mine")
    assert refused(2, *predict, "mine.csv") == (
        "mine.csv exists; name another file with --out, or replace it with --force"
    )
    assert refused(2, *predict, "new.csv", "--force") == (
        "new.csv holds the new rows; name another file with --out"
    )
    assert refused(2, *predict, ".") == ". is a directory; name a file in it with --out"
    assert refused(2, *predict, "no/new.csv") == (
        "there is no directory no; make it, or change --out"
    )
    assert Path("mine.csv").read_text() == "mine"


def test_an_answer_is_whole_or_not_there(done, monkeypatch, tmp_path):
    def half(fit, rows, name):
        yield pd.DataFrame({"component_0": [1.0]})
        raise OSError("No space left on device")

    monkeypatch.setattr(new_rows.tables, "responsibilities_frames", half)
    assert refused(2, "predict", done, new()) == "No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_runs_that_have_no_answer(done, fit, no_work):
    new()
    assert (
        refused(3, "predict", "no", "new.csv") == "no does not exist; name the directory of a run"
    )
    out = Path("out")
    (out / "checkpoint").mkdir(parents=True)
    assert refused(3, "predict", out, "new.csv") == "there is no file out/posterior.nc"
    (out / "checkpoint" / "job.toml").touch()
    assert refused(3, "predict", out, "new.csv") == (
        "the run in out is not complete; gmm-bayes show out says how far it is"
    )
    shutil.rmtree(out / "checkpoint")
    fit.save(out / "posterior.nc")
    assert refused(3, "predict", out, "new.csv") == (
        "there is no file out/config.resolved.toml, which says how rows are read; run the job to "
        "its end"
    )
    half = fit.posterior.copy(deep=True)
    for variable in half.data_vars.values():
        variable[:, 1::2] = variable[:, 1::2].isel(component=[1, 0]).values
    fit.with_group("posterior", half).save(out / "posterior.nc")
    assert refused(3, "predict", out, "new.csv") == (
        "the components in out changed places between draws, so that an average per component "
        'means nothing; run the job with labels.align = "ecr", or renumber them: '
        "gmm_bayes.align_labels(fit).save('out/posterior.nc')"
    )

"""Jobs whose rows stay in their file: the results of all rows, and what is said of them."""

import json

import numpy as np
import pandas as pd
import pytest
from hostile import two_groups
from test_cli import SHORT, invoke, refused

import gmm_bayes as gb
from gmm_bayes import _row_files
from gmm_bayes.inference.rows import survey as surveys

JOB = """
[data]
path = "{name}"
in_memory = false
[model]
n_components = 2
[sampler]
num_chains = 2
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X = two_groups(1000)
    np.save(tmp_path / "rows.npy", X)
    pd.DataFrame(X, columns=["a", "b"]).to_parquet(tmp_path / "rows.parquet", row_group_size=300)

    def job(name):
        path = tmp_path / "job.toml"
        path.write_text(JOB.format(name=name))
        return path

    return job


def test_a_job_says_of_every_row_where_it_belongs(job, tmp_path, monkeypatch):
    """Whether or not the row is in the sample that the result keeps."""
    monkeypatch.setattr(surveys, "MOST_ROWS_KEPT", 200)
    monkeypatch.setattr(_row_files, "_NUMBERS", 500)
    result = invoke("run", job("rows.parquet"), "--out", "out", *SHORT)
    assert result.exit_code == 0, result.output
    assert "rows.parquet: 1000 rows, 2 columns (a, b)" in result.stdout
    fit = gb.load(tmp_path / "out" / "posterior.nc")
    assert (fit.n_obs, len(fit.X)) == (1000, 200)
    X = pd.read_parquet(tmp_path / "rows.parquet")
    table = pd.read_csv(tmp_path / "out" / "responsibilities.csv", index_col="index")
    assert table.index.tolist() == list(range(1000))
    expected = gb.responsibilities(fit, X)
    np.testing.assert_allclose(table[["component_0", "component_1"]], expected, atol=1e-12)
    np.testing.assert_array_equal(table["label"], expected.argmax("component"))
    density = gb.log_predictive_density(fit, X)
    np.testing.assert_allclose(table["log_predictive_density"], density, rtol=1e-12)
    said = json.loads((tmp_path / "out" / "report.json").read_text())["data"]
    assert (said["n_obs"], said["n_kept"]) == (1000, 200)
    assert {p.name for p in (tmp_path / "out").glob("*.png")} >= {"components.png", "density.png"}


def test_centres_and_priors_come_from_the_sample(job, tmp_path, monkeypatch):
    """And not from the rows at the ends of the columns, which are looked at beside it."""
    X = np.load(tmp_path / "rows.npy")
    X[500] = 1e4
    np.save(tmp_path / "rows.npy", X)
    monkeypatch.setattr(surveys, "MOST_ROWS_KEPT", 200)
    changes = ("--set", "priors.weight_concentration=2.0")
    result = invoke("run", job("rows.npy"), "--out", "out", *SHORT, *changes)
    assert result.exit_code == 0, result.output
    fit = gb.load(tmp_path / "out" / "posterior.nc")
    np.testing.assert_array_equal(fit.priors.weight_concentration, [2.0, 2.0])
    assert 500 not in fit.X["obs"]
    spread = fit.X.values.std(axis=0)
    np.testing.assert_allclose(fit.priors.scale_scale, spread, rtol=1e-12)


def test_faults_of_the_file_are_found_by_check(job, tmp_path):
    X = np.load(tmp_path / "rows.npy")
    X[777, 1] = np.nan
    np.save(tmp_path / "rows.npy", X)
    path = tmp_path / "rows.npy"
    assert refused(3, "run", job("rows.npy"), "--dry-run") == (
        f"{path} must be finite, got 1 missing and 0 infinite of 2000 values, the first in row "
        "777, column 'x1'. Drop or impute them: rows are never dropped silently."
    ).replace(" and 0 infinite", "")


def test_only_files_that_can_be_read_in_pieces(job, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n2,1\n")
    said = refused(2, "run", job("rows.csv"), "--dry-run")
    assert said == "data.in_memory: applies to .npy and .parquet files only"


def test_a_sweep_needs_its_rows_in_memory(job, tmp_path):
    path = job("rows.npy")
    path.write_text(path.read_text() + "[sweep]\nruntime.seed = [1, 2]\n")
    assert refused(2, "sweep", path, "--dry-run") == (
        "data.in_memory: a sweep compares its members on all rows, which it holds in memory"
    )

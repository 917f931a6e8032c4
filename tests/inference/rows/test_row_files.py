"""Rows that stay in their file: the answers are those of the table, and faults are named first."""

import decimal
import pickle

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hostile import SHORT, quiet_fit, raises_exactly, refuse_work, two_groups
from pyarrow import parquet
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import gmm_bayes as gb
from gmm_bayes import _row_files
from gmm_bayes.core.likelihood import component_scores, sum_log_density
from gmm_bayes.inference.rows import survey as surveys
from gmm_bayes.inference.rows.file_blocks import FileBlocks
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.rows.survey import MOST_ROWS_KEPT, survey


@pytest.fixture(scope="module")
def X():
    return two_groups(3000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, X):
    folder = tmp_path_factory.mktemp("rows")
    np.save(folder / "rows.npy", X)
    frame = pd.DataFrame(X, columns=["a", "b"])
    frame.to_parquet(folder / "rows.parquet", row_group_size=700)
    return folder


# -- files ----------------------------------------------------------------------------------------

SPANS = [
    (0, None),
    (0, 0),
    (0, 700),
    (699, 701),
    (700, 1400),
    (1, 2999),
    (2100, 3000),
    (2999, 3000),
]


@pytest.mark.parametrize("name", ["rows.npy", "rows.parquet"])
@pytest.mark.parametrize(("begin", "end"), SPANS)
def test_pieces_are_the_rows_in_order(folder, X, monkeypatch, name, begin, end):
    monkeypatch.setattr(_row_files, "_NUMBERS", 300)
    rows = gb.RowFile(folder / name)
    pieces = list(rows.pieces(begin, end))
    assert all(1 <= len(piece) <= 150 for piece in pieces)
    np.testing.assert_array_equal(np.concatenate([X[:0], *pieces]), X[begin:end])
    assert len(rows) == rows.shape[0] == 3000
    np.testing.assert_array_equal(rows.read(), X)


def test_columns_are_taken_in_the_order_asked_for(folder, X):
    rows = gb.RowFile(folder / "rows.parquet", columns=["b", "a"])
    np.testing.assert_array_equal(rows.read(), X[:, ::-1])
    assert rows.feature_names == ("b", "a")
    assert rows.named
    assert not gb.RowFile(folder / "rows.npy").named


NUMBERS = {
    "small integers": np.array([[1, 2], [3, 5]], np.int8),
    "half precision": np.array([[1.5, 2], [3, 5]], np.float16),
    "the other order of bytes": np.array([[1.5, 2], [3, 5]], ">f8"),
    "by columns": np.asfortranarray([[1.5, 2], [3, 5]]),
}


@pytest.mark.parametrize("what", NUMBERS)
def test_any_real_numbers_are_read_as_doubles(tmp_path, what):
    np.save(tmp_path / "a.npy", NUMBERS[what])
    found = gb.RowFile(tmp_path / "a.npy").read()
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, NUMBERS[what].astype(float))


def test_parquet_may_hold_decimals_nulls_and_labels_of_rows(tmp_path):
    table = pa.table(
        {
            "a": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("3.50")]),
            "b": pa.array([1, 2, None], pa.int32()),
            "c": pa.nulls(3),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    expected = [[1.25, 1, np.nan], [np.nan, 2, np.nan], [3.5, np.nan, np.nan]]
    np.testing.assert_array_equal(gb.RowFile(tmp_path / "a.parquet").read(), expected)
    frame = pd.DataFrame({"a": [1.0, 2.0]}, index=["first", "second"])
    frame.to_parquet(tmp_path / "b.parquet")
    assert gb.RowFile(tmp_path / "b.parquet").feature_names == ("a",)


def save(kind, content):
    def write(path):
        if kind == "npy":
            np.save(path, content, allow_pickle=True)
        elif kind == "parquet":
            parquet.write_table(pa.table(content), path)
        elif kind == "folder":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)

    return write


WHOLE = np.arange(6.0).reshape(3, 2)
DAMAGED = "{path} is not a readable {suffix} file: it is damaged, or holds Python objects, which "
DAMAGED += "are never loaded"
NUMBER = "must hold real numbers, got"
FILES = {
    "another kind": (
        "a.csv",
        save("bytes", b"1,2\n3,4\n"),
        gb.errors.TableError,
        "{path} cannot stay in its file: only .npy and .parquet files can be read in pieces; "
        "convert it to one of these",
    ),
    "not there": ("a.npy", save("bytes", None), FileNotFoundError, "there is no file {path}"),
    "a folder": (
        "a.npy",
        save("folder", None),
        IsADirectoryError,
        "{path} is a directory; name a file in it",
    ),
    "text": ("a.npy", save("bytes", b"hello"), gb.errors.TableError, DAMAGED),
    "cut off": ("b.parquet", save("bytes", b"PAR1abc"), gb.errors.TableError, DAMAGED),
    "objects": (
        "a.npy",
        save("npy", np.array([[pickle, 1]], object)[:, 1:]),
        gb.errors.TableError,
        DAMAGED,
    ),
    "one dimension": (
        "a.npy",
        save("npy", np.arange(3.0)),
        ValueError,
        "{path} must have shape (n_obs, n_features), got (3,). For one feature save X[:, None].",
    ),
    "three dimensions": (
        "a.npy",
        save("npy", np.zeros((2, 2, 2))),
        ValueError,
        "{path} must have shape (n_obs, n_features), got (2, 2, 2).",
    ),
    "one row": (
        "a.npy",
        save("npy", WHOLE[:1]),
        ValueError,
        "{path} must have at least 2 rows, got shape (1, 2).",
    ),
    "no columns": (
        "a.npy",
        save("npy", np.zeros((3, 0))),
        ValueError,
        "{path} must have at least one column, got shape (3, 0).",
    ),
    "booleans": (
        "a.npy",
        save("npy", WHOLE > 2),
        TypeError,
        "{path} must hold real numbers, got booleans; leave it out or turn it into numbers "
        "yourself.",
    ),
    "a column of text": (
        "a.parquet",
        save("parquet", {"a": [1.0, 2.0], "b": ["x", "y"]}),
        TypeError,
        "column 'b' of {path} must hold real numbers, got string; leave it out or turn it into "
        "numbers yourself.",
    ),
    "a column of booleans": (
        "a.parquet",
        save("parquet", {"a": [True, False]}),
        TypeError,
        "column 'a' of {path} must hold real numbers, got bool; leave it out or turn it into "
        "numbers yourself.",
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_no_tables_are_refused_when_they_are_named(tmp_path, what):
    name, write, kind, message = FILES[what]
    path = tmp_path / name
    write(path)
    with raises_exactly(kind, message.format(path=path, suffix=path.suffix)):
        gb.RowFile(path)


def test_columns_that_are_not_there(folder, tmp_path):
    path = folder / "rows.parquet"
    with raises_exactly(gb.errors.TableError, f"{path} has no column 'c'; known: a, b"):
        gb.RowFile(path, columns=["a", "c"])
    with raises_exactly(
        ValueError,
        f"{path} must have distinct column names, got ['a'] more than once; rename them.",
    ):
        gb.RowFile(path, columns=["a", "a"])
    twice = tmp_path / "twice.parquet"
    parquet.write_table(pa.table([[1.0, 2.0], [3.0, 4.0]], names=["a", "a"]), twice)
    with raises_exactly(
        ValueError,
        f"{twice} must have distinct column names, got ['a'] more than once; rename them.",
    ):
        gb.RowFile(twice)
    path = folder / "rows.npy"
    with raises_exactly(
        gb.errors.TableError, f"{path} has no names of columns to choose by; leave out columns"
    ):
        gb.RowFile(path, columns=["a"])


def test_without_pyarrow(folder, monkeypatch):
    monkeypatch.setattr(_row_files, "find_spec", lambda name: None)
    path = folder / "rows.parquet"
    with raises_exactly(
        gb.errors.MissingDependencyError,
        f"reading {path} needs pyarrow; install it with pip install 'gmm-bayes[parquet]'",
    ):
        gb.RowFile(path)


@pytest.mark.parametrize("function", [gb.fit_em, gb.default_priors])
def test_what_needs_a_table_says_so(folder, function):
    with raises_exactly(
        TypeError,
        "X must be a table of numbers of shape (n_obs, n_features), got RowFile; read the file "
        "first.",
    ):
        function(gb.RowFile(folder / "rows.npy"), 2)


# -- the look at all rows -------------------------------------------------------------------------


def in_shares(monkeypatch, rows, n):
    """What n processes that tell each other find."""
    n_obs, n_kept, seen = len(rows), min(len(rows), surveys.MOST_ROWS_KEPT), []
    places = np.random.default_rng(0).choice(n_obs, n_kept, replace=False, shuffle=False)
    places.sort()
    for i in range(n):
        monkeypatch.setattr(jax, "process_index", lambda i=i: i)
        monkeypatch.setattr(jax, "process_count", lambda: n)
        seen.append(surveys._look(rows, places, surveys.own_share(n_obs)))
    told = {name: np.stack([np.asarray(one[name]) for one in seen]) for name in seen[0]}
    monkeypatch.setattr(surveys, "_tell_all", lambda own: told)
    return survey(rows, 0, shared=True)


@pytest.mark.parametrize("n_processes", [1, 3])
def test_a_survey_of_all_rows(tmp_path, monkeypatch, n_processes):
    """Far from zero, where a sum of squares would have lost every digit."""
    monkeypatch.setattr(_row_files, "_NUMBERS", 300)
    monkeypatch.setattr(surveys, "MOST_ROWS_KEPT", 50)
    X = two_groups(1000) + np.array([1e9, 0])
    X[123] = [1e9 + 500, -500]
    np.save(tmp_path / "a.npy", X)
    found = in_shares(monkeypatch, gb.RowFile(tmp_path / "a.npy"), n_processes)
    np.testing.assert_allclose(found.loc, X.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.scale, X.std(axis=0), rtol=1e-7)
    assert len(found.sample.values) == 50
    np.testing.assert_array_equal(found.sample.values, X[found.sample.index])
    np.testing.assert_array_equal(found.checked.values, X[found.checked.index])
    ends = {*X.argmin(axis=0), *X.argmax(axis=0)}
    assert ends <= set(found.checked.index.tolist())
    assert len(set(found.checked.index.tolist())) == len(found.checked.index)


def test_a_process_that_fits_alone_waits_for_no_other(folder, X, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(surveys, "_tell_all", lambda seen: pytest.fail("waits for another process"))
    found = survey(gb.RowFile(folder / "rows.npy"), 0, shared=False)
    np.testing.assert_allclose(found.loc, X.mean(axis=0), rtol=1e-12)


def test_the_digest_changes_with_any_number_and_any_order(tmp_path, monkeypatch):
    X = two_groups(200)
    digests = {}
    changed, swapped = X.copy(), X.copy()
    changed[150, 1] = np.nextafter(X[150, 1], 1e9)
    swapped[[20, 180]] = X[[180, 20]]
    for name, rows in {"": X, "changed": changed, "swapped": swapped, "again": X}.items():
        np.save(tmp_path / "a.npy", rows)
        digests[name] = survey(gb.RowFile(tmp_path / "a.npy"), 0, shared=False).digest
    assert digests.pop("again") == digests[""]
    assert len(set(digests.values())) == 3
    # However it was read, and by however many.
    monkeypatch.setattr(_row_files, "_NUMBERS", 64)
    assert in_shares(monkeypatch, gb.RowFile(tmp_path / "a.npy"), 3).digest == digests[""]


@pytest.mark.parametrize("n_processes", [1, 3])
def test_what_is_missing_is_counted_in_all_of_the_file(tmp_path, monkeypatch, n_processes):
    monkeypatch.setattr(_row_files, "_NUMBERS", 50)
    X = two_groups(200)
    X[70, 1], X[71, 0], X[180, 0] = np.nan, np.inf, np.nan
    path = tmp_path / "a.npy"
    np.save(path, X)
    with raises_exactly(
        ValueError,
        f"{path} must be finite, got 2 missing and 1 infinite of 400 values, the first in row 70, "
        "column 'x1'. Drop or impute them: rows are never dropped silently.",
    ):
        in_shares(monkeypatch, gb.RowFile(path), n_processes)


# -- fits -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table_fit(X):
    return quiet_fit(X)


@pytest.fixture(scope="module")
def file_fit(folder):
    return quiet_fit(gb.RowFile(folder / "rows.parquet"))


@pytest.fixture
def few_kept(monkeypatch):
    monkeypatch.setattr(surveys, "MOST_ROWS_KEPT", 400)


@pytest.fixture(scope="module")
def sampled(folder):
    """A fit that keeps 400 of its 3000 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surveys, "MOST_ROWS_KEPT", 400)
        return quiet_fit(gb.RowFile(folder / "rows.npy"))


def test_a_small_file_gives_the_draws_of_its_table_bit_for_bit(table_fit, file_fit):
    for name, values in table_fit.posterior.items():
        np.testing.assert_array_equal(file_fit.posterior[name], values)
    np.testing.assert_array_equal(file_fit.X, table_fit.X)
    assert file_fit.feature_names == ("a", "b")
    assert file_fit.n_obs == 3000


def test_all_rows_count_though_a_sample_is_kept(sampled, X):
    assert sampled.n_obs == 3000
    assert sampled.X.shape == (400, 2)
    np.testing.assert_array_equal(sampled.X, X[sampled.X["obs"].values])
    assert "3000 rows" in repr(sampled)
    # The log-likelihood of all rows, by SciPy.
    for draw in (0, 40):
        one = sampled.posterior.isel(chain=1, draw=draw)
        parts = [
            np.log(one["weights"].values[k])
            + multivariate_normal(one["means"].values[k], one["covariances"].values[k]).logpdf(X)
            for k in range(2)
        ]
        got = sampled.sample_stats["total_log_likelihood"].values[1, draw]
        np.testing.assert_allclose(got, logsumexp(parts, axis=0).sum(), rtol=1e-12)


def test_the_posterior_is_that_of_all_rows(sampled, table_fit):
    """Within what the draws of both allow: the spread of 400 rows' would be nearly three times."""
    for name in ("weights", "means", "scales"):
        ours, theirs = sampled.posterior[name], table_fit.posterior[name]
        sd = theirs.std(("chain", "draw"))
        # Of both, ESS is above 60.
        assert (abs(ours.mean(("chain", "draw")) - theirs.mean(("chain", "draw"))) < 0.7 * sd).all()
        assert (abs(ours.std(("chain", "draw")) / sd - 1) < 0.5).all()


def test_what_follows_from_a_fit_of_a_file(sampled, folder, tmp_path):
    assert gb.responsibilities(sampled).shape == (400, 2)
    new = next(gb.RowFile(folder / "rows.npy").pieces(0, 10))
    assert gb.responsibilities(sampled, new).shape == (10, 2)
    assert gb.diagnose(sampled).table.notna().all(axis=None)
    gb.plots.plot_density(sampled)
    back = gb.load(sampled.save(tmp_path / "fit.nc"))
    assert back == sampled
    assert back.n_obs == 3000


@pytest.mark.parametrize("function", [gb.log_evidence, gb.occupied_components])
def test_what_needs_all_rows_says_so(sampled, folder, function):
    with raises_exactly(
        ValueError,
        f"{function.__name__} needs all rows, but this fit keeps a sample of 400 of the 3000 in "
        f"{folder / 'rows.npy'}; fit a table in memory",
    ):
        function(sampled)


REFUSED = {
    "a constant column": (
        lambda X: np.column_stack([X, np.ones(len(X))]),
        ValueError,
        "X must vary in every column, but column 'x2' is constant (value 1); drop the column.",
    ),
    "a variance that overflows": (
        lambda X: X * [1.0, 1e200],
        ValueError,
        "the variance of column 'x1' would overflow float64 (half its range is 5.21e+200); "
        "change its units.",
    ),
    "fewer rows than components": (
        lambda X: X[:2],
        ValueError,
        "n_components must be at most the number of rows, got n_components=3 for 2 rows; take "
        "fewer components",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_rows_that_cannot_be_fitted(tmp_path, monkeypatch, what):
    change, kind, message = REFUSED[what]
    np.save(tmp_path / "a.npy", change(two_groups()))
    refuse_work(monkeypatch)
    with pytest.raises(kind) as caught:
        gb.fit(gb.RowFile(tmp_path / "a.npy"), 3)
    assert str(caught.value).split(" (half")[0] == message.split(" (half")[0]


def test_a_stranger_outside_the_sample_is_reported(tmp_path, few_kept):
    X = two_groups(3000)
    X[1234, 0] = 1e6
    np.save(tmp_path / "a.npy", X)
    rows = gb.RowFile(tmp_path / "a.npy")
    assert 1234 not in survey(rows, 3, shared=False).sample.index
    with pytest.warns(gb.errors.GMMBayesWarning) as caught:
        gb.fit(rows, 2, sampler=SHORT, seed=3)
    said = [str(w.message) for w in caught]
    assert any(word.startswith("row 1234 holds 1e+06 in column 'x0'") for word in said), said


def test_single_precision_keeps_its_digits(tmp_path):
    """Groups 20,000 standard deviations apart, in no order: blocks hold rows near each other."""
    rng = np.random.default_rng(0)
    member = rng.integers(0, 2, 5000)
    X = rng.normal(size=(5000, 2)) + 2e4 * member[:, None]
    np.save(tmp_path / "a.npy", X)
    rows = gb.RowFile(tmp_path / "a.npy")
    centres = np.array([[0.0, 0.0], [2e4, 2e4]])
    units = Standardization(np.zeros(2), np.ones(2))
    values = {}
    with jax.enable_x64(True):
        scores = component_scores(np.array([0.5, 0.5]), centres + 0.1, np.array([np.eye(2)] * 2))
        gradient = jax.value_and_grad(sum_log_density)
        for centre in (centres, None):
            cut = FileBlocks.plan(rows, units, 210, 1, centre)
            blocks = cut.read(0)
            assert len(blocks.values) == cut.per_share
            assert blocks.weights.sum() == 5000
            values[centre is None] = jax.tree.map(np.asarray, gradient(scores, blocks))
    assert blocks.values.dtype == np.float64
    for single, double in zip(*map(jax.tree.leaves, (values[False], values[True])), strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-6 * abs(double).max())


# -- going on -------------------------------------------------------------------------------------


def test_more_draws_of_a_fit_of_a_file(sampled, few_kept, folder):
    longer = quiet_fit(
        gb.RowFile(folder / "rows.npy"),
        sampler=gb.NUTS(num_warmup=100, num_samples=90, num_chains=2),
    )
    with pytest.warns(gb.errors.GMMBayesWarning):
        more = gb.extend(sampled, 30)
    for name, values in longer.posterior.items():
        np.testing.assert_array_equal(more.posterior[name], values)
    assert more.n_obs == 3000


def test_a_file_that_has_changed_is_not_gone_on_with(tmp_path, few_kept, X):
    path, kept = tmp_path / "a.npy", tmp_path / "kept"
    np.save(path, X)
    fit = quiet_fit(gb.RowFile(path), checkpoint=kept)
    with pytest.warns(gb.errors.GMMBayesWarning):
        again = gb.resume(kept)
    assert again.posterior.identical(fit.posterior)
    # It has moved.
    moved = path.rename(tmp_path / "moved.npy")
    with raises_exactly(
        gb.errors.CheckpointError,
        f"the rows of the run in {kept} were in {path}, where there is no file now; give them as "
        "X=gmm_bayes.RowFile(...)",
    ):
        gb.resume(kept)
    with pytest.raises(FileNotFoundError):
        gb.extend(fit, 10)
    with pytest.warns(gb.errors.GMMBayesWarning):
        again = gb.resume(kept, gb.RowFile(moved))
    assert again.posterior.identical(fit.posterior)
    other = X.copy()
    other[2000, 1] += 1e-9
    np.save(path, other)
    message = f"the run in {kept} has other data than X: rows, names of columns or labels of rows "
    for given in (None, gb.RowFile(path), X):
        with raises_exactly(gb.errors.CheckpointError, message + "differ"):
            gb.resume(kept, given)
    with raises_exactly(
        ValueError, f"fit must be of the rows in {path}, but these have changed since"
    ):
        gb.extend(fit, 10)


def test_a_run_of_a_table_is_not_that_of_a_file(tmp_path, folder, X):
    quiet_fit(X, checkpoint=tmp_path / "kept")
    with pytest.raises(gb.errors.CheckpointError, match="has other data than X"):
        gb.resume(tmp_path / "kept", gb.RowFile(folder / "rows.npy"))


def test_as_many_rows_are_kept_as_it_says():
    assert f"{MOST_ROWS_KEPT:,}" in gb.RowFile.__doc__

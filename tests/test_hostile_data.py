"""Data that must not hurt: refused by name before any work, or fitted rightly."""

import array
import datetime
import io
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import xarray as xr
from hostile import (
    quiet_fit,
    raises_exactly,
    refuse_work,
    repeated_row_fit,
    small_fit,
    table,
    two_groups,
)

import gmm_bayes as gb
from gmm_bayes._validation import check_data, check_fit_size
from gmm_bayes.inference.batch.fit_many import _tables
from gmm_bayes.inference.potential import ModelSpec

GRID = np.arange(12.0).reshape(6, 2)
NAN, INF = np.nan, np.inf


class Tensor:
    """What another library's array looks like from here."""

    def __init__(self, values, error=None):
        self.values, self.error = values, error

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return np.asarray(self.values, dtype)


class ForeignFrame:
    columns = ("a", "b")

    def __array__(self, dtype=None, copy=None):
        return GRID


def frame(b, a=(1.0, 2.0)):
    return pd.DataFrame({"a": list(a), "b": b})


def missing(what, size, row, column):
    return (
        f"X must be finite, got {what} of {size} values, the first in row {row}, "
        f"column {column!r}. Drop or impute them: rows are never dropped silently."
    )


def not_real(what, got):
    return (
        f"{what} must hold real numbers, got {got}; leave it out or turn it into numbers yourself."
    )


def not_table(got, hint=""):
    return f"X must be a table of numbers of shape (n_obs, n_features), got {got}{hint}."


def shape(got, hint=""):
    return f"X must have shape (n_obs, n_features), got {got}{hint}."


COLUMN_B = "column 'b' of X"
HINT = ". For one feature use X[:, None]"
READ = "; read the file first"
OBJECTS = np.array([[1, 2.5], [3, None]], dtype=object)

# (what comes, the error, the whole message)
REFUSED = {
    # missing and infinite
    "nan": (lambda: np.where(GRID == 3, NAN, GRID), ValueError, missing("1 missing", 12, 1, "x1")),
    "inf": (lambda: np.where(GRID == 4, INF, GRID), ValueError, missing("1 infinite", 12, 2, "x0")),
    "-inf": (
        lambda: np.where(GRID > 9, -INF, GRID),
        ValueError,
        missing("2 infinite", 12, 5, "x0"),
    ),
    "both": (
        lambda: [[1, INF], [NAN, -INF]],
        ValueError,
        missing("1 missing and 2 infinite", 4, 0, "x1"),
    ),
    "None among objects": (lambda: OBJECTS, ValueError, missing("1 missing", 4, 1, "x1")),
    "None in a list": (lambda: [[1, None], [2, 3]], ValueError, missing("1 missing", 4, 0, "x1")),
    "pd.NA in a list": (
        lambda: [[1, 2], [pd.NA, 3]],
        ValueError,
        missing("1 missing", 4, 1, "x0"),
    ),
    "NaN among Decimals": (
        lambda: [[Decimal("nan"), Decimal("sNaN")], [1, 2]],
        ValueError,
        missing("2 missing", 4, 0, "x0"),
    ),
    "beyond float64": (
        lambda: [[10**400, 1], [-(10**400), 2]],
        ValueError,
        missing("2 infinite", 4, 0, "x0"),
    ),
    "beyond float64, long double": (
        lambda: np.array([[np.longdouble("1e4000"), 1], [2, 3]]),
        ValueError,
        missing("1 infinite", 4, 0, "x0"),
    ),
    "masked": (
        lambda: np.ma.masked_greater(GRID, 8),
        ValueError,
        missing("3 missing", 12, 4, "x1"),
    ),
    "pandas NaN": (lambda: frame([1, NAN]), ValueError, missing("1 missing", 4, 1, "b")),
    "pandas None": (
        lambda: frame(np.array([None, 2], dtype=object)),
        ValueError,
        missing("1 missing", 4, 0, "b"),
    ),
    "pandas NA among objects": (
        lambda: frame(np.array([pd.NA, 2], dtype=object)),
        ValueError,
        missing("1 missing", 4, 0, "b"),
    ),
    "pandas Int64 with NA": (
        lambda: frame(pd.array([1, None], dtype="Int64")),
        ValueError,
        missing("1 missing", 4, 1, "b"),
    ),
    "pandas Arrow with null": (
        lambda: frame(pd.array([None, 1.0], dtype="double[pyarrow]")),
        ValueError,
        missing("1 missing", 4, 0, "b"),
    ),
    "pandas sparse with NaN": (
        lambda: frame(pd.arrays.SparseArray([0.0, NAN])),
        ValueError,
        missing("1 missing", 4, 1, "b"),
    ),
    "polars null": (
        lambda: pl.DataFrame({"a": [1.0, 2], "b": [None, 1.0]}),
        ValueError,
        missing("1 missing", 4, 0, "b"),
    ),
    "polars NaN": (
        lambda: pl.DataFrame({"a": [1.0, NAN]}),
        ValueError,
        missing("1 missing", 2, 1, "a"),
    ),
    "polars nothing but nulls": (
        lambda: pl.DataFrame({"a": [None, None]}),
        ValueError,
        "X must have numbers in every column, but column 'a' is empty; leave it out or fill it.",
    ),
    "xarray NaN": (
        lambda: xr.DataArray([[1, NAN], [2, 3]], dims=("obs", "f"), coords={"f": ["p", "q"]}),
        ValueError,
        missing("1 missing", 4, 0, "q"),
    ),
    # not numbers
    "booleans": (lambda: GRID > 3, TypeError, not_real("X", "booleans")),
    "complex": (lambda: GRID * 1j, TypeError, not_real("X", "complex numbers")),
    "text": (lambda: GRID.astype(str), TypeError, not_real("X", "text")),
    "bytes": (lambda: GRID.astype("S"), TypeError, not_real("X", "text")),
    "StringDType": (
        lambda: GRID.astype(str).astype(np.dtypes.StringDType()),
        TypeError,
        not_real("X", "text"),
    ),
    "dates": (lambda: GRID.astype("M8[s]"), TypeError, not_real("X", "dates")),
    "times": (lambda: GRID.astype("m8[s]"), TypeError, not_real("X", "time differences")),
    "records": (
        lambda: np.zeros(3, dtype=[("a", float), ("b", float)]),
        TypeError,
        not_real("X", "records"),
    ),
    "jax booleans": (lambda: jnp.asarray(GRID > 3), TypeError, not_real("X", "booleans")),
    "xarray booleans": (lambda: xr.DataArray(GRID > 3), TypeError, not_real("X", "booleans")),
    "a text in a list": (
        lambda: [[1, "b"], [2, 3]],
        TypeError,
        not_real("column 1 of X", "'b' of type str in row 0"),
    ),
    "a boolean in a list": (
        lambda: [[1, 2.0], [3, True]],
        TypeError,
        not_real("column 1 of X", "True of type bool in row 1"),
    ),
    "a number as text": (
        lambda: np.array([[1, 2], ["3", 4]], dtype=object),
        TypeError,
        not_real("column 0 of X", "'3' of type str in row 1"),
    ),
    "complex among objects": (
        lambda: np.array([[1, 1j]], dtype=object),
        TypeError,
        not_real("column 1 of X", "1j of type complex in row 0"),
    ),
    "a time among objects": (
        lambda: np.array([[np.timedelta64(3, "s"), 1]], dtype=object),
        TypeError,
        not_real("column 0 of X", "datetime.timedelta(seconds=3) of type timedelta in row 0"),
    ),
    "a date among objects": (
        lambda: np.array([[datetime.date(2020, 1, 2), 1]], dtype=object),
        TypeError,
        not_real("column 0 of X", "datetime.date(2020, 1, 2) of type date in row 0"),
    ),
    "pandas text": (lambda: frame(["x", "y"]), TypeError, not_real(COLUMN_B, "text")),
    "pandas digits as text": (lambda: frame(["1", "2"]), TypeError, not_real(COLUMN_B, "text")),
    "pandas string": (
        lambda: frame(pd.array(["1", None], dtype="string")),
        TypeError,
        not_real(COLUMN_B, "text"),
    ),
    "pandas Arrow text": (
        lambda: frame(pd.array(["1", "2"], dtype="string[pyarrow]")),
        TypeError,
        not_real(COLUMN_B, "text"),
    ),
    "pandas categories": (
        lambda: frame(pd.Categorical([1, 2])),
        TypeError,
        not_real(COLUMN_B, "categories"),
    ),
    "pandas bool": (lambda: frame([True, False]), TypeError, not_real(COLUMN_B, "booleans")),
    "pandas boolean": (
        lambda: frame(pd.array([True, None], dtype="boolean")),
        TypeError,
        not_real(COLUMN_B, "booleans"),
    ),
    "pandas Arrow bool": (
        lambda: frame(pd.array([True, None], dtype="bool[pyarrow]")),
        TypeError,
        not_real(COLUMN_B, "booleans"),
    ),
    "pandas sparse bool": (
        lambda: frame(pd.arrays.SparseArray([True, False])),
        TypeError,
        not_real(COLUMN_B, "booleans"),
    ),
    "pandas bool among objects": (
        lambda: frame(np.array([1, True], dtype=object)),
        TypeError,
        not_real(COLUMN_B, "True of type bool in row 1"),
    ),
    "pandas dates": (
        lambda: frame(pd.to_datetime(["2020-01-01", "2020-01-02"])),
        TypeError,
        not_real(COLUMN_B, "dates"),
    ),
    "pandas dates with zone": (
        lambda: frame(pd.to_datetime(["2020-01-01", "2020-01-02"]).tz_localize("UTC").as_unit("s")),
        TypeError,
        not_real(COLUMN_B, "datetime64[s, UTC]"),
    ),
    "pandas times": (
        lambda: frame(pd.to_timedelta([1, 2])),
        TypeError,
        not_real(COLUMN_B, "time differences"),
    ),
    "pandas periods": (
        lambda: frame(pd.period_range("2020", periods=2, freq="D")),
        TypeError,
        not_real(COLUMN_B, "period[D]"),
    ),
    "pandas complex": (lambda: frame([1j, 2]), TypeError, not_real(COLUMN_B, "complex numbers")),
    "polars bool": (
        lambda: pl.DataFrame({"b": [True, False]}),
        TypeError,
        not_real(COLUMN_B, "Boolean"),
    ),
    "polars text": (lambda: pl.DataFrame({"b": ["1"]}), TypeError, not_real(COLUMN_B, "String")),
    "polars categories": (
        lambda: pl.DataFrame({"b": pl.Series(["x"], dtype=pl.Categorical)}),
        TypeError,
        not_real(COLUMN_B, "Categorical"),
    ),
    "polars dates": (
        lambda: pl.DataFrame({"b": [datetime.date(2020, 1, 1)]}),
        TypeError,
        not_real(COLUMN_B, "Date"),
    ),
    "polars lists": (
        lambda: pl.DataFrame({"b": [[1, 2]]}),
        TypeError,
        not_real(COLUMN_B, "List(Int64)"),
    ),
    # not tables
    "None": (lambda: None, TypeError, not_table("NoneType")),
    "path": (lambda: "data.csv", TypeError, not_table("str", READ)),
    "Path": (lambda: Path("data.csv"), TypeError, not_table(type(Path()).__name__, READ)),
    "file": (lambda: io.StringIO("1,2"), TypeError, not_table("StringIO", READ)),
    "dict": (lambda: {"a": [1, 2]}, TypeError, not_table("dict")),
    "set": (lambda: {1, 2}, TypeError, not_table("set")),
    "generator": (
        lambda: (row for row in GRID),
        TypeError,
        not_table("generator", "; give np.array(list(X))"),
    ),
    "function": (lambda: len, TypeError, not_table("builtin_function_or_method")),
    "object": (object, TypeError, not_table("object")),
    "tensor on another device": (
        lambda: Tensor(GRID, RuntimeError("requires grad")),
        TypeError,
        not_table("Tensor", ", which NumPy cannot read (RuntimeError)"),
    ),
    "JAX key": (
        lambda: jax.random.key(0),
        TypeError,
        not_table("PRNGKeyArray", ", which NumPy cannot read (TypeError)"),
    ),
    "records in dicts": (
        lambda: [{"a": 1}, {"a": 2}],
        TypeError,
        not_real("X", "{'a': 1} of type dict in row 0"),
    ),
    "np.matrix": (
        lambda: GRID.view(np.matrix),
        TypeError,
        "X is an np.matrix; give np.asarray(X).",
    ),
    "sparse matrix": (
        lambda: scipy.sparse.csr_matrix(GRID),
        TypeError,
        "X is a sparse matrix; give X.toarray().",
    ),
    "sparse array": (
        lambda: scipy.sparse.coo_array(GRID),
        TypeError,
        "X is a sparse matrix; give X.toarray().",
    ),
    "sparse dict": (
        lambda: scipy.sparse.dok_array(GRID),
        TypeError,
        "X is a sparse matrix; give X.toarray().",
    ),
    "polars lazy": (
        lambda: pl.DataFrame({"a": [1]}).lazy(),
        TypeError,
        "X is a polars LazyFrame; give X.collect().",
    ),
    "xarray Dataset": (
        lambda: xr.Dataset({"a": ("x", [1.0])}),
        TypeError,
        "X is an xarray Dataset; give one DataArray with dims (obs, feature).",
    ),
    "another library's frame": (
        ForeignFrame,
        TypeError,
        "X is a test_hostile_data ForeignFrame; give it as a pandas or polars DataFrame.",
    ),
    # shapes
    "scalar": (lambda: 3.0, ValueError, shape("a single number")),
    "0-d": (lambda: np.array(3.0), ValueError, shape("a single number")),
    "1-d": (lambda: np.arange(300.0), ValueError, shape("(300,)", HINT)),
    "1-d list": (lambda: [1, 2, 3], ValueError, shape("(3,)", HINT)),
    "1-d array.array": (lambda: array.array("d", [1, 2]), ValueError, shape("(2,)", HINT)),
    "3-d": (lambda: np.zeros((2, 3, 2)), ValueError, shape("(2, 3, 2)")),
    "empty list": (lambda: [], ValueError, shape("(0,)", HINT)),
    "Series": (
        lambda: pd.Series([1.0, 2]),
        ValueError,
        shape("a Series of shape (2,)", ". For one feature use X.to_frame()"),
    ),
    "polars Series": (
        lambda: pl.Series([1.0, 2]),
        ValueError,
        shape("a polars Series", ". For one feature use X.to_frame()"),
    ),
    "xarray 1-d": (lambda: xr.DataArray([1.0, 2]), ValueError, shape("(2,)", HINT)),
    "no columns": (
        lambda: np.empty((3, 0)),
        ValueError,
        "X must have at least one column, got shape (3, 0).",
    ),
    "no columns, frame": (
        lambda: pd.DataFrame(index=range(3)),
        ValueError,
        "X must have at least one column, got shape (3, 0).",
    ),
    "no columns, polars": (
        pl.DataFrame,
        ValueError,
        "X must have at least one column, got shape (0, 0).",
    ),
    "ragged": (
        lambda: [[1, 2], [3]],
        ValueError,
        "X must have rows of equal length, got a ragged list.",
    ),
    "ragged objects": (
        lambda: np.array([[1, 2], [3]], dtype=object),
        ValueError,
        "X must have rows of equal length, got a ragged ndarray.",
    ),
    # names
    "repeated names": (
        lambda: pd.DataFrame(GRID, columns=["a", "a"]),
        ValueError,
        "X must have distinct column names, got ['a'] more than once; rename them.",
    ),
    "names equal as text": (
        lambda: pd.DataFrame(GRID, columns=["1", 1]),
        ValueError,
        "X must have distinct column names, got ['1'] more than once; rename them.",
    ),
    "repeated names, xarray": (
        lambda: xr.DataArray(GRID, dims=("r", "c"), coords={"c": ["p", "p"]}),
        ValueError,
        "X must have distinct column names, got ['p'] more than once; rename them.",
    ),
    "a name with NUL": (
        lambda: pd.DataFrame(GRID, columns=["a\0", "b"]),
        ValueError,
        "column names of X must be text that a file can hold, got 'a\\x00'; rename it.",
    ),
    "half a character": (
        lambda: pd.DataFrame(GRID, index=pd.Index(["\ud800"] * 6, dtype=object)),
        ValueError,
        "row labels of X must be text that a file can hold, got '\\ud800'; rename it.",
    ),
}


CALLERS = {
    "fit": lambda X: gb.fit(X, 2),
    "default_priors": lambda X: gb.default_priors(X, 2),
    "with_centers": lambda X: gb.Priors.fixed().with_centers(X, 2),
}
READERS = {
    "responsibilities": gb.responsibilities,
    "assign": gb.assign,
    "log_predictive_density": gb.log_predictive_density,
    "log_likelihood": gb.log_likelihood,
}


@pytest.mark.parametrize(("make", "exception", "message"), table(REFUSED))
@pytest.mark.parametrize("call", CALLERS.values(), ids=CALLERS)
def test_refused_before_any_work(monkeypatch, call, make, exception, message):
    refuse_work(monkeypatch)
    X = make()
    with raises_exactly(exception, message):
        call(X)


# None means the training rows there.
NEW_ROWS = {name: row for name, row in REFUSED.items() if name != "None"}


@pytest.mark.parametrize(("make", "exception", "message"), table(NEW_ROWS))
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_new_rows_are_refused_in_the_same_words(read, make, exception, message):
    X = make()
    with raises_exactly(exception, message):
        read(small_fit(), X)


NOT_FITTED = {
    "no rows": (
        lambda: np.empty((0, 2)),
        2,
        "X must have at least 2 rows, got shape (0, 2).",
    ),
    "one row": (lambda: [[1, 2]], 1, "X must have at least 2 rows, got shape (1, 2)."),
    "fewer rows than components": (
        lambda: GRID,
        7,
        "n_components must be at most the number of rows, got n_components=7 for 6 rows; "
        "take fewer components",
    ),
    "fewer distinct rows than components": (
        lambda: GRID[[0, 1, 0, 1, 0, 1]],
        3,
        "n_components must be at most the number of distinct rows, got n_components=3 for "
        "2 distinct rows; take fewer components",
    ),
    "two kinds of zero": (
        lambda: [[0.0, 1.0], [-0.0, 1.0], [2.0, 3.0]],
        3,
        "n_components must be at most the number of distinct rows, got n_components=3 for "
        "2 distinct rows; take fewer components",
    ),
    "all rows equal": (
        lambda: np.full((6, 2), 3.0),
        1,
        "X must vary, but all its rows are equal: there is nothing to learn from them.",
    ),
    "constant column": (
        lambda: pd.DataFrame({"a": GRID[:, 0], "b": 7.5}),
        2,
        "X must vary in every column, but column 'b' is constant (value 7.5); drop the column.",
    ),
    "constant but for rounding": (
        lambda: np.column_stack([GRID[:, 0], np.nextafter(7.5, 8 * (GRID[:, 0] > 3))]),
        2,
        "X must vary in every column, but column 'x1' is constant (value 7.5); drop the column.",
    ),
    "one constant feature": (
        lambda: np.ones((6, 1)),
        1,
        "X must vary in every column, but column 'x0' is constant (value 1); drop the column.",
    ),
    "times 1e200": (
        lambda: GRID * [1, 1e200],
        2,
        "the variance of column 'x1' would overflow float64 (half its range is 5e+200); "
        "change its units.",
    ),
    "the whole range of float64": (
        lambda: np.array([[-1.7e308], [1.7e308]]),
        1,
        "the variance of column 'x0' would overflow float64 (half its range is 1.7e+308); "
        "change its units.",
    ),
    "times 1e-310": (
        lambda: GRID * 1e-310,
        2,
        "the variance of column 'x0' would underflow float64 (half its range is 5e-310); "
        "change its units.",
    ),
}


@pytest.mark.parametrize(("make", "n_components", "message"), table(NOT_FITTED))
@pytest.mark.parametrize("call", [gb.fit, gb.default_priors, gb.Priors.with_centers])
def test_nothing_to_learn(monkeypatch, call, make, n_components, message):
    refuse_work(monkeypatch)
    first = (gb.Priors.fixed(),) if call is gb.Priors.with_centers else ()
    with raises_exactly(ValueError, message):
        call(*first, make(), n_components)


@pytest.fixture(scope="module")
def named_fit():
    return quiet_fit(pd.DataFrame(two_groups(), columns=["width", "height"]))


WRONG_COLUMNS = {
    "more": (
        lambda: np.ones((3, 3)),
        "X must have the 2 columns of the fit, ['width', 'height'], got 3 columns.",
    ),
    "fewer": (
        lambda: pd.DataFrame({"width": [1.0, 2.0]}),
        "X must have the 2 columns of the fit, ['width', 'height'], got 1 columns, ['width'].",
    ),
    "another name": (
        lambda: pl.DataFrame({"width": [1.0], "depth": [2.0]}),
        "X must have the columns of the fit, ['width', 'height'], "
        "got ['width', 'depth']; rename or select them, or give an array without names.",
    ),
    "no rows": (
        lambda: np.empty((0, 2)),
        "X must have at least 1 row, got shape (0, 2).",
    ),
    "one row without its axis": (
        lambda: np.ones(2),
        "X must have shape (n_obs, n_features), got (2,). For one feature use X[:, None].",
    ),
}


@pytest.mark.parametrize(("make", "message"), table(WRONG_COLUMNS))
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_new_rows_with_other_columns(named_fit, read, make, message):
    with raises_exactly(ValueError, message):
        read(named_fit, make())


@pytest.mark.parametrize("names", [["width", "height"], ["x0", "x1"]], ids=["given", "made up"])
def test_columns_in_another_order_are_taken_by_name(named_fit, names):
    fit = named_fit if names[0] == "width" else small_fit()
    rows = pd.DataFrame(two_groups(6, seed=5), columns=names, index=list("uvwxyz"))
    message = (
        f"X has the columns of the fit in another order, {names[::-1]}: they are taken by name, as "
        f"{names}"
    )
    with pytest.warns(gb.errors.DataWarning, match=re.escape(message)) as caught:
        turned = gb.log_predictive_density(fit, rows[names[::-1]])
    xr.testing.assert_identical(turned, gb.log_predictive_density(fit, rows))
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("ignore:X_.* in another order:gmm_bayes.errors.DataWarning")
def test_p_values_too_take_columns_by_name(named_fit):
    names = ["width", "height"]
    known, new = (pd.DataFrame(two_groups(20, seed=s), columns=names) for s in (7, 8))
    expected = gb.conformal_p_values(named_fit, known, new)
    for rows in ((known, new[names[::-1]]), (known[names[::-1]], new)):
        xr.testing.assert_identical(gb.conformal_p_values(named_fit, *rows), expected)


def test_data_sets_of_many_fits_have_their_columns_by_name():
    one = pd.DataFrame(two_groups(20, seed=7), columns=["width", "height"])
    with pytest.warns(gb.errors.DataWarning, match="in another order"):
        tables = _tables({"one": one, "other": one[["height", "width"]]}, ModelSpec(2, "full"))
    np.testing.assert_array_equal(tables["other"].values, tables["one"].values)
    assert tables["other"].feature_names == ("width", "height")


def test_long_lists_of_names_are_cut(named_fit):
    wide = pd.DataFrame(np.ones((2, 50)), columns=[f"c{i}" for i in range(50)])
    with pytest.raises(ValueError, match=r"got 50 columns, \['c0', .*'c7', \.\.\.\]\.\Z"):
        gb.assign(named_fit, wide)


def test_names_may_be_absent_on_one_side(named_fit):
    rows = two_groups(6, seed=5)
    given = pd.DataFrame(rows, columns=["p", "q"], index=list("uvwxyz"))
    unnamed = gb.log_predictive_density(named_fit, rows)
    np.testing.assert_array_equal(unnamed["obs"], range(6))
    named = gb.log_predictive_density(small_fit(), given)
    np.testing.assert_array_equal(named["obs"], list("uvwxyz"))
    np.testing.assert_array_equal(named.values, unnamed.values)


# -- the same numbers in other clothes ------------------------------------------------------------

INTEGERS = np.random.default_rng(1).integers(-100, 100, (12, 2))


def _memory_map(values, tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, values)
    return np.load(path, mmap_mode="r")


CLOTHES = {
    "int8": lambda X, _: X.astype("i1"),
    "uint64": lambda X, _: (X + 100).astype("u8"),
    "float16": lambda X, _: X.astype("f2"),
    "float32": lambda X, _: X.astype("f4"),
    "long double": lambda X, _: X.astype(np.longdouble),
    "big-endian": lambda X, _: X.astype(">f8"),
    "big-endian integers": lambda X, _: X.astype(">i4"),
    "Fortran": lambda X, _: np.asfortranarray(X, dtype=float),
    "strided": lambda X, _: np.repeat(np.repeat(X, 2, 0), 3, 1).astype(float)[::2, ::3],
    "reversed": lambda X, _: X[::-1].astype(float)[::-1],
    "transposed": lambda X, _: X.T.copy().T,
    "read-only": lambda X, tmp: _memory_map(X.astype(float), tmp),
    "masked, nothing hidden": lambda X, _: np.ma.array(X, mask=False),
    "objects": lambda X, _: X.astype(object),
    "list": lambda X, _: X.tolist(),
    "list of arrays": lambda X, _: list(X),
    "list of tensors": lambda X, _: [[np.array(v) for v in row] for row in X[:12]],
    "Decimal": lambda X, _: [[Decimal(int(v)) for v in row] for row in X],
    "Fraction": lambda X, _: [[Fraction(int(v)) for v in row] for row in X],
    "memoryview": lambda X, _: memoryview(X.astype(float)),
    "jax": lambda X, _: jnp.asarray(X),
    "bfloat16": lambda X, _: jnp.asarray(X, dtype=jnp.bfloat16),
    "tensor": lambda X, _: Tensor(X),
    "pandas": lambda X, _: pd.DataFrame(X),
    "pandas, a subclass": lambda X, _: type("Geo", (pd.DataFrame,), {})(X),
    "pandas Int64": lambda X, _: pd.DataFrame(X).astype("Int64"),
    "pandas Arrow": lambda X, _: pd.DataFrame(X).astype("double[pyarrow]"),
    "pandas sparse": lambda X, _: pd.DataFrame(X).astype(pd.SparseDtype("int64", 0)),
    "pandas, mixed types": lambda X, _: pd.DataFrame(X).astype({0: "i1", 1: "f4"}),
    "polars": lambda X, _: pl.DataFrame(X),
    "polars, mixed types": lambda X, _: pl.DataFrame(
        {"a": X[:, 0].astype("i1"), "b": X[:, 1].astype("f4")}
    ),
    "polars Decimal": lambda X, _: pl.DataFrame(X).cast(pl.Decimal(10, 2)),
    "Arrow": lambda X, _: pl.DataFrame(X).to_arrow(),
    "xarray": lambda X, _: xr.DataArray(X),
    "xarray, transposed": lambda X, _: xr.DataArray(X.T, dims=("feature", "obs")),
    "xarray, only rows named": lambda X, _: xr.DataArray(X.T, dims=("variable", "obs")),
}


@pytest.mark.parametrize("dress", CLOTHES.values(), ids=CLOTHES)
def test_same_numbers(dress, tmp_path):
    given = dress(INTEGERS, tmp_path)
    before = given.copy() if isinstance(given, np.ndarray) else None
    values = check_data(given).values
    shift = 100 if getattr(given, "dtype", None) == np.uint64 else 0
    np.testing.assert_array_equal(values, INTEGERS + shift)
    assert values.dtype == np.dtype("=f8")
    assert values.flags.c_contiguous
    assert not np.shares_memory(values, np.asarray(given, dtype=None))
    if before is not None:
        values[:] = -7
        np.testing.assert_array_equal(given, before)


def test_a_fit_of_a_read_only_memory_map_in_another_order(tmp_path):
    X = two_groups()
    mapped = _memory_map(np.asfortranarray(X, dtype=">f8"), tmp_path)
    fit = quiet_fit(mapped)
    assert fit.posterior.identical(small_fit().posterior)
    np.testing.assert_array_equal(mapped, X)


def test_the_fit_keeps_its_own_rows():
    X = two_groups()
    fit = quiet_fit(X)
    X[:] = 0
    np.testing.assert_array_equal(fit.X, two_groups())


# -- names and row labels -------------------------------------------------------------------------

FORTY = range(40)
INDEXES = {
    "text": ([f"row {i}" for i in FORTY], [f"row {i}" for i in FORTY]),
    "dates": (
        pd.date_range("2020-01-01 12:00", periods=40),
        pd.date_range("2020-01-01 12:00", periods=40).as_unit("ns").to_numpy(),
    ),
    "old dates": (
        pd.DatetimeIndex(np.array(["1500-01-01"] * 40, dtype="M8[s]")),
        ["1500-01-01T00:00:00"] * 40,
    ),
    "dates with zone": (
        pd.date_range("2020-01-01", periods=40, tz="UTC"),
        [f"{day} 00:00:00+00:00" for day in pd.date_range("2020-01-01", periods=40).date],
    ),
    "not unique": ([1, 2] * 20, [1, 2] * 20),
    "two levels": (
        pd.MultiIndex.from_product([range(8), list("abcde")]),
        [str((i, c)) for i in range(8) for c in "abcde"],
    ),
    "fractions": (np.linspace(0, 1, 40), np.linspace(0, 1, 40)),
    "booleans": ([True, False] * 20, ["True", "False"] * 20),
    "missing": (["a", None] * 20, ["a", "nan"] * 20),
    "categories": (pd.CategoricalIndex(["a", "b"] * 20), ["a", "b"] * 20),
}


@pytest.mark.parametrize(("index", "expected"), table(INDEXES))
def test_row_labels_come_back_also_through_a_file(index, expected, tmp_path):
    df = pd.DataFrame(two_groups(), index=index, columns=["width", "Höhe in µm"])
    table = check_data(df)
    np.testing.assert_array_equal(table.index, expected)
    # A file is written and read, without one more run of the sampler.
    tree = small_fit().datatree.copy(deep=True)
    data = tree["observed_data"].to_dataset()
    tree["observed_data"] = data.assign_coords(
        obs=table.index, feature=np.array(table.feature_names, dtype=object)
    )
    fit = gb.GMMFit(tree)
    loaded = gb.load(fit.save(tmp_path / "fit.nc"))
    assert loaded == fit
    assert loaded.feature_names == ("width", "Höhe in µm")
    for read in READERS.values():
        np.testing.assert_array_equal(read(loaded)["obs"], expected)


FRAMES = {
    "pandas": lambda X: pd.DataFrame(X, columns=["a", "b"], index=range(100, 140)),
    "polars": lambda X: pl.DataFrame(X, schema=["a", "b"]),
    "xarray": lambda X: xr.DataArray(
        X,
        dims=("row", "col"),
        coords={"row": [f"r{i}" for i in range(40)], "col": ["a", "b"]},
    ),
}


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_names_come_back_from_a_fit(make):
    X = make(two_groups())
    fit = quiet_fit(X)
    index = {"DataFrame": range(40), "DataArray": [f"r{i}" for i in range(40)]}[type(X).__name__]
    if isinstance(X, pd.DataFrame):
        index = range(100, 140)
    assert fit.feature_names == ("a", "b")
    np.testing.assert_array_equal(fit.posterior["covariances"]["feature"], ["a", "b"])
    np.testing.assert_array_equal(gb.responsibilities(fit)["obs"], index)
    np.testing.assert_array_equal(gb.sample_predictive(fit, 3)["feature"], ["a", "b"])
    np.testing.assert_array_equal(gb.assign(fit, X), gb.assign(small_fit()))


# -- units ----------------------------------------------------------------------------------------

UNITS = {
    "times 1e12": (1e12, 0.0),
    "columns at 1e-9 and 1e9": (np.array([1e-9, 1e9]), 0.0),
    "times 1e-100": (1e-100, 0.0),
    "times 1e100": (1e100, 0.0),
    "a shift of 1e9": (1.0, 1e9),
}


def relative_to(fit, scale):
    """Covariances, means less their average and log densities, in units of `scale`."""
    draws = fit.parameters()
    scale = np.broadcast_to(scale, 2)
    covariances = draws.covariances / scale[:, None] / scale
    means = (draws.means - fit.X.values.mean(0)) / scale
    density = gb.log_predictive_density(fit).values + np.log(scale).sum()
    return covariances, means, density


@pytest.mark.parametrize(("scale", "shift"), table(UNITS))
def test_units_change_nothing_but_the_units(scale, shift):
    """Rounding differs, so the draws do; they are draws of the same posterior."""
    plain, other = small_fit(), quiet_fit(two_groups() * scale + shift)
    np.testing.assert_array_equal(gb.assign(other), gb.assign(plain))
    np.testing.assert_allclose(gb.responsibilities(other), gb.responsibilities(plain), atol=1e-3)
    for mine, theirs in zip(relative_to(other, scale), relative_to(plain, 1.0), strict=True):
        # Averages of 120 draws.
        np.testing.assert_allclose(mine.mean(0), theirs.mean(0), rtol=0.2, atol=0.2)


def test_powers_of_two_change_not_one_draw():
    scale = np.array([2.0**-30, 2.0**40])
    plain, other = small_fit(), quiet_fit(two_groups() * scale)
    for mine, theirs in zip(relative_to(other, scale), relative_to(plain, 1.0), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(gb.responsibilities(other), gb.responsibilities(plain), atol=1e-12)
    np.testing.assert_allclose(
        other.priors.mean_covariance,
        plain.priors.mean_covariance * np.multiply.outer(scale, scale),
        rtol=1e-12,
    )
    assert other.problems == plain.problems


def test_one_feature_once_it_has_its_axis():
    fit = quiet_fit(two_groups()[:, :1])
    assert fit.posterior["covariances"].shape[-2:] == (1, 1)
    assert "correlation_cholesky" not in fit.posterior
    labels = gb.assign(fit).values
    assert len(set(labels[:20])) == len(set(labels[20:])) == 1
    assert labels[0] != labels[-1]


# -- what the data cannot teach -------------------------------------------------------------------


def caution(name, n_obs):
    return {
        "wide": "X has 3 columns and only 3 rows: correlations between columns come from the prior",
        "many": "5 components have 29 parameters but X has only 12 numbers: much of the answer "
        "comes from the prior",
        "repeated": f"one row occurs 40 times in {n_obs}: a component may shrink onto it; leave "
        "out the copies, or add the noise that rounding took away",
        "dependent": "columns ['x0', 'x2'] are linearly dependent, so full and tied covariances "
        "have no inverse: drop one of them",
        "zeros": f"column 'x1' holds 0 in 16 of {n_obs} rows (40%): a component may shrink onto "
        "that value, where its density has no bound; model these rows apart, or leave the column "
        "out",
        **{
            name: f"column {name!r} holds 0.3 in 40 of {n_obs} rows (50%): a component may shrink "
            "onto that value, where its density has no bound; model these rows apart, or leave "
            "the column out"
            for name in ("x0", "x1")
        },
        "coarse": "column 'x1' holds at most 43 distinct numbers, rounded near 1e+16: subtract a "
        "constant before it is stored as float64",
    }[name]


X40 = two_groups()
COARSE = np.column_stack([X40[:, 0], 1e16 - 84 + np.round(np.linspace(0, 84, 40))])
CAUTIONS = {
    "D = N": (np.random.default_rng(0).normal(size=(3, 3)), 1, 9, ["wide"]),
    "parameters": (GRID + np.eye(6)[:, :2], 5, 29, ["many"]),
    "one row 40 times": (np.vstack([X40, np.full((40, 2), 0.3)]), 2, 11, ["repeated", "x0", "x1"]),
    "one row 40 times, one component": (np.vstack([X40, np.full((40, 2), 0.3)]), 1, 5, []),
    "40 % zeros": (X40 * [[1, i % 5 > 1] for i in range(40)], 2, 11, ["zeros"]),
    "40 % zeros, one component": (X40 * [[1, i % 5 > 1] for i in range(40)], 1, 5, []),
    "every row twice": (np.vstack([X40, X40]), 2, 11, []),
    "a column twice": (np.column_stack([X40, 3 * X40[:, 0]]), 2, 19, ["dependent"]),
    "near 1e16": (COARSE, 2, 11, ["coarse"]),
    "plain": (X40, 2, 11, []),
    "one feature": (X40[:, :1], 2, 5, []),
}


@pytest.mark.parametrize(("X", "n_components", "n_parameters", "expected"), table(CAUTIONS))
def test_cautions(X, n_components, n_parameters, expected):
    cautions = check_fit_size(check_data(X), n_components, n_parameters)
    assert cautions == [caution(name, len(X)) for name in expected]


def test_a_fit_warns_of_what_the_data_cannot_teach():
    _, caught = repeated_row_fit()
    kinds = [(w.category, str(w.message)) for w in caught]
    said = [caution(name, 80) for name in ("repeated", "x0", "x1")]
    assert kinds[:3] == [(gb.errors.DataWarning, words) for words in said]
    assert [kind for kind, _ in kinds[3:]] == [gb.errors.ConvergenceWarning]
    # They point at the line that called fit.
    assert {Path(w.filename).name for w in caught} == {"hostile.py"}

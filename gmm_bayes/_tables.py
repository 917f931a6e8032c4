"""Whatever a user calls a table, read as float64 rows with the names that came with it.

Nothing is coded or guessed: what is not a real number is refused by name, and what is missing is
counted. The answer is always a copy, so that a fit does not change when its user's array does.
"""

import math
import numbers
import os
import reprlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

__all__ = [
    "Table",
    "check_data",
    "check_names",
    "missing_error",
    "read_array",
    "refuse_codes",
    "to_float",
]

_ADVICE = "leave it out or turn it into numbers yourself"
_KINDS = {
    "b": "booleans",
    "c": "complex numbers",
    "M": "dates",
    "m": "time differences",
    "U": "text",
    "S": "text",
    "T": "text",
    "V": "records",
}
# What pandas writes for a missing value among objects. By name: pandas need not be loaded.
_MISSING = ("NAType", "NaTType")

_Columns = tuple[np.ndarray, Sequence[Any] | None, np.ndarray | None]


@dataclass(frozen=True)
class Table:
    """Rows as float64 with the names that came with them.

    Attributes
    ----------
    values : ndarray, shape (n_obs, n_features), float64
    feature_names : tuple of str
    index : ndarray, shape (n_obs,)
        Row labels of a frame (numbers, dates, else text), or 0 ... n_obs - 1.
    named : bool
        Whether the names came with the data rather than being made up.
    """

    values: np.ndarray
    feature_names: tuple[str, ...]
    index: np.ndarray
    named: bool


def check_data(X: Any, *, name: str = "X", min_rows: int = 1) -> Table:
    """Read a table of numbers from an array or a frame.

    Parameters
    ----------
    X : array, pandas, polars, pyarrow or xarray object, shape (n_obs, n_features)
    name : str
        How messages call it.
    min_rows : int
        Fewest rows accepted.

    Raises
    ------
    TypeError
        If this is not a table of numbers.
    ValueError
        If the shape is wrong, a value is missing or infinite, or names repeat.
    """
    values, names, index = _read(X, name)
    if values.ndim != 2:
        got = f"{values.shape}" if values.ndim else "a single number"
        hint = f". For one feature use {name}[:, None]" if values.ndim == 1 else ""
        raise ValueError(f"{name} must have shape (n_obs, n_features), got {got}{hint}.")
    n_obs, n_features = values.shape
    if n_features == 0:
        raise ValueError(f"{name} must have at least one column, got shape {values.shape}.")
    if n_obs < min_rows:
        raise ValueError(
            f"{name} must have at least {min_rows} row{'s' * (min_rows > 1)}, "
            f"got shape {values.shape}."
        )
    made_up = (f"x{d}" for d in range(n_features))
    feature_names = tuple(made_up if names is None else map(str, names))
    check_names(feature_names, name)
    _refuse_missing(values, feature_names, name)
    # One layout, for sums over rows are rounded by it.
    values = np.ascontiguousarray(values)
    return Table(values, feature_names, _row_labels(index, n_obs, name), names is not None)


def read_array(X: Any, name: str) -> np.ndarray:
    """Return an array-like of real numbers, of any shape, as a new float64 array."""
    wanted = f"{name} must be a table of numbers of shape (n_obs, n_features), got"
    for dense in ("toarray", "todense"):
        if hasattr(X, dense):
            raise TypeError(f"{name} is a sparse matrix; give {name}.{dense}().")
    if isinstance(X, (str, bytes, os.PathLike)) or hasattr(X, "read"):
        raise TypeError(f"{wanted} {type(X).__name__}; read the file first.")
    if X is None or isinstance(X, (dict, set, frozenset)):
        raise TypeError(f"{wanted} {type(X).__name__}.")
    if isinstance(X, Iterator):
        raise TypeError(f"{wanted} {type(X).__name__}; give np.array(list({name})).")
    if isinstance(X, np.matrix):
        raise TypeError(f"{name} is an np.matrix; give np.asarray({name}).")
    ragged = f"{name} must have rows of equal length, got a ragged {type(X).__name__}."
    try:
        array = np.asarray(X)
        if isinstance(X, (list, tuple)):
            # NumPy would turn True among numbers into 1.
            array = np.array(X, dtype=object)
    except Exception as error:
        if isinstance(X, (list, tuple)) and isinstance(error, ValueError):
            raise ValueError(ragged) from None
        raise TypeError(
            f"{wanted} {type(X).__name__}, which NumPy cannot read ({type(error).__name__})."
        ) from error
    if array.dtype == object:
        if array.ndim == 0 and not isinstance(X, (np.ndarray, numbers.Real)):
            raise TypeError(f"{wanted} {type(X).__name__}.")
        if array.ndim == 1 and any(isinstance(row, (list, tuple, np.ndarray)) for row in array):
            raise ValueError(ragged)
    if array.ndim == 2 and array.dtype == object and array.size:
        columns = [to_float(array[:, d], f"column {d} of {name}") for d in range(array.shape[1])]
        values = np.column_stack(columns)
    else:
        values = to_float(array, name)
    if isinstance(X, np.ma.MaskedArray):
        values[np.ma.getmaskarray(X)] = math.nan
    return values


def refuse_codes(X: Any, name: str) -> None:
    """Refuse booleans, categories, dates and numbers as text, which others would take for numbers.

    All other faults are left to who reads the table.

    Raises
    ------
    TypeError
        With the name of the column, as `check_data` has it.
    """
    if hasattr(X, "columns"):
        _read(X, name)
    elif isinstance(X, (list, tuple, np.ndarray)):
        # A list in one piece: NumPy would turn True among numbers into 1, and numbers beside text
        # into text.
        try:
            array = np.asarray(X, dtype=None if isinstance(X, np.ndarray) else object)
        except ValueError:
            return
        codes = (bool, np.bool_, str, bytes)
        if array.dtype.kind in "bmMUST":
            to_float(array, name)
        elif array.dtype == object and any(isinstance(value, codes) for value in array.flat):
            read_array(array, name)


def to_float(array: np.ndarray, what: str) -> np.ndarray:
    """Return a copy in native float64; anything that is not a number is refused, never coded."""
    kind = array.dtype.kind
    if kind == "O":
        values = [_number(value, row, what) for row, value in enumerate(array.flat)]
        return np.array(values, dtype=np.float64).reshape(array.shape)
    # Kind V is a record, or a number type that NumPy does not know by itself, such as bfloat16.
    small_float = kind == "V" and array.dtype.names is None and np.can_cast(array.dtype, np.float64)
    if kind not in "iuf" and not small_float:
        raise TypeError(
            f"{what} must hold real numbers, got {_KINDS.get(kind, array.dtype)}; {_ADVICE}."
        )
    with np.errstate(over="ignore"):
        return np.array(array, dtype=np.float64, order="C")


def _number(value: Any, row: int, what: str) -> float:
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if value is None or type(value).__name__ in _MISSING:
        return math.nan
    real = isinstance(value, (numbers.Real, Decimal))
    if not real or isinstance(value, (bool, np.bool_, np.timedelta64)):
        raise TypeError(
            f"{what} must hold real numbers, got {reprlib.repr(value)} "
            f"of type {type(value).__name__} in row {row}; {_ADVICE}."
        )
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except ValueError:  # Decimal("sNaN")
        return math.nan


def check_names(names: Sequence[str], name: str) -> None:
    repeated = sorted({c for c in names if names.count(c) > 1})
    if repeated:
        raise ValueError(
            f"{name} must have distinct column names, got {repeated} more than once; rename them."
        )
    _check_text(names, f"column names of {name}")


def _check_text(texts: Iterable[str], what: str) -> None:
    """Refuse text that UTF-8 or a netCDF file cannot hold, while nothing is lost by it."""
    for text in texts:
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"{what} must be text that a file can hold, got {text!r}; rename it.")


def _refuse_missing(values: np.ndarray, names: Sequence[str], name: str) -> None:
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    empty = np.isnan(values).all(axis=0)
    # Of a single row a column has but one cell.
    if len(values) > 1 and empty.any():
        raise ValueError(
            f"{name} must have numbers in every column, but column {names[int(empty.argmax())]!r} "
            "is empty; leave it out or fill it."
        )
    row, column = (int(i) for i in np.argwhere(bad)[0])
    n_missing = int(np.isnan(values).sum())
    n_infinite = int(np.isinf(values).sum())
    raise missing_error(name, n_missing, n_infinite, values.size, row, names[column])


def missing_error(
    name: str, n_missing: int, n_infinite: int, size: int, row: int, column: str
) -> ValueError:
    """What to raise for values that are not finite, the first of them in this row and column."""
    kinds = [
        f"{count} {kind}"
        for kind, count in (("missing", n_missing), ("infinite", n_infinite))
        if count
    ]
    return ValueError(
        f"{name} must be finite, got {' and '.join(kinds)} of {size} values, "
        f"the first in row {row}, column {column!r}. Drop or impute them: "
        "rows are never dropped silently."
    )


def _row_labels(index: Any, n_obs: int, name: str) -> np.ndarray:
    """Row labels that a file can hold: numbers, dates to the nanosecond, else text."""
    if index is None:
        return np.arange(n_obs)
    labels = np.asarray(index)
    if labels.dtype.kind == "f":
        return labels.astype(np.float64)
    if labels.dtype.kind in "iu":
        return labels
    if labels.dtype.kind == "M":
        # Older NumPy wraps around where newer NumPy raises.
        with suppress(OverflowError):
            dates = labels.astype("M8[ns]")
            if np.array_equal(dates.astype(labels.dtype), labels, equal_nan=True):
                return dates
    texts = [str(label) for label in index]
    _check_text(texts, f"row labels of {name}")
    return np.array(texts, dtype=object)


def _read(X: Any, name: str) -> _Columns:
    """Values, column names and row labels of whatever came."""
    if (pd := sys.modules.get("pandas")) and isinstance(X, (pd.DataFrame, pd.Series)):
        return _read_pandas(X, name)
    module = type(X).__module__.partition(".")[0]
    if module == "polars":
        return _read_polars(X, name)
    if (xr := sys.modules.get("xarray")) and (module == "xarray" or isinstance(X, xr.DataArray)):
        return _read_xarray(X, name)
    if module == "pyarrow" and hasattr(X, "to_pandas"):
        return _read(X.to_pandas(), name)
    if hasattr(X, "columns"):
        # As an array it would lose its names, and booleans would become numbers.
        raise TypeError(
            f"{name} is a {module} {type(X).__name__}; give it as a pandas or polars DataFrame."
        )
    return read_array(X, name), None, None


def _read_pandas(X: Any, name: str) -> _Columns:
    import pandas as pd

    if isinstance(X, pd.Series):
        raise ValueError(
            f"{name} must have shape (n_obs, n_features), got a Series of shape "
            f"{X.shape}. For one feature use {name}.to_frame()."
        )
    columns = []
    for d, column in enumerate(X.columns):
        series = X.iloc[:, d]
        what = f"column {str(column)!r} of {name}"
        if isinstance(series.dtype, pd.api.extensions.ExtensionDtype):
            columns.append(_read_extension(series, what))
        else:
            columns.append(to_float(series.to_numpy(), what))
    values = np.column_stack(columns) if columns else np.empty((len(X), 0))
    plain = X.index.dtype.kind in "iufM" and not isinstance(X.index.dtype, pd.DatetimeTZDtype)
    return values, list(X.columns), X.index.to_numpy() if plain else X.index


def _read_extension(series: Any, what: str) -> np.ndarray:
    """A nullable, categorical, sparse, Arrow-backed or date column of pandas."""
    import pandas as pd
    from pandas.api import types

    if isinstance(series.dtype, pd.CategoricalDtype):
        got = "categories"
    elif types.is_bool_dtype(series.dtype):
        got = "booleans"
    elif types.is_complex_dtype(series.dtype):
        got = "complex numbers"
    elif types.is_string_dtype(series.dtype):
        got = "text"
    elif types.is_numeric_dtype(series.dtype):
        return np.array(series.to_numpy(dtype=np.float64, na_value=math.nan))
    else:
        got = str(series.dtype)
    raise TypeError(f"{what} must hold real numbers, got {got}; {_ADVICE}.")


def _read_polars(X: Any, name: str) -> _Columns:
    import polars as pl

    if isinstance(X, pl.LazyFrame):
        raise TypeError(f"{name} is a polars LazyFrame; give {name}.collect().")
    if not isinstance(X, pl.DataFrame):
        raise ValueError(
            f"{name} must have shape (n_obs, n_features), got a polars "
            f"{type(X).__name__}. For one feature use {name}.to_frame()."
        )
    columns = []
    for column in X.columns:
        if not (X[column].dtype.is_numeric() or X[column].dtype == pl.Null):
            raise TypeError(
                f"column {column!r} of {name} must hold real numbers, "
                f"got {X[column].dtype}; {_ADVICE}."
            )
        columns.append(X[column].cast(pl.Float64).to_numpy())
    values = np.column_stack(columns) if columns else np.empty((X.height, 0))
    return values, X.columns, None


def _read_xarray(X: Any, name: str) -> _Columns:
    import xarray as xr

    from gmm_bayes._vocabulary import FEATURE, OBS

    if not isinstance(X, xr.DataArray):
        raise TypeError(
            f"{name} is an xarray {type(X).__name__}; give one DataArray with dims (obs, feature)."
        )
    if X.ndim == 2 and (X.dims[1] == OBS or X.dims[0] == FEATURE):
        # The order of named dims means nothing.
        X = X.transpose()
    values = read_array(X.values, name)
    if X.ndim != 2:
        return values, None, None
    rows, columns = X.dims
    names = list(X[columns].values) if columns in X.coords else None
    return values, names, X[rows].values if rows in X.coords else None

"""Every complaint about what a user handed over, raised before anything is traced."""

import difflib
import math
import numbers
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmm_bayes.errors import DataWarning

__all__ = [
    "Table",
    "check_choice",
    "check_columns",
    "check_data",
    "check_fit_size",
    "check_integer",
    "check_n_components",
    "check_positive",
    "check_probability",
    "check_seed",
    "nearest",
]

# Columns whose variance would leave the range of float64, with room for products of two.
_SMALLEST_SPREAD, _LARGEST_SPREAD = 1e-150, 1e150
_SEED_LIMIT = 2**32


@dataclass(frozen=True)
class Table:
    """Rows as float64 with the names that came with them.

    Attributes
    ----------
    values : ndarray, shape (n_obs, n_features), float64
    feature_names : tuple of str
    index : ndarray, shape (n_obs,)
        Row labels of a frame, else 0 ... n_obs - 1.
    named : bool
        Whether the names came with the data rather than being made up.
    """

    values: np.ndarray
    feature_names: tuple[str, ...]
    index: np.ndarray
    named: bool


# -- options --------------------------------------------------------------------------------------


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint with the names closest to a misspelt one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "known: " + ", ".join(known)


def check_choice(value: Any, name: str, known: Sequence[str]) -> str:
    """Return `value` if it is one of `known`."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(
            f"{name} must be one of {', '.join(known)}, got {value!r}; {nearest(str(value), known)}"
        )
    return value


def check_integer(value: Any, name: str, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`; floats and bools are refused."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"{name} must be an integer of at least {minimum}, "
            f"got {value!r} of type {type(value).__name__}"
        )
    if int(value) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def check_n_components(value: Any, n_obs: int | None = None) -> int:
    """Return the number of components, at most the number of rows."""
    n_components = check_integer(value, "n_components", 1)
    if n_obs is not None and n_components > n_obs:
        raise ValueError(
            f"n_components must be at most the number of rows, got "
            f"n_components={n_components} for {n_obs} rows; take fewer components"
        )
    return n_components


def check_probability(value: Any, name: str) -> float:
    """Return a number strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < 1:
        raise ValueError(f"{name} must be strictly between 0 and 1, got {value!r}")
    return float(value)


def check_positive(value: Any, name: str, shapes: dict[tuple[int, ...], str]) -> np.ndarray:
    """Return positive finite numbers of one of the given shapes (shape -> its name in words)."""
    array = check_finite(value, name)
    if array.shape not in shapes:
        wanted = " or ".join(
            f"{words} {shape}" if shape else words for shape, words in shapes.items()
        )
        raise ValueError(f"{name} must be {wanted}, got shape {array.shape}")
    if not (array > 0).all():
        raise ValueError(f"{name} must be positive, got {array[array <= 0].flat[0]:g}")
    return array


def check_finite(value: Any, name: str) -> np.ndarray:
    """Return a float64 array without NaN or infinity."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, got {value!r}") from None
    if isinstance(value, (bool, str)):
        raise TypeError(f"{name} must be numbers, got {value!r}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)].flat[0]}")
    return array


def check_seed(seed: Any) -> np.ndarray:
    """Return the words of a seed: of an int in [0, 2**32), or of a JAX key."""
    if isinstance(seed, numbers.Integral) and not isinstance(seed, (bool, np.bool_)):
        if not 0 <= int(seed) < _SEED_LIMIT:
            raise ValueError(f"seed must be in [0, 2**32), got {seed}")
        return np.array([seed], dtype=np.uint32)
    import jax
    import jax.numpy as jnp

    if isinstance(seed, jax.Array):
        if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key) and seed.shape == ():
            return np.asarray(jax.random.key_data(seed), dtype=np.uint32).ravel()
        if seed.dtype == np.uint32 and seed.ndim == 1:
            return np.asarray(seed)
    raise TypeError(
        f"seed must be an integer in [0, 2**32) or one JAX key, got {seed!r} "
        f"of type {type(seed).__name__}"
    )


# -- data -----------------------------------------------------------------------------------------


def check_data(X: Any, *, name: str = "X", min_rows: int = 1) -> Table:
    """Read a table of numbers from an array or a frame.

    Parameters
    ----------
    X : array, pandas, polars or xarray object, shape (n_obs, n_features)
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
        hint = ". For one feature use X[:, None]" if values.ndim == 1 else ""
        raise ValueError(f"{name} must have shape (n_obs, n_features), got {values.shape}{hint}.")
    n_obs, n_features = values.shape
    if n_features == 0:
        raise ValueError(f"{name} must have at least one column, got shape {values.shape}.")
    if n_obs < min_rows:
        raise ValueError(
            f"{name} must have at least {min_rows} row{'s' * (min_rows > 1)}, "
            f"got shape {values.shape}."
        )
    feature_names = (
        tuple(map(str, names)) if names is not None else tuple(f"x{d}" for d in range(n_features))
    )
    repeated = sorted({c for c in feature_names if feature_names.count(c) > 1})
    if repeated:
        raise ValueError(f"{name} must have distinct column names, got {repeated} more than once.")
    _refuse_missing(values, feature_names, name)
    index = np.arange(n_obs) if index is None else index
    return Table(values, feature_names, index, names is not None)


def check_fit_size(table: Table, n_components: int, n_parameters: int) -> list[str]:
    """Check that there is something to learn; return what the data cannot teach, in words.

    Raises
    ------
    ValueError
        If a column is constant or its variance over- or underflows.
    """
    values, names = table.values, table.feature_names
    n_obs, n_features = values.shape
    low, high = values.min(axis=0), values.max(axis=0)
    largest = np.maximum(abs(low), abs(high))
    # A handful of representable values apart is the same number, measured once.
    flat = high - low <= 4 * np.spacing(largest)
    if flat.any():
        column = int(np.argmax(flat))
        what = "all rows are equal" if flat.all() else f"column {names[column]!r} is constant"
        raise ValueError(
            f"X must vary in every column, but {what} (value {low[column]:g}); drop the column."
        )
    with np.errstate(over="ignore", under="ignore"):
        spread = high / 2 - low / 2
    wild = (spread < _SMALLEST_SPREAD) | (spread > _LARGEST_SPREAD) | ~np.isfinite(spread)
    if wild.any():
        column = int(np.argmax(wild))
        flow = "overflow" if spread[column] > 1 else "underflow"
        raise ValueError(
            f"the variance of column {names[column]!r} would {flow} float64 "
            f"(half its range is {spread[column]:g}); change its units."
        )
    cautions = []
    if n_features >= n_obs:
        cautions.append(
            f"X has {n_features} columns and only {n_obs} rows: correlations between "
            "columns come from the prior"
        )
    if n_parameters > n_obs * n_features:
        cautions.append(
            f"{n_components} components have {n_parameters} parameters but X has only "
            f"{n_obs * n_features} numbers: much of the answer comes from the prior"
        )
    return cautions


def check_columns(table: Table, feature_names: Sequence[str]) -> np.ndarray:
    """Return the values of new rows after checking that their columns are those of the fit."""
    expected = tuple(feature_names)
    if table.values.shape[1] != len(expected):
        raise ValueError(
            f"X must have the {len(expected)} columns of the fit, "
            f"{list(expected)}, got {table.values.shape[1]} columns."
        )
    made_up = tuple(f"x{d}" for d in range(len(expected)))
    if table.named and expected != made_up and table.feature_names != expected:
        raise ValueError(
            f"X must have the columns of the fit in their order, {list(expected)}, "
            f"got {list(table.feature_names)}; select X[{list(expected)}]."
        )
    return table.values


def warn_data(message: str) -> None:
    """Issue a DataWarning at the caller of the public function."""
    import warnings

    warnings.warn(message, DataWarning, stacklevel=3)


def _refuse_missing(values: np.ndarray, names: Sequence[str], name: str) -> None:
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    row, column = (int(i) for i in np.argwhere(bad)[0])
    kinds = [
        f"{count} {kind}"
        for kind, count in (
            ("missing", int(np.isnan(values).sum())),
            ("infinite", int(np.isinf(values).sum())),
        )
        if count
    ]
    raise ValueError(
        f"{name} must be finite, got {' and '.join(kinds)} of {values.size} values, "
        f"the first in row {row}, column {names[column]!r}. Drop or impute them: "
        "rows are never dropped silently."
    )


def _read(X: Any, name: str) -> tuple[np.ndarray, list[str] | None, np.ndarray | None]:
    """Values, column names and index of whatever came."""
    module = type(X).__module__.partition(".")[0]
    if module == "pandas":
        return _read_pandas(X, name)
    if module == "polars":
        return _read_polars(X, name)
    if module == "xarray":
        return _read_xarray(X, name)
    return _read_array(X, name), None, None


def _read_array(X: Any, name: str) -> np.ndarray:
    if X is None or isinstance(X, (str, bytes, os.PathLike, dict, set)):
        hint = "; read the file first" if isinstance(X, (str, bytes, os.PathLike)) else ""
        raise TypeError(
            f"{name} must be a table of numbers of shape (n_obs, n_features), "
            f"got {type(X).__name__}{hint}."
        )
    if hasattr(X, "toarray") and not hasattr(X, "__array__"):
        raise TypeError(f"{name} is a sparse matrix; give {name}.toarray().")
    if isinstance(X, np.matrix):
        raise TypeError(f"{name} is an np.matrix; give np.asarray({name}).")
    if isinstance(X, np.ma.MaskedArray):
        if np.ma.is_masked(X):
            row, column = (int(i) for i in np.argwhere(np.ma.getmaskarray(X))[0][:2])
            raise ValueError(
                f"{name} must be finite, got {np.ma.count_masked(X)} masked values, "
                f"the first in row {row}, column {column}."
            )
        X = X.data
    try:
        array = np.asarray(X)
    except ValueError:
        raise ValueError(
            f"{name} must have rows of equal length, got a ragged {type(X).__name__}."
        ) from None
    except TypeError as error:
        raise TypeError(
            f"{name} must be a table of numbers, got {type(X).__name__}: {error}"
        ) from None
    if array.ndim == 2 and array.dtype == object:
        columns = [_to_float(array[:, d], f"column {d} of {name}") for d in range(array.shape[1])]
        return np.column_stack(columns) if columns else array.astype(np.float64)
    return _to_float(array, name)


def _to_float(array: np.ndarray, what: str) -> np.ndarray:
    """Numbers as native float64; anything that is not a number is refused, never coded."""
    kind = array.dtype.kind
    if kind == "O":
        for value in array.flat:
            if value is not None and (
                isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real)
            ):
                raise TypeError(
                    f"{what} must hold numbers, got {value!r} of type {type(value).__name__}."
                )
        return np.array(
            [math.nan if v is None else float(v) for v in array.flat], dtype=np.float64
        ).reshape(array.shape)
    if kind not in "iuf":
        kinds = {
            "b": "booleans",
            "c": "complex numbers",
            "M": "dates",
            "m": "time differences",
            "U": "text",
            "S": "text",
            "T": "text",
            "V": "records",
        }
        raise TypeError(f"{what} must hold real numbers, got {kinds.get(kind, array.dtype)}.")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float64)


def _read_pandas(X: Any, name: str) -> tuple[np.ndarray, list[str] | None, np.ndarray | None]:
    import pandas as pd

    if not isinstance(X, pd.DataFrame):
        if isinstance(X, pd.Series):
            raise ValueError(
                f"{name} must have shape (n_obs, n_features), got a Series of shape "
                f"{X.shape}. For one feature use X.to_frame()."
            )
        raise TypeError(f"{name} must be a table of numbers, got {type(X).__name__}.")
    columns = []
    for d, column in enumerate(X.columns):
        series = X.iloc[:, d]
        what = f"column {str(column)!r} of {name}"
        if isinstance(series.dtype, pd.CategoricalDtype):
            raise TypeError(f"{what} must hold numbers, got categories.")
        if isinstance(series.dtype, (pd.SparseDtype, pd.core.dtypes.base.ExtensionDtype)):
            columns.append(_read_extension(series, what))
        else:
            columns.append(_to_float(series.to_numpy(), what))
    values = np.column_stack(columns) if columns else np.empty((len(X), 0))
    index = X.index.to_numpy()
    if index.dtype.kind not in "iufM":
        index = np.array([str(i) for i in index], dtype=object)
    return values, [str(c) for c in X.columns], index


def _read_extension(series: Any, what: str) -> np.ndarray:
    """A nullable, sparse, Arrow-backed or date column of pandas."""
    from pandas.api import types

    if types.is_bool_dtype(series.dtype):
        raise TypeError(f"{what} must hold real numbers, got booleans.")
    if not types.is_numeric_dtype(series.dtype):
        raise TypeError(f"{what} must hold real numbers, got {series.dtype}.")
    return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))


def _read_polars(X: Any, name: str) -> tuple[np.ndarray, list[str] | None, np.ndarray | None]:
    import polars as pl

    if isinstance(X, pl.LazyFrame):
        raise TypeError(f"{name} is a polars LazyFrame; give {name}.collect().")
    if not isinstance(X, pl.DataFrame):
        raise ValueError(
            f"{name} must have shape (n_obs, n_features), got a polars "
            f"{type(X).__name__}. For one feature use X.to_frame()."
        )
    columns = []
    for column in X.columns:
        if not X[column].dtype.is_numeric():
            raise TypeError(
                f"column {column!r} of {name} must hold real numbers, got {X[column].dtype}."
            )
        columns.append(X[column].cast(pl.Float64).to_numpy())
    values = np.column_stack(columns) if columns else np.empty((X.height, 0))
    return values, list(X.columns), None


def _read_xarray(X: Any, name: str) -> tuple[np.ndarray, list[str] | None, np.ndarray | None]:
    import xarray as xr

    if not isinstance(X, xr.DataArray):
        raise TypeError(
            f"{name} is an xarray {type(X).__name__}; give one DataArray with dims (obs, feature)."
        )
    values = _read_array(X.values, name)
    if X.ndim != 2:
        return values, None, None
    rows, columns = X.dims
    names = [str(c) for c in X[columns].values] if columns in X.coords else None
    index = np.asarray(X[rows].values) if rows in X.coords else None
    return values, names, index

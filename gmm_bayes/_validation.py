"""Every complaint about what a user handed over, raised before anything is traced."""

import difflib
import numbers
import reprlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gmm_bayes._tables import Table, check_data, read_array
from gmm_bayes._ties import repeated_rows, tied_columns
from gmm_bayes._vocabulary import DEVICES
from gmm_bayes.errors import DataWarning

__all__ = [
    "WIDE_FROM_PRIOR",
    "Table",
    "check_choice",
    "check_columns",
    "check_data",
    "check_device",
    "check_finite",
    "check_fit_size",
    "check_flag",
    "check_integer",
    "check_n_components",
    "check_near",
    "check_nonnegative",
    "check_positive",
    "check_probability",
    "check_row_weights",
    "check_seed",
    "nearest",
    "warn_data",
]

# Columns whose variance would leave the range of float64. There is room for sums over many rows and
# for draws of a heavy-tailed scale.
_SMALLEST_SPREAD, _LARGEST_SPREAD = 1e-140, 1e140
# Fewer representable numbers than this within the range of a column is too coarse.
_FEW_STEPS = 1000
# Of the correlations of linearly dependent columns.
_SMALLEST_EIGENVALUE = 1e-10
# Interquartile ranges from the median.
_FAR = 1000
# Beyond, the square of a distance in component standard deviations leaves float64.
_FARTHEST = 1e140
_SEED_LIMIT = 2**32
_NAMES_SHOWN = 8
WIDE_FROM_PRIOR = "correlations between columns come from the prior"


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
        hint = f"; {nearest(value, known)}" if isinstance(value, str) else ""
        raise ValueError(
            f"{name} must be one of {', '.join(known)}, got {reprlib.repr(value)}{hint}"
        )
    return value


def check_device(value: Any) -> tuple[str, int | None]:
    """Return the kind of a device and its index, None where that is left open."""
    kind, colon, index = value.partition(":") if isinstance(value, str) else (value, "", "")
    if colon and not (kind in ("cpu", "gpu") and index.isdecimal() and index.isascii()):
        raise ValueError(
            f"device must be one of {', '.join(DEVICES)}, or a kind with an index such as 'gpu:1', "
            f"got {reprlib.repr(value)}"
        )
    return check_choice(kind, "device", DEVICES), int(index) if colon else None


def check_flag(value: Any, name: str) -> bool:
    """Return True or False; NumPy's will do."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def check_integer(value: Any, name: str, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`; floats and bools are refused."""
    if not _is_integer(value):
        raise TypeError(
            f"{name} must be an integer of at least {minimum}, "
            f"got {reprlib.repr(value)} of type {type(value).__name__}"
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


def check_nonnegative(value: Any, name: str) -> float:
    """Return a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{name} must be a number of at least 0, got {reprlib.repr(value)} of type "
            f"{type(value).__name__}"
        )
    if not 0 <= float(value) < np.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value!r}")
    return float(value)


def check_row_weights(value: Any, n_obs: int) -> np.ndarray | None:
    """Return the weights of rows, None for equal ones: finite, not negative, some positive."""
    if value is None:
        return None
    weights = check_finite(value, "sample_weight")
    if weights.shape != (n_obs,):
        raise ValueError(
            f"sample_weight must have shape (n_obs,) = ({n_obs},), got {weights.shape}"
        )
    if (weights < 0).any():
        raise ValueError(f"sample_weight must not be negative, got {weights.min():g}")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < np.inf:
        raise ValueError(
            f"sample_weight must have a positive, finite sum, got {total:g}; give weights near 1"
            + ", not zero for all rows" * bool(total == 0)
        )
    return weights


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
    """Return a new float64 array, of any shape, without NaN or infinity."""
    if value is None or isinstance(value, (bool, np.bool_, str, bytes, dict, set)):
        raise TypeError(
            f"{name} must be numbers, got {reprlib.repr(value)} of type {type(value).__name__}"
        )
    array = read_array(value, name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)].flat[0]}")
    return array


def check_seed(seed: Any) -> np.ndarray:
    """Return the words of a seed: of an int in [0, 2**32), or of a JAX key."""
    if _is_integer(seed):
        if not 0 <= int(seed) < _SEED_LIMIT:
            raise ValueError(f"seed must be in [0, 2**32), got {seed}")
        return np.array([int(seed)], dtype=np.uint32)
    import jax
    import jax.numpy as jnp

    if isinstance(seed, jax.Array):
        if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key) and seed.shape == ():
            return np.asarray(jax.random.key_data(seed), dtype=np.uint32).ravel()
        # The raw keys of JAX's two kinds of generator.
        if seed.dtype == np.uint32 and seed.shape in {(2,), (4,)}:
            return np.asarray(seed)
    got = f"shape {seed.shape}" if hasattr(seed, "shape") else reprlib.repr(seed)
    raise TypeError(
        f"seed must be an integer in [0, 2**32) or one JAX key, got {got} "
        f"of type {type(seed).__name__}"
    )


def _is_integer(value: Any) -> bool:
    # NumPy counts time differences among its integers.
    return isinstance(value, numbers.Integral) and not isinstance(
        value, (bool, np.bool_, np.timedelta64)
    )


# -- data -----------------------------------------------------------------------------------------


def check_fit_size(
    table: Table,
    n_components: int,
    n_parameters: int,
    *,
    wide: str | None = WIDE_FROM_PRIOR,
    flattens: bool = True,
) -> list[str]:
    """Check that there is something to learn; return what the data cannot teach, in words.

    `wide` says what columns as many as rows mean to the model, None that they mean nothing;
    `flattens` whether a component of it may be narrow in one column while nothing else is.

    Raises
    ------
    ValueError
        If a column is constant, its variance over- or underflows, or there are fewer distinct rows
        than components.
    """
    _refuse_flat(table)
    _refuse_wild(table)
    n_obs, n_features = table.values.shape
    cautions = [
        *_coarse_columns(table),
        *_far_rows(table),
        *repeated_rows(table.values, n_components),
    ]
    if n_components > 1 and flattens:
        cautions += tied_columns(table.values, table.feature_names)
    if n_features < n_obs:
        cautions += _dependent_columns(table)
    elif wide:
        cautions.append(f"X has {n_features} columns and only {n_obs} rows: {wide}")
    if n_parameters > n_obs * n_features:
        cautions.append(
            f"{n_components} components have {n_parameters} parameters but X has only "
            f"{n_obs * n_features} numbers: much of the answer comes from the prior"
        )
    return cautions


def _refuse_flat(table: Table) -> None:
    values = table.values
    low, high = values.min(axis=0), values.max(axis=0)
    largest = np.maximum(abs(low), abs(high))
    # A handful of representable values apart is the same number, measured once.
    with np.errstate(over="ignore"):
        flat = high - low <= 4 * np.spacing(largest)
    if flat.any():
        column = int(np.argmax(flat))
        name, value = table.feature_names[column], low[column]
        if flat.all() and len(flat) > 1:
            raise ValueError(
                "X must vary, but all its rows are equal: there is nothing to learn from them."
            )
        raise ValueError(
            f"X must vary in every column, but column {name!r} is constant (value {value:g}); "
            "drop the column."
        )


def _refuse_wild(table: Table) -> None:
    low, high = table.values.min(axis=0), table.values.max(axis=0)
    with np.errstate(over="ignore", under="ignore"):
        spread = high / 2 - low / 2
    wild = (spread < _SMALLEST_SPREAD) | (spread > _LARGEST_SPREAD) | ~np.isfinite(spread)
    if wild.any():
        column = int(np.argmax(wild))
        flow = "overflow" if spread[column] > 1 else "underflow"
        raise ValueError(
            f"the variance of column {table.feature_names[column]!r} would {flow} float64 "
            f"(half its range is {spread[column]:g}); change its units."
        )


def _coarse_columns(table: Table) -> Iterator[str]:
    """Columns so far from zero that float64 has rounded their variation away."""
    low, high = table.values.min(axis=0), table.values.max(axis=0)
    steps = (high - low) / np.spacing(np.maximum(abs(low), abs(high)))
    for column in np.flatnonzero(steps < _FEW_STEPS):
        yield (
            f"column {table.feature_names[column]!r} holds at most {steps[column] + 1:.0f} "
            f"distinct numbers, rounded near {high[column]:g}: subtract a constant before it is "
            "stored as float64"
        )


def _far_rows(table: Table) -> Iterator[str]:
    """A value so far out that it alone sets the scale of its column."""
    # One column at a time: a table may fill much of the memory.
    for name, values in zip(table.feature_names, table.values.T, strict=True):
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        distance = abs(values - middle)
        row = int(distance.argmax())
        if high > low and distance[row] > _FAR * (high - low):
            yield (
                f"row {table.index[row]} holds {values[row]:g} in column {name!r}, more than "
                f"{_FAR} times the interquartile range from the median: it sets the scale of the "
                "column; check it, or leave it out"
            )


def _dependent_columns(table: Table) -> Iterator[str]:
    """Columns that are sums of others: the full and tied covariances have no inverse."""
    values = table.values - table.values.mean(axis=0)
    values /= column_spreads(values)
    correlations = values.T @ values / len(values)
    eigenvalues, vectors = np.linalg.eigh(correlations)
    if eigenvalues[0] < _SMALLEST_EIGENVALUE:
        involved = np.flatnonzero(abs(vectors[:, 0]) > 0.1)
        yield (
            f"columns {_listed([table.feature_names[d] for d in involved])} are linearly "
            "dependent, so full and tied covariances have no inverse: drop one of them"
        )


def check_columns(table: Table, feature_names: Sequence[str], *, name: str = "X") -> np.ndarray:
    """Return the values of new rows, their columns those of the fit and in its order."""
    expected, got = tuple(feature_names), table.feature_names
    if len(got) != len(expected):
        raise ValueError(
            f"{name} must have the {len(expected)} columns of the fit, {_listed(expected)}, "
            f"got {len(got)} columns{f', {_listed(got)}' * table.named}."
        )
    if table.named and got != expected and set(got) == set(expected):
        # At the caller of the public function that reads the rows.
        warnings.warn(
            f"{name} has the columns of the fit in another order, {_listed(got)}: they are taken "
            f"by name, as {_listed(expected)}",
            DataWarning,
            stacklevel=4,
        )
        return np.ascontiguousarray(table.values[:, [got.index(name) for name in expected]])
    # Made-up names say nothing.
    if table.named and got != expected and expected != tuple(f"x{d}" for d in range(len(got))):
        raise ValueError(
            f"{name} must have the columns of the fit, {_listed(expected)}, got {_listed(got)}; "
            "rename or select them, or give an array without names."
        )
    return table.values


def check_near(
    rows: np.ndarray, training: np.ndarray, feature_names: Sequence[str], *, name: str = "X"
) -> None:
    """Refuse new rows so far from the training rows that their densities leave float64."""
    far = abs(rows - training.mean(axis=0)) > _FARTHEST * column_spreads(training)
    if far.any():
        row, column = (int(i) for i in np.argwhere(far)[0])
        raise ValueError(
            f"{name} must lie within {_FARTHEST:g} standard deviations of the training rows, "
            f"or densities overflow; got {rows[row, column]:g} in row {row}, column "
            f"{feature_names[column]!r}. Are the units those of the fit?"
        )


def column_spreads(X: np.ndarray) -> np.ndarray:
    """Standard deviation of each column, one at a time: a table may fill much of the memory."""
    return np.array([column.std() for column in X.T])


def warn_data(message: str, stacklevel: int = 3) -> None:
    """Issue a DataWarning at the caller of the public function."""
    warnings.warn(message, DataWarning, stacklevel=stacklevel)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_NAMES_SHOWN]))
    return f"[{shown}{', ...' * (len(names) > _NAMES_SHOWN)}]"

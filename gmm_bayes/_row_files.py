"""Rows that stay in their file: `fit` reads them in pieces, each process those that it needs."""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gmm_bayes._tables import check_names, to_float
from gmm_bayes._validation import nearest
from gmm_bayes.errors import MissingDependencyError, TableError

__all__ = ["RowFile", "check_has_columns", "damaged", "need_pyarrow"]

# Numbers in a piece: what is read at once.
_NUMBERS = 2**20
Pieces = Callable[[int, int], Iterator[np.ndarray]]


class _Contents(NamedTuple):
    n_obs: int
    names: tuple[str, ...] | None
    n_features: int
    pieces: Pieces


class RowFile:
    """A table in a file that is larger than the memory of one process.

    `fit(RowFile(path), ...)` samples the same posterior as `fit` of the table would, without ever
    holding it: it is read twice, in pieces, and then its rows are on the devices, in standard
    units. Spread over several devices by `mesh`, rows are read by the processes that have those
    devices alone. A random sample of at most 20,000 rows is kept in the result.

    Parameters
    ----------
    path : path
        A .npy file (two dimensions, real numbers) or a .parquet file, which is read by its groups
        of rows. It must not change while it is used.
    columns : sequence of str, optional
        Columns of a .parquet file to take, in this order.

    Attributes
    ----------
    path : pathlib.Path
        Absolute.
    shape : tuple of int
        (n_obs, n_features).
    feature_names : tuple of str
    named : bool
        Whether the names are in the file rather than made up.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, OSError
        If there is no such file, or it cannot be read.
    TypeError
        If a column does not hold real numbers.
    ValueError
        If the shape is wrong or names repeat.
    TableError
        If it is not such a file, or lacks a column.
    MissingDependencyError
        If a .parquet file is asked for without pyarrow, the extra `parquet`.

    Examples
    --------
    >>> import numpy as np
    >>> import gmm_bayes as gb
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/rows.npy", gb.datasets.load_old_faithful())
    ...     gb.RowFile(f"{folder}/rows.npy").shape
    (272, 2)
    """

    def __init__(self, path: "str | Path", columns: Sequence[str] | None = None) -> None:
        self.path = Path(path).absolute()
        suffix = self.path.suffix.lower()
        if suffix not in _OPENERS:
            raise TableError(
                f"{path} cannot stay in its file: only {' and '.join(_OPENERS)} files can be read "
                "in pieces; convert it to one of these"
            )
        if self.path.is_dir():
            raise IsADirectoryError(f"{path} is a directory; name a file in it")
        if not self.path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        if columns is not None and suffix != ".parquet":
            raise TableError(f"{path} has no names of columns to choose by; leave out columns")
        self._columns = None if columns is None else tuple(columns)
        found = _OPENERS[suffix](self.path, self._columns)
        if found.n_obs < 2:
            raise ValueError(
                f"{path} must have at least 2 rows, got shape {(found.n_obs, found.n_features)}."
            )
        if found.n_features == 0:
            raise ValueError(
                f"{path} must have at least one column, got shape "
                f"{(found.n_obs, found.n_features)}."
            )
        self.named = found.names is not None
        self.feature_names = found.names or tuple(f"x{d}" for d in range(found.n_features))
        check_names(self.feature_names, str(path))
        self.shape = (found.n_obs, found.n_features)
        self._pieces = found.pieces

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"RowFile({str(self.path)!r}): {self.shape[0]} rows, {self.shape[1]} columns"

    @property
    def source(self) -> dict[str, Any]:
        """The arguments that open it again, as JSON has them."""
        columns = None if self._columns is None else list(self._columns)
        return {"path": str(self.path), "columns": columns}

    def pieces(self, begin: int = 0, end: int | None = None) -> Iterator[np.ndarray]:
        """Yield rows begin ... end - 1, in order, as float64 arrays (some rows, n_features)."""
        return self._pieces(begin, self.shape[0] if end is None else end)

    def read(self) -> np.ndarray:
        """All rows as one float64 array, shape (n_obs, n_features)."""
        return np.concatenate(list(self.pieces()))


def damaged(path: Path) -> TableError:
    """What to raise for a file that is not what its name says."""
    return TableError(
        f"{path} is not a readable {path.suffix} file: it is damaged, or holds Python objects, "
        "which are never loaded"
    )


def need_pyarrow(path: Path) -> None:
    """Raise where there is no pyarrow to read a file."""
    if find_spec("pyarrow") is None:
        raise MissingDependencyError(
            f"reading {path} needs pyarrow; install it with pip install 'gmm-bayes[parquet]'"
        )


def check_has_columns(columns: Sequence[str], names: Sequence[str], source: str) -> None:
    """Raise if one of the columns asked for is not there."""
    for column in columns:
        if column not in names:
            raise TableError(f"{source} has no column {column!r}; {nearest(column, names)}")


def _open_npy(path: Path, columns: Any) -> _Contents:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception:
        # A damaged header makes NumPy raise whatever Python's parser does.
        raise damaged(path) from None
    if array.ndim != 2:
        hint = ". For one feature save X[:, None]" * (array.ndim == 1)
        raise ValueError(f"{path} must have shape (n_obs, n_features), got {array.shape}{hint}.")
    # For its complaint about what are no numbers.
    to_float(array[:0], str(path))
    size = max(1, _NUMBERS // max(1, array.shape[1]))

    def pieces(begin: int, end: int) -> Iterator[np.ndarray]:
        for first in range(begin, end, size):
            # A new map each time: the pages of an old one would stay in memory.
            rows = np.lib.format.open_memmap(path, mode="r")
            yield to_float(rows[first : min(first + size, end)], str(path))

    return _Contents(len(array), None, array.shape[1], pieces)


def _open_parquet(path: Path, columns: tuple[str, ...] | None) -> _Contents:
    need_pyarrow(path)
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema, facts = file.schema_arrow, file.metadata
            sizes = [facts.row_group(i).num_rows for i in range(facts.num_row_groups)]
    except Exception:
        raise damaged(path) from None
    # What pandas had as row labels is no column.
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    names = tuple(name for name in schema.names if name not in index)
    if columns is not None:
        check_has_columns(columns, names, str(path))
        names = columns
    # Of names that occur twice too, which are complained about with those of other files.
    kinds = dict(zip(schema.names, schema.types, strict=True))
    for name in names:
        _check_type(kinds[name], f"column {name!r} of {path}")
    ends = np.cumsum(sizes, dtype=np.int64)
    size = max(1, _NUMBERS // max(1, len(names)))

    def pieces(begin: int, end: int) -> Iterator[np.ndarray]:
        first = int(np.searchsorted(ends, begin, side="right"))
        last = int(np.searchsorted(ends, end, side="left"))
        at = int(ends[first - 1]) if first else 0
        groups = list(range(first, min(last + 1, len(sizes))))
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(size, groups, list(names), use_threads=False):
                low, high = max(begin - at, 0), min(end - at, batch.num_rows)
                at += batch.num_rows
                if low < high:
                    some = batch.slice(low, high - low)
                    yield np.column_stack([_column(some.column(name), name) for name in names])

    return _Contents(int(sum(sizes)), names, len(names), pieces)


def _column(values: Any, name: str) -> np.ndarray:
    return to_float(values.to_numpy(zero_copy_only=False), f"column {name!r}")


def _check_type(kind: Any, what: str) -> None:
    from pyarrow import types

    number = (types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    if not any(test(kind) for test in number):
        raise TypeError(
            f"{what} must hold real numbers, got {kind}; leave it out or turn it into numbers "
            "yourself."
        )


_OPENERS: dict[str, Callable[[Path, Any], _Contents]] = {
    ".npy": _open_npy,
    ".parquet": _open_parquet,
}

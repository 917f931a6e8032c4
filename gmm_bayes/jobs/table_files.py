"""Tables in files: CSV, NumPy and Parquet, with complaints that name the line and the column."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmm_bayes._row_files import check_has_columns, damaged, need_pyarrow
from gmm_bayes._validation import nearest
from gmm_bayes.errors import TableError
from gmm_bayes.jobs.csv_table import CsvTable, name_the_rows, names_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["column_names", "read_table", "select_columns"]

logger = logging.getLogger(__name__)

_SUFFIXES = (".csv", ".npy", ".npz", ".parquet")


def read_table(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    index: str | None = None,
    array: str | None = None,
    delimiter: str = ",",
    decimal: str = ".",
    header: bool = True,
) -> "pd.DataFrame | np.ndarray":
    """Read a table from a file; the suffix says of which kind. Pickled objects are never loaded.

    Parameters
    ----------
    path : path
        A .csv, .npy, .npz or .parquet file.
    columns : sequence of str, optional
        Columns of a .csv or .parquet file to take, in this order.
    index : str, optional
        The column of a .csv or .parquet file that names the rows.
    array : str, optional
        Name of an array in an .npz file; may be left out if there is only one.
    delimiter, decimal : str
        Of a .csv file: one character each.
    header : bool
        Whether the first line of a .csv file holds names; else they are x0, x1, ...

    Returns
    -------
    pandas.DataFrame or ndarray, shape (n_obs, n_features)
        As in the file: missing values are still missing.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, OSError
        If there is no such file or it cannot be read.
    TableError
        If what is in it is not such a table.
    MissingDependencyError
        If a .parquet file is asked for without the extra for it.
    """
    source = Path(path)
    _check_file(source)
    suffix = source.suffix.lower()
    if suffix == ".csv":
        return CsvTable(source, delimiter, decimal, header).read(columns, index)
    if suffix == ".npy":
        return _read_npy(source)
    if suffix == ".npz":
        return _read_npz(source, array)
    frame = _named_rows(_read_parquet(source), index, str(source))
    if columns is None:
        _propose_index(frame, str(source))
    return select_columns(frame, columns, str(source))


def column_names(path: Path, delimiter: str, decimal: str, header: bool) -> list[str]:
    """The names of all columns of a .csv or .parquet file, in its order; of others none.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, OSError, TableError, MissingDependencyError
        As `read_table` does.
    """
    _check_file(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return CsvTable(path, delimiter, decimal, header).names
    if suffix != ".parquet":
        return []
    need_pyarrow(path)
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
    except Exception:
        raise damaged(path) from None
    # What pandas had as row labels is no column.
    labels = (schema.pandas_metadata or {}).get("index_columns", [])
    return [name for name in schema.names if name not in labels]


def select_columns(
    frame: "pd.DataFrame", columns: Sequence[str] | None, source: str
) -> "pd.DataFrame":
    """Return some columns of a frame, shape (n_obs, len(columns)); None takes all of them.

    Raises
    ------
    TableError
        If `source` has no such column.
    """
    if columns is None:
        return frame
    check_has_columns(columns, [str(c) for c in frame.columns], source)
    return frame[list(columns)]


def _named_rows(frame: "pd.DataFrame", index: str | None, source: str) -> "pd.DataFrame":
    """The frame with one of its columns for row labels."""
    if index is None:
        return frame
    check_has_columns([index], [str(c) for c in frame.columns], source)
    names = frame[index]
    for fault, bad in (("missing", names.isna()), ("not the only one", names.duplicated())):
        if bad.any():
            raise TableError(
                f"{source}: column {index!r} names the rows (data.index), but in row "
                f"{int(bad.to_numpy().argmax())} it is {fault}"
            )
    return frame.set_index(index)


def _propose_index(frame: "pd.DataFrame", source: str) -> None:
    for name, cells in frame.items():
        if cells.dtype.kind not in "iufb" and len(cells) > 1 and names_rows(cells):
            raise TableError(
                f"{source}: column {str(name)!r} must hold real numbers, got text; "
                f"{name_the_rows(str(name))}"
            )


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise TableError(f"{path} is not a regular file")
    if path.suffix.lower() not in _SUFFIXES:
        raise TableError(
            f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(_SUFFIXES)}"
        )
    if path.stat().st_size == 0:
        raise TableError(f"{path} is empty")


def _read_npy(path: Path) -> np.ndarray:
    try:
        # A map, so that a table is not held twice: whoever checks it makes a copy.
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        # An array of no numbers has no map; what is damaged is found out below.
        logger.debug("%s: %s", path, error)
    # A damaged header makes NumPy raise whatever Python's parser does.
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception:
        raise damaged(path) from None


def _read_npz(path: Path, array: str | None) -> np.ndarray:
    try:
        # A file object, so that what is not an archive is closed too.
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an archive")
            return arrays[_choose(path, arrays.files, array)]
    except TableError:
        raise
    except Exception:
        raise damaged(path) from None


def _choose(path: Path, names: list[str], array: str | None) -> str:
    if array is None:
        if len(names) != 1:
            raise TableError(
                f"{path} holds {len(names)} arrays ({', '.join(names)}); choose one with data.array"
            )
        return names[0]
    if array not in names:
        raise TableError(f"{path} has no array {array!r}; {nearest(array, names)}")
    return array


def _read_parquet(path: Path) -> "pd.DataFrame":
    need_pyarrow(path)
    import pandas as pd

    try:
        return pd.read_parquet(path, engine="pyarrow")
    except Exception:
        raise damaged(path) from None

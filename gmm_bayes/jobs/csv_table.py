"""One CSV file as a table of numbers, with complaints that name the line and the column."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_bayes._row_files import check_has_columns
from gmm_bayes.errors import TableError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CsvTable", "name_the_rows", "names_rows"]

_OTHER_DELIMITERS = {";": ";", "\t": "\\t", "|": "|", ",": ","}
_DECIMAL_COMMAS = 'for decimal commas set data.decimal = "," and data.delimiter = ";"'
_LONGEST_SHOWN = 60


class CsvTable:
    """A CSV file that is being read.

    pandas fills short rows up with missing values and takes a surplus first column for an index, so
    the shape is checked before pandas reads the numbers.

    Parameters
    ----------
    path : Path
    delimiter, decimal : str
        One character each.
    header : bool
        Whether the first line holds the names of the columns.
    """

    def __init__(self, path: Path, delimiter: str, decimal: str, header: bool) -> None:
        self.path, self.delimiter, self.decimal, self.header = path, delimiter, decimal, header

    def read(self, columns: Sequence[str] | None, index: str | None = None) -> "pd.DataFrame":
        """Return columns of numbers, shape (n_obs, n_features); None takes all but the index.

        Raises
        ------
        TableError
            If the file is not such a table.
        """
        import pandas as pd

        self._check_rows()
        self._all = columns is None
        wanted = self._wanted(columns, index)
        frame = self._pandas(usecols=wanted, decimal=self.decimal, low_memory=False)
        numbers = {
            self.names[position]: (
                frame[position]
                if frame[position].dtype.kind in "iuf"
                else self._convert(self._pandas(usecols=[position], dtype=str)[position], position)
            )
            for position in wanted
        }
        for name, column in numbers.items():
            self._refuse_gaps(name, column)
        frame = pd.DataFrame(numbers)
        return frame if index is None else frame.set_axis(self._labels(index))

    def _labels(self, name: str) -> "pd.Index":
        """The column that names the rows: text as it stands there, or whole numbers."""
        import pandas as pd

        position = self.names.index(name)
        cells = self._pandas(usecols=[position], dtype=str, keep_default_na=False)[position]
        cells = cells.str.strip()
        where = f"column {name!r} names the rows (data.index)"
        for row in np.flatnonzero(cells == "").tolist():
            raise self._error(self._line(row), f"{where}, but is empty here")
        for row in np.flatnonzero(cells.duplicated()).tolist():
            first = self._line(int((cells == cells[row]).to_numpy().argmax()))
            raise self._error(
                self._line(row), f"{where}, but {cells[row]!r} is already the name of line {first}"
            )
        if cells.str.fullmatch(r"0|-?[1-9]\d{0,17}").all():
            return pd.Index(cells.astype(np.int64), name=name)
        return pd.Index(cells.to_numpy(dtype=object), name=name)

    def _refuse_gaps(self, name: str, column: "pd.Series") -> None:
        """Name the line, as of other faults, and not the row."""
        values = column.to_numpy(dtype=np.float64)
        bad = ~np.isfinite(values)
        if not bad.any():
            return
        missing = np.isnan(values)
        # Of a single row it is the cell that is missing.
        if missing.all() and len(values) > 1:
            raise TableError(
                f"{self.path}: column {name!r} is empty; leave it out with data.columns"
            )
        line = self._line(int(bad.argmax()))
        n_missing, n_infinite = int(missing.sum()), int((bad & ~missing).sum())
        counts = [
            f"{n} {kind}" for n, kind in ((n_missing, "missing"), (n_infinite, "infinite")) if n
        ]
        raise TableError(
            f"{self.path}: line {line}, column {name!r}: expected a finite number, the first of "
            f"{' and '.join(counts)} in {len(values)} rows of this column; drop or impute them: "
            "rows are never dropped silently"
        )

    def _line(self, row: int) -> int:
        """Number of the first line (from 1) of a row (from 0)."""
        return next(n for i, (n, _) in enumerate(self._records()) if i == row + self.header)

    @cached_property
    def text(self) -> str:
        """The file without a byte order mark and without empty lines at its end."""
        content = self.path.read_bytes().removeprefix(codecs.BOM_UTF8)
        try:
            text = content.decode("utf-8").rstrip(" \r\n")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise self._error(line, "not UTF-8; save the file as UTF-8") from None
        if not text:
            raise TableError(f"{self.path} is empty")
        return text

    @cached_property
    def names(self) -> list[str]:
        """The names of the columns; x0, x1, ... without a header."""
        _, first = next(self._records())
        first = [cell.strip() for cell in first]
        if len(first) == 1:
            for character, written in _OTHER_DELIMITERS.items():
                if character in first[0]:
                    raise self._error(
                        1,
                        f"only one column, {first[0][:_LONGEST_SHOWN]!r}; "
                        f'set data.delimiter = "{written}"',
                    )
        if not self.header:
            return [f"x{d}" for d in range(len(first))]
        if all(_is_number(cell.replace(self.decimal, ".")) for cell in first):
            raise self._error(
                1,
                "expected the names of the columns, got numbers only; "
                "if the file has no header, set data.header = false",
            )
        return first

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Number of the first line (from 1) and cells of each record."""
        lines = io.StringIO(self.text, newline="")
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        line = 1
        try:
            for cells in reader:
                yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise self._error(line, str(error)) from None

    def _check_rows(self) -> None:
        """Refuse rows of another length than the first, and empty lines between rows."""
        width, count = len(self.names), 0
        for line, cells in self._records():
            count += 1
            if len(cells) < 2 and not "".join(cells).strip():
                raise self._error(line, "empty line between rows; delete it or fill it")
            if len(cells) != width:
                comma = self.delimiter == "," and len(cells) == 2 * width
                raise self._error(
                    line,
                    f"expected {width} cell{'s' * (width > 1)} as in line 1, got {len(cells)}"
                    + f"; {_DECIMAL_COMMAS}" * comma,
                )
        if self.header and count == 1:
            raise TableError(f"{self.path} has a header but no rows")

    def _wanted(self, columns: Sequence[str] | None, index: str | None) -> list[int]:
        """Positions of the columns to be read."""
        asked = [*(columns or ()), *([] if index is None else [index])]
        check_has_columns(asked, self.names, str(self.path))
        if index is not None and self.names.count(index) > 1:
            raise self._error(1, f"column name {index!r} more than once")
        wanted = [name for name in self.names if name != index] if columns is None else columns
        for position, name in enumerate(wanted):
            if not name:
                raise self._error(
                    1,
                    f"column {position + 1} has no name (a saved index?); "
                    "choose the columns with data.columns",
                )
            if self.names.count(name) > 1:
                raise self._error(1, f"column name {name!r} more than once")
        return [self.names.index(name) for name in wanted]

    def _pandas(self, **options: Any) -> "pd.DataFrame":
        import pandas as pd

        return pd.read_csv(
            io.StringIO(self.text),
            sep=self.delimiter,
            header=0 if self.header else None,
            names=range(len(self.names)),
            **options,
        )

    def _convert(self, cells: "pd.Series", position: int) -> "pd.Series":
        """A column that pandas did not take for numbers: numbers after all, or an error."""
        import pandas as pd

        # Swapped, so that a point is not taken for the decimal sign where that is a comma.
        swap = str.maketrans(",.", ".,") if self.decimal == "," else {}
        numbers = pd.to_numeric(cells.str.translate(swap), errors="coerce")
        bad = (numbers.isna() & cells.notna()).to_numpy()
        if not bad.any():
            return numbers.astype(np.float64)
        row = int(bad.argmax())
        line = self._line(row)
        cell = str(cells.iloc[row]).strip()[:_LONGEST_SHOWN]
        hint = "choose the columns of numbers with data.columns"
        if re.fullmatch(r"[+-]?\d*,\d+", cell):
            hint = _DECIMAL_COMMAS
        elif self.decimal == "," and _is_number(cell):
            hint = 'set data.decimal = "."'
        elif self._all and names_rows(cells):
            hint = name_the_rows(self.names[position])
        raise TableError(
            f"{self.path}: line {line}, column {self.names[position]!r}: expected a number, "
            f"got {cell!r}; {hint}"
        )

    def _error(self, line: int, message: str) -> TableError:
        return TableError(f"{self.path}: line {line}: {message}")


def names_rows(cells: "pd.Series") -> bool:
    """Whether a column looks like names of rows: all text, each another."""
    if not cells.notna().all() or not cells.is_unique:
        return False
    if not all(isinstance(cell, str) for cell in cells):
        return False
    return not any(_is_number(c) or c.strip().lower() in ("", "true", "false") for c in cells)


def name_the_rows(name: str) -> str:
    """What to do with such a column."""
    return (
        f'if it names the rows, set data.index = "{name}"; else choose the columns of numbers with '
        "data.columns"
    )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) is not None

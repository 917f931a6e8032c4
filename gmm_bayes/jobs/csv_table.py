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

__all__ = ["CsvTable"]

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

    def read(self, columns: Sequence[str] | None) -> "pd.DataFrame":
        """Return columns of numbers, shape (n_obs, n_features); None takes all of them.

        Raises
        ------
        TableError
            If the file is not such a table.
        """
        import pandas as pd

        self._check_rows()
        wanted = self._wanted(columns)
        frame = self._pandas(usecols=wanted, decimal=self.decimal, low_memory=False)
        numbers = {
            self.names[position]: (
                frame[position]
                if frame[position].dtype.kind in "iuf"
                else self._convert(self._pandas(usecols=[position], dtype=str)[position], position)
            )
            for position in wanted
        }
        return pd.DataFrame(numbers)

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

    def _wanted(self, columns: Sequence[str] | None) -> list[int]:
        """Positions of the columns to be read."""
        if columns is not None:
            check_has_columns(columns, self.names, str(self.path))
        wanted = self.names if columns is None else columns
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
        line = next(n for i, (n, _) in enumerate(self._records()) if i == row + self.header)
        cell = str(cells.iloc[row]).strip()[:_LONGEST_SHOWN]
        hint = "choose the columns of numbers with data.columns"
        if re.fullmatch(r"[+-]?\d*,\d+", cell):
            hint = _DECIMAL_COMMAS
        elif self.decimal == "," and _is_number(cell):
            hint = 'set data.decimal = "."'
        raise TableError(
            f"{self.path}: line {line}, column {self.names[position]!r}: expected a number, "
            f"got {cell!r}; {hint}"
        )

    def _error(self, line: int, message: str) -> TableError:
        return TableError(f"{self.path}: line {line}: {message}")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) is not None

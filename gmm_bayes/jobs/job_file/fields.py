"""What a key of a job file may hold, and what is said of it if it does not."""

import math
from pathlib import PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from gmm_bayes._validation import check_device

__all__ = ["Character", "Device", "Inside", "Numbers", "Section", "Text", "shown"]


def _clean(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"must be printable and not empty, got {text!r}")
    return text


def _inside(text: str) -> str:
    # Windows' rules know the separators and the roots of every system.
    path = PureWindowsPath(text)
    if path.anchor or ".." in path.parts:
        raise ValueError(
            f"must be a relative path without '..', got {text!r}; "
            "to write elsewhere, use --out on the command line"
        )
    return text


def _device(text: str) -> str:
    try:
        check_device(text)
    except ValueError as error:
        raise ValueError(str(error).partition(" ")[2]) from None
    return text


def _character(text: str) -> str:
    usable = text == "\t" or (text.isascii() and text.isprintable() and not text.isalnum())
    if len(text) != 1 or not usable or text in '"+-.':
        raise ValueError(f"must be one character such as ',' or ';' or a tab, got {text!r}")
    return text


def _numbers(value: Any) -> Any:
    """A number, a list of numbers or a matrix of numbers, all finite."""
    rows = value if isinstance(value, list) else [value]
    if not rows:
        raise ValueError("must not be an empty list")
    if all(isinstance(row, list) for row in rows):
        if not rows[0] or len({len(row) for row in rows}) > 1:
            raise ValueError("must have rows of equal length, at least one number each")
        rows = [cell for row in rows for cell in row]
    for cell in rows:
        if isinstance(cell, bool) or not isinstance(cell, (int, float)):
            raise ValueError(f"must be a number or a list of numbers, got {shown(cell)}")
        try:
            finite = math.isfinite(cell)
        except OverflowError:
            finite = False
        if not finite:
            raise ValueError("must be finite")
    return value


def shown(value: Any) -> str:
    """A value as a message shows it."""
    if isinstance(value, (list, dict)):
        return f"a {'list' if isinstance(value, list) else 'table'}"
    return str(value).lower() if isinstance(value, bool) else repr(value)[:60]


Text = Annotated[str, AfterValidator(_clean)]
Inside = Annotated[str, AfterValidator(_clean), AfterValidator(_inside)]
Device = Annotated[str, AfterValidator(_device)]
Character = Annotated[str, AfterValidator(_character)]
Numbers = Annotated[Any, AfterValidator(_numbers)]


class Section(BaseModel):
    """A section whose keys and types are taken as they are, or refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

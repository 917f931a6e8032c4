"""What the components are: posterior means and sds of each, as a frame and in lines of text."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from gmm_bayes._vocabulary import CHAIN, COMPONENT, DRAW, FEATURE, MEANS, SCALES, WEIGHTS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["component_cells", "component_frame", "component_text", "why_no_table"]

_MOST_LINES = 60
_COLUMNS = {WEIGHTS: "weight", MEANS: "mean", SCALES: "sd"}


def component_frame(posterior: xr.Dataset) -> "pd.DataFrame":
    """One line for each component and column of the data, as `GMMFit.summary` documents it."""
    import pandas as pd

    over, shape = (CHAIN, DRAW), posterior[MEANS].isel({CHAIN: 0, DRAW: 0})
    columns = {}
    # Draws that are not finite are for the verdict to speak of.
    with np.errstate(invalid="ignore", over="ignore"):
        for site, name in _COLUMNS.items():
            for suffix, measure in (("", "mean"), ("_sd", "std")):
                value = getattr(posterior[site], measure)(over).broadcast_like(shape)
                columns[name + suffix] = value.transpose(COMPONENT, FEATURE).values.ravel()
    lines = [posterior.coords[COMPONENT].values, posterior.coords[FEATURE].values]
    index = pd.MultiIndex.from_product(lines, names=[COMPONENT, FEATURE])
    return pd.DataFrame(columns, index)


def component_cells(posterior: xr.Dataset) -> Iterator[tuple[str, ...]]:
    """The same in words, mean +/- sd, under a line of titles; a long table is cut."""
    yield ("component", "weight", "column", "mean", "sd")
    frame = component_frame(posterior)
    for (component, feature), line in frame.head(_MOST_LINES - 1).iterrows():
        weight, mean, sd = (_number(line[c], line[f"{c}_sd"]) for c in _COLUMNS.values())
        new = feature == frame.index[0][1]
        yield (str(component) * new, weight * new, str(feature), mean, sd)
    if len(frame) >= _MOST_LINES:
        left = len(frame) - _MOST_LINES + 1
        yield (f"... {left} more lines; fit.summary() has all",)


def component_text(posterior: xr.Dataset) -> str:
    """The table in columns of equal width."""
    return "\n".join(_align(list(component_cells(posterior))))


def why_no_table(fit: Any, *, switched: bool) -> str:
    """Why an average per component means nothing; empty where it means something."""
    if fit.mixes_modes:
        return (
            "draws are of several modes, so that an average per component mixes them; "
            "gmm_bayes.modes(fit) has each"
        )
    if not switched:
        return ""
    if fit.alignment is None:
        return (
            "they changed places between draws, so that an average per component means nothing; "
            "gmm_bayes.align_labels(fit) renumbers them"
        )
    return "some cannot be told apart, so that an average of these means nothing"


def _number(mean: float, sd: float) -> str:
    """Two digits of the uncertainty, and the mean to the same place."""
    if 1e-6 < sd < 1e7 and abs(mean) < 1e7:
        digits = max(0, 1 - math.floor(math.log10(sd)))
        return f"{mean:.{digits}f} +/- {sd:.{digits}f}"
    return f"{mean:.6g} +/- {sd:.2g}"


def _align(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Columns of equal width; the line that says what was cut is as long as it is."""
    whole = [row for row in rows if len(row) > 1]
    widths = np.array([[len(cell) for cell in row] for row in whole]).max(axis=0)
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        yield "  ".join(cells).rstrip()

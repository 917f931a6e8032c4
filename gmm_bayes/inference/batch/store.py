"""What many fits are made of, and its file: one netCDF file, as that of a single fit."""

import datetime
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gmm_bayes._validation import Table
from gmm_bayes.errors import FileFormatError
from gmm_bayes.inference.batch.draws import ManyDraws
from gmm_bayes.inference.batch.sampling import stack
from gmm_bayes.inference.potential import ModelSpec, space
from gmm_bayes.inference.result import netcdf
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.model.priors import PriorArrays

__all__ = ["FORMAT", "DataSet", "read", "write"]

FORMAT = "gmm_bayes.ManyFits"
_VERSION = 1
_DRAWS, _STATS, _FACTS = "draws", "stats", "facts"
_ROWS, _PRIORS, _UNITS = "rows", "priors", "units"
_AFFINE = ("loc", "scale")
# What is kept of the tree's attributes beside those of every fit.
_NAMES, _TABLES, _SECONDS = "names", "tables", "seconds"


@dataclass(frozen=True)
class DataSet:
    """One of the data sets: its rows, its prior in the user's units, and its standard units."""

    name: Hashable
    table: Table
    prior: PriorArrays
    units: Standardization


def write(
    sets: Sequence[DataSet], draws: ManyDraws, attributes: dict[str, Any], target: Path
) -> Path:
    """Write many fits to one file, whole or not at all.

    Raises
    ------
    TypeError
        If the name of a set cannot be written down.
    OSError
        As `netcdf.write` says.
    """
    tables = [one.table for one in sets]
    about = {
        _NAMES: [_encode(one.name) for one in sets],
        _TABLES: [[len(t.values), t.index.dtype.str, t.named, t.feature_names] for t in tables],
        _SECONDS: draws.seconds,
    }
    units = {name: np.stack([getattr(one.units, name) for one in sets]) for name in _AFFINE}
    groups = {
        _DRAWS: _dataset({"z": draws.z}),
        _STATS: _dataset(draws.stats),
        _FACTS: _dataset(draws.facts),
        _ROWS: _dataset({"values": np.concatenate([t.values for t in tables]), **_labels(tables)}),
        _PRIORS: _dataset(stack([one.prior for one in sets])._asdict()),
        _UNITS: _dataset(units),
    }
    written = {name: json.dumps(value) for name, value in about.items()}
    tagged = {**attributes, **written, "format": FORMAT, "format_version": _VERSION}
    return netcdf.write(netcdf.build(groups, tagged), target, netcdf.open_tree)


def read(
    tree: xr.DataTree, source: Path
) -> tuple[list[DataSet], ManyDraws, ModelSpec, dict[str, Any]]:
    """Return the sets, draws, model and attributes that `write` wrote into a tree.

    Raises
    ------
    FileFormatError
        If it is damaged, or of another format version.
    """
    if tree.attrs.get("format_version") != _VERSION:
        raise FileFormatError(
            f"{source} has format version {tree.attrs.get('format_version')} of {FORMAT}, this "
            f"gmm_bayes reads version {_VERSION}; load it with the version that wrote it"
        )
    try:
        attributes: dict[str, Any] = {
            **{str(name): value for name, value in tree.attrs.items()},
            "format": netcdf.FORMAT,
            "format_version": netcdf.FORMAT_VERSION,
        }
        about = {name: json.loads(attributes.pop(name)) for name in (_NAMES, _TABLES, _SECONDS)}
        spec = ModelSpec(*(attributes[name] for name in ModelSpec._fields))
        arrays = {
            name: {str(key): np.array(value.values) for key, value in node.to_dataset().items()}
            for name, node in tree.children.items()
        }
        tables = _tables(arrays[_ROWS], about[_TABLES])
        sets = [
            DataSet(
                _decode(name),
                table,
                PriorArrays(*(arrays[_PRIORS][field][i] for field in PriorArrays._fields)),
                Standardization(*(arrays[_UNITS][field][i] for field in _AFFINE)),
            )
            for i, (name, table) in enumerate(zip(about[_NAMES], tables, strict=True))
        ]
        here = space(spec, sets[0].table.values.shape[1])
        facts, seconds = arrays[_FACTS], about[_SECONDS]
        draws = ManyDraws(here, arrays[_DRAWS]["z"], arrays[_STATS], facts, seconds)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{source} is damaged: it is not what ManyFits.save wrote ({type(error).__name__}); "
            "save the fits again"
        ) from error
    return sets, draws, spec, attributes


def _dataset(arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Arrays under their names; dims have those of their axes."""
    return xr.Dataset(
        {
            name: ([f"{name}_{axis}" for axis in range(np.ndim(array))], array)
            for name, array in arrays.items()
        }
    )


def _labels(tables: Sequence[Table]) -> dict[str, np.ndarray]:
    """The row labels of all tables, those of one type joined."""
    kinds = dict.fromkeys(t.index.dtype.str for t in tables)
    return {
        f"labels_{n}": np.concatenate([t.index for t in tables if t.index.dtype.str == kind])
        for n, kind in enumerate(kinds)
    }


def _tables(rows: dict[str, np.ndarray], about: Sequence[Any]) -> list[Table]:
    """Cut the joined rows into tables again."""
    kinds = list(dict.fromkeys(kind for _, kind, *_ in about))
    begin, begins, tables = 0, dict.fromkeys(kinds, 0), []
    for n_obs, kind, named, names in about:
        own = slice(begins[kind], begins[kind] + n_obs)
        index = rows[f"labels_{kinds.index(kind)}"][own].astype(kind)
        tables.append(Table(rows["values"][begin : begin + n_obs], tuple(names), index, named))
        begin, begins[kind] = begin + n_obs, begins[kind] + n_obs
    return tables


def _encode(name: Any) -> Any:
    """A name as JSON has it."""
    if isinstance(name, tuple):
        return {"tuple": [_encode(part) for part in name]}
    if isinstance(name, np.generic):
        name = name.item()
    if isinstance(name, datetime.datetime | datetime.date):
        return {"date": name.isoformat()}
    if name is None or isinstance(name, str | bool | int | float):
        return name
    raise TypeError(
        "names of data sets must be text, numbers, dates or tuples of them to be saved, got "
        f"{name!r} ({type(name).__name__}); rename that set, or pickle the fits"
    )


def _decode(name: Any) -> Any:
    import pandas as pd

    if not isinstance(name, dict):
        return name
    if "tuple" in name:
        return tuple(_decode(part) for part in name["tuple"])
    return pd.Timestamp(name["date"])

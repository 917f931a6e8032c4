"""The arguments of a fit, checked: what a run that goes on must have in common with its start."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmm_bayes._row_files import RowFile
from gmm_bayes._validation import Table, check_seed
from gmm_bayes._vocabulary import InitMethod, Precision
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.rows.survey import Survey
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.inference.sampling.registry import Sampler, restore_sampler
from gmm_bayes.model.priors import Priors

__all__ = ["Arguments", "data_hash", "from_stored", "plain", "stored_rows", "to_stored"]

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Arguments:
    """What `fit` was given.

    Attributes
    ----------
    table : Table
        The rows, or a sample of those in a file.
    spec : ModelSpec
    sampler : NUTS, ChEES or Laplace
    init : str or MixtureParameters
    n_init : int
    words : ndarray of uint32
        Of the seed.
    device : str
    mesh : dict of int, optional
        Sizes of the axes of the mesh of devices.
    precision : str
    priors : Priors, optional
        As given.
    seen : Survey, optional
        Of the file in which the rows stay.
    """

    table: Table
    spec: ModelSpec
    sampler: Sampler
    init: InitMethod | MixtureParameters
    n_init: int
    words: np.ndarray
    device: str
    mesh: dict[str, int] | None
    precision: Precision
    priors: Priors | None
    seen: Survey | None = None

    @property
    def rows(self) -> RowFile | None:
        """The file in which the rows stay."""
        return None if self.seen is None else self.seen.rows

    @property
    def n_obs(self) -> int:
        """Number of rows, wherever they are."""
        return len(self.table.values) if self.rows is None else self.rows.shape[0]

    @property
    def units(self) -> Standardization:
        """The map of all rows to standard units."""
        structure = COVARIANCE_STRUCTURES[self.spec.covariance_type]
        # A file whose rows are all in the sample gives the draws of a table, bit for bit.
        if self.seen is None or len(self.table.values) == self.n_obs:
            return Standardization.of(self.table.values, structure)
        return Standardization.of_columns(self.seen.loc, self.seen.scale, structure)

    def config(self) -> dict[str, Any]:
        """Every argument but the data by the name that it has in `fit`, for JSON."""
        given = {
            "n_components": self.spec.n_components,
            "covariance_type": self.spec.covariance_type,
            "priors": self.priors,
            "sampler": self.sampler,
            "init": self.init,
            "n_init": self.n_init,
            "device": self.device,
            "mesh": self.mesh,
            "precision": self.precision,
        }
        config = {name: plain(name, value) for name, value in given.items()}
        return {**config, "seed": self.words.tolist()}


def plain(name: str, value: Any) -> Any:
    """Return an argument of `fit` as JSON has it; numbers keep every digit."""
    if name == "seed":
        return check_seed(value).tolist()
    if name == "sampler":
        value = NUTS() if value is None else value
        return {"kind": type(value).__name__, **dataclasses.asdict(value)}
    if isinstance(value, Priors):
        fields = (field.name for field in dataclasses.fields(value))
        return {name: _numbers(getattr(value, name)) for name in fields}
    if isinstance(value, MixtureParameters):
        return {name: _numbers(array) for name, array in value._asdict().items()}
    return value.item() if isinstance(value, np.generic) else value


def data_hash(table: Table, seen: Survey | None = None) -> str:
    """A hash of the rows, those in a file included, of their labels and the columns' names."""
    arrays = _table_arrays(table)
    if seen is not None:
        arrays["digest"] = np.array(seen.digest, np.uint64)
    pieces = [f"{n}{a.dtype.str}{a.shape}".encode() + a.tobytes() for n, a in arrays.items()]
    return hashlib.sha256(b"".join(pieces)).hexdigest()


def to_stored(arguments: Arguments, priors: Priors) -> Arrays:
    """Arrays that, with the config, make the arguments again; `priors` have every gap filled."""
    arrays = {**_table_arrays(arguments.table), "priors": _text(plain("priors", priors))}
    if arguments.rows is not None:
        arrays["rows"] = _text(arguments.rows.source)
    return arrays


def stored_rows(arrays: Arrays) -> dict[str, Any] | None:
    """The arguments of the `RowFile` of a run, if it had one."""
    return _read(arrays["rows"]) if "rows" in arrays else None


def from_stored(config: Mapping[str, Any], arrays: Arrays) -> tuple[Arguments, Priors]:
    """The arguments, and the priors with every gap filled, of a run."""
    index = arrays["index"]
    if not bool(arrays["index_is_number"]):
        index = np.array(_read(index), dtype=object)
    table = Table(arrays["X"], tuple(_read(arrays["names"])), index, bool(arrays["named"]))
    spec = ModelSpec(config["n_components"], config["covariance_type"])
    init: Any = config["init"]
    if not isinstance(init, str):
        init = MixtureParameters(**{name: np.array(values) for name, values in init.items()})
    priors = config["priors"]
    arguments = Arguments(
        table,
        spec,
        restore_sampler(config["sampler"]),
        init,
        config["n_init"],
        np.array(config["seed"], np.uint32),
        config["device"],
        config["mesh"],
        config["precision"],
        None if priors is None else Priors(**priors),
    )
    return arguments, Priors(**_read(arrays["priors"]))


def _table_arrays(table: Table) -> Arrays:
    number = table.index.dtype.kind in "iufM"
    return {
        "X": table.values,
        "names": _text(table.feature_names),
        "index": table.index if number else _text(table.index.tolist()),
        "index_is_number": np.array(number),
        "named": np.array(table.named),
    }


def _numbers(value: Any) -> Any:
    return None if value is None else np.asarray(value).tolist()


def _text(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _read(text: np.ndarray) -> Any:
    return json.loads(text.tobytes())

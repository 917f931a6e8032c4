"""The arguments of a fit, checked: what a run that goes on must have in common with its start."""

import dataclasses
import difflib
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, NotRequired, ParamSpec, TypeVar

import numpy as np
from typing_extensions import TypedDict

from gmm_bayes._row_files import RowFile
from gmm_bayes._validation import Table, check_choice, check_n_components, check_seed, nearest
from gmm_bayes._vocabulary import CovarianceType, InitMethod, Precision
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.rows.survey import Survey
from gmm_bayes.inference.sampling.registry import (
    by_option,
    check_sampler,
    restore_sampler,
    stored_sampler,
)
from gmm_bayes.inference.sampling.sampler import Sampler
from gmm_bayes.model.priors import Priors

__all__ = [
    "Arguments",
    "check_model",
    "data_hash",
    "from_stored",
    "known_keywords",
    "plain",
    "stored_rows",
    "to_stored",
]

Arrays = dict[str, np.ndarray]
_P = ParamSpec("_P")
_R = TypeVar("_R")
# What others call it.
_ALSO_CALLED = {"random_state": "seed", "K": "n_components", "k": "n_components"}


def known_keywords(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Refuse a keyword that a function does not have with the nearest that it, or a sampler, has.

    It adds a call between a function and its caller, for the stack level of warnings.
    """
    own = tuple(inspect.signature(function).parameters)

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name in kwargs.keys() - set(own):
            called = f"{function.__name__}() got an unexpected keyword argument {name!r}"
            raise TypeError(f"{called}; {_hint(name, own)}")
        return function(*args, **kwargs)

    return call


def _hint(name: str, own: tuple[str, ...]) -> str:
    if name in _ALSO_CALLED:
        return f"did you mean {_ALSO_CALLED[name]!r}?"
    settings = {
        field.name: f"sampler=gmm_bayes.{kind.__name__}({field.name}=...)"
        for kind in reversed(by_option().values())
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    }
    if name in settings:
        return f"it is a setting of the sampler: {settings[name]}"
    close = difflib.get_close_matches(name, (*own, *settings), n=3, cutoff=0.5)
    if not close:
        return nearest(name, own)
    return "did you mean " + " or ".join(settings.get(one, repr(one)) for one in close) + "?"


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
    n_init : int, optional
    seed : ndarray of uint32
    device : str
    mesh : dict of int, optional
        Sizes of the axes of the mesh of devices.
    precision : str
    priors : Priors, optional
        As given.
    seen : Survey, optional
        Of the file in which the rows stay.
    survey : bool
        Whether modes are looked for.
    """

    table: Table
    spec: ModelSpec
    sampler: Sampler
    init: InitMethod | MixtureParameters
    n_init: int | None
    seed: np.ndarray
    device: str
    mesh: dict[str, int] | None
    precision: Precision
    priors: Priors | None
    seen: Survey | None = None
    survey: bool = True

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
            "survey": self.survey,
            "device": self.device,
            "mesh": self.mesh,
            "precision": self.precision,
        }
        config = {name: plain(name, value) for name, value in given.items()}
        return {**config, "seed": self.seed.tolist()}


def check_model(n_components: Any, covariance_type: Any, priors: Any) -> ModelSpec:
    """Return the model that options ask for, refusing what no data could be fitted with."""
    k = check_n_components(n_components)
    check_choice(covariance_type, "covariance_type", tuple(COVARIANCE_STRUCTURES))
    if priors is not None and not isinstance(priors, Priors):
        raise TypeError(f"priors must be a gmm_bayes.Priors, got {type(priors).__name__}")
    return ModelSpec(k, covariance_type)


def plain(name: str, value: Any) -> Any:
    """Return an argument of `fit` as JSON has it; numbers keep every digit."""
    if name == "seed":
        return check_seed(value).tolist()
    if name == "sampler":
        return stored_sampler(check_sampler(value))
    if isinstance(value, Priors):
        fields = (field.name for field in dataclasses.fields(value))
        return {name: _numbers(getattr(value, name)) for name in fields}
    if isinstance(value, MixtureParameters):
        return {name: _numbers(array) for name, array in value._asdict().items()}
    return value.item() if isinstance(value, np.generic) else value


class _Config(TypedDict):
    """What `Arguments.config` writes, so that a damaged manifest is refused by its types."""

    n_components: int
    covariance_type: CovarianceType
    priors: dict[str, Any] | None
    sampler: dict[str, Any]
    init: InitMethod | dict[str, Any]
    n_init: int | None
    survey: NotRequired[bool]
    device: str
    mesh: dict[str, int] | None
    precision: Precision
    seed: list[int]


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
    # Which takes a while to import, and a new run does not need.
    from pydantic import ConfigDict, TypeAdapter, with_config

    stored = TypeAdapter(with_config(ConfigDict(strict=True))(_Config)).validate_python(
        dict(config)
    )
    index = arrays["index"]
    if not bool(arrays["index_is_number"]):
        index = np.array(_read(index), dtype=object)
    table = Table(arrays["X"], tuple(_read(arrays["names"])), index, bool(arrays["named"]))
    spec = ModelSpec(stored["n_components"], stored["covariance_type"])
    init: Any = stored["init"]
    if not isinstance(init, str):
        init = MixtureParameters(**{name: np.array(values) for name, values in init.items()})
    priors = stored["priors"]
    arguments = Arguments(
        table,
        spec,
        restore_sampler(stored["sampler"]),
        init,
        stored["n_init"],
        np.array(stored["seed"], np.uint32),
        stored["device"],
        stored["mesh"],
        stored["precision"],
        None if priors is None else Priors(**priors),
        survey=stored.get("survey", True),
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

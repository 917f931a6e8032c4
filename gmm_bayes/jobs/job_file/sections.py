"""The sections of a job file, typed.

A job file is TOML with the sections below; only `[data]` and `[model]` must be there. A key that is
not known is refused, and so is a value of the wrong type: nothing is guessed or converted.
"""

import dataclasses
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from gmm_bayes._validation import check_choice
from gmm_bayes._vocabulary import CovarianceType, InitMethod, Precision
from gmm_bayes.datasets import LOADERS
from gmm_bayes.inference.sampling.registry import by_option
from gmm_bayes.inference.sampling.sampler import Sampler
from gmm_bayes.jobs.job_file.fields import Character, Device, Numbers, Section, Text, shown
from gmm_bayes.jobs.job_file.results import AnomaliesSection, LabelsSection, OutputSection
from gmm_bayes.model.priors import Priors

__all__ = ["JobConfig", "SweepSection", "sampler_keys", "sampler_section"]

# The kind of sampler where none is named: that of `fit`.
_DEFAULT = next(iter(by_option()))
# The kinds of files that a key of [data] is about; where none are named, .csv files.
_KINDS = {
    "array": (".npz",),
    "columns": (".csv", ".parquet"),
    "index": (".csv", ".parquet"),
    "in_memory": (".npy", ".parquet"),
}


class DataSection(Section):
    """`[data]`: the rows to be fitted. Exactly one of `path` and `dataset`.

    Parameters
    ----------
    path : str, optional
        A .csv, .npy, .npz or .parquet file, relative to the job file.
    dataset : {"old_faithful", "crabs", "galaxies", "iris", "blobs"}, optional
        A data set that comes with the package.
    columns : list of str, optional
        Columns to take, in this order. Default: all of them, which must then be numbers.
    index : str, optional
        A column of a .csv or .parquet file that names the rows: it is not fitted, and stands beside
        each row in every table that is written.
    array : str, optional
        Name of the array in an .npz file with several of them.
    delimiter : str, default ","
        What separates the cells of a .csv file, one character.
    decimal : {".", ","}, default "."
        The decimal sign of a .csv file.
    header : bool, default true
        Whether the first line of a .csv file holds the names of the columns.
    in_memory : bool, default true
        False leaves the rows of a .npy or .parquet file where they are: they are read in pieces,
        by each process those that it needs, and the result keeps a random sample of them.
    """

    path: Text | None = None
    dataset: Literal["old_faithful", "crabs", "galaxies", "iris", "blobs"] | None = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    index: Text | None = None
    array: Text | None = None
    delimiter: Character = ","
    decimal: Literal[".", ","] = "."
    header: bool = True
    in_memory: bool = True

    def of(self, path: Path) -> dict[str, Any]:
        """What this section says of how another file is read, as a section of a job file."""
        given = self.model_dump(exclude_defaults=True, exclude={"path", "dataset"})
        suffix = path.suffix.lower()
        rules = {key: v for key, v in given.items() if suffix in _KINDS.get(key, (".csv",))}
        return {"path": str(path.absolute()), **rules}

    @field_validator("columns")
    @classmethod
    def _distinct(cls, columns: list[str] | None) -> list[str] | None:
        twice = [name for name in columns or () if (columns or []).count(name) > 1]
        if twice:
            raise ValueError(f"must be distinct, got {twice[0]!r} more than once")
        return columns

    @field_validator("columns", "index", "array", "delimiter", "decimal", "header", "in_memory")
    @classmethod
    def _applies(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        kinds = _KINDS.get(info.field_name, (".csv",))
        path = info.data.get("path")
        named = info.field_name == "columns" and path is None
        suffix = Path(path).suffix.lower() if path else None
        if value != cls.model_fields[info.field_name].default and not named and suffix not in kinds:
            raise ValueError(f"applies to {' and '.join(kinds)} files only")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> "DataSection":
        if (self.path is None) == (self.dataset is None):
            got = "both" if self.path else "neither"
            raise ValueError(
                f'must have either path = "file.csv" or dataset = "{next(iter(LOADERS))}", '
                f"got {got}"
            )
        if self.index is not None and self.index in (self.columns or ()):
            raise ValueError(f"must have another index than its columns, got {self.index!r}")
        if self.index is not None and not self.in_memory:
            raise ValueError("must have no index with in_memory = false: rows are then counted")
        if self.delimiter == self.decimal:
            raise ValueError('must have another delimiter beside decimal = ",", such as ";"')
        return self


class ModelSection(Section):
    """`[model]`: the mixture.

    Parameters
    ----------
    n_components : int
        Number of components. Required.
    covariance_type : {"full", "tied", "diag", "spherical"}, default "full"
        How components share covariance parameters.
    """

    n_components: int = Field(ge=1)
    covariance_type: CovarianceType = "full"


class PriorsSection(Section):
    """`[priors]`: what is believed before the data are seen. Numbers are in the data's units.

    Parameters
    ----------
    kind : {"default", "fixed"}, default "default"
        "default" follows the spread of the data, so that units do not matter; "fixed" is the
        textbook recipe, whose numbers are meant for the data's units as they are. The fields below
        replace single numbers of either, and are those of `gmm_bayes.Priors`.
    weight_concentration : number or list, optional
        Dirichlet concentration of the weights; of each component, if a list.
    mean_loc : list of lists, optional
        Centres of the means: one list of numbers per component. Default: k-means centroids.
    mean_covariance : number, list or list of lists, optional
        Variance of the means: of all features, of each, or a matrix.
    scale_scale : number or list, optional
        HalfCauchy scale of the standard deviations: of all features, or of each.
    correlation_concentration : number, optional
        LKJ concentration of the correlations.
    """

    kind: Literal["default", "fixed"] = "default"
    weight_concentration: Numbers = None
    mean_loc: Numbers = None
    mean_covariance: Numbers = None
    scale_scale: Numbers = None
    correlation_concentration: Numbers = None

    @property
    def given(self) -> dict[str, Any]:
        """The fields of `gmm_bayes.Priors` that the file sets."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)

    @model_validator(mode="after")
    def _possible(self) -> "PriorsSection":
        Priors(**self.given)
        return self


class SamplerSection(Section):
    """`[sampler]`: the settings of `gmm_bayes.NUTS`, `gmm_bayes.ChEES` or `gmm_bayes.Laplace`.

    Parameters
    ----------
    kind : {"nuts", "chees", "laplace"}, default "nuts"
        A few long chains; many short ones in one batch, for a GPU; or, for a first look, draws of
        the normal approximation, whose only key is num_samples.
    num_warmup : int, optional
        Draws that adapt the sampler, per chain; not kept. Default: 100 where chains start adapted
        ("chees": where the posterior is close to normal), 1000 where they do not.
    num_samples : int, default 1000 ("chees": 50)
        Draws kept, per chain.
    num_chains : int, default 4 ("chees": 128)
    target_accept_prob : float, default 0.8
        Raise it towards 1 when draws diverge.
    max_tree_depth : int, default 10
        "nuts" only, as are the next four.
    dense_mass : bool, default false
    chain_method : {"auto", "parallel", "sequential", "vectorized"}, default "auto"
    preconditioning : {"auto", "laplace", "none"}, default "auto"
        Whether chains start adapted to the curvature at the mode.
    tempering : int, optional
        Replicas of each chain between the prior and the posterior, which exchange their points.
    num_superchains : int, optional
        "chees" only: groups of chains that start at one point each. Default: 16, or fewer where
        these would have less than eight chains each, but four at least.
    max_leapfrog_steps : int, default 1000
        "chees" only.
    """

    kind: str = _DEFAULT

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the sampler's class."""
        return self.model_dump(exclude={"kind"})

    def build(self) -> Sampler:
        """The sampler with these settings."""
        return by_option()[self.kind](**self.settings)

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, given: Any, check: Any) -> "SamplerSection":
        if cls is not SamplerSection or not isinstance(given, dict):
            section = check(given)
            if cls is not SamplerSection:
                section._ask_the_sampler()
            return section
        kind = given.get("kind", _DEFAULT)
        check_choice(kind, "kind", tuple(by_option()))
        keys = sampler_section(kind).model_fields.keys()
        for name in sorted(given.keys() & sampler_keys() - keys):
            raise ValueError(
                f'{name} must be left out with kind = "{kind}", got {shown(given[name])}'
            )
        return sampler_section(kind).model_validate(given)

    def _ask_the_sampler(self) -> None:
        """Let the sampler itself refuse what no single key is to blame for."""
        try:
            self.build()
        except (TypeError, ValueError) as error:
            # Its advice is for who writes Python.
            complaint = str(error).partition(";")[0]
            if complaint.partition(" ")[0] in sampler_section(_DEFAULT).model_fields:
                # Other kinds take it.
                complaint = complaint.replace(", got ", f' with kind = "{self.kind}", got ', 1)
            raise ValueError(complaint) from None


def sampler_section(kind: str) -> type[SamplerSection]:
    """The section of one kind of sampler: its fields are the keys, with their types and bounds."""
    return _section_of(by_option()[kind], kind)


def sampler_keys() -> dict[str, None]:
    """The keys that any kind of sampler has, in order."""
    return dict.fromkeys(key for kind in by_option() for key in sampler_section(kind).model_fields)


@cache
def _section_of(sampler: type[Sampler], kind: str) -> type[SamplerSection]:
    types = get_type_hints(sampler, include_extras=True)
    if kind != _DEFAULT:
        # Of a key that others have too, what only this kind asks is asked of the sampler.
        types |= get_type_hints(by_option()[_DEFAULT], include_extras=True)
    keys: dict[str, Any] = {
        field.name: (types[field.name], field.default)
        for field in dataclasses.fields(sampler)  # type: ignore[arg-type]
    }
    name = f"{sampler.__name__}Section"
    return create_model(name, __base__=SamplerSection, **{"kind": (str, kind), **keys})


class InitSection(Section):
    """`[init]`: where the chains begin.

    Parameters
    ----------
    method : {"auto", "kmeans", "k-means++", "random", "random_from_data"}, default "auto"
        How the EM starts are made; "auto" makes many kinds of them.
    n_init : int, optional
        Number of EM starts; the chains begin near the best solution. Without it, 10 of a kind that
        is named, and otherwise 32 for each component, at most 192.
    survey : bool, default true
        Look for the modes of the posterior, and let chains begin in each that matters.
    """

    method: InitMethod = "auto"
    n_init: int | None = Field(default=None, ge=1)
    survey: bool = True


class RuntimeSection(Section):
    """`[runtime]`: the machine.

    Parameters
    ----------
    seed : int, default 0
        In [0, 2**32). The same seed gives the same draws on one device and version.
    device : {"auto", "cpu", "gpu"} or with an index, as "gpu:1", default "auto"
    data_parallel : int, optional
        Number of devices that share the rows. Default: one; all, if there are several processes.
    chain_parallel : int, default 1
        Number of groups of chains, each with devices of its own.
    precision : {"float64", "float32"}, default "float64"
        Of the pass over the rows; single precision pays with many rows of few columns.
    progress : bool, optional
        Draw a progress bar. Default: on a terminal.
    checkpoint : bool, default true
        Keep the run in the output directory while it goes on, so that a run that was killed can go
        on; removed when the results are written.
    checkpoint_seconds : float, default 30.0
        About how often.
    keep_checkpoint : bool, default false
        Do not remove it.
    """

    seed: int = Field(default=0, ge=0, lt=2**32)
    device: Device = "auto"
    data_parallel: int | None = Field(default=None, ge=1)
    chain_parallel: int = Field(default=1, ge=1)
    precision: Precision = "float64"
    progress: bool | None = None
    checkpoint: bool = True
    checkpoint_seconds: float = Field(default=30.0, gt=0)
    keep_checkpoint: bool = False


class JobConfig(Section):
    """A whole job file: one field per section, documented with the section's class."""

    data: DataSection
    model: ModelSection
    priors: PriorsSection = PriorsSection()
    sampler: SerializeAsAny[SamplerSection] = Field(
        default_factory=lambda: sampler_section(_DEFAULT)()
    )
    init: InitSection = InitSection()
    labels: LabelsSection = LabelsSection()
    anomalies: AnomaliesSection = AnomaliesSection()
    runtime: RuntimeSection = RuntimeSection()
    output: OutputSection = OutputSection()


class SweepSection(Section):
    """`[sweep]`: how many jobs are run. Beside these keys it holds the lists of values to try.

    Parameters
    ----------
    executor : {"serial", "joblib", "dask"}, default "serial"
        One member after another, or several at once in processes of their own.
    scheduler : str, default "local"
        The address of a Dask scheduler, such as "tcp://host:8786"; "local" starts a cluster of
        processes on this machine.
    workers : int, optional
        Processes of joblib or of the local cluster. Default: one for every four cores, but two at
        least, because the chains of a member already run at once.
    loo : bool, default true
        Estimate how well each member predicts rows that it has not seen (PSIS-LOO). Takes some
        milliseconds a row.
    """

    executor: Literal["serial", "joblib", "dask"] = "serial"
    scheduler: Text = "local"
    workers: int | None = Field(default=None, ge=1)
    loo: bool = True

    @field_validator("scheduler", "workers")
    @classmethod
    def _applies(cls, value: Any, info: ValidationInfo) -> Any:
        executor = info.data.get("executor")
        if executor is None:
            # Which is complained about.
            return value
        if info.field_name == "scheduler" and executor != "dask":
            raise ValueError('applies to executor = "dask" only')
        if info.field_name == "workers":
            if executor == "serial":
                raise ValueError('applies to executor = "joblib" or "dask" only')
            if info.data.get("scheduler") != "local":
                raise ValueError("applies to a cluster on this machine only")
        return value

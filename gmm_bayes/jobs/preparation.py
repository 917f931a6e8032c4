"""A job, and everything about it that can be checked before sampling."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gmm_bayes._row_files import RowFile
from gmm_bayes._validation import (
    WIDE_FROM_PRIOR,
    Table,
    check_data,
    check_fit_size,
    check_n_components,
)
from gmm_bayes._vocabulary import LOG_LIKELIHOOD, POSTERIOR_PREDICTIVE, PRIOR_PREDICTIVE
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.datasets import LOADERS, Simulated
from gmm_bayes.errors import ConfigError, DataError, MissingDependencyError, TableError
from gmm_bayes.jobs import processes
from gmm_bayes.jobs.job_file.config import JobConfig, to_toml
from gmm_bayes.jobs.output import check_directory
from gmm_bayes.jobs.table_files import read_table, select_columns
from gmm_bayes.model.priors import Priors

__all__ = ["Job", "data_errors", "prepare", "read_data", "read_rows"]


@dataclass(frozen=True)
class Job:
    """A job whose every input has been checked.

    Attributes
    ----------
    config : JobConfig
    resolved : str
        The job file with every setting filled in.
    rows : pandas.DataFrame, ndarray or RowFile, shape (n_obs, n_features)
    some_rows : pandas.DataFrame or ndarray, shape (some rows, n_features)
        The rows, or a random sample of those that stay in their file.
    feature_names : tuple of str
    n_parameters : int
        Free parameters of the mixture.
    cautions : tuple of str
        What the data cannot teach.
    directory : Path
        Where the results go.
    read_seconds : float
    resumes : bool
        Whether it goes on with what is in the directory.
    """

    config: JobConfig
    resolved: str
    rows: Any
    some_rows: Any
    feature_names: tuple[str, ...]
    n_parameters: int
    cautions: tuple[str, ...]
    directory: Path
    read_seconds: float
    resumes: bool = False

    @property
    def source(self) -> str:
        """The name of the data."""
        return self.config.data.path or str(self.config.data.dataset)


def prepare(
    config: JobConfig,
    out: Path | None = None,
    *,
    force: bool = False,
    data: tuple[Any, Table, Any] | None = None,
) -> Job:
    """Read the data and check everything that can be checked before sampling.

    Parameters
    ----------
    config : JobConfig
    out : Path, optional
        Directory for the results instead of the one that the job file names.
    force : bool
        Accept a directory with results in it.
    data : tuple, optional
        What `read_data` gave for such a job; None reads the data.

    Returns
    -------
    Job

    Raises
    ------
    DataError
        If the data cannot be read or fitted.
    ConfigError
        If the model or the priors do not go with the data.
    DeviceError
        If the device is not there.
    OutputError
        If the results could not be written.
    """
    begin = time.perf_counter()
    directory = out if out is not None else Path(config.output.directory)
    resolved = to_toml(*_placed(config, directory))
    try:
        resolved.encode()
    except UnicodeEncodeError:
        raise ConfigError("data.path: must be text in UTF-8") from None
    rows, table, some = read_data(config) if data is None else data
    n_obs, n_features = len(rows), table.values.shape[1]
    _check_model(config, n_obs, n_features)
    k = config.model.n_components
    structure = COVARIANCE_STRUCTURES[config.model.covariance_type]
    n_parameters = structure.n_parameters(k, n_features)
    with data_errors():
        wide = WIDE_FROM_PRIOR if structure.has_correlations(n_features) else None
        flattens = structure.can_flatten(n_features)
        cautions = tuple(check_fit_size(table, k, n_parameters, wide=wide, flattens=flattens))
    if config.runtime.device.startswith("gpu"):
        from gmm_bayes.machine import devices

        devices.find_device(config.runtime.device)
    if processes.first():
        check_directory(directory, force=force, needed=_bytes(config, n_obs, n_features))
    seconds = time.perf_counter() - begin
    names = table.feature_names
    return Job(config, resolved, rows, some, names, n_parameters, cautions, directory, seconds)


def _placed(config: JobConfig, directory: Path) -> tuple[JobConfig, str]:
    """The job with the directory that is used, and a remark where a job file cannot name it."""
    if str(directory) == config.output.directory:
        return config, ""
    here = Path(os.path.relpath(directory.absolute()))
    if ".." in here.parts or here.is_absolute() or not str(here).isprintable():
        # A job file names directories below the current one only.
        return config, f"Results went to {ascii(str(directory.absolute()))[1:-1]}, by --out."
    output = config.output.model_copy(update={"directory": here.as_posix()})
    return config.model_copy(update={"output": output}), ""


def _check_model(config: JobConfig, n_obs: int, n_features: int) -> None:
    """Refuse more components than rows, and priors of a shape that the data do not have."""
    k = config.model.n_components
    with _config_errors("model"):
        check_n_components(k, n_obs)
    with _config_errors("priors"):
        # What the data fill in always fits.
        fitting = {
            "mean_loc": np.zeros((k, n_features)),
            "mean_covariance": 1.0,
            "scale_scale": 1.0,
        }
        Priors(**{**fitting, **config.priors.given}).arrays(k, n_features)


def read_data(config: JobConfig) -> tuple[Any, Table, Any]:
    """Read the data of a job.

    Returns
    -------
    rows : pandas.DataFrame, ndarray or RowFile, shape (n_obs, n_features)
        As they are.
    table : Table
        The same, checked; of rows that stay in their file a sample, with the ends of every column.
    some_rows : pandas.DataFrame or ndarray
        The rows, or the sample alone.

    Raises
    ------
    DataError
        If they cannot be read, or are not numbers.
    """
    with data_errors():
        rows = read_rows(config)
        if isinstance(rows, RowFile):
            from gmm_bayes.inference.rows.survey import survey

            seen = survey(rows, config.runtime.seed, shared=processes.count() > 1)
            return rows, seen.checked, seen.sample.values
        name = config.data.path or str(config.data.dataset)
        return rows, check_data(rows, name=name, min_rows=2), rows


def read_rows(config: JobConfig) -> Any:
    """The rows of a job, unchecked: a frame, an array or a RowFile."""
    data = config.data
    if data.path is not None and not data.in_memory:
        return RowFile(data.path, data.columns)
    if data.path is not None:
        return read_table(
            data.path,
            columns=data.columns,
            index=data.index,
            array=data.array,
            delimiter=data.delimiter,
            decimal=data.decimal,
            header=data.header,
        )
    rows = LOADERS[str(data.dataset)]()
    if isinstance(rows, Simulated):
        if data.columns is not None:
            raise TableError(f"the columns of {data.dataset} have no names to choose by")
        return rows.X
    return select_columns(rows, data.columns, str(data.dataset))


@contextmanager
def data_errors() -> Iterator[None]:
    """Turn what may be wrong with data into a DataError."""
    try:
        yield
    except MissingDependencyError:
        raise
    except OSError as error:
        what = f"cannot read {error.filename}: {error.strerror}" if error.strerror else str(error)
        raise DataError(what) from None
    except (TypeError, ValueError) as error:
        raise DataError(str(error)) from None


@contextmanager
def _config_errors(section: str) -> Iterator[None]:
    """Give the package's own complaint, which begins with its argument, the name of the key."""
    try:
        yield
    except (TypeError, ValueError) as error:
        key, _, complaint = str(error).partition(" ")
        raise ConfigError(f"{section}.{key}: {complaint}") from None


def _bytes(config: JobConfig, n_obs: int, n_features: int) -> int:
    """About the size of the results, with a fifth more to be safe."""
    from gmm_bayes.posterior.groups import PRIOR_DRAWS

    k, d, groups = config.model.n_components, n_features, config.output.groups
    sampler = config.sampler.build()
    draws = sampler.num_chains * sampler.num_samples
    sampler_statistics = 8
    numbers = draws * (k * (1 + 2 * d + 2 * d * d) + sampler_statistics)
    numbers += n_obs * (d + k + 2)
    numbers += draws * n_obs * (LOG_LIKELIHOOD in groups)
    numbers += draws * n_obs * d * (POSTERIOR_PREDICTIVE in groups)
    numbers += PRIOR_DRAWS * n_obs * d * (PRIOR_PREDICTIVE in groups)
    # Points and gradients of the draws, and the data.
    numbers += (2 * draws * k * (1 + 2 * d + d * d) + n_obs * d) * config.runtime.checkpoint
    return int(1.2 * 8 * numbers) + 2**20

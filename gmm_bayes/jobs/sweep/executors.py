"""Where the members of a sweep run: here, in processes of joblib, or on a Dask cluster."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

from gmm_bayes.errors import ConfigError, MissingDependencyError
from gmm_bayes.jobs.job_file.sections import SweepSection
from gmm_bayes.machine.devices import cpu_cores

__all__ = ["check_options", "open_executor", "processes"]

_BACKENDS = {"serial": None, "joblib": "loky"}
_CORES_PER_WORKER, _FEWEST_WORKERS = 4, 2
_PATIENCE = "15s"


def processes(options: SweepSection) -> int:
    """Return how many processes to start on this machine."""
    return options.workers or max(_FEWEST_WORKERS, cpu_cores() // _CORES_PER_WORKER)


def check_options(options: SweepSection) -> None:
    """Raise MissingDependencyError if Dask is asked for and not there."""
    if options.executor == "dask" and find_spec("distributed") is None:
        raise MissingDependencyError(
            'sweep.executor = "dask" needs dask[distributed]; install it with pip install '
            "'gmm-bayes[cluster]', or take executor = \"joblib\""
        )


@contextmanager
def open_executor(options: SweepSection) -> Iterator[Any]:
    """Yield what `checking.tasks.run_tasks` takes, and close it afterwards.

    Raises
    ------
    ConfigError
        If no scheduler answers at the address.
    MissingDependencyError
        If Dask is asked for and not there.
    """
    if options.executor in _BACKENDS:
        yield _BACKENDS[options.executor]
        return
    check_options(options)
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        address: Any = options.scheduler
        if address == "local":
            # Chains are threads already. A fit does not spill to disk: Dask's limit of memory would
            # only kill it.
            address = LocalCluster(
                n_workers=processes(options),
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                memory_limit=None,
                silence_logs=logging.ERROR,
            )
            stack.enter_context(address)
        try:
            # Not as the default: one that finds no scheduler would stay it, and no file be written.
            client = Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"sweep.scheduler: no Dask scheduler answers at {address} "
                f"({' '.join(str(error).split())})"
            ) from None
        yield stack.enter_context(client)

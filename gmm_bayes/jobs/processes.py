"""One job in several processes, on one host or many: joined at the start, parted after sampling."""

import logging
import os
import re
import sys

from gmm_bayes.errors import ConfigError, DeviceError

__all__ = ["count", "first", "join", "leave_at_once", "part", "why_lost"]

logger = logging.getLogger(__name__)

# A process that has been silent for so long is dead: JAX ends the others.
_HEARTBEAT_SECONDS = 30
# The last draws may come long before or after those of a process with other work to do.
_PARTING_SECONDS = 24 * 60 * 60
_ADDRESS = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
_NEEDED = "--coordinator HOST:PORT, --num-processes and --process-id"
_n_processes = 0


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Make this process one of several that run the same job, before anything else is done.

    Parameters
    ----------
    coordinator : str, optional
        Host and port of the first process. Of this and the other two, all or none are given; None
        takes what SLURM, Open MPI or another scheduler that JAX knows has set.
    num_processes, process_id : int, optional

    Raises
    ------
    ConfigError
        If the options are not usable together, or there is no scheduler.
    DeviceError
        If the processes do not find each other.
    """
    global _n_processes
    given = (coordinator, num_processes, process_id)
    if any(value is None for value in given) != all(value is None for value in given):
        raise ConfigError(f"{_NEEDED} belong together: give all three, or none under a scheduler")
    if coordinator is not None:
        _check(coordinator, num_processes or 0, process_id or 0)
    import jax

    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_PARTING_SECONDS,
        )
    except ValueError:
        raise ConfigError(
            f"--distributed found no job of SLURM or Open MPI; give {_NEEDED}"
        ) from None
    except RuntimeError as error:
        raise DeviceError(f"the processes did not find each other: {error}") from None
    _n_processes = jax.process_count()
    logger.info("process %d of %d", jax.process_index(), _n_processes)


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    if not _ADDRESS.fullmatch(coordinator):
        raise ConfigError(
            f"--coordinator must be HOST:PORT, such as node1:7777, got {coordinator!r}"
        )
    if num_processes < 1:
        raise ConfigError(f"--num-processes must be at least 1, got {num_processes}")
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process-id must be from 0 to {num_processes - 1}, one less than --num-processes, "
            f"got {process_id}"
        )


def count() -> int:
    """Return the number of processes of this job."""
    return max(_n_processes, 1)


def first() -> bool:
    """Whether this is the process that speaks and writes."""
    if not _n_processes:
        return True
    import jax

    return jax.process_index() == 0


def part() -> None:
    """Wait until all have sampled, and go on alone: what is left is the first process's work."""
    if _n_processes:
        import jax

        jax.distributed.shutdown()


def why_lost(error: BaseException) -> str | None:
    """Return what to say of an error that another process's end has caused; None if it has not."""
    if not _n_processes:
        return None
    import jax

    # The collectives of a CPU complain by a ValueError.
    if not (isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)):
        return None
    return (
        f"process {jax.process_index()} of {jax.process_count()} has lost another one, which was "
        f"ended or cannot be reached ({str(error).splitlines()[0][:200]}); look at its output, "
        "then start all of them again"
    )


def leave_at_once(code: int) -> None:
    """End this process without waiting for others, if there are any; else return."""
    if _n_processes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

"""Run independent pieces of work: here, one after another, or wherever an executor sends them."""

from collections.abc import Callable, Sequence
from typing import Any

from gmm_bayes.machine.progress import steps

__all__ = ["Task", "check_executor", "run_tasks"]

Task = Callable[[], Any]


def check_executor(executor: Any) -> None:
    """Raise unless work can be sent to this: None, the name of a joblib backend, a Dask client."""
    if executor is None or _is_client(executor):
        return
    if isinstance(executor, str):
        _check_backend(executor)
        return
    raise TypeError(
        "executor must be None, the name of a joblib backend such as 'loky', or a Dask client, "
        f"got {type(executor).__name__}"
    )


def run_tasks(
    tasks: Sequence[Task],
    executor: Any,
    *,
    shown: bool,
    unit: str,
    workers: int | None = None,
    lost: Callable[[Exception], Any] | None = None,
) -> list[Any]:
    """Return the answers of all tasks in their order, with a bar if `shown`.

    Parameters
    ----------
    tasks : sequence of callables without arguments
        They can be pickled: partial applications of functions of a module.
    executor : None, str or Dask client
        None runs them here, in order. A name is a backend of joblib.
    shown : bool
    unit : str
        What the bar counts.
    workers : int, optional
        Of a joblib backend; None takes as many as there are cores.
    lost : callable, optional
        Makes the answer of a task that had none because its worker died, from the error. None
        raises the error. Dask sends a task to another worker first; joblib gives up what is left.
    """
    if executor is None:
        return [task() for task in steps(tasks, shown=shown, unit=unit)]
    if isinstance(executor, str):
        return _run_with_joblib(tasks, executor, workers, lost, shown=shown, unit=unit)
    futures = [executor.submit(task, pure=False) for task in tasks]
    try:
        return [_answer(future, lost) for future in steps(futures, shown=shown, unit=unit)]
    except BaseException:
        # What has not begun need not; an error or Ctrl-C ends the rest.
        for future in futures:
            future.cancel()
        raise


def _run_with_joblib(
    tasks: Sequence[Task],
    backend: str,
    workers: int | None,
    lost: Callable[[Exception], Any] | None,
    *,
    shown: bool,
    unit: str,
) -> list[Any]:
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=workers or -1, backend=backend, return_as="generator")
    answers: list[Any] = []
    try:
        made = parallel(delayed(task)() for task in tasks)
        for answer in steps(made, shown=shown, unit=unit, total=len(tasks)):
            answers.append(answer)
    except Exception as error:
        if lost is None:
            raise
        answers += [lost(error) for _ in tasks[len(answers) :]]
    return answers


def _check_backend(name: str) -> None:
    """Raise ValueError unless joblib has this backend and it gives answers one by one."""
    from joblib import Parallel

    try:
        Parallel(n_jobs=2, backend=name, return_as="generator")
    except (ValueError, ImportError) as error:
        # Those of multiprocessing are forked besides, which JAX does not survive.
        raise ValueError(
            f"executor={name!r} cannot run fits ({' '.join(str(error).split())}); take 'loky' for "
            "processes, 'threading' for threads, None for one after another, or a Dask client"
        ) from None


def _answer(future: Any, lost: Callable[[Exception], Any] | None) -> Any:
    try:
        return future.result()
    except Exception as error:
        if lost is None:
            raise
        return lost(error)


def _is_client(executor: Any) -> bool:
    return hasattr(executor, "submit") and hasattr(executor, "gather")

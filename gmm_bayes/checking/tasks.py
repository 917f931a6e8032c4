"""Run independent pieces of work: here, one after another, or wherever an executor sends them."""

from collections.abc import Callable, Sequence
from typing import Any

from gmm_bayes.inference.progress import steps

__all__ = ["Task", "check_executor", "run_tasks"]

Task = Callable[[], Any]


def check_executor(executor: Any) -> None:
    """Raise unless work can be sent to this: None, the name of a joblib backend, a Dask client."""
    if executor is None or isinstance(executor, str) or _is_client(executor):
        return
    raise TypeError(
        "executor must be None, the name of a joblib backend such as 'loky', or a Dask client, "
        f"got {type(executor).__name__}"
    )


def run_tasks(tasks: Sequence[Task], executor: Any, *, shown: bool, unit: str) -> list[Any]:
    """Return the answers of all tasks in their order, with a bar if `shown`.

    Parameters
    ----------
    tasks : sequence of callables without arguments
        They can be pickled: partial applications of functions of a module.
    executor : None, str or Dask client
        None runs them here, in order. A name is a backend of joblib, with as many workers as there
        are cores.
    shown : bool
    unit : str
        What the bar counts.
    """
    if executor is None:
        return [task() for task in steps(tasks, shown=shown, unit=unit)]
    if isinstance(executor, str):
        from joblib import Parallel, delayed

        parallel = Parallel(n_jobs=-1, backend=executor, return_as="generator")
        answers = parallel(delayed(task)() for task in tasks)
        return list(steps(answers, shown=shown, unit=unit, total=len(tasks)))
    futures = [executor.submit(task, pure=False) for task in tasks]
    return [future.result() for future in steps(futures, shown=shown, unit=unit)]


def _is_client(executor: Any) -> bool:
    return hasattr(executor, "submit") and hasattr(executor, "gather")

"""Whether this process was forked from one that had used JAX: what it computes would never end."""

import os
import sys

from gmm_bayes.errors import DeviceError

__all__ = ["refuse_forked"]

_state = {"used": False, "forked": False}


def refuse_forked() -> None:
    """Raise DeviceError in a forked process whose parent had used JAX.

    JAX's threads are not copied, and a program waits for them for ever.
    """
    if _state["forked"]:
        raise DeviceError(
            "this process was forked from one that had used JAX, whose threads it lacks: a fit "
            "here would hang for ever. Start workers by spawn, as "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')), or by loky, as "
            "joblib.Parallel does by default"
        )


def _before() -> None:
    # Asked here and not in the child, where the lock may be held by a thread that is gone.
    bridge = sys.modules.get("jax._src.xla_bridge")
    asked = getattr(bridge, "backends_are_initialized", lambda: False)
    _state["used"] = _state["forked"] or asked()


def _in_child() -> None:
    _state["forked"] = _state["used"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)

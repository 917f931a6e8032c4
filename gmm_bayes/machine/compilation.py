"""Compiled programs: made in little time, kept on disk, and not too many of them in a process."""

import gc
import hashlib
import logging
import os
import platform
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any

import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

__all__ = ["SWITCH", "cache_folder", "compiled", "forget_programs", "persistent_cache"]

logger = logging.getLogger(__name__)

# Set to "off", "0" or "no" to compile anew in every process.
SWITCH = "GMM_BAYES_CACHE"
# A program that compiles faster than this is not worth a file.
_MIN_SECONDS = 0.1
# What one shape of problem leaves is about half of one.
_LARGEST_MIB = 256
_in_use = threading.Lock()
# Share of the pieces of memory that Linux lets a process map which compiled programs may fill.
_LARGEST_SHARE = 0.5
_MAPS, _MOST_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")

# Many small loops are what a sampler's program is made of on a CPU, and its newer emitter of fused
# loops takes half the time of compiling it. Without it, and one level lower, a driver compiles in
# 5.3 s of CPU time instead of 12.1 (200 rows, 3 components, 2 columns) and 8.7 instead of 14.0
# (10,000, 6, 5), and a leapfrog step takes 0.7 to 1.1 times as long; at level 0 three times. From
# jaxlib 0.12 on there is no other emitter: the level alone saves up to a third.
_QUICKLY = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 2}


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` for large programs, which on a CPU compiles them in half the time.

    It runs on JAX's default device. Not for use inside another `jit`, which takes the function
    itself: `__wrapped__`.

    Parameters
    ----------
    function : callable
    **options
        Of `jax.jit`.
    """
    elsewhere = jax.jit(function, **options)

    @cache
    def on_cpu() -> Callable[..., Any]:
        return jax.jit(function, compiler_options=_known_options(), **options)

    def here() -> Any:
        return on_cpu() if _platform() == "cpu" else elsewhere

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return here()(*args, **kwargs)

    call.lower = lambda *args, **kwargs: here().lower(*args, **kwargs)  # type: ignore[attr-defined]
    return call


def _platform() -> str:
    """Where JAX runs what is not told where to run."""
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    if isinstance(device, str):
        return device
    return (device or jax.local_devices()[0]).platform


@cache
def _known_options() -> dict[str, Any]:
    """The options that the installed compiler has: they are no part of JAX's contract."""
    known: dict[str, Any] = {}
    for name, value in _QUICKLY.items():
        try:
            # Without a compiler no option is unknown, and the answer is kept.
            with jax.disable_jit(False):
                jax.jit(lambda: 0, compiler_options={name: value})()
        except jax.errors.JaxRuntimeError as error:
            logger.info("programs are compiled without an option: %s", error)
        else:
            known[name] = value
    return known


@contextmanager
def persistent_cache() -> Iterator[None]:
    """Keep compiled programs on disk for the next process, unless the user says where or not to.

    JAX's settings are the user's again afterwards. A second fit that runs at the same time in
    another thread goes without.
    """
    folder = None if jax.config.values["jax_compilation_cache_dir"] else cache_folder()
    if folder is None or not _in_use.acquire(blocking=False):
        yield
        return
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    try:
        for name, value in zip(names, (str(folder), _MIN_SECONDS), strict=True):
            jax.config.update(name, value)
        # JAX looks at the folder's name once, at the first compilation of the process.
        compilation_cache.reset_cache()
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        _in_use.release()


def forget_programs(share: float = _LARGEST_SHARE) -> bool:
    """Drop JAX's compiled programs before they fill the process; return whether that was done.

    A program maps some hundred pieces of memory, and Linux lets a process map 65,530: after some
    seventy fits of different shapes the compiler would abort the process. What is needed again is
    compiled again.
    """
    try:
        used, most = _MAPS.read_bytes().count(b"\n"), int(_MOST_MAPS.read_text())
    except (OSError, ValueError):
        # Not Linux.
        return False
    if used < share * most:
        return False
    logger.info("%d of %d pieces of memory are mapped: compiled programs are dropped", used, most)
    jax.clear_caches()
    gc.collect()
    return True


def cache_folder() -> Path | None:
    """Return the folder of this user and this kind of processor, made if need be.

    None if it is switched off, cannot be made, or might be written to by others: what is in it is
    run as machine code.
    """
    if os.environ.get(SWITCH, "on").lower() in ("off", "0", "no"):
        return None
    try:
        root = platformdirs.user_cache_path("gmm_bayes", appauthor=False).absolute()
        folder = root / f"xla-{_processor()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (folder, folder.parent):
            status = path.stat()
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                raise PermissionError(f"{path} belongs to another user")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"{path} may be written to by others")
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} may not be written to")
        _make_room(folder)
    except (OSError, RuntimeError) as error:
        logger.info("no compilation cache: %s", error)
        return None
    return folder


def _processor() -> str:
    """A name for the kind of processor: a home folder may be mounted on machines of several."""
    words = [platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        words += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


def _make_room(folder: Path) -> None:
    """Delete the oldest files of a folder that has grown too large."""
    files = sorted((f.stat().st_mtime, f.stat().st_size, f) for f in folder.iterdir())
    excess = sum(size for _, size, _ in files) - _LARGEST_MIB * 2**20
    for _, size, file in files:
        if excess <= 0:
            break
        file.unlink(missing_ok=True)
        excess -= size

"""A worker that was forked from a process that had used JAX is told so, and does not hang."""

import multiprocessing
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor

import jax
import numpy as np
import pytest

import gmm_bayes as gb

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no forks")
ROWS = np.concatenate([np.arange(8.0), 50 + np.arange(8.0)])[:, None] ** 1.1


def test_a_forked_worker_is_refused_and_named_what_works():
    jax.numpy.zeros(1).block_until_ready()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            answer = pool.submit(gb.fit_em, ROWS, 2)
            try:
                with pytest.raises(gb.errors.DeviceError, match=r"spawn.*loky"):
                    answer.result(timeout=30)
            finally:
                for worker in pool._processes.values():
                    worker.kill()

"""The threads that run chains, and settings that must survive being written down."""

import dataclasses
import json
import threading
import time
from fractions import Fraction

import jax
import numpy as np
import pytest

import gmm_bayes as gb
from gmm_bayes.inference.sampling.drivers.nuts import away_from_resonance
from gmm_bayes.machine.threads import run_in_threads


def test_a_chain_that_dies_ends_the_run_at_once():
    def patient(stop):
        stop.wait(30)
        raise KeyboardInterrupt

    def dies(stop):
        raise RuntimeError("died")

    begin = time.perf_counter()
    with pytest.raises(RuntimeError, match="died"):
        run_in_threads([patient, dies], 2, jax.devices()[0])
    assert time.perf_counter() - begin < 10


def test_threads_keep_their_order_and_compute_in_double():
    barrier = threading.Barrier(2, timeout=30)

    def job(number, stop):
        barrier.wait()
        return number, jax.numpy.ones(1).dtype

    jobs = [lambda stop, n=n: job(n, stop) for n in range(2)]
    assert run_in_threads(jobs, 2, jax.devices()[0]) == [(0, np.float64), (1, np.float64)]


def first_turn(step_size):
    """Angle at which NUTS sees a trajectory in N(0, I) turn: of 1, 3, 7, ... leapfrog steps."""
    angle = 2 * np.arcsin(step_size / 2)
    lengths = 2 ** np.arange(1, 16) - 1
    return angle * lengths[np.argmax(np.sin(lengths * angle) < 0)]


def test_steps_that_go_round_and_round_are_not_taken():
    steps = np.linspace(0.02, 1.5, 20_000)
    assert max(map(first_turn, steps)) > 20, "some do, else this tests nothing"
    nudged = away_from_resonance(steps)
    assert max(map(first_turn, nudged)) < 2 * np.pi
    assert (nudged >= steps).all()
    assert (nudged < 1.25 * steps).all()
    assert (nudged == steps).mean() > 0.6


@pytest.mark.parametrize("probability", [np.float32(0.75), Fraction(3, 4)])
def test_settings_can_be_written_to_a_file(probability):
    settings = gb.NUTS(num_samples=np.int64(5), target_accept_prob=probability)
    written = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert gb.NUTS(**written) == gb.NUTS(num_samples=5, target_accept_prob=0.75)

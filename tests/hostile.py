"""What the tests of hostile inputs share: small fits, and whole messages."""

import re
import warnings
from functools import cache

import numpy as np
import pytest

import gmm_bayes as gb

# One shape and one sampler for all of them, because compiling is what takes time.
SHORT = gb.NUTS(num_warmup=100, num_samples=60, num_chains=2)


def two_groups(n_obs=40, seed=0):
    """Two well separated groups of rows with correlated columns."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_obs, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    X[n_obs // 2 :] += [7.0, -6.0]
    return X


def quiet_fit(X, n_components=2, **options):
    """Fit with few draws, which warns for good reasons."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        return gb.fit(X, n_components, **{"sampler": SHORT, "seed": 3, **options})


@cache
def small_fit():
    return quiet_fit(two_groups())


def raises_exactly(exception, message):
    """Expect an error of exactly this type with exactly this message."""
    return pytest.raises(exception, match=re.escape(message) + r"\Z", check=_is(exception, message))


def _is(exception, message):
    def check(error):
        assert type(error) is exception
        assert str(error) == message
        return True

    return check


def refuse_work(monkeypatch):
    """Make everything long fail, so that an error must have come before it."""

    def long_work(*args, **options):
        raise AssertionError("long work has begun")

    monkeypatch.setattr(gb.NUTS, "run", long_work)
    monkeypatch.setattr("gmm_bayes.inference.modes.search.em_start", long_work)
    monkeypatch.setattr("gmm_bayes.model.priors.kmeans_centers", long_work)
    monkeypatch.setattr("gmm_bayes.inference.rows.placement.block_rows", long_work)


def table(rows):
    """Arguments and ids of a parametrised test."""
    return [pytest.param(*row, id=name) for name, row in rows.items()]


@cache
def repeated_row_fit():
    """Forty rows of noise and one row forty times: (fit, the warnings it gave)."""
    X = np.vstack([np.random.default_rng(0).normal(size=(40, 2)), np.full((40, 2), 0.3)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = gb.fit(X, 2, sampler=SHORT, seed=1)
    return fit, caught

"""Small fits to draw, and figures that do not outlive their test."""

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import gmm_bayes as gb

from .drawn import small_fit


@pytest.fixture(scope="session")
def geyser_fit() -> gb.GMMFit:
    return small_fit(gb.datasets.load_old_faithful(), 2)


@pytest.fixture(scope="session")
def waiting_fit() -> gb.GMMFit:
    return small_fit(gb.datasets.load_old_faithful()[["waiting"]], 2)


@pytest.fixture(scope="session")
def iris_fit() -> gb.GMMFit:
    return small_fit(gb.datasets.load_iris(), 2)


@pytest.fixture(scope="session")
def odd_units_fit() -> gb.GMMFit:
    """Old Faithful in units 24 powers of ten apart."""
    return small_fit(gb.datasets.load_old_faithful() * [1e12, 1e-12], 2)


@pytest.fixture(scope="session")
def switched_fit(geyser_fit: gb.GMMFit) -> gb.GMMFit:
    """Old Faithful with the components of the second chain exchanged."""
    posterior = geyser_fit.posterior
    swapped = xr.concat(
        [
            posterior.isel(chain=[0]),
            posterior.isel(chain=[1], component=[1, 0]).assign_coords(component=[0, 1]),
        ],
        "chain",
        data_vars="all",
        coords="minimal",
        join="outer",
        compat="equals",
    ).transpose(*("chain", "draw", ...))
    return geyser_fit.with_group("posterior", swapped)


@pytest.fixture(autouse=True)
def _leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is shown, global settings stay, and what a test opened is closed."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a picture was shown")

    monkeypatch.setattr(plt, "show", refuse)
    before = dict(mpl.rcParams)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    yield
    after = dict(mpl.rcParams)
    plt.close("all")
    assert after == before
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002

"""What more draws can be made from, as a group of the tree."""

from typing import Any

import numpy as np
import xarray as xr

from gmm_bayes._vocabulary import CHAIN, Precision
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.model.priors import PriorArrays

__all__ = ["STATE_PREFIX", "state_arrays", "state_group"]

# Names of what has one entry for every chain begin with this.
STATE_PREFIX = "state."


def state_group(
    state: dict[str, np.ndarray],
    start: MixtureParameters,
    prior: PriorArrays,
    precision: Precision,
) -> xr.Dataset:
    """Label what a sampler returned, with all else that its next draws depend on to the last bit.

    Parameters
    ----------
    state : dict of ndarray
        Of a sampler's `Draws`.
    start : MixtureParameters
        In standard units; in single precision the rows are arranged around its means.
    prior : PriorArrays
        In the units of the data.
    precision : {"float64", "float32"}
    """
    arrays = {
        **state,
        **{f"start.{name}": np.asarray(a) for name, a in start._asdict().items()},
        "mean_scale_tril": np.asarray(prior.mean_scale_tril),
    }
    variables: dict[str, Any] = {}
    for name, array in arrays.items():
        dims = [f"{name.replace('.', '_')}_{axis}" for axis in range(array.ndim)]
        if name.startswith(STATE_PREFIX):
            dims[0] = CHAIN
        variables[name] = (tuple(dims), array)
    return xr.Dataset(variables, attrs={"precision": precision})


def state_arrays(group: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the arrays that `state_group` labelled."""
    return {str(name): variable.values for name, variable in group.data_vars.items()}

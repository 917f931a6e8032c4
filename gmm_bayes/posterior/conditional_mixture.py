"""The record of what is not known of a row: a conditional mixture for every draw."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp, ndtr, ndtri

from gmm_bayes._validation import (
    check_columns,
    check_data,
    check_integer,
    check_near,
    check_probability,
    check_seed,
)
from gmm_bayes._vocabulary import FEATURE, OBS
from gmm_bayes.core.likelihood import component_log_density, log_sum_exp
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.machine import row_blocks
from gmm_bayes.posterior.streaming import each_draw, log_mean_over_draws

__all__ = ["ConditionalMixture"]

_HALVINGS = 200


@dataclass(frozen=True, eq=False)
class ConditionalMixture:
    """The posterior of the remaining features of a row whose other features are known.

    Attributes
    ----------
    fit : GMMFit
        Of all features.
    given : dict
        The known features and their values, in the units of the data.
    feature_names : tuple of str
        The remaining features, in the order of the fit.
    parameters : MixtureParameters
        The conditional mixture of every draw: shapes (S, K), (S, K, d) and (S, K, d, d) for S draws
        and d remaining features.
    log_weights : ndarray, shape (S, K)
        Logs of the weights, which may be too small for a float.
    log_draw_weights : ndarray, shape (S,)
        Logs of the draws' shares in the answer: how well each predicts the known values.
    """

    fit: GMMFit
    given: dict[str, float]
    feature_names: tuple[str, ...]
    parameters: MixtureParameters
    log_weights: np.ndarray
    log_draw_weights: np.ndarray

    @property
    def effective_draws(self) -> float:
        """How many equally weighted draws would say as much (Kish): 1 / sum of squared shares."""
        return float(np.exp(-logsumexp(2 * self.log_draw_weights)))

    def log_density(self, X: Any, *, interval: float | None = None) -> xr.DataArray | xr.Dataset:
        """Log of the conditional predictive density of values of the remaining features.

        Parameters
        ----------
        X : array, pandas, polars or xarray object, shape (n_obs, d)
            Columns as in `feature_names`.
        interval : float, optional
            Probability of an equal-tailed interval of the log density over draws.

        Returns
        -------
        xarray.DataArray
            Dims (obs,), in nats: log p(all) - log p(given), of predictive densities.
        xarray.Dataset
            With `interval`: `mean`, `lower` and `upper`, dims (obs,).
        """
        tail = None if interval is None else (1 - check_probability(interval, "interval")) / 2
        table = check_data(X)
        rows = check_columns(table, self.feature_names)
        training = self.fit.X.sel({FEATURE: list(self.feature_names)}).values
        check_near(rows, training, self.feature_names)
        _, means, scale_tril = self.parameters
        n_draws = len(means)
        shares = self.log_weights + self.log_draw_weights[:, None] + math.log(n_draws)
        shared = MixtureParameters(shares, means, scale_tril)
        log_mean = row_blocks.map_rows(_log_mean, shared, rows)
        coords = {OBS: table.index}
        if tail is None:
            return xr.DataArray(log_mean, coords, (OBS,), name="log_density")

        def block(X: Any, draws: MixtureParameters) -> np.ndarray:
            # The draws have unequal shares, which only this definition of a quantile takes.
            return np.quantile(
                np.asarray(_each(X, draws)),
                [tail, 1 - tail],
                axis=0,
                weights=np.exp(self.log_draw_weights),
                method="inverted_cdf",
            )

        each = MixtureParameters(self.log_weights, means, scale_tril)
        lower, upper = row_blocks.map_rows(block, each, rows, axis=1, numbers_per_row=n_draws)
        columns = {"mean": log_mean, "lower": lower, "upper": upper}
        return xr.Dataset({name: (OBS, values) for name, values in columns.items()}, coords)

    def mean(self) -> xr.DataArray:
        """Mean of each remaining feature, dims (feature,), in the units of the data."""
        mean = np.einsum("sk,skd->d", self._shares(), self.parameters.means)
        return xr.DataArray(mean, self._coords(), (FEATURE,), name="mean")

    def interval(self, probability: float = 0.9) -> xr.Dataset:
        """Equal-tailed predictive interval of each remaining feature by itself.

        Parameters
        ----------
        probability : float
            That a value lies inside.

        Returns
        -------
        xarray.Dataset
            `lower` and `upper`, dims (feature,), in the units of the data: quantiles of the
            predictive distribution, which is a mixture over draws and components, by bisection.
        """
        tail = (1 - check_probability(probability, "probability")) / 2
        shares = self._shares().ravel()
        means = self.parameters.means.reshape(shares.size, -1).T
        sds = np.linalg.norm(self.parameters.scale_tril, axis=-1).reshape(shares.size, -1).T
        lower = [_quantile(shares, m, sd, tail) for m, sd in zip(means, sds, strict=True)]
        upper = [-_quantile(shares, -m, sd, tail) for m, sd in zip(means, sds, strict=True)]
        return xr.Dataset({"lower": (FEATURE, lower), "upper": (FEATURE, upper)}, self._coords())

    def sample(self, n_obs: int, *, seed: Any = 0) -> xr.DataArray:
        """Draw values of the remaining features.

        Parameters
        ----------
        n_obs : int
            Number of rows; each comes from a posterior draw of its own, picked by its share.
        seed : int in [0, 2**32) or JAX key

        Returns
        -------
        xarray.DataArray
            Dims (obs, feature), in the units of the data.
        """
        n_obs = check_integer(n_obs, "n_obs", 1)
        rng = np.random.default_rng(np.random.SeedSequence(check_seed(seed)))
        shares = self._shares()
        cumulative = shares.ravel().cumsum()
        flat = np.searchsorted(cumulative, rng.random(n_obs) * cumulative[-1], side="right")
        draw, component = np.unravel_index(flat, shares.shape)
        _, means, scale_tril = self.parameters
        noise = rng.standard_normal((n_obs, means.shape[-1]))
        rows = means[draw, component]
        rows = rows + np.einsum("nde,ne->nd", scale_tril[draw, component], noise)
        coords = {OBS: np.arange(n_obs), **self._coords()}
        return xr.DataArray(rows, coords, (OBS, FEATURE), name="X")

    def __repr__(self) -> str:
        known = ", ".join(f"{name} = {value:g}" for name, value in self.given.items())
        n_draws, n_components = self.log_weights.shape
        return (
            f"ConditionalMixture of {', '.join(self.feature_names)} given {known}: "
            f"{n_components} components, {n_draws} draws ({self.effective_draws:.0f} effective)"
        )

    def _shares(self) -> np.ndarray:
        """Share of each draw's component in the predictive distribution, shape (S, K)."""
        return np.exp(self.log_weights + self.log_draw_weights[:, None])

    def _coords(self) -> dict[str, Any]:
        return {FEATURE: np.array(self.feature_names, dtype=object)}


def _quantile(shares: np.ndarray, means: np.ndarray, sds: np.ndarray, tail: float) -> float:
    """Value below which a mixture of normals, arrays of shape (n,), has the probability `tail`."""
    shares = shares / shares.sum()
    # It lies between the quantiles of the single normals.
    single = (means + sds * ndtri(tail))[shares > 0]
    low, high = float(single.min()), float(single.max())
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        if not low < middle < high:
            break
        if shares @ ndtr((middle - means) / sds) < tail:
            low = middle
        else:
            high = middle
    return low + (high - low) / 2


def _log_density(X: Any, draw: MixtureParameters) -> Any:
    """Log density under one draw that carries the logs of its weights."""
    return log_sum_exp(component_log_density(X, draw.means, draw.scale_tril) + draw.weights)


_log_mean = log_mean_over_draws(_log_density)
_each = each_draw(_log_density)

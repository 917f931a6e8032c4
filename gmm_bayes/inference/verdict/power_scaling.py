"""How much a posterior leans on its priors: power-scaling of what every draw says."""

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import xarray as xr

from gmm_bayes._vocabulary import (
    CHAIN,
    COMPONENT,
    CORRELATION_CHOLESKY,
    DRAW,
    MEANS,
    SCALES,
    TOTAL_LOG_LIKELIHOOD,
    WEIGHTS,
)
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.verdict.label_free import anchor_log_density, label_free_quantities
from gmm_bayes.inference.verdict.log_priors import log_priors

__all__ = [
    "LIKELIHOOD",
    "PRIOR",
    "Leaning",
    "all_quantities",
    "factors",
    "leaning",
    "scaled",
    "words",
]

LIKELIHOOD: Final = "likelihood"
PRIOR: Final = "prior"
# Of use to a person; the log-likelihood is what is scaled itself.
_LABEL_FREE = ("anchor_log_density", "mixture_mean", "mixture_covariance", "sorted_weights")
# A component is judged by its parameters if it has twice as many rows as features, in all but one
# draw of twenty: the parameters of an empty one are the prior's, and nothing is wrong with that.
_ROWS_PER_FEATURE, _FEW_DRAWS = 2, 0.05
# What is looked at after every fit: numbers (draws times quantities), and draws, at the least.
_MOST_NUMBERS, _FEWEST_DRAWS = 2**17, 1000

# The field of Priors that widens or tightens the prior of a site.
_FIELDS = {
    WEIGHTS: "weight_concentration",
    MEANS: "mean_covariance",
    SCALES: "scale_scale",
    CORRELATION_CHOLESKY: "correlation_concentration",
}

# Draws of named quantities, each of shape (chain, draw).
Named = dict[str, np.ndarray]


class Leaning(NamedTuple):
    """What follows the priors.

    Attributes
    ----------
    highest : float
        Of the sensitivities to all priors together.
    quantity : str
        That which follows a strong prior most; empty if none does.
    prior, likelihood : float
        Its sensitivity to all priors together, and to the likelihood.
    site : str
        The site whose prior moves it most.
    n_others : int
        Number of other quantities that follow a strong prior.
    """

    highest: float
    quantity: str = ""
    prior: float = np.nan
    likelihood: float = np.nan
    site: str = ""
    n_others: int = 0

    def outweighs(self, factor: float) -> str:
        """The site whose prior is worth so many times the data; empty if none is."""
        return self.site if self.quantity and self.prior >= factor * self.likelihood else ""


def factors(fit: GMMFit) -> Named:
    """Logs of what is scaled: all priors, the likelihood, the prior of each site."""
    each = log_priors(fit)
    log_likelihood = fit.sample_stats[TOTAL_LOG_LIKELIHOOD].transpose(CHAIN, DRAW).values
    return {PRIOR: np.sum(list(each.values()), axis=0), LIKELIHOOD: log_likelihood, **each}


def scaled(named: Named, log_factors: Named) -> dict[str, np.ndarray]:
    """Sensitivity of every quantity to each factor: arrays of shape (n_quantities,)."""
    values = np.stack(list(named.values()))
    return {name: arviz_bridge.power_scaling(values, log) for name, log in log_factors.items()}


def all_quantities(fit: GMMFit, *, parameters: bool) -> Named:
    """Label-free quantities, and every free parameter if wanted."""
    free = label_free_quantities(fit)
    found: Named = {}
    for name in _LABEL_FREE:
        found |= dict(_label_free_entries(name, free[name].values, fit.feature_names))
    if parameters:
        for name in (WEIGHTS, MEANS, SCALES, CORRELATION_CHOLESKY):
            if name in fit.posterior:
                found |= dict(_parameter_entries(fit.posterior[name], range(fit.n_components)))
    return {name: values for name, values in found.items() if np.ptp(values) != 0}


def leaning(fit: GMMFit, *, parameters: bool, threshold: float, share: float) -> Leaning:
    """Find the quantity that follows the priors most, at a cost that every fit can bear.

    Parameters
    ----------
    fit : GMMFit
    parameters : bool
        Whether components kept their places, so that their parameters mean something.
    threshold : float
        Least sensitivity to the priors that counts.
    share : float
        Least share of the sensitivity to the likelihood that it must be as well: where the data
        say so much more, few would call the prior strong.

    Notes
    -----
    Looked at are the log density at ten rows, the mean of the mixture and, of components with
    enough rows, the parameters. Not the covariance of the mixture: a component without rows gives
    it the heavy tail of its prior.
    """
    fit = _thinned(fit, parameters=parameters)
    named, log_factors = _judged(fit, parameters=parameters), factors(fit)
    if not named:
        # Nothing moved.
        return Leaning(np.nan)
    prior = scaled(named, {PRIOR: log_factors.pop(PRIOR)})[PRIOR]
    highest = float(np.nanmax(prior, initial=-np.inf))
    followers = {n: p for n, p in zip(named, prior, strict=True) if p >= threshold}
    if followers:
        some = {name: named[name] for name in followers}
        likelihood = scaled(some, {LIKELIHOOD: log_factors[LIKELIHOOD]})[LIKELIHOOD]
        strong = {
            n: (followers[n], one)
            for n, one in zip(some, likelihood, strict=True)
            if followers[n] >= share * one
        }
        if strong:
            return _strongest(highest, strong, named, log_factors)
    return Leaning(highest if np.isfinite(highest) else np.nan)


def _strongest(
    highest: float, strong: dict[str, tuple[float, float]], named: Named, log_factors: Named
) -> Leaning:
    """The first of those, and the site whose prior it is."""
    name = max(strong, key=lambda n: strong[n][0])
    sites = {site: log for site, log in log_factors.items() if site != LIKELIHOOD}
    each = scaled({name: named[name]}, sites)
    site = max(each, key=lambda s: each[s][0])
    prior, likelihood = strong[name]
    return Leaning(highest, name, float(prior), float(likelihood), site, len(strong) - 1)


def words(found: Leaning | None, threshold: float) -> Iterator[str]:
    """What there is to say of it, and what to do; nothing where the data decide."""
    if found is None or not found.quantity:
        return
    others = f" and {found.n_others} more" * bool(found.n_others)
    how = (
        f"the prior of {found.site} and the data disagree about"
        if found.likelihood >= threshold
        else f"the prior of {found.site}, more than the data, decides"
    )
    yield (
        f"{how} {found.quantity}{others} (power-scaling sensitivity {found.prior:.2f} to the "
        f"prior, {found.likelihood:.2f} to the likelihood; {threshold} is much): stand by that "
        f"prior, or fit with fit.priors.replace({_FIELDS[found.site]}=...); see "
        "prior_sensitivity(fit)"
    )


def _thinned(fit: GMMFit, *, parameters: bool) -> GMMFit:
    """The fit with so many evenly spaced draws that looking at it takes a fraction of a second."""
    k, d = fit.n_components, fit.n_features
    n_quantities = 10 + d + parameters * k * (1 + 2 * d + d * (d - 1) // 2)
    wanted = max(_FEWEST_DRAWS, _MOST_NUMBERS // n_quantities)
    sizes = fit.posterior.sizes
    step = max(1, sizes[CHAIN] * sizes[DRAW] // wanted)
    return GMMFit(fit.datatree.isel({DRAW: slice(None, None, step)})) if step > 1 else fit


def _judged(fit: GMMFit, *, parameters: bool) -> Named:
    sizes, draws = fit.posterior.sizes, fit.parameters()
    shape = (sizes[CHAIN], sizes[DRAW], -1)
    mean = np.einsum("sk,skd->sd", draws.weights, draws.means).reshape(shape)
    density = anchor_log_density(fit).reshape(shape)
    found = dict(_label_free_entries("anchor_log_density", density, fit.feature_names))
    found |= dict(_label_free_entries("mixture_mean", mean, fit.feature_names))
    if parameters:
        rows = fit.n_obs * np.quantile(draws.weights, _FEW_DRAWS, axis=0)
        learnt = np.flatnonzero(rows >= _ROWS_PER_FEATURE * fit.n_features).tolist()
        for name in (WEIGHTS, MEANS, SCALES, CORRELATION_CHOLESKY):
            if name in fit.posterior:
                found |= dict(_parameter_entries(fit.posterior[name], learnt))
    return {name: values for name, values in found.items() if np.ptp(values) != 0}


def _label_free_entries(
    name: str, values: np.ndarray, features: tuple[str, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    """Each number of a label-free quantity (chain, draw, ...) with its name."""
    d = len(features)
    labels = {
        "mixture_mean": features,
        "mixture_covariance": [
            f"{features[i]}, {features[j]}" for i, j in zip(*np.tril_indices(d), strict=True)
        ],
    }.get(name, range(values.shape[-1]))
    for i, label in enumerate(labels):
        yield f"{name}[{label}]", values[..., i]


def _parameter_entries(
    variable: xr.DataArray, components: "list[int] | range"
) -> Iterator[tuple[str, np.ndarray]]:
    """Each free number of a site with its name, of some components where it has components."""
    variable = variable.transpose(..., CHAIN, DRAW)
    dims = variable.dims[:-2]
    places = [components if dim == COMPONENT else range(variable.sizes[dim]) for dim in dims]
    for place in itertools.product(*places):
        # What is on the diagonal of a Cholesky factor follows from its row.
        if variable.name == CORRELATION_CHOLESKY and place[-2] <= place[-1]:
            continue
        labels = [str(variable.coords[dim].values[i]) for dim, i in zip(dims, place, strict=True)]
        yield f"{variable.name}[{', '.join(labels)}]", variable.values[place]

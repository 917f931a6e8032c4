"""The posterior of mixtures whose components are numbered as those of a pivot are.

The posterior of a mixture without its numbering has the density f / p(X), where f is the likelihood
times the sum of the prior over all numberings, on any set R that holds each mixture in exactly one
numbering. Here R are the mixtures that are matched to the pivot as they stand.
"""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from gmm_bayes._vocabulary import CHAIN, CORRELATION_CHOLESKY, DRAW, MEANS, SCALES, WEIGHTS
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.potential import Data, ModelSpec, log_prior, potential, site_values, space
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.model.matching import match_to_pivot, permuted
from gmm_bayes.model.numberings import log_permanent, log_prior_ratios, numbering_weights
from gmm_bayes.model.priors import PriorArrays
from gmm_bayes.posterior.labels.alignment import unaligned

__all__ = ["RenumberedDraws", "RenumberedPosterior", "renumber"]


class RenumberedPosterior(NamedTuple):
    """The density f on R, in standard units, at unconstrained vectors.

    Attributes
    ----------
    data : Data
    spec : ModelSpec
    prior : PriorArrays
    pivot : MixtureParameters
    """

    data: Data
    spec: ModelSpec
    prior: PriorArrays
    pivot: MixtureParameters

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """Log of f at vectors (S, dimension), Jacobian included, shape (S,), in nats."""
        over_numberings = log_permanent(log_prior_ratios(self._mixtures(z), self.prior))
        found = over_numberings - np.asarray(_potentials(z, self.data, self.spec))
        # So far out that a number overflows there is no density to speak of.
        return np.where(np.isfinite(found), found, -np.inf)

    def contains(self, z: np.ndarray) -> np.ndarray:
        """Whether the mixtures at vectors (S, dimension) are in R, shape (S,)."""
        matched = match_to_pivot(self._mixtures(z), self.pivot)
        return (matched == np.arange(self.spec.n_components)).all(axis=1)

    def _mixtures(self, z: np.ndarray) -> MixtureParameters:
        here = space(self.spec, self.data.n_features)
        # A proposal may be far out.
        with np.errstate(over="ignore", invalid="ignore"):
            sites = here.sites(z)
            tril = here.structure.scale_tril(
                sites[SCALES],
                sites.get(CORRELATION_CHOLESKY),
                here.n_components,
                here.n_features,
            )
        return MixtureParameters(sites[WEIGHTS], sites[MEANS], tril)


class RenumberedDraws(NamedTuple):
    """Draws of a fit, each renumbered into R.

    Attributes
    ----------
    z : ndarray, shape (num_chains, num_draws, dimension)
    weights : ndarray, shape (num_chains, num_draws)
        Importance weights that make them draws of f, of mean one in each chain.
    """

    z: np.ndarray
    weights: np.ndarray

    def halves(self) -> "tuple[RenumberedDraws, RenumberedDraws]":
        """The first half of every chain, and the second."""
        middle = self.z.shape[1] // 2
        parts = [(a[:, :middle], a[:, middle:]) for a in self]
        return RenumberedDraws(*(p[0] for p in parts)), RenumberedDraws(*(p[1] for p in parts))


def renumber(fit: GMMFit, units: Standardization) -> tuple[RenumberedPosterior, RenumberedDraws]:
    """Return the density f of a fit and its draws, in standard units.

    Parameters
    ----------
    fit : GMMFit
    units : Standardization
        Of the fit's rows.

    Returns
    -------
    RenumberedPosterior, RenumberedDraws
    """
    # Which numberings a chain visited is part of what its draws are.
    fit = unaligned(fit)
    spec = ModelSpec(fit.n_components, fit.covariance_type)
    sizes = (fit.posterior.sizes[CHAIN], fit.posterior.sizes[DRAW])
    prior = fit.priors.arrays(fit.n_components, fit.n_features)
    prior = PriorArrays(*units.apply_to_priors(prior))
    draws = units.apply_to_parameters(fit.parameters())
    # The best of the first half, so that the second half is independent of it.
    lp = fit.sample_stats["lp"].transpose(CHAIN, DRAW).values
    chain, draw = np.unravel_index(lp[:, : sizes[1] // 2].argmax(), (sizes[0], sizes[1] // 2))
    pivot = MixtureParameters(*(a[chain * sizes[1] + draw] for a in draws))
    came_from = match_to_pivot(draws, pivot)
    draws = permuted(draws, came_from)
    here = space(spec, fit.n_features)
    z = np.array([here.vector(site_values(one, spec)) for one in map(MixtureParameters, *draws)])
    rows = block_rows(units.apply(fit.X.values))
    data = jax.device_put(Data(rows, log_prior(prior, spec)))
    weights = _weights(draws, prior, came_from, sizes)
    return (
        RenumberedPosterior(data, spec, prior, pivot),
        RenumberedDraws(z.reshape(*sizes, -1), weights),
    )


def _weights(
    draws: MixtureParameters, prior: PriorArrays, came_from: np.ndarray, sizes: tuple[int, int]
) -> np.ndarray:
    """Weights (num_chains, num_draws) of renumbered draws, chain by chain."""
    logs = log_prior_ratios(draws, prior)
    all_numberings = log_permanent(logs)
    chains = [slice(c * sizes[1], (c + 1) * sizes[1]) for c in range(sizes[0])]
    return np.array([numbering_weights(logs[c], all_numberings[c], came_from[c]) for c in chains])


@partial(jax.jit, static_argnames="spec")
def _potentials(z: jax.Array, data: Data, spec: ModelSpec) -> jax.Array:
    """The potential at every vector (S, dimension), one after the other."""
    return jax.lax.map(lambda one: potential(one, data, spec), z)

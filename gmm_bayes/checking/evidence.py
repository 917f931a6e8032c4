"""The evidence of a model: its log marginal likelihood, by bridge sampling."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gmm_bayes._validation import check_seed
from gmm_bayes._vocabulary import CHAIN, DRAW
from gmm_bayes.checking.renumbered import renumber
from gmm_bayes.errors import ConvergenceWarning
from gmm_bayes.inference.modes.bridge import Bridge, Normal, bridge
from gmm_bayes.inference.potential import ModelSpec, space
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit, refuse_sample
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.machine.devices import double_precision

__all__ = ["Evidence", "log_evidence"]

# The sum over numberings takes 2^(K - 1) K steps a draw.
_MOST_COMPONENTS = 12
# Standard error in nats above which two models can hardly be told apart.
_LARGEST_ERROR = 0.5
# Share of draws with a weight too small for a float64.
_LOST_SHARE = 0.01
# Draws that a half must hold beyond two for each dimension, and draws a chain.
_SPARE_DRAWS, _DRAWS_PER_CHAIN = 20, 8


@dataclass(frozen=True)
class Evidence:
    """The log marginal likelihood of a model.

    Attributes
    ----------
    log_evidence : float
        log p(X | model), in nats, for `X` in the user's units.
    error : float
        Its Monte Carlo standard error, in nats.
    n_iterations : int
        Steps that the bridge took to settle.
    ess : float
        Effective number of draws behind it.
    notes : tuple of str
        Why it should not be believed as it is; empty if it may be.
    """

    log_evidence: float
    error: float
    n_iterations: int
    ess: float
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        believe = f"; do not believe it: {'; '.join(self.notes)}" if self.notes else ""
        return (
            f"Evidence(log p(X) = {self.log_evidence:.3f} +- {self.error:.3f} nats, "
            f"ESS {self.ess:.0f}, {self.n_iterations} iterations{believe})"
        )


def log_evidence(fit: GMMFit, *, seed: int = 0) -> Evidence:
    """Log marginal likelihood log p(X | model), by bridge sampling.

    Parameters
    ----------
    fit : GMMFit
        Made by NUTS or ChEES, with at most 12 components.
    seed : int in [0, 2**32) or JAX key
        Of the proposals.

    Returns
    -------
    Evidence
        Nats for `X` of shape (n_obs, n_features) in the user's units: numbers a thousand times
        larger lower it by n_obs * n_features * log(1000), so compare models of the same `X`.

    Raises
    ------
    TypeError
        If `fit` is not a GMMFit.
    ValueError
        If the draws are not chains, are too few for their dimension, are not finite, or lose
        weights below the smallest float64; if there are more than 12 components; or if the rows
        stayed in a `RowFile`.
    InferenceError
        If the draws and the normal distribution fitted to them do not meet.

    Warns
    -----
    ConvergenceWarning
        If the error is above 0.5 nats, or the chains should not be believed.

    Notes
    -----
    Meng and Wong's optimal bridge [1]_, [2]_ between the posterior and a normal distribution, on
    the unconstrained space. The normal distribution is fitted to the first half of every chain, the
    bridge is built on the second half [3]_. Centres of the means' prior that were found by k-means
    are taken as known constants, as in the fit (`fit.priors`).

    All K! numberings of the components are accounted for, exactly and whether or not the chains
    went to them. With f(theta) the likelihood times the sum of the prior over all numberings of
    theta, which is a permanent, the evidence is the integral of f over the mixtures that are
    numbered as a pivot is, and draws renumbered in this way have a density proportional to f.
    Draws of a chain that did not visit all numberings are weighted to make it so.

    References
    ----------
    .. [1] X.-L. Meng, W. H. Wong (1996). Simulating ratios of normalizing constants via a simple
       identity. Statistica Sinica 6.
    .. [2] Q. F. Gronau et al. (2017). A tutorial on bridge sampling. Journal of Mathematical
       Psychology 81.
    .. [3] A. M. Overstall, J. J. Forster (2010). Default Bayesian model determination methods for
       generalised linear mixed models. Computational Statistics & Data Analysis 54.
    """
    check_fit(fit)
    rng = np.random.default_rng(np.random.SeedSequence(check_seed(seed)))
    _refuse(fit)
    units = Standardization.of(fit.X.values, fit.structure)
    with double_precision():
        found = _from_draws(fit, units, rng)
    # A row's density is smaller by this factor in the user's units.
    evidence = found.log_constant - fit.n_obs * units.log_volume
    notes = tuple(_notes(fit, found))
    if notes:
        message = f"do not believe this evidence yet: {'; '.join(notes)}"
        warnings.warn(message, ConvergenceWarning, stacklevel=2)
    return Evidence(evidence, found.error, found.n_iterations, found.ess, notes)


def _from_draws(fit: GMMFit, units: Standardization, rng: np.random.Generator) -> Bridge:
    """The bridge from a normal distribution, fitted to half of the draws, to the other half."""
    posterior, draws = renumber(fit, units)
    first, second = draws.halves()
    normal = Normal.fit(first.z, first.weights)
    proposals = normal.sample(rng, draws.weights.size)
    # In one call, so that one program is compiled.
    flat = second.z.reshape(-1, second.z.shape[-1])
    points = np.concatenate([flat, proposals])
    ratios = posterior.log_density(points) - normal.log_density(points)
    at_draws, at_proposals = np.split(ratios, [len(flat)])
    at_proposals = np.where(posterior.contains(proposals), at_proposals, -np.inf)
    return bridge(at_draws.reshape(second.weights.shape), at_proposals, second.weights)


def _refuse(fit: GMMFit) -> None:
    """Raise where there is no evidence to be had from the draws."""
    refuse_sample(fit, "log_evidence")
    if fit.sampler.judged_by != "chains":
        raise ValueError(
            f"log_evidence must have the draws of chains: those of {fit.sampler.kind} are "
            "resampled from weighted proposals, and some occur several times; fit with "
            "sampler=gmm_bayes.NUTS()"
        )
    if fit.stacking is not None:
        raise ValueError(
            "log_evidence must have the draws of chains, got draws that stack_chains resampled; "
            "they are no posterior: give the fit that was stacked"
        )
    if fit.n_components > _MOST_COMPONENTS:
        raise ValueError(
            "log_evidence sums over all numberings of the components and takes at most "
            f"{_MOST_COMPONENTS} of them, got {fit.n_components}; compare predictions instead"
        )
    n_chains, n_draws = (fit.posterior.sizes[dim] for dim in (CHAIN, DRAW))
    spec = ModelSpec(fit.n_components, fit.covariance_type)
    dimension = space(spec, fit.n_features).dimension
    in_a_half = 2 * dimension + _SPARE_DRAWS
    wanted = max(2 * -(-in_a_half // n_chains), _DRAWS_PER_CHAIN)
    if n_draws < wanted:
        raise ValueError(
            f"log_evidence must have at least {wanted} draws a chain, to fit a normal distribution "
            f"of {dimension} dimensions to half of them, got {n_draws}; raise num_samples"
        )
    draws = fit.parameters()
    if not all(np.isfinite(array).all() for array in draws):
        raise ValueError("log_evidence must have finite draws, got some that are not")
    lost = (draws.weights < np.finfo(float).tiny).any(axis=1).mean()
    if lost > _LOST_SHARE:
        raise ValueError(
            "log_evidence must have weights that a float64 can hold, got some that are smaller in "
            f"{lost:.0%} of the draws; raise weight_concentration or take fewer components"
        )


def _notes(fit: GMMFit, found: Bridge) -> Iterator[str]:
    """Why an answer should not be believed, and what to do about it."""
    if fit.problems:
        yield f"the chains should not be believed ({'; '.join(fit.problems)}), see diagnose(fit)"
    # Not ">": a NaN is no better.
    if not found.error <= _LARGEST_ERROR:
        yield (
            f"its standard error is {found.error:.2f} nats (should be below {_LARGEST_ERROR}): run "
            "more draws (num_samples), or take fewer components, of which none are empty"
        )
    if not found.settled:
        yield f"the bridge did not settle in {found.n_iterations} iterations: run more draws"

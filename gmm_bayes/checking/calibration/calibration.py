"""Is the machine right? Simulation-based calibration of the whole way from rows to draws."""

from typing import Any

import numpy as np

from gmm_bayes._validation import check_choice, check_integer, check_n_components, check_seed
from gmm_bayes._vocabulary import CovarianceType
from gmm_bayes.checking.calibration.simulated_posteriors import (
    draw_posteriors,
    rank_truths,
    simulate,
)
from gmm_bayes.checking.calibration.verdict import Calibration
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.inference.sampling.registry import check_sampler
from gmm_bayes.machine.devices import find_device
from gmm_bayes.machine.progress import wanted
from gmm_bayes.model.priors import Priors

__all__ = ["simulation_based_calibration"]

# Draws among which a truth is ranked: ranks are 0 ... 99.
_NUM_RANKED = 99
_NUM_SAMPLES = 500
# Of the default priors: standard deviations of a mean between neighbouring centres, and the
# concentration of the weights. At 6 apart more components are wider than the distance; with a
# concentration of 0.5, that of `Priors`, components are often empty, and a chain mixes slowly.
_APART = 20.0
_CONCENTRATION = 5.0
# Fewer simulations than this tell next to nothing.
_FEWEST_SIMULATIONS = 20


def simulation_based_calibration(
    *,
    n_components: int = 2,
    n_features: int = 2,
    n_obs: int = 50,
    covariance_type: CovarianceType = "full",
    priors: Priors | None = None,
    sampler: NUTS | None = None,
    num_simulations: int = 1000,
    seed: Any = 0,
    sampling_priors: Priors | None = None,
    device: str = "auto",
    progress: bool | None = None,
) -> Calibration:
    """Check the sampler: are true parameters exchangeable with draws of their posterior?

    Parameters are drawn from the prior, data from them, and draws from the posterior of each data
    set. When model, potential and sampler are right, the rank of each true value among its draws is
    uniform [1]_.

    Parameters
    ----------
    n_components, n_features, n_obs : int
        Sizes of the simulated problems. Small ones are soon done.
    covariance_type : {"full", "tied", "diag", "spherical"}
    priors : Priors, optional
        With everything filled, as by `Priors.fixed(mean_loc)`: what follows the data is no prior.
        None takes centres 20 apart along the first feature, means of variance 1 about them, weights
        of concentration 5, and else what `Priors.fixed()` has.
    sampler : NUTS, optional
        None takes `NUTS(num_samples=500, num_chains=1)`.
    num_simulations : int
        Data sets. 1000 show a posterior that is 20 % too narrow nearly always, 100 hardly ever.
    seed : int in [0, 2**32) or JAX key
    sampling_priors : Priors, optional
        What the sampler is given instead of `priors`, to see what a fault looks like.
    device : {"auto", "cpu", "gpu"}
    progress : bool, optional
        Draw a progress bar. None draws one on a terminal or in a notebook, not in CI.

    Returns
    -------
    Calibration
        `ranks`, shape (num_simulations, n_quantities), `table`, `ok` and `problems`;
        `plots.plot_calibration` draws it.

    Raises
    ------
    TypeError, ValueError
        If an option is not usable; nothing long has been done by then.
    DeviceError
        If the device is not there.

    Notes
    -----
    A truth is ranked among 99 draws at equal distances, ties broken at random. All quantities
    together leave their bands with a probability of 5 % when nothing is wrong: each p-value, of the
    whole ECDF [2]_, counts times their number.

    A sampler that does not visit all modes of a posterior is found out, and rightly so. With
    centres close together, or components wider than the distance between them, a posterior has
    modes in which components have changed places, and one chain may not visit them.

    A chain also stays in the mode that it begins in when that is 100 nats too low. With the default
    priors and spherical covariances this befell 3 and 5 of 1000 simulations. Where it was looked
    into, one component was several times wider than the distance of the centres, and EM took the
    other, narrow one for singular, or did not find it. The log prior of the truth is then above
    that of all draws. `num_astray` of the result counts such simulations, and `truth_lead` in
    `facts` says which they are.

    References
    ----------
    .. [1] S. Talts, M. Betancourt, D. Simpson, A. Vehtari, A. Gelman (2018). Validating Bayesian
       inference algorithms with simulation-based calibration. arXiv:1804.06788.
    .. [2] T. Saeilynoja, P.-C. Buerkner, A. Vehtari (2022). Graphical test for discrete uniformity
       and its applications in goodness-of-fit evaluation and multiple sample comparison. Statistics
       and Computing 32.
    """
    spec = _check_sizes(n_components, n_features, n_obs, covariance_type)
    num_simulations = check_integer(num_simulations, "num_simulations", _FEWEST_SIMULATIONS)
    sampler = _check_sampler(sampler)
    seed = check_seed(seed)
    chosen = find_device(device)
    sizes = (spec.n_components, n_features)
    priors = _check_priors(priors, "priors", *sizes)
    given = priors if sampling_priors is None else sampling_priors
    given = _check_priors(given, "sampling_priors", *sizes)
    prior = priors.arrays(*sizes)
    truth_seed, sampler_seed, rank_seed = np.random.SeedSequence(seed).spawn(3)
    truths, X = simulate(prior, spec, n_obs, num_simulations, truth_seed)
    draws, facts = draw_posteriors(
        X,
        [given.arrays(*sizes)] * num_simulations,
        spec,
        sampler,
        sampler_seed,
        device=chosen,
        shown=wanted(progress),
    )
    structure = COVARIANCE_STRUCTURES[covariance_type]
    ranks, ess, lead = rank_truths(truths, X, draws, prior, structure, _NUM_RANKED, rank_seed)
    facts["truth_lead"] = lead
    settings = {
        **spec._asdict(),
        "n_features": n_features,
        "n_obs": n_obs,
        "sampler": repr(sampler),
        "seed": [int(word) for word in seed],
    }
    return Calibration(ranks, ess, facts, _NUM_RANKED, num_simulations, priors, given, settings)


def _check_sizes(n_components: Any, n_features: Any, n_obs: Any, covariance_type: Any) -> ModelSpec:
    """The model, and in passing that its sizes are possible."""
    check_choice(covariance_type, "covariance_type", tuple(COVARIANCE_STRUCTURES))
    check_integer(n_features, "n_features", 1)
    check_integer(n_obs, "n_obs", 2)
    return ModelSpec(check_n_components(n_components, n_obs), covariance_type)


def _check_sampler(sampler: Any) -> NUTS:
    if sampler is None:
        return NUTS(num_samples=_NUM_SAMPLES, num_chains=1)
    sampler = check_sampler(sampler, many=True)
    if sampler.judged_by != "chains":
        raise TypeError(
            f"sampler must be a gmm_bayes.NUTS(...), for truths are ranked among draws of chains, "
            f"got {sampler!r}"
        )
    total = sampler.num_chains * sampler.num_samples
    if total < _NUM_RANKED:
        raise ValueError(
            f"sampler must keep at least {_NUM_RANKED} draws, among which truths are ranked, got "
            f"num_samples={sampler.num_samples} with num_chains={sampler.num_chains}"
        )
    return sampler


def _check_priors(priors: Any, name: str, n_components: int, n_features: int) -> Priors:
    """Priors with centres that are constants, in the shapes of the problem."""
    if priors is None:
        centres = np.zeros((n_components, n_features))
        centres[:, 0] = _APART * (np.arange(n_components) - (n_components - 1) / 2)
        return Priors.fixed(centres, weight_concentration=_CONCENTRATION, mean_covariance=1.0)
    if not isinstance(priors, Priors):
        raise TypeError(f"{name} must be a gmm_bayes.Priors, got {type(priors).__name__}")
    if priors.open_fields:
        raise ValueError(
            f"{name} must have {' and '.join(priors.open_fields)}: what is taken from each data "
            "set is not a prior, and nothing would be calibrated; give it, or take "
            "Priors.fixed(mean_loc) with centres of shape (n_components, n_features)"
        )
    priors.arrays(n_components, n_features)
    return priors

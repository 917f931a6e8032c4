"""Data sets drawn from the prior, the posteriors of many data sets of one size, ranks in them."""

from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
import xarray as xr

from gmm_bayes._vocabulary import CHAIN, COVARIANCES, DATA, DRAW
from gmm_bayes.checking.calibration.ranked_quantities import quantities
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES, CovarianceStructure
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.batch.sampling import sample_many, stack
from gmm_bayes.inference.em.starts import em_starts, match_to_prior
from gmm_bayes.inference.potential import ModelSpec, log_prior, sample_prior
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.machine.compilation import forget_programs, persistent_cache
from gmm_bayes.machine.devices import double_precision
from gmm_bayes.model.priors import PriorArrays

__all__ = ["Sites", "draw_posteriors", "rank_truths", "simulate"]

# Starts of EM for each data set.
_STARTS = 4
# Values of the model's sites by name.
Sites = dict[str, np.ndarray]


def simulate(
    prior: PriorArrays, spec: ModelSpec, n_obs: int, n_sets: int, seed: np.random.SeedSequence
) -> tuple[Sites, np.ndarray]:
    """Draw parameters from the prior and rows from each, by the NumPyro model itself.

    Returns
    -------
    truths : dict of ndarray, shape (n_sets, ...)
    X : ndarray, shape (n_sets, n_obs, n_features)
    """
    with persistent_cache(), double_precision():
        drawn = sample_prior(seed.generate_state(2), prior, spec, n_obs=n_obs, n_draws=n_sets)
        sites = {name: np.asarray(values) for name, values in drawn.items()}
    X = sites.pop(DATA)
    sites.pop(COVARIANCES)
    return sites, X


def draw_posteriors(
    X: np.ndarray,
    priors: Sequence[PriorArrays],
    spec: ModelSpec,
    sampler: NUTS,
    seed: np.random.SeedSequence,
    *,
    device: jax.Device,
    shown: bool,
) -> tuple[Sites, pd.DataFrame]:
    """Sample the posterior of every data set, as `fit` does, all in one compiled program.

    Parameters
    ----------
    X : ndarray, shape (n_sets, n_obs, n_features)
    priors : sequence of PriorArrays
        One for each set, in the units of its rows.
    spec : ModelSpec
    sampler : NUTS
    seed : numpy.random.SeedSequence
    device : jax.Device
    shown : bool
        Draw a bar.

    Returns
    -------
    sites : dict of ndarray, shape (n_sets, num_chains, num_samples, ...)
        In the units of the rows.
    facts : pandas.DataFrame, shape (n_sets, 3)
        Whether chains ran `adapted`, their `n_gradients`, and the number of their `divergences`.
    """
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    units = [Standardization.of(one, structure) for one in X]
    start_seed, chain_seed = seed.spawn(2)
    forget_programs()
    with persistent_cache(), double_precision(), jax.default_device(device):
        standard = [
            PriorArrays(*unit.apply_to_priors(prior))
            for unit, prior in zip(units, priors, strict=True)
        ]
        values = [unit.apply(one) for unit, one in zip(units, X, strict=True)]
        rows = stack([block_rows(one) for one in values])
        em_seeds = [int(word) for word in start_seed.generate_state(len(X))]
        found = em_starts(values, rows, spec, init="kmeans", n_init=_STARTS, seeds=em_seeds)
        made = sample_many(
            rows,
            stack([log_prior(prior, spec) for prior in standard]),
            stack(
                [match_to_prior(*pair, X.shape[1]) for pair in zip(found, standard, strict=True)]
            ),
            spec,
            sampler,
            chain_seed,
            device=device,
            progress=shown,
        )
    each = [unit.restore(made.sites_of(i), structure) for i, unit in enumerate(units)]
    facts = {
        "adapted": made.facts["adapted"],
        "n_gradients": made.facts["n_gradients"],
        "divergences": made.stats["diverging"].sum(axis=(1, 2)),
    }
    return {name: np.stack([one[name] for one in each]) for name in each[0]}, pd.DataFrame(facts)


def rank_truths(
    truths: Sites,
    X: np.ndarray,
    draws: Sites,
    prior: PriorArrays,
    structure: CovarianceStructure,
    num_ranked: int,
    seed: np.random.SeedSequence,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Rank each truth among the draws of its posterior, ties at random.

    Parameters
    ----------
    truths : dict of ndarray, shape (n_sets, ...)
    X : ndarray, shape (n_sets, n_obs, n_features)
    draws : dict of ndarray, shape (n_sets, num_chains, num_samples, ...)
    prior : PriorArrays
    structure : CovarianceStructure
    num_ranked : int
        Draws, at equal distances out of all, among which a truth is ranked.
    seed : numpy.random.SeedSequence

    Returns
    -------
    ranks, ess : pandas.DataFrame, shape (n_finite_sets, n_quantities)
        Ranks in 0 ... num_ranked, and effective sample sizes. A set whose draws are not all finite
        is left out.
    lead : pandas.Series, shape (n_finite_sets,)
        By how much the log joint density of the truth is above the largest of all draws, in nats.

    Raises
    ------
    InferenceError
        If no set has finite draws.
    """
    rng = np.random.default_rng(seed)
    finite = np.all(
        [np.isfinite(v).reshape(len(v), -1).all(axis=1) for v in draws.values()], axis=0
    )
    if not finite.any():
        raise InferenceError("no posterior has finite draws: check the priors and their units")
    ranks, lead, all_values = {}, {}, []
    for i in np.flatnonzero(finite):
        shape = next(iter(draws.values())).shape[1:3]
        both = {
            name: np.concatenate([truths[name][i : i + 1], v[i].reshape(-1, *v.shape[3:])])
            for name, v in draws.items()
        }
        values = quantities(both, X[i], prior, structure)
        ranks[i] = {name: _rank(v, num_ranked, rng) for name, v in values.items()}
        lead[i] = values["log_joint"][0] - values["log_joint"][1:].max()
        all_values.append({name: v[1:].reshape(shape) for name, v in values.items()})
    table = pd.DataFrame.from_dict(ranks, orient="index")
    return table, _effective(all_values).set_index(table.index), pd.Series(lead)


def _rank(values: np.ndarray, num_ranked: int, rng: np.random.Generator) -> int:
    """Rank of the first value among some of the others."""
    truth, draws = values[0], values[1:]
    some = draws[np.linspace(0, len(draws) - 1, num_ranked).round().astype(int)]
    return int((some < truth).sum() + rng.integers(0, (some == truth).sum() + 1))


def _effective(values: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """Effective sample size of every quantity of every set."""
    dataset = xr.Dataset(
        {
            name: (("simulation", CHAIN, DRAW), np.stack([one[name] for one in values]))
            for name in values[0]
        }
    )
    return arviz_bridge.ess(dataset, "bulk").to_dataframe()[list(values[0])]

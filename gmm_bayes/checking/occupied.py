"""How many components the rows are in: the posterior, and what the prior says by itself."""

from math import prod
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gmm_bayes._validation import check_seed
from gmm_bayes._vocabulary import CHAIN, DRAW
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit, refuse_sample
from gmm_bayes.machine.devices import double_precision
from gmm_bayes.posterior.partitions.label_draws import labels_of_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["occupied_components", "prior_occupied"]

_ROWS_PER_BLOCK = 1024
# Beyond, which components are occupied is simulated.
_MOST_STATES = 2**12
_SIMULATIONS = 200_000


def occupied_components(fit: GMMFit, *, seed: Any = 0) -> "pd.DataFrame":
    """Posterior and prior distribution of the number of components in use.

    A component is in use when at least one training row belongs to it.

    Parameters
    ----------
    fit : GMMFit
        Of any sampler.
    seed : int in [0, 2**32) or JAX key

    Returns
    -------
    pandas.DataFrame, shape (n_components, 3)
        Index `n_occupied`, 1 ... n_components. Columns `posterior` and `prior`, probabilities that
        sum to one, and `posterior_mcse`, the Monte Carlo standard error of `posterior`. It is 0
        where all draws agree; a number that no draw has is then less probable than about 3 / ESS.

    Raises
    ------
    TypeError, ValueError
        If `fit` is not a GMMFit, or the seed is not one; or if the rows stayed in a `RowFile`.

    Notes
    -----
    For every posterior draw, one draw of the labels z_n ~ Categorical(r_n) of all training rows is
    made, and the distinct labels are counted: a draw from the posterior of K+ [1]_. A count does
    not depend on how components are numbered, so switched labels do not matter. The standard error
    accounts for autocorrelation. `n_occupied` of the fit's sample_stats is another number: there a
    component counts when its responsibilities add up to one row.

    The prior is that of the number of occupied components among n_obs rows under the fit's
    Dirichlet [2]_, by the recursion of Polya's urn over rows, which adds up positive terms only:
    with m of the g components that share the concentration a in use, row n + 1 opens another one of
    them with probability (g - m) a / (sum of all concentrations + n). It is exact, for unequal
    concentrations as well, unless these differ so much that more than 4096 states are needed (a
    dozen components, all different): then it is simulated, with 200,000 draws.

    References
    ----------
    .. [1] G. Malsiner-Walli, S. Fruehwirth-Schnatter, B. Gruen (2016). Model-based clustering based
       on sparse finite Gaussian mixtures. Statistics and Computing 26.
    .. [2] S. Fruehwirth-Schnatter, G. Malsiner-Walli, B. Gruen (2021). Generalized mixtures of
       finite mixtures and telescoping sampling. Bayesian Analysis 16.
    """
    import pandas as pd

    check_fit(fit)
    refuse_sample(fit, "occupied_components")
    seed = check_seed(seed)
    k = fit.n_components
    label_seed, prior_seed = np.random.SeedSequence(seed).spawn(2)
    counts = _counts(fit, label_seed.generate_state(2))
    concentration = np.broadcast_to(np.asarray(fit.priors.weight_concentration), (k,))
    posterior = np.array([(counts == m).mean() for m in range(1, k + 1)])
    table = {
        "posterior": posterior,
        "posterior_mcse": [_standard_error(fit, counts == m) for m in range(1, k + 1)],
        "prior": prior_occupied(concentration, fit.n_obs, seed=prior_seed),
    }
    return pd.DataFrame(table, index=pd.RangeIndex(1, k + 1, name="n_occupied"))


def prior_occupied(
    concentration: np.ndarray, n_obs: int, *, seed: np.random.SeedSequence | int = 0
) -> np.ndarray:
    """Probability of 1, ..., K occupied components among rows with Dirichlet-multinomial labels.

    Parameters
    ----------
    concentration : ndarray, shape (K,)
        Of the Dirichlet.
    n_obs : int
        Number of rows.
    seed : int or SeedSequence
        Used only where the answer is simulated.

    Returns
    -------
    ndarray, shape (K,)
    """
    values, sizes = np.unique(concentration, return_counts=True)
    if prod(int(size) + 1 for size in sizes) > _MOST_STATES:
        return _simulated(concentration, n_obs, np.random.default_rng(seed))
    grid = np.indices(tuple(sizes + 1))
    column = (-1, *[1] * len(sizes))
    opening = (sizes.reshape(column) - grid) * values.reshape(column)
    in_use = (grid * values.reshape(column)).sum(axis=0)
    with double_precision():
        states = np.asarray(_urn(opening, in_use, float(concentration.sum()), n_obs))
    found = np.bincount(grid.sum(axis=0).ravel(), states.ravel())[1:]
    return found / found.sum()


@jax.jit
def _urn(opening: jax.Array, in_use: jax.Array, total: jax.Array, n_obs: jax.Array) -> jax.Array:
    """Probability of every state of Polya's urn after `n_obs` rows.

    A state says how many components of each concentration are in use: `opening`, shape
    (groups, *states), is the weight of those that are not, by concentration, and `in_use`, shape
    (*states,), that of those that are.
    """
    start = jnp.zeros_like(in_use).at[(0,) * in_use.ndim].set(1.0)

    def add_row(n: jax.Array, states: jax.Array) -> jax.Array:
        stay = states * (in_use + n)
        # No component is left to open at the end of an axis, so nothing is rolled around it.
        moves = [jnp.roll(states * weight, 1, axis) for axis, weight in enumerate(opening)]
        return (stay + sum(moves)) / (total + n)

    return jax.lax.fori_loop(0, n_obs, add_row, start)


def _simulated(concentration: np.ndarray, n_obs: int, rng: np.random.Generator) -> np.ndarray:
    """The same by simulation, in blocks."""
    k = len(concentration)
    counts = np.zeros(k + 1)
    for _ in range(0, _SIMULATIONS, 1000):
        # By logarithms of gammas: small concentrations give weights that all underflow.
        uniform = rng.random((1000, k))
        logs = np.log(rng.gamma(concentration + 1, size=(1000, k)))
        logs += np.log1p(-uniform) / concentration
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        occupied = (rng.multinomial(n_obs, weights) > 0).sum(axis=1)
        counts += np.bincount(occupied, minlength=k + 1)
    return counts[1:] / counts.sum()


def _counts(fit: GMMFit, key: np.ndarray) -> np.ndarray:
    """Number of occupied components under every draw, shape (chain, draw)."""
    rows = fit.X.values
    n_blocks = -(-len(rows) // _ROWS_PER_BLOCK)
    size = -(-len(rows) // n_blocks)
    filled = np.concatenate([rows, np.repeat(rows[:1], n_blocks * size - len(rows), axis=0)])
    real = np.arange(n_blocks * size) < len(rows)
    with double_precision():
        hits = _hits(
            key,
            filled.reshape(n_blocks, size, -1),
            real.reshape(n_blocks, size),
            MixtureParameters(*fit.parameters()),
        )
    sizes = fit.posterior.sizes
    return np.asarray(hits).sum(axis=1).reshape(sizes[CHAIN], sizes[DRAW])


@jax.jit
def _hits(
    key: jax.Array, blocks: jax.Array, real: jax.Array, draws: MixtureParameters
) -> jax.Array:
    """Whether a row is in a component, for one draw of all labels per draw: shape (S, K).

    Parameters
    ----------
    key : array, shape (2,)
    blocks : array, shape (n_blocks, rows, D)
    real : array of bool, shape (n_blocks, rows)
        False for what fills the last block.
    draws : MixtureParameters
        With a leading axis of S draws.
    """
    n_components = draws.weights.shape[1]

    def one_draw(numbered: tuple[jax.Array, MixtureParameters]) -> jax.Array:
        number, draw = numbered
        draw_key = jax.random.fold_in(key, number)

        def add(found: jax.Array, block: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            place, X, is_row = block
            labels = labels_of_rows(jax.random.fold_in(draw_key, place), X, draw)
            hit = (labels[:, None] == jnp.arange(n_components)) & is_row[:, None]
            return found | hit.any(axis=0), None

        none = jnp.zeros(n_components, bool)
        return jax.lax.scan(add, none, (jnp.arange(len(blocks)), blocks, real))[0]

    return jax.lax.map(one_draw, (jnp.arange(len(draws.weights)), draws))


def _standard_error(fit: GMMFit, event: np.ndarray) -> float:
    """Monte Carlo standard error of the share of draws, shape (chain, draw), with an event."""
    share = event.mean()
    if share in (0, 1):
        return 0.0
    dataset = xr.Dataset({"event": ((CHAIN, DRAW), event.astype(float))})
    effective = float(arviz_bridge.ess(dataset, "mean")["event"])
    # Draws that were resampled by importance weights are worth no more than the weights.
    effective = min(effective, fit.run.get("importance_ess", np.inf))
    return float(np.sqrt(share * (1 - share) / effective))

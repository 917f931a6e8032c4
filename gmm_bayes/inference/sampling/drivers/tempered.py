"""Replica exchange: a chain of replicas, each of the posterior with a power of the likelihood.

The replica of power one draws from the posterior, that of power zero from the prior, where there is
one mode. Neighbours exchange their points, so that a point of the prior comes to whichever mode of
the posterior it has found on its way, and to each as often as the mode has mass.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from gmm_bayes.inference.potential import ModelSpec, log_joint
from gmm_bayes.inference.sampling.drivers.nuts import Adaptation, Programs, Settings
from gmm_bayes.inference.sampling.state import STATE_PREFIX
from gmm_bayes.machine.compilation import compiled

__all__ = ["TemperedPrograms", "first_powers", "log_evidence", "refined", "what_replicas_did"]

# The ladder is made anew after so many sweeps, and after each doubling of these, in the first part
# of the warm-up; step sizes and metrics are then adapted to the last of them.
_FIRST_SWEEPS, _LADDER_SHARE = 20, 0.5
# Powers of an even ladder's: more of the first ones near the prior, where the likelihood is wild.
_BEND = 4.0
# A pair of neighbours that always exchange still keeps some distance.
_LEAST_REJECTED = 1e-3


class Replicas(NamedTuple):
    """The state of one chain; rung 0 is the prior, the last rung the posterior.

    Attributes
    ----------
    chains : HMCState
        Of NumPyro's kernel, leading axis the rungs. Step size, metric and random numbers are the
        rung's, the point is what neighbours exchange.
    powers : array, shape (rungs,)
        Of the likelihood.
    rejected : array, shape (rungs - 1,)
        Sum of the probabilities that neighbours would not have exchanged, since the ladder or the
        sampling began.
    n_sweeps, since : int
        Sweeps in all, and those that `rejected` is a sum of.
    walkers : array of int, shape (rungs,)
        The number of the point that is on each rung.
    from_prior : array of bool, shape (rungs,)
        Whether a point, by its number, has been at the prior since it was at the posterior.
    n_restarts : int
        Times, since the sampling began, that a point came from the prior to the posterior.
    key : array of uint32
    """

    chains: Any
    powers: Any
    rejected: Any
    n_sweeps: Any
    since: Any
    walkers: Any
    from_prior: Any
    n_restarts: Any
    key: Any


class _Parts(NamedTuple):
    """Log prior and log-likelihood of points (rungs, dimension), with their gradients."""

    log_prior: Any
    log_likelihood: Any
    slopes: tuple[Any, Any]

    def at(self, powers: Any) -> tuple[Any, Any]:
        """Potential and gradient of each point under a power."""
        slope = self.slopes[0] + powers[:, None] * self.slopes[1]
        return -(self.log_prior + powers * self.log_likelihood), -slope


def first_powers(n_rungs: int) -> np.ndarray:
    """The ladder from which a warm-up begins, shape (rungs,)."""
    return np.linspace(0, 1, n_rungs) ** _BEND


def refined(powers: Any, rejected: Any) -> Any:
    """A ladder whose neighbours exchange equally often, as far as one knows [1]_.

    Parameters
    ----------
    powers : array, shape (rungs,)
    rejected : array, shape (rungs - 1,)
        Probability that neighbours do not exchange. Their sum, from the prior on, is a function of
        the power that does not depend on the ladder, if there are enough rungs.

    References
    ----------
    .. [1] S. Syed, A. Bouchard-Cote, G. Deligiannidis, A. Doucet (2022). Non-reversible parallel
       tempering: a scalable highly parallel MCMC scheme. JRSS B 84.
    """
    barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.maximum(rejected, _LEAST_REJECTED))])
    even = jnp.linspace(0.0, 1.0, len(powers)) * barrier[-1]
    return jnp.interp(even, barrier, powers).at[-1].set(1.0)


def _log_parts(eta: Any, settings: Settings, spec: ModelSpec) -> _Parts:
    def parts(eta: Any) -> Any:
        return log_joint(settings.affine.apply(eta), settings.data, spec)

    def one(eta: Any) -> _Parts:
        log_prior, log_likelihood = parts(eta)
        return _Parts(log_prior, log_likelihood, jax.jacrev(parts)(eta))

    return jax.vmap(one)(eta)


def _kernel(power: Any, settings: Settings, adaptation: Adaptation, spec: ModelSpec) -> Any:
    def potential(eta: Any) -> Any:
        log_prior, log_likelihood = log_joint(settings.affine.apply(eta), settings.data, spec)
        return -(log_prior + power * log_likelihood)

    return adaptation.kernel(settings.warmup, potential)


def _moved(
    chains: Any, powers: Any, settings: Settings, adaptation: Adaptation, spec: ModelSpec
) -> Any:
    """Every rung makes a transition of its own; one by one, for trajectories differ in length."""

    def one(rung: Any) -> Any:
        chain, power = rung
        kernel = _kernel(power, settings, adaptation, spec)
        # The kernel must be initialised in every trace, if only to be traced.
        chain = jax.lax.cond(
            chain.i < 0,
            lambda c: adaptation.start(kernel, c.rng_key, c.z, settings.warmup),
            lambda c: c,
            chain,
        )
        return kernel.sample(chain, (), {})

    return jax.lax.map(one, (chains, powers))


def _exchanged(state: Replicas, parts: _Parts, num_warmup: Any) -> tuple[Replicas, Any]:
    """Even pairs of neighbours exchange their points, or odd ones, in turn; and who is where."""
    powers, n_rungs = state.powers, len(state.powers)
    key, own = jax.random.split(state.key)
    gain = (powers[:-1] - powers[1:]) * (parts.log_likelihood[1:] - parts.log_likelihood[:-1])
    accepted = jnp.nan_to_num(jnp.exp(jnp.minimum(gain, 0.0)))
    turn = jnp.arange(n_rungs - 1) % 2 == state.n_sweeps % 2
    swap = turn & (jax.random.uniform(own, (n_rungs - 1,)) < accepted)
    up, down = jnp.append(swap, False), jnp.insert(swap, 0, False)
    order = jnp.arange(n_rungs) + up.astype(int) - down.astype(int)
    walkers = state.walkers[order]
    arrived = state.from_prior[walkers[-1]]
    from_prior = state.from_prior.at[walkers[-1]].set(False).at[walkers[0]].set(True)
    state = state._replace(
        rejected=state.rejected + 1 - accepted,
        n_sweeps=state.n_sweeps + 1,
        since=state.since + 1,
        walkers=walkers,
        from_prior=from_prior,
        n_restarts=state.n_restarts + arrived,
        key=key,
    )
    return _with_ladder(state, num_warmup), order


def _with_ladder(state: Replicas, num_warmup: Any) -> Replicas:
    """A new ladder where one is due; and counts begin anew there, and with the sampling."""
    rounds = state.n_sweeps / _FIRST_SWEEPS
    due = (rounds >= 1) & (jnp.exp2(jnp.round(jnp.log2(jnp.maximum(rounds, 1)))) == rounds)
    due &= state.n_sweeps <= _LADDER_SHARE * num_warmup
    better = refined(state.powers, state.rejected / jnp.maximum(state.since, 1))
    begins = state.n_sweeps == num_warmup
    again = due | begins
    return state._replace(
        powers=jnp.where(due, better, state.powers),
        rejected=jnp.where(again, 0.0, state.rejected),
        since=jnp.where(again, 0, state.since),
        n_restarts=jnp.where(begins, 0, state.n_restarts),
    )


def _start(
    key: Any, eta: Any, powers: Any, settings: Settings, adaptation: Adaptation, spec: ModelSpec
) -> Replicas:
    """A chain all of whose replicas begin at one point, in their first transition."""
    n_rungs = len(powers)
    own, *keys = jax.random.split(key, n_rungs + 1)
    kernel = _kernel(powers[-1], settings, adaptation, spec)
    blank = adaptation.start(kernel, key, eta, settings.warmup)
    chains = jax.tree.map(lambda a: jnp.broadcast_to(a, (n_rungs, *jnp.shape(a))), blank)
    chains = chains._replace(i=jnp.full_like(chains.i, -1), rng_key=jnp.stack(keys))
    none, zero = jnp.zeros(n_rungs - 1), jnp.zeros((), int)
    walkers = jnp.arange(n_rungs)
    return Replicas(chains, powers, none, zero, zero, walkers, walkers < 0, zero, own)


def _advance(
    state: Any,
    fresh: Any,
    start: Any,
    key: Any,
    n_draws: Any,
    settings: Settings,
    powers: Any,
    *,
    adaptation: Adaptation,
    spec: ModelSpec,
    block: int,
) -> Any:
    """As `drivers.nuts.advance`; a draw is a sweep, of all rungs."""
    how = (settings, adaptation, spec)
    state = jax.lax.cond(fresh, lambda s: _start(key, start, powers, *how), lambda s: s, state)

    def sweep(state: Replicas) -> tuple[Replicas, Any]:
        chains = _moved(state.chains, state.powers, *how)
        parts = _log_parts(chains.z, settings, spec)
        state, order = _exchanged(state, parts, settings.warmup.num_draws)
        parts = jax.tree.map(lambda a: a[order], parts)
        potential, slope = parts.at(state.powers)
        there = {"z": chains.z[order], "potential_energy": potential, "z_grad": slope}
        return state._replace(chains=chains._replace(**there)), parts.log_likelihood

    def step(state: Replicas, i: Any) -> Any:
        nothing = jnp.zeros(len(powers), start.dtype)
        state, log_likelihood = jax.lax.cond(i < n_draws, sweep, lambda s: (s, nothing), state)
        chains = state.chains
        top = jax.tree.map(lambda a: a[-1], chains)
        return state, {
            "eta": top.z,
            "slope": top.z_grad,
            "potential": top.potential_energy,
            "energy": top.energy,
            "acceptance_rate": top.accept_prob,
            # Of all rungs, and of the posterior's.
            "n_steps": chains.num_steps.sum(),
            "n_steps_there": top.num_steps,
            "diverging": top.diverging,
            "step_size": top.adapt_state.step_size,
            "log_likelihoods": log_likelihood,
        }

    return jax.lax.scan(step, state, jnp.arange(block))


def _advance_group(state: Any, fresh: Any, start: Any, key: Any, *how: Any, **fixed: Any) -> Any:
    # Not by vmap, which would take both branches of every choice.
    state, start, key = jax.tree.map(lambda a: a[0], (state, start, key))
    return jax.tree.map(lambda a: a[None], _advance(state, fresh, start, key, *how, **fixed))


_advance_compiled = compiled(_advance_group, static_argnames=("adaptation", "spec", "block"))


class TemperedPrograms(Programs):
    """The compiled program of a run of replicas: each chain is a group of its own.

    Parameters
    ----------
    adaptation : Adaptation
    spec : ModelSpec
    settings : Settings
    n_rungs : int
    """

    def __init__(
        self, adaptation: Adaptation, spec: ModelSpec, settings: Settings, n_rungs: int
    ) -> None:
        super().__init__(adaptation, spec, 1, settings)
        self.powers = first_powers(n_rungs)

    def advance(self, state: Any, fresh: bool, start: Any, key: Any, n_draws: int) -> Any:
        """Make some draws with a chain."""
        fixed = {"adaptation": self.adaptation, "spec": self.spec, "block": self.block}
        return _advance_compiled(
            state, fresh, start, key, n_draws, self.settings, self.powers, **fixed
        )

    def begin(self, settings: Settings, start: Any, key: Any) -> Any:
        """The state of one chain that begins there."""
        return _start(key, start, self.powers, settings, self.adaptation, self.spec)


def what_replicas_did(
    fields: dict[str, np.ndarray], state: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """What is recorded of replicas; their own fields are taken from those of the draws.

    Parameters
    ----------
    fields : dict of ndarray, shape (num_chains, num_draws, ...)
        Of all draws. `n_steps` becomes that of the posterior's rung.
    state : mapping of ndarray
        Of the chains at the end.
    """
    fields["n_steps"] = fields.pop("n_steps_there")
    end = {name: state[f"{STATE_PREFIX}{name}"] for name in Replicas._fields if name != "chains"}
    value, error = log_evidence(fields.pop("log_likelihoods"), end["powers"])
    exchanged = 1 - end["rejected"] / np.maximum(end["since"], 1)[:, None]
    return {
        "powers": end["powers"].tolist(),
        "exchanged": exchanged.tolist(),
        "round_trips": end["n_restarts"].tolist(),
        "log_evidence": value if np.isfinite(value) else None,
        "log_evidence_error": error if np.isfinite(error) else None,
    }


def log_evidence(log_likelihoods: np.ndarray, powers: np.ndarray) -> tuple[float, float]:
    """Log of the marginal likelihood and its standard error, in nats.

    Parameters
    ----------
    log_likelihoods : ndarray, shape (num_chains, num_draws, rungs)
        Of the points on each rung.
    powers : ndarray, shape (num_chains, rungs)

    Returns
    -------
    value, error : float
        Each chain has an estimate of its own; the error is that of their mean, not a number of a
        single chain.

    Notes
    -----
    From rung to rung the ratio of the constants is that which makes draws of either side agree
    [1]_, and the prior's own constant is one.

    References
    ----------
    .. [1] C. H. Bennett (1976). Efficient estimation of free energy differences from Monte Carlo
       data. Journal of Computational Physics 22.
    """
    values = [
        sum(_log_ratio(b * draws[:, i], b * draws[:, i + 1]) for i, b in enumerate(np.diff(ladder)))
        for draws, ladder in zip(log_likelihoods, powers, strict=True)
    ]
    several = len(values) > 1
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if several else np.nan
    return float(np.mean(values)), float(error)


def _log_ratio(below: np.ndarray, above: np.ndarray) -> float:
    """Log of the ratio of two constants, from log f1 - log f0 at as many draws of f0 and of f1."""
    low, high = min(below.min(), above.min()), max(below.max(), above.max())

    def excess(log_ratio: float) -> float:
        return float(expit(below - log_ratio).sum() - expit(log_ratio - above).sum())

    if low == high:
        return float(low)
    try:
        with np.errstate(invalid="ignore"):
            return float(brentq(excess, low - 1, high + 1, xtol=1e-10))
    except (RuntimeError, ValueError):
        # A likelihood that is not finite, or beyond all measure: the draws are there all the same.
        return np.nan

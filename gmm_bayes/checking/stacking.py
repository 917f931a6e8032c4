"""Chains that found different modes, weighted by how well each predicts."""

import json
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from gmm_bayes._validation import check_seed
from gmm_bayes._vocabulary import CHAIN, CONSTANT_DATA, DRAW, OBSERVED_DATA, PRIOR, PRIOR_PREDICTIVE
from gmm_bayes.checking.prediction import leave_one_out
from gmm_bayes.inference.result import netcdf
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.verdict.diagnosis import THRESHOLDS
from gmm_bayes.inference.verdict.measures import FEWEST_LOO_DRAWS, agreement_table

__all__ = ["StackedChains", "stack_chains", "stacking_weights"]

# Of a symmetric Dirichlet prior on the weights, as in the paper: chains that predict alike get
# equal weights, not arbitrary ones.
_CONCENTRATION = 1.001
# R-hat below which chains are of one posterior: 100 draws of one mode may reach 1.03, and modes
# that predict differently lie far above.
_AGREE = 1.05


@dataclass(frozen=True, eq=False)
class StackedChains:
    """Weights of the chains of a fit, by stacking.

    Attributes
    ----------
    fit : GMMFit
        The fit whose chains they are.
    weights : ndarray, shape (num_chains,)
        They sum to one.
    elpd_chains : ndarray, shape (num_chains,)
        Expected log predictive density of all rows by each chain alone, in nats.
    elpd_stacked, elpd_equal : float
        The same of the mixture of chains with these weights, and with equal ones.
    pareto_k_high : ndarray, shape (num_chains,)
        Share of rows whose leave-one-out density under a chain cannot be relied on (k above 0.7).
    rhat : float
        The largest R-hat of quantities that do not depend on labels.
    """

    fit: GMMFit
    weights: np.ndarray
    elpd_chains: np.ndarray
    elpd_stacked: float
    elpd_equal: float
    pareto_k_high: np.ndarray
    rhat: float

    @property
    def agree(self) -> bool:
        """Whether the chains are of one posterior: then weights are equal, for they mean nothing.

        The best weights of chains that differ by chance alone are any.
        """
        return self.rhat < _AGREE

    def resample(self, seed: int = 0) -> GMMFit:
        """Draw a fit of the same size, from the chains by their weights.

        Parameters
        ----------
        seed : int in [0, 2**32) or JAX key

        Returns
        -------
        GMMFit
            Draws, dims (chain, draw, ...), in random order: its chains are chains no more, and
            `diagnose` refuses it. `problems` stay those of the fit. `stacking` and the repr say
            what it is.

        Notes
        -----
        Systematic resampling: a draw of a chain of weight w, among C chains, is taken C w times,
        rounded up or down.
        """
        rng = np.random.default_rng(np.random.SeedSequence(check_seed(seed)))
        sizes = self.fit.posterior.sizes
        n_chains, n_draws = sizes[CHAIN], sizes[DRAW]
        ends = np.cumsum(np.repeat(self.weights, n_draws)) * n_chains
        places = np.arange(n_chains * n_draws) + rng.uniform()
        taken = np.minimum(np.searchsorted(ends, places), len(ends) - 1)
        return _taken(self.fit, rng.permutation(taken), self.weights)

    def __repr__(self) -> str:
        chains = zip(self.weights, self.elpd_chains, self.pareto_k_high, strict=True)
        lines = [
            f"  chain {c}: weight {weight:.3f}, elpd {elpd:.1f}, Pareto k high in {high:.0%}"
            for c, (weight, elpd, high) in enumerate(chains)
        ]
        total = f"  elpd stacked {self.elpd_stacked:.1f}, with equal weights {self.elpd_equal:.1f}"
        agree = (
            f"  the chains agree (R-hat {self.rhat:.3f}): weights are equal, and there is nothing "
            "to stack; use the fit itself"
        )
        return "\n".join(["StackedChains", *lines, total, *[agree] * self.agree])


def stack_chains(fit: GMMFit) -> StackedChains:
    """Weight the chains of a fit by how well their mixture predicts rows that were left out.

    For chains that stay in different modes, which no length of run puts right: a chain that is
    stuck in a bad mode gets a weight near zero. The result is a way to predict, and not the
    posterior, of which a mode holds a share that has nothing to do with these weights.

    Parameters
    ----------
    fit : GMMFit
        Made by NUTS or ChEES. Where components changed places, `align_labels` first if single
        components are of interest; the weights do not depend on it.

    Returns
    -------
    StackedChains
        `weights`, shape (num_chains,), and `resample(seed)`, a GMMFit drawn by them. Where chains
        agree, `agree` is True and the weights are equal.

    Raises
    ------
    TypeError, ValueError
        If `fit` is not a GMMFit, was not made by chains, was resampled already, or has draws that
        are not finite or fewer than 25 of them in a chain.

    Notes
    -----
    The weights maximise sum_n log sum_c w_c p(x_n given the other rows, chain c) [1]_, with the
    leave-one-out density of each row under each chain by PSIS, and a Dirichlet prior of
    concentration 1.001, which splits ties evenly. It is a concave problem with C - 1 unknowns.

    References
    ----------
    .. [1] Y. Yao, A. Vehtari, A. Gelman (2022). Stacking for non-mixing Bayesian computations: the
       curse and blessing of multimodal posteriors. JMLR 23.
    """
    check_fit(fit)
    _refuse(fit)
    found = [
        leave_one_out(GMMFit(fit.datatree.isel({CHAIN: [c]})))
        for c in range(fit.posterior.sizes[CHAIN])
    ]
    densities = np.array([one.loo for one in found])
    table = agreement_table(fit)
    rhat = float(table["rhat"][table["label_free"].astype(bool)].max())
    one_posterior = rhat < _AGREE
    n_chains = len(densities)
    weights = np.full(n_chains, 1 / n_chains) if one_posterior else stacking_weights(densities)
    equal = logsumexp(densities, axis=0) - np.log(len(densities))
    return StackedChains(
        fit,
        weights,
        densities.sum(axis=1),
        float(logsumexp(densities, axis=0, b=weights[:, None]).sum()),
        float(equal.sum()),
        np.array([(one.pareto_k > THRESHOLDS["pareto_k"]).mean() for one in found]),
        rhat,
    )


def _refuse(fit: GMMFit) -> None:
    """Raise where there are no chains to weight."""
    if fit.sampler.judged_by != "chains":
        raise ValueError(
            f"stack_chains must have chains, got draws of {fit.sampler.kind}; they have one mode"
        )
    if fit.stacking is not None:
        raise ValueError("stack_chains must have chains as they were sampled, got resampled draws")
    n_draws = fit.posterior.sizes[DRAW]
    if n_draws < FEWEST_LOO_DRAWS:
        raise ValueError(
            f"stack_chains must have at least {FEWEST_LOO_DRAWS} draws a chain, got {n_draws}; run "
            "more (num_samples)"
        )
    if not all(np.isfinite(array).all() for array in fit.parameters()):
        raise ValueError("stack_chains must have finite draws, got some that are not")


def stacking_weights(log_densities: np.ndarray) -> np.ndarray:
    """Weights (C,) that maximise the log density of all rows under the weighted mixture.

    Parameters
    ----------
    log_densities : ndarray, shape (C, n_obs)
        Of each row, given the others, under each member.
    """
    n_members, n_obs = log_densities.shape
    densities = np.exp(log_densities - log_densities.max(axis=0))

    def objective(logits: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the mean log density and log prior, and its gradient."""
        weights = softmax(logits)
        mixed = weights @ densities
        prior = (_CONCENTRATION - 1) * np.log(np.maximum(weights, np.finfo(float).tiny)).sum()
        slope = weights * (densities / mixed).sum(axis=1) - n_obs * weights
        slope += (_CONCENTRATION - 1) * (1 - n_members * weights)
        return -(np.log(mixed).sum() + prior) / n_obs, -slope / n_obs

    # Where two members differ by a few nats, weights go to zero: logits know no corner.
    found = minimize(
        objective,
        np.zeros(n_members),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-50.0, 50.0)] * n_members,
        options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-10},
    )
    return softmax(found.x)


def _taken(fit: GMMFit, places: np.ndarray, weights: np.ndarray) -> GMMFit:
    """The draws at those places of the chains laid end to end, in the shape of the fit."""

    def picked(value: xr.DataArray) -> xr.DataArray:
        if not {CHAIN, DRAW} <= set(value.dims):
            return value
        front = value.transpose(CHAIN, DRAW, ...)
        flat = front.values.reshape(-1, *front.shape[2:])
        return front.copy(data=flat[places].reshape(front.shape)).transpose(*value.dims)

    groups = {
        name: group
        if name in (OBSERVED_DATA, CONSTANT_DATA, PRIOR, PRIOR_PREDICTIVE)
        else group.map(picked, keep_attrs=True)
        for name, group in netcdf.groups(fit.datatree).items()
    }
    stacking = json.dumps({"weights": [float(weight) for weight in weights]})
    return GMMFit(netcdf.build(groups, {**fit.datatree.attrs, "stacking": stacking}))

"""The same posterior with components that keep their places from draw to draw."""

import json
from typing import Any, Literal

import numpy as np
import xarray as xr

from gmm_bayes._validation import check_choice
from gmm_bayes._vocabulary import (
    CHAIN,
    COMPONENT,
    CONSTANT_DATA,
    DRAW,
    NUMBERING,
    PRIOR,
    PRIOR_PREDICTIVE,
    SAMPLE_STATS,
)
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.starts import nearest_centres
from gmm_bayes.inference.result import netcdf
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.verdict.diagnosis import record_verdict
from gmm_bayes.model.matching import permuted
from gmm_bayes.posterior.labels.identifiability import quality
from gmm_bayes.posterior.labels.relabelling import RULES

__all__ = ["align_labels", "unaligned"]

_ALIGNMENT = "alignment"


def align_labels(fit: GMMFit, *, method: Literal["ecr", "stephens", "means"] = "ecr") -> GMMFit:
    """Renumber the components of every draw, so that each keeps its number.

    Parameters
    ----------
    fit : GMMFit
        If it is aligned already, that is undone first.
    method : {"ecr", "stephens", "means"}
        What makes two components of different draws the same: that rows which belong together in
        the draw of highest density do so [1]_, that the probabilities of all rows are close to
        their mean over draws [2]_, or that their parameters are close to those of the draw of
        highest density.

    Returns
    -------
    GMMFit
        Every array with axes chain, draw and component renumbered, the rest as it was, and
        `problems` judged anew. Component k was component `sample_stats["numbering"][..., k]`, dims
        (chain, draw, component), of the fit as sampled. `alignment` says how it went:

        - `method`;
        - `unambiguous`: share of draws in which no two components could as well change places. In
          one that could, the next best order costs less than a quarter of what it does in the
          median draw, or less than 0.01 (rows, or nats) per row of the two;
        - `indistinct`: groups of components that cannot be told apart, because that is so in more
          than 5 % of the draws. Averages over draws mean nothing for those, and are refused;
        - `empty`: components with less than one row in the median draw. Which is which of those is
          not asked;
        - `moved_within`: share of steps of the chains at which numbers changed;
        - `moved_between`: share of pairs of chains whose commonest numberings differ.

    Raises
    ------
    TypeError, ValueError
        If `fit` is not a GMMFit, or the method is not one of these, or no draw is finite.

    Notes
    -----
    For each draw, the assignment of least total cost of its components to K places; [3]_ compares
    the three costs. ECR's is a count of rows, each with its probability; Stephens's is
    sum_n r_nj (log r_nj - log q_nk) with q the mean of the aligned r, the two found in turn. Memory
    does not grow with draws x rows. Components without rows follow their parameters.

    Where the prior has different centres for the means, the components are then numbered by the
    centres, as by `fit`, and else from the largest mean weight to the smallest. `lp` stays the log
    density of the draw as it was sampled: a prior with different centres gives another one to
    another numbering.

    References
    ----------
    .. [1] P. Papastamoulis, G. Iliopoulos (2010). An artificial allocations based solution to the
       label switching problem in Bayesian analysis of mixtures of distributions. Journal of
       Computational and Graphical Statistics 19.
    .. [2] M. Stephens (2000). Dealing with label switching in mixture models. Journal of the Royal
       Statistical Society B 62.
    .. [3] P. Papastamoulis (2016). label.switching: an R package for dealing with the label
       switching problem in MCMC outputs. Journal of Statistical Software 69.
    """
    check_fit(fit)
    check_choice(method, "method", tuple(RULES))
    sampled = unaligned(fit)
    X, draws = _standardised(sampled)
    found = RULES[method](X, draws, _best(sampled, draws))
    order = _numbers(sampled, permuted(sampled.parameters(), found.permutations))
    found = found.numbered(order)
    record = {"method": method, **quality(found, sampled.posterior.sizes[CHAIN])}
    return _judged(_renumbered(sampled, found.permutations), found.permutations, record)


def unaligned(fit: GMMFit) -> GMMFit:
    """Return the fit with the numbering of its draws as they were sampled."""
    if fit.alignment is None:
        return fit
    numbering = fit.sample_stats[NUMBERING].transpose(CHAIN, DRAW, COMPONENT).values
    back = np.argsort(numbering, axis=2).reshape(-1, fit.n_components)
    sampled = _renumbered(fit, back)
    groups = netcdf.groups(sampled.datatree)
    groups[SAMPLE_STATS] = groups[SAMPLE_STATS].drop_vars([NUMBERING, COMPONENT])
    attrs = {name: value for name, value in fit.datatree.attrs.items() if name != _ALIGNMENT}
    return GMMFit(netcdf.build(groups, attrs))


def _standardised(fit: GMMFit) -> tuple[np.ndarray, MixtureParameters]:
    """Rows and draws in standard units: no rule depends on units."""
    units = Standardization.of(fit.X.values, fit.structure)
    return units.apply(fit.X.values), units.apply_to_parameters(fit.parameters())


def _best(fit: GMMFit, draws: MixtureParameters) -> int:
    """Number of the finite draw of highest density."""
    lp = fit.sample_stats["lp"].transpose(CHAIN, DRAW).values.ravel()
    sound = np.all([np.isfinite(a.reshape(len(lp), -1)).all(axis=1) for a in (lp, *draws)], axis=0)
    if not sound.any():
        raise ValueError("align_labels must have finite draws, got none; see diagnose(fit)")
    return int(np.where(sound, lp, -np.inf).argmax())


def _numbers(fit: GMMFit, aligned: MixtureParameters) -> np.ndarray:
    """Which of the aligned components gets which number, shape (K,)."""
    weights, means = (np.nanmean(a, axis=0) for a in aligned[:2])
    by_weight = np.argsort(-weights, kind="stable")
    prior = fit.priors.arrays(fit.n_components, fit.n_features)
    if (np.asarray(prior.mean_loc) == np.asarray(prior.mean_loc)[0]).all():
        return by_weight
    # From the order by weight, so that centres that are equal take the larger first.
    return by_weight[nearest_centres(means[by_weight], prior)]


def _renumbered(fit: GMMFit, permutations: np.ndarray) -> GMMFit:
    """Permute (S, K) the components of everything that has one for every draw."""
    sizes = fit.posterior.sizes
    numbers = permutations.reshape(sizes[CHAIN], sizes[DRAW], -1)

    def moved(value: xr.DataArray) -> xr.DataArray:
        if not {CHAIN, DRAW, COMPONENT} <= set(value.dims):
            return value
        front = value.transpose(CHAIN, DRAW, COMPONENT, ...)
        places = numbers.reshape(*numbers.shape, *[1] * (front.ndim - numbers.ndim))
        taken = front.copy(data=np.take_along_axis(front.values, places, axis=2))
        return taken.transpose(*value.dims)

    groups = {
        # The prior's draws are not those of the chains.
        name: group
        if name in (CONSTANT_DATA, PRIOR, PRIOR_PREDICTIVE)
        else group.map(moved, keep_attrs=True)
        for name, group in netcdf.groups(fit.datatree).items()
    }
    return GMMFit(netcdf.build(groups, fit.datatree.attrs))


def _judged(fit: GMMFit, permutations: np.ndarray, record: dict[str, Any]) -> GMMFit:
    """Write down the alignment, and the verdict on the aligned draws."""
    groups = netcdf.groups(fit.datatree)
    stats, sizes = groups[SAMPLE_STATS], fit.posterior.sizes
    numbering = permutations.reshape(sizes[CHAIN], sizes[DRAW], -1)
    groups[SAMPLE_STATS] = stats.assign(
        {NUMBERING: ((CHAIN, DRAW, COMPONENT), numbering)}
    ).assign_coords({COMPONENT: fit.posterior.coords[COMPONENT]})
    attrs = {**fit.datatree.attrs, _ALIGNMENT: json.dumps(record)}
    aligned = GMMFit(netcdf.build(groups, attrs))
    # There is no verdict on draws that are chains no more, but on their labels.
    if fit.stacking is None:
        record_verdict(aligned)
    else:
        labels = {"switched": bool(record["indistinct"]), "advice": []}
        aligned.datatree.attrs.update({name: json.dumps(is_so) for name, is_so in labels.items()})
    return aligned

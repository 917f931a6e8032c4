"""Ranks of truths in posteriors that are right, or wrong in a known way, and records of them."""

import numpy as np
import pandas as pd

import gmm_bayes as gb

NUM_RANKED = 99
PRIORS = gb.Priors(5.0, [[-4.0, 0.0], [4.0, 0.0]], mean_covariance=1.0, scale_scale=1.0)


def normal_ranks(n_simulations, *, sd=1.0, shift=0.0, seed=0):
    """Ranks of truths among draws of a normal posterior that is off by a shift and a factor."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(n_simulations)
    draws = shift + sd * rng.standard_normal((n_simulations, NUM_RANKED))
    return (draws < truth[:, None]).sum(axis=1)


def made_up_calibration(ranks, *, ess=400.0, asked=None):
    """A record of such ranks, one column for each quantity; `ess` of the first simulations."""
    table = pd.DataFrame(ranks)
    effective = pd.DataFrame(np.full(table.shape, 400.0), columns=table.columns)
    effective.iloc[: len(np.atleast_1d(ess)), 0] = ess
    facts = pd.DataFrame({"adapted": [True] * len(table), "truth_lead": -1.0})
    settings = {"n_obs": 50, "n_components": 2, "n_features": 2, "covariance_type": "full"}
    asked = len(table) if asked is None else asked
    return gb.Calibration(table, effective, facts, NUM_RANKED, asked, PRIORS, PRIORS, settings)

"""The numbers that verdicts turn on, and where they come from."""

from typing import Final

__all__ = ["THRESHOLDS", "ess_needed"]

# Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Rank-normalization, folding, and
# localization: R-hat below 1.01 and an ESS of 100 per chain. Betancourt (2016), Diagnosing
# suboptimal cotangent disintegrations: an E-BFMI below 0.3 is suspicious. The others are ours: a
# chain is in another mode when its mean log-likelihood lies three sds of the best chain below that
# chain's, and four Monte Carlo errors of the difference (five to six, of means of few draws and
# many chains); NUTS hardly ever returns the point it started from; and a component a ten-thousandth
# as wide as its column has collapsed.
# Many short chains: Vehtari et al. ask for an ESS of 400 in all, which was 100 of each of their
# four chains; 100 of each of a thousand may be more than there are draws. Nested R-hat (Margossian
# et al. 2024) has the threshold of R-hat. Where chains have forgotten their starts it is about
# sqrt(1 + 1 / n), n the effective draws of one superchain, so 1.01 asks for 50 of each.
# Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling: weights whose
# tail has a shape above 0.7 cannot be averaged with.
# Kallioinen, Paananen, Buerkner, Vehtari (2024), Detecting and diagnosing prior and likelihood
# sensitivity with power-scaling: a sensitivity of 0.05 is worth a look. Ours: a prior is strong
# where the posterior is at least half as sensitive to it as to the likelihood, and outweighs the
# data by far where it is twice as sensitive; below 40 draws neither is known.
# Sivula, Magnusson, Matamoros, Vehtari (2020), Uncertainty in Bayesian leave-one-out cross-
# validation based model comparison: below four nats a difference is small, its error not known.
# Ours: a mode that carries less than a thousandth is left alone, or than a tenth where chains begun
# in several came to the same ones, which they did if R-hat of all is below 1.02; and what a mode is
# worth is known where its share has a standard error of at most 0.05. Replicas find modes by coming
# from the prior: fewer than five times a chain is too seldom to be sure of any. Above an R-hat of
# 1.1 chains that agree with themselves keep to modes of their own; below, they may be slow.
THRESHOLDS: Final = {
    "rhat": 1.01,
    "rhat_apart": 1.1,
    "ess_per_chain": 100,
    "ess_many_chains": 400,
    "e_bfmi": 0.3,
    "worse_chain_sd": 3.0,
    "worse_chain_elpd": 4.0,
    "worse_chain_se": 3.0,
    "worse_chain_mcse": 4.0,
    "repeated_share": 0.1,
    "collapsed_scale": 1e-4,
    "min_draws": 8,
    "pareto_k": 0.7,
    "power_scaling": 0.05,
    "prior_share": 0.5,
    "prior_outweighs": 2.0,
    "prior_draws": 40,
    "mode_share": 1e-3,
    "small_mode_share": 0.1,
    "mode_rhat": 1.02,
    "mode_share_error": 0.05,
    "round_trips": 5,
}


def ess_needed(num_chains: int, num_superchains: int | None) -> float:
    """Effective draws, bulk and tail, below which a run is too short."""
    if num_superchains:
        return THRESHOLDS["ess_many_chains"]
    return THRESHOLDS["ess_per_chain"] * num_chains

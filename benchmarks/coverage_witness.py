"""What the interval of a density holds under the priors alone, with none of the package's code.

One component of `coverage.py`, its members known: draws of the conjugate posterior under Haar's
prior, weighted to the HalfCauchy, LKJ(2) and Dirichlet(0.5) priors of the package (the mean's prior
is flat). What such intervals of the log density at the true mean hold, no sampler can mend.
"""

import argparse

import numpy as np
from coverage import COVARIANCES, LEVEL, MEANS, WEIGHTS

CONCENTRATION, LKJ = 0.5, 2.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--data-sets", type=int, default=1500)
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    centre = WEIGHTS @ MEANS
    within = np.einsum("k,kii->i", WEIGHTS, COVARIANCES)
    spread = np.sqrt(within + WEIGHTS @ (MEANS - centre) ** 2)
    truth = np.log(WEIGHTS[0]) - 0.5 * np.linalg.slogdet(COVARIANCES[0])[1]
    tail = (1 - LEVEL) / 2
    for n_obs in args.sizes:
        rng = np.random.default_rng([args.seed, n_obs])
        ends = [interval(n_obs, spread, tail, args.draws, rng) for _ in range(args.data_sets)]
        low, high = np.array(ends).T
        held = np.mean((low <= truth) & (truth <= high))
        print(f"{n_obs} rows: {held:.1%} held, {np.mean(truth > high):.1%} above the interval")


def interval(n_obs, spread, tail, n_draws, rng):
    """The interval of the log density at the true mean, given one data set's own rows."""
    n = rng.binomial(n_obs, WEIGHTS[0])
    X = MEANS[0] + rng.standard_normal((n, 2)) @ np.linalg.cholesky(COVARIANCES[0]).T
    squares = (X - X.mean(axis=0)).T @ (X - X.mean(axis=0))
    # Wishart(n - 1, inverse of squares) by Bartlett's decomposition.
    factor = np.zeros((n_draws, 2, 2))
    factor[:, 0, 0] = np.sqrt(rng.chisquare(n - 1, n_draws))
    factor[:, 1, 1] = np.sqrt(rng.chisquare(n - 2, n_draws))
    factor[:, 1, 0] = rng.standard_normal(n_draws)
    factor = np.linalg.cholesky(np.linalg.inv(squares)) @ factor
    precision = factor @ factor.swapaxes(1, 2)
    covariance = np.linalg.inv(precision)
    noise = rng.standard_normal((n_draws, 2)) / np.sqrt(n)
    mean = X.mean(axis=0) + np.einsum("sij,sj->si", np.linalg.cholesky(covariance), noise)
    weight = rng.beta(CONCENTRATION + n, CONCENTRATION + n_obs - n, n_draws)
    scales = np.sqrt(covariance[:, [0, 1], [0, 1]])
    left = np.log1p(-((covariance[:, 0, 1] / scales.prod(axis=1)) ** 2))
    # Haar's density in scales and correlation is 1 / (s1 s2 (1 - rho^2)^1.5).
    log_ratio = np.log(scales).sum(axis=1) + (LKJ - 1 + 1.5) * left
    log_ratio -= np.log1p((scales / spread) ** 2).sum(axis=1)
    away = MEANS[0] - mean
    log_density = np.log(weight) - 0.5 * np.linalg.slogdet(covariance)[1]
    log_density -= 0.5 * np.einsum("si,sij,sj->s", away, precision, away)
    order = np.argsort(log_density)
    share = np.exp(log_ratio - log_ratio.max())[order].cumsum()
    ends = np.searchsorted(share / share[-1], [tail, 1 - tail])
    return log_density[order][ends]


if __name__ == "__main__":
    main()

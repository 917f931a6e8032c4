"""Do 90 % intervals under the default priors hold the truth 90 % of the time?

The default priors follow the data, so simulation-based calibration does not apply to them. Here a
truth is fixed, many data sets are drawn from it, and it is counted how often the interval between
the 5 % and 95 % quantiles of the posterior holds the truth.
"""

import argparse
import time

import numpy as np
import record

NAME = "coverage"
LEVEL = 0.9
WEIGHTS = np.array([0.4, 0.6])
MEANS = np.array([[-2.0, 0.0], [2.0, 1.0]])
COVARIANCES = np.array([[[1.0, 0.5], [0.5, 0.8]], [[0.6, -0.2], [-0.2, 1.2]]])
# At a mean, between the components, and on the edge of one.
POINTS = np.array([[-2.0, 0.0], [0.0, 0.5], [3.5, 2.0]])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--data-sets", type=int, default=500)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    args = parser.parse_args()
    for n_obs in args.sizes:
        record.emit(NAME, measure(n_obs, args), args.rows)


def measure(n_obs, args):
    """The row of one number of rows."""
    import gmm_bayes as gb
    from gmm_bayes.checking.calibration.simulated_posteriors import draw_posteriors
    from gmm_bayes.inference.potential import ModelSpec
    from gmm_bayes.machine.devices import find_device

    k, d = MEANS.shape
    data_seed, sampler_seed = np.random.SeedSequence([args.seed, n_obs]).spawn(2)
    X = simulate(n_obs, args.data_sets, np.random.default_rng(data_seed))
    begin = time.perf_counter()
    draws, facts = draw_posteriors(
        X,
        [gb.default_priors(rows, k).arrays(k, d) for rows in X],
        ModelSpec(k, "full"),
        gb.NUTS(num_chains=1, num_samples=args.draws),
        sampler_seed,
        device=find_device("cpu"),
        shown=False,
    )
    seconds = time.perf_counter() - begin
    held = np.array([covered({n: v[i, 0] for n, v in draws.items()}) for i in range(len(X))])
    shares = dict(zip(quantities(truth()), held.mean(axis=0), strict=True))
    groups = {}
    for name, share in shares.items():
        groups.setdefault(name.partition("[")[0], []).append(share)
    return record.make_row(
        NAME,
        "gmm_bayes",
        (n_obs, k, d),
        problem="full, default priors",
        seed=args.seed,
        num_chains=1,
        num_samples=args.draws,
        num_data_sets=args.data_sets,
        level=LEVEL,
        seconds=seconds,
        coverage={name: float(share) for name, share in shares.items()},
        coverage_by_group={name: float(np.mean(values)) for name, values in groups.items()},
        share_adapted=float(facts["adapted"].mean()),
        divergences=int(facts["divergences"].sum()),
    )


def simulate(n_obs, n_sets, rng):
    labels = rng.choice(len(WEIGHTS), size=(n_sets, n_obs), p=WEIGHTS)
    factors = np.linalg.cholesky(COVARIANCES)
    noise = rng.standard_normal((n_sets, n_obs, MEANS.shape[1]))
    return MEANS[labels] + np.einsum("snde,sne->snd", factors[labels], noise)


def truth():
    """The sites of the true mixture, as one draw."""
    scales = np.sqrt(np.diagonal(COVARIANCES, axis1=1, axis2=2))
    factors = np.linalg.cholesky(COVARIANCES) / scales[..., None]
    sites = {"weights": WEIGHTS, "means": MEANS, "scales": scales}
    sites["correlation_cholesky"] = factors
    return {name: value[None] for name, value in sites.items()}


def covered(sites):
    """Whether each quantity's interval holds the truth, components matched to the true ones."""
    from scipy.optimize import linear_sum_assignment

    away = sites["means"].mean(axis=0)[None] - MEANS[:, None]
    _, order = linear_sum_assignment((away**2).sum(axis=-1))
    values = quantities({name: value[:, order] for name, value in sites.items()})
    true = quantities(truth())
    tail = (1 - LEVEL) / 2
    return [
        np.quantile(draws, tail) <= true[name][0] <= np.quantile(draws, 1 - tail)
        for name, draws in values.items()
    ]


def quantities(sites):
    """Numbers (S,) of draws: weights, means, covariances, and the log density at some points."""
    from scipy.special import logsumexp

    factor = sites["scales"][..., None] * sites["correlation_cholesky"]
    covariances = factor @ factor.swapaxes(-1, -2)
    k, d = sites["means"].shape[1:]
    found = {"weights[0]": sites["weights"][:, 0]}
    for c in range(k):
        found |= {f"means[{c}, {i}]": sites["means"][:, c, i] for i in range(d)}
        for i in range(d):
            found |= {f"covariances[{c}, {i}, {j}]": covariances[:, c, i, j] for j in range(i + 1)}
    for p, point in enumerate(POINTS):
        away = np.linalg.solve(factor, (point - sites["means"])[..., None])[..., 0]
        log_det = np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)
        scores = np.log(sites["weights"]) - log_det - 0.5 * (away**2).sum(axis=-1)
        found[f"density[{p}]"] = logsumexp(scores, axis=1)
    return found


if __name__ == "__main__":
    main()

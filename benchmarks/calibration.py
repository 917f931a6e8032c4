"""Is the machine right? Simulation-based calibration of each covariance structure, and of faults.

Each row is one check: parameters from the prior, data from them, draws from each posterior, and the
ranks of the true values. `--faults` plants errors that the check must find.
"""

import argparse
import time

import numpy as np
import record

NAME = "calibration"
N_OBS, N_COMPONENTS, N_FEATURES = 50, 2, 2
STRUCTURES = ("full", "tied", "diag", "spherical")
# Weights of the Dirichlet -> what the problem is called.
EASY, SPARSE = 5.0, 0.5
NARROW = 0.8
# Standard deviations of a mean. A component is wider than this distance with a probability of 3 %,
# both are with 0.1 %: then which is which is not known, and one chain does not see both ways.
APART = 20.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", nargs="*", default=STRUCTURES, choices=STRUCTURES)
    parser.add_argument("--faults", nargs="*", default=tuple(FAULTS), choices=tuple(FAULTS))
    parser.add_argument("--concentration", type=float, default=EASY, help="of the Dirichlet")
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--apart", type=float, default=APART, help="distance of the centres")
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    parser.add_argument("--ranks", help="folder in which to keep ranks and ESS")
    parser.add_argument("--picture", help="where to draw the last check")
    args = parser.parse_args()
    found = None
    for structure in args.structures:
        begin = time.perf_counter()
        found = check(structure, args)
        seconds = time.perf_counter() - begin
        record.emit(NAME, make(found, "gmm_bayes", structure, seconds, args), args.rows)
    for fault in args.faults:
        begin = time.perf_counter()
        found = FAULTS[fault](args)
        seconds = time.perf_counter() - begin
        record.emit(NAME, make(found, f"fault: {fault}", "diag", seconds, args), args.rows)
    if args.picture and found is not None:
        import gmm_bayes as gb

        gb.plots.plot_calibration(found)[0].figure.savefig(args.picture, dpi=110)


def priors(args):
    import gmm_bayes as gb

    return gb.Priors(
        mean_loc=[[-args.apart / 2, 0.0], [args.apart / 2, 0.0]],
        mean_covariance=1.0,
        weight_concentration=args.concentration,
        scale_scale=1.0,
    )


def check(structure, args, **given):
    import gmm_bayes as gb

    return gb.simulation_based_calibration(
        n_components=N_COMPONENTS,
        n_features=N_FEATURES,
        n_obs=N_OBS,
        covariance_type=structure,
        priors=priors(args),
        sampler=gb.NUTS(num_chains=1, num_samples=args.draws),
        num_simulations=args.simulations,
        seed=args.seed,
        **given,
    )


def narrow_prior(args):
    """The sampler's prior has its scale and the sd of its means 20 % too small."""
    wrong = priors(args).replace(scale_scale=NARROW, mean_covariance=NARROW**2)
    return check("diag", args, sampling_priors=wrong)


def narrow_scale(args):
    """The likelihood takes its standard deviations 20 % too small.

    A likelihood with 0.8 sigma, under a prior of sigma, is that of sigma' = 0.8 sigma under a prior
    whose scale is 0.8 of the right one: so that is sampled, and sigma' / 0.8 given as sigma.
    """

    def divide(draws):
        return {**draws, "scales": draws["scales"] / NARROW}

    wrong = priors(args).replace(scale_scale=NARROW)
    return by_hand(args, given=wrong, change_draws=divide)


def rows_twice(args):
    """28 of the 50 rows count twice: the posterior is about 20 % too narrow."""
    extra = round(N_OBS * (1 / NARROW**2 - 1))
    return by_hand(args, change_rows=lambda X: np.concatenate([X, X[:, :extra]], axis=1))


def by_hand(args, *, given=None, change_rows=None, change_draws=None):
    """The steps of a check, with something wrong between two of them."""
    import gmm_bayes as gb
    from gmm_bayes.checking.calibration import simulated_posteriors as steps
    from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
    from gmm_bayes.inference.potential import ModelSpec
    from gmm_bayes.machine.devices import find_device

    spec, right = ModelSpec(N_COMPONENTS, "diag"), priors(args)
    given, sizes = given or right, (N_COMPONENTS, N_FEATURES)
    seeds = np.random.SeedSequence([args.seed, 1]).spawn(3)
    truths, X = steps.simulate(right.arrays(*sizes), spec, N_OBS, args.simulations, seeds[0])
    draws, facts = steps.draw_posteriors(
        X if change_rows is None else change_rows(X),
        [given.arrays(*sizes)] * args.simulations,
        spec,
        gb.NUTS(num_chains=1, num_samples=args.draws),
        seeds[1],
        device=find_device("cpu"),
        shown=False,
    )
    draws = draws if change_draws is None else change_draws(draws)
    structure = COVARIANCE_STRUCTURES["diag"]
    ranks, ess, facts["truth_lead"] = steps.rank_truths(
        truths, X, draws, right.arrays(*sizes), structure, NUM_RANKED, seeds[2]
    )
    settings = {**spec._asdict(), "n_features": N_FEATURES, "n_obs": N_OBS}
    return gb.Calibration(ranks, ess, facts, NUM_RANKED, args.simulations, right, given, settings)


NUM_RANKED = 99
FAULTS = {
    "prior 20 % too narrow": narrow_prior,
    "likelihood's scale 20 % too small": narrow_scale,
    "28 of 50 rows counted twice": rows_twice,
}


def make(found, method, structure, seconds, args):
    """The row of one check."""
    table = found.table
    if args.ranks:
        name = f"{method} {structure} {args.concentration:g} {args.apart:g} {args.seed}"
        found.ranks.to_csv(f"{args.ranks}/{name.replace(' ', '_')}_ranks.csv")
        found.ess.to_csv(f"{args.ranks}/{name.replace(' ', '_')}_ess.csv")
    return record.make_row(
        NAME,
        method,
        (N_OBS, N_COMPONENTS, N_FEATURES),
        problem=f"{structure}, Dirichlet({args.concentration:g}), {args.apart:g} apart",
        seed=args.seed,
        num_chains=1,
        num_samples=args.draws,
        num_simulations=found.num_simulations,
        num_ranked=found.num_ranked,
        num_quantities=len(table),
        seconds=seconds,
        ok=found.ok,
        within_bands=bool(table["ok"].all()),
        smallest_adjusted_p=float(table["adjusted_p"].min()),
        worst=str(table["p_value"].idxmin()),
        problems=found.problems,
        p_values={name: float(p) for name, p in table["p_value"].items()},
        num_dependent=found.num_dependent,
        num_astray=found.num_astray,
        min_ess=float(found.ess.min(axis=None)),
        share_adapted=float(found.facts["adapted"].mean()),
        divergences=int(found.facts["divergences"].sum()),
        num_gradients=int(found.facts["n_gradients"].sum()),
        priors=repr(found.priors),
        sampling_priors=repr(found.sampling_priors),
    )


if __name__ == "__main__":
    main()

"""The evidence against integrals that are known otherwise, whatever the numbering and the units."""

import json
import warnings

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.smc.resampling import systematic
from scipy import integrate, stats
from scipy.special import betaln, logsumexp

import gmm_bayes as gb
from gmm_bayes._vocabulary import CHAIN, DIAG, DRAW, FULL, POSTERIOR, SPHERICAL
from gmm_bayes.checking import evidence
from gmm_bayes.checking.evidence import log_evidence
from gmm_bayes.checking.renumbered import renumber
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.inference.modes.bridge import Bridge
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.machine.devices import double_precision

LONG = gb.NUTS(num_warmup=500, num_samples=2000, target_accept_prob=0.95)


def quiet_fit(X, n_components, **options):
    """Fit where labels switch, or a draw in thousands diverges, for good reasons."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        return gb.fit(X, n_components, sampler=LONG, seed=2, **options)


def check(found, expected, largest_error, expected_error=0.0):
    """Within five standard errors, which must be small."""
    assert found.error < largest_error
    assert abs(found.log_evidence - expected) < 5 * np.hypot(found.error, expected_error)


# -- one component: quadrature --------------------------------------------------------------------


def column_evidence(x, centre, spread, scale):
    """Log of the integral over mean and log sd of a normal with one column, by SciPy."""
    peak = stats.norm(x.mean(), x.std()).logpdf(x).sum()

    def joint(mean, log_sd):
        sd = np.exp(log_sd)
        logs = -0.5 * np.sum(((x - mean) / sd) ** 2) - len(x) * (log_sd + 0.5 * np.log(2 * np.pi))
        logs += -0.5 * ((mean - centre) / spread) ** 2 - np.log(spread * np.sqrt(2 * np.pi))
        logs += np.log(2 / np.pi / scale) - np.log1p((sd / scale) ** 2) + log_sd
        return np.exp(logs - peak)

    middle, half = np.log(x.std()), 12 / np.sqrt(len(x))

    def bounds(log_sd):
        width = 10 * np.exp(log_sd) / np.sqrt(len(x))
        return x.mean() - width, x.mean() + width

    value, _ = integrate.dblquad(
        joint,
        middle - half / 2,
        middle + half,
        lambda log_sd: bounds(log_sd)[0],
        lambda log_sd: bounds(log_sd)[1],
        epsabs=0,
        epsrel=1e-6,
    )
    return peak + np.log(value)


@pytest.fixture(scope="module")
def small_table():
    return np.random.default_rng(0).normal([3.0, -100.0], [2.0, 40.0], size=(25, 2))


@pytest.fixture(scope="module")
def line_one_fit(small_table):
    return gb.fit(small_table[:, :1], 1, sampler=LONG, seed=2)


def test_one_component_of_one_column(small_table, line_one_fit):
    prior = line_one_fit.priors.arrays(1, 1)
    expected = column_evidence(
        small_table[:, 0],
        prior.mean_loc.item(),
        prior.mean_scale_tril.item(),
        prior.scale_scale.item(),
    )
    check(log_evidence(line_one_fit), expected, 0.005)


def test_independent_columns(small_table):
    fit = gb.fit(small_table, 1, covariance_type=DIAG, sampler=LONG, seed=2)
    prior = fit.priors.arrays(1, 2)
    expected = sum(
        column_evidence(
            small_table[:, d],
            prior.mean_loc[0, d],
            prior.mean_scale_tril[d, d],
            prior.scale_scale[d],
        )
        for d in range(2)
    )
    check(log_evidence(fit), expected, 0.01)


@pytest.mark.parametrize("covariance_type", [FULL, SPHERICAL])
def test_one_component_by_importance_sampling(small_table, covariance_type):
    """The prior and the likelihood written out with SciPy, in the user's units."""
    X = small_table * [1.0, 0.1]
    fit = gb.fit(X, 1, covariance_type=covariance_type, sampler=LONG, seed=2)
    prior = fit.priors.arrays(1, 2)
    posterior = fit.posterior
    full = "correlation_cholesky" in posterior
    columns = [posterior["means"].values.reshape(-1, 2)]
    columns.append(np.log(posterior["scales"].values.reshape(len(columns[0]), -1)))
    if full:
        columns.append(
            np.arctanh(posterior["correlation_cholesky"].values.reshape(-1, 2, 2)[:, 1:, 0])
        )
    points = np.concatenate(columns, axis=1)
    proposal = stats.multivariate_t(points.mean(axis=0), np.cov(points.T), df=5)
    z = proposal.rvs(40_000, random_state=1)
    means, scales = z[:, :2], np.exp(z[:, 2:4] if full else z[:, 2:].repeat(2, axis=1))
    rho = np.tanh(z[:, 4]) if full else np.zeros(len(z))
    centred = (X - means[:, None]) / scales[:, None]
    a, b = centred[..., 0], centred[..., 1]
    squared = (a**2 - 2 * rho[:, None] * a * b + b**2).sum(axis=1) / (1 - rho**2)
    log_f = -0.5 * squared - len(X) * np.log(2 * np.pi * scales.prod(axis=1) * np.sqrt(1 - rho**2))
    log_f += stats.multivariate_normal(
        prior.mean_loc[0], prior.mean_scale_tril @ prior.mean_scale_tril.T
    ).logpdf(means)
    if full:
        log_f += (stats.halfcauchy(scale=prior.scale_scale).logpdf(scales) + z[:, 2:4]).sum(axis=1)
        # LKJ(2) of a pair: (rho + 1) / 2 is Beta(2, 2); then the Jacobians of both maps.
        log_f += stats.beta(2, 2).logpdf((rho + 1) / 2) - np.log(2) + np.log1p(-(rho**2))
    else:
        rms = np.sqrt(np.mean(prior.scale_scale**2))
        log_f += stats.halfcauchy(scale=rms).logpdf(scales[:, 0]) + z[:, 2]
    ratios = log_f - proposal.logpdf(z)
    expected = logsumexp(ratios) - np.log(len(z))
    weights = np.exp(ratios - expected)
    check(log_evidence(fit), expected, 0.01, weights.std() / np.sqrt(len(z)))


def test_units_shift_it(small_table, line_one_fit):
    """Numbers a thousand times larger, with the priors moved along."""
    larger = gb.fit(1000 * small_table[:, :1], 1, sampler=LONG, seed=2)
    before, after = log_evidence(line_one_fit), log_evidence(larger)
    check(after, before.log_evidence - len(small_table) * np.log(1000), 0.005, before.error)


# -- two groups far apart: the sum over both numberings -------------------------------------------


@pytest.fixture(scope="module")
def two_groups():
    rng = np.random.default_rng(1)
    return np.concatenate([rng.normal(-20, 1, 20), rng.normal(20, 2, 20)])


def separated_evidence(x, priors):
    """Dirichlet-multinomial of the groups times an integral for each, in both numberings.

    A row in the wrong group costs more than 20 nats.
    """
    prior = priors.arrays(2, 1)
    groups = (x[x < 0], x[x > 0])
    alpha, spread, scale = (
        prior.weight_concentration,
        prior.mean_scale_tril.item(),
        prior.scale_scale.item(),
    )
    logs = []
    for places in ((0, 1), (1, 0)):
        counts = np.array([len(groups[places.index(k)]) for k in range(2)])
        log_joint = betaln(*(alpha + counts)) - betaln(*alpha)
        for group, k in zip(groups, places, strict=True):
            log_joint += column_evidence(group, prior.mean_loc[k, 0], spread, scale)
        logs.append(log_joint)
    return logs


# A prior that is the same for both numberings, one that is nearly so, and two that are not, where
# chains that stay in one numbering must be weighted.
@pytest.mark.parametrize(
    ("concentration", "spread"), [(0.5, 1000.0), (0.5, 30.0), ((0.5, 8.0), 1000.0)]
)
def test_two_groups_far_apart(two_groups, concentration, spread):
    priors = gb.Priors(
        weight_concentration=concentration,
        mean_loc=[[-20.0], [20.0]],
        mean_covariance=spread**2,
        scale_scale=2.0,
    )
    logs = separated_evidence(two_groups, priors)
    fit = quiet_fit(two_groups[:, None], 2, covariance_type=DIAG, priors=priors)
    found = log_evidence(fit)
    check(found, logsumexp(logs), 0.02)
    # Both numberings matter: neither can be left out unnoticed.
    assert logsumexp(logs) - max(logs) > 5 * found.error


# -- numberings -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def symmetric_fit(faithful):
    X = faithful.iloc[::4]
    priors = gb.default_priors(X, 2).replace(mean_loc=np.tile(X.mean().to_numpy(), (2, 1)))
    return gb.fit(X, 2, priors=priors, seed=2)


def renumbered_at_random(fit):
    """The same mixtures, the components of each in random order."""
    old = fit.posterior
    shape = (old.sizes[CHAIN], old.sizes[DRAW], 1)
    order = np.random.default_rng(0).permuted(np.tile(np.arange(fit.n_components), shape), axis=2)

    def moved(value):
        places = order.reshape(*order.shape, *[1] * (value.ndim - 3))
        return value.copy(data=np.take_along_axis(value.values, places, axis=2))

    return fit.with_group(POSTERIOR, old.map(moved))


def test_numbering_of_the_draws_does_not_matter(symmetric_fit):
    mixed = renumbered_at_random(symmetric_fit)
    assert gb.inference.verdict.measures.labels_switched(mixed)
    plain, mixed = log_evidence(symmetric_fit), log_evidence(mixed)
    check(mixed, plain.log_evidence, 0.05, plain.error)


def test_the_density_is_that_of_the_sampler(symmetric_fit):
    """Renumbered vectors in standard units, against the log density that NUTS wrote down."""
    fit, structure = symmetric_fit, COVARIANCE_STRUCTURES[FULL]
    units = Standardization.of(fit.X.values, structure)
    with double_precision():
        for some in (fit, renumbered_at_random(fit)):
            posterior, draws = renumber(some, units)
            found = posterior.log_density(draws.z[0, :20])
            inside = posterior.contains(draws.z.reshape(-1, draws.z.shape[-1]))
            assert inside.all()
            np.testing.assert_allclose(draws.weights, 1)
            # Two numberings of the same prior density, and the volume of the rows and the means.
            expected = some.sample_stats["lp"].values[0, :20] + np.log(2)
            expected = expected + units.log_volume * (fit.n_obs + 2)
            # Stick-breaking's Jacobian is the same for both numberings of two weights.
            np.testing.assert_allclose(found, expected, rtol=1e-10)


# -- overlapping groups: sequential Monte Carlo ---------------------------------------------------


def tempered_evidence(x, centres, spread, concentration):
    """BlackJAX's adaptive tempered SMC on densities written out: log evidence, standard error."""
    log_normal = jax.scipy.stats.norm.logpdf

    def log_prior(z):
        logit, means, log_sds = z[0], z[1:3], z[3:]
        total = concentration[0] * jax.nn.log_sigmoid(logit)
        total += concentration[1] * jax.nn.log_sigmoid(-logit) - betaln(*concentration)
        total += log_normal(means, centres, spread).sum()
        return total + (np.log(2 / np.pi) - jnp.log1p(jnp.exp(2 * log_sds)) + log_sds).sum()

    def log_likelihood(z):
        logs = log_normal(x[:, None], z[1:3], jnp.exp(z[3:]))
        logs += jax.nn.log_sigmoid(jnp.stack([z[0], -z[0]]))
        return jax.scipy.special.logsumexp(logs, axis=1).sum()

    walk = blackjax.rmh.build_kernel()

    def step(key, state, log_density):
        def propose(key, z):
            key_size, key_noise = jax.random.split(key)
            size = jnp.exp(jax.random.uniform(key_size, minval=-3.0, maxval=1.0))
            return z + size * jax.random.normal(key_noise, z.shape)

        return walk(key, state, log_density, propose)

    smc = blackjax.adaptive_tempered_smc(
        log_prior, log_likelihood, step, blackjax.rmh.init, {}, systematic, 0.8, num_mcmc_steps=20
    )
    advance, runs = jax.jit(smc.step), []
    for run in range(6):
        rng = np.random.default_rng(run)
        weights = rng.beta(*concentration, size=(4000, 1))
        means = centres + spread * rng.normal(size=(4000, 2))
        log_sds = np.log(abs(rng.standard_cauchy((4000, 2))))
        state = smc.init(jnp.hstack([np.log(weights / (1 - weights)), means, log_sds]))
        runs.append(0.0)
        while state.tempering_param < 1:
            key = jax.device_put(rng.integers(0, 2**32, 2, dtype=np.uint32))
            state, info = advance(key, state)
            runs[-1] += float(info.log_likelihood_increment)
    share = np.exp(np.array(runs) - max(runs))
    return max(runs) + np.log(share.mean()), share.std(ddof=1) / share.mean() / np.sqrt(len(runs))


@pytest.fixture(scope="module")
def overlapping():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 20), rng.normal(1, 1, 20)])
    priors = gb.Priors(
        weight_concentration=[1.0, 3.0], mean_loc=[[0.0], [1.0]], mean_covariance=1, scale_scale=1
    )
    return quiet_fit(x[:, None], 2, covariance_type=DIAG, priors=priors)


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")
def test_overlapping_groups_against_tempering(overlapping, double):
    x = overlapping.X.values[:, 0]
    expected, expected_error = tempered_evidence(x, np.array([0.0, 1.0]), 1.0, (1.0, 3.0))
    assert expected_error < 0.02
    check(log_evidence(overlapping), expected, 0.03, expected_error)


# -- the record and what is refused ---------------------------------------------------------------


def test_the_seed_is_that_of_the_proposals(line_one_fit):
    first, second = log_evidence(line_one_fit, seed=0), log_evidence(line_one_fit, seed=1)
    assert first == log_evidence(line_one_fit)
    assert first.log_evidence != second.log_evidence
    check(second, first.log_evidence, 0.005, first.error)


def test_the_record_in_one_line(line_one_fit):
    found = log_evidence(line_one_fit)
    assert found.notes == ()
    assert repr(found) == (
        f"Evidence(log p(X) = {found.log_evidence:.3f} +- {found.error:.3f} nats, "
        f"ESS {found.ess:.0f}, {found.n_iterations} iterations)"
    )


def with_problems(fit, *problems):
    changed = gb.GMMFit(fit.datatree.copy())
    changed.datatree.attrs["problems"] = json.dumps(problems)
    return changed


def test_chains_that_should_not_be_believed(line_one_fit):
    with pytest.warns(gb.errors.ConvergenceWarning) as caught:
        found = log_evidence(with_problems(line_one_fit, "R-hat is 1.5", "7 draws diverged"))
    note = "the chains should not be believed (R-hat is 1.5; 7 draws diverged), see diagnose(fit)"
    assert found.notes == (note,)
    assert str(caught[0].message) == f"do not believe this evidence yet: {note}"
    assert repr(found).endswith(f"iterations; do not believe it: {note})")


def test_switched_labels_are_no_reason_to_doubt(symmetric_fit):
    mixed = renumbered_at_random(symmetric_fit)
    assert gb.diagnose(mixed).switched
    # As files of the first versions have it.
    problem = "components changed places between draws (label switching)"
    assert log_evidence(with_problems(mixed, problem)).notes == ()


def test_a_large_error_is_said(line_one_fit, monkeypatch):
    poor = Bridge(-50.0, 0.7, 1000, 12.0, False)
    monkeypatch.setattr(evidence, "bridge", lambda *_: poor)
    with pytest.warns(gb.errors.ConvergenceWarning) as caught:
        found = log_evidence(line_one_fit)
    assert (found.error, found.ess) == (0.7, 12.0)
    assert found.notes == (
        "its standard error is 0.70 nats (should be below 0.5): run more draws (num_samples), or "
        "take fewer components, of which none are empty",
        "the bridge did not settle in 1000 iterations: run more draws",
    )
    assert len(caught) == 1


def test_what_is_refused(line_one_fit, symmetric_fit):
    with pytest.raises(TypeError, match="fit must be a GMMFit, got str"):
        log_evidence("fit")
    with pytest.raises(ValueError, match="seed must be in"):
        log_evidence(line_one_fit, seed=-1)
    short = gb.GMMFit(symmetric_fit.datatree.isel(draw=slice(20)))
    with pytest.raises(ValueError) as error:
        log_evidence(short)
    assert str(error.value) == (
        "log_evidence must have at least 22 draws a chain, to fit a normal distribution of 11 "
        "dimensions to half of them, got 20; raise num_samples"
    )
    many = gb.GMMFit(line_one_fit.datatree.copy())
    many.datatree.attrs["n_components"] = 13
    with pytest.raises(ValueError, match="takes at most 12 of them, got 13"):
        log_evidence(many)
    quick = gb.GMMFit(line_one_fit.datatree.copy())
    quick.datatree.attrs["sampler"] = json.dumps({"kind": "Laplace", "num_samples": 1000})
    with pytest.raises(
        ValueError, match=r"must have the draws of chains: .*sampler=gmm_bayes\.NUTS\(\)"
    ):
        log_evidence(quick)


def test_draws_that_are_no_use(symmetric_fit):
    broken = symmetric_fit.posterior.copy(deep=True)
    broken["means"][0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="must have finite draws"):
        log_evidence(symmetric_fit.with_group(POSTERIOR, broken))
    lost = symmetric_fit.posterior.copy(deep=True)
    lost["weights"][:, ::10] = [0.0, 1.0]
    with pytest.raises(ValueError, match="smaller in 10% of the draws"):
        log_evidence(symmetric_fit.with_group(POSTERIOR, lost))

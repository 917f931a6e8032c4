"""fit_many: the posteriors of many data sets at once are those of fit, wherever a set stands."""

import jax
import numpy as np
import pytest
import xarray as xr

import gmm_bayes as gb
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.draws import log_density_and_entropy
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.batch import sampling as many
from gmm_bayes.inference.batch.sampling import stack
from gmm_bayes.inference.batch.starts import plan_many
from gmm_bayes.inference.em.starts import em_start, em_starts
from gmm_bayes.inference.potential import Data, ModelSpec, log_prior, potential, site_values, space
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.sampling.mode import normal_approximation
from gmm_bayes.inference.sampling.starts import LARGEST_DEPARTURE
from gmm_bayes.inference.verdict.agreement import agreement_of_sets as agreement
from gmm_bayes.machine.devices import double_precision
from gmm_bayes.model.priors import default_priors

SAMPLER = gb.NUTS(num_samples=500)
SPEC = ModelSpec(2, "full")
CPU = jax.devices("cpu")[0]


def two_groups(n_obs, distance, seed):
    """Rows of two groups so far apart along both columns."""
    rng = np.random.default_rng(seed)
    second = rng.random(n_obs) < 0.4
    noise = rng.standard_normal((n_obs, 2)) * np.where(second, 1.0, 0.7)[:, None]
    return noise + distance * second[:, None]


@pytest.fixture(scope="module")
def tables():
    """Close to normal, of few rows, and with groups that overlap."""
    return {
        "far": two_groups(200, 6, 1),
        "few": two_groups(30, 5, 2),
        "near": two_groups(200, 1, 3),
    }


@pytest.fixture(scope="module")
def fits(tables):
    with pytest.warns(gb.errors.ConvergenceWarning, match=r"of 3 data sets yet, such as 'f|'n"):
        return gb.fit_many(tables, 2, sampler=SAMPLER, seed=1)


def in_standard_units(X, spec=SPEC, room=0):
    """Rows, their blocks, the prior, its log density and a start of EM."""
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    units = Standardization.of(X, structure)
    values = units.apply(X)
    prior = units.apply_to_priors(default_priors(X, 2).arrays(2, X.shape[1]))
    solution = em_start(values, spec, init="kmeans", n_init=4, seed=3).best
    z = space(spec, X.shape[1]).vector(site_values(solution, spec))
    return values, block_rows(values, room=room), log_prior(prior, spec), z


def label_free(fit):
    """Numbers (chain, draw) of every draw that stay the same when components change places."""
    draws = fit.parameters()
    scales = np.sqrt(np.diagonal(draws.covariances, axis1=-2, axis2=-1))
    values = {
        "largest weight": draws.weights.max(axis=1),
        "mean": np.einsum("sk,skd->sd", draws.weights, draws.means)[:, 0],
        "lowest mean": draws.means.min(axis=(1, 2)),
        "smallest log scale": np.log(scales).min(axis=(1, 2)),
    }
    stats = fit.sample_stats
    shape = stats["lp"].shape
    return {
        "log likelihood": stats["total_log_likelihood"].values,
        "lp": stats["lp"].values,
        "occupied": stats["n_occupied"].values.astype(float),
        **{name: value.reshape(shape) for name, value in values.items()},
    }


def ess(draws):
    return float(arviz_bridge.ess(xr.Dataset({"x": (("chain", "draw"), draws)}), "bulk")["x"])


def assert_same_posterior(one, other):
    """Means of draws, and of their distances from the middle, within 5 standard errors."""
    for name, draws in label_free(one).items():
        others = label_free(other)[name]
        if draws.std() == 0 and others.std() == 0:
            assert draws.mean() == others.mean(), name
            continue
        middle = np.median([np.median(draws), np.median(others)])
        for pair in ((draws, others), (abs(draws - middle), abs(others - middle))):
            errors = [d.std() / np.sqrt(ess(d)) for d in pair]
            assert abs(pair[0].mean() - pair[1].mean()) < 5 * np.hypot(*errors), name


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.GMMBayesWarning")
@pytest.mark.parametrize("name", ["far", "near"])
def test_a_posterior_is_that_of_fit(tables, fits, name):
    assert_same_posterior(fits[name], gb.fit(tables[name], 2, sampler=SAMPLER, seed=5))


def test_all_kinds_of_start_were_seen(fits):
    """Near normal; not quite, but chains did well; and those that did not, and were run again."""
    table = fits.table()
    far, few, near = fits.draws.facts["departure_from_normal"]
    assert far < LARGEST_DEPARTURE < min(few, near)
    assert max(few, near) < many._WORTH_A_TRY
    assert table["adapted"].tolist() == [True, True, False]
    assert fits["far"].run["num_warmup"] == 100
    assert fits["near"].run["num_warmup"] == 1000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.GMMBayesWarning")
def test_another_structure(tables):
    many = gb.fit_many([tables["near"], tables["far"]], 2, covariance_type="diag", sampler=SAMPLER)
    single = gb.fit(tables["far"], 2, covariance_type="diag", sampler=SAMPLER, seed=7)
    assert_same_posterior(many[1], single)
    assert many[1].covariance_type == "diag"


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.GMMBayesWarning")
def test_draws_do_not_depend_on_the_place_in_the_list(tables, fits):
    again = gb.fit_many(list(tables.values())[::-1], 2, sampler=SAMPLER, seed=1)
    for number, name in enumerate(reversed(tables)):
        for site in ("weights", "means", "scales"):
            np.testing.assert_allclose(
                again[number].posterior[site], fits[name].posterior[site], rtol=1e-6, err_msg=name
            )
    # Nor do two sets share their random numbers.
    assert not np.array_equal(
        fits["far"].sample_stats["n_steps"], fits["near"].sample_stats["n_steps"]
    )


def test_starts_do_not_depend_on_neighbours_or_blocks(tables):
    with double_precision():
        made = [in_standard_units(X, room=200) for X in tables.values()]
        data = Data(stack([m[1] for m in made]), stack([m[2] for m in made]))
        z = np.stack([m[3] for m in made])

        def plan(sets, size):
            rngs = [[np.random.default_rng([i, c]) for c in range(2)] for i in sets]
            some = jax.tree.map(lambda a: a[sets], data)
            return plan_many(some, z[sets], SPEC, rngs, "auto", size, CPU)

        together, backwards = plan([0, 1, 2], 2), plan([2, 1, 0], 2)
    for i in range(3):
        np.testing.assert_allclose(together.starts[i], backwards.starts[2 - i], rtol=1e-6)
        np.testing.assert_allclose(
            together.affine.factor[i], backwards.affine.factor[2 - i], rtol=1e-5, atol=1e-9
        )
        assert together.facts["adapted"][i] == backwards.facts["adapted"][2 - i]


def test_the_mode_and_the_curvature_are_those_of_one_fit(tables):
    with double_precision():
        _, rows, prior, z = in_standard_units(tables["far"])
        data = Data(rows, prior)
        found = normal_approximation(z, jax.device_put(data), SPEC)
        rngs = [[np.random.default_rng(0)]]
        one = jax.tree.map(lambda a: np.asarray(a)[None], data)
        plans = plan_many(one, z[None], SPEC, rngs, "auto", 1, CPU)
        there = float(potential(plans.affine.loc[0], data, SPEC))
    # Each search stops within a ten-thousandth of a nat of the mode.
    assert there < found.potential + 1e-4
    covariance = plans.affine.factor[0] @ plans.affine.factor[0].T
    expected = found.affine.factor @ found.affine.factor.T
    np.testing.assert_allclose(covariance, expected, rtol=0.05, atol=0.05 * expected.max())


def test_filling_rows_changes_nothing(tables):
    X = tables["few"]
    with double_precision():
        _, rows, prior, z = in_standard_units(X)
        filled = in_standard_units(X, room=200)[1]
        assert filled.values.shape[-1] == 200
        exact, padded = (
            jax.value_and_grad(potential)(z, Data(r, prior), SPEC) for r in (rows, filled)
        )
    np.testing.assert_allclose(padded[0], exact[0], rtol=1e-12)
    np.testing.assert_allclose(padded[1], exact[1], rtol=1e-12, atol=1e-11)


def test_em_starts_are_those_of_one_set(monkeypatch, tables):
    # Three sets in two blocks that overlap.
    monkeypatch.setattr("gmm_bayes.inference.em.starts._SETS_TOGETHER", 2)
    seeds = [4, 5, 6]
    with double_precision():
        made = [in_standard_units(X, room=200) for X in tables.values()]
        values = [m[0] for m in made]
        rows = stack([m[1] for m in made])
        found = em_starts(values, rows, SPEC, init="kmeans", n_init=4, seeds=seeds)
        single = [
            em_start(X, SPEC, init="kmeans", n_init=4, seed=s).best
            for X, s in zip(values, seeds, strict=True)
        ]
    for one, other in zip(found, single, strict=True):
        for got, expected in zip(one, other, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


def log_likelihood_of(found, X):
    return log_density_and_entropy(X, *(np.asarray(a)[None] for a in found))[0].sum()


def test_starts_of_many_kinds_find_what_a_set_by_itself_finds():
    """Where k-means is blind: bodies of two species and sexes, of which size says nothing."""
    X, seeds, found = gb.datasets.load_crabs().to_numpy(), range(6), {}
    with double_precision():
        values, rows, *_ = in_standard_units(X)
        several = stack([rows for _ in seeds])
        for init in ("auto", "kmeans"):
            starts = em_starts(
                [values] * 6, several, SPEC, init=init, n_init=None, seeds=list(seeds)
            )
            found[init] = [log_likelihood_of(start, values) for start in starts]
        best = log_likelihood_of(
            em_start(values, SPEC, init="auto", n_init=None, seed=9).best, values
        )
    reached = {init: int(np.sum(np.array(f) > best - 0.1)) for init, f in found.items()}
    assert max(found["auto"]) < best + 0.1
    assert reached["auto"] >= 5
    assert reached["kmeans"] <= 1


def test_a_fit_is_a_whole_one(tmp_path, tables, fits):
    assert len(fits) == 3
    assert fits.names == ["far", "few", "near"]
    fit = fits["few"]
    np.testing.assert_array_equal(fit.X, tables["few"])
    assert fit.n_obs == 30
    assert gb.load(fit.save(tmp_path / "few.nc")) == fit
    assert [one.n_obs for one in fits] == [200, 30, 200]
    # The record of log densities is that of the parameters it stands by.
    np.testing.assert_allclose(
        gb.log_likelihood(fit).sum("obs"), fit.sample_stats["total_log_likelihood"], rtol=1e-9
    )
    with pytest.raises(KeyError, match="no data set 'nowhere'"):
        fits["nowhere"]


def test_the_table_says_what_diagnose_says(fits):
    table = fits.table()
    assert list(table.index) == fits.names
    assert list(table["n_obs"]) == [200, 30, 200]
    for name in fits.names:
        found = gb.diagnose(fits[name])
        assert table.loc[name, "n_divergences"] == found.n_divergences
        np.testing.assert_allclose(table.loc[name, "e_bfmi"], found.e_bfmi.min())
        free = found.table.loc[["log_likelihood", "lp", "sorted_weights", "mixture_mean"]]
        # It judges these, and the covariance of the mixture.
        assert table.loc[name, "rhat"] >= free["rhat"].max() - 1e-3
        assert table.loc[name, "ess_bulk"] <= 1.1 * free["ess_bulk"].min()
    weights = fits["few"].posterior["weights"].max("component").mean()
    np.testing.assert_allclose(table.loc["few", "weight_0"], weights)
    assert "3 data sets" in repr(fits)


def test_agreement_is_arviz():
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.standard_normal((2, 4, 200, 3)), axis=2) * 0.1
    values += rng.standard_normal(values.shape)
    # A chain that is too wide: only folded draws tell.
    values[:, 0, :, 2] *= 6
    found = agreement(values)
    for i, one in enumerate(values):
        dataset = xr.Dataset({"x": (("chain", "draw", "q"), one)})
        rhat = float(arviz_bridge.rhat(dataset)["x"].max())
        np.testing.assert_allclose(found.rhat[i], rhat, rtol=1e-6)
        bulk = float(arviz_bridge.ess(dataset, "bulk")["x"].min())
        # They cut the sum of autocorrelations in slightly different ways.
        np.testing.assert_allclose(found.ess_bulk[i], bulk, rtol=0.1)


def test_agreement_of_what_does_not_move_is_unknown():
    values = np.random.default_rng(0).standard_normal((2, 2, 20, 1))
    values[0] = 1.0
    values[1, 0, 3] = np.nan
    assert np.isnan(agreement(values).rhat).all()
    assert np.isnan(agreement(values[:, :, :3]).ess_bulk).all()


X = two_groups(20, 4, 0)


@pytest.mark.parametrize(
    ("datasets", "error", "message"),
    [
        (
            {"good": X, "flat": np.column_stack([X[:, 0], np.ones(20)])},
            ValueError,
            "data set 'flat': X must vary in every column, but column 'x1' is constant",
        ),
        ([X, X[:, :1]], ValueError, "data set 1: X must have the 2 columns of the fit"),
        ([X, np.where(X > 3, np.nan, X)], ValueError, "data set 1: X "),
        ([X, X[:1]], ValueError, "data set 1: X must have at least 2 rows"),
        ([], ValueError, "at least one table"),
        (X, TypeError, "for one table use fit"),
        ([X, "file.csv"], TypeError, "data set 1: "),
    ],
)
def test_a_bad_set_is_named_before_anything_long(monkeypatch, datasets, error, message):
    def too_far(*args, **kwargs):
        raise AssertionError("long work began")

    monkeypatch.setattr("gmm_bayes.inference.batch.fit_many._data_set", too_far)
    with pytest.raises(error, match=message):
        gb.fit_many(datasets, 2)


def test_bad_options():
    with pytest.raises(TypeError, match=r"sampler must be a gmm_bayes.NUTS.* or Laplace"):
        gb.fit_many([X], 2, sampler=gb.ChEES())
    with pytest.raises(TypeError, match="priors must be"):
        gb.fit_many([X], 2, priors="wide")
    with pytest.raises(ValueError, match="init must be one of"):
        gb.fit_many([X], 2, init="best")


def test_starts_are_numbered_knowing_how_many_rows_each_set_has(monkeypatch):
    seen = []

    def match(solution, prior, n_obs):
        seen.append(n_obs)
        return solution

    def far_enough(*args, **kwargs):
        raise InterruptedError

    monkeypatch.setattr("gmm_bayes.inference.batch.fit_many.match_to_prior", match)
    monkeypatch.setattr("gmm_bayes.inference.batch.fit_many.sample_many", far_enough)
    with pytest.raises(InterruptedError):
        gb.fit_many([X, X[:-7]], 2, sampler=SAMPLER)
    assert seen == [len(X), len(X) - 7]


def test_a_density_that_is_nowhere_finite_is_an_error_that_names_the_set():
    with double_precision():
        made = [in_standard_units(X) for _ in range(2)]
        prior = stack([m[2] for m in made])
        prior.mean_loc[1] = np.inf
        with pytest.raises(gb.errors.InferenceError, match="log density of set 1 is not finite"):
            plan_many(
                Data(stack([m[1] for m in made]), prior),
                np.stack([m[3] for m in made]),
                SPEC,
                [[np.random.default_rng(0)]] * 2,
                "auto",
                2,
                CPU,
            )

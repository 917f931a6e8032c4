"""The survey of a posterior's modes, which every fit makes before its chains start."""

import json
import warnings

import jax
import numpy as np
import pytest
from hostile import SHORT, two_groups
from scipy import integrate

import gmm_bayes as gb
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import GMMBayesWarning
from gmm_bayes.inference.em.starts import em_start
from gmm_bayes.inference.modes import survey
from gmm_bayes.inference.modes.survey import facts, find_modes
from gmm_bayes.inference.potential import (
    Data,
    ModelSpec,
    log_prior,
    mixture_at,
    potential,
    site_values,
    space,
)
from gmm_bayes.inference.sampling.coordinates import AffineMap, BlockMap
from gmm_bayes.inference.sampling.mode import normal_approximation
from gmm_bayes.model.centres import few_threads

FEW = gb.Laplace(num_samples=100)


def surveyed(X, k, covariance_type="full", **options):
    """The modes of a table in its own units, and what they were found with."""
    spec = ModelSpec(k, covariance_type)
    prior = gb.default_priors(X, k).arrays(k, X.shape[1])
    data = jax.device_put(Data(block_rows(X), log_prior(prior, spec)))
    found = em_start(X, spec, init="auto", n_init=None, seed=0, **options)
    modes, n_regrouped = find_modes(found, X, prior, data, spec, len(X))
    assert n_regrouped == 0
    return modes, found, data, spec


def quick_fit(X, k, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GMMBayesWarning)
        return gb.fit(X, k, sampler=FEW, **options)


@pytest.fixture(scope="module")
def bodies():
    X = gb.datasets.load_crabs()
    return (X - X.mean()) / X.std()


@pytest.mark.usefixtures("double")
def test_the_mass_of_a_mode_is_its_integral():
    """One component of one column: two dimensions, by quadrature."""
    X = np.random.default_rng(0).standard_normal((400, 1))
    (mode,), _, data, spec = surveyed(X, 1)
    top = mode.log_density
    near = normal_approximation(np.zeros(2), data, spec)
    (a, b), width = np.asarray(near.affine.loc), 8 * np.abs(near.affine.factor).sum(axis=1)
    value, _ = integrate.dblquad(
        lambda y, x: np.exp(-float(potential(np.array([x, y]), data, spec)) - top),
        *(a - width[0], a + width[0], b - width[1], b + width[1]),
        epsabs=1e-9,
        epsrel=1e-4,
    )
    assert mode.log_mass - top == pytest.approx(np.log(value), abs=0.01)


def test_volumes_of_maps():
    rng = np.random.default_rng(0)
    factor = np.triu(rng.standard_normal((3, 3))) + 3 * np.eye(3)
    expected = np.linalg.slogdet(factor)[1]
    assert AffineMap(np.zeros(3), factor).log_volume == pytest.approx(expected)
    diagonal = np.array([2.0, 3.0, 0.5])
    assert AffineMap(np.zeros(3), diagonal).log_volume == pytest.approx(np.log(3.0))
    blocks = BlockMap(np.zeros(7), np.stack([factor[:2, :2]] * 2), factor, None, None)
    both = 2 * np.linalg.slogdet(factor[:2, :2])[1] + expected
    assert blocks.log_volume == pytest.approx(both)


@pytest.mark.usefixtures("double")
def test_a_mode_is_where_the_density_is_highest_around(bodies):
    modes, found, data, spec = surveyed(bodies.to_numpy(), 2)
    here = space(spec, 5)
    masses = [mode.log_mass for mode in modes]
    assert masses == sorted(masses, reverse=True)
    assert sum(len(mode.kinds) for mode in modes) <= found.n_starts
    for mode in modes[:2]:
        z = here.vector(site_values(mode.mixture, spec))
        assert -float(potential(z, data, spec)) == pytest.approx(mode.log_density, abs=1e-6)
        slope = jax.grad(potential)(z, data, spec)
        near = normal_approximation(z, data, spec)
        # In units of the posterior's own widths.
        assert np.abs(near.affine.pull_back(np.asarray(slope))).max() < 0.05
        again = mixture_at(z, spec, 5)
        np.testing.assert_allclose(again.means, mode.mixture.means, atol=1e-8)


def test_crabs_have_the_same_modes_from_every_seed(bodies):
    """The species, and far below the sexes: as log evidences of chains in each, 8 nats."""
    for seed in range(3):
        fit = quick_fit(bodies, 2, seed=seed)
        first, *others = fit.run["survey"]["modes"]
        assert first["log_mass"] == 0
        assert all(m["log_mass"] is None or m["log_mass"] < -4 for m in others)
        second = max(others, key=lambda mode: mode["n_starts"])
        assert second["log_mass"] == pytest.approx(-8.8, abs=0.3)
        assert second["distance"] == pytest.approx(0.5, abs=0.05)
        assert min(first["n_starts"], second["n_starts"]) > 10
        kinds = [label[0] for label in bodies.index]
        labels = gb.assign(fit).values
        assert np.mean((labels == labels[0]) == (np.array(kinds) == kinds[0])) > 0.98


@pytest.mark.usefixtures("double")
def test_modes_are_regrouped_where_the_likelihood_does_not_lead(bodies):
    """Three components for four groups: eight nats more than where the maxima led."""
    X = bodies.to_numpy()
    before, found, data, spec = surveyed(X, 3)
    prior = gb.default_priors(X, 3).arrays(3, 5)
    with few_threads(X):
        after, n_regrouped = find_modes(found, X, prior, data, spec, len(X), seed=0)
    assert after[0].log_mass > before[0].log_mass + 5
    assert set(after[0].kinds) == {"regrouped"}
    assert 1 < len(after[0].kinds) < n_regrouped
    masses = [mode.log_mass for mode in after]
    assert masses == sorted(masses, reverse=True)
    # Nothing that was found is lost.
    for mode in before:
        apart = [abs(mode.log_density - other.log_density) for other in after]
        assert min(apart) < 1e-3


def test_what_comes_near_counts_for_what_is_known():
    """However late: else a mode that one regrouping reached would stay found by one."""
    X = two_groups()
    here = survey._Posterior(X, None, None, None, len(X))

    def start(means, kind):
        covariances = np.array([np.eye(2)] * 2)
        mixture = MixtureParameters.from_covariances(np.full(2, 0.5), np.array(means), covariances)
        return survey._Start(0.0, np.zeros(1), mixture, [kind])

    groups, elsewhere = [[0.0, 0.0], [7.0, -6.0]], [[0.0, 0.0], [3.0, 3.0]]
    known = [start(groups, "kmeans")]
    later = [start(groups[::-1], "again"), start(elsewhere, "new"), start(elsewhere, "new, again")]
    (fresh,) = here._unlike(later, known)
    assert known[0].kinds == ["kmeans", "again"]
    assert fresh is later[1]
    assert fresh.kinds == ["new", "new, again"]


def test_the_mode_of_most_mass_need_not_be_the_highest_likelihood(bodies):
    fit = quick_fit(bodies, 4)
    modes = fit.run["survey"]["modes"]
    assert modes[0]["log_mass"] == 0
    # Forty starts and more lead to the highest likelihood, which is steep and narrow.
    popular = max(modes, key=lambda mode: mode["n_starts"])
    assert popular["log_mass"] < -2
    weights = np.sort(fit.posterior["weights"].mean(("chain", "draw")).values)
    np.testing.assert_allclose(weights, np.sort(modes[0]["weights"]), atol=0.1)


def test_a_component_on_equal_values_is_no_mode():
    """Petals of iris are recorded to a tenth: a component can narrow on one value without end."""
    fit = quick_fit(gb.datasets.load_iris(), 3)
    assert float(fit.posterior["scales"].min()) > 0.03
    spikes = [mode for mode in fit.run["survey"]["modes"] if mode["log_mass"] is None]
    assert spikes
    assert max(mode["log_density"] for mode in spikes) > 50


def test_the_record_is_json_and_survives_a_file(bodies, tmp_path):
    fit = quick_fit(bodies, 2)
    again = gb.load(fit.save(tmp_path / "fit.nc"))
    assert again.run["survey"] == fit.run["survey"]
    json.dumps(fit.run["survey"], allow_nan=False)


def test_who_says_where_to_start_is_not_surveyed(faithful, faithful_fit):
    start = gb.fit_em(faithful, 2).parameters
    assert "survey" not in quick_fit(faithful, 2, init=start).run
    assert faithful_fit.run["survey"]["n_starts"] > 100
    (only,) = faithful_fit.run["survey"]["modes"]
    assert only["n_starts"] > 100


def test_a_survey_can_be_turned_off(faithful, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GMMBayesWarning)
        fit = gb.fit(two_groups(), 2, sampler=SHORT, survey=False, checkpoint=tmp_path / "run")
        assert "survey" not in gb.resume(tmp_path / "run", survey=False).run
    assert "survey" not in fit.run
    assert "other modes were not looked for" in gb.diagnose(fit).notes
    with pytest.raises(ValueError, match=r"or not to look \(survey=False\)"):
        gb.modes(fit)


def test_no_mode_at_all_is_told():
    assert facts([], 7, np.zeros((3, 1)), None) == {"n_starts": 7, "modes": []}


def test_a_run_that_goes_on_keeps_what_was_looked_for(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GMMBayesWarning)
        fit = gb.fit(two_groups(), 2, sampler=SHORT, checkpoint=tmp_path / "run")
        for later in (gb.resume(tmp_path / "run"), gb.extend(fit, 5)):
            assert later.run["survey"] == fit.run["survey"]
    assert gb.modes(fit)["share"].sum() == pytest.approx(1)


def test_the_model_is_the_datas_and_not_the_seeds(bodies):
    expected = gb.default_priors(bodies, 5).mean_loc
    others = [gb.default_priors(bodies, 5, seed=seed).mean_loc for seed in (1, 2, 3)]
    assert not any(np.allclose(expected, other) for other in others), "else this tests nothing"
    np.testing.assert_allclose(quick_fit(bodies, 5, seed=1).priors.mean_loc, expected)

"""Options that must not hurt: named by the user's name for them, before any work."""

import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hostile import (
    SHORT,
    quiet_fit,
    raises_exactly,
    refuse_work,
    small_fit,
    table,
    two_groups,
)

import gmm_bayes as gb

NAN = float("nan")
X40 = two_groups()
ADVICE = "leave it out or turn it into numbers yourself."


def integer(name, minimum, got):
    return f"{name} must be an integer of at least {minimum}, got {got}"


COUNTS = {
    "zero": (0, ValueError, "n_components must be at least 1, got 0"),
    "negative": (-1, ValueError, "n_components must be at least 1, got -1"),
    "fraction": (2.5, TypeError, integer("n_components", 1, "2.5 of type float")),
    "float": (2.0, TypeError, integer("n_components", 1, "2.0 of type float")),
    "NumPy float": (
        np.float64(2),
        TypeError,
        integer("n_components", 1, "np.float64(2.0) of type float64"),
    ),
    "text": ("3", TypeError, integer("n_components", 1, "'3' of type str")),
    "None": (None, TypeError, integer("n_components", 1, "None of type NoneType")),
    "True": (True, TypeError, integer("n_components", 1, "True of type bool")),
    "NumPy True": (np.True_, TypeError, integer("n_components", 1, "np.True_ of type bool")),
    "list": ([2], TypeError, integer("n_components", 1, "[2] of type list")),
    "time": (
        np.timedelta64(2, "s"),
        TypeError,
        integer("n_components", 1, "np.timedelta64(2,'s') of type timedelta64"),
    ),
    "a million": (
        10**6,
        ValueError,
        "n_components must be at most the number of rows, got n_components=1000000 for 40 rows; "
        "take fewer components",
    ),
}


@pytest.mark.parametrize(("value", "exception", "message"), table(COUNTS))
@pytest.mark.parametrize("call", [gb.fit, gb.default_priors, gb.Priors.with_centers])
def test_n_components(monkeypatch, call, value, exception, message):
    refuse_work(monkeypatch)
    first = (gb.Priors.fixed(),) if call is gb.Priors.with_centers else ()
    with raises_exactly(exception, message):
        call(*first, X40, value)


def test_numpy_integers_are_integers():
    fit = quiet_fit(X40, np.int8(2), seed=np.int64(3), n_init=np.uint16(10))
    same = quiet_fit(X40, 2, seed=3, n_init=10)
    assert fit == same or fit.posterior.identical(same.posterior)
    assert gb.NUTS(num_warmup=np.int32(5)) == gb.NUTS(num_warmup=5)


FIT_OPTIONS = {
    "covariance type": (
        {"covariance_type": "fulll"},
        ValueError,
        "covariance_type must be one of full, tied, diag, spherical, got 'fulll'; "
        "did you mean 'full'?",
    ),
    "covariance type, nothing like it": (
        {"covariance_type": "xyz"},
        ValueError,
        "covariance_type must be one of full, tied, diag, spherical, got 'xyz'; "
        "known: full, tied, diag, spherical",
    ),
    "covariance type, not text": (
        {"covariance_type": None},
        ValueError,
        "covariance_type must be one of full, tied, diag, spherical, got None",
    ),
    "init": (
        {"init": "k-means"},
        ValueError,
        "init must be one of auto, kmeans, k-means++, random, random_from_data, got 'k-means'; "
        "did you mean 'kmeans' or 'k-means++'?",
    ),
    "init of another shape": (
        {"init": gb.MixtureParameters(np.ones(3) / 3, np.zeros((3, 2)), np.array([np.eye(2)] * 3))},
        ValueError,
        "init.means must have shape (n_components, n_features) = (2, 2), got (3, 2)",
    ),
    "survey": ({"survey": 1}, TypeError, "survey must be True or False, got 1"),
    "n_init": ({"n_init": 0}, ValueError, "n_init must be at least 1, got 0"),
    "n_init, float": ({"n_init": 1.0}, TypeError, integer("n_init", 1, "1.0 of type float")),
    "device": (
        {"device": "gpuu"},
        ValueError,
        "device must be one of auto, cpu, gpu, got 'gpuu'; did you mean 'gpu' or 'cpu'?",
    ),
    "priors": (
        {"priors": {"scale_scale": 1}},
        TypeError,
        "priors must be a gmm_bayes.Priors, got dict",
    ),
    "prior centres of another shape": (
        {"priors": gb.Priors.fixed(np.zeros((3, 2)))},
        ValueError,
        "mean_loc must have shape (n_components, n_features) = (2, 2), got (3, 2)",
    ),
    "concentration of another length": (
        {"priors": gb.Priors.fixed(np.zeros((2, 2)), weight_concentration=[1, 2, 3])},
        ValueError,
        "weight_concentration must be one number or one per component (2,), got shape (3,)",
    ),
    "scale of another length": (
        {"priors": gb.Priors.fixed(np.zeros((2, 2)), scale_scale=[1, 2, 3])},
        ValueError,
        "scale_scale must be one number or one per feature (2,), got shape (3,)",
    ),
    "covariance of another size": (
        {"priors": gb.Priors.fixed(np.zeros((2, 2)), mean_covariance=np.eye(3))},
        ValueError,
        "mean_covariance must be one variance or one variance per feature (2,) or a matrix "
        "(2, 2), got shape (3, 3)",
    ),
    "variances of another length": (
        {"priors": gb.Priors.fixed(np.zeros((2, 2)), mean_covariance=[1, 2, 3])},
        ValueError,
        "mean_covariance must be one variance or one variance per feature (2,) or a matrix "
        "(2, 2), got shape (3,)",
    ),
}
SEEDS = {
    "too large": (2**40, ValueError, "seed must be in [0, 2**32), got 1099511627776"),
    "2**32": (2**32, ValueError, "seed must be in [0, 2**32), got 4294967296"),
    "negative": (-1, ValueError, "seed must be in [0, 2**32), got -1"),
    **{
        name: (
            value,
            TypeError,
            f"seed must be an integer in [0, 2**32) or one JAX key, got {got}",
        )
        for name, value, got in (
            ("fraction", 1.5, "1.5 of type float"),
            ("True", True, "True of type bool"),
            ("None", None, "None of type NoneType"),
            ("text", "0", "'0' of type str"),
            ("NumPy key", np.zeros(2, dtype=np.uint32), "shape (2,) of type ndarray"),
        )
    },
}


@pytest.mark.parametrize(("options", "exception", "message"), table(FIT_OPTIONS))
def test_fit_options(monkeypatch, options, exception, message):
    refuse_work(monkeypatch)
    with raises_exactly(exception, message):
        gb.fit(X40, 2, **options)


@pytest.mark.parametrize(("seed", "exception", "message"), table(SEEDS))
@pytest.mark.parametrize(
    "call",
    [
        lambda seed: gb.fit(X40, 2, seed=seed),
        lambda seed: gb.sample_predictive(small_fit(), 3, seed=seed),
        lambda seed: gb.with_groups(small_fit(), "prior", seed=seed),
    ],
    ids=["fit", "sample_predictive", "with_groups"],
)
def test_seed(monkeypatch, call, seed, exception, message):
    small_fit()
    refuse_work(monkeypatch)
    with raises_exactly(exception, message):
        call(seed)


def test_several_keys_are_not_one_seed(monkeypatch):
    refuse_work(monkeypatch)
    for keys in (jax.random.split(jax.random.key(0), 3), jnp.zeros(3, dtype=jnp.uint32)):
        with pytest.raises(TypeError, match=r"or one JAX key, got shape \(3,\) of type \w+\Z"):
            gb.fit(X40, 2, seed=keys)


def test_a_typed_and_a_raw_key_are_the_same_seed():
    typed = quiet_fit(X40, seed=jax.random.key(7))
    raw = quiet_fit(X40, seed=jax.random.PRNGKey(7))
    assert typed.posterior.identical(raw.posterior)
    assert typed.seed == raw.seed == [0, 7]
    assert not typed.posterior.equals(small_fit().posterior)
    rows = [gb.sample_predictive(typed, 3, seed=s) for s in (jax.random.key(1), 1, 2)]
    assert not np.array_equal(rows[0], rows[2])


def test_seed_of_default_priors():
    with raises_exactly(ValueError, "seed must be in [0, 2**32), got 4294967296"):
        gb.default_priors(X40, 2, seed=2**32)
    with raises_exactly(TypeError, integer("seed", 0, "1.5 of type float")):
        gb.default_priors(X40, 2, seed=1.5)


MISSPELT = {
    "fit": (lambda: gb.fit(X40, 2, seeds=3), "seeds"),
    "NUTS": (lambda: gb.NUTS(num_warm=3), "num_warm"),
    "Priors": (lambda: gb.Priors(scale=3), "scale"),
    "assign": (lambda: gb.assign(small_fit(), reduce=None), "reduce"),
}


@pytest.mark.parametrize(("call", "name"), table(MISSPELT))
def test_a_misspelt_option_is_never_ignored(call, name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        call()


# -- priors ---------------------------------------------------------------------------------------

PRIORS = {}
for _name in ("weight_concentration", "scale_scale", "correlation_concentration"):
    PRIORS |= {
        f"{_name} zero": ({_name: 0}, ValueError, f"{_name} must be positive, got 0"),
        f"{_name} negative": ({_name: -2.5}, ValueError, f"{_name} must be positive, got -2.5"),
    }
for _name in (*gb.Priors.__dataclass_fields__,):
    PRIORS |= {
        f"{_name} NaN": ({_name: [[NAN]]}, ValueError, f"{_name} must be finite, got nan"),
        f"{_name} inf": ({_name: np.inf}, ValueError, f"{_name} must be finite, got inf"),
        f"{_name} text": (
            {_name: "1.5"},
            TypeError,
            f"{_name} must be numbers, got '1.5' of type str",
        ),
        f"{_name} True": (
            {_name: True},
            TypeError,
            f"{_name} must be numbers, got True of type bool",
        ),
        f"{_name} list of text": (
            {_name: ["1", "2"]},
            TypeError,
            f"{_name} must hold real numbers, got '1' of type str in row 0; {ADVICE}",
        ),
        f"{_name} complex": (
            {_name: np.array([1j])},
            TypeError,
            f"{_name} must hold real numbers, got complex numbers; {ADVICE}",
        ),
        f"{_name} dates": (
            {_name: np.array("2020", dtype="M8[D]")},
            TypeError,
            f"{_name} must hold real numbers, got dates; {ADVICE}",
        ),
        f"{_name} 3-d": (
            {_name: np.ones((2, 2, 2))},
            ValueError,
            {
                "weight_concentration": "weight_concentration must be one number or one per "
                "component",
                "mean_loc": "mean_loc must be an array of shape (n_components, n_features)",
                "mean_covariance": "mean_covariance must be one variance or one variance per "
                "feature or a matrix",
                "scale_scale": "scale_scale must be one number or one per feature",
                "correlation_concentration": "correlation_concentration must be one number",
            }[_name]
            + ", got shape (2, 2, 2)",
        ),
    }
    if _name not in ("mean_loc", "mean_covariance", "scale_scale"):
        PRIORS[f"{_name} None"] = (
            {_name: None},
            TypeError,
            f"{_name} must be numbers, got None of type NoneType",
        )
PRIORS |= {
    "one bad concentration": (
        {"weight_concentration": [1, 0.5, -1]},
        ValueError,
        "weight_concentration must be positive, got -1",
    ),
    "centres, one axis": (
        {"mean_loc": [1.0, 2.0]},
        ValueError,
        "mean_loc must be an array of shape (n_components, n_features), got shape (2,)",
    ),
    "centres, ragged": (
        {"mean_loc": [[1.0, 2.0], [3.0]]},
        ValueError,
        "mean_loc must have rows of equal length, got a ragged list.",
    ),
    "variance": (
        {"mean_covariance": -1},
        ValueError,
        "mean_covariance must be positive, got -1",
    ),
    "variances": (
        {"mean_covariance": [1, 0]},
        ValueError,
        "mean_covariance must be positive, got 0",
    ),
    "not square": (
        {"mean_covariance": np.ones((2, 3))},
        ValueError,
        "mean_covariance must be one variance or one variance per feature (2,) or a matrix "
        "(2, 2), got shape (2, 3)",
    ),
    "not symmetric": (
        {"mean_covariance": [[1, 0.5], [0.2, 1]]},
        ValueError,
        "mean_covariance must be symmetric, got 0.5 at [0, 1] and 0.2 at [1, 0]; "
        "give (B + B.T) / 2",
    ),
    "not definite": (
        {"mean_covariance": [[1, 2], [2, 1]]},
        ValueError,
        "mean_covariance must be positive definite, got a matrix whose correlations have the "
        "eigenvalue -1",
    ),
    "negative on the diagonal": (
        {"mean_covariance": [[1, 0], [0, -3]]},
        ValueError,
        "mean_covariance must be positive definite, got the variance -3",
    ),
}


@pytest.mark.parametrize(("options", "exception", "message"), table(PRIORS))
@pytest.mark.parametrize("make", [gb.Priors, gb.Priors.fixed], ids=["Priors", "fixed"])
def test_priors(make, options, exception, message):
    with raises_exactly(exception, message):
        make(**options)


def test_replacing_a_prior_checks_it_again():
    with raises_exactly(ValueError, "scale_scale must be positive, got 0"):
        gb.Priors().replace(scale_scale=[1, 0])


def test_prior_forms_mean_the_same():
    centres = [[0, 1], [2, 3]]
    expected = gb.Priors(0.5, np.array(centres), np.diag([0.2, 0.3]), [1, 1]).arrays(2, 2)
    for priors in (
        gb.Priors([0.5, 0.5], centres, [0.2, 0.3], 1),
        gb.Priors(0.5, pd.DataFrame(centres, columns=["a", "b"]), [[0.2, 0], [0, 0.3]], 1.0),
        gb.Priors(np.float32(0.5), jnp.asarray(centres), np.array([0.2, 0.3]), np.ones(2)),
    ):
        for mine, theirs in zip(priors.arrays(2, 2), expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-12)


@pytest.mark.parametrize("variance", [0.3, [0.3], [[0.3]]])
def test_with_one_feature_a_number_a_list_and_a_matrix_are_the_same_variance(variance):
    arrays = gb.Priors.fixed([[0], [1]], mean_covariance=variance).arrays(2, 1)
    np.testing.assert_allclose(arrays.mean_scale_tril, [[np.sqrt(0.3)]])


def test_priors_keep_their_own_numbers():
    centres = np.zeros((2, 2))
    priors = gb.Priors(mean_loc=centres)
    centres[:] = 5
    assert not priors.mean_loc.any()
    with pytest.raises(ValueError, match="read-only"):
        priors.mean_loc[0, 0] = 1


# -- the sampler ----------------------------------------------------------------------------------

SAMPLERS = {}
for _name, _least in {
    "num_warmup": 0,
    "num_samples": 1,
    "num_chains": 1,
    "max_tree_depth": 1,
}.items():
    SAMPLERS |= {
        f"{_name} too small": (
            {_name: _least - 1},
            ValueError,
            f"{_name} must be at least {_least}, got {_least - 1}",
        ),
        f"{_name} float": (
            {_name: 100.0},
            TypeError,
            integer(_name, _least, "100.0 of type float"),
        ),
        f"{_name} True": ({_name: True}, TypeError, integer(_name, _least, "True of type bool")),
        f"{_name} text": (
            {_name: "5"},
            TypeError,
            integer(_name, _least, "'5' of type str"),
        ),
    }
for _value in (0, 1, -0.1, 1.2, NAN, "0.8", None, True):
    SAMPLERS[f"target_accept_prob {_value}"] = (
        {"target_accept_prob": _value},
        ValueError,
        f"target_accept_prob must be strictly between 0 and 1, got {_value!r}",
    )
SAMPLERS |= {
    "dense_mass": (
        {"dense_mass": 1},
        TypeError,
        "dense_mass must be True or False, got 1",
    ),
    "chain_method": (
        {"chain_method": "paralel"},
        ValueError,
        "chain_method must be one of auto, parallel, sequential, vectorized, got 'paralel'; "
        "did you mean 'parallel'?",
    ),
    "preconditioning": (
        {"preconditioning": "laplase"},
        ValueError,
        "preconditioning must be one of auto, laplace, none, got 'laplase'; "
        "did you mean 'laplace'?",
    ),
}


@pytest.mark.parametrize(("options", "exception", "message"), table(SAMPLERS))
def test_sampler(options, exception, message):
    with raises_exactly(exception, message):
        gb.NUTS(**options)


@pytest.mark.parametrize(
    ("num_warmup", "warns"), [(0, True), (99, True), (100, False), (None, False)]
)
def test_few_warmup_draws_are_warned_about_before_sampling(monkeypatch, num_warmup, warns):
    class Stopped(Exception):
        pass

    def stop(*args, **options):
        raise Stopped

    monkeypatch.setattr("gmm_bayes.inference.modes.search.em_start", stop)
    sampler = gb.NUTS(num_warmup=num_warmup)
    if not warns:
        with pytest.raises(Stopped):
            gb.fit(X40, 2, sampler=sampler)
        return
    message = (
        f"num_warmup={num_warmup} is short: below 100 warm-up draws the step size and metric are "
        "rarely adapted"
    )
    with pytest.warns(gb.errors.DataWarning) as caught, pytest.raises(Stopped):
        gb.fit(X40, 2, sampler=sampler)
    assert [str(w.message) for w in caught] == [message]


def test_more_chains_than_cores_run_and_the_method_is_reported():
    sampler = gb.NUTS(num_warmup=SHORT.num_warmup, num_samples=10, num_chains=9)
    fit = quiet_fit(X40, sampler=sampler)
    assert fit.posterior.sizes["chain"] == 9
    assert fit.chain_method == "parallel"
    ends = fit.posterior["means"].isel(draw=-1).values.reshape(9, -1)
    assert len(np.unique(ends, axis=0)) == 9


# -- questions to a fit ---------------------------------------------------------------------------

QUESTIONS = {
    "interval above 1": (
        lambda fit: gb.responsibilities(fit, interval=1.5),
        ValueError,
        "interval must be strictly between 0 and 1, got 1.5",
    ),
    "interval of a density": (
        lambda fit: gb.log_predictive_density(fit, interval=0),
        ValueError,
        "interval must be strictly between 0 and 1, got 0",
    ),
    "interval without a mean": (
        lambda fit: gb.responsibilities(fit, reduce=None, interval=0.9),
        ValueError,
        "interval is over draws: give it with reduce='mean'",
    ),
    "reduce": (
        lambda fit: gb.responsibilities(fit, reduce="meann"),
        ValueError,
        "reduce must be one of mean, got 'meann'; did you mean 'mean'?",
    ),
    "no rows to draw": (
        lambda fit: gb.sample_predictive(fit, 0),
        ValueError,
        "n_obs must be at least 1, got 0",
    ),
    "half a row": (
        lambda fit: gb.sample_predictive(fit, 2.5),
        TypeError,
        integer("n_obs", 1, "2.5 of type float"),
    ),
    "group": (
        lambda fit: gb.with_groups(fit, "log_likelihod"),
        ValueError,
        "group must be one of log_likelihood, prior, prior_predictive, posterior_predictive, "
        "got 'log_likelihod'; did you mean 'log_likelihood'?",
    ),
    "not a fit": (
        lambda fit: gb.diagnose(X40),
        TypeError,
        "fit must be a GMMFit, got ndarray; gmm_bayes.fit makes one",
    ),
}


@pytest.mark.parametrize(("ask", "exception", "message"), table(QUESTIONS))
def test_questions(ask, exception, message):
    with raises_exactly(exception, message):
        ask(small_fit())


# -- the user's process ---------------------------------------------------------------------------


def test_no_gpu():
    if any(d.platform == "gpu" for d in jax.devices()):
        pytest.skip("there is a GPU")
    message = (
        "device='gpu' was asked for, but JAX sees only cpu. Install the extra for your CUDA "
        "(pip install 'gmm-bayes[cuda12]' or 'gmm-bayes[cuda13]') and check the driver, or give "
        "device='auto'."
    )
    with raises_exactly(gb.errors.DeviceError, message):
        gb.fit(X40, 2, device="gpu")
    assert small_fit().device == "cpu"


SETTINGS = {
    "as JAX comes": {},
    "x64 on": {"jax_enable_x64": True},
    "strict promotion": {"jax_numpy_dtype_promotion": "strict"},
    "checks": {
        "jax_debug_nans": True,
        "jax_debug_infs": True,
        "jax_numpy_rank_promotion": "raise",
        "jax_transfer_guard": "disallow",
    },
    "another generator": {"jax_default_prng_impl": "rbg"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_users_jax_settings_change_no_draw_and_stay(settings):
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        x64 = jax.config.jax_enable_x64
        fit = quiet_fit(X40)
        answers = [gb.responsibilities(fit), gb.log_predictive_density(fit)]
        assert jax.config.jax_enable_x64 is x64
        assert {name: getattr(jax.config, name) for name in settings} == settings
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert fit.posterior.identical(small_fit().posterior)
    assert {v.dtype for v in fit.posterior.values()} == {np.dtype(np.float64)}
    assert [a.dtype for a in answers] == [np.float64] * 2
    np.testing.assert_array_equal(answers[0], gb.responsibilities(small_fit()))


def test_importing_changes_nothing_about_jax():
    code = """
        import json, jax
        before = dict(jax.config.values)
        import gmm_bayes as gb
        gb.fit, gb.NUTS, gb.default_priors, gb.responsibilities
        print(json.dumps(sorted(k for k, v in jax.config.values.items() if before[k] != v)))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == []


UNKNOWN = {
    "a misspelt one": ("sampelr", "did you mean 'sampler' or "),
    "of the sampler": (
        "num_samples",
        "it is a setting of the sampler: sampler=gmm_bayes.NUTS(num_samples=...)",
    ),
    "near one of the sampler": ("n_samples", "sampler=gmm_bayes.NUTS(num_samples=...)"),
    "of scikit-learn": ("random_state", "did you mean 'seed'?"),
    "of nobody": ("xyzzy", "known: X, n_components, covariance_type, "),
}


@pytest.mark.parametrize(("name", "words"), table(UNKNOWN))
def test_unknown_keywords_get_the_nearest_names(name, words, monkeypatch):
    refuse_work(monkeypatch)
    with pytest.raises(TypeError) as error:
        gb.fit(two_groups(), 2, **{name: 1})
    assert str(error.value).startswith(f"fit() got an unexpected keyword argument '{name}'; ")
    assert words in str(error.value)


def test_warnings_of_fit_are_at_its_caller():
    with pytest.warns(gb.errors.GMMBayesWarning) as caught:
        gb.fit(np.random.default_rng(0).normal(size=(4, 2)), 2, sampler=gb.Laplace(num_samples=20))
    assert {gb.errors.DataWarning, gb.errors.ConvergenceWarning} <= {w.category for w in caught}
    assert {w.filename for w in caught if issubclass(w.category, UserWarning)} == {__file__}

"""Fits that several tests look at: each is made once, because compiling is what takes time."""

import os
import shutil
import tempfile

# Chains run in threads of their own; OpenBLAS must not add more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests count compilations, and must not depend on what ran before.
os.environ["GMM_BAYES_CACHE"] = "off"

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import gmm_bayes as gb
from gmm_bayes._vocabulary import DIAG, FULL, SPHERICAL, TIED
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.machine.compilation import forget_programs

STRUCTURES = (FULL, TIED, DIAG, SPHERICAL)


# Files of few tests that take minutes: begun last, they would keep one worker busy and no other.
LONG = (
    "test_notebooks.py",
    "test_sweep.py",
    "test_distributed.py",
    "test_fit_many.py",
    "test_sharding.py",
    "test_against_numpyro.py",
    "test_public_api.py",
    "test_readme.py",
    "test_jobs_survive.py",
    "test_benchmarks.py",
)


def pytest_collection_modifyitems(items):
    names = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: names.get(item.path.name, len(names)))


# Where JAX keeps compiled programs, and in how many seconds a program is compiled that is kept.
_PROGRAMS = "JAX_COMPILATION_CACHE_DIR"
_SHORTEST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def pytest_configure(config):
    """What a worker, or a process that a test starts, has compiled, no other compiles again.

    Workers inherit the folder from the process that starts them, which takes it away at the end.
    """
    if _PROGRAMS not in os.environ:
        config.programs = tempfile.mkdtemp(prefix="gmm_bayes-programs-")
        os.environ.update({_PROGRAMS: config.programs, _SHORTEST: "0.5"})
        jax.config.update(_PROGRAMS.lower(), config.programs)
        jax.config.update(_SHORTEST.lower(), 0.5)


def pytest_unconfigure(config):
    if hasattr(config, "programs"):
        shutil.rmtree(config.programs, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Between modules, and earlier than a fit would: some tests count what a fit compiles."""
    forget_programs(0.2)


@pytest.fixture
def double():
    """Compute in float64 for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=STRUCTURES)
def covariance_type(request):
    return request.param


@pytest.fixture(scope="session")
def faithful():
    return gb.datasets.load_old_faithful()


@pytest.fixture(scope="session")
def faithful_fit(faithful):
    return gb.fit(faithful, 2, sampler=gb.NUTS(num_warmup=500, num_samples=1000), seed=1)


@pytest.fixture(scope="session")
def line_fit(faithful):
    """One feature, where there are no correlations."""
    sampler = gb.NUTS(num_warmup=500, num_samples=1000)
    return gb.fit(faithful[["waiting"]], 2, sampler=sampler, seed=1)


def random_mixture(covariance_type, n_components, n_features, seed=0):
    """A mixture of the given structure: (parameters, covariances in scikit-learn's shape)."""
    truth = gb.datasets.make_mixture(
        10, n_components, n_features, covariance_type=covariance_type, seed=seed
    )
    structure = gb.core.covariance.COVARIANCE_STRUCTURES[covariance_type]
    parameters = MixtureParameters(
        truth.weights, truth.means, np.linalg.cholesky(truth.covariances)
    )
    return parameters, structure.covariances(*structure.sites(truth.covariances))


def plain_model(X, A, B, s, k, covariance_type):
    """The textbook model, written as anyone would in NumPyro, without a line of this package."""
    d = X.shape[1]
    weights = numpyro.sample("weights", dist.Dirichlet(0.5 * jnp.ones(k)))
    means = numpyro.sample("means", dist.MultivariateNormal(A, B).to_event(1))
    correlation = None
    if covariance_type == "full":
        scales = numpyro.sample("scales", dist.HalfCauchy(s).expand([k, d]).to_event(2))
        if d > 1:
            correlation = numpyro.sample(
                "correlation_cholesky", dist.LKJCholesky(d, 2.0).expand([k]).to_event(1)
            )
        sigma = scales
    elif covariance_type == "tied":
        scales = numpyro.sample("scales", dist.HalfCauchy(s).to_event(1))
        if d > 1:
            correlation = numpyro.sample("correlation_cholesky", dist.LKJCholesky(d, 2.0))
        sigma = jnp.broadcast_to(scales, (k, d))
    elif covariance_type == "diag":
        sigma = numpyro.sample("scales", dist.HalfCauchy(s).expand([k, d]).to_event(2))
    else:
        rms = jnp.sqrt(jnp.mean(s**2))
        scales = numpyro.sample("scales", dist.HalfCauchy(rms).expand([k]).to_event(1))
        sigma = scales[:, None] * jnp.ones(d)
    omega = jnp.eye(d) if correlation is None else correlation
    tril = jnp.broadcast_to(sigma[:, :, None] * omega, (k, d, d))
    rows = dist.MixtureSameFamily(
        dist.Categorical(probs=weights), dist.MultivariateNormal(means, scale_tril=tril)
    )
    with numpyro.plate("obs", len(X)):
        numpyro.sample("X", rows, obs=X)

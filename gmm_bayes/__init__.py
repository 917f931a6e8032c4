"""Bayesian Gaussian mixture models on JAX and NumPyro.

Public names are imported when they are first used, so that `import gmm_bayes` is quick and changes
nothing about JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gmm_bayes import datasets, errors, plots
    from gmm_bayes.core.mixture import MixtureParameters
    from gmm_bayes.inference.diagnostics import Diagnosis, diagnose
    from gmm_bayes.inference.result import GMMFit, load
    from gmm_bayes.inference.runner import fit
    from gmm_bayes.inference.samplers import NUTS, Laplace
    from gmm_bayes.model.distribution import GaussianMixture
    from gmm_bayes.model.gaussian_mixture import gaussian_mixture
    from gmm_bayes.model.priors import Priors, default_priors
    from gmm_bayes.posterior.density import (
        log_likelihood,
        log_predictive_density,
        sample_predictive,
    )
    from gmm_bayes.posterior.groups import with_groups
    from gmm_bayes.posterior.responsibilities import assign, responsibilities

_HOMES = {
    "datasets": "gmm_bayes.datasets",
    "errors": "gmm_bayes.errors",
    "plots": "gmm_bayes.plots",
    "MixtureParameters": "gmm_bayes.core.mixture",
    "Diagnosis": "gmm_bayes.inference.diagnostics",
    "diagnose": "gmm_bayes.inference.diagnostics",
    "GMMFit": "gmm_bayes.inference.result",
    "load": "gmm_bayes.inference.result",
    "fit": "gmm_bayes.inference.runner",
    "NUTS": "gmm_bayes.inference.samplers",
    "Laplace": "gmm_bayes.inference.samplers",
    "GaussianMixture": "gmm_bayes.model.distribution",
    "gaussian_mixture": "gmm_bayes.model.gaussian_mixture",
    "Priors": "gmm_bayes.model.priors",
    "default_priors": "gmm_bayes.model.priors",
    "log_likelihood": "gmm_bayes.posterior.density",
    "log_predictive_density": "gmm_bayes.posterior.density",
    "sample_predictive": "gmm_bayes.posterior.density",
    "with_groups": "gmm_bayes.posterior.groups",
    "assign": "gmm_bayes.posterior.responsibilities",
    "responsibilities": "gmm_bayes.posterior.responsibilities",
}

__all__ = [
    "NUTS",
    "Diagnosis",
    "GMMFit",
    "GaussianMixture",
    "Laplace",
    "MixtureParameters",
    "Priors",
    "__version__",
    "assign",
    "datasets",
    "default_priors",
    "diagnose",
    "errors",
    "fit",
    "gaussian_mixture",
    "load",
    "log_likelihood",
    "log_predictive_density",
    "plots",
    "responsibilities",
    "sample_predictive",
    "with_groups",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gmm_bayes' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    value = home if home.__name__ == f"gmm_bayes.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

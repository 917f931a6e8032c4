"""Bayesian Gaussian mixture models on JAX and NumPyro.

Public names are imported when they are first used, so that `import gmm_bayes` is quick and changes
nothing about JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gmm_bayes import datasets, errors, plots
    from gmm_bayes._row_files import RowFile
    from gmm_bayes.checking.calibration.calibration import simulation_based_calibration
    from gmm_bayes.checking.calibration.verdict import Calibration
    from gmm_bayes.checking.candidates import Comparison
    from gmm_bayes.checking.comparison import compare_n_components
    from gmm_bayes.checking.evidence import Evidence, log_evidence
    from gmm_bayes.checking.occupied import occupied_components
    from gmm_bayes.checking.sensitivity import PriorSensitivity, prior_sensitivity
    from gmm_bayes.checking.stacking import StackedChains, stack_chains
    from gmm_bayes.core.mixture import MixtureParameters
    from gmm_bayes.estimator import BayesianGMM
    from gmm_bayes.inference.batch.fit_many import fit_many
    from gmm_bayes.inference.batch.result import ManyFits
    from gmm_bayes.inference.continuation import extend, resume
    from gmm_bayes.inference.em.fit_em import fit_em
    from gmm_bayes.inference.em.result import EMFit
    from gmm_bayes.inference.fit import fit
    from gmm_bayes.inference.result.gmm_fit import GMMFit, load
    from gmm_bayes.inference.sampling.chees import ChEES
    from gmm_bayes.inference.sampling.laplace import Laplace
    from gmm_bayes.inference.sampling.nuts import NUTS
    from gmm_bayes.inference.verdict.diagnosis import Diagnosis, diagnose
    from gmm_bayes.jobs.sweep.sweep import sweep
    from gmm_bayes.model.distribution import GaussianMixture
    from gmm_bayes.model.gaussian_mixture import gaussian_mixture
    from gmm_bayes.model.priors import Priors, default_priors
    from gmm_bayes.posterior.conditional import conditional
    from gmm_bayes.posterior.conditional_mixture import ConditionalMixture
    from gmm_bayes.posterior.conformal import conformal_p_values
    from gmm_bayes.posterior.density import (
        log_likelihood,
        log_predictive_density,
        sample_predictive,
    )
    from gmm_bayes.posterior.groups import with_groups
    from gmm_bayes.posterior.labels.alignment import align_labels
    from gmm_bayes.posterior.marginals import marginal
    from gmm_bayes.posterior.partitions.coassignment import coassignment
    from gmm_bayes.posterior.partitions.merging import MergedComponents, merge_components
    from gmm_bayes.posterior.partitions.partition import CredibleBall, Partition, partition
    from gmm_bayes.posterior.responsibilities import assign, responsibilities
    from gmm_bayes.posterior.strangers import Reject, anomaly_scores, flag_anomalies

_HOMES = {
    "datasets": "gmm_bayes.datasets",
    "errors": "gmm_bayes.errors",
    "plots": "gmm_bayes.plots",
    "RowFile": "gmm_bayes._row_files",
    "Calibration": "gmm_bayes.checking.calibration.verdict",
    "simulation_based_calibration": "gmm_bayes.checking.calibration.calibration",
    "Comparison": "gmm_bayes.checking.candidates",
    "compare_n_components": "gmm_bayes.checking.comparison",
    "Evidence": "gmm_bayes.checking.evidence",
    "log_evidence": "gmm_bayes.checking.evidence",
    "occupied_components": "gmm_bayes.checking.occupied",
    "PriorSensitivity": "gmm_bayes.checking.sensitivity",
    "prior_sensitivity": "gmm_bayes.checking.sensitivity",
    "StackedChains": "gmm_bayes.checking.stacking",
    "stack_chains": "gmm_bayes.checking.stacking",
    "MixtureParameters": "gmm_bayes.core.mixture",
    "BayesianGMM": "gmm_bayes.estimator",
    "extend": "gmm_bayes.inference.continuation",
    "resume": "gmm_bayes.inference.continuation",
    "ChEES": "gmm_bayes.inference.sampling.chees",
    "Diagnosis": "gmm_bayes.inference.verdict.diagnosis",
    "diagnose": "gmm_bayes.inference.verdict.diagnosis",
    "EMFit": "gmm_bayes.inference.em.result",
    "fit_many": "gmm_bayes.inference.batch.fit_many",
    "ManyFits": "gmm_bayes.inference.batch.result",
    "fit_em": "gmm_bayes.inference.em.fit_em",
    "GMMFit": "gmm_bayes.inference.result.gmm_fit",
    "load": "gmm_bayes.inference.result.gmm_fit",
    "fit": "gmm_bayes.inference.fit",
    "NUTS": "gmm_bayes.inference.sampling.registry",
    "Laplace": "gmm_bayes.inference.sampling.registry",
    "sweep": "gmm_bayes.jobs.sweep.sweep",
    "GaussianMixture": "gmm_bayes.model.distribution",
    "gaussian_mixture": "gmm_bayes.model.gaussian_mixture",
    "Priors": "gmm_bayes.model.priors",
    "default_priors": "gmm_bayes.model.priors",
    "ConditionalMixture": "gmm_bayes.posterior.conditional_mixture",
    "conditional": "gmm_bayes.posterior.conditional",
    "conformal_p_values": "gmm_bayes.posterior.conformal",
    "coassignment": "gmm_bayes.posterior.partitions.coassignment",
    "align_labels": "gmm_bayes.posterior.labels.alignment",
    "log_likelihood": "gmm_bayes.posterior.density",
    "log_predictive_density": "gmm_bayes.posterior.density",
    "sample_predictive": "gmm_bayes.posterior.density",
    "with_groups": "gmm_bayes.posterior.groups",
    "marginal": "gmm_bayes.posterior.marginals",
    "MergedComponents": "gmm_bayes.posterior.partitions.merging",
    "merge_components": "gmm_bayes.posterior.partitions.merging",
    "CredibleBall": "gmm_bayes.posterior.partitions.partition",
    "Partition": "gmm_bayes.posterior.partitions.partition",
    "partition": "gmm_bayes.posterior.partitions.partition",
    "assign": "gmm_bayes.posterior.responsibilities",
    "responsibilities": "gmm_bayes.posterior.responsibilities",
    "Reject": "gmm_bayes.posterior.strangers",
    "anomaly_scores": "gmm_bayes.posterior.strangers",
    "flag_anomalies": "gmm_bayes.posterior.strangers",
}

__all__ = [
    "NUTS",
    "BayesianGMM",
    "Calibration",
    "ChEES",
    "Comparison",
    "ConditionalMixture",
    "CredibleBall",
    "Diagnosis",
    "EMFit",
    "Evidence",
    "GMMFit",
    "GaussianMixture",
    "Laplace",
    "ManyFits",
    "MergedComponents",
    "MixtureParameters",
    "Partition",
    "PriorSensitivity",
    "Priors",
    "Reject",
    "RowFile",
    "StackedChains",
    "__version__",
    "align_labels",
    "anomaly_scores",
    "assign",
    "coassignment",
    "compare_n_components",
    "conditional",
    "conformal_p_values",
    "datasets",
    "default_priors",
    "diagnose",
    "errors",
    "extend",
    "fit",
    "fit_em",
    "fit_many",
    "flag_anomalies",
    "gaussian_mixture",
    "load",
    "log_evidence",
    "log_likelihood",
    "log_predictive_density",
    "marginal",
    "merge_components",
    "occupied_components",
    "partition",
    "plots",
    "prior_sensitivity",
    "responsibilities",
    "resume",
    "sample_predictive",
    "simulation_based_calibration",
    "stack_chains",
    "sweep",
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

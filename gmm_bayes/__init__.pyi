# Every public name, once: `__init__` reads it from here, and so do type checkers.

from . import datasets as datasets
from . import errors as errors
from . import plots as plots
from ._row_files import RowFile as RowFile
from .checking.calibration.calibration import (
    simulation_based_calibration as simulation_based_calibration,
)
from .checking.calibration.verdict import Calibration as Calibration
from .checking.candidates import Comparison as Comparison
from .checking.comparison import compare_n_components as compare_n_components
from .checking.evidence import Evidence as Evidence
from .checking.evidence import log_evidence as log_evidence
from .checking.occupied import occupied_components as occupied_components
from .checking.sensitivity import PriorSensitivity as PriorSensitivity
from .checking.sensitivity import prior_sensitivity as prior_sensitivity
from .checking.stacking import StackedChains as StackedChains
from .checking.stacking import stack_chains as stack_chains
from .core.mixture import MixtureParameters as MixtureParameters
from .estimator import BayesianGMM as BayesianGMM
from .inference.batch.fit_many import fit_many as fit_many
from .inference.batch.load import load as load
from .inference.batch.result import ManyFits as ManyFits
from .inference.continuation import extend as extend
from .inference.continuation import resume as resume
from .inference.em.fit_em import fit_em as fit_em
from .inference.em.result import EMFit as EMFit
from .inference.fit import fit as fit
from .inference.modes.table import modes as modes
from .inference.result.gmm_fit import GMMFit as GMMFit
from .inference.sampling.chees import ChEES as ChEES
from .inference.sampling.laplace import Laplace as Laplace
from .inference.sampling.nuts import NUTS as NUTS
from .inference.verdict.diagnosis import Diagnosis as Diagnosis
from .inference.verdict.diagnosis import diagnose as diagnose
from .jobs.sweep.sweep import sweep as sweep
from .model.distribution import GaussianMixture as GaussianMixture
from .model.gaussian_mixture import gaussian_mixture as gaussian_mixture
from .model.priors import Priors as Priors
from .model.priors import default_priors as default_priors
from .posterior.conditional import conditional as conditional
from .posterior.conditional_mixture import ConditionalMixture as ConditionalMixture
from .posterior.conditional_rows import ConditionalRows as ConditionalRows
from .posterior.conformal import conformal_p_values as conformal_p_values
from .posterior.density import log_likelihood as log_likelihood
from .posterior.density import log_predictive_density as log_predictive_density
from .posterior.density import sample_predictive as sample_predictive
from .posterior.groups import with_groups as with_groups
from .posterior.labels.alignment import align_labels as align_labels
from .posterior.marginals import marginal as marginal
from .posterior.partitions.coassignment import coassignment as coassignment
from .posterior.partitions.merging import MergedComponents as MergedComponents
from .posterior.partitions.merging import merge_components as merge_components
from .posterior.partitions.partition import CredibleBall as CredibleBall
from .posterior.partitions.partition import Partition as Partition
from .posterior.partitions.partition import partition as partition
from .posterior.responsibilities import assign as assign
from .posterior.responsibilities import responsibilities as responsibilities
from .posterior.strangers import Reject as Reject
from .posterior.strangers import anomaly_scores as anomaly_scores
from .posterior.strangers import flag_anomalies as flag_anomalies

__version__: str

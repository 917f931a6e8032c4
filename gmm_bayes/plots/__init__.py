"""Pictures of mixtures; everything generic is left to ArviZ."""

from gmm_bayes.plots.anomalies import plot_anomalies
from gmm_bayes.plots.calibration import plot_calibration
from gmm_bayes.plots.components import plot_components
from gmm_bayes.plots.density import plot_density
from gmm_bayes.plots.diagnostics import plot_diagnostics
from gmm_bayes.plots.modes import plot_modes
from gmm_bayes.plots.n_components import plot_n_components
from gmm_bayes.plots.partition import plot_coassignment, plot_partition
from gmm_bayes.plots.responsibilities import plot_responsibilities

__all__ = [
    "plot_anomalies",
    "plot_calibration",
    "plot_coassignment",
    "plot_components",
    "plot_density",
    "plot_diagnostics",
    "plot_modes",
    "plot_n_components",
    "plot_partition",
    "plot_responsibilities",
]

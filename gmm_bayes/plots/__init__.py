"""Pictures of mixtures; everything generic is left to ArviZ."""

from gmm_bayes.plots.components import plot_components
from gmm_bayes.plots.density import plot_density
from gmm_bayes.plots.diagnostics import plot_diagnostics
from gmm_bayes.plots.n_components import plot_n_components
from gmm_bayes.plots.responsibilities import plot_responsibilities

__all__ = [
    "plot_components",
    "plot_density",
    "plot_diagnostics",
    "plot_n_components",
    "plot_responsibilities",
]

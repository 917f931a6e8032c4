"""The dictionary: every name that is written into a model, a tree or a file, once."""

from typing import Final, Literal

# Dims, as ArviZ sees them. A plate of the model carries the same name.
CHAIN: Final = "chain"
DRAW: Final = "draw"
OBS: Final = "obs"
COMPONENT: Final = "component"
FEATURE: Final = "feature"
# xarray wants two names for the two axes of a matrix.
FEATURE2: Final = "feature2"
OBS2: Final = "obs2"
COMPONENT2: Final = "component2"

# Sites of the model.
WEIGHTS: Final = "weights"
MEANS: Final = "means"
SCALES: Final = "scales"
CORRELATION_CHOLESKY: Final = "correlation_cholesky"
COVARIANCES: Final = "covariances"
# What ArviZ is shown in place of the Cholesky factor, and its dim: pairs of features.
CORRELATIONS: Final = "correlations"
PAIR: Final = "pair"
DATA: Final = "X"
# Of sample_stats: which component of a sampled draw each component of an aligned one was.
NUMBERING: Final = "numbering"
# Of sample_stats: the log-likelihood of all rows together. ArviZ takes one that is called
# log_likelihood for that of single rows.
TOTAL_LOG_LIKELIHOOD: Final = "total_log_likelihood"

# Groups of the tree.
POSTERIOR: Final = "posterior"
SAMPLE_STATS: Final = "sample_stats"
OBSERVED_DATA: Final = "observed_data"
CONSTANT_DATA: Final = "constant_data"
LOG_LIKELIHOOD: Final = "log_likelihood"
PRIOR: Final = "prior"
PRIOR_PREDICTIVE: Final = "prior_predictive"
POSTERIOR_PREDICTIVE: Final = "posterior_predictive"
# Of ours: what more draws can be made from.
SAMPLER_STATE: Final = "sampler_state"

# The entry of a run's facts that says which modes were looked for, and gone to.
SURVEY: Final = "survey"
TEMPERING: Final = "tempering"

# Covariance structures, named as in scikit-learn.
CovarianceType = Literal["full", "tied", "diag", "spherical"]
FULL: Final = "full"
TIED: Final = "tied"
DIAG: Final = "diag"
SPHERICAL: Final = "spherical"

# Where the EM starts come from: many kinds, or one of scikit-learn's names.
AUTO: Final = "auto"
InitMethod = Literal["auto", "kmeans", "k-means++", "random", "random_from_data"]
NAMED_INIT_METHODS: Final = ("kmeans", "k-means++", "random", "random_from_data")
INIT_METHODS: Final = (AUTO, *NAMED_INIT_METHODS)

# How several chains run, named as in NumPyro.
ChainMethod = Literal["auto", "parallel", "sequential", "vectorized"]
CHAIN_METHODS: Final = ("auto", "parallel", "sequential", "vectorized")
DEVICES: Final = ("auto", "cpu", "gpu")
# Axes of a mesh of devices.
CHAINS_AXIS: Final = "chains"
ROWS_AXIS: Final = "rows"

# In which coordinates chains run.
Preconditioning = Literal["auto", "laplace", "none"]
PRECONDITIONING: Final = ("auto", "laplace", "none")
Precision = Literal["float64", "float32"]
PRECISIONS: Final = ("float64", "float32")

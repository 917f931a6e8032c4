"""Maximum likelihood by expectation-maximisation.

The E-step is the kernel's, in blocks of rows; the M-step, on K matrices, is NumPy's.
"""

from typing import NamedTuple

import jax
import numpy as np

from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import RowBlocks, component_scores, expected_moments
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.potential import ModelSpec

__all__ = ["VARIANCE_FLOOR", "Solution", "hard_moments", "maximise", "soft_moments"]

# In standard units, added to every variance, as scikit-learn's reg_covar.
VARIANCE_FLOOR = 1e-6
_TOLERANCE = 1e-5
_MAX_ITERATIONS = 300


class Solution(NamedTuple):
    """Where EM ended.

    Attributes
    ----------
    mixture : MixtureParameters
    log_likelihood : float
        Sum over rows, nats.
    n_iterations : int
    smallest_variance : float
        Smallest eigenvalue of any covariance; one near the floor says that the likelihood of this
        solution means nothing.
    """

    mixture: MixtureParameters
    log_likelihood: float
    n_iterations: int
    smallest_variance: float


def maximise(moments: np.ndarray, rows: RowBlocks, spec: ModelSpec) -> Solution:
    """Iterate until the mean log density of a row changes by less than 1e-5 nats.

    Parameters
    ----------
    moments : ndarray, shape (K, D + 1, D + 1)
        Expected second moments of [1, x] to begin with.
    rows : RowBlocks
        In standard units, on the device.
    spec : ModelSpec
    """
    enough = _TOLERANCE * moments[:, 0, 0].sum()
    before, log_likelihood, n_iterations = -np.inf, np.inf, 0
    while abs(log_likelihood - before) > enough and n_iterations < _MAX_ITERATIONS:
        mixture = _m_step(moments, spec)
        before, (total, expected) = log_likelihood, _e_step(mixture, rows)
        log_likelihood, moments = float(total), np.asarray(expected)
        n_iterations += 1
    smallest = float(np.linalg.eigvalsh(mixture.covariances).min())
    return Solution(mixture, log_likelihood, n_iterations, smallest)


def hard_moments(X: np.ndarray, labels: np.ndarray, n_components: int) -> np.ndarray:
    """Second moments of [1, x] in each group of rows, shape (K, D + 1, D + 1)."""
    with_one = np.column_stack([np.ones(len(X)), X])
    groups = [with_one[labels == k] for k in range(n_components)]
    return np.stack([group.T @ group for group in groups])


def soft_moments(X: np.ndarray, responsibilities: np.ndarray) -> np.ndarray:
    """Expected second moments of [1, x] under responsibilities (N, K)."""
    with_one = np.column_stack([np.ones(len(X)), X])
    return np.stack([(with_one.T * r) @ with_one for r in responsibilities.T])


@jax.jit
def _e_step(mixture: MixtureParameters, rows: RowBlocks) -> tuple[jax.Array, jax.Array]:
    return expected_moments(component_scores(*mixture), rows)


def _m_step(moments: np.ndarray, spec: ModelSpec) -> MixtureParameters:
    """The mixture of largest likelihood given expected second moments."""
    n_components, size, _ = moments.shape
    # An empty component stays where a vanishing weight puts it.
    counts = moments[:, 0, 0] + 10 * np.finfo(float).eps
    means = moments[:, 1:, 0] / counts[:, None]
    second = moments[:, 1:, 1:] / counts[:, None, None]
    dense = second - means[:, :, None] * means[:, None, :]
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    dense = structure.pooled(dense, counts) + VARIANCE_FLOOR * np.eye(size - 1)
    tril = structure.scale_tril(*structure.sites(dense), n_components, size - 1)
    return MixtureParameters(counts / counts.sum(), means, tril)

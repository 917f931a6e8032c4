"""What is said of data and weights before maximum likelihood: there is no prior to help out."""

from collections.abc import Iterable

import numpy as np

from gmm_bayes.core.covariance import CovarianceStructure

__all__ = ["small_weights", "wide_caution"]

# Weights that sum to less than this share of the rows do not count rows.
_SHARE_COUNTED = 0.1


def wide_caution(structures: Iterable[CovarianceStructure], n_features: int) -> str | None:
    """What columns as many as rows mean to a maximum of the likelihood; None if nothing."""
    if not any(structure.has_correlations(n_features) for structure in structures):
        return None
    return (
        "covariances between them have no maximum of the likelihood; take covariance_type='diag' "
        "or 'spherical'"
    )


def small_weights(weights: np.ndarray) -> str | None:
    """What to say of weights that sum to far below the number of rows that count; None if not."""
    total, n_obs = weights.sum(), np.count_nonzero(weights)
    if total >= _SHARE_COUNTED * n_obs:
        return None
    return (
        f"sample_weight sums to {total:.3g} for {n_obs} rows. A weight says how often its row "
        f"counts, so aic, bic and icl take these for {total:.3g} rows, and do not weigh fit "
        f"against parameters as for {n_obs}; where only the proportions mean something, multiply "
        f"by {n_obs / total:.3g}"
    )

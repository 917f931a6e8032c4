"""The distance of two normals, in NumPy."""

import numpy as np

__all__ = ["bhattacharyya"]


def bhattacharyya(
    means: np.ndarray, tril: np.ndarray, other_means: np.ndarray, other_tril: np.ndarray
) -> np.ndarray:
    """Distances (K, K) of normals: minus the log of the overlap, the integral of sqrt(p q)."""
    covariances = [factor @ factor.swapaxes(-1, -2) for factor in (tril, other_tril)]
    between = (covariances[0][:, None] + covariances[1][None]) / 2
    difference = means[:, None] - other_means[None]
    squared = np.einsum(
        "jkd,jkd->jk", difference, np.linalg.solve(between, difference[..., None])[..., 0]
    )
    log_det = [
        2 * np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(-1) for factor in (tril, other_tril)
    ]
    log_det_between = np.linalg.slogdet(between)[1]
    return squared / 8 + (log_det_between - (log_det[0][:, None] + log_det[1][None]) / 2) / 2

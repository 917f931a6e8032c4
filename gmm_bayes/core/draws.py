"""Densities of rows under many draws of a mixture, in NumPy, where nothing is compiled."""

import numpy as np

__all__ = ["draw_scores"]


def draw_scores(
    X: np.ndarray, weights: np.ndarray, means: np.ndarray, tril: np.ndarray
) -> np.ndarray:
    """Log of weight times density, shape (S, K, rows). In NumPy, where nothing is compiled.

    Parameters
    ----------
    X : ndarray, shape (rows, D)
    weights, means, tril : ndarray, shapes (S, K), (S, K, D) and (S, K, D, D)
        Draws of a mixture.
    """
    n_draws, k, d = means.shape
    tril = np.where(np.eye(d, dtype=bool) & (tril == 0), np.finfo(float).tiny, tril)
    whiten = np.linalg.inv(tril)
    centred = whiten.reshape(-1, d) @ X.T - (whiten @ means[..., None]).reshape(-1, 1)
    squared = (centred**2).reshape(n_draws, k, d, -1).sum(axis=2)
    log_det = np.log(np.diagonal(tril, axis1=-2, axis2=-1)).sum(axis=-1)
    constant = np.log(np.maximum(weights, np.finfo(float).tiny)) - log_det
    return (constant - 0.5 * d * np.log(2 * np.pi))[..., None] - 0.5 * squared

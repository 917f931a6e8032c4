"""One mixture for all draws: components matched, then posterior means."""

import numpy as np
from scipy.linalg import solve_triangular

from gmm_bayes.core.covariance import CovarianceStructure
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.verdict.measures import labels_switched
from gmm_bayes.model.matching import match_to_pivot

__all__ = ["numbering", "posterior_mean", "precisions", "sample_by_component"]

# Numbers in the factors that are held at once to draw new rows.
_LARGEST_BLOCK = 2**22


def numbering(fit: GMMFit) -> np.ndarray | None:
    """How to renumber the components of every draw, shape (S, K); None if they kept their places.

    Where they changed places, draws are matched to the one of highest density.
    """
    if not labels_switched(fit):
        return None
    draws = fit.parameters()
    best = int(fit.sample_stats["lp"].values.argmax())
    return match_to_pivot(draws, MixtureParameters(*(a[best] for a in draws)))


def posterior_mean(draws: MixtureParameters) -> MixtureParameters:
    """Means over draws (S, ...) of weights, means and covariances, as one mixture."""
    return MixtureParameters(
        draws.weights.mean(axis=0),
        draws.means.mean(axis=0),
        np.linalg.cholesky(draws.covariances.mean(axis=0)),
    )


def precisions(
    covariances: np.ndarray, structure: CovarianceStructure
) -> tuple[np.ndarray, np.ndarray]:
    """Inverses of covariances, and upper factors U of them: U U' is the inverse.

    Parameters
    ----------
    covariances : ndarray
        Shape by structure: (K, D, D), (D, D), (K, D) or (K,).
    structure : CovarianceStructure

    Returns
    -------
    inverses, factors : ndarray
        Shapes as of `covariances`. Where features are uncorrelated a factor is one over a standard
        deviation, as in scikit-learn.
    """
    if structure.correlation_dims is None:
        return 1 / covariances, 1 / np.sqrt(covariances)
    one = np.eye(covariances.shape[-1])
    lower = np.linalg.cholesky(covariances).reshape(-1, *one.shape)
    upper = np.stack([solve_triangular(factor, one, lower=True).T for factor in lower])
    upper = upper.reshape(covariances.shape)
    return upper @ upper.swapaxes(-1, -2), upper


def sample_by_component(
    draws: MixtureParameters, n_samples: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """New rows, each from a draw of its own, and their components, in the order of these."""
    picked = rng.randint(len(draws.weights), size=n_samples)
    cumulative = draws.weights[picked].cumsum(axis=1)
    y = (rng.uniform(size=(n_samples, 1)) * cumulative[:, -1:] > cumulative).sum(axis=1)
    order = np.argsort(y, kind="stable")
    picked, y = picked[order], y[order]
    X = rng.standard_normal((n_samples, draws.means.shape[-1]))
    size = max(1, _LARGEST_BLOCK // X.shape[1] ** 2)
    for begin in range(0, n_samples, size):
        some = slice(begin, begin + size)
        which = picked[some], y[some]
        X[some] = draws.means[which] + np.einsum("nde,ne->nd", draws.scale_tril[which], X[some])
    return X, y

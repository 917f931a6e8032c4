"""The parameters as one unconstrained vector: the way there and back, and the prior's density.

Closed forms of what NumPyro's transforms and distributions say of the model; a test holds the two
equal. Written out because at a few hundred rows this is what a gradient costs: as stick-breaking
ratios, log scales and partial correlations, every prior is a sum of logs of sigmoids and tanhs.

The vector holds, in this order, the partial correlations (artanh), the means, the logs of the
scales and the stick-breaking ratios of the weights (logit). Functions take JAX or NumPy arrays with
any leading axes and answer in kind: draws are turned into parameters on the host.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gmm_bayes._vocabulary import (
    COMPONENT,
    CORRELATION_CHOLESKY,
    FEATURE,
    MEANS,
    SCALES,
    WEIGHTS,
)
from gmm_bayes.core.covariance import Array, CovarianceStructure
from gmm_bayes.core.likelihood import ComponentScores, inverse_tril

__all__ = ["LogPrior", "Space"]


class LogPrior(NamedTuple):
    """The priors, in the form in which their log density is cheap.

    Attributes
    ----------
    before, after : array, shape (K - 1,)
        Powers of a stick-breaking ratio v and of 1 - v.
    mean_loc : array, shape (K, D)
    mean_whiten : array, shape (D, D)
        Inverse of the Cholesky factor of the means' covariance.
    log_scale : array, shape (D,) or ()
        Log of the scale of each HalfCauchy.
    correlation_power : array, shape (D, D)
        Power of 1 - z^2 for each partial correlation z, zero on and above the diagonal.
    log_normalizer : array, shape ()
        What does not depend on the parameters.
    """

    before: Any
    after: Any
    mean_loc: Any
    mean_whiten: Any
    log_scale: Any
    correlation_power: Any
    log_normalizer: Any


@dataclass(frozen=True)
class Space:
    """The unconstrained parameters of a mixture of a given size and covariance structure."""

    structure: CovarianceStructure
    n_components: int
    n_features: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each site's part of the vector, in its order."""
        k, d = self.n_components, self.n_features
        sizes = {COMPONENT: k, FEATURE: d}
        shapes = {}
        if self.structure.has_correlations(d):
            batch = [sizes[dim] for dim in self.structure.correlation_batch or ()]
            shapes[CORRELATION_CHOLESKY] = (*batch, d * (d - 1) // 2)
        scales = tuple(sizes[dim] for dim in self.structure.scale_dims)
        return {**shapes, MEANS: (k, d), SCALES: scales, WEIGHTS: (k - 1,)}

    @property
    def dimension(self) -> int:
        """Length of the vector."""
        return sum(map(math.prod, self.shapes.values()))

    def split(self, z: Array) -> dict[str, Array]:
        """Cut vectors (..., dimension) into the sites' parts."""
        parts, begin = {}, 0
        for name, shape in self.shapes.items():
            end = begin + math.prod(shape)
            parts[name] = z[..., begin:end].reshape(*z.shape[:-1], *shape)
            begin = end
        return parts

    def by_component(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which entries each component has of its own, (K, p), and which are left, (q,)."""
        dims = {
            CORRELATION_CHOLESKY: self.structure.correlation_batch or (),
            MEANS: (COMPONENT, FEATURE),
            SCALES: self.structure.scale_dims,
            WEIGHTS: (),
        }
        places = self.split(np.arange(self.dimension))
        own = [
            place.reshape(self.n_components, -1)
            for name, place in places.items()
            if COMPONENT in dims[name]
        ]
        rest = [place.ravel() for name, place in places.items() if COMPONENT not in dims[name]]
        return np.concatenate(own, axis=1), np.concatenate(rest)

    def sites(self, z: Array) -> dict[str, Array]:
        """Return the model's sites at vectors (..., dimension): shapes (..., *site)."""
        xp, parts = _namespace(z), self.split(z)
        sites = {
            WEIGHTS: xp.exp(self._log_weights(parts[WEIGHTS])),
            MEANS: parts[MEANS],
            SCALES: xp.exp(parts[SCALES]),
        }
        if CORRELATION_CHOLESKY in parts:
            sites[CORRELATION_CHOLESKY] = self._correlation(parts[CORRELATION_CHOLESKY])[0]
        return sites

    def vector(self, sites: dict[str, np.ndarray]) -> np.ndarray:
        """Return the vector of one mixture's sites, a NumPy array of shape (dimension,)."""
        weights = np.maximum(sites[WEIGHTS], np.finfo(float).tiny)
        rest = np.cumsum(weights[::-1])[::-1][1:]
        parts = {
            MEANS: sites[MEANS],
            SCALES: np.log(sites[SCALES]),
            WEIGHTS: np.log(weights[:-1]) - np.log(rest) + self._even,
        }
        if CORRELATION_CHOLESKY in self.shapes:
            factor = sites[CORRELATION_CHOLESKY]
            left = 1 - np.cumsum(factor**2, axis=-1) + factor**2
            partial = np.tril(factor / np.sqrt(np.maximum(left, np.finfo(float).tiny)), -1)
            d = self.n_features
            place = _fill_lower(np.arange(d * (d - 1) // 2))
            flat = np.empty((*factor.shape[:-2], place.max() + 1))
            rows, columns = np.tril_indices(d - 1)
            flat[..., place[rows, columns]] = np.arctanh(partial[..., rows + 1, columns])
            parts[CORRELATION_CHOLESKY] = flat
        return np.concatenate([np.ravel(parts[name]) for name in self.shapes])

    def log_density(self, z: Array, prior: LogPrior) -> Array:
        """Log prior density of vectors (..., dimension), Jacobian included, in nats."""
        xp, parts = _namespace(z), self.split(z)
        ratios = parts[WEIGHTS] - self._even
        # before * log v + after * log(1 - v).
        weights = prior.before * ratios - (prior.before + prior.after) * _softplus(ratios)
        white = xp.matmul(parts[MEANS] - prior.mean_loc, prior.mean_whiten.T)
        spread = parts[SCALES] - prior.log_scale
        scales = spread - _softplus(2 * spread)
        total = _sum(weights, 1) - 0.5 * _sum(white**2, 2)
        total = total + _sum(scales, len(self.structure.scale_dims))
        if CORRELATION_CHOLESKY in parts:
            log_left = _log_sech2(_dense(parts[CORRELATION_CHOLESKY]))
            axes = len(self.structure.correlation_batch or ()) + 2
            total = total + _sum(prior.correlation_power * log_left, axes)
        return total + prior.log_normalizer

    def scores(self, z: Array) -> ComponentScores:
        """Return the scores of the components at one JAX vector (dimension,)."""
        xp, parts = _namespace(z), self.split(z)
        k, d = self.n_components, self.n_features
        log_scales = self.structure.spread_scales(parts[SCALES], k, d)
        if CORRELATION_CHOLESKY in parts:
            factor, log_diagonal = self._correlation(parts[CORRELATION_CHOLESKY])
            inverse = self.structure.spread_correlation(inverse_tril(factor), k, d)
            log_det = log_scales.sum(-1) + log_diagonal
        else:
            inverse = xp.eye(d, dtype=z.dtype)
            log_det = log_scales.sum(-1)
        whiten = inverse * xp.exp(-log_scales)[:, None, :]
        centred = (whiten * parts[MEANS][:, None, :]).sum(-1)
        constants = self._log_weights(parts[WEIGHTS]) - log_det - 0.5 * d * math.log(2 * math.pi)
        return ComponentScores(constants, xp.concatenate([-centred[..., None], whiten], axis=-1))

    def counts(self, gradient: np.ndarray, z: np.ndarray, prior: LogPrior, n_obs: int) -> Array:
        """Each component's expected number of rows, from the log posterior's gradient.

        With ratios v_i, the log-likelihood's derivative in the i-th logit is
        counts_i - v_i (counts_i + counts_{i+1} + ...), which is solved from the first component on,
        whose sum is the number of rows; the log prior's is before_i (1 - v_i) - after_i v_i.

        Parameters
        ----------
        gradient, z : ndarray, shape (..., dimension)
        prior : LogPrior
        n_obs : int

        Returns
        -------
        ndarray, shape (..., K)
        """
        # Not 1 / (1 + exp): a spare component under a sparse prior has a logit in the thousands.
        ratios = np.exp(-np.logaddexp(0, self._even - self.split(z)[WEIGHTS]))
        slope = self.split(gradient)[WEIGHTS]
        slope = slope - prior.before * (1 - ratios) + prior.after * ratios
        left = np.full(z.shape[:-1], float(n_obs))
        counts = []
        for i in range(self.n_components - 1):
            counts.append(slope[..., i] + ratios[..., i] * left)
            left = left - counts[-1]
        return np.stack([*counts, left], axis=-1)

    @property
    def _even(self) -> np.ndarray:
        """What makes a vector of zeros stand for equal weights."""
        return np.log(np.arange(self.n_components - 1, 0, -1.0))

    def _log_weights(self, x: Array) -> Array:
        """Log weights (..., K) of stick-breaking logits (..., K - 1)."""
        xp = _namespace(x)
        if self.n_components == 1:
            return xp.zeros((*x.shape[:-1], 1), dtype=x.dtype)
        ratios = x - self._even
        # log(1 - v) = -softplus(ratio) and log v = ratio + log(1 - v).
        log_left = -xp.cumsum(_softplus(ratios), axis=-1)
        return xp.concatenate([ratios + log_left, log_left[..., -1:]], axis=-1)

    def _correlation(self, y: Array) -> tuple[Array, Array]:
        """Cholesky factor of the correlations, and the log of its determinant."""
        xp, dense = _namespace(y), _dense(y)
        log_root = 0.5 * _log_sech2(dense)
        before = xp.cumsum(log_root, axis=-1) - log_root
        partial = xp.tanh(dense) + xp.eye(self.n_features, dtype=y.dtype)
        return partial * xp.exp(before), _sum(log_root, 2)


def _dense(y: Array) -> Array:
    """Strictly lower triangular matrices (..., D, D) of D (D - 1) / 2 numbers each."""
    filled = _fill_lower(y)
    xp = _namespace(filled)
    widths = [(0, 0)] * (filled.ndim - 2)
    return xp.pad(filled, [*widths, (1, 0), (0, 1)])


def _fill_lower(y: Array) -> Array:
    """Lower triangular matrices (..., n, n) of n (n + 1) / 2 numbers each.

    The numbers and their reverse, read as a square, hold every number once in the lower triangle:
    no gather, whose gradient would be a slow scatter.
    """
    xp = _namespace(y)
    n = (math.isqrt(8 * y.shape[-1] + 1) - 1) // 2
    square = xp.concatenate([y[..., n:], xp.flip(y, axis=-1)], axis=-1)
    return xp.tril(square.reshape(*y.shape[:-1], n, n))


def _softplus(x: Array) -> Array:
    """log(1 + exp(x))."""
    return _namespace(x).logaddexp(x, 0.0)


def _log_sech2(y: Array) -> Array:
    """log(1 - tanh(y)^2)."""
    return 2 * (math.log(2) - _namespace(y).logaddexp(y, -y))


def _sum(values: Array, n_axes: int) -> Array:
    """Sum over the last axes."""
    return values.sum(axis=tuple(range(-n_axes, 0)))


def _namespace(array: Array) -> Any:
    return array.__array_namespace__()

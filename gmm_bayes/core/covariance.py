"""The covariance structures, as one table.

With Sigma_k = Diag(sigma_k) Omega_k Diag(sigma_k), a structure says only which axes the scales
sigma and the correlations Omega have of their own. Shapes, Cholesky factors, counts of parameters
and projections all follow from that, so no code elsewhere asks which structure it has.

Every function takes JAX or NumPy arrays and answers in kind: draws that have come back from the
device are handled on the host, where nothing needs to be compiled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from gmm_bayes._vocabulary import COMPONENT, DIAG, FEATURE, FEATURE2, FULL, SPHERICAL, TIED

__all__ = ["COVARIANCE_STRUCTURES", "CovarianceStructure"]

# A JAX or a NumPy array; both carry their namespace with them.
Array = Any

_COMPONENT_FEATURE = (COMPONENT, FEATURE)


@dataclass(frozen=True)
class CovarianceStructure:
    """One way for the covariances of K components over D features to share parameters.

    Attributes
    ----------
    name : str
        scikit-learn's name of the structure.
    scale_dims : tuple of str
        Axes of the standard deviations: a subset of (component, feature).
    correlation_batch : tuple of str or None
        Leading axes of the correlation matrices; None where features are uncorrelated.
    """

    name: str
    scale_dims: tuple[str, ...]
    correlation_batch: tuple[str, ...] | None

    @property
    def shares_scale(self) -> bool:
        """True where one standard deviation serves all features of a component."""
        return FEATURE not in self.scale_dims

    @property
    def correlation_dims(self) -> tuple[str, ...] | None:
        """Axes of the correlation Cholesky factors, None where there are none."""
        if self.correlation_batch is None:
            return None
        return (*self.correlation_batch, FEATURE, FEATURE2)

    @property
    def covariance_dims(self) -> tuple[str, ...]:
        """Axes of the covariances, in scikit-learn's shape."""
        return self.correlation_dims or self.scale_dims

    def has_correlations(self, n_features: int) -> bool:
        """Whether there is a correlation to learn: one feature has none."""
        return self.correlation_batch is not None and n_features > 1

    def can_flatten(self, n_features: int) -> bool:
        """Whether a component may be narrow in one feature while nothing else is."""
        own_features = FEATURE in self.scale_dims or n_features == 1
        return COMPONENT in self.scale_dims and own_features

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Free parameters of the whole mixture: weights, means and covariances."""
        sizes = _sizes(n_components, n_features)
        free = n_components - 1 + n_components * n_features
        free += prod(sizes[d] for d in self.scale_dims)
        if self.correlation_batch is not None:
            pairs = n_features * (n_features - 1) // 2
            free += pairs * prod(sizes[d] for d in self.correlation_batch)
        return free

    def scale_tril(
        self,
        scales: Array,
        correlation_cholesky: Array | None,
        n_components: int,
        n_features: int,
    ) -> Array:
        """Cholesky factors of all K covariances, shape (..., K, D, D), from the sites."""
        sigma = self.spread_scales(scales, n_components, n_features)
        if correlation_cholesky is None:
            omega = _namespace(sigma).eye(n_features, dtype=sigma.dtype)
        else:
            omega = self.spread_correlation(correlation_cholesky, n_components, n_features)
        return sigma[..., :, None] * omega

    def spread_scales(self, scales: Array, n_components: int, n_features: int) -> Array:
        """What each scale is, for every component and feature: shape (..., K, D)."""
        full = _expand(scales, self.scale_dims, _COMPONENT_FEATURE)
        shape = (*full.shape[:-2], n_components, n_features)
        return _namespace(full).broadcast_to(full, shape)

    def spread_correlation(self, matrices: Array, n_components: int, n_features: int) -> Array:
        """What each correlation matrix or factor is, for every component: shape (..., K, D, D)."""
        assert self.correlation_batch is not None
        batch = (*self.correlation_batch, FEATURE, FEATURE2)
        full = _expand(matrices, batch, (COMPONENT, FEATURE, FEATURE2))
        shape = (*full.shape[:-3], n_components, n_features, n_features)
        return _namespace(full).broadcast_to(full, shape)

    def covariances(self, scales: Array, correlation_cholesky: Array | None = None) -> Array:
        """Covariances in scikit-learn's shape from the sites."""
        if self.correlation_batch is None:
            return scales**2
        if correlation_cholesky is None:
            return scales[..., None] ** 2
        tril = scales[..., :, None] * correlation_cholesky
        return tril @ tril.swapaxes(-1, -2)

    def to_dense(self, covariances: Array, n_components: int, n_features: int) -> Array:
        """Covariances in scikit-learn's shape as K dense matrices, shape (..., K, D, D)."""
        if self.correlation_batch is None:
            variance = _expand(covariances, self.scale_dims, _COMPONENT_FEATURE)
            dense = variance[..., :, None] * _namespace(variance).eye(
                n_features, dtype=variance.dtype
            )
        else:
            dense = _expand(covariances, self.covariance_dims, (COMPONENT, FEATURE, FEATURE2))
        shape = (*dense.shape[:-3], n_components, n_features, n_features)
        return _namespace(dense).broadcast_to(dense, shape)

    def pooled(self, dense: Array, weights: Array) -> Array:
        """Average covariances (K, D, D) over the components that share theirs."""
        if COMPONENT in self.scale_dims:
            return dense
        average = (dense * weights[:, None, None]).sum(axis=0) / weights.sum()
        return _namespace(dense).broadcast_to(average, dense.shape)

    def sites(self, dense: Array) -> tuple[Array, Array | None]:
        """Scales and correlation Cholesky factors of K dense covariances (K, D, D).

        The inverse of `scale_tril` for covariances that have this structure. Others are
        projected: shared axes get the mean variance.
        """
        xp, n_features = _namespace(dense), dense.shape[-1]
        variance = xp.diagonal(dense, axis1=-2, axis2=-1)
        scales = xp.sqrt(_reduce(variance, _COMPONENT_FEATURE, self.scale_dims))
        if not self.has_correlations(n_features):
            return scales, None
        assert self.correlation_batch is not None
        shared = _reduce(
            dense,
            (COMPONENT, FEATURE, FEATURE2),
            (*self.correlation_batch, FEATURE, FEATURE2),
        )
        sigma = xp.sqrt(xp.diagonal(shared, axis1=-2, axis2=-1))
        return scales, xp.linalg.cholesky(shared / (sigma[..., :, None] * sigma[..., None, :]))


def _namespace(array: Array) -> Any:
    return array.__array_namespace__()


def _sizes(n_components: int, n_features: int) -> Mapping[str, int]:
    return {COMPONENT: n_components, FEATURE: n_features, FEATURE2: n_features}


def _expand(array: Array, dims: tuple[str, ...], target: tuple[str, ...]) -> Array:
    """Give `array`, whose last axes are `dims`, an axis of length one for each absent target."""
    lead = array.ndim - len(dims)
    absent = [lead + i for i, dim in enumerate(target) if dim not in dims]
    return _namespace(array).expand_dims(array, tuple(absent))


def _reduce(array: Array, dims: tuple[str, ...], target: tuple[str, ...]) -> Array:
    """Average `array` over those of its `dims` that `target` lacks."""
    return array.mean(axis=tuple(i for i, dim in enumerate(dims) if dim not in target))


COVARIANCE_STRUCTURES: Mapping[str, CovarianceStructure] = {
    FULL: CovarianceStructure(FULL, _COMPONENT_FEATURE, (COMPONENT,)),
    TIED: CovarianceStructure(TIED, (FEATURE,), ()),
    DIAG: CovarianceStructure(DIAG, _COMPONENT_FEATURE, None),
    SPHERICAL: CovarianceStructure(SPHERICAL, (COMPONENT,), None),
}

"""Affine maps z = loc + factor eta: the coordinates in which chains run."""

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

__all__ = ["AffineMap", "BlockMap", "unit_map"]


class AffineMap(NamedTuple):
    """A map with a dense or a diagonal factor.

    Attributes
    ----------
    loc : array, shape (dimension,)
    factor : array, shape (dimension, dimension) or (dimension,)
        An upper triangular matrix, or the diagonal of one.
    """

    loc: Any
    factor: Any

    @property
    def log_volume(self) -> float:
        """Log of the factor by which volumes grow."""
        diagonal = self.factor if self.factor.ndim == 1 else np.diagonal(self.factor)
        return float(np.log(np.abs(diagonal)).sum())

    def apply(self, eta: Any) -> Any:
        """Points z, shape (..., dimension), at eta of the same shape."""
        if self.factor.ndim == 1:
            return self.loc + self.factor * eta
        return self.loc + eta @ self.factor.T

    def pull_back(self, gradient: np.ndarray) -> np.ndarray:
        """Gradient in eta of a function whose gradient in z is given, shape (..., dimension)."""
        return gradient * self.factor if self.factor.ndim == 1 else gradient @ self.factor

    def push_forward(self, slope: np.ndarray) -> np.ndarray:
        """Gradient in z of a function whose gradient in eta is given, shape (..., dimension)."""
        return slope / self.factor if self.factor.ndim == 1 else _solve(self.factor, slope)


class BlockMap(NamedTuple):
    """A map with one factor for each component, and one for what components share.

    Attributes
    ----------
    loc : array, shape (dimension,)
    blocks : array, shape (K, p, p)
        Upper triangular.
    rest : array, shape (q, q)
    order : array of int, shape (dimension,)
        Which entries of z the blocks and the rest are about, one after the other.
    place : array of int, shape (dimension,)
        The inverse of `order`.
    """

    loc: Any
    blocks: Any
    rest: Any
    order: Any
    place: Any

    @property
    def log_volume(self) -> float:
        """Log of the factor by which volumes grow."""
        own, rest = (np.diagonal(a, axis1=-2, axis2=-1) for a in (self.blocks, self.rest))
        return float(np.log(np.abs(own)).sum() + np.log(np.abs(rest)).sum())

    def apply(self, eta: Any) -> Any:
        """Points z, shape (..., dimension), at eta of the same shape."""
        head, tail = self._cut(eta)
        moved = (self.blocks @ head[..., None])[..., 0]
        return self.loc + self._join(moved, tail @ self.rest.T)[..., self.place]

    def pull_back(self, gradient: np.ndarray) -> np.ndarray:
        """Gradient in eta of a function whose gradient in z is given, shape (..., dimension)."""
        head, tail = self._cut(gradient[..., self.order])
        return self._join((head[..., None, :] @ self.blocks)[..., 0, :], tail @ self.rest)

    def push_forward(self, slope: np.ndarray) -> np.ndarray:
        """Gradient in z of a function whose gradient in eta is given, shape (..., dimension)."""
        head, tail = self._cut(slope)
        solved = [_solve(b, head[..., k, :]) for k, b in enumerate(self.blocks)]
        return self._join(np.stack(solved, axis=-2), _solve(self.rest, tail))[..., self.place]

    def _cut(self, values: Any) -> tuple[Any, Any]:
        k, p, _ = self.blocks.shape
        return values[..., : k * p].reshape(*values.shape[:-1], k, p), values[..., k * p :]

    def _join(self, head: Any, tail: Any) -> Any:
        flat = head.reshape(*tail.shape[:-1], -1)
        return head.__array_namespace__().concatenate([flat, tail], axis=-1)


def unit_map(dimension: int) -> AffineMap:
    """The map that changes nothing."""
    return AffineMap(np.zeros(dimension), np.ones(dimension))


def _solve(factor: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Solve factor' x = slope for each vector (..., n) with an upper triangular factor."""
    flat = slope.reshape(-1, slope.shape[-1])
    return solve_triangular(factor, flat.T, trans="T").T.reshape(slope.shape)

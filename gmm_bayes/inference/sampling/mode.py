"""The mode, the curvature there, and the coordinates in which the posterior is close to N(0, I)."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.linalg import LinAlgError, cholesky, eigh, solve_triangular
from scipy.optimize import minimize

from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.inference.potential import Data, ModelSpec, potential, space
from gmm_bayes.inference.rows.placement import on_host
from gmm_bayes.inference.sampling.coordinates import AffineMap, BlockMap
from gmm_bayes.machine.compilation import compiled
from gmm_bayes.machine.devices import cpu_cores, first_device
from gmm_bayes.machine.threads import run_in_threads

__all__ = [
    "DIFFERENCE_STEP",
    "Approximation",
    "Lowest",
    "approximation_at",
    "blank_map",
    "descend",
    "inverse_factor",
    "normal_approximation",
    "value_and_gradient",
]

logger = logging.getLogger(__name__)

_MAX_STEPS, _MAX_NEWTON_STEPS = 500, 20
# Rows that are enough to say where the mode is and how it is curved, give or take a fifth.
_MANY_ROWS = 50_000
# Step of the central differences, in standard units: parameters matter on a scale of one, so the
# relative error is of the order of 1e-8 whatever the number of rows.
DIFFERENCE_STEP = 1e-4
# Above it the curvature is taken component by component: a dense one of 3000 dimensions fills 72 MB
# and takes 6000 gradients.
_DENSE_DIMENSION = 3000
# The smallest curvature that is believed along a direction, beside that of its parameters by
# themselves.
_SMALLEST_EIGENVALUE = 1e-2


# The curvatures that are those of a mode.
_WHOLE = ("dense", "by component")


class Approximation(NamedTuple):
    """The posterior as a normal distribution about its mode, as far as it could be had.

    Attributes
    ----------
    affine : AffineMap or BlockMap
        Takes N(0, I) to the approximation.
    curvature : str
        What became of the curvature at the mode: "dense" or "by component", and "regularized" where
        it was not positive definite, "diagonal" where it was not even finite off the diagonal.
    n_gradients : int
        Evaluations of the potential's gradient in the search for the mode.
    potential : float
        Minus the log density at the mode, nats.
    """

    affine: AffineMap | BlockMap
    curvature: str
    n_gradients: int
    potential: float

    @property
    def log_mass(self) -> float:
        """Log integral of the normal density of the mode's height and curvature, in nats.

        Laplace's method. Minus infinity where the curvature is not that of a mode, as where a
        component narrows without end.
        """
        if self.curvature not in _WHOLE:
            return -np.inf
        dimension = len(self.affine.loc)
        return 0.5 * dimension * np.log(2 * np.pi) + self.affine.log_volume - self.potential


@partial(compiled, static_argnames="spec")
def value_and_gradient(z: jax.Array, data: Data, spec: ModelSpec) -> tuple[jax.Array, jax.Array]:
    """Return the potential and its gradient at one point."""
    return jax.value_and_grad(potential)(z, data, spec)


def normal_approximation(
    start: np.ndarray, data: Data, spec: ModelSpec, *, exact: bool = True
) -> Approximation | None:
    """Find the mode near `start` by L-BFGS, and the curvature there.

    Parameters
    ----------
    start : ndarray, shape (dimension,)
    data : Data
    spec : ModelSpec
    exact : bool
        False searches, and takes the curvature, on some of the rows where there are very many, each
        counted as often as makes up for the others, and ends the search on all rows. Coordinates
        to run chains in need be no better.

    Returns
    -------
    Approximation or None
        None if there is no curvature to be had.
    """
    fewer = data if exact else _thinned(data)
    lowest = descend(start, fewer, spec)
    return None if lowest is None else approximation_at(lowest, data, fewer, spec)


class Lowest(NamedTuple):
    """Where a search ended: the point, the potential there (nats), and its gradients."""

    z: np.ndarray
    potential: float
    n_gradients: int


def descend(start: np.ndarray, data: Data, spec: ModelSpec) -> Lowest | None:
    """The mode near `start` (dimension,), by L-BFGS; None if the density is not finite."""
    n_gradients = 0

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal n_gradients
        n_gradients += 1
        return _evaluate(z, data, spec)

    value = objective(start)[0]
    # A thousandth of a nat is far below what matters to a posterior.
    options = {"maxiter": _MAX_STEPS, "maxcor": 20, "ftol": 1e-3 / max(1, abs(value)), "gtol": 1e-6}
    mode = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    logger.debug("%s after %d gradients, potential %.6f", mode.message, n_gradients, mode.fun)
    return Lowest(mode.x, float(mode.fun), n_gradients) if np.isfinite(mode.fun) else None


def approximation_at(
    lowest: Lowest, data: Data, fewer: Data, spec: ModelSpec
) -> Approximation | None:
    """The normal approximation where a search on `fewer` rows ended; None without curvature."""
    curved = _curvature(lowest.z, fewer, spec)
    if curved is None:
        return None
    affine, words = curved
    point, potential, n_steps = _newton(affine, data, spec)
    n_gradients = lowest.n_gradients + n_steps
    return Approximation(affine._replace(loc=point), words, n_gradients, potential)


def _newton(
    affine: AffineMap | BlockMap, data: Data, spec: ModelSpec
) -> tuple[np.ndarray, float, int]:
    """Go on to the mode by Newton's steps with a fixed curvature, as long as they go down."""
    here = np.asarray(affine.loc)
    value, gradient = _evaluate(here, data, spec)
    n_gradients = 1
    while n_gradients <= _MAX_NEWTON_STEPS:
        slope = affine.pull_back(gradient)
        # Half the squared slope is what is left to gain, in nats.
        if not slope @ slope > 1e-4:
            break
        there = np.asarray(affine._replace(loc=here).apply(-slope))
        new_value, new_gradient = _evaluate(there, data, spec)
        n_gradients += 1
        if not new_value < value:
            break
        here, value, gradient = there, new_value, new_gradient
    return here, value, n_gradients


def _evaluate(z: np.ndarray, data: Data, spec: ModelSpec) -> tuple[float, np.ndarray]:
    """The potential and its gradient on the host, where nothing needs to be compiled."""
    value, gradient = value_and_gradient(z, data, spec)
    return float(value), np.asarray(gradient)


def _thinned(data: Data) -> Data:
    """Every m-th row of every block, counted m times, such that at least _MANY_ROWS are left.

    Of every block, because rows may be in groups: a block left out could be a component left out.
    """
    rows = data.rows
    weights = on_host(rows.weights)
    m = int(weights.sum()) // _MANY_ROWS
    if m < 2:
        return data
    # Of rows on several devices, only those that are taken come to the host.
    values = np.asarray(rows.values) if rows.split is None else rows.values
    values = on_host(values[:, :, ::m])
    if rows.shift is not None:
        values = on_host(rows.shift) @ values
    X = values.swapaxes(1, 2)[weights[:, ::m] > 0, 1:]
    fewer = block_rows(X)
    fewer = fewer._replace(weights=fewer.weights * (weights.sum() / len(X)))
    prior = jax.tree.map(np.asarray, data.prior)
    return jax.device_put(Data(fewer, prior), first_device(rows.values))


def blank_map(data: Data, spec: ModelSpec) -> AffineMap | BlockMap:
    """A map of the shapes that the normal approximation of a problem has."""
    here = space(spec, data.n_features)
    d = here.dimension
    if d <= _DENSE_DIMENSION:
        return AffineMap(np.zeros(d), np.eye(d))
    own, rest = here.by_component()
    blocks = np.broadcast_to(np.eye(own.shape[1]), (len(own), own.shape[1], own.shape[1]))
    return BlockMap(np.zeros(d), blocks, np.eye(len(rest)), np.arange(d), np.arange(d))


def _curvature(
    z: np.ndarray, data: Data, spec: ModelSpec
) -> tuple[AffineMap | BlockMap, str] | None:
    """The map of the normal approximation at a mode, and what became of the curvature."""
    if len(z) <= _DENSE_DIMENSION:
        hessian = _differences(z, np.arange(len(z))[:, None], data, spec)
        factored = inverse_factor(hessian)
        if factored is None:
            return None
        return AffineMap(z, factored[0]), factored[1] or "dense"
    own, rest = space(spec, data.n_features).by_component()
    # The same parameter of every component is moved at once: components couple but weakly.
    moved = _differences(z, own.T, data, spec)
    blocks = [inverse_factor(moved[:, place].T) for place in own]
    others = inverse_factor(_differences(z, rest[:, None], data, spec)[:, rest])
    if others is None or any(block is None for block in blocks):
        return None
    order = np.concatenate([own.ravel(), rest])
    factors = np.stack([block[0] for block in blocks if block])
    affine = BlockMap(z, factors, others[0], order, np.argsort(order))
    words = {words for _, words in [*filter(None, blocks), others]} - {""}
    return affine, " and ".join(["by component", *sorted(words)])


def _differences(z: np.ndarray, directions: np.ndarray, data: Data, spec: ModelSpec) -> np.ndarray:
    """Derivatives of the gradient along sums of coordinates, by central differences.

    `jax.hessian` agrees to 1e-7, but is a program of its own, which a first fit would compile: 3.5
    s for 500 rows in 47 dimensions, where the differences take 0.02 s, and 5.0 s against 0.16 s for
    10,000 rows in 125 dimensions (two cores).

    Parameters
    ----------
    z : ndarray, shape (dimension,)
    directions : ndarray of int, shape (n, m)
        Each row lists the coordinates that move together.

    Returns
    -------
    ndarray, shape (n, dimension)
    """

    def along(places: np.ndarray, stop: Any) -> np.ndarray:
        out = np.empty((len(places), len(z)))
        for row, place in zip(out, places, strict=True):
            step = np.zeros_like(z)
            step[place] = DIFFERENCE_STEP
            ahead = _evaluate(z + step, data, spec)[1]
            behind = _evaluate(z - step, data, spec)[1]
            row[:] = (ahead - behind) / (2 * DIFFERENCE_STEP)
        return out

    device = first_device(data.rows.values)
    # Of two programs at once, each would wait on some devices for what the other holds on others.
    alone = device.platform != "cpu" or data.rows.split is not None
    workers = 1 if alone else min(cpu_cores(), len(directions))
    jobs: list[Callable[..., np.ndarray]] = [
        partial(along, places) for places in np.array_split(directions, workers)
    ]
    return np.concatenate(run_in_threads(jobs, workers, device))


def inverse_factor(hessian: np.ndarray) -> tuple[np.ndarray, str] | None:
    """An upper triangular factor U with U U' the inverse of a curvature, as good as that allows.

    Returns the factor and a word where the curvature was not positive definite, or None.
    """
    n = len(hessian)
    spread = np.sqrt(np.abs(np.diagonal(hessian)))
    if not (np.isfinite(spread).all() and (spread > 0).all()):
        return None
    scaled = (hessian + hessian.T) / 2 / spread / spread[:, None]
    if not np.isfinite(scaled).all():
        return np.diag(1 / spread), "diagonal"
    words = ""
    try:
        lower = cholesky(scaled, lower=True)
    except LinAlgError:
        # Along a direction that bends downwards the width of the posterior is unknown.
        values, vectors = eigh(scaled)
        values = np.maximum(np.abs(values), _SMALLEST_EIGENVALUE)
        lower, words = cholesky((vectors * values) @ vectors.T, lower=True), "regularized"
    # H = C C' with C = diag(spread) lower, so U = C'^-1 has U U' = H^-1.
    return solve_triangular(lower.T, np.eye(n)) / spread[:, None], words

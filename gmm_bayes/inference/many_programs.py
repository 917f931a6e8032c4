"""Compiled programs over blocks of data sets: search for the mode, gradients, and chains."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.optimize import minimize
from numpyro.infer.hmc import HMCState
from numpyro.infer.hmc_util import HMCAdaptState

from gmm_bayes.inference.affine import AffineMap
from gmm_bayes.inference.chains import Adaptation, Settings, Warmup, advance
from gmm_bayes.inference.potential import Data, ModelSpec, potential, space

__all__ = ["SetPrograms", "gradients_at", "modes_and_curvatures"]

_MAX_STEPS = 200
# Of the largest entry of the gradient, nats in standard units.
_SMALL_GRADIENT = 1e-5
# As for one data set.
_STEP = 1e-4

# What all chains of a block share: how far they are. So the programs need not adapt after the
# warm-up.
_PLACES = HMCState(*[0] * len(HMCState._fields))._replace(
    i=None, adapt_state=HMCAdaptState(*[0] * len(HMCAdaptState._fields))._replace(window_idx=None)
)
_SETTINGS = Settings(None, 0, 0)  # type: ignore[arg-type]


@partial(jax.jit, static_argnames="spec")
def modes_and_curvatures(
    z: jax.Array, data: Data, *, spec: ModelSpec
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Find the mode of each set of a block by BFGS, and the curvature there.

    Parameters
    ----------
    z : array, shape (n_sets, dimension)
        Where the searches begin.
    data : Data
        With a leading axis of n_sets.
    spec : ModelSpec

    Returns
    -------
    modes : array, shape (n_sets, dimension)
    hessians : array, shape (n_sets, dimension, dimension)
        By central differences of the gradient.
    n_gradients : array of int, shape (n_sets,)
    """

    def of_one(z: jax.Array, data: Data) -> tuple[jax.Array, jax.Array, jax.Array]:
        # Where the search sees no number it must turn back, not stop.
        def objective(z: jax.Array) -> jax.Array:
            value = potential(z, data, spec)
            return jnp.where(jnp.isnan(value), jnp.inf, value)

        options = {"maxiter": _MAX_STEPS, "gtol": _SMALL_GRADIENT}
        found = minimize(objective, z, method="BFGS", options=options)
        mode = jnp.where(jnp.isfinite(found.x).all(), found.x, z)

        def along(direction: jax.Array) -> jax.Array:
            gradient = jax.grad(potential)
            ahead = gradient(mode + _STEP * direction, data, spec)
            behind = gradient(mode - _STEP * direction, data, spec)
            return (ahead - behind) / (2 * _STEP)

        return mode, jax.lax.map(along, jnp.eye(len(z))), found.njev

    return jax.vmap(of_one)(z, data)


@partial(jax.jit, static_argnames="spec")
def gradients_at(
    eta: jax.Array, affine: AffineMap, data: Data, *, spec: ModelSpec
) -> tuple[jax.Array, jax.Array]:
    """The potential and its gradient in z at points in the coordinates of a map for each set.

    Parameters
    ----------
    eta : array, shape (n_sets, n_points, dimension)
    affine : AffineMap
    data : Data
        Both with a leading axis of n_sets.
    spec : ModelSpec

    Returns
    -------
    values : array, shape (n_sets, n_points)
    gradients : array, shape (n_sets, n_points, dimension)
    """

    def of_one(eta: jax.Array, affine: AffineMap, data: Data) -> Any:
        at = jax.value_and_grad(potential)
        return jax.lax.map(lambda point: at(affine.apply(point), data, spec), eta)

    return jax.vmap(of_one)(eta, affine, data)


@partial(jax.jit, static_argnames=("adaptation", "spec", "num_chains"))
def _advance_sets(
    state: Any,
    fresh: Any,
    start: Any,
    key: Any,
    n_draws: Any,
    settings: Settings,
    *,
    adaptation: Adaptation,
    spec: ModelSpec,
    num_chains: int,
) -> Any:
    """Advance every chain of every set; the leading axis of arrays is sets times chains."""

    def by_set(leaf: Any) -> Any:
        return leaf.reshape(-1, num_chains, *leaf.shape[1:]) if jnp.ndim(leaf) else leaf

    def flat(leaf: Any) -> Any:
        return leaf.reshape(-1, *leaf.shape[2:]) if jnp.ndim(leaf) else leaf

    of_chain = partial(advance, adaptation=adaptation, spec=spec)
    places = (_PLACES, None, 0, 0, None)
    of_set = jax.vmap(of_chain, in_axes=(*places, None), out_axes=(_PLACES, 0))
    of_block = jax.vmap(of_set, in_axes=(*places, _SETTINGS), out_axes=(_PLACES, 0))
    state, start, key = jax.tree.map(by_set, (state, start, key))
    return jax.tree.map(flat, of_block(state, fresh, start, key, n_draws, settings))


class SetPrograms:
    """The compiled program that advances all chains of a block of data sets."""

    def __init__(
        self, adaptation: Adaptation, spec: ModelSpec, n_sets: int, num_chains: int
    ) -> None:
        self.spec = spec
        self._fixed = {"adaptation": adaptation, "spec": spec, "num_chains": num_chains}
        self._adaptation, self._n_sets, self._num_chains = adaptation, n_sets, num_chains
        self.blank: Any = None
        self.settings: Any = None

    def compile(self, data: Data) -> None:
        """Run the program on a block of data for no draws at all, which compiles it."""
        dimension = space(self.spec, data.n_features).dimension
        affine = AffineMap(
            np.zeros((self._n_sets, dimension)),
            np.broadcast_to(np.eye(dimension), (self._n_sets, dimension, dimension)),
        )
        self.settings = Settings(Warmup(0, False, 0.5), affine, data)
        n_lanes = self._n_sets * self._num_chains
        start, key = np.zeros((n_lanes, dimension)), np.zeros((n_lanes, 2), np.uint32)
        one = jax.tree.map(lambda a: a[0], (affine, data))
        shapes = jax.eval_shape(
            jax.vmap(self._initial, in_axes=(0, 0, None), out_axes=_PLACES),
            start,
            key,
            Settings(self.settings.warmup, *one),
        )
        # A state of the right shape, which the fresh start overwrites.
        self.blank = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
        jax.block_until_ready(self.advance(self.blank, True, start, key, 0))

    def with_settings(self, settings: Settings) -> "SetPrograms":
        """The same program for another block; both may run at once."""
        other = SetPrograms(self._adaptation, self.spec, self._n_sets, self._num_chains)
        other.blank, other.settings = self.blank, jax.device_put(settings)
        return other

    def advance(self, state: Any, fresh: bool, start: Any, key: Any, n_draws: int) -> Any:
        """Make some draws with every chain; arrays have a leading axis of sets times chains."""
        return _advance_sets(state, fresh, start, key, n_draws, self.settings, **self._fixed)

    def _initial(self, start: Any, key: Any, settings: Settings) -> Any:
        kernel = self._adaptation.kernel(settings, self.spec)
        return self._adaptation.start(kernel, key, start, settings.warmup)

"""Compiled programs over blocks of data sets: search for the mode, gradients, and chains."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.hmc import HMCState
from numpyro.infer.hmc_util import HMCAdaptState

from gmm_bayes.inference.potential import Data, ModelSpec, potential
from gmm_bayes.inference.sampling.coordinates import AffineMap
from gmm_bayes.inference.sampling.drivers.nuts import Adaptation, Programs, Settings, advance
from gmm_bayes.inference.sampling.mode import DIFFERENCE_STEP
from gmm_bayes.machine.compilation import compiled

__all__ = ["SetPrograms", "gradients_at", "modes_and_curvatures"]

_MAX_POINTS = 100
# What is left to gain at the mode, in nats.
_SMALL_GAIN = 1e-6
# Beyond, no step along the gradient goes down any more.
_LARGEST_DAMPING = 1e8
# Smaller curvatures than this are not believed in a step: parameters matter on a scale of one.
_SMALLEST_CURVATURE = 1e-3

# What all chains of a block share: how far they are. So the programs need not adapt after the
# warm-up.
_PLACES = HMCState(*[0] * len(HMCState._fields))._replace(
    i=None, adapt_state=HMCAdaptState(*[0] * len(HMCAdaptState._fields))._replace(window_idx=None)
)
_SETTINGS = Settings(None, 0, 0)  # type: ignore[arg-type]


@partial(compiled, static_argnames="spec")
def modes_and_curvatures(
    z: jax.Array, data: Data, *, spec: ModelSpec
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Find the mode of each set of a block by damped Newton steps, and the curvature there.

    A line search's branches would all be taken by a vectorised program; Newton's steps need none,
    and in ten dimensions the curvature costs twenty gradients. For a single set `sampling.mode`
    stays apart: its search took 34 gradients, and 94 for the curvature, where this takes 570 (47
    dimensions, 500 rows), and 68 and 250 where this takes 6,024 (125 dimensions, 10,000 rows).

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
        here = _at(z, data, spec)
        state = _Search(here, jnp.asarray(1.0), jnp.asarray(1))
        found = jax.lax.while_loop(_goes_on, lambda s: _step(s, data, spec), state)
        return found.here.z, found.here.hessian, found.n_points * (2 * len(z) + 1)

    return jax.vmap(of_one)(z, data)


class _Point(NamedTuple):
    z: jax.Array
    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array


class _Search(NamedTuple):
    here: _Point
    damping: jax.Array
    n_points: jax.Array


def _at(z: jax.Array, data: Data, spec: ModelSpec) -> _Point:
    """The potential, its gradient, and its curvature by central differences of the gradient."""
    moves = DIFFERENCE_STEP * jnp.eye(len(z))
    points = z + jnp.concatenate([jnp.zeros((1, len(z))), moves, -moves])
    values, gradients = jax.lax.map(lambda p: jax.value_and_grad(potential)(p, data, spec), points)
    ahead, behind = jnp.split(gradients[1:], 2)
    hessian = (ahead - behind) / (2 * DIFFERENCE_STEP)
    return _Point(z, values[0], gradients[0], (hessian + hessian.T) / 2)


def _newton_step(here: _Point, damping: jax.Array) -> jax.Array:
    values, vectors = jnp.linalg.eigh(here.hessian)
    widths = jnp.maximum(jnp.abs(values), _SMALLEST_CURVATURE) + damping
    return -vectors @ ((vectors.T @ here.gradient) / widths)


def _goes_on(search: _Search) -> jax.Array:
    # Half of the slope along Newton's step; not "small or not a number".
    gain = -0.5 * search.here.gradient @ _newton_step(search.here, jnp.asarray(0.0))
    possible = (search.n_points < _MAX_POINTS) & (search.damping < _LARGEST_DAMPING)
    return possible & (gain > _SMALL_GAIN)


def _step(search: _Search, data: Data, spec: ModelSpec) -> _Search:
    """Go on if it is downhill, with less damping; else stay, with more."""
    here = search.here
    there = _at(here.z + _newton_step(here, search.damping), data, spec)
    # A comparison with what is not a number is false.
    better = (there.value < here.value) & jnp.isfinite(there.hessian).all()
    kept = jax.tree.map(partial(jnp.where, better), there, here)
    damping = search.damping * jnp.where(better, 0.1, 8.0)
    return _Search(kept, damping, search.n_points + 1)


@partial(compiled, static_argnames="spec")
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


@partial(compiled, static_argnames=("adaptation", "spec", "num_chains", "block"))
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
    block: int,
) -> Any:
    """Advance every chain of every set; the leading axis of arrays is sets times chains."""

    def by_set(leaf: Any) -> Any:
        return leaf.reshape(-1, num_chains, *leaf.shape[1:]) if jnp.ndim(leaf) else leaf

    def flat(leaf: Any) -> Any:
        return leaf.reshape(-1, *leaf.shape[2:]) if jnp.ndim(leaf) else leaf

    of_chain = partial(advance, adaptation=adaptation, spec=spec, block=block)
    places = (_PLACES, None, 0, 0, None)
    of_set = jax.vmap(of_chain, in_axes=(*places, None), out_axes=(_PLACES, 0))
    of_block = jax.vmap(of_set, in_axes=(*places, _SETTINGS), out_axes=(_PLACES, 0))
    state, start, key = jax.tree.map(by_set, (state, start, key))
    return jax.tree.map(flat, of_block(state, fresh, start, key, n_draws, settings))


class SetPrograms(Programs):
    """The compiled program that advances all chains of a block of data sets.

    Parameters
    ----------
    adaptation : Adaptation
    spec : ModelSpec
    num_chains : int
        Of each set.
    settings : Settings
        Its map and its data have a leading axis of sets.
    """

    def __init__(
        self, adaptation: Adaptation, spec: ModelSpec, num_chains: int, settings: Settings
    ) -> None:
        super().__init__(adaptation, spec, len(settings.affine.loc) * num_chains, settings)
        self._num_chains = num_chains

    def with_settings(self, settings: Settings) -> "SetPrograms":
        """The same program for another block; both may run at once."""
        on_device = jax.device_put(settings)
        other = SetPrograms(self.adaptation, self.spec, self._num_chains, on_device)
        other.blank = self.blank
        return other

    def advance(self, state: Any, fresh: bool, start: Any, key: Any, n_draws: int) -> Any:
        """Make some draws with every chain; arrays have a leading axis of sets times chains."""
        fixed = {"adaptation": self.adaptation, "spec": self.spec, "block": self.block}
        return _advance_sets(
            state, fresh, start, key, n_draws, self.settings, num_chains=self._num_chains, **fixed
        )

    def initial(self, start: Any, key: Any) -> Any:
        """The states of chains that begin there, leading axes as of `advance`."""
        of_first = jax.tree.map(lambda a: a[0], (self.settings.affine, self.settings.data))
        settings = Settings(self.settings.warmup, *of_first)
        return jax.vmap(partial(self.begin, settings), out_axes=_PLACES)(start, key)

"""Components that overlap so much that they are one cluster."""

from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.sparse.csgraph import connected_components

from gmm_bayes._validation import check_integer, check_probability
from gmm_bayes._vocabulary import COMPONENT, COMPONENT2, OBS
from gmm_bayes.core import mixture
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import LabelSwitchingError
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.verdict.measures import labels_switched
from gmm_bayes.machine.devices import double_precision
from gmm_bayes.posterior.partitions.label_draws import thinned
from gmm_bayes.posterior.responsibilities import responsibilities

__all__ = ["MergedComponents", "merge_components"]

# Below one row in all, a component says nothing of the rows and is merged with none.
_FEWEST_ROWS: Final = 1.0


@dataclass(frozen=True, eq=False)
class MergedComponents:
    """Which components are one cluster, and how probable each merge is.

    Parameters
    ----------
    groups : tuple of tuple of int
        The components of each cluster. Clusters are in the order of their first components.
    probabilities : xarray.DataArray
        Dims (component, component2): share of draws in which two components end in one cluster.
    labels : xarray.DataArray
        Dims (obs,): the most probable cluster of each training row.
    sureness : xarray.DataArray
        Dims (obs,): the probability of that cluster, the sum over its components.
    cutoff, threshold : float
        As given.
    """

    groups: tuple[tuple[int, ...], ...]
    probabilities: xr.DataArray
    labels: xr.DataArray
    sureness: xr.DataArray
    cutoff: float
    threshold: float

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(self.groups)

    def __repr__(self) -> str:
        counts = np.bincount(self.labels.values, minlength=self.n_clusters)
        lines = []
        for cluster, group in enumerate(self.groups):
            pairs = self.probabilities.values[np.ix_(group, group)]
            weakest = f", together with probability {pairs.min():.2f} or more" * (len(group) > 1)
            which = f"component{'s' * (len(group) > 1)} {', '.join(map(str, group))}"
            lines.append(f"  cluster {cluster}: {which}{weakest}; {counts[cluster]} rows")
        return "\n".join(["MergedComponents", *lines])


def merge_components(
    fit: GMMFit, *, cutoff: float = 0.11, threshold: float = 0.5, num_draws: int = 500
) -> MergedComponents:
    """Merge components whose rows are often mistaken for each other's.

    Parameters
    ----------
    fit : GMMFit
        Whose components kept their places.
    cutoff : float
        Misclassification probability from which two clusters of a draw are merged. Two normals of
        equal weight and sd 1 reach 0.11 when their means are 2.45 apart. Larger values merge less;
        Hennig's 0.025, means 3.9 apart, merges what `partition` keeps apart.
    threshold : float
        Components are in one cluster when they are merged in at least this share of the draws, or
        linked by a chain of such components.
    num_draws : int
        Draws to go through, evenly spaced.

    Returns
    -------
    MergedComponents
        Groups of components, the probability of each pair, and the labels of the training rows.

    Raises
    ------
    LabelSwitchingError
        If the components changed places between draws.
    TypeError, ValueError
        If an option is wrong.

    Notes
    -----
    One Gaussian is not one cluster: a group of another shape is fitted by several. In each draw

        P(taken for j | from k) = sum_i 1[r_ij is the largest of row i] r_ik / sum_i r_ik,

    the directly estimated misclassification probability of Hennig [1]_. The pair with the largest
    value, in either direction, is merged, the probabilities are found anew for what is left, and so
    on until all are below the cutoff. A component without rows (its responsibilities add up to less
    than one) is not merged. Which components overlap is thus answered with its posterior
    probability, as far as the fit's number of components is believed.

    `partition` asks which rows came from one component, this function which components are one
    cluster. Their defaults go together: of two components of equal size that are mistaken for each
    other with probability e, the partition of least expected variation of information keeps them
    apart while twice the binary entropy of e is below one bit, that is, e below 0.11.

    References
    ----------
    .. [1] C. Hennig (2010). Methods for merging Gaussian mixture components. Advances in Data
       Analysis and Classification 4.
    """
    check_fit(fit)
    check_probability(cutoff, "cutoff")
    check_probability(threshold, "threshold")
    check_integer(num_draws, "num_draws", 1)
    if labels_switched(fit):
        raise LabelSwitchingError(
            "merge_components follows each component through the draws, but components changed "
            "places between draws. Give them their places back first, with align_labels, or use "
            "gb.partition(fit), which does not depend on labels"
        )
    draws = thinned(fit.parameters(), num_draws)
    with double_precision():
        together = np.asarray(_together(fit.X.values, jax.device_put(draws), cutoff))
    # In each draw numbers of groups, shape (S, K).
    share = (together[:, :, None] == together[:, None, :]).mean(axis=0)
    return _record(fit, share, _clusters(share, threshold), cutoff, threshold)


def _record(
    fit: GMMFit, share: np.ndarray, cluster_of: np.ndarray, cutoff: float, threshold: float
) -> MergedComponents:
    components = np.arange(fit.n_components)
    groups = tuple(
        tuple(np.flatnonzero(cluster_of == c).tolist()) for c in range(cluster_of.max() + 1)
    )
    means = responsibilities(fit)
    assert isinstance(means, xr.DataArray)
    belongs = np.stack([means.values[:, list(group)].sum(axis=1) for group in groups], axis=1)

    def named(values: np.ndarray, name: str) -> xr.DataArray:
        return xr.DataArray(values, {OBS: means.coords[OBS]}, (OBS,), name=name)

    return MergedComponents(
        groups=groups,
        probabilities=xr.DataArray(
            share,
            {COMPONENT: components, COMPONENT2: components},
            (COMPONENT, COMPONENT2),
            name="merge_probability",
        ),
        labels=named(belongs.argmax(axis=1), "labels"),
        sureness=named(belongs.max(axis=1), "sureness"),
        cutoff=cutoff,
        threshold=threshold,
    )


def _clusters(share: np.ndarray, threshold: float) -> np.ndarray:
    """Cluster of each component, numbered in the order of their first components, shape (K,)."""
    groups = connected_components(share >= threshold, directed=False)[1]
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


@jax.jit
def _together(X: Any, draws: MixtureParameters, cutoff: Any) -> jax.Array:
    """Group of each component under each draw, shape (S, K); one draw at a time."""
    return jax.lax.map(lambda draw: _merged(mixture.responsibilities(X, draw), cutoff), draws)


def _merged(r: jax.Array, cutoff: jax.Array) -> jax.Array:
    """Merge components from their responsibilities (N, K); the group of each, shape (K,)."""
    k = r.shape[1]

    def worst(group: jax.Array) -> tuple[jax.Array, jax.Array]:
        member = (group[:, None] == jnp.arange(k)).astype(r.dtype)
        # In both directions: a pair is at two places.
        mistaken = _misclassification(r @ member)
        return mistaken.max(), mistaken.argmax()

    def go_on(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return state[1] >= cutoff

    def merge(state: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        group, _, place = state
        merged = jnp.where(group == place % k, place // k, group)
        return merged, *worst(merged)

    start = jnp.arange(k)
    return jax.lax.while_loop(go_on, merge, (start, *worst(start)))[0]


def _misclassification(r: jax.Array) -> jax.Array:
    """P(taken for j | from k) at [k, j], from responsibilities (N, K); zero on the diagonal."""
    k = r.shape[1]
    taken = (r.argmax(axis=1)[:, None] == jnp.arange(k)).astype(r.dtype)
    rows = r.sum(axis=0)
    mistaken = (r.T @ taken) / jnp.maximum(rows, _FEWEST_ROWS)[:, None]
    counted = rows >= _FEWEST_ROWS
    return jnp.where(counted[:, None] & counted & ~jnp.eye(k, dtype=bool), mistaken, 0.0)

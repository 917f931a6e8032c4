"""Guesses at the groups of rows, which EM begins with: many kinds, for each is blind to something.

k-means cuts long parallel groups across; in sphered coordinates, or in a projection of those, it
does not; hierarchical cuts follow chains of rows; and a solution whose components are merged and
split anew is a guess that knows the data.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, ward
from scipy.spatial import cKDTree

from gmm_bayes.core.bhattacharyya import bhattacharyya
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.steps import hard_moments, soft_moments
from gmm_bayes.model.centres import kmeans_centers

__all__ = ["KINDS", "Rows", "guesses", "named_kinds", "portfolio", "regroupings"]

# A tree of so many rows takes a tenth of a second; the others go to the nearest group's mean.
_ROWS_IN_TREE = 1000
# Steps of k-means that cut one component in two.
_CUTS = 5


class Rows(NamedTuple):
    """Rows in the two systems of coordinates in which groups are guessed.

    Attributes
    ----------
    X : ndarray, shape (N, D)
        In standard units.
    sphered : ndarray, shape (N, D)
        With the identity for their covariance, so that no direction outweighs another.
    weights : ndarray, shape (N,), or None
        How often each row counts.
    """

    X: np.ndarray
    sphered: np.ndarray
    weights: np.ndarray | None = None

    @classmethod
    def of(cls, X: np.ndarray, weights: np.ndarray | None = None) -> "Rows":
        """Sphere the rows; a direction in which they do not spread stays as it is."""
        centred = X - np.average(X, axis=0, weights=weights)
        covariance = np.atleast_2d(np.cov(centred, rowvar=False, aweights=weights, ddof=0))
        values, vectors = np.linalg.eigh(covariance)
        widths = np.sqrt(np.maximum(values, 0))
        widths[widths < 1e-8 * max(widths.max(), 1e-300)] = 1.0
        return cls(X, centred @ vectors / widths, weights)

    @property
    def shares(self) -> np.ndarray | None:
        """The weights, such that they sum to one."""
        return None if self.weights is None else self.weights / self.weights.sum()


def guesses(rows: Rows, n_components: int, kinds: Sequence[str], seed: int) -> np.ndarray:
    """Moments (S, K, D + 1, D + 1) of the groups of rows that EM begins with, one for a kind."""
    seeds = np.random.SeedSequence(seed).generate_state(len(kinds))
    return np.stack(
        [
            _guess(rows, n_components, kind, int(its_seed))
            for kind, its_seed in zip(kinds, seeds, strict=True)
        ]
    )


def portfolio(n_starts: int, n_features: int) -> list[str]:
    """Kinds of the first starts of a search that was not told where to begin.

    Cuts of a tree leave nothing to chance, and occur once. k-means takes ten times as long as EM
    does from rows drawn at random.
    """
    once = ["ward", "sphered ward"]
    again = ["kmeans", "sphered rows", "projected rows", "random_from_data"]
    again += ["sphered k-means", "projected rows", "sphered rows", "k-means++"]
    again += ["projected k-means", "sphered rows", "projected rows", "random_from_data"]
    if n_features == 1:
        # There the coordinates are the same.
        once, again = ["ward"], ["kmeans", "random_from_data", "k-means++", "random_from_data"]
    return [*once, *(again[i % len(again)] for i in range(n_starts))][:n_starts]


def named_kinds(init: str, n_starts: int) -> list[str]:
    """Kinds of start of those who name one: every other begins at rows, for k-means misleads.

    Those who ask for starts at random get nothing else.
    """
    second = init if init == "random" else "random_from_data"
    return [init if start % 2 == 0 else second for start in range(n_starts)]


def _guess(rows: Rows, k: int, kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "random":
        shares = rng.dirichlet(np.ones(k), len(rows.X))
        counted = shares if rows.weights is None else shares * rows.weights[:, None]
        return soft_moments(rows.X, counted)
    points, labels_of = _GROUPED[kind]
    labels = labels_of(points(rows, rng), rows, k, seed, rng)
    return hard_moments(rows.X, labels, k, rows.weights)


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    # Far more rows than centres: a tree of the centres finds the nearest.
    return cKDTree(centres).query(points)[1]


def _kmeans(points: np.ndarray, rows: Rows, k: int, seed: int, rng: object) -> np.ndarray:
    centres = kmeans_centers(points, k, seed=seed, n_init=1, row_weights=rows.weights)
    return _nearest(points, centres)


def _kmeans_plusplus(points: np.ndarray, rows: Rows, k: int, seed: int, rng: object) -> np.ndarray:
    from sklearn.cluster import kmeans_plusplus

    centres, _ = kmeans_plusplus(points, k, random_state=seed, sample_weight=rows.weights)
    return _nearest(points, centres)


def _random_rows(
    points: np.ndarray, rows: Rows, k: int, seed: int, rng: np.random.Generator
) -> np.ndarray:
    return _nearest(points, points[rng.choice(len(points), k, replace=False, p=rows.shares)])


def _ward(
    points: np.ndarray, rows: Rows, k: int, seed: int, rng: np.random.Generator
) -> np.ndarray:
    """Groups of the tree of Ward's method, cut where there are K."""
    if len(points) < 2:
        return np.zeros(len(points), int)
    some = np.arange(len(points))
    if len(points) > _ROWS_IN_TREE:
        some = rng.choice(len(points), _ROWS_IN_TREE, replace=False, p=rows.shares)
    labels = fcluster(ward(points[some]), k, "maxclust") - 1
    if len(some) == len(points):
        return labels
    centres = np.stack([points[some][labels == group].mean(axis=0) for group in np.unique(labels)])
    return _nearest(points, centres)


def _standard(rows: Rows, rng: object) -> np.ndarray:
    return rows.X


def _sphered(rows: Rows, rng: object) -> np.ndarray:
    return rows.sphered


def _projected(rows: Rows, rng: np.random.Generator) -> np.ndarray:
    """The sphered rows along a few random directions: groups may differ in these alone."""
    d = rows.X.shape[1]
    n_directions = int(rng.integers(1, max(2, d)))
    directions, _ = np.linalg.qr(rng.standard_normal((d, n_directions)))
    return rows.sphered @ directions


_GROUPED: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {
    "kmeans": (_standard, _kmeans),
    "k-means++": (_standard, _kmeans_plusplus),
    "random_from_data": (_standard, _random_rows),
    "ward": (_standard, _ward),
    "sphered k-means": (_sphered, _kmeans),
    "sphered rows": (_sphered, _random_rows),
    "sphered ward": (_sphered, _ward),
    "projected k-means": (_projected, _kmeans),
    "projected rows": (_projected, _random_rows),
}
# Every kind of start.
KINDS = ("random", *_GROUPED)


def regroupings(
    rows: Rows,
    labels: np.ndarray,
    solution: MixtureParameters,
    n_moves: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Moments (n_moves, K, D + 1, D + 1): two components made one, and another cut in two.

    The way out of a maximum in which two components share a group while one holds two (Ueda,
    Nakano, Ghahramani and Hinton 2000, SMEM algorithm for mixture models). Components that overlap
    are merged more often than those that do not, and large ones are cut more often than small ones.

    Parameters
    ----------
    rows : Rows
    labels : ndarray of int, shape (N,)
        The component of each row.
    solution : MixtureParameters
    n_moves : int
    rng : numpy.random.Generator
    """
    _, means, tril = (np.asarray(a) for a in solution)
    k = len(means)
    first, second = np.triu_indices(k, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.nan_to_num(bhattacharyya(means, tril, means, tril)[first, second], posinf=1e9)
    chance = rng.exponential(max(float(np.median(apart)), 1e-12), (n_moves, len(apart)))
    moves = []
    for pair in np.argmin(apart + chance, axis=1):
        into, freed = first[pair], second[pair]
        merged = np.where(labels == freed, into, labels)
        counts = np.bincount(merged, rows.weights, minlength=k)
        cut = int(rng.choice(k, p=counts / counts.sum()))
        moves.append(hard_moments(rows.X, _cut(rows.X, merged, cut, freed, rng), k, rows.weights))
    return np.stack(moves)


def _cut(
    X: np.ndarray, labels: np.ndarray, group: int, new: int, rng: np.random.Generator
) -> np.ndarray:
    """Give some rows of a group to a new one: 2-means along a random direction of its own."""
    members = np.flatnonzero(labels == group)
    out = labels.copy()
    if len(members) < 4:
        return out
    own = Rows.of(X[members]).sphered
    along = own @ rng.standard_normal(own.shape[1])
    threshold = np.quantile(along, rng.uniform(0.2, 0.8))
    for _ in range(_CUTS):
        high = along > threshold
        if high.all() or not high.any():
            break
        threshold = (along[high].mean() + along[~high].mean()) / 2
    out[members[along > threshold]] = new
    return out

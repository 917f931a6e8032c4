"""One partition for the whole posterior, and how far the posterior strays from it."""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import xarray as xr

from gmm_bayes._validation import check_choice, check_integer, check_seed
from gmm_bayes._vocabulary import OBS
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.posterior.partitions.label_draws import draw_labels, thinned
from gmm_bayes.posterior.partitions.loss import LOSSES, SharedRows
from gmm_bayes.posterior.partitions.search import renumbered, search
from gmm_bayes.posterior.streaming import rows_of

__all__ = ["CredibleBall", "Partition", "partition"]

_BALL: Final = 0.95
_WORDS: Final = {"vi": "variation of information, bits", "binder": "Binder, share of pairs"}
_DRAWS_PER_BLOCK: Final = 64


@dataclass(frozen=True, eq=False)
class CredibleBall:
    """The smallest ball around the estimate that holds a share of the posterior.

    Parameters
    ----------
    probability : float
        That share, 0.95.
    radius : float
        In units of the loss.
    horizontal : xarray.DataArray
        Labels, dims (obs,), of the label draw within the ball that is farthest from the estimate.
    upper, lower : xarray.DataArray
        Labels of the farthest among those with the fewest clusters, and with the most.
    """

    probability: float
    radius: float
    horizontal: xr.DataArray
    upper: xr.DataArray
    lower: xr.DataArray

    def __repr__(self) -> str:
        few, many = (len(np.unique(bound)) for bound in (self.upper, self.lower))
        return (
            f"CredibleBall({self.probability:.0%} within {self.radius:.3g}, "
            f"{few} to {many} clusters)"
        )


@dataclass(frozen=True, eq=False)
class Partition:
    """The partition that minimises the posterior expected loss, as far as the search found.

    Parameters
    ----------
    labels : xarray.DataArray
        Cluster of each row, dims (obs,): 0 is the largest cluster.
    probability : xarray.DataArray
        Dims (obs,): how probable it is that the row sits with its cluster, that is, in the group of
        a label draw that holds most other rows of its cluster. For a row alone in its cluster, that
        it is alone.
    loss : {"vi", "binder"}
    expected_loss : float
        In bits for "vi", a share of pairs of rows for "binder".
    ball : CredibleBall
    num_label_draws : int
        Label draws that stand for the posterior.
    """

    labels: xr.DataArray
    probability: xr.DataArray
    loss: str
    expected_loss: float
    ball: CredibleBall
    num_label_draws: int

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1

    @property
    def sizes(self) -> np.ndarray:
        """Number of rows in each cluster, shape (n_clusters,), from the largest."""
        return np.bincount(self.labels.values)

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.sizes[:10])) + ", ..." * (self.n_clusters > 10)
        few, many = (len(np.unique(bound)) for bound in (self.ball.upper, self.ball.lower))
        unsure = int((self.probability < _BALL).sum())
        clusters = f"{self.n_clusters} cluster{'s' * (self.n_clusters != 1)}"
        return "\n".join(
            [
                "Partition",
                f"  rows: {len(self.labels)} in {clusters} of {shown}",
                f"  expected loss: {self.expected_loss:.4g} ({_WORDS[self.loss]}), over "
                f"{self.num_label_draws} label draws",
                f"  credible ball: {self.ball.probability:.0%} within {self.ball.radius:.4g}, with "
                f"{few} to {many} clusters",
                f"  unsure rows: {unsure} sit in their cluster with probability below {_BALL:.0%}",
            ]
        )


def partition(
    fit: GMMFit,
    X: Any = None,
    *,
    loss: Literal["vi", "binder"] = "vi",
    max_clusters: int | None = None,
    num_label_draws: int = 1000,
    num_starts: int = 16,
    seed: Any = 0,
) -> Partition:
    """Find the one partition of the rows that is closest to the whole posterior.

    Parameters
    ----------
    fit : GMMFit
        Switched labels do not matter: partitions have no labels.
    X : array, pandas, polars or xarray object, shape (n_obs, n_features), optional
        New rows, in the units and columns of the fit. None takes the training rows.
    loss : {"vi", "binder"}
        Variation of information [3]_ with logarithms to base 2, so in bits; or Binder's loss with
        equal costs: the share of pairs of rows that are together in one partition and apart in the
        other, 1 - Rand index. Binder's makes more small clusters.
    max_clusters : int, optional
        None allows 2 * n_components, but never more than rows.
    num_label_draws : int
        The posterior is represented by one draw of all labels under each of so many draws, evenly
        spaced. Time is proportional to it.
    num_starts : int
        Every second one starts at a label draw, the others place rows one by one.
    seed : int in [0, 2**32) or JAX key

    Returns
    -------
    Partition
        With the labels, their expected loss, each row's probability and a 95 % credible ball.

    Raises
    ------
    TypeError, ValueError
        If `X` does not have the columns of the fit, or an option is wrong.

    Notes
    -----
    Greedy search from several starts after SALSO [1]_: rows are offered the cluster that makes the
    expected loss smallest, in a random order, until none moves; then the best two clusters are
    merged if that helps, and rows move again. What is found is a local optimum; more starts make it
    more likely to be the global one. With more than 2,000 rows the starts are compared on a random
    2,000; the best is carried over to all rows and improved there. The ball is that of [2]_; its
    bounds are label draws, one each where there are ties.

    Clusters are those of components: two components are kept apart as long as most rows are sure of
    theirs, about to the overlap at which `merge_components` merges them by default. A cluster that
    several components fit together is for `merge_components` to find, with a smaller cutoff.

    Only the rows that a cluster shares with the groups of each draw are counted, clusters x
    components x label draws numbers: there is no matrix of rows by rows.

    References
    ----------
    .. [1] D. B. Dahl, D. J. Johnson, P. Mueller (2022). Search algorithms and loss functions for
       Bayesian clustering. Journal of Computational and Graphical Statistics 31.
    .. [2] S. Wade, Z. Ghahramani (2018). Bayesian cluster analysis: point estimation and credible
       balls. Bayesian Analysis 13.
    .. [3] M. Meila (2007). Comparing clusterings: an information based distance. Journal of
       Multivariate Analysis 98.
    """
    check_choice(loss, "loss", LOSSES)
    check_integer(num_label_draws, "num_label_draws", 1)
    check_integer(num_starts, "num_starts", 1)
    most = None if max_clusters is None else check_integer(max_clusters, "max_clusters", 1)
    words = check_seed(seed)
    rows, index = rows_of(fit, X)
    label_seed, search_seed = np.random.SeedSequence(words).spawn(2)
    parameters = thinned(fit.parameters(), num_label_draws)
    draws = draw_labels(parameters, rows, label_seed.generate_state(2))
    most = min(most or 2 * fit.n_components, len(rows))
    found = search(draws, loss, most, num_starts, np.random.default_rng(search_seed))
    return _summary(found, loss, index)


def _summary(found: SharedRows, loss: str, index: np.ndarray) -> Partition:
    """The record of a candidate."""
    losses = found.losses()

    def named(values: np.ndarray, name: str) -> xr.DataArray:
        return xr.DataArray(values, {OBS: index}, (OBS,), name=name)

    return Partition(
        labels=named(renumbered(found.labels), "labels"),
        probability=named(_sitting(found), "probability"),
        loss=loss,
        expected_loss=float(losses.mean()),
        ball=_ball(found, losses, named),
        num_label_draws=found.n_draws,
    )


def _ball(found: SharedRows, losses: np.ndarray, named: Any) -> CredibleBall:
    """The ball around a candidate, its bounds among the label draws."""
    radius = np.sort(losses)[int(np.ceil(_BALL * len(losses) - 1e-9)) - 1]
    inside = np.flatnonzero(losses <= radius)
    in_use = found.counts.sum(axis=1).reshape(found.n_draws, found.k) > 0
    n_groups = in_use.sum(axis=1)[inside]
    bounds = {
        "horizontal": inside,
        "upper": inside[n_groups == n_groups.min()],
        "lower": inside[n_groups == n_groups.max()],
    }
    labels = {
        name: named(renumbered(found.draws[:, some[losses[some].argmax()]]), name)
        for name, some in bounds.items()
    }
    return CredibleBall(_BALL, float(radius), **labels)


def _sitting(found: SharedRows) -> np.ndarray:
    """Probability that each row is in the group that holds most other rows of its cluster."""
    counts = found.counts.reshape(found.n_draws, found.k, -1)
    sits = np.zeros(found.n_obs)
    for begin in range(0, found.n_draws, _DRAWS_PER_BLOCK):
        some = counts[begin : begin + _DRAWS_PER_BLOCK]
        number = np.arange(len(some))
        for cluster in np.flatnonzero(found.sizes):
            rows = np.flatnonzero(found.labels == cluster)
            shared = some[:, :, cluster]
            groups = found.draws[rows, begin : begin + _DRAWS_PER_BLOCK]
            if len(rows) == 1:
                # Alone: its group has no other row.
                whole = some.sum(axis=2)
                sits[rows] += (whole[number, groups] == 1).sum(axis=1)
                continue
            # Beside the others: the row itself does not count.
            most = shared.max(axis=1)
            ranked = np.sort(shared, axis=1)
            second = ranked[:, -2] if found.k > 1 else np.zeros_like(most)
            own = shared[number, groups]
            rival = np.where(own == most, second, most)
            sits[rows] += (own - 1 >= rival).sum(axis=1)
    return sits / found.n_draws

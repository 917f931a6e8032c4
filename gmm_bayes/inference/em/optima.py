"""The maxima of the likelihood: many short runs of EM, the best of them followed to their ends.

Short runs of many starts find the best maximum more often than as much work on long runs of few
("small EM"; Biernacki, Celeux and Govaert 2003, Choosing starting values for the EM algorithm for
getting the highest likelihood in multivariate Gaussian mixture models, Computational Statistics &
Data Analysis 41). What they ended at is then regrouped and run again, until nothing better comes.
"""

import logging
from typing import Final, NamedTuple

import jax
import numpy as np

from gmm_bayes._vocabulary import AUTO, InitMethod
from gmm_bayes.core.draws import draw_scores, log_density_and_entropy
from gmm_bayes.core.likelihood import RowBlocks
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.guesses import Rows, guesses, named_kinds, portfolio, regroupings
from gmm_bayes.inference.em.steps import (
    EMSettings,
    Solutions,
    maximise,
    ranking,
)
from gmm_bayes.inference.potential import ModelSpec

__all__ = [
    "NAMED_STARTS",
    "REGROUPED",
    "SHORT",
    "Optima",
    "distinct",
    "find_optima",
    "follow_all",
    "leaders",
    "looked_at",
    "patience",
    "regrouped_runs",
]

logger = logging.getLogger(__name__)

# Starts in one program: all wait for the slowest.
_TOGETHER = 16
# Iterations of a short run.
SHORT = 15
# Starts of a kind that is named.
NAMED_STARTS = 10
# Rounds of regrouping: at most, and without anything better before it is enough. And the moves of
# one: of the best maximum, and of the next few.
_MOST_ROUNDS, _PATIENCE = 30, 6
_MOVES = (16, 4, 4, 4, 4)
# The more components, the more ways to go wrong: starts for each.
_MOST_STARTS, _FEWEST_STARTS, _STARTS_EACH = 192, 32, 32
# Flops that the short runs may take: a second or two of one core.
_FLOPS = 4e9
# Two mixtures are one where the log densities of rows differ by less, root mean square in nats:
# before EM has converged, and when it has.
_NEAR, _SAME = 0.2, 0.02
_ROWS_COMPARED = 512
# Nats.
_SAME_HEIGHT = 1e-3
REGROUPED: Final = "regrouped"


class Optima(NamedTuple):
    """Distinct maxima of the likelihood, the best first; regular ones before singular ones.

    Attributes
    ----------
    solutions : Solutions
        Of NumPy arrays, leading axis the maxima.
    led : list of list of str
        Kinds of the starts that led to each, as far as they were followed: those that came near to
        one that was followed count with it.
    n_starts : int
        Starts tried, regroupings included.
    """

    solutions: Solutions
    led: list[list[str]]
    n_starts: int

    @property
    def best(self) -> MixtureParameters:
        """The mixture of the first."""
        return MixtureParameters(*(a[0] for a in self.solutions.mixture))


def find_optima(
    X: np.ndarray,
    rows: RowBlocks,
    spec: ModelSpec,
    settings: EMSettings,
    *,
    init: InitMethod,
    n_init: int | None,
    seed: int,
    row_weights: np.ndarray | None = None,
) -> Optima:
    """Look for the maxima of the likelihood.

    Parameters
    ----------
    X : ndarray, shape (N, D)
        Rows in standard units.
    rows : RowBlocks
        The same, on the device.
    spec : ModelSpec
    settings : EMSettings
    init : {"auto", "kmeans", "k-means++", "random", "random_from_data"}
        Kinds of start; "auto" takes many of them, and regroups what they led to.
    n_init : int, optional
        Starts before any regrouping. None takes 10 of a kind that is named, and otherwise 32 for
        each component, at most 192, or as many as cost a second or two, at least 32.
    seed : int
    row_weights : ndarray, shape (N,), optional
    """
    here, em = Rows.of(X, row_weights), _EM(rows, spec, settings, looked_at(X))
    k = spec.n_components
    first, *others = np.random.SeedSequence(seed).spawn(1 + _MOST_ROUNDS)
    if init != AUTO:
        kinds = named_kinds(init, n_init or NAMED_STARTS)
        return follow_all(guesses(here, k, kinds, seed), kinds, rows, spec, settings)
    affordable = _affordable(len(X), k, X.shape[1])
    usual = int(np.clip(affordable, _FEWEST_STARTS, min(_MOST_STARTS, _STARTS_EACH * k)))
    # One component has one maximum.
    n_starts = 1 if k == 1 else n_init or usual
    enough = patience(_PATIENCE, len(X), k, X.shape[1])
    kinds = portfolio(n_starts, X.shape[1])
    found = em.follow_best(guesses(here, k, kinds, int(first.generate_state(1)[0])), kinds)
    idle = 0
    for sequence in others if k > 1 else []:
        best = found.solutions.log_likelihood[0]
        mixtures = _each(found.solutions.mixture, len(_MOVES))
        moments = _regrouped(here, mixtures, np.random.default_rng(sequence))
        found = em.joined(found, em.follow_best(moments, [REGROUPED] * len(moments)))
        better = found.solutions.log_likelihood[0] > best + _SAME_HEIGHT
        idle = 0 if better else idle + 1
        if idle == enough:
            break
    logger.debug("%d starts, maxima %s", found.n_starts, found.solutions.log_likelihood)
    return found


def follow_all(
    moments: np.ndarray, kinds: list[str], rows: RowBlocks, spec: ModelSpec, settings: EMSettings
) -> Optima:
    """Run every start to its end, and keep all, the best first."""
    size = min(len(moments), _TOGETHER)
    found = _run(moments, rows, spec, settings, settings.max_iter, size)
    order = ranking(found, settings)
    return Optima(jax.tree.map(lambda a: a[order], found), [[kinds[i]] for i in order], len(kinds))


def patience(most: int, n_obs: int, n_components: int, n_features: int) -> int:
    """Rounds of regrouping without anything better before it is enough, `most` of them or fewer.

    Where rows are many, a round costs as much as all the starts.
    """
    affordable = _affordable(n_obs, n_components, n_features)
    return int(np.clip(affordable / (2 * sum(_MOVES)), 1, most))


def regrouped_runs(
    X: np.ndarray,
    rows: RowBlocks,
    mixtures: list[MixtureParameters],
    spec: ModelSpec,
    settings: EMSettings,
    rng: np.random.Generator,
) -> Solutions:
    """Short runs of EM from the first few mixtures, each with components merged and split.

    Parameters
    ----------
    X : ndarray, shape (N, D)
        Rows in standard units.
    rows : RowBlocks
        The same, on the device.
    mixtures : list of MixtureParameters
        The best first: more is made of it.
    spec : ModelSpec
    settings : EMSettings
    rng : numpy.random.Generator

    Returns
    -------
    Solutions
        Of NumPy arrays, leading axis the runs.
    """
    moments = _regrouped(Rows.of(X), mixtures, rng)
    return _run(moments, rows, spec, settings, min(SHORT, settings.max_iter))


def _affordable(n_obs: int, n_components: int, n_features: int) -> float:
    """Short runs that cost a second or two."""
    n_numbers = n_obs * n_components * (n_features + 1) * (n_features + 2) / 2
    return _FLOPS / (4 * n_numbers * SHORT)


class _EM(NamedTuple):
    """EM of one table, and the rows by which mixtures are compared."""

    rows: RowBlocks
    spec: ModelSpec
    settings: EMSettings
    looked_at: np.ndarray

    def follow_best(self, moments: np.ndarray, kinds: list[str]) -> Optima:
        """Run all starts briefly, and the best that differ to their ends."""
        longest = self.settings.max_iter
        short = self._run(moments, min(SHORT, longest))
        # Neighbours come to the same place: one of them is followed.
        groups = self._distinct(short, _NEAR)
        led = [[kinds[i] for i in group] for group in groups]
        ended = jax.tree.map(lambda a: a[[group[0] for group in groups]], short)
        if longest > SHORT:
            ended = _one_run(ended, self._run(ended.moments, longest - SHORT))
        return self._merged(Optima(ended, led, len(kinds)))

    def joined(self, some: Optima, more: Optima) -> Optima:
        """The distinct maxima of both."""
        solutions = jax.tree.map(lambda *a: np.concatenate(a), some.solutions, more.solutions)
        led, n_starts = [*some.led, *more.led], some.n_starts + more.n_starts
        return self._merged(Optima(solutions, led, n_starts))

    def _merged(self, found: Optima) -> Optima:
        groups = self._distinct(found.solutions, _SAME)
        best = [group[0] for group in groups]
        led = [[kind for i in group for kind in found.led[i]] for group in groups]
        return Optima(jax.tree.map(lambda a: a[best], found.solutions), led, found.n_starts)

    def _distinct(self, solutions: Solutions, near: float) -> list[list[int]]:
        """Groups of solutions that are one mixture: the best of each, and the best group, first.

        What comes after the first groups is left out, unless it belongs to one of those.
        """
        return _groups(solutions, self.looked_at, near, self.settings)[:_TOGETHER]

    def _run(self, moments: np.ndarray, limit: int) -> Solutions:
        return _run(moments, self.rows, self.spec, self.settings, limit)


def _run(
    moments: np.ndarray,
    rows: RowBlocks,
    spec: ModelSpec,
    settings: EMSettings,
    limit: int,
    size: int = _TOGETHER,
) -> Solutions:
    """EM from every start, `size` starts at a time, so that one program serves any number."""
    filled = np.concatenate([moments, moments[np.zeros(-len(moments) % size, int)]])
    tolerance = settings.tol * float(np.asarray(rows.weights).sum())
    numbers = jax.device_put((tolerance, settings.reg_covar, limit))
    parts = [
        maximise(
            jax.device_put(filled[begin : begin + size]),
            rows,
            *numbers,
            spec=spec,
            max_iter=settings.max_iter,
            hard=settings.hard,
        )
        for begin in range(0, len(filled), size)
    ]
    together = jax.tree.map(lambda *a: np.concatenate([np.asarray(b) for b in a]), *parts)
    return jax.tree.map(lambda a: a[: len(moments)], together)


def _one_run(first: Solutions, then: Solutions) -> Solutions:
    """What two runs were, of which the second went on where the first had ended."""
    room = first.trace.shape[1]
    parts = zip(first.trace, first.n_iter, then.trace, strict=True)
    trace = np.stack([np.concatenate([a[:n], b])[:room] for a, n, b in parts])
    return then._replace(n_iter=first.n_iter + then.n_iter, trace=trace)


def distinct(
    mixtures: MixtureParameters, order: np.ndarray, rows: np.ndarray, near: float
) -> list[list[int]]:
    """Groups of mixtures that are one: each begins with the first of its own in the order.

    Two mixtures are one where the log densities of the rows differ by less than `near` (root mean
    square, nats), whatever the numbers of their components.
    """
    log_density, _ = log_density_and_entropy(rows, *mixtures)
    groups: list[list[int]] = []
    for i in map(int, order):
        leaders = [group[0] for group in groups]
        apart = np.sqrt(np.mean((log_density[leaders] - log_density[i]) ** 2, axis=1))
        if groups and apart.min() < near:
            groups[int(apart.argmin())].append(i)
        else:
            groups.append([i])
    return groups


def _groups(
    solutions: Solutions, rows: np.ndarray, near: float, settings: EMSettings
) -> list[list[int]]:
    """Groups of solutions that are one mixture, the best first; of none that is finite, one."""
    order = ranking(solutions, settings)
    finite = order[np.isfinite(solutions.log_likelihood[order])]
    return distinct(solutions.mixture, finite, rows, near) or [[int(order[0])]]


def leaders(short: Solutions, X: np.ndarray, most: int) -> np.ndarray:
    """Positions of the short runs that are worth following: the best that differ, the best first.

    Parameters
    ----------
    short : Solutions
        Of NumPy arrays, leading axis the starts.
    X : ndarray, shape (N, D)
    most : int
        Where fewer differ, the best is there several times.

    Returns
    -------
    ndarray of int, shape (most,)
    """
    first = [group[0] for group in _groups(short, looked_at(X), _NEAR, EMSettings())[:most]]
    return np.array(first + first[:1] * (most - len(first)))


def looked_at(X: np.ndarray) -> np.ndarray:
    """Some rows, equally spaced in the table."""
    return X[np.unique(np.linspace(0, len(X) - 1, _ROWS_COMPARED).astype(int))]


def _regrouped(
    rows: Rows, mixtures: list[MixtureParameters], rng: np.random.Generator
) -> np.ndarray:
    """Starts made of the best mixtures."""
    moments = []
    for mixture, n_moves in zip(mixtures, _MOVES, strict=False):
        scores = draw_scores(rows.X, *(a[None] for a in mixture))[0]
        moments.append(regroupings(rows, scores.argmax(axis=0), mixture, n_moves, rng))
    return np.concatenate(moments)


def _each(mixtures: MixtureParameters, most: int) -> list[MixtureParameters]:
    """The first few of some mixtures (leading axis), one by one."""
    n = min(most, len(mixtures.weights))
    return [MixtureParameters(*(a[i] for a in mixtures)) for i in range(n)]

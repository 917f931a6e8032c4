"""The posterior's modes: where maxima of the likelihood and regroupings lead, the mass of each."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gmm_bayes.core.draws import draw_scores
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.optima import (
    REGROUPED,
    Optima,
    distinct,
    looked_at,
    patience,
    regrouped_runs,
)
from gmm_bayes.inference.em.starts import match_to_prior
from gmm_bayes.inference.em.steps import (
    ROWS_PER_BLOCK,
    VARIANCE_FLOOR,
    EMSettings,
    Solutions,
    on_floor,
)
from gmm_bayes.inference.potential import Data, ModelSpec, mixture_at, site_values, space
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.sampling.mode import approximation_at, descend, value_and_gradient
from gmm_bayes.model.priors import PriorArrays

__all__ = ["Mode", "are_worth_chains", "facts", "find_modes", "mixtures_of"]

# Maxima of the likelihood that are followed to a mode: those whose own density is highest.
_MOST_FOLLOWED = 10
# Nats below the highest maximum at which none leads to a mode worth having: the way to its mode was
# seen to gain forty. And nats below the highest mode at which a mode's curvature is not worth its
# gradients.
_HOPELESS, _FAR_BELOW = 100.0, 30.0
# Two modes are one where the log densities of rows differ by less, root mean square in nats; and a
# short run is near to what has been followed.
_SAME, _NEAR = 0.05, 0.2
# Nats by which a mode carries more than another and not the same: curvatures were seen to be out by
# a tenth.
_BETTER = 0.3
# Rounds of regrouping modes: at most, and without more mass or more modes before it is enough. And
# starts of a round that are followed.
_MOST_ROUNDS, _PATIENCE, _MOST_REGROUPED = 8, 2, 6
_STREAM = 2**16
# Nats below the mode of most mass at which one is worth chains of its own: a thousandth, with room
# for what Laplace's method is out by.
_WORTH_CHAINS = 9.0
# The same where chains went from mode to mode, and Laplace's method sees more modes than there are:
# a tenth.
_WORTH_A_LOOK = 2.3
_MIXTURE = "mixture"


class Mode(NamedTuple):
    """One mode of a posterior, in standard units.

    Attributes
    ----------
    mixture : MixtureParameters
    log_density : float
        Of the posterior at the mode, over the unconstrained parameters, up to a constant.
    log_mass : float
        Log integral of the normal distribution of the mode's height and curvature, up to the same
        constant: Laplace's method. Minus infinity where there is no such curvature, as where a
        component narrows without end.
    kinds : list of str
        Kinds of the starts of EM that led there.
    """

    mixture: MixtureParameters
    log_density: float
    log_mass: float
    kinds: list[str]


def find_modes(
    found: Optima,
    X: np.ndarray,
    prior: PriorArrays,
    data: Data,
    spec: ModelSpec,
    n_obs: int,
    *,
    seed: int | None = None,
) -> tuple[list[Mode], int]:
    """Follow the maxima of the likelihood to the modes of the posterior; that of most mass first.

    The prior likes some modes better than the likelihood does, and the maxima that lead to them may
    not be among the best: so modes are regrouped too, as maxima are, until no round finds more.

    Parameters
    ----------
    found : Optima
        In standard units.
    X : ndarray, shape (rows, D)
        The rows that were looked at, in standard units.
    prior : PriorArrays
        In standard units.
    data : Data
    spec : ModelSpec
    n_obs : int
        Rows that the data stand for.
    seed : int, optional
        Of the regroupings; None makes none.

    Returns
    -------
    modes : list of Mode
        Empty where no maximum leads to one: all are singular, or the density is not finite.
    n_regrouped : int
        Starts that regrouping made.
    """
    here = _Posterior(X, prior, data, spec, n_obs)
    followed = here.starts(found.solutions, found.led)[:_MOST_FOLLOWED]
    reached = here.modes_from(followed)
    if seed is None or spec.n_components == 1 or not reached:
        return _distinct(reached, here.rows), 0
    return here.regrouped(followed, reached, seed)


class _Start(NamedTuple):
    """A mixture that EM came to, as a point of the posterior, and the starts that led there.

    The mode that it leads to has the same list of starts, so that what comes near later counts for
    that mode too.
    """

    log_density: float
    z: np.ndarray
    mixture: MixtureParameters
    kinds: list[str]


class _Posterior(NamedTuple):
    """The posterior of one table, of which the arguments are those of `find_modes`."""

    X: np.ndarray
    prior: PriorArrays
    data: Data
    spec: ModelSpec
    n_obs: int

    @property
    def rows(self) -> np.ndarray:
        """Rows by which mixtures are compared."""
        return looked_at(self.X)

    def starts(self, solutions: Solutions, kinds: list[list[str]]) -> list[_Start]:
        """Regular solutions whose density is finite, the highest first; none that is hopeless."""
        here, starts = space(self.spec, self.X.shape[1]), []
        for i in np.flatnonzero(~on_floor(solutions, VARIANCE_FLOOR)):
            mixture = MixtureParameters(*(a[i] for a in solutions.mixture))
            matched = match_to_prior(mixture, self.prior, self.n_obs)
            z = here.vector(site_values(matched, self.spec))
            height = -float(value_and_gradient(z, self.data, self.spec)[0])
            if np.isfinite(height):
                starts.append(_Start(height, z, mixture, list(kinds[i])))
        starts.sort(key=lambda start: -start.log_density)
        return [s for s in starts if s.log_density > starts[0].log_density - _HOPELESS]

    def regrouped(
        self, followed: list[_Start], reached: list[Mode], seed: int
    ) -> tuple[list[Mode], int]:
        """Regroup the modes until no round finds more; all modes, and the starts that were made."""
        blocks = jax.device_put(block_rows(self.X, rows_per_block=ROWS_PER_BLOCK))
        # Other numbers than the search for maxima drew from the same seed.
        sequences = np.random.SeedSequence(seed, spawn_key=(_STREAM,)).spawn(_MOST_ROUNDS)
        enough = patience(_PATIENCE, len(self.X), self.spec.n_components, self.X.shape[1])
        known, highest = list(followed), followed[0].log_density
        modes, idle, n_regrouped = _distinct(reached, self.rows), 0, 0
        for sequence in sequences:
            mixtures, rng = [mode.mixture for mode in modes], np.random.default_rng(sequence)
            runs = regrouped_runs(self.X, blocks, mixtures, self.spec, EMSettings(), rng)
            n_runs = len(runs.log_likelihood)
            n_regrouped += n_runs
            starts = self.starts(runs, [[REGROUPED] for _ in range(n_runs)])
            hopeful = [start for start in starts if start.log_density > highest - _HOPELESS]
            fresh = self._unlike(hopeful, [*known, *reached])[:_MOST_REGROUPED]
            known += fresh
            reached = _ordered([*reached, *self.modes_from(fresh, reached)])
            before, modes = modes, _distinct(reached, self.rows)
            idle = 0 if _found_more(modes, before) else idle + 1
            if idle == enough:
                break
        return modes, n_regrouped

    def _unlike(self, starts: list[_Start], known: list[_Start | Mode]) -> list[_Start]:
        """Starts that are near to nothing known; the others count with what they are near."""
        everything = [*known, *starts]
        stacked = _stacked([start.mixture for start in everything])
        groups = distinct(stacked, np.arange(len(everything)), self.rows, _NEAR)
        for first, *others in groups:
            for i in others:
                if i >= len(known):
                    everything[first].kinds.extend(everything[i].kinds)
        return [starts[first - len(known)] for first, *_ in groups if first >= len(known)]

    def modes_from(self, starts: list[_Start], reached: Sequence[Mode] = ()) -> list[Mode]:
        """Where L-BFGS comes to from some starts, the mode of most mass first; some are equal."""
        lowest = [(descend(one.z, self.data, self.spec), one.kinds) for one in starts]
        ended = [(end, kinds) for end, kinds in lowest if end is not None]
        heights = [mode.log_density for mode in reached if np.isfinite(mode.log_mass)]
        limit = _FAR_BELOW - max(heights) if heights else np.inf
        modes = []
        for end, kinds in sorted(ended, key=lambda one: one[0].potential):
            if end.potential >= limit:
                break
            near = approximation_at(end, self.data, self.data, self.spec)
            if near is not None:
                z = np.asarray(near.affine.loc)
                mixture = mixture_at(z, self.spec, self.X.shape[1])
                modes.append(Mode(mixture, -near.potential, near.log_mass, kinds))
                if np.isfinite(near.log_mass):
                    limit = min(limit, near.potential + _FAR_BELOW)
        return _ordered(modes)


def _ordered(modes: list[Mode]) -> list[Mode]:
    """By mass; of equal mass, the higher first."""
    return sorted(modes, key=lambda mode: (-mode.log_mass, -mode.log_density))


def _found_more(after: list[Mode], before: list[Mode]) -> bool:
    """Whether a round of regrouping has bettered the largest mass, or the number worth chains."""
    most = after[0].log_mass
    n_after, n_before = (
        sum(m.log_mass > most - _WORTH_CHAINS for m in ms) for ms in (after, before)
    )
    return most > before[0].log_mass + _BETTER or n_after > n_before


def _distinct(found: list[Mode], rows: np.ndarray) -> list[Mode]:
    """Each mode once, under the best of its numberings, with the starts that led to any of them."""
    if not found:
        return []
    stacked = _stacked([mode.mixture for mode in found])
    groups = distinct(stacked, np.arange(len(found)), rows, _SAME)
    return [
        found[group[0]]._replace(kinds=[kind for i in group for kind in found[i].kinds])
        for group in groups
    ]


def _stacked(mixtures: list[MixtureParameters]) -> MixtureParameters:
    return MixtureParameters(*(np.stack(a) for a in zip(*mixtures, strict=True)))


def facts(
    found: list[Mode], n_starts: int, X: np.ndarray, units: Standardization
) -> dict[str, Any]:
    """What is recorded of a survey, in numbers and words.

    `distance` is the mean absolute difference of the probabilities that two rows belong together
    from those of the first mode, `mixture` is in the user's units.
    """
    rows = looked_at(X)
    together = [_coassignment(rows, mode.mixture) for mode in found]
    behind = [mode.log_mass - found[0].log_mass for mode in found]
    return {
        "n_starts": n_starts,
        "modes": [
            {
                "log_density": mode.log_density - found[0].log_density,
                "log_mass": mass if np.isfinite(mass) else None,
                "n_starts": len(mode.kinds),
                "kinds": sorted(set(mode.kinds)),
                "weights": np.round(mode.mixture.weights, 4).tolist(),
                "distance": float(abs(own - together[0]).mean()),
                _MIXTURE: _plain(mode.mixture, units),
            }
            for mode, own, mass in zip(found, together, behind, strict=True)
        ],
    }


def are_worth_chains(survey: dict[str, Any], *, connected: bool = False) -> np.ndarray:
    """Whether each mode of a record may carry enough for chains to begin in it, shape (n_modes,).

    Where chains have been seen to go from mode to mode, those that carry little need none.
    """
    mass = [-np.inf if one["log_mass"] is None else one["log_mass"] for one in survey["modes"]]
    return np.array(mass) > -(_WORTH_A_LOOK if connected else _WORTH_CHAINS)


def mixtures_of(survey: dict[str, Any], units: Standardization) -> list[MixtureParameters]:
    """The modes of a record, in standard units."""
    told = [mode[_MIXTURE] for mode in survey.get("modes", ()) if _MIXTURE in mode]
    found = [MixtureParameters(**{k: np.array(v) for k, v in one.items()}) for one in told]
    return [units.apply_to_parameters(one) for one in found]


def _plain(mixture: MixtureParameters, units: Standardization) -> dict[str, Any]:
    restored = units.restore_parameters(mixture)
    return {name: np.asarray(array).tolist() for name, array in restored._asdict().items()}


def _coassignment(rows: np.ndarray, mixture: MixtureParameters) -> np.ndarray:
    """Probability that two rows belong together, for every two of some rows."""
    scores = draw_scores(rows, *(a[None] for a in mixture))[0]
    shares = np.exp(scores - scores.max(axis=0))
    shares /= shares.sum(axis=0)
    return shares.T @ shares

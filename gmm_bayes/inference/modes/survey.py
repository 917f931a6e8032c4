"""The posterior's modes: where maxima of the likelihood lead, and the mass of each."""

from typing import Any, NamedTuple

import jax
import numpy as np

from gmm_bayes.core.draws import draw_scores
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.optima import Optima, distinct, looked_at
from gmm_bayes.inference.em.starts import match_to_prior
from gmm_bayes.inference.em.steps import VARIANCE_FLOOR, is_singular
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
# Two modes are one where the log densities of rows differ by less, root mean square in nats.
_SAME = 0.05
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
    found: Optima, X: np.ndarray, prior: PriorArrays, data: Data, spec: ModelSpec, n_obs: int
) -> list[Mode]:
    """Follow the maxima of the likelihood to the modes of the posterior; that of most mass first.

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

    Returns
    -------
    list of Mode
        Empty where no maximum leads to one: all are singular, or the density is not finite.
    """
    here = space(spec, X.shape[1])
    regular = np.flatnonzero(~is_singular(found.solutions, VARIANCE_FLOOR))
    starts = []
    for i in regular:
        mixture = MixtureParameters(*(a[i] for a in found.solutions.mixture))
        z = here.vector(site_values(match_to_prior(mixture, prior, n_obs), spec))
        height = -float(value_and_gradient(z, data, spec)[0])
        if np.isfinite(height):
            starts.append((height, z, found.led[i]))
    starts.sort(key=lambda start: -start[0])
    worth = [s for s in starts[:_MOST_FOLLOWED] if s[0] > starts[0][0] - _HOPELESS]
    lowest = [(descend(z, data, spec), kinds) for _, z, kinds in worth]
    ended = [(end, kinds) for end, kinds in lowest if end is not None]
    limit, reached = np.inf, []
    for end, kinds in sorted(ended, key=lambda one: one[0].potential):
        near = approximation_at(end, data, data, spec) if end.potential < limit else None
        if near is not None:
            mixture = mixture_at(np.asarray(near.affine.loc), spec, X.shape[1])
            reached.append(Mode(mixture, -near.potential, near.log_mass, kinds))
            if np.isfinite(near.log_mass):
                limit = min(limit, near.potential + _FAR_BELOW)
    # Of equal mass, the higher.
    reached.sort(key=lambda mode: (-mode.log_mass, -mode.log_density))
    return _distinct(reached, looked_at(X))


def _distinct(found: list[Mode], rows: np.ndarray) -> list[Mode]:
    """Each mode once, under the best of its numberings, with the starts that led to any of them."""
    if not found:
        return []
    stacked = jax.tree.map(lambda *a: np.stack(a), *(mode.mixture for mode in found))
    groups = distinct(stacked, np.arange(len(found)), rows, _SAME)
    return [
        found[group[0]]._replace(kinds=[kind for i in group for kind in found[i].kinds])
        for group in groups
    ]


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

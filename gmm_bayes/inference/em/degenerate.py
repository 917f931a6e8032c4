"""Which maxima of the likelihood say nothing: a component without extent, or one made by chance.

How narrow a component is beside the whole column says nothing: groups may be far apart. What
counts is on how many rows it rests, whether the others would put as many there by chance, and
whether it is any wider than the recording of the rows.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import gammainc, gammaln, logsumexp

from gmm_bayes._ties import recording_steps
from gmm_bayes._vocabulary import COMPONENT
from gmm_bayes.core.covariance import CovarianceStructure
from gmm_bayes.core.draws import draw_scores
from gmm_bayes.core.mixture import MixtureParameters

__all__ = ["REASONS", "Judge", "singular_advice"]

# Beside the squares of which a variance is the difference: some thousand roundings of float64.
_NO_EXTENT = 1e-12
# Rounding to a grid is an error of this variance, in squared steps.
_OF_ROUNDING = 1 / 12
# A component on so many times the rows that its covariance needs to have an inverse is no accident.
_FEW = 3
REASONS = (
    "",
    "has a component without extent",
    "has a component that is no wider than the recording of the rows",
    "has a component on few rows, no closer together than chance puts some",
)


def singular_advice(reason: str) -> str:
    """What to think of a maximum that is singular for some reason, and what to do."""
    return (
        f"{reason}: its likelihood says nothing, and neither do criteria made of it. Take fewer "
        "components or a more restricted covariance_type"
    )


class Judge(NamedTuple):
    """What a maximum of one table's likelihood is judged by.

    Attributes
    ----------
    floor : float
        Added to every variance, in standard units.
    fewest : int
        Rows on which the covariance of a component has an inverse; 0 where all share theirs.
    steps : ndarray, shape (D,)
        Of the grid on which a column was recorded, in standard units; 0 where there is none.
    """

    floor: float
    fewest: int
    steps: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, structure: CovarianceStructure, floor: float) -> "Judge":
        """The judge of fits to rows (N, D) in standard units."""
        own = COMPONENT in structure.scale_dims
        needed = X.shape[1] + 1 if structure.has_correlations(X.shape[1]) else 2
        return cls(floor, needed if own else 0, recording_steps(X, np.sqrt(_NO_EXTENT)))

    def reasons(
        self, mixtures: MixtureParameters, counts: np.ndarray, log_likelihood: np.ndarray
    ) -> np.ndarray:
        """Positions in REASONS of S mixtures with `counts` rows (S, K); 0 for what is regular."""
        found = np.ones(len(counts), int)
        for i in np.flatnonzero(np.isfinite(log_likelihood)):
            mixture = MixtureParameters(*(np.asarray(a[i]) for a in mixtures))
            broken = [self._no_extent(mixture), self._no_wider(mixture)]
            broken.append(self._by_chance(mixture, np.asarray(counts[i])))
            found[i] = broken.index(True) + 1 if any(broken) else 0
        return found

    def _no_extent(self, mixture: MixtureParameters) -> bool:
        smallest = np.linalg.svd(mixture.scale_tril, compute_uv=False).min(axis=1) ** 2
        squares = 1 + (mixture.means**2).max(axis=1)
        return bool((smallest - self.floor < _NO_EXTENT * squares).any())

    def _no_wider(self, mixture: MixtureParameters) -> bool:
        """A direction in which rounding alone would be as wide; one component has all the rows."""
        if len(mixture.weights) == 1 or not self.steps.any():
            return False
        whitened = np.linalg.solve(mixture.scale_tril, np.diag(self.steps))
        return bool(np.linalg.svd(whitened, compute_uv=False).max() ** 2 * _OF_ROUNDING >= 1)

    def _by_chance(self, mixture: MixtureParameters, counts: np.ndarray) -> bool:
        """Whether a component on few rows is one that rows of the others make.

        Of n rows, any `fewest` span an ellipsoid. Where the others are expected to put `others`
        rows into one as small, the number of those that hold m rows in all is at most the number
        of such sets times the chance of a Poisson number of m - `fewest` or more. One is too many.
        """
        n_obs, d = counts.sum(), mixture.means.shape[1]
        log_sets = gammaln(n_obs + 1) - gammaln(self.fewest + 1) - gammaln(n_obs - self.fewest + 1)
        # The ellipsoid in which equally spread rows have the component's covariance.
        log_ball = 0.5 * d * np.log((d + 2) * np.pi) - gammaln(d / 2 + 1)
        several = len(counts) > 1
        for k in np.flatnonzero(several & (counts < _FEW * self.fewest)):
            others = (np.delete(a, k, axis=0)[None] for a in mixture)
            there = float(logsumexp(draw_scores(mixture.means[[k]], *others)))
            log_volume = log_ball + np.log(np.diagonal(mixture.scale_tril[k])).sum()
            expected = n_obs * np.exp(min(there + log_volume, 0.0))
            if expected > counts[k]:
                # Wide, as what holds a few outliers: it draws no likelihood from being narrow.
                continue
            more = counts[k] - self.fewest
            chance = gammainc(more, expected) if more > 0 else 1.0
            if log_sets + np.log(max(chance, 1e-300)) > 0:
                return True
        return False

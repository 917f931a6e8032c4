"""Sampling happens in units of each column's spread; draws go back to the user's units.

The posterior is equivariant: with x' = (x - loc) / scale and the priors moved along, every draw
maps back exactly. So data in nanometres and data in light years take the same steps, and a shift
of 1e9 costs no digits.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gmm_bayes._vocabulary import MEANS, SCALES
from gmm_bayes.core.covariance import CovarianceStructure
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.model.priors import PriorArrays

__all__ = ["Standardization"]


@dataclass(frozen=True)
class Standardization:
    """The affine map between the user's units and standard units.

    Attributes
    ----------
    loc, scale : ndarray, shape (n_features,)
        Mean and standard deviation of each column; where the covariance structure has one scale
        for all features, one common scale, because only that keeps the structure.
    """

    loc: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(
        cls,
        X: np.ndarray,
        structure: CovarianceStructure,
        row_weights: np.ndarray | None = None,
    ) -> "Standardization":
        """Return the map that gives the columns of `X`, so weighted, mean zero and spread one."""
        loc = np.average(X, axis=0, weights=row_weights)
        scale = np.array(
            [_spread(column - centre, row_weights) for column, centre in zip(X.T, loc, strict=True)]
        )
        return cls.of_columns(loc, scale, structure)

    @classmethod
    def of_columns(
        cls, loc: np.ndarray, scale: np.ndarray, structure: CovarianceStructure
    ) -> "Standardization":
        """Return the map for columns of these means and standard deviations."""
        if structure.shares_scale:
            # Relative to the largest, so that the squares stay in range.
            largest = scale.max()
            scale = np.full_like(scale, largest * np.sqrt(np.mean((scale / largest) ** 2)))
        return cls(loc, scale)

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Rows in standard units."""
        out = X - self.loc
        out /= self.scale
        return out

    def apply_to_priors(self, prior: PriorArrays) -> PriorArrays:
        """The same beliefs in standard units."""
        return prior._replace(
            mean_loc=(prior.mean_loc - self.loc) / self.scale,
            mean_scale_tril=prior.mean_scale_tril / self.scale[:, None],
            scale_scale=prior.scale_scale / self.scale,
        )

    def apply_to_parameters(self, parameters: MixtureParameters) -> MixtureParameters:
        """A mixture in standard units."""
        return MixtureParameters(
            np.asarray(parameters.weights),
            (np.asarray(parameters.means) - self.loc) / self.scale,
            np.asarray(parameters.scale_tril) / self.scale[:, None],
        )

    def restore_parameters(self, parameters: MixtureParameters) -> MixtureParameters:
        """A mixture in the user's units."""
        return MixtureParameters(
            parameters.weights,
            self.loc + self.scale * parameters.means,
            self.scale[:, None] * parameters.scale_tril,
        )

    def restore(
        self, sites: Mapping[str, np.ndarray], structure: CovarianceStructure
    ) -> dict[str, np.ndarray]:
        """Draws of the sites in the user's units."""
        scale = self.scale[0] if structure.shares_scale else self.scale
        return {
            **sites,
            MEANS: self.loc + self.scale * sites[MEANS],
            SCALES: scale * sites[SCALES],
        }

    @property
    def log_volume(self) -> float:
        """Log of the factor by which one row's density is larger in standard units."""
        return float(math.fsum(np.log(self.scale)))


def _spread(values: np.ndarray, row_weights: np.ndarray | None) -> float:
    """Standard deviation of rows that count so often."""
    centre = np.average(values, weights=row_weights)
    return float(np.sqrt(np.average((values - centre) ** 2, weights=row_weights)))

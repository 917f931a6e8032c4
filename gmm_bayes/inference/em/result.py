"""EMFit: a mixture of largest likelihood, and what is read off it."""

import html
import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import xarray as xr

from gmm_bayes._validation import Table, check_columns, check_data, check_near
from gmm_bayes._vocabulary import COMPONENT, OBS, CovarianceType
from gmm_bayes.core import mixture as mixtures
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import DataWarning
from gmm_bayes.inference.em.degenerate import singular_advice
from gmm_bayes.machine.row_blocks import map_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EMFit"]


@dataclass(frozen=True, eq=False)
class EMFit:
    """A mixture of largest likelihood.

    Attributes
    ----------
    parameters : MixtureParameters
        Weights (K,), means (K, D) and Cholesky factors (K, D, D), in the units of the data.
    covariance_type : str
    log_likelihood : float
        Of the mixture, summed over rows (times their weights), in nats.
    trace : ndarray, shape (n_iter,)
        The log-likelihood after each iteration, on all rows; with hard assignments, that of the
        rows together with their labels.
    converged : bool
    why_singular : str
        Why the likelihood says nothing: a component has shrunk onto a point, a line or a plane, is
        no wider than the recording, or is one that chance makes of a few rows. Empty if none is.
    starts : pandas.DataFrame
        One line a maximum, best first; of starts of a kind that was named one line a start. `init`,
        the kind of start that led there best, `n_starts`, how many came there or near it,
        `log_likelihood_per_row` on the rows that starts were compared on (at most 20,000),
        `n_iter`, `converged`, `singular`. The first line won.
    n_starts : int
        Starts that were tried: with `init="auto"` most of them briefly.
    table : Table
        The training rows.
    row_weights : ndarray, shape (n_obs,), or None
    """

    parameters: MixtureParameters
    covariance_type: CovarianceType
    log_likelihood: float
    trace: np.ndarray
    converged: bool
    why_singular: str
    starts: "pd.DataFrame"
    n_starts: int
    table: Table
    row_weights: np.ndarray | None

    @property
    def singular(self) -> bool:
        """Whether the likelihood says nothing, for what `why_singular` says."""
        return bool(self.why_singular)

    @property
    def weights(self) -> np.ndarray:
        """Mixing proportions, shape (K,)."""
        return self.parameters.weights

    @property
    def means(self) -> np.ndarray:
        """Means, shape (K, D), in the units of the data."""
        return self.parameters.means

    @cached_property
    def covariances(self) -> np.ndarray:
        """Covariances in scikit-learn's shape for `covariance_type`."""
        structure = COVARIANCE_STRUCTURES[self.covariance_type]
        return structure.covariances(*structure.sites(self.parameters.covariances))

    @property
    def n_components(self) -> int:
        """Number of components."""
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.means.shape[1]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns, as given or x0, x1, ..."""
        return self.table.feature_names

    @property
    def n_obs(self) -> float:
        """Number of rows: the sum of their weights."""
        if self.row_weights is None:
            return len(self.table.values)
        return float(self.row_weights.sum())

    @property
    def n_iter(self) -> int:
        """Iterations on all rows."""
        return len(self.trace)

    @property
    def n_parameters(self) -> int:
        """Free parameters: weights, means and covariances."""
        structure = COVARIANCE_STRUCTURES[self.covariance_type]
        return structure.n_parameters(self.n_components, self.n_features)

    @property
    def aic(self) -> float:
        """Akaike's criterion, smaller is better: 2 p - 2 log-likelihood (Akaike 1974)."""
        return self._criterion("aic", 2.0)

    @property
    def bic(self) -> float:
        """Schwarz's criterion, smaller is better: p log n - 2 log-likelihood (Schwarz 1978)."""
        return self._criterion("bic", math.log(self.n_obs))

    @property
    def icl(self) -> float:
        """Integrated completed likelihood, smaller is better.

        BIC of the rows together with their most probable labels: BIC - 2 sum_n log max_k r_nk
        (Biernacki, Celeux and Govaert 2000). Components that overlap cost.
        """
        surest = np.log(self.responsibilities.max(COMPONENT).values)
        weights = 1.0 if self.row_weights is None else self.row_weights
        return self._criterion("icl", math.log(self.n_obs)) - 2 * float(np.sum(weights * surest))

    @cached_property
    def responsibilities(self) -> xr.DataArray:
        """Probability of each component for each training row, dims (obs, component)."""
        coords = {OBS: self.table.index, COMPONENT: np.arange(self.n_components)}
        values = self.predict_proba()
        return xr.DataArray(values, coords, (OBS, COMPONENT), name="responsibilities")

    @property
    def labels(self) -> np.ndarray:
        """Most probable component of each training row, shape (n_obs,)."""
        return self.responsibilities.values.argmax(axis=1)

    def predict_proba(self, X: Any = None) -> np.ndarray:
        """Probability of each component for rows, shape (n_rows, K); None: the training rows."""
        return map_rows(_responsibilities, self.parameters, self._rows(X))

    def score_samples(self, X: Any = None) -> np.ndarray:
        """Log density of rows in nats, shape (n_rows,); None takes the training rows."""
        return map_rows(_log_density, self.parameters, self._rows(X))

    def _rows(self, X: Any) -> np.ndarray:
        if X is None:
            return self.table.values
        rows = check_columns(check_data(X), self.feature_names)
        check_near(rows, self.table.values, self.feature_names)
        return rows

    def _criterion(self, name: str, price: float) -> float:
        if self.singular:
            # At the line that reads the property, one call further up than a function's.
            said = singular_advice(self.why_singular)
            message = f"{name} of a fit with {self.n_components} components that {said}"
            warnings.warn(message, DataWarning, stacklevel=3)
        return price * self.n_parameters - 2 * self.log_likelihood

    def _facts(self) -> dict[str, str]:
        ended = "converged" if self.converged else "NOT converged"
        facts = {
            "data": f"{self.n_obs:g} rows, {self.n_features} columns",
            "model": f"{self.n_components} components, {self.covariance_type} covariances, "
            f"{self.n_parameters} parameters",
            "log-likelihood": f"{self.log_likelihood:.3f}, {ended} after {self.n_iter} iterations",
            "starts": f"{self.n_starts}, of which {self._as_good()} ended as high",
        }
        if self.singular:
            facts["caution"] = f"it {singular_advice(self.why_singular)}"
        return facts

    def _as_good(self) -> int:
        regular = self.starts[self.starts["singular"] == self.starts["singular"].iloc[0]]
        heights = regular["log_likelihood_per_row"]
        return int(regular["n_starts"][heights > heights.iloc[0] - 1e-3].sum())

    def __repr__(self) -> str:
        return "\n".join(["EMFit", *(f"  {k}: {v}" for k, v in self._facts().items())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<div><strong>EMFit</strong><table>{rows}</table></div>"


_responsibilities = jax.jit(mixtures.responsibilities)
_log_density = jax.jit(mixtures.log_density)

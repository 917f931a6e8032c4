"""The priors: a frozen record, its weakly informative default, and their arrays for a model."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gmm_bayes._validation import (
    Table,
    check_data,
    check_finite,
    check_fit_size,
    check_n_components,
    check_positive,
)
from gmm_bayes.model.centres import kmeans_centers

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PriorArrays", "Priors", "default_priors"]


# How many axes each field may have, in words, before the sizes of the mixture are known.
_AXES = {
    "weight_concentration": {0: "one number", 1: "one per component"},
    "mean_loc": {2: "an array of shape (n_components, n_features)"},
    "mean_covariance": {0: "one variance", 1: "one variance per feature", 2: "a matrix"},
    "scale_scale": {0: "one number", 1: "one per feature"},
    "correlation_concentration": {0: "one number"},
}


# What follows the data where it is None.
_FROM_DATA = ("mean_loc", "mean_covariance", "scale_scale")


class PriorArrays(NamedTuple):
    """The priors with every shape filled in: what the model computes with.

    Parameters
    ----------
    weight_concentration : array, shape (n_components,)
    mean_loc : array, shape (n_components, n_features)
    mean_scale_tril : array, shape (n_features, n_features)
        Lower Cholesky factor of the covariance B of every mean.
    scale_scale : array, shape (n_features,)
    correlation_concentration : array, shape ()
    """

    weight_concentration: Any
    mean_loc: Any
    mean_scale_tril: Any
    scale_scale: Any
    correlation_concentration: Any


@dataclass(frozen=True, eq=False)
class Priors:
    """Priors of the mixture, in the units of the data.

    Parameters
    ----------
    weight_concentration : float or array, shape (n_components,)
        Concentration of the Dirichlet on the weights. Below 1, empty components are welcome.
    mean_loc : array, shape (n_components, n_features), optional
        Centres A of the normal priors of the means. None takes the k-means centroids of the data
        to be fitted.
    mean_covariance : float or array, shape (n_features,) or (n_features, n_features), optional
        Covariance B of the normal prior of every mean: one variance, one per feature, or a matrix.
        Squared units of the data. None takes the variances of the columns to be fitted.
    scale_scale : float or array, shape (n_features,), optional
        Scale of the HalfCauchy on the standard deviations. Where a component has one standard
        deviation for all features, the root mean square over the features serves. None takes the
        standard deviations of the columns to be fitted.
    correlation_concentration : float
        Concentration eta of the LKJ on the correlations; 1 is uniform, more is closer to none.

    Raises
    ------
    TypeError, ValueError
        If a value is not positive, not finite or of an impossible shape.

    Notes
    -----
    weights ~ Dirichlet(concentration), means_k ~ MVN(A_k, B), scales_kd ~ HalfCauchy(s_d),
    correlation_cholesky_k ~ LKJCholesky(D, eta) [1]_.

    What is None follows the data, see `with_centers`; so whoever changes one prior keeps the
    defaults of the others. The textbook's numbers come from `Priors.fixed` alone.

    References
    ----------
    .. [1] D. Lewandowski, D. Kurowicka, H. Joe (2009). Generating random correlation matrices
       based on vines and extended onion method. J. Multivariate Analysis 100.
    """

    weight_concentration: Any = 0.5
    mean_loc: Any = None
    mean_covariance: Any = None
    scale_scale: Any = None
    correlation_concentration: Any = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _FROM_DATA and value is None:
                continue
            array = check_finite(value, field.name)
            array.setflags(write=False)
            object.__setattr__(self, field.name, float(array) if array.ndim == 0 else array)
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Check what can be known before the sizes of a mixture are."""
        for name, axes in _AXES.items():
            if getattr(self, name) is None:
                continue
            value = np.asarray(getattr(self, name))
            if value.ndim not in axes:
                wanted = " or ".join(axes.values())
                raise ValueError(f"{name} must be {wanted}, got shape {value.shape}")
            if name == "mean_covariance" and value.ndim == 2:
                self._mean_scale_tril(len(value))
            elif name != "mean_loc":
                check_positive(value, name, {value.shape: "numbers"})

    @classmethod
    def fixed(
        cls,
        mean_loc: Any = None,
        *,
        weight_concentration: Any = 0.5,
        mean_covariance: Any = 0.1,
        scale_scale: Any = 1.0,
        correlation_concentration: Any = 2.0,
    ) -> "Priors":
        """Return the textbook recipe, in the units of the data as they are.

        Dirichlet(0.5), means MVN(A_k, 0.1 I), scales HalfCauchy(1), correlations LKJ(2).

        Parameters
        ----------
        mean_loc, weight_concentration, mean_covariance, scale_scale, correlation_concentration
            As for `Priors`: shapes (n_components, n_features); scalar or (n_components,); scalar,
            (n_features,) or (n_features, n_features); scalar or (n_features,); scalar.

        Notes
        -----
        The answer depends on the units: with data a hundred times larger, a variance of 0.1 pins
        every mean to its centre. `default_priors` follows the data's spread instead.
        """
        return cls(
            weight_concentration=weight_concentration,
            mean_loc=mean_loc,
            mean_covariance=mean_covariance,
            scale_scale=scale_scale,
            correlation_concentration=correlation_concentration,
        )

    def replace(self, **changes: Any) -> "Priors":
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def open_fields(self) -> tuple[str, ...]:
        """Names of the fields that are None: those that follow the data to be fitted."""
        return tuple(name for name in _FROM_DATA if getattr(self, name) is None)

    def with_centers(self, X: Any, n_components: int, seed: int = 0) -> "Priors":
        """Return the same priors with all that is None filled from the data to be fitted.

        Parameters
        ----------
        X : array, pandas, polars or xarray object, shape (n_obs, n_features)
        n_components : int
        seed : int
            Seed of the k-means starts.

        Returns
        -------
        Priors
            Centres at the k-means centroids; the sd of every mean and the HalfCauchy scale equal to
            the columns' standard deviations.
        """
        if not self.open_fields:
            return self
        table, n_components = _checked(X, n_components)
        spread = table.values.std(axis=0)
        found: dict[str, Callable[[], np.ndarray]] = {
            "mean_loc": lambda: kmeans_centers(table.values, n_components, seed=seed),
            "mean_covariance": lambda: np.diag(spread**2),
            "scale_scale": lambda: spread,
        }
        return self.replace(**{name: found[name]() for name in self.open_fields})

    def arrays(self, n_components: int, n_features: int) -> PriorArrays:
        """Check the shapes for a mixture of a given size and fill them in.

        Raises
        ------
        ValueError
            If a shape does not fit, or `mean_covariance` is not symmetric positive definite.
        """
        k, d = n_components, n_features
        if self.open_fields:
            one = len(self.open_fields) == 1
            raise ValueError(
                f"{' and '.join(self.open_fields)} {'is' if one else 'are'} None: give "
                f"{'it' if one else 'them'}, or fill {'it' if one else 'them'} from the data with "
                "priors.with_centers(X, n_components)"
            )
        mean_loc = np.asarray(self.mean_loc)
        if mean_loc.shape != (k, d):
            raise ValueError(
                f"mean_loc must have shape (n_components, n_features) = {(k, d)}, "
                f"got {mean_loc.shape}"
            )
        weight = check_positive(
            self.weight_concentration,
            "weight_concentration",
            {(): "one number", (k,): "one per component"},
        )
        scale = check_positive(
            self.scale_scale, "scale_scale", {(): "one number", (d,): "one per feature"}
        )
        eta = check_positive(
            self.correlation_concentration, "correlation_concentration", {(): "one number"}
        )
        return PriorArrays(
            np.broadcast_to(weight, (k,)).copy(),
            mean_loc.copy(),
            self._mean_scale_tril(d),
            np.broadcast_to(scale, (d,)).copy(),
            eta,
        )

    def _mean_scale_tril(self, n_features: int) -> np.ndarray:
        covariance = np.asarray(self.mean_covariance)
        d = n_features
        if covariance.shape != (d, d):
            variance = check_positive(
                covariance,
                "mean_covariance",
                {(): "one variance", (d,): "one variance per feature", (d, d): "a matrix"},
            )
            return np.diag(np.sqrt(np.broadcast_to(variance, (d,))))
        if not np.allclose(covariance, covariance.T, rtol=1e-10, atol=0):
            i, j = np.argwhere(~np.isclose(covariance, covariance.T, rtol=1e-10, atol=0))[0]
            raise ValueError(
                f"mean_covariance must be symmetric, got {covariance[i, j]:g} at [{i}, {j}] and "
                f"{covariance[j, i]:g} at [{j}, {i}]; give (B + B.T) / 2"
            )
        # Factorised in correlation form, so that columns of very different units do no harm.
        variance = np.diag(covariance)
        if not (variance > 0).all():
            raise ValueError(
                f"mean_covariance must be positive definite, got the variance {variance.min():g}"
            )
        sd = np.sqrt(variance)
        try:
            factor = np.linalg.cholesky(covariance / sd[:, None] / sd)
        except np.linalg.LinAlgError:
            smallest = np.linalg.eigvalsh(covariance / sd[:, None] / sd)[0]
            raise ValueError(
                "mean_covariance must be positive definite, got a matrix whose correlations have "
                f"the eigenvalue {smallest:.3g}"
            ) from None
        return sd[:, None] * factor

    def summary(self) -> "pd.DataFrame":
        """Return the priors as a table, one row per site: its distribution and its parameters.

        Returns
        -------
        pandas.DataFrame, shape (4, 2)
        """
        import pandas as pd

        words = {f.name: _words(getattr(self, f.name)) for f in fields(self)}
        by_data = {
            "mean_loc": "k-means centroids",
            "mean_covariance": "the columns' variances",
            "scale_scale": "the columns' sds",
        }
        words |= {name: by_data[name] for name in self.open_fields}
        rows = {
            "weights": ("Dirichlet", f"concentration {words['weight_concentration']}"),
            "means": (
                "MultivariateNormal",
                f"centre {words['mean_loc']}, covariance {words['mean_covariance']}",
            ),
            "scales": ("HalfCauchy", f"scale {words['scale_scale']}"),
            "correlation_cholesky": (
                "LKJCholesky",
                f"concentration {words['correlation_concentration']}",
            ),
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["distribution", "parameters"])

    def __repr__(self) -> str:
        inside = ", ".join(f"{f.name}={_words(getattr(self, f.name))}" for f in fields(self))
        return f"Priors({inside})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Priors):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]


def default_priors(X: Any, n_components: int, *, seed: int = 0) -> Priors:
    """Weakly informative priors in units of each column's spread.

    Parameters
    ----------
    X : array, pandas, polars or xarray object, shape (n_obs, n_features)
        The data to be fitted.
    n_components : int
        Number of components.
    seed : int
        Seed of the k-means starts.

    Returns
    -------
    Priors
        Centres at the k-means centroids, the sd of every mean and the HalfCauchy scale equal to
        the columns' standard deviations, so that changing units changes nothing but the units.

    Raises
    ------
    TypeError, ValueError
        If `X` is not a table of finite numbers with some spread, or `n_components` is not possible.
    """
    return Priors().with_centers(X, n_components, seed)


def _checked(X: Any, n_components: Any) -> tuple[Table, int]:
    """A table to be fitted and a number of components; a `Table` was checked before."""
    if isinstance(X, Table):
        return X, n_components
    table = check_data(X, min_rows=2)
    n_components = check_n_components(n_components, len(table.values))
    check_fit_size(table, n_components, 0)
    return table, n_components


def _words(value: Any) -> str:
    """A prior's value, short: small arrays whole, larger ones by shape and range."""
    if value is None:
        return "None"
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{float(array):.6g}"
    if (
        array.ndim == 2
        and array.shape[0] == array.shape[1] > 1
        and not (array - np.diag(np.diag(array))).any()
    ):
        return f"diag({_words(np.diag(array))})"
    if array.size <= 4:
        return np.array2string(array, precision=4, separator=", ").replace("\n", "")
    return f"<{'x'.join(map(str, array.shape))} in [{array.min():.4g}, {array.max():.4g}]>"


def _same(a: Any, b: Any) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))

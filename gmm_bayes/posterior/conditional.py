"""What is not known of a row, given what is: the conditional mixture of every draw."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from scipy.special import logsumexp

from gmm_bayes._validation import check_choice, check_data, check_finite, check_near
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.posterior.conditional_mixture import ConditionalMixture
from gmm_bayes.posterior.conditional_rows import ConditionalRows, warn_of_few_draws
from gmm_bayes.posterior.marginals import kept_triangle

__all__ = ["conditional"]


def conditional(
    fit: GMMFit, given: Mapping[str, float] | Any
) -> ConditionalMixture | ConditionalRows:
    """Predict the missing features of a row, or of many, from those that are known.

    Parameters
    ----------
    fit : GMMFit
    given : mapping from str to float, or a frame of shape (n_obs, n_known)
        Values of one or more features, in the units of the data, but not of all. The columns of a
        pandas or polars frame, or of an xarray object, are features by name, in any order.

    Returns
    -------
    ConditionalRows
        Of a frame: the same for each of its rows, with means and intervals of all as tables.
    ConditionalMixture
        Of a mapping: log density, mean, interval and random values of the remaining features. Its
        parameters have shapes (S, K), (S, K, d) and (S, K, d, d).

    Raises
    ------
    TypeError, ValueError
        If a feature is not known, none or all are given, or a value is not a finite number.

    Warns
    -----
    DataWarning
        If the values are so unusual that few draws predict them well and carry the answer.

    Notes
    -----
    With a for the known and b for the remaining features, and the Cholesky factor of a component's
    covariance in that order, [[L_a, 0], [L_ba, L_b]], its conditional is normal with mean
    m_b + L_ba L_a^-1 (a - m_a) and Cholesky factor L_b, and its weight is in proportion to
    weight_k N(a; m_a, L_a L_a') [1]_. The factor comes from a QR decomposition of reordered rows,
    so that no covariance is inverted. The predictive distribution is that of the joint one,
    p(b | a, X) = p(a, b | X) / p(a | X): draws count in proportion to their density at a. It does
    not depend on labels.

    References
    ----------
    .. [1] C. M. Bishop (2006). Pattern Recognition and Machine Learning, section 2.3.

    Examples
    --------
    >>> import gmm_bayes as gb
    >>> X = gb.datasets.load_old_faithful()
    >>> fit = gb.fit(X, 2, sampler=gb.NUTS(num_warmup=300, num_samples=300), seed=1)
    >>> wait = gb.conditional(fit, {"eruptions": 4.5})
    >>> wait.mean().round().values
    array([81.])
    """
    check_fit(fit)
    if any(hasattr(given, named) for named in ("columns", "column_names", "coords")):
        table = check_data(given, name="given", min_rows=1)
        known = _check_names(fit, table.feature_names)
        values = table.values[:, [table.feature_names.index(name) for name in known]]
        at = _given(fit, known, values)
        return ConditionalRows(known, _rest(fit, known), values, table.index, at)
    one = _check_given(fit, given)
    values = np.array(list(one.values()))
    answer = _given(fit, tuple(one), values[None])(values)
    warn_of_few_draws(answer)
    return answer


def _rest(fit: GMMFit, known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in fit.feature_names if name not in known)


def _given(
    fit: GMMFit, known: tuple[str, ...], rows: np.ndarray
) -> Callable[[np.ndarray], ConditionalMixture]:
    """Return what makes the conditional mixture of a row, after checking all of them."""
    first = [fit.feature_names.index(name) for name in known]
    rest = [d for d in range(fit.n_features) if d not in first]
    check_near(rows, fit.X.values[:, first], known, name="given")
    draws = fit.parameters()
    triangle = kept_triangle(draws.scale_tril[:, :, first + rest])
    return lambda values: _mixture(fit, known, values, draws, triangle)


def _mixture(
    fit: GMMFit,
    known: tuple[str, ...],
    values: np.ndarray,
    draws: MixtureParameters,
    triangle: np.ndarray,
) -> ConditionalMixture:
    """The conditional of one row; the triangle has the known features first."""
    names, n_known = fit.feature_names, len(known)
    first = [names.index(name) for name in known]
    rest = [d for d in range(len(names)) if d not in first]
    z = _forward(triangle[..., :n_known, :n_known], values - draws.means[..., first])
    log_joint = _log_joint(draws.weights, triangle, z)
    log_known = logsumexp(log_joint, axis=1)
    log_weights = log_joint - log_known[:, None]
    means = draws.means[..., rest] + np.einsum(
        "skde,ske->skd", triangle[..., n_known:, :n_known], z
    )
    parameters = MixtureParameters(
        np.exp(log_weights), means, np.ascontiguousarray(triangle[..., n_known:, n_known:])
    )
    return ConditionalMixture(
        fit,
        dict(zip(known, map(float, values), strict=True)),
        tuple(names[d] for d in rest),
        parameters,
        log_weights,
        log_known - logsumexp(log_known),
    )


def _check_given(fit: GMMFit, given: Any) -> dict[str, float]:
    """Return the known values in the order of the fit."""
    if not isinstance(given, Mapping):
        example = f"{{{fit.feature_names[0]!r}: 1.5}}"
        raise TypeError(
            f"given must be a mapping from features to values, as in given={example}, or a frame "
            f"of rows, got {type(given).__name__}"
        )
    known = {}
    for name in _check_names(fit, given):
        value = check_finite(given[name], f"given[{name!r}]")
        if value.shape != ():
            raise ValueError(f"given[{name!r}] must be one number, got shape {value.shape}")
        known[name] = float(value)
    return known


def _check_names(fit: GMMFit, given: Iterable[str]) -> tuple[str, ...]:
    """Return names of some features, in the order of the fit."""
    given = list(given)
    for name in given:
        check_choice(name, "given", fit.feature_names)
    if not given:
        raise ValueError(f"given must hold at least one feature of {list(fit.feature_names)}")
    if len(given) == fit.n_features:
        raise ValueError(
            "given must leave at least one feature to predict, got all of "
            f"{list(fit.feature_names)}"
        )
    return tuple(name for name in fit.feature_names if name in given)


def _log_joint(weights: np.ndarray, triangle: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Log of weight times density of the known values, shape (S, K)."""
    n_known = z.shape[-1]
    diagonal = np.diagonal(triangle, axis1=-2, axis2=-1)[..., :n_known]
    log_weights = np.log(np.maximum(weights, np.finfo(float).tiny))
    squared = (z**2).sum(axis=-1)
    return (
        log_weights
        - 0.5 * (squared + n_known * math.log(2 * math.pi))
        - np.log(diagonal).sum(axis=-1)
    )


def _forward(triangle: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve L z = r for stacks of lower triangles, shapes (..., d, d) and (..., d)."""
    z = np.zeros_like(right)
    for i in range(right.shape[-1]):
        done = (triangle[..., i, :i] * z[..., :i]).sum(axis=-1)
        z[..., i] = (right[..., i] - done) / triangle[..., i, i]
    return z

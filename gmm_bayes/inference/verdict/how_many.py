"""Too few components, or too many? What the draws at hand say of K, whatever their order."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import gammainc, gammaln

from gmm_bayes._vocabulary import CONSTANT_DATA
from gmm_bayes.core.covariance import CovarianceStructure
from gmm_bayes.core.draws import draw_scores, log_density_and_entropy, mixture_moments
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.rows.standardization import Standardization

__all__ = ["AboutK", "about_k", "prior_expects", "words_about_k"]

# Rows and draws that are looked at, and how many tables of residuals are simulated; fewer rows and
# draws of large mixtures, so that no more than so many numbers are computed at once.
_MOST_ROWS, _MOST_DRAWS, _SIMULATED = 256, 64, 256
_MOST_NUMBERS = 2**21
# Below, the moments of a component's residuals say nothing.
_FEWEST_ROWS = 8
# Pairs whose merge is tried on the rows, of those that lose least by a bound.
_PAIRS = 3
# See `AboutK.too_few` and `about_k`.
_ALARM, _LOSS_PER_PARAMETER = 0.02, 0.25
_TINY = np.finfo(float).tiny


class AboutK(NamedTuple):
    """What speaks against the number of components; numbers do not depend on their order.

    Attributes
    ----------
    density_p, shape_p : float
        Posterior predictive p-values: of the density of the rows within their components, and of
        the shape of each component's rows.
    enough : int
        Components that are left when those are merged whose merge loses nothing.
    loss : float
        Median over draws of the log-likelihood (nats) that these merges lose, or of the next one
        where there are none.
    """

    density_p: float
    shape_p: float
    enough: int
    loss: float

    @property
    def too_few(self) -> bool:
        """Whether rows lie within components as those of normals do not.

        A p-value below 0.02: of two such, that comes to at most eight tables of a hundred under the
        right model (Meng 1994), and was seen in one of sixty that were simulated.
        """
        return min(self.density_p, self.shape_p) < _ALARM


def about_k(fit: GMMFit) -> AboutK:
    """Ask whether the rows need more components, and whether some can be spared.

    Notes
    -----
    Too few: every row of a draw is given to a component, by its responsibilities, and whitened
    there. Under the model these residuals are standard normal, exactly, for a draw of the posterior
    is as good as the parameters that made the data [1]_ [2]_. The PIT of their squared lengths is
    that of the log density of the rows within components; the shape is Neyman's smooth statistic
    of third and fourth moments along the directions in which each component is least normal. Both
    are compared with residuals that are simulated [3]_.

    Too many: in every draw, the pair of components that loses the least log-likelihood is replaced
    by one with the same moments, and so on, as long as the median loss is below a quarter of a nat
    for every parameter that is saved. At half a nat left-out rows would be predicted as well.

    References
    ----------
    .. [1] V. E. Johnson (2004). A Bayesian chi-squared test for goodness-of-fit. Annals of
       Statistics 32.
    .. [2] Y. Yuan, V. E. Johnson (2012). Goodness-of-fit diagnostics for Bayesian hierarchical
       models. Biometrics 68.
    .. [3] X.-L. Meng (1994). Posterior predictive p-values. Annals of Statistics 22.
    """
    X, draws = _some(fit)
    scores = draw_scores(X, *draws)
    rng = np.random.default_rng(0)
    density_p, shape_p = _p_values(X, draws, scores, rng)
    try:
        enough, loss = _spared(fit, X, MixtureParameters(*(array[::2] for array in draws)))
    except np.linalg.LinAlgError:
        # Of components so thin that the mixture of two is no normal, none is told to be spared.
        enough, loss = fit.n_components, np.nan
    return AboutK(density_p, shape_p, enough, loss)


def prior_expects(fit: GMMFit) -> float | None:
    """Components that have a row, on average over the prior; None where there is no prior."""
    if CONSTANT_DATA not in fit.datatree.children:
        return None
    one = np.broadcast_to(np.asarray(fit.priors.weight_concentration), (fit.n_components,))
    rest, n = one.sum() - one, fit.n_obs
    # No row of n: the mean of (1 - weight)^n; of a single component, never.
    none = np.zeros(len(one))
    if len(one) > 1:
        none = np.exp(
            gammaln(rest + n) + gammaln(one.sum()) - gammaln(one.sum() + n) - gammaln(rest)
        )
    return float((1 - none).sum())


def words_about_k(found: AboutK, n_components: int) -> Iterator[str]:
    """What speaks against the number of components, and what to do; nothing where nothing does."""
    k = n_components
    if found.too_few:
        yield (
            f"K = {k} may be too few, or groups are not normal: rows lie within components as "
            f"those of normals do not (posterior predictive p {found.density_p:.3f} of the "
            f"density, {found.shape_p:.3f} of the shape); compare_n_components(X) tries more"
        )
    if found.enough < k:
        yield (
            f"K = {k} may be too many: merged into {found.enough}, the components lose "
            f"{max(found.loss, 0):.1f} nats of the log-likelihood, less than their parameters are "
            "worth; compare_n_components(X) tries fewer"
        )


def _some(fit: GMMFit) -> tuple[np.ndarray, MixtureParameters]:
    """Rows (N, D) and draws, few enough, in standard units."""
    units = Standardization.of(fit.X.values, fit.structure)
    X, draws = fit.X.values, fit.parameters()
    n_rows = int(np.clip(_MOST_NUMBERS // (_SIMULATED * X.shape[1]), 64, _MOST_ROWS))
    if len(X) > n_rows:
        # At random: rows that are evenly spread are more regular than the model says.
        X = X[np.random.default_rng(1).choice(len(X), n_rows, replace=False)]
    affordable = _MOST_NUMBERS // (len(X) * draws.means[0].size)
    wanted = int(np.clip(affordable, 8, _MOST_DRAWS))
    picked = np.linspace(0, len(draws.means) - 1, wanted).astype(int)
    few = MixtureParameters(*(np.asarray(array)[picked] for array in draws))
    return units.apply(X), units.apply_to_parameters(few)


def _p_values(
    X: np.ndarray, draws: MixtureParameters, scores: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Posterior predictive p-values of the density of rows, and of the shape of components."""
    n_draws, k, d = draws.means.shape
    labels = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    each = np.arange(n_draws)[:, None]
    whiten = np.linalg.inv(draws.scale_tril)
    shift = (whiten @ draws.means[..., None])[..., 0]
    z = np.zeros((n_draws, *X.shape))
    for i in range(d):
        for j in range(i + 1):
            z[..., i] += whiten[each, labels, i, j] * X[:, j]
        z[..., i] -= shift[each, labels, i]
    places = np.arange(_SIMULATED) % n_draws
    made = rng.standard_normal((_SIMULATED, *X.shape))
    lengths = gammainc(d / 2, np.square(z).sum(axis=2) / 2)
    return (
        _share_above(_unevenness(lengths), _unevenness(rng.random((_SIMULATED, len(X))))),
        _share_above(_shape(z, labels, k), _shape(made, labels[places], k)),
    )


def _share_above(seen: np.ndarray, made: np.ndarray) -> float:
    """Share of all pairs in which what was made is as large as what was seen."""
    return float(1 - np.searchsorted(np.sort(made), seen).mean() / len(made))


def _unevenness(u: np.ndarray) -> np.ndarray:
    """Cramer and von Mises' distance of lines (S, N) from a uniform distribution."""
    n = u.shape[1]
    return np.square(np.sort(u, axis=1) - (np.arange(n) + 0.5) / n).sum(axis=1)


def _shape(z: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """The largest smooth statistic of the components, shape (S,), of residuals (S, N, D)."""
    n_draws, n_rows, d = z.shape
    fewest = max(_FEWEST_ROWS, 2 * d)
    if n_rows < fewest:
        return np.zeros(n_draws)
    squares = np.square(z).sum(axis=2)
    directions = np.empty((n_draws, k, d, 3))
    for j in range(k):
        inside = (labels == j)[..., None]
        own = np.where(inside, z, 0)
        away = (squares[..., None] - (d + 2)) * inside
        # Third and fourth moments less what the mean and the variance make of them.
        skew = (away * z).sum(axis=1)
        moments = (own * (squares[..., None] - (d + 4))).swapaxes(1, 2) @ own
        vectors = np.linalg.eigh(moments)[1]
        directions[:, j, :, 0], directions[:, j, :, 1] = vectors[..., 0], vectors[..., -1]
        size = np.linalg.norm(skew, axis=1, keepdims=True)
        directions[:, j, :, 2] = skew / np.maximum(size, np.finfo(float).tiny)
    each = np.arange(n_draws)[:, None]
    along = sum(z[..., i, None] * directions[each, labels, i] for i in range(d))
    cell = (each * k + labels).ravel()

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell, values.ravel(), n_draws * k)

    n = np.maximum(np.bincount(cell, minlength=n_draws * k), 1)
    largest = np.zeros(n_draws * k)
    for one in np.moveaxis(along, 2, 0):
        square = one**2
        third, fourth = total(one * (square - 3)), total(square * (square - 6) + 3)
        np.maximum(largest, (third**2 / 6 + fourth**2 / 24) / n, out=largest)
    largest[n < fewest] = 0
    return largest.reshape(n_draws, k).max(axis=1)


def _spared(fit: GMMFit, X: np.ndarray, draws: MixtureParameters) -> tuple[int, float]:
    """How many components are left when merges lose nothing, and what those, or the next, lose."""
    more, d = fit.n_obs / len(X), fit.n_features
    enough, lost = fit.n_components, np.nan
    before = _log_likelihood(X, draws)
    parameters = fit.structure.n_parameters(enough, d)
    while enough > 1:
        draws, after = _best_merge(fit.structure, X, draws)
        loss = float(np.median(before - after)) * more
        saved = parameters - fit.structure.n_parameters(enough - 1, d)
        if not loss < _LOSS_PER_PARAMETER * saved:
            return enough, loss if enough == fit.n_components else lost
        enough, lost = enough - 1, loss
    return enough, lost


def _log_likelihood(X: np.ndarray, draws: MixtureParameters) -> np.ndarray:
    return log_density_and_entropy(X, *draws)[0].sum(axis=1)


def _best_merge(
    structure: CovarianceStructure, X: np.ndarray, draws: MixtureParameters
) -> tuple[MixtureParameters, np.ndarray]:
    """Each draw with that pair merged which loses least, and its log-likelihood (S,)."""
    weights, means, tril = draws
    # An empty component has a mean and a covariance too, of which half is as good as any share.
    weights = np.maximum(weights, _TINY)
    n_draws, k, _ = means.shape
    covariances = tril @ tril.swapaxes(-1, -2)
    i, j = np.triu_indices(k, 1)
    share = weights[:, i] + weights[:, j]
    part = np.stack([weights[:, i], weights[:, j]], axis=2) / share[..., None]
    mean, covariance = mixture_moments(
        part,
        np.stack([means[:, i], means[:, j]], axis=2),
        np.stack([covariances[:, i], covariances[:, j]], axis=2),
    )
    # What a merge loses where its two do not overlap: a bound, and nothing to do with the rows.
    size = np.log(np.diagonal(tril, axis1=-2, axis2=-1)).sum(axis=-1) - np.log(weights)
    bound = share * (np.linalg.slogdet(covariance)[1] / 2 - np.log(share))
    bound -= weights[:, i] * size[:, i] + weights[:, j] * size[:, j]
    order = np.argsort(bound, axis=1)[:, :_PAIRS]
    each = np.arange(n_draws)
    found = []
    for pair in order.T:
        one, other = i[pair], j[pair]
        merged = [array.copy() for array in (weights, means, covariances)]
        for array, new in zip(merged, (share, mean, covariance), strict=True):
            array[each, one] = new[each, pair]
        kept = np.arange(k) != other[:, None]
        found.append([array[kept].reshape(n_draws, k - 1, *array.shape[2:]) for array in merged])
    candidates = [_projected(structure, *one) for one in found]
    worth = np.stack([_log_likelihood(X, one) for one in candidates])
    best = worth.argmax(axis=0)
    chosen = MixtureParameters(
        *(np.stack(arrays)[best, each] for arrays in zip(*candidates, strict=True))
    )
    return chosen, worth[best, each]


def _projected(
    structure: CovarianceStructure, weights: np.ndarray, means: np.ndarray, dense: np.ndarray
) -> MixtureParameters:
    """The mixture of that covariance structure which is nearest to one of dense covariances."""
    sites = [
        structure.sites(structure.pooled(one, share))
        for one, share in zip(dense, weights, strict=True)
    ]
    scales = np.stack([one[0] for one in sites])
    known = [one[1] for one in sites if one[1] is not None]
    factors = np.stack(known) if known else None
    return MixtureParameters(
        weights, means, structure.scale_tril(scales, factors, *means.shape[1:])
    )

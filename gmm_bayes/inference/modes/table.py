"""modes(): what a survey found and what became of it, as a table."""

from typing import TYPE_CHECKING

import numpy as np

from gmm_bayes._vocabulary import CONSTANT_DATA, SURVEY
from gmm_bayes.core.draws import draw_scores
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.modes.survey import mixtures_of
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.rows.standardization import Standardization

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["modes"]

# Rows whose components are found at once.
_ROWS = 2**16


def modes(fit: GMMFit) -> "pd.DataFrame":
    """The modes of the posterior that were found before the chains began, and what each is worth.

    Parameters
    ----------
    fit : GMMFit
        Whose `init` was not a mixture of its own.

    Returns
    -------
    pandas.DataFrame, shape (n_modes, 8)
        One line a mode, that of most mass first: `log_density` at the mode and `log_mass`, both in
        nats beside those of the first, `share` of the posterior by these, `chains`, the share that
        was measured where chains came to it, together with the others that they came to, `n_starts`
        of EM that led there, `distance`, the mean absolute difference of the probabilities that two
        rows belong together from those of the first, `weights`, and `partition`, the likeliest
        component of each row (an array, in the order of `fit.X`; not of marginals). Renumbered
        components are the same mode. `fit.run["survey"]` has the number of starts in all and the
        shares' errors.

    Raises
    ------
    TypeError, ValueError
        If `fit` is not a GMMFit, or its modes were not looked for.

    Notes
    -----
    The mass is that of the normal distribution of the mode's height and curvature (Laplace's
    method [1]_): a guide, not an estimate with an error, and of one numbering of the components. It
    is not a number where there is no such curvature, as where a component narrows on equal values
    without end; such a mode has no share. What chains make of it is measured by bridge sampling,
    with all numberings: several modes may turn out to be one, or none.

    The maxima of the likelihood from which the search goes on are those of `fit_em`; at most ten of
    them are followed. With `init="auto"` the modes that they lead to have components merged and
    split as well, for a few rounds, until none of clearly more mass is found and no more that may
    carry a thousandth.

    References
    ----------
    .. [1] L. Tierney, J. B. Kadane (1986). Accurate approximations for posterior moments and
       marginal densities. JASA 81.

    Examples
    --------
    >>> import gmm_bayes as gb
    >>> fit = gb.fit(gb.datasets.load_crabs(), 2, sampler=gb.Laplace(), seed=1)
    >>> gb.modes(fit)[["log_mass", "distance"]].round({"log_mass": 0, "distance": 1}).head(2)
       log_mass  distance
    0       0.0       0.0
    1      -9.0       0.5
    """
    import pandas as pd

    check_fit(fit)
    if SURVEY not in fit.run:
        raise ValueError(
            "modes must have a fit whose modes were looked for, got one that was told where to "
            "start (init) or not to look (survey=False), or one by fit_many; fit with init='auto'"
        )
    table = pd.DataFrame(
        fit.run[SURVEY]["modes"],
        columns=["log_density", "log_mass", "n_starts", "distance", "weights"],
    ).astype({"log_density": float, "log_mass": float})
    mass = np.exp(table["log_mass"].fillna(-np.inf))
    table.insert(2, "share", mass / mass.sum())
    measured = np.full(len(table), np.nan)
    # Chains that begin in the only mode are not asked where they went.
    alone = [{"came_to": [0], "share": 1.0}] if fit.sampler.judged_by == "chains" else []
    for piece in fit.run[SURVEY].get("chains", alone):
        measured[piece["came_to"]] = piece["share"]
    table.insert(3, "chains", measured)
    if CONSTANT_DATA not in fit.datatree.children:
        # The posterior of some features: the modes are those of all.
        return table
    units = Standardization.of(fit.X.values, fit.structure)
    X, found = units.apply(fit.X.values), mixtures_of(fit.run[SURVEY], units)
    table["partition"] = pd.Series([_partition(X, mode) for mode in found], dtype=object)
    return table


def _partition(X: np.ndarray, mixture: MixtureParameters) -> np.ndarray:
    """The likeliest component of each row."""
    blocks = np.array_split(X, max(1, len(X) // _ROWS))
    draw = [a[None] for a in mixture]
    return np.concatenate([draw_scores(block, *draw)[0].argmax(axis=0) for block in blocks])

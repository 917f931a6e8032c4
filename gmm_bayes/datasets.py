"""Bundled real data, and simulators with a known truth."""

from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gmm_bayes._validation import check_choice, check_integer, check_seed

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LOADERS",
    "Simulated",
    "load_crabs",
    "load_galaxies",
    "load_iris",
    "load_old_faithful",
    "make_blobs",
    "make_mixture",
]


class Simulated(NamedTuple):
    """Rows whose truth is known.

    Attributes
    ----------
    X : ndarray, shape (n_obs, n_features)
    labels : ndarray, shape (n_obs,)
        The component that each row came from.
    weights : ndarray, shape (n_components,)
    means : ndarray, shape (n_components, n_features)
    covariances : ndarray, shape (n_components, n_features, n_features)
    """

    X: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def load_old_faithful() -> "pd.DataFrame":
    """Eruptions of the Old Faithful geyser.

    Returns
    -------
    pandas.DataFrame, shape (272, 2)
        `eruptions`, the duration, and `waiting`, the time to the next one, both in minutes.

    References
    ----------
    .. [1] A. Azzalini, A. W. Bowman (1990). A look at some data on the Old Faithful geyser.
       Applied Statistics 39. The version of 272 eruptions is that of W. Haerdle (1991).
    """
    return _read("old_faithful.csv")


def load_crabs() -> "pd.DataFrame":
    """Measurements of rock crabs, of which size hides the species and the sexes.

    Returns
    -------
    pandas.DataFrame, shape (200, 5)
        `FL`, `RW`, `CL`, `CW`, `BD`: frontal lobe, rear width, carapace length and width, and body
        depth, in mm. A row's label is its species (B, blue, or O, orange), its sex (M or F) and its
        number among the fifty of the kind, as in "BM1".

    References
    ----------
    .. [1] N. A. Campbell, R. J. Mahon (1974). A multivariate study of variation in two species of
       rock crab of the genus Leptograpsus. Australian Journal of Zoology 22.
    """
    frame = _read("crabs.csv")
    label = frame["sp"] + frame["sex"] + frame["index"].astype(str)
    return frame[["FL", "RW", "CL", "CW", "BD"]].set_axis(label.rename(None))


def load_galaxies() -> "pd.DataFrame":
    """Velocities of 82 galaxies of the Corona Borealis region.

    Returns
    -------
    pandas.DataFrame, shape (82, 1)
        `velocity` in km/s.

    References
    ----------
    .. [1] K. Roeder (1990). Density estimation with confidence sets exemplified by superclusters
       and voids in the galaxies. JASA 85.
    """
    return _read("galaxies.csv")


def load_iris() -> "pd.DataFrame":
    """Fisher's iris measurements, from scikit-learn, without the species.

    Returns
    -------
    pandas.DataFrame, shape (150, 4)
        Lengths and widths of sepals and petals in cm.
    """
    from sklearn.datasets import load_iris as load

    return load(as_frame=True).data


def make_blobs() -> Simulated:
    """Simulate the textbook example: 500 rows in 8 round groups of sd 0.8 on a square of side 20.

    Returns
    -------
    Simulated
        `X` of shape (500, 2); scikit-learn's `make_blobs` with random_state 101.
    """
    from sklearn.datasets import make_blobs as make

    X, labels, centers = make(
        n_samples=500,
        centers=8,
        cluster_std=0.8,
        center_box=(-10, 10),
        random_state=101,
        return_centers=True,
    )
    covariances = np.broadcast_to(0.8**2 * np.eye(2), (8, 2, 2)).copy()
    return Simulated(X, labels, np.full(8, 1 / 8), centers, covariances)


def make_mixture(
    n_obs: int = 500,
    n_components: int = 3,
    n_features: int = 2,
    *,
    covariance_type: str = "full",
    separation: float = 4.0,
    seed: int = 0,
) -> Simulated:
    """Simulate a Gaussian mixture.

    Parameters
    ----------
    n_obs, n_components, n_features : int
        Sizes.
    covariance_type : {"full", "tied", "diag", "spherical"}
        What the true covariances have in common.
    separation : float
        Means are normal with this sd, in units of a component's typical sd of 1.
    seed : int

    Returns
    -------
    Simulated
        Rows `X` of shape (n_obs, n_features), their labels, and the truth.

    Raises
    ------
    TypeError, ValueError
        If a size is not positive or the covariance type is not known.
    """
    from scipy.stats import wishart

    from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
    from gmm_bayes.core.mixture import MixtureParameters

    n = check_integer(n_obs, "n_obs", 1)
    k = check_integer(n_components, "n_components", 1)
    d = check_integer(n_features, "n_features", 1)
    check_choice(covariance_type, "covariance_type", tuple(COVARIANCE_STRUCTURES))
    rng = np.random.default_rng(check_seed(seed))
    weights = rng.dirichlet(np.full(k, 10.0))
    means = separation * rng.standard_normal((k, d))
    df = d + 4
    dense = np.reshape(wishart.rvs(df, np.eye(d) / df, size=k, random_state=rng), (k, d, d))
    structure = COVARIANCE_STRUCTURES[covariance_type]
    scale_tril = structure.scale_tril(*structure.sites(dense), k, d)
    labels = rng.choice(k, size=n, p=weights)
    noise = rng.standard_normal((n, d))
    X = means[labels] + np.einsum("nde,ne->nd", scale_tril[labels], noise)
    truth = MixtureParameters(weights, means, scale_tril)
    return Simulated(X, labels, weights, means, truth.covariances)


def _read(name: str) -> "pd.DataFrame":
    import pandas as pd

    with resources.files("gmm_bayes").joinpath("_data", name).open("rb") as file:
        return pd.read_csv(file)


# By the names that a job file uses.
LOADERS = {
    "old_faithful": load_old_faithful,
    "crabs": load_crabs,
    "galaxies": load_galaxies,
    "iris": load_iris,
    "blobs": make_blobs,
}

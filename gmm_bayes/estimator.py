"""BayesianGMM: the package behind scikit-learn's interface."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
import pandas as pd
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from gmm_bayes._tables import refuse_codes
from gmm_bayes._validation import check_choice, check_integer
from gmm_bayes._vocabulary import CovarianceType, InitMethod
from gmm_bayes.core import mixture
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES, CovarianceStructure
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.fit_em import fit_em
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.fit import fit as sample_posterior
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.sampling.registry import by_option
from gmm_bayes.inference.sampling.sampler import Sampler
from gmm_bayes.machine.row_blocks import map_rows
from gmm_bayes.model.matching import permuted
from gmm_bayes.model.priors import Priors
from gmm_bayes.posterior.density import log_predictive_density
from gmm_bayes.posterior.point import numbering, posterior_mean, precisions, sample_by_component
from gmm_bayes.posterior.streaming import mean_over_draws, rows_of

__all__ = ["BayesianGMM"]


class BayesianGMM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """Gaussian mixture as a scikit-learn estimator, in place of its `GaussianMixture`.

    Parameters
    ----------
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}
    priors : Priors, optional
        None takes `default_priors`. Not for `engine="em"`.
    engine : {"nuts", "laplace", "em"}
        Draws from the posterior by `fit`, by chains or by the quick normal approximation, or
        maximum likelihood by `fit_em`.
    sampler : NUTS or Laplace, optional
        Settings of the engine of that name; None takes the engine's defaults.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"} or MixtureParameters
        Where EM, which finds the start of the chains too, begins; see `fit_em`.
    n_init : int, optional
        Number of EM starts; None takes as many as `fit_em` does.
    tol : float
        EM ends when the mean log density of a row changes by no more. Only for `engine="em"`.
    reg_covar : float
        Added to every variance, relative to the variance of its column: in scikit-learn it is in
        the squared units of the data. Only for `engine="em"`.
    max_iter : int
        EM iterations, at least one. Only for `engine="em"`.
    random_state : int, RandomState or None
    warm_start : bool
        The next `fit` begins at the last solution rather than where `init_params` says.
    device : {"auto", "cpu", "gpu"} or with an index, as "gpu:1"
    verbose : bool or int
        Draw a progress bar while sampling.

    Attributes
    ----------
    fit_ : GMMFit or EMFit
        The whole result, with the training rows.
    weights_, means_, covariances_ : ndarray, shapes (K,), (K, D) and scikit-learn's
        The solution; of draws their posterior means, after components that changed places between
        draws were matched to the draw of highest density.
    precisions_, precisions_cholesky_ : ndarray, shapes as of covariances_
        Inverses of `covariances_`, and upper factors U with U U' = `precisions_`.
    converged_ : bool
        EM has converged; of draws, there is nothing against believing them (`fit_.problems`).
    n_iter_ : int
        EM iterations; of draws, gradients of the log posterior, warm-up included.
    lower_bound_ : float
        `score` of the training rows.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Only if the training rows had names that are strings.

    Notes
    -----
    Unlike scikit-learn, a constant column is refused, whose likelihood has no maximum and whose
    scale only the prior knows, and so are more components than distinct rows. Components are
    numbered by their means (EM) or by the prior's centres, not by the start that won.

    With draws, `score_samples` and `predict_proba` are averages over the posterior, and not values
    at `means_` and the like: less sure where there are few rows, and tending to those values as
    rows are added.

    Examples
    --------
    >>> import gmm_bayes as gb
    >>> X = gb.datasets.load_old_faithful()
    >>> model = gb.BayesianGMM(2, engine="em", random_state=0).fit(X)
    >>> model.weights_.round(2), round(model.score(X), 4), round(model.bic(X), 1)
    (array([0.36, 0.64]), -4.1554, 2322.2)
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: CovarianceType = "full",
        priors: Priors | None = None,
        engine: Literal["nuts", "laplace", "em"] = "nuts",
        sampler: Sampler | None = None,
        init_params: InitMethod | MixtureParameters = "auto",
        n_init: int | None = None,
        tol: float = 1e-6,
        reg_covar: float = 1e-12,
        max_iter: int = 500,
        random_state: Any = None,
        warm_start: bool = False,
        device: str = "auto",
        verbose: bool | int = 0,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.priors = priors
        self.engine = engine
        self.sampler = sampler
        self.init_params = init_params
        self.n_init = n_init
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.random_state = random_state
        self.warm_start = warm_start
        self.device = device
        self.verbose = verbose

    # -- fitting ----------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "BayesianGMM":
        """Fit the mixture.

        Parameters
        ----------
        X : array-like or frame, shape (n_samples, n_features)
        y : Ignored
        sample_weight : array-like, shape (n_samples,), optional
            How often each row counts; None counts all once. Only for `engine="em"`.

        Returns
        -------
        BayesianGMM
            Itself.

        Raises
        ------
        TypeError, ValueError
            If the data or an option are not usable.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If EM has not converged.
        gmm_bayes.errors.ConvergenceWarning
            If the draws should not be believed.
        gmm_bayes.errors.DataWarning
            If the data are too few for what is asked, or have traps.
        """
        run = self._engine()
        weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
        if weighted and self.engine != "em":
            raise TypeError(
                f"sample_weight must be None for engine={self.engine!r}, which counts every row "
                "once; take engine='em', or leave it out"
            )
        seed = int(check_random_state(self.random_state).randint(2**32, dtype=np.uint64))
        table = self._training_rows(X)
        fitted = run(
            table,
            self.n_components,
            covariance_type=self.covariance_type,
            init=self._start(table.shape[1]),
            n_init=self.n_init,
            seed=seed,
            device=self.device,
            **weighted,
        )
        self._keep(fitted)
        if isinstance(fitted, EMFit) and not fitted.converged:
            warnings.warn(
                f"EM did not converge in {self.max_iter} iterations: increase max_iter or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and return the most probable component of each training row, shape (n_samples,)."""
        return self.fit(X).predict(X)

    def _engine(self) -> Callable[..., EMFit | GMMFit]:
        """The function that fits, with the options that are its own."""
        # Samplers that come with this package, without an extra.
        samplers = {name: kind for name, kind in by_option().items() if kind.needs is None}
        check_choice(self.engine, "engine", (*samplers, "em"))
        if self.engine == "em":
            for name in ("priors", "sampler"):
                if (value := getattr(self, name)) is not None:
                    raise TypeError(f"engine='em' takes no {name}, got {value!r}; leave it out")
            return partial(fit_em, tol=self.tol, reg_covar=self.reg_covar, max_iter=self.max_iter)
        kind = samplers[self.engine]
        sampler = kind() if self.sampler is None else self.sampler
        if type(sampler) is not kind:
            raise TypeError(
                f"sampler must be a gmm_bayes.{kind.__name__}(...) for engine={self.engine!r}, "
                f"got {sampler!r}"
            )
        return partial(
            sample_posterior, priors=self.priors, sampler=sampler, progress=bool(self.verbose)
        )

    def _training_rows(self, X: Any) -> np.ndarray | pd.DataFrame:
        """Rows by scikit-learn's rules, with the names that the fit is to know."""
        refuse_codes(X, "X")
        values = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        if not hasattr(self, "feature_names_in_"):
            return values
        index = X.index if isinstance(X, pd.DataFrame) else None
        return pd.DataFrame(values, columns=self.feature_names_in_, index=index)

    def _start(self, n_features: int) -> InitMethod | MixtureParameters:
        if not self.warm_start or not hasattr(self, "fit_"):
            return self.init_params
        last = self._point
        if last.means.shape != (self.n_components, n_features):
            raise ValueError(
                f"warm_start=True goes on from the last solution, which has {len(last.means)} "
                f"components over {last.means.shape[1]} columns, and not {self.n_components} over "
                f"{n_features}; set warm_start=False to begin anew"
            )
        return last

    def _keep(self, fitted: EMFit | GMMFit) -> None:
        self.fit_ = fitted
        if isinstance(fitted, EMFit):
            self._numbering, self._point = None, fitted.parameters
            self.converged_, self.n_iter_ = fitted.converged, fitted.n_iter
            self.lower_bound_ = fitted.log_likelihood / fitted.n_obs
        else:
            self._numbering = numbering(fitted)
            self._point = posterior_mean(self._draws())
            self.converged_, self.n_iter_ = not fitted.problems, int(fitted.run["n_gradients"])
            self.lower_bound_ = float(log_predictive_density(fitted).mean())
        structure = self._structure
        self.weights_, self.means_ = (np.array(a) for a in self._point[:2])
        self.covariances_ = structure.covariances(*structure.sites(self._point.covariances))
        self.precisions_, self.precisions_cholesky_ = precisions(self.covariances_, structure)

    # -- what follows from the fit ----------------------------------------------------------------

    def predict(self, X: Any) -> np.ndarray:
        """Most probable component of each row: that of largest `predict_proba`.

        Parameters
        ----------
        X : array-like or frame, shape (n_samples, n_features)

        Returns
        -------
        ndarray of int, shape (n_samples,)
        """
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each component for each row; of draws, the mean over the posterior.

        The mean of the ratios weights_k N(x; k) / sum_j weights_j N(x; j), as `responsibilities`
        has it, with components matched over draws. It is not the ratio at `weights_`, `means_` and
        `covariances_`, which is surer than the posterior is.

        Parameters
        ----------
        X : array-like or frame, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_components)
            Rows sum to one.
        """
        rows = self._new_rows(X)
        return map_rows(_mean_responsibilities, self._draws(), rows)

    def transform(self, X: Any) -> np.ndarray:
        """Return `predict_proba` as new features, which `set_output` and a pipeline can name."""
        return self.predict_proba(X)

    @property
    def _n_features_out(self) -> int:
        return len(self.means_)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log density of each row in nats; of draws, the log posterior predictive density.

        The latter is the log of the density averaged over draws, `log_predictive_density`. Its
        tails are heavier than those of the one mixture of `weights_`, `means_`, `covariances_`.

        Parameters
        ----------
        X : array-like or frame, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,)
        """
        rows = self._new_rows(X)
        if isinstance(self.fit_, EMFit):
            return self.fit_.score_samples(rows)
        return np.asarray(log_predictive_density(self.fit_, rows))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples` over rows, in nats; larger is better."""
        return float(self.score_samples(X).mean())

    def aic(self, X: Any) -> float:
        """Akaike's criterion of the one mixture `weights_`, `means_`, `covariances_`; see `bic`."""
        return self._criterion(X, lambda n_obs: 2.0)

    def bic(self, X: Any) -> float:
        """Schwarz's criterion of the one mixture `weights_`, `means_`, `covariances_`.

        p log n - 2 log-likelihood, smaller is better, p counting free parameters. Of draws it is
        taken at the posterior mean, which is not the point of highest likelihood: how many
        components there are is then better asked of leave-one-out scores or of the evidence.

        Parameters
        ----------
        X : array-like or frame, shape (n_samples, n_features)

        Returns
        -------
        float
        """
        return self._criterion(X, math.log)

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw new rows, in the order of their components.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        X : ndarray, shape (n_samples, n_features)
            From the mixture; of draws, each row from a posterior draw of its own, so that they
            follow the posterior predictive distribution.
        y : ndarray of int, shape (n_samples,)
            The component of each row.
        """
        check_is_fitted(self, "fit_")
        n_samples = check_integer(n_samples, "n_samples", 1)
        rng = check_random_state(self.random_state)
        return sample_by_component(self._draws(), n_samples, rng)

    def _new_rows(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "fit_")
        refuse_codes(X, "X")
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        return rows if isinstance(self.fit_, EMFit) else rows_of(self.fit_, rows)[0]

    def _draws(self) -> MixtureParameters:
        """All draws, components matched, with a leading axis; the one solution of EM."""
        if isinstance(self.fit_, EMFit):
            return MixtureParameters(*(a[None] for a in self.fit_.parameters))
        draws = self.fit_.parameters()
        return draws if self._numbering is None else permuted(draws, self._numbering)

    @property
    def _structure(self) -> CovarianceStructure:
        # Of the fit: the option may have been changed since.
        return COVARIANCE_STRUCTURES[self.fit_.covariance_type]

    def _criterion(self, X: Any, price: Callable[[int], float]) -> float:
        rows = self._new_rows(X)
        log_likelihood = float(map_rows(_log_density, self._point, rows).sum())
        n_parameters = self._structure.n_parameters(*self.means_.shape)
        return price(len(rows)) * n_parameters - 2 * log_likelihood


_mean_responsibilities = mean_over_draws(mixture.responsibilities)
_log_density = jax.jit(mixture.log_density)

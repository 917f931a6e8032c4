"""GMMFit: a small record around one labelled tree, and its file."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from gmm_bayes._vocabulary import (
    COMPONENT,
    CONSTANT_DATA,
    CORRELATION_CHOLESKY,
    DATA,
    FEATURE,
    MEANS,
    NUMBERING,
    OBSERVED_DATA,
    POSTERIOR,
    PRIOR,
    SAMPLE_STATS,
    SAMPLER_STATE,
    SCALES,
    SURVEY,
    WEIGHTS,
    CovarianceType,
)
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES, CovarianceStructure
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import FileFormatError, LabelSwitchingError
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.result import netcdf, words
from gmm_bayes.inference.result.components import component_frame, why_no_table
from gmm_bayes.inference.result.tree import with_correlations
from gmm_bayes.inference.sampling.registry import restore_sampler
from gmm_bayes.inference.sampling.sampler import Sampler
from gmm_bayes.model.priors import Priors

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GMMFit", "check_fit", "load", "of_tree", "refuse_marginal", "refuse_sample"]

# Of a mode that is told of: its draws are among the others.
_LEAST_SHARE = 1e-3
# Results of the first versions have it among the problems, in these words.
_SWITCHED = "changed places"


@dataclass(frozen=True, eq=False)
class GMMFit:
    """The posterior of a Gaussian mixture and everything that goes with it.

    Parameters
    ----------
    datatree : xarray.DataTree
        Groups `posterior`, `sample_stats`, `observed_data`, `constant_data` (the priors), and on
        request `log_likelihood`, `prior`, `prior_predictive`, `posterior_predictive`; and
        `sampler_state`, from which `extend` makes more draws. Dims chain, draw, component, feature,
        feature2, obs; units are the user's. What the run was is in the root's attributes.
    """

    datatree: xr.DataTree

    @cached_property
    def idata(self) -> Any:
        """The tree as the installed ArviZ takes it: InferenceData (0.x) or DataTree (1.x).

        In place of `correlation_cholesky`, half of which is zeros and ones, its draws have
        `correlations`, dims (..., pair): one number for each pair of features, "a:b". `posterior`
        has the factor.
        """
        # ArviZ complains of a group that it does not know.
        shown = {n: g for n, g in netcdf.groups(self.datatree).items() if n != SAMPLER_STATE}
        for group in {POSTERIOR, PRIOR} & shown.keys():
            shown[group] = with_correlations(shown[group])
        return arviz_bridge.to_native(netcdf.build(shown, self.datatree.attrs))

    @property
    def posterior(self) -> xr.Dataset:
        """The draws, as a dataset."""
        return self.datatree[POSTERIOR].to_dataset()

    @property
    def sample_stats(self) -> xr.Dataset:
        """What the sampler said of each draw."""
        return self.datatree[SAMPLE_STATS].to_dataset()

    @property
    def X(self) -> xr.DataArray:
        """The training rows, dims (obs, feature), float64, in the user's units.

        Of a fit to a `RowFile`, a random sample of them; `obs` is their place in the file.
        """
        return self.datatree[OBSERVED_DATA].to_dataset()[DATA]

    @property
    def n_obs(self) -> int:
        """Number of training rows, those that stayed in a file included."""
        rows = self.run.get("rows")
        return int(self.X.shape[0] if rows is None else rows["n_obs"])

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.X.shape[1])

    @property
    def n_components(self) -> int:
        """Number of components."""
        return int(self.datatree.attrs["n_components"])

    @property
    def covariance_type(self) -> CovarianceType:
        """scikit-learn's name of the covariance structure."""
        return self.datatree.attrs["covariance_type"]

    @property
    def structure(self) -> CovarianceStructure:
        """The row of the table of covariance structures."""
        return COVARIANCE_STRUCTURES[self.covariance_type]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns, as given or x0, x1, ..."""
        return tuple(str(name) for name in self.X.coords[FEATURE].values)

    @cached_property
    def priors(self) -> Priors:
        """The priors of the fit with every shape filled in, in the user's units."""
        refuse_marginal(self, "has no priors; see those of the whole fit")
        constants = self.datatree[CONSTANT_DATA].to_dataset()
        return Priors(**{str(name): value.values for name, value in constants.items()})

    @property
    def sampler(self) -> Sampler:
        """The settings of the sampler."""
        return restore_sampler(self._json("sampler"))

    @property
    def run(self) -> dict[str, Any]:
        """How the run went: `preconditioning` and why, `n_gradients`, `pareto_k`, ..."""
        return self._json("run") if "run" in self.datatree.attrs else {}

    @property
    def timings(self) -> dict[str, float]:
        """Seconds spent to initialise, to wait for the compiler after that, and to sample."""
        return self._json("timings")

    @property
    def seed(self) -> list[int]:
        """The words of the seed."""
        return self._json("seed")

    @property
    def device(self) -> str:
        """The device that sampled."""
        return str(self.datatree.attrs["device"])

    @property
    def chain_method(self) -> str:
        """How the chains were run."""
        return str(self.run.get("chain_method", self.datatree.attrs.get("chain_method", "")))

    @property
    def versions(self) -> dict[str, str]:
        """Versions of this package and of what the draws depend on."""
        return self._json("versions")

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the chains should not be believed, as found when they ended; empty if they may be."""
        return tuple(p for p in self._json("problems") if _SWITCHED not in p)

    @property
    def switched(self) -> bool:
        """Whether components changed places between draws, as found when `problems` were."""
        if "switched" in self.datatree.attrs:
            return bool(self._json("switched"))
        return any(_SWITCHED in problem for problem in self._json("problems"))

    @property
    def mixes_modes(self) -> bool:
        """Whether draws are of several modes between which chains do not cross."""
        told = self.run.get(SURVEY, {}).get("chains", [])
        return sum(piece["share"] >= _LEAST_SHARE for piece in told) > 1

    @property
    def prior_decides(self) -> str:
        """The site whose prior outweighs the data by far, as `diagnose` found; empty if none."""
        return str(self._json("prior_decides")) if "prior_decides" in self.datatree.attrs else ""

    @property
    def about_k(self) -> tuple[str, ...]:
        """What speaks against the number of components, as found when `problems` were."""
        return tuple(self._json("about_k")) if "about_k" in self.datatree.attrs else ()

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do about `problems` and components that changed places, as found with them."""
        if "advice" in self.datatree.attrs:
            return tuple(self._json("advice"))
        # Results of the first versions did not keep it.
        return ("diagnose(fit) says what to do.",) * bool(self.problems or self.switched)

    @property
    def alignment(self) -> dict[str, Any] | None:
        """How the components were aligned, as `align_labels` documents it; None if they were not.

        Keys `method`, `unambiguous`, `indistinct`, `empty`, `moved_within`, `moved_between`.
        """
        return self._json("alignment") if "alignment" in self.datatree.attrs else None

    @property
    def stacking(self) -> dict[str, Any] | None:
        """The `weights` of the chains, where draws were resampled by `stack_chains`; else None."""
        return self._json("stacking") if "stacking" in self.datatree.attrs else None

    def parameters(self) -> MixtureParameters:
        """Return all draws, chains joined, as numpy arrays in the user's units.

        Returns
        -------
        MixtureParameters
            Shapes (S, K), (S, K, D) and (S, K, D, D) with S = num_chains * num_samples.
        """
        flat = {
            str(name): value.values.reshape(-1, *value.shape[2:])
            for name, value in self.posterior.items()
        }
        tril = self.structure.scale_tril(
            flat[SCALES], flat.get(CORRELATION_CHOLESKY), self.n_components, self.n_features
        )
        return MixtureParameters(flat[WEIGHTS], flat[MEANS], tril)

    def summary(self) -> "pd.DataFrame":
        """Weights, means and standard deviations of the components, with their uncertainty.

        Returns
        -------
        pandas.DataFrame, shape (n_components * n_features, 6)
            Indexed by component and feature: posterior means `weight`, `mean` and `sd`, the
            component's standard deviation in that feature, and the posterior standard deviation of
            each, `weight_sd`, `mean_sd` and `sd_sd`. In the units of the data. The text of
            `print(fit)` is made of it.

        Raises
        ------
        LabelSwitchingError
            If components changed places between draws (`align_labels` first), or cannot be told
            apart, or draws are of several modes: then averages per component mean nothing.
        """
        if why := why_no_table(self, switched=self.switched):
            raise LabelSwitchingError(f"summary has no table of components: {why}")
        return component_frame(self.posterior)

    def with_group(self, name: str, dataset: xr.Dataset) -> "GMMFit":
        """Return the same fit with one more group in its tree."""
        groups = {**netcdf.groups(self.datatree), name: dataset}
        return GMMFit(netcdf.build(groups, self.datatree.attrs))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one netCDF file, whole or not at all.

        It is written beside the target, read back, compared and renamed, so that nothing that was
        there is damaged when something goes wrong.

        Parameters
        ----------
        path : path
            Target; an existing result is replaced.

        Returns
        -------
        pathlib.Path
            The target.

        Raises
        ------
        OSError
            If the directory is missing, read-only or too full. The draws stay in memory.
        ValueError
            If this is a marginal, which the whole fit holds.
        """
        refuse_marginal(self, "is not saved; save the whole fit, and take the marginal of it again")
        return netcdf.write(self.datatree, Path(path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GMMFit) and self.datatree.identical(other.datatree)

    __hash__ = None  # type: ignore[assignment]

    def _json(self, name: str) -> Any:
        return json.loads(self.datatree.attrs[name])

    def __repr__(self) -> str:
        return words.as_text(self)

    def _repr_html_(self) -> str:
        return words.as_html(self)


def load(path: str | os.PathLike[str]) -> GMMFit:
    """Read a result that `GMMFit.save` wrote.

    Parameters
    ----------
    path : path
        A netCDF file.

    Returns
    -------
    GMMFit
        Equal to the fit that was saved.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file.
    FileFormatError
        If the file is damaged, not a result, or of another format version.
    """
    source = Path(path)
    return of_tree(netcdf.open_tree(source), source)


def of_tree(tree: xr.DataTree, source: Path) -> GMMFit:
    """Return the fit that a tree from a file is, after checking it.

    Raises
    ------
    FileFormatError
        If the tree is damaged, not a result, or of another format version.
    """
    fit = GMMFit(netcdf.check(tree, source))
    _check_attributes(fit, source)
    return fit


def check_fit(fit: Any) -> None:
    """Raise unless this has draws: say what takes its place of what came."""
    if isinstance(fit, GMMFit):
        return
    kind = type(fit).__name__
    instead = _INSTEAD.get(kind, "gmm_bayes.fit makes one")
    raise TypeError(f"fit must be a GMMFit, got {kind}; {instead}")


# By name: what they are is known above only.
_INSTEAD = {
    "EMFit": "maximum likelihood has one solution and no draws: gmm_bayes.fit(X, n_components) "
    "samples the posterior; of the solution itself there are responsibilities, labels, "
    "score_samples, and most pictures in gmm_bayes.plots",
    "BayesianGMM": "give its attribute fit_, which engines other than 'em' leave with draws",
    "ManyFits": "give one of them, fits[name]",
    "str": "gmm_bayes.load reads a file",
    **dict.fromkeys(("PosixPath", "WindowsPath"), "gmm_bayes.load reads a file"),
    **dict.fromkeys(("InferenceData", "DataTree"), "give the GMMFit that it was made of"),
}


def refuse_sample(fit: GMMFit, what: str) -> None:
    """Raise `<what> needs all rows` where a fit holds only a sample of them."""
    kept = fit.X.shape[0]
    if kept < fit.n_obs:
        raise ValueError(
            f"{what} needs all rows, but this fit keeps a sample of {kept} of the {fit.n_obs} in "
            f"{fit.run['rows']['path']}; fit a table in memory"
        )


def refuse_marginal(fit: GMMFit, what: str) -> None:
    """Raise `a marginal <what>` where a fit has no priors: they are of the whole fit."""
    if CONSTANT_DATA not in fit.datatree.children:
        raise ValueError(f"a marginal {what}")


def _check_attributes(fit: GMMFit, source: Path) -> None:
    """Read every attribute once, so that a damaged one is found here and not hours later."""
    optional = netcdf.OPTIONAL_ATTRIBUTES & set(fit.datatree.attrs)
    for name in sorted(netcdf.ATTRIBUTES | optional):
        try:
            getattr(fit, name)
            sound = {
                "covariance_type": lambda: fit.covariance_type in COVARIANCE_STRUCTURES,
                "n_components": lambda: fit.n_components == fit.posterior.sizes[COMPONENT],
                "stacking": lambda: bool(words.stacking_words(fit.stacking)),
                "alignment": lambda: (
                    bool(words.alignment_words(fit.alignment)) and NUMBERING in fit.sample_stats
                ),
            }.get(name, lambda: True)()
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise FileFormatError(
                f"{source} is damaged: its attribute {name} is not what GMMFit.save wrote; "
                "save the fit again"
            )

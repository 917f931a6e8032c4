"""ManyFits: the posteriors of many data sets, each a GMMFit when it is asked for."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_bayes._validation import Table
from gmm_bayes._vocabulary import CORRELATION_CHOLESKY, MEANS, SCALES, WEIGHTS
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES, CovarianceStructure
from gmm_bayes.inference.batch.sampling import ManyDraws
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.result.tree import label_draws
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.inference.sampling.problem import Draws
from gmm_bayes.inference.verdict.agreement import agreement_of_sets, label_free_draws
from gmm_bayes.inference.verdict.diagnosis import THRESHOLDS, record_verdict
from gmm_bayes.inference.verdict.measures import e_bfmi
from gmm_bayes.model.priors import PriorArrays

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DataSet", "ManyFits"]

# Sets whose chains are judged together.
_CHUNK = 16


@dataclass(frozen=True)
class DataSet:
    """One of the data sets: its rows, its prior in the user's units, and its standard units."""

    name: Hashable
    table: Table
    prior: PriorArrays
    units: Standardization


@dataclass(frozen=True, eq=False)
class ManyFits:
    """The posteriors of many data sets.

    `fits[name]` is the `GMMFit` of one data set, `len(fits)` their number, and a loop goes through
    them in order. A `GMMFit`, with draws of shapes (chain, draw, ...) in the units of its data, is
    built and diagnosed when it is asked for.

    Parameters
    ----------
    sets : list of DataSet
    draws : ManyDraws
        In standard units of each set.
    spec : ModelSpec
    sampler : NUTS
    attributes : callable
        Makes the attributes of one fit's tree from its draws and its number.
    """

    sets: list[DataSet]
    draws: ManyDraws
    spec: ModelSpec
    sampler: NUTS
    attributes: Callable[[Draws, int], dict[str, Any]]

    @property
    def names(self) -> list[Hashable]:
        """Names of the data sets: keys of the dictionary that was given, or 0, 1, ..."""
        return [one.name for one in self.sets]

    def __len__(self) -> int:
        return len(self.sets)

    def __iter__(self) -> Iterator[GMMFit]:
        return (self._fit(i) for i in range(len(self)))

    def __getitem__(self, name: Hashable) -> GMMFit:
        """One fit, by the name of its data set.

        Raises
        ------
        KeyError
            If there is no such data set.
        """
        if name not in self._places:
            raise KeyError(f"there is no data set {name!r}; fits.names lists them")
        return self._fit(self._places[name])

    def table(self) -> "pd.DataFrame":
        """One line per data set: whether its chains may be believed, and what they say.

        Returns
        -------
        pandas.DataFrame
            `n_obs`; `ok`: nothing was found against the chains; `rhat` and `ess_bulk`, rank-
            normalised, the worst over the log-likelihood, the log joint, the sorted weights and the
            mean and covariance of the mixture; `n_divergences`, `n_max_tree_depth`, `e_bfmi` (the
            smallest); `adapted`: whether chains ran in the coordinates of the normal approximation;
            `n_gradients`; and posterior means of the sorted weights, `weight_0` the largest.
            `diagnose(fits[name])` looks further: at tails, at single parameters and at labels.
        """
        return self._table.copy()

    @cached_property
    def _table(self) -> "pd.DataFrame":
        import pandas as pd

        chunks = [slice(i, i + _CHUNK) for i in range(0, len(self), _CHUNK)]
        found = [self._judge(chunk) for chunk in chunks]
        joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        stats, t = self.draws.stats, THRESHOLDS
        columns = {
            "n_obs": [len(one.table.values) for one in self.sets],
            "rhat": joined["rhat"],
            "ess_bulk": joined["ess_bulk"],
            "n_divergences": stats["diverging"].sum(axis=(1, 2)),
            "n_max_tree_depth": (stats["n_steps"] >= self.sampler.longest_trajectory).sum((1, 2)),
            "e_bfmi": [e_bfmi(energy).min() for energy in stats["energy"]],
            "adapted": self.draws.facts["adapted"],
            "n_gradients": self.draws.facts["n_gradients"],
            **{f"weight_{k}": w for k, w in enumerate(joined["weights"].T)},
        }
        frame = pd.DataFrame(columns, index=pd.Index(self.names, name="data set"))
        # In this order, a NaN is not ok.
        ok = (frame["rhat"] <= t["rhat"]) & (frame["e_bfmi"] >= t["e_bfmi"])
        ok &= frame["ess_bulk"] >= t["ess_per_chain"] * self.sampler.num_chains
        ok &= (frame["n_divergences"] == 0) & (frame["n_max_tree_depth"] == 0)
        frame.insert(1, "ok", ok)
        return frame

    @cached_property
    def _places(self) -> dict[Hashable, int]:
        return {name: i for i, name in enumerate(self.names)}

    @property
    def _structure(self) -> CovarianceStructure:
        return COVARIANCE_STRUCTURES[self.spec.covariance_type]

    def _judge(self, chunk: slice) -> dict[str, np.ndarray]:
        """How the chains of some sets agree, and the means of their sorted weights."""
        sites = self.draws.sites_of(chunk)
        stats = {name: values[chunk] for name, values in self.draws.stats.items()}
        n_features = sites[MEANS].shape[-1]
        tril = self._structure.scale_tril(
            sites[SCALES], sites.get(CORRELATION_CHOLESKY), self.spec.n_components, n_features
        )
        values = label_free_draws(sites, tril @ np.swapaxes(tril, -1, -2), stats)
        found = agreement_of_sets(values)
        weights = -np.sort(-sites[WEIGHTS], axis=-1).mean(axis=(1, 2))
        return {**found._asdict(), "weights": weights}

    def _fit(self, i: int) -> GMMFit:
        one, draws = self.sets[i], self.draws
        stats = {name: values[i] for name, values in draws.stats.items()}
        known = {name: values[i].item() for name, values in draws.facts.items()}
        # Where there is no normal approximation, there is no departure from it.
        facts = {name: value for name, value in known.items() if value == value}
        facts["preconditioning"] = "laplace" if facts.pop("adapted") else "none"
        facts["chain_method"] = "many data sets together"
        # Of the whole run: a set's own share is not known.
        seconds = {name: value / len(self) for name, value in draws.seconds.items()}
        single = Draws(draws.sites_of(i), stats, facts, seconds)
        tree = label_draws(single, one.table, one.prior, one.units, self._structure)
        tree.attrs = self.attributes(single, i)
        fit = GMMFit(tree)
        record_verdict(fit)
        return fit

    def __repr__(self) -> str:
        ok = int(self._table["ok"].sum())
        return (
            f"ManyFits: {len(self)} data sets, {self.spec.n_components} components, "
            f"{self.spec.covariance_type} covariances; {ok} may be believed, see .table()"
        )

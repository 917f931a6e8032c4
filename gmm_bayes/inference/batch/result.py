"""ManyFits: the posteriors of many data sets, each a GMMFit when it is asked for."""

import json
import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_bayes._vocabulary import CORRELATION_CHOLESKY, MEANS, SCALES, WEIGHTS
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES, CovarianceStructure
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference.batch import store
from gmm_bayes.inference.batch.draws import ManyDraws
from gmm_bayes.inference.batch.store import DataSet
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.result.tree import label_draws
from gmm_bayes.inference.sampling.problem import Draws
from gmm_bayes.inference.sampling.registry import restore_sampler
from gmm_bayes.inference.sampling.sampler import Sampler
from gmm_bayes.inference.verdict.agreement import agreement_of_sets, label_free_draws
from gmm_bayes.inference.verdict.diagnosis import THRESHOLDS, record_verdict
from gmm_bayes.inference.verdict.measures import e_bfmi

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ManyFits", "index_of"]

# Sets whose chains are judged together.
_CHUNK = 16
# Of each chain: with fewer there is nothing to describe.
_FEWEST_DRAWS = 4


@dataclass(frozen=True, eq=False)
class ManyFits:
    """The posteriors of many data sets.

    `fits[name]` is the `GMMFit` of one data set, `len(fits)` their number, and a loop goes through
    them in order. A `GMMFit`, with draws of shapes (chain, draw, ...) in the units of its data, is
    built and diagnosed when it is asked for; where hardly a draw was made within the budget, that
    is an InferenceError. `save` keeps all of them in one file, which `load`
    reads; they can be pickled too.

    Parameters
    ----------
    sets : list of DataSet
    draws : ManyDraws
        In standard units of each set.
    spec : ModelSpec
    attributes : dict
        Those of every fit's tree: strings and integers.
    """

    sets: list[DataSet]
    draws: ManyDraws
    spec: ModelSpec
    attributes: dict[str, Any]

    @cached_property
    def sampler(self) -> Sampler:
        """The settings of the sampler."""
        return restore_sampler(json.loads(self.attributes["sampler"]))

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

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one netCDF file, whole or not at all; `load` reads it.

        Parameters
        ----------
        path : path
            Target; an existing file is replaced.

        Returns
        -------
        pathlib.Path
            The target.

        Raises
        ------
        OSError
            If the directory is missing, read-only or too full. The draws stay in memory.
        TypeError
            If a set's name is neither text, a number, a date nor a tuple of these.
        """
        return store.write(self.sets, self.draws, self.attributes, Path(path))

    def table(self) -> "pd.DataFrame":
        """One line per data set: whether its draws may be believed, and what they say.

        Returns
        -------
        pandas.DataFrame
            `n_obs`; `ok`: nothing was found against the draws; `rhat` and `ess_bulk`, rank-
            normalised, the worst over the log-likelihood, the log joint, the sorted weights and the
            mean and covariance of the mixture; `n_divergences`, `n_max_tree_depth`, `e_bfmi` (the
            smallest); `adapted`: whether chains ran in the coordinates of the normal approximation;
            `n_gradients`; `n_draws`, of each chain, fewer than asked for where the budget ended;
            and posterior means of the sorted weights, `weight_0` the largest. Of `Laplace`, `ok`
            rests on `pareto_k` and `importance_ess`, and there is nothing about chains.
            `diagnose(fits[name])` looks further: at tails, at single parameters and at labels.
        """
        return self._table.copy()

    @cached_property
    def _table(self) -> "pd.DataFrame":
        import pandas as pd

        chunks = [slice(i, i + _CHUNK) for i in range(0, len(self), _CHUNK)]
        found = [self._judge(chunk) for chunk in chunks]
        joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        judge = {"chains": self._of_chains, "weights": self._of_weights}[self.sampler.judged_by]
        ok, columns = judge(joined)
        columns = {
            "n_obs": [len(one.table.values) for one in self.sets],
            "ok": ok & (self.draws.facts["n_draws"] == self.sampler.num_samples),
            **columns,
            "n_gradients": self.draws.facts["n_gradients"],
            "n_draws": self.draws.facts["n_draws"],
            **{f"weight_{k}": w for k, w in enumerate(joined["weights"].T)},
        }
        return pd.DataFrame(columns, index=index_of(self.names))

    def _of_chains(self, joined: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
        """Whether chains may be believed, and the columns that say so."""
        stats, t = self.draws.stats, THRESHOLDS
        columns = {
            "rhat": joined["rhat"],
            "ess_bulk": joined["ess_bulk"],
            "n_divergences": stats["diverging"].sum(axis=(1, 2)),
            "n_max_tree_depth": (stats["n_steps"] >= self.sampler.longest_trajectory).sum((1, 2)),
            "e_bfmi": np.array([e_bfmi(energy).min() for energy in stats["energy"]]),
            "adapted": self.draws.facts["adapted"],
        }
        # In this order, a NaN is not ok.
        ok = (columns["rhat"] <= t["rhat"]) & (columns["e_bfmi"] >= t["e_bfmi"])
        ok &= columns["ess_bulk"] >= t["ess_per_chain"] * self.sampler.num_chains
        ok &= (columns["n_divergences"] == 0) & (columns["n_max_tree_depth"] == 0)
        return ok, columns

    def _of_weights(self, joined: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
        """Whether weighted draws may be believed, and the columns that say so."""
        columns = {name: self.draws.facts[name] for name in ("pareto_k", "importance_ess")}
        ok = columns["pareto_k"] <= THRESHOLDS["pareto_k"]
        return ok & (columns["importance_ess"] >= THRESHOLDS["ess_per_chain"]), columns

    @cached_property
    def _places(self) -> dict[Hashable, int]:
        return {name: i for i, name in enumerate(self.names)}

    @property
    def _structure(self) -> CovarianceStructure:
        return COVARIANCE_STRUCTURES[self.spec.covariance_type]

    def _judge(self, chunk: slice) -> dict[str, np.ndarray]:
        """How the chains of some sets agree, and the means of their sorted weights."""
        # Draws that were not made are not numbers, and what is made of them is not either.
        with np.errstate(invalid="ignore"):
            return self._agreement(chunk)

    def _agreement(self, chunk: slice) -> dict[str, np.ndarray]:
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
        n_draws = int(draws.facts["n_draws"][i])
        if n_draws < min(_FEWEST_DRAWS, self.sampler.num_samples):
            raise InferenceError(
                f"there are {n_draws} draws of data set {one.name!r}: {self._why_none}. Fit it by "
                "itself, fit(table, ...), with fewer components or other priors"
            )
        stats = {name: values[i, :, :n_draws] for name, values in draws.stats.items()}
        known = {name: values[i].item() for name, values in draws.facts.items()}
        # Where there is no normal approximation, there is no departure from it.
        facts = {name: value for name, value in known.items() if value == value}
        if facts.pop("n_draws") < self.sampler.num_samples:
            facts["stopped"] = "its chains had taken their budget of gradients"
        if self.sampler.judged_by == "weights":
            facts["chain_method"] = "independent draws"
        else:
            facts["preconditioning"] = "laplace" if facts.pop("adapted") else "none"
            facts["chain_method"] = "many data sets together"
        # Of the whole run: a set's own share is not known.
        seconds = {name: value / len(self) for name, value in draws.seconds.items()}
        single = Draws(draws.sites_of(i), stats, facts, seconds)
        tree = label_draws(single, one.table, one.prior, one.units, self._structure)
        run = {"run": json.dumps(facts), "timings": json.dumps(seconds)}
        tree.attrs = {**self.attributes, **run}
        fit = GMMFit(tree)
        record_verdict(fit)
        return fit

    @property
    def _why_none(self) -> str:
        if self.sampler.judged_by == "weights":
            return "the log density has no finite curvature at its mode"
        return "its chains had taken their budget of gradients by then"

    def __repr__(self) -> str:
        ok = int(self._table["ok"].sum())
        return (
            f"ManyFits: {len(self)} data sets, {self.spec.n_components} components, "
            f"{self.spec.covariance_type} covariances; {ok} may be believed, see .table()"
        )


def index_of(names: Sequence[Hashable]) -> "pd.Index":
    """The index of the table: as many levels as the names have parts, if all are tuples of those.

    Other tuples stay whole: pandas would take them for rows of levels, and have none for the rest.
    """
    import pandas as pd

    lengths = {len(name) if isinstance(name, tuple) else None for name in names}
    if lengths <= {None}:
        return pd.Index(list(names), name="data set")
    if len(lengths) == 1 and lengths != {0}:
        return pd.MultiIndex.from_tuples(list(names))
    return pd.Index(list(names), name="data set", tupleize_cols=False)

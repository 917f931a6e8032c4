"""Where the chains of a run begin: in the mode of most mass that is found, and in others."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gmm_bayes._vocabulary import AUTO, SURVEY
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.arguments import Arguments
from gmm_bayes.inference.em.starts import em_start, integer_seed, match_to_prior, some_rows
from gmm_bayes.inference.modes.survey import are_worth_chains, facts, find_modes, mixtures_of
from gmm_bayes.inference.potential import Data, log_prior
from gmm_bayes.inference.rows.placement import agree, agree_on_record
from gmm_bayes.model.centres import few_threads
from gmm_bayes.model.priors import PriorArrays

__all__ = ["Search"]


class Search:
    """The search for the starts of one run.

    Parameters
    ----------
    arguments : Arguments
    prior : PriorArrays
        In standard units.
    rows_per_block : int
    mesh : Mesh, optional

    Attributes
    ----------
    X : ndarray, shape (rows, D)
        Rows that are looked at, in standard units.
    looked_for : dict
        What is recorded of the search, once there has been one.
    """

    def __init__(
        self, arguments: Arguments, prior: PriorArrays, rows_per_block: int, mesh: Mesh | None
    ) -> None:
        self._arguments, self._prior, self._mesh = arguments, prior, mesh
        self._rows_per_block, self._seed = rows_per_block, integer_seed(arguments.seed)
        values = arguments.table.values
        self.X = arguments.units.apply(values[some_rows(len(values), self._seed)])
        self.looked_for: dict[str, Any] = {}

    def start(self) -> MixtureParameters:
        """The mixture from which the first chain begins, in standard units."""
        init, units = self._arguments.init, self._arguments.units
        if isinstance(init, MixtureParameters):
            matched = self._numbered(units.apply_to_parameters(init))
        else:
            matched = self._best()
        return MixtureParameters(*agree(matched, self._mesh))

    def others(self) -> list[MixtureParameters]:
        """Other modes in which chains should begin, in standard units."""
        survey = self.looked_for.get(SURVEY, {"modes": []})
        modes = mixtures_of(survey, self._arguments.units)
        worth = np.flatnonzero(are_worth_chains(survey))[1:]
        return [modes[i] for i in worth]

    def _best(self) -> MixtureParameters:
        """The mode of most mass; where there is none, the solution of EM."""
        arguments, X = self._arguments, self.X
        spec, n_obs = arguments.spec, arguments.n_obs
        assert not isinstance(arguments.init, MixtureParameters)
        found = em_start(X, spec, init=arguments.init, n_init=arguments.n_init, seed=self._seed)
        if not arguments.survey:
            return self._numbered(found.best)
        weights = np.full(len(X), n_obs / len(X))
        rows = block_rows(X, rows_per_block=self._rows_per_block, row_weights=weights)
        data = jax.device_put(Data(rows, log_prior(self._prior, spec)))
        # Starts of a kind that is named are all there are.
        regroup = self._seed if arguments.init == AUTO else None
        # Of 83 parameters, beside another process, L-BFGS took 14 s with BLAS' threads, else 5.
        with few_threads(X):
            modes, n_regrouped = find_modes(found, X, self._prior, data, spec, n_obs, seed=regroup)
        n_starts = found.n_starts + n_regrouped
        # Each process looks by itself. Did they find other modes, they would wait for each other.
        own = facts(modes, n_starts, X, arguments.units)
        self.looked_for[SURVEY] = agree_on_record(own, self._mesh)
        if modes and np.isfinite(modes[0].log_mass):
            return modes[0].mixture
        return self._numbered(found.best)

    def _numbered(self, mixture: MixtureParameters) -> MixtureParameters:
        return match_to_prior(mixture, self._prior, self._arguments.n_obs)

"""What ranks of true values among posterior draws say: the record of a calibration."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from gmm_bayes.checking.calibration.uniformity import (
    Band,
    counts_below,
    departure,
    p_values,
    simultaneous_band,
)
from gmm_bayes.model.priors import Priors

__all__ = ["Calibration"]

# Share of simulations whose draws may be too dependent to be ranked among. With a tenth of the
# draws that are ranked, truths of these are at either end up to a tenth too often: with this share
# of them, an ECDF is off by half a hundredth, a tenth of its band at 1000 simulations.
_MOST_DEPENDENT = 0.05
# Nats by which the log joint density of a truth is above that of all draws only when these are of
# another mode. In a mode the best of hundreds of draws are a few nats from the top.
_LARGEST_LEAD = 10.0


def _in_words(adjusted_p: float) -> str:
    # One minus a probability has no more digits than this.
    return f"adjusted p = {adjusted_p:.2g}" if adjusted_p > 1e-10 else "adjusted p < 1e-10"


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of true values among posterior draws, and what they say.

    Attributes
    ----------
    ranks : pandas.DataFrame, shape (n_simulations, n_quantities)
        How many of `num_ranked` draws lie below the truth, 0 ... num_ranked. Simulations that could
        not be sampled are left out.
    ess : pandas.DataFrame, shape (n_simulations, n_quantities)
        Effective sample size (bulk) of all draws of each quantity.
    facts : pandas.DataFrame, shape (n_simulations, 4)
        By simulation: whether chains ran `adapted` to the normal approximation, their `n_gradients`
        and the number of their `divergences`; `truth_lead`, by how much the log joint density of
        the truth is above the largest of all draws, in nats.
    num_ranked : int
        Draws among which a truth is ranked, taken at equal distances out of all.
    num_simulations : int
        How many were asked for.
    priors : Priors
        From which truths were drawn.
    sampling_priors : Priors
        Which the sampler was given.
    settings : dict
        Sizes, covariance type, sampler and seed.
    probability : float
        Of all ECDFs within their bands when nothing is wrong.
    """

    ranks: pd.DataFrame
    ess: pd.DataFrame
    facts: pd.DataFrame
    num_ranked: int
    num_simulations: int
    priors: Priors
    sampling_priors: Priors
    settings: dict[str, Any]
    probability: float = 0.95

    @property
    def band(self) -> Band:
        """The band of one quantity, so wide that all of them are inside with `probability`."""
        n_simulations, n_quantities = self.ranks.shape
        probability = 1 - (1 - self.probability) / n_quantities
        return simultaneous_band(probability, n_simulations, self.num_ranked)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each quantity.

        Returns
        -------
        pandas.DataFrame, shape (n_quantities, 6)
            `mean_rank` as a share, 0.5 when nothing is wrong; `p_value` of the ECDF by itself;
            `adjusted_p`, times the number of quantities (Bonferroni); `ok`; `finding`, what is
            wrong with the posterior, in words; `min_ess` over the simulations.
        """
        counts = counts_below(self.ranks.to_numpy(), self.num_ranked)
        p = p_values(counts, len(self.ranks))
        adjusted = np.minimum(1.0, p * len(p))
        ok = adjusted > 1 - self.probability
        findings = [
            "" if fine else departure(self.ranks[name].to_numpy(), self.num_ranked)
            for name, fine in zip(self.ranks, ok, strict=True)
        ]
        return pd.DataFrame(
            {
                "mean_rank": self.ranks.mean() / self.num_ranked,
                "p_value": p,
                "adjusted_p": adjusted,
                "ok": ok,
                "finding": findings,
                "min_ess": self.ess.min(),
            },
            index=self.ranks.columns,
        )

    @property
    def num_dependent(self) -> int:
        """Simulations with fewer effective draws of some quantity than `num_ranked`."""
        return int((self.ess < self.num_ranked).any(axis=1).sum())

    @property
    def num_astray(self) -> int:
        """Simulations whose draws are all more than 10 nats below the truth's log joint density.

        Their chains stayed in a mode of next to no mass, and the truth is in another.
        """
        return int((self.facts["truth_lead"] > _LARGEST_LEAD).sum())

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words; empty when nothing is."""
        table = self.table
        words = [
            f"{name}: the posterior is {row.finding} ({_in_words(row.adjusted_p)})"
            for name, row in table[~table["ok"]].sort_values("p_value").iterrows()
        ]
        n_failed = self.num_simulations - len(self.ranks)
        if n_failed:
            words.append(f"{n_failed} of {self.num_simulations} posteriors could not be sampled")
        if self.num_dependent > _MOST_DEPENDENT * len(self.ranks):
            words.append(
                f"{self.num_dependent} of {len(self.ranks)} chains have fewer than "
                f"{self.num_ranked} effective draws (fewest: {self.ess.min(axis=None):.0f}), so "
                "that ranks would be too often extreme even if the sampler were right: run longer "
                "chains (num_samples), or put the centres further apart"
            )
        return words

    @property
    def ok(self) -> bool:
        """Whether all ECDFs are within their bands, and the draws good enough to say so."""
        return not self.problems

    def __repr__(self) -> str:
        s = self.settings
        head = (
            f"Calibration: {len(self.ranks)} simulations of {s['n_obs']} rows, "
            f"{s['n_components']} components, {s['n_features']} features, {s['covariance_type']}"
        )
        smallest = self.table["adjusted_p"].min()
        verdict = (
            f"  ok: {self.ranks.shape[1]} quantities within the {self.probability:.0%} bands "
            f"(smallest {_in_words(smallest)})"
        )
        lines = [head, *([verdict] if self.ok else [f"  {words}" for words in self.problems])]
        lines.append(f"  fewer than {self.num_ranked} effective draws: {self.num_dependent}")
        lines.append(f"  in a mode that is over {_LARGEST_LEAD:g} nats too low: {self.num_astray}")
        return "\n".join(lines)

"""Comparison: the record of a sweep over candidates, and what each criterion can tell apart."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from gmm_bayes._vocabulary import CovarianceType
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.verdict.diagnosis import THRESHOLDS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CRITERIA", "Candidate", "Comparison", "Scores", "comparison", "describe"]

# Each criterion, and whether larger is better.
CRITERIA: Final = {
    "aic": False,
    "bic": False,
    "icl": False,
    "cv": True,
    "loo": True,
    "waic": True,
    "evidence": True,
}


class Candidate(NamedTuple):
    """A mixture that was compared."""

    n_components: int
    covariance_type: CovarianceType


class Scores(NamedTuple):
    """One criterion of all candidates.

    Attributes
    ----------
    values : ndarray, shape (n_candidates,)
        NaN where the criterion does not apply.
    rows : ndarray, shape (n_candidates, n_obs), or None
        The values row by row, where they are sums over rows.
    errors : ndarray, shape (n_candidates,), or None
        Monte-Carlo standard errors, where the values are estimates of that kind.
    """

    values: np.ndarray
    rows: np.ndarray | None = None
    errors: np.ndarray | None = None

    def standard_errors(self) -> np.ndarray | None:
        """Of each value, shape (n_candidates,)."""
        return self.errors if self.rows is None else _of_sums(self.rows)

    def gaps(self, larger_is_better: bool) -> tuple[np.ndarray, np.ndarray]:
        """How much worse each candidate is than the winner, and the standard error of that.

        Values that are sums over rows are compared row by row: neighbouring candidates predict the
        same rows badly, and the error of a difference is far smaller than that of a value.
        """
        worth = self.values if larger_is_better else -self.values
        winner = int(np.nanargmax(worth))
        gaps = worth[winner] - worth
        if self.rows is not None:
            return gaps, _of_sums(self.rows[winner] - self.rows)
        if self.errors is not None:
            together = np.hypot(self.errors, self.errors[winner])
            return gaps, np.where(np.arange(len(gaps)) == winner, 0.0, together)
        return gaps, np.zeros(len(gaps))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Candidates beside each other.

    Attributes
    ----------
    table : pandas.DataFrame, shape (n_candidates, n_columns)
        One line a candidate, indexed by covariance type and number of components: `n_parameters`,
        `log_likelihood` (the largest, nats), `singular` (it has no useful maximum), and for every
        criterion its value, `_se` its standard error where it has one, `_gap` how much worse it is
        than the winner, and `_gap_se` the standard error of that. With posterior fits also
        `believe` (the verdict on the chains) and `pareto_k_high` (share of rows whose `loo` cannot
        be relied on).
    best : dict
        The winner of each criterion, a Candidate (n_components, covariance_type); a criterion that
        applies to none of the candidates has none.
    ties : dict
        For each criterion, every candidate whose gap is within one standard error, the winner
        first. A criterion without a standard error ties with nothing.
    fits : dict
        Candidate -> EMFit.
    posteriors : dict
        Candidate -> GMMFit, where the posterior was asked for.
    criteria : tuple of str
    """

    table: "pd.DataFrame"
    best: dict[str, Candidate]
    ties: dict[str, tuple[Candidate, ...]]
    fits: dict[Candidate, EMFit]
    posteriors: dict[Candidate, GMMFit]
    criteria: tuple[str, ...]

    def _verdicts(self) -> list[str]:
        words = []
        for criterion in self.criteria:
            if criterion not in self.best:
                words.append(f"{criterion}: none, for every candidate is singular")
                continue
            winner = self.best[criterion]
            others = [describe(c) for c in self.ties[criterion] if c != winner]
            tie = f"; no worse within one standard error: {', '.join(others)}" if others else ""
            words.append(f"{criterion}: {describe(winner)}{tie}")
        return words

    def _shown(self) -> "pd.DataFrame":
        columns = ["n_parameters", "log_likelihood"]
        for criterion in self.criteria:
            columns += [criterion, f"{criterion}_gap", f"{criterion}_gap_se"]
        shown = self.table[[c for c in columns if c in self.table]].round(1)
        if self.table["singular"].any():
            shown["singular"] = self.table["singular"]
        return shown

    def __repr__(self) -> str:
        verdicts = [f"  {line}" for line in self._verdicts()]
        return "\n".join(["Comparison", *verdicts, "", self._shown().to_string()])

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self._verdicts())
        return f"<div><strong>Comparison</strong><ul>{lines}</ul>{self._shown().to_html()}</div>"


def describe(candidate: Candidate) -> str:
    """A candidate in two words."""
    return f"{candidate.n_components} {candidate.covariance_type}"


def comparison(
    fits: dict[Candidate, EMFit],
    posteriors: dict[Candidate, GMMFit],
    pareto_k: dict[Candidate, np.ndarray],
    scores: dict[str, Scores],
) -> Comparison:
    """Rank the candidates by every criterion."""
    import pandas as pd

    candidates = list(fits)
    columns: dict[str, Any] = {
        name: [getattr(found, name) for found in fits.values()]
        for name in ("n_parameters", "log_likelihood", "singular")
    }
    best, ties = {}, {}
    for criterion, score in scores.items():
        columns[criterion] = score.values
        if np.isnan(score.values).all():
            columns[f"{criterion}_gap"] = score.values
            continue
        gaps, errors = score.gaps(CRITERIA[criterion])
        own = score.standard_errors()
        if own is not None:
            columns[f"{criterion}_se"] = own
        columns[f"{criterion}_gap"] = gaps
        if own is not None:
            columns[f"{criterion}_gap_se"] = errors
        # What does not apply is not a number, and not at most anything.
        order = [candidates[i] for i in np.argsort(gaps) if gaps[i] <= errors[i]]
        best[criterion], ties[criterion] = order[0], tuple(order)
    if posteriors:
        columns["believe"] = [not posteriors[c].problems for c in candidates]
    if pareto_k:
        high = THRESHOLDS["pareto_k"]
        columns["pareto_k_high"] = [float(np.mean(pareto_k[c] > high)) for c in candidates]
    index = pd.MultiIndex.from_tuples(
        [(c.covariance_type, c.n_components) for c in candidates],
        names=["covariance_type", "n_components"],
    )
    table = pd.DataFrame(columns, index=index)
    return Comparison(table, best, ties, fits, posteriors, tuple(scores))


def _of_sums(rows: np.ndarray) -> np.ndarray:
    """Standard error of sums over rows that were drawn independently (Vehtari et al. 2017)."""
    return np.sqrt(rows.shape[-1] * rows.var(axis=-1, ddof=1))

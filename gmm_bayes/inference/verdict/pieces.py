"""Do the chains of one piece of a posterior agree? Judged before the pieces are put together."""

import numpy as np

from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.verdict.agreement import agreement_of_sets, label_free_draws
from gmm_bayes.inference.verdict.measures import e_bfmi

__all__ = ["judge_piece"]


def judge_piece(
    sites: dict[str, np.ndarray],
    covariances: np.ndarray,
    stats: dict[str, np.ndarray],
    num_superchains: int | None,
) -> dict[str, float | None]:
    """The worst R-hat of label-free quantities, and the least E-BFMI; None for what is not known.

    Parameters
    ----------
    sites, stats : dict of ndarray, shape (num_chains, num_samples, ...)
    covariances : ndarray, shape (num_chains, num_samples, K, D, D)
    num_superchains : int, optional
        Where chains are groups that began at one point each.
    """
    values = label_free_draws(sites, covariances, stats)
    energy = stats.get("energy")
    return {
        "rhat": _number(_rhat(values, num_superchains)),
        "e_bfmi": None if energy is None else _number(e_bfmi(energy, num_superchains).min()),
    }


def _rhat(values: np.ndarray, num_superchains: int | None) -> float:
    if num_superchains is not None:
        by_quantity = np.moveaxis(values, 2, 0)
        moving = by_quantity[np.ptp(by_quantity, axis=(1, 2)) > 0]
        return float(arviz_bridge.nested_rhat(moving, num_superchains).max())
    if len(values) == 1:
        # Of a single chain that of its halves.
        values = np.concatenate(np.array_split(values[:, : values.shape[1] // 2 * 2], 2, axis=1))
    return float(agreement_of_sets(values[None]).rhat[0])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

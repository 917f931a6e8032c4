"""Which modes chains came to, by what mixtures say of some rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gmm_bayes.core.draws import log_density_and_entropy
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.modes.draws import every, mixtures_of_draws
from gmm_bayes.inference.sampling.problem import Draws, Problem

__all__ = ["Chain", "Nearest", "came_to", "counted", "pieces_of", "speaking"]

# Share of a chain's draws that are nearest to a mode where the chain has come to it.
_PRESENT = 0.05
# Rows by which mixtures are compared, and draws that are: of all chains, and at least of each.
_ROWS, _MATCHED_DRAWS, _MATCHED_OF_EACH = 128, 400, 20


class Chain(NamedTuple):
    """A chain.

    Attributes
    ----------
    began : int
        The mode.
    draws : Draws, of shape (1, num_samples, ...)
    came_to : ndarray of bool, shape (n_modes,)
    whole : bool
        Whether it is as long as those of the run, and not there to show where it goes.
    """

    began: int
    draws: Draws
    came_to: np.ndarray
    whole: bool = True


class Nearest(NamedTuple):
    """Which mode a mixture is nearest to, by the log densities of some rows."""

    rows: np.ndarray
    log_density: np.ndarray

    @classmethod
    def of(cls, modes: list[MixtureParameters], X: np.ndarray) -> "Nearest":
        """Compare with these modes, on some of the rows (rows, D)."""
        rows = X[np.unique(np.linspace(0, len(X) - 1, _ROWS).astype(int))]
        stacked = (np.stack(arrays) for arrays in zip(*modes, strict=True))
        return cls(rows, log_density_and_entropy(rows, *stacked)[0])

    def mode(self, mixtures: MixtureParameters) -> np.ndarray:
        """The number of a mode for each of the mixtures (S, ...)."""
        found, _ = log_density_and_entropy(self.rows, *mixtures)
        apart = np.stack([((found - one) ** 2).mean(axis=1) for one in self.log_density])
        return np.nan_to_num(apart, nan=np.inf).argmin(axis=0)

    def chains(
        self, problem: Problem, draws: Draws, began: Sequence[int], *, whole: bool = True
    ) -> list[Chain]:
        """The chains of a run, and the modes that each came to."""
        n_chains, n_draws = draws.stats["potential"].shape
        step = max(1, n_draws // max(_MATCHED_OF_EACH, _MATCHED_DRAWS // n_chains))
        found = []
        for c in range(n_chains):
            some = every(draws, slice(c, c + 1), step)
            modes = self.mode(mixtures_of_draws(problem, some))
            share = np.bincount(modes, minlength=len(self.log_density)) / len(modes)
            own = every(draws, slice(c, c + 1))
            found.append(Chain(int(began[c]), own, share >= _PRESENT, whole))
        return found


def pieces_of(chains: list[Chain]) -> list[list[Chain]]:
    """Chains that came to a mode in common, or are linked by others that did."""
    left, pieces = list(chains), []
    while left:
        piece = [left.pop(0)]
        while more := [chain for chain in left if _meet(chain, piece)]:
            piece += more
            left = [chain for chain in left if not any(chain is one for one in more)]
        pieces.append(piece)
    return pieces


def counted(chains: list[Chain]) -> list[Chain]:
    """Chains without the short ones from a mode where whole ones have begun: those say more."""
    begun = {chain.began for chain in chains if chain.whole}
    return [chain for chain in chains if chain.whole or chain.began not in begun]


def speaking(piece: list[Chain]) -> list[Chain]:
    """The whole chains of a piece, if there are any, by which it is weighed and judged."""
    return [chain for chain in piece if chain.whole] or piece


def _meet(chain: Chain, piece: list[Chain]) -> bool:
    """Whether a chain came to a mode that one of the others came to."""
    return any((chain.came_to & other.came_to).any() for other in piece)


def came_to(chains: list[Chain]) -> np.ndarray:
    """Modes that any of the chains came to."""
    return np.any([chain.came_to for chain in chains], axis=0)

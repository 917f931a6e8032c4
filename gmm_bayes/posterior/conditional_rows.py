"""What is not known of many rows: the conditional mixture of each, one at a time."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from gmm_bayes._validation import check_integer, check_probability
from gmm_bayes._vocabulary import FEATURE, OBS
from gmm_bayes.errors import DataWarning
from gmm_bayes.posterior.conditional_mixture import ConditionalMixture

__all__ = ["ConditionalRows", "warn_of_few_draws"]

# Fewer draws that count than this give a rough answer.
_FEW_DRAWS = 20


@dataclass(frozen=True, eq=False)
class ConditionalRows:
    """The posterior of the remaining features of rows whose other features are known.

    `rows[i]` is the `ConditionalMixture` of the i-th row; so it goes in a loop. They are made when
    they are asked for: all of them together would be large.

    Attributes
    ----------
    known : tuple of str
        The known features, in the order of the fit.
    feature_names : tuple of str
        The remaining ones, in the order of the fit.
    values : ndarray, shape (n_obs, n_known)
        The known values, in the units of the data.
    index : ndarray, shape (n_obs,)
        Row labels of the frame.
    at : callable
        Makes the conditional mixture of the values of a row.
    """

    known: tuple[str, ...]
    feature_names: tuple[str, ...]
    values: np.ndarray
    index: np.ndarray
    at: Callable[[np.ndarray], ConditionalMixture]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> ConditionalMixture:
        return self.at(self.values[i])

    def __iter__(self) -> Iterator[ConditionalMixture]:
        return map(self.at, self.values)

    def mean(self) -> xr.DataArray:
        """Mean of each remaining feature of each row, dims (obs, feature), in their units.

        Warns
        -----
        DataWarning
            If some rows are so unusual that few draws predict them well and carry the answer.
        """
        values = self._of_each(lambda row: row.mean().values)
        return xr.DataArray(values, self._coords(), (OBS, FEATURE), name="mean")

    def interval(self, probability: float = 0.9) -> xr.Dataset:
        """Equal-tailed predictive interval of each remaining feature of each row.

        Parameters
        ----------
        probability : float
            That a value lies inside.

        Returns
        -------
        xarray.Dataset
            `lower` and `upper`, dims (obs, feature), in the units of the data.
        """
        check_probability(probability, "probability")

        def both(row: ConditionalMixture) -> np.ndarray:
            found = row.interval(probability)
            return np.stack([found["lower"].values, found["upper"].values])

        lower, upper = self._of_each(both).swapaxes(0, 1)
        columns = {"lower": ((OBS, FEATURE), lower), "upper": ((OBS, FEATURE), upper)}
        return xr.Dataset(columns, self._coords())

    def sample(self, n_draws: int = 1, *, seed: int = 0) -> xr.DataArray:
        """Draw values of the remaining features of each row.

        Parameters
        ----------
        n_draws : int
            For each row; each comes from a posterior draw of its own, picked by its share.
        seed : int in [0, 2**32)

        Returns
        -------
        xarray.DataArray
            Dims (sample, obs, feature), in the units of the data.
        """
        n_draws = check_integer(n_draws, "n_draws", 1)
        words = np.random.SeedSequence(check_integer(seed, "seed", 0))
        seeds = iter(words.generate_state(len(self), dtype=np.uint32))
        values = self._of_each(lambda row: row.sample(n_draws, seed=int(next(seeds))).values)
        return xr.DataArray(values, self._coords(), (OBS, "sample", FEATURE), name="X").transpose(
            "sample", OBS, FEATURE
        )

    def __repr__(self) -> str:
        return (
            f"ConditionalRows of {', '.join(self.feature_names)} given {', '.join(self.known)}: "
            f"{len(self)} row{'s' * (len(self) != 1)}"
        )

    def _of_each(self, what: Callable[[ConditionalMixture], np.ndarray]) -> np.ndarray:
        answers, rough = [], []
        for i, row in enumerate(self):
            answers.append(what(row))
            if _is_rough(row):
                rough.append(i)
        if rough:
            labels = ", ".join(str(self.index[i]) for i in rough[:5]) + ", ..." * (len(rough) > 5)
            warnings.warn(
                f"given is so unusual in {len(rough)} of {len(self)} rows ({labels}) that fewer "
                f"than {_FEW_DRAWS} draws carry their answers: they are rough",
                DataWarning,
                stacklevel=3,
            )
        return np.array(answers)

    def _coords(self) -> dict[str, np.ndarray]:
        return {OBS: self.index, FEATURE: np.array(self.feature_names, dtype=object)}


def warn_of_few_draws(row: ConditionalMixture) -> None:
    """Say at the caller of the public function that an answer rests on few draws."""
    if _is_rough(row):
        warnings.warn(
            f"given is so unusual that {row.effective_draws:.1f} of {len(row.log_draw_weights)} "
            "draws carry the answer: it is rough",
            DataWarning,
            stacklevel=3,
        )


def _is_rough(row: ConditionalMixture) -> bool:
    return row.effective_draws < min(_FEW_DRAWS, len(row.log_draw_weights) / 2)

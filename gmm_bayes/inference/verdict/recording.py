"""Whether components are narrower than the steps in which their columns were recorded."""

from collections.abc import Iterator

import numpy as np

from gmm_bayes._ties import recording_steps
from gmm_bayes._vocabulary import SCALES, WEIGHTS
from gmm_bayes.inference.result.gmm_fit import GMMFit

__all__ = ["narrower_than_recorded"]

# The least share of draws worth a note, and the rows of a component that is not empty.
_SHARE, _ROWS = 0.05, 1.0


def narrower_than_recorded(fit: GMMFit) -> Iterator[str]:
    """A note on each column in which a component is narrower than the recording.

    The model takes values as exact. The density of equal ones grows without bound where a component
    narrows on them, so that its width is then said by the rounding and the prior.
    """
    steps = recording_steps(fit.X.values)
    if not steps.any():
        return
    weights, scales = (
        fit.posterior[name].values.reshape(-1, *fit.posterior[name].shape[2:])
        for name in (WEIGHTS, SCALES)
    )
    scales = fit.structure.spread_scales(scales, fit.n_components, fit.n_features)
    occupied = weights * fit.n_obs >= _ROWS
    for column in np.flatnonzero(steps):
        narrow = ((scales[..., column] < steps[column]) & occupied).mean(axis=0)
        k = int(narrow.argmax())
        if narrow[k] > _SHARE:
            yield (
                f"column {fit.feature_names[column]!r} has equal values and steps of "
                f"{steps[column]:.3g} between others, and component {k} is narrower than a step in "
                f"{narrow[k]:.0%} of draws: the model takes values as exact, so this width comes "
                "from the rounding and the prior"
            )

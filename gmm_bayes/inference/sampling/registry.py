"""The samplers, by the name under which a result's file knows them."""

from collections.abc import Mapping
from typing import Any

from gmm_bayes.inference.sampling.chees import ChEES
from gmm_bayes.inference.sampling.laplace import Laplace
from gmm_bayes.inference.sampling.nuts import NUTS

__all__ = ["SAMPLERS", "Sampler", "restore_sampler"]

# By the name under which a result's file knows them.
SAMPLERS: dict[str, type["Sampler"]] = {"NUTS": NUTS, "Laplace": Laplace, "ChEES": ChEES}
Sampler = NUTS | Laplace | ChEES


def restore_sampler(settings: Mapping[str, Any]) -> Sampler:
    """Return the sampler of which these are the settings, and its `kind`."""
    values = dict(settings)
    # Results of the first version were all made by NUTS and do not say so.
    return SAMPLERS[values.pop("kind", "NUTS")](**values)

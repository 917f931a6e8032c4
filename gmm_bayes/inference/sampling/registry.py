"""The samplers there are: what `fit`, job files, the estimator and a result's file choose from."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from gmm_bayes.inference.sampling.chees import ChEES
from gmm_bayes.inference.sampling.laplace import Laplace
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.inference.sampling.sampler import Sampler

__all__ = [
    "SAMPLERS",
    "by_option",
    "check_sampler",
    "register",
    "restore_sampler",
    "stored_sampler",
]

Kind = TypeVar("Kind", bound=type[Sampler])

# By the name under which a result's file knows them; the first is the default.
SAMPLERS: dict[str, type[Sampler]] = {}


def register(kind: Kind) -> Kind:
    """Let a sampler be chosen by its name, as a decorator of its class."""
    SAMPLERS[kind.__name__] = kind
    return kind


for _kind in (NUTS, ChEES, Laplace):
    register(_kind)


def by_option() -> dict[str, type[Sampler]]:
    """The samplers by their names in job files and for the estimator: in small letters."""
    return {name.lower(): kind for name, kind in SAMPLERS.items()}


def check_sampler(sampler: Any, call: str = "(...)", *, many: bool = False) -> Any:
    """Return a sampler, of None the default one.

    Parameters
    ----------
    sampler : Any
    call : str
        How a message has the names that it lists end.
    many : bool
        Whether it must sample many data sets in one program.

    Raises
    ------
    TypeError, ValueError
        If it is none that is registered, or one that cannot sample many data sets.
    """
    if sampler is None:
        return next(iter(SAMPLERS.values()))()
    fitting = {name: kind for name, kind in SAMPLERS.items() if kind.can_batch or not many}
    if type(sampler) not in fitting.values():
        *first, last = (f"{name}{call}" for name in fitting)
        listed = f"{', '.join(first)} or {last}" if first else last
        raise TypeError(f"sampler must be a gmm_bayes.{listed}, got {sampler!r}")
    if many and sampler.crosses_modes:
        raise ValueError("many data sets are not sampled by replicas; leave tempering out")
    return sampler


def stored_sampler(sampler: Sampler) -> dict[str, Any]:
    """Return the settings of a sampler, and its `kind`, for JSON."""
    return {"kind": sampler.kind, **dataclasses.asdict(sampler)}  # type: ignore[call-overload]


def restore_sampler(settings: Mapping[str, Any]) -> Sampler:
    """Return the sampler of which these are the settings, and its `kind`."""
    values = dict(settings)
    # Results of the first version were all made by NUTS and do not say so.
    return SAMPLERS[values.pop("kind", NUTS.__name__)](**values)

"""A maximum with one component more is no lower: where it is, it was not found."""

import dataclasses

import numpy as np

from gmm_bayes._tables import Table
from gmm_bayes.checking.candidates import Candidate
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.fit_em import search
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.em.steps import MAXIMA
from gmm_bayes.inference.potential import ModelSpec

__all__ = ["risen", "still_falling"]

# Nats that two maxima of one height may differ by, EM being stopped.
_TOLERANCE = 0.1


def risen(table: Table, fits: dict[Candidate, EMFit]) -> dict[Candidate, EMFit]:
    """The fits, those lower than one of fewer components found again from splits of that one."""
    found: dict[Candidate, EMFit] = {}
    for candidate in sorted(fits, key=lambda c: c.n_components):
        found[candidate] = fits[candidate]
        if _falls(found, candidate):
            parent = found[_smaller(candidate)]
            splits = [
                _search(table, candidate, _split(parent, k)) for k in range(len(parent.means))
            ]
            regular = [fit for fit in splits if not fit.singular]
            best = max([found[candidate], *regular], key=lambda fit: fit.log_likelihood)
            tried = found[candidate].n_starts + len(splits)
            found[candidate] = dataclasses.replace(best, n_starts=tried)
    return {candidate: found[candidate] for candidate in fits}


def still_falling(fits: dict[Candidate, EMFit]) -> list[Candidate]:
    """Candidates whose likelihood is lower than that of one component fewer."""
    return [candidate for candidate in fits if _falls(fits, candidate)]


def _falls(fits: dict[Candidate, EMFit], candidate: Candidate) -> bool:
    smaller = fits.get(_smaller(candidate))
    if smaller is None or smaller.singular:
        return False
    return fits[candidate].log_likelihood < smaller.log_likelihood - _TOLERANCE


def _smaller(candidate: Candidate) -> Candidate:
    return candidate._replace(n_components=candidate.n_components - 1)


def _search(table: Table, candidate: Candidate, start: MixtureParameters) -> EMFit:
    spec = ModelSpec(candidate.n_components, candidate.covariance_type)
    return search(table, None, spec, MAXIMA, init=start, n_init=None, seed=0)


def _split(fit: EMFit, component: int) -> MixtureParameters:
    """One component in two equal halves, moved apart a little along its longest axis."""
    weights, means, tril = fit.parameters
    longest = np.linalg.svd(tril[component])
    step = 0.5 * longest.S[0] * longest.U[:, 0]
    means = np.concatenate([means, means[[component]] + step])
    means[component] -= step
    weights = np.append(weights, weights[component] / 2)
    weights[component] /= 2
    return MixtureParameters(weights, means, np.concatenate([tril, tril[[component]]]))

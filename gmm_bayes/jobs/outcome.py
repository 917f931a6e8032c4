"""What a job came to."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gmm_bayes.inference.result.gmm_fit import GMMFit
    from gmm_bayes.inference.verdict.diagnosis import Diagnosis

__all__ = ["Outcome"]


@dataclass
class Outcome:
    """What a job came to.

    Attributes
    ----------
    fit : GMMFit
    diagnosis : Diagnosis
    seconds : dict
        By phase.
    files : list of str
        Names of what was written.
    left_out : dict
        Reasons, by name, for what was not written.
    """

    fit: "GMMFit"
    diagnosis: "Diagnosis"
    seconds: dict[str, float]
    files: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

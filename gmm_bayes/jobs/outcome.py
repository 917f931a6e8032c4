"""What a job came to."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gmm_bayes.inference.result.gmm_fit import GMMFit
    from gmm_bayes.inference.verdict.diagnosis import Diagnosis
    from gmm_bayes.posterior.partitions.partition import Partition

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
    partition : Partition or None
        That closest to all draws, where the job makes one.
    anomalies : dict or None
        How many rows are `flagged`, and the `threshold` (nats) of their log density.
    """

    fit: "GMMFit"
    diagnosis: "Diagnosis"
    seconds: dict[str, float]
    files: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    partition: "Partition | None" = None
    anomalies: dict[str, float] | None = None

"""The sections of a job file that say what is made of the draws."""

from typing import Literal

from pydantic import Field, model_validator

from gmm_bayes.jobs.job_file.fields import Inside, Section
from gmm_bayes.posterior.strangers import Reject

__all__ = ["AnomaliesSection", "LabelsSection", "OutputSection"]


class LabelsSection(Section):
    """`[labels]`: what is done where components changed places between draws.

    Parameters
    ----------
    align : {"ecr", "stephens", "means", "none"}, default "ecr"
        The rule of `gmm_bayes.align_labels` by which they are renumbered; "none" leaves them as
        they were sampled, and out what depends on their numbers.
    """

    align: Literal["ecr", "stephens", "means", "none"] = "ecr"


class AnomaliesSection(Section):
    """`[anomalies]`: which rows are flagged, by the rules of `gmm_bayes.flag_anomalies`.

    Parameters
    ----------
    contamination : number, optional
        Share of the rows that are taken to be strange: those of least density.
    threshold : number, optional
        Instead of that, the log density (nats) below which a row is strange.
    min_responsibility : number, optional
        Rows whose most probable component is less probable than this are flagged too.
    min_weight : number, optional
        Rows that more probably than not came from a component of smaller weight than this, too.
    """

    contamination: float | None = None
    threshold: float | None = None
    min_responsibility: float | None = None
    min_weight: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """The rules that the file sets; none if no rows are to be flagged."""
        return self.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _possible(self) -> "AnomaliesSection":
        if self.given:
            if (self.contamination is None) == (self.threshold is None):
                got = "neither" if self.contamination is None else "both"
                raise ValueError(f"must have either contamination or threshold, got {got}")
            Reject(**self.given)
        return self


class OutputSection(Section):
    """`[output]`: what is written.

    Parameters
    ----------
    directory : str, default "runs/<name of the job file>"
        Relative to the current directory and inside it.
    plots : bool, default true
        Draw the pictures.
    partition : bool, default true
        Write the one partition of the rows that is closest to all draws (`gmm_bayes.partition`).
        Takes about a millisecond a row.
    groups : list of str, default []
        Groups to add to posterior.nc: "log_likelihood", "prior", "prior_predictive",
        "posterior_predictive".
    """

    directory: Inside = "runs/job"
    plots: bool = True
    partition: bool = True
    groups: list[Literal["log_likelihood", "prior", "prior_predictive", "posterior_predictive"]] = (
        Field(default=[])
    )

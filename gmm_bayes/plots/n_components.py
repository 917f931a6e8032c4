"""How many components: each criterion's distance from its winner, over the candidates."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from gmm_bayes._validation import check_choice
from gmm_bayes.checking.candidates import Comparison
from gmm_bayes.plots.axes import key
from gmm_bayes.plots.style import DATA_COLOUR, component_style

__all__ = ["plot_n_components"]

# Up to here the axis is linear: a difference of a few nats is what one can tell apart.
_LINEAR = 10.0
_TICKS = [0, *(-n * 10**power for power in range(6) for n in (1, 2, 5) if n * 10**power > 1)]
_UNITS = {"aic": "units of AIC", "bic": "units of BIC", "icl": "units of ICL"}


def plot_n_components(
    comparison: Comparison, *, criteria: Sequence[str] | None = None
) -> np.ndarray:
    """Draw how much worse each candidate is than the winner, one panel for each criterion.

    Parameters
    ----------
    comparison : Comparison
    criteria : sequence of str, optional
        Which of the comparison's; None takes all.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (n_criteria,)
        Zero, at the top, is the winner, with a ring. Filled marks are within one standard error of
        it, open ones are not; bars are one standard error of the difference. The axis is linear
        down to -10 and logarithmic below.

    Raises
    ------
    TypeError, ValueError
        If this is no comparison, or it does not have a criterion.
    """
    if not isinstance(comparison, Comparison):
        raise TypeError(
            f"comparison must be a Comparison, got {type(comparison).__name__}; "
            "gmm_bayes.compare_n_components makes one"
        )
    names = comparison.criteria if criteria is None else tuple(criteria)
    for name in names:
        check_choice(name, "criteria", comparison.criteria)
    figure = plt.figure(layout="constrained", figsize=(1.2 + 2.7 * len(names), 3.6))
    panels = np.atleast_1d(figure.subplots(1, len(names), sharex=True))
    for ax, name in zip(panels, names, strict=True):
        _draw(ax, comparison, name)
    types = comparison.table.index.get_level_values("covariance_type").unique()
    handles = [
        key(f"{name} covariances", color=_colour(i), marker=component_style(i).marker)
        for i, name in enumerate(types)
    ]
    look = {"linestyle": "", "marker": "o", "color": DATA_COLOUR}
    handles += [
        key("within one standard error of the winner", **look),
        key("worse than that", markerfacecolor="white", **look),
        key("winner", markersize=11, markerfacecolor="none", **look),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return panels


def _draw(ax: Axes, comparison: Comparison, criterion: str) -> None:
    gaps = comparison.table[f"{criterion}_gap"]
    errors = comparison.table.get(f"{criterion}_gap_se", 0 * gaps)
    tied = {(c.covariance_type, c.n_components) for c in comparison.ties.get(criterion, ())}
    best = comparison.best.get(criterion)
    for i, (kind, values) in enumerate(gaps.groupby(level="covariance_type", sort=False)):
        values = values.droplevel("covariance_type").dropna()
        bars = errors.xs(kind, level="covariance_type")[values.index]
        _draw_line(ax, values, bars, [(kind, k) in tied for k in values.index], i)
        if best is not None and kind == best.covariance_type:
            ax.plot(best.n_components, 0, "o", ms=13, mfc="none", color=_colour(i), gid="winner")
    ax.set_yscale("symlog", linthresh=_LINEAR)
    ax.set_ylim(-np.nanmax([1.3 * gaps.max(), 2.0]), 2.0)
    ax.axhline(0, color="#BBBBBB", linewidth=0.8, zorder=0)
    ax.yaxis.set_major_locator(FixedLocator(_TICKS))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("components")
    ax.set_ylabel(f"behind the winner ({_UNITS.get(criterion, 'nats')})")
    ax.set_title(criterion)


def _draw_line(ax: Axes, gaps: pd.Series, errors: pd.Series, tied: list[bool], i: int) -> None:
    style, filled = component_style(i), np.array(tied, dtype=bool)
    ax.plot(gaps.index, -gaps, color=style.colour, linestyle=style.linestyle, linewidth=1.0)
    ax.errorbar(gaps.index, -gaps, yerr=errors, fmt="none", ecolor=style.colour, elinewidth=1.0)
    for chosen, inside in ((filled, style.colour), (~filled, "white")):
        ax.plot(
            gaps.index[chosen],
            -gaps[chosen],
            linestyle="",
            marker=style.marker,
            color=style.colour,
            markerfacecolor=inside,
            gid="tied" if inside != "white" else "worse",
            zorder=3,
        )


def _colour(i: int) -> str:
    return component_style(i).colour

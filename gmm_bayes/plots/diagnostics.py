"""One page by which a person can judge a fit."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
from scipy.stats import rankdata

from gmm_bayes._vocabulary import CHAIN, DRAW, TOTAL_LOG_LIKELIHOOD
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.verdict.diagnosis import THRESHOLDS, Diagnosis, diagnose
from gmm_bayes.inference.verdict.label_free import label_free_quantities
from gmm_bayes.plots.axes import key
from gmm_bayes.plots.style import DATA_COLOUR, UNSURE_COLOUR, component_style

__all__ = ["plot_diagnostics"]

_BAD = "#B00020"
_GOOD = "#00695C"
_TRACES = {
    "log_likelihood": "log-likelihood (nats)",
    "largest_weight": "largest weight",
    "entropy": "entropy (nats a row)",
}
_POINTS = 500
# Inches of a line of text.
_LINE = 0.17
_BINS = 20
_TEXT_WIDTH = 125
_MOST_TEXT = 12
# R-hat is drawn by its distance from one, on a logarithmic axis.
_RHAT_TICKS = (1.0001, 1.001, 1.01, 1.1, 2.0, 11.0)


def plot_diagnostics(fit: GMMFit) -> dict[str, Axes]:
    """Draw one page by which to judge a fit: do its chains agree, and did they go everywhere?

    Parameters
    ----------
    fit : GMMFit
        Its draws are chains: made by NUTS or ChEES.

    Returns
    -------
    dict of str to matplotlib.axes.Axes
        `trace_*` and `rank_*` of `log_likelihood`, `largest_weight` and `entropy`, one line for
        each chain, which do not depend on how components are numbered; `rhat` and `ess`, a mark for
        each quantity of `diagnose(fit).table`; `chains`, log-likelihoods by chain; `energy`, the
        E-BFMI by chain, shape (num_chains,).

    Raises
    ------
    TypeError, ValueError
        If `fit` is not a GMMFit, or its draws are not chains.

    Notes
    -----
    The verdict of `diagnose` is on top. Ranks are those of a draw among the draws of all chains:
    where chains agree, each has all ranks equally often, within the grey band of two binomial sds
    of independent draws. Marks in red miss their threshold, the dashed line. Filled marks do not
    depend on labels; open ones do, and where labels switched they are not judged.
    """
    check_fit(fit)
    if fit.sampler.judged_by != "chains":
        raise ValueError(
            f"plot_diagnostics must have chains, got draws of {fit.sampler.kind}; diagnose(fit) "
            "judges those"
        )
    found = diagnose(fit)
    lines = _verdict(found)
    figure = plt.figure(figsize=(12.5, 8.2 + _LINE * len(lines)), layout="constrained")
    axes = _layout(figure, len(lines))
    _write(axes.pop("text"), lines, found)
    for row, (name, values) in enumerate(_label_free(fit).items()):
        _draw_trace(axes[f"trace_{name}"], values, _TRACES[name], last=row == len(_TRACES) - 1)
        _draw_ranks(axes[f"rank_{name}"], values, last=row == len(_TRACES) - 1)
    axes["trace_log_likelihood"].set_title("draws, a colour for each chain", fontsize="medium")
    axes["rank_log_likelihood"].set_title("ranks", fontsize="medium")
    table = found.table.iloc[::-1]
    _draw_rhat(axes["rhat"], table, judged=_judged(table, found))
    _draw_ess(axes["ess"], table, _judged(table, found), found.ess_needed)
    _draw_chains(axes["chains"], fit, found)
    _draw_energy(axes["energy"], found, known="energy" in fit.sample_stats)
    return axes


def _layout(figure: Figure, n_lines: int) -> dict[str, Axes]:
    page = figure.add_gridspec(2, 1, height_ratios=[_LINE * n_lines + 0.1, 8])
    body = page[1].subgridspec(3, 3, width_ratios=[2, 1, 1.7])
    axes = {"text": figure.add_subplot(page[0])}
    for row, name in enumerate(_TRACES):
        axes[f"trace_{name}"] = figure.add_subplot(body[row, 0])
        axes[f"rank_{name}"] = figure.add_subplot(body[row, 1])
    axes["rhat"] = figure.add_subplot(body[0, 2])
    axes["ess"] = figure.add_subplot(body[1, 2])
    corner = body[2, 2].subgridspec(1, 2)
    axes["chains"], axes["energy"] = (figure.add_subplot(corner[0, i]) for i in range(2))
    return axes


def _verdict(found: Diagnosis) -> list[str]:
    """The lines of the diagnosis, under the question that they answer."""
    _, *rest = repr(found).splitlines()
    lines = [f"believe it? {found.believe}"]
    for line in rest:
        lines += textwrap.wrap(line, _TEXT_WIDTH, initial_indent="  ", subsequent_indent="      ")
    return lines if len(lines) <= _MOST_TEXT else [*lines[: _MOST_TEXT - 1], "  ... diagnose(fit)"]


def _write(ax: Axes, lines: list[str], found: Diagnosis) -> None:
    ax.set_axis_off()
    colour = _GOOD if found.components_ok else DATA_COLOUR if found.ok else _BAD
    ax.text(0, 1, lines[0], color=colour, weight="bold", va="top", transform=ax.transAxes)
    rest = "\n".join(["", *lines[1:]])
    ax.text(0, 1, rest, va="top", fontsize="small", linespacing=1.35, transform=ax.transAxes)


def _label_free(fit: GMMFit) -> dict[str, np.ndarray]:
    """What is drawn of every draw, shapes (chain, draw)."""
    quantities = label_free_quantities(fit).transpose(CHAIN, DRAW, ...)
    return {
        "log_likelihood": quantities["log_likelihood"].values,
        "largest_weight": quantities["sorted_weights"].values[..., 0],
        "entropy": quantities["entropy"].values,
    }


def _draw_trace(ax: Axes, values: np.ndarray, name: str, *, last: bool) -> None:
    step = -(-values.shape[1] // _POINTS)
    for chain, draws in enumerate(values):
        ax.plot(
            np.arange(len(draws))[::step],
            draws[::step],
            color=component_style(chain).colour,
            linestyle=component_style(chain).linestyle,
            linewidth=0.6,
            alpha=0.8,
            gid=f"chain {chain}",
        )
    ax.set_ylabel(name)
    ax.margins(x=0.01)
    ax.tick_params(labelbottom=last)
    if last:
        ax.set_xlabel("draw" if step == 1 else f"draw (one in {step} shown)")


def _draw_ranks(ax: Axes, values: np.ndarray, *, last: bool) -> None:
    """How often each chain has draws of low, middle and high rank."""
    n_chains, n_draws = values.shape
    ranks = rankdata(values, nan_policy="omit").reshape(values.shape)
    edges = np.linspace(0.5, values.size + 0.5, min(_BINS, n_draws) + 1)
    expected = n_draws / (len(edges) - 1)
    sd = np.sqrt(expected * (1 - 1 / (len(edges) - 1)))
    ax.axhspan(max(expected - 2 * sd, 0), expected + 2 * sd, color="#E4E4E4", zorder=0, gid="band")
    for chain in range(n_chains):
        style = component_style(chain)
        counts = np.histogram(ranks[chain], edges)[0]
        ax.stairs(
            counts,
            edges,
            color=style.colour,
            linestyle=style.linestyle,
            linewidth=1.0,
            gid=f"chain {chain}",
        )
    ax.set_ylim(bottom=0)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylabel("draws")
    ax.tick_params(labelbottom=last)
    if last:
        ax.set_xlabel("rank among all draws")


def _judged(table: pd.DataFrame, found: Diagnosis) -> np.ndarray:
    """Which quantities the verdict rests on."""
    return table["label_free"].to_numpy(bool) | (not found.switched)


def _draw_rhat(ax: Axes, table: pd.DataFrame, judged: np.ndarray) -> None:
    values = table["rhat"].to_numpy(float)
    bad = judged & ~(values <= THRESHOLDS["rhat"])
    # What cannot be computed stands at the far end.
    shown = np.clip(np.where(np.isfinite(values), values, _RHAT_TICKS[-1]) - 1, 1e-4, 10)
    _draw_marks(ax, table, shown, bad, "o")
    ax.set_xscale("log")
    ax.set_xlim(0.7e-4, max(0.3, 2 * shown.max(initial=0)))
    ax.axvline(THRESHOLDS["rhat"] - 1, color=DATA_COLOUR, linestyle="--", linewidth=0.9)
    ax.xaxis.set_major_locator(FixedLocator([tick - 1 for tick in _RHAT_TICKS]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{1 + x:g}"))
    ax.set_title("R-hat, the worst entry of each (left is good)", fontsize="medium")


def _draw_ess(ax: Axes, table: pd.DataFrame, judged: np.ndarray, enough: float) -> None:
    for kind, marker in (("bulk", "o"), ("tail", "s")):
        values = table[f"ess_{kind}"].to_numpy(float)
        bad = judged & ~(values >= enough)
        _draw_marks(ax, table, np.where(np.isfinite(values), values, 1), bad, marker)
    if table.empty:
        # Of a single draw nothing moves, and the line alone has no range.
        ax.set_xlim(1, 10 * enough)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axvline(enough, color=DATA_COLOUR, linestyle="--", linewidth=0.9)
    handles = [
        key(name, color=DATA_COLOUR, linestyle="", marker=marker, markersize=5)
        for name, marker in (("bulk", "o"), ("tail", "s"))
    ]
    handles.append(
        key(
            "open: by component",
            color=DATA_COLOUR,
            linestyle="",
            marker="o",
            markerfacecolor="white",
        )
    )
    ax.legend(
        handles=handles,
        fontsize="x-small",
        ncols=3,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        frameon=False,
    )
    ax.set_title("effective draws (right is good)", fontsize="medium")


def _draw_marks(
    ax: Axes, table: pd.DataFrame, shown: np.ndarray, bad: np.ndarray, marker: str
) -> None:
    free = table["label_free"].to_numpy(bool)
    colours = [_BAD if one else DATA_COLOUR for one in bad]
    places = np.arange(len(table))
    ax.scatter(
        shown,
        places,
        s=22,
        marker=marker,
        edgecolors=colours,
        facecolors=[c if one else "white" for c, one in zip(colours, free, strict=True)],
        zorder=3,
        gid="marks",
    )
    ax.hlines(places, 0, 1, transform=ax.get_yaxis_transform(), color="#EEEEEE", lw=0.7, zorder=0)
    ax.set_yticks(places, [str(name).replace("_", " ") for name in table.index], fontsize="small")


def _draw_chains(ax: Axes, fit: GMMFit, found: Diagnosis) -> None:
    """Each chain's log-likelihood: the mean and the middle 90 %."""
    draws = fit.sample_stats[TOTAL_LOG_LIKELIHOOD].transpose(CHAIN, DRAW).values
    for chain, values in enumerate(draws):
        worse = chain in found.worse_chains
        low, high = np.nanquantile(values, [0.05, 0.95])
        ax.plot([chain, chain], [low, high], color=component_style(chain).colour, linewidth=2)
        ax.plot(
            chain,
            found.log_likelihood[chain],
            "X" if worse else "o",
            color=_BAD if worse else component_style(chain).colour,
            markersize=8 if worse else 5,
            gid="worse" if worse else "mean",
        )
    ax.set_title("log-likelihood, 90 %", fontsize="medium")
    _by_chain(ax, len(draws))


def _draw_energy(ax: Axes, found: Diagnosis, *, known: bool) -> None:
    ax.set_title("E-BFMI (energy)", fontsize="medium")
    if not known:
        ax.text(0.5, 0.5, "this sampler\nhas no energy", ha="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    lowest = THRESHOLDS["e_bfmi"]
    values = np.nan_to_num(found.e_bfmi)
    colours = [
        _BAD if value < lowest else component_style(c).colour for c, value in enumerate(values)
    ]
    ax.vlines(range(len(values)), 0, values, colors=UNSURE_COLOUR, linewidth=2, zorder=1)
    ax.scatter(range(len(values)), values, c=colours, s=28, zorder=2, gid="marks")
    ax.axhline(lowest, color=DATA_COLOUR, linestyle="--", linewidth=0.9)
    ax.set_ylim(0, max(1.2, 1.15 * values.max()))
    _by_chain(ax, len(values), "superchain" if found.num_superchains else "chain")


def _by_chain(ax: Axes, n_chains: int, what: str = "chain") -> None:
    ax.set_xlim(-0.6, n_chains - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.set_xlabel(what)

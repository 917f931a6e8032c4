"""What a fit says of itself when it is printed: the run, the verdict, and its components."""

import html
from collections.abc import Iterable
from typing import Any

from gmm_bayes._vocabulary import CHAIN, DRAW
from gmm_bayes.inference.result.components import component_cells, component_text, why_no_table

__all__ = ["alignment_words", "as_html", "as_text", "prior_words", "stacking_words"]


def as_text(fit: Any) -> str:
    """Return what `print(fit)` shows of a GMMFit."""
    lines = [f"  {name}: {value}" for name, value in _facts(fit).items()]
    return "\n".join(["GMMFit", *lines, "", _no_table(fit) or component_text(fit.posterior)])


def as_html(fit: Any) -> str:
    """Return the same for a notebook."""
    colour = "#b00020" if fit.problems else "#00695c"
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left{f';color:{colour}' if '?' in name else ''}'>"
        f"{html.escape(value)}</td></tr>"
        for name, value in _facts(fit).items()
    )
    why = _no_table(fit)
    below = f"<p>{html.escape(why)}</p>" if why else _html_table(component_cells(fit.posterior))
    return f"<div><strong>GMMFit</strong><table>{rows}</table>{below}</div>"


def alignment_words(alignment: dict[str, Any] | None) -> str:
    """What there is to say of components that were aligned."""
    if alignment is None:
        return ""
    indistinct = ", ".join(" and ".join(map(str, group)) for group in alignment["indistinct"])
    return (
        f"aligned by {alignment['method']}, {alignment['unambiguous']:.1%} of draws unambiguous; "
        f"had moved at {alignment['moved_within']:.1%} of steps and between "
        f"{alignment['moved_between']:.0%} of pairs of chains"
        + f"; components {indistinct} cannot be told apart"
        * bool(indistinct)
    )


def stacking_words(stacking: dict[str, Any] | None) -> str:
    """What there is to say of draws that were resampled by the weights of their chains."""
    if stacking is None:
        return ""
    weights = ", ".join(f"{weight:.2f}" for weight in stacking["weights"])
    return f"draws were taken from the chains by weights {weights}, to predict; no posterior"


def prior_words(site: str) -> str:
    """What is added to a verdict where the prior of a site outweighs the data by far."""
    return f"; but the prior of {site} decides, and not the data" if site else ""


def _facts(fit: Any) -> dict[str, str]:
    sizes = fit.posterior.sizes
    by_component = not (fit.switched or fit.mixes_modes)
    whole = "yes" if by_component else "yes, but not component by component"
    believe = "no: " + "; ".join(fit.problems) if fit.problems else whole
    facts = {
        "data": f"{fit.n_obs} rows, {_count(fit.n_features, 'column')} "
        f"({', '.join(fit.feature_names[:6])}{', ...' * (fit.n_features > 6)})",
        "model": f"{_count(fit.n_components, 'component')}, {fit.covariance_type} covariances",
        "draws": f"{_count(sizes[CHAIN], 'chain')} x {sizes[DRAW]} draws, {fit.device}, "
        f"{sum(fit.timings.values()):.1f} s",
        "believe it?": believe + prior_words(fit.prior_decides),
        "how many?": "; ".join(fit.about_k),
        # The first is that of the worst problem; diagnose(fit) has them all.
        "advice": next(iter(fit.advice), ""),
        "labels": alignment_words(fit.alignment),
        "stacked": stacking_words(fit.stacking),
    }
    return {name: value for name, value in facts.items() if value}


def _no_table(fit: Any) -> str:
    """Why there is no table of components, if there is none."""
    why = why_no_table(fit, switched=fit.switched)
    return f"No table of components: {why}." if why else ""


def _html_table(lines: Iterable[tuple[str, ...]]) -> str:
    """The first line as titles; a line of one cell goes across."""
    first, *rest = lines
    titles = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in first)
    rows = "".join(f"<tr>{_html_line(line, len(first))}</tr>" for line in rest)
    return f"<table><tr>{titles}</tr>{rows}</table>"


def _html_line(line: tuple[str, ...], n_columns: int) -> str:
    across = f" colspan='{n_columns}'" * (len(line) == 1)
    return "".join(f"<td style='text-align:left'{across}>{html.escape(cell)}</td>" for cell in line)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"

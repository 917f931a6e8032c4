"""What to do about each cause of a bad run, in one table."""

from typing import Final

__all__ = ["ADVICE", "ALIGN"]

ALIGN: Final = "Renumber the components with align_labels(fit), and diagnose the result."

# By cause; what to do about a prior that decides is in `power_scaling`, and about what was not
# looked for in `looked_for`.
ADVICE: Final = {
    "short": "Run more draws (num_warmup, num_samples).",
    "apart": (
        "Each chain keeps to a mode of its own, which more draws do not join: see modes(fit); "
        "start all from a better solution (n_init, init), take fewer components or a simpler "
        "covariance_type; to predict with these chains, weight them by stack_chains(fit)."
    ),
    "many parameters": (
        "The rows are few for so many parameters: take covariance_type='diag' or 'tied', fewer "
        "columns, fewer components, or tighter priors."
    ),
    "labels": ALIGN,
    "worse mode": (
        "Start from a better solution (n_init, init) or take fewer components; to predict with "
        "these chains, weight them by stack_chains(fit)."
    ),
    "not finite": "Check the priors against the units of the data, and raise num_warmup.",
    "divergences": "Raise target_accept_prob, or take fewer components or a tighter prior.",
    "deep trees": "Raise num_warmup or max_tree_depth.",
    "repeats": "Raise target_accept_prob and num_warmup.",
    "collapse": (
        "Look for repeated rows and for columns that depend on each other, or take fewer "
        "components."
    ),
    "not normal": "Sample instead: sampler=NUTS().",
    "few weights": "Take a larger num_samples. Sample instead: sampler=NUTS().",
}

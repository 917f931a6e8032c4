"""Header and lines of the tables of calibration and coverage, for tables.py."""


def calibration(rows):
    """One line for each check; a fault is caught when a quantity leaves its band."""
    header = ["method", "problem", "N, K, D", "simulations", "quantities", "within their bands"]
    header += [
        "smallest adjusted p",
        "of",
        "under 99 effective draws",
        "astray",
        "adapted at the start",
    ]
    header += ["divergences", "s"]
    lines = [
        [
            row["method"],
            row["problem"],
            f"{row['n_obs']}, {row['n_components']}, {row['n_features']}",
            f"{row['num_simulations']:,}",
            str(row["num_quantities"]),
            "yes" if row["within_bands"] else "no",
            _p(row["smallest_adjusted_p"]),
            row["worst"],
            str(row["num_dependent"]),
            str(row.get("num_astray", "–")),
            f"{100 * row['share_adapted']:.0f} %",
            str(row["divergences"]),
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    return header, lines


def coverage(rows):
    """Share of data sets whose 90 % interval holds the truth: mean of each group, and its range."""
    groups = ("weights", "means", "covariances", "density")
    header = ["N, K, D", "data sets", *groups, "s"]
    lines = []
    for row in rows:
        cells = []
        for group in groups:
            values = [v for name, v in row["coverage"].items() if name.startswith(group)]
            mean = row["coverage_by_group"][group]
            low, high = min(values), max(values)
            cells.append(f"{100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
        size = f"{row['n_obs']:,}, {row['n_components']}, {row['n_features']}"
        lines.append([size, f"{row['num_data_sets']:,}", *cells, f"{row['seconds']:.0f}"])
    return header, lines


def _p(value):
    return f"{value:.2g}" if value > 1e-10 else "< 1e-10"

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


def modes(rows):
    """How often a search reaches the best known maximum, by family and for each real table."""
    header = ["tables", "number", "seeds", "auto", "k-means, 10 starts", "s", "s, k-means"]
    lines = []
    for family, group in _families(rows):
        by_method = {}
        for row in group:
            by_method.setdefault(row["method"], []).append(row)
        ours, theirs = by_method.get("auto"), by_method.get("kmeans, 10 starts")
        if ours and theirs:
            shares = [_mean(one, "reached") for one in (ours, theirs)]
            worst = [max(row["furthest_below"] for row in one) for one in (ours, theirs)]
            cells = [
                f"{100 * share:.0f} % (at worst {low:.1f} nats below)"
                for share, low in zip(shares, worst, strict=True)
            ]
            times = [f"{_mean(one, 'seconds'):.1f}" for one in (ours, theirs)]
            lines.append([family, str(len(ours)), str(ours[0]["num_seeds"]), *cells, *times])
    return header, lines


def beliefs(rows):
    """Fits of one table from several seeds: how many are believed, how many pairs are at odds."""
    header = ["table", "seeds", "believed", "pairs at odds", "s a fit", "problems of the others"]
    lines = [
        [
            row["problem"],
            str(row["num_seeds"]),
            str(row["num_believed"]),
            f"{row['pairs_at_odds']} of {row['pairs']}",
            f"{row['seconds']:.1f}",
            "; ".join(row["problems"][:2]) or "none",
        ]
        for row in rows
        if row["method"] == "fits"
    ]
    return header, lines


def _families(rows):
    """Rows of each family of simulated tables, and of each real table."""
    families = {}
    for row in rows:
        name = row["problem"]
        families.setdefault(name if "K =" in name else name.partition(" ")[0], []).append(row)
    return families.items()


def _mean(rows, name):
    return sum(row[name] for row in rows) / len(rows)


def _p(value):
    return f"{value:.2g}" if value > 1e-10 else "< 1e-10"

"""Make the tables of README.md from the committed rows, between their markers.

python benchmarks/tables.py            # write them
python benchmarks/tables.py --check    # exit 1 if README.md is out of date
"""

import argparse
import re
import sys
from pathlib import Path

import check_tables
import record
import targets

README = record.HERE / "README.md"
NOT_MEASURED = "not measured"
# What the quality of a decision is.
QUALITIES = {
    "align_labels": "share of draws in one order",
    "coassignment": "largest error",
    "partition": "adjusted Rand index",
}


def number(value, digits=3):
    """A number for a reader: few digits, no exponent where none is needed."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2g}"
    magnitude = max(0, digits - 1 - int(f"{value:e}".split("e")[1]))
    return f"{value:,.{magnitude}f}"


def size(row):
    return f"{row['n_obs']:,}, {row['n_components']}, {row['n_features']}"


def table(header, lines):
    """A markdown table, or a word that there is nothing to show."""
    if not lines:
        return NOT_MEASURED
    rule = "| " + " | ".join("---" for _ in header) + " |"
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, *lines)).replace(
        "\n", f"\n{rule}\n", 1
    )


def on(rows, gpu):
    return [row for row in rows if (row["device"] != "cpu") == gpu]


def gradient_table(rows, gpu=False):
    header = ["N, K, D", "BLAS threads", "chains", "method", "dtype", "ms", "against NumPyro"]
    header += ["GF/s", "of the machine's product rate", "temporaries, MB", "difference of gradient"]
    chosen = on(rows["gradient"], gpu)
    reference = {targets.where(row): row["seconds"] for row in chosen if row["method"] == "numpyro"}
    lines = []
    for row in chosen:
        seconds, theirs = row["seconds"], reference.get(targets.where(row))
        skipped = row.get("skipped")
        share = row.get("share_of_matmul")
        lines.append(
            [
                size(row),
                str(row["blas_threads"]),
                str(row["num_chains"]),
                row["method"],
                row["dtype"],
                skipped or number(1e3 * seconds),
                f"{number(theirs / seconds)}x" if theirs and seconds else "–",
                number(row.get("gflops")),
                f"{100 * share:.0f} %" if share is not None else "–",
                number(row["temporary_mb"]),
                number(row.get("gradient_difference")),
            ]
        )
    return table(header, lines)


def sampling_table(rows, gpu=False):
    header = ["N, K, D", "method", "chains", "kept draws", "compile, s", "sample, s"]
    header += ["min bulk ESS", "max R-hat", "divergences", "gradients kept / all", "peak, MB"]
    header += ["ESS/s", "of the sample phase", "of a whole fit"]
    lines = []
    for row in on(rows["sampling"], gpu):
        name = row["method"] + (" (extrapolated)" if row.get("extrapolated") else "")
        if row.get("failed"):
            lines.append([size(row), f"{name}: {row['failed']}", *["–"] * (len(header) - 2)])
            continue
        gradients = (row["num_gradients_sampling"], row["num_gradients"])
        lines.append(
            [
                size(row),
                name,
                str(row["num_chains"]),
                number(row["num_samples"]),
                number(row["compile_seconds"]),
                number(row["sample_seconds"]),
                number(row["min_bulk_ess"]),
                f"{row['max_rhat']:.3f}",
                number(row["divergences"]),
                " / ".join(map(number, gradients)),
                number(row["peak_memory_mb"]),
                number(row.get("ess_per_second")),
                number(row.get("ess_per_second_sample_phase")),
                number(row.get("ess_per_second_whole_fit")),
            ]
        )
    return table(header, lines)


def first_result_table(rows):
    header = ["problem", "method", "compilation cache", "first result, s", "import", "initialise"]
    header += ["compile", "sample", "rest", "second fit, s", "min bulk ESS", "max R-hat"]
    header += ["converged", "runs"]
    lines = []
    for row in rows["first_result"]:
        phases = row.get("phases_first_fit", {})
        sampling = [
            seconds for name, seconds in phases.items() if name not in ("initialise", "compile")
        ]
        lines.append(
            [
                row["problem"],
                row["method"],
                row["cache"] or "–",
                number(row["first_result_seconds"]),
                number(row["import_seconds"]),
                number(phases.get("initialise")),
                number(row["compile_seconds"]),
                number(sum(sampling)) if phases else "–",
                number(row.get("rest_seconds")),
                number(row["second_fit_seconds"]),
                number(row["min_bulk_ess"]),
                f"{row['max_rhat']:.3f}",
                number(row["converged"]),
                str(row["repeats"]),
            ]
        )
    return table(header, lines)


def scaling_table(rows, gpu=False):
    header = ["varied", "N, K, D", "chains", "ms an effective draw", "of a whole fit", "sample, s"]
    header += ["first fit, s", "min bulk ESS", "max R-hat", "divergences", "data, MB"]
    header += ["beyond data, MB"]
    lines = [
        [
            row["factor"],
            size(row),
            str(row["num_chains"]),
            number(1e3 * row["seconds_per_effective_draw"]),
            number(1e3 * row["seconds_per_effective_draw_whole_fit"]),
            number(row["sample_seconds"]),
            number(row["fit_seconds"]),
            number(row["min_bulk_ess"]),
            f"{row['max_rhat']:.3f}",
            number(row["divergences"]),
            number(row["data_mb"]),
            number(row["memory_beyond_data_mb"]),
        ]
        for row in on(rows["scaling"], gpu)
    ]
    return table(header, lines)


def em_table(rows):
    header = ["N, K, D", "method", "dtype", "BLAS threads", "ms an iteration", "best turn"]
    header += ["against scikit-learn", "compile, s", "iterations", "log density a row"]
    header += ["difference from ours"]
    lines = []
    for row in rows["em"]:
        seconds = row["seconds"]
        if row["method"].endswith("fit_em"):
            continue
        if row.get("failed"):
            words = f"{row['method']}: {row['failed']}"
            lines.append([size(row), words, *["–"] * (len(header) - 2)])
            continue
        shape = tuple(row[key] for key in ("n_obs", "n_components", "n_features"))
        theirs = targets.em_peer(rows["em"], "scikit-learn", shape)
        lines.append(
            [
                size(row),
                row["method"],
                row["dtype"],
                str(row["blas_threads"]),
                number(1e3 * seconds),
                number(1e3 * row["seconds_best"]),
                f"{number(theirs / seconds)}x" if theirs else "–",
                number(row["compile_seconds"]),
                number(row["iterations"]),
                f"{row['log_likelihood_per_row']:.6f}",
                number(row["log_likelihood_difference"]),
            ]
        )
    return table(header, lines)


def em_memory_table(rows):
    header = ["N, K, D", "gb.fit_em, s", "data, MB", "beyond data, MB"]
    lines = [
        [
            size(row),
            number(row["fit_seconds"]),
            number(row["data_mb"]),
            number(row["memory_beyond_data_mb"]),
        ]
        for row in rows["em"]
        if row["method"].endswith("fit_em") and not row.get("failed")
    ]
    return table(header, lines)


def many_table(rows):
    header = ["method", "sampler", "sets", "ms a fit", "CPU ms a fit", "against fit_many"]
    header += ["median of min bulk ESS", "median of max R-hat", "divergences", "gradients a fit"]
    ours = {r["problem"]: r["seconds"] for r in rows["many"] if r["method"] == "fit_many"}
    lines = [
        [
            row["method"],
            row["problem"],
            number(row["num_sets"]),
            number(1e3 * row["seconds"]),
            number(1e3 * row["cpu_seconds"]),
            f"{number(row['seconds'] / ours[row['problem']])}x" if row["problem"] in ours else "–",
            number(row["min_bulk_ess"]),
            f"{row['max_rhat']:.3f}",
            number(row["divergences"]),
            number(round(row["num_gradients"] / row["num_sets"])),
        ]
        for row in rows["many"]
    ]
    return table(header, lines)


def decisions_table(rows):
    header = ["N, K, D", "call", "draws", "s", "first call, s", "its peak, MB", "result, MB"]
    header += ["quality"]
    lines = [
        [
            size(row),
            row["method"],
            number(row["num_draws"]),
            number(row["seconds"]),
            number(row["first_call_seconds"]),
            number(row["first_call_memory_mb"]),
            number(row["result_mb"]),
            f"{QUALITIES[row['method']]} {number(row['quality'])}",
        ]
        for row in rows["decisions"]
    ]
    return table(header, lines)


def many_chains_table(rows, gpu=False):
    header = ["problem", "N, K, D", "method", "chains", "warm-up + kept draws", "ESS"]
    header += ["of parameters", "nested R-hat", "max R-hat", "divergences", "gradients kept / all"]
    header += ["ESS for 1000 kept", "for 1000 of all", "for 1000 in a row", "sample, s", "verdict"]
    lines = [
        [
            row["problem"],
            size(row),
            row["method"],
            str(row["num_chains"]),
            f"{row['num_warmup']} + {row['num_samples']}",
            number(row["label_free_ess"]),
            "labels switched" if row["switched"] else number(row["min_bulk_ess"]),
            number(row["nested_rhat"], 4),
            f"{row['max_rhat']:.3f}",
            number(row["divergences"]),
            " / ".join(map(number, (row["num_gradients_sampling"], row["num_gradients"]))),
            number(row["ess_per_1000_gradients_sampling"]),
            number(row["ess_per_1000_gradients"]),
            number(row["ess_per_1000_in_a_row"]),
            number(row["sample_seconds"]),
            "ok" if row["verdict_ok"] else "not ok",
        ]
        for row in on(rows["many_chains"], gpu)
    ]
    return table(header, lines)


def gpu_tables(rows):
    makers = (gradient_table, sampling_table, scaling_table, many_chains_table)
    parts = [make(rows, gpu=True) for make in makers]
    measured = [part for part in parts if part != NOT_MEASURED]
    return "\n\n".join(measured) or NOT_MEASURED


def checkpoint_table(rows):
    header = ["N, K, D", "chains", "kept draws", "checkpoint", "fit, s", "against none"]
    header += ["saves", "of the chains' time, saving", "of all CPU time", "written, MB"]
    lines = [
        [
            size(row),
            str(row["num_chains"]),
            number(row["num_samples"]),
            row["method"],
            number(row["seconds"]),
            f"{row['ratio']:.3f}x",
            str(row["num_saves"]),
            f"{row['saving_share']:.2%}",
            f"{row['saving_cpu_share']:.2%}",
            number(row["written_mb"]),
        ]
        for row in rows["checkpoint"]
    ]
    return table(header, lines)


def devices_table(rows):
    header = ["N, K, D", "rows on", "ms a gradient", "median, ms", "against 1 device"]
    alone = {size(r): r["seconds"] for r in rows["devices"] if r["method"] == "1 device"}
    lines = [
        [
            size(row),
            row["method"],
            number(1e3 * row["seconds"]),
            number(1e3 * row["median_seconds"]),
            f"{alone[size(row)] / row['seconds']:.2f}x",
        ]
        for row in rows["devices"]
    ]
    return table(header, lines)


def targets_table(rows):
    header = ["target", "at least", "measured", "reached"]
    lines = []
    for name, wanted, value, reached in targets.judge(rows):
        shown = NOT_MEASURED if value is None else value
        lines.append([name, wanted, shown, "–" if value is None else number(bool(reached))])
    return table(header, lines)


def machines_table(rows):
    """Where the rows come from, so that rows of two machines are not compared unawares."""
    found = {}
    for name, group in rows.items():
        for row in group:
            machine = (row["cpu"], row["num_cores"], row["device"])
            found.setdefault((name, machine), []).append(row)
    lines = []
    for (name, (cpu, cores, device)), group in found.items():
        stacks = sorted({_stack(row["versions"]) for row in group})
        dates = sorted({row["date"] for row in group})
        period = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        lines.append([name, f"{cpu}, {cores} cores", device, period, "; ".join(stacks)])
    return table(["benchmark", "processor", "device", "measured", "versions"], lines)


def _stack(versions):
    return " ".join(f"{name} {version}" for name, version in sorted(versions.items()))


TABLES = {
    "targets": targets_table,
    "gradient": gradient_table,
    "sampling": sampling_table,
    "first_result": first_result_table,
    "scaling": scaling_table,
    "many_chains": many_chains_table,
    "em": em_table,
    "em_memory": em_memory_table,
    "calibration": lambda rows: table(*check_tables.calibration(rows["calibration"])),
    "coverage": lambda rows: table(*check_tables.coverage(rows["coverage"])),
    "modes": lambda rows: table(*check_tables.modes(rows["modes"])),
    "beliefs": lambda rows: table(*check_tables.beliefs(rows["modes"])),
    "many": many_table,
    "decisions": decisions_table,
    "checkpoint": checkpoint_table,
    "devices": devices_table,
    "gpu": gpu_tables,
    "machines": machines_table,
}


def render(text, rows):
    """The text with every table between its markers made anew."""
    for name, make in TABLES.items():
        marker = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marker.search(text):
            raise SystemExit(f"README.md has no place for the table {name}")
        content = make(rows)
        text = marker.sub(lambda m, c=content: f"{m[1]}\n{c}\n\n{m[2]}", text)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    parser.add_argument("--readme", type=Path, default=README)
    args = parser.parse_args()
    rows = {name: record.read_rows(name, args.rows) for name in targets.BENCHMARKS}
    text = args.readme.read_text(encoding="utf-8")
    fresh = render(text, rows)
    if args.check:
        if fresh != text:
            sys.exit("README.md is out of date: run python benchmarks/tables.py")
        return
    args.readme.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The benchmarks' page is made from the committed rows, the rows say what they must, one runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
DRAWN = ("sampling", "first_result", "scaling", "many_chains")


@pytest.fixture
def record(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import record

    return record


def run(script, *arguments):
    words = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True)


def test_the_page_is_made_from_the_committed_rows():
    done = run("tables.py", "--check")
    assert done.returncode == 0, done.stderr


def test_every_committed_row_says_what_it_must(record):
    for path in sorted((BENCHMARKS / "rows").glob("*.jsonl")):
        rows = record.read_rows(path.stem)
        assert len({record.identity(row) for row in rows}) == len(rows)
        for row in rows:
            needed = (*record.ALWAYS, *(record.QUALITY if path.stem in DRAWN else ("seconds",)))
            assert not set(needed) - set(row), (path.name, row["method"])
            if path.stem in DRAWN and not row.get("failed"):
                assert row["min_bulk_ess"] > 0, (path.name, row["method"])
                assert row["max_rhat"] > 0, (path.name, row["method"])


def test_a_newer_row_takes_the_place_of_the_older(record, tmp_path):
    row = record.make_row("trial", "ours", (10, 2, 1), seconds=1.0)
    record.write_rows("trial", [row], tmp_path)
    record.write_rows("trial", [{**row, "seconds": 2.0}, {**row, "seed": 1}], tmp_path)
    stored = record.read_rows("trial", tmp_path)
    assert sorted((r["seed"], r["seconds"]) for r in stored) == [(0, 2.0), (1, 1.0)]


def test_a_small_gradient_run(record, tmp_path):
    arguments = ("--sizes", "200,2,2", "--threads", 1, "--seconds", 0.2, "--rows", tmp_path)
    done = run("gradient.py", *arguments)
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    rows = {row["method"]: row for row in record.read_rows("gradient", tmp_path)}
    assert len(printed) == len(rows)
    assert {"kernel", "likelihood", "potential", "numpyro"} <= set(rows)
    assert rows["numpyro"]["value_difference"] < 1e-10
    assert rows["numpyro"]["gradient_difference"] < 1e-8
    for row in rows.values():
        assert not set(record.ALWAYS) - set(row)
        assert row["seconds"] > 0
        assert row["versions"]["jax"]
    assert "| 200, 2, 2 | 1 |" in remade_page(tmp_path)


def remade_page(folder):
    """The page made from other rows, which is then up to date."""
    page = folder / "page.md"
    page.write_text((BENCHMARKS / "README.md").read_text())
    assert run("tables.py", "--rows", folder, "--readme", page).returncode == 0
    assert run("tables.py", "--rows", folder, "--readme", page, "--check").returncode == 0
    return page.read_text()


def test_a_small_em_run(record, tmp_path):
    """Of what is installed here: gmmx has an environment of its own."""
    words = ("--sizes", "200,2,2", "--memory-sizes", "200,2,2", "--threads", 1, "--rounds", 1)
    methods = ("gmm_bayes", "scikit-learn")
    done = run("em.py", *words, "--methods", *methods, "--rows", tmp_path)
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    rows = {row["method"]: row for row in record.read_rows("em", tmp_path)}
    assert set(rows) == {*methods, "gmm_bayes, fit_em"}
    assert len(printed) == len(rows)
    for row in rows.values():
        assert not {*record.ALWAYS, "seconds"} - set(row)
        assert "failed" not in row
    # So short an iteration is lost in the noise, but both end at the same mixture.
    assert abs(rows["scikit-learn"]["log_likelihood_difference"]) < 1e-10
    assert rows["gmm_bayes"]["compile_seconds"] > 0
    assert rows["gmm_bayes, fit_em"]["memory_beyond_data_mb"] > 0
    assert "| 200, 2, 2 | scikit-learn |" in remade_page(tmp_path)


def test_a_small_run_of_decisions(record, tmp_path):
    done = run("decisions.py", "--sizes", 120, "--draws", 400, "--rows", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in record.read_rows("decisions", tmp_path)}
    assert set(rows) == {"align_labels", "coassignment", "partition"}
    for row in rows.values():
        assert not {*record.ALWAYS, "seconds", "first_call_memory_mb"} - set(row)
        assert row["num_draws"] == 400
    assert rows["align_labels"]["quality"] > 0.99
    assert rows["coassignment"]["quality"] < 1e-10
    assert rows["partition"]["quality"] > 0.9
    assert "| 120, 5, 2 | partition | 400 |" in remade_page(tmp_path)


def test_a_small_run_of_many_chains(record, tmp_path):
    small = json.dumps({"num_warmup": 50, "num_samples": 30, "num_chains": 8})
    words = ("--one", "overlapping", "ChEES", "--set", small, "--rows", tmp_path)
    done = run("many_chains.py", *words)
    assert done.returncode == 0, done.stderr
    (row,) = record.read_rows("many_chains", tmp_path)
    assert not {*record.ALWAYS, *record.QUALITY} - set(row)
    assert (row["num_chains"], row["num_superchains"], row["num_samples"]) == (8, 4, 30)
    assert row["num_gradients"] > row["num_gradients_sampling"] > 8 * 30
    expected = 1000 * row["label_free_ess"] / row["num_gradients"]
    assert row["ess_per_1000_gradients"] == pytest.approx(expected)
    assert row["ess_per_1000_in_a_row"] == pytest.approx(8 * expected)
    assert "| overlapping | 300, 2, 2 | ChEES | 8 |" in remade_page(tmp_path)

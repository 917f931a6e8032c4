"""Jobs as processes that are killed, terminated and interrupted, and what is told of them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hostile import SHORT, quiet_fit, small_fit, two_groups
from typer.testing import CliRunner

import gmm_bayes as gb
from gmm_bayes import cli
from gmm_bayes.files import locks
from gmm_bayes.jobs import execution
from gmm_bayes.jobs.job_file.config import load_config, to_toml
from gmm_bayes.jobs.journal import journal, last_report

# The command line, where Ctrl-C means what it does on a terminal: a shell starts its background
# jobs with it ignored.
ENTRY = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from gmm_bayes.cli import main
main()
"""
WARMUP, SAMPLES = 150, 1500
SAMPLER = gb.NUTS(num_warmup=WARMUP, num_samples=SAMPLES, num_chains=2)
JOB = f"""
[data]
path = "rows.csv"
[model]
n_components = 2
[sampler]
num_warmup = {WARMUP}
num_samples = {SAMPLES}
num_chains = 2
[runtime]
seed = 3
checkpoint_seconds = 1e-9
[output]
plots = false
partition = false
"""
RESULTS = {
    "posterior.nc",
    "responsibilities.csv",
    "config.resolved.toml",
    "report.json",
    "run.log",
    "progress.jsonl",
}
RUN, RESUME = ("run", "job.toml", "--out", "out"), ("resume", "out")
SHORT_SETTINGS = [
    f"sampler.{name}={value}"
    for name, value in {
        "num_warmup": SHORT.num_warmup,
        "num_samples": SHORT.num_samples,
        "num_chains": SHORT.num_chains,
    }.items()
]
CHAINS = Path("out/checkpoint/chains")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    np.savetxt("rows.csv", two_groups(), delimiter=",", header="a,b", comments="", fmt="%.17g")
    Path("job.toml").write_text(JOB)


@pytest.fixture(scope="module")
def expected():
    """The fit that was never interrupted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        return gb.fit(two_groups(), 2, sampler=SAMPLER, seed=3)


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def refused(code, *arguments):
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("error: ")
    return result.stderr.removeprefix("error: ").rstrip("\n")


def draws_done():
    """Draws of the chain that is farthest, as the manifest has it."""
    try:
        groups = json.loads((CHAINS / "manifest.json").read_text())["groups"]
    except OSError:
        return -1
    return max((group["done"] for group in groups.values()), default=0)


def process(*arguments):
    environment = {
        **os.environ,
        "GMM_BAYES_CACHE": "on",
        "XDG_CACHE_HOME": str(Path("cache").absolute()),
        "PYTHONPATH": str(Path(gb.__file__).parents[1]),
    }
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", ENTRY, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def signalled(number, after, *arguments, delay=0.0):
    """Start a job, send it a signal once it has made so many draws, and wait for its end."""
    with process(*arguments) as job:
        while draws_done() < after and job.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        assert job.poll() is None, job.communicate()
        job.send_signal(number)
        _, errors = job.communicate(timeout=120)
    return job.returncode, errors


def same_result(expected):
    fit = gb.load("out/posterior.nc")
    for name, values in expected.posterior.data_vars.items():
        np.testing.assert_array_equal(fit.posterior[name].values, values.values)
    for name, values in expected.sample_stats.data_vars.items():
        np.testing.assert_array_equal(fit.sample_stats[name].values, values.values)
    assert set(os.listdir("out")) == RESULTS
    return fit


def test_a_job_that_is_killed_terminated_and_interrupted(expected):
    code, _ = signalled(signal.SIGKILL, 5, *RUN)
    assert code == -signal.SIGKILL
    assert 5 <= draws_done() < WARMUP + SAMPLES
    shown = invoke("show", "out").stdout
    assert shown.startswith("run: stopped; go on with: gmm-bayes resume out\nat 20")
    message = refused(2, *RUN)
    assert message == (
        "out holds the checkpoint of a run; go on with: gmm-bayes resume out, or start anew "
        "with --force"
    )
    for number, code, after in ((signal.SIGTERM, 143, 200), (signal.SIGINT, 130, 600)):
        before = draws_done()
        found, errors = signalled(number, max(after, before + 1), *RESUME)
        assert found == code, errors
        assert errors.splitlines()[-2:] == [
            "interrupted: the run is not complete",
            "go on with: gmm-bayes resume out",
        ]
        assert draws_done() > before
        assert not (CHAINS / locks.LOCK_FILE).exists()
    result = invoke(*RESUME)
    assert result.exit_code == 0, result.output
    assert same_result(expected).run["resumed"] == 3
    assert json.loads(Path("out/report.json").read_text())["seconds"]["earlier"] > 0
    log = Path("out/run.log").read_text()
    assert len(re.findall("INFO gmm_bayes .* Python", log)) == 4
    assert "ended by KeyboardInterrupt" in log
    assert log.rstrip().endswith("INFO phase: complete")
    assert refused_nothing_left().startswith("the run in out is complete")


def refused_nothing_left():
    result = invoke(*RESUME)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.slow
def test_ten_kills_at_random_instants(expected):
    rng = np.random.default_rng(6)
    warm, sampled = rng.integers(0, WARMUP, 3), rng.integers(WARMUP, WARMUP + SAMPLES - 300, 7)
    arguments = RUN
    for after in np.sort(np.concatenate([warm, sampled])):
        code, _ = signalled(signal.SIGKILL, after, *arguments, delay=rng.uniform(0, 0.03))
        assert code == -signal.SIGKILL
        arguments = RESUME
    assert invoke(*RESUME).exit_code == 0
    same_result(expected)


def test_a_running_job_is_shown_and_left_alone_and_saves_when_told(expected):
    changes = ("--set", "runtime.checkpoint_seconds=1000", "--set", "sampler.num_samples=200000")
    with process(*RUN, *changes) as job:
        while draws_done() < WARMUP and job.poll() is None:
            time.sleep(0.01)
        assert invoke("show", "out").stdout.startswith("run: running\nat 20")
        assert refused(2, *RUN, "--force").startswith("another run is writing to out; wait")
        assert refused(2, *RESUME).startswith("another run is writing to out; wait")
        before = draws_done()
        job.send_signal(signal.SIGUSR1)
        while draws_done() == before and job.poll() is None:
            time.sleep(0.01)
        assert job.poll() is None, job.communicate()
        job.kill()
    # A dead process locks nobody out.
    assert not locks.is_locked(Path("out"))
    report = last_report(Path("out"))
    assert report.keys() >= {"time", "phase", "seconds"}


# -- without a process ----------------------------------------------------------------------------


@pytest.fixture
def stopped(monkeypatch):
    """A job that was interrupted before it sampled."""

    def interrupt(job):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(execution, "_sample", interrupt)
        result = invoke(*RUN)
    assert result.exit_code == 130
    assert result.stderr == (
        "interrupted: the run is not complete\ngo on with: gmm-bayes resume out\n"
    )


def test_a_job_that_was_stopped_before_it_sampled(stopped, expected):
    assert sorted(os.listdir("out")) == ["checkpoint", "progress.jsonl", "run.log"]
    result = invoke(*RESUME)
    assert result.exit_code == 0, result.output
    assert "resumed" not in same_result(expected).run


def test_a_job_whose_data_or_file_changed(stopped, monkeypatch):
    # Of the same data but another seed.
    quiet_fit(two_groups(), seed=4, checkpoint=CHAINS)
    refusal, hint = refused(3, *RESUME).splitlines()
    assert refusal.startswith(f"the run in {CHAINS} is not the one to go on with: sampler was")
    assert refusal.endswith("seed was [4], now [3]")
    assert hint == "go on with: gmm-bayes resume out"
    Path("rows.csv").write_text(Path("rows.csv").read_text() + "1,2\n")
    Path("out/checkpoint/job.toml").write_text(
        to_toml(load_config("job.toml", ["runtime.seed=4", *SHORT_SETTINGS]))
    )
    assert refused(3, *RESUME).startswith(
        f"the run in {CHAINS} has other data than X: rows, names of columns or labels of rows"
    )
    Path("out/checkpoint/job.toml").write_text("hello")
    assert refused(2, *RESUME).startswith("out/checkpoint/job.toml is not valid TOML")
    Path("rows.csv").unlink()
    Path("out/checkpoint/job.toml").write_text(JOB.replace("rows.csv", "../../rows.csv"))
    assert refused(3, *RESUME).startswith("there is no file ")


def test_what_cannot_be_resumed():
    assert refused(3, "resume", "no") == "no does not exist; name the directory of a run"
    assert refused(3, "resume", "job.toml") == "job.toml is a file; name the directory of a run"
    assert refused(3, "resume", ".") == (
        "there is no run to go on with in .: it has no checkpoint/job.toml"
    )


def test_a_disk_that_fills_while_results_are_written(monkeypatch):
    """The draws stay in the checkpoint, and the words say so."""

    def fail(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(execution, "_sample", lambda job: small_fit())
    with monkeypatch.context() as patch:
        patch.setattr(gb.GMMFit, "save", fail)
        result = invoke(*RUN)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: [Errno 28] No space left on device",
        "go on with: gmm-bayes resume out",
    ]
    assert invoke(*RESUME).exit_code == 0
    assert set(os.listdir("out")) == RESULTS


def test_settings_of_the_checkpoint(monkeypatch):
    calls = []

    def sample(job):
        calls.append((Path("out/checkpoint").exists(), job.config.runtime))
        return small_fit()

    monkeypatch.setattr(execution, "_sample", sample)
    keep = ("--set", "runtime.keep_checkpoint=true")
    assert invoke(*RUN, *keep).exit_code == 0
    assert sorted(os.listdir("out/checkpoint")) == ["job.toml"]
    assert invoke("show", "out").stdout.startswith("GMMFit")
    assert invoke(*RUN, "--force", "--set", "runtime.checkpoint=false").exit_code == 0
    assert [there for there, _ in calls] == [True, False]
    assert set(os.listdir("out")) == RESULTS
    assert refused(2, *RUN, "--set", "runtime.checkpoint_seconds=0") == (
        "runtime.checkpoint_seconds: must be above 0.0, got 0"
    )


def test_a_checkpoint_that_is_a_link_is_not_followed(monkeypatch):
    monkeypatch.setattr(execution, "_sample", lambda job: small_fit())
    Path("mine").mkdir()
    Path("mine/file").touch()
    Path("out").mkdir()
    Path("out/checkpoint").symlink_to("../mine")
    assert invoke(*RUN, "--force").exit_code == 0
    assert os.listdir("mine") == ["file"]


def test_progress_and_log_are_written_and_never_end_a_run(tmp_path):
    with journal(tmp_path, goes_on=False) as say:
        say.phase("start")
        say({"phase": "sampling", "draws": 3, "of": 9, "seconds_left": 2.0})
    first, second = map(json.loads, (tmp_path / "progress.jsonl").read_text().splitlines())
    assert first.keys() == {"time", "phase", "seconds"}
    assert second.keys() == {"time", "phase", "draws", "of", "seconds_left", "expected_end"}
    assert last_report(tmp_path) == second
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"phase": "sam')
    assert last_report(tmp_path) == second
    with journal(tmp_path / "missing", goes_on=True) as say:
        say.phase("start")
    assert last_report(tmp_path / "missing") is None
    if Path("/dev/full").exists():
        (tmp_path / "full").mkdir()
        for name in ("progress.jsonl", "run.log"):
            (tmp_path / "full" / name).symlink_to("/dev/full")
        with journal(tmp_path / "full", goes_on=True) as say:
            say.phase("start")

"""Sweeps from the outside: what is run, what is skipped, what survives, and the one table."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import gmm_bayes as gb
from gmm_bayes import cli
from gmm_bayes.checking.prediction import leave_one_out
from gmm_bayes.checking.tasks import run_tasks
from gmm_bayes.jobs import execution
from gmm_bayes.jobs.job_file.config import load_config
from gmm_bayes.jobs.sweep import executors, members
from gmm_bayes.jobs.sweep.config import load_sweep
from gmm_bayes.machine.compilation import SWITCH

CONFIGS = Path(__file__).parents[2] / "configs"
SWEEPS = sorted(p for p in CONFIGS.glob("*.toml") if "[sweep]" in p.read_text())
# One column, where programs are small; two shapes of problem.
FILE = """
[data]
dataset = "old_faithful"
columns = ["waiting"]
[sampler]
num_warmup = 50
num_samples = 20
num_chains = 2
[init]
n_init = 2
[output]
plots = false
partition = false
[sweep]
model.n_components = [1, 2]
runtime.seed = [1, 2]
"""
NAMES = [f"n_components={k}-seed={seed}" for k in (1, 2) for seed in (1, 2)]


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def compared(table):
    """The table without the column of seconds."""
    return table.drop(columns="seconds")


@pytest.fixture(scope="module")
def shared_programs(tmp_path_factory):
    """Processes of this module share compiled programs, as users' do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, "on")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MPLBACKEND", "Agg")
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "many.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def serial(shared_programs, file, tmp_path_factory):
    """Every member once, one after another: (directory, what the command said)."""
    directory = tmp_path_factory.mktemp("serial") / "sweep"
    return directory, invoke("sweep", file, "--out", directory)


@pytest.fixture
def done(serial, tmp_path, monkeypatch):
    """A copy of the finished sweep, to be damaged."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    shutil.copytree(serial[0], tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def sampled(serial, monkeypatch):
    """Fits are taken from the finished sweep; the list says which members were sampled."""
    jobs = []

    def sample(job):
        name = f"n_components={job.config.model.n_components}-seed={job.config.runtime.seed}"
        jobs.append(name)
        return gb.load(serial[0] / name / "posterior.nc")

    monkeypatch.setattr(execution, "_sample", sample)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return jobs


# -- what a sweep is ------------------------------------------------------------------------------


def test_every_member_is_a_job_of_its_own(serial, file, tmp_path):
    directory, result = serial
    assert result.exit_code == 0, result.output
    assert {p.name for p in directory.iterdir()} == {"sweep.json", "sweep.csv", *NAMES}
    for member in load_sweep(file).members:
        home = directory / member.name
        resolved = load_config(home / "config.resolved.toml")
        assert resolved.model == member.config.model
        assert resolved.runtime.seed == member.settings["runtime.seed"]
        report = json.loads((home / "report.json").read_text())
        beside = {"scores.json", "run.log", "progress.jsonl"}
        assert {p.name for p in home.iterdir()} == {*report["files"], *beside}
    fit = gb.load(directory / NAMES[2] / "posterior.nc")
    faithful = gb.datasets.load_old_faithful()[["waiting"]]
    with pytest.warns(gb.errors.GMMBayesWarning):
        expected = gb.fit(faithful, 2, sampler=gb.NUTS(50, 20, 2), n_init=2, seed=1, progress=False)
    assert fit.posterior.identical(expected.posterior)


def test_the_table_is_what_the_members_say(serial):
    directory, result = serial
    table = pd.read_csv(directory / "sweep.csv", keep_default_na=False, na_values=[""])
    assert list(table["member"]) == NAMES
    assert list(table["n_components"]) == [1, 1, 2, 2]
    assert list(table["seed"]) == [1, 2, 1, 2]
    assert (table["status"] == "finished").all()
    for row in table.itertuples():
        fit = gb.load(directory / row.member / "posterior.nc")
        diagnosis = gb.diagnose(fit)
        assert row.ok == diagnosis.ok
        assert row.problems == "; ".join(diagnosis.problems)
        for name in ("rhat", "ess_bulk", "ess_tail"):
            assert getattr(row, name) == getattr(diagnosis, name)
        assert row.divergences == diagnosis.n_divergences
        assert row.log_likelihood == pytest.approx(fit.sample_stats["total_log_likelihood"].mean())
        found = leave_one_out(fit)
        assert row.elpd_loo == found.loo.sum()
        assert row.elpd_loo_se == pytest.approx(np.sqrt(len(found.loo)) * found.loo.std(ddof=1))
        assert row.pareto_k_high == (found.pareto_k > 0.7).mean()
        assert row.seconds > sum(fit.timings.values())
    # Two components are better than one, by more than the errors.
    one, two = (table[table["n_components"] == k] for k in (1, 2))
    assert two["elpd_loo"].min() - one["elpd_loo"].max() > 2 * table["elpd_loo_se"].max()
    shown = result.stdout.splitlines()
    assert shown[0].split()[:4] == ["n_components", "seed", "status", "ok"]
    assert shown[4].split()[:4] == ["2", "2", "finished", "NO"]
    problems = table["problems"][0]
    assert f"problem: {NAMES[0]}: {problems}" in shown
    assert shown[-1] == f"4 of 4 members are finished, in {directory}"
    assert result.stderr == ""


def test_strict(serial, file, done):
    result = invoke("sweep", file, "--out", done, "--strict")
    assert result.exit_code == 1
    assert result.stderr == "error: the chains of 4 members are not to be believed (--strict)\n"


def test_show(serial):
    directory, result = serial
    shown = invoke("show", directory)
    assert shown.exit_code == 0
    assert shown.stdout == result.stdout.replace(f", in {directory}", "")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": "x"}', "{}", None], ids=["half", "list", "other", "no", "up"]
)
def test_show_refuses_what_is_not_of_a_sweep(done, content):
    whole = json.loads((done / "sweep.json").read_text())
    whole["members"][0]["name"] = "../k=1"
    (done / "sweep.json").write_text(json.dumps(whole) if content is None else content)
    result = invoke("show", done)
    assert result.exit_code == 3
    assert result.stderr == (
        f"error: {done / 'sweep.json'} is damaged, or not of a sweep; the sweep writes it again\n"
    )


# -- a second call --------------------------------------------------------------------------------


def test_what_is_finished_is_skipped(done, file, sampled):
    before = {p: p.stat().st_mtime_ns for p in done.glob("*/*")}
    table = (done / "sweep.csv").read_text()
    (done / "sweep.csv").unlink()
    assert invoke("sweep", file, "--out", done).exit_code == 0
    assert sampled == []
    assert {p: p.stat().st_mtime_ns for p in done.glob("*/*")} == before
    assert (done / "sweep.csv").read_text() == table


def test_a_new_axis_keeps_what_is_finished(done, file, sampled):
    """Members are named by what is swept: those that are there get their new names."""
    axis = ("--set", 'sweep.model.covariance_type=["full"]')
    content = {n: (done / n / "posterior.nc").read_bytes() for n in NAMES}
    dry = invoke("sweep", file, "--out", done, *axis, "--dry-run")
    assert dry.stdout.count("(finished)") == 4
    assert {p.name for p in done.iterdir() if p.is_dir()} == set(NAMES)
    result = invoke("sweep", file, "--out", done, *axis)
    assert result.exit_code == 0, result.output
    assert sampled == []
    for name, before in content.items():
        (now,) = done.glob(f"*{name}*")
        assert "covariance_type=full" in now.name
        assert (now / "posterior.nc").read_bytes() == before
    assert (pd.read_csv(done / "sweep.csv")["status"] == "finished").all()
    # Without it, they have their old names.
    assert invoke("sweep", file, "--out", done).exit_code == 0
    assert sampled == []
    assert {p.name for p in done.iterdir() if p.is_dir()} == set(NAMES)


def cut_report(home):
    report = home / "report.json"
    report.write_text(report.read_text()[:-5])


DAMAGE = {
    "killed while drawing": lambda home: [p.unlink() for p in home.iterdir()],
    "killed before the report": lambda home: (home / "report.json").unlink(),
    "a cut report": cut_report,
    "a posterior that is gone": lambda home: (home / "posterior.nc").unlink(),
    "killed, with its lock": lambda home: [
        (home / "report.json").unlink(),
        (home / ".gmm-bayes.lock").write_text(f"{dead_process()}\n"),
    ],
    "no directory": shutil.rmtree,
}


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_member_that_was_not_finished_is_run_again(done, file, sampled, damage):
    before = pd.read_csv(done / "sweep.csv")
    damage(done / NAMES[1])
    table = gb.sweep(file, done)
    assert sampled == [NAMES[1]]
    after = pd.read_csv(done / "sweep.csv")
    pd.testing.assert_frame_equal(compared(after), compared(before))
    assert list(table["status"]) == ["finished"] * 4
    assert not (done / NAMES[1] / ".gmm-bayes.lock").exists()


@pytest.mark.parametrize(("seed", "goes_on"), [(2, True), (3, False)])
def test_a_member_that_was_killed_goes_on_if_it_is_the_same(
    done, file, sampled, monkeypatch, seed, goes_on
):
    home, sample, resumed = done / NAMES[1], execution._sample, []

    def note(job):
        resumed.append(job.resumes)
        return sample(job)

    monkeypatch.setattr(execution, "_sample", note)
    (home / "checkpoint").mkdir()
    config = (home / "config.resolved.toml").read_text()
    assert "seed = 2" in config
    (home / "checkpoint" / "job.toml").write_text(config.replace("seed = 2", f"seed = {seed}"))
    (home / "report.json").unlink()
    gb.sweep(file, done)
    assert (sampled, resumed) == ([NAMES[1]], [goes_on])
    assert not (home / "checkpoint").exists()


def test_scores_are_made_without_sampling_again(done, file, sampled):
    before = (done / NAMES[0] / "scores.json").read_text()
    (done / NAMES[0] / "scores.json").unlink()
    gb.sweep(file, done, overrides=["sweep.loo=false"])
    assert json.loads((done / NAMES[0] / "scores.json").read_text()).keys() == {"data_sha256"}
    gb.sweep(file, done)
    assert (done / NAMES[0] / "scores.json").read_text() == before
    assert sampled == []


def test_more_values_leave_what_is_there(done, file, sampled, serial, monkeypatch):
    shutil.copytree(serial[0] / NAMES[0], serial[0] / "n_components=1-seed=3")
    shutil.copytree(serial[0] / NAMES[2], serial[0] / "n_components=2-seed=3")
    table = gb.sweep(file, done, overrides=["sweep.runtime.seed=[1, 2, 3]"])
    for name in ("n_components=1-seed=3", "n_components=2-seed=3"):
        shutil.rmtree(serial[0] / name)
    assert sampled == ["n_components=1-seed=3", "n_components=2-seed=3"]
    assert list(table["seed"]) == [1, 2, 3, 1, 2, 3]


def test_other_settings_are_refused(done, file, sampled):
    change = ("--set", "sampler.num_samples=30", "--set", "init.n_init=3")
    result = invoke("sweep", file, "--out", done, *change)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {done / NAMES[0]} holds other results: sampler.num_samples = 20 there, 30 here; "
        "init.n_init = 2 there, 3 here. "
        "Name another directory with --out, or replace results with --force\n"
    )
    assert sampled == []
    assert invoke("sweep", file, "--out", done, *change, "--force").exit_code == 0
    assert sampled == NAMES
    assert load_config(done / NAMES[3] / "config.resolved.toml").init.n_init == 3


def test_other_data_are_refused(serial, file, sampled, tmp_path):
    waiting = gb.datasets.load_old_faithful()[["waiting"]]
    waiting.to_csv(tmp_path / "a.csv", index=False)
    text = FILE.replace('dataset = "old_faithful"', 'path = "a.csv"')
    (tmp_path / "many.toml").write_text(text)
    arguments = ("sweep", tmp_path / "many.toml", "--out", tmp_path / "out")
    assert invoke(*arguments).exit_code == 0
    assert invoke(*arguments).exit_code == 0
    assert sampled == NAMES
    waiting.iloc[3] += 1
    waiting.to_csv(tmp_path / "a.csv", index=False)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {tmp_path / 'out' / NAMES[0]} holds other results: its data have changed since. "
        "Name another directory with --out, or replace results with --force\n"
    )
    assert sampled == NAMES


def test_directories_of_something_else(file, sampled, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    result = invoke("sweep", file, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'out'} is not empty (mine.txt); ")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert sampled == []


# -- faults ---------------------------------------------------------------------------------------


def test_a_member_that_fails_does_not_end_the_sweep(file, sampled, tmp_path, monkeypatch):
    whole = execution._sample

    def fail(job):
        if job.config.runtime.seed == 2 and job.config.model.n_components == 1:
            raise gb.errors.InferenceError("no finite\nstart")
        if job.config.runtime.seed == 2:
            raise ZeroDivisionError("division by zero")
        return whole(job)

    monkeypatch.setattr(execution, "_sample", fail)
    result = invoke("sweep", file, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == "error: 2 of 4 members failed\n"
    assert sampled == NAMES[::2]
    table = pd.read_csv(tmp_path / "out" / "sweep.csv", keep_default_na=False)
    assert list(table["status"]) == ["finished", "failed"] * 2
    errors = ["", "no finite start", "", "ZeroDivisionError: division by zero"]
    assert list(table["error"]) == errors
    assert f"failed: {NAMES[1]}: no finite start" in result.stdout.splitlines()
    assert "raise InferenceError" in (tmp_path / "out" / NAMES[1] / "error.txt").read_text() or (
        "no finite" in (tmp_path / "out" / NAMES[1] / "error.txt").read_text()
    )
    shown = invoke("show", tmp_path / "out").stdout
    assert shown == result.stdout.replace(f", in {tmp_path / 'out'}", "")

    monkeypatch.setattr(execution, "_sample", whole)
    assert invoke("sweep", file, "--out", tmp_path / "out").exit_code == 0
    assert sampled == [*NAMES[::2], NAMES[1], NAMES[3]]
    assert list(tmp_path.glob("out/*/error.txt")) == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_interrupts(file, sampled, serial, tmp_path, monkeypatch, number, code):
    # A shell starts its background jobs with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    whole = execution._sample

    def interrupt(job):
        if len(sampled) == 2:
            signal.raise_signal(number)
        return whole(job)

    monkeypatch.setattr(execution, "_sample", interrupt)
    result = invoke("sweep", file, "--out", tmp_path / "out")
    signal.signal(signal.SIGINT, before)
    assert result.exit_code == code
    assert result.stderr.splitlines() == [
        "members that are finished are kept; the same command runs the others",
        "interrupted: the run is not complete",
    ]
    # The third had begun: its checkpoint is kept.
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"sweep.json", *NAMES[:3]}
    assert "2 of 4 members are finished" in invoke("show", tmp_path / "out").stdout
    assert "waiting" in invoke("show", tmp_path / "out").stdout

    monkeypatch.setattr(execution, "_sample", whole)
    assert invoke("sweep", file, "--out", tmp_path / "out").exit_code == 0
    assert sampled == NAMES
    again, first = (pd.read_csv(d / "sweep.csv") for d in (tmp_path / "out", serial[0]))
    pd.testing.assert_frame_equal(compared(again), compared(first))


BEFORE_WORK = {
    "model.n_components=[1, 300]": (
        2,
        "model.n_components: must be at most the number of rows, got n_components=300 for 272 "
        "rows; take fewer components",
    ),
    "data.columns=[['waiting'], ['wating']]": (
        3,
        "old_faithful has no column 'wating'; did you mean 'waiting'?",
    ),
}


@pytest.mark.parametrize(("change", "refusal"), BEFORE_WORK.items(), ids=["model", "data"])
def test_every_member_is_checked_before_the_first_is_run(file, sampled, tmp_path, change, refusal):
    arguments = ("sweep", file, "--out", tmp_path / "out", "--set", f"sweep.{change}")
    result = invoke(*arguments)
    assert (result.exit_code, result.stderr) == (refusal[0], f"error: {refusal[1]}\n")
    assert sampled == []
    assert not (tmp_path / "out").exists()


def test_what_data_cannot_teach_is_said_once(sampled, tmp_path):
    (tmp_path / "few.csv").write_text("a,b\n1,2\n2,1\n3,5\n")
    (tmp_path / "s.toml").write_text(
        '[data]\npath = "few.csv"\n[model]\nn_components = 2\n[sweep]\nruntime.seed = [1, 2, 3]\n'
    )
    result = invoke("sweep", tmp_path / "s.toml", "--dry-run")
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: seed=1: 2 components have 11 parameters but X has only 6 numbers: "
        "much of the answer comes from the prior\n"
    )


# -- one member of a job array --------------------------------------------------------------------


def test_an_index_runs_one_member(file, sampled, serial, tmp_path):
    out = tmp_path / "out"
    for i, name in enumerate(NAMES):
        result = invoke("sweep", file, "--out", out, "--index", i)
        assert result.exit_code == 0, result.output
        assert sampled == NAMES[: i + 1]
        assert {p.name for p in out.iterdir()} == {"sweep.json", *NAMES[: i + 1]}
        assert result.stdout.endswith(f"1 of 1 members are finished, in {out}\n")
        assert name in result.stdout
    # What is left is to put the table together.
    assert invoke("sweep", file, "--out", out).exit_code == 0
    assert sampled == NAMES
    again, first = (pd.read_csv(d / "sweep.csv") for d in (out, serial[0]))
    pd.testing.assert_frame_equal(compared(again), compared(first))


def test_indices_that_are_refused(file, sampled, tmp_path):
    out = tmp_path / "out"
    result = invoke("sweep", file, "--out", out, "--index", 4)
    assert result.exit_code == 2
    assert result.stderr == "error: index must be below the number of members, 4, got 4\n"
    with pytest.raises(ValueError, match="index must be at least 0, got -1"):
        gb.sweep(file, out, index=-1)
    with pytest.raises(TypeError, match="index must be an integer of at least 0, got '1'"):
        gb.sweep(file, out, index="1")
    assert not out.exists()


# -- the files of the repository ------------------------------------------------------------------


@pytest.mark.parametrize("config", SWEEPS, ids=lambda path: path.stem)
def test_the_sweeps_of_the_repository(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    result = invoke("sweep", config, "--dry-run")
    assert result.exit_code == 0, result.output
    *listed, last = result.stdout.splitlines()
    assert [int(line.split()[0]) for line in listed] == list(range(len(listed)))
    assert last == "dry run: nothing was sampled or written"
    assert list(tmp_path.iterdir()) == []


def test_the_job_array_runs_each_member_once(tmp_path, monkeypatch):
    """The script's range is that of the file, and what it calls runs one member."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    script = CONFIGS / "sweep_array.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    array = next(x for x in script.read_text().splitlines() if x.startswith("#SBATCH --array="))
    n_members = len(load_sweep(CONFIGS / "sweep_k.toml").members)
    assert array == f"#SBATCH --array=0-{n_members - 1}"
    command = tmp_path / "gmm-bayes"
    command.write_text('#!/bin/sh\necho "$@"\n')
    command.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "0"}
    said = subprocess.run(
        [script], env=env, cwd=CONFIGS.parent, capture_output=True, text=True, check=True
    ).stdout
    assert said == "sweep configs/sweep_k.toml --index 0\n"

    monkeypatch.chdir(CONFIGS.parent)
    few = ("--set", "sampler.num_samples=20", "--out", tmp_path / "out")
    result = invoke(*said.split(), *few)
    assert result.exit_code == 0, result.output
    first = "n_components=1-covariance_type=full-seed=1"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"sweep.json", first}
    assert gb.load(tmp_path / "out" / first / "posterior.nc").posterior.sizes["draw"] == 20


# -- in other processes ---------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["threading", 3])
def test_executors_by_name(file, sampled, serial, tmp_path, executor):
    if executor == 3:
        with pytest.raises(TypeError, match=r"^executor must be None, the name"):
            gb.sweep(file, tmp_path / "out", executor=executor)
        return
    table = gb.sweep(file, tmp_path / "out", executor=executor)
    assert sorted(sampled) == NAMES
    assert list(table["member"]) == NAMES


@pytest.mark.slow
def test_processes_of_joblib(file, serial, tmp_path):
    """The command itself, in a process of its own with two workers."""
    command = [sys.executable, "-m", "gmm_bayes", "sweep", file, "--out", tmp_path / "out"]
    done = subprocess.run(
        [*command, "--executor", "joblib", "--workers", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    there, here = (pd.read_csv(d / "sweep.csv") for d in (tmp_path / "out", serial[0]))
    pd.testing.assert_frame_equal(compared(there), compared(here))


def test_a_worker_that_dies_is_the_answer():
    """Joblib gives up what is left. The answers that came before are kept."""
    dies = partial(exec, "import os, time; time.sleep(1); os._exit(1)")
    answers = run_tasks(
        [partial(str, 1), dies, partial(str, 2)],
        "loky",
        shown=False,
        unit="task",
        workers=2,
        lost=lambda error: type(error).__name__,
    )
    assert len(answers) == 3
    assert answers[0] in ("1", "TerminatedWorkerError")
    assert answers[1:] == ["TerminatedWorkerError"] * 2
    with pytest.raises(Exception, match="A worker process managed by the executor was unexpecte"):
        run_tasks([dies, dies], "loky", shown=False, unit="task", workers=2)


def test_a_scheduler_that_is_not_there(file, serial, sampled, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_PATIENCE", "0.5s")
    result = invoke("sweep", file, "--out", tmp_path / "out", "--dask", "tcp://127.0.0.1:9")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "error: sweep.scheduler: no Dask scheduler answers at tcp://127.0.0.1:9 ("
    )
    result = invoke("sweep", file, "--out", tmp_path / "out", "--dask", "nowhere")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: sweep.scheduler: no Dask scheduler answers at nowhere ")
    # What the process does afterwards is not Dask's.
    fit = gb.load(serial[0] / NAMES[0] / "posterior.nc")
    assert gb.load(fit.save(tmp_path / "fit.nc")) == fit
    result = invoke("sweep", file, "--executor", "joblib", "--dask", "local")
    assert result.exit_code == 2
    assert result.stderr == "error: --dask does not go with --executor joblib\n"
    assert sampled == []


class Killer(threading.Thread):
    """Kills a worker as soon as every worker is in the middle of a member."""

    def __init__(self, directory, workers):
        super().__init__(daemon=True)
        self.directory, self.workers = directory, workers
        self.victim, self.unfinished = None, []

    def run(self):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            begun = [p.parent for p in self.directory.glob("*/.gmm-bayes.lock")]
            self.unfinished = [home.name for home in begun if not (home / "report.json").exists()]
            if len(self.unfinished) == len(self.workers):
                self.victim = self.workers[0]
                os.kill(self.victim, signal.SIGKILL)
                return
            time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dask_worker_that_is_killed(file, serial, tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=None,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        workers = sorted(client.run(os.getpid).values())
        killer = Killer(tmp_path / "out", workers)
        killer.start()
        table = gb.sweep(file, tmp_path / "out", executor=client)
        killer.join()
        assert killer.victim in workers
        assert len(killer.unfinished) == 2
        assert killer.victim not in client.run(os.getpid).values()
    assert list(table["status"]) == ["finished"] * 4
    there, here = (pd.read_csv(d / "sweep.csv") for d in (tmp_path / "out", serial[0]))
    pd.testing.assert_frame_equal(compared(there), compared(here))
    for name in NAMES:
        there, here = (gb.load(d / name / "posterior.nc") for d in (tmp_path / "out", serial[0]))
        assert there.posterior.identical(here.posterior)
    assert list(tmp_path.glob("out/*/.*")) == []


def test_the_tasks_that_travel_are_plain(file, tmp_path):
    """A function of a module and a dict of plain values."""
    from gmm_bayes.jobs.sweep.sweep import plan_sweep

    plan = plan_sweep(load_sweep(file), tmp_path / "out")
    assert list(plan.tasks) == NAMES
    assert members.run_member.__module__ == "gmm_bayes.jobs.sweep.members"
    for task in plan.tasks.values():
        assert json.loads(json.dumps(task)) == task
        assert Path(task["directory"]).is_absolute()

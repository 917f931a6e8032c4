"""Several processes on one host make the fit of one; one that dies ends all, and they go on."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hostile import raises_exactly

import gmm_bayes as gb
from gmm_bayes.errors import ConfigError
from gmm_bayes.jobs import processes

JOB = """
[data]
path = "rows.npy"
[model]
n_components = 2
[sampler]
num_warmup = {num_warmup}
num_samples = {num_samples}
num_chains = 2
[runtime]
seed = 1
device = "cpu"
checkpoint_seconds = 0.2
[output]
plots = false
partition = false
"""
# Far longer than anything takes, and far shorter than for ever.
PATIENCE = 1800


def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    X[1000:] += [7.0, -6.0]
    return X


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("distributed")
    np.save(path / "rows.npy", rows())
    (path / "job.toml").write_text(JOB.format(num_warmup=30, num_samples=50))
    (path / "long.toml").write_text(JOB.format(num_warmup=100, num_samples=2000))
    return path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(folder, out, *words, program=("-m", "gmm_bayes")):
    """Two processes of a command, which keep compiled programs in the folder."""
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(folder),
        "GMM_BAYES_CACHE": "on",
        "OPENBLAS_NUM_THREADS": "1",
        "JAX_PLATFORMS": "cpu",
    }
    options = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
    command = [sys.executable, *program, *words, *options, "--process-id"]
    started = []
    for process in range(2):
        with (folder / f"{out}.{process}.err").open("w") as errors:
            started.append(
                subprocess.Popen(
                    [*command, str(process)],
                    cwd=folder,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
            )
    return started


@contextlib.contextmanager
def ended(started):
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def finish(folder, out, *words, **how):
    """Run a command in two processes to its end: what they said, and complained of."""
    with ended(start(folder, out, *words, **how)) as started:
        said = [process.communicate(timeout=PATIENCE)[0] for process in started]
        errors = [(folder / f"{out}.{process}.err").read_text() for process in range(2)]
        assert [process.returncode for process in started] == [0, 0], errors
    return said, errors


@pytest.fixture(scope="module")
def together(folder):
    return folder / "together", *finish(folder, "together", "run", "job.toml", "--out", "together")


@pytest.fixture(scope="module")
def in_peace(folder):
    finish(folder, "in_peace", "run", "long.toml", "--out", "in_peace")
    return gb.load(folder / "in_peace" / "posterior.nc")


def num_kept(directory):
    """Draws of each chain that are in a checkpoint."""
    with contextlib.suppress(FileNotFoundError):
        manifest = directory / "checkpoint" / "chains" / "manifest.json"
        groups = json.loads(manifest.read_text())["groups"].values()
        return max((group["done"] for group in groups), default=0)
    return 0


def test_two_processes_make_the_draws_of_one(together):
    sampler = gb.NUTS(num_warmup=30, num_samples=50, num_chains=2, chain_method="vectorized")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        one = gb.fit(rows(), 2, sampler=sampler, seed=1)
    two = gb.load(together[0] / "posterior.nc")
    for name, values in one.posterior.items():
        np.testing.assert_allclose(two.posterior[name], values, rtol=0, atol=1e-8)
    # Each held half of the rows, and they agreed on the length of every call.
    assert two.run["mesh"] == {"chains": 1, "rows": 2}
    assert two.run["n_processes"] == 2
    assert two.run["n_gradients"] == one.run["n_gradients"]


def test_only_the_first_process_speaks_and_writes(together):
    directory, said, errors = together
    assert "believe it?" in said[0]
    # Gloo itself says how many it has met.
    assert [line for line in said[1].splitlines() if not line.startswith("[Gloo]")] == []
    assert "warning:" in errors[0]
    assert "warning:" not in errors[1]
    assert not (directory / ".gmm-bayes.lock").exists()


@pytest.mark.slow
def test_each_process_reads_its_own_rows_of_a_file(folder, together):
    """Half of them to look at, when they are checked and when they are fitted, and to sample."""
    words = ("run", "job.toml", "--out", "apart", "--set", "data.in_memory=false")
    watched = Path(__file__).with_name("watched_rows.py")
    errors = finish(folder, "apart", *words, program=(watched,))[1]
    read = [[line for line in text.splitlines() if line.startswith("rows ")] for text in errors]
    assert read[1] == 3 * ["rows 1000 to 2000"]
    # The first one also writes the responsibilities of all rows.
    assert read[0] == [*3 * ["rows 0 to 1000"], "rows 0 to None"]
    apart = gb.load(folder / "apart" / "posterior.nc")
    for name, values in gb.load(together[0] / "posterior.nc").posterior.items():
        np.testing.assert_allclose(apart.posterior[name], values, rtol=0, atol=1e-8)
    table = pd.read_csv(folder / "apart" / "responsibilities.csv", index_col=0)
    pd.testing.assert_frame_equal(
        table, pd.read_csv(together[0] / "responsibilities.csv", index_col=0), atol=1e-8
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_both_go_on(folder, in_peace, victim):
    out = f"killed{victim}"
    with ended(start(folder, out, "run", "long.toml", "--out", out)) as started:
        begin = time.monotonic()
        while num_kept(folder / out) <= 100:
            assert time.monotonic() < begin + PATIENCE
            assert all(process.poll() is None for process in started)
            time.sleep(0.05)
        started[victim].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        survivor = started[1 - victim]
        code = survivor.wait(PATIENCE)
        assert code != 0
        # A heartbeat is missed after 30 seconds; a compilation is not interrupted.
        assert time.monotonic() - killed < 120
    complaint = (folder / f"{out}.{1 - victim}.err").read_text()
    # JAX itself ends the others when the first process is gone.
    assert "has lost another one" in complaint or "another task died" in complaint
    assert not (folder / out / "posterior.nc").exists()
    assert 100 < num_kept(folder / out) < 2100

    finish(folder, f"{out}again", "resume", out)
    resumed = gb.load(folder / out / "posterior.nc")
    assert resumed.run["resumed"] == 1
    assert resumed.posterior.identical(in_peace.posterior)


WRONG = {
    "two of three": (
        ("node1:7777", 2, None),
        "--coordinator HOST:PORT, --num-processes and --process-id belong together: give all "
        "three, or none under a scheduler",
    ),
    "no port": (
        ("node1", 2, 0),
        "--coordinator must be HOST:PORT, such as node1:7777, got 'node1'",
    ),
    "no processes": (("node1:7777", 0, 0), "--num-processes must be at least 1, got 0"),
    "one too many": (
        ("node1:7777", 2, 2),
        "--process-id must be from 0 to 1, one less than --num-processes, got 2",
    ),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_named(options, message):
    with raises_exactly(ConfigError, message):
        processes.join(*options)
    assert processes.first()
    assert processes.count() == 1


def test_no_scheduler_is_named(folder):
    done = subprocess.run(
        [sys.executable, "-m", "gmm_bayes", "run", "job.toml", "--distributed"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if "SLURM" not in name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: --distributed found no job of SLURM or Open MPI; give --coordinator HOST:PORT, "
        "--num-processes and --process-id\n"
    )

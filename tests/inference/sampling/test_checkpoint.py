"""A run that is killed, interrupted or out of disk goes on to the draws of one that was not."""

import errno
import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter

import jax
import numpy as np
import pandas as pd
import pytest
from hostile import SHORT, quiet_fit, raises_exactly, small_fit, table, two_groups

import gmm_bayes as gb
from gmm_bayes.errors import CheckpointError, CheckpointWarning
from gmm_bayes.files import locks
from gmm_bayes.inference import continuation
from gmm_bayes.inference import fit as runner
from gmm_bayes.inference.sampling.checkpoint import disk as checkpoint
from gmm_bayes.inference.sampling.checkpoint import files as checkpoint_files
from gmm_bayes.machine.progress import listening

QUICK = {"checkpoint_seconds": 1e-9}


class Killed(BaseException):
    """As SIGKILL, nothing that it passes may clean up."""


def quiet_resume(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.ConvergenceWarning)
        return gb.resume(*arguments, **options)


def same_draws(one, other):
    for name in ("posterior", "sample_stats", "sampler_state", "observed_data", "constant_data"):
        assert one.datatree[name].to_dataset().identical(other.datatree[name].to_dataset()), name


def killed_at(monkeypatch, directory, number, **options):
    """Run until the write of that number, which is left half done."""
    write, count = checkpoint_files.write_file, iter(range(1000))
    dead = threading.Event()

    def deadly(path, content):
        if dead.is_set() or next(count) == number:
            if not dead.is_set():
                (path.parent / f".{path.name}.abc.tmp").write_bytes(content[: len(content) // 2])
            dead.set()
            raise Killed
        return write(path, content)

    monkeypatch.setattr(checkpoint_files, "write_file", deadly)
    with pytest.raises(Killed):
        quiet_fit(two_groups(), checkpoint=directory, **{**QUICK, **options})
    monkeypatch.setattr(checkpoint_files, "write_file", write)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run; tests that change it copy it."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    fit = quiet_fit(two_groups(), checkpoint=directory, **QUICK)
    return directory, fit


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of a finished run."""
    directory = tmp_path / "copy"
    directory.mkdir()
    for path in finished[0].iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


def manifest_of(directory):
    return json.loads((directory / "manifest.json").read_text())


def change_manifest(directory, **changes):
    (directory / "manifest.json").write_text(json.dumps({**manifest_of(directory), **changes}))


# -- the same draws -------------------------------------------------------------------------------


def test_a_checkpoint_changes_no_draw_and_holds_only_what_it_names(finished):
    directory, fit = finished
    same_draws(fit, small_fit())
    assert set(os.listdir(directory)) == {"manifest.json", *manifest_of(directory)["files"]}
    suffixes = {path.suffix for path in directory.iterdir()}
    assert suffixes == {".json", ".npz", ".nc"}
    assert not any(b"pickle" in path.read_bytes() for path in directory.iterdir())


def test_a_finished_run_gives_its_result_again(finished):
    directory, fit = finished
    before = {path.name: path.read_bytes() for path in directory.glob("draws-*")}
    again = quiet_resume(directory)
    same_draws(again, fit)
    assert again.run == {**fit.run, "resumed": again.run["resumed"]}
    assert {path.name: path.read_bytes() for path in directory.glob("draws-*")} == before


# A fit writes two files to begin, two for the plan, then three for each save of a group.
@pytest.mark.parametrize("number", [1, 2, 3, 5, 9, 12])
def test_killed_while_it_writes(number, monkeypatch, tmp_path):
    directory = tmp_path / "run"
    killed_at(monkeypatch, directory, number)
    if number == 1:
        with raises_exactly(
            FileNotFoundError, f"{directory} holds no run: there is no manifest.json in it"
        ):
            gb.resume(directory)
        fit = quiet_fit(two_groups(), checkpoint=directory)
    else:
        fit = quiet_resume(directory, two_groups(), seed=3, sampler=SHORT)
        assert fit.run["resumed"] == 1
    same_draws(fit, small_fit())
    # Of what the killed process was writing nothing is left.
    assert set(os.listdir(directory)) == {"manifest.json", *manifest_of(directory)["files"]}


def test_killed_again_and_again(monkeypatch, tmp_path):
    directory = tmp_path / "run"
    killed_at(monkeypatch, directory, 5)
    for _ in range(3):
        with monkeypatch.context() as patch:
            kill_after(patch, 4)
            with pytest.raises(Killed):
                quiet_resume(directory, checkpoint_seconds=1e-9)
    fit = quiet_resume(directory)
    assert fit.run["resumed"] == 4
    same_draws(fit, small_fit())


def kill_after(monkeypatch, number):
    write, count = checkpoint_files.write_file, iter(range(1000))

    def deadly(path, content):
        if next(count) >= number:
            raise Killed
        return write(path, content)

    monkeypatch.setattr(checkpoint_files, "write_file", deadly)


FORMS = {
    "single precision, in the units of the prior": {
        "precision": "float32",
        "sampler": gb.NUTS(100, 60, 2, preconditioning="none", dense_mass=True),
        # The factor of this matrix does not come back to the last bit from its square.
        "priors": gb.Priors.fixed(
            scale_scale=[1.0, 2.0], mean_covariance=[[0.9, -0.41], [-0.41, 0.6]]
        ),
    },
    "all chains in one program, rows with names": {
        "X": pd.DataFrame(two_groups(), columns=["a", "ü"], index=[f"row {i}" for i in range(40)]),
        "sampler": gb.NUTS(100, 60, 2, chain_method="vectorized"),
        "covariance_type": "tied",
        "init": gb.MixtureParameters(
            np.array([0.5, 0.5]), np.array([[0.0, 0.0], [7.0, -6.0]]), np.stack([np.eye(2)] * 2)
        ),
    },
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_other_forms_go_on_as_well(options, monkeypatch, tmp_path):
    options = {"X": two_groups(), **options}
    X = options.pop("X")
    whole = quiet_fit(X, **options)
    with monkeypatch.context() as patch:
        kill_after(patch, 9)
        with pytest.raises(Killed):
            quiet_fit(X, checkpoint=tmp_path / "run", **QUICK, **options)
    same_draws(quiet_resume(tmp_path / "run", X, **options), whole)
    shorter = gb.NUTS(**{**vars(options["sampler"]), "num_samples": 23})
    short = quiet_fit(X, **{**options, "sampler": shorter})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.ConvergenceWarning)
        same_draws(gb.extend(short, 37), whole)


def test_an_interrupt_saves_and_goes_on(monkeypatch, tmp_path):
    directory = tmp_path / "run"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("gmm_bayes.machine.progress._SECONDS_BETWEEN_REPORTS", 0)

    pressed = threading.Event()

    def press(report):
        # Once: a second interrupt would not wait for the chains.
        if report["phase"] == "sampling" and not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(1.0)

    try:
        with pytest.raises(KeyboardInterrupt), listening(press):
            quiet_fit(two_groups(), checkpoint=directory)
    finally:
        signal.signal(signal.SIGINT, before)
    done = [group["done"] for group in manifest_of(directory)["groups"].values()]
    assert max(done) > 100
    assert max(done) < 160
    same_draws(quiet_resume(directory), small_fit())


# -- one recorder by itself -----------------------------------------------------------------------


@pytest.fixture
def recorder(tmp_path):
    recorder = checkpoint.DiskRecorder(tmp_path, {}, 1000.0)
    recorder.create({"X": np.zeros((3, 1))}, "hash", {"seed": [1]}, "cpu")
    return recorder


def some_draws(n_draws, seed=0):
    rng = np.random.default_rng(seed)
    shape = (2, n_draws)
    return {
        "eta": rng.standard_normal((*shape, 3)),
        "n_steps": rng.integers(0, 9, shape),
        "diverging": rng.random(shape) < 0.5,
    }


def test_draws_are_written_by_the_clock_and_on_request_and_not_held(recorder):
    state = {"z": np.arange(6.0).reshape(2, 3), "i": np.array([4, 4])}
    group, parts = recorder.group(2), [some_draws(5, seed) for seed in range(4)]
    for done, part in zip((5, 10, 15, 20), parts, strict=True):
        group.add(part)
        if done == 10:
            checkpoint.save_soon()
        if done == 15:
            recorder.seconds = 0.0
        if group.is_due():
            group.save(state, done, done)
        recorder.seconds = 1000.0
        assert group.done == {5: 0, 10: 10, 15: 15, 20: 15}[done]
        assert len(group._pending.get("eta", [])) == (done in (5, 20))
    expected = {k: np.concatenate([p[k] for p in parts], axis=1) for k in parts[0]}
    for name, values in group.draws().items():
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == expected[name].dtype
    again = checkpoint.DiskRecorder(recorder.directory, manifest_of(recorder.directory), 1.0)
    found, done = again.group(2).begin(jax.tree.map(np.zeros_like, state))
    assert done == again.group(2).done == again.group(2).divergences == 15
    assert jax.tree.all(jax.tree.map(np.array_equal, found, state))
    assert {p.name for p in recorder.directory.iterdir()} == {
        "manifest.json",
        "inputs.npz",
        "state-2-15.npz",
        "draws-2-0.nc",
        "draws-2-10.nc",
    }
    other = {"z": np.zeros((2, 4)), "i": np.array([4, 4])}
    with raises_exactly(
        CheckpointError, "the state of the chains is not one of this sampler: z differ"
    ):
        again.group(2).begin(other)


# -- faults of the disk ---------------------------------------------------------------------------


def test_a_disk_that_refuses_to_grow_a_file(monkeypatch, tmp_path):
    """The operating system stops the write; the run goes on, and so does the checkpoint later."""
    directory, write = tmp_path / "run", checkpoint_files.write_file
    seen, broken = Counter(), []

    def limited(path, content):
        kind = path.name.partition("-")[0]
        seen[kind] += 1
        # Once while draws are written, once while a state, once while the manifest.
        if seen[kind] != 4:
            return write(path, content)
        broken.append(kind)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            return write(path, content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(checkpoint_files, "write_file", limited)
    with pytest.warns(CheckpointWarning) as caught:
        fit = fit_with_warnings(directory)
    (message,) = [str(w.message) for w in caught if w.category is CheckpointWarning]
    assert message == (
        f"the checkpoint in {directory} could not be written (File too large): the run goes on in "
        "memory and tries again"
    )
    assert sorted(broken) == ["draws", "manifest.json", "state"]
    same_draws(fit, small_fit())
    same_draws(quiet_resume(directory), small_fit())


def test_a_really_full_disk(tmp_path, monkeypatch):
    """On a file system of 64 KiB, where a test may make one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        message = rf"the checkpoint needs about 1 MiB, 0 MiB are free in {tmp_path}\Z"
        with pytest.raises(CheckpointError, match=message):
            quiet_fit(two_groups(), checkpoint=tmp_path)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(runner, "refuse_lack_of_room", lambda *_: None)
        with pytest.warns(CheckpointWarning, match="No space left on device"):
            fit = fit_with_warnings(tmp_path)
        same_draws(fit, small_fit())
        # What had been saved is whole, and the run can go on once there is room.
        subprocess.run(["mount", "-o", "remount,size=2m", str(tmp_path)], check=True)
        same_draws(quiet_resume(tmp_path), small_fit())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_read_only_file_system(finished, tmp_path):
    """Root may write to every directory, but not to this one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        for path in finished[0].iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        new = tmp_path / "new"
        with raises_exactly(CheckpointError, f"cannot write to {new}: Read-only file system"):
            gb.fit(two_groups(), 2, checkpoint=new)
        with raises_exactly(CheckpointError, f"cannot write to {tmp_path}: Read-only file system"):
            gb.resume(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def fit_with_warnings(directory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.ConvergenceWarning)
        return gb.fit(two_groups(), 2, sampler=SHORT, seed=3, checkpoint=directory, **QUICK)


# -- what is refused ------------------------------------------------------------------------------


def test_other_data_and_other_arguments(finished):
    directory, _ = finished
    rows = two_groups()
    rows[3, 1] = np.nextafter(rows[3, 1], 9)
    names = pd.DataFrame(two_groups(), columns=["a", "b"])
    for other in (rows, names, names.set_axis(range(1, 41)).to_numpy()[:-1]):
        with raises_exactly(
            CheckpointError,
            f"the run in {directory} has other data than X: rows, names of columns or labels of "
            "rows differ",
        ):
            gb.resume(directory, other)
    with raises_exactly(
        CheckpointError,
        f"the run in {directory} is not the one to go on with: n_components was 2, now 3; "
        'covariance_type was "full", now "tied"; seed was [3], now [4]',
    ):
        gb.resume(directory, n_components=3, covariance_type="tied", seed=4, n_init=None)
    with pytest.raises(CheckpointError, match=r"with: sampler was .*; priors was null, now"):
        gb.resume(directory, sampler=gb.NUTS(num_samples=61), priors=gb.Priors())
    with raises_exactly(TypeError, "fit has no argument 'sede'; did you mean 'seed'?"):
        gb.resume(directory, sede=3)
    with raises_exactly(TypeError, "checkpoint must be a path, got int"):
        gb.resume(3)


def test_other_versions_and_devices(copied):
    stored = manifest_of(copied)
    change_manifest(copied, versions={**stored["versions"], "jax": "0.1"}, device="gpu NVIDIA H200")
    with raises_exactly(
        CheckpointError,
        f'the run in {copied} is not the one to go on with: jax was "0.1", now '
        f'"{jax.__version__}"; device was "gpu NVIDIA H200", now "cpu"',
    ):
        gb.resume(copied)


def _cut(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _remove(path):
    path.unlink()


DAMAGED = "{path} is damaged: it is not what the run wrote"
MANIFEST = "{path} is damaged: it is not the manifest of a run"
DAMAGE = {
    "inputs cut": ("inputs.npz", _cut, DAMAGED),
    "plan flipped": ("plan.npz", _flip, DAMAGED),
    "draws cut": ("draws-0-*.nc", _cut, DAMAGED),
    "state flipped": ("state-1-160.npz", _flip, DAMAGED),
    "draws lost": ("draws-1-0.nc", _remove, "cannot read {path}: No such file or directory"),
    "manifest cut": ("manifest.json", _cut, MANIFEST),
    "manifest of text": ("manifest.json", lambda path: path.write_text("hello"), MANIFEST),
    "manifest of a list": ("manifest.json", lambda path: path.write_text("[1]"), MANIFEST),
    "deep manifest": ("manifest.json", lambda path: path.write_text("[" * 10**6), MANIFEST),
    "another manifest": (
        "manifest.json",
        lambda path: path.write_text("{}"),
        "{path} is not the manifest of a run: it has no format tag gmm_bayes.checkpoint",
    ),
    "a later version": (
        "manifest.json",
        lambda path: change_manifest(path.parent, format_version=2),
        "{path} has format version 2, this gmm_bayes reads version 1; go on with the version that "
        "wrote it",
    ),
    "a file elsewhere": (
        "manifest.json",
        lambda path: change_manifest(path.parent, files={"../inputs.npz": "0"}),
        MANIFEST,
    ),
    "no groups": (
        "manifest.json",
        lambda path: change_manifest(path.parent, groups=[1]),
        MANIFEST,
    ),
}


@pytest.mark.parametrize(("name", "damage", "message"), table(DAMAGE))
def test_a_directory_that_is_damaged(copied, name, damage, message):
    (path,) = sorted(copied.glob(name))[:1]
    damage(path)
    with raises_exactly(CheckpointError, message.format(path=path)):
        gb.resume(copied)
    assert not (copied / locks.LOCK_FILE).exists()


def test_arguments_that_are_none(copied):
    config = {**manifest_of(copied)["config"], "sampler": {"kind": "os.system"}}
    change_manifest(copied, config=config)
    message = f"{copied} is damaged: its arguments are not what a run wrote ('os.system')"
    with raises_exactly(CheckpointError, message):
        gb.resume(copied)


def test_a_directory_that_is_none(tmp_path):
    missing = tmp_path / "missing"
    with raises_exactly(
        FileNotFoundError, f"{missing} does not exist; name the checkpoint of a run"
    ):
        gb.resume(missing)
    file = tmp_path / "file"
    file.touch()
    with raises_exactly(
        FileNotFoundError, f"{file} is not a directory; name the checkpoint of a run"
    ):
        gb.resume(file)
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_where_a_run_cannot_begin(finished, tmp_path, monkeypatch):
    directory, _ = finished
    X = two_groups()
    message = (
        f"{directory} holds a run already: go on with it by gmm_bayes.resume({str(directory)!r}), "
        "or name another directory"
    )
    with raises_exactly(CheckpointError, message):
        gb.fit(X, 2, checkpoint=directory)
    (tmp_path / "mine.txt").touch()
    with raises_exactly(
        CheckpointError,
        f"{tmp_path} is not empty (mine.txt); name another directory for the checkpoint",
    ):
        gb.fit(X, 2, checkpoint=tmp_path)
    file = tmp_path / "mine.txt"
    with raises_exactly(CheckpointError, f"cannot write to {file}: File exists"):
        gb.fit(X, 2, checkpoint=file)
    with raises_exactly(TypeError, "checkpoint must be a path, got int"):
        gb.fit(X, 2, checkpoint=3)
    with raises_exactly(
        ValueError,
        "checkpoint must be None with Laplace, which cannot go on from one; take sampler=NUTS()",
    ):
        gb.fit(X, 2, sampler=gb.Laplace(), checkpoint=tmp_path / "new")
    with pytest.raises(ValueError, match="checkpoint_seconds"):
        gb.fit(X, 2, checkpoint=tmp_path / "new", checkpoint_seconds=0)
    with pytest.raises(ValueError, match="mean_loc"):
        gb.fit(X, 2, checkpoint=tmp_path / "new", priors=gb.Priors(mean_loc=np.zeros((3, 2))))
    assert sorted(os.listdir(tmp_path)) == ["mine.txt"]


HOLD = """
import sys
from pathlib import Path
from gmm_bayes.files.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(copied):
    command = [sys.executable, "-c", HOLD, str(copied)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_ends_with_its_holder(copied, holder):
    assert locks.is_locked(copied)
    message = f"another run is writing to {copied}; wait for it, or name another directory"
    with raises_exactly(CheckpointError, message):
        gb.resume(copied)
    holder.kill()
    holder.wait()
    # Its file is still there.
    assert (copied / locks.LOCK_FILE).exists()
    assert not locks.is_locked(copied)
    same_draws(quiet_resume(copied), small_fit())
    assert not (copied / locks.LOCK_FILE).exists()


def test_a_file_system_without_locks(monkeypatch, tmp_path):
    def refuse(number):
        def flock(handle, how):
            raise OSError(number, os.strerror(number))

        return flock

    monkeypatch.setattr("fcntl.flock", refuse(errno.ENOSYS))
    with locks.locked(tmp_path):
        assert not locks.is_locked(tmp_path)
    monkeypatch.setattr("fcntl.flock", refuse(errno.ENOLCK))
    with pytest.raises(OSError, match="No locks available"), locks.locked(tmp_path):
        pytest.fail("locked")


def test_a_lock_whose_file_was_taken_away_is_none(tmp_path):
    """Whoever opened the file of a run that has ended must not believe to have locked the next."""
    handle = os.open(tmp_path / locks.LOCK_FILE, os.O_RDWR | os.O_CREAT)
    (tmp_path / locks.LOCK_FILE).unlink()
    with locks.locked(tmp_path):
        assert locks._lock(handle)
        assert not locks._still_there(handle, tmp_path / locks.LOCK_FILE)
        with pytest.raises(BlockingIOError), locks.locked(tmp_path):
            pytest.fail("two runs")
    os.close(handle)
    assert os.listdir(tmp_path) == []


# -- more draws -----------------------------------------------------------------------------------


def test_more_draws_are_those_of_one_long_run(tmp_path):
    short = quiet_fit(two_groups(), sampler=gb.NUTS(100, 25, 2))
    path = short.with_group("prior", short.posterior).save(tmp_path / "short.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.ConvergenceWarning)
        once = gb.extend(gb.load(path), 10)
        twice = gb.extend(once, 25)
    assert once.posterior.sizes["draw"] == 35
    assert "prior" not in once.datatree.children
    same_draws(twice, small_fit())
    assert twice.sampler == small_fit().sampler
    assert twice.run == small_fit().run
    assert twice.problems == small_fit().problems
    assert twice.timings["sample"] > short.timings["sample"]


def test_fits_that_cannot_be_extended():
    fit = small_fit()
    with raises_exactly(TypeError, "fit must be a GMMFit, got str; gmm_bayes.load reads a file"):
        gb.extend("fit", 3)
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        gb.extend(fit, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        others = {
            "aligned": gb.align_labels(fit),
            "stacked": gb.stack_chains(fit).resample(),
            "which fits by NUTS alone keep": gb.marginal(fit, "x0"),
            "fit again with more": gb.fit(two_groups(), 2, sampler=gb.Laplace(50)),
        }
    for words, other in others.items():
        with pytest.raises(ValueError, match=re.escape(words)):
            gb.extend(other, 10)


def test_arviz_is_not_bothered_by_the_state():
    assert "sampler_state" in small_fit().datatree.children
    groups = small_fit().idata
    names = groups.groups() if callable(groups.groups) else groups.groups
    assert not any("sampler_state" in name for name in names)


def test_the_config_holds_every_argument_of_fit(finished):
    """A new argument must be stored, or be known to change no draw."""
    config = manifest_of(finished[0])["config"]
    assert {*config, *continuation._FREE} == set(inspect.signature(gb.fit).parameters)

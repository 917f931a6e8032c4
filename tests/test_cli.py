"""The command line from the outside: exit codes, whole messages, and the content of every file."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import gmm_bayes as gb
from gmm_bayes import cli
from gmm_bayes.files import locks
from gmm_bayes.inference import fit as runner
from gmm_bayes.inference.result import netcdf as storage
from gmm_bayes.jobs import execution, output
from gmm_bayes.jobs.job_file.config import load_config
from gmm_bayes.jobs.preparation import prepare
from gmm_bayes.jobs.results import following

CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[1] / "configs").glob("*.toml")
    if "[sweep]" not in path.read_text()
)
QUICKSTART = next(path for path in CONFIGS if path.stem == "quickstart")
SHORT = ("--set", "sampler.num_warmup=150", "--set", "sampler.num_samples=50")
FILES = {
    "posterior.nc",
    "responsibilities.csv",
    "partition.csv",
    "partition.png",
    "components.png",
    "density.png",
    "responsibilities.png",
    "diagnostics.png",
    "config.resolved.toml",
    "report.json",
    "run.log",
    "progress.jsonl",
}


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def refused(code, *arguments):
    """The one message of a command that must fail."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip("\n")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """A directory of its own for what a job writes; the variable is put back afterwards."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_sampling(monkeypatch):
    def sample(job):
        raise AssertionError("sampling began")

    monkeypatch.setattr(execution, "_sample", sample)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One short run that is not to be believed."""
    directory = tmp_path_factory.mktemp("runs") / "short"
    result = invoke(
        "run",
        QUICKSTART,
        "--out",
        directory,
        *SHORT,
        "--strict",
        "--set",
        'output.groups=["prior"]',
    )
    return directory, result


@pytest.fixture(scope="module")
def fitted(done):
    return gb.load(done[0] / "posterior.nc")


def switched(fit):
    """The same fit with the components of its last chains the other way round."""
    posterior = fit.posterior.copy(deep=True)
    for variable in posterior.data_vars.values():
        variable[2:] = variable[2:].isel(component=[1, 0]).values
    return fit.with_group("posterior", posterior)


# -- a run ----------------------------------------------------------------------------------------


def test_a_run_is_the_fit_of_the_package(done, fitted):
    faithful = gb.datasets.load_old_faithful()
    with pytest.warns(gb.errors.ConvergenceWarning):
        expected = gb.fit(faithful, 2, sampler=gb.NUTS(num_warmup=150, num_samples=50), seed=1)
    assert fitted.posterior.identical(expected.posterior)
    assert fitted.sampler == expected.sampler
    assert fitted.X.identical(expected.X)
    assert fitted.datatree["prior"].sizes["draw"] == 500


def test_the_resolved_job_file_is_what_was_run(done):
    expected = load_config(
        QUICKSTART, [*(change for change in SHORT if change != "--set"), "output.groups=['prior']"]
    )
    assert load_config(done[0] / "config.resolved.toml") == expected


def test_the_resolved_job_file_names_the_directory_that_was_used(tmp_path):
    config = load_config(QUICKSTART)
    for out in (Path("elsewhere/run"), tmp_path / "elsewhere" / "run"):
        Path("again.toml").write_text(prepare(config, out).resolved)
        assert load_config("again.toml").output.directory == "elsewhere/run"
    # One that a job file must not name is told all the same.
    outside = tmp_path.parent / "outside"
    Path("again.toml").write_text(prepare(config, outside).resolved)
    assert load_config("again.toml") == config
    assert f"# Results went to {outside}, by --out.\n" in Path("again.toml").read_text()


def test_every_setting_reaches_the_fit(monkeypatch):
    calls = []
    monkeypatch.setattr(runner, "fit", lambda *args, **kwargs: calls.append((args, kwargs)))
    changes = [
        "model.n_components=3",
        "model.covariance_type=tied",
        "sampler.num_chains=2",
        "sampler.target_accept_prob=0.95",
        "sampler.preconditioning=none",
        "init.method=random",
        "init.n_init=4",
        "runtime.seed=9",
        "runtime.device=cpu",
        "runtime.precision=float32",
        "runtime.progress=false",
        "runtime.checkpoint_seconds=7",
    ]
    priors = ["priors.scale_scale=[2, 3]", "priors.weight_concentration=1"]
    for more in ([], priors, [*priors, "priors.kind=fixed"]):
        execution._sample(prepare(load_config(QUICKSTART, [*changes, *more])))
    faithful = gb.datasets.load_old_faithful()
    changed = {"scale_scale": [2, 3], "weight_concentration": 1}
    for (args, kwargs), expected in zip(
        calls,
        [
            None,
            gb.default_priors(faithful, 3, seed=9).replace(**changed),
            gb.Priors.fixed(**changed),
        ],
        strict=True,
    ):
        pd.testing.assert_frame_equal(args[0], faithful)
        assert args[1] == 3
        assert kwargs == {
            "covariance_type": "tied",
            "priors": expected,
            "sampler": gb.NUTS(500, 500, 2, target_accept_prob=0.95, preconditioning="none"),
            "init": "random",
            "n_init": 4,
            "survey": True,
            "seed": 9,
            "device": "cpu",
            "mesh": None,
            "precision": "float32",
            "progress": False,
            "checkpoint": Path("runs/quickstart/checkpoint/chains"),
            "checkpoint_seconds": 7.0,
        }


def test_the_files_are_there_and_nothing_else(done):
    assert {path.name for path in done[0].iterdir()} == FILES
    assert all(path.stat().st_mode & 0o777 == 0o666 & ~umask() for path in done[0].iterdir())
    for picture in done[0].glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_responsibilities_are_those_of_the_posterior(done, fitted):
    frame = pd.read_csv(done[0] / "responsibilities.csv", index_col="index")
    assert list(frame) == ["component_0", "component_1", "label", "log_predictive_density"]
    np.testing.assert_array_equal(frame.index, fitted.X["obs"])
    expected = gb.responsibilities(fitted).values
    np.testing.assert_allclose(frame.iloc[:, :2], expected, rtol=1e-12)
    np.testing.assert_array_equal(frame["label"], gb.assign(fitted))
    expected = gb.log_predictive_density(fitted)
    np.testing.assert_allclose(frame["log_predictive_density"], expected, rtol=1e-12)


def test_the_report_is_the_diagnosis(done, fitted):
    report = json.loads((done[0] / "report.json").read_text())
    diagnosis = gb.diagnose(fitted)
    assert report.pop("seconds").keys() == {"read", "initialise", "compile", "sample", "results"}
    assert report.pop("problems") == list(diagnosis.problems) != []
    assert report.pop("advice") == list(diagnosis.advice)
    assert report.pop("mean_log_likelihood") == pytest.approx(diagnosis.log_likelihood)
    found = gb.partition(fitted, seed=1)
    assert report.pop("partition") == {
        "n_clusters": 2,
        "sizes": found.sizes.tolist(),
        "expected_loss": found.expected_loss,
        "unsure_rows": int((found.probability < 0.95).sum()),
    }
    assert report.pop("e_bfmi") == pytest.approx(diagnosis.e_bfmi)
    for name in ("rhat", "ess_bulk", "ess_tail"):
        assert report.pop(name) == pytest.approx(getattr(diagnosis, name))
    assert set(report.pop("files")) == FILES
    assert report == {
        "verdict": "not ok",
        "components_ok": False,
        "notes": [],
        "num_superchains": None,
        "divergences": diagnosis.n_divergences,
        "max_tree_depth_hits": diagnosis.n_max_tree_depth,
        "worse_chains": [],
        "labels_switched": False,
        "alignment": None,
        "anomalies": None,
        # Of chains that are not believed nothing is said.
        "prior_sensitivity": None,
        "prior_decides": None,
        "n_components": 2,
        "occupied_components": 2.0,
        "data": {
            "source": "old_faithful",
            "n_obs": 272,
            "n_kept": 272,
            "columns": ["eruptions", "waiting"],
        },
        "device": fitted.device,
        "device_memory_bytes": fitted.run["device_memory"],
        "devices": None,
        "processes": 1,
        "precision": "float64",
        "chain_method": fitted.chain_method,
        "seed": 1,
        "versions": fitted.versions,
        "left_out": {},
    }


def test_strict_exits_with_one_and_plain_lines(done, fitted):
    directory, result = done
    assert result.exit_code == 1
    warning, error = result.stderr.splitlines()
    problems = "; ".join(gb.diagnose(fitted).problems)
    assert warning.startswith(f"warning: do not believe these chains yet: {problems}.")
    assert error == "error: the chains are not to be believed (--strict)"
    lines = result.stdout.splitlines()
    assert lines[:6] == [
        "data     old_faithful: 272 rows, 2 columns (eruptions, waiting)",
        "model    2 components, full covariances, 11 parameters, default priors",
        "sampler  4 chains x (150 warm-up + 50) draws, seed 1, device auto",
        f"output   {directory}",
        "",
        "component  weight           column     mean             sd",
    ]
    assert "believe it? NO" in lines
    assert lines[-1].startswith(f"written to {directory}: posterior.nc, ")


def test_the_table_holds_means_and_sds(done, fitted):
    line = next(line for line in done[1].stdout.splitlines() if line.startswith("1 "))
    posterior = fitted.posterior.isel(component=1)
    pairs = [
        f"{float(x.mean()):.{digits}f} +/- {float(x.std()):.{digits}f}"
        for x, digits in (
            (posterior["weights"], 3),
            (posterior["means"].isel(feature=0), 3),
            (posterior["scales"].isel(feature=0), 3),
        )
    ]
    assert line.split(maxsplit=1)[1] == f"{pairs[0]}  eruptions  {pairs[1]}  {pairs[2]}"


def test_an_existing_result_is_replaced_by_force_only(done, fitted, tmp_path, monkeypatch):
    directory = tmp_path / "out"
    directory.mkdir()
    for name in FILES:
        (directory / name).write_text("old")
    (directory / "mine.txt").write_text("mine")
    arguments = ("run", QUICKSTART, "--out", directory)
    assert refused(2, *arguments) == (
        f"{directory} is not empty (components.png, config.resolved.toml, density.png, ...); "
        "name another directory with --out, or replace results with --force"
    )
    assert {path.read_text() for path in directory.iterdir()} == {"old", "mine"}

    monkeypatch.setattr(execution, "_sample", lambda job: fitted)
    result = invoke(*arguments, "--force", "--set", "output.plots=false")
    assert result.exit_code == 0, result.output
    # The pictures were of other draws.
    assert {path.name for path in directory.iterdir()} == {
        "mine.txt",
        *(name for name in FILES if not name.endswith(".png")),
    }
    assert gb.load(directory / "posterior.nc") == fitted
    assert (directory / "mine.txt").read_text() == "mine"


# What depends on the numbers of the components.
BY_COMPONENT = ["responsibilities.csv", "components.png", "responsibilities.png"]


def run_with(fit, monkeypatch, *changes):
    """A run whose draws are those of a fit: its directory, its report and its lines."""
    monkeypatch.setattr(execution, "_sample", lambda job: fit)
    sets = [a for change in changes for a in ("--set", change)]
    result = invoke("run", QUICKSTART, "--force", *sets)
    assert result.exit_code == 0, result.output
    directory = Path("runs/quickstart")
    report = json.loads((directory / "report.json").read_text())
    assert {path.name for path in directory.iterdir()} == set(report["files"])
    return directory, report, result.stdout.splitlines()


def test_components_that_changed_places_are_aligned(fitted, monkeypatch):
    fit = switched(fitted)
    directory, report, lines = run_with(fit, monkeypatch)
    expected = gb.align_labels(fit)
    assert gb.load(directory / "posterior.nc") == expected
    assert report["alignment"] == expected.alignment
    assert (report["alignment"]["method"], report["alignment"]["moved_between"]) == ("ecr", 4 / 6)
    assert (report["labels_switched"], report["left_out"]) == (False, {})
    assert set(report["files"]) == FILES
    frame = pd.read_csv(directory / "responsibilities.csv", index_col="index")
    np.testing.assert_allclose(frame.iloc[:, :2], gb.responsibilities(expected), rtol=1e-12)
    assert "component  weight           column     mean             sd" in lines
    assert (
        "labels: aligned by ecr, 100.0% of draws unambiguous; had moved at 0.0% of steps and "
        "between 67% of pairs of chains" in lines
    )


def test_who_asks_for_it_keeps_the_numbers_as_they_were_drawn(fitted, monkeypatch):
    fit = switched(fitted)
    directory, report, lines = run_with(fit, monkeypatch, "labels.align=none", "output.plots=false")
    assert gb.load(directory / "posterior.nc") == fit
    reason = (
        "components changed places between draws, so that an average per component means nothing; "
        'labels.align = "ecr" renumbers them'
    )
    assert report["left_out"] == {"responsibilities.csv": reason}
    assert f"left out: responsibilities.csv: {reason}" in lines
    assert (report["labels_switched"], report["alignment"]) == (True, None)
    assert any(line.startswith("No table of components: they changed places") for line in lines)
    assert "component  weight           column     mean             sd" not in lines


def test_components_that_cannot_be_told_apart_leave_what_has_no_labels(fitted, monkeypatch):
    posterior = fitted.posterior.copy(deep=True)
    for variable in posterior.data_vars.values():
        if "component" in variable.dims:
            values, axis = variable.values, variable.dims.index("component")
            values[:] = np.take(values, [0], axis)
    posterior["weights"].values[:] = 0.5
    # As wide as all rows, so that how much a row prefers one grows slowly with the shift.
    posterior["scales"].values[:] = fitted.X.std("obs").values
    posterior["means"].values[:] = fitted.X.mean("obs").values
    shift = 0.3 * np.random.default_rng(0).standard_normal((4, 50))
    posterior["means"].values[:, :, 0, 0] += shift
    posterior["means"].values[:, :, 1, 0] -= shift
    directory, report, lines = run_with(fitted.with_group("posterior", posterior), monkeypatch)
    reason = (
        "components 0 and 1 cannot be told apart, so that an average per component means nothing; "
        "what does not depend on labels is written"
    )
    assert report["left_out"] == dict.fromkeys(BY_COMPONENT, reason)
    assert report["alignment"]["indistinct"] == [[0, 1]]
    assert set(report["files"]) == FILES - set(BY_COMPONENT)
    kept = gb.load(directory / "posterior.nc")
    frame = pd.read_csv(directory / "partition.csv", index_col="index")
    found = gb.partition(kept, seed=1)
    np.testing.assert_array_equal(frame["cluster"], found.labels)
    np.testing.assert_allclose(frame["probability"], found.probability)
    np.testing.assert_allclose(frame["log_predictive_density"], gb.log_predictive_density(kept))
    assert any(line.startswith("partition: ") for line in lines)


def test_rows_are_flagged_on_request(fitted, monkeypatch):
    changes = ("anomalies.contamination=0.02", "output.partition=false")
    directory, report, lines = run_with(fitted, monkeypatch, *changes)
    expected = gb.flag_anomalies(fitted, contamination=0.02)
    frame = pd.read_csv(directory / "anomalies.csv", index_col="index")
    np.testing.assert_array_equal(frame["flag"], expected["flag"])
    np.testing.assert_allclose(frame["score"], expected["score"])
    assert report["anomalies"] == {
        "flagged": int(expected["flag"].sum()),
        "threshold": pytest.approx(expected.attrs["threshold"]),
    }
    assert report["partition"] is None
    more = {"anomalies.csv", "anomalies.png"}
    assert set(report["files"]) == FILES - {"partition.csv", "partition.png"} | more
    assert f"anomalies: {expected['flag'].sum().item()} rows flagged" in "\n".join(lines)


def test_more_than_two_columns_have_no_density(fitted, monkeypatch):
    """The reason is told; the other pictures are drawn."""
    names = []
    monkeypatch.setattr(gb.plots, "plot_components", lambda fit: names.append("c") or axes())
    monkeypatch.setattr(gb.plots, "plot_responsibilities", lambda fit: names.append("r") or axes())
    monkeypatch.setattr(execution, "_sample", lambda job: fitted)
    iris = next(path for path in CONFIGS if path.stem == "iris")
    result = invoke("run", iris)
    assert result.exit_code == 0, result.output
    assert names == ["c", "r"]
    assert "left out: density.png: a density is drawn over one or two columns" in result.stdout


def axes():
    from matplotlib.figure import Figure

    return Figure().subplots(2, 2)


# -- dry runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_of_the_repository(config, tmp_path, no_sampling):
    result = invoke("run", config, "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.splitlines()[-2:] == [
        f"output   runs/{config.stem}",
        "dry run: nothing was sampled or written",
    ]
    assert list(tmp_path.iterdir()) == []


def test_pictures_need_no_display(no_sampling, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    invoke("run", QUICKSTART, "--dry-run")
    assert os.environ["MPLBACKEND"] == "Agg"


def test_a_dry_run_says_what_the_data_cannot_teach(no_sampling):
    Path("few.csv").write_text("a,b\n1,2\n2,1\n3,5\n")
    Path("job.toml").write_text('[data]\npath = "few.csv"\n[model]\nn_components = 2\n')
    result = invoke("run", "job.toml", "--dry-run")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "warning: 2 components have 11 parameters but X has only 6 numbers: "
        "much of the answer comes from the prior"
    ]


# -- models and machines that do not go with the data ---------------------------------------------

MODEL_FAULTS = {
    "model.n_components=273": (
        "model.n_components: must be at most the number of rows, got n_components=273 for 272 "
        "rows; take fewer components"
    ),
    "priors.scale_scale=[1, 2, 3]": (
        "priors.scale_scale: must be one number or one per feature (2,), got shape (3,)"
    ),
    "priors.weight_concentration=[1, 2, 3]": (
        "priors.weight_concentration: must be one number or one per component (2,), got shape (3,)"
    ),
    "priors.mean_loc=[[1, 2, 3]]": (
        "priors.mean_loc: must have shape (n_components, n_features) = (2, 2), got (1, 3)"
    ),
    "priors.mean_covariance=[[1, 2], [2, 1]]": (
        "priors.mean_covariance: must be positive definite, "
        "got a matrix whose correlations have the eigenvalue -1"
    ),
    "sampler.num_samples=0": "sampler.num_samples: must be at least 1, got 0",
}


@pytest.mark.parametrize(("change", "message"), MODEL_FAULTS.items())
def test_models_that_are_wrong(no_sampling, tmp_path, change, message):
    assert refused(2, "run", QUICKSTART, "--set", change) == message
    assert list(tmp_path.iterdir()) == []


def test_several_faults_take_two_lines(no_sampling):
    result = invoke("run", QUICKSTART, "--set", "sampler.a=1", "--set", "model.n_components=0")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == "error: model.n_components: must be at least 1, got 0"
    assert result.stderr.splitlines()[1].startswith("error: sampler.a: unknown key; known: ")


def test_a_device_that_is_not_there(no_sampling, tmp_path, monkeypatch):
    from gmm_bayes.machine import devices

    def find(device):
        raise gb.errors.DeviceError(f"no {device} here")

    monkeypatch.setattr(devices, "find_device", find)
    assert refused(2, "run", QUICKSTART, "--set", "runtime.device=gpu") == "no gpu here"
    assert list(tmp_path.iterdir()) == []


def test_sampling_that_cannot_start(monkeypatch, tmp_path):
    def sample(job):
        raise gb.errors.InferenceError("no finite start")

    monkeypatch.setattr(execution, "_sample", sample)
    # What it left does not stand in the way of the next.
    for _ in range(2):
        assert refused(1, "run", QUICKSTART, "--out", "out") == "no finite start"
        assert sorted(os.listdir("out")) == ["progress.jsonl", "run.log"]
    assert "ended by InferenceError: no finite start" in Path("out/run.log").read_text()


# -- where results go -----------------------------------------------------------------------------


def test_directories_that_are_refused(no_sampling, tmp_path, monkeypatch):
    run = ("run", QUICKSTART, "--out")
    Path("file").write_text("x")
    assert refused(2, *run, "file") == "file is a file; name a directory with --out"
    below = tmp_path / "file"
    assert refused(2, *run, "file/below") == f"{below} is a file; name a directory with --out"
    long = "x" * 300
    assert refused(2, *run, long) == f"cannot use {long}: File name too long"
    Path("busy").mkdir()
    with locks.locked(Path("busy")):
        for force in ((), ("--force",)):
            assert refused(2, *run, "busy", *force) == (
                "another run is writing to busy; wait for it, or name another"
            )
    needed = refused(2, *run, "new", "--set", "sampler.num_samples=1000000000")
    assert needed.startswith("the results need about 2,")
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert refused(2, *run, "new") == f"cannot write to {tmp_path}: its permissions forbid it"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "busy"}


def test_directories_that_fail_when_they_are_made(no_sampling, monkeypatch):
    def fail(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", fail)
    assert refused(2, "run", QUICKSTART, "--out", "new") == (
        "cannot write to new: Permission denied"
    )


def test_two_runs_in_one_directory():
    with output.claim(Path("out")):
        again = pytest.raises(output.OutputError, match="another run is writing to out")
        with again, output.claim(Path("out")):
            raise AssertionError("two runs")
        assert Path("out/.gmm-bayes.lock").exists()
    assert not Path("out").exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "report.json"
    target.write_text("old")

    def half(part):
        part.write_text("ne")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        storage.replace_file(target, half)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_is_replaced_not_followed(tmp_path):
    outside, target = tmp_path / "outside", tmp_path / "report.json"
    outside.write_text("mine")
    target.symlink_to(outside)
    storage.replace_file(target, lambda part: part.write_text("new"))
    assert outside.read_text() == "mine"
    assert target.read_text() == "new"


def test_a_full_disk_after_sampling_keeps_the_draws(fitted, monkeypatch):
    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(execution, "_sample", lambda job: fitted)
    monkeypatch.setattr(following, "write_rows", fail)
    assert refused(2, "run", QUICKSTART, "--out", "out", "--set", "runtime.checkpoint=false") == (
        "No space left on device"
    )
    assert set(os.listdir("out")) == {"posterior.nc", "run.log", "progress.jsonl"}
    assert gb.load("out/posterior.nc") == fitted


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_interrupts(number, code, monkeypatch, tmp_path):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A shell starts its background jobs with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def sample(job):
        assert (tmp_path / "out").exists()
        signal.raise_signal(number)

    monkeypatch.setattr(execution, "_sample", sample)
    result = invoke("run", QUICKSTART, "--out", "out")
    signal.signal(signal.SIGINT, before)
    assert result.exit_code == code
    assert result.stderr == (
        "interrupted: the run is not complete\ngo on with: gmm-bayes resume out\n"
    )
    assert set(os.listdir("out")) == {"checkpoint", "run.log", "progress.jsonl"}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# -- check and show -------------------------------------------------------------------------------


def test_check(done, fitted, tmp_path):
    result = invoke("check", done[0])
    diagnosis = gb.diagnose(fitted)
    assert result.exit_code == 1
    assert result.stdout == f"{diagnosis!r}\n\n{diagnosis.table.round(3).to_string()}\n"


def test_check_is_content_with_chains_that_agree(fitted, tmp_path, monkeypatch):
    from gmm_bayes.inference.verdict import diagnosis as diagnostics

    monkeypatch.setitem(diagnostics.THRESHOLDS, "rhat", 9.0)
    monkeypatch.setitem(diagnostics.THRESHOLDS, "ess_per_chain", 0)
    fitted.save(tmp_path / "posterior.nc")
    result = invoke("check", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.startswith("Diagnosis: ok\n")
    monkeypatch.setattr(execution, "_sample", lambda job: fitted)
    result = invoke("run", QUICKSTART, "--strict", "--set", "output.plots=false")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "believe it? yes" in result.stdout.splitlines()


def test_show(done, fitted):
    result = invoke("show", done[0])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{fitted!r}\n\nfiles in ")
    assert result.stdout.count("component  weight") == 1
    assert result.stdout.splitlines()[-1] == f"files in {done[0]}: {', '.join(sorted(FILES))}"


@pytest.mark.parametrize("command", ["check", "show"])
def test_results_that_are_none(command, tmp_path):
    assert refused(3, command, "no") == "no does not exist; name the directory of a run"
    assert refused(3, command, tmp_path) == f"there is no file {tmp_path / 'posterior.nc'}"
    Path("file").write_text("x")
    assert refused(3, command, "file") == "file is a file; name the directory of a run"
    Path("posterior.nc").write_text("x")
    assert refused(3, command, ".") == (
        "posterior.nc is not a readable netCDF file: it is damaged or was not written by "
        "GMMFit.save (OSError)"
    )


# -- the process ----------------------------------------------------------------------------------


def test_help_is_quick():
    command = [sys.executable, "-X", "importtime", "-m", "gmm_bayes", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Bayesian Gaussian mixtures from a job file." in done.stdout
    for command in ("run", "resume", "sweep", "check", "show", "predict"):
        assert f"\n  {command} " in done.stdout
    imported = {line.rsplit("|")[-1].strip() for line in done.stderr.splitlines()}
    heavy = {"jax", "numpyro", "sklearn", "arviz", "matplotlib", "pandas", "xarray", "numpy"}
    assert "typer" in imported
    assert not heavy & imported


def test_version_and_errors_of_the_process():
    python = [sys.executable, "-m", "gmm_bayes"]
    done = subprocess.run([*python, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gmm-bayes {gb.__version__}\n"
    # Names beyond Latin-1 do not end a run on a terminal that has nothing else.
    Path("t.csv").write_text("\u0142,b\n1,2\n2,1\n", encoding="utf-8")
    Path("job.toml").write_text('[data]\npath = "t.csv"\n[model]\nn_components = 1\n')
    done = subprocess.run(
        [*python, "run", "job.toml", "--dry-run"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert done.returncode == 0, done.stderr
    assert b"2 columns (\\u0142, b)\n" in done.stdout
    done = subprocess.run([*python, "show", "no"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == "error: no does not exist; name the directory of a run\n"

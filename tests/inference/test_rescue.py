"""A run that dies after sampling has lost nothing: labelling and judging are broken on purpose."""

import dataclasses
import json
import re
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hostile import SHORT, quiet_fit, refuse_work, small_fit, two_groups

import gmm_bayes as gb
from gmm_bayes.cli import main
from gmm_bayes.inference import run
from gmm_bayes.inference.sampling.checkpoint.files import holds_run

pytestmark = pytest.mark.filterwarnings("ignore::gmm_bayes.errors.GMMBayesWarning")

VERDICT = "gmm_bayes.inference.fit.record_verdict"


class Broken(Exception):
    pass


@pytest.fixture(autouse=True, scope="module")
def whole_fit():
    """What the others are compared with is made before anything is broken."""
    return small_fit()


def breaks(*args, **options):
    raise Broken("on purpose")


def rescued_file(caught, what):
    """The file that the note of an error names."""
    (note,) = caught.value.__notes__
    found = re.match(rf"{what} failed after sampling: the draws are safe in (.*?); ", note)
    assert found, note
    return Path(found[1])


@pytest.fixture
def broken_labelling(monkeypatch):
    """It fails on real draws, and not at the rehearsal."""
    label = run.label_draws

    def only_a_rehearsal(draws, *rest):
        return label(draws, *rest) if draws.sites["weights"].shape[1] == 1 else breaks()

    monkeypatch.setattr(run, "label_draws", only_a_rehearsal)


def assert_raw_draws(path):
    posterior = small_fit().posterior
    with np.load(path, allow_pickle=False) as raw:
        np.testing.assert_array_equal(raw["sites.weights"], posterior["weights"])
        means = raw["loc"] + raw["scale"] * raw["sites.means"]
        np.testing.assert_array_equal(means, posterior["means"])
        assert raw["stats.diverging"].shape == (SHORT.num_chains, SHORT.num_samples)
        assert json.loads(str(raw["facts"]))["num_warmup"] == SHORT.num_warmup


def test_draws_that_cannot_be_labelled_are_saved(broken_labelling, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Broken) as caught:
        quiet_fit(two_groups())
    path = rescued_file(caught, "labelling")
    assert path.parent == tmp_path
    assert_raw_draws(path)


def test_draws_that_cannot_be_judged_are_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VERDICT, breaks)
    with pytest.raises(Broken) as caught:
        quiet_fit(two_groups())
    fit = gb.load(rescued_file(caught, "the verdict"))
    assert fit.posterior.identical(small_fit().posterior)
    assert fit.problems == ("they were not judged: the verdict failed",)
    assert gb.diagnose(fit).rhat == gb.diagnose(small_fit()).rhat


def test_a_checkpoint_has_them_too(broken_labelling, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Broken):
        quiet_fit(two_groups(), checkpoint=tmp_path / "run")
    assert holds_run(tmp_path / "run")
    monkeypatch.undo()
    assert gb.resume(tmp_path / "run").posterior.identical(small_fit().posterior)


def test_more_draws_that_cannot_be_judged_are_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VERDICT, breaks)
    with pytest.raises(Broken) as caught:
        gb.extend(small_fit(), 5)
    fit = gb.load(rescued_file(caught, "the verdict"))
    assert fit.posterior.sizes["draw"] == SHORT.num_samples + 5


def test_where_nothing_can_be_written_that_is_said(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("no room")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VERDICT, breaks)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(Broken) as caught:
        quiet_fit(two_groups())
    said = "the verdict failed after sampling: the draws could not be saved either (no room)"
    assert caught.value.__notes__ == [said]


def test_the_next_folder_is_taken_where_one_takes_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: tmp_path / "gone")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(VERDICT, breaks)
    with pytest.raises(Broken) as caught:
        quiet_fit(two_groups())
    assert rescued_file(caught, "the verdict").parent == tmp_path


def test_what_cannot_be_labelled_is_known_before_the_sampling(monkeypatch):
    monkeypatch.setattr(run, "label_draws", breaks)
    monkeypatch.setattr(gb.NUTS, "run", lambda *a, **k: pytest.fail("sampling has begun"))
    with pytest.raises(Broken) as caught:
        quiet_fit(two_groups())
    assert not hasattr(caught.value, "__notes__")


def test_a_package_that_is_not_installed_is_known_before_the_sampling(monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    monkeypatch.setattr(gb.NUTS, "run", lambda *a, **k: pytest.fail("sampling has begun"))
    with pytest.raises(metadata.PackageNotFoundError):
        quiet_fit(two_groups())


def test_a_source_tree_that_is_not_installed_will_do(tmp_path, monkeypatch):
    known = metadata.version

    def version(name):
        if name.replace("-", "_") == "gmm_bayes":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    fit = quiet_fit(two_groups(), checkpoint=tmp_path / "run")
    assert fit.versions["gmm_bayes"] == gb.__version__
    assert gb.resume(tmp_path / "run").posterior.identical(fit.posterior)


def test_a_job_saves_them_in_its_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VERDICT, breaks)
    np.save(tmp_path / "rows.npy", two_groups())
    (tmp_path / "job.toml").write_text(
        '[data]\npath = "rows.npy"\n[model]\nn_components = 2\n[runtime]\nseed = 3\n'
        "checkpoint = false\n[sampler]\nnum_warmup = 100\nnum_samples = 60\nnum_chains = 2\n"
    )
    monkeypatch.setattr("sys.argv", ["gmm-bayes", "run", "job.toml"])
    with pytest.raises(Broken) as caught:
        main()
    path = rescued_file(caught, "the verdict")
    assert path.parent == tmp_path / "runs" / "job"
    assert gb.load(path).posterior.identical(small_fit().posterior)


def test_errors_before_sampling_save_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse_work(monkeypatch)
    with pytest.raises(AssertionError, match="long work has begun"):
        gb.fit(two_groups(), 2)
    assert not list(tmp_path.iterdir())


def test_many_fits_that_cannot_be_judged_are_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gmm_bayes.inference.batch.result.agreement_of_sets", breaks)
    tables = [two_groups(), two_groups(seed=1)]
    with pytest.raises(Broken) as caught:
        # In plain coordinates, which take fewer programs.
        gb.fit_many(tables, 2, sampler=dataclasses.replace(SHORT, preconditioning="none"))
    # Once where chains are looked at before some are sampled again, or once at the end.
    with np.load(rescued_file(caught, "the verdict"), allow_pickle=False) as raw:
        assert raw["z"].shape == (2, SHORT.num_chains, SHORT.num_samples, 11)
        assert np.isfinite(raw["stats.log_likelihood"]).all()

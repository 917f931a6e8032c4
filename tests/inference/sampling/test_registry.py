"""A sampler is a contract: a toy of ten lines is fitted with, saved, judged and run as a job."""

import dataclasses
import json
import re
from dataclasses import dataclass

import numpy as np
import pytest

import gmm_bayes as gb
from gmm_bayes.cli import main
from gmm_bayes.inference.sampling import registry
from gmm_bayes.inference.sampling.problem import Draws
from gmm_bayes.inference.sampling.sampler import AtLeast1, Sampler
from gmm_bayes.inference.sampling.starts import adapted_plan


@dataclass(frozen=True)
class Toy(Sampler):
    """Draws of the normal approximation, as if they were chains."""

    num_samples: AtLeast1 = 400
    num_chains: AtLeast1 = 4

    def run(self, problem, *, progress=False):
        plan = adapted_plan(problem, problem.find_start(), forced=True)
        shape = (self.num_samples, problem.space.dimension)
        eta = np.stack([rng.standard_normal(shape) for rng in problem.rngs])
        return Draws.at(problem, plan.affine.apply(eta), plan.facts)


@pytest.fixture
def toy(monkeypatch):
    """The toy, registered for one test."""
    monkeypatch.setattr(registry, "SAMPLERS", dict(registry.SAMPLERS))
    return registry.register(Toy)


def test_a_toy_is_fitted_with_saved_loaded_and_judged(toy, faithful, faithful_fit, tmp_path):
    fit = gb.fit(faithful, 2, sampler=toy(num_samples=500), seed=2)
    assert fit.posterior["means"].shape == (4, 500, 2, 2)
    # This posterior is close to normal, so that the toy is nearly right.
    over = ("chain", "draw")
    sd = faithful_fit.posterior["means"].std(over)
    away = fit.posterior["means"].mean(over) - faithful_fit.posterior["means"].mean(over)
    assert float(abs(away / sd).max()) < 0.2
    again = gb.load(fit.save(tmp_path / "toy.nc"))
    assert again == fit
    assert again.sampler == toy(num_samples=500)
    found = gb.diagnose(again)
    assert found.ok, found
    assert (found.n_divergences, found.n_max_tree_depth, found.num_superchains) == (0, 0, None)
    assert np.isnan(found.e_bfmi).all()
    assert "E-BFMI" not in repr(found)
    # What follows from the draws asks nothing of the sampler.
    assert gb.responsibilities(again).shape == (272, 2)
    gb.plots.plot_diagnostics(again)


def command(monkeypatch, *words):
    """Run the command line; its exit code."""
    monkeypatch.setattr("sys.argv", ["gmm-bayes", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The file of a job, in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(
        '[data]\ndataset = "old_faithful"\n[model]\nn_components = 2\n'
        "[sampler]\nnum_samples = 500\n"
    )


def test_a_toy_runs_as_a_job(toy, job, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "run", "job.toml", "--strict", "--set", "sampler.kind=toy") == 0
    assert "Toy, 4 chains x 500 draws" in capsys.readouterr().out
    out = tmp_path / "runs" / "job"
    assert gb.load(out / "posterior.nc").sampler == toy(num_samples=500)
    assert json.loads((out / "report.json").read_text())["verdict"] == "ok"
    assert (out / "diagnostics.png").exists()
    assert not (out / "checkpoint").exists()


def test_laplace_runs_as_a_job(job, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "run", "job.toml", "--set", "sampler.kind=laplace") == 0
    said = capsys.readouterr().out
    assert "sampler  Laplace, 500 draws, seed 0, device auto" in said
    assert re.search(
        r"^Pareto k -?0\.\d\d, ESS \d+, 2 of 2 components occupied$", said, re.MULTILINE
    )
    assert "believe it? yes" in said
    assert "left out: diagnostics.png: draws of Laplace are not chains" in said
    out = tmp_path / "runs" / "job"
    report = json.loads((out / "report.json").read_text())
    assert report["verdict"] == "ok"
    assert report["pareto_k"] < 0.7
    assert report["rhat"] is None
    assert (out / "components.png").exists()
    assert gb.load(out / "posterior.nc").sampler == gb.Laplace(num_samples=500)
    assert command(monkeypatch, "check", "runs/job") == 0
    assert command(monkeypatch, "show", "runs/job") == 0


def test_laplace_has_no_other_key(job, monkeypatch, capsys):
    words = ("--set", "sampler.kind=laplace", "--set", "sampler.num_chains=2")
    assert command(monkeypatch, "run", "job.toml", *words) == 2
    said = capsys.readouterr().err
    assert 'sampler.num_chains: must be left out with kind = "laplace", got 2' in said


def test_what_a_toy_cannot_do_is_said_in_its_name(toy, faithful, tmp_path):
    with pytest.raises(ValueError, match=r"^checkpoint must be None with Toy, which cannot"):
        gb.fit(faithful, 2, sampler=toy(), checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        toy(num_samples=0)
    monkeypatched = dataclasses.make_dataclass("Absent", [], bases=(toy,), frozen=True)
    monkeypatched.needs = ("no_such_package", "toys")
    message = (
        "the sampler Absent needs no_such_package; install it with pip install "
        "'gmm-bayes[toys]', or take sampler=NUTS()"
    )
    with pytest.raises(gb.errors.MissingDependencyError, match=f"^{re.escape(message)}$"):
        gb.fit(faithful, 2, sampler=registry.register(monkeypatched)())


def test_a_sampler_that_nobody_registered_is_refused(faithful):
    message = "sampler must be a gmm_bayes.NUTS(...), ChEES(...) or Laplace(...), got Toy(num_sam"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        gb.fit(faithful, 2, sampler=Toy())


@pytest.mark.parametrize("name", registry.SAMPLERS)
def test_settings_are_stated_once(name):
    """What is stored makes the sampler again, and a job file has the same keys and defaults."""
    from gmm_bayes.jobs.job_file.sections import sampler_section

    kind = registry.SAMPLERS[name]
    assert registry.restore_sampler(registry.stored_sampler(kind())) == kind()
    section = sampler_section(name.lower())()
    assert section.settings == {f.name: f.default for f in dataclasses.fields(kind)}
    assert section.build() == kind()

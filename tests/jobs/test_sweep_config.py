"""The file of a sweep: which jobs it stands for, what they are called, what is refused."""

import inspect
import re

import pytest

import gmm_bayes as gb
from gmm_bayes.errors import ConfigError
from gmm_bayes.jobs import terminal
from gmm_bayes.jobs.job_file.config import load_config, to_toml
from gmm_bayes.jobs.job_file.sections import SweepSection
from gmm_bayes.jobs.sweep import executors
from gmm_bayes.jobs.sweep.config import load_sweep, short_names

BASE = '[data]\ndataset = "old_faithful"\n[sampler]\nnum_samples = 20\n'
LISTS = "[sweep]\nmodel.n_components = [1, 2]\nruntime.seed = [3, 4]\n"


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "many.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def names(sweep):
    return [member.name for member in sweep.members]


def test_the_product(write, tmp_path):
    sweep = load_sweep(write(BASE + LISTS))
    assert names(sweep) == [
        "n_components=1-seed=3",
        "n_components=1-seed=4",
        "n_components=2-seed=3",
        "n_components=2-seed=4",
    ]
    for member, (k, seed) in zip(sweep.members, [(1, 3), (1, 4), (2, 3), (2, 4)], strict=True):
        assert member.settings == {"model.n_components": k, "runtime.seed": seed}
        alone = tmp_path / "alone.toml"
        alone.write_text(
            f"{BASE}[model]\nn_components = {k}\n[runtime]\nseed = {seed}\nprogress = false\n"
            f'[output]\ndirectory = "runs/many/{member.name}"\n'
        )
        assert member.config == load_config(alone)
        again = tmp_path / "again.toml"
        again.write_text(to_toml(member.config))
        assert load_config(again) == member.config
    assert sweep.directory == "runs/many"
    assert sweep.options == SweepSection()


def test_three_ways_to_write_a_list(write):
    dotted = load_sweep(write(BASE + LISTS))
    quoted = '[sweep]\n"model.n_components" = [1, 2]\n"runtime.seed" = [3, 4]\n'
    assert load_sweep(write(BASE + quoted)) == dotted
    changes = ["sweep.model.n_components=[1, 2]", "sweep.runtime.seed = [3, 4]"]
    assert load_sweep(write(BASE), changes) == dotted
    # A change replaces the list of the file, whichever way that is written.
    for lists in (LISTS, quoted):
        changed = load_sweep(write(BASE + lists), ["sweep.model.n_components=[2]"])
        assert names(changed) == names(dotted)[2:]


def test_a_job_file_with_a_section_more(write):
    """The list goes before what the job file says."""
    model = '[model]\nn_components = 7\n[output]\ndirectory = "elsewhere"\n'
    sweep = load_sweep(write(BASE + model + LISTS))
    assert [m.config.model.n_components for m in sweep.members] == [1, 1, 2, 2]
    assert sweep.directory == "elsewhere"
    assert sweep.members[0].config.output.directory == "elsewhere/n_components=1-seed=3"


def test_names_are_safe_and_distinct(write, tmp_path):
    paths = '["../../etc/passwd.csv", "a b.csv", "a-b.csv", "A/B.csv", "' + "x" * 300 + '.csv"]'
    sweep = load_sweep(
        write(f"[sampler]\nnum_samples = 20\n[model]\nn_components = 1\n[sweep]\ndata.path={paths}")
    )
    found = names(sweep)
    assert found[0] == "path=etc-passwd.csv"
    assert [re.sub("-[0-9a-f]{8}$", "-HASH", n) for n in found[1:4]] == [
        "path=a-b.csv-HASH",
        "path=a-b.csv-HASH",
        "path=A-B.csv-HASH",
    ]
    assert len({name.lower() for name in found}) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9=.+_-]{1,129}", name) for name in found)
    assert [m.config.data.path for m in sweep.members][1] == str(tmp_path / "a b.csv")
    # More values leave the names of those that do not collide as they are.
    assert names(load_sweep(write(BASE + LISTS.replace("[3, 4]", "[3, 4, 5]"))))[0] == (
        "n_components=1-seed=3"
    )


def test_values_of_every_kind_in_names(write):
    lists = (
        "[sweep]\npriors.scale_scale = [1.5, [1, 2]]\ndata.columns = [['waiting']]\n"
        "sampler.dense_mass = [true]\ninit.method = ['k-means++']\n"
    )
    sweep = load_sweep(write(BASE + "[model]\nn_components = 1\n" + lists))
    assert names(sweep) == [
        "scale_scale=1.5-columns=waiting-dense_mass=true-method=k-means++",
        "scale_scale=1-2-columns=waiting-dense_mass=true-method=k-means++",
    ]
    assert sweep.members[1].config.priors.scale_scale == [1, 2]


def test_keys_with_the_same_name_keep_their_section():
    found = short_names(["model.kind", "priors.kind", "runtime.seed"])
    assert found == {
        "model.kind": "model.kind",
        "priors.kind": "priors.kind",
        "runtime.seed": "seed",
    }


OPTIONS = "executor, scheduler, workers, loo"
FAULTS = {
    "model.n_components=3": (
        "--set model.n_components: is swept; use --set 'sweep.model.n_components=[...]'"
    ),
    "sweep.model.n_components=3": (
        "sweep.model.n_components: must be a list of values to try, such as [1, 2, 3], got 3"
    ),
    "sweep.model.n_components=[]": (
        "sweep.model.n_components: must be a list of values to try, such as [1, 2, 3], "
        "got an empty list"
    ),
    "sweep.model.n_components=[1, 2, 1]": (
        "sweep.model.n_components: must be distinct, got 1 more than once"
    ),
    "sweep.sampler.target_accept_prob=[0.8, 0.80]": (
        "sweep.sampler.target_accept_prob: must be distinct, got 0.8 more than once"
    ),
    "sweep.model.n_components=[1, '2']": "model.n_components: must be an integer, got '2'",
    "sweep.model.n_components=[1, 0]": "model.n_components: must be at least 1, got 0",
    "sweep.model.covariance_type=['full', 'ful']": (
        "model.covariance_type: must be one of full, tied, diag, spherical, got 'ful'; "
        "did you mean 'full'?"
    ),
    "sweep.modle.n_components=[1]": (
        "sweep.modle.n_components: unknown section; did you mean 'model' or 'sampler'?"
    ),
    "sweep.model.n_component=[1]": (
        "sweep.model.n_component: unknown key; did you mean 'n_components'?"
    ),
    "sweep.model.n_components.x=[1]": (
        "sweep.model.n_components.x: unknown key; did you mean 'n_components'?"
    ),
    "sweep.n_components=[1, 2]": (
        "sweep.n_components: must be section.key; did you mean 'model.n_components'?"
    ),
    "sweep.worker=2": "sweep.worker: unknown key; did you mean 'workers'?",
    "sweep.zzz=2": f"sweep.zzz: unknown key; known: {OPTIONS}",
    "sweep.output.directory=['a', 'b']": (
        "sweep.output.directory: cannot be swept: "
        "each member has a directory of its own in that of the sweep"
    ),
    "sweep.runtime.progress=[true]": (
        "sweep.runtime.progress: cannot be swept: one bar counts the members"
    ),
    "sweep.data.path=['a.csv']": (
        'data: must have either path = "file.csv" or dataset = "old_faithful", got both'
    ),
    "sweep.executor=slurm": "sweep.executor: must be one of serial, joblib, dask, got 'slurm'",
    "sweep.workers=2": 'sweep.workers: applies to executor = "joblib" or "dask" only',
    "sweep.scheduler=tcp://a:1": 'sweep.scheduler: applies to executor = "dask" only',
    "sweep.loo=1": "sweep.loo: must be true or false, got 1",
    "sampler.num_samples=0": "sampler.num_samples: must be at least 1, got 0",
    f"sweep.runtime.seed={list(range(5001))}": (
        "sweep: its lists make 10,002 jobs; at most 10,000 are run"
    ),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.items(), ids=[k[:40] for k in FAULTS])
def test_changes_that_are_refused(write, change, message):
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(BASE + LISTS), [change])
    assert str(caught.value).startswith(message)
    assert str(caught.value).count("\n") <= 1


FILES = {
    "no lists": (BASE, "sweep: needs lists of values to try, such as model.n_components = "),
    "options only": (BASE + "[sweep]\nloo = false\n", "sweep: needs lists of values to try"),
    "not a section": ("sweep = 3\n" + BASE, "sweep: must be a section, [sweep]"),
    "sections": ("[[sweep]]\nloo = true\n" + BASE, "sweep: must be a section, [sweep]"),
    "twice": (
        BASE + '[sweep]\n"runtime.seed" = [1]\nruntime.seed = [2]\n',
        "sweep.runtime.seed: stands there twice",
    ),
    "a section in the place of a list": (
        BASE + "[sweep.model.n_components]\nx = [1]\n",
        "sweep.model.n_components: must be a list of values to try, such as [1, 2, 3], got ",
    ),
    "no data": ("[sweep]\nmodel.n_components = [1]\n", "data: is missing"),
    "a section that is not one": ("model = 3\n" + BASE + LISTS, "model: must be a section, "),
    "dates": (
        BASE + "[sweep]\nmodel.n_components = [1979-05-27]\n",
        "model.n_components: must be an integer, got 1979-05-27",
    ),
    "too deep": (BASE + "[sweep]\na" + ".a" * 40 + " = 1\n", " lists or tables are nested too"),
    "huge numbers": (
        BASE + f"[sweep]\nruntime.seed = [0x{'f' * 9000}]\n",
        "runtime.seed: must be below 4294967296, got a number of thousands of digits",
    ),
    "many lists": (
        BASE
        + "[sweep]\n"
        + "".join(
            f"sampler.{key} = {list(range(1, 99))}\n"
            for key in ("num_samples", "num_chains", "num_warmup", "max_tree_depth")
        ),
        "sweep: its lists make 92,236,816 jobs; at most 10,000 are run",
    ),
    "not text": (b"\xff" + BASE.encode(), "line 1: not UTF-8"),
    "a long key": (BASE + f"[sweep]\nmodel.{'n' * 500} = [1]\n", f"sweep.model.{'n' * 54}...: "),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_files_that_are_refused(write, content, message):
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(content))
    assert message in str(caught.value)
    assert str(caught.value).count("\n") <= 1


def test_run_sends_the_file_of_a_sweep_away(write):
    with pytest.raises(ConfigError, match=r"^sweep: this file describes many jobs; give it to gmm"):
        load_config(write(BASE + "[model]\nn_components = 1\n" + LISTS))


def test_options_are_documented_and_checked(write):
    for key in SweepSection.model_fields:
        assert re.search(rf"^{key} : ", inspect.getdoc(SweepSection), re.MULTILINE), key
    changes = ["sweep.executor=dask", "sweep.scheduler=tcp://host:8786"]
    assert load_sweep(write(BASE + LISTS), changes).options.scheduler == "tcp://host:8786"
    message = r"^sweep.workers: applies to a cluster on this machine only"
    with pytest.raises(ConfigError, match=message):
        load_sweep(write(BASE + LISTS), [*changes, "sweep.workers=2"])


def test_dask_that_is_not_installed(write, monkeypatch, tmp_path):
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gb.errors.MissingDependencyError) as caught:
        gb.sweep(write(BASE + LISTS), overrides=["sweep.executor=dask"])
    assert str(caught.value) == (
        'sweep.executor = "dask" needs dask[distributed]; install it with '
        "pip install 'gmm-bayes[cluster]', or take executor = \"joblib\""
    )
    assert {path.name for path in tmp_path.iterdir()} == {"many.toml"}
    assert terminal.exit_code(caught.value) == terminal.DATA

import dataclasses
import inspect
import re
from typing import get_args

import pytest

import gmm_bayes as gb
from gmm_bayes import _vocabulary
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.errors import ConfigError
from gmm_bayes.jobs.job_file.config import JobConfig, load_config, to_toml
from gmm_bayes.jobs.job_file.sections import (
    DataSection,
    InitSection,
    ModelSection,
    OutputSection,
    PriorsSection,
    sampler_keys,
    sampler_section,
)
from gmm_bayes.posterior.groups import _MAKERS

MINIMAL = '[data]\ndataset = "old_faithful"\n[model]\nn_components = 2\n'
CSV = '[data]\npath = "a.csv"\n[model]\nn_components = 2\n'
SECTIONS = "data, model, priors, sampler, init, labels, anomalies, runtime, output"


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "job.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def choices(section, field):
    annotation = section.model_fields[field].annotation
    return get_args(next((a for a in get_args(annotation) if get_args(a)), annotation))


# -- a job file that is right ---------------------------------------------------------------------


def test_defaults_are_those_of_the_package(write):
    config = load_config(write(MINIMAL))
    assert config.sampler.settings == dataclasses.asdict(gb.NUTS())
    assert set(PriorsSection.model_fields) == {"kind"} | {
        f.name for f in dataclasses.fields(gb.Priors)
    }
    defaults = {
        name: p.default
        for name, p in inspect.signature(gb.fit).parameters.items()
        if p.default is not p.empty
    }
    assert config.model.covariance_type == defaults["covariance_type"]
    assert (config.init.method, config.init.n_init) == (defaults["init"], defaults["n_init"])
    runtime = config.runtime
    assert (runtime.seed, runtime.device, runtime.progress) == (
        defaults["seed"],
        defaults["device"],
        defaults["progress"],
    )
    assert config.output.model_dump() == {
        "directory": "runs/job",
        "plots": True,
        "partition": True,
        "groups": [],
    }


def test_each_kind_of_sampler_has_its_own_keys(write, tmp_path):
    config = load_config(write(MINIMAL + '[sampler]\nkind = "chees"\n'))
    ours, theirs = config.sampler.settings, dataclasses.asdict(gb.ChEES())
    assert ours.pop("num_superchains") is None
    assert theirs.pop("num_superchains") == 16
    assert ours == theirs
    again = tmp_path / "config.resolved.toml"
    again.write_text(to_toml(config), encoding="utf-8")
    assert load_config(again) == config
    for change, complaint in {
        "max_tree_depth=3": 'max_tree_depth: must be left out with kind = "chees", got 3',
        "num_chains=1": 'num_chains: must be at least 2 with kind = "chees", got 1',
        "num_superchains=5": "num_superchains: must divide num_chains, got 5 and 128",
    }.items():
        with pytest.raises(ConfigError, match=f"^sampler.{re.escape(complaint)}$"):
            load_config(write(MINIMAL), ["sampler.kind=chees", f"sampler.{change}"])


def test_names_are_those_of_the_package():
    assert choices(ModelSection, "covariance_type") == tuple(COVARIANCE_STRUCTURES)
    assert choices(InitSection, "method") == _vocabulary.INIT_METHODS
    assert choices(sampler_section("nuts"), "chain_method") == _vocabulary.CHAIN_METHODS
    assert choices(DataSection, "dataset") == tuple(gb.datasets.LOADERS)
    assert set(choices(OutputSection, "groups")) == set(_MAKERS)


@pytest.mark.parametrize("section", JobConfig.model_fields)
def test_every_key_is_documented(section):
    kind = JobConfig.model_fields[section].annotation
    for key in sampler_keys() if section == "sampler" else kind.model_fields:
        assert re.search(rf"^{key} : ", inspect.getdoc(kind), re.MULTILINE), key


def test_the_path_is_relative_to_the_job_file(write, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    config = load_config(write(CSV))
    assert config.data.path == str(tmp_path / "a.csv")


def test_byte_order_mark_is_accepted(write):
    assert load_config(write(b"\xef\xbb\xbf" + MINIMAL.encode())).model.n_components == 2


def test_overrides(write):
    config = load_config(
        write(MINIMAL),
        [
            "sampler.num_samples = 2000",
            "model.covariance_type=tied",
            'output.groups=["prior"]',
            "output.directory=runs/a=b",
            "priors.mean_loc=[[1, 2], [3.5, 4]]",
            "sampler.dense_mass=true",
        ],
    )
    assert config.sampler.num_samples == 2000
    assert config.model.covariance_type == "tied"
    assert config.output.groups == ["prior"]
    assert config.output.directory == "runs/a=b"
    assert config.priors.given == {"mean_loc": [[1, 2], [3.5, 4]]}
    assert config.sampler.dense_mass is True


def test_a_line_break_in_an_override_opens_no_key(write):
    override = "output.directory=1\n[model]\nn_components = 3"
    with pytest.raises(ConfigError, match=r"^output.directory: must be printable"):
        load_config(write(MINIMAL), [override])


def test_the_resolved_file_is_the_same_job(write, tmp_path):
    text = CSV.replace("a.csv", 'söme \\"q\\" \\\\ file.csv') + (
        '[priors]\nkind = "fixed"\nmean_loc = [[1e300, -2], [0.1, 1e-300]]\n'
        '[output]\ndirectory = "elsewhere"\ngroups = ["prior", "log_likelihood"]\n'
        "[runtime]\nseed = 4294967295\nprogress = false\n"
    )
    config = load_config(write(text), [r'data.columns=["a\u007f", "b\n"]', r'data.delimiter="\t"'])
    again = tmp_path / "config.resolved.toml"
    again.write_text(to_toml(config), encoding="utf-8")
    assert load_config(again) == config
    assert config.data.path.endswith('söme "q" \\ file.csv')


# -- faults ---------------------------------------------------------------------------------------

FAULTS = {
    "sampler.num_samples=0": "sampler.num_samples: must be at least 1, got 0",
    "sampler.num_samples=2.0": "sampler.num_samples: must be an integer, got 2.0",
    "sampler.num_samples='3'": "sampler.num_samples: must be an integer, got '3'",
    "sampler.num_samples=": "sampler.num_samples: must be an integer, got ''",
    "sampler.num_samples=true": "sampler.num_samples: must be an integer, got true",
    "sampler.num_samples={a = 1}": "sampler.num_samples: must be an integer, got a table",
    "sampler.num_warmup=-1": "sampler.num_warmup: must be at least 0, got -1",
    "sampler.num_chains=0": "sampler.num_chains: must be at least 1, got 0",
    "sampler.max_tree_depth=0": "sampler.max_tree_depth: must be at least 1, got 0",
    "sampler.target_accept_prob=1": "sampler.target_accept_prob: must be below 1.0, got 1",
    "sampler.target_accept_prob=0.0": "sampler.target_accept_prob: must be above 0.0, got 0.0",
    "sampler.target_accept_prob=nan": "sampler.target_accept_prob: must be finite, got nan",
    "sampler.target_accept_prob=x": "sampler.target_accept_prob: must be a number, got 'x'",
    "sampler.dense_mass=1": "sampler.dense_mass: must be true or false, got 1",
    "sampler.num_sample=5": (
        "sampler.num_sample: unknown key; "
        "did you mean 'num_samples' or 'num_warmup' or 'num_superchains'?"
    ),
    "sampler.a.b=5": (
        "sampler.a.b: unknown key; known: kind, num_warmup, num_samples, num_chains, "
        "target_accept_prob, max_tree_depth, dense_mass, chain_method, preconditioning, tempering, "
        "num_superchains, max_leapfrog_steps"
    ),
    "sampler.kind=hmc": (
        "sampler.kind: must be one of nuts, chees, laplace, got 'hmc'; known: nuts, chees, laplace"
    ),
    "sampler.num_superchains=4": (
        'sampler.num_superchains: must be left out with kind = "nuts", got 4'
    ),
    "samplr.num_samples=5": "samplr: unknown section; did you mean 'sampler'?",
    "zzz.a=1": f"zzz: unknown section; known: {SECTIONS}",
    "num_samples=5": (
        "--set num_samples: must be in a section; did you mean 'sampler.num_samples'?"
    ),
    "zzz=5": f"--set zzz: unknown section; known: {SECTIONS}",
    "sampler=5": (
        "--set must be section.key=value, such as sampler.num_samples=2000, got 'sampler=5'"
    ),
    "sampler.num_samples": (
        "--set must be section.key=value, such as sampler.num_samples=2000, "
        "got 'sampler.num_samples'"
    ),
    "sampler.=1": (
        "--set must be section.key=value, such as sampler.num_samples=2000, got 'sampler.=1'"
    ),
    "model.n_components=0": "model.n_components: must be at least 1, got 0",
    "model.n_components=2.5": "model.n_components: must be an integer, got 2.5",
    "model.covariance_type=ful": (
        "model.covariance_type: must be one of full, tied, diag, spherical, got 'ful'; "
        "did you mean 'full'?"
    ),
    "model.covariance_type=3": (
        "model.covariance_type: must be one of full, tied, diag, spherical, got 3"
    ),
    "init.method=kmean": (
        "init.method: must be one of auto, kmeans, k-means++, random, random_from_data, "
        "got 'kmean'; did you mean 'kmeans' or 'k-means++'?"
    ),
    "init.n_init=0": "init.n_init: must be at least 1, got 0",
    "runtime.seed=-1": "runtime.seed: must be at least 0, got -1",
    "runtime.seed=4294967296": "runtime.seed: must be below 4294967296, got 4294967296",
    "runtime.device=tpu": (
        "runtime.device: must be one of auto, cpu, gpu, got 'tpu'; did you mean 'gpu' or 'cpu'?"
    ),
    "priors.kind=flat": (
        "priors.kind: must be one of default, fixed, got 'flat'; did you mean 'default'?"
    ),
    "priors.weight_concentration=0": "priors.weight_concentration: must be positive, got 0",
    "priors.scale_scale=[1, -2]": "priors.scale_scale: must be positive, got -2",
    "priors.scale_scale=true": (
        "priors.scale_scale: must be a number or a list of numbers, got true"
    ),
    "priors.scale_scale=[]": "priors.scale_scale: must not be an empty list",
    "priors.scale_scale=inf": "priors.scale_scale: must be finite",
    "priors.mean_loc=[[1], [1, 2]]": (
        "priors.mean_loc: must have rows of equal length, at least one number each"
    ),
    "priors.mean_loc=[[[1]]]": (
        "priors.mean_loc: must be a number or a list of numbers, got a list"
    ),
    "priors.correlation_concentration=-1": (
        "priors.correlation_concentration: must be positive, got -1"
    ),
    "data.path=a.csv": (
        'data: must have either path = "file.csv" or dataset = "old_faithful", got both'
    ),
    "data.dataset=iriss": (
        "data.dataset: must be one of old_faithful, crabs, galaxies, iris, blobs, got 'iriss'; "
        "did you mean 'iris'?"
    ),
    "data.columns=a": "data.columns: must be a list, got 'a'",
    "data.columns=[]": "data.columns: must not be an empty list",
    "data.columns=[1]": "data.columns[0]: must be text, got 1",
    "data.columns=['a', 'a']": "data.columns: must be distinct, got 'a' more than once",
    "data.array=a": "data.array: applies to .npz files only",
    "data.header=false": "data.header: applies to .csv files only",
    "output.directory=../x": (
        "output.directory: must be a relative path without '..', got '../x'; "
        "to write elsewhere, use --out on the command line"
    ),
    "output.directory=a/../../x": (
        "output.directory: must be a relative path without '..', got 'a/../../x'; "
        "to write elsewhere, use --out on the command line"
    ),
    "output.directory=/tmp/x": (
        "output.directory: must be a relative path without '..', got '/tmp/x'; "
        "to write elsewhere, use --out on the command line"
    ),
    r"output.directory='..\x'": (
        r"output.directory: must be a relative path without '..', got '..\\x'; "
        "to write elsewhere, use --out on the command line"
    ),
    "output.directory='C:x'": (
        "output.directory: must be a relative path without '..', got 'C:x'; "
        "to write elsewhere, use --out on the command line"
    ),
    'output.directory="a\\u0000"': (
        "output.directory: must be printable and not empty, got 'a\\x00'"
    ),
    "output.directory=": "output.directory: must be printable and not empty, got ''",
    "output.groups=['prio']": (
        "output.groups[0]: must be one of log_likelihood, prior, prior_predictive, "
        "posterior_predictive, got 'prio'; did you mean 'prior'?"
    ),
}


@pytest.mark.parametrize(("override", "message"), FAULTS.items())
def test_faults_name_the_key(write, override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(write(MINIMAL), [override])
    assert str(caught.value) == message


CSV_FAULTS = {
    "data.array='a'": "data.array: applies to .npz files only",
    "data.delimiter=''": (
        "data.delimiter: must be one character such as ',' or ';' or a tab, got ''"
    ),
    "data.delimiter=', '": (
        "data.delimiter: must be one character such as ',' or ';' or a tab, got ', '"
    ),
    "data.delimiter=a": (
        "data.delimiter: must be one character such as ',' or ';' or a tab, got 'a'"
    ),
    "data.delimiter=.": (
        "data.delimiter: must be one character such as ',' or ';' or a tab, got '.'"
    ),
    "data.decimal=','": 'data: must have another delimiter beside decimal = ",", such as ";"',
    "data.path=''": "data.path: must be printable and not empty, got ''",
}


@pytest.mark.parametrize(("override", "message"), CSV_FAULTS.items())
def test_faults_of_options_for_files(write, override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(write(CSV), [override])
    assert str(caught.value) == message


FILES = {
    "": "data: is missing\nmodel: is missing",
    "[data]\n[model]\n": (
        'data: must have either path = "file.csv" or dataset = "old_faithful", got neither\n'
        "model.n_components: is missing"
    ),
    MINIMAL + "n_component = 2\n": ("model.n_component: unknown key; did you mean 'n_components'?"),
    "data = 3\n[model]\nn_components = 2": "data: must be a section, [data], got 3",
    MINIMAL + "[sampler]\nnum_samples = 0\nnum_warmup = -1\nnum_chains = 0": (
        "sampler.num_warmup: must be at least 0, got -1\n"
        "sampler.num_samples: must be at least 1, got 0 (and 1 more)"
    ),
    "output = 3\n" + MINIMAL: "output: must be a section, [output], got 3",
}


@pytest.mark.parametrize(("text", "message"), FILES.items())
def test_missing_and_surplus_keys(write, text, message):
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    assert str(caught.value) == message


HOSTILE = {
    "a large file": (b"#" * (2**16 + 1), "{path} is larger than 64 KiB: this is not a job file"),
    "not UTF-8": (
        b"# first\n# caf\xe9\n",
        "{path}: line 2: not UTF-8; save the file as UTF-8",
    ),
    "no TOML": (
        b"[data]\npath = a.csv\n",
        "{path} is not valid TOML: Invalid value (at line 2, column 8)",
    ),
    "a key twice": (
        MINIMAL.encode() + b"n_components = 3\n",
        "{path} is not valid TOML: Cannot overwrite a value (at line 5, column 17)",
    ),
    "deep lists": (
        b"a = " + b"[" * 30_000 + b"]" * 30_000,
        "{path}: the lists or tables are nested too deeply",
    ),
    "deep tables": (
        b"a." * 30_000 + b"b = 1",
        "{path}: the lists or tables are nested too deeply",
    ),
    "deep tables in a table": (
        b"a = {" + b'"=".' * 5_000 + b"b = 1}",
        "{path}: the lists or tables are nested too deeply",
    ),
    "many digits": (
        b"[model]\nn_components = " + b"9" * 10_000,
        "{path} is not valid TOML: a number has thousands of digits",
    ),
    "many hexadecimal digits": (
        MINIMAL.encode() + b"[runtime]\nseed = 0x" + b"f" * 30_000,
        "runtime.seed: must be below 4294967296, got a number of thousands of digits",
    ),
    "a long text": (
        MINIMAL.encode() + b"[runtime]\nseed = '" + b"f" * 30_000 + b"'",
        "runtime.seed: must be an integer, got '" + "f" * 59 + "...",
    ),
    "a long key": (
        MINIMAL.encode() + b"[runtime]\n" + b"f" * 30_000 + b" = 1",
        "runtime." + "f" * 60 + ": unknown key; known: seed, device, data_parallel, "
        "chain_parallel, precision, progress, checkpoint, checkpoint_seconds, keep_checkpoint",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files(write, what):
    content, message = HOSTILE[what]
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == message.format(path=path)


def test_files_that_are_none(tmp_path):
    for path, message in {
        tmp_path / "no.toml": f"there is no file {tmp_path / 'no.toml'}",
        tmp_path: f"{tmp_path} is a directory; name a job file in it",
        "/dev/zero": "/dev/zero is not a regular file",
        "/" + "x" * 5000: f"cannot read /{'x' * 5000}: File name too long",
    }.items():
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert str(caught.value) == message

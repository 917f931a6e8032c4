"""What a fit needs is counted before it begins, and what cannot fit is refused."""

import json
import re
import subprocess
import sys
import types

import jax
import pytest
from hostile import quiet_fit, refuse_work, two_groups

import gmm_bayes as gb
from gmm_bayes.machine import memory

MIB = 2**20
CPU = jax.devices("cpu")[0]
GPU = types.SimpleNamespace(platform="gpu", device_kind="a card")
BIG = memory.ProblemSize(
    n_obs=10_000_000,
    n_features=10,
    n_components=10,
    dimension=659,
    num_chains=64,
    num_samples=1000,
)
GROUPINGS = [(64, 1), (32, 1), (16, 1), (8, 1), (4, 1), (2, 1), (1, 1)]


@pytest.fixture
def room(monkeypatch):
    """Pretend that so much memory is free."""

    def pretend(host, device=None):
        def free(of):
            return device if of is not None and of.platform == "gpu" else host

        monkeypatch.setattr(memory, "available_memory", free)

    return pretend


def plan(size=BIG, device=GPU):
    return memory.plan_memory(size, iter(GROUPINGS), 2**15, device)


def test_what_is_fastest_is_taken_where_it_fits(room):
    room(10**12, 10**12)
    assert plan()[:2] == (2**15, (64, 1))
    room(None, None)
    assert plan()[:2] == (2**15, (64, 1))


def test_blocks_become_shorter_then_chains_fewer(room):
    room(10**12, 2_000 * MIB)
    shorter = plan()
    assert shorter.rows_per_block < 2**15
    assert shorter.grouping == (64, 1)
    room(10**12, 1_250 * MIB)
    fewer = plan()
    assert fewer.rows_per_block == 2**11
    assert fewer.grouping[0] < 64
    needed = [sum(p.device.values()) for p in (shorter, fewer)]
    assert needed[0] > needed[1]
    assert needed[0] <= 0.8 * 2_000 * MIB


def test_rows_are_counted_by_their_bytes(room):
    """Of one column of ones, the data and the weights: more by the filling of the last block."""
    room(None, None)
    bytes_of_rows = BIG.n_obs * 8 * (BIG.n_features + 2)
    rows = plan().device["rows"]
    assert bytes_of_rows <= rows < 1.01 * bytes_of_rows
    assert plan(BIG._replace(n_shares=4)).device["rows"] == pytest.approx(rows / 4, rel=0.01)
    single = plan(BIG._replace(precision="float32")).device["rows"]
    assert single == pytest.approx(BIG.n_obs * (4 * (BIG.n_features + 1) + 8), rel=0.01)


def test_what_cannot_fit_says_so(room):
    room(10**12, 500 * MIB)
    message = (
        r"this fit needs about [\d.,]+ [GM]iB of the memory of .*a card.* \(rows [\d.,]+ [GM]iB, "
        r"chains at once [\d.,]+ [GM]iB\), but 500 MiB are free; take fewer rows, "
        r"precision='float32', or spread them over devices \(mesh=4\)"
    )
    with pytest.raises(gb.errors.InsufficientMemoryError) as caught:
        plan()
    assert re.fullmatch(message, str(caught.value))


def test_a_fit_that_cannot_fit_ends_before_long_work(monkeypatch, room):
    room(2 * MIB)
    refuse_work(monkeypatch)
    with pytest.raises(gb.errors.InsufficientMemoryError, match=r"\(draws .* 2 MiB are free; take"):
        gb.fit(two_groups(), 2)
    many = gb.NUTS(num_samples=10**8)
    room(10**10)
    with pytest.raises(MemoryError, match=r"take fewer draws or chains$"):
        gb.fit(two_groups(), 2, sampler=many)


def test_fewer_chains_at_once_make_the_same_draws(monkeypatch, room):
    """What does not fit in one program goes one after the other."""
    sampler = gb.NUTS(num_warmup=100, num_samples=60, num_chains=2, chain_method="vectorized")
    together = quiet_fit(two_groups(), sampler=sampler)
    real = memory._fits
    monkeypatch.setattr(memory, "_fits", lambda p, *rest: p.grouping[0] == 1 and real(p, *rest))
    apart = quiet_fit(two_groups(), sampler=sampler)
    assert (together.run["chains_at_once"], apart.run["chains_at_once"]) == (2, 1)
    for name, values in together.posterior.items():
        assert float(abs(apart.posterior[name] - values).max()) < 1e-6


def test_the_limit_of_a_control_group_counts(monkeypatch, tmp_path):
    """The smallest of all groups that the process is in, files in the cache not counted."""
    job = tmp_path / "slurm" / "job"
    job.mkdir(parents=True)
    for folder, limit, used, cached in ((job.parent, 900, 100, 0), (job, 500, 300, 50)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text("0::/slurm/job\n")
    assert sorted(memory._left_of_groups()) == [250, 800]
    assert memory.available_memory(CPU) == 250
    (tmp_path / "cgroup").write_text("")
    assert memory.available_memory(CPU) > MIB


def test_an_address_space_that_is_limited_counts():
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    free = memory.available_memory(None)
    used = memory._left_of_address_space()
    assert used is None or soft != resource.RLIM_INFINITY
    program = (
        "import resource; from gmm_bayes.machine import memory; "
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {300 * MIB}, {hard})); "
        "print(memory.available_memory(None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert 200 * MIB < int(done.stdout) <= min(300 * MIB, free)


MEASURED = """
import json, warnings
import numpy as np
import gmm_bayes as gb
from gmm_bayes.inference.rows import placement

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

def plan(*args):
    found.append(real(*args))
    # From here on the kernel keeps the peak anew.
    open("/proc/self/clear_refs", "w").write("5")
    found.append(status("VmRSS"))
    return found[0]

found, real = [], placement.plan_memory
placement.plan_memory = plan
warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
X = np.random.default_rng(0).normal(size=({n_obs}, 2))
X[::2] += 9
sampler = gb.NUTS(
    num_warmup=2, num_samples={num_samples}, num_chains=2, preconditioning="none", max_tree_depth=1
)
gb.fit(X, 2, sampler=sampler, n_init=1)
print(json.dumps([found[0].needed, status("VmHWM") - found[1]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_obs", "num_samples"), [(400, 3), (4_000_000, 3), (400, 400_000)], ids=str
)
def test_the_peak_is_about_what_was_counted(n_obs, num_samples):
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak is read from /proc")
    program = MEASURED.format(n_obs=n_obs, num_samples=num_samples)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    counted, measured = json.loads(done.stdout)
    assert counted / 2 < measured < 2 * counted

"""Compiled programs that outlive the process, in a folder that is nobody else's."""

import os
import subprocess
import sys

import jax
import pytest

import gmm_bayes as gb
from gmm_bayes.machine import compilation
from gmm_bayes.machine.compilation import (
    SWITCH,
    cache_folder,
    compiled,
    forget_programs,
    persistent_cache,
)

FEW = gb.Laplace(num_samples=500)

COUNT = """
import jax, logging, sys, warnings
warnings.simplefilter("ignore")
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
import gmm_bayes as gb
X = gb.datasets.load_old_faithful()
fit = gb.fit(X, 2, sampler=gb.NUTS(num_warmup=100, num_samples=10), seed=1)
print(hits.count("/jax/compilation_cache/cache_hits"), float(fit.posterior["means"].sum()))
print(jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs)
"""


@pytest.fixture(autouse=True)
def no_folder_of_jax(monkeypatch):
    """These tests are about our own, which gives way to JAX's."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(SWITCH, "on")
    return tmp_path


def count(home, **environment):
    settings = {**os.environ, "XDG_CACHE_HOME": str(home), SWITCH: "on", **environment}
    ran = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, env=settings, check=True
    )
    first, second = ran.stdout.splitlines()
    hits, total = first.split()
    assert second.split()[0] == "None", "the user's own setting is back"
    return int(hits), float(total)


def test_a_second_process_finds_the_programs_of_the_first(tmp_path):
    hits, total = count(tmp_path)
    assert hits == 0
    assert any(tmp_path.glob("gmm_bayes/xla-*/*advance*"))
    again, same = count(tmp_path)
    assert again >= 2
    assert same == total
    assert count(tmp_path, **{SWITCH: "off"}) == (0, total)


def test_the_folder_is_the_users_own(home):
    folder = cache_folder()
    assert folder.parent.parent == home
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("word", ["off", "0", "no", "OFF"])
def test_it_can_be_switched_off(home, monkeypatch, word):
    monkeypatch.setenv(SWITCH, word)
    assert cache_folder() is None
    assert not any(home.iterdir())


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_to_is_not_used(home, mode, caplog):
    cache_folder().chmod(mode)
    caplog.set_level("INFO", logger="gmm_bayes")
    assert cache_folder() is None
    assert "may be written to by others" in caplog.text


def test_a_folder_of_another_user_is_not_used(home, monkeypatch, caplog):
    cache_folder()
    caplog.set_level("INFO", logger="gmm_bayes")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert cache_folder() is None
    assert "belongs to another user" in caplog.text


def test_no_folder_no_cache(home, monkeypatch):
    """A home that cannot be written to costs the cache, not the fit."""
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    assert cache_folder() is None
    with persistent_cache():
        assert jax.config.jax_compilation_cache_dir is None


def test_the_oldest_files_make_room(home, monkeypatch):
    folder = cache_folder()
    monkeypatch.setattr(compilation, "_LARGEST_MIB", 1)
    for age, name in enumerate(["new", "old", "oldest"]):
        (folder / name).write_bytes(bytes(600_000))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    cache_folder()
    assert [file.name for file in folder.iterdir()] == ["new"]


def test_the_users_own_cache_is_left_alone(home, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    try:
        with persistent_cache():
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    with persistent_cache():
        assert "gmm_bayes" in jax.config.jax_compilation_cache_dir
        with persistent_cache():
            pass
    assert jax.config.jax_compilation_cache_dir == before


def test_settings_come_back_after_an_error(home):
    with pytest.raises(ZeroDivisionError), persistent_cache():
        raise ZeroDivisionError
    assert jax.config.jax_compilation_cache_dir is None
    assert not compilation._in_use.locked()


@pytest.mark.skipif(not compilation._MOST_MAPS.exists(), reason="Linux counts memory maps")
def test_programs_are_dropped_before_they_fill_the_process():
    def maps():
        return compilation._MAPS.read_bytes().count(b"\n")

    programs = [jax.jit(lambda x, n=n: (x * n).sum() + x[:n].sum()) for n in range(1, 40)]
    forget_programs(0.0)
    before = maps()
    for program in programs:
        program(jax.numpy.ones(64))
    full = maps()
    assert full - before > 2 * len(programs)
    assert not forget_programs(1.0)
    assert maps() >= full
    assert forget_programs(0.0)
    assert maps() - before < 0.5 * (full - before)


def test_other_systems_do_not_count_them(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation, "_MAPS", tmp_path / "nothing")
    assert not forget_programs(0.0)


@pytest.mark.parametrize("fit", [lambda X: gb.fit_em(X, 1), lambda X: gb.fit(X, 1, sampler=FEW)])
def test_every_fit_looks_first(monkeypatch, fit):
    looked = []
    for home in ("run", "em.fit_em"):
        monkeypatch.setattr(f"gmm_bayes.inference.{home}.forget_programs", lambda: looked.append(1))
    fit(gb.datasets.load_old_faithful())
    assert looked == [1]


def cube(x, *, power):
    return x**power


def asked_for(monkeypatch):
    """The options of every program that `compiled` makes."""
    asked, real = [], jax.jit

    def jit(function, **options):
        asked.append(options.get("compiler_options"))
        return real(function, **options)

    monkeypatch.setattr(jax, "jit", jit)
    return asked


@pytest.fixture
def on_a_cpu():
    with jax.default_device(jax.devices("cpu")[0]):
        yield


@pytest.mark.usefixtures("on_a_cpu")
def test_on_a_cpu_programs_are_compiled_quickly(monkeypatch):
    assert "xla_backend_optimization_level" in compilation._known_options()
    asked = asked_for(monkeypatch)
    program = compiled(cube, static_argnames="power")
    assert program(2.0, power=3) == 8
    assert program(3.0, power=3) == 27
    assert asked == [None, compilation._known_options()]
    with jax.default_device("cpu"):
        assert compilation._platform() == "cpu"
    assert program.__wrapped__ is cube
    assert program.lower(2.0, power=3).compile()(2.0) == 8


def test_elsewhere_as_the_compiler_likes(monkeypatch):
    """What is quick on a CPU would be slow on a GPU."""
    asked = asked_for(monkeypatch)
    monkeypatch.setattr(compilation, "_platform", lambda: "gpu")
    assert compiled(cube, static_argnames="power")(2.0, power=3) == 8
    assert asked == [None]


@pytest.mark.usefixtures("on_a_cpu")
def test_a_compiler_is_asked_for_what_it_has(monkeypatch, request):
    compilation._known_options.cache_clear()
    request.addfinalizer(compilation._known_options.cache_clear)
    level = {"xla_backend_optimization_level": 1}
    monkeypatch.setattr(compilation, "_QUICKLY", {"xla_cpu_of_the_future": True, **level})
    assert compiled(cube, static_argnames="power")(2.0, power=3) == 8
    assert compilation._known_options() == level


def test_compilation_that_is_switched_off_makes_no_option_known(monkeypatch):
    monkeypatch.setattr(compilation, "_QUICKLY", {"no_such_option_of_xla": True})
    compilation._known_options.cache_clear()
    try:
        with jax.disable_jit():
            assert compilation._known_options() == {}
    finally:
        compilation._known_options.cache_clear()

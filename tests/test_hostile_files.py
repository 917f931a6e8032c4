"""Faults of files and of the machine: nothing that was there is damaged, and the user is told."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple

import h5py
import numpy as np
import pytest
import xarray as xr
from hostile import raises_exactly, small_fit, table

import gmm_bayes as gb
from gmm_bayes.errors import FileFormatError
from gmm_bayes.inference.result import netcdf as storage


@pytest.fixture
def saved(tmp_path):
    return small_fit().save(tmp_path / "fit.nc")


def names(directory):
    return sorted(path.name for path in directory.iterdir())


# -- load -----------------------------------------------------------------------------------------


def _cut(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def _random(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def _empty(path):
    path.write_bytes(b"")


def _text(path):
    path.write_text("a,b\n1,2\n")


def _damaged_head(path):
    content = bytearray(path.read_bytes())
    content[:64] = bytes(64)
    path.write_bytes(content)


def _another_tree(path):
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")


def _attribute(name, value):
    def change(path):
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return change


def _without(*names):
    def change(path):
        with h5py.File(path, "r+") as file:
            for name in names:
                del file[name]

    return change


def _without_attribute(name):
    def change(path):
        with h5py.File(path, "r+") as file:
            del file.attrs[name]

    return change


NOT_READABLE = (
    "{path} is not a readable netCDF file: it is damaged or was not written by GMMFit.save "
    "(OSError)"
)
LACKS = "{path} is damaged: it lacks {what}; save the fit again"
DAMAGE = {
    "truncated": (_cut, NOT_READABLE),
    "random bytes": (_random, NOT_READABLE),
    "empty": (_empty, NOT_READABLE),
    "text": (_text, NOT_READABLE),
    "first bytes lost": (_damaged_head, NOT_READABLE),
    "another netCDF file": (
        _another_tree,
        "{path} is not a result of gmm_bayes: it has no format tag 'gmm_bayes.GMMFit'",
    ),
    "a later version": (
        _attribute("format_version", 99),
        "{path} has format version 99, this gmm_bayes reads versions 1 and 2; load it with the "
        "version that wrote it",
    ),
    "a version that is text": (
        _attribute("format_version", "1; DROP TABLE"),
        "{path} has format version 1; DROP TABLE, this gmm_bayes reads versions 1 and 2; load it "
        "with the version that wrote it",
    ),
    "no version": (
        _without_attribute("format_version"),
        "{path} has format version None, this gmm_bayes reads versions 1 and 2; load it with the "
        "version that wrote it",
    ),
    "no posterior": (
        _without("posterior"),
        LACKS.replace("{what}", "posterior"),
    ),
    "no weights": (
        _without("posterior/weights", "sample_stats/lp"),
        LACKS.replace("{what}", "posterior/weights, sample_stats/lp"),
    ),
    "no priors": (
        _without("constant_data/scale_scale"),
        LACKS.replace("{what}", "constant_data/scale_scale"),
    ),
    "no settings": (
        _without_attribute("sampler"),
        LACKS.replace("{what}", "attribute sampler"),
    ),
    "settings that are not settings": (
        _attribute("sampler", "__import__('os')"),
        "{path} is damaged: its attribute sampler is not what GMMFit.save wrote; "
        "save the fit again",
    ),
    "an unknown covariance type": (
        _attribute("covariance_type", "fulll"),
        "{path} is damaged: its attribute covariance_type is not what GMMFit.save wrote; "
        "save the fit again",
    ),
}


@pytest.mark.parametrize(("damage", "message"), table(DAMAGE))
def test_a_file_that_is_no_result(saved, damage, message):
    damage(saved)
    with raises_exactly(FileFormatError, message.format(path=saved)):
        gb.load(saved)


def test_a_bit_that_flips_in_the_draws_is_noticed(saved):
    content = bytearray(saved.read_bytes())
    needle = small_fit().posterior["means"].values.astype("<f8").tobytes()[:64]
    place = content.find(needle)
    assert place > 0
    content[place + 3] ^= 1
    saved.write_bytes(content)
    with raises_exactly(FileFormatError, NOT_READABLE.format(path=saved)):
        gb.load(saved)


def test_a_path_to_nothing(tmp_path):
    missing = tmp_path / "missing.nc"
    with raises_exactly(FileNotFoundError, f"there is no file {missing}"):
        gb.load(missing)
    with raises_exactly(FileNotFoundError, f"there is no file {missing / 'below.nc'}"):
        gb.load(missing / "below.nc")
    with raises_exactly(IsADirectoryError, f"{tmp_path} is a directory; name the .nc file in it"):
        gb.load(str(tmp_path))
    # Nor is a device or a pipe, at which reading would wait for ever.
    with raises_exactly(FileNotFoundError, f"there is no file {os.devnull}"):
        gb.load(os.devnull)
    with pytest.raises(TypeError, match=r"not '?NoneType"):
        gb.load(None)


def test_a_file_that_may_not_be_read(saved, monkeypatch):
    # Root may read everything, so the permission is taken away from the question.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    message = f"{saved} may not be read: its permissions forbid it"
    with raises_exactly(PermissionError, message):
        gb.load(saved)


# -- save -----------------------------------------------------------------------------------------


def test_a_saved_fit_comes_back_whole(saved):
    loaded = gb.load(saved)
    assert loaded == small_fit()
    assert gb.load(loaded.save(saved)) == small_fit()
    assert small_fit().save(saved) == saved
    assert loaded.problems == small_fit().problems
    assert loaded.sampler == small_fit().sampler
    assert names(saved.parent) == ["fit.nc"]
    mask = os.umask(0)
    os.umask(mask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_of_the_first_version_is_read(saved):
    """Its log-likelihood of all rows had the name that ArviZ has for that of each."""
    with h5py.File(saved, "r+") as file:
        stats = file["sample_stats"]
        stats.move("total_log_likelihood", "log_likelihood")
        file.attrs["format_version"] = 1
    assert gb.load(saved) == small_fit()


def test_no_directory_to_save_in(tmp_path):
    target = tmp_path / "missing" / "fit.nc"
    message = f"cannot save to {target}: directory {target.parent} does not exist; make it first"
    with raises_exactly(FileNotFoundError, message):
        small_fit().save(target)
    file = tmp_path / "file"
    file.touch()
    target = file / "fit.nc"
    message = f"cannot save to {target}: directory {file} is not a directory; make it first"
    with raises_exactly(FileNotFoundError, message):
        small_fit().save(target)
    message = f"cannot save to {tmp_path}: it is a directory; name a file in it"
    with raises_exactly(IsADirectoryError, message):
        small_fit().save(tmp_path)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EACCES, PermissionError), (errno.EROFS, OSError), (errno.ENOSPC, OSError)],
)
def test_a_directory_that_takes_no_file(saved, monkeypatch, number, kind):
    before = saved.read_bytes()

    def refuse(*args, **options):
        raise OSError(number, os.strerror(number), "/a/name/of/ours")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    message = (
        f"cannot save to {saved}: no file can be made in {saved.parent} "
        f"({os.strerror(number)}); choose another directory"
    )
    with raises_exactly(kind, message):
        small_fit().save(saved)
    assert saved.read_bytes() == before


def test_a_full_disk_is_noticed_first(saved, monkeypatch):
    before = saved.read_bytes()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 2**19))
    with pytest.raises(OSError, match="cannot save") as caught:
        small_fit().save(saved)
    pattern = rf"cannot save to {re.escape(str(saved))}: about \d MiB are needed, 0 MiB are free"
    assert re.fullmatch(pattern, str(caught.value))
    assert saved.read_bytes() == before
    assert names(saved.parent) == ["fit.nc"]


def test_a_really_full_disk(tmp_path):
    """On a file system of one megabyte, where a test may make one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (tmp_path / "fit.nc").write_bytes(b"what was there")
        with pytest.raises(OSError, match=r"MiB are needed, \d MiB are free\Z"):
            small_fit().save(tmp_path / "fit.nc")
        assert (tmp_path / "fit.nc").read_bytes() == b"what was there"
        assert names(tmp_path) == ["fit.nc"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_write_that_fails_half_way(saved, tmp_path):
    """The limit on the size of a file stops the write where no check could foresee it."""
    code = """
        import resource, signal, sys
        import gmm_bayes as gb
        fit = gb.load(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            fit.save(sys.argv[2])
        except OSError as error:
            print("refused")
        print(float(fit.posterior["weights"].sum()))
    """
    target = tmp_path / "out" / "old.nc"
    target.parent.mkdir()
    target.write_bytes(b"what was there")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(saved), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert target.read_bytes() == b"what was there"
    # The HDF5 library may crash on a failed write; a process that survives has cleaned up.
    if done.returncode in (0, 1):
        assert done.stdout.splitlines()[0] == "refused"
        assert names(target.parent) == ["old.nc"]
    else:
        assert done.returncode == -signal.SIGSEGV, done.stderr


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError, OSError])
def test_an_interrupted_save_leaves_the_old_file(saved, monkeypatch, fault):
    before = saved.read_bytes()

    def interrupted(self, path, **options):
        path.write_bytes(b"half a fi")
        raise fault

    monkeypatch.setattr(xr.DataTree, "to_netcdf", interrupted)
    with pytest.raises(fault):
        small_fit().save(saved)
    assert saved.read_bytes() == before
    assert names(saved.parent) == ["fit.nc"]


@pytest.mark.parametrize("wrong", [_cut, _attribute("n_components", 7)])
def test_a_file_that_reads_back_differently_is_not_kept(saved, monkeypatch, wrong):
    before = saved.read_bytes()
    write = xr.DataTree.to_netcdf

    def damaging(self, path, **options):
        write(self, path, **options)
        wrong(path)

    monkeypatch.setattr(xr.DataTree, "to_netcdf", damaging)
    message = f"cannot save to {saved}: the file does not read back as written; is the disk full?"
    with raises_exactly(OSError, message):
        small_fit().save(saved)
    assert saved.read_bytes() == before
    assert names(saved.parent) == ["fit.nc"]


def test_a_file_holds_no_code(saved):
    with h5py.File(saved) as file:
        attributes = dict(file.attrs)
        kinds = set()
        file.visititems(
            lambda name, item: kinds.add(item.dtype.kind) if hasattr(item, "dtype") else None
        )
    assert b"pickle" not in saved.read_bytes()
    assert kinds <= set("fiubO")
    for name in storage.ATTRIBUTES - {"n_components", "covariance_type"}:
        json.loads(attributes[name])

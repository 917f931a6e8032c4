"""Rows and chains on several devices: the same draws, and one sum for each gradient."""

import json
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from hostile import raises_exactly, refuse_work, two_groups
from jax.sharding import Mesh

import gmm_bayes as gb
from gmm_bayes.core.likelihood import block_rows

PROGRAM = Path(__file__).with_name("spread_fits.py")


@pytest.fixture(scope="module")
def found():
    """What the fits of a process with four devices say."""
    done = subprocess.run(
        [sys.executable, PROGRAM], capture_output=True, text=True, timeout=3600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_gradient_sends_one_sum(found, precision):
    """Of K F numbers and the log density, F = (D + 1)(D + 2) / 2."""
    kernel = found[precision]
    assert kernel["kinds"] == ["all-reduce"]
    assert [shape.partition("{")[0] for shape in kernel["sent"]] == ["f64[31]"]
    assert kernel["error"] < 1e-12
    # Every device holds its own quarter of the blocks and no more.
    assert kernel["blocks"] == [4, 4, 4, 4]


@pytest.mark.parametrize("mesh", ["2", "4", "both"])
def test_draws_are_those_of_one_device(found, mesh):
    """Over 30 draws of warm-up and 50 more; over many more, NUTS amplifies rounding."""
    assert found[mesh]["difference"] < 1e-8
    assert found[mesh]["drivers"] == 1


def test_the_record_says_how_the_work_was_spread(found):
    assert found["2"]["run"]["mesh"] == {"chains": 1, "rows": 2}
    assert found["both"]["run"]["mesh"] == {"chains": 2, "rows": 2}
    assert found["2"]["run"]["n_processes"] == 1
    assert found["2"]["run"]["chain_method"] == "vectorized"
    assert found["2"]["run"]["precision"] == "float64"
    assert found["2"]["run"]["device_memory"] > 2**20
    assert found["2"]["device"] == "cpu"


def test_single_precision_and_an_odd_number_of_devices(found):
    """Rows in groups, blocks that are not a multiple of three."""
    assert found["single precision"]["difference"] < 1e-4
    assert found["single precision"]["run"]["mesh"] == {"chains": 1, "rows": 3}


@pytest.mark.parametrize("mesh", ["4", "both"])
@pytest.mark.parametrize(
    ("precision", "measure", "error"),
    # Rounding may give a draw of the approximation another place among the 100.
    [("float64", "difference", 1e-8), ("float32", "means apart", 0.2)],
)
def test_rows_of_a_file_are_read_once_for_each_share(found, mesh, precision, measure, error):
    """And once before, by the process that looks at all of them."""
    fit = found["file"][f"{mesh}, {precision}"]
    assert fit[measure] < error
    survey, *shares = map(tuple, fit["read"])
    assert survey == (0, 2000)
    step = {"4": 500, "both": 1000}[mesh]
    assert shares == [(begin, begin + step) for begin in range(0, 2000, step)]


def test_a_device_can_be_chosen_by_its_index(found):
    assert found["indexed"] == 3


@pytest.mark.parametrize("n_obs", [1, 3, 9, 700, 2001])
@pytest.mark.parametrize("multiple", [1, 2, 4, 7])
def test_blocks_are_a_multiple_and_hold_every_row_once(n_obs, multiple):
    X = np.arange(2.0 * n_obs).reshape(n_obs, 2)
    for groups in (None, np.arange(n_obs) % 3):
        rows = block_rows(X, rows_per_block=100, multiple=multiple, groups=groups)
        assert len(rows.values) % multiple == 0
        counted = rows.weights > 0
        there = np.sort(rows.values[:, 1, :][counted])
        np.testing.assert_array_equal(there, X[:, 0])
        assert rows.weights.sum() == n_obs


X40 = two_groups()
ONE = jax.devices("cpu")[:1]
REFUSED = {
    "more devices than there are": (
        {"mesh": 3},
        gb.errors.DeviceError,
        "3 devices were asked for, but there is 1 cpu device; set "
        "XLA_FLAGS=--xla_force_host_platform_device_count=3 before JAX starts",
    ),
    "none": ({"mesh": 0}, ValueError, "mesh must be at least 1, got 0"),
    "no number": (
        {"mesh": 2.0},
        TypeError,
        "mesh must be an integer of at least 1, got 2.0 of type float",
    ),
    "other axes": (
        {"mesh": Mesh(np.array(ONE), ("data",))},
        ValueError,
        "mesh must have no axes but 'rows' and 'chains', got ('data',); make it by "
        "jax.make_mesh((4,), ('rows',)), or give the number of devices",
    ),
    "threads": (
        {"mesh": Mesh(np.array(ONE), ("rows",)), "sampler": gb.NUTS(chain_method="parallel")},
        ValueError,
        "chain_method must be 'vectorized', 'sequential' or 'auto' on a mesh, got 'parallel': "
        "chains in threads would wait for each other's devices",
    ),
    "one device and several": (
        {"mesh": 2, "device": "cpu:0"},
        ValueError,
        "device must be a kind of device where work is spread over several, got 'cpu:0'; give "
        "device='cpu'",
    ),
    "an index that is not there": (
        {"device": "cpu:5"},
        gb.errors.DeviceError,
        "device='cpu:5' was asked for, but there is 1 cpu device, counted from cpu:0",
    ),
    "no index": (
        {"device": "cpu:first"},
        ValueError,
        "device must be one of auto, cpu, gpu, or a kind with an index such as 'gpu:1', got "
        "'cpu:first'",
    ),
    "auto with an index": (
        {"device": "auto:1"},
        ValueError,
        "device must be one of auto, cpu, gpu, or a kind with an index such as 'gpu:1', got "
        "'auto:1'",
    ),
}


@pytest.mark.parametrize(("options", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_devices_that_are_not_there_are_named_first(monkeypatch, options, kind, message):
    if len(jax.devices("cpu")) > 1:
        pytest.skip("there are several CPU devices")
    refuse_work(monkeypatch)
    with raises_exactly(kind, message):
        gb.fit(X40, 2, **{"device": "cpu", **options})


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"num_chains": 3}, "num_chains=3, chain_method='auto'"),
        (
            {"num_chains": 4, "chain_method": "sequential"},
            "num_chains=4, chain_method='sequential'",
        ),
    ],
)
def test_chains_must_be_dealt_evenly(settings, got):
    message = (
        "num_chains must be a multiple of the 2 groups of devices that chains are dealt to, and "
        f"not run one by one, got {got}"
    )
    with raises_exactly(ValueError, message):
        gb.NUTS(**settings).check_mesh(types.SimpleNamespace(shape={"chains": 2, "rows": 1}))

"""What the first of several processes found is what all go on with."""

from types import SimpleNamespace

import pytest

from gmm_bayes.inference.rows import placement

MESH = SimpleNamespace(is_multi_process=True)
FEW = {"modes": [{"log_mass": None, "weights": [0.3, 0.7]}], "n_starts": 48}
MANY = {"modes": [{"log_mass": -0.1, "weights": [0.1, 0.9]}] * 40, "n_starts": 320}


@pytest.mark.parametrize(("first", "other"), [(FEW, MANY), (MANY, FEW), (FEW, FEW)])
def test_a_record_is_that_of_the_first_process(monkeypatch, first, other):
    told = []

    def tell(value):
        told.append(value)
        return value

    def hear(value):
        # What is sent must be of one shape everywhere: else the processes wait, or mix bytes.
        sent = told.pop(0)
        assert (value.shape, value.dtype) == (sent.shape, sent.dtype)
        return sent

    broadcast = "broadcast_one_to_all"
    monkeypatch.setattr(placement.multihost_utils, broadcast, tell)
    assert placement.agree_on_record(first, MESH) == first
    monkeypatch.setattr(placement.multihost_utils, broadcast, hear)
    assert placement.agree_on_record(other, MESH) == first
    assert not told


@pytest.mark.parametrize("mesh", [None, SimpleNamespace(is_multi_process=False)])
def test_one_process_keeps_its_own(mesh):
    assert placement.agree_on_record(FEW, mesh) is FEW

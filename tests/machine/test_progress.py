"""The bar: for a person only, and nearly free."""

import time

import pytest

import gmm_bayes as gb
from gmm_bayes.machine import progress


def test_none_in_ci(monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert not progress.wanted(None)
    assert progress.wanted(True)
    assert not progress.wanted(False)


def test_it_reports_every_draw(faithful, capsys):
    sampler = gb.NUTS(num_warmup=500, num_samples=100)
    with pytest.warns(gb.errors.ConvergenceWarning):
        gb.fit(faithful, 2, sampler=sampler, seed=1, progress=True)
    shown = capsys.readouterr().err
    assert "2400/2400" in shown
    assert "divergences=0" in shown


def test_it_costs_little():
    """A report costs microseconds; a block of draws that it stands for costs at least 2 ms."""
    with progress.Progress(10**6, shown=True) as bar:
        begin = time.perf_counter()
        for _ in range(1000):
            bar.update(50, sampling=True)
        seconds = (time.perf_counter() - begin) / 1000
    assert seconds < 0.05 * 2e-3

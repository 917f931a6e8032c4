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


def test_the_bar_of_many_sets_counts_those_that_are_finished(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.n, self.words = options, 0, []
            bars.append(self)

        def update(self, n):
            self.n += n

        def set_postfix_str(self, words):
            self.words.append(words)

        def close(self):
            pass

    monkeypatch.setattr("gmm_bayes.machine.progress._tqdm", lambda: Bar)
    with progress.SetProgress(3, 200, shown=True) as bar:
        bar.update(50, sampling=False)
        bar.finish(2)
        bar.update(250, sampling=True)
    assert bars[0].options["total"] == 3
    assert bars[0].options["unit"] == "set"
    assert bars[0].n == 2
    # Sets that were sampled again made more draws than were known of.
    assert bars[0].words == ["25% of draws", "100% of draws"]

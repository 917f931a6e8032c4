"""The partition of least expected loss: against all partitions, against scikit-learn, by hand."""

import numpy as np
import pytest
from sklearn.metrics import (
    adjusted_rand_score,
    mutual_info_score,
    pair_confusion_matrix,
    rand_score,
)

import gmm_bayes as gb
from gmm_bayes.posterior.partitions import search as partition_search
from gmm_bayes.posterior.partitions.loss import BINDER, LOSSES, VI, SharedRows
from gmm_bayes.posterior.partitions.partition import _summary
from gmm_bayes.posterior.partitions.search import renumbered, search


def all_partitions(n):
    """Every set partition of n rows, as restricted growth strings."""
    if n == 0:
        yield []
        return
    for before in all_partitions(n - 1):
        for label in range(max(before, default=-1) + 2):
            yield [*before, label]


def distance(a, b, loss):
    """By scikit-learn."""
    if loss == BINDER:
        return 1 - rand_score(a, b)
    entropies = mutual_info_score(a, a) + mutual_info_score(b, b)
    return (entropies - 2 * mutual_info_score(a, b)) / np.log(2)


def made_up(n_obs, n_draws, k, seed, noise=0.35):
    """Label draws about one partition, numbered anew in every draw."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n_obs)
    wrong = rng.random((n_obs, n_draws)) < noise
    labels = np.where(wrong, rng.integers(k, size=(n_obs, n_draws)), truth[:, None])
    return relabelled(labels, k, rng).astype(np.int8), truth


def relabelled(draws, k, rng):
    names = rng.permuted(np.tile(np.arange(k)[:, None], draws.shape[1]), axis=0)
    return np.take_along_axis(names, draws.astype(int), axis=0)


def estimate(draws, loss, most=None, starts=16, seed=0):
    rng = np.random.default_rng(seed)
    found = search(draws, loss, most or len(draws), starts, rng)
    return _summary(found, loss, np.arange(len(draws)))


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_scikit_learn(loss):
    draws, _ = made_up(40, 25, 5, 0)
    labels = np.random.default_rng(1).integers(4, size=40)
    candidate = SharedRows(draws, loss, 6)
    candidate.reset(labels)
    expected = [distance(labels, draw, loss) for draw in draws.T]
    np.testing.assert_allclose(candidate.losses(), expected, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_moves_and_merges_keep_the_books(loss):
    """After moves the counts are those of the new labels, and costs are differences of the loss."""
    draws, _ = made_up(30, 12, 4, 2)
    rng = np.random.default_rng(3)
    candidate = SharedRows(draws, loss, 5)
    candidate.reset(rng.integers(5, size=30))
    for row in range(30):
        costs, cells = candidate.costs(row)
        before, own = candidate.losses().mean(), candidate.labels[row]
        cluster = int(rng.integers(5))
        if cluster != own:
            candidate.move(row, cluster, cells)
        change = candidate.scale * (costs[cluster] - costs[own])
        assert candidate.losses().mean() - before == pytest.approx(change, abs=1e-12)
    again = SharedRows(draws, loss, 5)
    again.reset(candidate.labels)
    for name in ("sizes", "counts", "_steps"):
        np.testing.assert_array_equal(getattr(candidate, name), getattr(again, name))
    before, change = candidate.losses().mean(), candidate.scale * candidate.merge_cost(3, 1)
    candidate.merge(3, 1)
    assert candidate.losses().mean() - before == pytest.approx(change, abs=1e-12)
    again.reset(candidate.labels)
    np.testing.assert_array_equal(candidate._steps, again._steps)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("n_obs", "k", "noise"), [(5, 3, 0.9), (7, 3, 0.4), (8, 4, 0.3), (8, 3, 1.0), (8, 2, 0.6)]
)
def test_it_finds_the_best_of_all_partitions(loss, n_obs, k, noise):
    for seed in range(3):
        draws, _ = made_up(n_obs, 23, k, seed, noise)
        every = SharedRows(draws, loss, n_obs)
        best = np.inf
        for labels in all_partitions(n_obs):
            every.reset(np.array(labels))
            best = min(best, every.losses().mean())
        found = estimate(draws, loss)
        assert found.expected_loss == pytest.approx(best, abs=1e-12)
        by_hand = np.mean([distance(found.labels.values, draw, loss) for draw in draws.T])
        assert found.expected_loss == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_known_partition_is_found(loss):
    draws, truth = made_up(120, 60, 4, 5, noise=0.2)
    found = estimate(draws, loss, 8)
    assert adjusted_rand_score(found.labels, truth) == 1
    sizes = np.sort(np.bincount(truth))[::-1]
    np.testing.assert_array_equal(found.sizes, sizes)
    # A wrong label is a random one, and a quarter of those are right after all.
    np.testing.assert_allclose(found.probability.mean(), 0.85, atol=0.02)
    once = made_up(50, 9, 3, 6, noise=0.0)[0]
    certain = estimate(once, loss, 6)
    assert certain.expected_loss < 1e-12
    assert certain.ball.radius < 1e-12
    np.testing.assert_array_equal(certain.probability, 1)


@pytest.mark.parametrize("loss", LOSSES)
def test_numbering_of_the_draws_does_not_matter(loss):
    draws, _ = made_up(40, 30, 4, 7)
    again = relabelled(draws, 4, np.random.default_rng(8)).astype(np.int8)
    one, other = estimate(draws, loss), estimate(again, loss)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.probability, other.probability)
    assert one.expected_loss == pytest.approx(other.expected_loss, abs=1e-12)
    assert one.ball.radius == pytest.approx(other.ball.radius, abs=1e-12)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_at_most_so_many_clusters(most):
    draws, _ = made_up(60, 20, 5, 9, noise=0.1)
    for loss in LOSSES:
        assert estimate(draws, loss, most).n_clusters == most


def test_many_rows_start_from_some(monkeypatch):
    draws, truth = made_up(300, 40, 4, 10, noise=0.2)
    whole = estimate(draws, VI, 8)
    monkeypatch.setattr(partition_search, "_MOST_ROWS", 60)
    some = estimate(draws, VI, 8)
    np.testing.assert_array_equal(some.labels, whole.labels)
    assert adjusted_rand_score(some.labels, truth) == 1


def test_merging_leads_out_of_a_local_optimum():
    """Two halves of one cluster, each too large for a row to leave by itself."""
    draws = np.zeros((20, 11), np.int8)
    draws[10:, :5] = 1
    halves = np.repeat([0, 1], 10)
    candidate = SharedRows(draws, VI, 4)
    candidate.reset(halves)
    rng = np.random.default_rng(0)
    assert not partition_search._sweep(candidate, rng)
    partition_search._descend(candidate, rng)
    assert len(np.unique(candidate.labels)) == 1


def test_clusters_are_numbered_by_size():
    np.testing.assert_array_equal(
        renumbered(np.array([7, 3, 3, 5, 7, 3, 5])), [1, 0, 0, 2, 1, 0, 2]
    )


def test_probabilities_by_hand():
    """Rows 0-2 and 3-4 are clusters; row 2 is with the others in one draw; row 5 is alone."""
    draws = np.array(
        [[0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 2], [2, 2, 2, 0, 0, 1], [1, 1, 1, 0, 0, 0]], np.int8
    ).T
    candidate = SharedRows(draws, VI, 3)
    candidate.reset(np.array([0, 0, 0, 1, 1, 2]))
    found = _summary(candidate, VI, np.arange(6))
    # In the second draw the others of row 0's cluster, rows 1 and 2, are split: a tie counts.
    np.testing.assert_allclose(found.probability, [1, 1, 0.75, 1, 1, 0.75])


def test_ball_by_hand():
    base = np.repeat([0, 1], 10)
    one_moved, three_moved, split, joined = (base.copy() for _ in range(4))
    one_moved[0] = 1
    three_moved[:3] = 1
    split[:2] = 2
    joined[:] = 0
    # 100 draws: 4 lie outside of a 95 % ball, and the joined ones are the farthest.
    many = [*[base] * 60, *[one_moved] * 20, *[split] * 11, *[three_moved] * 5, *[joined] * 4]
    draws = np.array(many, np.int8).T
    candidate = SharedRows(draws, BINDER, 4)
    candidate.reset(base)
    ball = _summary(candidate, BINDER, np.arange(20)).ball
    assert ball.probability == 0.95
    assert ball.radius == pytest.approx(1 - rand_score(base, three_moved))
    for bound, expected in (
        (ball.horizontal, three_moved),
        (ball.upper, three_moved),
        (ball.lower, split),
    ):
        assert (pair_confusion_matrix(bound, expected) == pair_confusion_matrix(bound, bound)).all()
    assert repr(ball) == "CredibleBall(95% within 0.268, 2 to 3 clusters)"


def test_of_a_fit(faithful, faithful_fit):
    found = gb.partition(faithful_fit, num_label_draws=200, num_starts=4)
    assert found.labels.dims == ("obs",)
    assert found.n_clusters == 2
    assert found.num_label_draws == 200
    np.testing.assert_array_equal(found.labels.coords["obs"], faithful.index)
    assert adjusted_rand_score(found.labels, gb.assign(faithful_fit)) > 0.98
    sure = gb.responsibilities(faithful_fit).max("component")
    np.testing.assert_allclose(found.probability, sure, atol=0.12)
    assert "rows: 272 in 2 clusters of 17" in repr(found)
    assert "(variation of information, bits), over 200 label draws" in repr(found)
    same = gb.partition(faithful_fit, num_label_draws=200, num_starts=4)
    assert same.labels.identical(found.labels)
    some = gb.partition(faithful_fit, faithful.iloc[50:90], loss="binder", num_label_draws=100)
    np.testing.assert_array_equal(some.labels.coords["obs"], np.arange(50, 90))
    assert "share of pairs" in repr(some)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": "ari"}, ValueError, "loss must be one of vi, binder"),
        ({"max_clusters": 0}, ValueError, "max_clusters must be at least 1"),
        ({"num_label_draws": 0}, ValueError, "num_label_draws must be at least 1"),
        ({"num_starts": 1.0}, TypeError, "num_starts must be an integer"),
        ({"seed": -1}, ValueError, "seed must be in"),
    ],
)
def test_wrong_options_are_refused(faithful_fit, options, error, message):
    with pytest.raises(error, match=message):
        gb.partition(faithful_fit, **options)

"""The similarity matrix: equal to the mean of products by hand, in every shape and precision."""

import numpy as np
import pytest

import gmm_bayes as gb
from gmm_bayes.posterior.partitions import coassignment as module
from gmm_bayes.posterior.partitions import label_draws
from gmm_bayes.posterior.partitions.label_draws import draw_labels, thinned


@pytest.fixture(scope="module")
def thin_fit(faithful_fit):
    return gb.GMMFit(faithful_fit.datatree.isel(draw=slice(None, None, 40)))


@pytest.fixture(scope="module")
def by_hand(thin_fit):
    r = gb.responsibilities(thin_fit, reduce=None).stack(sample=("chain", "draw"))
    each = r.transpose("sample", "obs", "component").values
    matrix = np.einsum("sik,sjk->ij", each, each) / len(each)
    np.fill_diagonal(matrix, 1)
    return matrix


def test_it_is_the_mean_of_products(thin_fit, by_hand):
    found = gb.coassignment(thin_fit)
    assert found.dims == ("obs", "obs2")
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_hand, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(np.diag(found), 1)
    np.testing.assert_array_equal(found, found.values.T)
    assert found.attrs == {"rows": "all 272 rows", "num_draws": 100}


@pytest.mark.parametrize(("block", "depth", "tile"), [(1, 2, 64), (272 * 2 * 7, 2, 128)])
def test_chunks_and_tiles_do_not_matter(thin_fit, by_hand, monkeypatch, block, depth, tile):
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_LEAST_DEPTH", depth)
    monkeypatch.setattr(module, "_LARGEST_TILE", tile)
    np.testing.assert_allclose(gb.coassignment(thin_fit), by_hand, rtol=1e-12, atol=1e-14)


def test_single_precision(thin_fit, by_hand):
    found = gb.coassignment(thin_fit, dtype="float32")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand, atol=2e-6)


def test_new_rows_keep_their_names(faithful, thin_fit, by_hand):
    order = np.random.default_rng(0).permutation(272)[:70]
    found = gb.coassignment(thin_fit, faithful.iloc[order])
    np.testing.assert_array_equal(found.coords["obs"], order)
    np.testing.assert_array_equal(found.coords["obs2"], order)
    np.testing.assert_allclose(found, by_hand[np.ix_(order, order)], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("at_once", [4096, 100])
def test_landmarks_are_columns_of_the_whole(thin_fit, by_hand, monkeypatch, at_once):
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", at_once)
    found = gb.coassignment(thin_fit, landmarks=30, seed=4)
    assert found.shape == (272, 30)
    columns = found.coords["obs2"].values
    assert len(set(columns)) == 30
    np.testing.assert_allclose(found, by_hand[:, columns], rtol=1e-12, atol=1e-14)
    assert found.attrs["rows"] == "all 272 rows with 30 of them, picked at random"
    assert found.identical(gb.coassignment(thin_fit, landmarks=30, seed=4))
    assert not found.equals(gb.coassignment(thin_fit, landmarks=30, seed=5))


def test_some_rows(thin_fit, by_hand, caplog):
    with caplog.at_level("INFO", logger="gmm_bayes"):
        found = gb.coassignment(thin_fit, max_rows=40)
    rows = found.coords["obs"].values
    np.testing.assert_array_equal(found.coords["obs2"], rows)
    np.testing.assert_allclose(found, by_hand[np.ix_(rows, rows)], rtol=1e-12, atol=1e-14)
    assert "coassignment compares 40 of 272 rows, picked at random" in caplog.text
    assert "coassignment of shape (40, 40) takes 0 MiB" in caplog.text
    assert found.attrs["rows"] == "40 of 272 rows, picked at random"


def test_fewer_draws_are_evenly_spaced(thin_fit):
    some = gb.GMMFit(thin_fit.datatree.isel(draw=slice(None, None, 5)))
    found = gb.coassignment(thin_fit, num_draws=20)
    np.testing.assert_allclose(found, gb.coassignment(some), rtol=1e-12, atol=1e-14)
    assert found.attrs["num_draws"] == 20
    assert gb.coassignment(thin_fit, num_draws=500).attrs["num_draws"] == 100


def test_numbering_does_not_matter(thin_fit, by_hand):
    posterior = thin_fit.posterior
    swapped = posterior.where(
        posterior.chain < 2, posterior.isel(component=[1, 0]).assign_coords(component=[0, 1])
    )
    switched = thin_fit.with_group("posterior", swapped.transpose("chain", "draw", ...))
    with pytest.raises(gb.errors.LabelSwitchingError):
        gb.responsibilities(switched)
    found = gb.coassignment(switched)
    np.testing.assert_allclose(found, by_hand, rtol=1e-12, atol=1e-14)


def test_too_large_names_the_choices(thin_fit, monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 8 * 100**2)
    with pytest.raises(ValueError) as error:
        gb.coassignment(thin_fit)
    assert str(error.value) == (
        "coassignment must take at most 0.0 GB, got 272 x 272 probabilities in float64, 0.0 GB. "
        "Give max_rows=100 to compare a random choice of rows (up to 100 fit), or landmarks=1000 "
        "to compare all rows with a random 1,000 of them; gb.partition(fit) needs no such matrix"
    )
    assert gb.coassignment(thin_fit, max_rows=100).shape == (100, 100)
    with pytest.raises(ValueError, match=r"\(up to 141 fit\)"):
        gb.coassignment(thin_fit, dtype="float32")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "float16"}, ValueError, "dtype must be one of float64, float32"),
        ({"landmarks": 0}, ValueError, "landmarks must be at least 1, got 0"),
        ({"max_rows": 2.5}, TypeError, "max_rows must be an integer of at least 1"),
        ({"num_draws": -1}, ValueError, "num_draws must be at least 1"),
        ({"landmarks": 3, "max_rows": 5}, ValueError, "give one of them"),
        ({"seed": "a"}, TypeError, "seed must be an integer"),
    ],
)
def test_wrong_options_are_refused(thin_fit, options, error, message):
    with pytest.raises(error, match=message):
        gb.coassignment(thin_fit, **options)


def test_drawn_labels_have_the_responsibilities(thin_fit):
    """Their shares over many draws of labels under one draw of the parameters."""
    one = thinned(thin_fit.parameters(), 1)
    many = type(one)(*(np.repeat(a, 4000, axis=0) for a in one))
    rows = np.array([[3.0, 65.0], [2.9, 62.0], [4.5, 80.0], [1.8, 52.0]])
    labels = draw_labels(many, rows, np.array([1, 2], np.uint32))
    assert labels.shape == (4, 4000)
    assert labels.dtype == np.int8
    tree = thin_fit.datatree.isel(chain=[0], draw=[0])
    expected = gb.responsibilities(gb.GMMFit(tree), rows).values[:, 1]
    spread = np.sqrt(expected * (1 - expected) / 4000)
    assert (abs(labels.mean(axis=1) - expected) <= 4.5 * spread + 1e-12).all()
    assert 0.02 < expected[0] < 0.98


def test_drawn_labels_in_blocks(thin_fit, monkeypatch):
    draws, rows = thinned(thin_fit.parameters(), 50), thin_fit.X.values
    monkeypatch.setattr(label_draws, "_ROWS_PER_BLOCK", 100)
    labels = draw_labels(draws, rows, np.array([1, 2], np.uint32))
    r = gb.responsibilities(thin_fit).values[:, 1]
    assert np.corrcoef(labels.mean(axis=1), r)[0, 1] > 0.98

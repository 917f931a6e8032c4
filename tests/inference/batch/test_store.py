"""Many fits keep whatever their sets are called, in memory, in a pickle and in a file."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

import gmm_bayes as gb
from gmm_bayes.inference.batch.result import index_of

QUICK = gb.Laplace(num_samples=200)


@pytest.fixture(scope="module")
def table():
    """Two groups of columns by two keys; one set lies in one heap."""
    rng = np.random.default_rng(4)
    keys = [("a", 1), ("a", 2), ("b", 1)]
    sizes = [40, 50, 30]
    frame = pd.DataFrame(rng.standard_normal((120, 2)), columns=["x", "y"])
    frame["s"] = np.repeat([s for s, _ in keys], sizes)
    frame["t"] = np.repeat([t for _, t in keys], sizes)
    far = (rng.random(120) < 0.4) & (frame["s"] == "a")
    frame.loc[far, ["x", "y"]] += 6
    return frame


@pytest.fixture(scope="module")
def fits(table):
    groups = {name: rows[["x", "y"]] for name, rows in table.groupby(["s", "t"])}
    with pytest.warns(gb.errors.ConvergenceWarning, match=r"1 of 3 .* \('b', 1\).*with NUTS"):
        return gb.fit_many(groups, 2, sampler=QUICK, seed=1)


def test_names_of_several_keys_are_levels_of_the_table(fits):
    assert fits.names == [("a", 1), ("a", 2), ("b", 1)]
    found = fits.table()
    assert found.index.nlevels == 2
    assert found.loc[("a", 2), "n_obs"] == 50
    assert list(found.loc["a", "n_obs"]) == [40, 50]
    assert fits[("a", 2)].n_obs == 50


@pytest.mark.parametrize(
    ("names", "levels"),
    [
        (["one", "two"], 1),
        ([3, 1], 1),
        ([("a",), ("b",)], 1),
        ([("a", 1), ("b",)], 1),
        ([("a", 1), "b"], 1),
        ([(), ("a",)], 1),
        ([(("a", 1), 2), (("a", 2), 2)], 2),
        ([None, 1.5], 1),
        ([pd.Timestamp("2020-01-01"), "b"], 1),
    ],
)
def test_any_names_make_an_index(names, levels):
    index = index_of(names)
    assert len(index) == len(names)
    assert index.nlevels == levels


def test_draws_of_the_normal_approximation_are_judged_by_their_weights(fits):
    found = fits.table()
    assert list(found["ok"]) == [True, True, False]
    assert (found.loc["a", "pareto_k"] < 0.7).all()
    fit = fits[("a", 1)]
    assert fit.sampler == QUICK
    assert fit.posterior.sizes["draw"] == 200
    assert fit.run["pareto_k"] == found.loc[("a", 1), "pareto_k"]
    assert fit.problems == ()
    np.testing.assert_allclose(
        gb.log_likelihood(fit).sum("obs"), fit.sample_stats["total_log_likelihood"], rtol=1e-9
    )


@pytest.mark.slow
def test_the_normal_approximation_is_that_of_fit(table, fits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        rows = table[(table["s"] == "a") & (table["t"] == 2)][["x", "y"]]
        single = gb.fit(rows, 2, sampler=QUICK, seed=9)
    ours, other = (f.posterior["weights"].max("component") for f in (fits[("a", 2)], single))
    error = np.hypot(*(float(w.std()) / 200**0.5 for w in (ours, other)))
    assert abs(float(ours.mean() - other.mean())) < 5 * error


def same(one, other):
    assert one.names == other.names
    pd.testing.assert_frame_equal(one.table(), other.table())
    assert all(one[name] == other[name] for name in one.names)


def test_many_fits_can_be_pickled(fits):
    same(pickle.loads(pickle.dumps(fits)), fits)


def test_many_fits_are_kept_in_a_file(tmp_path, fits):
    path = fits.save(tmp_path / "many.nc")
    found = gb.load(path)
    assert isinstance(found, gb.ManyFits)
    same(found, fits)
    # The row labels of a frame are kept too.
    assert list(found[("b", 1)].X["obs"].values[:2]) == [90, 91]
    # A single fit is read as before.
    one = fits[("a", 1)]
    assert gb.load(one.save(tmp_path / "one.nc")) == one


def test_row_labels_of_several_types_and_all_kinds_of_names(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 2)) + 7 * (np.arange(50) < 20)[:, None]
    days = pd.date_range("2024-01-01", periods=27)
    # As many sets as above, of as many rows at most: the programs are there.
    tables = {
        "text": pd.DataFrame(X, index=[f"row {i}" for i in range(50)]),
        np.int64(5): pd.DataFrame(X[:27], index=days),
        (None, 0.5, pd.Timestamp("2024-05-01")): pd.DataFrame(X[:40], index=[*"ab" * 20]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        fits = gb.fit_many(tables, 2, sampler=QUICK)
    found = gb.load(fits.save(tmp_path / "many.nc"))
    assert found.names == fits.names
    for name in tables:
        np.testing.assert_array_equal(found[name].X["obs"], fits[name].X["obs"])


def test_what_cannot_be_written_is_said_before_anything_is(tmp_path, fits):
    sets = list(fits.sets)
    strange = type(sets[0])(frozenset({1}), sets[0].table, sets[0].prior, sets[0].units)
    other = gb.ManyFits([strange, *sets[1:]], fits.draws, fits.spec, fits.attributes)
    with pytest.raises(TypeError, match=r"frozenset\(\{1\}\).*rename that set, or pickle"):
        other.save(tmp_path / "many.nc")
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_one(tmp_path, fits):
    path = fits.save(tmp_path / "many.nc")
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(gb.errors.FileFormatError):
        gb.load(path)


def test_a_set_without_draws_says_why(fits):
    facts = {**fits.draws.facts, "n_draws": np.array([200, 0, 200])}
    draws = type(fits.draws)(
        fits.draws._space, fits.draws.z, fits.draws.stats, facts, fits.draws.seconds
    )
    other = gb.ManyFits(fits.sets, draws, fits.spec, fits.attributes)
    with pytest.raises(gb.errors.InferenceError, match=r"0 draws of data set \('a', 2\): the log"):
        other[("a", 2)]
    assert list(other.table()["ok"]) == [True, False, False]

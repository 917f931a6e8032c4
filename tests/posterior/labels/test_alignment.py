"""Aligned labels: planted switches undone to the last bit, and doubtful ones said."""

import itertools
import json

import numpy as np
import pytest
from made_up import CHAINS, far_apart, made_up_fit, shuffled

import gmm_bayes as gb
from gmm_bayes.errors import FileFormatError, LabelSwitchingError
from gmm_bayes.inference.verdict.measures import labels_switched
from gmm_bayes.model.matching import matched
from gmm_bayes.posterior.labels.alignment import unaligned
from gmm_bayes.posterior.labels.identifiability import exchange_gaps
from gmm_bayes.posterior.labels.relabelling import RULES

METHODS = tuple(RULES)


def same_up_to_one_order(aligned, original):
    """Whether every site is that of the original in one order of the components; that order."""
    ours, theirs = aligned.posterior["weights"].values, original.posterior["weights"].values
    order = [
        int((ours[..., k, None] == theirs).all(axis=(0, 1)).argmax()) for k in range(ours.shape[-1])
    ]
    assert sorted(order) == list(range(len(order)))
    for name, value in original.posterior.items():
        expected = value.isel(component=order) if "component" in value.dims else value
        np.testing.assert_array_equal(aligned.posterior[name].values, expected.values, err_msg=name)
    return order


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("k", "d"), [(1, 2), (2, 1), (4, 2), (10, 10)])
def test_switches_are_undone_exactly(method, k, d):
    fit = made_up_fit(far_apart(k, d), n_draws=30)
    mixed, orders = shuffled(fit)
    aligned = gb.align_labels(mixed, method=method)
    # The prior's centres are the truth's means, so that the numbers are the truth's too.
    assert same_up_to_one_order(aligned, fit) == list(range(k))
    np.testing.assert_array_equal(
        aligned.sample_stats["numbering"], np.argsort(orders, axis=2).reshape(CHAINS, 30, k)
    )
    record = aligned.alignment
    assert record["method"] == method
    assert record["unambiguous"] == 1
    assert record["indistinct"] == record["empty"] == []
    assert record["moved_within"] == pytest.approx(np.mean(np.any(np.diff(orders, axis=1), axis=2)))


@pytest.mark.parametrize("method", METHODS)
def test_every_structure(covariance_type, method):
    fit = made_up_fit(far_apart(3, 2), covariance_type=covariance_type)
    aligned = gb.align_labels(shuffled(fit)[0], method=method)
    assert same_up_to_one_order(aligned, fit) == [0, 1, 2]


@pytest.mark.parametrize("method", METHODS)
def test_a_symmetric_prior_numbers_by_weight(method):
    weights = [0.2, 0.5, 0.3]
    fit = made_up_fit(far_apart(3, 2), weights=weights, prior="symmetric")
    aligned = gb.align_labels(shuffled(fit)[0], method=method)
    assert same_up_to_one_order(aligned, fit) == [1, 2, 0]


@pytest.mark.parametrize("method", METHODS)
def test_aligning_twice_changes_nothing(method):
    mixed, _ = shuffled(made_up_fit(far_apart(3, 2)))
    aligned = gb.align_labels(mixed, method=method)
    assert gb.align_labels(aligned, method=method) == aligned
    # By another rule too: it begins with the draws as they were sampled.
    other = gb.align_labels(aligned, method="means")
    assert other == gb.align_labels(mixed, method="means")
    back = unaligned(aligned)
    assert back.posterior.identical(mixed.posterior)
    assert back.sample_stats.identical(mixed.sample_stats)
    assert back.alignment is None


def test_units_do_not_matter():
    fit, _ = shuffled(made_up_fit(far_apart(3, 2)))
    records = []
    for scale in (1e-9, 1e9):
        groups = {
            "posterior": fit.posterior.assign(
                means=fit.posterior["means"] * scale + scale, scales=fit.posterior["scales"] * scale
            ),
            "observed_data": fit.datatree["observed_data"].to_dataset() * scale + scale,
        }
        moved = fit
        for name, group in groups.items():
            moved = moved.with_group(name, group)
        records.append(gb.align_labels(moved, method="stephens"))
    np.testing.assert_array_equal(*(r.sample_stats["numbering"] for r in records))


@pytest.mark.parametrize("method", METHODS)
def test_components_that_overlap_are_still_told_apart(method):
    """Two sds apart: rows are unsure, but the components are not."""
    fit = made_up_fit([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]], n_draws=400, noise=0.2)
    aligned = gb.align_labels(shuffled(fit)[0], method=method)
    assert same_up_to_one_order(aligned, fit) == [0, 1, 2]
    assert aligned.alignment["indistinct"] == []
    assert aligned.alignment["unambiguous"] > 0.99
    assert not labels_switched(aligned)
    expected = gb.responsibilities(fit)
    np.testing.assert_allclose(gb.responsibilities(aligned), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(gb.assign(aligned), gb.assign(fit))
    assert gb.diagnose(aligned).rhat == pytest.approx(gb.diagnose(fit).rhat)


@pytest.mark.parametrize("method", METHODS)
def test_identical_components_are_named_and_not_averaged(method):
    """Components 1 and 2 have the same distribution, whatever they happen to be in one draw."""
    means = [[9.0, 9.0], [0.0, 0.0], [0.0, 0.0], [-9.0, 9.0]]
    weights = [0.3, 0.3, 0.3, 0.1]
    fit = made_up_fit(means, n_draws=400, weights=weights, noise=0.4, weight_noise=60)
    aligned = gb.align_labels(shuffled(fit)[0], method=method)
    assert aligned.alignment["indistinct"] == [[1, 2]]
    assert 0.7 < aligned.alignment["unambiguous"] < 0.95
    assert labels_switched(aligned)
    for ask in (gb.responsibilities, gb.assign):
        with pytest.raises(LabelSwitchingError, match=r"components 1 and 2 cannot be told apart"):
            ask(aligned)
    assert "components 1 and 2 cannot be told apart" in repr(aligned)
    assert gb.responsibilities(aligned, reduce=None).shape[-1] == 4


def test_components_equal_in_every_draw():
    fit = made_up_fit([[0.0], [0.0]], n_draws=50)
    posterior = fit.posterior
    same = posterior.isel(component=[0, 0]).assign_coords(component=[0, 1])
    same["weights"] = 0.5 + 0 * posterior["weights"]
    fit = fit.with_group("posterior", same)
    for method in METHODS:
        record = gb.align_labels(fit, method=method).alignment
        assert (record["indistinct"], record["unambiguous"]) == ([[0, 1]], 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_empty_components_are_no_reason_to_refuse(method):
    """Two without rows, wherever they are: the others keep their places."""
    fit = made_up_fit(
        [[0.0, 0.0], [9.0, 0.0], [4.0, 4.0], [4.0, 4.0]],
        weights=[0.6, 0.4 - 2e-6, 1e-6, 1e-6],
        weight_noise=1e4,
        noise=0.3,
        n_draws=100,
        prior="symmetric",
    )
    aligned = gb.align_labels(shuffled(fit)[0], method=method)
    assert aligned.alignment["empty"] == [2, 3]
    assert aligned.alignment["indistinct"] == []
    assert aligned.alignment["unambiguous"] == 1
    np.testing.assert_array_equal(
        aligned.posterior["means"][:, :, :2], fit.posterior["means"][:, :, :2]
    )
    assert set(np.unique(gb.assign(aligned))) == {0, 1}


def test_moves_are_counted_by_hand():
    fit = made_up_fit(far_apart(2, 1), n_draws=50)
    between, orders = shuffled(fit, seed=3, chains_only=True)
    assert (orders[0] != orders[1]).any()
    record = gb.align_labels(between).alignment
    assert (record["moved_within"], record["moved_between"]) == (0, 1)
    flipped = fit.posterior.copy(deep=True)
    for name in ("weights", "means", "scales", "correlation_cholesky", "covariances"):
        flipped[name].values[1, 20:30] = flipped[name].values[1, 20:30][:, ::-1]
    record = gb.align_labels(fit.with_group("posterior", flipped)).alignment
    assert record["moved_within"] == pytest.approx(2 / (2 * 49))
    assert record["moved_between"] == 0


def test_second_best_orders_against_all_orders():
    costs = np.random.default_rng(0).normal(size=(40, 4, 4))
    best = matched(costs)
    gaps = exchange_gaps(costs, best)
    orders = np.array(list(itertools.permutations(range(4))))
    for cost, chosen, gap in zip(costs, best, gaps, strict=True):
        totals = cost[np.arange(4), orders].sum(axis=1)
        lowest = cost[np.arange(4), chosen].sum()
        assert gap.min() == pytest.approx(np.sort(totals)[1] - lowest)
        for first, second in itertools.combinations(range(4), 2):
            linked = [in_one_cycle(chosen, order, first, second) for order in orders]
            assert gap[first, second] <= totals[linked].min() - lowest + 1e-12


def in_one_cycle(best, order, first, second):
    """Whether the change from one order to another takes `first` to `second` and back."""
    to = np.argsort(best)[order]
    place = to[first]
    while place not in (first, second):
        place = to[place]
    return place == second


def test_the_rest_of_the_tree_is_kept():
    fit = gb.with_groups(made_up_fit(far_apart(2, 2), n_draws=10), "log_likelihood")
    # Of the same sizes as the posterior, but these draws are not those.
    fit = fit.with_group("prior", fit.posterior[["weights", "means"]])
    mixed, _ = shuffled(fit)
    aligned = gb.align_labels(mixed)
    for name in ("observed_data", "constant_data", "log_likelihood", "prior"):
        assert aligned.datatree[name].identical(mixed.datatree[name]), name
    stats = aligned.sample_stats
    assert stats.drop_vars(["numbering", "component"]).identical(mixed.sample_stats)
    assert mixed.alignment is None


def test_saved_and_loaded(tmp_path):
    aligned = gb.align_labels(shuffled(made_up_fit(far_apart(2, 2)))[0])
    loaded = gb.load(aligned.save(tmp_path / "aligned.nc"))
    assert loaded == aligned
    assert loaded.alignment == aligned.alignment
    assert repr(loaded) == repr(aligned)
    assert "labels: aligned by ecr, 100.0% of draws unambiguous" in repr(loaded)
    aligned.datatree.attrs["alignment"] = json.dumps({"method": "ecr"})
    with pytest.raises(FileFormatError, match="its attribute alignment is not what"):
        gb.load(aligned.save(tmp_path / "damaged.nc"))


def test_a_draw_that_is_not_finite_does_no_harm():
    fit = made_up_fit(far_apart(3, 1))
    mixed, _ = shuffled(fit)
    posterior = mixed.posterior.copy(deep=True)
    posterior["means"].values[0, 3, 1] = np.nan
    for method in METHODS:
        aligned = gb.align_labels(mixed.with_group("posterior", posterior), method=method)
        kept = np.arange(60) != 3
        np.testing.assert_array_equal(
            aligned.posterior["means"][0, kept], fit.posterior["means"][0, kept]
        )
        assert aligned.alignment["unambiguous"] == pytest.approx(119 / 120)
    with pytest.raises(ValueError, match="must have finite draws, got none"):
        gb.align_labels(mixed.with_group("posterior", mixed.posterior * np.nan))


def test_what_cannot_be_aligned_is_refused():
    with pytest.raises(TypeError, match="fit must be a GMMFit"):
        gb.align_labels(np.zeros(3))
    with pytest.raises(ValueError, match="method"):
        gb.align_labels(made_up_fit(far_apart(2, 1)), method="stephen")


def test_evidence_is_that_of_the_draws_as_sampled(line_fit):
    mixed, _ = shuffled(line_fit)
    assert gb.log_evidence(gb.align_labels(mixed)) == gb.log_evidence(mixed)


def test_pictures_of_an_aligned_fit():
    aligned = gb.align_labels(shuffled(made_up_fit(far_apart(2, 2)))[0])
    for draw in (gb.plots.plot_components, gb.plots.plot_responsibilities):
        assert draw(aligned) is not None


@pytest.mark.parametrize("method", METHODS)
def test_empty_components_follow_their_parameters(method):
    """Of two without rows, each keeps its number where their parameters differ."""
    fit = made_up_fit(
        [[0.0, 0.0], [9.0, 0.0], [60.0, 60.0], [-60.0, 60.0]],
        weights=[0.6, 0.4 - 2e-6, 1e-6, 1e-6],
        weight_noise=1e4,
    )
    aligned = gb.align_labels(shuffled(fit)[0], method=method)
    np.testing.assert_array_equal(aligned.posterior["means"], fit.posterior["means"])
    assert aligned.alignment["empty"] == [2, 3]


def test_aligned_after_stacking_it_has_a_table():
    """There is no verdict on such draws, but their labels are in order."""
    mixed, _ = shuffled(made_up_fit(far_apart(2, 2)))
    mixed.datatree.attrs.update(switched="true", advice=json.dumps(["Renumber the components."]))
    aligned = gb.align_labels(gb.stack_chains(mixed).resample())
    assert not aligned.alignment["indistinct"]
    assert not aligned.switched
    assert aligned.advice == ()
    assert "No table of components" not in repr(aligned)
    assert len(aligned.summary()) == 4

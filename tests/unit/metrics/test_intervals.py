"""The bootstrap draws whole sequences, pairs its differences, and repeats itself."""

import numpy as np
import pytest

from av1part.metrics import intervals as iv
from av1part.metrics.intervals import Bootstrap, Interval
from av1part.metrics.scores import baselines, from_predictions

K = 3


def example(sequences=6, nodes=200, seed=0):
    rng = np.random.default_rng(seed)
    names = np.repeat([f"s{i}" for i in range(sequences)], nodes)
    labels = rng.integers(0, K, names.size)
    skill = np.repeat(rng.uniform(0.2, 0.9, sequences), nodes)
    right = rng.random(names.size) < skill
    return np.where(right, labels, rng.integers(0, K, names.size)), labels, names


def test_a_resample_is_a_sum_of_whole_sequences():
    a, b = np.array([[3, 1], [0, 2]]), np.array([[10, 0], [5, 5]])
    drawn = Bootstrap(resamples=200, seed=1).resample([a, b])
    kinds = {tuple(x.ravel()) for x in drawn}
    assert kinds == {tuple((i * a + (2 - i) * b).ravel()) for i in range(3)}


def test_limits_are_quantiles_of_the_resamples():
    wrong, right = np.array([[0, 9], [0, 0]]), np.array([[9, 0], [0, 0]])
    # Two sequences: accuracy 0, 1/2, 1 with probability 1/4, 1/2, 1/4.
    at = {level: Bootstrap(level=level).difference([wrong, right]) for level in (0.4, 0.6)}
    middle, wide = at[0.4]["accuracy"], at[0.6]["accuracy"]
    assert (middle.low, middle.estimate, middle.high) == (0.5, 0.5, 0.5)
    assert (wide.low, wide.estimate, wide.high) == (0.0, 0.5, 1.0)
    assert wide.to_json() == {
        "estimate": 0.5,
        "low": 0.0,
        "high": 1.0,
        "level": 0.6,
        "clusters": 2,
    }


def test_estimates_are_the_printed_figures():
    predictions, labels, names = example()
    train = [10, 20, 30]
    flat = from_predictions(predictions, labels, "ABC")
    guesses = baselines(train, labels, "ABC")
    found = iv.metric_intervals(predictions, labels, names, train)
    for metric in ("accuracy", "macro_f1"):
        assert found[metric]["value"].estimate == pytest.approx(flat[metric], abs=1e-6)
        for baseline in ("constant", "prior"):
            margin = flat[metric] - guesses[baseline][metric]
            assert found[metric][f"margin_{baseline}"].estimate == pytest.approx(margin, abs=2e-6)
        assert all(i.clusters == 6 and i.low < i.high for i in found[metric].values())


def test_a_constant_predictor_has_no_margin_over_the_constant():
    _, labels, names = example()
    labels[:50] = 1
    constant = np.full_like(labels, np.bincount(labels).argmax())
    margin = iv.bootstrap_margin(constant, labels, names, [1, 1, 1], "constant")
    for interval in margin.values():
        assert (interval.low, interval.estimate, interval.high) == (0, 0, 0)


def test_prior_margin_uses_the_training_shares():
    predictions, labels, names = example()
    even = iv.bootstrap_margin(predictions, labels, names, [1, 1, 1], "prior")
    skewed = iv.bootstrap_margin(predictions, labels, names, [98, 1, 1], "prior")
    assert even["macro_f1"].estimate < skewed["macro_f1"].estimate


def test_clusters_make_the_interval_wider_than_single_nodes_would():
    predictions, labels, names = example()
    clustered = iv.bootstrap_value(predictions, labels, names, K)["accuracy"]
    nodes = iv.bootstrap_value(
        predictions, labels, np.arange(labels.size), K, Bootstrap(resamples=300)
    )["accuracy"]
    assert clustered.high - clustered.low > 3 * (nodes.high - nodes.low)


def test_a_paired_difference_sees_what_separate_intervals_hide():
    predictions, labels, names = example()
    better = predictions.copy()
    wrong = np.flatnonzero(predictions != labels)[::10]
    better[wrong] = labels[wrong]
    difference = iv.bootstrap_difference(better, predictions, labels, names, K)["accuracy"]
    assert difference.estimate == pytest.approx(wrong.size / labels.size)
    assert 0 < difference.low < difference.estimate < difference.high
    separate = [iv.bootstrap_value(p, labels, names, K)["accuracy"] for p in (better, predictions)]
    assert separate[0].low < separate[1].high
    none = iv.bootstrap_difference(better, better, labels, names, K)["macro_f1"]
    assert (none.low, none.high) == (0, 0)


def test_seeded_and_blind_to_names_and_order():
    predictions, labels, names = example()
    first = iv.bootstrap_value(predictions, labels, names, K)
    assert first == iv.bootstrap_value(predictions, labels, names, K)
    assert first != iv.bootstrap_value(predictions, labels, names, K, Bootstrap(seed=7))
    codes = np.array([int(name[1:]) for name in names])
    order = np.random.default_rng(2).permutation(labels.size)
    shuffled = iv.bootstrap_value(predictions[order], labels[order], codes[order], K)
    assert first == shuffled


def test_one_sequence_gives_no_interval():
    predictions, labels, names = example(sequences=1)
    with pytest.raises(ValueError, match="2 sequences"):
        iv.bootstrap_value(predictions, labels, names, K)
    assert iv.metric_intervals(predictions, labels, names, [1, 1, 1]) == {}


def test_arrays_must_fit():
    with pytest.raises(ValueError, match="sequence entries"):
        iv.sequence_confusions([0, 1], [0, 1], ["a"], 2)
    with pytest.raises(ValueError, match="sequence entries"):
        iv.sequence_confusions([], [], [], 2)


def test_json_holds_limits_and_their_clusters():
    predictions, labels, names = example()
    found = iv.metric_intervals(predictions, labels, names, [1, 1, 1])
    record = iv.intervals_json(found)
    assert set(record) == {"accuracy", "macro_f1"}
    margin = record["macro_f1"]["margin_prior"]
    assert margin["low"] == found["macro_f1"]["margin_prior"].low
    assert margin["clusters"] == 6


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [
        (0.01, 0.2, "positive"),
        (-0.2, -0.01, "negative"),
        (-0.1, 0.1, "zero"),
        (0.0, 0.1, "zero"),
        (None, None, "unknown"),
    ],
)
def test_an_interval_lies_above_or_below_zero_or_contains_it(
    low: float | None, high: float | None, sign: str
) -> None:
    assert Interval(0.05, low, high).sign == sign


def test_mean_over_sequences_by_hand() -> None:
    """Of 2 sequences the means are 1 %, 2 % and 3 %, the outer ones a quarter of the draws each."""
    found = Bootstrap().mean([0.01, 0.03])
    assert found.estimate == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.01, 0.03))
    assert found.clusters == 2
    assert Bootstrap().mean([0.04]) == Interval(0.04, clusters=1)

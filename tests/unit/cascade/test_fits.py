"""Fitted choices are the best ones, and are never fitted on what they are applied to."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from av1part.cascade import fits as cal
from av1part.metrics.calibration import TEMPERATURES, reliability, softmax


def sampled(n=4000, k=4, seed=0):
    """Logits and labels drawn from their own softmax, so that the true temperature is 1."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, k))
    cumulated = softmax(logits).cumsum(1)
    return logits, (rng.random((n, 1)) > cumulated[:, :-1]).sum(1)


def nll(logits, labels, temperature):
    scaled = torch.from_numpy(logits / temperature)
    return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)))


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 15.0])
def test_temperature_undoes_a_scale(scale):
    logits, labels = sampled()
    fitted = cal.fit_temperature(logits * scale, labels)
    assert fitted == pytest.approx(scale, rel=0.1)
    best = nll(logits * scale, labels, fitted)
    for factor in (0.97, 1.03):
        assert nll(logits * scale, labels, fitted * factor) > best


def test_temperature_ignores_an_offset():
    logits, labels = sampled(n=500)
    offset = cal.fit_temperature(logits + 1000, labels)
    assert offset == pytest.approx(cal.fit_temperature(logits, labels), rel=1e-6)


def test_temperature_takes_few_passes_over_the_nodes(monkeypatch):
    logits, labels = sampled(n=500)
    passes = []
    monkeypatch.setattr(cal, "softmax", lambda *a, of=softmax: (passes.append(1), of(*a))[1])
    cal.fit_temperature(5 * logits, labels)
    assert 3 < len(passes) < 25


def test_temperature_stays_in_bounds():
    _, labels = sampled(n=50)
    right, low, high = np.eye(4)[labels], *TEMPERATURES
    assert cal.fit_temperature(right, labels) == pytest.approx(low, rel=1e-5)
    assert cal.fit_temperature(-right, labels) == pytest.approx(high, rel=1e-5)


def test_temperature_of_nothing_is_one():
    assert cal.fit_temperature(np.zeros((0, 3)), []) == 1.0
    assert cal.fit_temperature(np.full((5, 3), 2.0), [0, 1, 2, 0, 1]) == 1.0


def test_softmax_takes_one_temperature_a_node():
    logits = np.array([[1.0, 2.0], [1.0, 2.0]])
    each = softmax(logits, np.array([1.0, 4.0]))
    assert each[0] == pytest.approx(softmax(logits)[0])
    assert each[1] == pytest.approx(softmax(logits / 4)[1])


def test_calibration_error_against_plain_bins():
    logits, labels = sampled(n=2000)
    p = softmax(3 * logits)
    confidence, right = p.max(1), p.argmax(1) == labels
    bins = np.minimum((confidence * 15).astype(int), 14)
    expected = sum(
        (bins == b).mean() * abs(confidence[bins == b].mean() - right[bins == b].mean())
        for b in np.unique(bins)
    )
    assert reliability(p, labels).error == pytest.approx(expected, abs=1e-6)
    assert reliability(np.eye(3), [0, 1, 2]).error == 0
    assert reliability(np.eye(3) + 1e-12, [1, 2, 0]).error == pytest.approx(1)


nodes = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(1, 2)), min_size=1, max_size=12
)


@settings(max_examples=50, deadline=None)
@given(nodes, st.sampled_from(["macro_f1", "accuracy", "f1_positive"]))
@example([(4, 1, 1), (3, 2, 1), (1, 1, 2)], "macro_f1")  # NONE occurs only if it is predicted
@pytest.mark.filterwarnings("ignore")
def test_no_threshold_beats_the_fitted_one(rows, objective):
    scores, labels, above = (np.array(column) for column in zip(*rows, strict=True))
    scores = scores / 6

    def value(threshold):
        said = np.where(scores > threshold, above, 0)
        if objective == "accuracy":
            return accuracy_score(labels, said)
        if objective == "f1_positive":
            return f1_score(labels > 0, said > 0, zero_division=0)
        return f1_score(labels, said, average="macro", zero_division=0)

    fitted = cal.fit_threshold(scores, labels, above, 3, objective)
    best = max(value(t) for t in np.arange(7) / 6)
    assert 0 <= fitted <= 1
    assert value(fitted) == pytest.approx(best)


def test_objectives_disagree_where_later_stages_cannot_name_the_type():
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
    labels = np.array([0, 0, 1, 0, 1, 2])
    above = np.array([1, 1, 2, 2, 2, 2])  # only the last node is named right
    passing = {
        objective: (scores > cal.fit_threshold(scores, labels, above, 3, objective)).sum()
        for objective in ("accuracy", "f1_positive")
    }
    assert passing == {"accuracy": 2, "f1_positive": 4}


def test_equal_thresholds_resolve_to_the_nearest_to_one_half():
    assert cal.fit_threshold([0.2, 0.9], [0, 0], [1, 1], 2, "accuracy") == 1.0
    assert cal.fit_threshold([0.0, 1.0], [0, 1], [1, 1], 2, "accuracy") == 0.5
    assert cal.fit_threshold([], [], [], 2) == 0.5


def test_unknown_objective():
    with pytest.raises(ValueError, match="choose from"):
        cal.fit_threshold([0.5], [0], [1], 2, "f1")


def test_few_sequences_are_folds_of_their_own():
    assert cal.sequence_folds(["b", "a", "b", "c"]) == {"a": 0, "b": 1, "c": 2}


def test_many_sequences_share_folds_of_like_size():
    counts = [50, 40, 30, 20, 10, 5, 5, 5, 5, 5]
    names = np.repeat([f"s{i}" for i in range(10)], counts)
    folds = cal.sequence_folds(names)
    loads = [sum(c for i, c in enumerate(counts) if folds[f"s{i}"] == f) for f in range(5)]
    assert sorted(loads) == [25, 30, 30, 40, 50]
    assert folds == cal.sequence_folds(names[::-1])


@pytest.mark.parametrize("count", [2, 5, 9])
def test_a_choice_never_saw_the_sequence_it_applies_to(count):
    names = np.array([f"s{i}" for i in range(count)] * 3)
    fitted = cal.cross_fit(names, lambda mask: set(names[mask]))
    assert list(fitted) == sorted(set(names))
    for name, seen in fitted.items():
        assert name not in seen
        assert seen


def test_one_sequence_leaves_nothing_to_fit_on():
    assert cal.cross_fit(["a", "a"], lambda mask: int(mask.sum())) == {"a": 0}

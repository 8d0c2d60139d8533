"""Metrics against scikit-learn, guessers against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from av1part.metrics import scores as m

NAMES = ("SPLIT", "RECT", "AB")

# Small entries, so that absent and never-predicted classes occur often.
matrices = st.integers(2, 5).flatmap(
    lambda k: arrays(np.int64, (k, k), elements=st.integers(0, 3)).filter(lambda a: a.sum() > 0)
)
supports = st.integers(2, 5).flatmap(
    lambda k: arrays(np.int64, k, elements=st.integers(0, 9)).filter(lambda a: a.sum() > 0)
)


def pairs(matrix):
    rows, cols = np.indices(matrix.shape)
    return np.repeat(rows.ravel(), matrix.ravel()), np.repeat(cols.ravel(), matrix.ravel())


def names(k):
    return [f"C{i}" for i in range(k)]


@settings(max_examples=60, deadline=None)
@given(matrices)
@pytest.mark.filterwarnings("ignore")
def test_equal_to_scikit_learn(matrix):
    k = len(matrix)
    true, predicted = pairs(matrix)
    flat = m.from_confusion(matrix, names(k))
    options = {"zero_division": 0}
    expected = {
        "accuracy": sk.accuracy_score(true, predicted),
        "macro_f1": sk.f1_score(true, predicted, average="macro", **options),
        "weighted_f1": sk.f1_score(true, predicted, average="weighted", **options),
        "macro_precision": sk.precision_score(true, predicted, average="macro", **options),
        "macro_recall": sk.recall_score(true, predicted, average="macro", **options),
        "balanced_accuracy": sk.balanced_accuracy_score(true, predicted),
    }
    scores = sk.precision_recall_fscore_support(true, predicted, labels=range(k), **options)
    for name, values in zip(("precision", "recall", "f1", "support"), scores, strict=True):
        per_class = flat["per_class"]
        assert [per_class[c][name] for c in names(k)] == pytest.approx(values, abs=1e-6)
    if k == 2:
        expected["f1_positive"] = sk.f1_score(true, predicted, pos_label=1, **options)
    table = flat.pop("confusion_matrix")
    del flat["per_class"]
    assert table == sk.confusion_matrix(true, predicted, labels=range(k)).tolist()
    assert flat == pytest.approx(expected, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(matrices)
def test_scores_of_a_stack_are_those_of_each_matrix(matrix):
    flat = m.from_confusion(matrix, names(len(matrix)))
    stacked = np.stack([matrix, matrix])
    for name, function in {
        "accuracy": m.accuracy_from_confusion,
        "macro_f1": m.macro_f1_from_confusion,
        "weighted_f1": m.weighted_f1_from_confusion,
    }.items():
        assert function(stacked).tolist() == pytest.approx([flat[name]] * 2, abs=1e-6)
    f1 = [scores["f1"] for scores in flat["per_class"].values()]
    assert m.f1_from_confusion(matrix).tolist() == pytest.approx(f1, abs=1e-6)


def test_closed_forms_of_nothing_are_zero():
    empty = np.zeros((2, 3, 3))
    assert m.accuracy_from_confusion(empty).tolist() == [0, 0]
    assert m.macro_f1_from_confusion(empty).tolist() == [0, 0]


def test_perfect_predictions_score_one_and_not_a_float32_more():
    labels = np.arange(10).repeat([7, 3, 11, 13, 1, 1, 2, 5, 17, 40])
    flat = m.from_predictions(labels, labels, names(10))
    assert {k: v for k, v in flat.items() if isinstance(v, float)} == {
        "accuracy": 1.0,
        "macro_f1": 1.0,
        "weighted_f1": 1.0,
        "macro_precision": 1.0,
        "macro_recall": 1.0,
        "balanced_accuracy": 1.0,
    }


def test_keys_are_those_of_the_contract():
    flat = m.from_predictions([0, 1, 1], [0, 1, 0], ("NONE", "PARTITION"))
    assert list(flat) == [
        "accuracy",
        "macro_f1",
        "weighted_f1",
        "macro_precision",
        "macro_recall",
        "balanced_accuracy",
        "f1_positive",
        "per_class",
        "confusion_matrix",
    ]
    assert list(flat["per_class"]) == ["NONE", "PARTITION"]
    assert list(flat["per_class"]["NONE"]) == ["precision", "recall", "f1", "support"]
    assert flat["f1_positive"] == flat["per_class"]["PARTITION"]["f1"] == 0.666667
    assert flat["confusion_matrix"] == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0, 3], [0, 1], "prediction is not a class index"),
        ([0, 1], [0, -1], "label is not a class index"),
        ([0.0, 1.0], [0, 1], "prediction is not a class index"),
        ([0, 1], [0], "must be"),
        ([], [], "no nodes"),
    ],
)
def test_bad_input_is_refused(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        m.from_predictions(predictions, labels, NAMES)


def test_a_bad_matrix_is_refused():
    with pytest.raises(ValueError, match="shape"):
        m.from_confusion([[1, 2], [3, 4]], NAMES)
    with pytest.raises(ValueError, match="shape"):
        m.from_confusion([[1, -2], [3, 4]], ("A", "B"))


def test_confusion_matrix_by_group():
    predicted, true, group = [0, 1, 1, 0], [0, 1, 0, 1], [0, 2, 2, 0]
    matrix = m.confusion_matrix(predicted, true, 2, group)
    assert matrix.tolist() == [[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 1], [0, 1]]]


@settings(max_examples=40, deadline=None)
@given(supports)
def test_no_constant_beats_the_best_constant(support):
    k = len(support)
    labels = np.repeat(np.arange(k), support)
    best = m.baselines(np.ones(k), labels, names(k))["constant"]
    every = [m.from_predictions(np.full_like(labels, c), labels, names(k)) for c in range(k)]
    keys = ["accuracy", "macro_f1", "weighted_f1", *(["f1_positive"] if k == 2 else [])]
    for key in keys:
        assert best[key] == pytest.approx(max(e[key] for e in every), abs=2e-6)
    assert best["class"] == f"C{support.argmax()}"


def test_training_majority_is_named_beside_the_best_constant():
    found = m.baselines([9, 1, 0], [0, 1, 1, 1], NAMES)["constant"]
    assert (found["class"], found["accuracy"]) == ("RECT", 0.75)
    assert (found["train_class"], found["train_accuracy"]) == ("SPLIT", 0.25)


def test_prior_guesser_is_what_drawing_from_the_training_labels_scores():
    rng = np.random.default_rng(3)
    train, support = np.array([5, 3, 2]), np.array([10_000, 60_000, 30_000])
    labels = np.repeat(np.arange(3), support)
    drawn = m.from_predictions(rng.choice(3, labels.size, p=train / 10), labels, NAMES)
    expected = m.baselines(train, labels, NAMES)["prior"]
    assert expected["accuracy"] == pytest.approx(0.1 * 0.5 + 0.6 * 0.3 + 0.3 * 0.2)
    for key in ("accuracy", "macro_f1", "weighted_f1"):
        assert drawn[key] == pytest.approx(expected[key], abs=0.005)


@settings(max_examples=40, deadline=None)
@given(supports)
def test_guessers_of_one_class_are_those_of_the_whole(support):
    k = len(support)
    labels = np.repeat(np.arange(k), support)
    always = [
        sk.f1_score(labels == i, np.ones(len(labels), dtype=bool), zero_division=0)
        for i in range(k)
    ]
    train = np.arange(1, k + 1)
    assert m.guesser_class_f1("constant", support, train) == pytest.approx(np.array(always))
    # Classes that do not occur are drawn, and so count with 0.
    macro = m.guesser_class_f1("prior", support, train).mean()
    said = m.baselines(train, labels, names(k))["prior"]["macro_f1"]
    assert macro == pytest.approx(said, abs=1e-6)


def test_baselines_need_labels_and_a_prior():
    with pytest.raises(ValueError, match="no nodes"):
        m.baselines([1, 1, 1], np.array([], dtype=int), NAMES)
    with pytest.raises(ValueError, match="prior"):
        m.baselines([0, 0, 0], [0], NAMES)
    with pytest.raises(ValueError, match="prior"):
        m.baselines([1, 1], [0], NAMES)


def test_figures_of_the_constant_are_those_of_predicting_it():
    """Also macro precision, macro recall and balanced accuracy."""
    labels = np.array([0] * 7 + [1] * 5 + [2] * 2)
    own = m.baselines([7, 5, 2], labels, names(3))["constant"]
    scored = m.from_predictions(np.zeros(14, dtype=int), labels, names(3))
    keys = ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall")
    for key in (*keys, "balanced_accuracy"):
        assert own[key] == pytest.approx(scored[key], abs=1e-6), key

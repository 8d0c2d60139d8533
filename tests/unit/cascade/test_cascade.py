"""The cascade against an example worked out by hand, oracles, and what must never hold by luck."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from av1part.cascade.analysis import analyse, inside_cascade
from av1part.cascade.choices import Choices, fit_choices
from av1part.cascade.ensembles import join, member_probabilities
from av1part.cascade.routing import Nodes, flat_distribution, route
from av1part.metrics.intervals import Bootstrap
from av1part.partition import IGNORED, Partition, taxonomy

V6 = taxonomy("v6")
ALL_TEN = taxonomy("v6_1to4")
FEW = Bootstrap(resamples=50)
TRAIN = np.array([60, 10, 12, 8, 3, 2, 4, 1, 5, 5])

# truth, then what stage1, stage2, stage3_rect and stage3_ab say if asked
HAND = [
    ("NONE", "NONE", "RECT", "HORZ", "HORZ_A"),
    ("NONE", "PARTITION", "RECT", "HORZ", "HORZ_A"),
    ("HORZ", "PARTITION", "RECT", "HORZ", "HORZ_A"),
    ("HORZ", "PARTITION", "AB", "HORZ", "HORZ_A"),
    ("VERT", "PARTITION", "RECT", "HORZ", "HORZ_A"),
    ("VERT", "NONE", "RECT", "VERT", "HORZ_A"),
    ("SPLIT", "PARTITION", "SPLIT", "VERT", "HORZ_A"),
    ("SPLIT", "PARTITION", "RECT", "VERT", "HORZ_A"),
    ("HORZ_A", "PARTITION", "AB", "VERT", "HORZ_A"),
    ("VERT_B", "PARTITION", "AB", "VERT", "HORZ_A"),
]


def saying(stage, answers, size=8.0):
    """Logits that make a stage say the named classes."""
    return size * np.eye(len(stage.class_names))[[stage.class_names.index(a) for a in answers]]


def hand_made():
    truth, *said = zip(*HAND, strict=True)
    return Nodes.build(
        V6,
        [Partition[name] for name in truth],
        ["a", "b"] * 5,
        [80] * 6 + [120] * 4,
        {s.name: [saying(s, answers)] for s, answers in zip(V6.stages, said, strict=True)},
    )


def drawn(tree=V6, n=600, sequences=4, seed=0, skill=1.0, members=3):
    """Nodes of random types with logits that know the truth a little."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array(tree.partitions), n)
    logits = {}
    for stage in tree.stages:
        k, labels = len(stage.class_names), stage.labels[truth]
        hint = skill * (labels[:, None] == np.arange(k))
        count = members if stage.name == "stage3_ab" else 1
        logits[stage.name] = [2 * (hint + rng.normal(size=(n, k))) for _ in range(count)]
    names = rng.choice([f"s{i}" for i in range(sequences)], n)
    return Nodes.build(tree, truth, names, rng.choice([80, 120, 160], n), logits)


def report(nodes, **options):
    options = {"train_counts": TRAIN, "split": "val", "protocol": "by_sequence"} | options
    return analyse(nodes, bootstrap=FEW, **options).to_json()


@pytest.fixture(scope="module")
def by_hand():
    nodes = hand_made()
    return report(nodes, choices=Choices.neutral(nodes.logits))


def test_hand_made_predictions_are_av1_ids():
    nodes = hand_made()
    result = analyse(
        nodes, train_counts=TRAIN, split="val", protocol="-", choices=Choices.neutral(nodes.logits)
    )
    names = ["NONE", "HORZ", "HORZ", "HORZ_A", "HORZ", "NONE", "SPLIT", "VERT", "HORZ_A", "HORZ_A"]
    assert result.prediction.tolist() == [Partition[name] for name in names]


def test_hand_made_overall(by_hand):
    overall = by_hand["overall"]
    assert overall["accuracy"] == 0.4
    f1 = {name: overall["per_class"][name]["f1"] for name in V6.names}
    expected = {"NONE": 1 / 2, "HORZ": 2 / 5, "SPLIT": 2 / 3, "HORZ_A": 1 / 2}
    assert f1 == pytest.approx(dict.fromkeys(V6.names, 0) | expected, abs=1e-6)
    # HORZ_B and VERT_A neither occur nor are predicted: six types in the mean.
    assert overall["macro_f1"] == pytest.approx((1 / 2 + 2 / 5 + 2 / 3 + 1 / 2) / 6, abs=1e-6)
    assert by_hand["baselines"]["constant"]["accuracy"] == 0.2


HAND_STAGES = {
    "stage1": {
        "standalone": {"accuracy": 8 / 10, "support": 10, "f1_positive": 14 / 16},
        "cascade": {"accuracy": 8 / 10, "support": 10, "reached": 10, "wrongly_routed": 0},
    },
    "stage2": {
        "standalone": {"accuracy": 6 / 8, "macro_f1": (2 / 3 + 3 / 4 + 4 / 5) / 3, "support": 8},
        "cascade": {
            "accuracy": 5 / 8,
            "macro_f1": (2 / 3 + 4 / 8 + 4 / 5) / 3,
            "support": 8,
            "reached": 7,
            "wrongly_routed": 1,
            "accuracy_reached": 5 / 7,
        },
    },
    "stage3_rect": {
        "standalone": {"accuracy": 3 / 4, "macro_f1": (4 / 5 + 2 / 3) / 2, "f1_positive": 2 / 3},
        "cascade": {
            "accuracy": 1 / 4,
            "macro_f1": (2 / 5 + 0) / 2,
            "support": 4,
            "reached": 2,
            "wrongly_routed": 2,
            "accuracy_reached": 1 / 2,
            "macro_f1_reached": (2 / 3 + 0) / 2,
        },
    },
    "stage3_ab": {
        "standalone": {"accuracy": 1 / 2, "macro_f1": (2 / 3 + 0) / 2, "support": 2},
        "cascade": {
            "accuracy": 1 / 2,
            "macro_f1": (2 / 4 + 0) / 2,
            "support": 2,
            "reached": 2,
            "wrongly_routed": 1,
        },
    },
}


@pytest.mark.parametrize("stage", HAND_STAGES)
def test_hand_made_stages(by_hand, stage):
    found = by_hand["stages"][stage]
    for view, expected in HAND_STAGES[stage].items():
        assert {k: found[view][k] for k in expected} == pytest.approx(expected, abs=1e-6)
    for metric in ("accuracy", "macro_f1"):
        difference = 100 * (found["standalone"][metric] - found["cascade"][metric])
        assert found["cascade_error"][metric] == pytest.approx(difference, abs=1e-5)
    assert set(found["standalone"]["baselines"]) == {"constant", "prior"}


def test_hand_made_cascade_error_is_in_percentage_points(by_hand):
    error = by_hand["stages"]["stage3_rect"]["cascade_error"]
    assert error["accuracy"] == pytest.approx(50)
    assert by_hand["stages"]["stage1"]["cascade_error"] == {"accuracy": 0, "macro_f1": 0}


def test_hand_made_oracles(by_hand):
    accuracy = {tuple(row["replaced"]): row["accuracy"] for row in by_hand["oracles"]}
    assert accuracy == {
        ("stage1",): 0.6,
        ("stage2",): 0.6,
        ("stage3_rect",): 0.5,
        ("stage3_ab",): 0.5,
        ("stage1", "stage2"): 0.8,
        ("stage1", "stage2", "stage3_rect"): 0.9,
        ("stage1", "stage2", "stage3_rect", "stage3_ab"): 1.0,
    }


def test_a_replaced_stage_has_no_answer_for_a_node_sent_to_it_by_mistake():
    nodes = hand_made()
    probabilities = {s: m[0] for s, m in nodes.logits.items()}
    routing = route(V6, probabilities, 0.5, truth=nodes.partition, replaced=["stage2"])
    # The second node is NONE: Stage 2 itself still sends it on to RECT, which says HORZ.
    assert (nodes.partition[1], routing.prediction[1]) == (Partition.NONE, Partition.HORZ)
    assert routing.prediction[7] == Partition.SPLIT


def test_hand_made_per_qindex(by_hand):
    rows = [[row[k] for k in ("qindex", "nodes", "accuracy")] for row in by_hand["per_qindex"]]
    assert rows == [[80, 6, pytest.approx(2 / 6, abs=1e-6)], [120, 4, 0.5]]
    assert by_hand["per_qindex"][0]["constant_accuracy"] == pytest.approx(2 / 6, abs=1e-6)


@pytest.mark.parametrize("tree", [V6, ALL_TEN], ids=lambda t: t.name)
def test_every_type_comes_back_by_its_own_id_and_name(tree):
    """The study's cascade said 1 = SPLIT, 2 = HORZ, 3 = VERT and was compared with AV1 ids."""
    truth = np.array(tree.partitions)
    logits = {s.name: [saying(s, [_class_of(s, p) for p in tree.partitions])] for s in tree.stages}
    nodes = Nodes.build(tree, truth, truth.astype(str), np.full(truth.size, 80), logits)
    result = analyse(
        nodes,
        train_counts=TRAIN,
        split="val",
        protocol="-",
        choices=Choices.neutral(nodes.logits),
        bootstrap=FEW,
    )
    assert result.prediction.tolist() == truth.tolist()
    assert [Partition(i).name for i in result.prediction] == result.to_json()["class_names"]
    for position, name in enumerate(result.to_json()["class_names"]):
        assert result.to_json()["overall"]["per_class"][name]["support"] == 1
        assert result.probabilities[:, position].argmax() == position


def _class_of(stage, partition):
    """The class a stage should say; of a type that never gets there, its first."""
    classes = [name for name, types in stage.classes.items() if partition in types]
    return classes[0] if classes else stage.class_names[0]


@pytest.mark.parametrize("tree", [V6, ALL_TEN], ids=lambda t: t.name)
def test_perfect_logits_score_one_everywhere(tree):
    rng = np.random.default_rng(4)
    truth = rng.choice(np.array(tree.partitions), 400)
    logits = {
        s.name: [saying(s, [_class_of(s, Partition(p)) for p in truth], 30.0)] for s in tree.stages
    }
    nodes = Nodes.build(tree, truth, rng.choice(["a", "b", "c"], 400), np.full(400, 80), logits)
    found = report(nodes)
    assert found["overall"]["accuracy"] == found["overall"]["macro_f1"] == 1.0
    for stage in found["stages"].values():
        assert stage["standalone"]["macro_f1"] == stage["cascade"]["macro_f1"] == 1.0
        assert stage["cascade"]["reached"] == stage["cascade"]["support"]
        assert stage["cascade_error"] == {"accuracy": 0.0, "macro_f1": 0.0}
    assert {(row["accuracy"], row["macro_f1"]) for row in found["oracles"]} == {(1.0, 1.0)}
    assert set(found["flat"]["top_k"].values()) == {1.0}
    assert found["flat"]["ece"] < 1e-6


KEYS = [
    *("split", "protocol", "nodes", "sequences", "taxonomy", "class_names", "threshold"),
    *("temperatures", "overall", "baselines", "intervals", "stages", "oracles", "flat"),
    *("per_qindex", "ensemble"),
]


def test_report_has_the_agreed_keys_and_is_json():
    found = report(drawn())
    assert list(found) == KEYS
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["nodes"], found["sequences"], found["taxonomy"]) == (600, 4, "v6")
    assert set(found["threshold"]) == {"fitted", "cross_fitted", "objective"}
    assert list(found["threshold"]["cross_fitted"]) == ["s0", "s1", "s2", "s3"]
    assert {k: len(v) for k, v in found["temperatures"].items()} == {
        "stage1": 1,
        "stage2": 1,
        "stage3_rect": 1,
        "stage3_ab": 3,
    }
    for kinds in found["intervals"].values():
        assert set(kinds) == {"value", "margin_constant", "margin_prior"}


def test_the_same_input_gives_the_same_report():
    assert json.dumps(report(drawn())) == json.dumps(report(drawn()))


@pytest.mark.parametrize("tree", [V6, ALL_TEN], ids=lambda t: t.name)
def test_supports_equal_independent_counts(tree):
    nodes = drawn(tree)
    found = report(nodes)
    truth = nodes.partition.tolist()
    for partition in tree.partitions:
        support = found["overall"]["per_class"][partition.name]["support"]
        assert support == truth.count(partition)
    for stage in tree.stages:
        count = sum(truth.count(p) for p in stage.population)
        views = found["stages"][stage.name]
        assert views["standalone"]["support"] == views["cascade"]["support"] == count


@pytest.mark.parametrize("tree", [V6, ALL_TEN], ids=lambda t: t.name)
def test_a_last_stage_inside_the_cascade_agrees_with_the_table_of_all_types(tree):
    found = report(drawn(tree))
    for stage in tree.stages[2:]:
        f1 = [found["overall"]["per_class"][name]["f1"] for name in stage.class_names]
        cascade = found["stages"][stage.name]["cascade"]
        assert cascade["macro_f1"] == pytest.approx(np.mean(f1), abs=2e-6)
        share = cascade["reached"] / cascade["support"]
        assert cascade["accuracy"] == pytest.approx(share * cascade["accuracy_reached"], abs=2e-6)


def test_lost_nodes_and_a_broken_specialist_are_told_apart():
    rect = V6.stage("stage3_rect")
    truth = np.array([Partition.HORZ, Partition.VERT] * 10)
    lost = np.where(np.arange(20) < 10, IGNORED, rect.labels[truth])
    broken = 1 - rect.labels[truth]
    lost_scores = inside_cascade(rect, truth, lost)
    assert (lost_scores["accuracy"], lost_scores["accuracy_reached"]) == (0.5, 1.0)
    broken_scores = inside_cascade(rect, truth, broken)
    assert (broken_scores["reached"], broken_scores["accuracy_reached"]) == (20, 0.0)


def test_a_stage_nothing_reaches_scores_zero():
    rect = V6.stage("stage3_rect")
    scores = inside_cascade(rect, np.array([1, 2, 0]), np.full(3, IGNORED))
    assert (scores["accuracy"], scores["macro_f1"], scores["reached"]) == (0, 0, 0)
    assert (scores["accuracy_reached"], scores["macro_f1_reached"]) == (0, 0)


def test_oracles_only_help_and_end_at_one():
    found = report(drawn(skill=0.3))
    by = {tuple(row["replaced"]): row["accuracy"] for row in found["oracles"]}
    names = [s.name for s in V6.stages]
    prefixes = [found["overall"]["accuracy"]] + [by[tuple(names[: i + 1])] for i in range(4)]
    assert prefixes == sorted(prefixes)
    assert len(set(prefixes)) == 5
    assert found["oracles"][-1] | {"name": ""} == {
        "name": "",
        "replaced": names,
        "accuracy": 1.0,
        "macro_f1": 1.0,
    }
    assert all(by[(name,)] > prefixes[0] for name in names)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([V6, ALL_TEN]), st.floats(0.01, 30))
def test_flat_distribution_sums_to_one(seed, tree, scale):
    rng = np.random.default_rng(seed)
    nodes = drawn(tree, n=20, seed=seed)
    probabilities = {
        s.name: member_probabilities(
            nodes.logits[s.name], rng.uniform(0.05, scale + 0.05, m.shape[:2])
        ).mean(0)
        for s, m in ((s, nodes.logits[s.name]) for s in tree.stages)
    }
    flat = flat_distribution(tree, probabilities)
    assert flat.sum(1) == pytest.approx(np.ones(20), abs=1e-6)
    assert (flat >= 0).all()


def test_flat_distribution_is_the_product_along_the_path():
    probabilities = {
        "stage1": np.array([[0.4, 0.6]]),
        "stage2": np.array([[0.5, 0.3, 0.2]]),
        "stage3_rect": np.array([[0.9, 0.1]]),
        "stage3_ab": np.array([[0.1, 0.2, 0.3, 0.4]]),
    }
    flat = flat_distribution(V6, probabilities)[0]
    rect, ab = 0.6 * 0.3, 0.6 * 0.2
    expected = [0.4, rect * 0.9, rect * 0.1, 0.6 * 0.5, ab * 0.1, ab * 0.2, ab * 0.3, ab * 0.4]
    assert flat.tolist() == pytest.approx(expected)


def test_top_k_and_calibration():
    nodes = drawn(n=2000)
    flat = report(nodes)["flat"]
    top = list(flat["top_k"].values())
    assert list(flat["top_k"]) == ["1", "2", "3", "4", "5"]
    assert top[0] == pytest.approx(flat["accuracy"], abs=1e-6)
    assert top == sorted(top)
    result = analyse(nodes, train_counts=TRAIN, split="val", protocol="-", bootstrap=FEW)
    truth = nodes.partition  # v6: the ids are 0..7, so the id is the column
    best = np.argsort(result.probabilities)[:, -3:]
    expected = np.mean([t in row for t, row in zip(truth, best, strict=True)])
    assert flat["top_k"]["3"] == pytest.approx(expected, abs=1e-6)
    assert flat["ece"] < flat["ece_uncalibrated"]


def test_a_sequence_has_no_say_in_the_choices_applied_to_it():
    nodes = drawn(n=800)
    mine = nodes.sequence == "s1"
    other = nodes.partition.copy()
    other[mine] = np.random.default_rng(9).choice(np.array(V6.partitions), mine.sum())
    changed = Nodes(V6, other, nodes.sequence, nodes.qindex, nodes.logits)
    before, after = report(nodes)["threshold"], report(changed)["threshold"]
    assert before["cross_fitted"]["s1"] == after["cross_fitted"]["s1"]
    assert before["cross_fitted"]["s0"] != after["cross_fitted"]["s0"]
    assert before["fitted"] != after["fitted"]


def test_cross_fitted_choices_are_those_applied():
    nodes = drawn(n=300)
    result = analyse(nodes, train_counts=TRAIN, split="val", protocol="-", bootstrap=FEW)
    mine = nodes.sequence == "s2"
    choices = fit_choices(nodes.select(~mine))
    assert result.report["threshold"]["cross_fitted"]["s2"] == choices.threshold
    here = nodes.select(mine)
    probabilities = {
        stage: member_probabilities(here.logits[stage], t).mean(0)
        for stage, t in choices.temperatures.items()
    }
    routing = route(V6, probabilities, choices.threshold)
    assert result.prediction[mine].tolist() == routing.prediction.tolist()
    assert np.allclose(result.probabilities[mine], flat_distribution(V6, probabilities), atol=1e-12)


def test_given_choices_are_applied_and_nothing_is_fitted():
    nodes = drawn()
    choices = Choices(1.0, Choices.neutral(nodes.logits).temperatures)
    found = report(nodes, choices=choices, split="test")
    assert found["threshold"] == {"fitted": 1.0, "cross_fitted": {}, "objective": "macro_f1"}
    none = np.mean(nodes.partition == Partition.NONE)
    assert found["overall"]["accuracy"] == pytest.approx(none, abs=1e-6)
    assert found["temperatures"]["stage3_ab"] == [1.0, 1.0, 1.0]


def test_one_sequence_is_judged_by_neutral_choices_without_intervals():
    nodes = drawn(sequences=1)
    found = report(nodes)
    assert found["threshold"]["cross_fitted"] == {"s0": 0.5}
    assert found["intervals"] == {}
    neutral = report(nodes, choices=Choices.neutral(nodes.logits))
    assert found["overall"] == neutral["overall"]
    assert found["flat"]["ece"] == found["flat"]["ece_uncalibrated"]


def test_objective_changes_the_threshold():
    nodes = drawn(n=1500, skill=0.5)
    fitted = {
        objective: report(nodes, objective=objective)["threshold"]["fitted"]
        for objective in ("macro_f1", "accuracy", "f1_positive")
    }
    assert len(set(fitted.values())) == 3


def test_a_stage_without_nodes_is_left_out():
    nodes = drawn()
    keep = nodes.population(V6.root) & ~nodes.population(V6.stage("stage3_ab"))
    found = report(nodes.select(keep))
    assert set(found["stages"]) == {"stage1", "stage2", "stage3_rect"}
    assert found["ensemble"] == {}


def test_ensemble():
    nodes = drawn(skill=1.5)
    found = report(nodes)["ensemble"]
    assert set(found) == {"stage3_ab"}
    ab = found["stage3_ab"]
    assert ab["members"] == len(ab["each"]) == 3
    assert ab["mean_probability"] > max(ab["each"])
    mine = nodes.population(V6.stage("stage3_ab"))
    said = nodes.logits["stage3_ab"][:, mine].argmax(-1)
    differ = np.mean([len(set(column)) > 1 for column in said.T])
    assert ab["disagreement"] == pytest.approx(differ, abs=1e-6)
    assert report(drawn(members=1))["ensemble"] == {}


def test_ensemble_votes_are_counted_one_by_one():
    nodes = drawn()
    stage = V6.stage("stage3_ab")
    mine = nodes.select(nodes.population(stage))
    members = np.exp(mine.logits["stage3_ab"])
    members /= members.sum(-1, keepdims=True)
    winners = []
    for votes, mean in zip(members.argmax(-1).T, members.mean(0), strict=True):
        most = max(Counter(votes).values())
        winners.append(max((c for c in votes if Counter(votes)[c] == most), key=lambda c: mean[c]))
    labels = stage.labels[mine.partition]
    ab = report(nodes, choices=Choices.neutral(nodes.logits))["ensemble"]["stage3_ab"]
    assert ab["vote"] == pytest.approx(f1_score(labels, winners, average="macro"), abs=1e-6)
    assert ab["vote"] != ab["mean_probability"]


def test_constant_of_a_qindex_is_the_best_there():
    nodes = drawn()
    for row in report(nodes)["per_qindex"]:
        types = Counter(nodes.partition[nodes.qindex == row["qindex"]].tolist())
        assert row["nodes"] == types.total()
        share = types.most_common(1)[0][1] / types.total()
        assert row["constant_accuracy"] == pytest.approx(share, abs=1e-6)


def voted(members):
    return join(V6, V6.stage("stage2"), members, "vote").argmax(-1)


def test_vote_breaks_ties_by_mean_probability():
    two = np.array([[0.6, 0.4, 0.0]]), np.array([[0.1, 0.9, 0.0]])
    assert voted(np.stack(two)).tolist() == [1]
    majority = np.array([[0.34, 0.33, 0.33]]), np.array([[0.34, 0.33, 0.33]]), np.array([[0, 1, 0]])
    assert voted(np.stack(majority)).tolist() == [0]


def test_vote_differs_from_the_mean():
    members = np.array([[[0.51, 0.49]], [[0.51, 0.49]], [[0.0, 1.0]]])
    assert voted(members).tolist() == [0]
    assert members.mean(0).argmax(-1).tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partition": [0, 8]}, "1 nodes have types outside taxonomy v6, such as id 8"),
        ({"partition": []}, "one shape"),
        ({"sequence": ["a"]}, "one shape"),
        ({"logits": {"stage3_ab": []}}, "stage3_ab needs logits"),
        ({"logits": {"stage2": [np.zeros((2, 4))]}}, "stage2 needs logits of shape"),
        ({"logits": {"stage1": [np.full((2, 2), np.nan)]}}, "stage1 has logits that are not"),
    ],
)
def test_bad_input_names_the_culprit(change, message):
    given = {
        "taxonomy": V6,
        "partition": [0, 1],
        "sequence": ["a", "b"],
        "qindex": [80, 80],
        "logits": {s.name: [np.zeros((2, len(s.class_names)))] for s in V6.stages},
    }
    logits = given["logits"] | change.pop("logits", {})
    with pytest.raises(ValueError, match=message):
        Nodes.build(**(given | {"logits": logits} | change))


def test_the_truth_is_needed_to_replace_a_stage():
    probabilities = {s.name: np.ones((1, len(s.class_names))) for s in V6.stages}
    with pytest.raises(ValueError, match="only if it is given"):
        route(V6, probabilities, 0.5, replaced=["stage1"])
    with pytest.raises(ValueError, match="no stage"):
        route(V6, probabilities, 0.5, truth=np.array([0]), replaced=["stage9"])

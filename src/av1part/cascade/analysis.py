"""Scores of the cascade, what each stage costs it, and the guessers' scores beside them.

Every figure is defined in docs/pipeline.md. Two views of a stage are set against each other:

- standalone: the stage on all nodes whose true type is in its population, given to it directly,
  by its most probable class; as `av1part validate` reports it.
- inside the cascade: the same nodes, but scored by the cascade's decisions at that stage. A node
  that never reached it is an error (a missed class). A node of another population that was sent
  to it by mistake is a false positive of the class it was given, so the macro-F1 of a last stage
  is the mean of its types' F1 in the table of all types.

`accuracy_reached` is the stage on nodes that belong to it and reached it. It separates the two
causes of a cascade error: if it stays near the standalone accuracy, earlier stages lose the
nodes; if it collapses (the study's -93%), the stage is not given what it was trained on.

Shapes: n nodes, k classes of a stage, t types of the taxonomy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av1part.cascade.choices import Choices, cross_fit_choices, fit_choices
from av1part.cascade.ensembles import (
    StageProbabilities,
    ensemble_report,
    stage_probabilities,
)
from av1part.cascade.routing import (
    Nodes,
    Routing,
    flat_distribution,
    route,
    type_index,
)
from av1part.evaluation.trees import PeerAnswers
from av1part.metrics.calibration import reliability
from av1part.metrics.intervals import Bootstrap, intervals_json, metric_intervals
from av1part.metrics.scores import (
    POSITIVE,
    baselines,
    confusion_matrix,
    f1_from_confusion,
    figure,
    from_predictions,
    macro_f1_from_confusion,
)
from av1part.options import Ensemble, Objective
from av1part.partition import IGNORED, Partition, Stage

TOP_K = (1, 2, 3, 4, 5)

STUDY_ORDER = np.arange(len(Partition))
"""The id that the study's cascade wrote for each type, int64 of shape (10,)."""
STUDY_ORDER[[Partition.SPLIT, Partition.HORZ, Partition.VERT]] = 1, 2, 3


@dataclass(frozen=True)
class CascadeResult:
    """The cascade's predictions and the report on them.

    Attributes:
        prediction: AV1 ids by hard routing, int64 of shape (n,).
        probabilities: Flat distribution, float64 of shape (n, t), types in id order.
        choices: Fitted on all nodes, or those that were passed in; for use on other data.
        report: JSON-ready, see docs/pipeline.md.
    """

    prediction: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    choices: Choices
    report: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report for pipeline.json."""
        return dict(self.report)


@dataclass(frozen=True)
class _Scored:
    """Nodes with the probabilities and the threshold that apply to each of them.

    Attributes:
        nodes: The nodes.
        probabilities: Of every stage.
        threshold: Of the root, shape (n,).
        read_as: The id that each predicted id is compared as, int64 of shape (10,).
    """

    nodes: Nodes
    probabilities: StageProbabilities
    threshold: NDArray[np.float64]
    read_as: NDArray[np.int64]

    def routed(self, *replaced: str) -> Routing:
        """Route with the true classes of some stages in place of their predictions."""
        tree, truth, scores = self.nodes.taxonomy, self.nodes.partition, self.probabilities.deciding
        routing = route(tree, scores, self.threshold, truth=truth, replaced=replaced)
        return replace(routing, prediction=self.read_as[routing.prediction])


def _score(
    nodes: Nodes,
    choices: Mapping[str, Choices],
    ensemble: Ensemble,
    read_as: NDArray[np.int64],
) -> _Scored:
    """Apply to each node the choices of its sequence."""
    names, code = np.unique(nodes.sequence, return_inverse=True)
    by_sequence = [choices[name] for name in names]
    temperatures = {
        stage: np.array([c.temperatures[stage] for c in by_sequence]).T[:, code]
        for stage in nodes.logits
    }
    probabilities = stage_probabilities(nodes.taxonomy, nodes.logits, temperatures, ensemble)
    threshold = np.array([c.threshold for c in by_sequence])[code]
    return _Scored(nodes, probabilities, threshold, read_as)


def analyse(
    nodes: Nodes,
    *,
    train_counts: ArrayLike,
    split: str,
    protocol: str,
    objective: Objective = "macro_f1",
    ensemble: Ensemble = "mean",
    choices: Choices | None = None,
    cross_fitted: Mapping[str, Choices] | None = None,
    bootstrap: Bootstrap | None = None,
    peer: PeerAnswers | None = None,
    two_orders: bool = False,
) -> CascadeResult:
    """Run the cascade on nodes and report on it.

    Without `choices`, temperatures and threshold are fitted here and cross-fitted by sequence:
    those applied to a sequence were fitted on the others. With one sequence there are no others,
    and the neutral choices (threshold 0.5, temperatures 1) apply. A stage none of whose types
    occurs among the nodes is left out of `stages` and `ensemble`.

    Args:
        nodes: Nodes and logits.
        train_counts: Training nodes of each AV1 id, shape (10,).
        split: Which split the nodes are, for the report.
        protocol: How it was split, for the report.
        objective: What the threshold maximises.
        ensemble: How hard routing joins the members of a stage; the flat distribution and its
            calibration are those of their mean probability under either rule.
        choices: Those fitted on val, when these nodes are test; nothing is then fitted.
        cross_fitted: With `choices`, when these nodes are those they were fitted on: sequence to
            the choices fitted on the others.
        bootstrap: How to resample for the intervals.
        peer: What boosted trees answer for the nodes, classes in the taxonomy's order of types.
        two_orders: The study's defect of this name: what hard routing answers is read by
            `STUDY_ORDER`. Stages and the flat distribution are scored by their classes, as ever.

    Returns:
        Predictions, choices and the report on all nodes.

    Raises:
        ValueError: if the training counts give no prior of a stage's classes.
    """
    tree, counts, index = nodes.taxonomy, np.asarray(train_counts), type_index(nodes.taxonomy)
    if choices is None:
        cross_fitted = cross_fit_choices(nodes, objective, ensemble)
        choices = fit_choices(nodes, objective, ensemble)
    scored = _score(
        nodes,
        cross_fitted or dict.fromkeys(nodes.sequence.tolist(), choices),
        ensemble,
        STUDY_ORDER if two_orders else np.arange(len(Partition)),
    )
    routing = scored.routed()
    truth, prediction = index[nodes.partition], index[routing.prediction]
    train = counts[list(tree.partitions)]
    trees = None if peer is None else peer.predictions
    intervals = metric_intervals(prediction, truth, nodes.sequence, train, bootstrap, trees=trees)
    flat = flat_distribution(tree, scored.probabilities.mean)
    report = {
        "split": split,
        "protocol": protocol,
        "nodes": int(truth.size),
        "sequences": int(np.unique(nodes.sequence).size),
        "taxonomy": tree.name,
        "class_names": list(tree.names),
        "threshold": {
            "fitted": choices.threshold,
            "cross_fitted": {s: c.threshold for s, c in (cross_fitted or {}).items()},
            "objective": objective,
        },
        "temperatures": {stage: list(t) for stage, t in choices.temperatures.items()},
        "overall": from_predictions(prediction, truth, tree.names),
        "baselines": {
            **baselines(train, truth, tree.names),
            **({} if peer is None else {"trees": peer.scores(truth, tree.names)}),
        },
        "intervals": intervals_json(intervals),
        "stages": _stages(scored, routing, counts),
        "oracles": _oracles(scored),
        "flat": _flat(nodes, flat),
        "per_qindex": _per_qindex(nodes, prediction),
        "ensemble": ensemble_report(
            tree,
            nodes.partition,
            scored.probabilities.members,
            {stage: decided != IGNORED for stage, decided in routing.decisions.items()},
            ensemble,
        ),
    }
    return CascadeResult(routing.prediction, flat, choices, report)


def _stages(scored: _Scored, routing: Routing, counts: NDArray[Any]) -> dict[str, Any]:
    report = {}
    for stage in scored.nodes.taxonomy.stages:
        if scored.nodes.population(stage).any():
            standalone = _standalone(scored, stage, counts)
            cascade = inside_cascade(stage, scored.nodes.partition, routing.decisions[stage.name])
            error = {
                name: figure(100 * (standalone[name] - cascade[name]))
                for name in ("accuracy", "macro_f1")
            }
            entry = {"standalone": standalone, "cascade": cascade, "cascade_error": error}
            report[stage.name] = entry
    return report


def _standalone(scored: _Scored, stage: Stage, counts: NDArray[Any]) -> dict[str, Any]:
    belongs = scored.nodes.population(stage)
    labels = stage.labels[scored.nodes.partition[belongs]]
    predictions = scored.probabilities.deciding[stage.name][belongs].argmax(1)
    flat = from_predictions(predictions, labels, stage.class_names)
    train = [int(counts[list(members)].sum()) for members in stage.classes.values()]
    return {
        **{k: flat[k] for k in ("accuracy", "macro_f1", "f1_positive") if k in flat},
        "support": int(belongs.sum()),
        "baselines": baselines(train, labels, stage.class_names),
    }


def inside_cascade(
    stage: Stage, partition: NDArray[np.int64], decisions: NDArray[np.int64]
) -> dict[str, Any]:
    """Score the cascade's decisions at a stage; see the module's docstring.

    Args:
        stage: The stage.
        partition: True AV1 ids of all nodes, shape (n,).
        decisions: Class indices it chose, `IGNORED` for nodes that did not reach it, shape (n,).

    Returns:
        `accuracy` (right decisions among the population), `macro_f1`, for two classes
        `f1_positive`; `support` (the population), `reached` (those of it that got there),
        `accuracy_reached` and `macro_f1_reached` (scored on these alone), `wrongly_routed`
        (nodes of other populations that were sent there).
    """
    k = len(stage.class_names)
    # One class more on both sides: not of the population, and not reached.
    true, chosen = (np.where(c == IGNORED, k, c) for c in (stage.labels[partition], decisions))
    matrix = confusion_matrix(chosen, true, k + 1)
    inner, f1 = matrix[:k, :k], f1_from_confusion(matrix)[:k]
    present = (matrix.sum(0) + matrix.sum(1))[:k] > 0
    support, reached, right = int(matrix[:k].sum()), int(inner.sum()), int(np.trace(inner))
    return {
        "accuracy": figure(right / support),
        "macro_f1": figure(f1[present].mean()),
        **({"f1_positive": figure(f1[POSITIVE])} if k == 2 else {}),
        "support": support,
        "reached": reached,
        "wrongly_routed": int(matrix[k, :k].sum()),
        "accuracy_reached": figure(right / max(reached, 1)),
        "macro_f1_reached": figure(macro_f1_from_confusion(inner)),
    }


def _oracles(scored: _Scored) -> list[dict[str, Any]]:
    """Replace each stage, and each run of stages from the first on, by the truth."""
    nodes = scored.nodes
    tree, index = nodes.taxonomy, type_index(nodes.taxonomy)
    names = [stage.name for stage in tree.stages]
    chosen = [[name] for name in names] + [names[: i + 1] for i in range(1, len(names))]
    rows = []
    for replaced in chosen:
        prediction = index[scored.routed(*replaced).prediction]
        flat = from_predictions(prediction, index[nodes.partition], tree.names)
        scores = {"accuracy": flat["accuracy"], "macro_f1": flat["macro_f1"]}
        name = f"{', '.join(replaced)} from ground truth"
        rows.append({"name": name, "replaced": replaced, **scores})
    return rows


def _flat(nodes: Nodes, probabilities: NDArray[np.float64]) -> dict[str, Any]:
    tree = nodes.taxonomy
    truth = type_index(tree)[nodes.partition]
    order = np.argsort(-probabilities, axis=1, kind="stable")
    rank = (order == truth[:, None]).argmax(1)
    metrics = from_predictions(order[:, 0], truth, tree.names)
    ones = Choices.neutral(nodes.logits).temperatures
    raw = stage_probabilities(tree, nodes.logits, ones, "mean")
    uncalibrated = flat_distribution(tree, raw.mean)
    return {
        **{name: metrics[name] for name in ("accuracy", "macro_f1", "weighted_f1")},
        "top_k": {str(k): figure((rank < k).mean()) for k in TOP_K},
        "ece": figure(reliability(probabilities, truth).error),
        "ece_uncalibrated": figure(reliability(uncalibrated, truth).error),
    }


def _per_qindex(nodes: Nodes, prediction: NDArray[np.int64]) -> list[dict[str, Any]]:
    tree = nodes.taxonomy
    truth = type_index(tree)[nodes.partition]
    rows = []
    for qindex in np.unique(nodes.qindex):
        here = nodes.qindex == qindex
        metrics = from_predictions(prediction[here], truth[here], tree.names)
        rows.append(
            {
                "qindex": int(qindex),
                "nodes": int(here.sum()),
                "accuracy": metrics["accuracy"],
                "macro_f1": metrics["macro_f1"],
                "constant_accuracy": figure(np.bincount(truth[here]).max() / here.sum()),
            }
        )
    return rows

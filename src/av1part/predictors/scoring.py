"""Several predictors on the same labelled nodes: sums over each picture, from which scores come.

    views -> predictor -> distributions of all nodes -> those of labelled nodes -> sums

At each size the predictors that have it are scored on the same nodes: those whose true type all of
them know. What a predictor says of types that another one lacks is left out, and the rest scaled to
sum to 1, as if it had been told that these types do not occur.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part import __version__
from av1part.data.build.progress import JobProgress
from av1part.metrics.class_weights import ClassWeights, fit_class_weights, weighted_predictions
from av1part.metrics.distributions import SUMS, TAUS, distribution_sums, part_of
from av1part.metrics.intervals import Bootstrap
from av1part.metrics.scores import LEAST_PROBABILITY, confusion_matrix
from av1part.partition import Partition
from av1part.predictors.bundle_stages import without_folders
from av1part.predictors.interface import TYPES
from av1part.predictors.labelled import LabelledData, LabelledNodes, View
from av1part.predictors.named import NamedPredictor
from av1part.runs.compared import FORMAT
from av1part.runs.compared_scores import PICTURE_SCHEMA, STAGE2, STAGE2_SIZE
from av1part.system.errors import StoreError


@dataclass(frozen=True)
class Population:
    """The nodes of a size that are scored.

    Attributes:
        types: Types that all predictors with the size know.
        nodes: Number of nodes of these types.
        left_out: Nodes of other types, by the type's name.
        lacking: Names of the predictors that lack a type of these.
    """

    types: tuple[Partition, ...]
    nodes: int
    left_out: Mapping[str, int]
    lacking: tuple[str, ...]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each AV1 id is among the types, shape (10,)."""
        return np.isin(np.arange(TYPES), self.types)


def populations_of(
    predictors: Sequence[NamedPredictor], counts: Mapping[int, NDArray[np.int64]]
) -> dict[int, Population]:
    """Find the nodes that all predictors can be scored on.

    Args:
        predictors: The predictors.
        counts: Nodes of each AV1 id by size, shape (10,) each.

    Returns:
        By size, of those that a predictor has and that have a node left.

    Raises:
        StoreError: if none has.
    """
    found, lacks = {}, set()
    for size, count in sorted(counts.items()):
        domains = {p.name: p.predictor.domain for p in predictors}
        types = {name: set(d.types(size)) for name, d in domains.items() if size in d.sizes}
        if not types:
            continue
        common = sorted(set.intersection(*types.values()))
        other = [p for p in Partition if count[p] and p not in common]
        lacking = tuple(name for name, own in types.items() if not own.issuperset(other))
        left_out = {p.name: int(count[p]) for p in other}
        lacks |= set(lacking)
        if nodes := int(count[common].sum()):
            found[size] = Population(tuple(common), nodes, left_out, lacking)
    if not found:
        why = "no predictor has a node size of the dataset"
        if lacks:
            why = f"every node is of a type that {' or '.join(sorted(lacks))} does not know"
        raise StoreError(f"{why}: leave a predictor out, or give another data.path")
    return found


@dataclass
class Answers:
    """What predictors answered.

    Attributes:
        table: Columns of `PICTURE_SCHEMA`.
        seconds: Mean time of a view, by predictor.
    """

    table: pl.DataFrame
    seconds: Mapping[str, float]


def score(
    predictors: Sequence[NamedPredictor],
    data: LabelledNodes,
    populations: Mapping[int, Population],
    weights: Mapping[str, ClassWeights] | None = None,
    *,
    progress: bool = True,
) -> Answers:
    """Ask predictors for every view, and add up what scores need.

    Args:
        predictors: The predictors.
        data: The labelled nodes.
        populations: The nodes to score, of `populations_of`.
        weights: Predictor to its class weights of Stage 2, if any were fitted.
        progress: Show progress on stderr.

    Returns:
        The sums of each picture, qindex, predictor and size, and what predictions took.
    """
    seconds = dict.fromkeys((p.name for p in predictors), 0.0)
    rows: dict[tuple[str, int, str, int], _Row] = {}
    with JobProgress(len(data), 0, show=progress, words=("predicting", "predicted")) as bar:
        for view in data:
            for predictor in predictors:
                started = time.perf_counter()
                answer = predictor.predictor.predict(view.plane, view.bit_depth, view.qindex)
                seconds[predictor.name] += time.perf_counter() - started
                of_class = (weights or {}).get(predictor.name)
                for size, population in populations.items():
                    if size in answer and size in view.types:
                        row = _row(answer[size], view.types[size], size, population, of_class)
                        if row is not None:
                            key = view.picture, view.qindex, predictor.name, size
                            rows[key] = row if key not in rows else rows[key].plus(row)
            bar.advance(f"{view.sequence} qindex {view.qindex}")
    return Answers(_table(rows), {name: total / len(data) for name, total in seconds.items()})


def fit_weights(
    predictors: Sequence[NamedPredictor], data: LabelledData, *, progress: bool = True
) -> dict[str, ClassWeights]:
    """Fit class weights of Stage 2 for each predictor that has its size.

    Args:
        predictors: The predictors.
        data: Validation nodes.
        progress: Show progress on stderr.

    Returns:
        Predictor to its weights, in the order of Stage 2's classes.

    Raises:
        StoreError: if there is no node of Stage 2.
    """
    asked = [p for p in predictors if STAGE2_SIZE in p.predictor.domain.sizes]
    parts: dict[str, list[NDArray[np.float32]]] = {p.name: [] for p in asked}
    labels = []
    with JobProgress(len(data), 0, show=progress, words=("weighing", "weighed")) as bar:
        for view in data:
            own = _stage2_labels(view)
            if own.any():
                types = view.types[STAGE2_SIZE][own]
                labels.append(STAGE2.labels[types])
                for predictor in asked:
                    answer = predictor.predictor.predict(view.plane, view.bit_depth, view.qindex)
                    parts[predictor.name].append(_of_classes(answer[STAGE2_SIZE][own]))
            bar.advance(f"{view.sequence} qindex {view.qindex}")
    if not labels:
        raise StoreError(
            f"{data.store.path} has no {STAGE2_SIZE}x{STAGE2_SIZE} node of "
            f"{', '.join(STAGE2.class_names)} in the {data.split} split to fit weights on"
        )
    true = np.concatenate(labels)
    return {name: fit_class_weights(np.concatenate(own), true) for name, own in parts.items()}


@dataclass(frozen=True)
class _Row:
    """Sums over nodes: those of `SUMS`, of what was removed, and matrices of Stage 2."""

    sums: NDArray[np.float64]
    removed: float
    stage2: tuple[NDArray[np.int64] | None, ...]

    def plus(self, other: _Row) -> _Row:
        """Return the sums over the nodes of both."""
        stage2 = tuple(
            None if a is None or b is None else a + b
            for a, b in zip(self.stage2, other.stage2, strict=True)
        )
        return _Row(self.sums + other.sums, self.removed + other.removed, stage2)


def _row(
    answer: NDArray[np.float32],
    types: NDArray[np.int8],
    size: int,
    population: Population,
    weights: ClassWeights | None,
) -> _Row | None:
    """Sum over the scored nodes of a view's map, (rows, cols); None if there are none."""
    known = population.known
    scored = (types >= 0) & known[types]
    if not scored.any():
        return None
    probabilities, labels = answer[scored], types[scored].astype(np.int64)
    other = probabilities[:, ~known].sum(1, dtype=np.float64)
    if other.any():
        probabilities = _restricted(probabilities, known)
    stage2: tuple[NDArray[np.int64] | None, ...] = (None, None)
    if size == STAGE2_SIZE:
        stage2 = _stage2_matrices(probabilities, STAGE2.labels[labels], weights)
    return _Row(distribution_sums(probabilities, labels), float(other.sum()), stage2)


def _restricted(
    probabilities: NDArray[np.float32], known: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Condition distributions, (n, 10), on some types; without any of them all are as probable."""
    kept = np.where(known, probabilities, 0).astype(np.float64)
    total = kept.sum(1, keepdims=True)
    uniform = known / known.sum()
    shares = np.divide(kept, total, out=np.tile(uniform, (len(kept), 1)), where=total > 0)
    single: NDArray[np.float32] = shares.astype(np.float32)
    return single


def _stage2_matrices(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], weights: ClassWeights | None
) -> tuple[NDArray[np.int64] | None, ...]:
    """Count confusion matrices of Stage 2 by argmax, and with weights if there are any."""
    own, k = labels >= 0, len(STAGE2.classes)
    values = _of_classes(probabilities[own])
    plain = weighted_predictions(values, np.ones(k))
    argmax = confusion_matrix(plain, labels[own], k)
    if weights is None:
        return argmax, None
    weighted = weighted_predictions(values, weights.weights)
    return argmax, confusion_matrix(weighted, labels[own], k)


def _of_classes(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add up the probabilities of the types of each class of Stage 2, (n, 10) to (n, k)."""
    parts = [probabilities[:, list(types)].sum(1) for types in STAGE2.classes.values()]
    return np.stack(parts, axis=1)


def _stage2_labels(view: View) -> NDArray[np.bool_]:
    """Return which nodes of a view are of a class of Stage 2, (rows, cols)."""
    types = view.types.get(STAGE2_SIZE, np.zeros((0, 0), np.int8))
    belongs: NDArray[np.bool_] = (types >= 0) & (STAGE2.labels[types] >= 0)
    return belongs


def _table(rows: Mapping[tuple[str, int, str, int], _Row]) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {name: [] for name in PICTURE_SCHEMA}
    for (picture, qindex, predictor, size), row in rows.items():
        values: dict[str, Any] = {
            "picture": picture,
            "qindex": qindex,
            "predictor": predictor,
            "size": size,
            "removed": row.removed,
            **{name: part_of(row.sums, name).ravel().tolist() for name in SUMS},
            "stage2_argmax": row.stage2[0],
            "stage2_weighted": row.stage2[1],
        }
        for name, dtype in PICTURE_SCHEMA.items():
            value = values[name]
            if isinstance(value, np.ndarray):
                value = value.ravel().tolist()
            elif isinstance(value, list) and not isinstance(dtype, pl.List):
                (value,) = value
            columns[name].append(value)
    series = [pl.Series(name, columns[name]).cast(d) for name, d in PICTURE_SCHEMA.items()]
    return pl.DataFrame(series)


def record_of(
    predictors: Sequence[NamedPredictor],
    answers: Answers,
    data: Mapping[str, Any],
    populations: Mapping[int, Population],
    settings: Mapping[str, Any],
    against: str,
) -> dict[str, Any]:
    """Return what scores.json says beside the scores.

    Args:
        predictors: Those that were scored.
        answers: What they answered.
        data: Facts of the data.
        populations: As `populations_of` returns them.
        settings: Of the command, plain values.
        against: The predictor that the others are compared with.

    Returns:
        JSON values, for `runs.compared.write_compared`; without fitted weights.
    """
    return {
        "format": FORMAT,
        "av1part": __version__,
        "settings": without_folders(settings),
        "data": dict(data),
        "against": against,
        "predictors": {
            p.name: {
                **p.identity,
                "domain": asdict(p.predictor.domain),
                "trained_on": [dict(source) for source in p.sources],
                "seconds": round(answers.seconds[p.name], 6),
            }
            for p in predictors
        },
        "left_out": {
            str(size): {"nodes": dict(own.left_out), "lacking": list(own.lacking)}
            for size, own in populations.items()
            if own.left_out
        },
        "floor": LEAST_PROBABILITY,
        "taus": list(TAUS),
        "bootstrap": asdict(Bootstrap()),
        "weights": None,
    }

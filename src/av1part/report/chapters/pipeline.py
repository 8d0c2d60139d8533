"""The chapter about one result of the cascade."""

from __future__ import annotations

import numpy as np

from av1part.metrics.calibration import reliability
from av1part.metrics.scores import (
    accuracy_from_confusion,
    best_constant,
    constant_confusion,
    macro_f1_from_confusion,
    prior_confusion,
)
from av1part.partition import Partition
from av1part.report.chapters.common import (
    class_section,
    environment_facts,
    frame_caption,
    gallery,
    joined,
    lead,
    marked,
    missing_frame,
    protocol_facts,
    provenance,
)
from av1part.report.chapters.ensembles import ensemble_table
from av1part.report.chapters.guessers import run_scores
from av1part.report.chapters.scores import headline_table, result_text, sampling_note, study_table
from av1part.report.draw.pictures import crop_window, nodes_in, partition_figure
from av1part.report.draw.plots import cascade_figure, qindex_figure, reliability_figure
from av1part.report.render.document import Chapter, Facts, Item, Picture, Prose, Section, picture
from av1part.report.render.tables import Table, count, percent, points, table
from av1part.runs.fields import Fields
from av1part.runs.read import PipelineRun
from av1part.system.errors import ReportError


def pipeline_chapter(
    run: PipelineRun,
    anchor: str,
    prefix: str = "",
    *,
    pictures: bool = True,
    above: bool = False,
    alone: bool = True,
) -> Chapter:
    """Write the chapter of one pipeline result.

    Args:
        run: The result.
        anchor: Id of the chapter.
        prefix: Of the pictures' names, unique to the run.
        pictures: Also draw the frame and blocks, the largest part of a page.
        above: Whether the frame is shown above all chapters.
        alone: Whether the report is on this run alone.

    Returns:
        The chapter.

    Raises:
        ReportError: if a figure the chapter needs is not in the result's files.
    """
    frame = pipeline_frame(run, prefix) if pictures and not above else None
    sections = [
        _what(run),
        _result(run),
        class_section(run, prefix),
        _cascade(run, prefix),
        _calibration(run, prefix),
        _per_qindex(run, prefix),
    ]
    if pictures:
        blocks = gallery(run, prefix, [Partition[n] for n in run.class_names])
        missing = None if frame or above else missing_frame()
        sections.append(Section("Sample blocks", joined(missing, blocks)))
    sections.append(provenance(run))
    return Chapter(
        anchor,
        marked(f"Pipeline: {run.name}", run),
        tuple(section for section in sections if section.items),
        lead(run, prefix, frame, above=above, alone=alone),
    )


def _what(run: PipelineRun) -> Section:
    p = run.pipeline
    fitted = p.number("threshold", "fitted")
    crossed = [
        p.number("threshold", "cross_fitted", s) for s in p.child("threshold", "cross_fitted").data
    ]
    where = p.get("calibration", "source")
    threshold = f"{fitted:.4f}"
    if where != "none":
        threshold += f", fitted for {p.text('threshold', 'objective')}"
    if where == "stored":
        threshold += f" of {p.text('calibration', 'threshold_of')}"
    if crossed:
        threshold += (
            f"; scores use thresholds fitted on the other sequences, {min(crossed):.4f} to "
            f"{max(crossed):.4f}"
        )
    temperatures = "; ".join(
        f"{stage} {', '.join(f'{t:.3f}' for t in p.numbers('temperatures', stage))}"
        for stage in p.child("temperatures").data
    )
    facts = [
        ("Cascade", f"{' | '.join(run.class_names)} (taxonomy {p.text('taxonomy')})"),
        *protocol_facts(p.text("split"), p.text("protocol")),
        ("Threshold on P(PARTITION)", threshold),
        ("Temperatures", temperatures or "none"),
        *([("Calibration", _calibration_source(p))] if where else []),
        *(fact for fact in environment_facts(run) if fact[0] in ("Dataset", "Seed")),
    ]
    return Section("What was run", joined(Facts(tuple(facts)), _checkpoints(run)))


def _calibration_source(p: Fields) -> str:
    """Return where threshold and temperatures come from."""
    source = p.text("calibration", "source")
    if source == "stored":
        return f"stored beside the checkpoints, {p.text('calibration', 'applied')}"
    if source == "none":
        return "none: threshold 0.5 and temperatures 1"
    known = p.get("calibration", "reason") is not None
    return f"fitted on val ({p.text('calibration', 'reason')})" if known else "fitted on val"


def _checkpoints(run: PipelineRun) -> Table | None:
    if run.pipeline.get("checkpoints") is None:
        return None
    rows = [
        (stage, f"`{member.text('path')}`", f"`{member.text('sha256')[:16]}`")
        for stage in run.pipeline.child("checkpoints").data
        for member in run.pipeline.items("checkpoints", stage)
    ]
    caption = "The checkpoints of the cascade and the first 16 digits of their SHA-256."
    return table(caption, ("<Stage", "<Checkpoint", "<SHA-256"), rows)


def _result(run: PipelineRun) -> Section:
    p = run.pipeline
    scores = run_scores(run)
    sequences = p.integer("sequences")
    constant = p.text("baselines", "constant", "class")
    return Section(
        "Result",
        joined(
            Prose(result_text(scores, sequences)),
            headline_table(scores, p.integer("nodes"), sequences, constant),
            study_table("pipeline", scores),
            _top_k_table(run),
            Prose(sampling_note(sequences, p.text("protocol"))),
        ),
    )


def _top_k_table(run: PipelineRun) -> Table | None:
    top = run.pipeline.child("flat", "top_k")
    if not top.data:
        return None
    most = np.sort(run.confusion.sum(1))[::-1].cumsum() / run.confusion.sum()
    rows = [
        ("flat distribution", *(percent(top.number(k)) for k in top.data)),
        ("both guessers", *(percent(float(most[min(int(k), len(most)) - 1])) for k in top.data)),
    ]
    caption = (
        "Share of nodes whose true type is among the k most probable of the flat distribution "
        "P(type) = P1 * P2 * P3, in percent. Both guessers rank the types by how frequent they "
        "are, so theirs is the share of the k most frequent types."
    )
    return table(caption, ["<Ranking", *(f"top {k}" for k in top.data)], rows)


def pipeline_frame(run: PipelineRun, prefix: str) -> Picture | None:
    """Draw a frame's true and predicted partitions; None if the run kept no frame."""
    samples = run.samples
    if not len(samples.nodes):
        return None
    window = crop_window((samples.frame.shape[0], samples.frame.shape[1]), samples.nodes)
    inside = nodes_in(samples.nodes, window)
    wrong = int((inside.partition != inside.prediction).sum())
    caption = frame_caption(
        run,
        window,
        wrong,
        len(inside),
        "Left the partitions that the encoder chose, right those that the cascade predicts from "
        "the same pixels.",
    )
    return picture(f"{prefix}frame", caption, partition_figure(samples, window))


def _cascade(run: PipelineRun, prefix: str) -> Section:
    stages = run.pipeline.children("stages")
    alone = [s.number("standalone", "macro_f1") for s in stages.values()]
    inside = [s.number("cascade", "macro_f1") for s in stages.values()]
    caption = (
        "Macro-F1 of each stage on exactly the nodes that belong to it (standalone) and inside the "
        "cascade, where nodes that earlier stages sent elsewhere count as missed and foreign nodes "
        "as false positives; in percent."
    )
    drawing = cascade_figure(list(stages), alone, inside, "Macro-F1 of each stage")
    return Section(
        "What the cascade costs",
        joined(
            _stage_table(stages),
            picture(f"{prefix}cascade", caption, drawing),
            _oracle_table(run),
            ensemble_table(run),
        ),
    )


_STAGE_COLUMNS = (
    "<Stage",
    "<Metric",
    "Best constant",
    "Class prior",
    "Standalone",
    "In the cascade",
    "Cascade error",
    "Belong",
    "Reach it",
    "Foreign",
)


def _stage_table(stages: dict[str, Fields]) -> Table:
    rows = []
    for name, stage in stages.items():
        for metric, title in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
            alone, inside = (stage.number(where, metric) for where in ("standalone", "cascade"))
            constant, prior = (
                stage.optional("standalone", "baselines", guess, metric)
                for guess in ("constant", "prior")
            )
            rows.append(
                (
                    name if metric == "accuracy" else "",
                    title,
                    percent(constant),
                    percent(prior),
                    percent(alone),
                    percent(inside),
                    points(stage.number("cascade_error", metric), scale=1),
                    count(stage.integer("standalone", "support")) if metric == "accuracy" else "",
                    count(stage.integer("cascade", "reached")) if metric == "accuracy" else "",
                    count(stage.integer("cascade", "wrongly_routed"))
                    if metric == "accuracy"
                    else "",
                )
            )
    caption = (
        "Each stage standalone (on exactly the nodes that belong to it) and inside the cascade, "
        "beside the two guessers on the same nodes, in percent; cascade error is the loss in "
        "percentage points. Nodes: those that belong to the stage, those of them that reach it, "
        "and foreign ones sent to it by mistake."
    )
    return table(caption, _STAGE_COLUMNS, rows)


def _oracle_table(run: PipelineRun) -> Table:
    p = run.pipeline
    accuracy, macro_f1 = run.metrics.number("accuracy"), run.metrics.number("macro_f1")

    def row(name: str, fields: Fields, *path: str) -> tuple[str, ...]:
        a, f = fields.number(*path, "accuracy"), fields.number(*path, "macro_f1")
        return name, percent(a), points(a - accuracy), percent(f), points(f - macro_f1)

    has_trees = p.get("baselines", "trees") is not None
    rows = [
        row("nothing: best constant guess", p, "baselines", "constant"),
        row("nothing: class-prior guesser", p, "baselines", "prior"),
        *([row("nothing: boosted trees", p, "baselines", "trees")] if has_trees else []),
        row("nothing: the cascade", run.metrics),
        row("nothing: the flat distribution's most probable type", p, "flat"),
        *(row(oracle.text("name"), oracle) for oracle in p.items("oracles")),
    ]
    caption = (
        "What each stage costs: the cascade with the named stages answered from ground truth, in "
        "percent, and the gain over the cascade in percentage points."
    )
    columns = ("<Answered from ground truth", "Accuracy", "Gain", "Macro-F1", "Gain")
    return table(caption, columns, rows, strong=3 if has_trees else 2)


def _calibration(run: PipelineRun, prefix: str) -> Section:
    p = run.pipeline
    bins = reliability(run.predictions.probability, run.predictions.label)
    uncalibrated = p.optional("flat", "ece_uncalibrated")
    before = f" ({percent(uncalibrated)}% without temperatures)" if uncalibrated is not None else ""
    caption = (
        "Reliability of the flat distribution: nodes in 15 bins by the probability of their most "
        "probable type, against how often that type is right; right, the share of nodes in each "
        f"bin. Expected calibration error of the drawn bins {percent(bins.error)}%, recorded "
        f"{percent(p.number('flat', 'ece'))}%{before}."
    )
    return Section(
        "Calibration", (picture(f"{prefix}reliability", caption, reliability_figure(bins)),)
    )


def _per_qindex(run: PipelineRun, prefix: str) -> Section:
    entries = run.pipeline.items("per_qindex")
    columns = {
        key: [e.number(key) for e in entries]
        for key in ("qindex", "nodes", "accuracy", "macro_f1", "constant_accuracy")
    }
    rows = []
    for q, n, a, f, c in zip(*columns.values(), strict=True):
        guesses = _guesses_at(run, q)
        cells = [percent(a), percent(c), percent(guesses[0]), points(a - c)]
        cells += [percent(f), percent(guesses[1]), percent(guesses[2])]
        rows.append((f"{q:.0f}", count(n), *cells))
    caption = (
        "Scores at each qindex in percent, beside the best constant of that qindex and a guesser "
        "that draws from its class shares (counted from `predictions.parquet`); the margin of "
        "accuracy over the best constant in percentage points."
    )
    titles = (
        "qindex",
        "n",
        "Accuracy",
        "Constant",
        "Prior",
        "Margin",
        "Macro-F1",
        "Constant",
        "Prior",
    )
    items: list[Item] = [table(caption, titles, rows)]
    if len(entries) > 1:
        items.append(_qindex_picture(columns, prefix))
    return Section("By quantiser", tuple(items))


def _guesses_at(run: PipelineRun, qindex: float) -> tuple[float, float, float]:
    """Return the prior's accuracy, then the constant's and the prior's macro-F1, at a qindex.

    Raises:
        ReportError: if no node of the qindex was predicted.
    """
    labels = run.predictions.label[run.predictions.qindex == qindex]
    support = np.bincount(labels, minlength=len(run.class_names))
    if not support.sum():
        raise ReportError(
            f"{run.pipeline.file} has qindex {qindex:.0f}, predictions.parquet has no node of it"
        )
    prior = prior_confusion(support, support)
    constant = constant_confusion(support, best_constant(support))
    return (
        float(accuracy_from_confusion(prior)),
        float(macro_f1_from_confusion(constant)),
        float(macro_f1_from_confusion(prior)),
    )


def _qindex_picture(columns: dict[str, list[float]], prefix: str) -> Picture:
    caption = (
        "The same by qindex: the distance of accuracy from the dotted best constant is what the "
        "model adds; both change with the quantiser because the shares of the types do."
    )
    drawing = qindex_figure(
        columns["qindex"],
        columns["accuracy"],
        columns["constant_accuracy"],
        columns["macro_f1"],
    )
    return picture(f"{prefix}qindex", caption, drawing)

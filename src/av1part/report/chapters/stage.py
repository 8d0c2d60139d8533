"""The chapter about one training run of a stage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

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
from av1part.report.chapters.guessers import run_scores
from av1part.report.chapters.log_loss import run_loss_table, size_table, sizes_of
from av1part.report.chapters.scores import headline_table, result_text, sampling_note, study_table
from av1part.report.draw.curves import learning_curves
from av1part.report.draw.pictures import (
    Window,
    class_figure,
    crop_window,
    nodes_in,
    partition_figure,
)
from av1part.report.draw.svg import CLASS_COLOURS
from av1part.report.render.document import Chapter, Facts, Item, Picture, Prose, Section, picture
from av1part.report.render.tables import EMPTY_CELL, Table, count, percent, points, table
from av1part.runs.fields import Fields
from av1part.runs.read import StageRun
from av1part.runs.schema import LOG_LOSS


def stage_chapter(
    run: StageRun,
    anchor: str,
    prefix: str = "",
    *,
    pictures: bool = True,
    above: bool = False,
    alone: bool = True,
) -> Chapter:
    """Write the chapter of one stage run.

    Args:
        run: The run.
        anchor: Id of the chapter.
        prefix: Of the pictures' names, unique to the run.
        pictures: Also draw blocks and the frame, the largest part of a page.
        above: Whether the frame is shown above all chapters.
        alone: Whether the report is on this run alone.

    Returns:
        The chapter.

    Raises:
        ReportError: if a figure the chapter needs is not in the run's files.
    """
    frame = stage_frame(run, prefix) if pictures and not above else None
    sections = [_what(run), _result(run), class_section(run, prefix), _training(run, prefix)]
    if pictures:
        blocks = gallery(run, prefix, list(range(len(run.class_names))))
        missing = None if frame or above else missing_frame()
        sections.append(Section("Sample blocks", joined(missing, blocks)))
    sections.append(provenance(run))
    return Chapter(
        anchor,
        marked(f"{run.stage}: {run.name}", run),
        tuple(section for section in sections if section.items),
        lead(run, prefix, frame, above=above, alone=alone),
    )


def _what(run: StageRun) -> Section:
    m = run.metrics
    trainable, total = m.number("trainable_parameters"), m.number("total_parameters")
    facts = [
        ("Stage", f"{run.stage}: {' | '.join(run.class_names)} (taxonomy {m.text('taxonomy')})"),
        ("Method", m.text("method")),
        *protocol_facts(m.text("split"), m.text("protocol")),
        (
            "Parameters",
            f"{count(trainable)} trained of {count(total)} ({percent(trainable / total)}%)",
        ),
        *_sizes(run),
        *_foreign_blocks(run),
        ("Epochs", f"{int(run.history['epoch'][-1]) + 1}, best {best_epoch(run)} (counted from 0)"),
        *(fact for fact in environment_facts(run) if fact[0] in ("Dataset", "Seed")),
    ]
    return Section("What was run", (Facts(tuple(facts)),))


def _sizes(run: StageRun) -> list[tuple[str, str]]:
    """Return which nodes a run of several sizes is scored on."""
    if not (sizes := sizes_of(run.metrics)):
        return []
    text = (
        f"{', '.join(sizes)} in one pass; what names no size, such as classes, confusion matrix "
        "and blocks, is of the 16x16 nodes"
    )
    return [("Node sizes", text)]


def _foreign_blocks(run: StageRun) -> list[tuple[str, str]]:
    """Return what the run's noise injection was, if it had one."""
    if not run.environment.get("dataset", "injection"):
        return []
    injected = run.environment.child("dataset", "injection")
    foreign, own = (injected.integer(key) for key in ("foreign", "own"))
    types = injected.child("expected").data
    shares = {name: injected.number("expected", name) for name in types}
    drawn = ", ".join(f"{name} {percent(share)}%" for name, share in shares.items())
    description = (
        f"{count(foreign)} of an epoch's {count(own + foreign)} blocks are not of this stage "
        f"(source {injected.text('source')}, labels {injected.text('labels')}): {drawn}"
    )
    return [("Noise injection", description)]


def best_epoch(run: StageRun) -> int:
    """Return the epoch of best.ckpt."""
    return run.metrics.integer("epoch")


def _result(run: StageRun) -> Section:
    scores = run_scores(run)
    sequences = run.predictions.sequences
    constant = str(run.metrics.get("baselines", "constant", "class") or "the same class")
    nodes = int(run.confusion.sum())
    return Section(
        "Result",
        joined(
            Prose(result_text(scores, sequences, _of_size(run))),
            run_loss_table(run.metrics, nodes),
            size_table(run.metrics),
            headline_table(scores, nodes, sequences, constant, _of_size(run)),
            study_table(run.stage, scores),
            Prose(sampling_note(sequences, run.metrics.text("protocol"))),
        ),
    )


def _of_size(run: StageRun) -> str:
    """Return which nodes the scores without a size are of, or nothing if there is one size."""
    return "16x16 nodes" if sizes_of(run.metrics) else ""


def _training(run: StageRun, prefix: str) -> Section:
    best = best_epoch(run)
    caption = (
        "Learning curves, an epoch a point: loss on training and validation, macro-F1 and accuracy "
        f"on validation with the epoch whose weights were kept ({best}) marked and the macro-F1 of "
        "both guessers dotted, and the learning rate of each parameter group."
    )
    if LOG_LOSS in run.history.columns:
        caption += (
            " The log loss on validation, the mean of the node sizes' own, chose the epoch; "
            "macro-F1 and accuracy are of the 16x16 nodes."
        )
    warnings: list[Item] = []
    if run.history["epoch"][-1] > 0 and best == 0:
        warnings.append(
            Prose(
                "The best epoch is the first: check whether the start is already as good as this "
                "method gets, whether the learning rate is too high, and whether the schedule fits "
                "the number of epochs.",
                warns=True,
            )
        )
    corrupt = sorted(path.name for path in run.path.glob("checkpoints/*.corrupt"))
    if corrupt:
        warnings.append(
            Prose(f"Refused checkpoints lie in the run: {', '.join(corrupt)}.", warns=True)
        )
    guesses = {
        "best constant": run.metrics.number("baselines", "constant", "macro_f1"),
        "class prior": run.metrics.number("baselines", "prior", "macro_f1"),
    }
    drawing = learning_curves(run.history, best, guesses)
    curves = picture(f"{prefix}learning", caption, drawing)
    return Section("Training", (curves, *warnings, verification_table(run.verified, guesses)))


_RECORD_COLUMNS = (
    "<Checkpoint",
    "Epoch",
    "Live",
    "Reloaded",
    "Delta",
    "Tolerance",
    "Batches",
    "Full split",
    "<Verdict",
)


def verification_table(verified: dict[str, Fields], guesses: dict[str, float]) -> Table:
    """Tabulate what each checkpoint scored in training and when read back from its file.

    Args:
        verified: Record per checkpoint; one that is missing is shown as not verified.
        guesses: Macro-F1 of guessers on the full split by name, fractions.

    Returns:
        The table, a row a checkpoint.
    """
    rows = []
    for stem in ("best", "last"):
        record = verified.get(stem)
        if record is None:
            rows.append((f"`{stem}`", *[EMPTY_CELL] * 7, "NOT VERIFIED: no record"))
            continue
        batches = record.get("batches")
        rows.append(
            (
                f"`{stem}`",
                str(record.integer("epoch")),
                percent(record.optional("macro_f1_live")),
                percent(record.optional("macro_f1_reloaded")),
                points(record.optional("delta_pp"), scale=1),
                points(record.optional("tolerance_pp"), scale=1).lstrip("+"),
                EMPTY_CELL if batches is None else str(batches),
                percent(record.optional("macro_f1_full")),
                _verdict(record),
            )
        )
    caption = (
        "Checkpoints read back from their files: macro-F1 of the model in training and of a new "
        "one with the file's tensors, on the same validation batches, in percent; their difference "
        "and what is tolerated in percentage points; macro-F1 on the full split, where "
        + " and ".join(f"the {name} gets {percent(value)}" for name, value in guesses.items())
        + "."
    )
    return table(caption, _RECORD_COLUMNS, rows)


def _verdict(record: Fields) -> str:
    if record.text("level") != "full":
        return "tensors equal"
    within = abs(record.number("delta_pp")) <= record.number("tolerance_pp")
    return "verified" if within else "DIFFERS"


def stage_frame(run: StageRun, prefix: str) -> Picture | None:
    """Draw a frame's true and predicted classes; None if the run kept no frame."""
    samples = run.samples
    if not len(samples.nodes):
        return None
    window = crop_window((samples.frame.shape[0], samples.frame.shape[1]), samples.nodes)
    inside = nodes_in(samples.nodes, window)
    inside = inside.where(inside.label >= 0)
    wrong = int((inside.label != inside.prediction).sum())
    if len(run.class_names) > len(CLASS_COLOURS):
        return _types_frame(run, prefix, window, wrong, len(inside))
    caption = frame_caption(
        run,
        window,
        wrong,
        len(inside),
        "Left the true class of each node that reaches the stage, with its true cut; right the "
        "predicted class.",
    )
    return picture(f"{prefix}frame", caption, class_figure(samples, window, run.class_names))


def _types_frame(run: StageRun, prefix: str, window: Window, wrong: int, drawn: int) -> Picture:
    """Draw true and predicted cuts, where there are more classes than colours: all types."""
    ids = np.array([Partition[name] for name in run.class_names])
    nodes = run.samples.nodes
    samples = replace(run.samples, nodes=replace(nodes, prediction=ids[nodes.prediction]))
    what = (
        "Left the partitions that the encoder chose, right those that the network predicts from "
        "the same pixels."
    )
    caption = frame_caption(run, window, wrong, drawn, what)
    return picture(f"{prefix}frame", caption, partition_figure(samples, window))

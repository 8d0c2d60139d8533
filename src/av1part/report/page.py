"""From run folders to report.html, report.md and the plots."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from av1part.report.chapters.comparison import comparison_chapter
from av1part.report.chapters.encodes import encodes_document
from av1part.report.chapters.encodes_csv import clip_rows, point_rows
from av1part.report.chapters.encodes_tables import named_tables
from av1part.report.chapters.guessers import run_scores
from av1part.report.chapters.pipeline import pipeline_chapter, pipeline_frame
from av1part.report.chapters.stage import best_epoch, stage_chapter, stage_frame
from av1part.report.chapters.sweep import sweep_chapter, write_sweep_files
from av1part.report.chapters.thesis import write_thesis
from av1part.report.compared import write_compared_report
from av1part.report.draw.curves import learning_curves
from av1part.report.draw.plots import confusion_figure
from av1part.report.draw.svg import to_svg
from av1part.report.encodes import is_encodes
from av1part.report.files import ReportFiles, write_latex_tables, write_parts
from av1part.report.render.document import Chapter, Document, Headline, Picture
from av1part.report.savings import compare
from av1part.report.sweep import Sweep, is_sweep, load_sweep
from av1part.runs.compared import is_compared
from av1part.runs.encodes import read_encodes
from av1part.runs.read import PipelineRun, StageRun, find_runs, load_run
from av1part.system.errors import ReportError
from av1part.system.files import write_csv, write_text

PICTURED = 8
"""Of more runs than this, blocks and frames are drawn for the best run of each stage only."""


def write_report(folders: Sequence[Path], out: Path, *, thesis: bool = False) -> ReportFiles:
    """Write tables, plots and one self-contained page about runs, from their folders alone.

    The same folders give the same bytes.

    Args:
        folders: Stage runs, pipeline results, or folders that hold some at any depth; or one
            folder of `av1part encode` or `av1part compare`, see `write_encodes_report` and
            `write_compared_report`.
        out: Folder to write `report.html`, `report.md` and `plots/` to; made if needed.
        thesis: Also write a section of a thesis about the one sweep that is given.

    Returns:
        The files that were written.

    Raises:
        ReportError: if a folder holds no finished run, or a file of a run is missing, damaged or
            contradicted by another, or a thesis is requested of anything but one sweep;
            nothing is written then.
    """
    sources = [Path(folder) for folder in folders]
    alone = {"encodes": is_encodes, "predictors": is_compared}
    for what, is_one in alone.items():
        comparison = next((folder for folder in sources if is_one(folder)), None)
        if comparison is not None and (len(sources) > 1 or thesis):
            raise ReportError(
                f"{comparison} is a comparison of {what}, which is reported alone: name no other "
                "folder, and leave out --thesis"
            )
    if is_encodes(sources[0]):
        return write_encodes_report(sources[0], out)
    if is_compared(sources[0]):
        return write_compared_report(sources[0], out)
    sweeps = [load_sweep(folder) for folder in sources if is_sweep(folder)]
    rest = [folder for folder in sources if not is_sweep(folder)]
    if thesis and (len(sweeps) != 1 or rest):
        raise ReportError("--thesis is of one sweep: name the folder that holds its sweep.json")
    document = _document(sweeps, rest)
    files, html = write_parts(document, out)
    for number, sweep in enumerate(sweeps, 1):
        write_sweep_files(sweep, out if len(sources) == 1 else out / f"{number}-{sweep.slug}")
    if thesis:
        files = replace(files, thesis=write_thesis(sweeps[0], out))
    write_text(files.html, html)
    return files


def write_encodes_report(folder: Path, out: Path | None = None) -> ReportFiles:
    """Write page, plots and tables about a folder of `av1part encode`, finished or not.

    Beside `report.html`, `report.md` and `plots/` it writes `table.csv`, all figures of each point
    against each anchor, `clips.csv`, the same clip by clip, and `tables/*.tex` for a document in
    LaTeX. The same folder gives the same bytes.

    Args:
        folder: With plan.json and encodes.jsonl.
        out: Folder to write to, made if needed; `folder` itself if None.

    Returns:
        The files that were written.

    Raises:
        ReportError: if a file is missing, damaged, or contradicts the plan; nothing is written
            then.
    """
    encodes = read_encodes(folder)
    comparisons = compare(encodes)
    points, clips = point_rows(encodes, comparisons), clip_rows(comparisons)
    place = folder if out is None else out
    document = encodes_document(encodes, comparisons)
    files, html = write_parts(document, place)
    write_csv(place / "table.csv", points)
    write_csv(place / "clips.csv", clips)
    write_latex_tables(named_tables(comparisons), place)
    write_text(files.html, html)
    items = document.chapters[0].items
    return replace(files, headline=next(i.text for i in items if isinstance(i, Headline)))


def _document(sweeps: Sequence[Sweep], folders: Sequence[Path]) -> Document:
    """Compose the report on sweeps, as wholes, and on the runs in other folders."""
    chapters = []
    for number, sweep in enumerate(sweeps, 1):
        prefix = f"sweep-{number}-" if len(sweeps) > 1 else ""
        chapters.append(sweep_chapter(sweep, f"sweep-{number}", prefix))
    if not folders:
        runs = [m.run for sweep in sweeps for v in sweep.variants for m in v.members]
        title = chapters[0].title if len(chapters) == 1 else f"{len(chapters)} sweeps"
        return Document(title, _SUBTITLE, tuple(chapters), _footer(runs))
    below = find_runs(folders)
    names = run_names([*below.runs, *below.unfinished])
    loaded = [load_run(path, names[path]) for path in below.runs]
    document = compose(loaded, [names[path] for path in below.unfinished])
    if any(isinstance(run, PipelineRun) for run in loaded):  # its frame is the most complete one
        return replace(document, chapters=(*document.chapters, *chapters))
    return replace(document, chapters=(*chapters, *document.chapters))


def run_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the name of each run: its path below the folder that all of them share.

    >>> run_names([Path("runs/a/s1"), Path("runs/b/s1")])[Path("runs/a/s1")]
    'a/s1'
    """
    resolved = {path: path.resolve() for path in paths}
    if len(resolved) == 1:
        return {path: full.name for path, full in resolved.items()}
    common = Path(os.path.commonpath([full.parent for full in resolved.values()]))
    return {path: full.relative_to(common).as_posix() for path, full in resolved.items()}


def compose(runs: Sequence[StageRun | PipelineRun], unfinished: Sequence[str]) -> Document:
    """Compose the report on runs; on several, a comparison comes first.

    Args:
        runs: At least one.
        unfinished: Names of runs that left no result.

    Returns:
        The document, a chapter a run.
    """
    runs = sorted(runs, key=_order)
    pictured = _pictured(runs)
    several = len(runs) > 1 or bool(unfinished)
    shown = _leading(runs)
    prefixes = {run.name: f"run-{n}-" if several else "" for n, run in enumerate(runs, 1)}
    chapters: list[Chapter] = []
    if several:
        note = (
            f"Blocks and frames are drawn for pipelines and, of each stage, for the run with the "
            f"highest macro-F1 only, since there are more than {PICTURED} runs."
            if len(pictured) < len(runs)
            else ""
        )
        frame = _frame(shown, prefixes[shown.name])
        chapters.append(comparison_chapter(runs, unfinished, note, shown, frame))
    for number, run in enumerate(runs, 1):
        above = several and run is shown and len(run.samples.nodes) > 0
        chapters.append(
            _chapter(
                run,
                f"run-{number}",
                prefixes[run.name],
                pictures=run.name in pictured,
                above=above,
                alone=not several,
            )
        )
    title = f"{len(runs)} runs" if several else chapters[0].title
    return Document(title, _SUBTITLE, tuple(chapters), _footer(runs))


def _chapter(run: StageRun | PipelineRun, anchor: str, prefix: str, **options: bool) -> Chapter:
    if isinstance(run, PipelineRun):
        return pipeline_chapter(run, anchor, prefix, **options)
    return stage_chapter(run, anchor, prefix, **options)


def _frame(run: StageRun | PipelineRun, prefix: str) -> Picture | None:
    if isinstance(run, PipelineRun):
        return pipeline_frame(run, prefix)
    return stage_frame(run, prefix)


def _leading(runs: Sequence[StageRun | PipelineRun]) -> StageRun | PipelineRun:
    """Return the run that the page begins with: a pipeline if there is one, of several the best.

    The best run is the one with the largest margin of macro-F1 over the stronger guesser; runs
    that kept a frame come before others.
    """
    return max(
        runs,
        key=lambda run: (
            len(run.samples.nodes) > 0,
            isinstance(run, PipelineRun),
            run_scores(run)["macro_f1"].stronger.margin.estimate,
        ),
    )


def _order(run: StageRun | PipelineRun) -> tuple[str, str]:
    """Sort pipelines first, then stage by stage."""
    return (run.stage if isinstance(run, StageRun) else "", run.name)


def _pictured(runs: Sequence[StageRun | PipelineRun]) -> set[str]:
    """Return the names of the runs whose blocks and frames are drawn."""
    if len(runs) <= PICTURED:
        return {run.name for run in runs}
    best: dict[str, StageRun] = {}
    for run in runs:
        if isinstance(run, StageRun):
            known = best.get(run.stage)
            if known is None or _macro_f1(run) > _macro_f1(known):
                best[run.stage] = run
    pipelines = {run.name for run in runs if isinstance(run, PipelineRun)}
    return pipelines | {run.name for run in best.values()}


def _macro_f1(run: StageRun) -> float:
    return run_scores(run)["macro_f1"].value


_SUBTITLE = "AV1 block partitions: what the model predicts beside what the encoder chose."


def _footer(runs: Sequence[StageRun | PipelineRun]) -> str:
    hashes = sorted({str(run.environment.get("dataset", "manifest_sha256")) for run in runs})
    shown = ", ".join(f"`{digest[:12]}`" for digest in hashes[:4])
    more = f" and {len(hashes) - 4} more" if len(hashes) > 4 else ""
    data = "dataset" if len(hashes) == 1 else "datasets"
    return f"Written by av1part from run folders alone; {data} {shown}{more}."


def write_run_plots(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write a stage run's learning curves and confusion matrix to `plots/` of its folder.

    Args:
        folder: A run of a stage, finished but for its metrics.json.
        metrics: The content of metrics.json.

    Raises:
        ReportError: as `write_report`.
    """
    run = load_run(folder, metrics=metrics)
    assert isinstance(run, StageRun)
    guesses = {
        name: run.metrics.number("baselines", guesser, "macro_f1")
        for name, guesser in (("best constant", "constant"), ("class prior", "prior"))
    }
    figures = {
        "learning": learning_curves(run.history, best_epoch(run), guesses),
        "confusion": confusion_figure(run.confusion, run.class_names),
    }
    for name, figure in figures.items():
        write_text(folder / "plots" / f"{name}.svg", to_svg(figure))

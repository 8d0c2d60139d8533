"""A report's chapter on a sweep, and its tables and figures as files for a thesis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from av1part.defects import banner
from av1part.metrics.intervals import Interval
from av1part.metrics.statistics import mean_of
from av1part.report.chapters import sweep_findings as findings
from av1part.report.chapters import sweep_losses as losses
from av1part.report.chapters import sweep_tables as tables
from av1part.report.chapters.common import joined
from av1part.report.chapters.datasets import datasets_caveat
from av1part.report.chapters.frame import frame_viewer
from av1part.report.chapters.guessers import Score, mean_score, read_score
from av1part.report.chapters.scores import margins_picture, mixing_caveat
from av1part.report.chapters.stage import stage_frame
from av1part.report.chapters.sweep_final import on_test
from av1part.report.draw import sweep_figures as figures
from av1part.report.draw.explorer import explorer_html
from av1part.report.draw.svg import write_pdf
from av1part.report.render.csv import table_csv
from av1part.report.render.document import (
    Chapter,
    Headline,
    Interactive,
    Item,
    Picture,
    Prose,
    Section,
    picture,
)
from av1part.report.render.latex import table_latex
from av1part.report.render.markdown import table_markdown
from av1part.report.render.tables import Table, nats, percent, span
from av1part.report.sweep import Member, Sweep, Variant
from av1part.system.files import slug, write_text

RATES, BOTTLENECKS = "optimizer.lr.adapters", "adapter.bottleneck"
"""Settings that are drawn against each other, where both were varied."""


def sweep_tables(sweep: Sweep) -> dict[str, Table]:
    """Return the tables by the stems of their files."""
    all_tables = {
        "log-loss": losses.log_losses(sweep),
        "sizes": losses.by_size(sweep),
        "comparison": tables.comparison(sweep),
        "test": on_test(sweep),
        "criteria": findings.criteria(sweep),
        "pictures-log-loss": losses.by_picture(sweep),
        "pictures": findings.by_picture(sweep),
        "pictures-seeds": findings.over_both(sweep),
        "fewer": findings.with_fewer(sweep),
        "course-log-loss": losses.course(sweep),
        "course": tables.course(sweep),
        "early": findings.early(sweep),
        "first-best": findings.first_best(sweep),
        "classes": tables.classes(sweep),
        "qindex": findings.by_qindex(sweep),
        "cost": tables.cost(sweep),
    }
    return {name: table for name, table in all_tables.items() if table is not None}


def sweep_figures(sweep: Sweep) -> dict[str, tuple[Figure, str]]:
    """Return the figures with their captions, by the stems of their files."""
    base = f"`{sweep.baseline}` (grey, dashed)" if sweep.baseline else "no baseline"
    most = len(sweep.variants) > figures.MOST_PANELS
    score = "Log loss" if sweep.by_log_loss else "Macro-F1"
    of = f"the best {figures.MOST_PANELS} variants" if most else "each variant"
    drawn = {
        "curves": (
            figures.curves_figure(sweep),
            f"{score} on val over the epochs of {of}, mean over seeds and folds with a band of "
            f"one standard deviation, up to where the first of them stopped, against {base}.",
        ),
        "parameters": (
            figures.parameters_figure(sweep),
            f"{score} on val against the number of trained parameters, mean with 95% interval; "
            "the diamond is the baseline. Where names would overlap, that of the best is shown.",
        ),
        "classes": (
            figures.classes_figure(sweep),
            "F1 of each class on val, means over seeds and folds.",
        ),
        "best-epochs": (
            figures.best_epochs_figure(sweep),
            "Runs by their best epoch, counted from 0, over all variants.",
        ),
    }
    for variant, figure in figures.confusions(sweep):
        caption = f"Confusion of `{variant.name}` on val, all seeds and folds together."
        drawn[f"confusion-{slug(variant.name)}"] = (figure, caption)
    grid = figures.grid_figure(sweep, RATES, BOTTLENECKS)
    if grid is not None:
        caption = "Macro-F1 on val in percent by learning rate and bottleneck, means."
        drawn["grid"] = (grid, caption)
    return drawn


def sweep_chapter(sweep: Sweep, anchor: str, prefix: str) -> Chapter:
    """Write the chapter.

    Args:
        sweep: The sweep.
        anchor: Its id in the page.
        prefix: Of the names of its pictures.

    Returns:
        The chapter: best variant, comparison and tests, course of training, classes, cost.
    """
    tables_by_name = sweep_tables(sweep)
    drawn: dict[str, Picture] = {
        name: picture(f"{prefix}{name}", caption, figure)
        for name, (figure, caption) in sweep_figures(sweep).items()
    }
    confusions = [drawn[name] for name in drawn if name.startswith("confusion-")]
    grid = [drawn["grid"]] if "grid" in drawn else []
    first: list[Item] = defective_variants(sweep)
    if sweep.missing:
        names = ", ".join(f"`{name}`" for name in sweep.missing[:8])
        first.append(
            Prose(f"{len(sweep.missing)} jobs have no result, such as {names}.", warns=True)
        )
    first += [Prose(text) for text in (sweep_verdict(sweep), *caveats(sweep))]
    courses = [tables_by_name[n] for n in ("course-log-loss", "course") if n in tables_by_name]
    judged = ("log-loss", "sizes", "comparison")
    first += [tables_by_name[name] for name in judged if name in tables_by_name]
    first += [drawn["parameters"], *grid]
    return Chapter(
        anchor,
        f"Sweep {sweep.experiment}",
        (
            Section("Comparison", tuple(first)),
            *_section("The test split", tables_by_name, "test"),
            *_section("The study's criteria", tables_by_name, "criteria"),
            *_section(
                "Other pictures",
                tables_by_name,
                *("pictures-log-loss", "pictures", "pictures-seeds", "fewer"),
            ),
            *_side_by_side(sweep, f"{prefix}explorer"),
            Section("Training", (*courses, drawn["curves"], drawn["best-epochs"])),
            *_section("Early epochs", tables_by_name, "early", "first-best"),
            Section("Classes", (tables_by_name["classes"], drawn["classes"], *confusions)),
            *_section("Quantisers", tables_by_name, "qindex"),
            Section("Cost", (tables_by_name["cost"],)),
        ),
        _lead(sweep, prefix),
    )


def defective_variants(sweep: Sweep) -> list[Item]:
    """Return a paragraph for each variant that is defective on purpose."""
    found = {
        variant.name: tuple({name: None for m in variant.members for name in m.run.defects})
        for variant in sweep.variants
    }
    return [
        Prose(f"`{name}`: {banner(defects)}", warns=True)
        for name, defects in sorted(found.items())
        if defects
    ]


def _lead(sweep: Sweep, prefix: str) -> tuple[Item, ...]:
    """Return frame and result of the best variant, and the margins of all."""
    best = sweep.variants[0]
    middle = findings.middle_member(best).run
    frames = joined(stage_frame(middle, prefix), frame_viewer(middle))
    note = "Intervals by Student's t over seeds and folds."
    if sweep.by_log_loss:
        below = {variant.name: losses.margin_below_prior(variant) for variant in sweep.variants}
        what = "How far the mean log loss is below the class prior's, one row for each variant"
        title = "Log loss below the class prior's"
        drawing = margins_picture(f"{prefix}margins", below, what, note, title, nats=True)
        return (*frames, Headline(losses.loss_sentence(best)), drawing)
    margins = {variant.name: _margin(variant) for variant in sweep.variants}
    what = "Mean of macro-F1 above the stronger of the two guessers, one row for each variant"
    title = "Macro-F1 above the stronger guesser"
    drawing = margins_picture(f"{prefix}margins", margins, what, note, title)
    return (*frames, Headline(_headline(best)), drawing)


def _margin(variant: Variant) -> Interval:
    """Return the mean margin of macro-F1 over the stronger guesser, with its t interval."""
    mean = mean_of([_macro_f1(member).stronger.margin.estimate for member in variant.members])
    return Interval(mean.mean, mean.low, mean.high)


def _macro_f1(member: Member) -> Score:
    return read_score("macro_f1", member.run.metrics, member.run.metrics)


def _headline(best: Variant) -> str:
    score = mean_score([_macro_f1(member) for member in best.members])
    runs = len(best.members)
    margin = _margin(best)
    side = "above" if margin.estimate >= 0 else "below"
    interval = f" (95% interval {span(margin, signed=True)})" if margin.low is not None else ""
    return (
        f"Best variant `{best.name}`: macro-F1 is {percent(score.value)}%, the mean of {runs} "
        f"run{'' if runs == 1 else 's'}, {percent(abs(margin.estimate))} points {side} the "
        f"{score.stronger.name}'s {percent(score.stronger.value)}%{interval}."
    )


def _section(title: str, tables_by_name: Mapping[str, Table], *names: str) -> tuple[Section, ...]:
    """Return a section of those tables that there are, if there are any."""
    present = tuple(tables_by_name[name] for name in names if name in tables_by_name)
    return (Section(title, present),) if present else ()


def _side_by_side(sweep: Sweep, element: str) -> tuple[Section, ...]:
    """Return the section in which a reader chooses two variants, if there are two."""
    html = explorer_html(sweep, element)
    if not html:
        return ()
    instead = "On the page two variants can be chosen and compared; this is the text alone."
    return (Section("Two variants side by side", (Interactive(html, instead),)),)


def sweep_verdict(sweep: Sweep) -> str:
    """Return what the tests support, in a sentence or two."""
    runs = sum(len(variant.members) for variant in sweep.variants)
    best = sweep.variants[0]
    by_loss = sweep.by_log_loss
    mean = (
        f"log loss {nats(best.score.mean)} nats (less is better)"
        if by_loss
        else f"macro-F1 {percent(best.best.mean)} %"
    )
    variants = len(sweep.variants)
    text = f"{runs} runs of {variants} variants; `{best.name}` has the best mean, {mean}."
    if sweep.baseline is None:
        return f"{text} Without a baseline nothing is tested."
    better, worse = (
        [
            f"`{name}` ({nats(difference.mean, signed=True)})"
            if by_loss
            else f"`{name}` ({100 * difference.mean:+.2f})"
            for name, difference in sweep.differences.items()
            if difference.significant and sweep.is_better(difference) == wanted
        ]
        for wanted in (True, False)
    )
    unit = "nats" if by_loss else "points"
    sentences = [
        f"Significantly {side} than `{sweep.baseline}`, in {unit}: {', '.join(names)}."
        for side, names in (("better", better), ("worse", worse))
        if names
    ]
    none = f"No variant differs significantly from `{sweep.baseline}`."
    return " ".join([text, *(sentences or [none])]).replace("(-", "(−")


def caveats(sweep: Sweep) -> list[str]:
    """Return warnings: of several datasets, of protocols that put a picture on both sides."""
    protocols = [str(protocol) for protocol in sweep.dataset_facts("split")]
    several = datasets_caveat([m.run for variant in sweep.variants for m in variant.members])
    return [caveat for caveat in (several, *map(mixing_caveat, protocols)) if caveat]


def write_sweep_files(sweep: Sweep, out: Path) -> Mapping[str, Path]:
    """Write tables as Markdown, CSV and LaTeX, and figures as SVG and PDF.

    Args:
        sweep: The sweep.
        out: Folder that gets `tables/` and `figures/`; the page has the same pictures.

    Returns:
        The files by their names below `out`.
    """
    written = {}
    for name, tab in sweep_tables(sweep).items():
        for ending, text in (
            ("md", table_markdown(tab) + "\n"),
            ("csv", table_csv(tab)),
            ("tex", table_latex(tab, label=f"tab:{sweep.slug}-{name}")),
        ):
            written[f"tables/{name}.{ending}"] = text
    paths = {name: out / name for name in written}
    for name, text in written.items():
        write_text(paths[name], text)
    for name, (figure, _) in sweep_figures(sweep).items():
        paths[f"figures/{name}.pdf"] = out / "figures" / f"{name}.pdf"
        write_pdf(figure, paths[f"figures/{name}.pdf"])
    return paths

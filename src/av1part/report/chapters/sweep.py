"""A report's chapter on a sweep, and its tables and figures as files for a thesis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from av1part.report.chapters import sweep_findings as findings
from av1part.report.chapters import sweep_tables as tables
from av1part.report.chapters.scores import mixing_caveat
from av1part.report.draw import sweep_figures as figures
from av1part.report.draw.explorer import explorer_html
from av1part.report.draw.svg import write_pdf
from av1part.report.render.document import (
    Chapter,
    Interactive,
    Item,
    Picture,
    Prose,
    Section,
    picture,
)
from av1part.report.render.tables import Table, to_csv, to_latex, to_markdown
from av1part.report.sweep import Sweep
from av1part.system.files import slug, write_text

RATES, BOTTLENECKS = "optimizer.lr.adapters", "adapter.bottleneck"
"""Settings that are drawn against each other, where both were varied."""


def sweep_tables(sweep: Sweep) -> dict[str, Table]:
    """Return the tables by the stems of their files."""
    told = {
        "comparison": tables.comparison(sweep),
        "test": findings.on_test(sweep),
        "criteria": findings.criteria(sweep),
        "pictures": findings.by_picture(sweep),
        "course": tables.course(sweep),
        "early": findings.early(sweep),
        "first-best": findings.first_best(sweep),
        "classes": tables.classes(sweep),
        "qindex": findings.by_qindex(sweep),
        "cost": tables.cost(sweep),
    }
    return {name: each for name, each in told.items() if each is not None}


def sweep_figures(sweep: Sweep) -> dict[str, tuple[Figure, str]]:
    """Return the figures with their captions, by the stems of their files."""
    base = f"`{sweep.baseline}` (grey, dashed)" if sweep.baseline else "no baseline"
    most = len(sweep.variants) > figures.MOST_PANELS
    of = f"the best {figures.MOST_PANELS} variants" if most else "each variant"
    found = {
        "curves": (
            figures.curves_figure(sweep),
            f"Macro-F1 on val over the epochs of {of}, mean over seeds and folds with a band of "
            f"one standard deviation, up to where the first of them stopped, against {base}.",
        ),
        "parameters": (
            figures.parameters_figure(sweep),
            "Macro-F1 on val against the number of trained parameters, mean with 95% interval; "
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
        found[f"confusion-{slug(variant.name)}"] = (figure, caption)
    grid = figures.grid_figure(sweep, RATES, BOTTLENECKS)
    if grid is not None:
        caption = "Macro-F1 on val in percent by learning rate and bottleneck, means."
        found["grid"] = (grid, caption)
    return found


def sweep_chapter(sweep: Sweep, anchor: str, prefix: str) -> Chapter:
    """Write the chapter.

    Args:
        sweep: What to tell.
        anchor: Its id in the page.
        prefix: Of the names of its pictures.

    Returns:
        The chapter: comparison and verdicts, course, classes, cost.
    """
    told = sweep_tables(sweep)
    drawn: dict[str, Picture] = {
        name: picture(f"{prefix}{name}", caption, figure)
        for name, (figure, caption) in sweep_figures(sweep).items()
    }
    confusions = [drawn[name] for name in drawn if name.startswith("confusion-")]
    grid = [drawn["grid"]] if "grid" in drawn else []
    first: list[Item] = []
    if sweep.missing:
        names = ", ".join(f"`{name}`" for name in sweep.missing[:8])
        first.append(
            Prose(f"{len(sweep.missing)} jobs have no result, such as {names}.", warns=True)
        )
    first += [Prose(text) for text in (verdict(sweep), *caveats(sweep))]
    first += [told["comparison"], drawn["parameters"], *grid]
    return Chapter(
        anchor,
        f"Sweep {sweep.experiment}",
        (
            Section("Comparison", tuple(first)),
            *_of("The test split", told, "test"),
            *_of("The study's criteria", told, "criteria"),
            *_of("Other pictures", told, "pictures"),
            *_beside(sweep, f"{prefix}explorer"),
            Section("Training", (told["course"], drawn["curves"], drawn["best-epochs"])),
            *_of("Early epochs", told, "early", "first-best"),
            Section("Classes", (told["classes"], drawn["classes"], *confusions)),
            *_of("Quantisers", told, "qindex"),
            Section("Cost", (told["cost"],)),
        ),
    )


def _of(title: str, told: Mapping[str, Table], *names: str) -> tuple[Section, ...]:
    """Return a section of those tables that there are, if there are any."""
    found = tuple(told[name] for name in names if name in told)
    return (Section(title, found),) if found else ()


def _beside(sweep: Sweep, element: str) -> tuple[Section, ...]:
    """Return the section in which a reader chooses two variants, if there are two."""
    html = explorer_html(sweep, element)
    if not html:
        return ()
    instead = "On the page two variants can be chosen and compared; this is the text alone."
    return (Section("Two variants side by side", (Interactive(html, instead),)),)


def verdict(sweep: Sweep) -> str:
    """Say in a sentence or two what the tests support."""
    runs = sum(len(variant.members) for variant in sweep.variants)
    best = sweep.variants[0]
    text = (
        f"{runs} runs of {len(sweep.variants)} variants; the best mean has `{best.name}`, macro-F1 "
        f"{100 * best.best.mean:.2f} %."
    )
    if sweep.baseline is None:
        return f"{text} Without a baseline nothing is tested."
    better, worse = (
        [
            f"`{name}` ({100 * each.mean:+.2f})"
            for name, each in sweep.differences.items()
            if each.significant and (each.mean > 0) == above
        ]
        for above in (True, False)
    )
    said = [
        f"{what} than `{sweep.baseline}`, in points: {', '.join(names)}."
        for what, names in (("Better", better), ("Worse", worse))
        if names
    ]
    nothing = f"These runs tell no variant from `{sweep.baseline}`."
    return " ".join([text, *(said or [nothing])]).replace("(-", "(−")


def caveats(sweep: Sweep) -> list[str]:
    """Say of each protocol that puts parts of a picture on both sides what that does."""
    protocols = [str(protocol) for protocol in sweep.dataset_facts("split")]
    return [caveat for caveat in map(mixing_caveat, protocols) if caveat]


def write_sweep_files(sweep: Sweep, out: Path) -> Mapping[str, Path]:
    """Write tables as Markdown, CSV and LaTeX, and figures as SVG and PDF.

    Args:
        sweep: What to tell.
        out: Folder that gets `tables/` and `figures/`; the page has the same pictures.

    Returns:
        The files by their names below `out`.
    """
    written = {}
    for name, tab in sweep_tables(sweep).items():
        for ending, text in (
            ("md", to_markdown(tab) + "\n"),
            ("csv", to_csv(tab)),
            ("tex", to_latex(tab, label=f"tab:{sweep.slug}-{name}")),
        ):
            written[f"tables/{name}.{ending}"] = text
    paths = {name: out / name for name in written}
    for name, text in written.items():
        write_text(paths[name], text)
    for name, (figure, _) in sweep_figures(sweep).items():
        paths[f"figures/{name}.pdf"] = out / "figures" / f"{name}.pdf"
        write_pdf(figure, paths[f"figures/{name}.pdf"])
    return paths

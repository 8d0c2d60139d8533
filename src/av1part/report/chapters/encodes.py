"""The chapters on an encoding comparison: one an anchor, and what was encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from av1part.report.chapters import encodes_tables as tables
from av1part.report.chapters.encodes_verdict import verdict
from av1part.report.draw.pareto import outside, pareto_figure
from av1part.report.encodes import AnchorComparison
from av1part.report.render.document import (
    Chapter,
    Document,
    Facts,
    Headline,
    Item,
    Prose,
    Section,
    picture,
)
from av1part.report.render.tables import Table, count, percent
from av1part.report.savings import repeat_spread
from av1part.runs.encodes import Encodes
from av1part.system.files import slug

_FEW_CLIPS = 10
"""Below this the percentile bootstrap is known to be too narrow."""

_SUBTITLE = "What a choice of partitions saves inside the encoder, and what it loses."


def encodes_document(encodes: Encodes, comparisons: Sequence[AnchorComparison]) -> Document:
    """Compose the report on a comparison.

    Args:
        encodes: Its plan and rows.
        comparisons: One an anchor, see `report.savings.compare`.

    Returns:
        The document; the anchor with which learned points can be compared comes first.
    """
    ordered = sorted(comparisons, key=lambda comparison: -_learned(comparison))
    chapters = [_chapter(encodes, comparison) for comparison in ordered]
    title = f"{count(len(encodes.points))} points on {_clips(len(encodes.clips))}"
    plan = Chapter("plan", "What was encoded", (Section("The plan", _plan(encodes)),))
    footer = "Written by av1part from `plan.json` and `encodes.jsonl` alone."
    return Document(title, _SUBTITLE, (*chapters, plan), footer, "av1part encode")


def _learned(comparison: AnchorComparison) -> int:
    """Rate an anchor: 2 if a learned point has its superblock size, 1 if there is another one."""
    learned = [change.same_size for change in comparison.points if change.point.kind == "learned"]
    return 2 if any(learned) else int(bool(learned))


def _chapter(encodes: Encodes, comparison: AnchorComparison) -> Chapter:
    name = comparison.anchor.name
    lead: list[Item] = [Headline(_unfinished_words(encodes) + verdict(comparison))]
    lead += [Prose(text, warns=True) for text in _caveats(encodes, comparison)]
    if any(comparison.judged(change) for change in comparison.points):
        caption = (
            f"Savings against BD-rate, both against `{name}`: right and low is better. Lines join "
            "the presets of one superblock size, slow to fast; light bars are intervals over clips."
        )
        far = [f"`{change.point.name}`" for change in outside(comparison)]
        caption += f" Too far away to be drawn: {', '.join(far)}." if far else ""
        lead.append(picture(f"pareto-{slug(name)}", caption, pareto_figure(comparison)))
    return Chapter(
        f"against-{slug(name)}",
        f"Against {name}",
        (
            Section("Savings and losses", (tables.savings_table(comparison),)),
            Section("By measure of quality", (tables.qualities_table(comparison),)),
            *_section("Curves without a BD-rate", tables.bad_table(comparison)),
            *_section("By class of content", tables.content_table(comparison)),
            Section("By cq level", (tables.level_table(comparison),)),
            Section("By clip", tables.clip_tables(comparison)),
        ),
        tuple(lead),
    )


def _section(title: str, tab: Table | None) -> tuple[Section, ...]:
    return () if tab is None else (Section(title, (tab,)),)


def _unfinished_words(encodes: Encodes) -> str:
    if encodes.finished:
        return ""
    return f"UNFINISHED, {count(len(encodes.rows))} of {count(encodes.planned)} encodes: "


def _caveats(encodes: Encodes, comparison: AnchorComparison) -> Iterator[str]:
    """Yield what a reader of the table must know."""
    if not encodes.finished:
        yield (
            f"This folder is unfinished: {count(len(encodes.rows))} of {count(encodes.planned)} "
            "encodes have ended. Only clips and cq levels that are complete for both a point and "
            "the anchor enter, so points may be averaged over different clips. Start the same "
            "command again to finish it."
        )
    beside = len(encodes.rows.filter(encodes.rows["jobs"] > 1))
    if beside and comparison.measure == "work":
        yield (
            f"{count(beside)} of {count(len(encodes.rows))} encodes ran beside others (`jobs` "
            "above 1), so their seconds do not count: ratio, plot and domination go by work. "
            "Work does not see what a faster preset saves inside a candidate: it makes presets "
            "look slower than they are beside hints."
        )
    if comparison.measure == "time":
        spread = repeat_spread(encodes)
        yield (
            "Every encode was timed once, and single times can be far off: believe a saving in "
            "time that the work confirms, or give `repeats=3`."
            if spread is None
            else f"Repeats of one encode differ by {percent(spread)} % in time on average; medians "
            "are compared."
        )
    bad = comparison.bad
    if bad:
        clips = sorted({clip for clip, *_ in bad})
        yield (
            f"{len(bad)} curve{'' if len(bad) == 1 else 's'} of {_clips(len(clips))} could not be "
            "compared. They are listed below and enter no average, so that the BD-rates of two "
            "points may be averages over different clips."
        )
    n = max((loss.clusters or 0 for c in comparison.points if (loss := c.loss())), default=0)
    if n == 1:
        yield "BD-rates are of one clip, hence without interval: they say nothing of other clips."
    elif 1 < n < _FEW_CLIPS:
        yield f"Intervals come from {n} clips only: with so few they are too narrow."


def _clips(number: int) -> str:
    return f"{count(number)} clip{'' if number == 1 else 's'}"


def _plan(encodes: Encodes) -> tuple[Item, ...]:
    facts = dict(_flat(encodes.facts))
    levels = ", ".join(map(str, encodes.cq_levels))
    pairs = (("cq levels", levels), *((key, f"`{value}`") for key, value in facts.items()))
    return (Facts(pairs), *tables.plan_tables(encodes))


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the facts of a plan that are single values, with dotted keys."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            if key not in ("points", "clips"):
                yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float):
            yield f"{prefix}{key}", str(value)

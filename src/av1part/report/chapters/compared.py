"""The chapter on a comparison of predictors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from av1part.metrics.calibration import Reliability, reliability_of
from av1part.report.chapters import compared_tables as tables
from av1part.report.chapters.adapting import adapting_section, summary_table, verdict
from av1part.report.chapters.common import joined
from av1part.report.chapters.compared_seeds import seeds_tables, sizes_table
from av1part.report.chapters.learning_curve import curve_table
from av1part.report.draw.reliability import reliability_panels
from av1part.report.render.document import (
    Chapter,
    Document,
    Facts,
    Headline,
    Item,
    Picture,
    Prose,
    Section,
    picture,
)
from av1part.report.render.tables import Table, count, p_text, percent
from av1part.runs.compared import Compared
from av1part.runs.fields import Fields

_FEW_PICTURES = 10
"""Below this the percentile bootstrap is known to be too narrow."""

_SUBTITLE = "What predictors score on the same labelled nodes, none of which they were trained on."
_FOOTER = "Written by av1part from `scores.json` and `pictures.parquet` alone."
_LEADING_SIZE = "16"


def compared_document(compared: Compared) -> Document:
    """Compose the report on a comparison.

    Args:
        compared: The folder.

    Returns:
        The document, of one chapter.
    """
    sizes = list(compared.record.children("sizes"))
    lead: list[Item] = [Headline(_verdict(compared))]
    lead += [Prose(text, warns=True) for text in _caveats(compared)]
    sections = [
        *([adapting_section(compared)] if _is_adapted(compared) else []),
        *(
            Section(
                f"Nodes of {size}x{size}",
                joined(
                    tables.scores_table(compared, size), tables.differences_table(compared, size)
                ),
            )
            for size in sizes
        ),
        *_stage2(compared),
        *_seeds(compared),
        Section("Calibration", (reliability_picture(compared),)),
        Section("Sets", tuple(tables.sets_table(compared, size) for size in sizes)),
        Section("By quantiser", tuple(tables.qindex_table(compared, size) for size in sizes)),
        Section("What was scored", (_facts(compared), tables.predictors_table(compared))),
    ]
    names = len(compared.predictors)
    title = f"{names} predictor{'' if names == 1 else 's'} on {_pictures(compared)}"
    if _is_adapted(compared):
        lead.insert(0, Headline(f"On the rest of this clip, {verdict(compared)}."))
    chapter = Chapter("predictors", "Predictors", tuple(sections), tuple(lead))
    return Document(title, _SUBTITLE, (chapter,), _FOOTER, "av1part compare")


def _is_adapted(compared: Compared) -> bool:
    return compared.record.get("adapting") is not None


def _stage2(compared: Compared) -> tuple[Section, ...]:
    if compared.record.get("stage2") is None:
        return ()
    found = joined(tables.stage2_table(compared), tables.stage2_differences(compared))
    return (Section("Stage 2", found),)


def _seeds(compared: Compared) -> tuple[Section, ...]:
    found = tuple(seeds_tables(compared).values())
    return (Section("Over seeds", found),) if found else ()


def compared_tables(compared: Compared) -> dict[str, Table]:
    """Return the tables of the report, and of a learning curve, by name.

    Args:
        compared: The folder.

    Returns:
        `sizes`; `scores-SIZE`, `differences-SIZE`, `sets-SIZE` and `qindex-SIZE` of each size;
        `stage2`, `stage2-differences`, `adapting`, `predictors`, those of `seeds_tables`, and
        `learning-curve`, as far as there are such.
    """
    found: dict[str, Table | None] = {"sizes": sizes_table(compared)}
    for size in compared.record.children("sizes"):
        found[f"scores-{size}"] = tables.scores_table(compared, size)
        found[f"differences-{size}"] = tables.differences_table(compared, size)
        found[f"sets-{size}"] = tables.sets_table(compared, size)
        found[f"qindex-{size}"] = tables.qindex_table(compared, size)
    if compared.record.get("stage2") is not None:
        found["stage2"] = tables.stage2_table(compared)
        found["stage2-differences"] = tables.stage2_differences(compared)
    if _is_adapted(compared):
        found["adapting"] = summary_table(compared)
    found["predictors"] = tables.predictors_table(compared)
    found |= seeds_tables(compared)
    found["learning-curve"] = curve_table(compared)
    return {name: each for name, each in found.items() if each is not None}


def _pictures(compared: Compared) -> str:
    pictures = compared.record.integer("data", "pictures")
    return f"{count(pictures)} picture{'' if pictures == 1 else 's'}"


def _verdict(compared: Compared) -> str:
    """Say what the reference scores, and which others differ from it, at the leading size."""
    sizes = list(compared.record.children("sizes"))
    size = _LEADING_SIZE if _LEADING_SIZE in sizes else sizes[0]
    predictors = tables.of_size(compared, size)
    first = compared.against if compared.against in predictors else next(iter(predictors))
    scores = predictors[first].child("scores")
    constant = compared.record.number("sizes", size, "constant", "accuracy", "estimate")
    text = (
        f"At {size}x{size}, `{first}` has a log loss of "
        f"{tables.decimals(scores.number('log_loss', 'estimate'))} and an accuracy of "
        f"{percent(scores.number('accuracy', 'estimate'))} % (best constant: "
        f"{percent(constant)} %)."
    )
    others = [
        f"`{name}` {tables.decimals(value, signed=True)}{_test(record)}"
        for name, record in predictors.items()
        if (value := record.optional("difference", "log_loss", "estimate")) is not None
    ]
    return f"{text} Log loss less that: {'; '.join(others)}." if others else text


def _test(record: Fields) -> str:
    """Return the interval of a difference in log loss and the test's p value, if there are any."""
    limits = tables.limits(record.interval("difference", "log_loss"), signed=True)
    p = record.optional("difference", "log_loss", "p_holm")
    return f" {limits}" + ("" if p is None else f" (p {p_text(p)})") if "[" in limits else ""


def _caveats(compared: Compared) -> Iterator[str]:
    """Yield what a reader of the tables must know."""
    record = compared.record
    for size, facts in record.children("left_out").items():
        nodes = ", ".join(
            f"{count(facts.number('nodes', t))} {t}" for t in facts.child("nodes").data
        )
        lacking = tables.list_texts([f"`{name}`" for name in facts.texts("lacking")])
        yield (
            f"Left out for all predictors at {size}x{size}: {nodes}, types that {lacking} "
            f"{'does' if len(facts.texts('lacking')) == 1 else 'do'} not know. What others say of "
            "these types is left out, and the rest scaled to sum to 1."
        )
    floored = [
        f"`{name}` {count(raised)} at {size}x{size}"
        for size in record.children("sizes")
        for name, own in tables.of_size(compared, size).items()
        if (raised := own.integer("floored"))
    ]
    if floored:
        yield (
            f"Types held to be impossible that were the true one, counted with a probability of "
            f"{record.number('floor'):g} in the log loss: {'; '.join(floored)}."
        )
    pictures = record.integer("data", "pictures")
    if (clip := record.get("data", "clip")) is not None:
        yield (
            f"Pictures are frames of one clip, `{clip}`: intervals and tests say how far results "
            "depend on its frames, not what other clips would give."
        )
    if pictures == 1:
        yield "All nodes are of one picture, hence no intervals: no word on other pictures."
    elif pictures < _FEW_PICTURES:
        yield f"Intervals come from {pictures} pictures only: with so few they are too narrow."


def reliability_picture(compared: Compared) -> Picture:
    """Draw the reliability diagrams of all sizes and predictors."""
    panels = {
        f"{size}x{size}": {
            name: _bins(own.child("reliability"))
            for name, own in tables.of_size(compared, size).items()
        }
        for size in compared.record.children("sizes")
    }
    caption = (
        "Accuracy of the most probable type against its probability, in 15 bins of equal width; "
        "bins with less than a thousandth of the nodes are left out. On the dashed line "
        "probabilities mean what they say; below it they are too high."
    )
    return picture("reliability", caption, reliability_panels(panels))


def _bins(record: Fields) -> Reliability:
    nodes = np.array(record.numbers("nodes"))
    confidence, accuracy = (
        np.array([value or 0.0 for value in record.get(key)]) for key in ("confidence", "accuracy")
    )
    return reliability_of(nodes, nodes * confidence, nodes * accuracy)


def _facts(compared: Compared) -> Facts:
    data = compared.record.child("data")
    labels = {
        **{key: key for key in ("dataset", "split", "protocol")},
        **{"split_list": "split list", "split_seed": "split seed", "pictures": "pictures"},
        "clip": "clip",
        "views": "frames, each at a qindex",
    }
    pairs = [(text, f"`{data.get(k)}`") for k, text in labels.items() if data.get(k) is not None]
    pairs.append(("manifest", f"`{data.text('manifest_sha256')[:12]}`"))
    pairs.append(("qindexes", ", ".join(f"{q:.0f}" for q in data.numbers("qindexes"))))
    fitted = compared.record.get("weights", "fitted_on", "dataset")
    if fitted is not None:
        pairs.append(("class weights", f"fitted on val of `{fitted}`"))
    return Facts(tuple(pairs))

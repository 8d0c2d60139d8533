"""Two variants of a sweep beside each other, chosen on the page: curves, confusion, blocks.

Vega-Lite draws it in the reader's browser from data and specification in the page; nothing is
loaded from anywhere. What is chosen are parameters of the specification, so there is no script of
ours: a row of data is shown or not by an expression.
"""

from __future__ import annotations

import base64
import io

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from av1part.report.draw.svg import BLUE, INK, MUTED, ORANGE, RULE
from av1part.report.sweep import Member, Sweep
from av1part.runs.schema import f1_column
from av1part.runs.tables import by_epoch

Layered = alt.LayerChart | alt.FacetChart
"""What Altair makes of layers."""

ELEMENT = "explorer"
"""Id of the element on the page."""
MACRO = "all (macro)"
"""The choice of all classes."""
_FONT = "system-ui, Liberation Sans, DejaVu Sans, sans-serif"
_MOST_BLOCKS = 300
"""Blocks that are looked through."""
_SHOWN, _ACROSS = 48, 12
"""Blocks that are shown, in all and in a row."""


def explorer_html(sweep: Sweep, element: str = ELEMENT) -> str:
    """Return the element with its data and scripts; empty if there is nothing to compare.

    Args:
        sweep: Of at least two variants.
        element: Id of the element, unique within the page.

    Returns:
        HTML that needs no other file.
    """
    if len(sweep.variants) < 2:
        return ""
    with alt.data_transformers.enable("default", max_rows=None):
        return str(
            explorer_chart(sweep).to_html(
                fullhtml=False,
                inline=True,
                output_div=element,
                embed_options={"actions": False, "renderer": "svg"},
            )
        )


def explorer_chart(sweep: Sweep) -> alt.VConcatChart:
    """Return the specification; names of columns have no dot, which Vega takes for a path."""
    names = [variant.name for variant in sweep.variants]
    second = sweep.baseline if sweep.baseline not in (None, names[0]) else names[1]
    columns: list[str] = ["macro-F1", "sd", "final", "drop", *sweep.class_names, "trained"]

    def choice(name: str, label: str, options: list[str], value: str) -> alt.Parameter:
        return alt.param(
            name=name, value=value, bind=alt.binding_select(options=options, name=f"{label} ")
        )

    chosen = [
        choice("by", "sort by", columns, columns[0]),
        choice("first", "first", names, names[0]),
        choice("second", "second", names, str(second)),
        choice("cls", "class", [MACRO, *sweep.class_names], MACRO),
    ]
    rows = [
        _table(sweep, columns),
        alt.hconcat(_curves(sweep), _confusion(sweep), spacing=48),
    ]
    pictured = all(len(m.run.samples.node) for v in sweep.variants for m in v.members)
    if sweep.same_nodes and pictured:  # else their samples are of different blocks
        pairs = (("first", "second"), ("second", "first"))
        rows.append(alt.hconcat(*(_blocks(sweep, *names) for names in pairs), spacing=48))
    chart: alt.VConcatChart = (
        alt.vconcat(*rows, spacing=28)
        .add_params(*chosen)
        .configure(background="transparent", font=_FONT)
        .configure_view(stroke=None)
        .configure_axis(
            gridColor=RULE, domainColor=MUTED, tickColor=MUTED, labelColor=INK, titleColor=INK
        )
        .configure_title(anchor="start", color=INK, fontSize=12)
        .configure_text(color=INK)
        .configure_legend(labelColor=INK)
    )
    return chart


def _table(sweep: Sweep, columns: list[str]) -> alt.HConcatChart:
    """Return the variants' figures as text, in the order that is chosen."""
    rows = []
    for variant in sweep.variants:
        members = variant.members
        f1 = np.mean([member.class_f1 for member in members], axis=0)
        values = [
            100 * variant.best.mean,
            100 * (variant.best.sd or 0.0),
            100 * float(np.mean([member.final for member in members])),
            100 * float(np.mean([member.final - member.best for member in members])),
            *(100 * f1),
            variant.number("trainable_parameters"),
        ]
        rows.append(
            {"variant": variant.name, **{c: float(v) for c, v in zip(columns, values, strict=True)}}
        )
    base = (
        alt.Chart(pl.DataFrame(rows))
        .transform_calculate(key="datum[by]", shown="truncate(datum.variant, 44, 'center')")
        .transform_window(row="row_number()", sort=[alt.SortField("key", order="descending")])
    )
    colour = alt.Color(
        condition=[
            alt.ConditionalPredicateValueDefstringnullExprRef(
                test="datum.variant == first", value=BLUE
            ),
            alt.ConditionalPredicateValueDefstringnullExprRef(
                test="datum.variant == second", value=ORANGE
            ),
        ],
        value=INK,
    )
    row = alt.Y("row:O", axis=None)
    height = alt.Step(16)
    names = (
        base.mark_text(align="left", fontSize=11)
        .encode(y=row, text="shown:N", x=alt.value(0), color=colour)
        .properties(width=270, height=height)
    )
    values = (
        base.transform_fold([*columns], as_=["column", "value"])
        .transform_calculate(
            text="datum.column == 'trained' ? format(datum.value, ',') : format(datum.value, '.2f')"
        )
        .mark_text(align="right", fontSize=11, dx=24)
        .encode(
            y=row,
            x=alt.X(
                "column:N",
                sort=columns,
                axis=alt.Axis(orient="top", labelAngle=0, title=None, domain=False, ticks=False),
            ),
            text="text:N",
            color=colour,
        )
        .properties(width=62 * len(columns), height=height)
    )
    return alt.hconcat(names, values, spacing=8, title="Variants: macro-F1 and F1 in percent")


def _curves(sweep: Sweep) -> Layered:
    """Return macro-F1, or the F1 of the chosen class, over the epochs, with bands."""
    rows = []
    for variant in sweep.variants:
        for name in (MACRO, *sweep.class_names):
            column = "macro_f1" if name == MACRO else f1_column(name)
            curves = [
                100 * by_epoch(member.run.history, column)
                for member in variant.members
                if column in member.run.history.columns
            ]
            length = min((len(curve) for curve in curves), default=0)
            for epoch, values in enumerate(np.array([c[:length] for c in curves]).T):
                spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
                mean = float(values.mean())
                rows.append((variant.name, name, epoch, mean, mean - spread, mean + spread))
    table = pl.DataFrame(
        rows, schema=["variant", "class", "epoch", "mean", "low", "high"], orient="row"
    ).with_columns(pl.col("mean", "low", "high").round(3))
    base = (
        alt.Chart(table)
        .transform_filter("datum.variant == first || datum.variant == second")
        .transform_filter("datum['class'] == cls")
        .transform_calculate(which="datum.variant == first ? 'first' : 'second'")
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d")),
            color=alt.Color(
                "which:N",
                scale=alt.Scale(domain=["first", "second"], range=[BLUE, ORANGE]),
                legend=alt.Legend(title=None, orient="top"),
            ),
        )
    )
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("low:Q", title="F1 on val (%)", scale=alt.Scale(zero=False)), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=2).encode(y="mean:Q")
    title = "Mean and one standard deviation, to where the first run stopped"
    return alt.layer(band, line).properties(width=360, height=220, title=title)


def _confusion(sweep: Sweep) -> Layered:
    """Return by how many points of its true class each cell of the two matrices differs."""
    rows = []
    for variant in sweep.variants:
        matrix = variant.confusion
        share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        rows += [
            (variant.name, true, predicted, round(float(share[i, j]), 3))
            for i, true in enumerate(sweep.class_names)
            for j, predicted in enumerate(sweep.class_names)
        ]
    table = pl.DataFrame(rows, schema=["variant", "true", "predicted", "share"], orient="row")
    base = (
        alt.Chart(table)
        .transform_filter(f"cls == '{MACRO}' || datum['true'] == cls")
        .transform_calculate(
            signed="(datum.variant == first ? datum.share : 0)"
            " - (datum.variant == second ? datum.share : 0)"
        )
        .transform_aggregate(difference="sum(signed)", groupby=["true", "predicted"])
        .encode(
            x=alt.X(
                "predicted:N",
                sort=list(sweep.class_names),
                axis=alt.Axis(labelAngle=0, orient="top", domain=False, ticks=False),
            ),
            y=alt.Y(
                "true:N",
                sort=list(sweep.class_names),
                axis=alt.Axis(domain=False, ticks=False),
            ),
        )
    )
    cells = base.mark_rect(opacity=0.7).encode(
        color=alt.Color(
            "difference:Q",
            scale=alt.Scale(domain=[-20, 0, 20], range=[ORANGE, "#ffffff00", BLUE], clamp=True),
            legend=None,
        )
    )
    texts = base.mark_text(fontSize=12).encode(text=alt.Text("difference:Q", format="+.2f"))
    return alt.layer(cells, texts).properties(
        width=max(300, 48 * len(sweep.class_names)),
        height=60 * len(sweep.class_names),
        title="Confusion, first less second, points of the true class",
    )


def _blocks(sweep: Sweep, right: str, wrong: str) -> alt.Chart:
    """Return the blocks that one of the two got right and the other wrong."""
    images, answers, member = _samples(sweep)
    chart: alt.Chart = (
        alt.Chart(answers)
        .transform_filter(f"cls == '{MACRO}' || datum.label == cls")
        .transform_calculate(
            hit=f"datum.variant == {right} && datum.right ? 1 : 0",
            miss=f"datum.variant == {wrong} && !datum.right ? 1 : 0",
        )
        .transform_aggregate(hit="sum(hit)", miss="sum(miss)", groupby=["node", "label"])
        .transform_filter("datum.hit == 1 && datum.miss == 1")
        .transform_lookup("node", alt.LookupData(images, "node", ["url"]))
        .transform_window(place="row_number()", sort=[alt.SortField("node")])
        .transform_filter(f"datum.place <= {_SHOWN}")
        .transform_calculate(
            column=f"(datum.place - 1) % {_ACROSS}", line=f"floor((datum.place - 1) / {_ACROSS})"
        )
        .mark_image(width=28, height=28)
        .encode(
            x=alt.X("column:O", axis=None, scale=alt.Scale(domain=list(range(_ACROSS)))),
            y=alt.Y("line:O", axis=None, scale=alt.Scale(domain=list(range(_SHOWN // _ACROSS)))),
            url="url:N",
            tooltip=["node:Q", "label:N"],
        )
        .properties(
            width=32 * _ACROSS,
            height=32 * (_SHOWN // _ACROSS),
            title=f"Blocks that the {right} got right and the {wrong} wrong, in {member}",
        )
    )
    return chart


def _samples(sweep: Sweep) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    """Return the blocks as pictures, the predictions of one run of each variant, and its name.

    The runs are members of one name, so that their samples are of the same blocks.
    """
    member = sorted(
        set.intersection(*({m.name for m in v.members} for v in sweep.variants))
        or {sweep.variants[0].members[0].name}
    )[0]
    runs: dict[str, Member] = {
        v.name: m for v in sweep.variants for m in v.members if m.name == member
    }
    pictures: dict[int, str] = {}
    answers = []
    for name, sampled in runs.items():
        samples = sampled.run.samples
        chosen = np.unique(
            np.linspace(0, len(samples.node) - 1, min(len(samples.node), _MOST_BLOCKS)).astype(int)
        )
        for index in chosen.tolist():
            node, label = int(samples.node[index]), int(samples.label[index])
            if node not in pictures:
                pictures[node] = _png(samples.block[index])
            right = bool(samples.prediction[index] == label)
            answers.append((name, node, sweep.class_names[label], right))
    return (
        pl.DataFrame({"node": list(pictures), "url": list(pictures.values())}),
        pl.DataFrame(answers, schema=["variant", "node", "label", "right"], orient="row"),
        member,
    )


def _png(block: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(block).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

from __future__ import annotations

import re

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from av1part.report.draw.svg import INK, VARIABLES, inline_svg, new_figure, paper_style, to_svg


def drawing() -> Figure:
    with paper_style():
        figure = new_figure(2.0)
        axes = figure.subplots()
        axes.plot([0, 1, 2], [2, 0, 1], color=INK)
        axes.imshow(np.arange(12).reshape(3, 4), interpolation="none")
        axes.set_title("a < b")
    return figure


def test_same_drawing_same_bytes_whatever_the_users_settings() -> None:
    first = to_svg(drawing())
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "svg.fonttype": "path"}):
        second = to_svg(drawing())
    assert first == second


def test_stand_alone_svg_has_no_date_and_text_is_text() -> None:
    svg = to_svg(drawing())
    assert "<metadata" not in svg
    assert "a &lt; b" in svg
    assert re.search(r"data:image/png;base64,\S", svg)


def test_inline_svg_takes_nothing_from_outside_and_gives_the_page_no_style() -> None:
    inline = inline_svg(to_svg(drawing()), "one", "a drawing")
    assert inline.startswith('<svg class="plot" viewBox=')
    assert inline.endswith("</svg>")
    assert not re.search(r"<style|xmlns|http|<\?xml|<!DOCTYPE", inline)


def test_inline_ids_differ_between_figures_and_every_reference_is_met() -> None:
    both = [inline_svg(to_svg(drawing()), name, "x") for name in ("one", "two")]
    ids = [re.findall(r' id="([^"]+)"', svg) for svg in both]
    assert ids[0]
    assert len(set(ids[0])) == len(ids[0])
    assert not set(ids[0]) & set(ids[1])
    for svg, own in zip(both, ids, strict=True):
        used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)
        assert used
        assert {a or b for a, b in used} == set(own)


def test_inline_colours_and_font_are_the_pages() -> None:
    svg = to_svg(drawing())
    assert INK in svg
    inline = inline_svg(svg, "one", "x")
    assert "var(--ink)" in inline
    assert "font-family: var(--sans)" in inline
    assert "DejaVu" not in inline
    assert not any(colour in inline for colour in VARIABLES)

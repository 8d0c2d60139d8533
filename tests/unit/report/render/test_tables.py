from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from av1part.metrics.intervals import Interval
from av1part.report.render.html import table_html
from av1part.report.render.markdown import table_markdown
from av1part.report.render.tables import count, percent, points, span, table

TABLE = table("How `much`.", ["<Name", "n"], [["a|b", "1"], ["<c>", "1,234"]], strong=1)


def test_markdown_is_aligned_and_escaped() -> None:
    assert table_markdown(TABLE).splitlines() == [
        "How `much`.",
        "",
        "| Name    |         n |",
        "| ------- | --------: |",
        "| a\\|b    |         1 |",
        "| **<c>** | **1,234** |",
    ]


def test_html_is_escaped_and_marks_numbers_and_the_strong_row() -> None:
    html = table_html(TABLE)
    assert "<code>much</code>" in html
    assert '<th scope="col" class="text">Name</th><th scope="col" class="num">n</th>' in html
    assert '<tr class="strong"><td class="text">&lt;c&gt;</td><td class="num">1,234</td>' in html
    assert "<c>" not in html


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 columns"):
        table("", ["<a", "b"], [["1"]])


def test_numbers_are_set_alike() -> None:
    assert (percent(0.5), percent(None), percent(1.0)) == ("50.00", "–", "100.00")
    assert (points(0.1), points(-0.1), points(None)) == ("+10.00", "−10.00", "–")
    assert points(-0.000001) == points(0.0) == "0.00"
    assert span(Interval(0, -0.01, 0.02), signed=True) == "[−1.00, +2.00]"
    assert span(Interval(0.5, None, None)) == span(None) == "–"
    assert count(1234567) == "1,234,567"


@given(st.floats(0, 1))
def test_percent_is_right_to_half_a_hundredth(value: float) -> None:
    text = percent(value)
    assert abs(float(text) - 100 * value) <= 0.005 + 1e-9
    assert len(text.partition(".")[2]) == 2

"""Figures as SVG: one style for all, the same bytes every time, at home in a light or dark page."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from av1part.system.files import atomic_path

# It logs every glyph of a PDF.
logging.getLogger("fontTools").setLevel(logging.WARNING)

WIDTH = 9.0
"""Width in inches of a figure that fills the page; 8.5 pt text is then the size of a caption."""

PAPER = "#fdfcf9"
INK = "#20232a"
MUTED = "#6a6e76"
RULE = "#d3d1ca"
BLUE = "#0a62a3"
ORANGE = "#c4500c"
GREEN = "#00795a"

VARIABLES = {
    PAPER: "--paper",
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
}
"""Colours that the page's style sheet sets again for a dark background."""

CLASS_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7")
"""Classes drawn over a picture; Okabe and Ito's colours, safe for colour-blind readers."""

_STYLE = {
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # matplotlib carries it: the same layout on every machine
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "av1part",
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw with the report's style, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure that arranges its own axes; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def literal(text: str) -> str:
    """Return a name so that matplotlib reads no `$` in it as mathematics."""
    return text.replace("$", r"\$")


def light_grid(axes: Axes, axis: str = "y") -> None:
    """Draw hairlines behind the data."""
    axes.grid(axis=axis)  # type: ignore[arg-type]  # matplotlib wants a Literal
    axes.set_axisbelow(True)


def to_svg(figure: Figure) -> str:
    """Render a figure as a stand-alone SVG document without a date or a version."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with paper_style():
        figure.savefig(buffer, format="svg", metadata=no_metadata, transparent=True)
    # A base64 image is broken in lines, which some readers refuse.
    svg = re.sub(r"data:image/png;base64,\s+", "data:image/png;base64,", buffer.getvalue())
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def write_pdf(figure: Figure, path: Path) -> None:
    """Write a figure as PDF, without a date, its text as text."""
    no_metadata = dict.fromkeys(("CreationDate", "Creator", "Producer"))
    with paper_style(), matplotlib.rc_context({"pdf.fonttype": 42}), atomic_path(path) as part:
        figure.savefig(part, format="pdf", metadata=no_metadata, transparent=True)


def inline_svg(svg: str, name: str, label: str) -> str:
    """Turn a stand-alone SVG into an element of an HTML page.

    Ids are made unique to the figure or dropped, `<style>` (it would hold for the whole page) and
    XML namespaces go, and the report's colours and font become the page's CSS variables.

    Args:
        svg: What `to_svg` gave.
        name: Prefix of the ids, unique within the page.
        label: Text that a screen reader reads out; no quotation marks.

    Returns:
        The element.

    Raises:
        ValueError: if the SVG has no viewBox.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*</defs>\s*", "", body)
    box = re.search(r'viewBox="([^"]+)"', body)
    if box is None:
        raise ValueError("the SVG has no viewBox")
    body = re.sub(
        r"<svg[^>]*>",
        f'<svg class="plot" viewBox="{box.group(1)}" role="img" aria-label="{label}">',
        body,
        count=1,
    )
    body = body.replace("xlink:href=", "href=")
    used = set(re.findall(r"url\(#([^)]+)\)", body)) | set(re.findall(r'href="#([^"]+)"', body))
    body = re.sub(
        r' id="([^"]+)"',
        lambda m: f' id="{name}-{m.group(1)}"' if m.group(1) in used else "",
        body,
    )
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return re.sub(r"font-family: [^;\"]+", "font-family: var(--sans)", body).strip()

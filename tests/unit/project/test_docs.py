"""The pages and their site: tables from `av1part.partition`, names that exist, the whole build."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from av1part.partition import (
    SYMMETRIES,
    TAXONOMIES,
    Partition,
    legal_partitions,
    partition_from_rects,
)
from av1part.runs.samples import read_samples

from ...conftest import load_file

ROOT = Path(__file__).parents[3]
TYPES = [p.name for p in Partition]


def load() -> ModuleType:
    """Import docs/partition_types.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("types_of_docs", ROOT / "docs/partition_types.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs = load()


def cells(table: str) -> list[list[str]]:
    """Rows of a Markdown table without the rule; a picture gives way to its label."""
    shown = re.sub(r'<svg[^>]*aria-label="([^"]*)">.*?</svg>', r"[\1]", table)
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines()]
    assert set(rows.pop(1)) == {"---"}
    assert len({len(row) for row in rows}) == 1
    return rows


def rects(svg: str) -> list[tuple[int, ...]]:
    """Rectangles of a picture, (row, col, height, width) in quarters of its side."""
    found = ElementTree.fromstring(svg).findall("rect")
    return [tuple(int(r.attrib[k]) // 10 for k in ("y", "x", "height", "width")) for r in found]


def test_each_type_is_drawn_as_what_it_is() -> None:
    pictures = re.findall(r"<svg.*?</svg>", docs.types_table())
    assert [partition_from_rects(frozenset(rects(svg))) for svg in pictures] == list(Partition)
    assert [ElementTree.fromstring(svg).attrib["aria-label"] for svg in pictures] == TYPES


def test_types_table_says_what_a_type_is() -> None:
    head, *rows = cells(docs.types_table())
    assert head[-2:] == ["`v6`", "`v6_1to4`"]
    assert [row[0].strip("*") for row in rows] == TYPES
    assert [row[2] for row in rows] == [str(i) for i in range(10)]
    assert rows[Partition.VERT_B][3:] == [
        "1 of 8x16, 2 of 8x8",
        "16, 32, 64, 128",
        "PARTITION → AB → VERT_B",
        "PARTITION → AB → VERT_B",
    ]
    assert rows[Partition.HORZ_4][3:] == [
        "4 of 16x4",
        "16, 32, 64",
        "not in it",
        "PARTITION → 1TO4 → HORZ_4",
    ]
    for size in (8, 16, 32, 64, 128):
        allowed = [row[0].strip("*") for row in rows if str(size) in row[4].split(", ")]
        assert allowed == [p.name for p in legal_partitions(size)]


def test_symmetries_table_moves_every_type() -> None:
    head, *rows = cells(docs.symmetries_table())
    names = [re.sub(r"\[.*?\] ", "", cell) for cell in head[1:]]
    assert len(set(names)) == len(SYMMETRIES) == 8
    moved = {name: [row[i].split()[-1] for row in rows] for i, name in enumerate(names, start=1)}
    assert moved["identity"] == TYPES
    assert all(sorted(column) == sorted(TYPES) for column in moved.values())
    assert moved["left-right"][Partition.VERT_A] == "VERT_B"
    assert moved["top-bottom"][Partition.HORZ_A] == "HORZ_B"
    assert moved["transpose"][Partition.HORZ_4] == "VERT_4"
    # Each picture shows the type that is named beside it.
    assert all(cell == f"[{cell.split()[-1]}] {cell.split()[-1]}" for r in rows for cell in r[1:])


def test_the_letter_shows_which_symmetry_it_is() -> None:
    letters = re.findall(r"<svg.*?</svg>", docs.symmetries_table().splitlines()[0])
    assert len({frozenset(rects(svg)) for svg in letters}) == 8


def test_taxonomies_table_has_each_stage_at_each_size() -> None:
    _, *rows = cells(docs.taxonomies_table())
    said = {
        (row[0].strip("`"), int(size), row[2].strip("`")): row[3].split(", ")
        for row in rows
        for size in row[1].split(", ")
    }
    assert said == {
        (name, size, stage.name): list(stage.class_names)
        for name, taxonomy in TAXONOMIES.items()
        for size in (8, 16, 32, 64)
        for stage in taxonomy.at(size).stages
    }
    assert said["v6_1to4", 8, "stage2"] == ["SPLIT", "RECT"]


def test_the_glossary_shows_every_table_and_each_term_once_in_order() -> None:
    text = (ROOT / "docs/glossary.md").read_text()
    assert re.findall(r"{partition-table} (\w+)", text) == ["types", "taxonomies", "symmetries"]
    assert set(docs.TABLES) == {"types", "taxonomies", "symmetries"}
    for block in re.findall(r"```{glossary}\n(.*?)```", text, re.DOTALL):
        terms = re.findall(r"^(\S.*)$", block, re.MULTILINE)
        assert terms == sorted(set(terms), key=str.lower)


PAGES = [
    file
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/pt/*.md",
        "experiments/**/README.md",
        "tests/data/*.md",
    )
    for file in ROOT.glob(pattern)
    if file.name != "CHANGELOG.md"
]
"""What people read; the change log speaks of what is gone as well."""


def names(text: str, pattern: str) -> set[str]:
    """Matches of a pattern inside single backticks."""
    return {
        match for code in re.findall(r"`([^`\n]+)`", text) for match in re.findall(pattern, code)
    }


def defines(dotted: str) -> bool:
    """Whether a dotted name is a module of the package, or something that a module defines."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place = (ROOT / "src").joinpath(*parts[:length])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.is_file():
            rest = parts[length : length + 1]
            pattern = rf"^ *(?:(?:class|def) )?{''.join(rest)}\b|\bimport .*\b{''.join(rest)}\b"
            return not rest or re.search(pattern, file.read_text(), re.MULTILINE) is not None
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_only_what_exists(page: Path) -> None:
    text = page.read_text()
    missing = {name for name in names(text, r"\bav1part(?:\.\w+)+") if not defines(name)}
    folders = (ROOT, ROOT / "src/av1part", ROOT / "src/av1part/report", page.parent)
    for file in names(text, r"^(?:[\w-]+(?:/[\w-]+)+\.(?:py|sh)|conf(?:/[\w-]+)+\.yaml)$"):
        if not any((folder / file).is_file() for folder in folders):
            missing.add(file)
    tests = {file.name: file.read_text() for file in (ROOT / "tests").rglob("test_*.py")}
    for file in names(text, r"\btest_\w+\.py\b"):
        if file not in tests:
            missing.add(file)
    for test in names(text, r"::(test_\w+)"):
        if not any(f"def {test}(" in source for source in tests.values()):
            missing.add(test)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_needs_nothing_that_is_not_in_the_repository(page: Path) -> None:
    assert not re.findall(
        r"\b(?:DESIGN|HOUSE|STYLE)\b|\.\./shared|/work/|/root/|/home/\w", page.read_text()
    )


def test_the_readme_opens_with_a_picture_and_is_one_screen() -> None:
    text = (ROOT / "README.md").read_text()
    picture = re.match(r"# av1part\n\n!\[[^]]+\]\(([^)]+)\)", text)
    assert picture
    assert 0 < (ROOT / picture.group(1)).stat().st_size < 300_000
    assert len(text.splitlines()) <= 100


def test_the_readme_s_picture_is_made_of_a_run(
    tmp_path: Path, examples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = load_file(ROOT / "tools/readme_picture.py")
    run, picture = tmp_path / "run", tmp_path / "new/picture.png"
    assert tool.main(run, picture) == 2
    assert "make demo" in capsys.readouterr().err
    examples.write_pipeline_run(run)
    assert tool.main(run, picture) == 0
    shown = capsys.readouterr().out
    samples = read_samples(run / "samples.npz")
    assert samples.sequence in shown
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 20
    assert tuple(pixels[0]) == (255, 255, 255)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(experiments_tool: ModuleType, tmp_path: Path) -> None:
    # As in a plain checkout: the experiments' tables, which git ignores, are built first.
    checkout = tmp_path / "checkout"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, listed.split("\0")):
        if (ROOT / file).is_file():  # not one that was removed and is still in the index
            (checkout / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, checkout / file)
    experiments_tool.report(checkout / "experiments", None)
    words = ["-q", "-W", "--keep-going", "-c", "docs"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words, "-d", tmp_path / "trees", ".", tmp_path / "site"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    pages = {p.stem for p in (tmp_path / "site/docs/api").glob("*.html")}
    sources = (ROOT / "src/av1part").rglob("*.py")  # the plugin beside it is Hydra's way in
    modules = {".".join(s.relative_to(ROOT / "src").with_suffix("").parts) for s in sources}
    assert {m.removesuffix(".__init__") for m in modules} == pages
    glossary = (tmp_path / "site/docs/glossary.html").read_text()
    assert glossary.count('<svg class="partition"') == 10 + 10 * 8
    portuguese = (tmp_path / "site/docs/pt/inicio-rapido.html").read_text()
    assert re.search(r'<html[^>]* lang="pt-BR"', portuguese)
    assert '<html class="no-js" lang="en"' in (tmp_path / "site/docs/tutorial.html").read_text()
    start = (tmp_path / "site/index.html").read_text()
    target = re.search(r"url=(\S+)\"", start)
    assert target
    assert (tmp_path / "site" / target.group(1)).is_file()

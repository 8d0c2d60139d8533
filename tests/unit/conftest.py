"""Run folders made once, and copies of them to damage."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def stage_folder(examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return examples.write_stage_run(tmp_path_factory.mktemp("stage") / "s2")


@pytest.fixture(scope="session")
def pipeline_folder(examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return examples.write_pipeline_run(tmp_path_factory.mktemp("pipeline") / "cascade")


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A function that copies a run folder to where a test may damage it."""

    def copy_of(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / folder.name))

    return copy_of


@pytest.fixture
def overfull(tmp_path: Path) -> Callable[[str, Path], list[str]]:
    """A function that compiles a document's body in a folder, and returns the lines too wide."""
    programs = [shutil.which(name) for name in ("pdflatex", "kpsewhich")]
    if None in programs:
        pytest.skip("pdflatex is not installed")
    needed = ("booktabs.sty", "graphicx.sty", "textcomp.sty")
    found = subprocess.run(["kpsewhich", *needed], capture_output=True, text=True, check=False)
    if len(found.stdout.split()) < len(needed):
        pytest.skip(f"LaTeX lacks some of {', '.join(needed)}")

    def compiled(body: str, folder: Path) -> list[str]:
        text = "\n".join(
            [
                r"\documentclass{article}",
                r"\usepackage{booktabs,graphicx,textcomp}",
                rf"\begin{{document}}{body}\end{{document}}",
            ]
        )
        (tmp_path / "document.tex").write_text(text)
        words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
        done = subprocess.run(
            [*words, f"-output-directory={tmp_path}", tmp_path / "document.tex"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:]
        return re.findall(r"Overfull \\hbox.*", (tmp_path / "document.log").read_text("latin-1"))

    return compiled

"""Run folders made once, and copies of them to damage."""

from __future__ import annotations

import shutil
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

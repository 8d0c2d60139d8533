"""Run folders made once, and copies of them to damage."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def _load(path: Path) -> ModuleType:
    # Tests are imported by file (`--import-mode=importlib`), so helpers are too.
    spec = importlib.util.spec_from_file_location("example_runs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["example_runs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def examples() -> ModuleType:
    return _load(Path(__file__).with_name("example_runs.py"))


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

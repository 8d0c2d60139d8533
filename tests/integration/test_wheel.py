"""The wheel, installed elsewhere: configuration and embedded dataset come along."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "tests" / "data" / "crops_72x56.y4m"
START = "import sys; from av1part.cli.main import entry; sys.argv[0] = 'av1part'; entry()"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel was unpacked, which is all that installing a pure wheel does."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return site


def run(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        [sys.executable, "-c", START, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_installed_package_is_self_contained(installed: Path, tmp_path: Path) -> None:
    code = (
        "import av1part; from av1part.cli.main import config_folder; "
        "print(av1part.__file__, config_folder())"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    ).stdout.split()
    assert all(Path(p).is_relative_to(installed) for p in said), said
    for verb in (
        "data build",
        "data info",
        "train",
        "validate",
        "pipeline",
        "report",
        "demo",
        "predict",
        "bundle",
        "encode",
        "compare",
    ):
        ran = run(installed, tmp_path, *verb.split(), "--cfg", "job")
        assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    ran = run(installed, tmp_path, "demo", "backbone.width=8", "trainer.max_epochs=2")
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "runs" / "demo" / "report" / "report.html").is_file()


@pytest.mark.slow
def test_it_predicts_without_a_model(installed: Path, tmp_path: Path) -> None:
    ran = run(installed, tmp_path, "predict", str(CLIP), "out=out", "qindex=[128]")
    assert ran.returncode == 0, ran.stderr
    assert "predictor: none is given, so pretrained" in ran.stdout
    assert pl.read_parquet(tmp_path / "out" / f"{CLIP.stem}.parquet").height > 0

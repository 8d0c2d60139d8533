"""What doctor says of packages and GPUs that do not work as they should."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from av1part.cli.doctor import stack

WHOLE: dict[str, Any] = {"errors": {}, "cuda": "13.0", "threads": 2, "gpus": []}


def packages_but(folder: Path, *names: str) -> None:
    """Write empty packages in place of those that training needs, names apart."""
    for name in set(stack.MODULES) - set(names):
        (folder / f"{name}.py").write_text("")


def test_a_damaged_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packages_but(tmp_path, "torch", "torchvision")
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so:\\n no such file')")
    (tmp_path / "torchvision.py").write_text("import torch")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(stack, "_culprit", lambda _: None)
    imports = stack.try_imports()
    assert set(imports["errors"]) == {"torch", "torchvision"}
    (problem,) = (p for p in stack.packages(imports).problems if p.fatal)
    assert str(problem) == (
        "training: torch, torchvision cannot be imported (OSError: libtorch.so: no such file): "
        "run `make setup`, or install av1part anew"
    )


def test_the_variable_that_breaks_an_import_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('not the one of Python')")
    assert stack._culprit(("no_such_module",)) is None
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert stack._culprit(("colorsys",)) == "PYTHONPATH"
    imports = {**WHOLE, "errors": {"torch": "RuntimeError"}, "variable": "PYTHONPATH"}
    (problem,) = (p for p in stack.packages(imports).problems if p.fatal)
    assert problem.remedy == "unset PYTHONPATH"


@pytest.mark.parametrize("code", ["import os; os._exit(7)", "print('hello')"])
def test_a_package_that_ends_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str
) -> None:
    packages_but(tmp_path, "numpy", "torch")
    (tmp_path / "numpy.py").write_text(code)
    (tmp_path / "torch.py").write_text("raise ImportError('x')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(stack, "_culprit", lambda _: None)
    assert "torch" in stack.try_imports()["errors"]


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "av":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(stack, "version", version)
    result = stack.packages(WHOLE)
    assert dict(result.rows)["av"] == "not found"
    assert dict(result.rows)["torch"] == "1, CUDA 13.0"
    assert any(p.fatal and "av is not installed" in p.reason for p in result.problems)


def test_versions_out_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stack.out_of_bounds() == []
    wanted = ["torch>=999", "no-such-package>=1", "litdata>=999; extra == 'bench'"]
    monkeypatch.setattr(stack, "requires", lambda _: wanted)
    (line,) = stack.out_of_bounds()
    assert line.startswith("torch ")
    assert line.endswith("is installed, not >=999")
    (problem,) = stack.packages(WHOLE).problems
    assert not problem.fatal


@pytest.mark.parametrize(
    ("imports", "driver", "reason"),
    [
        ({}, None, "there is no NVIDIA GPU"),
        ({"cuda": None}, "H100, 570.1", "torch is a build without CUDA"),
        (
            {"cuda_error": "the driver is too old"},
            "H100, 400.1",
            "torch's CUDA 13.0 does not start the driver is too old",
        ),
        ({"gpus": [["H100", 80 * 10**9, "9.0"]]}, "H100, 570.1", None),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch, imports: dict[str, Any], driver: str | None, reason: str | None
) -> None:
    monkeypatch.setattr(stack, "_driver", lambda: driver)
    result = stack.gpus({**WHOLE, **imports})
    assert [problem.reason for problem in result.problems] == ([reason] if reason else [])
    assert not any(problem.fatal for problem in result.problems)
    if reason is None:
        assert result.rows[0] == ("cuda:0", "H100, 80.0 GB, compute capability 9.0")

"""Probes of the packages that training needs: versions, imports and GPUs.

The packages are imported in a child process, which a damaged one may end.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any

from av1part.cli.doctor import ProbeResult, Problem, in_gb

PACKAGES = (
    *("av1part", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core"),
    *("omegaconf", "numpy", "polars", "av"),
)
MODULES = (
    *("numpy", "polars", "torch", "torchvision", "torchmetrics", "pytorch_lightning"),
    *("omegaconf", "hydra", "av", "matplotlib", "altair"),
)
"""Modules that are imported; those that need a broken one are listed with its error."""
_SETUP = "run `make setup`, or install av1part anew"
_SECONDS = 300
"""Time limit of the imports, generous for a slow disk."""

_CHILD = """
import json, sys, warnings
warnings.simplefilter("ignore")
imports = {"errors": {}}
for name in sys.argv[1:]:
    try:
        __import__(name)
    except BaseException as error:
        imports["errors"][name] = f"{type(error).__name__}: {error}"
if "torch" in sys.modules:
    import torch
    imports["cuda"], imports["threads"] = torch.version.cuda, torch.get_num_threads()
    try:
        imports["gpus"] = []
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            torch.zeros(1, device=f"cuda:{i}")
            imports["gpus"].append([about.name, about.total_memory, f"{about.major}.{about.minor}"])
    except Exception as error:
        imports["cuda_error"] = str(error)
json.dump(imports, sys.stdout)
"""


def packages(imports: dict[str, Any]) -> ProbeResult:
    """Check that packages are installed, of a supported version, and can be imported.

    Args:
        imports: The result of `try_imports`.

    Returns:
        Versions and problems.
    """
    rows, problems = [("python", f"{platform.python_version()} ({sys.executable})")], []
    for name in PACKAGES:
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "not found"
            problems.append(Problem("training", f"{name} is not installed", _SETUP, fatal=True))
        if name == "torch" and "cuda" in imports:
            installed += f", CUDA {imports['cuda']}" if imports["cuda"] else ", without CUDA"
        rows.append((name, installed))
    broken: dict[str, list[str]] = {}
    for name, error in imports["errors"].items():
        broken.setdefault(" ".join(error.split())[:300], []).append(name)
    for error, names in broken.items():
        reason = f"{', '.join(names)} cannot be imported ({error})"
        remedy = f"unset {imports['variable']}" if "variable" in imports else _SETUP
        problems.append(Problem("training", reason, remedy, fatal=True))
    for line in out_of_bounds():
        problems.append(Problem("what was not tested", line, _SETUP))
    return ProbeResult("versions", tuple(rows), tuple(problems))


def out_of_bounds() -> list[str]:
    """Return a line for each installed package whose version av1part does not support."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return []
    lines = []
    for line in requires("av1part") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = metadata(requirement.name)["Version"]
        except PackageNotFoundError:
            continue  # reported as an import that fails
        if installed not in requirement.specifier:
            name, bounds = requirement.name, requirement.specifier
            lines.append(f"{name} {installed} is installed, not {bounds}")
    return lines


def gpus(imports: dict[str, Any]) -> ProbeResult:
    """List the GPUs that torch can use, and why it cannot use those that the driver reports.

    Args:
        imports: The result of `try_imports`.

    Returns:
        GPUs and problems.
    """
    driver = _driver()
    rows = [
        (f"cuda:{i}", f"{name}, {in_gb(size)}, compute capability {capability}")
        for i, (name, size, capability) in enumerate(imports.get("gpus", []))
    ]
    problems = []
    if not rows:
        rows = [("GPU", "none" if driver is None else f"none that torch can use; driver: {driver}")]
        if driver is None:
            reason, remedy = "there is no NVIDIA GPU", "train with trainer=cpu, the default"
        elif not imports.get("cuda"):
            reason, remedy = "torch is a build without CUDA", _SETUP
        else:
            error = imports.get("cuda_error", "")
            reason = f"torch's CUDA {imports['cuda']} does not start {error}".strip()
            remedy = "bring the driver up to date, or look at CUDA_VISIBLE_DEVICES"
        problems = [Problem("trainer=gpu, data.planes=device, device=cuda", reason, remedy)]
    elif driver is not None:
        rows.append(("driver", driver))
    return ProbeResult("GPUs", tuple(rows), tuple(problems))


def try_imports() -> dict[str, Any]:
    """Import what training needs in a new process.

    Returns:
        `errors`, package to the error of its import; `variable`, the name of the environment
        variable that keeps them from being imported, if one alone does; and, where torch imports,
        `cuda` (the version it was built for, or None), `threads`, `gpus` (name, bytes, capability)
        and, if CUDA does not start, `cuda_error`.
    """
    imports = _imports(os.environ)
    if imports["errors"] and (variable := _culprit(tuple(imports["errors"]))):
        imports["variable"] = variable
    return imports


def _culprit(modules: tuple[str, ...]) -> str | None:
    """Return the environment variable without which modules can be imported, if there is one.

    Variables are halved until one is left: with a hundred of them, eight imports.
    """
    suspects = sorted(os.environ)
    if _imports({}, modules)["errors"]:
        return None
    while len(suspects) > 1:
        half = suspects[: len(suspects) // 2]
        guilty = _imports({name: os.environ[name] for name in half}, modules)["errors"]
        suspects = half if guilty else suspects[len(half) :]
    without = {name: value for name, value in os.environ.items() if name not in suspects}
    return None if _imports(without, modules)["errors"] else suspects[0]


def _imports(variables: Mapping[str, str], modules: Sequence[str] = MODULES) -> dict[str, Any]:
    """Import modules in a new process with these environment variables; see `try_imports`."""
    environment = {**variables, "PYTHONSAFEPATH": "1"}
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, *modules],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            env=environment,
        )
        return dict(json.loads(child.stdout))
    except subprocess.TimeoutExpired:
        return {"errors": {"torch": f"it took more than {_SECONDS} s"}}
    except OSError as error:
        return {"errors": {"torch": str(error)}}
    except ValueError:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        return {"errors": {"torch": f"Python ended with {child.returncode}: {last}"}}


def _driver() -> str | None:
    """Return GPUs and driver as nvidia-smi prints them; None without nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        process = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(process.stdout.strip().splitlines()) or None

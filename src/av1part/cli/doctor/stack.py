"""The packages that training needs: versions, whether they can be imported, and GPUs.

They are imported in a process of its own: a damaged one may end it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any

from av1part.cli.doctor import Section, Trouble, in_gb

PACKAGES = (
    *("av1part", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core"),
    *("omegaconf", "numpy", "polars", "av"),
)
MODULES = (
    *("numpy", "polars", "torch", "torchvision", "torchmetrics", "pytorch_lightning"),
    *("omegaconf", "hydra", "av"),
)
"""What is imported; an error of one that others need is theirs as well."""
_SETUP = "run `make setup`, or install av1part anew"
_SECONDS = 300
"""Longest that the imports may take, on a machine with a slow disk."""

_CHILD = """
import json, sys, warnings
warnings.simplefilter("ignore")
said = {"errors": {}}
for name in sys.argv[1:]:
    try:
        __import__(name)
    except BaseException as error:
        said["errors"][name] = f"{type(error).__name__}: {error}"
if "torch" not in said["errors"]:
    import torch
    said["cuda"], said["threads"] = torch.version.cuda, torch.get_num_threads()
    try:
        said["gpus"] = []
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            torch.zeros(1, device=f"cuda:{i}")
            said["gpus"].append([about.name, about.total_memory, f"{about.major}.{about.minor}"])
    except Exception as error:
        said["cuda_error"] = str(error)
json.dump(said, sys.stdout)
"""


def packages(said: dict[str, Any]) -> Section:
    """Tell the versions of packages, and which cannot be imported or are out of bounds.

    Args:
        said: What `try_imports` found.

    Returns:
        The section.
    """
    rows, troubles = [("python", f"{platform.python_version()} ({sys.executable})")], []
    for name in PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not found"
            troubles.append(Trouble("training", f"{name} is not installed", _SETUP, needed=True))
        if name == "torch" and "cuda" in said:
            found += f", CUDA {said['cuda']}" if said["cuda"] else ", without CUDA"
        rows.append((name, found))
    broken: dict[str, list[str]] = {}
    for name, error in said["errors"].items():
        broken.setdefault(" ".join(error.split())[:300], []).append(name)
    for error, names in broken.items():
        why = f"{', '.join(names)} cannot be imported ({error})"
        troubles.append(Trouble("training", why, _SETUP, needed=True))
    for line in out_of_bounds():
        troubles.append(Trouble("what was not tested", line, _SETUP))
    return Section("versions", tuple(rows), tuple(troubles))


def out_of_bounds() -> list[str]:
    """Return the installed packages that are not of a version that av1part states, as lines."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return []
    lines = []
    for text in requires("av1part") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata(requirement.name)["Version"]
        except PackageNotFoundError:
            continue  # told by what cannot be imported
        if found not in requirement.specifier:
            lines.append(f"{requirement.name} {found} is installed, not {requirement.specifier}")
    return lines


def gpus(said: dict[str, Any]) -> Section:
    """Tell the GPUs that torch can compute on, and why not on those that the driver sees.

    Args:
        said: What `try_imports` found.

    Returns:
        The section.
    """
    driver = _driver()
    rows = [
        (f"cuda:{i}", f"{name}, {in_gb(size)}, compute capability {capability}")
        for i, (name, size, capability) in enumerate(said.get("gpus", []))
    ]
    troubles = []
    if not rows:
        rows = [("GPU", "none" if driver is None else f"none that torch can use; driver: {driver}")]
        if driver is None:
            why, remedy = "there is no NVIDIA GPU", "train with trainer=cpu, the default"
        elif not said.get("cuda"):
            why, remedy = "torch is a build without CUDA", _SETUP
        else:
            why = f"torch's CUDA {said['cuda']} does not start {said.get('cuda_error', '')}".strip()
            remedy = "bring the driver up to date, or look at CUDA_VISIBLE_DEVICES"
        troubles = [Trouble("trainer=gpu, data.planes=device, device=cuda", why, remedy)]
    elif driver is not None:
        rows.append(("driver", driver))
    return Section("GPUs", tuple(rows), tuple(troubles))


def try_imports() -> dict[str, Any]:
    """Import what training needs in a new process.

    Returns:
        `errors`, package to why it cannot be imported; and of torch `cuda`, the version it was
        built for or None, `threads`, `gpus` (name, bytes, capability) and perhaps `cuda_error`.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _CHILD, *MODULES],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            env=environment,
        )
        said = json.loads(ran.stdout)
    except subprocess.TimeoutExpired:
        return {"errors": {"torch": f"it took more than {_SECONDS} s"}}
    except OSError as error:
        return {"errors": {"torch": str(error)}}
    except ValueError:
        last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        return {"errors": {"torch": f"Python ended with {ran.returncode}: {last}"}}
    return dict(said)


def _driver() -> str | None:
    """Return what nvidia-smi says of GPUs and driver; None without one."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        ran = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(ran.stdout.strip().splitlines()) or None

"""Probes of programs, disk space, memory, cores, text encoding and the embedded dataset."""

from __future__ import annotations

import importlib.util
import locale
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from av1part.cli.doctor import ProbeResult, Problem, in_gb, limits
from av1part.cli.startup import check_surroundings
from av1part.system.errors import ConfigError, first_line
from av1part.system.files import cache_folder

_RUN_BYTES = 1e9
"""Free space a run may need: two checkpoints of full width, each beside the one it replaces."""
_CACHE_BYTES = 2e9
_SHARED_BYTES = 256e6
"""Shared memory for the batches of a few DataLoader workers; containers often have 64 MB."""
_MEMORY_BYTES = 3e9
"""Memory of a training at full width, PyTorch's own code included."""
_X86 = {"x86_64", "amd64", "i386", "i686"}
"""Processors for which libaom has code for an assembler."""


def surroundings() -> ProbeResult:
    """Check what every command relies on: the current folder, its name, Python's options."""
    try:
        check_surroundings([])
    except ConfigError as error:
        reason, _, remedy = str(error).rpartition(": ")
        problem = Problem("every other command", reason, remedy, fatal=True)
        return ProbeResult("surroundings", (("shell", "unfit"),), (problem,))
    return ProbeResult("surroundings", (("current folder", str(Path.cwd())),))


def programs() -> ProbeResult:
    """Look for other programs: libaom's, a compiler, SLURM, a browser."""
    rows, problems = [], []
    for name in ("aomenc", "inspect"):
        row, problem = _libaom(name)
        rows.append((name, row))
        problems += problem
    row, problem = _patched()
    rows.append(("aomenc-av1part", row))
    problems += problem
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    rows.append(("C++ compiler", compiler or "not found"))
    if compiler is None:
        reason, remedy = "there is no C++ compiler", "apt install g++, or leave compile=false"
        problems.append(Problem("trainer.compile=true", reason, remedy))
    launcher = importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher")
    rows.append(("joblib launcher", "found" if launcher else "not found"))
    if not launcher:
        reason, remedy = "it is not installed", "pip install 'av1part[joblib]'"
        problems.append(Problem("hydra/launcher=joblib", reason, remedy))
    for name, program in (("SLURM", "sbatch"), ("chromium (tests alone)", "chromium")):
        rows.append((name, shutil.which(program) or "not found"))
    return ProbeResult("programs", tuple(rows), tuple(problems))


def _libaom(name: str) -> tuple[str, list[Problem]]:
    from av1part.data.build.libaom import find_aomenc, find_inspect
    from av1part.system.errors import EncoderError

    try:
        tool = find_aomenc() if name == "aomenc" else find_inspect()
    except EncoderError as error:
        reason, _, remedy = str(error).rpartition(": ")
        return "not found", [Problem("av1part data build", reason, remedy)]
    except OSError as error:
        reason = f"{name} cannot be tried ({error})"
        remedy = "check the folder for temporary files"
        return "not tried", [Problem("av1part data build", reason, remedy)]
    return f"{tool.path}, {tool.version}", []


def _patched() -> tuple[str, list[Problem]]:
    from av1part.encoder.patched import find_patched
    from av1part.system.errors import EncoderError

    feature = "hints in an encoder"
    try:
        tool = find_patched()
    except EncoderError as error:
        reason, _, remedy = str(error).rpartition(": ")
        return "not found", [Problem(feature, reason, remedy)]
    except OSError as error:
        reason = f"aomenc-av1part cannot be tried ({error})"
        return "not tried", [Problem(feature, reason, "check the folder for temporary files")]
    value = f"{tool.path}, {tool.version}"
    if tool.assembler != "none":
        return f"{value}, built with {tool.assembler}", []
    if platform.machine().lower() not in _X86:
        return value, []
    reason = "it was built without an assembler and is many times slower"
    remedy = f"install nasm, remove {tool.path} and run `make libaom`"
    return f"{value}, built without nasm", [Problem("times of the patched encoder", reason, remedy)]


def space() -> ProbeResult:
    """Check the free space for runs, caches, temporary files and batches in shared memory."""
    rows, problems = [], []
    remedies = {
        "runs": "free space, or work in another folder",
        "cache": "free space, set AV1PART_CACHE to another folder, or use cache=off",
        "temporary files": "free space, or set TMPDIR to another folder",
    }
    cache = "cached features, make libaom"
    places = {
        "runs": (Path("runs"), "av1part train", _RUN_BYTES),
        "temporary files": (_temporary(), "av1part data build", 0.0),
    }
    try:
        places["cache"] = (cache_folder(), cache, _CACHE_BYTES)
    except ConfigError as unknown_home:
        rows.append(("cache", "unknown"))
        problems.append(Problem(cache, first_line(unknown_home), remedies["cache"]))
    for name, (folder, feature, needed) in places.items():
        free, error = free_space(folder)
        rows.append((name, f"{folder.absolute()}, {error or f'{in_gb(free)} free'}"))
        if error:
            problems.append(Problem(feature, error, remedies[name], fatal=name == "runs"))
        elif free < needed:
            problems.append(Problem(feature, f"{in_gb(free)} are free", remedies[name]))
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        rows.append(("shared memory", f"{shared}, {in_gb(free)} free"))
        if free < _SHARED_BYTES:
            reason = f"{in_gb(free)} of {shared} are free"
            remedy = "data.num_workers=0, the default"
            remedy += "; in a container, give it more (docker run --shm-size=2g)"
            problems.append(Problem("data.num_workers above 0", reason, remedy))
    return ProbeResult("disk space", tuple(rows), tuple(problems))


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # none of the usual folders can be written
        return Path(os.environ.get("TMPDIR", "/tmp"))


def free_space(folder: Path) -> tuple[float, str]:
    """Write and remove a temporary file where a folder is, or would be created.

    Args:
        folder: The folder, which need not exist.

    Returns:
        Free bytes, and why nothing can be written there, empty if it can.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return 0.0, f"{place} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"av1part")
            file.flush()
    except OSError as error:
        return 0.0, f"{place} cannot be written ({error.strerror})"
    return float(shutil.disk_usage(place).free), ""


def memory_and_cores(threads: int | None) -> ProbeResult:
    """Check memory and cores; `threads` is the number torch starts, None if it is unknown."""
    rows, problems = [], []
    total, available = limits.memory()
    limit = limits.memory_limit()
    capped = limit is not None and (total is None or limit < total)
    parts = [f"{in_gb(total)} in all"] if total is not None else []
    parts += [f"{in_gb(available)} available"] if available is not None else []
    parts += [f"{in_gb(limit)} granted to this container"] if capped and limit else []
    rows.append(("memory", ", ".join(parts) or "unknown"))
    usable = min((n for n in (available, limit) if n is not None), default=None)
    if usable is not None and usable < _MEMORY_BYTES:
        reason = f"{in_gb(usable)} of memory can be used"
        remedy = "end other programs, or lower data.batch_size and data.eval_batch_size"
        problems.append(Problem("training at full width", reason, remedy))
    cores, quota = limits.affinity(), limits.core_quota()
    parts = [f"{cores} of {os.cpu_count()}"]
    parts += [f"the time of {quota:.1f} granted to this container"] if quota is not None else []
    parts += [f"torch starts {threads} threads"] if threads is not None else []
    rows.append(("cores", ", ".join(parts)))
    granted = min(cores, quota) if quota is not None else cores
    if threads is not None and threads > max(1.0, granted) + 0.5:
        reason = f"torch starts {threads} threads for the time of {granted:.1f} cores"
        remedy = f"set OMP_NUM_THREADS={max(1, round(granted))}"
        problems.append(Problem("training at full speed", reason, remedy))
    return ProbeResult("memory and cores", tuple(rows), tuple(problems))


def text_encoding() -> ProbeResult:
    """Check that text is encoded in UTF-8."""
    encodings = {
        "file names": sys.getfilesystemencoding(),
        "files": locale.getencoding() if not sys.flags.utf8_mode else "utf-8",
        "terminal": str(getattr(sys.stdout, "encoding", None) or "unknown"),
    }
    wrong = [f"{name} are {codec}" for name, codec in encodings.items() if not _is_utf8(codec)]
    feature, remedy = "names with letters beyond ASCII", "set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
    if len(wrong) == 1 and not _is_utf8(encodings["terminal"]):
        feature = "letters beyond ASCII on the terminal, which shows escapes for them"
        if "PYTHONIOENCODING" in os.environ:
            remedy = "unset PYTHONIOENCODING"
    problem = Problem(feature, f"text is not UTF-8 ({', '.join(wrong)})", remedy)
    value = ", ".join(f"{name} {codec}" for name, codec in encodings.items())
    return ProbeResult("text", (("encoding", value),), (problem,) if wrong else ())


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def embedded_store() -> ProbeResult:
    """Check every file of the embedded dataset."""
    try:
        from av1part import embedded
        from av1part.data.store.store import Store

        store = Store.open(embedded.STORE, verify="full")
    except Exception as error:  # with a broken package it may be any error
        reason = f"it does not open ({' '.join(str(error).split()) or type(error).__name__})"
        remedy = "install av1part anew"
        problem = Problem("training on the embedded dataset", reason, remedy, fatal=True)
        return ProbeResult("embedded dataset", (("store", "damaged"),), (problem,))
    value = f"{store.nodes.height:,} nodes, every file as its manifest says"
    return ProbeResult("embedded dataset", (("store", value),))

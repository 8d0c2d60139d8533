"""Programs, room, memory, cores, text and the embedded dataset: what is here, what would fail."""

from __future__ import annotations

import importlib.util
import locale
import os
import shutil
import sys
import tempfile
from pathlib import Path

from av1part.cli.doctor import Section, Trouble, in_gb, limits
from av1part.system.files import cache_folder

_RUN_BYTES = 1e9
"""Room below which a run may fill the disk: two checkpoints of full width, as written and named."""
_CACHE_BYTES = 2e9
_SHARED_BYTES = 256e6
"""Room that batches of a few DataLoader workers take; containers often have 64 MB."""
_MEMORY_BYTES = 3e9
"""What a training of full width takes, PyTorch's own code among it."""


def programs() -> Section:
    """Tell which other programs are found: libaom's, a compiler, SLURM, a browser."""
    rows, troubles = [], []
    for name in ("aomenc", "inspect"):
        row, trouble = _libaom(name)
        rows.append((name, row))
        troubles += trouble
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    rows.append(("C++ compiler", compiler or "not found"))
    if compiler is None:
        why, remedy = "there is no C++ compiler", "apt install g++, or leave compile=false"
        troubles.append(Trouble("trainer.compile=true", why, remedy))
    launcher = importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher")
    rows.append(("joblib launcher", "found" if launcher else "not found"))
    if not launcher:
        why, remedy = "it is not installed", "pip install 'av1part[joblib]'"
        troubles.append(Trouble("hydra/launcher=joblib", why, remedy))
    for name, program in (("SLURM", "sbatch"), ("chromium (tests alone)", "chromium")):
        rows.append((name, shutil.which(program) or "not found"))
    return Section("programs", tuple(rows), tuple(troubles))


def _libaom(name: str) -> tuple[str, list[Trouble]]:
    from av1part.data.build.libaom import find_aomenc, find_inspect
    from av1part.system.errors import EncoderError

    try:
        tool = find_aomenc() if name == "aomenc" else find_inspect()
    except EncoderError as error:
        why, _, remedy = str(error).rpartition(": ")
        return "not found", [Trouble("av1part data build", why, remedy)]
    except OSError as error:
        why, remedy = f"{name} cannot be tried ({error})", "see to the folder for temporary files"
        return "not tried", [Trouble("av1part data build", why, remedy)]
    return f"{tool.path}, {tool.version}", []


def room() -> Section:
    """Tell where runs, caches, temporary files and batches go, with the room that is there."""
    rows, troubles = [], []
    remedies = {
        "runs": "free space, or work in another folder",
        "cache": "free space, set AV1PART_CACHE to another folder, or use cache=off",
        "temporary files": "free space, or set TMPDIR to another folder",
    }
    places = {
        "runs": (Path("runs"), "av1part train", _RUN_BYTES),
        "cache": (cache_folder(), "cached features, make libaom", _CACHE_BYTES),
        "temporary files": (_temporary(), "av1part data build", 0.0),
    }
    for name, (folder, fails, wanted) in places.items():
        free, wrong = free_space(folder)
        rows.append((name, f"{folder.absolute()}, {wrong or f'{in_gb(free)} free'}"))
        if wrong:
            troubles.append(Trouble(fails, wrong, remedies[name], needed=name == "runs"))
        elif free < wanted:
            troubles.append(Trouble(fails, f"{in_gb(free)} are free", remedies[name]))
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        rows.append(("shared memory", f"{shared}, {in_gb(free)} free"))
        if free < _SHARED_BYTES:
            why, remedy = f"{in_gb(free)} of {shared} are free", "data.num_workers=0, the default"
            remedy += "; in a container, give it more (docker run --shm-size=2g)"
            troubles.append(Trouble("data.num_workers above 0", why, remedy))
    return Section("room", tuple(rows), tuple(troubles))


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # none of the usual folders can be written
        return Path(os.environ.get("TMPDIR", "/tmp"))


def free_space(folder: Path) -> tuple[float, str]:
    """Try to write where a folder is or would be made; nothing stays.

    Args:
        folder: It need not exist.

    Returns:
        Bytes free, and what is wrong, empty if nothing is.
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


def strength(threads: int | None) -> Section:
    """Tell memory and cores.

    Args:
        threads: That torch would start; None if it cannot be asked.

    Returns:
        The section.
    """
    rows, troubles = [], []
    total, available = limits.memory()
    limit = limits.memory_limit()
    capped = limit is not None and (total is None or limit < total)
    told = [f"{in_gb(total)} in all"] if total is not None else []
    told += [f"{in_gb(available)} available"] if available is not None else []
    told += [f"{in_gb(limit)} granted to this container"] if capped and limit else []
    rows.append(("memory", ", ".join(told) or "unknown"))
    usable = min((n for n in (available, limit) if n is not None), default=None)
    if usable is not None and usable < _MEMORY_BYTES:
        why = f"{in_gb(usable)} of memory can be used"
        remedy = "end other programs, or lower data.batch_size and data.eval_batch_size"
        troubles.append(Trouble("training at full width", why, remedy))
    cores, quota = limits.affinity(), limits.core_quota()
    told = [f"{cores} of {os.cpu_count()}"]
    told += [f"the time of {quota:.1f} granted to this container"] if quota is not None else []
    told += [f"torch starts {threads} threads"] if threads is not None else []
    rows.append(("cores", ", ".join(told)))
    granted = min(cores, quota) if quota is not None else cores
    if threads is not None and threads > max(1.0, granted) + 0.5:
        why = f"torch starts {threads} threads for the time of {granted:.1f} cores"
        remedy = f"set OMP_NUM_THREADS={max(1, round(granted))}"
        troubles.append(Trouble("training at full speed", why, remedy))
    return Section("memory and cores", tuple(rows), tuple(troubles))


def text() -> Section:
    """Tell how text is written, and whether that holds any letter."""
    names = {
        "file names": sys.getfilesystemencoding(),
        "files": locale.getencoding() if not sys.flags.utf8_mode else "utf-8",
        "terminal": str(getattr(sys.stdout, "encoding", None) or "unknown"),
    }
    other = [f"{name} are {found}" for name, found in names.items() if not _is_utf8(found)]
    trouble = Trouble(
        "names with letters beyond ASCII, and tables",
        f"text is not UTF-8 ({', '.join(other)})",
        "set LC_ALL=C.UTF-8, or PYTHONUTF8=1",
    )
    row = (", ".join(f"{name} {found}" for name, found in names.items()),)
    return Section("text", (("encoding", *row),), (trouble,) if other else ())


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def embedded_store() -> Section:
    """Tell whether the embedded dataset is whole."""
    try:
        from av1part import embedded
        from av1part.data.store.store import Store

        store = Store.open(embedded.STORE, verify="full")
    except Exception as error:  # as broken as the packages are: told, whatever it is
        why = f"it does not open ({' '.join(str(error).split()) or type(error).__name__})"
        remedy = "install av1part anew"
        trouble = Trouble("training on the embedded dataset", why, remedy, needed=True)
        return Section("embedded dataset", (("store", "damaged"),), (trouble,))
    said = f"{store.nodes.height:,} nodes, every file as its manifest says"
    return Section("embedded dataset", (("store", said),))

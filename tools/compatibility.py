"""Run the tests with other versions than `.venv` has: the lowest stated ones, and later Pythons.

    make compatibility                            lowest, 3.12, 3.13
    make compatibility ARGS='lowest 3.13'         these
    make compatibility ARGS='3.12 -- -k store'    pytest's words after the dashes

`lowest` is Python 3.11 with each requirement of pyproject.toml (dev, joblib and cluster among them)
at the lowest version its bound allows; the others have requirements.lock. Each has an environment
of some 7 GB under .venv-compat, kept for the next time; `make clean` removes them. An interpreter
is one on PATH, one of pyenv's, or one that uv fetches. What cannot be run is said in a line; the
exit code is 0 if everything that could be run has passed, and something could.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-compat"
UV = ROOT / ".uv" / "bin" / "uv"
PARTS = {"lowest": "3.11", "3.12": "3.12", "3.13": "3.13"}
"""Name of each part, and its Python."""
ROOM = 8e9
"""Bytes that a new environment may take, those in uv's cache among them."""
TESTS = ("-m", "not slow", "--numprocesses=auto", "--maxprocesses=4")
"""What pytest is told, as by `make test`; further words come after it and win."""


class CannotRunError(Exception):
    """Why a part cannot be run here."""


def candidates(version: str) -> Iterator[Path]:
    """Yield where an interpreter may be: on PATH, then pyenv's newest first."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield Path(folder) / f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"

    def number(folder: Path) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", folder.name)]

    for folder in sorted(pyenv.glob(f"{version}.*"), key=number, reverse=True):
        yield folder / "bin" / "python"


def runs(python: Path, version: str) -> bool:
    """Return whether an interpreter runs (a version manager's shim may not) and has the version."""
    say = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", say], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.stdout.strip() == version


def find_python(version: str) -> Path:
    """Find an interpreter, or have uv fetch one.

    Raises:
        CannotRunError: if there is none and uv cannot.
    """
    for python in candidates(version):
        if python.is_file() and runs(python, version):
            return python
    fetched = HOME / "pythons"
    if UV.is_file():
        command = [UV, "python", "install", "--quiet", "--no-bin", "-i", fetched, version]
        with (HOME / "fetch.log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=log, check=False)
    for python in sorted(fetched.glob(f"cpython-{version}*/bin/python3")):
        if runs(python, version):
            return python
    raise CannotRunError(
        f"no Python {version} on PATH or with pyenv, and uv cannot fetch one: install it"
    )


def requirements(part: str, python: Path) -> Path:
    """Return the requirements of a part, resolved anew if they are the lowest.

    Raises:
        CannotRunError: if nothing satisfies the bounds.
    """
    if part != "lowest":
        return ROOT / "requirements.lock"
    out = HOME / "lowest.txt"
    words = ["--quiet", "--resolution", "lowest-direct", "--no-emit-index-url", "--no-header"]
    words += [
        word for extra in ("dev", "joblib", "cluster", "trees") for word in ("--extra", extra)
    ]
    call(
        [UV, "pip", "compile", *words, "--python", python, "-o", out, ROOT / "pyproject.toml"],
        "uv finds no versions for the bounds of pyproject.toml",
    )
    return out


def call(command: Sequence[str | Path], trouble: str) -> None:
    """Run a command.

    Raises:
        CannotRunError: with what is the trouble, if it fails.
    """
    if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode:
        raise CannotRunError(f"{trouble}: see its words above")


def environment(part: str) -> Path:
    """See to the environment of a part.

    Returns:
        Its folder.

    Raises:
        CannotRunError: if it cannot be made.
    """
    HOME.mkdir(exist_ok=True)
    folder = HOME / part
    python = find_python(PARTS[part])
    listed = requirements(part, python)
    wanted = hashlib.sha256(listed.read_bytes() + str(python).encode()).hexdigest()
    stamp = folder / "av1part-compatibility"
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder
    free = shutil.disk_usage(HOME).free
    if free < ROOM:
        raise CannotRunError(f"{free / 1e9:.0f} GB are free, it may take {ROOM / 1e9:.0f}")
    print(f"compatibility: making {folder} with {python}", flush=True)
    call([UV, "venv", "--quiet", "--clear", "--python", python, folder], "uv makes no environment")
    into = ["--quiet", "--python", folder / "bin" / "python"]
    call(
        [UV, "pip", "sync", "--compile-bytecode", *into, listed], f"uv cannot install {listed.name}"
    )
    call(
        [UV, "pip", "install", *into, "--no-deps", "--no-build-isolation", "-e", ROOT],
        "uv cannot install av1part itself",
    )
    stamp.write_text(wanted)
    return folder


def run_tests(part: str, words: Sequence[str]) -> bool:
    """Run the tests of a part; return whether they passed.

    Raises:
        CannotRunError: if it has no environment.
    """
    folder = environment(part)
    binaries = folder / "bin"
    outer = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}
    own = {key: value for key, value in os.environ.items() if key not in outer}
    own["PATH"] = f"{binaries}{os.pathsep}{own.get('PATH', '')}"
    command = [binaries / "python", "-m", "pytest", "-p", "no:cacheprovider", *TESTS, *words]
    print(f"compatibility: {part}: {' '.join(map(str, command))}", flush=True)
    return subprocess.run(command, cwd=ROOT, env=own, check=False).returncode == 0


def main(argv: Sequence[str]) -> int:
    """Run the parts named, or all."""
    chosen, words = list(argv), []
    if "--" in chosen:
        at = chosen.index("--")
        chosen, words = chosen[:at], chosen[at + 1 :]
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        print(f"compatibility: no part {' '.join(unknown)}: choose of {' '.join(PARTS)}")
        return 2
    results = {}
    for part in chosen or PARTS:
        try:
            results[part] = "passed" if run_tests(part, words) else "FAILED"
        except CannotRunError as error:
            results[part] = f"could not be run: {error}"
    for part, result in results.items():
        print(f"compatibility: {part} (Python {PARTS[part]}): {result}")
    return 0 if "passed" in results.values() and "FAILED" not in results.values() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

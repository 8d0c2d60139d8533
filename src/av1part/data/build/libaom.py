"""Running libaom's aomenc and inspect: y4m in, block sizes of every frame out.

y4m --pipe--> aomenc -> IVF -> inspect -bs -x -> JSON, one object a frame -> `InspectedFrame`
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from av1part.data.build.tree import UNIT, Grid
from av1part.data.build.yuv import MAX_SIDE
from av1part.system.errors import EncoderError, first_line
from av1part.system.files import cache_folder, expanded, parse_json

_BLOCK_NAME = re.compile(r"BLOCK_(\d+)X(\d+)")
_MEMBER = re.compile(r'\s*"(blockSizeMap|blockSize|frameType|baseQIndex)":\s*(.*?),?\s*')
_MOST_CELLS = MAX_SIDE // UNIT + 2
"""Cells a side of the largest frame, rounded up to whole 8x8 blocks as in AV1."""
PATCHED_VARIABLES = ("AV1PART_HINTS", "AV1PART_COUNTS", "AV1PART_COSTS")
"""What the patched encoder reads from its environment (docs/encoder.md)."""

_VERSION = re.compile(r"AOMedia Project AV1 (?:En|De)coder (v\S+)")


@dataclass(frozen=True)
class Tool:
    """A program of libaom.

    Attributes:
        path: The executable.
        version: libaom's version as the program prints it, such as `v3.6.0`.
    """

    path: Path
    version: str


@dataclass(frozen=True)
class InspectedFrame:
    """The block sizes of one decoded frame, from inspect.

    Attributes:
        qindex: `base_q_idx` of the frame, 0 to 255.
        blocks: Height and width in luma samples of the block that covers each 4x4 cell, uint8
            `[rows, cols, 2]`.
    """

    qindex: int
    blocks: Grid


class Children:
    """The child processes of a build, none of which outlives it; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    @contextmanager
    def run(self, command: Sequence[str], **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program during a `with` block; at its end the program is killed if it still runs.

        It has a session of its own, so that Ctrl-C reaches only the build.

        Args:
            command: The program and its arguments.
            **pipes: Arguments of `Popen` for its streams and environment, which is
                `stock_environment` by default.

        Yields:
            The running program.

        Raises:
            EncoderError: if the program cannot be started, or `close` was called before.
        """
        with self._lock:
            if self._closed:
                raise EncoderError(f"{Path(command[0]).name} was not started: the build stopped")
            pipes.setdefault("env", stock_environment())
            try:
                process = subprocess.Popen(command, start_new_session=True, **pipes)
            except OSError as error:
                raise EncoderError(f"{command[0]} cannot be run ({error.strerror})") from None
            self._running.add(process)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    _close_quietly(pipe)
            with self._lock:
                self._running.discard(process)

    def close(self) -> None:
        """Kill all running programs and refuse to start others."""
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()


def stock_environment() -> dict[str, str]:
    """Return the environment in which the patched encoder does what the stock one does."""
    return {key: text for key, text in os.environ.items() if key not in PATCHED_VARIABLES}


def _close_quietly(pipe: IO[bytes]) -> None:
    """Close a pipe whose reader may have ended, which loses what it has not read."""
    with suppress(BrokenPipeError):
        pipe.close()


def find_aomenc() -> Tool:
    """Find aomenc: `AV1PART_AOMENC`, then the build of `make libaom`, then PATH.

    An `EncoderError` says that there is none, or that it is not libaom's.
    """
    path = _find("aomenc", "AV1PART_AOMENC")
    return Tool(path, program_version(path, ["--help"]))


def find_inspect() -> Tool:
    """Find inspect: `AV1PART_INSPECT`, then the build of `make libaom`, then PATH.

    An `EncoderError` says that there is none, or that it is not libaom's.
    """
    path = _find("inspect", "AV1PART_INSPECT")
    # It prints its version only when it opens a stream.
    with tempfile.NamedTemporaryFile(suffix=".ivf") as file:
        file.write(_ivf_header())
        file.flush()
        return Tool(path, program_version(path, [file.name, "-bs"]))


def _ivf_header() -> bytes:
    """Return an IVF file of AV1 without frames."""
    return struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, b"AV01", 16, 16, 30, 1, 0, 0)


def programs_folder() -> Path:
    """Return the folder where `make libaom` installs its programs."""
    return cache_folder() / "libaom" / "bin"


def _find(name: str, variable: str) -> Path:
    given = os.environ.get(variable)
    if given:
        path = expanded(given)
        if not os.access(path, os.X_OK) or path.is_dir():
            raise EncoderError(f"{variable}={given} is not a program: correct or unset it")
        return path
    built = programs_folder() / name
    if os.access(built, os.X_OK):
        return built
    installed = shutil.which(name)
    if installed is None:
        raise EncoderError(f"no {name} found: run `make libaom`, or set {variable} to the program")
    return Path(installed)


def program_version(path: Path, arguments: list[str]) -> str:
    """Return the version that a program of libaom prints.

    Args:
        path: The program.
        arguments: Make it print its version.

    Returns:
        Such as `v3.6.0`.

    Raises:
        EncoderError: if it cannot be run, or is not libaom's.
    """
    try:
        output = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=stock_environment(),
            timeout=60,
            check=False,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EncoderError(f"{path} cannot be run ({error}): run `make libaom`") from None
    match = _VERSION.search(output)
    if match is None:
        raise EncoderError(f"{path} is not a program of libaom: run `make libaom`")
    return match[1]


def encoder_arguments(
    cq_level: int, *, bit_depth: int, cpu_used: int = 0, one_to_four: bool = False
) -> list[str]:
    """List aomenc's arguments, without its output and input.

    Every frame is a key frame at one quantiser, on one thread, so the stream depends only on the
    samples, these arguments and aomenc's version.

    Args:
        cq_level: Quantiser, 0 to 63.
        bit_depth: Bits per sample of the y4m.
        cpu_used: Speed, 0 the slowest and most thorough.
        one_to_four: Allow 1:4 partitions.

    Returns:
        The arguments, in a fixed order.
    """
    arguments = ["--ivf", "--passes=1", "--end-usage=q", f"--cq-level={cq_level}"]
    arguments += ["--kf-max-dist=0", f"--cpu-used={cpu_used}", "--threads=1"]
    if not one_to_four:
        arguments.append("--enable-1to4-partitions=0")
    if bit_depth > 8:
        arguments += [f"--bit-depth={bit_depth}", f"--input-bit-depth={bit_depth}"]
    return arguments


def encode(
    aomenc: Path,
    y4m: Path,
    ivf: Path,
    arguments: Sequence[str],
    children: Children,
    environment: Mapping[str, str] | None = None,
) -> float:
    """Encode a y4m file through a pipe, which ends the encoder if this process dies.

    Args:
        aomenc: The encoder's executable.
        y4m: The input.
        ivf: The stream to write.
        arguments: Arguments from `encoder_arguments`.
        children: Processes of the build.
        environment: Variables of the patched encoder.

    Returns:
        User and system seconds of aomenc.

    Raises:
        EncoderError: if aomenc fails, with its last message.
    """
    command = [str(aomenc), *arguments, "-o", str(ivf), "-"]
    env = {**stock_environment(), **(environment or {})}
    with tempfile.TemporaryFile() as log:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": log, "env": env}
        with children.run(command, **pipes) as process, y4m.open("rb") as source:
            assert process.stdin is not None
            try:
                shutil.copyfileobj(source, process.stdin, 1 << 20)
                process.stdin.close()
            except BrokenPipeError:
                pass  # aomenc gave up early; its exit status and log say why
            seconds = _wait_seconds(process)
        if process.returncode != 0:
            raise EncoderError(f"aomenc failed on {y4m.stem} {_reason(process.returncode, log)}")
    return seconds


def _wait_seconds(process: subprocess.Popen[bytes]) -> float:
    """Wait for a program; return its user and system seconds."""
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except ChildProcessError:  # `Children.close` in another thread waited for it
        process.wait()
        return 0.0
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def inspect_stream(inspect: Path, ivf: Path, children: Children) -> Iterator[InspectedFrame]:
    """Inspect a stream frame by frame.

    Args:
        inspect: The executable of inspect.
        ivf: The stream.
        children: Processes of the build.

    Yields:
        The block sizes of each frame, in order.

    Raises:
        EncoderError: if inspect fails, or its output is not as expected.
    """
    with tempfile.TemporaryFile() as log:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": log}
        with children.run([str(inspect), str(ivf), "-bs", "-x"], **pipes) as process:
            assert process.stdout is not None
            yield from parse_inspect(process.stdout, ivf.name)
            status = process.wait()
        if status != 0:
            raise EncoderError(f"inspect failed on {ivf.name} {_reason(status, log)}")


def _reason(status: int, log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
    message = re.split(r"[\r\n]+", log.read().decode(errors="replace").strip())[-1]
    return f"(exit status {status}: {message[:200] or 'no message'})"


def parse_inspect(lines: Iterable[bytes], name: str) -> Iterator[InspectedFrame]:
    """Parse the JSON of `inspect -bs`, run-length coded (`-x`) or not, one frame at a time.

    The output as a whole is one JSON array that ends in `null`. inspect prints one member per
    line, so parsing by line bounds the memory.

    Args:
        lines: Output of inspect.
        name: Name of the stream in an error.

    Yields:
        Each frame, as soon as its last line is read.

    Raises:
        EncoderError: if a frame is incomplete or not a key frame, or the closing `null` is missing.
    """
    members: dict[str, Any] = {}
    ended = False
    for raw in lines:
        line = raw.decode("utf-8", errors="replace").rstrip()
        match = _MEMBER.fullmatch(line)
        if match:
            try:
                members[match[1]] = parse_json(match[2])
            except ValueError:
                raise EncoderError(f"{name}: inspect printed a broken {match[1]}") from None
        elif line in ("}", "},"):
            yield _frame(members, name)
            members = {}
        elif line == "null":
            ended = True
    if members or not ended:
        raise EncoderError(f"{name}: inspect stopped before the end of its output")


def _frame(members: dict[str, Any], name: str) -> InspectedFrame:
    try:
        if members["frameType"] != 0:
            raise EncoderError(f"{name} has a frame that is not a key frame")
        sizes, rows = _size_table(members["blockSizeMap"]), members["blockSize"]
        if len(rows) > _MOST_CELLS:
            raise ValueError(f"more than {_MOST_CELLS} rows")
        codes = np.array([_run_lengths(row) for row in rows])
        qindex = int(members["baseQIndex"])
        if qindex not in range(256):
            raise ValueError(f"baseQIndex {qindex:.3g}")
        return InspectedFrame(qindex, sizes[codes])
    except KeyError as missing:
        raise EncoderError(f"{name}: inspect printed a frame without {missing}") from None
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise EncoderError(
            f"{name}: inspect printed a broken frame ({first_line(error)}): use another inspect "
            "(`make libaom`)"
        ) from None


def _size_table(codes: dict[str, int]) -> Grid:
    """Return the lookup table, uint8 `[codes, 2]`: block size code to height and width."""
    table = np.zeros((256, 2), dtype=np.uint8)
    for block, code in codes.items():
        match = _BLOCK_NAME.fullmatch(block)
        if match:
            table[code] = int(match[2]), int(match[1])
    return table


def _run_lengths(row: list[Any]) -> NDArray[np.uint8]:
    """Expand one row, in which `[n]` repeats the value before it n more times.

    Raises:
        ValueError: if the row is wider than any frame, before it is expanded.
    """
    cells: list[int] = []
    for item in row:
        repeated = isinstance(item, list)
        if len(cells) + (item[0] if repeated else 1) > _MOST_CELLS:
            raise ValueError(f"a row of more than {_MOST_CELLS} cells")
        cells += [cells[-1]] * item[0] if repeated else [item]
    return np.array(cells, dtype=np.uint8)

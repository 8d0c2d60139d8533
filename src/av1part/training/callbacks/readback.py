"""Reading a checkpoint back in a new Python process, which shares nothing with the training.

    verified -> python -m av1part.training.callbacks.readback_child CKPT -> one JSON record

The new process gets the file's path and no object: it reads the bytes that are on disk, attaches
the data that the checkpoint names, and evaluates by the code of `av1part validate`.
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from av1part.data.serve.blocks import Batch
from av1part.evaluation.evaluate import evaluate, log_loss, stage_scores
from av1part.models.freeze import tensor_hashes
from av1part.stages.base import StageModule
from av1part.system.errors import CheckpointMismatchError
from av1part.system.files import parse_json
from av1part.system.signals import SIGNALS
from av1part.system.terminal import printable

log = logging.getLogger(__name__)

CHILD = (sys.executable, "-P", "-m", "av1part.training.callbacks.readback_child")
"""Command of the new process; `-P` keeps it from importing a torch.py of the current folder."""

TIMEOUT = 1800.0
"""Seconds the new process may take: about ten to start, the rest to validate."""


@dataclass(frozen=True)
class ReadBack:
    """The contents of a checkpoint, as read back.

    Attributes:
        tensors: Name to SHA-256 of each tensor of the rebuilt module.
        file_sha256: Of the file as it was read.
        macro_f1: On the verification batches, a fraction; None if only tensors were read.
        pid: Process that read it.
        python: Version of its Python.
        log_loss: On the same batches, in nats.
    """

    tensors: Mapping[str, str]
    file_sha256: str
    macro_f1: float | None
    pid: int
    python: str
    log_loss: float | None = None

    @classmethod
    def of(
        cls,
        module: StageModule,
        file_sha256: str,
        batches: Iterable[Batch] | None,
        *,
        limit: int | None = None,
        precision: str = "32-true",
    ) -> ReadBack:
        """Hash and validate a rebuilt module in this process.

        Args:
            module: As loaded from the file, on the device to evaluate on.
            file_sha256: Of the file as it was read.
            batches: The val batches; None leaves out the validation.
            limit: Only the first so many batches; None is all.
            precision: To compute in, a key of `AUTOCASTS`.

        Returns:
            The record.
        """
        tensors, macro_f1, loss = tensor_hashes(module.state_dict()), None, None
        if batches is not None:
            evaluation = evaluate(module, batches, limit=limit, precision=precision)
            macro_f1 = float(stage_scores(module, evaluation)["macro_f1"])
            loss = log_loss(module, evaluation)
        return cls(tensors, file_sha256, macro_f1, os.getpid(), platform.python_version(), loss)


def read_back_in_new_process(
    path: Path, *, batches: int | None, ranks: int, device: str, precision: str = "32-true"
) -> ReadBack:
    """Rebuild a checkpoint's module in a new Python process, and validate it there.

    Args:
        path: The checkpoint.
        batches: Only the first so many val batches; None is all.
        ranks: Processes of the training; the first one's share of the batches is evaluated.
        device: Where to evaluate.
        precision: Precision of the computation, a key of `AUTOCASTS`.

    Returns:
        The record that the process prints.

    Raises:
        CheckpointMismatchError: if the process cannot be started, ends with an error or by a
            signal, takes longer than `TIMEOUT`, or prints anything but its record. A signal that
            tells a job to stop reaches it too; it is then started a second time.
    """
    limit = "all" if batches is None else str(batches)
    command = [*CHILD, str(path.resolve()), limit, str(ranks), device, precision]
    # The new process must run the code of this one, wherever that was imported from.
    here = str(Path(__file__).resolve().parents[3])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = _run(command, environment)
        if -done.returncode in SIGNALS:
            log.info("told to stop while %s was read back: reading it again", path.name)
            done = _run(command, environment)
    except subprocess.TimeoutExpired:
        raise CheckpointMismatchError(
            f"it did not answer within {TIMEOUT:g} s: fewer callbacks.verify_batches take less"
        ) from None
    except OSError as error:
        raise CheckpointMismatchError(f"it could not be started: {error}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise CheckpointMismatchError(f"it ended with {ended}: {printable(lines[-1], 400)}")
    return _parse(done.stdout)


def _run(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT,
        env=environment,
        check=False,
    )


def _parse(text: str) -> ReadBack:
    try:
        record = ReadBack(**parse_json(text))
    except (ValueError, TypeError):
        record = None
    good = (
        record is not None
        and isinstance(record.tensors, dict)
        and isinstance(record.file_sha256, str)
        and isinstance(record.macro_f1, float)
        and isinstance(record.log_loss, float)
        and isinstance(record.python, str)
        and isinstance(record.pid, int)
        and record.pid != os.getpid()
    )
    if record is None or not good:
        printed = printable(text.strip(), 60) or "nothing"
        raise CheckpointMismatchError(f"it printed {printed!r} instead of its record")
    return record

"""Every way in which the new process of `callbacks.verify=process` can fail to answer."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from av1part.system.errors import CheckpointMismatchError
from av1part.system.signals import SIGNALS
from av1part.training.callbacks import readback
from av1part.training.callbacks.readback import ReadBack, read_back_in_new_process

GOOD = {
    "tensors": {"a": "0"},
    "file_sha256": "1",
    "macro_f1": 0.5,
    "log_loss": 0.7,
    "python": "3.11.0",
}


def ask(code: str, monkeypatch: pytest.MonkeyPatch) -> ReadBack:
    """Ask a process that runs this Python code; its words are those of the true one."""
    monkeypatch.setattr(readback, "CHILD", (sys.executable, "-S", "-c", code))
    return read_back_in_new_process(
        Path("x.ckpt"), batches=3, ranks=1, device="cpu", precision="bf16-mixed"
    )


def printing(record: object) -> str:
    return f"import os; print({json.dumps(record)!r}.replace('-99', str(os.getpid())))"


def test_a_record_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    back = ask(printing({**GOOD, "pid": -99}), monkeypatch)
    assert back.pid != os.getpid()
    assert (back.tensors, back.file_sha256, back.macro_f1) == ({"a": "0"}, "1", 0.5)


def test_it_gets_path_batches_ranks_device_and_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code = printing({**GOOD, "pid": -99, "file_sha256": "WORDS"})
    back = ask(f"import sys; {code[:-1]}.replace('WORDS', ' '.join(sys.argv[1:])))", monkeypatch)
    assert back.file_sha256 == f"{tmp_path / 'x.ckpt'} 3 1 cpu bf16-mixed"


ELSE = {
    "killed": ("import os; os.kill(os.getpid(), 9)", "ended with signal 9: it said nothing"),
    "no memory": ("raise MemoryError('no room')", "ended with code 1: MemoryError: no room"),
    "escapes": ("import sys; sys.exit('checkpoint is \\x1b[31mbad')", r"bad"),
    "nothing": ("pass", "printed 'nothing' instead"),
    "words": ("print('hello')", "printed 'hello' instead"),
    "empty": ("print('{}')", "instead of its record"),
    "deep": ("print('[' * 100000)", "instead of its record"),
    "null": ("print('null')", "instead of its record"),
    "more keys": (printing({**GOOD, "pid": -99, "more": 1}), "instead of its record"),
    "no score": (printing({**GOOD, "pid": -99, "macro_f1": None}), "instead of its record"),
    "no names": (printing({**GOOD, "pid": -99, "tensors": []}), "instead of its record"),
    "its parent's": (printing({**GOOD, "pid": os.getpid()}), "instead of its record"),
    "more lines": (printing({**GOOD, "pid": -99}) + "; print('and more')", "instead of its record"),
}


@pytest.mark.parametrize(("code", "said"), ELSE.values(), ids=ELSE)
def test_anything_else_is_a_mismatch(code: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointMismatchError) as error:
        ask(code, monkeypatch)
    assert said in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_job_told_to_stop_reads_again(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The signal is for all processes of the job; the file is as good as before."""
    once = f"p = {str(tmp_path / 'told')!r}; import os; os.path.exists(p) or "
    stop = f"(open(p, 'w').close(), os.kill(os.getpid(), {number:d}))"
    back = ask(f"{once}{stop}; {printing({**GOOD, 'pid': -99})}", monkeypatch)
    assert back.macro_f1 == 0.5
    with pytest.raises(CheckpointMismatchError, match=f"ended with signal {number:d}"):
        ask(f"import os; os.kill(os.getpid(), {number:d})", monkeypatch)


def test_it_may_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "TIMEOUT", 0.3)
    with pytest.raises(CheckpointMismatchError, match=r"within 0\.3 s"):
        ask("import time; time.sleep(60)", monkeypatch)


def test_it_may_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "CHILD", ("/nowhere/python",))
    with pytest.raises(CheckpointMismatchError, match="could not be started"):
        read_back_in_new_process(Path("x.ckpt"), batches=1, ranks=1, device="cpu")

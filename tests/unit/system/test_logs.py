"""Log lines on a terminal, in a pipe, and in the file of a run."""

from __future__ import annotations

import io
import logging
import logging.config
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from av1part.system.errors import ConfigError
from av1part.system.logs import ConsoleHandler, run_log

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger below the root, which has a console alone."""
    root = logging.getLogger()
    before, level, handler = list(root.handlers), root.level, ConsoleHandler()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    yield logging.getLogger("av1part.tests")
    root.handlers[:] = before
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(path: Path) -> list[str]:
    """The lines of a log without their times, each of which has one."""
    found = path.read_text(encoding="utf-8").splitlines()
    assert all(re.match(STAMP, line) for line in found), found
    return [re.sub(STAMP, "", line, count=1) for line in found]


def test_plain_in_a_pipe(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log.info("epoch %d of [bold]runs/caf\u00e9[/bold]", 1)
    log.warning("a \x1b[31mred\x1b[0m thing\x07")
    log.error("over")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "epoch 1 of [bold]runs/caf\u00e9[/bold]\nwarning: a red thing\\x07\nerror: over\n"
    )


def test_coloured_on_a_terminal(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    log.info("x" * 500)
    log.warning("late")
    first, second = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first == "x" * 500  # a line stays one, to copy it
    assert second.startswith("\x1b[33m")
    assert "warning: late" in second


def test_a_line_goes_above_a_progress_bar(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(console=Console(file=screen, force_terminal=True, width=60)):
        assert sys.stderr is not screen  # the bar's
        log.info("epoch 0 ended")
    assert "epoch" in screen.getvalue()


def test_a_run_s_log_is_plain_and_timed(
    log: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run" / "train.log"
    with run_log(path):
        assert not path.parent.exists()
        log.info("caf\u00e9 \x1b[1mbold\x1b[0m")
        warnings.warn("few\n workers", stacklevel=1)
        logging.getLogger("pytorch_lightning").error("by Lightning")
        logging.getLogger("av1part.sweeps.watch").info("sweep: 1 done")
    log.info("after")
    info, warning, error = lines(path)
    assert info == "INFO caf\u00e9 bold"
    assert re.fullmatch(r"WARNING .*test_logs.py:\d+: UserWarning: few workers( .*)?", warning)
    assert error == "ERROR by Lightning"
    assert "UserWarning: few workers" in capsys.readouterr().err


def test_half_a_character_is_written_out(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    with run_log(tmp_path / "train.log"):
        (own,) = (handler for handler in logging.getLogger().handlers if handler not in before)
        # Past pytest's handlers: its workers could not report such text.
        own.handle(logging.LogRecord("av1part", logging.INFO, "", 0, "\udcff", None, None))
    assert lines(tmp_path / "train.log") == ["INFO \\udcff"]


def test_warnings_are_python_s_again_afterwards(log: logging.Logger, tmp_path: Path) -> None:
    show, handlers = warnings.showwarning, list(logging.getLogger().handlers)
    with pytest.raises(RuntimeError), run_log(tmp_path / "train.log"):
        raise RuntimeError
    assert warnings.showwarning is show
    assert logging.getLogger().handlers == handlers


def test_what_ends_a_run_is_its_last_line(log: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "train.log"

    def train() -> None:
        log.info("begun")
        raise ConfigError("the loss is\nnot finite")

    with pytest.raises(ConfigError), run_log(path):
        train()
    assert lines(path) == ["INFO begun", "ERROR the loss is not finite"]
    with pytest.raises(ZeroDivisionError), run_log(path, always=True):
        _ = 1 / 0
    text = path.read_text()
    assert text.count("ERROR") == 2
    assert text.splitlines()[-1].startswith("ZeroDivisionError")
    assert "Traceback" in text


def test_a_run_refused_at_once_leaves_no_log(log: logging.Logger, tmp_path: Path) -> None:
    with pytest.raises(ConfigError), run_log(tmp_path / "run" / "train.log"):
        raise ConfigError("no such option")
    assert not list(tmp_path.iterdir())


def test_a_sweep_s_log_outlives_the_set_up_of_its_jobs(log: logging.Logger, tmp_path: Path) -> None:
    """Hydra sets logging up anew for each job, which closes every handler."""
    sweeps = logging.getLogger("av1part.sweeps.run")
    with run_log(tmp_path / "sweep.log", logger="av1part.sweeps"):
        sweeps.info("3 jobs")
        show = warnings.showwarning
        with run_log(tmp_path / "train.log"):
            assert warnings.showwarning is not show
        assert warnings.showwarning is show
        logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": False, "root": {"level": "INFO"}}
        )
        log.info("of a job")
        sweeps.info("all done")
    assert lines(tmp_path / "sweep.log") == ["INFO 3 jobs", "INFO all done"]

"""Log lines: coloured on a terminal, plain when piped, and timed in a file of each run."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console
from rich.highlighter import ReprHighlighter
from rich.text import Text

from av1part.system.terminal import printable

log = logging.getLogger(__name__)

_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\))")
"""Colours and titles that a library may put into its messages."""

_LIGHTNING = ("pytorch_lightning", "lightning_fabric")
"""Loggers that do not propagate if they are imported before logging is set up."""

_PYTHON_WARNINGS = "py.warnings"
"""Logger of `logging.captureWarnings`."""

_SWEEPS = "av1part.sweeps"
"""Logger of a sweep as a whole, whose lines a thread writes beside its jobs."""


class PlainFormatter(logging.Formatter):
    """Formats records without anything that a terminal would act on, line breaks apart."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record; a warning of Python's, which has several lines, on one."""
        text = _ESCAPE.sub("", super().format(record)).expandtabs()
        if record.name == _PYTHON_WARNINGS:
            text = " ".join(text.split())
        return "\n".join(map(printable, text.split("\n")))


class ConsoleHandler(logging.Handler):
    """Shows lines on stderr; conf/hydra/job_logging/av1part.yaml names it.

    `sys.stderr` is looked up for each line, since a progress bar replaces it.
    """

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self.setFormatter(PlainFormatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line, its colour by its level."""
        try:
            line = self.format(record)
            if record.levelno >= logging.WARNING:
                line = f"{record.levelname.lower()}: {line}"
            sys.stderr.write(f"{_coloured(line, record.levelno)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def _coloured(line: str, level: int) -> str:
    console = Console(stderr=True)
    if not console.is_terminal:
        return line
    if level >= logging.WARNING:
        text = Text(line, "bold red" if level >= logging.ERROR else "yellow")
    else:
        text = ReprHighlighter()(line)
    with console.capture() as capture:
        console.print(text, soft_wrap=True, end="")
    return capture.get()


@contextmanager
def run_log(path: Path, *, logger: str = "", always: bool = False) -> Iterator[None]:
    """Write log lines into a file too, for as long as the context lasts.

    Python's warnings are logged too, on the terminal as well, and the error that ends a run is the
    last line of its log.

    Args:
        path: The file; created, with its folder, by the first line, and appended to.
        logger: Name of the logger; by default all but that of a sweep as a whole.
        always: Write the final error even if nothing was logged before it; by default a run that
            is refused at once leaves no log.

    Yields:
        Nothing.
    """
    handler = _File(path, delay=True, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    if not logger:
        handler.addFilter(lambda record: not record.name.startswith(_SWEEPS))
    for name in _LIGHTNING:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    source = logging.getLogger(logger)
    source.addHandler(handler)
    if not logger:  # a sweep's log is around those of its jobs, which capture their own
        logging.captureWarnings(True)
    try:
        yield
    except BaseException as error:
        if always or handler.written:
            handler.handle(_last_line(error))
        raise
    finally:
        if not logger:
            logging.captureWarnings(False)
        source.removeHandler(handler)
        handler.close()


class _File(logging.FileHandler):
    """A log file whose folder is made with it."""

    written = False

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        self.written = True
        return super()._open()


def _last_line(error: BaseException) -> logging.LogRecord:
    """Return the record of the error that ends a run, with a traceback if no user can mend it."""
    from av1part.system.errors import Av1partError

    expected = isinstance(error, (Av1partError, OSError, KeyboardInterrupt, SystemExit))
    message = " ".join(str(error).split()) or type(error).__name__
    trace = None if expected else (type(error), error, error.__traceback__)
    return log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (message,), trace)

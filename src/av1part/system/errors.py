"""The errors a user can mend: each is one line that names the thing and the remedy."""

from __future__ import annotations

from av1part.system.terminal import printable

_MOST_QUOTED = 300
_LONGEST = 2000
"""Characters of a line: a name from a hostile file may have thousands."""


class Av1partError(Exception):
    """Bad input or configuration; the command line prints it on one line and exits with 2."""

    def __str__(self) -> str:
        """Return the message on one line, whatever names and contents of files are quoted in it.

        >>> len(str(Av1partError(f"a.json names {'x' * 9999}: restore it"))) < 2100
        True
        """
        line = " ".join(super().__str__().split())
        left_out = len(line) - _LONGEST
        if left_out <= 0:
            return line
        half = _LONGEST // 2
        return f"{line[:half]}... ({left_out} characters) ...{line[-half:]}"


class ConfigError(Av1partError):
    """A configuration that is invalid or contradicts itself."""


class SourceError(Av1partError):
    """A video, a picture or a file to import that cannot be read, or not as declared."""


class EncoderError(Av1partError):
    """aomenc or inspect is missing, or their output contradicts itself."""


class HintsError(Av1partError):
    """A hint file, counts or costs that are damaged, foreign, or for another source."""


class BundleError(Av1partError):
    """A file of a predictor that is damaged, foreign, or unfit for its use."""


class StoreError(Av1partError):
    """A dataset folder that is missing, damaged, foreign, or unfit for its use."""


class CheckpointError(Av1partError):
    """A checkpoint that is missing, damaged, foreign, or unfit for its use."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint that was just written does not read back as the model that was saved."""


class CalibrationError(CheckpointError):
    """A stored calibration that is missing, or was fitted for another use."""


class FreezeError(Av1partError):
    """A tensor that was declared frozen has moved."""


class ReportError(Av1partError):
    """A run folder that is missing, unfinished, damaged, or contradicts itself."""


class SweepError(Av1partError):
    """A sweep some of whose jobs did not finish."""


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, shortened, to be quoted in one of ours."""
    return printable((str(error).splitlines() or [type(error).__name__])[0], _MOST_QUOTED)

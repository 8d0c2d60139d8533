"""What this machine has, and what of av1part would fail on it: behind `av1part doctor`.

    limits, probes -> Section -> commands.doctor

Nothing here needs more than Python's own library to be imported, so that it also runs where a
package is broken.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trouble:
    """Something that would fail on this machine.

    Attributes:
        fails: What would, as its user calls it.
        why: What is wrong.
        remedy: What mends it, or what to do instead.
        needed: Whether no training works without it.
    """

    fails: str
    why: str
    remedy: str
    needed: bool = False

    def __str__(self) -> str:
        """Return all of it on one line."""
        return f"{self.fails}: {self.why}: {self.remedy}"


@dataclass(frozen=True)
class Section:
    """What was looked at together.

    Attributes:
        title: Its name.
        rows: What is there: name and value.
        troubles: What would fail.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    troubles: tuple[Trouble, ...] = ()


def in_gb(size: float) -> str:
    """Return bytes as text.

    >>> in_gb(1_500_000_000), in_gb(64_000_000)
    ('1.5 GB', '0.06 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e9:.2f} GB"

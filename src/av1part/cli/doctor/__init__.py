"""Probes of this machine: what it has, and which features of av1part would fail on it.

    limits, probes, stack -> ProbeResult -> commands.doctor

This folder imports only Python's own library, so that it also runs where a package is broken.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A feature of av1part that would fail on this machine.

    Attributes:
        feature: The feature, as its user calls it.
        reason: What is wrong.
        remedy: What corrects it, or what to use instead.
        fatal: Whether no training works without it.
    """

    feature: str
    reason: str
    remedy: str
    fatal: bool = False

    def __str__(self) -> str:
        """Return feature, reason and remedy on one line."""
        return f"{self.feature}: {self.reason}: {self.remedy}"


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe.

    Attributes:
        title: Name of the probe.
        rows: Name and value of everything it looked at.
        problems: Features that would fail.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...] = ()


def in_gb(size: float) -> str:
    """Return bytes as text.

    >>> in_gb(1_500_000_000), in_gb(64_000_000)
    ('1.5 GB', '0.06 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e9:.2f} GB"

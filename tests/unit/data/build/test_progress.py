"""What a build says on stderr where there is no terminal."""

from __future__ import annotations

import pytest

from av1part.data.build import progress
from av1part.data.build.progress import JobProgress


def test_a_line_now_and_then_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with JobProgress(6, 1, show=True) as bar:
        for job in range(2, 7):
            now += 9.0
            bar.advance(f"clip cq {job}")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "resumed with 1 of 6 encodes done",
        "encoded 4 of 6, last clip cq 4, under 1 min left",
        "encoded 6 of 6, last clip cq 6",
    ]
    with JobProgress(43, 0, show=True) as bar:
        for _ in range(3):
            now += 9.0
            bar.advance("clip")
    assert capsys.readouterr().err == "encoded 3 of 43, last clip, about 6 min left\n"


def test_nothing_is_said_if_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with JobProgress(2, 1, show=False) as bar:
        bar.advance("clip")
    assert capsys.readouterr() == ("", "")

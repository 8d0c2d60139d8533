"""What is told of a sweep while it runs, by a clock of the test's own."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from av1part.sweeps.state import begin, record_failure
from av1part.sweeps.watch import Watch, duration, time_left

WANTED: dict[str, Any] = {"settings": {}, "inputs": {}, "code": "c"}


class Sweep:
    """Folders of jobs that wait for their turn, and what happens to them."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folders = [folder / f"{n}" for n in range(jobs)]
        self.now = 0.0
        for each in self.folders:
            begin(each, WANTED)

    def watch(self, waiting: int = 0) -> Watch:
        return Watch(self.folders, waiting=waiting, clock=lambda: self.now)

    def start(self, *jobs: int) -> None:
        for job in jobs:
            (self.folders[job] / "config.yaml").touch()

    def finish(self, *jobs: int) -> None:
        for job in jobs:
            (self.folders[job] / "metrics.json").write_text(json.dumps({}))

    def fail(self, job: int) -> None:
        record_failure(self.folders[job], RuntimeError("x"))


def test_the_watch_counts(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 4)
    watch = sweep.watch()
    assert watch.look() == ({"done": 0, "running": 0, "failed": 0, "left": 4}, None)
    sweep.finish(0)
    sweep.start(1)
    sweep.fail(2)
    assert watch.look()[0] == {"done": 1, "running": 1, "failed": 1, "left": 1}


def test_what_an_earlier_start_left_is_no_running_job(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 1)
    (sweep.folders[0] / "train.log").write_text("interrupted")
    watch = sweep.watch()
    assert watch.look()[0]["left"] == 1
    with (sweep.folders[0] / "train.log").open("a") as log:
        log.write("goes on")
    assert watch.look()[0]["running"] == 1


def test_the_time_to_the_end_is_told_once_a_job_has_finished(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 5)
    watch = sweep.watch()
    sweep.start(0, 1)
    assert watch.look()[1] is None
    sweep.now = 300
    sweep.fail(1)  # at once, perhaps: that says nothing of the others
    assert watch.look()[1] is None
    sweep.start(2)
    watch.look()
    sweep.now = 600
    sweep.finish(0)
    sweep.start(3)
    # Two at once: job 2 has 300 s of 600 s to go, job 3 all of them, then job 4 after job 2.
    assert watch.look() == ({"done": 1, "running": 2, "failed": 1, "left": 1}, 900)
    sweep.now = 900
    sweep.finish(2)
    sweep.start(4)
    assert watch.look()[1] == 600
    sweep.finish(3, 4)
    assert watch.look()[1] is None


def test_jobs_quicker_than_a_look_count_from_the_last_one(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 3)
    watch = sweep.watch()
    sweep.now = 1000
    watch.look()
    sweep.now = 1001
    sweep.finish(0)
    assert watch.look()[1] == 2


@pytest.mark.parametrize(
    ("took", "running", "left", "at_once", "rest"),
    [
        ([], [5.0], 3, 1, None),
        ([10.0], [], 0, 1, None),
        ([10.0], [4.0], 0, 1, 6),
        ([10.0], [40.0], 0, 1, 0),
        ([10.0], [40.0], 1, 1, 10),
        ([10.0, 20.0], [], 3, 1, 45),
        ([10.0], [], 3, 2, 20),
        ([10.0], [4.0, 9.0], 2, 2, 16),
        ([10.0], [4.0], 1, 4, 10),
    ],
)
def test_time_left(
    took: list[float], running: list[float], left: int, at_once: int, rest: float | None
) -> None:
    assert time_left(took, running, left, at_once) == rest


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "less than a minute"),
        (29, "less than a minute"),
        (31, "about 1 min"),
        (99.4 * 60, "about 99 min"),
        (100 * 60, "about 1 h 40 min"),
        (119.8 * 60, "about 2 h 0 min"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        (0, "sweep: 1 done, 0 running, 0 failed, 1 left, about 5 min left"),
        (
            7,
            "sweep: 1 done, 0 running, 0 failed, 1 left, 7 wait for these, "
            "about 5 min until these end",
        ),
    ],
)
def test_what_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, waiting: int, said: str
) -> None:
    sweep = Sweep(tmp_path, 2)
    with caplog.at_level(logging.INFO), sweep.watch(waiting):
        sweep.now = 300
        sweep.finish(0)
    assert caplog.messages[-1] == said
    assert len(set(caplog.messages)) == len(caplog.messages)

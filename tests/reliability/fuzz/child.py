"""One target of the fuzz tests, in a process of its own: a crash or a hang ends it and is seen.

    python -m tests.reliability.fuzz.child TARGET CPU-SECONDS SEED FOLDER

The last line of output is what came of it, as JSON.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import shutil
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from av1part.system.errors import Av1partError

from .case import MARK, MEMORY, SECONDS, Case, Target
from .targets import MAKERS

ROUND = 50
"""Tries a seed."""

_NO_MEMORY = re.compile(r"[Cc]an.?t allocate|Cannot allocate|Unable to allocate|MemoryError")
_LONGEST = 3000
"""Characters of an error's line, which may repeat a long name from the file."""


@dataclass
class Outcome:
    """What came of the tries so far.

    Attributes:
        taken: Tries whose input was taken.
        refused: Tries that ended with one clear error.
        lost: Anything else, by what it was; each kind's first input is kept.
    """

    taken: int = 0
    refused: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


def attempt(case: Case, outcome: Outcome) -> str | None:
    """Run one try; return what is wrong with its end, or None."""
    start = time.monotonic()
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        case.run()
    except Av1partError as error:
        wrong = complaint(str(error), case)
        outcome.refused += wrong is None
        return wrong
    except BaseException as error:  # a panic of polars is no Exception
        if isinstance(error, MemoryError) and not case.bounded:
            outcome.refused += 1
            return None
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "av1part" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "elsewhere"
        return f"{type(error).__name__} at {where}: {str(error)[:300]!r}"
    else:
        outcome.taken += 1
        return None
    finally:
        faulthandler.cancel_dump_traceback_later()
        outcome.slowest = max(outcome.slowest, time.monotonic() - start)


def complaint(said: str, case: Case) -> str | None:
    """Return what is wrong with the text of an error, or None."""
    if len(said.splitlines()) != 1:
        return f"not one line: {said[:300]!r}"
    if case.names not in said:
        return f"does not name {case.names}: {said[:300]!r}"
    if case.bounded and _NO_MEMORY.search(said):
        return f"took more memory than {MEMORY} bytes: {said[:300]!r}"
    if len(said) > _LONGEST:
        return f"a line of {len(said)} characters: {said[:300]!r}"
    return None


def fuzz_round(target: Target, number: int, outcome: Outcome, kept: Path) -> None:
    """Try `ROUND` inputs of one seed."""

    @seed(number)
    @settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def tries(data: st.DataObject) -> None:
        case = target.case(data.draw)
        wrong = attempt(case, outcome)
        if MARK.exists():
            MARK.unlink()
            wrong = "code from the file was run"
        if wrong:
            kind = re.sub(r"\d+", "0", wrong)[:120]
            outcome.lost[kind] += 1
            if outcome.lost[kind] == 1:
                place = kept / str(len(outcome.lost))
                print(f"seed {number}: {wrong}\n  input: {place}", file=sys.stderr, flush=True)
                shutil.copytree(target.folder, place, symlinks=True)

    tries()


def status(key: str) -> int:
    """Return an entry of this process's status in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.findall(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)[0]) << 10


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the programs that it ran."""
    return sum(os.times()[:4])


def main(argv: list[str]) -> int:
    """Fuzz one target; see the module."""
    name, seconds, first, folder = argv[0], float(argv[1]), int(argv[2]), Path(argv[3]).resolve()
    faulthandler.enable()
    outcome = Outcome()
    (folder / "input").mkdir(parents=True)
    (folder / "here").mkdir()
    os.chdir(folder / "here")
    target = MAKERS[name](folder / "input")
    fuzz_round(target, first, Outcome(), folder / "warm")  # lazy imports, pools of threads
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM from now on
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + MEMORY,) * 2)
    number, end = first, cpu_seconds() + seconds
    while cpu_seconds() < end:
        fuzz_round(target, number, outcome, folder / "kept")
        number += 1
    said: dict[str, Any] = {
        "tries": outcome.taken + outcome.refused + sum(outcome.lost.values()),
        "taken": outcome.taken,
        "refused": outcome.refused,
        "lost": dict(outcome.lost),
        "seeds": [first, number - 1],
        "memory": max(status("VmHWM") - before, 0),
        "slowest": outcome.slowest,
    }
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

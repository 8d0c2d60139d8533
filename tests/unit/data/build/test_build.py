"""Settings and refusals of a build, without libaom: a stand-in program only says its version."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from av1part.data.build.build import build_dataset
from av1part.data.build.settings import BuildSettings
from av1part.system.errors import Av1partError, ConfigError, EncoderError, SourceError, StoreError

DATA = Path(__file__).parents[3] / "data"
CLIP = DATA / "crops_72x56.y4m"


@pytest.fixture
def failing_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Programs that name a version and then fail at whatever they are asked."""
    for name, variable in (("aomenc", "AV1PART_AOMENC"), ("inspect", "AV1PART_INSPECT")):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'AOMedia Project AV1 Encoder v9'\nexit 7\n")
        program.chmod(0o755)
        monkeypatch.setenv(variable, str(program))
    return tmp_path


def left(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"aomenc", "inspect"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cq_levels": ()}, "cq_levels"),
        ({"cq_levels": (64,)}, "0 to 63"),
        ({"cq_levels": (-1, 20)}, "0 to 63"),
        ({"cq_levels": (20, 20)}, "each once"),
        ({"sizes": (128,)}, "8, 16, 32 and 64"),
        ({"sizes": ()}, "sizes"),
        ({"sizes": (16, 16)}, "each once"),
        ({"cpu_used": 10}, "0 to 9"),
        ({"cpu_used": -1}, "0 to 9"),
        ({"frames": 0}, "at least 1"),
        ({"every": 0}, "at least 1"),
        ({"jobs": 0}, "at least 1"),
        ({"width": 64}, "describe raw"),
        ({"cq_levels": 20}, "cq_levels=20: give a list"),
        ({"cq_levels": [True]}, "cq_levels"),
        ({"sizes": "16"}, "sizes=16: give a list"),
        ({"cpu_used": 1.5}, "cpu_used"),
        ({"one_to_four": "yes"}, "true or false"),
        ({"frames": "two"}, "whole number"),
        ({"jobs": 1.5}, "whole number"),
        ({"height": -4}, "whole number"),
        ({"bit_depth": True}, "whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    changes: dict[str, Any], said: str, failing_tools: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        build_dataset([CLIP], failing_tools / "out", progress=False, **changes)
    assert left(failing_tools) == set()


def test_the_defaults_are_the_contract() -> None:
    asked = inspect.signature(build_dataset).parameters
    defaults = BuildSettings((20, 32, 43, 55), (64, 32, 16, 8), 0, False, None, 1)
    assert BuildSettings() == defaults
    assert {k: asked[k].default for k in vars(defaults)} == vars(defaults)


def test_a_refused_source_leaves_nothing(failing_tools: Path) -> None:
    bad = failing_tools / "bad.y4m"
    bad.write_bytes(CLIP.read_bytes()[:-1])
    with pytest.raises(SourceError, match="truncated"):
        build_dataset([CLIP, bad], failing_tools / "out", progress=False)
    assert left(failing_tools) == {"bad.y4m"}


def test_a_source_that_turns_out_damaged_while_read_leaves_nothing(failing_tools: Path) -> None:
    # Its size is right, its samples are not: only reading shows it.
    bad = failing_tools / "bad_16x16_10bit.yuv"
    bad.write_bytes(b"\xff" * 768)
    with pytest.raises(SourceError, match="more than 10 bits"):
        build_dataset([bad], failing_tools / "out", progress=False)
    assert left(failing_tools) == {"bad_16x16_10bit.yuv"}


def test_an_encoder_that_fails_on_all_leaves_nothing(failing_tools: Path) -> None:
    with pytest.raises(EncoderError, match="exit status 7"):
        build_dataset([CLIP], failing_tools / "out", progress=False)
    assert left(failing_tools) == set()


def test_a_missing_program_leaves_nothing(
    failing_tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV1PART_INSPECT", str(failing_tools / "gone"))
    with pytest.raises(EncoderError, match="not a program"):
        build_dataset([CLIP], failing_tools / "out", progress=False)
    assert left(failing_tools) == set()


def test_what_is_there_already_is_not_touched(failing_tools: Path) -> None:
    out = failing_tools / "out"
    out.mkdir()
    with pytest.raises(StoreError, match="exists"):
        build_dataset([CLIP], out, progress=False)
    out.rmdir()
    partial = failing_tools / "out.partial"
    (partial / "work").mkdir(parents=True)
    (partial / "recipe.json").write_text(json.dumps({"another": "build"}))
    with pytest.raises(StoreError, match="another build"):
        build_dataset([CLIP], out, progress=False)
    assert (partial / "work").is_dir()


def test_every_refusal_is_one_line(failing_tools: Path) -> None:
    for sources in ([failing_tools / "gone\nwith a line break.png"], [], [failing_tools]):
        with pytest.raises(Av1partError) as caught:
            build_dataset(sources, failing_tools / "out", progress=False)
        assert "\n" not in str(caught.value).replace("gone\nwith", "")


# --- encoders that hang: nothing of a stopped build may go on


NAP = f"97.{os.getpid()}"
"""Seconds; tells this run's sleepers from those of another on the same machine."""

SLEEPER = f"""#!/bin/sh
case "$*" in
  *--help*) echo 'AOMedia Project AV1 Encoder v9' ;;
  *--cq-level=1\\ *) sleep 1; exit 7 ;;
  *) exec sleep {NAP} ;;
esac
"""


@pytest.fixture
def sleeping_encoder(failing_tools: Path) -> Path:
    (failing_tools / "aomenc").write_text(SLEEPER)
    return failing_tools


def sleepers() -> set[int]:
    """Encoders that still run, whoever their parent is."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes() == f"sleep\0{NAP}\0".encode():
                found.add(int(file.parent.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_an_error_stops_the_other_encoders_at_once(sleeping_encoder: Path) -> None:
    start = time.monotonic()
    with pytest.raises(EncoderError, match="exit status 7"):
        build_dataset([CLIP], sleeping_encoder / "out", cq_levels=(1, 2), progress=False)
    assert time.monotonic() - start < 30
    wait_until(lambda: not sleepers())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_ctrl_c_stops_the_encoders_and_leaves_the_partial(sleeping_encoder: Path) -> None:
    out = sleeping_encoder / "out"
    code = "import sys; from av1part.data.build.build import build_dataset;"
    code += "build_dataset([sys.argv[1]], sys.argv[2], cq_levels=(2, 3, 4))"
    command = [sys.executable, "-c", code, str(CLIP), str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        wait_until(lambda: len(sleepers()) == 2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
    wait_until(lambda: not sleepers())
    assert out.with_name("out.partial").is_dir()
    assert not out.exists()

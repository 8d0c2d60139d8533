"""The command line in the shells that people have: notebooks, clusters, old terminals."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from av1part import embedded

from .conftest import TINY, Command

SCRIPT = Path(sys.executable).with_name("av1part")
NOBODY = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
READS_ALL = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
"""The interpreter may lie in a folder of root's."""


def run(
    words: Sequence[str | Path], folder: Path, before: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the console script in a folder, with these variables more."""
    return subprocess.run(
        [*before, SCRIPT, *words],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        errors="replace",
    )


def test_a_notebook_on_an_old_terminal_in_an_allocation(small_store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "größe"
    folder.mkdir()
    words = ["train", "name=a", *TINY, f"data.path={small_store}", "callbacks.plots=true"]
    left = {"SLURM_NTASKS": "4", "SLURM_PROCID": "x", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
    ran = run(
        [*words, f"data.split_list={embedded.SPLIT_LIST}"],
        folder,
        MPLBACKEND="module://matplotlib_inline.backend_inline",
        MATPLOTLIBRC=str(folder),
        PYTHONIOENCODING="ascii",
        **left,
    )
    assert ran.returncode == 0, ran.stderr
    assert "gr\\xf6\\xdfe" in ran.stderr
    assert (folder / "runs" / "a" / "metrics.json").is_file()
    assert (folder / "runs" / "a" / "plots" / "learning.svg").is_file()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root")
def test_doctor_and_report_without_a_home(stage1_run: Path, tmp_path: Path) -> None:
    shutil.copytree(stage1_run, tmp_path / "run")
    for folder in (*tmp_path.parents, tmp_path):
        if folder.stat().st_uid == os.geteuid() and "pytest" in folder.name:
            folder.chmod(0o755)
    tmp_path.chmod(0o777)
    before = ("env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME", *NOBODY, *READS_ALL)
    for words in (["report", "run", "out=out"], ["doctor"]):
        ran = run(words, tmp_path, before)
        assert ran.returncode == 0, ran.stderr
    assert "/.cache" in ran.stdout
    assert (tmp_path / "out" / "report.html").is_file()


def test_ascii_by_the_locale_and_a_name_beyond_it(tmp_path: Path) -> None:
    (tmp_path / "größe").mkdir()
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = run(["data", "info", "größe"], tmp_path, **locale)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith("av1part: größe")


@pytest.mark.parametrize("output", ["| true", "2>&1 | true", ">&-", "2>&- >&-", "<&-"])
def test_nobody_reads_the_output(tmp_path: Path, output: str) -> None:
    command = f"'{SCRIPT}' --help {output}"
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode in (0, 1)
    assert not ran.stderr


def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["bash", "-c", f"'{SCRIPT}' --help > /dev/full"], capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("av1part: No space left on device")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["1e3", "1_1_1", "true"])
def test_a_run_is_called_as_typed(
    name: str, av1part: Command, on_small: tuple[str, ...], tmp_path: Path
) -> None:
    assert av1part("train", f"name={name}", *on_small).code == 0
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [name]
    config = yaml.safe_load((tmp_path / "runs" / name / "config.yaml").read_text())
    assert config["name"] == name


@pytest.mark.parametrize("name", ["größe", "a,b", "../../x", ".", "", "🎉", "x" * 256, "a "])
def test_a_name_that_no_run_can_have_is_one_line(name: str, av1part: Command) -> None:
    ran = av1part("train", f"name={name}")
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith(f"av1part: name={'x' * 20 if 'xx' in name else repr(name)}")
    assert not list(Path.cwd().iterdir())


def test_a_name_that_yaml_reads_as_a_number_is_one_line(av1part: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "a.yaml").write_text(
        "# @package _global_\r\nname: 1_1_1\r\n"
    )
    ran = av1part("train", "--config-dir", "mine", "experiment=a")
    assert ran.err == (
        "av1part: name must be text, got 111: put it in quotes in the file that sets it\n"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xef\xbb\xbf# @package _global_\nseed: 7\n", "starts with a byte order mark"),
        ("# @package _global_\nseed: 7\n".encode("utf-16"), "is not UTF-8 text"),
    ],
)
def test_own_files_of_an_editor_with_byte_order_marks(
    content: bytes, reason: str, av1part: Command, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "a.yaml").write_bytes(content)
    ran = av1part("train", "experiment=a", "--config-dir", "mine", "name=a")
    assert ran.code == 2
    assert ran.err.startswith(f"av1part: mine/experiment/a.yaml {reason}")


def test_paths_mean_the_folder_where_the_user_stands(
    av1part: Command, small_store: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_store, tmp_path / "größe, [x]")
    shutil.copy(embedded.SPLIT_LIST, tmp_path / "-dash.csv")
    words = ("data.path=größe, [x]", "data.split_list=-dash.csv", "hydra.job.chdir=true")
    ran = av1part("train", "name=a", *TINY, *words)
    assert ran.code == 0, ran.err
    assert Path.cwd() == tmp_path
    assert sorted(p.name for p in tmp_path.iterdir()) == ["-dash.csv", "größe, [x]", "runs"]


def test_what_follows_two_dashes_is_no_option(
    av1part: Command, small_store: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_store, tmp_path / "-dash")
    assert av1part("data", "info", "--", "-dash").code == 0
    assert av1part("data", "info", "./-dash").code == 0
    shutil.move(tmp_path / "-dash", tmp_path / "--help")
    ran = av1part("data", "info", "--", "--help")
    assert "every file as its manifest says" in ran.out
    assert av1part("train", "--", "name=a").code == 2
    (tmp_path / "-a.ckpt").touch()
    ran = av1part("validate", "-a.ckpt")
    assert ran.err == "av1part: -a.ckpt is read as an option: write ./-a.ckpt, or -- before it\n"


def test_options_may_stand_on_both_sides_of_a_flag(av1part: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "head").mkdir(parents=True)
    (tmp_path / "mine" / "head" / "1e3.yaml").write_text("defaults: [linear]\ndropout: 0.25\n")
    ran = av1part("train", "seed=3", "--config-dir", "mine", "head=1e3", "--cfg", "job")
    assert ran.code == 0, ran.err
    config = yaml.safe_load(ran.out)
    assert (config["seed"], config["head"]["dropout"]) == (3, 0.25)

"""What the project's own files promise: the lock, the pins, the targets, the scripts, the wheel."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from av1part.data.build.libaom import find_aomenc, find_inspect
from av1part.encoder.patched import PATCH, find_patched

from ...conftest import load_file

ROOT = Path(__file__).parents[3]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock").read_text()

CONTRACT_TARGETS = (
    "help setup demo unit test test-all check format data train eval sweep libaom "
    "embedded-data bench experiments-report pretrained clean"
)


CHECKS = {"ruff", "pydoclint", "mypy", "lint-imports"}

# Of the `make test` that may be running this, and of its user's command line.
OUTER_MAKE = {"MAKELEVEL", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKEFILES"}
OUTER_MAKE |= {"ARGS", "BIN", "STAGE", "SOURCE", "OUT", "CKPT", "EXP", "PYTHON", "MODEL", "CORPUS"}


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command at the repository's root, whatever its exit code."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in OUTER_MAKE} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def script(folder: Path, name: str, body: str) -> Path:
    """Write an executable shell script."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


# Dependencies


def locked() -> dict[str, list[str]]:
    """Versions in the lock, by name; one name may have several, for different machines."""
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK, re.MULTILINE):
        pins.setdefault(canonicalize_name(name), []).append(version)
    return pins


@pytest.mark.parametrize("name", ["requirements.lock", "tools/uv.txt"])
def test_lock_names_no_host_and_hashes_everything(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "index-url" not in text
    assert "find-links" not in text
    entries = re.split(r"\n(?=[a-z])", text)
    assert entries
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_lock_satisfies_pyproject() -> None:
    pins = locked()
    wanted = [*PROJECT["dependencies"], *PYPROJECT["build-system"]["requires"]]
    wanted += [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in wanted:
        requirement = Requirement(line)
        versions = pins.get(canonicalize_name(requirement.name))
        assert versions, f"{line} is not in requirements.lock: run `make lock`"
        for version in versions:
            assert version in requirement.specifier, f"{line} is locked at {version}: `make lock`"


USERS = [PROJECT["dependencies"], *map(PROJECT["optional-dependencies"].get, ("joblib", "cluster"))]


@pytest.mark.parametrize("requirement", [line for lines in USERS for line in lines])
def test_every_bound_a_user_meets_says_why(requirement: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (line,) = (line for line in text.splitlines() if f'"{requirement}"' in line)
    _, _, reason = line.partition("#")
    assert len(reason.split()) > 1


@pytest.mark.parametrize("tool", ["ruff", "pydoclint"])
def test_a_hook_s_tool_has_one_pin(tool: str) -> None:
    (dev,) = (r for r in PROJECT["optional-dependencies"]["dev"] if r.startswith(tool))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(rf"{tool}==[\d.]+", hooks)) == {dev}
    assert locked()[tool] == [dev.removeprefix(f"{tool}==")]


def test_licence_is_the_whole_apache_licence() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


# Makefile and scripts


def rules() -> dict[str, list[str]]:
    """Targets of the Makefile that `make help` lists, with what they depend on."""
    lines = re.findall(r"^([a-z-]+):(.*?)## .", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {target: needs.split() for target, needs in lines}


def test_makefile_has_every_target_and_sets_up_first() -> None:
    assert set(CONTRACT_TARGETS.split()) <= set(rules())
    for target, needs in rules().items():
        alone = target in ("help", "setup", "libaom", "clean")
        assert ("setup" in needs) is not alone, target


def test_help_is_the_default_and_lists_every_target() -> None:
    listed = run("make")
    assert listed.returncode == 0
    assert re.findall(r"^  ([a-z-]+) ", listed.stdout, re.MULTILINE) == list(rules())


@pytest.mark.parametrize("target", ["data", "eval", "sweep"])
def test_missing_argument_is_a_line_and_exit_2(tmp_path: Path, target: str) -> None:
    script(tmp_path, "av1part", "echo ran")
    done = run("make", "-o", "setup", f"BIN={tmp_path}", target)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[0].startswith(f"make {target}: name a")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["data", "SOURCE=my clips/a (1).y4m", "ARGS=frames=2 jobs=1"],
            ["data", "build", "my clips/a (1).y4m", "out=datasets/a (1)", "frames=2", "jobs=1"],
        ),
        (
            ["data", "SOURCE=my clips/", "OUT=my data/set"],
            ["data", "build", "my clips/", "out=my data/set"],
        ),
        (["eval", "CKPT=runs/it's/best.ckpt"], ["validate", "runs/it's/best.ckpt"]),
        (["train", "STAGE=stage2", "ARGS='a=b c'"], ["train", "stage=stage2", "a=b c"]),
        (["sweep", "EXP=exp11a/all"], ["train", "-m", "experiment=exp11a/all"]),
        (["demo"], ["demo"]),
        (
            ["encode", "SOURCE=my clips/a.mp4"],
            ["encode", "my clips/a.mp4", "model=pretrained", "out=runs/encode/a"],
        ),
        (
            ["encode", "SOURCE=a.mp4", "MODEL=README.md", "OUT=b c", "ARGS=frames=1"],
            ["encode", "a.mp4", "model=README.md", "out=b c", "frames=1"],
        ),
    ],
)
def test_targets_pass_their_words_whole(tmp_path: Path, words: list[str], said: list[str]) -> None:
    script(tmp_path, "av1part", 'printf "%s\\n" "$@"')
    done = run("make", "-o", "setup", f"BIN={tmp_path}", *words)
    assert done.stderr == ""
    assert done.stdout.splitlines() == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["--corpus", "datasets/corpus"]),
        (["CORPUS=my data", "ARGS=seed=3"], ["--corpus", "my data", "seed=3"]),
        (["CKPT=a b.ckpt"], ["--corpus", "datasets/corpus", "--checkpoint", "a b.ckpt"]),
    ],
)
def test_pretrained_passes_its_words_whole(
    tmp_path: Path, words: list[str], said: list[str]
) -> None:
    script(tmp_path, "python", 'printf "%s\\n" "$@"')
    done = run("make", "-o", "setup", f"BIN={tmp_path}", "pretrained", *words)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["tools/pretrained.py", *said]


def test_encode_without_its_model_is_a_line_and_exit_2(tmp_path: Path) -> None:
    script(tmp_path, "av1part", "echo ran")
    words = ("encode", "SOURCE=a.mp4", f"MODEL={tmp_path}/none")
    done = run("make", "-o", "setup", f"BIN={tmp_path}", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"there is no {tmp_path}/none: give MODEL=bundle" in done.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("body", "said", "code"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', "1 locked", 0),
        ('{"dependencies": []}', "0 locked packages", 1),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": '
            '[{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            "a 1: CVE-1 (mended in 2)",
            1,
        ),
        ("Traceback", "the database could not be asked, so nothing is known (no route)", 1),
        ("", "the database could not be asked, so nothing is known (no route)", 1),
    ],
)
def test_an_audit_passes_only_if_everything_was_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, said: str, code: int
) -> None:
    file = tmp_path / "body"
    file.write_text(body)
    tool = script(tmp_path, "pip-audit", f"cat '{file}'; echo first >&2; echo 'no route' >&2")
    assert load_file(ROOT / "tools" / "audit.py").main([], [str(tool)]) == code
    assert said in capsys.readouterr().out


def test_check_fails_with_any_of_its_tools(tmp_path: Path) -> None:
    tools = {name: script(tmp_path, name, f'echo {name} "$@"') for name in CHECKS}
    check = ("make", "-o", "setup", f"BIN={tmp_path}", "check")
    done = run(*check)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == CHECKS
    for name, tool in tools.items():
        script(tmp_path, name, "exit 1")
        assert run(*check).returncode == 2, name
        tool.write_text("#!/bin/sh\n")


@pytest.mark.parametrize("name", [".ci/run", "tools/setup.sh", "tools/libaom.sh"])
def test_scripts_are_executable_bash(name: str) -> None:
    file = ROOT / name
    assert file.stat().st_mode & stat.S_IXUSR
    assert file.read_text().startswith("#!/usr/bin/env bash\n")
    assert run("bash", "-n", file).returncode == 0


@pytest.mark.parametrize(("libaom", "tests"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_ci_goes_on_without_libaom_and_fails_with_the_tests(
    tmp_path: Path, libaom: int, tests: int
) -> None:
    script(tmp_path, "make", f'echo "$@"; [ "$1" = libaom ] && exit {libaom}; exit {tests}')
    done = run(ROOT / ".ci/run", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == tests
    assert [line for line in done.stdout.splitlines() if "ci:" not in line] == ["libaom", "test"]


def test_setup_names_what_is_wrong_with_an_interpreter(tmp_path: Path) -> None:
    old = script(tmp_path, "python3.11", "exit 1")
    for file in ("requirements.lock", "pyproject.toml", "tools/setup.sh", "tools/uv.txt"):
        copy = tmp_path / "clone" / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / file).read_bytes())
    done = run("bash", tmp_path / "clone/tools/setup.sh", PYTHON=str(old))
    assert done.returncode == 1
    assert done.stderr == (
        f"setup: error: PYTHON={old} is not a Python 3.11 to 3.13 that runs: "
        "name another or unset it\n"
    )
    assert not (tmp_path / "clone/.venv").exists()


@pytest.mark.parametrize(
    ("version", "suits"),
    [((3, 10, 14), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)],
)
def test_setup_takes_python_3_11_to_3_13(
    tmp_path: Path, version: tuple[int, int, int], suits: bool
) -> None:
    claims = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    python = script(tmp_path, "python", f'exec "{sys.executable}" -c "{claims}" "$2"')
    done = run("bash", "-c", 'source tools/setup.sh; suits "$1"', "bash", python)
    assert (done.returncode == 0) is suits


@pytest.mark.parametrize("variable", ["AV1PART_INSPECT", "AV1PART_AOMENC"])
def test_libaom_refuses_a_tool_that_is_none(tmp_path: Path, variable: str) -> None:
    settings = {"AV1PART_CACHE": str(tmp_path / "c"), "AV1PART_AOMENC": sys.executable}
    done = run(ROOT / "tools/libaom.sh", **{**settings, variable: str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == (
        f"libaom: error: {variable}={tmp_path} is not a program: mend or unset it\n"
    )


@pytest.mark.patched
def test_libaom_builds_nothing_where_the_programs_are(tmp_path: Path) -> None:
    built, patched = tmp_path / "libaom/bin/inspect", tmp_path / "libaom/bin/aomenc-av1part"
    built.parent.mkdir(parents=True)
    for link, file in ((built, find_inspect().path), (patched, find_patched().path)):
        link.symlink_to(file)
        if link is patched:
            link.with_suffix(".json").symlink_to(file.with_suffix(".json"))
    aomenc = str(find_aomenc().path)
    settings = {"AV1PART_CACHE": str(tmp_path), "AV1PART_AOMENC": aomenc}
    # Variables of another encode neither fail nor write.
    settings |= {"AV1PART_HINTS": str(tmp_path / "gone"), "AV1PART_COSTS": str(tmp_path / "costs")}
    done = run(ROOT / "tools/libaom.sh", **settings)
    assert done.stdout == (
        f"libaom: aomenc         {aomenc}\nlibaom: inspect        {built}\n"
        f"libaom: aomenc-av1part {patched}\n"
    )
    assert {file.name for file in tmp_path.iterdir()} == {"libaom"}


def test_the_patch_is_the_one_that_is_looked_for_and_is_short() -> None:
    patch = ROOT / "tools/libaom.patch"
    with patch.open() as file:
        summed = subprocess.run(["cksum"], stdin=file, capture_output=True, text=True, check=True)
    assert summed.stdout.strip() == PATCH, "correct PATCH of av1part.encoder.patched"
    assert len(patch.read_text().splitlines()) < 300
    assert "BSD 2-Clause" in patch.read_text()


@pytest.mark.parametrize(
    ("line", "assembler"),
    [
        ("AS_EXECUTABLE:FILEPATH=/usr/bin/yasm", "yasm"),
        ("CMAKE_ASM_NASM_COMPILER:STRING=/usr/bin/nasm", "nasm"),
        ("CMAKE_ASM_NASM_COMPILER-ADVANCED:INTERNAL=1", "none"),
    ],
)
def test_libaom_notes_the_assembler_of_a_build(tmp_path: Path, line: str, assembler: str) -> None:
    (tmp_path / "CMakeCache.txt").write_text(f"//nasm\n{line}\n")
    done = run("bash", "-c", 'source tools/libaom.sh; assembler_of "$1"', "bash", tmp_path)
    assert done.stdout.strip() == assembler


@pytest.mark.libaom
def test_libaom_tries_the_tools_it_is_given(tmp_path: Path) -> None:
    silent = str(script(tmp_path, "inspect", "exit 0"))
    tools = {"AV1PART_AOMENC": str(find_aomenc().path), "AV1PART_INSPECT": silent}
    done = run(ROOT / "tools/libaom.sh", AV1PART_CACHE=str(tmp_path), **tools)
    assert done.returncode == 1
    assert done.stderr.startswith(f"libaom: error: {silent} cannot read what")


ONE_LINE = """\
# a comment
deb http://mirror.example/debian trixie main contrib
deb [arch=amd64 signed-by=/k/debian-archive-keyring.gpg] http://mirror.example/debian trixie-updates main
deb [ arch=amd64 ] http://mirror.example/security trixie-security main
deb http://third.example/apt trixie-pgdg main
deb [signed-by=/k/other.gpg] http://third.example/x trixie main
deb http://third.example/x nodistro main
"""  # noqa: E501
DEB822 = """\
# a comment

Types: deb
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /k/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: http://mirror.example/off
Suites: trixie
Components: main

Types: deb
URIs: http://third.example/ppa
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQ
"""


def test_libaom_copies_the_distribution_s_own_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    call = 'source tools/libaom.sh; copy_apt_sources "$1" "$1/to" trixie'
    assert run("bash", "-c", call, "bash", tmp_path).returncode == 0
    copied = (tmp_path / "to/sources.list").read_text()
    assert copied.splitlines() == [
        re.sub("^deb", "deb-src", line) for line in ONE_LINE.splitlines()[1:4]
    ]
    stanzas = (tmp_path / "to/debian.sources").read_text()
    assert stanzas.strip() == DEB822.split("\n\n")[1].replace("Types: deb", "Types: deb-src")


# Docstrings

GOOD = '''\
"""A module."""


def scale(block: int, depth: int) -> float:
    """Bring a block to floats.

    Args:
        block: A luma sample.
        depth: Bits a sample, 1 or more.

    Returns:
        The sample as a fraction of the largest.

    Raises:
        ValueError: if there are no bits.
    """
    if depth < 1:
        raise ValueError(depth)
    return block / (2**depth - 1)
'''


def complaints(folder: Path, text: str) -> set[str]:
    """Codes that the docstring checks of `make check` report of a file in src."""
    file = folder / "module.py"
    file.write_text(text)
    config = ROOT / "pyproject.toml"
    options = ("--no-cache", "--output-format=json", "--config", config)
    ruff = run(sys.executable, "-m", "ruff", "check", *options, file)
    pydoclint = run(Path(sys.executable).with_name("pydoclint"), "--config", config, file)
    said = ruff.stdout + pydoclint.stdout + pydoclint.stderr
    codes = set(re.findall(r"\b(?:DOC|D)\d{3}\b", said))
    assert bool(codes) == bool(ruff.returncode or pydoclint.returncode), said
    return codes


def test_a_good_docstring_passes(tmp_path: Path) -> None:
    assert complaints(tmp_path, GOOD) == set()


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"""A module."""', "", "D100"),
        (GOOD[GOOD.index('    """Bring') : GOOD.index("    if depth")], "", "D103"),
        ("        depth: Bits a sample, 1 or more.\n", "", "DOC101"),
        ("depth: Bits", "bits: Bits", "DOC103"),
        ("depth: Bits", "depth (int): Bits", "DOC111"),
        ("    Returns:\n        The sample as a fraction of the largest.\n\n", "", "DOC201"),
        ("\n    Raises:\n        ValueError: if there are no bits.\n", "", "DOC501"),
    ],
)
def test_a_bad_docstring_is_reported(tmp_path: Path, old: str, new: str, code: str) -> None:
    bad = GOOD.replace(old, new)
    assert bad != GOOD
    assert code in complaints(tmp_path, bad)


# The wheel


def test_wheel_holds_the_configuration_and_what_is_embedded(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, inside in (("conf", "av1part/conf"), ("src/av1part", "av1part")):
        files = [f for f in (ROOT / folder).rglob("*") if f.is_file()]
        files = [f for f in files if "__pycache__" not in f.parts]
        missing = {f"{inside}/{f.relative_to(ROOT / folder)}" for f in files} - names
        assert not missing
    assert "av1part/conf/train.yaml" in names
    assert "av1part/embedded/store/manifest.json" in names
    assert "av1part/embedded/pretrained.av1part" in names
    assert "av1part/embedded/store/nodes.parquet" in names
    assert any(n.startswith("av1part/embedded/store/planes/") for n in names)
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_sdist_holds_the_pretrained_predictor_and_what_makes_it(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    (sdist,) = tmp_path.glob("*.tar.gz")
    made = ("conf/experiment/predictor/pretrained.yaml", "tools/pretrained.py")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        assert {*made, "docs/pretrained.md"} <= names
        file = "src/av1part/embedded/pretrained.av1part"
        member = next(m for m in archive.getmembers() if m.name.endswith(file))
        inside = archive.extractfile(member)
        assert inside is not None
        assert inside.read() == (ROOT / file).read_bytes()


def test_pytest_looks_into_every_folder() -> None:
    """Its own list of folders to leave out has `build`: the tests of data/build were not run."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    left_out = options["norecursedirs"]
    folders = {path.parent for top in options["testpaths"] for path in (ROOT / top).rglob("*.py")}
    names = {part for folder in folders for part in folder.relative_to(ROOT).parts}
    assert "build" in names
    assert not [name for name in names for p in left_out if fnmatch.fnmatch(name, p)]

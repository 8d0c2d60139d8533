"""The commands of the pages: verbs, options and make targets that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from av1part.cli.main import VERBS

from .conftest import Command

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/pt/*.md"))]
LEFT_OUT = {"-m", "--multirun", "..."}
"""Words that `--cfg` refuses, and what stands for words."""


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in the blocks of a page, variables as 1.

    Blocks of no shell hold outputs and drawings too: there lines of av1part alone count.
    """
    for kind, block in re.findall(r"^```(.*?)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in re.sub(r" *\\\n *", " ", block).splitlines():
            if kind != "sh" and not re.match(r"(\.venv/bin/)?av1part ", line):
                continue
            words = shlex.split(re.sub(r"\$\{?\w+\}?", "1", line), comments=True)
            if words and words[0] in ("make", "av1part", ".venv/bin/av1part"):
                yield words


def verb_of(words: list[str]) -> list[str]:
    """Return the words of the verb of a command line, `data build` or `train`."""
    return next(n for k in (2, 1) if " ".join(n := words[:k]) in VERBS)


def made_by(words: list[str]) -> list[str] | None:
    """Return the command that a make target runs, with the words of ARGS; None if there is none."""
    target, *given = words
    recipe = re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE)
    assert recipe, f"no target {target}"
    variables = dict(word.split("=", 1) for word in given)
    for name in variables:
        assert re.search(rf"\$+[({{]?{name}\b", MAKEFILE), f"make knows no {name}="
    ran = re.search(r"\$\(BIN\)/av1part ([a-z]+(?: build)?)", recipe.group(1))
    if ran is None:
        return None
    given = shlex.split(variables.get("ARGS", ""))
    if "LAUNCHER" in variables:
        given.append(f"hydra/launcher={variables['LAUNCHER']}")
    return [*ran.group(1).split(), *["x"] * VERBS[ran.group(1)].positionals[0], *given]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_command_of_a_page_is_one(page: Path, av1part: Command) -> None:
    for words in commands(page.read_text()):
        command = made_by(words[1:]) if words[0] == "make" else words[1:]
        if not command:
            continue
        verb = verb_of(command)
        rest = [word for word in command[len(verb) :] if word not in LEFT_OUT]
        if not VERBS[" ".join(verb)].plain:
            ran = av1part(*verb, *rest, "--cfg", "job")
            assert ran.code == 0, f"{' '.join(words)}: {ran.err}"


@pytest.mark.parametrize(
    "line",
    [
        "av1part predikt a.mp4 out=x",
        "av1part predict a.mp4 out=x pages=true",
        "make encodes SOURCE=a.mp4",
        "make encode SOURCE=a.mp4 ARGS='frame=1'",
        "make encode SOURCES=a.mp4",
    ],
)
def test_a_command_that_is_none_is_found(line: str, av1part: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```sh\n{line}\n```\n")
    with pytest.raises((AssertionError, StopIteration)):
        test_each_command_of_a_page_is_one(page, av1part)

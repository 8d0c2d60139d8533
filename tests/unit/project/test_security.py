"""No line of the package runs what it read: looked for in the syntax tree of every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULES = sorted((ROOT / "src").rglob("*.py"))

FORBIDDEN = {
    *("eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("yaml.load_all", "pickle.load", "pickle.loads", "marshal.loads", "torch.hub.load"),
    *("joblib.load", "hydra.utils.instantiate", "hydra.utils.call", "runpy.run_path"),
}
MODULES_FORBIDDEN = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle"}
LAUNCHERS = {"run", "Popen", "call", "check_call", "check_output"}


def dotted(node: ast.AST) -> str:
    """The name of what is called, such as `torch.load`; empty if it is no plain name."""
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def keyword(call: ast.Call, name: str) -> object:
    """The constant that is given for an argument by name, or None."""
    given = [k.value for k in call.keywords if k.arg == name]
    return given[0].value if given and isinstance(given[0], ast.Constant) else None


def complaints(source: str) -> Iterator[str]:
    """What in a module's text may run something that was read."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            from_ = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = {n.partition(".")[0] for n in from_ or [a.name for a in node.names]}
            imported = {a.name for a in node.names}
            if names & MODULES_FORBIDDEN:
                yield f"import of {sorted(names)}"
            if from_ in (["subprocess"], ["hydra.utils"], ["os"], ["yaml"]) and imported & {
                *LAUNCHERS,
                *(name.rpartition(".")[2] for name in FORBIDDEN),
            }:
                yield f"{sorted(imported)} without the name of its module"
        if isinstance(node, ast.Call):
            yield from call_complaints(node)


def call_complaints(call: ast.Call) -> Iterator[str]:
    name = dotted(call.func)
    module, _, last = name.rpartition(".")
    if name in FORBIDDEN or (last in ("instantiate", "unsafe_load") and module != "self"):
        yield f"{name}()"
    if name == "torch.load" and keyword(call, "weights_only") is not True:
        yield "torch.load without weights_only=True"
    if keyword(call, "allow_pickle") not in (None, False):
        yield f"{name} with allow_pickle"
    if module == "subprocess" and last in LAUNCHERS:
        if any(k.arg == "shell" for k in call.keywords):
            yield f"{name} with shell="
        first = call.args[0] if call.args else None
        # A list, or a variable: mypy holds those to sequences, since Popen is typed.
        if isinstance(first, (ast.Constant, ast.JoinedStr, ast.BinOp)) or first is None:
            yield f"{name} of a text"


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(ROOT / "src")))
def test_nothing_that_was_read_is_run(file: Path) -> None:
    assert list(complaints(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "from subprocess import run",
        "from hydra.utils import instantiate",
        "eval(x)",
        "os.system(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "torch.load(x, weights_only=flag)",
        "np.load(x, allow_pickle=True)",
        "np.lib.format.open_memmap(x, allow_pickle=True)",
        "yaml.load(x)",
        "subprocess.run('rm x')",
        "subprocess.Popen(f'rm {x}')",
        "subprocess.run(['rm', x], shell=True)",
        "hydra.utils.instantiate(cfg)",
    ],
)
def test_a_line_that_would_is_found(line: str) -> None:
    assert list(complaints(line))


def test_torch_load_is_in_one_place() -> None:
    callers = [f.name for f in MODULES if re.search(r"\btorch\.load\(", f.read_text())]
    assert callers == ["safe_load.py"]


def test_every_program_is_started_with_a_list() -> None:
    """What a variable holds, where a call is given one: a list, or an argument that is typed so."""
    seen = 0
    for file in MODULES:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        for call in (n for n in nodes if isinstance(n, ast.Call)):
            module, _, last = dotted(call.func).rpartition(".")
            if module == "subprocess" and last in LAUNCHERS:
                seen += 1
                words = call.args[0]
                if isinstance(words, ast.Name):
                    assert kinds(nodes, words.id) <= {"Sequence[str]", "List"}, file
                else:
                    assert isinstance(words, ast.List), file
    assert seen > 3


def kinds(nodes: list[ast.AST], name: str) -> set[str]:
    """The annotations of arguments of a name, and the syntax of what is assigned to it."""
    typed = {
        ast.unparse(n.annotation)
        for n in nodes
        if isinstance(n, ast.arg) and n.arg == name and n.annotation
    }
    assigned = {
        type(n.value).__name__
        for n in nodes
        if isinstance(n, ast.Assign) and dotted(n.targets[0]) == name
    }
    return typed | assigned or {"nothing known"}


def test_security_names_tests_that_are_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 8
    for file, test in named:
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"

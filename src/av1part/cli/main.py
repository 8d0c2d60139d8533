"""The command line: `av1part <verb> [positional ...] [key=value ...] [Hydra flags]`.

Nothing but dispatch: finds the verb, keeps positional words from Hydra's grammar, quotes paths for
it, runs it, and turns errors into one line and an exit code (0 done, 2 bad input, 1 anything else).
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from av1part import __version__
from av1part.config.schema import options_of
from av1part.config.words import exists, quote_paths, rename_keys
from av1part.system.errors import Av1partError, ConfigError
from av1part.system.files import no_empty_folder
from av1part.system.terminal import printable


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        usage: Positional words, for the help; empty if it takes none.
        does: One line on what it does.
        config: Name of its primary configuration.
        command: Module under `av1part.cli.commands` whose `run(cfg, positionals)` does it.
        positionals: Least and most positional words; None is any number.
        switches: Flags of its own, and the overrides they stand for.
        forwards: Whether overrides of keys that its configuration has not go to the command, as
            further positional words (`demo` hands them to every training).
        plain: Whether it runs without Hydra where no options are given, which may not start.
    """

    usage: str
    does: str
    config: str
    command: str
    positionals: tuple[int, int | None] = (0, 0)
    switches: Mapping[str, str] = field(default_factory=dict)
    forwards: bool = False
    plain: bool = False


VERBS: dict[str, Verb] = {
    "data build": Verb(
        "SOURCE... out=DIR", "encode, inspect, store", "data_build", "data", (1, None)
    ),
    "data import": Verb(
        "LAYOUT PATH out=DIR",
        "raw-blocks, v6-pt or partition-frames to a dataset",
        "data_import",
        "data",
        (2, 2),
    ),
    "data info": Verb("DIR", "count and verify a dataset", "data_info", "data", (1, 1)),
    "train": Verb("stage=STAGE", "train one stage; -m sweeps", "train", "train"),
    "validate": Verb(
        "CKPT [--show] or SWEEP split=test",
        "metrics of a checkpoint, or a sweep's on test; --show: its contents",
        *("validate", "validate"),
        (1, 1),
        {"--show": "show=true"},
    ),
    "calibrate": Verb(
        "CKPT... or stage1=CKPT ...",
        "fit temperature and threshold, store them",
        *("calibrate", "calibrate"),
        (0, None),
    ),
    "pipeline": Verb("stage1=CKPT ...", "the cascade", "pipeline", "pipeline"),
    "report": Verb(
        "RUN_OR_SWEEP... [--thesis]",
        "tables, plots, one page; --thesis: a section on a sweep",
        *("report", "report"),
        (1, None),
        {"--thesis": "thesis=true"},
    ),
    "demo": Verb(
        "[key=value of train ...]", "the whole chain, embedded data", "demo", "demo", forwards=True
    ),
    "doctor": Verb("", "what would fail on this machine", "doctor", "doctor", plain=True),
}

_FLAGS_WITH_VALUE = {
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
    "--experimental-rerun",
}
_INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
_OVERRIDE = re.compile(r"(\+{0,2}|~)[A-Za-z_][\w./@:-]*=.*|~[A-Za-z_][\w.@]*", re.DOTALL)


def entry() -> None:
    """Run the console script."""
    share_cores()
    sys.exit(main(sys.argv[1:]))


_IDLE_LOAD = 0.5
"""Processes that ran in the last minute, on average, on a machine that has nothing else to do."""


def share_cores() -> None:
    """Set how long waiting threads spin before they sleep; call it before torch is imported.

    On a machine that does anything else besides, spinning on made training 20 times slower; not to
    spin at all costs a third of the speed of small batches. Where nothing else runs the moment is
    longer: that brings a fifth at batch 128, and would double a step on a busy machine.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    idle = hasattr(os, "getloadavg") and os.getloadavg()[0] < _IDLE_LOAD
    os.environ.setdefault("GOMP_SPINCOUNT", "5000" if idle else "1000")  # GNU's, torch's on Linux


def main(argv: Sequence[str]) -> int:
    """Run a command line.

    Args:
        argv: Words after `av1part`.

    Returns:
        The exit code.
    """
    try:
        return _dispatch(list(argv))
    except Av1partError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("av1part: interrupted", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, a folder without permission: the system's words name thing and reason.
        where = f"{error.filename}: " if error.filename else ""
        mendable = error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)
        remedy = ": free space or choose another folder" if mendable else ""
        return _fail(f"{where}{error.strerror or error}{remedy}")


def _fail(message: str) -> int:
    # A message may quote a file that is not to be trusted.
    print(f"av1part: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] in ("--version", "-V"):
        print(f"av1part {__version__}")
        return 0
    name, rest = _find_verb(argv)
    verb = VERBS[name]
    rest = rename_keys([verb.switches.get(word, word) for word in rest])
    if {"-h", "--help"} & set(rest):
        _print_help(name, verb, [word for word in rest if word not in ("-h", "--help")])
        return 0
    words, rest = split_positionals(rest, verb.positionals)
    if len(words) < verb.positionals[0] and not _asks_hydra(rest):
        raise ConfigError(f"av1part {name} {verb.usage}: it needs {verb.usage.split()[len(words)]}")
    if verb.forwards:
        if {"-m", "--multirun"} & set(rest):
            raise ConfigError(f"av1part {name} runs its plan once; av1part train -m sweeps")
        own = {"hydra", *options_of(verb.config)}
        words = [w for w in quote_paths(rest) if _OVERRIDE.fullmatch(w) and _key(w) not in own]
        rest = [w for w in rest if not _OVERRIDE.fullmatch(w) or _key(w) in own]
    if verb.plain and not rest:
        importlib.import_module(f"av1part.cli.commands.{verb.command}").run(name, None, words)
    else:
        _run_verb(name, verb, words, rest)
    return 0


def _key(word: str) -> str:
    """Return the first part of an override's key."""
    return re.split(r"[.=@/]", word.lstrip("+~"), maxsplit=1)[0]


def _find_verb(argv: list[str]) -> tuple[str, list[str]]:
    for length in (2, 1):
        name = " ".join(argv[:length])
        if name in VERBS:
            return name, argv[length:]
    given = " ".join(argv[:2]) if argv[0] == "data" else argv[0]
    near = difflib.get_close_matches(given, VERBS, n=1)
    hint = f"did you mean {near[0]!r}" if near else f"verbs are {', '.join(VERBS)}"
    raise ConfigError(f"no verb {given!r}: {hint}")


def _usage() -> str:
    lines = [f"av1part {__version__}: predict AV1 block partitions, and trust the result", ""]
    lines += [f"  av1part {f'{name} {v.usage}':44s} {v.does}" for name, v in VERBS.items()]
    return "\n".join([*lines, "", "`av1part <verb> --help` lists a verb's options."])


def _asks_hydra(rest: Sequence[str]) -> bool:
    """Return whether Hydra itself answers: `--cfg`, `--info`, `--hydra-help` and the like."""
    asks = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc")
    return any(word.split("=")[0] in asks for word in rest)


def split_positionals(
    words: Sequence[str], limits: tuple[int, int | None]
) -> tuple[list[str], list[str]]:
    """Separate positional words from overrides and flags.

    A verb's first words are positional as far as it needs them, whatever they look like; further
    ones if they exist as a path or do not look like an override. Flags and their values are not.

    Args:
        words: Words after the verb.
        limits: Least and most positional words; None is any number.

    Returns:
        Positional words, and all others, each in their order.

    Raises:
        ConfigError: if there are more positional words than the verb takes.
    """
    least, most = limits
    positional: list[str] = []
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word.startswith("-"):
            rest.append(word)
            if word in _FLAGS_WITH_VALUE:
                rest += islice(remaining, 1)  # none: it lacks its value
        elif rest and rest[-1] in ("--info", "-i") and word in _INFO:
            rest.append(word)
        elif _is_positional(word, most=most, wanted=len(positional) < least):
            positional.append(word)
        else:
            rest.append(word)
    if most is not None and len(positional) > most:
        raise ConfigError(
            f"unexpected {positional[most]!r}: options are key=value, and paths with = are quoted"
        )
    return positional, rest


def _is_positional(word: str, *, most: int | None, wanted: bool) -> bool:
    if not _OVERRIDE.fullmatch(word):
        return True
    if most == 0:
        return False
    # An override never has a slash before its `=`, except for a group in a package.
    return exists(word) or (wanted and "/" in word.partition("=")[0])


def config_folder() -> Path:
    """Return the folder of the configuration: the wheel's own, else the clone's."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def _run_verb(name: str, verb: Verb, words: list[str], rest: list[str]) -> None:
    # Torch and Lightning are imported with a command, not for a usage line.
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from av1part.config.check import check_values
    from av1part.config.store import register
    from av1part.config.unknown import hydra_message

    register()
    failure: list[Exception] = []
    words_given = list(sys.argv)
    multirun = bool({"-m", "--multirun"} & set(rest))

    def task(cfg: DictConfig) -> Any:
        # Lightning starts the other processes of DDP with the words of this one.
        sys.argv = list(words_given)
        try:
            with no_empty_folder(Path(HydraConfig.get().runtime.output_dir)):
                check_values(cfg, verb.config)
                command = importlib.import_module(f"av1part.cli.commands.{verb.command}")
                return command.run(name, cfg, words)
        except (Av1partError, OSError, HydraException, OmegaConfBaseException) as error:
            # Hydra would print lines of its own; a sweep's launcher needs the exception.
            if multirun:
                raise
            failure.append(error)
            return None

    main_ = hydra.main(
        version_base="1.3", config_path=str(config_folder()), config_name=verb.config
    )
    _check_flags(name, rest)
    with _hydra_argv(f"av1part {name}", quote_paths(rest)):
        try:
            main_(task)()
            if failure:
                raise failure[0]
        except (HydraException, OmegaConfBaseException) as error:
            known = {**options_of(verb.config), **(options_of("train") if verb.forwards else {})}
            message = hydra_message(error, known)
            raise ConfigError(f"{message} (see av1part {name} --help)") from error


def _print_help(name: str, verb: Verb, rest: Sequence[str]) -> None:
    """Print a verb's groups and keys, as composed with the overrides among `rest`.

    Raises:
        ConfigError: if they do not compose.
    """
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from av1part.config.help import help_text
    from av1part.config.store import register

    register()
    flags = _check_flags(name, rest)
    overrides = [word for word in quote_paths(flags.overrides) if _OVERRIDE.fullmatch(word)]
    if verb.forwards:
        own = {"hydra", *options_of(verb.config)}
        overrides = [word for word in overrides if _key(word) in own]
    folders = create_config_search_path(str(config_folder()))
    if flags.config_dir is not None:
        folder = f"file://{Path(flags.config_dir).resolve()}"
        folders.prepend("command-line", folder, anchor="schema")
    try:
        Hydra.create_main_hydra2("av1part", folders)
        text = help_text(verb.config, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{error}") from error
    finally:
        GlobalHydra.instance().clear()
    further = "\nKeys of av1part train are handed to every training." if verb.forwards else ""
    print(f"av1part {name} {verb.usage}\n  {verb.does}\n\n{text}{further}")


def _check_flags(name: str, rest: Sequence[str]) -> argparse.Namespace:
    """Parse Hydra's flags; refuse in one line what its own parser would refuse in nine.

    Raises:
        ConfigError: naming the flag.
    """
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message} (see av1part {name} --help)")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_args(list(rest))
    if args.multirun and (args.cfg or args.info):
        refuse("--multirun runs, --cfg and --info print: give one of them")
    return args


@contextmanager
def _hydra_argv(program: str, rest: Sequence[str]) -> Iterator[None]:
    """Give Hydra its words, and have it raise errors instead of printing six lines and exiting."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [program, *rest]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full

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
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from av1part import __version__
from av1part.cli.arguments import OVERRIDE, asks_hydra, key_of, split_positionals
from av1part.cli.startup import check_surroundings, finish, forget_ranks, prepare
from av1part.config.schema import options_of
from av1part.config.words import quote_words, rename_keys
from av1part.runs.schema import check_run_name
from av1part.system.errors import Av1partError, ConfigError, first_line
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
        named: Whether a positional word may be NAME=PATH, with a name that is none of its keys.
        plain: Whether it runs without Hydra where no options are given, which may not start.
    """

    usage: str
    does: str
    config: str
    command: str
    positionals: tuple[int, int | None] = (0, 0)
    switches: Mapping[str, str] = field(default_factory=dict)
    forwards: bool = False
    named: bool = False
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
    "data costs": Verb(
        "DATASET SOURCE... out=FILE",
        "what losing a node's type would cost the encoder",
        *("data_costs", "data"),
        (2, None),
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
    "bundle": Verb(
        "stage1=CKPT ... out=FILE or FILE --show",
        "a predictor as one file; --show: its contents",
        *("bundle", "bundle"),
        (0, 1),
        {"--show": "show=true"},
    ),
    "adapt": Verb(
        "BUNDLE SOURCE out=FILE",
        "a predictor adapted to a clip, scored on its rest",
        *("adapt", "adapt"),
        (2, 2),
    ),
    "compare": Verb(
        "PREDICTOR... out=DIR",
        "scores of predictors on the same labelled nodes",
        *("compare", "compare"),
        (1, None),
        named=True,
    ),
    "predict": Verb(
        "SOURCE... out=DIR [stage1=CKPT ...]",
        "probabilities of every node, hint files",
        *("predict", "predict"),
        (1, None),
    ),
    "encode": Verb(
        "SOURCE... out=DIR [model=BUNDLE]",
        "what presets and predictions save and lose",
        *("encode", "encode"),
        (1, None),
    ),
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


def entry() -> None:
    """Run the console script."""
    prepare()
    sys.exit(finish(main(sys.argv[1:])))


def main(argv: Sequence[str]) -> int:
    """Run a command line.

    Args:
        argv: Words after `av1part`.

    Returns:
        The exit code.
    """
    try:
        code = _dispatch(list(argv))
        sys.stdout.flush()
        return code
    except Av1partError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("av1part: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1  # `head` has read enough
    except OSError as error:
        # A full disk, a folder without permission: the system's words name thing and reason.
        where = f"{error.filename}: " if error.filename else ""
        mendable = error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)
        remedy = ": free space or choose another folder" if mendable else ""
        return _fail(f"{where}{error.strerror or error}{remedy}")


def _fail(message: str) -> int:
    # A message may quote a file that is not to be trusted. It may go to a pipe that is closed.
    with suppress(OSError):
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
    if not verb.plain:
        check_surroundings(argv)
    end = rest.index("--") if "--" in rest else len(rest)  # what follows is positional
    rest, after = rest[:end], rest[end + 1 :]
    rest = rename_keys([verb.switches.get(word, word) for word in rest])
    if {"-h", "--help"} & set(rest):
        _print_help(name, verb, [word for word in rest if word not in ("-h", "--help")])
        return 0
    keys = {"hydra", *map(key_of, options_of(verb.config))} if verb.named else None
    words, rest = split_positionals(rest, verb.positionals, after, keys)
    if len(words) < verb.positionals[0] and not asks_hydra(rest):
        raise ConfigError(f"av1part {name} {verb.usage}: it needs {verb.usage.split()[len(words)]}")
    if verb.forwards:
        if {"-m", "--multirun"} & set(rest):
            raise ConfigError(f"av1part {name} runs its plan once; av1part train -m sweeps")
        own = {"hydra", *options_of(verb.config)}
        words = [w for w in quote_words(rest) if OVERRIDE.fullmatch(w) and key_of(w) not in own]
        rest = [w for w in rest if not OVERRIDE.fullmatch(w) or key_of(w) in own]
    if verb.plain and not rest:
        forget_ranks()
        _command(verb).run(name, None, words)
    else:
        _run_verb(name, verb, words, rest)
    return 0


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


def config_folder() -> Path:
    """Return the folder of the configuration: the wheel's own, else the clone's."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def _command(verb: Verb) -> ModuleType:
    """Import the module of a verb.

    Raises:
        ConfigError: if something outside of av1part keeps a library from being imported.
    """
    try:
        return importlib.import_module(f"av1part.cli.commands.{verb.command}")
    except Exception as error:
        raise ConfigError(
            f"a library cannot be imported ({type(error).__name__}: {first_line(error)}): "
            "`av1part doctor` finds the cause"
        ) from error


def _run_verb(name: str, verb: Verb, words: list[str], rest: list[str]) -> None:
    # Torch and Lightning are imported with a command, not for a usage line.
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from av1part.config.check import check_values, is_distributed
    from av1part.config.store import register
    from av1part.config.unknown import hydra_message

    register()
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    failure: list[Exception] = []
    words_given = list(sys.argv)
    multirun = bool({"-m", "--multirun"} & set(rest))

    def task(cfg: DictConfig) -> Any:
        # Lightning starts the other processes of DDP with the words of this one.
        sys.argv = list(words_given)
        if HydraConfig.get().job.chdir:
            # Paths would mean another place than where they were typed.
            os.chdir(HydraConfig.get().runtime.cwd)
        try:
            with no_empty_folder(Path(HydraConfig.get().runtime.output_dir)):
                check_values(cfg, verb.config)
                if not is_distributed(cfg):
                    forget_ranks()
                return _command(verb).run(name, cfg, words)
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
    with _hydra_argv(f"av1part {name}", quote_words(rest)):
        try:
            main_(task)()
            if failure:
                raise failure[0]
        except (HydraException, OmegaConfBaseException) as error:
            known = {**options_of(verb.config), **(options_of("train") if verb.forwards else {})}
            message = hydra_message(error, known)
            own = _own_error(error)
            raise own or ConfigError(f"{message} (see av1part {name} --help)") from error


def _own_error(error: BaseException | None) -> Av1partError | None:
    """Return the error of ours that one of OmegaConf's was raised for, by a resolver."""
    while error is not None and not isinstance(error, Av1partError):
        error = error.__cause__ or error.__context__
    return error


def _run_name(name: Any) -> Any:
    """Check a name before Hydra makes a folder of it; `check_values` refuses other types."""
    return check_run_name(name) if isinstance(name, str) else name


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
    overrides = [word for word in quote_words(flags.overrides) if OVERRIDE.fullmatch(word)]
    if verb.forwards:
        own = {"hydra", *options_of(verb.config)}
        overrides = [word for word in overrides if key_of(word) in own]
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

    from av1part.config.check import check_own_files

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message} (see av1part {name} --help)")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_args(list(rest))
    if args.multirun and (args.cfg or args.info):
        refuse("--multirun runs, --cfg and --info print: give one of them")
    if args.config_dir is not None:
        check_own_files(Path(args.config_dir))
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

"""`av1part adapt`: a superblock network with heads adapted to a clip, scored on its second half."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from av1part.config.check import plain
from av1part.config.schema import Adapt
from av1part.data.build.settings import BuildSettings, raw_format
from av1part.data.build.sources import find_sources, open_sources
from av1part.evaluation.attach import Compute
from av1part.options import PRETRAINED
from av1part.predictors.adapted import AdaptedSuperblock, adapted_domain
from av1part.predictors.adapting import Steps, adapt_heads, node_features, ridge_heads
from av1part.predictors.bundle import Bundle, check_domain, read_bundle, write_bundle
from av1part.predictors.clip import PARTS, ClipPart, LabelledClip, clip_of_dataset, label_clip
from av1part.predictors.fitted import ClassPrior
from av1part.predictors.named import NamedPredictor
from av1part.predictors.run import qindex_of
from av1part.predictors.scoring import populations_of, record_of, score
from av1part.predictors.superblock import SuperblockPredictor
from av1part.report import write_compared_report
from av1part.report.chapters.adapting import seconds_text, summary_table, verdict
from av1part.report.render.terminal import terminal_table
from av1part.runs.compared import ADAPTED, BASE, read_compared, write_compared
from av1part.system.errors import BundleError, ConfigError
from av1part.system.files import atomic_folder, check_below_folders, expanded, sha256_file

PAGE = "report.html"
"""The page, in the folder of the scores."""

_OF_ENCODES = (
    *("labels", "cq_levels", "cpu_used", "one_to_four", "jobs"),
    *("width", "height", "bit_depth", "layout", "interlaced"),
)
"""Keys that do nothing where SOURCE is a dataset, which has its labels."""


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Adapt a bundle to a clip, write it, and score the file on the clip's second half.

    Args:
        verb: `adapt`.
        cfg: How to label, adapt and score, and the file to write.
        words: The bundle, and the clip or a dataset with its labels.

    Raises:
        ConfigError: if `out` is missing or taken, or a setting is not valid.
    """
    if OmegaConf.is_missing(cfg, "out"):
        raise ConfigError("av1part adapt needs out=FILE, the bundle to write")
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError("av1part adapt writes one bundle: leave out -m")
    out, folder = _places(cfg)
    bundle = read_bundle(words[0], Compute(cfg.device, cfg.precision))
    network = _network(bundle, words[0])
    with ExitStack() as stack:
        clip = _clip(words[1], words[0], plain(cfg), bundle, stack)
        clip.held_back.check_unseen(words[0], bundle.sources)
        clip.held_back.check_types(bundle.domain, words[0])
        adapting = _adapt(clip, bundle, network, Steps(cfg.steps, cfg.rate, cfg.prior))
        adapted = replace(
            bundle,
            predictor=adapting.predictor,
            licence=cfg.licence or bundle.licence,
            outside=cfg.outside or bundle.outside,
        )
        with atomic_folder(folder) as part:
            # Scored is what was read back, before there is a file of its name.
            write_bundle(out, adapted, lambda read: _score(part, adapting, bundle, read, cfg))
    compared = read_compared(folder)
    print(seconds_text(compared))
    Console().print(terminal_table(summary_table(compared)))
    print(f"bundle: {out}, {out.stat().st_size:,} bytes; av1part bundle {out} --show")
    print("report:", folder / PAGE)
    print(verdict(compared))


def _places(cfg: DictConfig) -> tuple[Path, Path]:
    """Return the file and the folder to make.

    Raises:
        ConfigError: if one of them is there, or cannot be made.
    """
    if cfg.out == PRETRAINED:
        raise ConfigError(
            f"out={PRETRAINED} is the name of the bundle that comes with av1part: give out=./"
            f"{PRETRAINED} or another name"
        )
    out = expanded(cfg.out)
    named = out.with_name(f"{out.stem}-adapted")
    folder = named if cfg.report is None else expanded(cfg.report)
    if out.exists():
        raise ConfigError(f"{out} exists: choose another out=FILE")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder: choose another report=DIR")
    for path in (out, folder):
        check_below_folders(path)
    return out, folder


def _network(bundle: Bundle, name: str) -> SuperblockPredictor:
    """Return the network that a bundle holds.

    Raises:
        BundleError: if it holds something else.
    """
    if isinstance(bundle.predictor, AdaptedSuperblock):
        base = bundle.predictor.record["base"]["file"]
        raise BundleError(f"{name} is adapted already: adapt what it was adapted from, {base}")
    if not isinstance(bundle.predictor, SuperblockPredictor):
        raise BundleError(
            f"{name} holds {bundle.name}, and av1part adapt takes a superblock network: give "
            f"{PRETRAINED}, or a bundle made with superblock=CKPT"
        )
    return bundle.predictor


def _clip(
    word: str, base: str, settings: Mapping[str, Any], bundle: Bundle, stack: ExitStack
) -> LabelledClip:
    """Label a clip, or open a dataset with its labels, and check that they can be learnt from.

    Raises:
        ConfigError: if a setting does not apply or is not valid, or there are several clips.
    """
    domain, path = bundle.domain, expanded(word)
    choose = {key: settings[key] for key in ("frames", "scored", "gap")}

    def check(labelled: ClipPart) -> None:
        labelled.check_unseen(base, bundle.sources)
        labelled.check_types(domain, base)
        labelled.check_classes(domain.sizes)

    if (path / "manifest.json").is_file():
        defaults = asdict(Adapt())
        if given := [key for key in _OF_ENCODES if settings[key] != defaults[key]]:
            raise ConfigError(
                f"{word} is a dataset, which has its labels: leave out {', '.join(given)}"
            )
        clip = clip_of_dataset(path, settings["sequence"], choose)
        check_domain(bundle, [clip.labelled.bit_depth], clip.labelled.qindexes)
        check(clip.labelled)
        return clip
    if settings["sequence"] is not None:
        raise ConfigError(f"sequence= is of a dataset, and {word} is none: leave it out")
    one_to_four = settings["one_to_four"]
    builds = BuildSettings(
        cq_levels=settings["cq_levels"],
        sizes=sorted(domain.sizes, reverse=True),
        cpu_used=settings["cpu_used"],
        one_to_four=domain.one_to_four if one_to_four is None else one_to_four,
    )
    raw = raw_format(*(settings[key] for key in ("width", "height", "bit_depth", "layout")))
    sources = open_sources(find_sources([word]), raw, interlaced=settings["interlaced"])
    if len(sources) > 1:
        raise ConfigError(f"{word} is {len(sources)} files: give one clip")
    (source,) = sources
    check_domain(bundle, [source.reader.bit_depth], [qindex_of(q) for q in builds.cq_levels])
    folder = settings["labels"]
    kept = stack.enter_context(tempfile.TemporaryDirectory()) if folder is None else folder
    return label_clip(source, expanded(kept), builds, settings["jobs"], choose, check)


@dataclass(frozen=True)
class _Adapting:
    """What adapting to a clip came to.

    Attributes:
        clip: The clip.
        predictor: The adapted network.
        ridge: Ridge heads on the same features, of the sizes that have labels.
        prior: Shares of the types among the same nodes.
        seconds: That features and heads took.
    """

    clip: LabelledClip
    predictor: AdaptedSuperblock
    ridge: AdaptedSuperblock
    prior: ClassPrior
    seconds: float


def _adapt(
    clip: LabelledClip, bundle: Bundle, network: SuperblockPredictor, settings: Steps
) -> _Adapting:
    """Adapt a network, and fit a ridge and a class prior on the same nodes."""
    labelled, started = clip.labelled, time.perf_counter()
    nodes = node_features(network, list(labelled))
    adapted, fits = adapt_heads(network, nodes, settings)
    seconds = time.perf_counter() - started
    record = {
        "base": _file_of(bundle),
        "clip": clip.facts(),
        "labels": labelled.labels(),
        "steps": asdict(settings),
        "sizes": {str(size): asdict(fit) for size, fit in fits.items()},
    }
    domain = adapted_domain(network.domain, labelled.qindexes, labelled.bit_depth)
    fitted = replace(domain, sizes=tuple(sorted(nodes)))
    rows = labelled.table.filter(pl.col("size").is_in(list(nodes)))
    return _Adapting(
        clip,
        replace(adapted, limits=domain, record=record),
        ridge_heads(network, nodes, fitted),
        ClassPrior.fit(labelled.store, rows, fitted),
        seconds,
    )


def _file_of(bundle: Bundle) -> dict[str, Any]:
    assert bundle.file is not None
    facts = {"file": bundle.file.name, "sha256": sha256_file(bundle.file)}
    return {**facts, "licence": bundle.licence}


def _score(
    folder: Path, adapting: _Adapting, bundle: Bundle, read: Bundle, cfg: DictConfig
) -> None:
    """Score the file that was written beside its base, prior and ridge, and report that.

    Raises:
        BundleError: if the file answers otherwise than what was written.
    """
    held_back = adapting.clip.held_back
    view = next(iter(held_back))
    asked = view.plane, view.bit_depth, view.qindex
    written, again = (p.predict(*asked) for p in (adapting.predictor, read))
    if any(not np.array_equal(written[size], again[size]) for size in written):
        raise BundleError(f"{cfg.out} answers otherwise than what was written to it: report this")
    predictors = [
        _named(BASE, bundle, _file_of(bundle)),
        _named(ADAPTED, read, {"file": Path(cfg.out).name, "sha256": _file_of(read)["sha256"]}),
        _named("clip prior", Bundle(adapting.prior), {}),
        _named("ridge", Bundle(adapting.ridge), {}),
    ]
    populations = populations_of(predictors, held_back.type_counts())
    answers = score(predictors, held_back, populations)
    held_back.store.check_unchanged()
    record = adapting.predictor.record
    scored = record_of(predictors, answers, held_back.facts(), populations, plain(cfg), BASE)
    labelling = dict(zip(PARTS, adapting.clip.labelling, strict=True))
    adapting_record = {
        **record,
        "jobs": cfg.jobs,
        "origin": {part: own.origin for part, own in labelling.items()},
        "seconds": {
            **{part: own.seconds for part, own in labelling.items()},
            "adapting": round(adapting.seconds, 6),
        },
    }
    write_compared(folder, {**scored, "adapting": adapting_record}, answers.table)
    write_compared_report(folder)


def _named(name: str, bundle: Bundle, identity: Mapping[str, Any]) -> NamedPredictor:
    return NamedPredictor(name, bundle, bundle.sources, {"kind": bundle.name, **identity})

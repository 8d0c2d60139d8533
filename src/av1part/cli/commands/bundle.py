"""`av1part bundle`: a predictor as one file; `--show`: what such a file holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from omegaconf import DictConfig, OmegaConf

from av1part.cli.commands.pipeline import data_source, given_checkpoints
from av1part.cli.commands.show import lines
from av1part.config.schema import Trees
from av1part.options import PRETRAINED
from av1part.predictors.bundle import NO_LICENCE, Bundle, bundle_contents, write_bundle
from av1part.predictors.cascade import load_cascades
from av1part.predictors.fit import fit_bundle, train_trees
from av1part.predictors.superblock import load_superblock
from av1part.system.errors import ConfigError
from av1part.system.files import check_below_folders, expanded
from av1part.trees.boosting import Boosting


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Write a predictor to a file, or print what a file holds.

    Args:
        verb: `bundle`.
        cfg: The predictor, its licence and the file to write.
        words: The file to show.

    Raises:
        ConfigError: if neither or both are asked for, or an option does not apply.
    """
    if cfg.show or words:
        if not (cfg.show and words):
            raise ConfigError("av1part bundle FILE --show prints what FILE holds: give both words")
        print("\n".join(lines(bundle_contents(words[0]))))
        return
    if OmegaConf.is_missing(cfg, "out"):
        raise ConfigError("av1part bundle needs out=FILE, the file to write")
    if cfg.out == PRETRAINED:
        raise ConfigError(
            f"out={PRETRAINED} is the name of the bundle that comes with av1part: give out=./"
            f"{PRETRAINED} or another name"
        )
    out = expanded(cfg.out)
    if out.exists():
        raise ConfigError(f"{out} exists: choose another out=FILE")
    check_below_folders(out)
    bundle = replace(
        _predictor(cfg), outside=cfg.outside, licence=cfg.licence or NO_LICENCE, half=cfg.half
    )
    write_bundle(out, bundle)
    print(f"bundle: {out}, {out.stat().st_size:,} bytes; av1part bundle {out} --show")


def _predictor(cfg: DictConfig) -> Bundle:
    """Load or fit what the options name.

    Raises:
        ConfigError: if an option does not apply to the kind.
    """
    checkpoints = given_checkpoints(cfg)
    if cfg.half and cfg.superblock is None:
        raise ConfigError("half=true is for superblock=CKPT, a network: leave it out")
    given = [*checkpoints, *(["superblock"] if cfg.superblock is not None else [])]
    if cfg.kind != "trees" and cfg.trees != asdict(Trees()):
        raise ConfigError("trees.* is for kind=trees: leave it out")
    if cfg.kind != "cascade":
        if given:
            raise ConfigError(f"kind={cfg.kind} is fitted on data: leave out {', '.join(given)}")
        if cfg.kind == "trees":
            settings = Boosting(**cfg.trees)
            return train_trees(data_source(cfg), settings, split_seed=cfg.data.split_seed)
        return fit_bundle(cfg.kind, data_source(cfg), split_seed=cfg.data.split_seed)
    if cfg.superblock is None and "stage1" not in checkpoints:
        raise ConfigError(
            "av1part bundle needs stage1=CKPT stage2=CKPT ..., superblock=CKPT, or kind=prior"
        )
    if cfg.superblock is not None and checkpoints:
        raise ConfigError(f"superblock= is a predictor alone: leave out {', '.join(checkpoints)}")
    if cfg.data.path is not None or cfg.data.split_list is not None:
        raise ConfigError(
            "data.* is for kind=prior, variance and trees: a cascade is trained already"
        )
    if cfg.superblock is not None:
        return Bundle(load_superblock(cfg.superblock, calibration=cfg.calibration))
    cascades = load_cascades(checkpoints, calibration=cfg.calibration, ensemble=cfg.ensemble)
    return Bundle(cascades)

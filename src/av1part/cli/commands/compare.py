"""`av1part compare`: what predictors score on the same labelled nodes, by picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from av1part.cli.commands.pipeline import data_source
from av1part.config.check import plain
from av1part.config.schema import BaselineData, WeightsData
from av1part.config.words import exists
from av1part.evaluation.attach import Compute, DataSource
from av1part.metrics.class_weights import ClassWeights
from av1part.predictors.bundle import bundle_path, check_domain
from av1part.predictors.fit import FITTED, fit_bundle
from av1part.predictors.labelled import LabelledData
from av1part.predictors.named import NamedPredictor, fitted_predictor, open_predictor
from av1part.predictors.scoring import fit_weights, populations_of, record_of, score
from av1part.report import write_compared_report
from av1part.runs.compared import write_compared
from av1part.runs.compared_scores import STAGE2, STAGE2_SIZE
from av1part.system.errors import ConfigError
from av1part.system.files import atomic_folder, check_below_folders, expanded

PAGE = "report.html"
"""The page, in the folder of a comparison."""


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Score predictors, and write scores, sums by picture and a report.

    Args:
        verb: `compare`.
        cfg: The data, the baselines and the folder to make.
        words: Predictors, PATH or NAME=PATH.

    Raises:
        ConfigError: if `out` is missing or taken, or a setting is not valid.
    """
    if OmegaConf.is_missing(cfg, "out"):
        raise ConfigError("av1part compare needs out=DIR, the folder to make")
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError("av1part compare scores all predictors together: leave out -m")
    out = expanded(cfg.out)
    print(compare_in(cfg, words, out))
    print("report:", out / PAGE)


def compare_in(cfg: DictConfig, words: Sequence[str], out: Path) -> str:
    """Score predictors into a folder.

    Args:
        cfg: The composed configuration.
        words: Predictors, PATH or NAME=PATH.
        out: The folder to make.

    Returns:
        What is found at one node size, a sentence or two.

    Raises:
        ConfigError: if the folder is taken, or a setting is not valid.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder: choose another out=")
    check_below_folders(out)
    _check_data(cfg)
    given = [_opened(word, cfg) for word in words]
    data = LabelledData(data_source(cfg), cfg.split, split_seed=cfg.data.split_seed)
    predictors = [*given, *_baselines(cfg)]
    against = _against(cfg.against, [predictor.name for predictor in predictors])
    for predictor in predictors:
        check_domain(predictor.predictor, data.bit_depths, data.qindexes)
        data.check_unseen(predictor.name, predictor.sources)
    populations = populations_of(predictors, data.type_counts())
    weighing = _weights_data(cfg, data, predictors)
    weights = None if weighing is None else fit_weights(predictors, weighing)
    answers = score(predictors, data, populations, weights)
    data.store.check_unchanged()
    record = record_of(predictors, answers, data.facts(), populations, plain(cfg), against)
    if weighing is not None:
        record["weights"] = _weights_record(weighing, weights or {})
    with atomic_folder(out) as part:
        write_compared(part, record, answers.table)
        files = write_compared_report(part)
    return files.headline.replace("`", "")


def _check_data(cfg: DictConfig) -> None:
    """Check the keys of the data before anything is opened.

    Raises:
        ConfigError: naming the first key that is not valid.
    """
    if cfg.split == "all" and cfg.data.split_list is not None:
        raise ConfigError("split=all scores every node: leave out data.split_list")
    for group, defaults in (("fit", BaselineData()), ("weights", WeightsData())):
        given = plain(cfg)[group]
        for key, default in asdict(defaults).items():
            if given["path"] is None and given[key] != default:
                raise ConfigError(f"{group}.{key} does nothing without {group}.path: give both")
    listed = plain(cfg)["baselines"]
    if not isinstance(listed, list) or not all(n in list(FITTED) for n in listed):
        raise ConfigError(f"baselines={listed}: give a list of {', '.join(FITTED)}, or []")
    if listed and cfg.split == "all" and cfg.fit.path is None:
        raise ConfigError(
            "split=all leaves no training nodes to fit the baselines on: give fit.path=DIR, a "
            "dataset whose training split they are fitted on, or baselines=[]"
        )


def _opened(word: str, cfg: DictConfig) -> NamedPredictor:
    """Open the predictor of a positional word.

    Raises:
        ConfigError: if there is no such file.
    """
    name, equals, path = word.partition("=")
    if exists(word) or not equals:
        name, path = "", word
    if not bundle_path(path).is_file():
        hint = f", and compare has no key {name}" if name else ""
        raise ConfigError(
            f"{word}: there is no file {path}{hint}: name a bundle, a checkpoint or pretrained"
        )
    compute = Compute(cfg.device, cfg.precision)
    return open_predictor(path, name or None, calibration=cfg.calibration, compute=compute)


def _baselines(cfg: DictConfig) -> list[NamedPredictor]:
    """Fit the predictors without a network on training nodes."""
    own = cfg.data if cfg.fit.path is None else cfg.fit
    source = DataSource(own.path, own.protocol, own.split_list)
    return [
        fitted_predictor(FITTED[kind].name, fit_bundle(kind, source, split_seed=own.split_seed))
        for kind in dict.fromkeys(cfg.baselines)
    ]


def _against(against: str | None, names: Sequence[str]) -> str:
    """Return the predictor that the others are compared with.

    Raises:
        ConfigError: if two have one name, or none has this.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two predictors are called {twice[0]}: name them, NAME=PATH")
    if against is not None and against not in names:
        raise ConfigError(f"against={against}: give one of {', '.join(names)}")
    return names[0] if against is None else against


def _weights_data(
    cfg: DictConfig, data: LabelledData, predictors: Sequence[NamedPredictor]
) -> LabelledData | None:
    """Open the validation nodes that class weights are fitted on, if a dataset is given.

    Raises:
        ConfigError: if nodes among them are scored.
        BundleError: if a bundle refuses them.
        StoreError: if a predictor was trained on them.
    """
    if cfg.weights.path is None:
        return None
    own = cfg.weights
    source = DataSource(own.path, own.protocol, own.split_list)
    found = LabelledData(source, "val", split_seed=own.split_seed)
    if found.shares_nodes(data):
        raise ConfigError(
            f"weights.path={own.path}: its val nodes are scored, which weights fitted on them "
            "would flatter: score split=test, or another dataset"
        )
    for predictor in predictors:
        if STAGE2_SIZE in predictor.predictor.domain.sizes:
            check_domain(predictor.predictor, found.bit_depths, found.qindexes)
        found.check_unseen(predictor.name, predictor.sources)
    return found


def _weights_record(data: LabelledData, weights: Mapping[str, ClassWeights]) -> dict[str, Any]:
    return {
        "fitted_on": data.facts(),
        "predictors": {
            name: {
                "weights": dict(zip(STAGE2.class_names, own.weights, strict=True)),
                "macro_f1": own.macro_f1,
                "macro_f1_argmax": own.macro_f1_argmax,
            }
            for name, own in weights.items()
        },
    }

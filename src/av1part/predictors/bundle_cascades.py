"""Cascades as plain values and arrays, and back: every member's hyper-parameters and tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from av1part.cascade.choices import Choices
from av1part.cascade.predictor import CascadePredictor
from av1part.checkpoints.load import build_stage, check_facts
from av1part.evaluation.attach import SHARED_FACTS, Compute, device_of
from av1part.metrics.calibration import TEMPERATURES
from av1part.options import ENSEMBLES
from av1part.partition import SIZES, Stage, Taxonomy, taxonomy
from av1part.predictors.bundle_file import Arrays, Content, Packed, check_keys
from av1part.predictors.cascade import Cascades
from av1part.predictors.interface import Domain
from av1part.stages.base import StageModule

MOST_MEMBERS = 32
"""Members of a stage."""

States = dict[str, dict[str, NDArray[Any]]]
"""Member, as `16/stage1/0`, to its arrays; those that were used are taken out."""


def pack_cascades(predictor: Cascades) -> Packed:
    """Take cascades apart, without the folders of their author's machine."""
    cascades: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    sources = {}
    for size, cascade in predictor.by_size.items():
        stages = {}
        for stage, modules in cascade.members.items():
            temperatures = cascade.choices.temperatures[stage]
            stages[stage] = {
                "classes": _classes(modules[0].stage),
                "temperatures": [float(value) for value in temperatures],
                "members": [_without_folders(dict(module.hparams)) for module in modules],
            }
            for number, module in enumerate(modules):
                prefix = f"{size}/{stage}/{number}/"
                state = module.state_dict()
                arrays |= {prefix + name: t.cpu().numpy() for name, t in state.items()}
                source = _source(module)
                sources[tuple(source.values())] = source
        cascades[str(size)] = {
            "taxonomy": cascade.taxonomy.name,
            "partitions": list(cascade.taxonomy.names),
            "context": cascade.context,
            "ensemble": cascade.ensemble,
            "threshold": float(cascade.choices.threshold),
            "stages": stages,
        }
    return Packed({"cascades": cascades}, arrays, list(sources.values()))


def _classes(stage: Stage) -> dict[str, list[str]]:
    return {name: [type_.name for type_ in types] for name, types in stage.classes.items()}


def _source(module: StageModule) -> dict[str, Any]:
    data = module.hparams["data"]
    return {
        "dataset": Path(data["path"]).name,
        **{key: data[key] for key in ("manifest_sha256", "split_sha256")},
        "protocol": data["split"],
        "size": data["size"],
    }


def _without_folders(value: Any) -> Any:
    """Keep of every path its last part: a file that is mailed names no folders of its author."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value


def unpack_cascades(content: Content, arrays: Arrays, domain: Domain, compute: Compute) -> Cascades:
    """Build cascades from what a file claims that they are.

    Args:
        content: As `pack_cascades` makes it.
        arrays: Tensors by member and name.
        domain: As the file has it.
        compute: Device and precision.

    Returns:
        The predictor.

    Raises:
        CheckpointError: if a member is not what its hyper-parameters describe.
        ValueError: if anything else does not fit; other errors of wrong types and values, too.
    """
    check_keys(content, {"cascades"})
    states: States = {}
    for name, array in arrays.items():
        prefix, _, own = name.rpartition("/")
        states.setdefault(prefix, {})[own] = array
    predictors = []
    for size, cascade in content["cascades"].items():
        predictors.append(_unpack_cascade(size, cascade, states, compute))
    if states:
        raise ValueError(f"nothing uses {next(iter(states))[:100]!r}")
    cascades = Cascades.of(predictors)
    if cascades.domain != domain:
        raise ValueError("its domain is not that of its stages")
    return cascades


def _unpack_cascade(
    size: str, values: Content, states: States, compute: Compute
) -> CascadePredictor:
    check_keys(values, {"taxonomy", "partitions", "context", "ensemble", "threshold", "stages"})
    tree = taxonomy(values["taxonomy"]).at({str(own): own for own in SIZES}[size])
    if values["partitions"] != list(tree.names) or values["ensemble"] not in ENSEMBLES:
        raise ValueError("taxonomy or ensemble are not of this av1part")
    if values["stages"].keys() != {stage.name for stage in tree.stages}:
        raise ValueError(f"its stages are not those of {tree.name}")
    members, temperatures = {}, {}
    low, high = TEMPERATURES[0] * 0.999, TEMPERATURES[1] * 1.001
    for stage in tree.stages:
        of_stage = values["stages"][stage.name]
        check_keys(of_stage, {"classes", "temperatures", "members"})
        count = len(of_stage["members"])
        if not 1 <= count <= MOST_MEMBERS or len(of_stage["temperatures"]) != count:
            raise ValueError(f"{stage.name} has {count} members")
        numbers = tuple(_number(value, low, high) for value in of_stage["temperatures"])
        temperatures[stage.name] = numbers
        members[stage.name] = [
            _unpack_member(size, stage.name, number, of_stage, states) for number in range(count)
        ]
    _check_shared(tree, members, int(size), values["context"])
    device = device_of(compute.device)
    for modules in members.values():
        for module in modules:
            module.to(device)
    choices = Choices(_number(values["threshold"], 0.0, 1.0), temperatures)
    return CascadePredictor(
        members, choices, ensemble=values["ensemble"], precision=compute.precision
    )


def _unpack_member(
    size: str,
    stage: str,
    number: int,
    values: Content,
    states: States,
) -> StageModule:
    what, hyper_parameters = f"{stage} at {size}", values["members"][number]
    check_facts(what, hyper_parameters["data"])
    arrays = states.pop(f"{size}/{stage}/{number}")
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    module = build_stage(what, stage, hyper_parameters, values["classes"], state)
    for name, own in module.state_dict().items():
        if own.dtype != state[name].dtype:
            raise ValueError(f"{name} of {what} is of {state[name].dtype}")
    return module


def _check_shared(
    tree: Taxonomy, members: Mapping[str, Sequence[StageModule]], size: int, context: Any
) -> None:
    """Check that the stages of a cascade were trained alike.

    Raises:
        ValueError: if they were not.
    """
    first = members[tree.root.name][0].hparams["data"]
    if (first["size"], first["context"], first["taxonomy"]) != (size, context, tree.name):
        raise ValueError("its stages are of another size, context or taxonomy")
    for modules in members.values():
        for module in modules:
            theirs = module.hparams["data"]
            if any(first[key] != theirs[key] for key in SHARED_FACTS):
                raise ValueError("its stages were trained on different data")


def _number(value: Any, low: float, high: float) -> float:
    if type(value) is not float or not low <= value <= high:
        raise ValueError(f"{value!r} is not in {low} to {high}")
    return value

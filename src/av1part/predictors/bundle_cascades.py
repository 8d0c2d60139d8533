"""Cascades as plain values and arrays, and back: every member's hyper-parameters and tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from av1part.cascade.choices import Choices
from av1part.cascade.members import warn_of_start
from av1part.cascade.predictor import CascadePredictor
from av1part.evaluation.attach import SHARED_FACTS, Compute, device_of
from av1part.metrics.calibration import TEMPERATURES
from av1part.options import ENSEMBLES
from av1part.partition import SIZES, Taxonomy, taxonomy
from av1part.predictors.bundle_file import Arrays, Content, Packed, check_keys
from av1part.predictors.bundle_stages import (
    build_member,
    checked_number,
    classes_of,
    source_of,
    without_folders,
)
from av1part.predictors.cascade import Cascades
from av1part.predictors.interface import Domain
from av1part.stages.blocks import BlockStage

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
                "classes": classes_of(modules[0].stage),
                "temperatures": [float(value) for value in temperatures],
                "members": [without_folders(dict(module.hparams)) for module in modules],
            }
            for number, module in enumerate(modules):
                prefix = f"{size}/{stage}/{number}/"
                state = module.state_dict()
                arrays |= {prefix + name: t.cpu().numpy() for name, t in state.items()}
                source = source_of(module)
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
        numbers = tuple(checked_number(value, low, high) for value in of_stage["temperatures"])
        temperatures[stage.name] = numbers
        members[stage.name] = [
            _unpack_member(size, stage.name, number, of_stage, states) for number in range(count)
        ]
    _check_shared(tree, members, int(size), values["context"])
    device = device_of(compute.device)
    for modules in members.values():
        for module in modules:
            module.to(device)
    choices = Choices(checked_number(values["threshold"], 0.0, 1.0), temperatures)
    return CascadePredictor(
        members, choices, ensemble=values["ensemble"], precision=compute.precision
    )


def _unpack_member(
    size: str,
    stage: str,
    number: int,
    values: Content,
    states: States,
) -> BlockStage:
    what, hyper_parameters = f"{stage} at {size}", values["members"][number]
    arrays = states.pop(f"{size}/{stage}/{number}")
    module = build_member(what, stage, hyper_parameters, values["classes"], arrays)
    if not isinstance(module, BlockStage):
        raise ValueError(f"{stage} is no stage of a cascade")
    warn_of_start(what, module)
    return module


def _check_shared(
    tree: Taxonomy, members: Mapping[str, Sequence[BlockStage]], size: int, context: Any
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

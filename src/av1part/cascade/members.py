"""The stages of a cascade: loading them, checking that they fit together, their logits.

checkpoints -> StageModules by stage -> logits of every member for every node
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from av1part.cascade.routing import Nodes
from av1part.checkpoints.load import load_block_stage
from av1part.config.defects import check_members
from av1part.data.serve.datamodule import BlockDataModule
from av1part.defects import SCALED_TWICE, SCALED_TWICE_EVAL
from av1part.evaluation.attach import CPU, SHARED_FACTS, Compute
from av1part.evaluation.evaluate import Evaluation, evaluate_together
from av1part.evaluation.nodes import node_columns
from av1part.models.defective import scale_twice
from av1part.models.freeze import state_sha256
from av1part.stages.base import StageModule
from av1part.stages.blocks import BlockStage
from av1part.system.errors import CheckpointError

log = logging.getLogger(__name__)

Checkpoints = Mapping[str, Sequence[Path]]
"""Stage name to the files of its ensemble."""

Members = Mapping[str, Sequence[BlockStage]]
"""Stage name to its ensemble, one module or several."""


def load_members(
    checkpoints: Checkpoints, defects: Sequence[str] = ()
) -> dict[str, list[BlockStage]]:
    """Load the stages of a cascade.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        defects: The study's defects that the cascade has on purpose.

    Returns:
        Stage name to its members, on the CPU in eval mode, in the order of the cascade.

    Raises:
        CheckpointError: if a file is refused, the stages are not those of their taxonomy, they
            were trained on different data, block sizes or splits, an ensemble holds the same
            model twice, or they have other defects than `defects`.
    """
    files = {stage: paths for stage, paths in checkpoints.items() if paths}
    members = {
        stage: [load_block_stage(path, stage=stage, defects=defects) for path in paths]
        for stage, paths in files.items()
    }
    loaded = [module for modules in members.values() for module in modules]
    check_members(defects, [module.defects for module in loaded])
    if {SCALED_TWICE, SCALED_TWICE_EVAL} & set(defects):
        for module in loaded:  # the study's cascade had one loader for all stages
            scale_twice(module.classifier, module.hparams["data"]["bit_depth"])
    tree = next(iter(members.values()))[0].taxonomy
    wanted = [stage.name for stage in tree.stages]
    missing = [f"{stage}=CKPT" for stage in wanted if stage not in members]
    if missing:
        raise CheckpointError(f"the cascade also needs {', '.join(missing)}")
    extra = [stage for stage in members if stage not in wanted]
    if extra:
        at = f" at {tree.size}x{tree.size}" if tree.size else ""
        raise CheckpointError(
            f"taxonomy {tree.name} has no {', '.join(extra)}{at}: leave out "
            f"{', '.join(f'{stage}=' for stage in extra)}"
        )
    first = members[tree.root.name][0]
    for stage, modules in members.items():
        for module, path in zip(modules, files[stage], strict=True):
            warn_of_start(str(path), module)
            ours, theirs = first.hparams["data"], module.hparams["data"]
            differing = [key for key in SHARED_FACTS if ours[key] != theirs[key]]
            if differing:
                raise CheckpointError(
                    f"{path} was trained with another {', '.join(differing)} than "
                    f"{tree.root.name}: val nodes of one would be training nodes of the other; "
                    "train the stages alike"
                )
        _refuse_twins(stage, modules, files[stage])
    return {name: members[name] for name in wanted}


def warn_of_start(what: str, module: StageModule) -> None:
    """Warn where a stage of `method=meta` answers without having adapted to a picture.

    Args:
        what: The stage, as the warning names it.
        module: The stage.
    """
    if isinstance(module, BlockStage) and module.meta is not None:
        log.warning(
            "%s is of method=meta: its start is used as it is, without the steps that validate "
            "takes on each picture",
            what,
        )


def _refuse_twins(stage: str, modules: Sequence[BlockStage], paths: Sequence[Path]) -> None:
    """Refuse an ensemble of a model with itself, also as another file (`last` may be `best`).

    Raises:
        CheckpointError: naming the two files.
    """
    seen: dict[str, Path] = {}
    for module, path in zip(modules, paths, strict=True):
        identity = state_sha256(module.state_dict())
        if identity in seen:
            raise CheckpointError(
                f"{stage}: {path} holds the same model as {seen[identity]}: an ensemble of a "
                "model with itself says nothing, give each once"
            )
        seen[identity] = path


def evaluate_members(
    members: Members, data: BlockDataModule, split: str, compute: Compute = CPU
) -> tuple[Nodes, Evaluation]:
    """Compute the logits of every member of every stage for every node of a split.

    Args:
        members: Stage name to its modules.
        data: Set up for the root stage, whose population is every node.
        split: `train`, `val` or `test`.
        compute: Device, to which the members are moved, and precision.

    Returns:
        The nodes with all logits, and a member's evaluation for the nodes' columns.
    """
    modules = [module.to(compute.device) for ensemble in members.values() for module in ensemble]
    evaluations = evaluate_together(modules, data.batches(split), precision=compute.precision)
    of_member = iter(evaluations)
    logits = {
        stage: [next(of_member).logits for _ in ensemble] for stage, ensemble in members.items()
    }
    evaluation = evaluations[0]
    columns = node_columns(data.store, evaluation.node)
    nodes = Nodes.build(
        next(iter(members.values()))[0].taxonomy,
        evaluation.partition,
        columns["sequence"].to_numpy(),
        evaluation.qindex,
        logits,
    )
    return nodes, evaluation

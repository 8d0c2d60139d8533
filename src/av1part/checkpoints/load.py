"""Reading checkpoints: no code of the file is run, and every inconsistency is an error.

A checkpoint is a Lightning file with an `av1part` entry (`StageModule.on_save_checkpoint`) that
names the stage and hashes the tensors. Beside a checkpoint that training verified,
`<stem>.verified.json` holds the SHA-256 of the whole file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from av1part.config.defects import refuse_defective
from av1part.defects import NOT_STRICT
from av1part.models.defective import make_reloaded
from av1part.models.freeze import state_sha256
from av1part.models.node_trunk import NodeTrunk
from av1part.models.weights import check_names, is_torchvisions
from av1part.options import MOST
from av1part.partition import SUPERBLOCK_STAGE, Partition
from av1part.runs.schema import sidecar_path
from av1part.stages.base import CHECKPOINT_FORMAT, StageModule
from av1part.stages.blocks import BlockStage
from av1part.stages.choice import stage_class
from av1part.system.errors import CheckpointError, ConfigError, first_line
from av1part.system.files import expanded, read_json, sha256_file
from av1part.system.formats import refusal
from av1part.system.safe_load import NotPlainError, load_plain

_FACTS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("path", "manifest_sha256", "taxonomy", "split", "split_sha256"), (str,)),
    **dict.fromkeys(("size", "context", "split_seed", "eval_batch_size", "bit_depth"), (int,)),
    **dict.fromkeys(("class_counts", "type_counts", "qindex"), (list,)),
    "split_list": (str, type(None)),
    "input_statistics": (dict,),
}
"""Facts of its data that every checkpoint holds (`BlockDataModule.facts`), with their types."""

_LATER_FACTS: Mapping[str, tuple[type, ...]] = {"division_sha256": (str,)}
"""Facts that the first checkpoints of version 0.1 do not hold yet, likewise."""

_LONGEST_NAME = 200
"""Characters of a tensor's name; longer ones are made to cost time."""


_BAD_VALUES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
"""Errors that building a module from hyper-parameters that are not a stage's may raise."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it, and check that it is complete.

    Args:
        path: The file.

    Returns:
        Lightning's checkpoint with `state_dict`, `hyper_parameters` and `av1part`.

    Raises:
        CheckpointError: if the file is missing, damaged, holds code, is not of av1part, or is not
            the file its verification record describes.
    """
    path = expanded(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist: give the path of a .ckpt file")
    _check_sidecar(path)
    try:
        checkpoint = load_plain(path, legacy=False)
    except (NotPlainError, OSError) as error:
        raise CheckpointError(f"checkpoint {path} is refused: {error}") from None
    _check_ours(path, checkpoint)
    return dict(checkpoint)


def load_stage(
    path: str | Path,
    *,
    stage: str | None = None,
    cls: type[StageModule] | None = None,
    defects: Collection[str] = (),
) -> StageModule:
    """Rebuild a stage from its checkpoint alone, in eval mode on the CPU.

    Args:
        path: The file.
        stage: The stage it must be of; None is any.
        cls: Class to build instead of the stage's own.
        defects: The study's defects that it may have on purpose; by default none.

    Returns:
        The stage, frozen parts included, with exactly the file's tensors.

    Raises:
        CheckpointError: as `read_checkpoint`, or if it is of another stage, is defective, or its
            tensors do not fit the module that its hyper-parameters describe.
    """
    checkpoint = read_checkpoint(path)
    entry = checkpoint["av1part"]
    if stage is not None and entry["stage"] != stage:
        raise CheckpointError(f"checkpoint {path} is of {entry['stage']}, expected one of {stage}")
    return build_stage(
        f"checkpoint {path}",
        entry["stage"],
        checkpoint["hyper_parameters"],
        entry["classes"],
        checkpoint["state_dict"],
        cls=cls,
        defects=defects,
    )


def load_block_stage(path: str | Path, *, stage: str, defects: Collection[str] = ()) -> BlockStage:
    """Rebuild a stage of the cascade; see `load_stage`.

    Args:
        path: The file.
        stage: The stage it must be of.
        defects: As for `load_stage`.

    Returns:
        The stage.

    Raises:
        CheckpointError: as `load_stage`, or if the stage is none of the cascade's.
    """
    module = load_stage(path, stage=stage, defects=defects)
    if not isinstance(module, BlockStage):
        raise CheckpointError(f"checkpoint {path} is of {stage}, which is no stage of a cascade")
    return module


def build_stage(
    what: str,
    stage: str,
    hyper_parameters: Mapping[str, Any],
    classes: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    cls: type[StageModule] | None = None,
    defects: Collection[str] = (),
) -> StageModule:
    """Build a stage from the contents of a file, which need not be what they claim.

    Args:
        what: The file, as an error names it.
        stage: Name of the stage.
        hyper_parameters: Of its module, their `data` as `check_facts` wants it.
        classes: Class to names of its types, as the file has them.
        state: Tensors by name.
        cls: Class to build instead of the stage's own.
        defects: As for `load_stage`.

    Returns:
        The stage in eval mode on the CPU, with exactly these tensors; with defects of reloading if
        it has some, see `make_reloaded`.

    Raises:
        CheckpointError: if the hyper-parameters describe no stage, or one of other classes or
            tensors, or with other defects.
    """
    refuse_defective(what, _defects(hyper_parameters), defects)
    try:
        build = partial(cls or stage_class(stage), **hyper_parameters)
        with torch.device("meta"):  # no memory, since the module described may be of any size
            _check_state(build(), state, what)
        module = build()
    except (ConfigError, *_BAD_VALUES) as error:
        reason = first_line(error)
        raise CheckpointError(f"{what} does not describe a stage: {reason}; train again") from None
    ours = {name: [p.name for p in members] for name, members in module.stage.classes.items()}
    if ours != classes:
        raise CheckpointError(
            f"{what} was trained on classes {classes}, {module.taxonomy.name} now has {ours}: "
            "train again"
        )
    facts, types = hyper_parameters["data"], len(Partition)
    for key, length in (("class_counts", len(ours)), ("type_counts", types)):
        if len(facts[key]) != length or min(facts[key]) < 0 or not sum(facts[key]):
            raise CheckpointError(
                f"{what} has {key} that do not count {length} classes: restore it or train again"
            )
    _load_strict(module, state, what)
    if isinstance(module, BlockStage) and module.defects:
        seed = int(state_sha256(state)[:8], 16)  # another head for another checkpoint
        make_reloaded(module.classifier, module.defects, facts["bit_depth"], seed)
    return module.eval()


def _defects(hyper_parameters: Mapping[str, Any]) -> list[str]:
    """Return the defects that hyper-parameters name, as text whatever they are."""
    named = hyper_parameters.get("defects") or []
    return list(map(str, named)) if isinstance(named, list) else [str(named)]


def load_backbone(module: BlockStage, path: str | Path) -> dict[str, Any]:
    """Load the backbone of a Stage-1 or superblock checkpoint into another stage, strictly.

    Of a superblock network these are the strides that the stage's backbone has; coarser ones and
    the way back down are left out.

    Args:
        module: The stage to fill, in place.
        path: Checkpoint of `stage1`, or of `superblock` for a stage on that trunk.

    Returns:
        A record for the checkpoint: path and SHA-256 of the backbone, and of the whole trunk that
        it is a part of.

    Raises:
        CheckpointError: if the file is not a complete checkpoint of these stages, was made for
            another bit depth, other planes or conditioning or with another split of the same data,
            has a defect that the stage has not, or its backbone has other names or shapes.
    """
    checkpoint = read_checkpoint(path)
    stage, backbone = checkpoint["av1part"]["stage"], module.classifier.backbone
    if stage not in ("stage1", SUPERBLOCK_STAGE):
        raise CheckpointError(f"stage1={path} is a checkpoint of {stage}, not of stage1")
    if stage == SUPERBLOCK_STAGE and not isinstance(backbone, NodeTrunk):
        raise CheckpointError(
            f"stage1={path} is a checkpoint of {stage}: add backbone=superblock, its trunk"
        )
    depth, own = (h["data"]["bit_depth"] for h in (checkpoint["hyper_parameters"], module.hparams))
    if depth != own:
        raise CheckpointError(f"stage1={path} was trained on {depth}-bit blocks, these have {own}")
    own_defects = _defects(checkpoint["hyper_parameters"])
    refuse_defective(f"stage1={path}", own_defects, module.defects)
    _check_inputs(f"stage1={path}", stage, checkpoint["hyper_parameters"], module)
    theirs, ours = checkpoint["hyper_parameters"]["data"], module.hparams["data"]
    same_nodes = stage != SUPERBLOCK_STAGE and theirs["size"] == ours["size"]
    if theirs["manifest_sha256"] == ours["manifest_sha256"] and not _split_alike(
        theirs, ours, same_nodes=same_nodes
    ):
        raise CheckpointError(
            f"stage1={path} was trained with another split of this dataset (data.protocol="
            f"{theirs['split']}): val nodes here would be its training nodes; train it alike"
        )
    prefix = "classifier.backbone."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    record = {"stage1": str(expanded(path).resolve())}
    if stage == SUPERBLOCK_STAGE:
        assert isinstance(backbone, NodeTrunk)
        record["trunk_sha256"] = state_sha256(state)
        state = backbone.of_superblock(state)
    what = f"backbone of {path}"
    if NOT_STRICT in module.defects:
        _check_state(backbone, state, what)
        known = {name: tensor for name, tensor in state.items() if is_torchvisions(name)}
        backbone.load_state_dict(known, strict=False)
        state = backbone.state_dict()
    else:
        _load_strict(backbone, state, what)
    return {**record, "sha256": state_sha256(state)}


def _check_inputs(what: str, stage: str, theirs: Mapping[str, Any], module: BlockStage) -> None:
    """Check that a start's backbone was trained on the same planes and conditioning.

    Raises:
        CheckpointError: naming the option to change.
    """
    planes = _planes(theirs)
    if planes != _planes(module.hparams):
        raise CheckpointError(f"{what} was trained on other input planes: backbone.planes={planes}")
    energies = _has_energies(theirs)
    if energies != _has_energies(module.hparams):
        raise CheckpointError(
            f"{what} was trained with{'' if energies else 'out'} the energies of its cells: "
            f"backbone.energies={str(energies).lower()}"
        )
    told = theirs.get("conditioning", "none")
    in_blocks = told != "none" if stage == SUPERBLOCK_STAGE else told == "qindex_blocks"
    if in_blocks != (module.classifier.backbone.condition is not None):
        has, remedy = (
            ("has", "give conditioning=qindex_blocks")
            if in_blocks
            else ("has no", "give another conditioning than qindex_blocks")
        )
        raise CheckpointError(f"{what} {has} FiLM layers in its blocks: {remedy}")


def _planes(hyper_parameters: Mapping[str, Any]) -> str:
    """Return the input planes of a backbone, as they are typed; `null` if it names none."""
    backbone = hyper_parameters.get("backbone")
    planes = backbone.get("planes") if isinstance(backbone, Mapping) else None
    if isinstance(planes, list):
        return f"[{','.join(map(str, planes))}]"
    return "null" if planes is None else str(planes)


def _has_energies(hyper_parameters: Mapping[str, Any]) -> bool:
    """Return whether a backbone is given energies, which a ResNet-18 never is."""
    backbone = hyper_parameters.get("backbone")
    return isinstance(backbone, Mapping) and bool(backbone.get("energies"))


def _split_alike(theirs: Mapping[str, Any], ours: Mapping[str, Any], *, same_nodes: bool) -> bool:
    """Return whether val and test of a dataset are the same, for the same nodes or others."""
    key = "split_sha256" if same_nodes else "division_sha256"
    if theirs.get(key) is not None:
        return bool(theirs[key] == ours[key])
    # Checkpoints without the hash: compare what the split was made from. Folders may have moved.
    return all(theirs[key] == ours[key] for key in ("split", "split_seed")) and (
        Path(theirs["split_list"] or "").name == Path(ours["split_list"] or "").name
    )


def _load_strict(module: torch.nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    _check_state(module, state, what)
    module.load_state_dict(state, strict=True)


def _check_state(module: torch.nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    own = module.state_dict()
    check_names(what, set(own), state, own)


def check_facts(what: str, facts: Any) -> None:
    """Check what a file records of the data that a stage was trained on.

    Args:
        what: The file, as an error names it.
        facts: The record, as `BlockDataModule.facts` makes it.

    Raises:
        CheckpointError: if a fact is missing, or is not as training writes it.
    """
    missing = sorted(_FACTS.keys() - (facts.keys() if isinstance(facts, dict) else set()))
    if missing:
        raise CheckpointError(f"{what} does not say its data's {', '.join(missing)}")
    kinds = _FACTS | {key: types for key, types in _LATER_FACTS.items() if key in facts}
    wrong = [key for key, types in kinds.items() if not _is_fact(facts[key], types)]
    sound = [key for key in MOST if key not in wrong]
    wrong += [key for key in sound if not 0 <= facts[key] <= MOST[key]]
    if wrong:
        raise CheckpointError(
            f"{what} does not say its data's {', '.join(wrong)} as training writes them"
        )


def _check_sidecar(path: Path) -> None:
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return
    recorded = (read_json(sidecar) or {}).get("file_sha256")
    if recorded is None:
        raise CheckpointError(f"{sidecar} is damaged: remove it or train again")
    if sha256_file(path) != recorded:
        raise CheckpointError(
            f"checkpoint {path} is not the file that {sidecar.name} verified: its bytes have "
            "changed since; restore it or train again"
        )


def _wrote(path: Path) -> Any:
    """Return the version of av1part that verified a checkpoint; None if it is not recorded."""
    used = (read_json(sidecar_path(path)) or {}).get("versions")
    return used.get("av1part") if isinstance(used, dict) else None


def _check_ours(path: Path, checkpoint: Any) -> None:
    keys = ("state_dict", "hyper_parameters", "av1part")
    if not isinstance(checkpoint, dict) or not all(
        isinstance(checkpoint.get(key), dict) for key in keys
    ):
        raise CheckpointError(f"{path} is not a checkpoint of av1part (it lacks {', '.join(keys)})")
    entry, state = checkpoint["av1part"], checkpoint["state_dict"]
    if entry.get("format") != CHECKPOINT_FORMAT:
        wrote = entry.get("av1part") or _wrote(path)
        raise CheckpointError(
            refusal(
                f"checkpoint {path}", entry.get("format"), CHECKPOINT_FORMAT, wrote, "train again"
            )
        )
    complete = all(isinstance(entry.get(key), str) for key in ("stage", "taxonomy", "state_sha256"))
    if not complete or not isinstance(entry.get("classes"), dict):
        raise CheckpointError(f"checkpoint {path} does not say its stage, taxonomy and classes")
    if entry.get("defects", []) != (checkpoint["hyper_parameters"].get("defects") or []):
        raise CheckpointError(
            f"checkpoint {path} names two different lists of defects: restore it or train again"
        )
    check_facts(f"checkpoint {path}", checkpoint["hyper_parameters"].get("data"))
    if not all(_is_name(name) and _is_plain(tensor) for name, tensor in state.items()):
        raise CheckpointError(f"checkpoint {path} holds a state that is not of plain tensors")
    if state_sha256(state) != entry.get("state_sha256"):
        raise CheckpointError(
            f"checkpoint {path} is damaged: its tensors do not have their SHA-256"
        )


def _is_fact(value: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether a fact has its type, and a list or dict of numbers holds numbers."""
    if type(value) is list:
        return list in kinds and all(type(item) is int for item in value)
    if type(value) is dict:
        return dict in kinds and all(type(value.get(key)) is float for key in ("mean", "std"))
    return type(value) in kinds


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST_NAME and name.isprintable()


def _is_plain(tensor: Any) -> bool:
    """Return whether a value is a dense tensor in memory, no larger than its storage."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )

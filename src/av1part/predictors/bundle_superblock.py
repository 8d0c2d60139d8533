"""The superblock network as plain values and arrays, and back."""

from __future__ import annotations

from av1part.evaluation.attach import Compute, device_of
from av1part.metrics.calibration import TEMPERATURES
from av1part.partition import SIZES, SUPERBLOCK_STAGE
from av1part.predictors.bundle_file import Arrays, Content, Packed, check_keys
from av1part.predictors.bundle_stages import (
    build_member,
    checked_number,
    classes_of,
    source_of,
    without_folders,
)
from av1part.predictors.interface import Domain
from av1part.predictors.superblock import SuperblockPredictor
from av1part.stages.superblock import SuperblockStage


def pack_superblock(predictor: SuperblockPredictor) -> Packed:
    """Take a network apart, without the folders of its author's machine."""
    module = predictor.module
    content = {
        "classes": classes_of(module.stage),
        "hyper_parameters": without_folders(dict(module.hparams)),
        "temperatures": {str(size): float(t) for size, t in predictor.temperatures.items()},
    }
    arrays = {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}
    # Nearly all parameters are in kernels; BatchNorm and biases stay exact.
    kernels = {name for name, own in module.named_parameters() if own.dim() > 1}
    return Packed(content, arrays, [source_of(module)], kernels)


def unpack_superblock(
    content: Content, arrays: Arrays, domain: Domain, compute: Compute
) -> SuperblockPredictor:
    """Build a network from what a file claims that it is.

    Args:
        content: As `pack_superblock` makes it.
        arrays: Tensors by name.
        domain: As the file has it.
        compute: Device and precision.

    Returns:
        The predictor.

    Raises:
        CheckpointError: if the network is not what its hyper-parameters describe.
        ValueError: if anything else does not fit; other errors of wrong types and values, too.
    """
    predictor = unpack_network(content, arrays, compute)
    if predictor.domain != domain:
        raise ValueError("its domain is not that of its network")
    return predictor


def unpack_network(content: Content, arrays: Arrays, compute: Compute) -> SuperblockPredictor:
    """Build a network as `unpack_superblock`, whatever the file's domain.

    Args:
        content: As `pack_superblock` makes it.
        arrays: Tensors by name.
        compute: Device and precision.

    Returns:
        The predictor.

    Raises:
        CheckpointError: as `unpack_superblock`.
        ValueError: likewise.
    """
    check_keys(content, {"classes", "hyper_parameters", "temperatures"})
    module = build_member(
        "the network", SUPERBLOCK_STAGE, content["hyper_parameters"], content["classes"], arrays
    )
    if not isinstance(module, SuperblockStage):
        raise ValueError(f"it is not of {SUPERBLOCK_STAGE}")
    sizes = {str(size): size for size in SIZES}
    low, high = TEMPERATURES[0] * 0.999, TEMPERATURES[1] * 1.001
    temperatures = {
        sizes[size]: checked_number(value, low, high)
        for size, value in content["temperatures"].items()
    }
    return SuperblockPredictor(
        module.to(device_of(compute.device)), temperatures, precision=compute.precision
    )

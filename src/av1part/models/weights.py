"""Starting weights for a backbone: none, torchvision's ImageNet weights, or a local file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights

from av1part.models.backbone import ResNet18
from av1part.system.errors import CheckpointError
from av1part.system.files import expanded
from av1part.system.safe_load import NotPlainError, load_plain

_OWN_PARTS = ("se1.", "se2.", "se3.", "se4.", "attention.", "film.", "condition.")


def load_pretrained(backbone: ResNet18, weights: str | Path) -> None:
    """Load `weights` into a backbone, in place.

    The first convolution takes the mean of the RGB kernels. torchvision's classifier is left out.
    Squeeze-and-excitation, attention and FiLM, which torchvision lacks, keep their initial values.
    All other names must be the same on both sides.

    Args:
        backbone: The network to fill.
        weights: `none`, `imagenet` (torchvision's `ResNet18_Weights.IMAGENET1K_V1`), or the path
            of a state dict with torchvision's names.

    Raises:
        CheckpointError: if the weights cannot be read or downloaded, or do not fit.
    """
    if str(weights) == "none":
        return
    state = _imagenet() if str(weights) == "imagenet" else _from_file(expanded(weights))
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    first = state.get("conv1.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 3:
        state["conv1.weight"] = first.mean(dim=1, keepdim=True)
    own = backbone.state_dict()
    # Older files, torchvision's ImageNet weights among them, have no counters of batches.
    expected = {
        name
        for name in own
        if is_torchvisions(name) and (name in state or not name.endswith("num_batches_tracked"))
    }
    check_names(f"weights {weights}", expected, state, own)
    backbone.load_state_dict({**own, **state}, strict=True)


def is_torchvisions(name: str) -> bool:
    """Return whether torchvision's ResNet-18 has a tensor of this name too."""
    return not name.startswith(_OWN_PARTS)


def check_names(
    what: str, expected: set[str], state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> None:
    """Check that a state has exactly the expected names, with the network's shapes.

    Args:
        what: Source of the state, for the error.
        expected: Names the state must have.
        state: Tensors by name.
        own: The network's tensors by name.

    Raises:
        CheckpointError: naming missing and extra names, or the first differing shape.
    """
    missing, extra = sorted(expected - state.keys()), sorted(state.keys() - expected)
    if missing or extra:
        raise CheckpointError(
            f"{what} is of another architecture: missing {_some(missing)}, extra {_some(extra)}; "
            "give the same backbone options it was trained with"
        )
    for name in sorted(expected):
        if state[name].shape != own[name].shape:
            raise CheckpointError(
                f"{what} is of another architecture: {name} is {tuple(state[name].shape)}, this "
                f"network has {tuple(own[name].shape)}; give the options it was trained with"
            )


def _some(names: list[str], most: int = 4) -> str:
    shown = ", ".join(names[:most]) or "nothing"
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _imagenet() -> dict[str, Tensor]:
    weights = ResNet18_Weights.IMAGENET1K_V1
    try:
        state: Mapping[str, Any] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        name = weights.url.rsplit("/", 1)[-1]
        place = Path(torch.hub.get_dir()) / "checkpoints" / name
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"ImageNet weights are not cached and cannot be downloaded ({reason}): place {name} "
            f"at {place}, or give backbone.weights=PATH"
        ) from None
    return dict(state)


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist: backbone.weights is none, imagenet or a file"
        )
    try:
        state = load_plain(path)
    except (NotPlainError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable state dict: {error}") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} is not a state dict of tensors")
    return dict(state)

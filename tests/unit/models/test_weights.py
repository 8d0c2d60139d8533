"""Starting weights: through torchvision's own loader, from files, strictly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18

from av1part.models.backbone import ResNet18
from av1part.models.weights import load_pretrained
from av1part.system.errors import CheckpointError


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(resnet18().state_dict())


def check_loaded(backbone: ResNet18, state: dict[str, torch.Tensor]) -> None:
    own = backbone.state_dict()
    torch.testing.assert_close(own["conv1.weight"], state["conv1.weight"].mean(1, keepdim=True))
    for name, tensor in state.items():
        if name != "conv1.weight" and not name.startswith("fc."):
            assert torch.equal(own[name], tensor), name


def test_imagenet_comes_from_torchvisions_cache(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    name = ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / name)
    backbone = ResNet18()
    load_pretrained(backbone, "imagenet")
    check_loaded(backbone, state)
    # The real file is older than BatchNorm's counters of batches.
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "checkpoints" / name)
    backbone = ResNet18()
    load_pretrained(backbone, "imagenet")
    check_loaded(backbone, old)


def test_imagenet_offline_names_the_file_to_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(CheckpointError, match=r"place resnet18-\w+\.pth at .*checkpoints"):
        load_pretrained(ResNet18(), "imagenet")


def test_weights_from_a_file(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    backbone = ResNet18()
    load_pretrained(backbone, tmp_path / "w.pth")
    check_loaded(backbone, state)


def test_none_changes_nothing() -> None:
    backbone = ResNet18(width=8)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    load_pretrained(backbone, "none")
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_unfit_files_are_refused_by_name(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    with pytest.raises(CheckpointError, match="does not exist"):
        load_pretrained(ResNet18(), file)
    file.write_bytes(b"no state dict")
    with pytest.raises(CheckpointError, match="not a readable state dict"):
        load_pretrained(ResNet18(), file)
    torch.save({"a": 1}, file)
    with pytest.raises(CheckpointError, match="not a state dict of tensors"):
        load_pretrained(ResNet18(), file)
    torch.save({k: v for k, v in state.items() if k != "layer2.0.conv1.weight"}, file)
    with pytest.raises(CheckpointError, match=r"missing layer2\.0\.conv1\.weight"):
        load_pretrained(ResNet18(), file)
    torch.save({**state, "layer9.weight": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"extra layer9\.weight"):
        load_pretrained(ResNet18(), file)
    torch.save(state, file)
    with pytest.raises(CheckpointError, match="another architecture: "):
        load_pretrained(ResNet18(width=8), file)

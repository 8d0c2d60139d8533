"""What a defect on purpose does to a network: compared with the same network without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from av1part.checkpoints.load import build_stage
from av1part.evaluation.trunk import SharedTrunk
from av1part.models.classifier import Classifier
from av1part.models.defective import NOISE, NOISE_SHARE, TwiceScaled, scale_twice
from av1part.models.normalise import MEAN, STD, PixelNormalise
from av1part.stages.blocks import BlockStage, Stage2
from av1part.system.errors import CheckpointError, ConfigError

DATA = {
    **{"path": "", "manifest_sha256": "", "taxonomy": "v6", "split": "by_sequence"},
    **{"split_sha256": "", "split_seed": 42, "split_list": None, "eval_batch_size": 64},
    **{"size": 16, "context": 0, "bit_depth": 8, "class_counts": [9, 8, 7], "qindex": [80]},
    **{"type_counts": [5] * 8 + [0, 0], "input_statistics": {"mean": 1.0, "std": 1.0}},
}
ADAPTER = {"kind": "bottleneck", "layers": [1, 2], "bottleneck": 4, "init_std": 1.0}
QINDEX = torch.full((6,), 80)


def stage2(*defects: str, seed: int = 1) -> BlockStage:
    """Return a Stage 2 of width 8 with adapters, the same for the same seed."""
    torch.manual_seed(seed)
    return Stage2(
        taxonomy="v6",
        method="adapter",
        backbone={"width": 8},
        head={"kind": "linear"},
        loss={"kind": "cross_entropy"},
        optimizer={"lr": {"backbone": 1e-6, "adapters": 1e-4, "head": 5e-4}},
        scheduler={"kind": "cosine"},
        data=DATA,
        adapter=ADAPTER,
        defects=list(defects) or None,
    )


def reloaded(module: BlockStage, *accepted: str) -> BlockStage:
    """Return a stage as it comes back from a file."""
    classes = {name: [p.name for p in types] for name, types in module.stage.classes.items()}
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    again = build_stage("a file", "stage2", dict(module.hparams), classes, state, defects=accepted)
    assert isinstance(again, BlockStage)
    return again


def blocks(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (6, 1, 16, 16), generator=generator).to(torch.uint8)


def answers(module: BlockStage) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = module.eval()(blocks(), QINDEX)
    return logits


def test_a_normal_stage_is_what_it_was() -> None:
    module = stage2()
    assert module.defects == ()
    assert "defects" not in module.hparams
    assert type(module.classifier.normalise) is PixelNormalise
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert "defects" not in checkpoint["av1part"]
    assert torch.equal(answers(reloaded(module)), answers(module))


def test_a_checkpoint_names_its_defects() -> None:
    module = stage2("late_thaw")
    assert module.hparams["defects"] == ["late_thaw"]
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["av1part"]["defects"] == ["late_thaw"]


def test_an_unknown_defect_is_no_stage() -> None:
    with pytest.raises(ConfigError, match="'none_such' is none of"):
        stage2("none_such")


def test_pixels_are_divided_by_the_peak_twice() -> None:
    block = blocks()
    once, twice = PixelNormalise(8)(block), TwiceScaled(8)(block)
    assert torch.allclose(once * STD + MEAN, block / 255, atol=1e-6)
    assert torch.allclose(twice * STD + MEAN, block / 255 / 255, atol=1e-6)
    assert not torch.allclose(once, twice)
    with pytest.raises(TypeError, match="integers"):
        TwiceScaled(8)(block.float())


def test_scaled_twice_is_in_training_and_evaluation() -> None:
    healthy, own = stage2(), stage2("scaled_twice")
    assert healthy.state_dict().keys() == own.state_dict().keys()
    assert all(torch.equal(v, own.state_dict()[k]) for k, v in healthy.state_dict().items())
    assert not torch.allclose(answers(healthy), answers(own))
    assert torch.equal(answers(reloaded(own, "scaled_twice")), answers(own))


def test_scaled_twice_eval_is_in_what_is_reloaded_alone() -> None:
    healthy, own = stage2(), stage2("scaled_twice_eval")
    assert torch.equal(answers(healthy), answers(own))
    again = reloaded(own, "scaled_twice_eval")
    assert not torch.allclose(answers(again), answers(own))
    assert torch.equal(answers(again), answers(stage2("scaled_twice")))


def test_scaled_once_eval_undoes_it_in_what_is_reloaded() -> None:
    names = ("scaled_twice", "scaled_once_eval")
    own = stage2(*names)
    assert torch.equal(answers(own), answers(stage2("scaled_twice")))
    again = reloaded(own, *names)
    assert torch.equal(answers(again), answers(stage2()))
    assert not torch.allclose(answers(again), answers(own))


def test_tiny_noise_is_many_times_what_a_block_holds_and_of_training_alone() -> None:
    names = ("scaled_twice", "tiny_noise")
    layer = stage2(*names).classifier.normalise.train()
    without = stage2("scaled_twice").classifier.normalise.train()
    block = blocks(3).repeat(200, 1, 1, 1)
    torch.manual_seed(5)
    noise = (layer(block) - without(block)) * STD
    hit = noise.abs().amax((1, 2, 3)) > 1e-6
    assert float(hit.float().mean()) == pytest.approx(NOISE_SHARE, abs=0.05)
    assert float(noise[hit].std()) == pytest.approx(NOISE, rel=0.02)
    contrast = (block / 255 / 255).std((1, 2, 3)).mean()
    assert float(noise[hit].std() / contrast) > 5
    torch.manual_seed(5)
    assert torch.equal((layer(block) - without(block)) * STD, noise)  # from the seed alone
    assert torch.equal(layer.eval()(block), without.eval()(block))
    assert stage2(*names).classifier.cut is None  # no features of one epoch are those of the next
    assert stage2("scaled_twice").classifier.cut is not None


def test_late_thaw_trains_the_backbone_from_the_ninth_epoch() -> None:
    healthy, own = stage2().classifier, stage2("late_thaw").classifier
    for epoch, thawed in ((0, False), (7, False), (8, True), (14, True)):
        for network, trained in ((healthy, False), (own, thawed)):
            network.set_epoch(epoch)
            network.train()
            assert all(p.requires_grad == trained for p in network.backbone.parameters())
            assert network.backbone.bn1.training == trained
    assert own.cut is None
    assert set(own.parameter_groups()) - set(healthy.parameter_groups()) == {"backbone"}


def test_not_strict_draws_a_head_in_place_of_the_checkpoint_s() -> None:
    own = stage2("not_strict")
    assert torch.equal(answers(own), answers(stage2()))
    again, twice = (reloaded(own, "not_strict") for _ in range(2))
    for name, tensor in own.state_dict().items():
        same = torch.equal(tensor, again.state_dict()[name])
        assert same != name.startswith("classifier.head."), name
    assert not torch.allclose(answers(again), answers(own))
    assert torch.equal(answers(again), answers(twice))
    other = stage2("not_strict", seed=2)
    head = "classifier.head.1.weight"
    assert not torch.equal(
        reloaded(other, "not_strict").state_dict()[head], again.state_dict()[head]
    )


def test_drawing_that_head_leaves_the_random_state_alone() -> None:
    own = stage2("not_strict")
    torch.manual_seed(3)
    reloaded(own, "not_strict")
    after = torch.rand(1)
    healthy = stage2()
    torch.manual_seed(3)
    reloaded(healthy)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("defect", ["scaled_twice", "scaled_twice_eval", "late_thaw", "not_strict"])
def test_what_does_not_expect_it_refuses_it(defect: str) -> None:
    with pytest.raises(CheckpointError, match=rf"a file is defective on purpose.*\[{defect}\]"):
        reloaded(stage2(defect))
    with pytest.raises(CheckpointError, match="a file is defective on purpose"):
        reloaded(stage2(defect), "random_blocks")


def test_features_of_pixels_divided_twice_are_shared_with_no_other_network() -> None:
    healthy, own = stage2().eval(), stage2().eval()
    assert SharedTrunk([healthy.classifier, own.classifier]).shared(0)
    scale_twice(own.classifier, 8)
    assert healthy.classifier.input_facts != own.classifier.input_facts
    trunk = SharedTrunk([healthy.classifier, own.classifier])
    assert not trunk.shared(0)
    with torch.inference_mode():
        logits = trunk.blocks(blocks(), QINDEX).logits(1)
    assert torch.equal(logits, answers(own))
    assert isinstance(own.classifier, Classifier)

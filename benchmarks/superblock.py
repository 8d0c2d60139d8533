"""The superblock network: training on crops, and a 1080p frame with the nodes of all sizes.

The peer of training is the bare step on crops in memory: forward, loss, backward, clipping and
optimizer, without Lightning, checks, checkpoints and the reading of crops. That of a frame is the
same network as PyTorch computes it when left alone: in its usual memory format, convolution and
BatchNorm apart. Trees are asked for the same nodes, features included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from measure import paired
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from training import run_rate
from trees import QINDEX, frame, trained_trees

from av1part.checkpoints.load import load_stage
from av1part.cli.main import main
from av1part.data.serve import superblocks
from av1part.data.serve.blocks import Batch
from av1part.data.serve.crops import CropPlaces
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.predictors.interface import Distributions
from av1part.predictors.superblock import SuperblockPredictor, load_superblock
from av1part.runs.schema import best_checkpoint
from av1part.stages.optimisation import build_optimizer
from av1part.stages.superblock import SuperblockStage
from av1part.training.build import build_datamodule

HD, UHD = (1080, 1920), (2160, 3840)
PASSES = 2
"""Times that an epoch of the embedded dataset is repeated, so that its end weighs less."""
PROFILED = 8
"""Steps."""
WORDS = ["train", "stage=superblock", "trainer.max_epochs=2", "logger=none"]
WORDS += ["callbacks.plots=false", "callbacks.verify_batches=1"]


def run(folder: Path, *, repeats: int = 3) -> Iterator[Any]:
    """Yield the row of training, then those of a frame.

    Args:
        folder: For runs.
        repeats: Pairs of each.
    """
    with chdir(folder), patch.object(superblocks, "CropPlaces", _MorePlaces):
        with _threads(1):
            row, checkpoint = _training(repeats)
        yield row
        yield from _frames(load_superblock(checkpoint, calibration="none"), repeats)


class _MorePlaces(CropPlaces):
    """Places of more crops of every view, all drawn anew."""

    @cached_property
    def view(self) -> NDArray[np.int64]:
        """See `CropPlaces`."""
        return np.tile(super().view, PASSES)


def _training(repeats: int) -> tuple[dict[str, Any], Path]:
    """Compare training with the bare step; return the row and a checkpoint."""
    first = _train()
    settings = yaml.safe_load((first / "config.yaml").read_text(encoding="utf-8"))
    data = build_datamodule(settings)
    assert isinstance(data, SuperblockDataModule)
    data.setup()
    checkpoint, batch = best_checkpoint(first), settings["data"]["batch_size"]
    bare = _Bare(checkpoint, list(data.train_dataloader()), settings)
    rates = [(run_rate(first), bare.rate())]
    rates += [(run_rate(_train()), bare.rate()) for _ in range(1, repeats)]
    found = paired(*map(list, zip(*rates, strict=True)))
    cpu, shares = bare.shares()
    row = {
        "what": f"training, {settings['optimizer']['kind']}, 1 thread: av1part train against the "
        "bare step, crops a second",
        **vars(found),
        "ms_a_step": 1e3 * batch / found.ours,
        "bare_ms_a_step": 1e3 * batch / found.theirs,
        "bare_cpu_ms": cpu,
        **shares,
    }
    return row, checkpoint


def _train() -> Path:
    """Train with the default settings; return the run folder.

    Raises:
        SystemExit: if the run failed.
    """
    name = f"run-{time.time_ns()}"
    if main([*WORDS, f"name={name}"]):
        raise SystemExit("the run failed, see above")
    return Path("runs", name)


class _Bare:
    """Steps on crops in memory, with nothing around them."""

    def __init__(self, checkpoint: Path, crops: list[Batch], settings: Mapping[str, Any]) -> None:
        """Build the network and the optimizer of a run.

        Args:
            checkpoint: The network.
            crops: Batches of an epoch.
            settings: The run's configuration.
        """
        module = load_stage(checkpoint)
        assert isinstance(module, SuperblockStage)
        self.module, self.crops = module.train(), crops
        groups = module.classifier.parameter_groups()
        self.optimizer = build_optimizer(groups, **module.hparams["optimizer"])
        self.parameters = [p for group in groups.values() for p in group]
        self.clip = settings["trainer"]["gradient_clip_val"]

    def rate(self) -> float:
        """Take the steps of an epoch; return crops a second."""
        started = time.perf_counter()
        for index in range(len(self.crops)):
            self._step(index)
        return sum(len(b["qindex"]) for b in self.crops) / (time.perf_counter() - started)

    def shares(self) -> tuple[float, dict[str, float]]:
        """Return milliseconds of CPU a step, and shares of its time in percent."""
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            for index in range(PROFILED):
                self._step(index)
        started = time.process_time()
        for index in range(PROFILED):
            self._step(index)
        cpu = 1e3 * (time.process_time() - started) / PROFILED
        events = profiled.key_averages()
        whole = sum(event.self_cpu_time_total for event in events)
        parts = {
            "convolutions_percent": sum(e.self_cpu_time_total for e in events if "conv" in e.key),
            "optimizer_percent": sum(
                e.cpu_time_total for e in events if e.key.startswith("Optimizer.step")
            ),
        }
        return cpu, {name: 100 * spent / whole for name, spent in parts.items()}

    def _step(self, index: int) -> None:
        loss = self.module.training_step(self.crops[index], index)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()


def _frames(predictor: SuperblockPredictor, repeats: int) -> Iterator[Any]:
    """Yield the rows of frames: in seconds, where a ratio above 1 says that ours is faster."""
    small, large = _frame(HD), _frame(UHD)
    half = replace(predictor, precision="bf16-mixed")
    half.predict(small, 8, QINDEX)  # the first of a kind is slower, as are the two in the check
    _check_equal(predictor.predict(small, 8, QINDEX), _left_alone(predictor.module, small))
    tiles = replace(predictor, pass_side=2048)
    for threads in (1, 2):
        yield _in_turn(
            f"1080p, {threads} thread{'s'[: threads - 1]}: against the network left alone, seconds",
            lambda: predictor.predict(small, 8, QINDEX),
            lambda: _left_alone(predictor.module, small),
            threads=threads,
            repeats=repeats,
        )
    yield _in_turn(
        "1080p, 1 thread: bf16 against float32, seconds",
        lambda: half.predict(small, 8, QINDEX),
        lambda: predictor.predict(small, 8, QINDEX),
        repeats=repeats,
    )
    yield _in_turn(
        "4K, 1 thread: in one pass against in tiles of 2048 x 2048, seconds",
        lambda: predictor.predict(large, 8, QINDEX),
        lambda: tiles.predict(large, 8, QINDEX),
        repeats=1,  # of which the ratio is that of the samples
    )
    trees = trained_trees()
    trees.predict(small, 8, QINDEX)
    yield _in_turn(
        "1080p, 1 thread: the network against trees, seconds",
        lambda: predictor.predict(small, 8, QINDEX),
        lambda: trees.predict(small, 8, QINDEX),
        repeats=repeats,
    )


def _frame(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return frame(SuperblockDataModule(), *shape)


class _UsualFormat(TorchFunctionMode):
    """PyTorch's usual memory format, where a network asks for the other one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, without a request for channels last."""
        kwargs = dict(kwargs or {})
        if kwargs.get("memory_format") is torch.channels_last:
            kwargs["memory_format"] = torch.contiguous_format
        return func(*args, **kwargs)


def _left_alone(module: SuperblockStage, plane: NDArray[Any]) -> Distributions:
    """Predict a frame in the usual memory format, with no layer folded."""
    with torch.inference_mode(), _UsualFormat():
        logits = module(torch.from_numpy(plane)[None, None], torch.tensor([QINDEX]))
        return {
            size: of_size[0].softmax(0).permute(1, 2, 0).contiguous().numpy()
            for size, of_size in logits.items()
        }


def _check_equal(ours: Distributions, theirs: Distributions) -> None:
    """Check that both are of the same network.

    Raises:
        SystemExit: if they are not.
    """
    for size, found in ours.items():
        rows, cols = found.shape[:2]  # the peer has nodes over the edge, too
        if not np.allclose(found, theirs[size][:rows, :cols], atol=1e-3):
            raise SystemExit(f"the two answer {size}x{size} nodes differently")


def _in_turn(
    what: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    repeats: int,
    threads: int = 1,
) -> dict[str, Any]:
    """Time two calls in turn.

    Returns:
        The row: seconds, the ratio of theirs to ours; the same in seconds of CPU.
    """
    with _threads(threads):
        spent = [(_spent(ours), _spent(theirs)) for _ in range(repeats)]
    clock, cpu = (
        vars(paired([theirs[i] for _, theirs in spent], [ours[i] for ours, _ in spent]))
        for i in (0, 1)
    )
    # `paired` compares rates, of which the ratio is that of seconds the other way round.
    row = {"what": what, **clock, "ours": clock["theirs"], "theirs": clock["ours"]}
    names = {"theirs": "cpu_s", "ours": "cpu_s_theirs", "ratio": "cpu_ratio"}
    return row | {name: cpu[key] for key, name in names.items()}


def _spent(call: Callable[[], object]) -> tuple[float, float]:
    """Return seconds, and seconds of CPU, that a call takes."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - cpu


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)

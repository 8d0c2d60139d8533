"""Inference: a stage at batch 1024, and the cascade on a 1080p frame, against peers and the limit.

The peers compute the same network in float32: eager (the better of two memory formats),
`torch.compile`, and ONNX Runtime. The limit is what the multiplications that matter would take at
the rate of a large matrix product, measured beside them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor.config
from eager import FORMATS, Eager
from measure import compare

from av1part.cascade.predictor import CascadePredictor
from av1part.data.serve.datamodule import BlockDataModule
from av1part.models.classifier import Classifier
from av1part.models.precision import computing_in
from av1part.stages.base import StageModule
from av1part.stages.choice import STAGES

BATCH = 1024
CPU = torch.device("cpu")
HEAD = {"kind": "mlp", "dropout": 0.5, "hidden": [256, 128]}


def run(folder: Path, *, repeats: int = 5) -> Iterator[Any]:
    """Yield a row a peer and precision, then the cascade's.

    Args:
        folder: For the ONNX file.
        repeats: Pairs of each.
    """
    torch.manual_seed(0)
    model = Classifier(classes=3, bit_depth=8, backbone={}, head=HEAD).eval().requires_grad_(False)
    reader = BlockDataModule(stage="stage1").reader("train")
    block = reader[np.arange(BATCH)]["block"]
    qindex = torch.full((BATCH,), 128)
    ours = {p: _ours(model, block, qindex, p) for p in ("32-true", "bf16-mixed")}
    eager = {name: _eager(model, block, name) for name in FORMATS}
    best = max(eager, key=lambda name: rate(eager[name]))
    peers = {
        f"eager {best}": eager[best],
        "eager nchw": eager["nchw"],
        "torch.compile": _compiled(model, block),
        "ONNX Runtime": _onnx(model, block, folder),
    }
    for precision, run_ours in ours.items():
        gemm = gemm_rate(torch.bfloat16 if "bf16" in precision else torch.float32)
        limit = gemm / flops(model, block[:1])
        for name, peer in peers.items():
            result = compare(lambda f=run_ours: rate(f), lambda f=peer: rate(f), repeats=repeats)
            row = {"what": f"{precision} against {name}", "batch": BATCH, **vars(result)}
            yield {**row, "limit": limit, "gemm_gflops": gemm / 1e9}
    yield from _cascade(reader, repeats)


def rate(call: Callable[[], object], *, blocks: int = BATCH, seconds: float = 1.0) -> float:
    """Return blocks a second, by the median of the calls within some time."""
    call()
    spent: list[float] = []
    while sum(spent) < seconds:
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return blocks / statistics.median(spent)


def _ours(
    model: Classifier, block: torch.Tensor, qindex: torch.Tensor, precision: str
) -> Callable[[], torch.Tensor]:
    def call() -> torch.Tensor:
        with torch.inference_mode(), computing_in(precision, CPU):
            logits: torch.Tensor = model(block, qindex)
            return logits

    return call


def _eager(model: Classifier, block: torch.Tensor, name: str) -> Callable[[], torch.Tensor]:
    network = Eager(model, FORMATS[name])

    def call() -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = network(block)
            return logits

    return call


def _compiled(model: Classifier, block: torch.Tensor) -> Callable[[], torch.Tensor]:
    # Freezing is its way to fold and reorder weights ahead of time.
    torch._inductor.config.freezing = True
    network = torch.compile(Eager(model, torch.channels_last).eval(), dynamic=False)

    def call() -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = network(block)
            return logits

    return call


def _onnx(model: Classifier, block: torch.Tensor, folder: Path) -> Callable[[], object]:
    import onnxruntime

    file = folder / "stage.onnx"
    network = Eager(model, torch.contiguous_format).eval()
    torch.onnx.export(network, (block,), file, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: block.numpy()}
    return lambda: session.run(None, inputs)


def gemm_rate(dtype: torch.dtype) -> float:
    """Return floating-point operations a second of a product of large matrices."""
    a, b = torch.randn(4096, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
    return rate(lambda: a @ b, blocks=2 * 4096 * 1024 * 1024)


def flops(model: Classifier, block: torch.Tensor) -> float:
    """Count the operations on pixels that are there, twice the multiplications, for one block.

    Whatever a convolution multiplies with its padding does not count.
    """
    ones = torch.ones_like
    count = 0.0

    def hook(conv: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal count
        assert isinstance(conv, torch.nn.Conv2d)
        taps = torch.nn.functional.conv2d(
            ones(inputs[0][:, :1]), ones(conv.weight[:1, :1]), None, conv.stride, conv.padding
        )
        count += 2 * float(taps.sum()) * conv.in_channels * conv.out_channels

    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    handles = [conv.register_forward_hook(hook) for conv in convs]
    Eager(model, torch.contiguous_format)(block)
    for handle in handles:
        handle.remove()
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    return count + sum(2.0 * m.weight.numel() for m in linears)


def _cascade(reader: Any, repeats: int) -> Iterator[Any]:
    """Time the whole cascade on as many blocks as a 1080p frame has."""
    count = 120 * 68
    index = np.random.default_rng(0).integers(0, len(reader), count)
    batch = reader[index]
    for shared in (True, False):
        members = cascade(frozen=shared)
        seconds = {}
        for precision in ("32-true", "bf16-mixed"):
            predictor = CascadePredictor(members, precision=precision)
            spent = []
            for _ in range(repeats + 1):
                started = time.perf_counter()
                predictor.predict(batch["block"], batch["qindex"])
                spent.append(time.perf_counter() - started)
            seconds[precision] = sorted(spent[1:])
        methods = "adapters and frozen" if shared else "all finetuned"
        whole, half = (statistics.median(spent) for spent in seconds.values())
        yield {
            "what": f"cascade on 1080p, {methods}: float32 against bf16, seconds",
            "batch": count,
            "ours": half,
            "theirs": whole,
            "ratio": whole / half,
            "low": seconds["32-true"][0] / seconds["bf16-mixed"][-1],
            "high": seconds["32-true"][-1] / seconds["bf16-mixed"][0],
            "repeats": repeats,
        }


def cascade(*, frozen: bool) -> dict[str, list[StageModule]]:
    """Build a cascade of six networks, whose predictions send blocks to every stage evenly.

    Args:
        frozen: Whether Stage 2 has adapters and Stage 3 heads on Stage 1's backbone; else every
            network has a backbone of its own.
    """
    plan = {"stage1": 1, "stage2": 1, "stage3_rect": 1, "stage3_ab": 3}
    methods = {"stage1": "scratch", "stage2": "adapter"} if frozen else {}
    members: dict[str, list[StageModule]] = {}
    for name, count in plan.items():
        method = methods.get(name, "frozen" if frozen else "scratch")
        data = BlockDataModule(stage=name)
        members[name] = [_stage(name, method, data, seed) for seed in range(count)]
    if frozen:
        start = members["stage1"][0].classifier.backbone.state_dict()
        for modules in members.values():
            for module in modules:
                module.classifier.backbone.load_state_dict(start)
    reader = BlockDataModule(stage="stage1").reader("train")
    sample = reader[np.random.default_rng(1).integers(0, len(reader), 512)]
    for modules in members.values():
        for module in modules:
            with torch.no_grad():
                logits = module.eval()(sample["block"], sample["qindex"])
                module.classifier.head[-1].bias -= logits.median(0).values
    return members


def _stage(name: str, method: str, data: BlockDataModule, seed: int) -> StageModule:
    torch.manual_seed(seed)
    return STAGES[name](
        taxonomy="v6",
        method=method,
        backbone={},
        head=HEAD,
        loss={"kind": "focal"},
        optimizer={"lr": {}},
        scheduler={"kind": "constant"},
        data=data.facts(),
        adapter={"layers": [1, 2, 3, 4]} if method == "adapter" else None,
    ).eval()

"""Train the superblock network on a GPU and compare it with the CPU; what no test without one can.

    make gpu-check                          300 steps of each way to train, on the embedded data
    make gpu-check ARGS='--data STORE'      on a dataset of yours
    make gpu-check ARGS='--device cpu --steps 8 --width 2'    only whether the script runs

Checked are: each way trains, and its checkpoint reads back; crops cut on the device are those of
the host, bit for bit; logits of the GPU are those of the CPU within a tolerance, in float32 and in
bf16. Without a GPU it says so in one line and ends with 0; with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from av1part import embedded
from av1part.checkpoints.load import load_stage
from av1part.cli.main import main as av1part
from av1part.data.serve.crops import CropReader
from av1part.data.serve.device import DeviceCrops
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.data.store.store import Store
from av1part.evaluation.attach import attach_data
from av1part.evaluation.evaluate import Evaluation, evaluate_sizes
from av1part.metrics.calibration import softmax
from av1part.partition import Partition

WAYS = {
    "float32": [],
    "float32, planes on the device": ["data.planes=device"],
    "bf16, planes on the device": ["data.planes=device", "trainer.precision=bf16-mixed"],
    "bf16, planes on the device, compiled": [
        *("data.planes=device", "trainer.precision=bf16-mixed", "trainer.compile=true"),
    ],
}
"""Ways to train, of which the first is what the others' steps a second are divided by."""

TOLERANCES = {"32-true": 1e-3, "bf16-mixed": 5e-2}
"""Precision to the largest mean difference of a node's probabilities, over the nodes of a size."""

FRAMES = 8
"""Frames of val whose nodes are compared."""


@dataclass(frozen=True)
class Check:
    """One line of the result.

    Attributes:
        what: What was compared.
        found: What was found.
        passed: Whether it is as it should be.
    """

    what: str
    found: str
    passed: bool


def train(
    way: str, words: Sequence[str], first: float | None
) -> tuple[Check, Path | None, float | None]:
    """Train in one way, in the present folder.

    Args:
        way: A key of `WAYS`.
        words: Of every training.
        first: Crops a second of the first way, if there was one.

    Returns:
        A line with its crops a second as a ratio; its best checkpoint, None if it did not train;
        the crops a second of the first way, None if none has trained yet.
    """
    run = Path(f"runs/way-{list(WAYS).index(way)}")
    if av1part(["train", *words, *WAYS[way], f"name={run.name}"]):
        return Check(way, "did not train, see above", passed=False), None, first
    timing = json.loads((run / "timing.json").read_text())
    speed = float(timing["blocks_per_second"])
    first = first or speed
    check = Check(way, f"trained, {speed / first:.2f} x the crops a second", passed=True)
    return check, (run / "checkpoints/best.ckpt").resolve(), first


def compare_crops(data: SuperblockDataModule, device: torch.device) -> Check:
    """Compare training crops that the device cuts with those of the host, in all symmetries."""
    views = data.views("train")
    sampler = data._loader("train", training=True, rank=0, ranks=1).sampler
    places = np.concatenate(list(sampler))[:64]
    places = np.concatenate([places] * 8)
    places[:, 3] = np.repeat(np.arange(8), len(places) // 8)
    reader = CropReader(views, data.crop)
    cut = DeviceCrops(reader, device)(torch.from_numpy(places).to(device)).cpu()
    same = torch.equal(cut, reader[places]["block"])
    found = f"{len(places)} crops, {'equal bit for bit' if same else 'they differ'}"
    return Check("crops cut on the device", found, passed=same)


def compare_answers(best: Path, device: torch.device, precision: str) -> list[Check]:
    """Compare the probabilities that a checkpoint gives on a device with those on the CPU."""
    of_cpu, of_device = (
        _answers(best, place, chosen)
        for place, chosen in ((torch.device("cpu"), "32-true"), (device, precision))
    )
    checks = []
    for size, own in of_device.items():
        there, here = softmax(own.logits), softmax(of_cpu[size].logits)
        apart = float(np.abs(there - here).max(1).mean())
        agree = float((there.argmax(1) == here.argmax(1)).mean())
        found = (
            f"{len(own.node)} nodes, probabilities {apart:.1e} apart in the mean, {agree:.2%} the "
            "same type"
        )
        what = f"{size}x{size} nodes in {precision}"
        checks.append(Check(what, found, passed=apart <= TOLERANCES[precision]))
    return checks


def _answers(best: Path, device: torch.device, precision: str) -> dict[int, Evaluation]:
    module = load_stage(best).to(device)
    batches = attach_data(module).batches("val")
    return evaluate_sizes(module, batches, limit=FRAMES, precision=precision)


def main(words: Sequence[str]) -> int:
    """Run all checks; 0 if all pass, or there is no GPU."""
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a dataset; left out: the embedded one")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--steps", type=int, default=300, help="of each way")
    parser.add_argument("--width", type=int, default=16, help="of the network")
    options = parser.parse_args(words)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check: there is no GPU here that torch can use: nothing was checked")
        return 0
    store = Store.open(embedded.STORE if options.data is None else options.data)
    one_to_four = (store.nodes["partition"] >= Partition.HORZ_4).any()
    types = "v6_1to4" if one_to_four else "v6"
    trainer = "gpu" if options.device == "cuda" else "cpu"
    own = [f"backbone.width={options.width}", f"trainer.max_steps={options.steps}"]
    own += ["stage=superblock", f"trainer={trainer}", "logger=none", "callbacks.plots=false"]
    own += ["callbacks.verify_batches=8", "callbacks.tolerance_pp=5", f"taxonomy={types}"]
    own += [f"data.path={options.data.resolve()}"] if options.data else []
    # Compiling needs a C++ compiler on the CPU, which is no part of the check.
    ways = [way for way in WAYS if trainer == "gpu" or "compiled" not in way]
    device, speed, failed, made = torch.device(options.device), None, 0, 0
    compared = False
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for way in ways:
            check, best, speed = train(way, own, speed)
            checks = [check]
            if best is not None and not compared:  # before ways that may take minutes to begin
                data = SuperblockDataModule(store.path, taxonomy=types)
                checks.append(compare_crops(data, device))
                for precision in TOLERANCES:
                    checks += compare_answers(best, device, precision)
                compared = True
            for each in checks:
                word = "ok    " if each.passed else "FAILED"
                print(f"gpu-check: {word} {each.what}: {each.found}", flush=True)
            failed += sum(not each.passed for each in checks)
            made += len(checks)
    print(f"gpu-check: {made} checks, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

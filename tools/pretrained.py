"""Make the predictor that comes with the package: train, calibrate, bundle, put in place.

    make pretrained [CORPUS=datasets/corpus]           from the datasets that `make corpus` made
    make pretrained CKPT=runs/x/checkpoints/best.ckpt  from a network trained and calibrated before

The recipe is conf/experiment/predictor/pretrained.yaml, the run folder runs/pretrained. The same
command goes on with a training that was stopped. Nothing replaces the file before all is done.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from av1part import embedded
from av1part.data.store.store import Store
from av1part.predictors.bundle import Bundle, read_bundle, write_bundle
from av1part.predictors.interface import Predictor
from av1part.predictors.superblock import load_superblock
from av1part.runs.schema import best_checkpoint
from av1part.system.errors import Av1partError, BundleError, ConfigError
from av1part.system.files import atomic_path

RUN = Path("runs/pretrained")
LICENCE = (
    "weights: Apache-2.0, as av1part; trained on pictures of CID22 by Cloudinary, CC BY-SA 4.0"
)
MOST_BYTES = 2 << 20
"""Of the file, which every wheel carries."""

QINDEXES = (80, 220)
"""At which the file is compared with the network that it was made from."""


def av1part(*words: str | Path) -> int:
    """Run the command of this environment; return its exit code."""
    command = Path(sys.executable).with_name("av1part")
    return subprocess.run([command, *words], check=False).returncode


def train(corpus: Path, words: list[str]) -> int:
    """Train the network of the recipe, or go on with it, and calibrate it; return the exit code.

    Raises:
        ConfigError: if there is no corpus, or the run's folder is to be another one.
    """
    for word in words:
        if word.partition("=")[0].lstrip("+~") in ("name", "resume", "hydra.run.dir"):
            raise ConfigError(f"{word}: the run is {RUN}, and goes on where it is: leave it out")
        if word in ("-m", "--multirun"):
            raise ConfigError(f"{word}: the file holds one network: leave it out")
    data, split = corpus / "one_to_four", corpus / "split.csv"
    if missing := [path for path in (data, split) if not path.exists()]:
        raise ConfigError(
            f"there is no {missing[0]}: make corpus SOURCE=folder first, again until it says done; "
            "the folder holds CID22's pictures in train and val"
        )
    recipe = ("experiment=predictor/pretrained", f"name={RUN.name}", "resume=true")
    code = av1part("train", *recipe, f"data.path={data}", f"data.split_list={split}", *words)
    return code or av1part("calibrate", best_checkpoint(RUN))


def rounding(network: Predictor, file: Predictor) -> str:
    """Say how far a file's answers are from its network's, on all embedded pictures."""
    farthest, moved, nodes = 0.0, 0, 0
    store = Store.open(embedded.STORE)
    depth = store.bit_depth()
    for sequence in store.sequences:
        for qindex in QINDEXES:
            own = network.predict(store.plane(sequence)[0], depth, qindex)
            rounded = file.predict(store.plane(sequence)[0], depth, qindex)
            for size, wanted in own.items():
                farthest = max(farthest, float(np.abs(rounded[size] - wanted).max(initial=0)))
                changed = rounded[size].argmax(-1) != wanted.argmax(-1)
                moved, nodes = moved + int(changed.sum()), nodes + changed.size
    return (
        f"no probability is more than {farthest:.4f} from the network's, and the most probable "
        f"type is another in {moved:,} of {nodes:,} nodes (embedded pictures at qindex "
        f"{' and '.join(map(str, QINDEXES))})"
    )


def ship(checkpoint: Path, file: Path) -> None:
    """Bundle a network with its calibration, at half precision, in place of a file.

    Raises:
        BundleError: if the file would be too large; the old one stays.
    """
    network = load_superblock(checkpoint, calibration="stored")
    with atomic_path(file) as part:
        write_bundle(part, Bundle(network, licence=LICENCE, half=True))
        size = part.stat().st_size
        if size > MOST_BYTES:
            raise BundleError(
                f"a bundle of {checkpoint} has {size:,} bytes, and a wheel takes {MOST_BYTES:,} at "
                "most: train a smaller network"
            )
    parameters = sum(own.numel() for own in network.module.parameters())
    print(f"rounding: {rounding(network, read_bundle(file))}")
    print(
        f"pretrained: {file}, {size:,} bytes, {parameters:,} parameters: bring docs/pretrained.md "
        "up to date"
    )


def main(words: list[str]) -> int:
    """Make the file; return the exit code."""
    parser = argparse.ArgumentParser(prog="make pretrained")
    parser.add_argument("--corpus", type=Path, default=Path("datasets/corpus"))
    parser.add_argument("--checkpoint", type=Path, help="bundle this one, and train nothing")
    parser.add_argument(
        "--out", type=Path, default=embedded.PRETRAINED_FILE, help="the file to replace"
    )
    arguments, more = parser.parse_known_args(words)
    checkpoint = arguments.checkpoint
    if checkpoint is None:
        if code := train(arguments.corpus.absolute(), more):
            return code
        checkpoint = best_checkpoint(RUN)
    elif more:
        raise ConfigError(f"{' '.join(more)} is for a training, and CKPT= trains nothing")
    ship(checkpoint, arguments.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Av1partError, OSError) as error:
        print(f"make pretrained: {error}", file=sys.stderr)
        sys.exit(2)

"""Write split lists whose training pictures are nested subsets of those of a split list.

    .venv/bin/python experiments/predictor/subsets.py datasets/corpus/split.csv

writes splits/train-13.csv to train-205.csv: the first 13, 25, 50, 100 and all training pictures in
an order drawn with seed 42, and the val pictures of the list. A split list names every picture of a
dataset, so the others are in `test`, which nothing here opens.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from av1part.data.store.splits import read_split_list
from av1part.system.errors import Av1partError, ConfigError
from av1part.system.files import write_csv

COUNTS = (13, 25, 50, 100, 205)
SEED = 42


def subset(listed: dict[str, str], count: int) -> dict[str, str]:
    """Keep some of the training pictures in train, and put the others into test.

    Args:
        listed: Sequence to split.
        count: Number of training pictures to keep.

    Returns:
        The same sequences with their new splits.

    Raises:
        ConfigError: if there are fewer.
    """
    train = sorted(name for name, split in listed.items() if split == "train")
    if count > len(train):
        raise ConfigError(f"the list has {len(train)} training pictures, {count} were asked for")
    order = np.random.default_rng(SEED).permutation(len(train))
    kept = {train[i] for i in order[:count]}
    return {
        name: "test" if split == "train" and name not in kept else split
        for name, split in listed.items()
    }


def main(file: Path, out: Path) -> None:
    """Write the lists."""
    listed = read_split_list(file)
    for count in COUNTS:
        split = sorted(subset(listed, count).items())
        rows = [{"sequence": name, "split": each} for name, each in split]
        write_csv(out / f"train-{count}.csv", rows)


if __name__ == "__main__":
    try:
        if len(sys.argv) != 2:
            raise ConfigError("name the split list of the corpus")
        main(Path(sys.argv[1]), Path(__file__).parent / "splits")
    except (Av1partError, OSError) as error:
        print(f"subsets: {error}", file=sys.stderr)
        sys.exit(2)

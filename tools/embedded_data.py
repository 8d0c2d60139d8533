"""Make the embedded dataset from the photographs in scikit-image's wheel (`make embedded-data`).

    .venv/bin/python tools/embedded_data.py [OUT] [--jobs N]

OUT defaults to the package's own folder, whose store is replaced when the new one is complete.
With the same aomenc and the locked dependencies the result is the same, bit for bit. Which
photographs, and under which terms: src/av1part/embedded/LICENCES.md.
"""

from __future__ import annotations

import argparse
import importlib.resources
import shutil
import sys
from pathlib import Path

from av1part.data.build.build import build_dataset
from av1part.data.store.store import Store
from av1part.embedded import STORE
from av1part.system.errors import Av1partError

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "rocket.jpg",
)
"""All natural photographs of the wheel that are public domain or CC0 beyond doubt."""

CQ_LEVELS = (20, 32, 43, 55)
SIZES = (64, 32, 16, 8)


def make(out: Path, jobs: int) -> Store:
    """Build the dataset and put it in `out`, in place of an older one that differs."""
    folder = importlib.resources.files("skimage") / "data"
    files = [Path(str(folder / name)) for name in PHOTOGRAPHS]
    if not out.exists():
        return build_dataset(files, out, cq_levels=CQ_LEVELS, sizes=SIZES, jobs=jobs)
    old = Store.open(out)  # refuses to replace a folder that is not a dataset
    new = build_dataset(
        files, out.with_name(f"{out.name}.new"), cq_levels=CQ_LEVELS, sizes=SIZES, jobs=jobs
    )
    if new.manifest["files"] == old.manifest["files"]:
        # Runs name the dataset by its manifest, which says more in later versions.
        print(f"{out}: planes and nodes are the same as before, it stays")
        shutil.rmtree(new.path)
        return old
    print(f"{out}: CHANGED, manifest {new.manifest_sha256}")
    shutil.rmtree(out)
    new.path.rename(out)
    return Store.open(out, verify="full")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=STORE)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    try:
        store = make(arguments.out, arguments.jobs)
    except Av1partError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{store.path}: {store.nodes.height} nodes, manifest {store.manifest_sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

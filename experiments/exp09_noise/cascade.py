"""Put each Stage 3 of exp09_noise into the cascade, alone and AB as an ensemble of three.

After `exp11a/all`, `exp09_noise/rect` and `exp09_noise/ab`, from the repository's root:

    .venv/bin/python experiments/exp09_noise/cascade.py

Stage 1 and Stage 2 are those of exp11a (its frozen Stage 2) of the same seed; an ensemble has the
AB of three seeds in a row. A cascade whose result is there is not computed again. What is written:
experiments/exp09_noise/cascade/scores.csv.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from av1part.cli import main
from av1part.report.published import config_sha256

HERE = Path(__file__).parent
SEEDS = range(5)
BEST = "checkpoints/best.ckpt"


def words(injection: str, seed: int, members: int) -> dict[str, str]:
    """Return the checkpoints of one cascade."""
    ab = [f"runs/exp09_noise-ab/{injection}/seed-{(seed + i) % 5}/{BEST}" for i in range(members)]
    return {
        "stage1": f"runs/exp11a-all/stage1/seed-{seed}/{BEST}",
        "stage2": f"runs/exp11a-all/frozen/seed-{seed}/{BEST}",
        "stage3_rect": f"runs/exp09_noise-rect/{injection}/seed-{seed}/{BEST}",
        "stage3_ab": f"[{','.join(ab)}]",
    }


def scores(folder: Path) -> dict[str, object]:
    """Return what a cascade came to, fractions, and what made it."""
    said = json.loads((folder / "pipeline.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    found: dict[str, object] = {
        "macro_f1": said["overall"]["macro_f1"],
        "accuracy": said["overall"]["accuracy"],
        "always_none_accuracy": said["baselines"]["constant"]["accuracy"],
        "prior_macro_f1": said["baselines"]["prior"]["macro_f1"],
    }
    for stage in ("stage3_rect", "stage3_ab"):
        for where in ("standalone", "cascade"):
            found[f"{stage}_{where}_macro_f1"] = said["stages"][stage][where]["macro_f1"]
    return {
        **found,
        "git_commit": environment["git_commit"],
        "dataset_sha256": environment["dataset"]["manifest_sha256"],
    }


def run() -> int:
    """Compute what is missing, then write the scores."""
    rows = []
    for members in (1, 3):
        for injection in ("none", "confusion", "uniform"):
            for seed in SEEDS:
                given = words(injection, seed, members)
                name = f"exp09_noise-cascade-{injection}-{members}-seed{seed}"
                folder = Path("runs") / name
                if not (folder / "metrics.json").is_file():
                    asked = [f"{stage}={path}" for stage, path in given.items()]
                    code = main(["pipeline", *asked, f"name={name}"])
                    if code:
                        return code
                variant = injection if members == 1 else f"{injection}_ensemble"
                row = {"variant": variant, "member": f"seed-{seed}", **scores(folder)}
                rows.append({**row, "config_sha256": config_sha256({"ensemble": "mean", **given})})
    out = HERE / "cascade/scores.csv"
    out.parent.mkdir(exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print("scores:", out)
    return 0


if __name__ == "__main__":
    sys.exit(run())

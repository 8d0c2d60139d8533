"""Put each Stage 3 of exp09_noise into the cascade, alone and AB as an ensemble of three.

After the sweeps of this experiment and those they name, from the repository's root:

    .venv/bin/python experiments/exp09_noise/cascade.py

`cascade` has Stage 1 and the frozen Stage 2 of exp11a with the frozen Stage 3; `cascade_finetune`
Stage 1 and the fine-tuned Stage 2 of goals with the fine-tuned Stage 3, all told the quantiser. The
stages of a cascade are of one seed; an ensemble has the AB of three seeds in a row. A cascade whose
result is there is not computed again. What is written: scores.csv of either,
experiments/exp09_noise/<cascade>/scores.csv.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from av1part.cli.main import main
from av1part.system.files import sha256_file, write_csv

HERE = Path(__file__).parent
SEEDS = range(5)
BEST = "checkpoints/best.ckpt"
CASCADES = {
    "cascade": {
        "stage1": "exp11a-all/stage1",
        "stage2": "exp11a-all/frozen",
        "stage3_rect": "exp09_noise-rect/{injection}",
        "stage3_ab": "exp09_noise-ab/{injection}",
    },
    "cascade_finetune": {
        "stage1": "goals-stage2/stage1",
        "stage2": "goals-stage2/finetune",
        "stage3_rect": "exp09_noise-rect_finetune/{injection}",
        "stage3_ab": "exp09_noise-ab_finetune/{injection}",
    },
}
"""Below runs/, of which variant each stage is."""


def words(cascade: str, injection: str, seed: int, members: int) -> dict[str, str]:
    """Return the checkpoints of one cascade."""
    variants = {
        stage: f"runs/{variant.format(injection=injection)}"
        for stage, variant in CASCADES[cascade].items()
    }
    files = {stage: f"{variant}/seed-{seed}/{BEST}" for stage, variant in variants.items()}
    seeds = [(seed + i) % len(SEEDS) for i in range(members)]
    ab = [f"{variants['stage3_ab']}/seed-{each}/{BEST}" for each in seeds]
    return {**files, "stage3_ab": f"[{','.join(ab)}]"}


def scores(folder: Path) -> dict[str, object]:
    """Return what a cascade came to, fractions, and what made it.

    Raises:
        SystemExit: if the best constant is another than the column is called by.
    """
    said = json.loads((folder / "pipeline.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    if said["baselines"]["constant"]["class"] != "NONE":
        raise SystemExit(f"{folder}: the best constant is not always NONE")
    accuracy, always_none = said["overall"]["accuracy"], said["baselines"]["constant"]["accuracy"]
    found: dict[str, object] = {
        "macro_f1": said["overall"]["macro_f1"],
        "accuracy": accuracy,
        "always_none_accuracy": always_none,
        "accuracy_above_always_none": accuracy - always_none,
        "flat_accuracy": said["flat"]["top_k"]["1"],
        "prior_macro_f1": said["baselines"]["prior"]["macro_f1"],
    }
    for stage in ("stage3_rect", "stage3_ab"):
        for where in ("standalone", "cascade"):
            found[f"{stage}_{where}_macro_f1"] = said["stages"][stage][where]["macro_f1"]
    return {
        **found,
        "git_commit": environment["git_commit"],
        "config_sha256": hashlib.sha256(json.dumps(made_from(said)).encode()).hexdigest(),
        "dataset_sha256": environment["dataset"]["manifest_sha256"],
    }


def made_from(said: dict[str, Any]) -> dict[str, Any]:
    """Return what a cascade's result is a function of."""
    files = {
        stage: [each["sha256"] for each in files] for stage, files in said["checkpoints"].items()
    }
    return {"checkpoints": files, "ensemble": "mean", "calibration": "auto"}


def is_current(folder: Path, given: dict[str, str]) -> bool:
    """Return whether a result is there.

    Raises:
        SystemExit: if it is of other checkpoints than are there now.
    """
    if not (folder / "metrics.json").is_file():
        return False
    said = made_from(json.loads((folder / "pipeline.json").read_text()))["checkpoints"]
    now = {
        stage: [sha256_file(Path(path)) for path in paths.strip("[]").split(",")]
        for stage, paths in given.items()
    }
    if said != now:
        raise SystemExit(f"{folder} is of other checkpoints: remove it to compute it again")
    return True


def compute(cascade: str) -> None:
    """Compute what is missing of a cascade, then write its scores.

    Raises:
        SystemExit: with the code of a command that failed, or as `is_current` and `scores` do.
    """
    rows = []
    for members in (1, 3):
        for injection in ("none", "confusion", "uniform"):
            for seed in SEEDS:
                given = words(cascade, injection, seed, members)
                name = f"exp09_noise-{cascade}-{injection}-{members}-seed{seed}"
                folder = Path("runs") / name
                if not is_current(folder, given):
                    asked = [f"{stage}={path}" for stage, path in given.items()]
                    code = main(["pipeline", *asked, f"name={name}"])
                    if code:
                        raise SystemExit(code)
                variant = injection if members == 1 else f"{injection}_ensemble"
                # Ensembles share members with each other, so that no test of them would be right.
                member = "seed" if members == 1 else "seeds-from"
                rows.append({"variant": variant, "member": f"{member}-{seed}", **scores(folder)})
    out = HERE / cascade / "scores.csv"
    write_csv(out, rows)
    print("scores:", out)


if __name__ == "__main__":
    for each in sys.argv[1:] or CASCADES:
        compute(each)

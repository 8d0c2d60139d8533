"""Put the stages of the sweeps of forensics into the cascade, one defect at a time and all.

After the sweeps forensics_stage1, forensics, forensics_rect and forensics_ab, from the repository's
root:

    .venv/bin/python experiments/forensics/cascade.py

A cascade has the Stage 2 of a variant with the healthy Stage 3, the Stage 3 of a variant with the
healthy Stage 2, or a defect of the cascade itself. All stages are of one seed, and of one split
where that is the defect. A cascade whose result is there is not computed again. What is written:
experiments/forensics/cascade/scores.csv.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av1part.cli.main import main
from av1part.defects import (
    BALANCED_TWICE,
    CHOSEN_ON_SCORED,
    LATE_THAW,
    MIRROR_LABELS,
    NOT_STRICT,
    RANDOM_BLOCKS,
    SCALED_ONCE_EVAL,
    SCALED_TWICE,
    SCALED_TWICE_EVAL,
    TINY_NOISE,
    TURN_LABELS,
    TWO_ORDERS,
)
from av1part.partition import Partition
from av1part.system.files import sha256_file, write_csv

HERE = Path(__file__).parent
SEEDS = range(3)
HEALTHY = "healthy"
SWEEPS = {
    "stage1": "forensics_stage1",
    "stage2": "forensics",
    "stage3_rect": "forensics_rect",
    "stage3_ab": "forensics_ab",
}
"""Stage to the sweep below runs/ that trained it."""


@dataclass(frozen=True)
class Cascade:
    """A variant of each stage's sweep, and the defects that the cascade has in all."""

    defects: tuple[str, ...] = ()
    stage1: str = HEALTHY
    stage2: str = HEALTHY
    stage3_rect: str = HEALTHY
    stage3_ab: str = HEALTHY


TRAINED = (SCALED_TWICE, SCALED_ONCE_EVAL, TINY_NOISE, LATE_THAW, BALANCED_TWICE, RANDOM_BLOCKS)
LABELS = (MIRROR_LABELS, TURN_LABELS)
OF_CASCADE = (TWO_ORDERS, CHOSEN_ON_SCORED)
CASCADES = {
    HEALTHY: Cascade(),
    SCALED_TWICE_EVAL: Cascade((SCALED_TWICE_EVAL,), stage2=SCALED_TWICE_EVAL),
    SCALED_TWICE: Cascade((SCALED_TWICE,), stage1=SCALED_TWICE, stage2=SCALED_TWICE),
    TINY_NOISE: Cascade((SCALED_TWICE, TINY_NOISE), stage1=SCALED_TWICE, stage2=TINY_NOISE),
    **{name: Cascade((name,), stage2=name) for name in (LATE_THAW, BALANCED_TWICE, NOT_STRICT)},
    RANDOM_BLOCKS: Cascade((RANDOM_BLOCKS,), *[RANDOM_BLOCKS] * 4),
    MIRROR_LABELS: Cascade((MIRROR_LABELS,), stage3_ab=MIRROR_LABELS),
    TURN_LABELS: Cascade((TURN_LABELS,), stage3_rect=TURN_LABELS, stage3_ab=TURN_LABELS),
    **{name: Cascade((name,)) for name in OF_CASCADE},
    "all_but_not_strict": Cascade(
        (*TRAINED, *LABELS, *OF_CASCADE), "all", "all_but_not_strict", "all", "all"
    ),
    "all": Cascade((*TRAINED, NOT_STRICT, *LABELS, *OF_CASCADE), *["all"] * 4),
}
"""The cascades by name; the first is what the others are compared with. That of the Stage 2 of
`scaled_once_eval` is that of `scaled_twice`, since the cascade divides twice."""


def runs(cascade: Cascade, seed: int) -> dict[str, Path]:
    """Return the run folder of each stage."""
    return {
        stage: Path("runs", sweep, getattr(cascade, stage), f"seed-{seed}")
        for stage, sweep in SWEEPS.items()
    }


def words(cascade: Cascade, seed: int) -> list[str]:
    """Return what `av1part pipeline` is given."""
    files = {stage: run / "checkpoints/best.ckpt" for stage, run in runs(cascade, seed).items()}
    given = [f"{stage}={file}" for stage, file in files.items()]
    return [*given, "calibration=fit", f"defects=[{','.join(cascade.defects)}]"]


def read(file: Path) -> Any:
    """Read a file of JSON."""
    return json.loads(file.read_text(encoding="utf-8"))


def scores(folder: Path, of: dict[str, Path]) -> dict[str, object]:
    """Return what a cascade and its Stage 2 came to, fractions, and what made it.

    Args:
        folder: The cascade's result.
        of: Stage to its run folder.

    Returns:
        Column to value. `cascade_error` of a stage is how far its macro-F1 in the cascade is from
        that of its own run, as a share of the latter: the study's -93 %.
    """
    result, metrics = read(folder / "pipeline.json"), read(of["stage2"] / "metrics.json")
    verified = read(of["stage2"] / "checkpoints/best.verified.json")
    with (of["stage2"] / "history.csv").open(newline="", encoding="utf-8") as file:
        course = [float(row["macro_f1"]) for row in csv.DictReader(file)]
    overall, live = result["overall"], verified["macro_f1_full"]
    constant = result["baselines"]["constant"]["accuracy"]
    found: dict[str, object] = {
        "macro_f1": overall["macro_f1"],
        "accuracy": overall["accuracy"],
        "constant_accuracy": constant,
        "accuracy_above_constant": overall["accuracy"] - constant,
        "horz_f1": overall["per_class"]["HORZ"]["f1"],
        "stage2_live": live,
        "stage2_reloaded": metrics["macro_f1"],
        "stage2_reload_delta": metrics["macro_f1"] - live,
        "stage2_first_epoch": course[0],
        "stage2_last_epoch": course[-1],
    }
    for stage in ("stage3_rect", "stage3_ab"):
        alone = read(of[stage] / "metrics.json")["macro_f1"]
        inside = result["stages"][stage]["cascade"]["macro_f1"]
        found[f"{stage}_alone"] = alone
        found[f"{stage}_cascade"] = inside
        found[f"{stage}_cascade_error"] = inside / alone - 1
    names = result["class_names"]
    predicted = [sum(column) for column in zip(*overall["confusion_matrix"], strict=True)]
    answers = dict(zip(names, predicted, strict=True))
    environment = read(folder / "environment.json")
    return {
        **found,
        "stage2_best_epoch": int(metrics["epoch"]),
        **{f"answers_{type_.name}": answers.get(type_.name, 0) for type_ in Partition},
        "git_commit": environment["git_commit"],
        "config_sha256": hashlib.sha256(json.dumps(made_from(result)).encode()).hexdigest(),
        "dataset_sha256": environment["dataset"]["manifest_sha256"],
    }


def made_from(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a cascade's result is a function of."""
    files = {
        stage: [each["sha256"] for each in files] for stage, files in result["checkpoints"].items()
    }
    return {
        "checkpoints": files,
        "ensemble": "mean",
        "calibration": "fit",
        "defects": result.get("defects", []),
    }


def is_current(folder: Path, cascade: Cascade, of: dict[str, Path]) -> bool:
    """Return whether a result is there.

    Raises:
        SystemExit: if it is of other checkpoints or defects than are asked for.
    """
    if not (folder / "metrics.json").is_file():
        return False
    said = made_from(read(folder / "pipeline.json"))
    now = {stage: [sha256_file(run / "checkpoints/best.ckpt")] for stage, run in of.items()}
    if (said["checkpoints"], said["defects"]) != (now, list(cascade.defects)):
        raise SystemExit(f"{folder} is of other checkpoints: remove it to compute it again")
    return True


def compute() -> None:
    """Compute what is missing of the cascades, then write their scores.

    Raises:
        SystemExit: with the code of a command that failed, or as `is_current` does.
    """
    rows = []
    for name, cascade in CASCADES.items():
        for seed in SEEDS:
            of, title = runs(cascade, seed), f"forensics-cascade-{name}-seed{seed}"
            folder = Path("runs") / title
            if not is_current(folder, cascade, of):
                code = main(["pipeline", *words(cascade, seed), f"name={title}"])
                if code:
                    raise SystemExit(code)
            rows.append({"variant": name, "member": f"seed-{seed}", **scores(folder, of)})
    out = HERE / "cascade" / "scores.csv"
    out.parent.mkdir(exist_ok=True)
    write_csv(out, rows)
    print("scores:", out)


if __name__ == "__main__":
    compute()

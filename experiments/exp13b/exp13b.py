"""Exp 13B: how far a few steps on a picture's own labels go, from which start, and beside what.

After the sweeps `experiment=exp13b/meta` and `experiment=exp13b/ordinary`, from the repository's
root:

    .venv/bin/python experiments/exp13b/exp13b.py choose STARTS
    .venv/bin/python experiments/exp13b/exp13b.py score STARTS --data GB82 --split all

STARTS are `name=CKPT[,CKPT...]`, the checkpoints of one start, a seed each, in the same order for
every name: `reptile=...` and `fomaml=...` (method=meta), `ordinary=...` (method=adapter). `choose`
takes, on meta-val (the val split of the checkpoints) alone, the learning rate of each start for
each number of steps, the number of steps, and the ridge's strength: choice.json, and choice.csv
with all that was tried. `score` opens meta-test once with these: score.json, which says so before
the first look, and score.csv. Compared are, on the same queries and with the same labels of the
same supports:

    <start>@k    a start after k inner steps; @0 is without adaptation
    ridge        ridge regression of the classes on the frozen trunk's pooled features, in closed
                 form, with classes balanced or not
    prior        classes drawn by the support's frequencies (expected confusion)
    majority     the support's most frequent class

Scores are macro-F1 and accuracy, pooled over all queries, with intervals that resample pictures;
differences are paired by picture (`metrics.paired`); of several seeds they are means.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from av1part.checkpoints.load import load_stage
from av1part.data.serve.episodes import Episodes
from av1part.evaluation.attach import RECORDED, SHARED_FACTS, DataSource
from av1part.evaluation.tasks import (
    after_steps,
    by_frequencies,
    by_ridge,
    open_tasks,
    score_tasks,
    tasks_of,
)
from av1part.metrics.paired import Resampled, compare_with
from av1part.metrics.scores import figure
from av1part.models.freeze import state_sha256
from av1part.stages.blocks import BlockStage
from av1part.system.errors import Av1partError, ConfigError
from av1part.system.files import expanded, load_json, write_csv, write_json

STEPS = (0, 1, 5, 10)
"""Inner steps that are scored."""

GOAL_STEPS = (5, 10)
"""Those among which `choose` takes one: the study's goal is 50 % macro-F1 after 5 to 10 steps."""

GOAL = 0.5
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
GUESSERS = ("prior", "majority")
RIDGE = "ridge"
CHOSEN = ("tried", "chosen", RIDGE)
"""What score.json repeats of choice.json."""

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Start:
    """A start, of several seeds.

    Attributes:
        name: What it is called.
        members: Its stages, a seed each.
        sha256: Hash of the tensors of each.
    """

    name: str
    members: list[BlockStage]
    sha256: list[str]


def load_starts(words: Sequence[str]) -> list[Start]:
    """Load the starts of the command line.

    Args:
        words: `name=CKPT[,CKPT...]`.

    Returns:
        The starts.

    Raises:
        ConfigError: if a word is no start, they have different numbers of seeds, or their frozen
            trunks, data or node sizes differ, so that they could not be compared.
    """
    starts: list[Start] = []
    for word in words:
        name, equals, files = word.partition("=")
        taken = {*GUESSERS, RIDGE, *(start.name for start in starts)}
        if not equals or not name.isidentifier() or name in taken:
            raise ConfigError(f"{word!r} is no start: name each once, as in reptile=CKPT,CKPT")
        members = []
        for file in files.split(","):
            module = load_stage(file)
            if not isinstance(module, BlockStage) or any(
                first is not None for first in module.classifier.thaw.values()
            ):
                raise ConfigError(f"{file} has no frozen trunk: use method=meta, adapter or frozen")
            members.append(module)
        hashes = [state_sha256(module.state_dict()) for module in members]
        starts.append(Start(name, members, hashes))
    facts = starts[0].members[0].hparams["data"]
    for start in starts:
        if len(start.members) != len(starts[0].members):
            raise ConfigError(f"{start.name} and {starts[0].name} have other numbers of seeds")
        for ours, theirs in zip(start.members, starts[0].members, strict=True):
            # Of all seeds: tasks are opened once, by the split of the first.
            differing = [k for k in SHARED_FACTS if ours.hparams["data"][k] != facts[k]]
            trunks = [state_sha256(m.classifier.backbone_state()) for m in (ours, theirs)]
            if trunks[0] != trunks[1]:
                differing.append("trunk")
            if ours.stage_name != theirs.stage_name:
                differing.append("stage")
            if differing:
                raise ConfigError(
                    f"a checkpoint of {start.name} has another {', '.join(differing)} than that of "
                    f"{starts[0].name}: train all alike, and of a seed from the same stage1"
                )
    return starts


def episodes_of(starts: Sequence[Start], nodes: int | None) -> Episodes:
    """Return how pictures are cut: as the starts of method=meta were trained.

    Args:
        starts: The starts.
        nodes: Another number of labelled blocks, if given.

    Returns:
        The episodes; the default ones if no start says any.

    Raises:
        ConfigError: if they differ, or the number does not fit.
    """
    cut = {m.meta.episodes for s in starts for m in s.members if m.meta is not None}
    if len(cut) > 1:
        raise ConfigError("the starts were trained on pictures that were cut in other ways")
    own = cut.pop() if cut else Episodes()
    try:
        return own if nodes is None else replace(own, support_nodes=nodes)
    except ValueError as error:
        raise ConfigError(str(error).replace("method.support_nodes", "--nodes")) from None


def made_from(starts: Sequence[Start], episodes: Episodes) -> dict[str, Any]:
    """Return what a choice is a function of, beside the data of the checkpoints."""
    return {
        "starts": {start.name: start.sha256 for start in starts},
        "episodes": asdict(episodes),
        "manifest_sha256": starts[0].members[0].hparams["data"]["manifest_sha256"],
    }


def choose(starts: Sequence[Start], episodes: Episodes, rates: Sequence[float], out: Path) -> None:
    """Choose rates, steps and strength on meta-val, and write choice.json and choice.csv."""
    module = starts[0].members[0]
    data, splits = open_tasks(module, episodes, RECORDED, "val")
    rows: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    for start in starts:
        tried = dict.fromkeys(sorted(rates), STEPS)
        found = score_tasks(start.members, data, splits, partial(after_steps, rates=tried))
        scores = {key: own.estimate["macro_f1"] for key, own in found.items()}
        # Of equal scores the smaller rate, and fewer steps.
        best = {
            k: max(sorted(rates), key={r: scores[r, k] for r in rates}.__getitem__)
            for k in STEPS
            if k
        }
        steps = max(GOAL_STEPS, key=lambda k: scores[best[k], k])
        chosen[start.name] = {"rates": {str(k): rate for k, rate in best.items()}, "steps": steps}
        rows += [
            {"predictor": start.name, "rate": rate, "steps": k, "macro_f1": figure(score)}
            for (rate, k), score in scores.items()
        ]
    ridge = partial(by_ridge, strengths=dict.fromkeys((False, True), STRENGTHS))
    of_ridge = {
        key: own.estimate["macro_f1"]
        for key, own in score_tasks(starts[0].members, data, splits, ridge).items()
    }
    rows += [
        {
            "predictor": f"{RIDGE}_balanced" if balanced else RIDGE,
            "rate": strength,
            "steps": "",
            "macro_f1": figure(score),
        }
        for (balanced, strength), score in of_ridge.items()
    ]
    balanced, strength = max(of_ridge, key=of_ridge.__getitem__)
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "choice.csv", rows)
    record = {
        **made_from(starts, episodes),
        "tried": {"rates": sorted(rates), "strengths": list(STRENGTHS)},
        "chosen": chosen,
        RIDGE: {"balanced": balanced, "strength": strength},
        "tasks": dict(Counter(picture for picture, _ in tasks_of(data, splits))),
    }
    write_json(out / "choice.json", record)
    print("chosen:", out / "choice.json")


def read_choice(starts: Sequence[Start], episodes: Episodes, out: Path) -> dict[str, Any]:
    """Return what `choose` chose for these starts.

    Raises:
        ConfigError: if it has not, or for others, or the file is not whole.
    """
    file = out / "choice.json"
    if not file.is_file():
        raise ConfigError(f"{file} is missing: choose on meta-val first")
    choice: dict[str, Any] = load_json(file)
    made = made_from(starts, episodes)
    differing = [key for key, value in made.items() if choice.get(key) != value]
    if differing:
        raise ConfigError(f"{file} was chosen for another {', '.join(differing)}: choose again")
    lacking = [key for key in CHOSEN if key not in choice]
    if lacking:
        raise ConfigError(f"{file} lacks {', '.join(lacking)}: choose again")
    return choice


def score(
    starts: Sequence[Start], episodes: Episodes, source: DataSource, split: str, out: Path
) -> None:
    """Open meta-test with what was chosen, and write score.json and score.csv.

    score.json says that it was opened before the first look, however that ends.

    Args:
        starts: The starts.
        episodes: How pictures are cut.
        source: The dataset of meta-test.
        split: Its split, or `all`.
        out: Folder of the results.

    Raises:
        ConfigError: if nothing was chosen for these starts, or it was chosen on this split.
    """
    choice = read_choice(starts, episodes, out)
    module = starts[0].members[0]
    data, splits = open_tasks(module, episodes, source, split)
    test = {"manifest_sha256": data.store.manifest_sha256, "splits": splits}
    if test["manifest_sha256"] == choice["manifest_sha256"] and splits != ["test"]:
        raise ConfigError(
            f"--split {split} of the checkpoints' own data is what choose chose on: give --split "
            "test, or --data of another dataset"
        )
    before = load_json(out / "score.json") if (out / "score.json").is_file() else {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    opened = [*before.get("opened", []), {"at": now, **test}]
    write_json(out / "score.json", {**before, "opened": opened})
    found: dict[str, Resampled] = {}
    headline = {}
    for start in starts:
        own = choice["chosen"][start.name]
        rates: dict[float, list[int]] = {}
        for k in STEPS:  # no step has no rate: it is scored with the first
            rate = own["rates"][str(k or STEPS[1])]
            rates.setdefault(rate, []).append(k)
        confuse = partial(after_steps, rates=rates)
        for (_, k), of_start in score_tasks(start.members, data, splits, confuse).items():
            found[f"{start.name}@{k}"] = of_start
        headline[start.name] = f"{start.name}@{own['steps']}"
    chosen = choice[RIDGE]
    ridge = partial(by_ridge, strengths={chosen["balanced"]: [chosen["strength"]]})
    (found[RIDGE],) = score_tasks(starts[0].members, data, splits, ridge).values()
    found |= score_tasks(starts[0].members[:1], data, splits, by_frequencies)
    tasks = Counter(picture for picture, _ in tasks_of(data, splits))
    references = [*headline.values(), RIDGE, *GUESSERS]
    record = {
        **made_from(starts, episodes),
        "choice": {key: choice[key] for key in CHOSEN},
        "opened": opened,
        "test": test,
        "pictures": len(tasks),
        "tasks": tasks.total(),
        "left_out": {name: dict(data.left_out[name]) for name in splits},
        "queries": int(sum(len(t.query) for name in splits for t in data.tasks[name])),
        "labels": int(sum(len(t.support) for name in splits for t in data.tasks[name])),
        "headline": headline,
        "goal": {
            name: {"goal": GOAL, "reached": found[key].estimate["macro_f1"] >= GOAL}
            for name, key in headline.items()
        },
        "scores": {
            name: {metric: interval.to_json() for metric, interval in own.intervals().items()}
            for name, own in found.items()
        },
        "differences": {
            reference: {
                name: {metric: difference.to_json() for metric, difference in own.items()}
                for name, own in compare_with(found, reference).items()
            }
            for reference in references
        },
    }
    rows = [
        {"predictor": name, "metric": metric, **interval.to_json()}
        for name, own in found.items()
        for metric, interval in own.intervals().items()
    ]
    write_csv(out / "score.csv", rows)
    write_json(out / "score.json", record)
    print("scores:", out / "score.json")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    own = argparse.ArgumentParser(prog="exp13b", description=(__doc__ or "").partition("\n")[0])
    own.add_argument("verb", choices=("choose", "score"))
    own.add_argument("starts", nargs="+", metavar="NAME=CKPT[,CKPT...]")
    own.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    own.add_argument("--nodes", type=int, help="labelled blocks of a picture, if not as trained")
    own.add_argument("--rates", type=float, nargs="+", default=RATES, help="of choose")
    own.add_argument("--data", help="dataset of meta-test; without it the checkpoints'")
    own.add_argument("--split-list", help="of that dataset: CSV sequence,split")
    own.add_argument("--split", default="test", help="of meta-test: test, val, or all of --data")
    own.add_argument("--reopen", action="store_true", help="score again where a score is there")
    return own


def main(words: Sequence[str]) -> None:
    """Run a sub-command.

    Args:
        words: Of the command line.

    Raises:
        ConfigError: if an option does not fit, or meta-test has been opened already.
    """
    given = parser().parse_args(list(words))
    out = expanded(given.out)
    if given.verb == "choose" and (given.data or given.split_list or given.split != "test"):
        raise ConfigError(
            "choose is on meta-val alone: --data, --split-list and --split are score's"
        )
    if given.verb == "score" and (out / "score.json").is_file() and not given.reopen:
        raise ConfigError(
            f"{out / 'score.json'} has opened meta-test already: --reopen to do so again"
        )
    if any(not 0 < rate < float("inf") for rate in given.rates):
        raise ConfigError("--rates must be above 0")
    torch.use_deterministic_algorithms(True)
    starts = load_starts(given.starts)
    episodes = episodes_of(starts, given.nodes)
    if given.verb == "choose":
        choose(starts, episodes, given.rates, out)
        return
    protocol = None if given.data is None else "by_sequence"
    source = DataSource(given.data, protocol, given.split_list) if given.data else RECORDED
    score(starts, episodes, source, given.split, out)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Av1partError, OSError) as error:
        print(f"exp13b: {error}", file=sys.stderr)
        sys.exit(2)

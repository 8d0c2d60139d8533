"""The driver of Exp 13B: what it chooses on meta-val, and that it opens meta-test once with it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from av1part import embedded
from av1part.cli.main import main
from av1part.system.errors import ConfigError

from ..conftest import load_file

SCRIPT = Path(__file__).parents[2] / "experiments/exp13b/exp13b.py"
TEST = ("--data", str(embedded.STORE), "--split-list", str(embedded.SPLIT_LIST), "--split", "all")


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    return load_file(SCRIPT)


@pytest.fixture(scope="module")
def runs(meta_words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a learnt start and of an ordinary one."""
    folder, before = tmp_path_factory.mktemp("exp13b"), Path.cwd()
    own = [word for word in meta_words if not word.startswith("method")]
    os.chdir(folder)
    try:
        for seed in (0, 1):
            rates = ("optimizer.lr.head=1e-2", f"seed={seed}")
            assert main(["train", *meta_words, *rates, f"name=meta-{seed}"]) == 0
            assert main(["train", *own, "method=adapter", *rates, f"name=plain-{seed}"]) == 0
    finally:
        os.chdir(before)
    return folder / "runs"


@pytest.fixture(scope="module")
def words(runs: Path) -> list[str]:
    return [
        f"{name}=" + ",".join(f"{runs}/{run}-{seed}/checkpoints/best.ckpt" for seed in (0, 1))
        for name, run in (("reptile", "meta"), ("ordinary", "plain"))
    ]


@pytest.fixture(scope="module")
def out(driver: ModuleType, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "out"
    driver.main(["choose", *words, "--out", str(folder), "--rates", "0.1", "0.03", "0.01"])
    driver.main(["score", *words, "--out", str(folder), *TEST])
    return folder


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_best_on_meta_val_is_chosen(
    driver: ModuleType, out: Path, words: list[str], runs: Path, tmp_path: Path
) -> None:
    choice, tried = json.loads((out / "choice.json").read_text()), read(out / "choice.csv")
    assert choice["tried"] == {"rates": [0.01, 0.03, 0.1], "strengths": [*driver.STRENGTHS]}
    assert {float(row["rate"]) for row in tried[:24]} == {*choice["tried"]["rates"]}
    assert {float(row["rate"]) for row in tried[24:]} == {*choice["tried"]["strengths"]}
    assert choice["episodes"] == {"support": 0.5, "gap": 16, "support_nodes": None, "least": 4}
    for name in ("reptile", "ordinary"):
        own = {
            (int(row["steps"]), float(row["rate"])): float(row["macro_f1"])
            for row in tried
            if row["predictor"] == name
        }
        assert len(own) == 12
        chosen = choice["chosen"][name]
        best = {k: own[k, chosen["rates"][str(k)]] for k in (1, 5, 10)}
        for k, score in best.items():
            assert score == max(value for (steps, _), value in own.items() if steps == k)
        assert best[chosen["steps"]] == max(best[5], best[10])
    ridge = {(r["predictor"], float(r["rate"])): float(r["macro_f1"]) for r in tried[24:]}
    key = "ridge_balanced" if choice["ridge"]["balanced"] else "ridge"
    assert ridge[key, choice["ridge"]["strength"]] == max(ridge.values())
    # At the steps and the rate of training a start scores what training recorded.
    recorded = [
        json.loads((runs / f"meta-{seed}" / "metrics.json").read_text())["macro_f1"]
        for seed in (0, 1)
    ]
    wanted = ("reptile", "0.03", "5")
    (row,) = (r for r in tried if (r["predictor"], r["rate"], r["steps"]) == wanted)
    assert float(row["macro_f1"]) == pytest.approx(sum(recorded) / 2, abs=2e-6)
    again = tmp_path / "again"
    driver.main(["choose", *words, "--out", str(again), "--rates", "0.1", "0.03", "0.01"])
    for name in ("choice.json", "choice.csv"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_meta_test_is_scored_with_intervals_and_paired_tests(out: Path) -> None:
    score = json.loads((out / "score.json").read_text())
    names = {f"{start}@{k}" for start in ("reptile", "ordinary") for k in (0, 1, 5, 10)}
    names |= {"ridge", "prior", "majority"}
    assert score["scores"].keys() == names
    assert score["choice"]["tried"] == json.loads((out / "choice.json").read_text())["tried"]
    assert score["test"]["splits"] == ["train", "val", "test"]
    assert score["pictures"] <= 11
    assert score["tasks"] > score["pictures"]
    for own in score["scores"].values():
        assert own["macro_f1"]["low"] <= own["macro_f1"]["estimate"] <= own["macro_f1"]["high"]
        assert own["macro_f1"]["clusters"] == score["pictures"]
    steps = json.loads((out / "choice.json").read_text())["chosen"]["reptile"]["steps"]
    assert score["headline"]["reptile"] == f"reptile@{steps}"
    assert score["goal"]["reptile"]["reached"] == (
        score["scores"][f"reptile@{steps}"]["macro_f1"]["estimate"] >= 0.5
    )
    against = score["differences"]["ridge"]
    assert against.keys() == names - {"ridge"}
    found = against["ordinary@5"]["macro_f1"]
    both = [score["scores"][name]["macro_f1"]["estimate"] for name in ("ordinary@5", "ridge")]
    assert found["estimate"] == pytest.approx(both[0] - both[1])
    assert found["p"] <= found["p_holm"] <= 1
    rows = {(row["predictor"], row["metric"]): row for row in read(out / "score.csv")}
    assert rows.keys() == {(name, metric) for name in names for metric in ("accuracy", "macro_f1")}


def test_its_page_shows_what_was_scored(
    out: Path, experiments_tool: ModuleType, tmp_path: Path
) -> None:
    score = json.loads((out / "score.json").read_text())
    shutil.copy(out / "score.json", tmp_path)
    tables = experiments_tool.write_adapted(tmp_path / "score.json")
    rows = {row[0]: row for row in tables["queries"].rows}
    assert rows.keys() == score["scores"].keys()
    for name, row in rows.items():
        assert float(row[1]) == pytest.approx(
            100 * score["scores"][name]["macro_f1"]["estimate"], abs=0.0051
        )
    assert {name for name in tables if name != "queries"} == {
        f"queries-over-{name.replace('@', '-')}" for name in score["differences"]
    }
    over = {row[0]: row for row in tables["queries-over-ridge"].rows}
    assert over.keys() == rows.keys() - {"ridge"}
    assert (tmp_path / "tables/queries.csv").is_file()


def test_meta_test_is_opened_once(
    driver: ModuleType, words: list[str], out: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"has opened meta-test already: --reopen"):
        driver.main(["score", *words, "--out", str(out), *TEST])
    with pytest.raises(ConfigError, match=r"choice\.json is missing: choose on meta-val first"):
        driver.main(["score", *words, "--out", str(tmp_path / "new"), *TEST])
    fewer = [word.partition(",")[0] for word in words]
    with pytest.raises(ConfigError, match="was chosen for another starts: choose again"):
        driver.main(["score", *fewer, "--out", str(out), *TEST, "--reopen"])
    with pytest.raises(ConfigError, match="was chosen for another episodes"):
        driver.main(["score", *words, "--out", str(out), *TEST, "--reopen", "--nodes", "5"])
    assert not (tmp_path / "new").exists()
    choice = json.loads((out / "choice.json").read_text())
    del choice["tried"]
    (tmp_path / "choice.json").write_text(json.dumps(choice))
    with pytest.raises(ConfigError, match="lacks tried: choose again"):
        driver.main(["score", *words, "--out", str(tmp_path), *TEST])
    assert not (tmp_path / "score.json").exists()
    (opened,) = json.loads((out / "score.json").read_text())["opened"]
    assert opened["splits"] == ["train", "val", "test"]


def test_a_score_that_was_stopped_has_opened_meta_test(
    driver: ModuleType,
    words: list[str],
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(out / "choice.json", tmp_path)
    asked = ["score", *words, "--out", str(tmp_path)]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(driver, "score_tasks", stop)
        with pytest.raises(KeyboardInterrupt):
            driver.main([*asked, *TEST])
    assert json.loads((tmp_path / "score.json").read_text()).keys() == {"opened"}
    with pytest.raises(ConfigError, match="has opened meta-test already"):
        driver.main([*asked, *TEST])
    driver.main([*asked, *TEST, "--reopen"])
    both = [json.loads((folder / "score.json").read_text()) for folder in (tmp_path, out)]
    assert [len(score.pop("opened")) for score in both] == [2, 1]
    assert both[0] == both[1]


def test_what_was_chosen_on_is_not_scored(
    driver: ModuleType, words: list[str], out: Path, small_store: Path, tmp_path: Path
) -> None:
    shutil.copy(out / "choice.json", tmp_path)
    asked = ["score", *words, "--out", str(tmp_path), "--split", "val"]
    named = ["--data", str(small_store), "--split-list", str(embedded.SPLIT_LIST)]
    for data in ([], named):
        with pytest.raises(ConfigError, match="--split val of the checkpoints' own data is what"):
            driver.main([*asked, *data])
    assert not (tmp_path / "score.json").exists()


def test_a_seed_of_another_split_is_refused(
    driver: ModuleType,
    words: list[str],
    on_small: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its training pictures would be scored, since the first seed says which val is."""
    monkeypatch.chdir(tmp_path)
    other = {"val": "train", "train": "val"}
    rows = (line.split(",") for line in embedded.SPLIT_LIST.read_text().splitlines())
    swapped = tmp_path / "swapped.csv"
    swapped.write_text("\n".join(f"{name},{other.get(split, split)}" for name, split in rows))
    own = [word for word in on_small if not word.startswith("data.split_list")]
    own += [f"data.split_list={swapped}", "trainer.max_epochs=1"]
    assert main(["train", "stage=stage1", *own, "name=s1"]) == 0
    stage1 = "stage1=runs/s1/checkpoints/best.ckpt"
    assert main(["train", "stage=stage2", "method=frozen", stage1, *own, "name=s2"]) == 0
    first = words[0].partition(",")[0]
    start = f"{first},{tmp_path}/runs/s2/checkpoints/best.ckpt"
    with pytest.raises(ConfigError, match="of reptile has another split_sha256 than that of"):
        driver.main(["choose", start, "--out", str(tmp_path / "out")])


def test_starts_that_cannot_be_compared_are_refused(
    driver: ModuleType, words: list[str], runs: Path, stage1: Path, tmp_path: Path
) -> None:
    one, other = words[0], words[1].partition(",")[0]
    asked = ["--out", str(tmp_path / "out")]
    for starts, message in (
        (["reptile"], "is no start"),
        ([one, one], "is no start"),
        (["ridge=a.ckpt"], "is no start"),
        ([one, other], "other numbers of seeds"),
        ([f"plain={stage1}"], "has no frozen trunk"),
        ([one, "--nodes", "2"], "--nodes must be null or at least method.least=4"),
        ([one, "--split", "val"], "choose is on meta-val alone"),
        ([one, "--rates", "0"], "--rates must be above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            driver.main(["choose", *starts, *asked])
    assert not (tmp_path / "out").exists()

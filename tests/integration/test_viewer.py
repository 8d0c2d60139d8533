"""The frame viewer in a real browser: choices, pointer and keys; nothing loaded, no error.

Of a prediction, with trees of several sizes, and in the reports of a cascade and of a stage.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from av1part.partition import Partition
from av1part.report import write_report
from av1part.report.draw.packed import PROBABILITIES, pack_frame
from av1part.report.render.viewer import FrameChoice, predictions_page

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs a browser: apt install chromium chromium-driver",
)


def certain(types: dict[tuple[int, int, int], Partition]) -> pl.DataFrame:
    """Return predictions that give each node's type 80 % and HORZ the rest."""
    rows = []
    for node, type_ in types.items():
        shares = np.zeros(10)
        shares[Partition.HORZ] = 0.2
        shares[type_] += 0.8
        rows.append((*node, *shares))
    return pl.DataFrame(rows, schema=["row", "col", "size", *PROBABILITIES], orient="row")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    types = {
        (0, 0, 32): Partition.SPLIT,
        (0, 32, 32): Partition.NONE,
        **{(r, c, 16): Partition.VERT for r in (0, 16) for c in (0, 16, 32, 48)},
    }
    true = pl.DataFrame(
        {"row": [0, 0], "col": [0, 32], "size": [32, 32], "partition": [3, 1]},
    )
    whole = dict.fromkeys(types, Partition.NONE)
    choice = FrameChoice()
    choice.start("clip")
    for number in range(2):
        assert choice.wants(number)
        luma = np.full((32, 64), 60 + number, np.uint8)
        tables = {80: certain(types), 220: certain(whole)}
        choice.add(pack_frame(number, luma, tables, {80: true}))
    page = tmp_path_factory.mktemp("page") / "predictions.html"
    page.write_text(predictions_page(choice, "a predictor"), encoding="utf-8")
    driver = started()
    try:
        driver.get(page.as_uri())
        ready(driver, "0/0/80")
        yield driver
    finally:
        driver.quit()


def started() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1300"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))


def ready(browser: webdriver.Chrome, shown: str) -> None:
    WebDriverWait(browser, 20).until(
        lambda d: d.find_element(By.CLASS_NAME, "viewer").get_attribute("data-ready") == shown
    )


def path(browser: webdriver.Chrome, name: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, f".viewer path.{name}").get_attribute("d") or ""


def title(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.CLASS_NAME, "viewer-title").text


def test_it_draws_the_tree_and_walks_the_sizes(browser: webdriver.Chrome) -> None:
    halves = {f"{c + 8} {r}v16" for r in (0, 16) for c in (0, 16)}
    # The cross of the left SPLIT; the right node is whole: its quarters are not drawn.
    cross = {"16 0v16", "0 16h16", "16 16h16", "16 16v16"}
    assert set(path(browser, "cuts").split("M")[1:]) == halves | cross
    quarters = {f"{c} {r}h16v16h-16z" for r in (0, 16) for c in (0, 16)}
    wholes = {f"{c} 0h32v32h-32z" for c in (0, 32)}
    assert set(path(browser, "grid").split("M")[1:]) == quarters | wholes
    assert set(path(browser, "true").split("M")[1:]) == cross | {"32 16h32"}
    assert path(browser, "mark") == "M32 0h32v32h-32z"
    assert title(browser) == "32x32 at row 0, column 0"
    stage = browser.find_element(By.CLASS_NAME, "viewer-stage")
    stage.send_keys("+", Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert title(browser) == "16x16 at row 16, column 16"
    most = browser.find_element(By.CSS_SELECTOR, ".viewer-bar.most").text
    assert most.split() == ["PARTITION_VERT", "80%"]
    stage.send_keys(Keys.ARROW_RIGHT)
    assert title(browser).endswith("(not in the drawn tree)")
    stage.send_keys("-")
    assert title(browser) == "32x32 at row 0, column 32"
    here = ActionChains(browser).move_to_element_with_offset(
        stage, stage.size["width"] // 8, stage.size["height"] // 4
    )
    here.click().perform()  # in the chosen node, so the next smaller size
    assert title(browser).startswith("16x16 at row 16, column 32")


def test_another_qindex_has_other_cuts(browser: webdriver.Chrome) -> None:
    Select(browser.find_element(By.CSS_SELECTOR, "[data-part=qindex]")).select_by_value("220")
    ready(browser, "0/0/220")
    assert path(browser, "cuts") == ""
    assert path(browser, "grid") == "M0 0h32v32h-32zM32 0h32v32h-32z"
    assert path(browser, "true") == ""
    before = browser.find_element(By.CSS_SELECTOR, ".viewer img").get_attribute("src")
    Select(browser.find_element(By.CSS_SELECTOR, "[data-part=frame]")).select_by_value("1")
    ready(browser, "0/1/220")
    assert browser.find_element(By.CSS_SELECTOR, ".viewer img").get_attribute("src") != before


def test_the_console_is_silent_and_nothing_is_loaded(browser: webdriver.Chrome) -> None:
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture
def report(
    examples: ModuleType, tmp_path: Path
) -> Iterator[Callable[[str], tuple[webdriver.Chrome, pl.DataFrame]]]:
    """A function that opens the report of a kind of run, and returns its frame's predictions."""
    driver = started()

    def opened(kind: str) -> tuple[webdriver.Chrome, pl.DataFrame]:
        folder = getattr(examples, f"write_{kind}_run")(tmp_path / kind)
        driver.get(write_report([folder], tmp_path / "out").html.as_uri())
        ready(driver, "0/0/172")
        with np.load(folder / "samples.npz") as samples:
            place = {k: samples[f"frame_{k}"] for k in ("node", "row", "col")}
        nodes = pl.read_parquet(folder / "predictions.parquet")
        return driver, pl.DataFrame(place).join(nodes, on="node")

    try:
        yield opened
    finally:
        driver.quit()


@pytest.mark.parametrize(("kind", "truth"), [("pipeline", "partition"), ("stage", "label")])
def test_a_report_shows_true_against_predicted(
    report: Callable[[str], tuple[webdriver.Chrome, pl.DataFrame]], kind: str, truth: str
) -> None:
    browser, table = report(kind)
    names = [name.removeprefix("p.") for name in table.columns if name.startswith("p.")]
    viewer = browser.find_element(By.CLASS_NAME, "viewer")
    assert not viewer.is_displayed(), "folded away"
    browser.find_element(By.CSS_SELECTOR, "details.interactive summary").click()
    assert viewer.is_displayed()
    wrong = table.filter(pl.col(truth) != pl.col("prediction"))
    assert 0 < wrong.height < table.height
    boxes = {f"{c} {r}h16v16h-16z" for r, c in wrong.select("row", "col").iter_rows()}
    assert set(path(browser, "mark").split("M")[1:]) == boxes
    assert path(browser, "flag").count("z") == wrong.height
    if kind == "stage":
        tinted = [path(browser, f"tint[data-tint='{i}']").count("z") for i in range(3)]
        assert tinted == [table.filter(prediction=i).height for i in range(3)]
        assert path(browser, "cuts") == ""
    stage = browser.find_element(By.CLASS_NAME, "viewer-stage")
    browser.execute_script("arguments[0].scrollIntoView()", stage)
    step = stage.size["width"] / 128
    for node in wrong.head(3).iter_rows(named=True):
        # From the middle of the stage: a node's middle is 8 samples from its corner.
        x, y = (step * (node[k] + 8 - half) for k, half in (("col", 64), ("row", 48)))
        ActionChains(browser).move_to_element_with_offset(stage, round(x), round(y)).perform()
        assert title(browser) == f"16x16 at row {node['row']}, column {node['col']}"
        bars = browser.find_elements(By.CLASS_NAME, "viewer-bar")
        assert [bar.text.split()[0] for bar in bars] == names
        for bar, name in zip(bars, names, strict=True):
            shown = float(bar.text.split()[-1].strip("<%"))
            assert shown == pytest.approx(100 * node[f"p.{name}"], abs=0.8)
        classes = [str(bar.get_attribute("class")) for bar in bars]
        assert ["true" in c for c in classes].index(True) == node[truth]
        assert ["most" in c for c in classes].index(True) == node["prediction"]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not viewer.is_displayed()
    assert browser.find_element(By.ID, "frame").is_displayed()
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []

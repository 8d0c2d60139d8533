"""The page of a sweep in a real browser: it loads whole, and choices change what it shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from av1part.report import write_report

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs a browser: apt install chromium chromium-driver",
)
SEEDS, VARIANTS = range(5), 12


@pytest.fixture(scope="module")
def page(examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 60 runs."""
    folder, jobs = tmp_path_factory.mktemp("sweep") / "exp", []
    world = examples.noise_world()
    for index in range(VARIANTS):
        name = "frozen" if index == 0 else f"variant-{index:02d}"
        for seed in SEEDS:
            place = f"{name}/seed-{seed}"
            skill = 0.4 + 0.15 * ((5 * index) % VARIANTS)
            examples.write_stage_run(folder / place, seed=seed, skill=skill, world=world)
            jobs.append({"folder": place, "variant": name, "member": f"seed-{seed}"})
    record = {"format": 1, "experiment": "exp", "baseline": "frozen", "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(record))
    return write_report([folder], tmp_path_factory.mktemp("report")).html


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,2400"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    try:
        driver.get(page.as_uri())
        WebDriverWait(driver, 60).until(
            lambda d: len(d.find_elements(By.CSS_SELECTOR, "#explorer svg image")) > 0
        )
        yield driver
    finally:
        driver.quit()


def choose(browser: webdriver.Chrome, name: str, value: str) -> None:
    before = browser.find_element(By.CSS_SELECTOR, "#explorer svg").get_attribute("outerHTML")
    Select(browser.find_element(By.NAME, name)).select_by_visible_text(value)
    WebDriverWait(browser, 20).until(
        lambda d: (
            d.find_element(By.CSS_SELECTOR, "#explorer svg").get_attribute("outerHTML") != before
        )
    )


def texts(browser: webdriver.Chrome) -> list[str]:
    found = browser.find_elements(By.CSS_SELECTOR, "#explorer svg .mark-text text")
    return [text.get_attribute("textContent") or "" for text in found]


def variants_down(browser: webdriver.Chrome) -> list[str]:
    """Return the variants of the table from the top to the bottom."""
    found = browser.find_elements(By.CSS_SELECTOR, "#explorer svg .mark-text text")
    rows = [(text.location["y"], text.get_attribute("textContent") or "") for text in found]
    return [name for _, name in sorted(rows) if name.startswith(("variant-", "frozen"))]


def test_it_is_one_file_of_a_few_megabytes(page: Path) -> None:
    assert page.stat().st_size < 10 * 2**20


def test_choices_change_the_comparison(browser: webdriver.Chrome, tmp_path: Path) -> None:
    browser.save_screenshot(str(tmp_path / "first.png"))
    names = variants_down(browser)
    assert len(names) == VARIANTS
    # Sorted by macro-F1, the best first; by trained parameters all are equal, by s.d. they are not.
    choose(browser, "by", "sd")
    resorted = variants_down(browser)
    assert sorted(resorted) == sorted(names)
    assert resorted != names

    differences = [text for text in texts(browser) if text[:1] in "+−" and text[1:2].isdigit()]
    choose(browser, "second", names[-1] if names[-1] != "frozen" else names[-2])
    changed = [text for text in texts(browser) if text[:1] in "+−" and text[1:2].isdigit()]
    assert changed != differences

    blocks = len(browser.find_elements(By.CSS_SELECTOR, "#explorer svg image"))
    choose(browser, "cls", "AB")
    of_class = len(browser.find_elements(By.CSS_SELECTOR, "#explorer svg image"))
    assert 0 < of_class < blocks
    browser.save_screenshot(str(tmp_path / "second.png"))


def test_the_console_is_silent_and_nothing_is_loaded(browser: webdriver.Chrome) -> None:
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []

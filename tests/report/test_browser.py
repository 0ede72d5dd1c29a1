"""The page in a real browser: nothing fails, nothing is fetched, nothing sticks out, axe agrees.

Needs playwright, axe-playwright-python (the extra browser) and a chromium, which is looked for on
the path or named by HVDFILTER_CHROMIUM; skipped without.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvdfilter.report.page import write_page
from tests.report.runs import make_run
from tests.report.test_page import NOTED

pytest.importorskip("vl_convert", reason="the extra report is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="the extra browser is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="as above")
CHROMIUM = os.environ.get("HVDFILTER_CHROMIUM") or shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no chromium: apt-get install chromium", allow_module_level=True)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WIDTHS = (320, 400, 768, 1280, 1600)


@pytest.fixture(scope="module")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run with images, and two policies with three seeds each, names long and odd."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(run, folder / "0-subject")
    rng = np.random.default_rng(0)
    for seed in range(3):
        for policy, hidden in (("loss", [0, 30, 20, 25]), ("full", [0] * 4)):
            make_run(
                folder / f"a-rather-long-name-of-a-run-{policy}-{seed}<&>",
                policy,
                hidden,
                accuracy=float(rng.normal(0, 0.01)),
                extra=NOTED,
                data="synthetic:100,3,40,40,10",
                seed=seed,
            )
    return write_page([folder / "0-subject", folder])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The page as opened from a file, with what it said to the console and asked of the network."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.said, opened.asked = [], []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(report.as_uri())
    figures = opened.locator(".chart").count()
    playwright.expect(opened.locator(".chart svg")).to_have_count(figures, timeout=20_000)
    yield opened
    context.close()


def test_it_draws_every_figure_and_fetches_nothing(page: Any, report: Path) -> None:
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [report.as_uri()]
    # A figure that fails leaves a sentence in its place; a line or a cell is a path.
    for chart in page.locator(".chart").all():
        assert "cannot be drawn" not in chart.inner_text()
        assert chart.locator("svg path").count() > 3
    # What the legend says is what is drawn: the first line of the key, and of the figure.
    key = page.locator("#accuracy .key line").first.evaluate("e => getComputedStyle(e).stroke")
    drawn = page.locator("#figure-accuracy-epoch .mark-line path").first
    assert drawn.evaluate("e => getComputedStyle(e).stroke") == key


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    page.wait_for_timeout(300)  # figures follow the window's width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    charts = page.locator(".chart svg").all()
    assert all(0 < chart.bounding_box()["width"] <= width for chart in charts)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing(page: Any, colours: str) -> None:
    page.emulate_media(color_scheme=colours)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    # Rows and images are alike: a few of each are looked at, or it takes a minute.
    for alike in (".thumbnails li", "tbody tr"):
        page.evaluate(
            f"document.querySelectorAll('{alike}:nth-child(n+5)').forEach(e => e.remove())"
        )
    # Nothing else depends on the colours.
    only = {} if colours == "light" else {"runOnly": ["color-contrast"]}
    found = axe.Axe().run(page, options=only)
    assert found.violations_count == 0, found.generate_report()
    assert page.said == []


def test_the_switch_turns_the_page_and_its_figures(page: Any) -> None:
    def colours() -> list[str]:
        look = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).stroke]"
        back = page.locator("html").evaluate(look)[0]
        return [back, page.locator(".mark-line path").first.evaluate(look)[1]]

    page.emulate_media(color_scheme="light")
    light = colours()
    page.get_by_role("button", name="Dark colours").click()
    dark = colours()
    assert dark[0] == "rgb(20, 22, 26)" and dark[1] != light[1]
    page.emulate_media(color_scheme="light", media="print")
    assert colours() == light
    page.emulate_media(media="screen")
    page.get_by_role("button", name="Light colours").click()
    assert colours() == light


def test_the_keyboard_reaches_the_results_and_copies_the_command(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    button = page.get_by_role("button", name="Copy the command of full")
    button.focus()
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#said")).to_contain_text("Copied")


def test_a_label_is_chosen_and_only_its_images_are_shown(page: Any) -> None:
    images = page.locator("#gallery-hardest li")
    every, choice = images.count(), page.locator("select[data-gallery=hardest]")
    label = images.first.get_attribute("data-label")
    of_label = page.locator(f"#gallery-hardest li[data-label='{label}']").count()
    assert 0 < of_label < every
    choice.select_option(label)
    assert page.locator("#gallery-hardest li:visible").count() == of_label
    choice.select_option(index=0)
    assert page.locator("#gallery-hardest li:visible").count() == every

"""The pages in a browser: headless Chromium without a graphics card, from the disk and without a network."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from reported import HOSTILE, THRESHOLD, data_of, layer_of
from scipy import ndimage

NEEDED = "HYBRIDUAD_TESTS_NEED_CHROMIUM"
"""Set where Chromium must be there, so that these tests fail without it: by .ci/run once it is installed."""
FLAGS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, by $CHROMIUM or on PATH."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not program:
        assert not os.environ.get(NEEDED), "no Chromium, which this machine was set up with"
        pytest.skip("the pages of a report in a browser, for lack of Chromium (on PATH, or named by CHROMIUM)")
    from playwright.sync_api import sync_playwright

    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=program, args=[*FLAGS, *sandbox])
        yield launched
        launched.close()


class Watched:
    """A page, and what it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, *, before: str = "", **options: Any) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        if before:
            self.page.add_init_script(before)
        self.page.goto(path.as_uri())

    def _hear(self, message: Any) -> None:
        # Of the driver, which reads back what the tests take pictures of.
        if message.type in ("error", "warning") and "ReadPixels" not in message.text:
            self.complaints.append(message.text)

    def picture(self) -> np.ndarray:
        """(H, W, 3) in [0, 1]: the canvas."""
        png = self.page.locator("#view").screenshot()
        return np.asarray(image.imread(BytesIO(png), format="png"))[..., :3]

    def slide(self, place: int) -> None:
        """Move the slider of the threshold, and wait for the numbers and the picture."""
        self.page.locator("#threshold").fill(str(place))
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture(scope="module")
def case(browser: Any, report: Path) -> Watched:
    """The page of 01, once its viewer is there."""
    watched = Watched(browser, report / "sub-01.html", viewport={"width": 1000, "height": 1400})
    watched.page.wait_for_selector("html[data-viewer=ready]", state="attached")
    return watched


def coloured(picture: np.ndarray) -> int:
    """Pixels in the colours of the score: red far above blue."""
    return int((picture[..., 0] - picture[..., 2] > 0.2).sum())


def test_the_viewer_draws_brain_and_score(case: Watched) -> None:
    picture = case.picture()
    grey = np.ptp(picture, axis=2) < 0.02
    assert len(np.unique(picture[grey][:, 0])) > 30, "no scan"
    assert coloured(picture) > 50, "no score"
    assert case.page.locator("#no-viewer").is_hidden()
    assert case.page.locator(".mosaic").evaluate("(img) => img.naturalWidth") > 500


def test_volume_and_lesions_follow_the_slider(case: Watched, report: Path) -> None:
    score, affine = layer_of(report / "sub-01.html", "score")
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    highest = data_of(report / "sub-01.html")["highest"]
    pictures, counts = [], []
    for place in (150, 600, 700, 850):
        case.slide(place)
        threshold = highest * (place / 1000) ** 2
        labels, count = ndimage.label(score >= threshold, np.ones((3, 3, 3)))
        assert float(case.page.inner_text("#volume")) == pytest.approx((labels > 0).sum() * voxel_ml, rel=0.01)
        assert int(case.page.inner_text("#count")) == count
        assert float(case.page.inner_text("#cut")) == pytest.approx(threshold, rel=0.01)
        pictures.append(coloured(case.picture()))
        counts.append(count)
    assert pictures[0] > pictures[1] > pictures[3], "the overlay does not follow"
    assert {1, 2} <= {*counts}
    case.page.click("#reset")
    case.slide(int(case.page.input_value("#threshold")))
    case.page.click("#reset")
    assert float(case.page.inner_text("#cut")) == pytest.approx(THRESHOLD, rel=0.01)


def test_overlay_and_background_can_be_chosen(case: Watched) -> None:
    def settled() -> np.ndarray:
        case.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return case.picture()

    with_score = settled()
    case.page.select_option("#overlay", "")
    bare = settled()
    assert coloured(bare) < coloured(with_score) / 10
    case.page.locator("#fade").fill("100")
    faded = settled()
    assert np.abs(faded - bare).mean() > 0.002, "the pseudo-healthy scan looks as the scan"
    case.page.locator("#fade").fill("0")
    case.page.select_option("#overlay", "score")
    assert np.abs(settled() - with_score).mean() < 0.01


def test_the_overlay_is_as_opaque_as_its_control_says(case: Watched) -> None:
    def at(opacity: int) -> np.ndarray:
        case.page.locator("#opacity").fill(str(opacity))
        case.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return case.picture()

    bare, *seen = (at(opacity) for opacity in (0, 30, 70, 100))
    assert coloured(bare) == 0
    assert coloured(seen[-1]) > 50
    departures = [np.abs(picture - bare).mean() for picture in seen]
    assert departures[0] * 1.2 < departures[1] < departures[2], departures
    assert np.abs(at(70) - seen[1]).mean() < 0.01


def test_a_row_moves_the_crosshair_and_keys_do(case: Watched) -> None:
    def place() -> list[float]:
        words = case.page.inner_text("#where")
        return [float(number) for number in words.partition("mm")[0].removeprefix("x, y, z: ").split(",")]

    spots = []
    for row in case.page.locator("#lesions tbody tr").all():
        wanted = [float(row.get_attribute(f"data-{axis}")) for axis in "xyz"]
        row.locator("button").press("Enter")
        spots.append(place())
        np.testing.assert_allclose(spots[-1], wanted, atol=4.1)  # half a voxel of 8 mm
        (score,) = re.findall(r"score ([\d.]+)", case.page.inner_text("#where"))
        assert float(score) >= THRESHOLD, "the crosshair is not in the lesion"
    assert np.linalg.norm(np.subtract(*spots)) > 40
    case.page.focus("#view")
    case.page.keyboard.press("ArrowRight")  # to the middle of a voxel
    before = place()
    for key, way in {"ArrowRight": [5, 0, 0], "PageDown": [0, 0, -8], "ArrowDown": [0, -5, 0]}.items():
        case.page.keyboard.press(key)
        np.testing.assert_allclose(np.subtract(place(), before), way, atol=0.2)
        before = place()


def test_nothing_was_asked_for_and_nothing_complained(case: Watched) -> None:
    assert case.requests
    assert [url[:60] for url in case.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert case.complaints == []


def test_the_policy_holds(case: Watched) -> None:
    """Even a script that got in would not run, and could ask for nothing; after the test above, since it complains."""
    case.page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.injected = 3";
      document.body.append(script);
    }""")
    assert case.page.evaluate("window.injected === undefined")
    asked = "() => fetch('https://example.org/').then(() => 'went out', () => 'stayed')"
    assert case.page.evaluate(asked) == "stayed"
    assert any("Content Security Policy" in complaint for complaint in case.complaints)


def test_markup_in_names_does_nothing(browser: Any, hostile: Path) -> None:
    (path,) = [path for path in hostile.iterdir() if path.name != "index.html"]
    watched = Watched(browser, path)
    watched.page.wait_for_selector("html[data-viewer=ready]", state="attached")
    assert watched.page.inner_text("h1") == HOSTILE
    assert watched.page.evaluate("window.injected === undefined")
    assert watched.page.locator("img:not([src^='data:'])").count() == 0
    watched.page.get_by_role("link", name="All cases").click()
    assert watched.page.locator("#cases tbody th").inner_text() == HOSTILE
    assert watched.page.evaluate("window.injected === undefined")
    assert watched.complaints == []
    watched.page.close()


def test_without_webgl_the_slices_are_there(browser: Any, report: Path) -> None:
    without = """
      const before = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
        return kind === "webgl2" ? null : before.call(this, kind, ...more);
      };"""
    watched = Watched(browser, report / "sub-02.html", before=without)
    assert watched.page.locator("#no-viewer").is_visible()
    assert watched.page.locator("#viewer").is_hidden()
    assert watched.page.locator(".mosaic").is_visible()
    assert watched.complaints == []
    watched.page.close()


def test_the_group_page_sorts_filters_and_keeps_ratings(browser: Any, report: Path) -> None:
    watched = Watched(browser, report / "index.html")
    page = watched.page

    def listed() -> list[str]:
        return page.locator("#cases tbody tr:visible th").all_inner_texts()

    assert listed() == ["sub-01", "sub-02", "sub-03"]
    page.get_by_role("button", name="case", exact=True).click()
    assert listed() == ["sub-03", "sub-02", "sub-01"]
    page.get_by_role("button", name="volume (ml)").click()
    volumes = [float(text) for text in page.locator("#cases td[data-title='volume (ml)']").all_inner_texts()]
    assert volumes == sorted(volumes, reverse=True)
    page.get_by_role("button", name="volume (ml)").click()
    assert page.locator("#cases [aria-sort=ascending]").inner_text() == "volume (ml)"
    page.get_by_label("Rating of sub-02").select_option("doubtful")
    page.get_by_label("Note on sub-02").fill("moved\tor <b>not</b>?")
    page.reload()
    assert page.get_by_label("Rating of sub-02").input_value() == "doubtful"
    page.get_by_label("Filter").fill("doubt")
    assert listed() == ["sub-02"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Export ratings").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines == ["case\trating\tnote", "sub-01\t\t", "sub-02\tdoubtful\tmoved or <b>not</b>?", "sub-03\t\t"]
    assert {url.partition(":")[0] for url in watched.requests} <= {"file", "data", "blob"}
    assert watched.complaints == []
    page.close()


LUMINANCE = """(name) => {
  const parts = getComputedStyle(document.body)[name].match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
  const linear = parts.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}"""
"""Relative luminance of a colour of the page, as WCAG 2 defines it."""


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_desk_and_phone_in_dark_and_light_and_every_control_has_a_name(
    width: int, browser: Any, report: Path
) -> None:
    nameless = """() => [...document.querySelectorAll("input, select, button, canvas")].filter((control) =>
      !(control.labels?.length || control.getAttribute("aria-label") || control.textContent.trim())).length"""
    grounds = {}
    for scheme in ("light", "dark"):
        watched = Watched(browser, report / "index.html", viewport={"width": width, "height": 844}, color_scheme=scheme)
        page = watched.page
        for name in ("index", "sub-01"):
            page.goto((report / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(nameless) == 0
            ground, ink = page.evaluate(LUMINANCE, "backgroundColor"), page.evaluate(LUMINANCE, "color")
            assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 7
        grounds[scheme] = ground
        page.wait_for_selector("html[data-viewer=ready]", state="attached")
        view, controls = page.locator("#view").bounding_box(), page.locator("#controls").bounding_box()
        assert 0 <= view["x"] < view["x"] + view["width"] <= width
        assert view["width"] > (600 if width == 1280 else 300)
        beside = controls["x"] >= view["x"] + view["width"] and controls["y"] < view["y"] + view["height"]
        below = controls["y"] >= view["y"] + view["height"]
        assert beside or below, "the controls lie on the viewer"
        assert coloured(watched.picture()) > 50
        assert watched.complaints == []
        page.close()
    assert grounds["dark"] < 0.1 < 0.8 < grounds["light"]

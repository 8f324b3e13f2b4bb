"""The page in a real browser, from the file system as a user opens it."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import wfvae
from tests.cli.reports import scenery
from tests.media.conftest import write_clip
from tests.models.tiny import write_checkpoint
from tests.parity.cases import case_config, case_weights
from tests.report.clips import HOSTILE, RUN, feed, levels, noisy, two_models
from tests.stats.conftest import Make, make_report
from wfvae_cli.report.report import Report, ReportModel

__all__ = ["make_report"]  # a fixture

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A tab of headless Chromium, which takes a second to open: see `opened`."""
    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(_BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser.new_page()
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page in a folder whose name is no easy address."""
    return two_models(tmp_path_factory.mktemp("page") / "my report #1 100%")


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Any]:
    """The report; afterwards nothing was wrong in it, and nothing but files was asked for."""
    with opened(browser, folder) as page:
        yield page


@contextmanager
def opened(browser: Any, folder: Path, width: int = 1280, scheme: str = "light") -> Iterator[Any]:
    """A report as it is opened for the first time, in a window of that width."""
    browser.set_default_timeout(15_000)
    browser.set_viewport_size({"width": width, "height": 720})
    browser.emulate_media(color_scheme=scheme)
    browser.goto("about:blank")
    problems: list[str] = []
    addresses: list[str] = []
    watches: dict[str, Callable[[Any], object]] = {
        "pageerror": lambda error: problems.append(str(error)),
        "requestfailed": lambda request: problems.append(f"{request.url} {request.failure}"),
        "dialog": lambda dialog: problems.append("a dialog"),
        "console": lambda message: problems.extend([message.text] * (message.type == "error")),
        "request": lambda request: addresses.append(request.url),
    }
    for event, watch in watches.items():
        browser.on(event, watch)
    browser.goto((folder / "index.html").as_uri())
    yield browser
    for event, watch in watches.items():
        browser.remove_listener(event, watch)
    aborted = "net::ERR_ABORTED"  # of media that were still loading when they were replaced
    assert [problem for problem in problems if aborted not in problem] == []
    root = folder.as_uri()
    assert addresses and all(address.startswith((root, "data:")) for address in addresses)


def names(page: Any) -> list[str]:
    texts: list[str] = page.locator("table.files tbody tr th").all_inner_texts()
    return [text.strip() for text in texts]


def open_clip(page: Any, name: str) -> None:
    page.get_by_role("link", name=name).first.click()
    page.wait_for_selector(".viewer .stage .layer")


def frame_of(page: Any) -> int:
    return int(page.locator(".status").get_attribute("data-frame"))


def wait_for_seek(page: Any) -> None:
    page.wait_for_function(
        "() => [...document.querySelectorAll('.layer video')]"
        ".every(v => v.readyState >= 2 && !v.seeking)"
    )


def test_the_table_sorts_and_filters(page: Any) -> None:
    by_psnr = names(page)
    assert by_psnr[:3] == [HOSTILE, "sub/a.mp4", "b.mp4"]  # most noise first
    assert by_psnr[-1] == "bad <i>.mp4"  # which has no figure
    page.get_by_role("button", name="file", exact=True).click()
    ascending = names(page)
    assert ascending == [HOSTILE, "b.mp4", "bad <i>.mp4", "still.png", "sub/a.mp4"]
    page.get_by_role("button", name="file", exact=True).click()
    assert names(page) == ascending[::-1]
    header = page.locator("table.files thead th[aria-sort]")
    assert header.get_attribute("aria-sort") == "descending"
    page.get_by_label("search files").fill("A.MP4")
    assert names(page) == ["sub/a.mp4"]
    assert page.get_by_role("status").inner_text() == "1 of 5 files"


def test_models_are_ranked(page: Any) -> None:
    rows = page.locator("table.ranking tbody tr")
    assert rows.nth(0).locator("th").inner_text() == "wan <2.1>"
    page.locator("table.ranking").get_by_role("button", name="rFID").click()
    assert rows.nth(0).locator("th").inner_text() == "tiny"  # the lower FID is the better one
    assert "2.500" in rows.nth(0).locator("td.best").all_inner_texts()
    assert "2.500" not in rows.nth(1).locator("td.best").all_inner_texts()


def test_names_are_never_markup(page: Any) -> None:
    assert HOSTILE in names(page)
    page.locator("summary").first.click()
    open_clip(page, HOSTILE)
    assert page.locator(".clip-nav h2").inner_text() == HOSTILE
    assert page.title() == "A <b>title</b>"
    assert page.evaluate("window.hit") is None
    assert page.locator("img[src=x], main b b, main i, .clip-nav img").count() == 0


def test_arrow_keys_step_through_the_frames(page: Any) -> None:
    open_clip(page, "b.mp4")
    for pressed, frame in (
        ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("Shift+ArrowRight", 11),
        ("ArrowRight", 11), ("Home", 0), ("ArrowLeft", 0), ("End", 11),
    ):  # fmt: skip
        page.keyboard.press(pressed)
        assert frame_of(page) == frame
    wait_for_seek(page)
    times = page.eval_on_selector_all(".layer video", "videos => videos.map(v => v.currentTime)")
    assert times == pytest.approx([11.5 / 12] * 2, abs=1e-3)


def test_the_slider_moves(page: Any) -> None:
    open_clip(page, "b.mp4")
    stage = page.locator(".stage")
    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    page.mouse.up()
    handle = page.get_by_role("slider", name="divider")
    assert int(handle.get_attribute("aria-valuenow")) == pytest.approx(25, abs=1)
    clip = page.locator(".layer.left").evaluate("e => getComputedStyle(e).clipPath")
    assert "75" in clip
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert int(handle.get_attribute("aria-valuenow")) == pytest.approx(27, abs=1)
    assert frame_of(page) == 0  # the arrow moved the divider only
    page.mouse.move(box["x"], box["y"])  # no button: nothing moves
    assert int(handle.get_attribute("aria-valuenow")) == pytest.approx(27, abs=1)


def test_a_click_on_a_curve_seeks(page: Any) -> None:
    open_clip(page, "sub/a.mp4")
    canvas = page.locator('[data-metric="psnr"] canvas')
    box = canvas.bounding_box()
    inner = box["width"] - 46 - 10
    canvas.click(position={"x": 46 + inner * 7 / 11, "y": 50})
    assert frame_of(page) == 7
    wait_for_seek(page)
    time = page.eval_on_selector(".layer.left video", "video => video.currentTime")
    assert time == pytest.approx(7.5 / 12, abs=1e-3)
    drawn = canvas.evaluate(
        "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let n = 0; for (let k = 3; k < d.length; k += 4) n += d[k] > 0; return n; }"
    )
    assert drawn > 500
    worst = page.locator(".worst .card").first
    page.keyboard.press("Home")
    worst.click()
    assert frame_of(page) == 7
    sizes = worst.locator("img").evaluate_all("images => images.map(i => i.naturalWidth)")
    assert sizes == [48, 48, 48]


def test_the_error_replaces_the_right_side(page: Any) -> None:
    open_clip(page, "b.mp4")
    assert page.locator(".layer.right .label").inner_text() == "wan <2.1>"
    assert not page.locator(".scale").is_visible()
    page.keyboard.press("e")
    assert page.locator(".layer.right .label").inner_text() == "luminance error, wan <2.1>"
    assert page.locator(".layer.right video").get_attribute("src").endswith("/m0-error.mp4")
    assert "32+" in page.locator(".scale").inner_text()
    page.get_by_label("right side").select_option(label="tiny")
    assert page.locator(".layer.right video").get_attribute("src").endswith("/m1-error.mp4")
    page.get_by_role("button", name="Error", exact=True).click()
    page.get_by_label("left side").select_option(label="wan <2.1>")
    assert page.locator(".layer .label").all_inner_texts() == ["wan <2.1>", "tiny"]


def test_side_by_side_and_flip(page: Any) -> None:
    open_clip(page, "b.mp4")
    page.get_by_role("button", name="Side by side").click()
    left, right = (page.locator(f".layer.{side}").bounding_box() for side in ("left", "right"))
    assert right["x"] >= left["x"] + left["width"]
    page.keyboard.press("f")
    shown = [page.locator(f".layer.{side}").is_visible() for side in ("left", "right")]
    page.keyboard.press("f")
    assert shown != [page.locator(f".layer.{s}").is_visible() for s in ("left", "right")]
    assert shown.count(True) == 1


def test_both_sides_play_in_step_to_the_end(page: Any) -> None:
    open_clip(page, "b.mp4")
    wait_for_seek(page)
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('.status')?.dataset.frame === '11'")
    page.wait_for_function("() => document.querySelector('.play')?.textContent === 'Play'")
    wait_for_seek(page)
    times = page.eval_on_selector_all(".layer video", "videos => videos.map(v => v.currentTime)")
    assert times[0] == pytest.approx(times[1], abs=1e-3)


def test_still_pictures_have_no_transport(page: Any) -> None:
    open_clip(page, "still.png")
    assert page.locator(".layer img").count() == 2
    assert page.locator(".transport, .curves").count() == 0
    assert page.locator(".status").inner_text().startswith("still image")


def test_media_wait_until_they_are_asked_for(browser: Any, folder: Path) -> None:
    with opened(browser, folder) as page:
        assert page.locator("video").count() == 0
        loaded = page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
        assert not [name for name in loaded if name.endswith((".mp4", "clip.js"))]
        open_clip(page, "b.mp4")
        page.keyboard.press("ArrowRight")
        page.get_by_role("link", name="All files").click()
        assert page.locator("video").count() == 0
        page.go_back()
        page.wait_for_selector(".viewer")
        page.get_by_role("link", name="Next").click()
        page.wait_for_function(
            "() => document.querySelector('.clip-nav h2')?.textContent === 'still.png'"
        )


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_no_layout_overflows(browser: Any, folder: Path, width: int, scheme: str) -> None:
    with opened(browser, folder, width, scheme) as page:
        wide = "document.documentElement.scrollWidth"
        assert page.evaluate(wide) <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, background.strip("rgb()").split(",")))
        assert (brightness > 600) == (scheme == "light")
        page.get_by_role("button", name="Light / dark").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != background
        open_clip(page, HOSTILE)
        for pressed in ("s", "s", "e"):
            page.keyboard.press(pressed)
            assert page.evaluate(wide) <= width
        page.get_by_label("zoom").select_option("4")
        assert page.evaluate(wide) <= width


def test_the_frame_that_is_asked_for_is_the_one_that_is_shown(browser: Any, folder: Path) -> None:
    # From a server, since a page of the file system may not look at its own videos' pixels; and
    # from Python's, which sends whole files only, not the parts that seeking would ask for.
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = browser
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        open_clip(page, "b.mp4")
        page.wait_for_function(
            "() => [...document.querySelectorAll('video')].every(v => v.readyState === 4)"
        )
        for frame in (5, 6, 0, 11, 10, 3):
            page.locator(".scrubber").fill(str(frame))
            wait_for_seek(page)
            level = page.eval_on_selector(
                ".layer.left video",
                "v => { const c = document.createElement('canvas'); const x = c.getContext('2d');"
                " x.drawImage(v, 0, 0, 1, 1); return x.getImageData(0, 0, 1, 1).data[1]; }",
            )
            assert level == pytest.approx(40 + 8 * frame, abs=3)
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_a_roundtrip_of_two_models(browser: Any, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "mini-wan", case_weights("mini-wan"), case_config("mini-wan"))
    (tmp_path / "in").mkdir()
    for name, seed in (("a.mp4", 1), (HOSTILE, 2)):
        write_clip(tmp_path / "clip.mp4", scenery(seed, 10, 64, 48)).rename(tmp_path / "in" / name)
    answer = wfvae(
        "roundtrip", tmp_path / "in", "-m", "wfvae-tiny", "-m", tmp_path / "mini-wan",
        "--chunk", "5", "--html", tmp_path / "page", "-q",
    )  # fmt: skip
    assert answer.code == 0, answer
    with opened(browser, tmp_path / "page") as page:
        ranked = page.locator("table.ranking tbody tr th").all_inner_texts()
        assert [name.strip() for name in ranked] == ["wfvae-tiny", "mini-wan"]  # random weights
        assert sorted(names(page)) == sorted(["a.mp4", HOSTILE])
        assert page.locator(".latents tbody tr").count() == 16 + 4
        open_clip(page, "a.mp4")
        page.get_by_label("right side").select_option(label="mini-wan")
        page.keyboard.press("End")
        assert frame_of(page) == 9
        wait_for_seek(page)
        shown = page.locator("main.clip-page").inner_text()
        assert "frames/s" in shown and "latents" in shown


def test_one_file_of_one_model_opens_at_once(
    browser: Any, tmp_path: Path, make_report: Make
) -> None:
    models = [ReportModel("only", latents=make_report())]
    with Report(tmp_path / "r", models, RUN) as report:
        feed(report, "one.mp4", 0, (levels(3), noisy(levels(3), 4)))
    with opened(browser, tmp_path / "r") as page:
        page.wait_for_selector(".viewer .stage .layer")
        assert page.locator("table.files").count() == 0
        assert page.locator(".latents tbody tr").count() == 4
        assert page.locator(".correlation rect").count() == 12  # without the diagonal
        page.get_by_text("Scale factors in every convention").click()
        assert "scaling_factor" in page.locator(".latents pre").inner_text()
        assert page.locator(".level").count() == 3
        made = page.locator(".provenance").inner_text()
        assert "wfvae compare 'a b' c" in made and "re-encoded with loss" in made

"""The page in a real browser: drop, progress, slider, download, keyboard only, a phone's size."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import save_weights
from srgan_cli.serving.server import HttpServer
from srgan_cli.serving.settings import ServeOptions
from tests.browsers import launched, page_at
from tests.networks.test_noise import noisy
from tests.serving.conftest import Gate
from tests.serving.servers import gauge, png, post, running, until

pytestmark = pytest.mark.slow  # the browser alone takes as long as all other tests of `serving`
EXAMPLES = Path(__file__).parents[2] / "examples"
_DROP = """async ([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const about = { dataTransfer: transfer, bubbles: true, cancelable: true };
  for (const type of ["dragenter", "dragover", "drop"])
    document.getElementById("drop").dispatchEvent(new DragEvent(type, about));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


@pytest.fixture
def page(browser: Any, server: HttpServer) -> Iterator[Any]:
    yield from page_at(browser, server.address)


def drop(page: Any, name: str, data: bytes) -> None:
    import base64

    page.evaluate(_DROP, [name, base64.b64encode(data).decode()])


def opened(path: Path) -> Pillow.Image:
    return Pillow.open(io.BytesIO(path.read_bytes()))


def done(page: Any, count: int = 1) -> None:
    page.wait_for_selector(f"li.done >> nth={count - 1}")


def test_drop_watch_and_download(page: Any, server: HttpServer, gate: Gate) -> None:
    drop(page, "käse.png", png(40, 30))
    page.wait_for_selector("li.running progress")
    page.wait_for_selector("text=Enlarging, 50 %")
    assert page.locator("li progress").evaluate("bar => bar.value") == 0.5
    gate.opened.set()
    done(page)
    assert "160 × 120 px" in page.inner_text("li .state")
    with page.expect_download() as download:
        page.click("li .download")
    assert download.value.suggested_filename == "käse_x4.png"
    assert opened(download.value.path()).size == (160, 120)
    page.click("li .remove")
    page.wait_for_selector("li", state="detached")
    until(lambda: gauge(server, "srgan_jobs") == 0)


def test_options_reach_the_server(page: Any) -> None:
    page.select_option("[name=size]", "long_side=1920")
    page.select_option("[name=format]", "webp")
    assert page.locator("#quality").is_visible()
    drop(page, "a.png", png(200, 150))
    done(page)
    with page.expect_download() as download:
        page.click("li .download")
    picture = opened(download.value.path())
    assert (picture.format, picture.size) == ("WEBP", (1920, 1440))


def test_grain_and_noise_are_offered_where_they_mean_something(
    browser: Any, options: ServeOptions, tmp_path: Path
) -> None:
    save_weights(tmp_path / "noisy.safetensors", noisy(), Card("noisy", "noisy"))
    with running(replace(options, model=str(tmp_path / "noisy.safetensors"))) as drawing:
        pages = page_at(browser, drawing.address)
        page = next(pages)
        shown = {name: page.locator(f"#{name}") for name in ("variation", "strength", "seed")}
        assert [one.is_visible() for one in shown.values()] == [True, False, True]
        page.select_option("[name=model]", "fast")
        assert [one.is_visible() for one in shown.values()] == [False, False, False]
        page.select_option("[name=grain]", "strength")
        assert [one.is_visible() for one in shown.values()] == [False, True, True]
        page.select_option("[name=model]", str(tmp_path / "noisy.safetensors"))
        page.fill("[name=seed]", "7")
        page.locator("[name=variation]").fill("0.3")
        page.locator("[name=strength]").fill("0.8")
        page.select_option("[name=format]", "png")
        page.select_option("[name=size]", "scale=2")
        with page.expect_request("**/v1/jobs?*") as request:
            drop(page, "a.png", png(30, 20))
        for word in ("grain=0.8", "seed=7", "variation=0.3"):
            assert word in request.value.url
        done(page)
        with page.expect_download() as download:
            page.click("li .download")
        made = download.value.path().read_bytes()
        assert made == post(drawing, "/v1/upscale?scale=2&format=png&grain=0.8&seed=7&variation=0.3", png(30, 20)).body
        assert page.locator("li .again").is_hidden()
        page.fill("[name=seed]", "8")
        with page.expect_request("**/v1/jobs?*") as request:
            page.click("li .again >> text=Make again")
        assert "seed=8" in request.value.url
        done(page)
        with page.expect_download() as download:
            page.click("li .download")
        assert download.value.path().read_bytes() != made
        assert page.locator("li .again").is_hidden()
        page.select_option("[name=grain]", "auto")
        with page.expect_request("**/v1/jobs?*") as request:
            drop(page, "b.png", png(30, 20))
        assert "grain=auto" in request.value.url
        done(page, 2)
        next(pages, None)


def test_before_and_after_under_the_slider(page: Any) -> None:
    page.set_input_files("#files", [EXAMPLES / "cat.jpg"])
    done(page)
    page.click("li .compare")
    stage = page.frame_locator("#viewer iframe").locator("#stage")
    stage.locator("#divider").wait_for()
    before = stage.screenshot()
    box = stage.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, middle[1])
    page.mouse.up()
    until(lambda: float(stage.get_attribute("data-split") or 0) > 0.85)
    assert stage.screenshot() != before
    frame = page.frame_locator("#viewer iframe")
    frame.locator("#help").click()
    frame.locator("#about button").click()
    frame.locator("#about").wait_for(state="hidden")
    page.click("#viewer .close")
    assert page.locator("#viewer").is_hidden()
    assert page.evaluate("document.activeElement.className") == "compare"


def test_all_as_a_zip(page: Any) -> None:
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": png(20 + i, 20)}
                                    for i, name in enumerate(("a.png", "b.png", "a.png"))])  # fmt: skip
    done(page, 3)
    with page.expect_download() as download:
        page.click("#zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        sizes = {name: Pillow.open(io.BytesIO(archive.read(name))).size for name in archive.namelist()}
    assert sizes == {"a_x4.png": (80, 80), "b_x4.png": (84, 80), "a_x4 (2).png": (88, 80)}


def test_what_fails_says_why_and_can_be_tried_again(page: Any) -> None:
    page.select_option("[name=size]", "print=a3")
    page.set_input_files("#files", [{"name": "<b>x.png", "mimeType": "image/png", "buffer": b"no picture"}])
    page.wait_for_selector("li.failed")
    assert "not a picture" in page.inner_text("li .state")
    assert page.inner_text("li h2") == "<b>x.png"
    page.click("li .again")
    page.wait_for_selector("li.failed")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals of POSIX")
@pytest.mark.parametrize("number", ["SIGKILL", "SIGSTOP"])
def test_a_server_that_has_died_is_told(browser: Any, options: ServeOptions, number: str) -> None:
    """Its connections break, or (a frozen machine, a cut cable) nothing is heard of it any more."""
    command = [sys.executable, "-m", "srgan_cli", "serve", "--port", "0", "-m", options.model, "--device", "cpu",
               "--tile", "16"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            pages = page_at(browser, process.stdout.readline().strip())
            page = next(pages)
            page.clock.install()
            drop(page, "a.png", png(2000, 2000))
            page.wait_for_selector("li.running")
            process.send_signal(getattr(signal, number))
            page.wait_for_timeout(500)
            if number == "SIGSTOP":
                page.clock.run_for(25_000)
            page.wait_for_selector("text=The server does not answer; trying again…")
            page.clock.run_for(60_000)
            page.wait_for_selector("li.failed >> text=The server cannot be reached.")
            assert page.locator("li .again").is_visible()
            next(pages, None)
        finally:
            process.kill()


def test_removing_one_ends_the_work(page: Any, server: HttpServer, gate: Gate) -> None:
    drop(page, "a.png", png())
    page.wait_for_selector("li.running")
    page.click("li .remove")
    until(lambda: [type(err).__name__ for err in gate.ended] == ["CancelledError"])
    until(lambda: gauge(server, "srgan_held_bytes") == 0)


def test_leaving_the_page_ends_the_work(browser: Any, server: HttpServer, gate: Gate) -> None:
    pages = page_at(browser, server.address)
    page = next(pages)
    drop(page, "a.png", png())
    page.wait_for_selector("li.running")
    page.goto("about:blank")
    until(lambda: gauge(server, "srgan_jobs") == 0)
    next(pages, None)


def test_the_keyboard_alone(page: Any) -> None:
    def focused() -> str:
        return str(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.name"
            )
        )

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if focused() == name:
                return
        raise AssertionError(f"{name} cannot be reached")

    choosers: list[Any] = []
    page.on(
        "filechooser", lambda chooser: choosers.append(chooser)
    )  # set early, so that the browser reports file choosers to the test instead of opening them
    tab_to("model")
    tab_to("size")
    page.keyboard.press("Home")
    tab_to("choose")
    page.keyboard.press("Enter")
    for _ in range(1000):
        if choosers:
            break
        page.wait_for_timeout(50)
    choosers[0].set_files(EXAMPLES / "coffee.png")
    done(page)
    assert "600 × 400 px" in page.inner_text("li .state")
    tab_to("compare")
    page.keyboard.press("Enter")
    stage = page.frame_locator("#viewer iframe").locator("#stage")
    stage.locator("#divider").wait_for()
    page.wait_for_selector("#viewer .wait", state="hidden")
    stage.evaluate("stage => stage.focus()")
    page.keyboard.press("Shift+ArrowLeft")
    until(lambda: float(stage.get_attribute("data-split") or 1) < 0.5)
    page.locator("#viewer .close").focus()
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()
    tab_to("download button")
    page.locator("li .remove").focus()
    page.keyboard.press("Enter")
    assert focused() == "choose"


def test_a_phone(browser: Any, server: HttpServer) -> None:
    pages = page_at(browser, server.address, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True,
                  color_scheme="dark")  # fmt: skip
    page = next(pages)
    page.set_input_files("#files", [EXAMPLES / "cat.jpg"])
    done(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in page.locator("button:visible, .button:visible").all():
        box = button.bounding_box()
        assert box["height"] >= 40
        assert box["x"] + box["width"] <= 360
    page.tap("li .compare")
    divider = page.frame_locator("#viewer iframe").locator("#divider")
    divider.wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 20)"
    next(pages, None)


def test_the_token_is_asked_for(browser: Any, options: ServeOptions) -> None:
    with running(replace(options, token="a-token-of-the-tests")) as locked:
        pages = page_at(browser, locked.address)
        page = next(pages)
        page.fill("[name=token]", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#wrong")
        page.fill("[name=token]", "a-token-of-the-tests")
        page.keyboard.press("Enter")
        page.wait_for_selector("#choose")
        page.wait_for_load_state()
        drop(page, "a.png", png())
        done(page)
        page.click("li .compare")
        page.frame_locator("#viewer iframe").locator("#divider").wait_for()
        next(pages, None)

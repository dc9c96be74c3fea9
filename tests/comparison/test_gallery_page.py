"""The gallery in a real browser: the keyboard, a finger on the slider, and a picture that is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.cli import main
from tests.browsers import launched, page_at
from tests.comparison.test_gallery import enlarged, save, texture

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("here")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


def gallery() -> str:
    """Its address. The pictures are called a and b."""
    for number, name in enumerate("ab"):
        save(f"in/{name}.png", texture(60, 40, number))
        save(f"out/{name}.png", enlarged(texture(60, 40, number), 30.0 - number))
    assert main(["compare", "in", "out", "-o", "all.html"]) == 0
    return Path("all.html").absolute().as_uri()


def caption(page: Any) -> str:
    return str(page.inner_text("output"))


def test_arrows_go_to_the_next_picture(browser: Any) -> None:
    pages = page_at(browser, gallery())
    page = next(pages)
    page.locator("main a").first.press("Enter")
    page.wait_for_selector("dialog[open]")
    first = caption(page)
    page.keyboard.press("ArrowRight")
    assert caption(page) != first
    page.locator("input").focus()
    page.keyboard.press("ArrowRight")
    assert page.input_value("input") == "501"
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()
    next(pages, None)


def test_a_finger_moves_the_slider(browser: Any) -> None:
    pages = page_at(browser, gallery(), viewport={"width": 390, "height": 700}, has_touch=True, is_mobile=True)
    page = next(pages)
    page.locator("main a").first.tap()
    page.wait_for_selector("dialog[open]")
    box = page.locator("#before").bounding_box()
    assert (box["x"], box["width"]) == (0, 390)
    for tool in page.locator("dialog p > *").all():
        place = tool.bounding_box()
        assert place["x"] + place["width"] <= 390
    finger = page.context.new_cdp_session(page)
    for at in (30, *range(40, 310, 30), None):
        kind = "touchEnd" if at is None else "touchStart" if at == 30 else "touchMove"
        points = [] if at is None else [{"x": at, "y": box["y"] + box["height"] / 2}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("document.querySelector('input').value === '718'")  # 280 of 390 px
    next(pages, None)


@pytest.mark.skipif(os.name != "posix", reason="needs names that are not UTF-8")
def test_a_picture_that_is_gone_is_named(browser: Any) -> None:
    address = gallery()
    name = os.fsdecode(b"\xe9.png")
    for folder in ("in", "out"):
        Path(folder, "a.png").rename(Path(folder, name))
    assert main(["compare", "in", "out", "-o", "all.html", "--overwrite"]) == 0
    Path("out", name).unlink()
    Path("out/b.png").unlink()
    pages = page_at(browser, address)
    page = next(pages)
    said = []
    for link in page.locator("main a").all():
        link.click()
        page.wait_for_function("document.querySelector('output').textContent.endsWith('no longer exists')")
        said.append(Path(caption(page).removesuffix(" no longer exists")).name)
        page.click("#close")
    assert sorted(said) == ["%E9.png", "b.png"]
    next(pages, None)

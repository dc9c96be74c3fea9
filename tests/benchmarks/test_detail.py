"""The drawn curve contains every point inside its frame, and marks the default."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from benchmarks import detail
from benchmarks.detail import Point
from srgan_cli.config import DEFAULT_DETAIL

SVG = "{http://www.w3.org/2000/svg}"


def curve(count: int = 11) -> list[Point]:
    fractions = [i / (count - 1) for i in range(count)]
    return [Point(t, 28.3 - 1.3 * t * t, 0.51 - 0.1 * t) for t in fractions]


def test_every_point_lies_inside_the_frame_and_one_is_the_default() -> None:
    page = ElementTree.fromstring(detail.drawn(curve(), "×4"))
    circles = page.findall(f"{SVG}circle")
    assert len(circles) == 11
    for circle in circles:
        assert detail._LEFT <= float(circle.attrib["cx"]) <= detail._WIDTH - detail._RIGHT
        assert detail._TOP <= float(circle.attrib["cy"]) <= detail._HEIGHT - detail._BOTTOM
    assert len({circle.attrib["fill"] for circle in circles}) == 2
    assert f"{DEFAULT_DETAIL:.1f}, the default" in [text.text for text in page.iter(f"{SVG}text")]


def test_truer_is_right_and_nearer_is_up() -> None:
    places = re.search(r'points="([^"]+)"', detail.drawn(curve(), "×4"))
    assert places is not None
    first, *_, last = [tuple(map(float, place.split(","))) for place in places[1].split()]
    assert first[0] > last[0], "fidelity has more PSNR"
    assert first[1] > last[1], "srgan is nearer in looks"


def test_ticks_hold_all_values() -> None:
    for low, high in ((26.51, 28.33), (0.412, 0.507), (1.0, 2.0), (3.0, 3.001)):
        step, ticks = detail._ticks([low, high])
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 2 <= len(ticks) <= 9
        assert float(detail._number(ticks[0], step)) == ticks[0]

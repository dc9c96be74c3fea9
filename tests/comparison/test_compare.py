"""Comparing pictures: matched by scale, examined where they differ, drawn on a sheet, embedded in a page."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms, ImageFilter

from srgan_cli.comparison import compare as comparing
from srgan_cli.comparison import viewer
from srgan_cli.comparison.compare import CompareOptions
from srgan_cli.comparison.places import Spot, difference, most_different
from srgan_cli.comparison.scenes import Area, Enlarged, Scene, Still, labels_of, read_shown, together
from srgan_cli.comparison.sheet import draw_sheet, row_of
from srgan_cli.comparison.viewer import Exhibit, build_page
from srgan_cli.config import EngineOptions
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import SettingsError
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels
from tests.faults import tiny_model


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng([seed, height, width]).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> Pixels:
    """A slope in each colour."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 200 // width, y * 200 // height, (x + y) * 100 // (width + height)], -1).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------ coming together


def test_pictures_of_one_size_are_cut_as_they_are() -> None:
    a, b = noise(40, 60), noise(40, 60, 1)
    scene = together([("a", a), ("b", b)])
    box = Area(7, 5, 20, 16)
    assert (scene.width, scene.height) == (60, 40)
    assert [view.about for view in scene.views] == ["60×40 px"] * 2
    np.testing.assert_array_equal(scene.views[1].crop(box), b[5:21, 7:27])


@pytest.mark.parametrize(
    "box", [Area(0, 0, 240, 160), Area(0, 0, 40, 24), Area(33, 41, 50, 30), Area(190, 130, 50, 30)]
)
def test_a_smaller_picture_is_enlarged_as_a_whole_would_be(box: Area) -> None:
    low, high = noise(40, 60), noise(160, 240)
    smaller = together([("low", low), ("high", high)]).views[0]
    whole = np.asarray(Pillow.fromarray(low).resize((240, 160), Pillow.Resampling.BICUBIC))
    found = smaller.crop(box).astype(int)
    np.testing.assert_allclose(found, whole[box.top : box.bottom, box.left : box.right], atol=1)
    assert smaller.about == "60×40 px, ×4 bicubic"


def test_bicubic_is_that_of_the_field_away_from_the_borders() -> None:
    low = noise(30, 30) // 2 + 64  # where nothing is clipped on the way, as the axes take their turns differently
    found = together([("low", low), ("high", noise(120, 120))]).views[0].crop(Area(20, 20, 80, 80))
    np.testing.assert_allclose(found.astype(int), bicubic(low, 120, 120)[20:100, 20:100], atol=1)


def test_nearest_shows_the_pixels() -> None:
    low = noise(10, 12)
    scene = together([("low", low), ("high", noise(30, 36))], enlarging="nearest")
    np.testing.assert_array_equal(scene.views[0].crop(scene.whole), low.repeat(3, 0).repeat(3, 1))


@given(st.integers(20, 60), st.integers(20, 60), st.sampled_from([2, 3, 4, 8]), st.data())
def test_what_was_cropped_before_it_was_made_small_is_cropped_again(
    width: int, height: int, scale: int, data: st.DataObject
) -> None:
    """A low picture, what it was enlarged to, and the original, which has up to scale - 1 px more."""
    more = [data.draw(st.integers(0, scale - 1)) for _ in range(2)]
    low = np.zeros((height, width, 3), np.uint8)
    result = np.zeros((height * scale, width * scale, 3), np.uint8)
    high = np.zeros((height * scale + more[0], width * scale + more[1], 3), np.uint8)
    scene = together([("low", low), ("result", result), ("high", high)])
    assert (scene.width, scene.height) == (width * scale, height * scale)
    scales = [(view.across, view.down) for view in scene.views if isinstance(view, Still)]
    assert scales == [(scale, scale), (1, 1), (1, 1)]


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("cropped", [True, False])
def test_pictures_tell_whether_what_does_not_divide_was_cropped_or_made_small_too(scale: int, cropped: bool) -> None:
    """Else places on the right would be a px or two aside."""
    high = np.asarray(Pillow.fromarray(noise(16, 21)).resize((211, 163), Pillow.Resampling.BICUBIC))
    width, height = (length // scale - 2 * (scale == 1) for length in (211, 163))
    box = (0, 0, width * scale, height * scale) if cropped else (0, 0, 211, 163)
    low = np.asarray(Pillow.fromarray(high).resize((width, height), Pillow.Resampling.LANCZOS, box))
    scene = together([("high", high), ("low", low)])
    assert (scene.width, scene.height) == box[2:]
    far = Area(scene.width - 40, scene.height - 40, 36, 36)
    found, wanted = (view.crop(far).astype(float) for view in scene.views)
    assert np.abs(found - wanted).mean() < 2  # levels; a px aside it is above 10


@given(st.integers(40, 300), st.integers(40, 300), st.floats(1.3, 7.7))
def test_any_scale_between_agrees_within_rounding(width: int, height: int, scale: float) -> None:
    low = np.zeros((height, width, 3), np.uint8)
    high = np.zeros((round(height * scale), round(width * scale), 3), np.uint8)
    scene = together([("low", low), ("high", high)])
    assert abs(scene.width - high.shape[1]) <= scale
    assert abs(scene.height - high.shape[0]) <= scale
    assert scene.views[0].crop(scene.whole).shape == (scene.height, scene.width, 3)


def test_other_proportions_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"a \(60x40 px\) and b \(120x120 px\) have different proportions"):
        together([("a", noise(40, 60)), ("b", noise(120, 120))])


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (("a.png", "b.png"), ["a", "b"]),
        (("x/a.png", "x/a.jpg", "b.png"), ["a.png", "a.jpg", "b"]),
        (("x/a.png", "y/a.png"), ["x/a.png", "y/a.png"]),
        (("r/x/a.png", "s/x/a.png"), ["r/x/a.png", "s/x/a.png"]),
    ],
)
def test_labels_are_as_short_as_can_be(paths: tuple[str, ...], labels: list[str]) -> None:
    assert labels_of(map(Path, paths)) == labels


# -------------------------------------------------------------------------------------------------------------- reading


def test_sixteen_bits_grey_and_alpha_become_plain(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 30 * 20).reshape(20, 30).astype(np.uint16)
    Pillow.fromarray(grey).save(tmp_path / "grey16.png")
    found = read_shown(tmp_path / "grey16.png")
    np.testing.assert_allclose(found, np.repeat(grey[..., None] / 257, 3, 2), atol=0.51)
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[4:] = (10, 20, 30, 255)
    Pillow.fromarray(clear).save(tmp_path / "clear.png")
    found = read_shown(tmp_path / "clear.png")
    assert found.shape == (8, 8, 3)
    assert (found[0, 0].tolist(), found[7, 7].tolist()) == ([255, 255, 255], [10, 20, 30])


def test_a_profile_of_its_own_is_converted_and_nonsense_left_alone(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), (200, 60, 60), np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The first two colours exchanged: a profile whose red is green shows red numbers as green.
    swapped = bytearray(srgb.replace(b"sRGB", b"none").replace("sRGB".encode("utf-16-be"), "none".encode("utf-16-be")))
    swapped[swapped.index(b"rXYZ") : swapped.index(b"rXYZ") + 4] = b"----"
    swapped[swapped.index(b"gXYZ") : swapped.index(b"gXYZ") + 4] = b"rXYZ"
    swapped[swapped.index(b"----") : swapped.index(b"----") + 4] = b"gXYZ"
    nonsense = srgb[:16] + b"RGB " + b"\0" * 200
    found = {}
    for name, profile in (("srgb", srgb), ("swapped", bytes(swapped)), ("nonsense", nonsense)):
        Pillow.fromarray(pixels).save(tmp_path / f"{name}.png", icc_profile=profile)
        found[name] = read_shown(tmp_path / f"{name}.png")[0, 0].tolist()
    assert found["srgb"] == found["nonsense"] == [200, 60, 60]
    np.testing.assert_allclose(found["swapped"], [60, 200, 60], atol=3)


# --------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("box", [Area(0, 0, 96, 80), Area(0, 0, 20, 20), Area(31, 22, 21, 17), Area(76, 60, 20, 20)])
def test_a_part_is_computed_as_the_whole_would_be(box: Area) -> None:
    upscaler = Upscaler(tiny_model(), EngineOptions(device="cpu", precision="fp32"))
    low = noise(20, 24)
    whole = upscaler.upscale(low)[box.top : box.bottom, box.left : box.right]
    part = Enlarged("m", "", low, upscaler).crop(box)
    np.testing.assert_allclose(part.astype(int), whole.astype(int), atol=1)


# --------------------------------------------------------------------------------------------------------------- places


def scene_with(*spots: tuple[int, int, int], offset: int = 0) -> Scene:
    """Two slopes, one `offset` brighter, with noise of some contrast in squares of 32 px: (left, top, contrast)."""
    a = smooth(200, 300)
    b = (a + offset).astype(np.uint8)
    for i, (left, top, contrast) in enumerate(spots):
        square = b[top : top + 32, left : left + 32]
        square += (noise(32, 32, i) % (contrast + 1)).astype(np.uint8)
    return together([("a", a), ("b", b)])


def test_places_are_where_the_structure_differs() -> None:
    scene = scene_with((200, 40, 20), (40, 120, 50), offset=30)
    boxes = most_different(scene, scene.views, 2, 32)
    for box, (left, top) in zip(boxes, [(40, 120), (200, 40)], strict=True):
        assert max(abs(box.left - left), abs(box.top - top)) <= 4


def test_a_flat_offset_is_no_difference() -> None:
    a = smooth(64, 64)
    scene = together([("a", a), ("b", a + 40)])
    assert difference(scene, [a, a + 40]) == pytest.approx(0, abs=1e-3)
    assert difference(scene, [a, a ^ 8]) > 1


def grainy(low: Pixels, std: float, width: int) -> Pixels:
    """With noise in the columns up to `width`."""
    grain = np.random.default_rng(5).normal(0, std, low.shape) * (np.arange(low.shape[1]) < width)[:, None]
    return np.clip(low + grain, 0, 255).astype(np.uint8)


def two_methods(low: Pixels) -> Scene:
    """×4, bicubic and without what is finer than 2 px, which removes noise and softens edges."""
    soft = np.asarray(Pillow.fromarray(low).filter(ImageFilter.GaussianBlur(1.0)))
    size = low.shape[1] * 4, low.shape[0] * 4
    return together(
        [("low", low), ("soft", np.asarray(Pillow.fromarray(soft).resize(size, Pillow.Resampling.BICUBIC)))]
    )


def lettering(height: int, width: int) -> Pixels:
    """Grey strokes on light grey, in the right half."""
    low = np.full((height, width, 3), 190, np.uint8)
    for left in range(width // 2 + 12, width - 12, 12):
        low[10 : height - 10, left : left + 4] = 150
        low[20 : height - 10 : 24, left : left + 8] = 150
    return low


@pytest.mark.parametrize("noisy_px", [80, 160])
def test_noise_is_no_structure(noisy_px: int) -> None:
    """In a flat half that is noisy, two methods differ more than at the edges of the other half, clean or noisy."""
    scene = two_methods(grainy(lettering(100, 160), 15, noisy_px))
    for box in most_different(scene, scene.views, 2, 128):
        assert box.left >= 300
    crops = [[view.crop(box) for view in scene.views] for box in (Area(64, 100, 192, 192), Area(400, 100, 192, 192))]
    assert difference(scene, crops[0]) < difference(scene, crops[1])


def test_few_rows_are_examined_at_once_also_beside_a_tiny_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    crop = Still.crop
    heights: list[int] = []

    def noted(still: Still, box: Area) -> Pixels:
        heights.append(box.height)
        return crop(still, box)

    monkeypatch.setattr(Still, "crop", noted)
    scene = together([("thumbnail", smooth(8, 2)), ("large", smooth(2400, 600))])
    assert len(most_different(scene, scene.views, 2, 128)) == 2
    assert max(heights) <= 256


def test_a_picture_of_nothing_but_noise_has_places_too() -> None:
    scene = two_methods(grainy(np.full((60, 80, 3), 128, np.uint8), 20, 80))
    assert len(most_different(scene, scene.views, 2, 96)) == 2


@given(st.integers(20, 90), st.integers(20, 90), st.integers(16, 120), st.integers(1, 12))
def test_crops_are_inside_and_do_not_overlap(width: int, height: int, side_px: int, count: int) -> None:
    scene = together([("a", noise(height, width)), ("b", noise(height, width, 1))])
    boxes = most_different(scene, scene.views, count, side_px)
    assert 1 <= len(boxes) <= count
    covered = np.zeros((height, width), int)
    for box in boxes:
        assert (box.width, box.height) == (min(side_px, width), min(side_px, height))
        assert 0 <= box.left <= box.right <= width
        assert 0 <= box.top <= box.bottom <= height
        covered[box.top : box.bottom, box.left : box.right] += 1
    assert covered.max() == 1


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("150,100", Area(130, 80, 40, 40)),
        ("0.5,0.5", Area(130, 80, 40, 40)),
        ("1.0,1.0", Area(260, 160, 40, 40)),
        (" 0 , 0 ", Area(0, 0, 40, 40)),
        ("300,200", Area(260, 160, 40, 40)),
        (".25,1.", Area(55, 160, 40, 40)),
        ("1,1", Area(0, 0, 40, 40)),
    ],
)
def test_spots_are_px_or_fractions(text: str, box: Area) -> None:
    assert Spot.parse(text).box(scene_with(), 40) == box


@pytest.mark.parametrize("text", ["", "1", "1;2", "-1,2", "a,b", "1,2,3"])
def test_spots_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="--at expects X,Y"):
        Spot.parse(text)


# ---------------------------------------------------------------------------------------------------------------- sheet


@pytest.mark.parametrize("percent", [100, 200, 300, 400])
def test_the_sheet_shows_pixels_as_they_are(percent: int) -> None:
    scene = together([("a", noise(80, 80)), ("b", noise(80, 80, 1))])
    box = Area(9, 12, 24, 20)
    sheet = draw_sheet({"a": "", "b": ""}, [row_of(scene, box)], zoom_percent=percent)
    times = percent // 100
    for view in scene.views:
        cell = view.crop(box).repeat(times, 0).repeat(times, 1)
        windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (20 * times, 1))[..., 0]
        columns = [np.flatnonzero((windows == cell[:, i, 0]).all(-1).any(0)) for i in (0, 24 * times - 1)]
        assert columns[1][0] - columns[0][0] in range(24 * times - times, 24 * times)


def test_a_cell_that_is_missing_stays_grey() -> None:
    scene = together([("a", noise(80, 80)), ("b", noise(80, 80, 1))])
    row = row_of(scene, Area(0, 0, 40, 40))
    sheet = draw_sheet({"a": "", "b": "", "c": "no such"}, [row], zoom_percent=100, footer="×")
    assert sheet.shape[1] > draw_sheet({"a": "", "b": ""}, [row], zoom_percent=100).shape[1]
    assert (sheet == 44).all(-1).sum() > 148 * 100


# ----------------------------------------------------------------------------------------------------------------- page


def data_of(html: str) -> Any:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def picture_of(data: Any, number: int, level: int = 0, scene: int = 0) -> Pixels:
    """A picture of a page, put together from its tiles."""
    one, side = data["scenes"][scene], data["tile"] << level
    texts = one["pictures"][number]["levels"][level]
    tiles = [np.asarray(Pillow.open(io.BytesIO(base64.b64decode(text)))) for text in texts]
    columns = -(-one["width"] // side)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def test_a_small_page_keeps_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "_TILE_PX", 64)
    a, b = noise(150, 210), noise(150, 210, 1)
    html, summary = build_page("t", [Exhibit(together([("a", a), ("b", b)]), (Area(1, 2, 3, 4),))], budget_bytes=10**7)
    data = data_of(html)
    assert (data["mime"], data["pair"], data["tile"]) == ("image/png", [0, 1], 64)
    assert data["scenes"][0]["places"] == [[1, 2, 3, 4]]
    np.testing.assert_array_equal(picture_of(data, 1), b)
    halves = picture_of(data, 0, level=1)
    assert halves.shape == (75, 105, 3)
    np.testing.assert_allclose(halves, a.reshape(75, 2, 105, 2, 3).mean((1, 3)), atol=0.51)
    assert [len(level) for level in data["scenes"][0]["pictures"][0]["levels"]] == [12, 4, 1]
    assert "without loss" in summary


def test_a_heavy_page_becomes_lossy_and_then_smaller() -> None:
    scene = together([("a", noise(600, 800)), ("b", smooth(600, 800))])
    heavy, light = (build_page("t", [Exhibit(scene)], budget_bytes=size)[0] for size in (10**7, 1_600_000))
    assert data_of(light)["mime"] == "image/jpeg"
    assert len(light) < 1_650_000 < len(heavy)
    tiny, summary = build_page("t", [Exhibit(scene, (Area(100, 60, 40, 40),))], budget_bytes=200_000)
    one = data_of(tiny)["scenes"][0]
    assert one["shrunk"] > 1
    assert (one["width"], one["places"][0][0]) == (800 // one["shrunk"], 100 // one["shrunk"])
    assert f"1/{one['shrunk']} of their width" in summary
    assert len(tiny) < 250_000


def test_names_cannot_break_out_of_the_page() -> None:
    bad = '</script><img src=x onerror="alert(1)">&\x1b'
    scene = together([(bad, noise(30, 30)), ("b", noise(30, 30, 1))], name=bad)
    html, _ = build_page(bad, [Exhibit(scene)], budget_bytes=10**7)
    assert "<img" not in html
    assert html.count("</script>") == 2
    assert "\x1b" not in html
    assert data_of(html)["scenes"][0]["pictures"][0]["label"] == bad.replace("\x1b", "\ufffd")
    assert "default-src 'none'" in html
    assert not re.search(r"https?:|<link|<iframe|url\(", html)


# -------------------------------------------------------------------------------------------------------------- options


def options(**changes: Any) -> CompareOptions:
    return CompareOptions(**{"inputs": (Path("a.png"), Path("b.png")), "output": Path("s.png"), **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": ()}, "at least two pictures"),
        ({"inputs": (Path("a.png"), Path("./a.png"))}, "a.png is given twice"),
        ({"high": Path("h.png")}, "--hr is for --models"),
        ({"show_low": True}, "--lr is for --models"),
        ({"variants": 2}, "--variants is for --models"),
        ({"models": ("m",), "high": Path("h.png")}, "but there are 2; give --hr-dir"),
        ({"models": ("m",), "inputs": (Path("a"),), "high": Path("h"), "high_dir": Path("d")}, "give one of the two"),
        ({"models": ("m",), "scale": 1}, "--scale must be between 2 and 16"),
        ({"crops": 0}, "--crops must be"),
        ({"crops": 2, "at": (Spot(1, 1),)}, "give one of the two"),
        ({"crop_px": 8}, "--crop-px must be"),
        ({"zoom_percent": 500}, "--zoom must be"),
        ({"zoom_percent": 150}, "or --smooth"),
        ({"page_bytes": 0}, "--page-mb"),
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        options(**changes)


@pytest.mark.parametrize("side_px", [24, 64])
def test_of_a_large_input_only_parts_are_computed(side_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many parts as are tried, each with its halo; and those are kept in which the results differ most."""
    upscaler = Upscaler(tiny_model(), EngineOptions(device="cpu", precision="fp32"))
    low = smooth(300, 400)
    low[100:140, 200:260] = noise(40, 60)
    scene = Scene("s", 1600, 1200, (Still("bicubic", "", low, 4, 4), Enlarged("m", "", low, upscaler)))
    computed: list[int] = []
    real = upscaler.upscale
    monkeypatch.setattr(upscaler, "upscale", lambda part, *at: (computed.append(part.size // 3), real(part, *at))[1])
    monkeypatch.setattr(comparing, "_MIN_TRIES", 4)
    monkeypatch.setattr(comparing, "_TRIES", 2)
    placed, boxes = comparing._placed(scene, options(models=("m",)), 2, side_px)
    assert placed is scene
    assert len(boxes) == 2
    assert all(760 <= box.left <= 1040 and 360 <= box.top <= 560 for box in boxes)
    assert sum(computed) < low.size // 3 / 2


def test_pages_that_are_not_compared_are_reported(tmp_path: Path) -> None:
    pages = [Pillow.fromarray(noise(20, 30, seed)) for seed in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[1].save(tmp_path / "b.png")
    options = CompareOptions(
        (tmp_path / "a.tif", tmp_path / "b.png"), tmp_path / "out.png", engine=EngineOptions("cpu")
    )
    assert comparing.compare_pictures(options).notes == (f"{tmp_path / 'a.tif'}: only the first of 3 frames is read",)

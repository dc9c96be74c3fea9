"""`signs` and `compression` on pictures compressed by Pillow, with noise added by numpy."""

from __future__ import annotations

import functools
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.signs import Signs, blocking_of, dither_of, file_signs, find_signs, noise_of
from tests.imaging import samples

Array = np.ndarray[Any, Any]


@functools.cache
def photo(height: int = 256, width: int = 320, seed: int = 3) -> Array:
    """Blobs of all sizes and an edge or two: soft spots, no noise, no grid. (H, W, 3), not to be changed."""
    random = np.random.default_rng(seed)
    layers = [random.normal(0, 1, (side, side, 3)) for side in (3, 7, 19, 53, 111)]
    picture = np.full((height, width, 3), 128.0)
    for strength, layer in zip((30, 20, 14, 9, 5), layers, strict=True):
        bands = [
            Pillow.fromarray(layer[:, :, band].astype(np.float32)).resize((width, height), Pillow.Resampling.BICUBIC)
            for band in range(3)
        ]
        picture += strength * np.stack([np.asarray(band) for band in bands], -1)
    picture[height // 2 :, width // 3 : width // 2] += 40
    made = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    made.flags.writeable = False
    return made


def jpeg(pixels: Array, quality: int, **options: Any) -> bytes:
    return samples.encoded(Pillow.fromarray(pixels), "JPEG", quality=quality, **options)


def decoded(data: bytes) -> Array:
    return np.asarray(Pillow.open(io.BytesIO(data)))


def luma(pixels: Array) -> Array:
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def noisy(pixels: Array, sigma: float, seed: int = 0) -> Array:
    """The same noise in all channels, so that it is luma's."""
    added = np.random.default_rng(seed).normal(0, sigma, (*pixels.shape[:2], 1))
    return np.clip(np.rint(pixels + added), 0, 255).astype(np.uint8)


def png(pixels: Array) -> bytes:
    return samples.encoded(Pillow.fromarray(pixels), "PNG")


# JPEG


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_quality_of_every_jpeg_of_libjpeg(mode: str) -> None:
    picture = Pillow.fromarray(photo(16, 16)).convert(mode)
    for quality in range(1, 101):
        data = samples.encoded(picture, "JPEG", quality=quality)
        assert file_signs(data) == ("JPEG", quality)


def test_a_progressive_jpeg_and_one_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(photo(), 63, progressive=True, optimize=True))
    assert file_signs(path) == ("JPEG", 63)


def test_tables_of_16_bits() -> None:
    tables = [[16 * 9] * 64, [255] * 64]
    data = samples.encoded(Pillow.fromarray(photo(16, 16)), "JPEG", qtables=tables)
    wide = _segment(0xDB, b"\x10" + struct.pack(">64H", *[16 * 9] * 64))
    found = data.index(b"\xff\xdb")
    length = struct.unpack(">H", data[found + 2 : found + 4])[0]
    assert file_signs(data[:found] + wide + data[found + 2 + length :]) == file_signs(data)
    coarse = _segment(0xDB, b"\x10" + struct.pack(">64H", *[400] * 64))
    assert file_signs(data[:found] + coarse + data[found + 2 + length :])[1] in range(1, 10)


def test_the_table_is_the_one_that_the_first_component_names() -> None:
    fine, coarse = [2] * 64, [90] * 64
    picture = Pillow.fromarray(photo(16, 16))
    luma_fine = file_signs(samples.encoded(picture, "JPEG", qtables=[fine, coarse]))
    luma_coarse = file_signs(samples.encoded(picture, "JPEG", qtables=[coarse, fine]))
    assert luma_fine[1] is not None
    assert luma_coarse[1] is not None
    assert luma_fine[1] > 90 > 40 > luma_coarse[1]


def test_foreign_tables_are_weighed_by_their_mean_coarseness() -> None:
    """Annex K at scale 0.5 is quality 75; the same with every frequency a little off is still about that."""
    tables = Pillow.open(io.BytesIO(jpeg(photo(16, 16), 75))).quantization  # type: ignore[attr-defined]
    odd = [max(value + (-1 if place % 2 else 1), 1) for place, value in enumerate(tables[0])]
    data = samples.encoded(Pillow.fromarray(photo(16, 16)), "JPEG", qtables=[odd, odd])
    assert abs((file_signs(data)[1] or 0) - 75) <= 1


def test_a_thumbnail_and_a_second_picture_do_not_mislead() -> None:
    main, small = jpeg(photo(), 88), jpeg(photo(32, 32), 12)
    data = main[:2] + _segment(0xE1, b"Exif\0\0" + small) + main[2:] + small
    assert file_signs(data) == ("JPEG", 88)


def test_bytes_between_segments_are_stepped_over() -> None:
    main = jpeg(photo(16, 16), 41)
    assert file_signs(main[:2] + b"\xff\xe1\0\4ab\xff\xff\xff" + main[3:]) == ("JPEG", 41)
    assert file_signs(main[:2] + b"\xff\xe1\0\4abjunk" + main[2:]) == ("JPEG", 41)


def test_a_jpeg_that_does_not_tell_its_quality() -> None:
    main = jpeg(photo(16, 16), 41)
    assert file_signs(main[:30]) == ("JPEG", None)
    assert file_signs(b"\xff\xd8\xff" + bytes(4000)) == ("JPEG", None)
    assert file_signs(b"\xff\xd8" + b"\xff\xe0\0\0" * 50_000) == ("JPEG", None)
    renamed = main.replace(b"\xff\xdb", b"\xff\xe5")
    assert file_signs(renamed) == ("JPEG", None)


def test_a_lossless_jpeg_lost_nothing() -> None:
    main = jpeg(photo(16, 16), 41).replace(b"\xff\xc0", b"\xff\xc3")
    assert file_signs(main) == (None, None)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


# WebP


@pytest.mark.parametrize("quality", [5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 95, 100])
@pytest.mark.parametrize("method", [0, 4, 6])
def test_the_quality_of_a_webp(quality: int, method: int) -> None:
    data = samples.encoded(Pillow.fromarray(photo()), "WEBP", quality=quality, method=method)
    codec, found = file_signs(data)
    assert codec == "WebP"
    assert found is not None
    assert abs(found - quality) <= 4


def test_webp_with_alpha_metadata_and_animation() -> None:
    pixels = np.dstack([photo(64, 64), np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)])
    picture = Pillow.fromarray(pixels)
    plain = file_signs(samples.encoded(picture.convert("RGB"), "WEBP", quality=35))
    rich = samples.encoded(picture, "WEBP", quality=35, exif=samples.exif(), icc_profile=samples.srgb())
    assert b"ALPH" in rich
    assert file_signs(rich)[0] == "WebP"
    assert abs((file_signs(rich)[1] or 0) - (plain[1] or 0)) <= 4
    frames = [Pillow.fromarray(photo(64, 64, seed)) for seed in (4, 5)]
    moving = samples.encoded(frames[0], "WEBP", quality=35, save_all=True, append_images=frames[1:])
    assert b"ANMF" in moving
    assert abs((file_signs(moving)[1] or 0) - 35) <= 6


def test_lossless_webp_lost_nothing() -> None:
    picture = Pillow.fromarray(photo(64, 64))
    assert file_signs(samples.encoded(picture, "WEBP", lossless=True)) == (None, None)
    assert file_signs(samples.encoded(picture.convert("RGBA"), "WEBP", lossless=True, exact=True)) == (None, None)


def test_a_webp_that_does_not_tell_its_quality() -> None:
    data = samples.encoded(Pillow.fromarray(photo(64, 64)), "WEBP", quality=35)
    start = data.index(b"VP8 ") + 8
    assert file_signs(data[:12]) == ("WebP", None)
    assert file_signs(data[: start + 11]) == ("WebP", None)
    assert file_signs(data[: start + 14]) == ("WebP", None)
    assert file_signs(data[: start + 3] + b"abc" + data[start + 6 :]) == ("WebP", None)
    assert file_signs(data[:12] + b"ABCD\0\0\0\0" * 5000) == ("WebP", None)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "GIF"])
def test_other_formats_have_no_codec(format: str) -> None:  # noqa: A002
    assert file_signs(samples.encoded(Pillow.fromarray(photo(16, 16)), format)) == (None, None)


# Noise


@pytest.mark.parametrize("sigma", [2, 4, 8, 16, 30])
@pytest.mark.parametrize("shape", [(256, 512), (120, 80)])
def test_white_noise_is_measured_without_bias(sigma: int, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(sigma)
    found = [noise_of(random.normal(128, sigma, shape).astype(np.float32)) for _ in range(6)]
    assert np.mean(found) == pytest.approx(sigma, rel=0.06)


@pytest.mark.parametrize("sigma", [2, 4, 8, 16])
def test_noise_on_a_picture(sigma: int) -> None:
    assert noise_of(luma(noisy(photo(), sigma))) == pytest.approx(sigma, rel=0.2)


def test_clean_pictures_have_next_to_none() -> None:
    assert noise_of(luma(photo())) < 1
    assert noise_of(np.full((100, 100), 77, np.float32)) == 0
    rows, columns = np.mgrid[0:100, 0:100]
    assert noise_of((rows + columns).astype(np.float32)) == 0
    assert noise_of(np.where((rows // 20 + columns // 20) % 2, 200, 50).astype(np.float32)) == 0


def test_flat_areas_do_not_hide_noise_elsewhere() -> None:
    pixels = noisy(np.full((256, 256, 3), 120, np.uint8), 8)
    pixels[:, 60:] = 230
    assert noise_of(luma(pixels)) == pytest.approx(8, rel=0.2)


def test_clipped_parts_say_nothing() -> None:
    pixels = noisy(np.full((256, 256, 3), 120, np.uint8), 8)
    pixels[:, :128] = noisy(np.full((256, 128, 3), 253, np.uint8), 8)
    assert noise_of(luma(pixels)) == pytest.approx(8, rel=0.2)


def test_a_page_of_text_is_not_noisy() -> None:
    from PIL import ImageDraw, ImageFont

    page = Pillow.new("L", (400, 300), 255)
    ImageDraw.Draw(page).text((10, 10), "Lorem ipsum dolor\nsit amet", font=ImageFont.load_default(30), fill=60)
    assert noise_of(np.asarray(page, np.float32)) == 0
    assert noise_of(np.asarray(decoded(samples.encoded(page, "JPEG", quality=90)), np.float32)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (15, 15), (16, 16), (17, 33), (31, 32), (32, 32)])
def test_pictures_of_a_few_pixels(shape: tuple[int, int]) -> None:
    tiny = np.random.default_rng(0).integers(0, 255, shape).astype(np.float32)
    assert noise_of(tiny) >= 0
    assert blocking_of(tiny) >= 1


# Blocking


@pytest.mark.parametrize("cut", [(0, 0), (3, 5), (7, 1), (4, 4)])
@pytest.mark.parametrize("quality", [15, 30, 50])
def test_the_grid_of_an_old_jpeg(quality: int, cut: tuple[int, int]) -> None:
    pixels = decoded(jpeg(noisy(photo(), 3), quality))[cut[0] :, cut[1] :]
    assert blocking_of(luma(pixels)) > 1.2


def test_a_stronger_compression_shows_more() -> None:
    found = [blocking_of(luma(decoded(jpeg(noisy(photo(), 3), quality)))) for quality in (20, 50, 80)]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(4))
def test_clean_pictures_have_no_grid(seed: int) -> None:
    pixels = photo(seed=seed)
    assert blocking_of(luma(pixels)) < 1.1
    assert blocking_of(luma(noisy(pixels, 5))) < 1.1


@pytest.mark.parametrize("times", [2, 3, 4, 8])
@pytest.mark.parametrize("how", [Pillow.Resampling.NEAREST, Pillow.Resampling.BILINEAR, Pillow.Resampling.BICUBIC])
def test_enlarged_pictures_have_no_grid(times: int, how: Pillow.Resampling) -> None:
    large = Pillow.fromarray(photo(64, 80)).resize((80 * times, 64 * times), how)
    assert blocking_of(luma(np.asarray(large))) < 1.15


@pytest.mark.parametrize("kind", ["colour", "grey", "16 bit"])
def test_turns_of_two_colours_are_dither(kind: str) -> None:
    picture = photo() if kind != "grey" else photo()[:, :, :1]
    turns = np.where(np.indices(picture.shape[:2]).sum(0)[..., None] % 2, 90, 120) * np.ones(picture.shape, int)
    flat = np.full(picture.shape, 90)
    for pixels, least, most in ((picture, 0, 0.03), (flat, 0, 0), (turns, 1, 1)):
        exact: Array = (pixels.astype(int) * 257).astype(np.uint16) if kind == "16 bit" else pixels.astype(np.uint8)
        assert least <= dither_of(exact) <= most
    half = picture.copy()
    half[:, : half.shape[1] // 2] = turns[:, : half.shape[1] // 2]
    assert 0.3 < dither_of(half) < 1


def test_weak_noise_and_a_few_lines_are_no_dither() -> None:
    picture = np.full((128, 128, 1), 200, np.uint8)
    noisy = picture + np.random.default_rng(1).integers(0, 3, picture.shape).astype(np.uint8)
    assert dither_of(noisy) == 0
    picture[::8] = picture[:, ::16] = 0
    assert dither_of(picture) == 0, "a table"


def test_stripes_in_one_direction_are_no_grid() -> None:
    pixels = noisy(np.full((128, 128, 3), 120, np.uint8), 2)
    pixels[:, ::8] += 30
    assert blocking_of(luma(pixels)) < 1.1


# Whole files


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
def test_every_kind_of_pixel_has_the_same_noise(channels: int, depth: int, tmp_path: Path) -> None:
    grey = noisy(photo(), 6)[:, :, :1]
    colours = np.repeat(grey, 1 if channels <= 2 else 3, 2)
    alpha = np.random.default_rng(1).integers(0, 255, grey.shape, np.uint8)
    pixels = np.dstack([colours, alpha]) if channels in (2, 4) else colours
    path = tmp_path / "a.png"
    _save(pixels, depth, path)
    expected = noise_of(grey[64:, :, 0].astype(np.float32))  # from a quarter of the height
    assert find_signs(path, max_pixels=samples.MANY).noise == pytest.approx(expected, rel=0.02)


def _save(pixels: Array, depth: int, path: Path) -> None:
    import pyvips

    height, width, bands = pixels.shape
    wide = depth == 16
    data = pixels.astype(np.uint16) * 257 if wide else pixels
    image = pyvips.Image.new_from_memory(data.tobytes(), width, height, bands, "ushort" if wide else "uchar")
    names = {(1, 8): "b-w", (1, 16): "grey16", (3, 8): "srgb", (3, 16): "rgb16"}
    image.copy(interpretation=names[1 if bands <= 2 else 3, depth]).write_to_file(str(path))


def test_look_tells_all_signs() -> None:
    signs = find_signs(jpeg(photo(), 30), max_pixels=samples.MANY)
    assert (signs.codec, signs.quality) == ("JPEG", 30)
    assert signs.noise < 1
    assert signs.blocking > 1.1
    signs = find_signs(png(noisy(photo(), 8)), max_pixels=samples.MANY)
    assert (signs.codec, signs.quality) == (None, None)
    assert signs.noise == pytest.approx(8, rel=0.2)
    assert signs.grain == pytest.approx(4, rel=0.25)
    assert signs.pixels == photo().shape[0] * photo().shape[1]
    assert signs.blocking < 1.1


def _dithered(pixels: Array) -> Array:
    picture = Pillow.fromarray(pixels)
    return np.asarray(picture.quantize(palette=picture.quantize(16)).convert("RGB"))


@pytest.mark.parametrize("kind", ["noise", "old JPEG", "blocks", "dither", "one colour"])
@pytest.mark.parametrize("depth", [8, 16])
def test_what_is_under_full_transparency_does_not_count(kind: str, depth: int, tmp_path: Path) -> None:
    clean, under = photo(), photo(seed=5)
    hidden = np.zeros(clean.shape[:2], bool)
    hidden[:, 150:] = True  # not where a block begins
    hidden[:130, 40:90] = True
    if kind == "noise":
        clean, under = np.full_like(clean, 200), noisy(under, 20)  # the quietest parts decide
    elif kind in ("old JPEG", "blocks"):
        under = decoded(jpeg(noisy(under, 3), 20))
        under = under if kind == "old JPEG" else np.clip(under.astype(int) * 9 // 10, 0, 255).astype(np.uint8)
    else:
        under = np.full_like(under, 7) if kind == "one colour" else _dithered(under)
    mixed = np.where(hidden[..., None], under, clean)

    def of(alpha: Array, name: str) -> Signs:
        _save(np.dstack([mixed, alpha]), depth, tmp_path / name)
        return find_signs(tmp_path / name, max_pixels=samples.MANY)

    found = of(np.where(hidden, 0, 255).astype(np.uint8), "hidden.png")
    assert found.noise < 1
    assert found.grain < 1
    assert found.dither < 0.03
    assert found.blocking < 1.1
    assert found.earlier_quality is None
    assert found.pixels == (~hidden).sum()
    faint = of(np.where(hidden, 1, 255).astype(np.uint8), "faint.png")
    assert {
        "noise": faint.noise > 3,
        "old JPEG": faint.earlier_quality is not None,
        "blocks": faint.blocking > 1.1,
        "dither": faint.dither > 0.05,
        "one colour": faint.pixels == hidden.size,
    }[kind], faint


def test_what_is_shown_beside_full_transparency_counts(tmp_path: Path) -> None:
    hidden = np.zeros(photo().shape[:2], bool)
    hidden[:, :100] = True
    alpha = np.where(hidden, 0, 255).astype(np.uint8)

    def of(pixels: Array) -> Signs:
        black = np.where(hidden[..., None], 0, pixels)  # as most programs leave it
        return find_signs(png(np.dstack([black, alpha])), max_pixels=samples.MANY)

    assert of(noisy(photo(), 8)).noise == pytest.approx(8, rel=0.2)
    assert of(decoded(jpeg(noisy(photo(), 3), 20))).earlier_quality is not None
    assert of(decoded(jpeg(noisy(photo(), 3), 20))).blocking > 1.2
    assert of(_dithered(photo())).dither > 0.05
    bits = np.where(photo()[:, :, :1] > 128, 255, 60).repeat(3, 2).astype(np.uint8)
    assert of(bits).one_bit
    nothing = find_signs(png(np.dstack([noisy(photo(), 8), 0 * alpha])), max_pixels=samples.MANY)
    assert nothing == Signs(None, None, 0, 0, 1, 0)


def test_noise_that_was_enlarged_is_coarse_grain() -> None:
    small = Pillow.fromarray(noisy(photo(160, 200), 8))
    large = np.asarray(small.resize((400, 320), Pillow.Resampling.BICUBIC))
    signs = find_signs(png(large), max_pixels=samples.MANY)
    assert signs.grain > 4
    assert signs.grain > 3 * signs.noise
    assert find_signs(png(photo()), max_pixels=samples.MANY).grain < 1


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5000, 3), (3, 5000), (2100, 300), (70, 2000), (33, 65)])
def test_pictures_of_any_shape(width: int, height: int) -> None:
    signs = find_signs(png(np.full((height, width, 3), 90, np.uint8)), max_pixels=samples.MANY)
    assert (signs.noise, signs.grain, signs.blocking) == (0, 0, 1)


def test_no_more_is_decoded_than_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from srgan_cli.imaging import signs

    monkeypatch.setattr(signs, "_DECODED_PX", 100_000)
    for width, height in [(100, 4000), (500, 900), (3000, 500), (50_000, 900), (40, 40)]:
        top, rows = signs._strip_rows(width, height)
        assert 0 <= top <= height // 4
        assert 1 <= rows <= min(256, height)
        assert top + rows <= min(max(100_000 // width, 32), height)


def test_files_that_cannot_be_looked_at(tmp_path: Path) -> None:
    whole = jpeg(noisy(photo(), 20), 60)
    for data in (b"", b"GIF89a", b"no picture", whole[:300]):
        with pytest.raises(UnreadablePictureError):
            find_signs(data, max_pixels=samples.MANY)
    with pytest.raises(UnreadablePictureError, match="no such file"):
        file_signs(tmp_path / "none.jpg")
    with pytest.raises(UnreadablePictureError):
        file_signs(b"no picture")
    with pytest.raises(UnreadablePictureError, match="max-pixels"):
        find_signs(whole, max_pixels=100)


@pytest.mark.skipif(not samples.REAL.is_dir(), reason="needs the real pictures")
def test_cameras_files_have_a_sensible_quality() -> None:
    found = {path.name: file_signs(path) for path in sorted((samples.REAL / "camera").iterdir())}
    assert {codec for codec, _ in found.values()} == {"JPEG"}
    qualities = [quality for _, quality in found.values() if quality is not None]
    assert len(qualities) == len(found)
    assert sorted(qualities)[1] >= 60
    assert found["Ricoh_DC-3Z_(low_res).jpg"] == ("JPEG", 22)
